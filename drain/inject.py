"""SMTP sessions with the mail server, or with the smarthost (RFC 5321).

One `Session` is one connection, logged in, used for many mails. It says which
side of the final dot a failure fell on, since that decides whether a mail may
be sent again: before the dot nothing was sent, after it nobody knows.
"""

import re
import smtplib
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from drain.errors import DrainError, MailServerRefused, MailServerUnavailable
from drain.login import Server, connect, log_in
from drain.text import clean

# RFC 5321 4.5.3.2
_COMMAND_SECONDS = 300.0
_BLOCK_SECONDS = 180.0
FINAL_REPLY_SECONDS = 600.0
_BLOCK_BYTES = 256 * 1024

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?= |$)")
# RCPT refusals that are about this mailbox: another may be asked for.
_NO_SUCH_MAILBOX = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
_NO_SUCH_MAILBOX_CODES = frozenset({550, 551, 553})
_CLOSING = 421
_GO_AHEAD = 354
_AUTHENTICATION_REQUIRED = frozenset({530, 538})


@dataclass(frozen=True)
class Reply:
    """What the server said to a command."""

    command: str
    code: int
    text: str

    @property
    def enhanced(self) -> str | None:
        """The enhanced status code (RFC 3463), if it gave one."""
        found = _ENHANCED.match(self.text)
        return found.group(0) if found else None

    @property
    def positive(self) -> bool:
        """2xx."""
        return 200 <= self.code < 300

    @property
    def transient(self) -> bool:
        """4xx."""
        return 400 <= self.code < 500

    @property
    def no_such_mailbox(self) -> bool:
        """Whether this, said to RCPT, is about the mailbox, so that another may be asked for.

        5.1.7, 5.1.8, 5.5.x and 5.7.x are about the sender or the session:
        servers hold those back until RCPT.
        """
        if self.transient:
            return False
        if self.enhanced is not None:
            return self.enhanced in _NO_SUCH_MAILBOX
        return self.code in _NO_SUCH_MAILBOX_CODES

    @property
    def says_nothing_of_the_mail(self) -> bool:
        """A 5xx with 5.0.0, "other undefined status": the server failed, and cannot say at what.

        Maddy answers so when its database is locked, and then to every mail.
        """
        return self.enhanced == "5.0.0"

    def __str__(self) -> str:
        return clean(f"{self.code} {self.text}")


