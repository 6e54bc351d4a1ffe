"""The words of the command line, and which command each means."""

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import drain
from drain.errors import DrainError
from drain.text import clean

# What a timer starts every minute: all the other commands take longer to describe than an idle pass to make.
_PASSES = ("once", "run")

Command = Callable[[argparse.Namespace, Mapping[str, str]], int]

_EXIT_CODES = """\
exit codes:
  0   done (what cannot be delivered is in quarantine), nothing to do, or another drain is at work
  64  wrong use of a command; 65: what it was given holds no mail; 66: it is not there
  70  a bug in drain
  75  something waits for another try: R2, the mail server or a port is away, or mail was deferred
  77  R2 or the mail server refused the credentials
  78  the configuration is wrong, or a key is missing
doctor: 0 all ok, 1 a warning or something that could not be found out, 2 a failure
status --check: 0, 1, 2 or 3, as monitoring plugins do
"""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Runs one command; the exit code."""
    environ = os.environ if environ is None else environ
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser(passes_only=not words or words[0] in _PASSES).parse_args(words)
    try:
        return int(arguments.command(arguments, environ))
    except DrainError as error:
        print(f"drain: {clean(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away; Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK


class _Parser(argparse.ArgumentParser):
    """With the exit code of sysexits.h for wrong use."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(os.EX_USAGE, f"{self.prog}: {message}\n")


def _parser(*, passes_only: bool = False) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="drain",
        description="Pulls mail out of an R2 bucket and hands it to the mail server at home.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"drain {drain.__version__}")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, on standard output")
    parser.set_defaults(command=_command("passes.bare"))
    commands = parser.add_subparsers(prog="drain", title="commands", metavar="COMMAND")

    def add(name: str, command: str, words: str) -> argparse.ArgumentParser:
        return _add(commands, name, command, words)

    for name, command, words in (
        ("once", "passes.once", "make one pass and end (also: ONESHOT=1 drain)"),
        ("run", "passes.run", "make passes for ever (also: bare drain)"),
    ):
        pass_ = _with_json(add(name, command, words))
        if name == "once":
            pass_.add_argument("--quiet", action="store_true", help="only warnings and errors, for cron")
    if not passes_only:
        _add_others(commands, add)
    return parser


