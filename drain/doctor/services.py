"""What drain asks or is asked beside the bucket and the mail server.

The filters, the upstream, the ways out that alerts take, the mailboxes over IMAP, and the
relay's own listener. Nothing is sent and nobody is alerted.
"""

import os
import shutil
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from urllib.parse import urlsplit

from drain import login
from drain.doctor import connection
from drain.doctor.bounded import bounded
from drain.doctor.finding import Finding, Level
from drain.doctor.say import Say
from drain.errors import DrainError
from drain.filters import Filter, FilterFailed
from drain.login import Server
from drain.mailboxes import Mailboxes
from drain.setting import Secret
from drain.text import clean
from drain.upstreams import Upstream

# A model on a phone takes its time; FILTER_TIMEOUT bounds it otherwise.
_FILTER_SECONDS = 150.0
_UPSTREAM_SECONDS = 120.0
_TCP_SECONDS = 10.0
_SHELL_SECONDS = 10.0
# With one of these it is for the shell to say what the first word is.
_SHELL_SIGNS = frozenset("$`\"'\\~=*?[](){}<>|&;#!")


def filters(filters_: Iterable[Filter], *, seconds: float = _FILTER_SECONDS) -> Iterator[Finding]:
    """Whether the service behind each filter is there; *seconds* for each."""
    return chain.from_iterable(bounded("filters", seconds, _filter(one)) for one in filters_)


def _filter(one: Filter) -> Iterator[Finding]:
    say = Say("filters")
    probe = getattr(one, "probe", None)
    if probe is None:
        yield _unasked(say, one)
        return
    try:
        answer = probe()
    except FilterFailed as failed:
        yield say.failure(f"{one.name}: {failed.args[0]}", failed.hint or "Is its service running?")
        return
    for line in str(answer).splitlines():
        # As `zones.Trouble` has it: one list of several that says nothing.
        if "cannot be relied on" in line:
            yield say.warning(f"{one.name}: {line}", "The other lists are asked; this one counts for nothing.")
        else:
            yield say.ok(f"{one.name}: {line}")


def _unasked(say: Say, one: Filter) -> Finding:
    """A filter that asks nobody, or that can be asked about a mail only."""
    if not one.timeout_seconds:
        return say.ok(f"{one.name}: asks nobody.")
    url = str(getattr(one, "url", ""))
    if url and (why := _unreachable(url)):
        return say.failure(f"{one.name}: its service at {_host(url)} cannot be reached: {why}.", "Is it running?")
    return say.unknown(
        f"{one.name}: its service can be asked about a mail only.", "`drain filter FILE` shows it one, and its answer."
    )


def upstream(upstream_: Upstream, *, seconds: float = _UPSTREAM_SECONDS) -> Iterator[Finding]:
    """Whether it takes our login."""
    return bounded("upstream", seconds, _upstream(upstream_))


def _upstream(upstream_: Upstream) -> Iterator[Finding]:
    say = Say("upstream")
    try:
        yield say.ok(upstream_.probe())
    except DrainError as error:
        yield say.failure(str(error.args[0]), error.hint or "Check RELAY_UPSTREAM and the settings that belong to it.")
    finally:
        upstream_.rest()


def outlets(
    command: str, urls: Mapping[str, Secret], *, mail: bool = False, seconds: float = _UPSTREAM_SECONDS
) -> Iterator[Finding]:
    """What can be said of the ways that alerts take without alerting anybody.

    *command* is MAIL_ALERT_CMD, *urls* the addresses by their settings' names, *mail* is ALERT_MAIL.
    """
    return bounded("alerts", seconds, _outlets(command, urls, mail=mail))


def _outlets(command: str, urls: Mapping[str, Secret], *, mail: bool) -> Iterator[Finding]:
    say = Say("alerts")
    used = {name: url.reveal() for name, url in urls.items() if url}
    if not (command or used or mail):
        yield say.warning(
            "Nobody is told when something is wrong.",
            "Set MAIL_ALERT_CMD, NTFY_URL, ALERT_WEBHOOK_URL, HEALTHCHECK_URL or ALERT_MAIL; `drain alert test` tries it.",
        )
    if command:
        yield _command(say, command)
    for name, url in used.items():
        # The address itself is a secret: whoever has it can write there.
        if why := _unreachable(url):
            yield say.warning(f"{name}: {_host(url)} cannot be reached: {why}.", "If this machine is online, check it.")
        else:
            yield say.ok(f"{name}: {_host(url)} can be reached; `drain alert test` sends something.")
    if mail and not (command or used):
        words = "ALERT_MAIL alone: nobody is told while the mail server, or this machine, is away."
        yield say.warning(words, "Set MAIL_ALERT_CMD, NTFY_URL, ALERT_WEBHOOK_URL or HEALTHCHECK_URL too.")
    elif mail:
        yield say.ok("ALERT_MAIL: alerts go to the admin mailbox too, as long as the mail server is there.")


