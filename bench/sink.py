"""An SMTP server that takes mail after AUTH, and keeps of each its SHA-256 and its Message-ID."""

import asyncio
import base64
import binascii
import hashlib
import re
import secrets
import socket
import threading

from bench.child import Child, serve

_SIZE_LIMIT = 33_554_432  # Maddy's default
_END = b"\r\n.\r\n"
_MESSAGE_ID = re.compile(rb"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)


class Sink(Child):
    """The server, from ``with`` on."""

    def __init__(self) -> None:
        self.user = "bench@example.test"
        self.password = secrets.token_hex(16)
        super().__init__("bench.sink", user=self.user, password=self.password)

    def taken(self) -> int:
        """How many mails it has taken, since `forget`."""
        return int(self.ask("taken"))

    def mails(self) -> list[tuple[str, str]]:
        """SHA-256 in hex and Message-ID ("" for none) of each, in the order in which they came, since `forget`."""
        return [(digest, message_id) for digest, message_id in self.ask("mails")]

    def forget(self) -> None:
        """Begins to count anew."""
        self.ask("forget")


class _Server:
    """The server in the child; its connections are its loop's thread's."""

    def __init__(self, user: str, password: str) -> None:
        self.login = (user, password)
        self.kept: list[tuple[str, str]] = []
        self._loop = asyncio.new_event_loop()
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = listener.getsockname()[1]
        self._loop.run_until_complete(self._loop.create_server(lambda: _Session(self), sock=listener))
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def taken(self) -> int:
        return len(self.kept)

    def mails(self) -> list[tuple[str, str]]:
        return self.kept

    def forget(self) -> None:
        self.kept = []


class _Session(asyncio.Protocol):
    """One connection (RFC 5321): commands a line each, and after DATA a mail up to its final dot."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._incoming = bytearray()
        self._searched = 0  # no end of a mail begins before
        self._in_data = False
        self._logged_in = False
        self._sender = False
        self._recipients = 0
        self._answers: list[str] = []  # to AUTH, so far
        self._mechanism = ""  # of an AUTH that is under way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # asyncio does so only for sockets that say their protocol, which an accepted one does not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._say("220 sink.test ESMTP")

    def data_received(self, data: bytes) -> None:
        self._incoming += data
        while self._mail() if self._in_data else self._line():
            pass

    def _say(self, *lines: str) -> None:
        # All lines of a reply but the last have a hyphen after the code.
        text = "".join(f"{line[:3]}-{line[4:]}\r\n" for line in lines[:-1]) + f"{lines[-1]}\r\n"
        self._transport.write(text.encode("ascii"))

    def _line(self) -> bool:
        """Answers the next command, if all of it is here."""
        end = self._incoming.find(b"\r\n")
        if end < 0:
            return False
        line = self._incoming[:end].decode("utf-8", "replace")
        del self._incoming[: end + 2]
        if self._mechanism:
            self._authenticate(line)
        else:
            verb, _, argument = line.partition(" ")
            self._command(verb.upper(), argument)
        return True

    def _mail(self) -> bool:
        """Takes the mail, if all of it is here."""
        end = self._incoming.find(_END, self._searched)
        if end < 0:
            self._searched = max(0, len(self._incoming) - len(_END) + 1)
            return False
        # The first line end is DATA's own: a mail may have none.
        content = bytes(self._incoming[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]
        del self._incoming[: end + len(_END)]
        header = content[: content.find(b"\r\n\r\n") + 2]
        found = _MESSAGE_ID.search(header)
        message_id = found[1].decode("ascii", "replace") if found else ""
        self._server.kept.append((hashlib.sha256(content).hexdigest(), message_id))
        self._reset()
        self._say("250 2.0.0 Taken")
        return True

    def _command(self, verb: str, argument: str) -> None:
        match verb:
            case "EHLO":
                offers = ("250 8BITMIME", "250 AUTH PLAIN LOGIN", "250 ENHANCEDSTATUSCODES")
                self._reset()
                self._say("250 sink.test", f"250 SIZE {_SIZE_LIMIT}", *offers)
            case "HELO":
                self._reset()
                self._say("250 sink.test")
            case "AUTH":
                mechanism, _, initial = argument.partition(" ")
                self._mechanism = mechanism.upper()
                self._authenticate(initial or None)
            case "NOOP":
                self._say("250 2.0.0 OK")
            case "RSET":
                self._reset()
                self._say("250 2.0.0 OK")
            case "QUIT":
                self._say("221 2.0.0 Bye")
                self._transport.close()
            case "MAIL" | "RCPT" | "DATA":
                self._transaction(verb)
            case _:
                self._say("502 5.5.1 Unknown command")

    def _transaction(self, verb: str) -> None:
        if not self._logged_in:
            self._say("530 5.7.0 Log in first")
        elif verb == "MAIL" and not self._sender:
            self._sender = True
            self._say("250 2.1.0 OK")
        elif verb == "RCPT" and self._sender:
            self._recipients += 1
            self._say("250 2.1.5 OK")
        elif verb == "DATA" and self._recipients:
            self._in_data = True
            self._incoming[:0] = b"\r\n"
            self._searched = 0
            self._say("354 Go ahead")
        else:
            self._say("503 5.5.1 Not now")

    def _reset(self) -> None:
        self._in_data = self._sender = False
        self._recipients = 0

    def _authenticate(self, answer: str | None) -> None:
        """One step of AUTH (RFC 4954): what the client says next, None where it has yet to be asked."""
        if answer is not None:
            self._answers.append(_decoded(answer))
        given = self._answers[-1].split("\0")[1:] if self._mechanism == "PLAIN" and self._answers else self._answers
        wanted = 1 if self._mechanism == "PLAIN" else 2
        if self._mechanism not in {"PLAIN", "LOGIN"}:
            self._say("504 5.5.4 Unknown mechanism")
        elif len(self._answers) < wanted:
            # RFC 4616 asks nothing; LOGIN's questions are "Username:" and "Password:".
            question = "" if wanted == 1 else ("Username:", "Password:")[len(self._answers)]
            self._say(f"334 {base64.b64encode(question.encode()).decode()}")
            return
        elif tuple(given) == self._server.login:
            self._logged_in = True
            self._say("235 2.7.0 Welcome")
        else:
            self._say("535 5.7.8 Wrong user or password")
        self._mechanism = ""
        self._answers = []


def _decoded(answer: str) -> str:
    try:
        return base64.b64decode(answer).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


if __name__ == "__main__":
    serve(_Server)