def _add_others(commands: Any, add: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """All that is no pass."""
    keygen = add("keygen", "keys.keygen", "make the key pair that mail is sealed with, and say what to do with it")
    keygen.add_argument("--rotate", action="store_true", help="make another, to take the place of the one in use")
    _add_setting_up(add)
    open_ = add("open", "keys.open_", "write the mail in one object to standard output")
    open_.add_argument(
        "object", metavar="FILE|NAME", help="a file, or an object in the bucket (the beginning of its name will do)"
    )
    words = "tell the Worker which mailboxes exist, so that it refuses others"
    publish = add("publish-recipients", "recipients.publish", words)
    publish.add_argument("--dry-run", action="store_true", help="show the list, and leave the bucket as it is")
    publish.add_argument("--remove", action="store_true", help="take the list away: nobody is refused any more")
    _add_watching(commands)
    _add_keeping(commands)
    _add_quarantine(add("quarantine", "passes.bare", "look at, release or delete mail that was set aside"))
    _add_filter(add("filter", "filter.filter_", "try the filters on a mail from disk; nothing is delivered"))
    config = add("config", "settings.show", "show every setting, secrets as ***")
    config.add_argument("--reference", action="store_true", help="what settings there are, in Markdown")
    ledger = add("ledger", "passes.bare", "bring up to date, rebuild or prune the ledger")
    ledger_commands = ledger.add_subparsers(title="commands", metavar="migrate|rebuild|prune", required=True)
    words = (
        "bring ledger, logbook and relay queue to this version's tables; any other command does so when it needs one"
    )
    _add(ledger_commands, "migrate", "ledger.migrate", words)
    _add(ledger_commands, "rebuild", "ledger.rebuild", "read a lost ledger back from processed/")
    words = "forget mails delivered longer than LEDGER_RETENTION_DAYS ago"
    _add(ledger_commands, "prune", "ledger.prune", words)
    _add_relay(
        _with_json(
            add("relay", "relay.run", "take outgoing mail on loopback and hand it to the smarthost, until SIGTERM")
        )
    )
    add("demo", "demo.demo", "show the main job with embedded servers; needs no account and no settings")


def _add_quarantine(quarantine: argparse.ArgumentParser) -> None:
    commands = quarantine.add_subparsers(title="commands", metavar="list|show|release|delete", required=True)
    list_ = _with_json(_add(commands, "list", "quarantine.list_", "what is there, and why"))
    list_.add_argument("--reason", metavar="CODE", default="", help="only what was set aside for this reason")
    show = _with_json(_add(commands, "show", "quarantine.show_", "one mail, and all that is known of why it is there"))
    show.add_argument("id", metavar="ID", help="the beginning of its id, or the name of its object")
    release = _add(commands, "release", "quarantine.release", "deliver mail; the filters are passed over")
    delete = _add(commands, "delete", "quarantine.delete", "delete mail for good")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    for command in (release, delete):
        which = _with_json(command).add_mutually_exclusive_group(required=True)
        if command is delete:
            which.add_argument("--gone", action="store_true", help="forget those whose objects somebody else deleted")
        which.add_argument("id", metavar="ID", nargs="*", default=[], help="as `list` shows it")
        which.add_argument("--reason", metavar="CODE", default="", help="all that was set aside for this reason")
        which.add_argument("--all", action="store_true", help="all that is there")


def _add_setting_up(add: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """What a person does once."""
    init = add("init", "init.init", "write drain.env and the keys, and say what to do at Cloudflare and in the DNS")
    init.add_argument("--answers", metavar="FILE", default="", help="settings in place of questions, NAME=value")
    init.add_argument("--yes", action="store_true", help="do not ask: what has neither answer nor default stays unset")
    init.add_argument("--no-doctor", action="store_true", help="do not run `drain doctor` at the end")
    init.add_argument("--steps", action="store_true", help="only say once more what to do at Cloudflare and in the DNS")
    setup = add("setup", "passes.bare", "set up the mail server on this machine for drain")
    servers = setup.add_subparsers(title="mail servers", metavar="postfix|maddy", required=True)
    words = "configuration, login and certificate, on loopback only; shows what would change, and asks"
    for name in ("postfix", "maddy"):
        server = _add(servers, name, f"setup.{name}", words)
        server.add_argument("--yes", action="store_true", help="do not ask before a file is changed")
        server.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
        server.add_argument(
            "--mailbox", metavar="ADDRESS", action="append", default=[], help="make this one too; may be repeated"
        )
        server.add_argument(
            "--outbound",
            metavar="WAY",
            choices=("relay", "smarthost", "none"),
            default=None,
            help="outgoing mail: by drain's relay, straight to the smarthost, or none. Default: as drain.env says",
        )
    maddy = servers.choices["maddy"]
    maddy.add_argument("--proot", metavar="NAME", default="", help="in this distribution of Termux' proot-distro")


def _add_watching(commands: Any) -> None:
    """What shows how things are."""
    _add_status(_with_json(_add(commands, "status", "status.status", "what is going on; asks nobody, but for --live")))
    history = _with_json(_add(commands, "history", "history.history", "what became of mails, and when"))
    history.add_argument("id", metavar="ID", nargs="?", default="", help="the beginning of an id")
    history.add_argument("--from", metavar="ADDRESS", dest="sender", default="", help="part of the envelope's sender")
    history.add_argument(
        "--to", metavar="ADDRESS", default="", help="part of the envelope's recipient, or of the mailbox"
    )
    history.add_argument("--since", metavar="DATE", default="", help="2026-11-21, or 36h, 7d: first seen since then")
    history.add_argument("--until", metavar="DATE", default="", help="first seen until then")
    history.add_argument("--message-id", metavar="ID", default="", help="a Message-ID, or its SHA-256 in hex")
    history.add_argument("--limit", metavar="N", type=int, default=50, help="the newest N (50)")
    trace = _with_json(_add(commands, "trace", "history.trace", "every step of one mail, with its time"))
    trace.add_argument("id", metavar="ID", help="the beginning of its id")
    doctor = _with_json(_add(commands, "doctor", "doctor.doctor", "check everything, and say what to do next"))
    doctor.add_argument("--only", metavar="CHECKS", default="", help="these checks, with commas")
    selftest = _with_json(
        _add(commands, "selftest", "selftest.selftest", "send a probe mail the whole way, and time each leg")
    )
    selftest.add_argument("--to", metavar="ADDRESS", default="", help="the admin mailbox, if not given")
    selftest.add_argument("--timeout", metavar="SECONDS", type=float, default=120.0, help="how long it may take (120)")


def _add_keeping(commands: Any) -> None:
    """What a person does now and then."""
    _add_replay(_add(commands, "replay", "replay.replay", "deliver mail out of processed/ once more"))
    backup = _add(commands, "backup", "backup.backup", "write all that drain knows into one file, while it runs")
    backup.add_argument("file", metavar="FILE", help="a .tar; it has to be new")
    words = "the private keys too: whoever has the file can then read all mail"
    backup.add_argument("--with-keys", action="store_true", help=words)
    restore = _add(commands, "restore", "backup.restore", "put a backup back, and compare it with processed/")
    restore.add_argument("file", metavar="FILE", help="what `drain backup` wrote")
    restore.add_argument("--yes", action="store_true", help="do not ask")
    alert = _add(commands, "alert", "passes.bare", "try how alerts reach you")
    alert_commands = alert.add_subparsers(title="commands", metavar="test", required=True)
    _with_json(_add(alert_commands, "test", "alert.test", "tell a test alert in every way that is set up"))


def _add_status(status: argparse.ArgumentParser) -> None:
    form = status.add_mutually_exclusive_group()
    form.add_argument("--check", action="store_true", help="one line and 0, 1, 2 or 3, as monitoring plugins do")
    form.add_argument("--prometheus", action="store_true", help="metrics in Prometheus' text format")
    form.add_argument("--html", metavar="FILE", default="", help="a page with curves; - for standard output")
    form.add_argument(
        "--watch", metavar="SECONDS", nargs="?", type=float, const=5.0, default=None, help="stay, and refresh"
    )
    status.add_argument("--live", action="store_true", help="ask the bucket too")


def _add_replay(replay: argparse.ArgumentParser) -> None:
    _with_json(replay).add_argument("id", metavar="ID", nargs="*", default=[], help="the beginning of an id")
    replay.add_argument("--day", metavar="DATE", default="", help="all that was delivered on that day, 2026-11-21")
    replay.add_argument("--to", metavar="ADDRESS", default="", help="only mail for this recipient")
    replay.add_argument("--yes", action="store_true", help="do not ask")


def _add_filter(command: argparse.ArgumentParser) -> None:
    _with_json(command).add_argument(
        "file", metavar="FILE|NAME", help="a mail, or an object, as a file or in the bucket; - for standard input"
    )
    command.add_argument("--filters", metavar="NAMES", default="", help="these, in place of FILTERS")
    command.add_argument("--to", metavar="ADDRESS", default="", help="the envelope's recipient")
    command.add_argument("--from", metavar="ADDRESS", dest="sender", default="", help="the envelope's sender")
    command.add_argument(
        "--ip", metavar="ADDRESS", type=_ip, default=None, help="what handed it over, if the mail does not say"
    )


def _add_relay(relay: argparse.ArgumentParser) -> None:
    parts = relay.add_subparsers(title="commands", metavar="[user|queue|suppressed]")
    user = _add(parts, "user", "relay.run", "who may log in to send mail")
    commands = user.add_subparsers(title="commands", metavar="add|remove|list", required=True)
    add = _add(
        commands,
        "add",
        "relay_user.add",
        "add a user, or give it another password; asks for it, or reads standard input",
    )
    add.add_argument("name", metavar="NAME", help="whom the mail program logs in as")
    words = "may send as this only: an address, or @domain; several with commas"
    add.add_argument("--from", metavar="ADDRESS", dest="senders", default="", help=words)
    _add(commands, "remove", "relay_user.remove", "let a user log in no more").add_argument(
        "name", metavar="NAME", help="as `list` shows it"
    )
    _with_json(_add(commands, "list", "relay_user.list_", "the users, and who they may send as"))
    queue = _add(parts, "queue", "relay.run", "what waits to be sent, and what became of the rest")
    commands = queue.add_subparsers(title="commands", metavar="list|show|retry|remove|hold", required=True)
    list_ = _with_json(_add(commands, "list", "relay.queue_list", "what waits, is being sent, or is held"))
    list_.add_argument("--all", action="store_true", help="also what was sent, came back or was removed")
    show = _with_json(_add(commands, "show", "relay.queue_show", "one mail: recipients, tries, what the upstream said"))
    show.add_argument("id", metavar="ID", help="the beginning of its id")
    for name, words in (
        ("retry", "try now what waits or is held"),
        ("remove", "delete mail for good; nobody is told"),
        ("hold", "keep mail in the queue until it is retried"),
    ):
        command = _with_json(_add(commands, name, f"relay.queue_{name}", words))
        which = command.add_mutually_exclusive_group(required=True)
        which.add_argument("id", metavar="ID", nargs="*", default=[], help="as `list` shows it")
        which.add_argument("--all", action="store_true", help="all that is there")
        if name == "remove":
            command.add_argument("--yes", action="store_true", help="do not ask")
    suppressed = _add(parts, "suppressed", "relay.run", "addresses that bounced, to which nothing is sent any more")
    commands = suppressed.add_subparsers(title="commands", metavar="list|remove", required=True)
    _with_json(_add(commands, "list", "relay.suppressed_list", "which, since when, and what was said"))
    remove = _add(commands, "remove", "relay.suppressed_remove", "let mail go there again")
    remove.add_argument("address", metavar="ADDRESS", nargs="+", help="as `list` shows it")


def _ip(text: str) -> str:
    """An IP address, for argparse."""
    import ipaddress  # noqa: PLC0415 (for one option)

    return str(ipaddress.ip_address(text))


def _add(commands: Any, name: str, command: str, words: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words)
    sub.set_defaults(command=_command(command))
    return sub


def _with_json(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    # SUPPRESS: `drain --json once` must not be undone by the default here.
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as of drain itself")
    return parser


def _command(place: str) -> Command:
    """``module.function`` of `drain.commands`, which is loaded when it is called: what it needs can be slow to load."""
    module, _, name = place.partition(".")

    def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
        gc.disable()  # what modules make stays, and to look for garbage in it takes a twentieth of the time
        command: Command = getattr(importlib.import_module(f"drain.commands.{module}"), name)
        gc.enable()
        return command(arguments, environ)

    run.__qualname__ = place
    return run
