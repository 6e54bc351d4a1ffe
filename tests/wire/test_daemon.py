"""What a daemon can do to a connection, for both filters that ask one."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from drain.filters import FilterFailed, Inbound, Verdict
from drain.filters.clamav import ClamAv
from drain.filters.daemon import Daemon
from drain.filters.spamassassin import SpamAssassin
from drain.mail import Mail
from tests.daemon_fake import FakeDaemon, read_instream, read_spamc, reset, wait_for_the_end

Asking: TypeAlias = SpamAssassin | ClamAv

SECONDS = 0.08
MAIL = Inbound(Mail(b"From: a@x.test\r\n\r\nhello\r\n", "alice@example.test", "a@x.test"))
# More than the kernel takes before anybody reads.
LARGE = Inbound(Mail(b"From: a@x.test\r\n\r\n" + b"x" * 16_000_000, "alice@example.test", "a@x.test"))
# The request read, a whole answer, and the settings that say where the daemon is.
SPAMD = (
    read_spamc,
    b"SPAMD/1.1 0 EX_OK\r\nContent-length: 5\r\nSpam: True ; 7.3 / 5.0\r\n\r\nGTUBE",
    "SPAMD_HOST and SPAMD_PORT",
)
CLAMD = (read_instream, b"stream: Eicar FOUND\0", "CLAMD_SOCKET")


class Kind:
    """One of the two, with its protocol."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.read: Callable[[socket.socket], object]
        self.read, self.answer, self.settings = SPAMD if name == "spamd" else CLAMD

    def at(self, place: str, seconds: float = SECONDS) -> Asking:
        """The filter that asks the daemon at a place."""
        return ClamAv(place, seconds) if self.name == "clamd" else SpamAssassin(place, 32_000_000, seconds)

    def failure(self, place: str, inbound: Inbound = MAIL, seconds: float = SECONDS) -> FilterFailed:
        """How its check fails: soon, in one sentence, and with the settings to look at."""
        begun = time.monotonic()
        with pytest.raises(FilterFailed) as caught:
            self.at(place, seconds).check(inbound)
        assert time.monotonic() - begun < seconds + 3
        assert self.name in str(caught.value)
        assert self.settings in caught.value.hint
        assert "\n" not in str(caught.value)
        return caught.value


