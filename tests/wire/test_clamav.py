import os
import socket
from collections.abc import Iterator

import pytest

from drain.filters import Action, FilterFailed, Inbound, Verdict
from drain.filters.clamav import ClamAv
from drain.mail import Mail
from tests.daemon_fake import FakeDaemon, read_instream, reset

CLEAN = Verdict(evidence=("no virus",))
MAIL = b"From: a@x.test\r\n\r\nhello\r\n"


class FakeClamd:
    """A clamd whose answer a test chooses."""

    def __init__(self) -> None:
        self.answer = b"stream: OK\0"
        self.asked: list[tuple[bytes, bytes]] = []
        self.place = ""

    def converse(self, connection: socket.socket) -> None:
        self.asked.append(read_instream(connection))
        connection.sendall(self.answer)

    def check(self, raw: bytes = MAIL) -> Verdict:
        return ClamAv(self.place, 5).check(inbound(raw))


def inbound(raw: bytes) -> Inbound:
    return Inbound(Mail(raw, "alice@example.test", "a@x.test"))


@pytest.fixture(scope="module")
def running() -> Iterator[FakeClamd]:
    clamd = FakeClamd()
    with FakeDaemon(clamd.converse) as daemon:
        clamd.place = daemon.place
        yield clamd


@pytest.fixture
def clamd(running: FakeClamd) -> FakeClamd:
    running.asked.clear()
    running.answer = b"stream: OK\0"
    return running


def test_a_virus_asks_for_quarantine_and_gives_no_points(clamd: FakeClamd) -> None:
    clamd.answer = b"stream: Win.Test.EICAR_HDB-1 FOUND\0"
    assert clamd.check() == Verdict(
        action=Action.QUARANTINE,
        code="virus",
        reason="clamd found Win.Test.EICAR_HDB-1",
        evidence=("stream: Win.Test.EICAR_HDB-1 FOUND",),
    )


def test_a_clean_mail_has_no_verdict_but_the_empty_one(clamd: FakeClamd) -> None:
    assert clamd.check() == CLEAN


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145, 1_000_000])
def test_the_mail_goes_to_clamd_byte_for_byte(clamd: FakeClamd, size: int) -> None:
    raw = os.urandom(size)
    clamd.check(raw)
    assert clamd.asked == [(b"zINSTREAM\0", raw)]


@pytest.mark.parametrize(
    "answer",
    [
        *(b"\0", b"OK\0", b"stream: OK \0", b"stream: OK\n\0", b"stream:  FOUND\0", b"stream: X FOUND.\0"),
        *(b"UNKNOWN COMMAND\0", b"PONG\0", b"stream: OK\nstream: X ERROR maybe\0", b"COMMAND READ TIMED OUT\0"),
    ],
)
def test_only_clamds_own_words_are_a_verdict(clamd: FakeClamd, answer: bytes) -> None:
    clamd.answer = answer
    with pytest.raises(FilterFailed, match="no answer of clamd's") as caught:
        clamd.check()
    assert not caught.value.down
    assert "CLAMD_SOCKET" in caught.value.hint


def test_an_error_of_clamds_is_told_in_its_words(clamd: FakeClamd) -> None:
    clamd.answer = b"stream: Can't allocate \x1bmemory ERROR\0"
    with pytest.raises(FilterFailed) as caught:
        clamd.check()
    assert not caught.value.down
    assert "could not check the mail: stream: Can't allocate  memory ERROR." in str(caught.value)
    assert "CLAMD_SOCKET" in caught.value.hint


def test_words_of_clamds_are_short_in_a_verdict(clamd: FakeClamd) -> None:
    clamd.answer = b"stream: " + b"\xff" * 3000 + b" FOUND\0"
    verdict = clamd.check()
    assert verdict.action is Action.QUARANTINE
    assert max(len(verdict.reason), len(verdict.evidence[0])) <= 200


@pytest.mark.parametrize("broken_by", ["close", "reset"])
def test_a_mail_that_is_too_large_is_told_though_clamd_answers_early_and_hangs_up(broken_by: str) -> None:
    def converse(connection: socket.socket) -> None:
        connection.recv(10)
        connection.sendall(b"INSTREAM size limit exceeded. ERROR\0")
        if broken_by == "close":
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(100_000):
                pass

    with FakeDaemon(converse) as daemon, pytest.raises(FilterFailed) as caught:
        ClamAv(daemon.place, 5).check(inbound(b"x" * 8_000_000))
    assert not caught.value.down
    assert f"clamd at {daemon.place} takes no mail of 8,000,000 bytes." in str(caught.value)
    assert "StreamMaxLength" in caught.value.hint


def test_a_connection_that_breaks_with_no_word_is_no_clean_mail() -> None:
    def converse(connection: socket.socket) -> None:
        connection.recv(10)
        reset(connection)

    with FakeDaemon(converse) as daemon, pytest.raises(FilterFailed, match="broke off while it was asked") as caught:
        ClamAv(daemon.place, 5).check(inbound(b"x" * 8_000_000))
    assert not caught.value.down


def test_the_probe_tells_the_version(clamd: FakeClamd) -> None:
    clamd.answer = b"ClamAV 1.4.6/27812/Sat Nov 21 08:24:11 2026\0"
    sentence = ClamAv(clamd.place, 5).probe()
    assert sentence == f"clamd at {clamd.place} answers: ClamAV 1.4.6/27812/Sat Nov 21 08:24:11 2026."
    assert clamd.asked == [(b"zVERSION\0", b"")]


def test_the_probe_takes_no_other_program_for_clamd(clamd: FakeClamd) -> None:
    clamd.answer = b"SSH-2.0-OpenSSH_9.2\0"
    with pytest.raises(FilterFailed, match="no answer of clamd's"):
        ClamAv(clamd.place, 5).probe()


def test_its_name_and_its_settings_are_what_a_kept_verdict_is_known_by() -> None:
    asking = ClamAv("/run/clamav/clamd.ctl", 30)
    assert repr(asking) == "ClamAv(socket='/run/clamav/clamd.ctl', timeout_seconds=30)"
    assert asking.name == "clamav"
