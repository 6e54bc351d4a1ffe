"""An SMTP server whose every answer a test can choose: the wire fake for faults."""

import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Self

DROP = "DROP"  # as a reply: close the connection instead


@dataclass(frozen=True)
class Filed:
    """A mail that the server has taken: it may have said so, or not."""

    sender: str
    mailbox: str
    content: bytes  # dots unstuffed


@dataclass
class FakeSmtp:
    """Listens on loopback. ``answer`` gets a verb and its argument; None means the usual reply.

    Verbs beside SMTP's own: ``BODY`` (at the first line of a message; `DROP` cuts
    it off there), ``DOT`` (the end of data; what is not 2xx is not filed) and
    ``FILED`` (after filing, before the 250: `DROP` loses the reply).
    """

    user: str = "drain"
    password: str = "s3cret"
    takes_all: bool = False  # as a smarthost does
    mailboxes: set[str] = field(default_factory=lambda: {"alice@example.test", "bob@example.test"})
    extensions: tuple[str, ...] = ("8BITMIME", "SMTPUTF8", "SIZE 36700160", "AUTH PLAIN LOGIN", "ENHANCEDSTATUSCODES")
    answer: Callable[[str, str], str | None] = lambda verb, argument: None
    refuse: bytes | None = None  # a mail with this in it is refused after DATA
    filed: list[Filed] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def mailbox(self, address: str) -> list[bytes]:
        """What was filed for an address."""
        with self._lock:
            return [mail.content for mail in self.filed if mail.mailbox == address]

    def count(self) -> dict[bytes, int]:
        """How often each content was filed."""
        result: dict[bytes, int] = defaultdict(int)
        with self._lock:
            for mail in self.filed:
                result[mail.content] += 1
        return result

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection, connection.makefile("rb") as lines:
            self._converse(connection, lines)
        with self._lock:
            self._open.discard(connection)

    def _converse(self, connection: socket.socket, lines: BinaryIO) -> None:  # noqa: C901 (a branch a verb)
        def say(reply: str) -> None:
            if reply == DROP:
                raise EOFError
            connection.sendall(reply.encode() + b"\r\n")

        sender, recipients, authenticated = "", list[str](), False
        say(self.answer("CONNECT", "") or "220 fake ESMTP")
        while line := lines.readline():
            command = line.decode("utf-8", "replace").rstrip("\r\n")
            verb = command.split(" ", 1)[0].upper()
            argument = command[len(verb) + 1 :]
            with self._lock:
                self.commands.append(command)
            reply = self.answer(verb, argument)
            if reply is not None and verb != "DATA":
                say(reply)
            elif verb == "EHLO":
                features = ["fake", *self.extensions]
                say("\r\n".join(f"250-{name}" for name in features[:-1]) + f"\r\n250 {features[-1]}")
            elif verb == "AUTH":
                authenticated = argument == f"PLAIN {_plain(self.user, self.password)}"
                say("235 2.7.0 ok" if authenticated else "535 5.7.8 no such login")
            elif verb == "MAIL":
                sender, recipients = argument[argument.index("<") + 1 : argument.rindex(">")], []
                say("250 2.1.0 ok" if authenticated else "530 5.7.0 log in first")
            elif verb == "RCPT":
                address = argument[argument.index("<") + 1 : argument.rindex(">")]
                known = self.takes_all or address.lower() in self.mailboxes
                recipients += [address.lower()] if known else []
                say("250 2.1.5 ok" if known else "550 5.1.1 no such user")
            elif verb == "DATA":
                say(reply or "354 go on")
                if reply is None:
                    say(self._take(lines, sender, recipients))
            elif verb == "QUIT":
                say("221 2.0.0 bye")
                return
            else:
                say("250 2.0.0 ok")

    def _take(self, lines: BinaryIO, sender: str, recipients: list[str]) -> str:
        mailbox = recipients[-1] if recipients else ""
        content: list[bytes] = []
        while (line := lines.readline()) != b".\r\n":
            if not line:
                raise EOFError
            if not content and self.answer("BODY", mailbox) == DROP:
                return DROP
            content.append(line.removeprefix(b"."))
        refused = self.refuse is not None and any(self.refuse in line for line in content)
        reply = "554 5.7.1 refused" if refused else self.answer("DOT", mailbox) or "250 2.0.0 filed"
        if not reply.startswith("2"):
            return reply
        with self._lock:
            self.filed += [Filed(sender, recipient, b"".join(content)) for recipient in recipients]
        return self.answer("FILED", mailbox) or reply


def _plain(user: str, password: str) -> str:
    import base64

    return base64.b64encode(f"\0{user}\0{password}".encode()).decode("ascii")