@pytest.fixture(params=["spamd", "clamd"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


def test_an_answer_is_taken_over_tcp_and_over_a_unix_socket(kind: Kind, tmp_path: Path) -> None:
    def converse(connection: socket.socket) -> None:
        kind.read(connection)
        connection.sendall(kind.answer)

    for path in (None, tmp_path / "socket"):
        with FakeDaemon(converse, path) as daemon:
            assert kind.at(daemon.place, 5).check(MAIL) != Verdict()


def test_an_answer_in_single_bytes_is_put_together(kind: Kind) -> None:
    def converse(connection: socket.socket) -> None:
        kind.read(connection)
        for byte in kind.answer:
            connection.sendall(bytes([byte]))

    with FakeDaemon(converse) as daemon:
        assert kind.at(daemon.place, 5).check(MAIL) != Verdict()


def test_one_that_never_reads_is_given_up_in_time(kind: Kind) -> None:
    gone = threading.Event()

    def wait(_connection: socket.socket) -> None:
        gone.wait(5)

    with FakeDaemon(wait) as daemon:
        failed = kind.failure(daemon.place, LARGE)
        gone.set()
    assert failed.down
    assert "take all of the request within 0.08 s" in str(failed)


def test_one_that_reads_and_never_answers_is_given_up_in_time(kind: Kind) -> None:
    gone = threading.Event()

    def converse(connection: socket.socket) -> None:
        kind.read(connection)
        gone.wait(5)

    with FakeDaemon(converse) as daemon:
        failed = kind.failure(daemon.place)
        gone.set()
    assert failed.down
    assert "did not answer within 0.08 s" in str(failed)


def test_one_that_reads_in_drips_is_given_up_in_time(kind: Kind) -> None:
    def converse(connection: socket.socket) -> None:
        while connection.recv(50_000):
            time.sleep(0.01)

    with FakeDaemon(converse) as daemon:
        assert kind.failure(daemon.place, LARGE).down


def test_one_that_answers_in_drips_is_given_up_in_time(kind: Kind) -> None:
    """Each read is quick; it is the whole that takes too long."""

    def converse(connection: socket.socket) -> None:
        kind.read(connection)
        while True:
            connection.sendall(b"S")
            time.sleep(0.01)

    with FakeDaemon(converse) as daemon:
        assert kind.failure(daemon.place).down


def test_of_an_answer_of_100_mb_a_little_is_read(kind: Kind) -> None:
    sent = 0

    def converse(connection: socket.socket) -> None:
        nonlocal sent
        kind.read(connection)
        for _ in range(1000):
            connection.sendall(b"S" * 100_000)
            sent += 100_000

    with FakeDaemon(converse) as daemon:
        failed = kind.failure(daemon.place, seconds=5)
    assert not failed.down
    assert "answered with more than" in str(failed)
    assert sent < 20_000_000  # the rest of it is the kernel's


@pytest.mark.parametrize(
    "garbage",
    [b"SSH-2.0-OpenSSH_9.2\r\n\0", b"\0", b"\xff\xfe\0", b"\r\n\r\n\0", b"HTTP/1.1 400 Bad Request\r\n\r\n\0"],
)
def test_garbage_is_no_verdict(kind: Kind, garbage: bytes) -> None:
    def converse(connection: socket.socket) -> None:
        kind.read(connection)
        connection.sendall(garbage)

    with FakeDaemon(converse) as daemon:
        failed = kind.failure(daemon.place, seconds=5)
    assert not failed.down
    assert f"Is it {kind.name} that listens there?" in failed.hint


def test_one_that_closes_at_once_is_no_verdict(kind: Kind) -> None:
    with FakeDaemon(lambda connection: None) as daemon:
        failed = kind.failure(daemon.place, seconds=5)
        assert not failed.down
        assert not kind.failure(daemon.place, LARGE, seconds=5).down


def test_a_reset_is_no_verdict(kind: Kind) -> None:
    def converse(connection: socket.socket) -> None:
        connection.recv(1)
        reset(connection)

    with FakeDaemon(converse) as daemon:
        assert not kind.failure(daemon.place, seconds=5).down
        assert not kind.failure(daemon.place, LARGE, seconds=5).down


def test_no_beginning_of_an_answer_is_a_verdict(kind: Kind) -> None:
    beginnings = [kind.answer[:cut] for cut in range(len(kind.answer))]
    left = iter(beginnings)

    def converse(connection: socket.socket) -> None:
        kind.read(connection)
        connection.sendall(next(left))

    with FakeDaemon(converse) as daemon:
        for _ in beginnings:
            assert not kind.failure(daemon.place, seconds=5).down


def test_where_nobody_listens_the_service_is_down(kind: Kind, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(stale))
    for place in (f"127.0.0.1:{port}", str(stale)):
        failed = kind.failure(place)
        assert failed.down
        assert f"{kind.name} does not listen at {place}: connection refused." in str(failed)


def test_where_there_is_no_socket_the_service_is_down(kind: Kind, tmp_path: Path) -> None:
    failed = kind.failure(str(tmp_path / "none"))
    assert failed.down
    assert f"has no socket at {tmp_path}/none." in str(failed)
    assert kind.failure(f"/{'x' * 200}").down  # more than fits into sun_path


def test_a_socket_that_is_not_for_us_has_the_group_as_a_hint(kind: Kind, tmp_path: Path) -> None:
    with FakeDaemon(wait_for_the_end, tmp_path / "socket") as daemon, nobody(tmp_path / "socket"):
        failed = kind.failure(daemon.place)
    assert failed.down
    assert "permission denied" in str(failed)
    assert "group" in failed.hint


@contextlib.contextmanager
def nobody(path: Path) -> Iterator[None]:
    """Without the right to *path*; root has every right, so it becomes somebody else."""
    path.chmod(0)
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_full_queue_of_connections_is_waited_for_and_then_given_up(kind: Kind, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        place = full_queue(stack, tmp_path / "socket")
        failed = kind.failure(place)
    assert failed.down
    assert "did not take the connection within 0.08 s" in str(failed)


def full_queue(stack: contextlib.ExitStack, path: Path) -> str:
    """A Unix socket that takes no more connections."""
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(path))
    listener.listen(0)
    while True:
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:
            return str(path)


def test_a_queue_that_empties_in_time_is_no_failure(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "socket"))
        listener.listen(0)
        first = stack.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(str(tmp_path / "socket"))

        def serve() -> None:
            time.sleep(0.1)
            listener.accept()[0].close()
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"yes\0")

        thread = threading.Thread(target=serve)
        thread.start()
        answer = Daemon("clamd", str(tmp_path / "socket"), "X").ask([b"zPING\0"], 5, limit=10, end=b"\0")
        thread.join()
    assert answer == b"yes"


