"""One question to an IMAP server (RFC 3501): in which folder of a mailbox a mail is.

Nothing is changed there: folders are opened with EXAMINE, and only one field of the
mails found is read.
"""

import base64
import contextlib
import imaplib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from drain.errors import DrainError, MailServerRefused, MailServerUnavailable
from drain.header import Header
from drain.login import Server, verified
from drain.stamp import HEADER
from drain.text import clean

# Far more than a person has; what is beyond them is not looked at.
_MOST_FOLDERS = 1000
_MOST_BYTES = 1024 * 1024
# RFC 3501 7.2.2. What is in the parentheses never holds one itself.
_LISTED = re.compile(rb'\(([^()]*)\) (?:"(?:[^"\\]|\\.)"|NIL) (.+)', re.DOTALL | re.IGNORECASE)
_NOT_TO_BE_OPENED = {rb"\noselect", rb"\nonexistent"}  # RFC 5258 3
_JUNK = re.compile(rb"(?:.*[/.])?(?:junk|spam)", re.IGNORECASE | re.DOTALL)
# RFC 5530 3: it is gone meanwhile, or somebody else's; no mail was filed there.
_NOT_ONES_OWN = (b"[NONEXISTENT]", b"[NOPERM]")
_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")


@dataclass(frozen=True)
class Folder:
    """A folder that can be opened. ``name`` is as the server writes it, ``flags`` in lower case."""

    name: bytes
    flags: frozenset[bytes] = frozenset()

    @property
    def rank(self) -> int:
        """The lower, the likelier new mail is there: first INBOX, then what is for junk (RFC 6154)."""
        if self.name.upper() == b"INBOX":
            return 0
        return 1 if rb"\junk" in self.flags or _JUNK.fullmatch(self.name) else 2

    @property
    def askable(self) -> bool:
        """Whether its name can be said: imaplib has no literals here."""
        return self.name.isascii() and not any(byte in self.name for byte in b"\r\n\0")

    @property
    def quoted(self) -> str:
        """Its name as a quoted string."""
        return '"' + self.name.decode("ascii").replace("\\", "\\\\").replace('"', '\\"') + '"'

    def __str__(self) -> str:
        return clean(_SHIFTED.sub(_unshifted, self.name.decode("utf-8", "replace")), 200)


def find(server: Server, value: str, seconds: float) -> str | None:
    """The folder that has a mail whose uppermost ``X-Drain-Id`` is *value*; None: no folder has.

    What stands lower in a mail is the sender's, or of an earlier way through drain.

    Args:
        server: with the login of the mailbox.
        value: 64 hex digits.
        seconds: for everything together.

    Raises:
        MailServerUnavailable, MailServerRefused, ConfigError: it cannot be said.
    """
    with _session(server, seconds) as imap:
        listed = sorted(_folders(imap, server), key=lambda folder: folder.rank)
        looked_at = listed[:_MOST_FOLDERS]
        # INBOX again at the end: a person may say "no junk" just now.
        again = looked_at[:1] if len(looked_at) > 1 else []
        unread = [str(folder) for folder in listed[_MOST_FOLDERS:]]
        for folder in [*looked_at, *again]:
            found = _has(imap, folder, value)
            if found:
                return str(folder)
            if found is None:
                unread.append(str(folder))
        if unread:
            raise MailServerUnavailable(f"The {server} does not open {len(unread)} folders, such as {unread[0]!r}.")
        return None


def try_login(server: Server, seconds: float) -> int:
    """Logs in and lists the folders; how many there are.

    Raises:
        MailServerUnavailable, MailServerRefused, ConfigError: that failed.
    """
    with _session(server, seconds) as imap:
        return len(_folders(imap, server))


