"""One request to a daemon, and its answer: over TCP or a Unix socket, in a limited time.

spamd and clamd are asked alike, one connection for each request. A time is for
the whole of it, from the name's address to the answer's end, and not for each
read; an answer is read up to a limit.
"""

import contextlib
import queue
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from drain.filters.verdict import FilterFailed
from drain.text import clean

_PLACE = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\[\]:/\s]+)):([0-9]{1,5})", re.ASCII)
_READ_BYTES = 64 * 1024
# Linux queues so many connections as the daemon asked for (Debian's clamd: 15), and says EAGAIN for more.
_BUSY_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Daemon:
    """A daemon: its name, where it listens, and the settings that say so (in words, for hints).

    ``place`` is ``host:port``, ``[address]:port`` or the absolute path of a Unix socket.
    A name that has several addresses is tried at all of them, in the system's order:
    ``localhost`` can be ``::1`` first, where a daemon on 127.0.0.1 does not listen.

    Raises:
        ValueError: the place is none of these; says what would be right.
    """

    program: str
    place: str
    settings: str

    def __post_init__(self) -> None:
        _parsed(self.place)

    def __str__(self) -> str:
        return f"{self.program} at {clean(self.place, 200)}"

    def ask(self, request: Iterable[bytes], seconds: float, *, limit: int, end: bytes = b"") -> bytes:
        """Sends the pieces of a request, and returns the answer.

        It ends with the byte *end*, which is not returned, or, where that is empty,
        with the connection; then it is for the caller to see whether it is whole. An
        answer that came before all of the request was sent is an answer too.

        Args:
            request: what is sent, in pieces.
            seconds: for everything together.
            limit: bytes that an answer may have.
            end: one byte, or none.

        Raises:
            FilterFailed: there was no answer, half of one, or one of more than *limit* bytes.
        """
        deadline = time.monotonic() + seconds
        with self._failures("take the connection", seconds):
            channel = _connected(self.place, deadline)
        with channel:
            broken: OSError | None = None
            with self._failures("take all of the request", seconds):
                try:
                    _send(channel, request, deadline, half_close=not end)
                except (BrokenPipeError, ConnectionResetError) as error:
                    broken = error  # perhaps after an answer: clamd says that a mail is too large, and closes
            with self._failures("answer", seconds):
                answer = _answer(channel, deadline, limit, end)
        if len(answer) > limit:
            raise self.failed(f"answered with more than {limit:,} bytes.", self._is_it, down=False)
        if not answer and broken is not None:
            raise self.failed(f"broke off while it was asked: {broken.strerror}.", self._log, down=False)
        if not answer:
            raise self.failed("closed the connection without an answer.", self._log, down=False)
        if end and end not in answer:
            raise self.failed(f'broke off in its answer, at "{_shown(answer)}".', self._log, down=False)
        return answer.partition(end)[0] if end else answer

    def failed(self, words: str, hint: str, *, down: bool) -> FilterFailed:
        """A failure of this daemon, as a sentence that begins with its name and place."""
        return FilterFailed(f"{self} {words}", hint, down=down)

    def nonsense(self, answer: bytes) -> FilterFailed:
        """It answered something that its protocol does not have."""
        words = f'answered "{_shown(answer)}", which is no answer of {self.program}\'s.'
        return self.failed(words, self._is_it, down=False)

    @property
    def _is_it(self) -> str:
        return f"Is it {self.program} that listens there? Its place is set by {self.settings}."

    @property
    def _log(self) -> str:
        return f"Its log may say why; perhaps it does not serve this machine. Its place is set by {self.settings}."

    @contextlib.contextmanager
    def _failures(self, doing: str, seconds: float) -> Iterator[None]:
        """What the system says of a connection, as sentences."""
        place = clean(self.place, 200)
        start = f"Start {self.program}, or set {self.settings} to where it listens."
        try:
            yield
        except TimeoutError as error:
            hint = f"Is it overloaded or stopped? Its place is set by {self.settings}."
            raise self.failed(f"did not {doing} within {seconds:g} s.", hint, down=True) from error
        except FileNotFoundError as error:
            raise FilterFailed(f"{self.program} has no socket at {place}.", start) from error
        except PermissionError as error:
            raise self.failed(
                "does not let drain's user use its socket: permission denied.",
                f"Add that user to the socket's group (ls -l says which), or set {self.settings} to another place.",
                down=True,
            ) from error
        except ConnectionRefusedError as error:
            raise FilterFailed(f"{self.program} does not listen at {place}: connection refused.", start) from error
        except (OSError, UnicodeError) as error:
            raise FilterFailed(f"{self} cannot be reached: {clean(str(error), 200)}.", start) from error


def _shown(answer: bytes) -> str:
    return clean(answer[:200].decode("utf-8", "replace"), 200)


def _parsed(place: str) -> str | tuple[str, int]:
    """The path of a socket, or host and port."""
    if place.startswith("/") and "\0" not in place:
        return place
    found = _PLACE.fullmatch(place)
    if found is None or not 0 < int(found[3]) < 65536:
        raise ValueError('"host:port", "[address]:port" or the absolute path of a socket')
    return found[1] or found[2], int(found[3])


def _left(deadline: float) -> float:
    """Seconds, more than none.

    Raises:
        TimeoutError: there are none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connected(place: str, deadline: float) -> socket.socket:
    parsed = _parsed(place)
    if isinstance(parsed, str):
        return _opened(socket.AF_UNIX, parsed, deadline)
    addresses = _addresses(*parsed, deadline)
    failure: OSError = TimeoutError()
    for number, (family, _type, _protocol, _name, address) in enumerate(addresses):
        # A share of the time for each, so that one that is silent leaves some to the next.
        share = _left(deadline) / (len(addresses) - number)
        try:
            channel = _opened(family, address, time.monotonic() + share)
        except OSError as error:
            failure = error
        else:
            # A chunk of clamd's would wait for the acknowledgement of the one before.
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return channel
    raise failure


def _opened(family: int, address: Any, deadline: float) -> socket.socket:
    channel = socket.socket(family, socket.SOCK_STREAM)
    try:
        while True:
            channel.settimeout(_left(deadline))
            try:
                channel.connect(address)
            except BlockingIOError:
                time.sleep(min(_BUSY_PAUSE_SECONDS, _left(deadline)))
            else:
                return channel
    except BaseException:
        channel.close()
        raise


def _addresses(host: str, port: int, deadline: float) -> list[Any]:
    """What getaddrinfo(3) says. It knows no limit, so a name is looked up on a thread that can be left behind."""
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        answer = found.get(timeout=_left(deadline))
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _send(channel: socket.socket, request: Iterable[bytes], deadline: float, *, half_close: bool) -> None:
    for piece in request:
        channel.settimeout(_left(deadline))
        channel.sendall(piece)  # its limit is for the whole piece
    if half_close:
        # It may be closed already, with its answer read or not.
        with contextlib.suppress(OSError):
            channel.shutdown(socket.SHUT_WR)


def _answer(channel: socket.socket, deadline: float, limit: int, end: bytes) -> bytes:
    """What comes until the end of an answer, or until more than *limit* bytes have come."""
    answer = bytearray()
    while len(answer) <= limit:
        channel.settimeout(_left(deadline))
        try:
            piece = channel.recv(_READ_BYTES)
        except (BrokenPipeError, ConnectionResetError):
            break
        answer += piece
        if not piece or (end and end in piece):
            break
    return bytes(answer)
