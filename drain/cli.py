"""The commands. Exit codes (sysexits.h) are decided here and nowhere else."""

import argparse
import contextlib
import dataclasses
import datetime
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import drain
from drain import config as configuration
from drain.errors import ConfigError, DrainError, LockHeld, NoInput, NotMail
from drain.log import Log, for_environment
from drain.text import clean

if TYPE_CHECKING:
    from drain.ledger import Ledger
    from drain.sweep import Summary

_LOCK_WAIT_SECONDS = 60.0

Command = Callable[[argparse.Namespace, Mapping[str, str]], int]

_EXIT_CODES = """\
exit codes:
  0   done (what cannot be delivered is in quarantine), nothing to do, or another drain is at work
  65  `drain open`: the object holds no mail; 66: it is not there
  70  a bug in drain
  75  something waits for another try: R2 or the mail server is away, or mail was deferred
  77  R2 or the mail server refused the credentials
  78  the configuration is wrong, or a key is missing
"""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Runs one command; the exit code."""
    environ = os.environ if environ is None else environ
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments, environ))
    except DrainError as error:
        print(f"drain: {clean(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away; Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drain",
        description="Pulls mail out of an R2 bucket and hands it to the mail server at home.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"drain {drain.__version__}")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, on standard output")
    parser.set_defaults(command=_bare)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, command: Command, words: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=words, description=words)
        sub.set_defaults(command=command)
        return sub

    for name, command, words in (
        ("once", _once, "make one pass and end (also: ONESHOT=1 drain)"),
        ("run", _run, "make passes for ever (also: bare drain)"),
    ):
        # SUPPRESS: `drain --json once` must not be undone by the default here.
        add(name, command, words).add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="as above"
        )
    keygen = add("keygen", _keygen, "make the key pair that mail is sealed with, and say what to do with it")
    keygen.add_argument("--rotate", action="store_true", help="make another, to take the place of the one in use")
    open_ = add("open", _open, "write the mail in one object to standard output")
    open_.add_argument(
        "object", metavar="FILE|NAME", help="a file, or an object in the bucket (the beginning of its name will do)"
    )
    publish = add("publish-recipients", _publish, "tell the Worker which mailboxes exist, so that it refuses others")
    publish.add_argument("--dry-run", action="store_true", help="show the list, and leave the bucket as it is")
    publish.add_argument("--remove", action="store_true", help="take the list away: nobody is refused any more")
    config = add("config", _config, "show every setting, secrets as ***")
    config.add_argument("--reference", action="store_true", help="what settings there are, in Markdown")
    ledger = add("ledger", _bare, "rebuild or prune the ledger")
    ledger_commands = ledger.add_subparsers(title="commands", metavar="rebuild|prune", required=True)
    for name, command, words in (
        ("rebuild", _ledger_rebuild, "read a lost ledger back from processed/"),
        ("prune", _ledger_prune, "forget mails delivered longer than LEDGER_RETENTION_DAYS ago"),
    ):
        ledger_commands.add_parser(name, help=words, description=words).set_defaults(command=command)
    add("demo", _demo, "show the main job with embedded servers; needs no account and no settings")
    return parser


def _bare(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config, _ = configuration.load(environ)
    return (_once if config.oneshot else _run)(arguments, environ)


def _once(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from drain import assembly, show  # noqa: PLC0415 (boto3 is slow to load, and `drain config` needs none)

    config, log = _begin(arguments, environ)
    service = assembly.service(config, log, environ)
    for_a_person = sys.stderr.isatty() and not arguments.json
    bar = show.Bar()
    if for_a_person:
        service.sweep.on_listed, service.sweep.on_result = bar.listed, bar.done
    try:
        summary = service.once()
    finally:
        bar.close()
    if for_a_person and (words := show.summary_in_words(summary)):
        print(words, file=sys.stderr)
    return exit_code(summary)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from drain import assembly  # noqa: PLC0415 (as above)

    config, log = _begin(arguments, environ)
    summary = assembly.service(config, log, environ).run()
    return os.EX_OK if summary.stopped else exit_code(summary)


def _config(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if arguments.reference:
        print(configuration.reference(), end="")
        return os.EX_OK
    config, warnings = configuration.load(environ)
    for name, value in configuration.shown(config).items():
        print(f"{name}={clean(value)}")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return os.EX_OK


def _keygen(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from drain import envfile, keygen  # noqa: PLC0415 (cryptography is slow to load)

    config, _ = configuration.load(environ, complete=False)
    env_file = envfile.find(environ) or Path("~/.config/drain/drain.env").expanduser()
    folder = config.private_key_file[0].parent if config.private_key_file else env_file.parent
    place = keygen.Place(config.private_key_file, folder, env_file, bool(config.origin_token))
    words = (
        keygen.rotate(place, datetime.datetime.now().astimezone().date()) if arguments.rotate else keygen.first(place)
    )
    print(words, end="")
    return os.EX_OK


def _open(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from drain import assembly, show  # noqa: PLC0415 (as above)

    path = Path(arguments.object)
    try:
        is_file = path.is_file()
    except OSError:  # a key can be longer than any file's name
        is_file = False
    config, _ = configuration.load(environ, complete=not is_file)
    body, metadata = _from_file(path) if is_file else _from_bucket(arguments.object, config)
    opener = assembly.opener(config)
    try:
        # A person in doubt may see what drain would not believe.
        opened = dataclasses.replace(opener, tokens=(), sealed_only=False).open(body, metadata)
    except NotMail as error:
        print(f"drain: {clean(str(error))}", file=sys.stderr)
        return os.EX_DATAERR
    try:
        opener.open(body, metadata)
    except NotMail as error:
        print(f"drain: To be taken with care, and drain would not deliver it: {clean(str(error))}", file=sys.stderr)
    print(show.envelope_in_words(opened), file=sys.stderr)
    show.mail(opened.mail, sys.stdout)
    return os.EX_OK


def _from_file(path: Path) -> tuple[bytes, Mapping[str, str]]:
    """An object's bytes; a file has no metadata."""
    try:
        return path.read_bytes(), {}
    except OSError as error:
        raise NoInput(f"{path} cannot be read: {error}.") from error


