"""The filter `clamav` against Debian's clamd, with a signature for EICAR alone."""

import base64
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from drain.filters import Action, FilterFailed, Inbound, Verdict
from drain.filters.clamav import ClamAv
from drain.mail import Mail
from tests.daemon_fake import FakeDaemon
from tests.real.clamd import EICAR, VIRUS, Clamd
from tests.real.house import corpus
from tests.real.server import HOST

CLEAN = Verdict(evidence=("no virus",))
SECONDS = 30
HEADER = b"From: a@x.test\r\nTo: alice@example.test\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
FOUND = Verdict(
    action=Action.QUARANTINE, code="virus", reason=f"clamd found {VIRUS}", evidence=(f"stream: {VIRUS} FOUND",)
)


@pytest.fixture(scope="module")
def clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clamd]:
    with Clamd(tmp_path_factory.mktemp("clamd")) as running:
        yield running


@pytest.fixture(scope="module")
def small_clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clamd]:
    """One that takes a megabyte."""
    with Clamd(tmp_path_factory.mktemp("small"), stream_max_length="1M") as running:
        yield running


@pytest.fixture(params=["unix", "tcp"])
def place(request: pytest.FixtureRequest, clamd: Clamd) -> str:
    return clamd.socket if request.param == "unix" else clamd.tcp


def check(place: str, raw: bytes, seconds: float = SECONDS) -> Verdict:
    return ClamAv(place, seconds).check(Inbound(Mail(raw, "alice@example.test", "a@x.test")))


def with_attachment(content: bytes, before: bytes = b"") -> bytes:
    """A mail of two parts, the second in base64."""
    return (
        HEADER + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n'
        b'--b\r\nContent-Type: application/octet-stream; name="a.com"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + base64.encodebytes(before + content).replace(b"\n", b"\r\n")
        + b"--b--\r\n"
    )


def test_a_virus_in_the_text_is_found(place: str) -> None:
    assert check(place, HEADER + b"\r\n" + EICAR + b"\r\n") == FOUND


def test_a_virus_in_an_attachment_in_base64_is_found(place: str) -> None:
    raw = with_attachment(EICAR)
    assert EICAR not in raw
    assert check(place, raw) == FOUND


def test_a_virus_at_the_end_of_a_mail_of_20_mib_is_found(place: str) -> None:
    raw = with_attachment(EICAR, before=os.urandom(15 * 1024 * 1024))
    assert len(raw) > 20 * 1024 * 1024
    assert check(place, raw) == FOUND


def test_clean_mails_are_clean(place: str) -> None:
    # Of the 77 none holds the one virus that this clamd knows.
    with ThreadPoolExecutor(4) as pool:
        verdicts = set(pool.map(lambda raw: check(place, raw), corpus().values()))
    assert verdicts == {CLEAN}


@pytest.mark.parametrize("raw", [b"", b"\0", b"\r\n", b"\xff" * 1000, EICAR[:-1], with_attachment(EICAR[1:])])
def test_odd_mails_are_clean(place: str, raw: bytes) -> None:
    assert check(place, raw) == CLEAN


@pytest.mark.parametrize("size", [262_144, 524_288, 262_145])
def test_a_virus_across_or_behind_a_chunk_is_found(place: str, size: int) -> None:
    """The stream comes to clamd in chunks of 256 KiB; what it looks at is the whole."""
    raw = HEADER + b"\r\n"
    for end in (size - 34, size):
        assert check(place, raw + b"x" * (end - len(raw)) + EICAR) == FOUND


def test_a_mail_as_large_as_clamd_takes_is_checked_and_one_byte_more_is_a_sentence(small_clamd: Clamd) -> None:
    for place in (small_clamd.socket, small_clamd.tcp):
        raw = HEADER + b"\r\n" + EICAR
        raw = raw.ljust(1024 * 1024, b"x")
        assert check(place, raw) == FOUND
        with pytest.raises(FilterFailed, match=r"takes no mail of 1,048,577 bytes\. Raise StreamMaxLength") as caught:
            check(place, raw + b"x")
        assert not caught.value.down


def test_of_a_mail_much_too_large_clamds_early_answer_is_read(small_clamd: Clamd) -> None:
    """It answers and hangs up while we still send: ten times, since it is a race."""
    raw = b"x" * 20_000_000
    for place in (small_clamd.socket, small_clamd.tcp):
        for _ in range(10):
            with pytest.raises(FilterFailed, match=r"takes no mail of 20,000,000 bytes\."):
                check(place, raw)
        assert check(place, EICAR) == FOUND


def test_the_probe_tells_clamds_version(place: str) -> None:
    assert ClamAv(place, SECONDS).probe().startswith(f"clamd at {place} answers: ClamAV 1.")


class Relay:
    """Stands between the filter and clamd, and does something when half a megabyte has gone through."""

    def __init__(self, clamd: Clamd, halfway: Callable[[], None]) -> None:
        self._port = clamd.port
        self._halfway = halfway

    def converse(self, connection: socket.socket) -> None:
        passed = 0
        with socket.create_connection((HOST, self._port), timeout=SECONDS) as onward:
            while passed < 500_000:
                piece = connection.recv(50_000)
                onward.sendall(piece)
                passed += len(piece)
            self._halfway()
            while piece := connection.recv(50_000):
                onward.sendall(piece)


def test_a_clamd_that_dies_in_the_middle_of_a_mail_is_a_sentence(tmp_path: Path) -> None:
    with Clamd(tmp_path) as clamd:
        relay = Relay(clamd, lambda: clamd.signal_all(signal.SIGKILL))
        with FakeDaemon(relay.converse) as between:
            begun = time.monotonic()
            with pytest.raises(FilterFailed, match=r"broke off|closed the connection") as caught:
                check(between.place, b"x" * 20_000_000)
            assert time.monotonic() - begun < 5
            assert not caught.value.down
        with pytest.raises(FilterFailed, match="connection refused") as caught:
            check(clamd.tcp, b"x")
        assert caught.value.down


def test_a_clamd_that_freezes_in_the_middle_of_a_mail_costs_no_more_than_the_time_it_has(tmp_path: Path) -> None:
    with Clamd(tmp_path) as clamd:
        relay = Relay(clamd, lambda: clamd.signal_all(signal.SIGSTOP))
        with FakeDaemon(relay.converse) as between:
            begun = time.monotonic()
            with pytest.raises(FilterFailed, match="within 1 s") as caught:
                check(between.place, b"x" * 20_000_000, seconds=1)
            assert time.monotonic() - begun < 2
            assert caught.value.down
            for place in (clamd.socket, clamd.tcp):
                with pytest.raises(FilterFailed, match=r"did not answer within 0\.5 s"):
                    check(place, b"x", seconds=0.5)
            clamd.signal_all(signal.SIGCONT)  # the relay waits for it
        assert check(clamd.socket, EICAR) == FOUND


@pytest.mark.parametrize("size", [10_000, 1_000_000, 20_000_000])
def test_a_check_is_quick(place: str, size: int) -> None:
    """How long is clamd's affair, and printed for whoever asks (``-rP``)."""
    seconds = []
    for _ in range(3):
        raw = with_attachment(os.urandom(size * 3 // 4))
        begun = time.monotonic()
        check(place, raw)
        seconds.append(time.monotonic() - begun)
    print(f"{size:,} bytes: {min(seconds) * 1000:.1f} ms a mail")
    assert min(seconds) < 10
