"""An IMAP server whose every answer a test can choose: the wire fake for faults."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Self

# As (the end of) an answer: close the connection, say nothing more, or a byte now and then.
DROP, HANG, DRIP = b"DROP", b"HANG", b"DRIP"


@dataclass
class FakeImap:
    """Listens on loopback and takes any login.

    ``folders`` are the names, as EXAMINE says them, to the headers of their mails;
    ``listed`` is what LIST answers, by itself one line for each of these.

    ``answer`` gets a verb (``CONNECT`` for the greeting) and its argument; None means
    the usual. Else it is what is said, untagged lines first; the last gets the tag.
    """

    folders: dict[bytes, list[bytes]] = field(default_factory=lambda: {b'"INBOX"': []})
    listed: bytes | None = None
    answer: Callable[[str, bytes], bytes | None] = lambda verb, argument: None
    tls: ssl.SSLContext | None = None
    commands: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def said(self, verb: bytes) -> list[bytes]:
        """The arguments of each command of that name."""
        return [words[2] for line in self.commands if (words := line.split(b" ", 2))[1] == verb]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as lines:
                self._open.add(connection)
                self._converse(connection, lines)
        self._open.discard(connection)

    def _converse(self, connection: socket.socket, lines: BinaryIO) -> None:
        self._say(connection, self.answer("CONNECT", b"") or b"* OK ready")
        mails: list[bytes] = []
        for line in lines:
            tag, verb, argument = [*line.rstrip().split(b" ", 2), b""][:3]
            self.commands.append(b" ".join([tag, verb, argument]))
            said = self.answer(verb.decode(), argument)
            if verb == b"EXAMINE":
                mails = self.folders.get(argument, [])
            if said is None and verb == b"AUTHENTICATE":
                self._say(connection, b"+ ")
                lines.readline()
            self._say(connection, self._usual(verb, argument, mails) if said is None else said, tag + b" ")
            if verb == b"LOGOUT":
                return

    def _usual(self, verb: bytes, argument: bytes, mails: list[bytes]) -> bytes:
        if verb == b"CAPABILITY":
            return b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nOK done"
        if verb == b"LIST":
            usual = b"".join(b'* LIST () "/" %b\r\n' % name for name in self.folders)
            return (usual if self.listed is None else self.listed) + b"OK done"
        if verb == b"EXAMINE":
            return b"* %d EXISTS\r\nOK [READ-ONLY] done" % len(mails)
        if verb == b"UID" and argument.startswith(b"SEARCH"):
            value = argument.split()[-1].lower()
            found = [b"%d" % number for number, mail in enumerate(mails, 1) if value in mail.lower()]
            return b"* SEARCH " + b" ".join(found) + b"\r\nOK done"
        if verb == b"UID":
            number = int(argument.split()[1])
            mail = mails[number - 1] + b"\r\n"
            head = b"%d FETCH (UID %d BODY[HEADER.FIELDS (X-DRAIN-ID)] {%d}" % (number, number, len(mail))
            return b"* " + head + b"\r\n" + mail + b")\r\nOK done"
        return {b"LOGOUT": b"* BYE\r\nOK bye", b"AUTHENTICATE": b"OK in"}.get(verb, b"BAD what?")

    def _say(self, connection: socket.socket, words: bytes, tag: bytes = b"") -> None:
        untagged, end, last = words.rpartition(b"\r\n")
        ends = {DROP: b"", HANG: b"", DRIP: b""}
        connection.sendall(untagged + end + ends.get(last, tag + last + b"\r\n"))
        if last == DROP:
            raise ValueError
        if last == HANG:
            self._over.wait()
        while last == DRIP and not self._over.wait(0.02):
            connection.sendall(b"*")