def _from_bucket(key: str, config: configuration.Config) -> tuple[bytes, Mapping[str, str]]:
    """An object's bytes and its metadata."""
    from drain import assembly  # noqa: PLC0415 (as above)

    bucket = assembly.bucket(config)
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        raise NoInput("The name is not UTF-8, and no object's name is anything else.") from None
    listed = bucket.find(key)
    fetched = None if listed is None else bucket.get(listed)
    if fetched is None:
        raise NoInput(f"There is neither a file {key} here nor an object of that name in bucket {config.r2_bucket}.")
    return fetched.body, fetched.metadata


def _publish(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from drain import assembly, recipients, show  # noqa: PLC0415 (as above)

    config, log = _begin(arguments, environ)
    bucket = assembly.bucket(config)
    if arguments.remove:
        bucket.remove(recipients.KEY)
        print(f"{recipients.KEY} is gone from bucket {config.r2_bucket}; within five minutes nobody is refused.")
        return os.EX_OK
    if not config.origin_token:
        raise ConfigError("ORIGIN_TOKEN is not set; the list is signed with it.", "`drain keygen` makes one.")
    with _locked_ledger(config, log) as ledger:
        seen = ledger.recipients()
    found, warnings = assembly.recipients(config, seen, environ)
    for warning in warnings:
        log.warning("recipients", message=warning)
    print(show.recipients_in_words(found))
    if not arguments.dry_run:
        now = datetime.datetime.now(datetime.UTC)
        body = recipients.document(found, config.origin_token[0], now)
        bucket.put(recipients.KEY, body, "text/plain")
        print(f"Published as {recipients.KEY} in bucket {config.r2_bucket}; the Worker believes it for 7 days.")
    return os.EX_OK


def _ledger_rebuild(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from drain import assembly  # noqa: PLC0415 (as above)
    from drain.rebuild import rebuild  # noqa: PLC0415

    config, log = _begin(arguments, environ)
    with _locked_ledger(config, log) as ledger:
        rebuilt = rebuild(
            assembly.bucket(config), assembly.opener(config), config.processed_prefix, ledger, time.time()
        )
    print(
        f"{rebuilt.adopted} mails taken over from {config.processed_prefix}, {rebuilt.known} were known already,"
        f" {rebuilt.unreadable} could not be opened."
    )
    if rebuilt.keyless:
        print(f"{rebuilt.keyless} of these for want of a key: put it into place and run this again.", file=sys.stderr)
    return os.EX_OK


def _ledger_prune(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config, log = _begin(arguments, environ)
    with _locked_ledger(config, log) as ledger:
        pruned = ledger.prune(time.time() - config.ledger_retention_days * 86400)
    print(f"{pruned} mails forgotten that were delivered more than {config.ledger_retention_days:g} days ago.")
    return os.EX_OK


@contextlib.contextmanager
def _locked_ledger(config: configuration.Config, log: Log) -> Iterator["Ledger"]:
    """The ledger, with no pass going on; waits a while for one to end."""
    from drain import lock  # noqa: PLC0415 (as above)
    from drain.ledger import Ledger  # noqa: PLC0415

    with (
        lock.held(config.lock_path, log, timeout_seconds=_LOCK_WAIT_SECONDS),
        contextlib.closing(Ledger(config.ledger_path)) as ledger,
    ):
        yield ledger


def _demo(_arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    from drain.demo import run  # noqa: PLC0415 (only here)

    return run()


def _begin(arguments: argparse.Namespace, environ: Mapping[str, str]) -> tuple[configuration.Config, Log]:
    config, warnings = configuration.load(environ)
    log = for_environment(environ, as_json=arguments.json, addresses=config.log_addresses)
    for warning in warnings:
        log.warning("configuration", message=warning)
    return config, log


def exit_code(summary: "Summary") -> int:
    """What one pass's end means to whoever started it."""
    if summary.bugs:
        return os.EX_SOFTWARE
    if isinstance(summary.error, LockHeld):
        return os.EX_OK
    if summary.error is not None:
        return summary.error.exit_code
    if summary.no_key:
        return ConfigError.exit_code
    return os.EX_TEMPFAIL if summary.left or summary.stopped else os.EX_OK