def test_a_name_that_does_not_resolve_is_a_sentence(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    lookups(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    failed = kind.failure("filter.test:783")
    assert failed.down
    assert "filter.test:783 cannot be reached: [Errno -2] Name or service not known." in str(failed)
    assert kind.failure("x..test:783").down  # what IDNA refuses


def test_a_look_up_that_hangs_is_given_up_in_time(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()
    lookups(monkeypatch, lambda: gone.wait(5))
    assert kind.failure("filter.test:783").down
    gone.set()


def test_localhost_that_is_ipv6_first_is_tried_at_ipv4_too(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    def converse(connection: socket.socket) -> None:
        kind.read(connection)
        connection.sendall(kind.answer)

    with FakeDaemon(converse) as daemon:
        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", daemon.port, 0, 0))
        four = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", daemon.port))
        lookups(monkeypatch, [six, four])
        assert kind.at(f"localhost:{daemon.port}", 5).check(MAIL) != Verdict()


def test_an_address_that_is_silent_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def converse(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"yes\0")

    with contextlib.ExitStack() as stack, FakeDaemon(converse) as daemon:
        silent = (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", full_queue(stack, tmp_path / "socket"))
        good = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", daemon.port))
        lookups(monkeypatch, [silent, good])
        answer = Daemon("clamd", "filter.test:783", "X").ask([b"zPING\0"], 0.3, limit=10, end=b"\0")
    assert answer == b"yes"


def lookups(monkeypatch: pytest.MonkeyPatch, found: object) -> None:
    """Names resolve to this; addresses do as ever."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **more: int) -> object:
        if more.get("flags") or ".." in host:
            return real(host, port, **more)
        if isinstance(found, Exception):
            raise found
        return found() if callable(found) else found

    monkeypatch.setattr("drain.filters.daemon.socket.getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    "place",
    ["", "783", "host", "host:", "host:0", "host:65536", "::1:783", "[::1]", "relative/path", "a b:783", "/x\0y"],
)
def test_what_is_no_place_is_said_when_the_filter_is_made(kind: Kind, place: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        kind.at(place)


@pytest.mark.parametrize("place", ["localhost:783", "127.0.0.1:1", "[::1]:783", "[fe80::1%eth0]:65535", "/run/x.sock"])
def test_places_are_hosts_with_ports_or_absolute_paths(kind: Kind, place: str) -> None:
    assert place in repr(kind.at(place))


def test_checks_on_many_threads_do_not_meet(kind: Kind) -> None:
    def converse(connection: socket.socket) -> None:
        kind.read(connection)
        connection.sendall(kind.answer)

    verdicts: list[Verdict] = []
    with FakeDaemon(converse) as daemon:
        asking = kind.at(daemon.place, 5)
        threads = [threading.Thread(target=lambda: verdicts.append(asking.check(MAIL))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(verdicts) == 16
    assert len(set(verdicts)) == 1
