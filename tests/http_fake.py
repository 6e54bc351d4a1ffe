"""An HTTP server whose every answer a test can choose: the wire fake for faults."""

import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Request:
    """What came: header names in lower case, each with all its values."""

    method: str
    target: str
    headers: Mapping[str, list[str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What goes back: *body* as often as *times* says.

    ``seconds_a_byte`` drips: what ``dripping`` names, and all behind it. ``fate`` is
    instead of an answer, but for ``hang after header``: ``hang``, ``close``, ``reset``
    (RST), ``nonsense`` (no HTTP), ``deaf`` (nothing is read, no TLS is spoken),
    ``drip tls`` (a TLS record that goes on and on).
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1
    seconds_a_byte: float = 0.0
    dripping: str = "header"
    fate: str = ""

    @property
    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} X"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if "Transfer-Encoding" not in self.headers and "Content-Length" not in self.headers:
            lines.append(f"Content-Length: {len(self.body) * self.times}")
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def answer(value: object, **more: Any) -> Answer:
    """*value* as JSON, with 200."""
    return Answer(json.dumps(value).encode(), **more)


@dataclass
class FakeHttp:
    """Listens on loopback. ``answer`` gets each request, and says what goes back; ``fate`` comes before any request."""

    answer: Callable[[Request], Answer] = lambda request: Answer(b"{}")
    tls: ssl.SSLContext | None = None
    fate: str = ""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    # Not the SSLSocket's: that one is in use by another thread.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        spoken: socket.socket = connection
        try:
            if self.fate:
                self._meet(connection, self.fate)
            elif self.tls:
                spoken = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                with self._lock:
                    self._open = (self._open - {connection}) | {spoken}
                assert isinstance(spoken, ssl.SSLSocket)
                spoken.do_handshake()
                self._speak(spoken)
            else:
                self._speak(connection)
        except (OSError, ValueError):
            pass  # the other side has gone
        finally:
            with self._lock:
                self._open -= {connection, spoken}
                spoken.close()
                connection.close()

    def _speak(self, connection: socket.socket) -> None:
        request = _read(connection)
        if request is None:
            return
        with self._lock:
            self.requests.append(request)
        reply = self.answer(request)
        if reply.fate and reply.fate != "hang after header":
            self._meet(connection, reply.fate)
            return
        self._send(connection, reply.head, reply.seconds_a_byte if reply.dripping == "header" else 0)
        if reply.fate:
            self._meet(connection, "hang")
        for _ in range(reply.times):
            self._send(connection, reply.body, reply.seconds_a_byte)
        if not self.tls:  # what is still on its way must not be lost to a reset
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def _send(self, connection: socket.socket, data: bytes, seconds_a_byte: float) -> None:
        if not seconds_a_byte:
            connection.sendall(data)
            return
        for place in range(len(data)):
            connection.sendall(data[place : place + 1])
            if self._over.wait(seconds_a_byte):
                raise ValueError("over")

    def _meet(self, connection: socket.socket, fate: str) -> None:
        if fate in {"hang", "deaf"}:
            self._over.wait()
        elif fate == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fate == "nonsense":
            connection.sendall(b"220 mail.example.test ESMTP\r\n")
        elif fate == "drip tls":
            # A handshake record (RFC 8446 5.1) of 16 KiB.
            self._send(connection, b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + b"\x03" * 10_000, 0.02)
        else:
            assert fate == "close", fate


def _read(connection: socket.socket) -> Request | None:
    with connection.makefile("rb") as file:
        first = file.readline().decode("latin-1").split()
        if len(first) != 3:
            return None
        headers: dict[str, list[str]] = {}
        while (line := file.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers.setdefault(name.lower(), []).append(value.strip())
        body = file.read(int(headers.get("content-length", ["0"])[0]))
        return Request(first[0], first[1], headers, body)


def tls_server(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS with a certificate of its own for 127.0.0.1, and that certificate's file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "server.pem", folder / "server.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return context, certificate