def _hint(error: Exception, server: Server) -> str:
    """What a person can do where there is no connection, or no TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"Is {server.settings}_HOST the name in its certificate, and {server.settings}_TLS_CA_FILE right?"
    if isinstance(error, ssl.SSLError | smtplib.SMTPServerDisconnected):
        return f"Does {server.settings}_TLS fit the port? Most often 587 wants starttls, and 465 implicit."
    return f"Is it running, and are {server.settings}_HOST and {server.settings}_PORT right?"


class SessionLost(DrainError):
    """The connection broke.

    Attributes:
        after_dot: it is not known whether the mail was taken.
        reply: what the server said as it closed (421), None if it said nothing.
    """

    def __init__(self, message: str, *, after_dot: bool, reply: Reply | None = None) -> None:
        super().__init__(message)
        self.after_dot = after_dot
        self.reply = reply


class Session:
    """One connection, logged in where there is a user."""

    def __init__(self, server: Server) -> None:
        """Connects and logs in.

        Raises:
            MailServerUnavailable: no server there, no TLS where it is due, or it asks to come later.
            MailServerRefused: the login is not accepted.
        """
        self._server = server
        self._dot_sent = False
        self._dirty = False
        self.refusals = 0
        # Maddy remembers a refused sender over RSET, and the next mail gets its 553:
        # after any refusal that is not about a mailbox a fresh session is better.
        self.spent = False
        try:
            self._smtp = connect(server)
        except (OSError, smtplib.SMTPException) as error:
            raise MailServerUnavailable(
                f"The {server} cannot be used: {clean(str(error))}.",
                _hint(error, server),
            ) from error
        try:
            # Commands are small and wait for their replies: Nagle's algorithm would add 40 ms to a mail.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.user:
                log_in(self._smtp, server)
        except BaseException:
            self._smtp.close()
            raise

    @property
    def broken(self) -> bool:
        """Whether the connection is of no more use."""
        return self._smtp.sock is None

    @property
    def tls(self) -> str:
        """The version of TLS, as in ``TLSv1.3``; "" without TLS."""
        return self._smtp.sock.version() or "" if isinstance(self._smtp.sock, ssl.SSLSocket) else ""

    @property
    def extensions(self) -> tuple[str, ...]:
        """What EHLO named, in upper case."""
        return tuple(f"{name} {value}".strip().upper() for name, value in self._smtp.esmtp_features.items())

    def offers(self, extension: str) -> bool:
        """Whether EHLO named it."""
        return self._smtp.has_extn(extension)

    def size_limit(self) -> int | None:
        """The server's SIZE limit in bytes, None if it names none."""
        value = self._smtp.esmtp_features.get("size", "")
        return int(value) or None if value.isdecimal() else None

    def reset(self) -> None:
        """RSET: what came before is forgotten; shows whether the server is still there."""
        if not (reply := self._command("RSET")).positive:
            raise self._lost("RSET", OSError(str(reply)))
        self._dirty = False

    def mail(self, sender: str, size: int, *, eight_bit: bool, smtputf8: bool) -> Reply:
        """MAIL FROM, with the parameters that are offered and needed; resets what came before."""
        if self._dirty:
            self.reset()
        self._dirty = True
        self._dot_sent = False
        parameters = ""
        if self.offers("size"):
            parameters += f" SIZE={size}"
        if eight_bit and self.offers("8bitmime"):
            parameters += " BODY=8BITMIME"
        if smtputf8:
            parameters += " SMTPUTF8"
        reply = self._command(f"MAIL FROM:<{sender}>{parameters}")
        self.spent = not reply.positive
        return reply

    def rcpt(self, address: str) -> Reply:
        """RCPT TO."""
        reply = self._command(f"RCPT TO:<{address}>")
        self.refusals += not reply.positive
        self.spent = not (reply.positive or reply.no_such_mailbox)
        return reply

    def noop(self) -> Reply:
        """NOOP: whether it is still there."""
        return self._command("NOOP")

    def data(self) -> Reply:
        """DATA; 354 is the go-ahead."""
        reply = self._command("DATA")
        self.spent = reply.code != _GO_AHEAD
        return reply

    def send(self, wire: bytes | Iterable[bytes]) -> None:
        """The message as `mail.on_the_wire` makes it, or its blocks, all but the final dot."""
        try:
            self._socket.settimeout(_BLOCK_SECONDS)
            for block in [wire] if isinstance(wire, bytes) else wire:
                view = memoryview(block)
                for start in range(0, len(view), _BLOCK_BYTES):
                    self._socket.sendall(view[start : start + _BLOCK_BYTES])
        except OSError as error:
            raise self._lost("DATA", error) from error
        except BaseException:
            # Whatever is said next on this connection would be more of this mail.
            self._smtp.close()
            raise

    def send_dot(self) -> None:
        """The final dot. From here on a failure means: unknown."""
        self._require_silence("the final dot")
        self._dot_sent = True
        try:
            self._socket.sendall(b".\r\n")
        except OSError as error:
            raise self._lost("the final dot", error) from error

    def final_reply(self) -> Reply:
        """What the server says to the whole mail; waits for it up to 600 s (RFC 5321 4.5.3.2.6)."""
        reply = self._reply("the final dot", FINAL_REPLY_SECONDS)
        self._dot_sent = False
        self.spent = not reply.positive
        return reply

    def close(self) -> None:
        """QUIT, without waiting long for the answer."""
        try:
            self._socket.settimeout(5)
            self._smtp.quit()
        except (OSError, smtplib.SMTPException, SessionLost):
            pass
        self._smtp.close()

    def abort(self) -> None:
        """Breaks the connection; may be called from another thread, and wakes the one that waits."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except (OSError, SessionLost):
            pass

    @property
    def _socket(self) -> socket.socket:
        if self._smtp.sock is None:
            raise self._lost("nothing", OSError("connection closed"))
        return self._smtp.sock

    def _command(self, line: str) -> Reply:
        # `smtplib` would refuse CR and LF too; here it is a bug of ours, not input.
        if "\r" in line or "\n" in line:
            raise ValueError("line end in an SMTP command")
        verb = line.split(" ", 1)[0]
        self._require_silence(verb)
        try:
            self._socket.sendall(line.encode("utf-8") + b"\r\n")
        except OSError as error:
            raise self._lost(verb, error) from error
        reply = self._reply(verb, _COMMAND_SECONDS, go_ahead=verb == "DATA")
        if reply.code == _CLOSING:
            raise self._lost(verb, OSError(str(reply)), reply)
        if reply.code in _AUTHENTICATION_REQUIRED:
            if not self._server.user:
                raise MailServerRefused(
                    f"The {self._server} wants a login: {reply}.", f"Set {self._server.settings}_USER."
                )
            raise MailServerRefused(f"The {self._server} forgot our login: {reply}.")
        return reply

    def _reply(self, verb: str, seconds: float, *, go_ahead: bool = False) -> Reply:
        try:
            self._socket.settimeout(seconds)
            code, text = self._smtp.getreply()
        except (OSError, smtplib.SMTPException) as error:
            raise self._lost(verb, error) from error
        reply = Reply(verb, code, text.decode("utf-8", "replace"))
        if not (reply.positive or 400 <= code < 600 or (go_ahead and code == _GO_AHEAD)):
            raise self._lost(verb, OSError(f"its reply makes no sense: {reply}"))
        return reply

    def _require_silence(self, verb: str) -> None:
        """What the server said unasked would be taken for the answer to the next thing that we say."""
        file = self._smtp.file
        if file is None:
            return
        try:
            self._socket.settimeout(0)
            unasked = file.peek(1)
        except (ssl.SSLWantReadError, BlockingIOError):
            return
        except OSError as error:
            raise self._lost(verb, error) from error
        if unasked:
            raise self._lost(verb, OSError(f"it said unasked: {clean(unasked[:200].decode('utf-8', 'replace'))}"))

    def _lost(self, doing: str, error: Exception, reply: Reply | None = None) -> SessionLost:
        after = self._dot_sent
        self._smtp.close()
        words = f"The {self._server} broke off at {doing}: {clean(str(error))}."
        return SessionLost(words, after_dot=after, reply=reply)