class _Alarm:
    """Shuts a connection down when its time is up, whatever waits on it.

    A time limit on a socket bounds each read alone, so that a server which sends a
    byte now and then holds its caller for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.rung = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._ring)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, connection: socket.socket) -> None:
        """From now on this one."""
        self._socket = connection
        if self.rung:  # before there was anything to shut down
            connection.close()
            raise TimeoutError

    def stop(self) -> None:
        """It is not needed any more."""
        self._timer.cancel()

    def _ring(self) -> None:
        self.rung = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Not the SSLSocket's: that one is in use by another thread.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Connection(imaplib.IMAP4):
    """A connection that an alarm watches, under TLS from its first byte where it has a *tls*."""

    def __init__(self, server: Server, seconds: float, alarm: _Alarm, tls: ssl.SSLContext | None) -> None:
        self._alarm = alarm
        self._tls = tls
        super().__init__(server.host, server.port, seconds)

    def _create_socket(self, timeout: float) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_hostname=self.host)
        self._alarm.watch(connection)
        return connection

    def read(self, size: int) -> bytes:
        """A literal, which is one field or the name of a folder."""
        if size > _MOST_BYTES:
            raise self.abort(f"announced {size} bytes at once")
        return super().read(size)


@contextlib.contextmanager
def _session(server: Server, seconds: float) -> Iterator[_Connection]:
    """A connection that is logged in; what fails is said as one of ours."""
    alarm = _Alarm(seconds)
    imap: _Connection | None = None
    try:
        implicit = server.tls == "implicit"
        imap = _Connection(server, seconds, alarm, verified(server) if implicit else None)
        if server.tls == "starttls":
            imap.starttls(verified(server))
            alarm.watch(imap.sock)
        _log_in(imap, server)
        yield imap
        with contextlib.suppress(OSError, imaplib.IMAP4.error):  # what was asked is known
            imap.logout()
    # ValueError: a number or a letter that IMAP does not have.
    except (OSError, imaplib.IMAP4.error, ValueError) as error:
        raise _in_words(error, server, seconds, late=alarm.rung) from error
    finally:
        alarm.stop()
        if imap is not None:
            with contextlib.suppress(OSError):
                imap.shutdown()


def _log_in(imap: _Connection, server: Server) -> None:
    # RFC 3501 11.1: every server has it, where it lets one in at all. LOGIN takes ASCII only.
    if "AUTH=PLAIN" not in imap.capabilities:
        raise MailServerRefused(
            f"The {server} offers no AUTH=PLAIN.",
            "Without TLS many do not: set VERIFY_IMAP_TLS=starttls or implicit."
            if server.tls == "none"
            else "Is its port right?",
        )
    token = f"\0{server.user}\0{server.password.reveal()}".encode()
    try:
        imap.authenticate("PLAIN", lambda _: token)
    except imaplib.IMAP4.abort:
        raise
    except imaplib.IMAP4.error as error:
        raise MailServerRefused(
            f"The {server} refused the login of {clean(server.user, 200)}: {clean(str(error), 200)}.",
            "Check VERIFY_IMAP_LOGINS_FILE.",
        ) from error


def _folders(imap: _Connection, server: Server) -> list[Folder]:
    """Those that can be opened."""
    status, answer = imap.list('""', '"*"')
    if status != "OK":
        raise MailServerUnavailable(f"The {server} does not list the folders of {clean(server.user, 200)}.")
    found = []
    for item in answer:
        # What follows a literal stands in an item of its own, and is empty.
        line, literal = item if isinstance(item, tuple) else (item, None)
        listed = _LISTED.fullmatch(line or b"")
        if listed is None:
            continue
        flags = frozenset(listed[1].lower().split())
        name = listed[2] if literal is None else literal
        if literal is None and name.startswith(b'"'):
            name = re.sub(rb"\\(.)", rb"\1", name[1:-1])
        if not flags & _NOT_TO_BE_OPENED:
            found.append(Folder(name, flags))
    return found


def _has(imap: _Connection, folder: Folder, value: str) -> bool | None:
    """Whether that mail is in the folder; None: it cannot be opened."""
    if not folder.askable:
        return None
    status, answer = imap.select(folder.quoted, readonly=True)  # EXAMINE
    if status != "OK":
        return False if (answer[0] or b"").startswith(_NOT_ONES_OWN) else None
    if answer[0] == b"0":
        return False
    # SEARCH finds part of a value too, and in any line of that name.
    status, (numbers, *_) = imap.uid("SEARCH", "HEADER", HEADER, value)
    if status != "OK" or numbers is None:
        return None
    for number in numbers.split():
        status, fields = imap.uid("FETCH", number.decode("ascii"), f"(BODY.PEEK[HEADER.FIELDS ({HEADER})])")
        if status != "OK":
            return None
        for item in fields:
            if isinstance(item, tuple) and Header.of(item[1]).get(HEADER) == value:
                return True
    return False


def _unshifted(part: re.Match[str]) -> str:
    """Modified UTF-7 (RFC 3501 5.1.3), for a person to read."""
    if not part[1]:
        return "&"
    packed = part[1].replace(",", "/")
    return base64.b64decode(packed + "=" * (-len(packed) % 4)).decode("utf-16-be", "replace")


def _in_words(error: Exception, server: Server, seconds: float, *, late: bool) -> DrainError:
    """What went wrong, and what can be done."""
    if late or isinstance(error, TimeoutError):
        words, hint = f"did not answer within {seconds:g} s", "Is it overloaded, or is its port right?"
    elif isinstance(error, ssl.SSLCertVerificationError):
        words = f"has a certificate that is not believed: {clean(error.verify_message, 200)}"
        hint = "Put it, or its CA's, into VERIFY_IMAP_TLS_CA_FILE."
    elif isinstance(error, ssl.SSLError):
        words = f"cannot speak TLS with us: {clean(error.reason or str(error), 200).replace('_', ' ').lower()}"
        hint = "Is VERIFY_IMAP_TLS right for its port?"
    elif isinstance(error, ConnectionRefusedError):
        words, hint = "refuses connections", "Is it running, and are VERIFY_IMAP_HOST and VERIFY_IMAP_PORT right?"
    elif isinstance(error, OSError):
        words, hint = f"cannot be reached: {clean(error.strerror or str(error), 200)}", "Check VERIFY_IMAP_HOST."
    else:
        words, hint = f"broke off, or is no IMAP server: {clean(str(error), 200)}", ""
    return MailServerUnavailable(f"The {server} {words}.", hint)