def _command(say: Say, command: str) -> Finding:
    """What the shell makes of it, short of running it."""
    read = _shell("-n", "-c", command)
    if read is None:
        return say.unknown("Whether MAIL_ALERT_CMD can run is not known: there is no shell, or it does not end.")
    if read.returncode:
        words = clean(read.stderr.decode("utf-8", "replace"), 200).strip()
        return say.failure(f"MAIL_ALERT_CMD is nothing that a shell can read: {words}.", "Check its quotes.")
    first = command.split(maxsplit=1)[0] if command.split() else ""
    if not first or _SHELL_SIGNS & set(first):
        return say.ok("MAIL_ALERT_CMD is a command line; `drain alert test` runs it.")
    if not _is_command(first):
        return say.warning(
            f"MAIL_ALERT_CMD begins with {clean(first, 100)}, which is no command here.",
            "Give its whole path, or install it, or make it executable (chmod +x).",
        )
    return say.ok(f"MAIL_ALERT_CMD begins with {clean(first, 100)}, which is there; `drain alert test` runs it.")


def _is_command(word: str) -> bool:
    if shutil.which(word):
        return True
    if os.sep in word:
        return False
    builtin = _shell("-c", 'command -v "$1"', "sh", word)
    return builtin is not None and not builtin.returncode


def _shell(*arguments: str) -> "subprocess.CompletedProcess[bytes] | None":
    """What the shell says that would run the command; with these *arguments* it runs nothing of the person's."""
    try:
        return subprocess.run(  # noqa: S603 (as above)
            ["sh", *arguments],  # noqa: S607 (Termux has no /bin/sh)
            capture_output=True,
            timeout=_SHELL_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def imap(mailboxes: Mailboxes, any_mailbox: str, *, seconds: float = _UPSTREAM_SECONDS) -> Iterator[Finding]:
    """Whether the logins of VERIFY_IMAP_LOGINS_FILE are good; *any_mailbox* is tried where there is one for all."""
    return bounded("imap", seconds, _imap(mailboxes, any_mailbox))


def _imap(mailboxes: Mailboxes, any_mailbox: str) -> Iterator[Finding]:
    say = Say("imap")
    failures = mailboxes.probe(any_mailbox)
    if not failures:
        yield say.warning(
            "There is no login for any mailbox.", "Put one into VERIFY_IMAP_LOGINS_FILE, or set no VERIFY_IMAP_HOST."
        )
    for mailbox, why in failures.items():
        if why:
            refused = "refused the login" in why
            hint = "Check VERIFY_IMAP_LOGINS_FILE." if refused else "Check VERIFY_IMAP_HOST, _PORT and _TLS."
            yield say.failure(f"{mailbox} cannot be looked into: {why}", hint)
        else:
            yield say.ok(f"{mailbox} can be looked into.")


def relay(host: str, port: int, *, tls: str, certificate: bool) -> Iterator[Finding]:
    """Whether drain's own relay listens there; *tls* as RELAY_TLS, which holds where it has a *certificate*."""
    way = tls if certificate else "none"
    # Its certificate is one for its clients: here it is enough that it is not over.
    server = Server(host, port, "", Secret(""), way, "", name="relay", settings="RELAY", check=lambda _connection: None)
    return bounded("relay", _UPSTREAM_SECONDS, _relay(server))


def _relay(server: Server) -> Iterator[Finding]:
    say = Say("relay")
    start = "Is `drain run` running with RELAY_ENABLED=true, or `drain relay`? Its log says why it does not listen."
    reached = connection.reached(say, server)
    if reached.level is not Level.OK:
        yield say.failure(reached.words, start)
        return
    try:
        smtp = login.connect(server)
    except DrainError as error:
        yield say.failure(str(error.args[0]), "Start drain again: it may run with other settings, or not be drain.")
        return
    except (OSError, smtplib.SMTPException) as error:
        yield say.failure(f"The {server} cannot be used: {clean(str(error))}.", "Is it drain that has this port?")
        return
    try:
        if not smtp.has_extn("auth"):
            yield say.failure(f"The {server} offers no login.", "Is it drain that has this port?")
            return
        yield say.ok(f"The {server} listens and offers a login.")
        if isinstance(smtp.sock, ssl.SSLSocket):
            yield connection.certificate(say, smtp.sock, "Renew RELAY_TLS_CERT_FILE, and start drain again.")
    finally:
        smtp.close()


def _host(url: str) -> str:
    """Host and port of *url*, and no more of it."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return clean(f"{parts.hostname}:{port}", 200)


def _unreachable(url: str) -> str:
    """Why nobody answers at *url*, "" if somebody does; a proxy is asked in its place."""
    from requests.utils import get_environ_proxies  # noqa: PLC0415 (it costs time)

    parts = urlsplit(get_environ_proxies(url).get(urlsplit(url).scheme) or url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), _TCP_SECONDS).close()
    except (socket.gaierror, UnicodeError):
        return "its name is not found"
    except TimeoutError:
        return f"no answer within {_TCP_SECONDS:g} s"
    except OSError as error:
        return clean(error.strerror or str(error), 200)
    return ""
