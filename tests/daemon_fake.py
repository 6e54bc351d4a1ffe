"""A daemon whose every word a test can choose: the wire fake for the faults of spamd and clamd."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

# What a test makes of a connection; it is closed afterwards.
Conversation = Callable[[socket.socket], None]


class FakeDaemon:
    """Listens on loopback, or on a Unix socket where a path is given."""

    def __init__(self, converse: Conversation, path: Path | None = None) -> None:
        self._converse = converse
        if path is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
            self.place = str(path)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.place.rpartition(":")[2])

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._converse(connection)
        with self._lock:
            self._open.discard(connection)


def read_spamc(connection: socket.socket) -> bytes:
    """A whole request of spamd's protocol: all until the other side has said its last."""
    request = b""
    while piece := connection.recv(65536):
        request += piece
    return request


def read_instream(connection: socket.socket) -> tuple[bytes, bytes]:
    """A command of clamd's, and what was streamed after it."""
    with connection.makefile("rb") as wire:
        command = b""
        while not command.endswith(b"\0"):
            command += wire.read(1)
        body = b""
        while command == b"zINSTREAM\0" and (size := struct.unpack(">I", wire.read(4))[0]):
            body += wire.read(size)
    return command, body


def wait_for_the_end(connection: socket.socket) -> None:
    """Says nothing more until the other side has gone."""
    while connection.recv(65536):
        pass


def reset(connection: socket.socket) -> None:
    """Breaks the connection with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
