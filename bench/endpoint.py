"""S3 over TLS, as R2 is reached: `drain.demo.s3`'s bucket behind a server that costs little.

Its mails are made when they are asked for, so 100,000 of them, or twenty of 25 MiB, take
no room. An ETag is no MD5 of what is behind it here, which nothing that uses S3 may take
it for.
"""

import email.utils
import hashlib
import secrets
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from io import BufferedReader
from pathlib import Path
from typing import Self

from botocore.httpsession import get_cert_path

from bench.child import Child, serve
from bench.mails import BenchMail
from drain.demo.s3 import S3Server, StoredObject, _Reply, _Request
from drain.keys import read_x25519
from drain.setup import certificate

_AGE = timedelta(hours=1)
_IDLE_SECONDS = 900.0  # a warm connection of a daemon that polls every few minutes
_BLOCK_BYTES = 65536  # four records of TLS


class Endpoint(Child):
    """The server, from ``with`` on; what it needs on the disk is in *folder*.

    Attributes:
        url: ``https://127.0.0.1:PORT``; "" before.
        ca_file: the roots that boto3 would use, and the endpoint's certificate: to load it
            costs what it costs people. For ``AWS_CA_BUNDLE``.
        certificate_file: the endpoint's certificate alone. As ``SSL_CERT_FILE`` it stands
            beside the machine's own roots where they are a folder, which costs nothing to load.
        bucket, access_key_id, secret_access_key: the one bucket and the way in.
    """

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self.ca_file = folder / "roots.pem"
        self.certificate_file = folder / "endpoint.pem"
        self.bucket = "mail"
        self.access_key_id = secrets.token_hex(16)
        self.secret_access_key = secrets.token_hex(32)
        self._key_file = folder / "endpoint.key"
        super().__init__(
            "bench.endpoint",
            bucket=self.bucket,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            certificate_file=str(self.certificate_file),
            key_file=str(self._key_file),
        )

    def __enter__(self) -> Self:
        # EC P-256, as Cloudflare's.
        made = certificate.made("127.0.0.1", datetime.now(UTC))
        self.certificate_file.write_bytes(made.certificate)
        self.ca_file.write_bytes(Path(str(get_cert_path(True))).read_bytes() + b"\n" + made.certificate)
        self._key_file.touch(0o600)
        self._key_file.write_bytes(made.key)
        super().__enter__()
        self.url = f"https://127.0.0.1:{self.port}"
        return self

    def fill(self, count: int, size: int, *, sealed_for: Path | None = None, prefix: str = "pending/") -> None:
        """Lays so many mails of *size* bytes under *prefix*, an hour old, none like any that it had before.

        Sealed for the private key in *sealed_for*, or plain with their envelope in the
        metadata; the object of a sealed one is some 200 bytes longer.
        """
        self.ask("fill", count=count, size=size, key_file=str(sealed_for) if sealed_for else "", prefix=prefix)

    def empty(self) -> None:
        """Takes everything out of the bucket, and begins to count anew."""
        self.ask("empty")

    def left(self, prefix: str = "pending/") -> int:
        """How many objects are under *prefix*."""
        return int(self.ask("left", prefix=prefix))

    def requests(self) -> dict[str, int]:
        """How often each operation was asked for, since `empty`; refused requests count too."""
        return dict(self.ask("asked"))

    def connections(self) -> int:
        """How many connections were accepted, since `empty`."""
        return int(self.ask("accepted"))


class _MadeBody(bytes):
    """Stands for a body that is made when it is asked for.

    Its bytes say which one that is, and give the ETag; its length is that of the body.
    """

    mail: BenchMail
    size: int

    def __len__(self) -> int:
        return self.size


class _Server(S3Server):
    """The server in the child: a thread a connection, on which nothing but the bucket's lock is waited for."""

    def __init__(
        self, bucket: str, access_key_id: str, secret_access_key: str, certificate_file: str, key_file: str
    ) -> None:
        super().__init__(bucket, access_key_id, secret_access_key)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self._tls.load_cert_chain(certificate_file, key_file)
        self._sealing = threading.Lock()
        self._mails = 0
        self._accepted = 0
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def fill(self, count: int, size: int, key_file: str, prefix: str) -> None:
        key = read_x25519(Path(key_file)) if key_file else None
        numbers = range(self._mails, self._mails + count)
        self._mails += count
        length = BenchMail(0, size, key).object_bytes()
        written = datetime.now(UTC).replace(microsecond=0) - _AGE
        # As the Worker names them; in order, since each goes to the end of the list so.
        for name, number in sorted((hashlib.sha256(str(number).encode()).hexdigest(), number) for number in numbers):
            body = _MadeBody(f"{number} {size}".encode())
            body.mail, body.size = BenchMail(number, size, key), length
            self.objects[prefix + name] = StoredObject(body, dict(body.mail.metadata), written)

    def empty(self) -> None:
        with self.objects.lock:
            self.objects.clear()
            self.requests.clear()
            self._accepted = 0

    def left(self, prefix: str) -> int:
        with self.objects.lock:
            return sum(key.startswith(prefix) for key in self.objects.data)

    def asked(self) -> dict[str, int]:
        with self.objects.lock:
            return dict(self.requests)

    def accepted(self) -> int:
        return self._accepted

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with self.objects.lock:
                self._accepted += 1
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, plain: socket.socket) -> None:
        plain.settimeout(_IDLE_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with self._tls.wrap_socket(plain, server_side=True) as connection, connection.makefile("rb") as stream:
                while (request := _read(stream, connection)) is not None:
                    with self.objects.lock:
                        self.requests[request.operation] += 1
                    for block in self._reply(request):
                        connection.sendall(block)
        except OSError:
            plain.close()  # the client went away, or does not speak TLS as we do

    def _reply(self, request: _Request) -> Iterator[bytes | memoryview]:
        reply = self._carry_out(request)
        head = _head(reply)
        if request.method == "HEAD":
            yield head
        elif isinstance(reply.body, _MadeBody) and reply.body.mail.key:
            with self._sealing:  # a big one needs its size several times over while it is made
                body = b"".join(reply.body.mail.blocks())
            yield from _gathered([head, body])
        elif isinstance(reply.body, _MadeBody):
            yield from _gathered([head, *reply.body.mail.blocks()])
        else:
            yield from _gathered([head, reply.body])


def _gathered(blocks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes, small blocks together and big ones apart."""
    small = b""
    for block in blocks:
        if len(small) + len(block) <= _BLOCK_BYTES:
            small += block
        else:
            yield small
            small = b""
            yield from (block[at : at + _BLOCK_BYTES] for at in range(0, len(block), _BLOCK_BYTES))
    yield small


def _read(stream: BufferedReader, connection: ssl.SSLSocket) -> _Request | None:
    """The next request; None at the connection's end, and for something that is not HTTP."""
    method, _, rest = stream.readline(65536).decode("latin-1").partition(" ")
    target, _, version = rest.partition(" ")
    if not version.startswith("HTTP/1.1"):
        return None
    headers = {}
    while len(line := stream.readline(65536).decode("latin-1")) > len("\r\n"):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("expect") == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    return _Request(method, target, headers, stream.read(int(headers.get("content-length", 0))))


def _head(reply: _Reply) -> bytes:
    fields = {
        "Date": email.utils.formatdate(usegmt=True),
        "Content-Length": str(len(reply.body)),
        "Connection": "keep-alive",
        **reply.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n{lines}\r\n".encode("latin-1")


if __name__ == "__main__":
    serve(_Server)
