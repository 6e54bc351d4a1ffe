"""The filter `spamassassin` against Debian's spamd."""

import math
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from drain.filters import FilterFailed, Inbound, Verdict
from drain.filters.spamassassin import SpamAssassin, server_of
from drain.mail import Mail
from tests.daemon_fake import FakeDaemon, read_spamc
from tests.real.house import corpus
from tests.real.server import HOST, needed
from tests.real.spamd import Spamd

SAMPLES = Path(__file__).parent / "samples"
# In two pieces, so that no filter on the way of this file takes it for spam.
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-" + b"STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
HEADER = b"From: a@x.test\r\nTo: alice@example.test\r\nSubject: s\r\nMessage-ID: <%b@x.test>\r\n\r\n"
LINE = b"Hello, this is one line of words that goes on.\r\n"
LIMIT = 30_000_000
SECONDS = 60


@pytest.fixture(scope="module")
def spamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spamd]:
    with Spamd(tmp_path_factory.mktemp("spamd")) as running:
        yield running


def check(place: str, raw: bytes, max_bytes: int = LIMIT, seconds: float = SECONDS) -> Verdict:
    return SpamAssassin(place, max_bytes, seconds).check(Inbound(Mail(raw, "alice@example.test", "a@x.test")))


def text(size: int, message_id: bytes = b"1") -> bytes:
    """A mail of about that size, of text."""
    return HEADER % message_id + LINE * (size // len(LINE))


class Recorder:
    """Stands between the filter and spamd, hands everything on and keeps what went to spamd."""

    def __init__(self, spamd: Spamd) -> None:
        self._port = spamd.port
        self.requests: list[bytes] = []

    def converse(self, connection: socket.socket) -> None:
        request = read_spamc(connection)
        self.requests.append(request)
        with socket.create_connection((HOST, self._port), timeout=SECONDS) as onward:
            onward.sendall(request)
            onward.shutdown(socket.SHUT_WR)
            while piece := onward.recv(65536):
                connection.sendall(piece)


def test_gtube_is_spam_of_a_thousand_points(spamd: Spamd) -> None:
    verdict = check(spamd.place, HEADER % b"gtube" + GTUBE + b"\r\n")
    assert verdict.score is not None
    assert 999 < verdict.score < 1010
    assert verdict.code == "spam"
    assert verdict.evidence[0] == "spamd itself calls it spam from 5 points on"
    assert "GTUBE" in verdict.evidence


def test_spamassassins_own_samples_are_what_it_calls_them(spamd: Spamd) -> None:
    spam = check(spamd.place, (SAMPLES / "sample-spam.txt").read_bytes())
    assert spam.code == "spam"
    assert spam.score == pytest.approx(1000, abs=10)
    assert "GTUBE" in spam.reason
    nonspam = check(spamd.place, (SAMPLES / "sample-nonspam.txt").read_bytes())
    assert nonspam.code == ""
    assert nonspam.score is not None
    assert nonspam.score < 5


def test_a_mail_of_the_corpus_goes_to_spamd_byte_for_byte_and_gets_spamcs_score(spamd: Spamd) -> None:
    """All 77. What spamd got is read off the wire; what it makes of them is asked by its own client too."""
    recorder = Recorder(spamd)
    mails = list(corpus().values())
    with FakeDaemon(recorder.converse) as between, ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda raw: check(between.place, raw), mails))
        by_spamc = list(pool.map(lambda raw: spamc_score(spamd, raw), mails))
    assert all(verdict.score is not None and math.isfinite(verdict.score) for verdict in verdicts)
    expected = sorted(b"SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\n\r\n" % len(raw) + raw for raw in mails)
    assert sorted(recorder.requests) == expected
    assert [verdict.score for verdict in verdicts] == by_spamc
    assert len({verdict.score for verdict in verdicts}) > 10


def spamc_score(spamd: Spamd, raw: bytes) -> float:
    """What SpamAssassin's own client is told of a mail."""
    command = [needed("spamc", "spamc"), "-c", "-d", HOST, "-p", str(spamd.port), "-s", str(LIMIT)]
    done = subprocess.run(command, input=raw, capture_output=True, timeout=SECONDS, check=False)
    return float(done.stdout.partition(b"/")[0]) + 0.0


@pytest.mark.parametrize(
    "body", [b"", b"\0NUL\0\0\r\n", b"\xff\xfe 8-bit \x80\r\n", b"bare\nline\nends\n", b"lone\rCR\r", b"no end"]
)
def test_spamd_counts_as_many_bytes_as_the_mail_has(spamd: Spamd, body: bytes) -> None:
    """Its log says what its parser was given: with bytes changed on the way these would be more or fewer."""
    name = f"odd{body.hex()}"
    raw = HEADER % name.encode() + body
    check(spamd.place, raw)
    await_words(spamd, rf"size={len(raw)},.*mid=<{name}@x\.test>")


def test_an_empty_mail_has_a_score_too(spamd: Spamd) -> None:
    assert check(spamd.place, b"").score is not None


def test_a_mail_of_25_mib_is_checked_whole_where_the_limit_allows(spamd: Spamd) -> None:
    raw = HEADER % b"large" + b"Y" * 75 + b"\r\n"
    raw = raw + (b"A" * 75 + b"\r\n") * ((25 * 1024 * 1024 - len(raw)) // 77)
    assert not any("bytes" in line for line in check(spamd.place, raw).evidence)
    await_words(spamd, rf"size={len(raw)},.*mid=<large@x\.test>")


def test_of_a_mail_over_the_limit_spamd_gets_the_first_part(spamd: Spamd) -> None:
    raw = HEADER % b"padded" + GTUBE + b"\r\n" + LINE * 100_000
    verdict = check(spamd.place, raw, max_bytes=50_000)
    assert "GTUBE" in verdict.evidence
    size = len(raw[:50_000].rpartition(b"\n")[0]) + 1
    assert f"spamd was sent the first {size:,} of {len(raw):,} bytes" in verdict.evidence
    await_words(spamd, rf"size={size},.*mid=<padded@x\.test>")


def test_several_threads_are_answered_each_for_its_own_mail(spamd: Spamd) -> None:
    asking = SpamAssassin(spamd.place, LIMIT, SECONDS)
    mails = [HEADER % str(number).encode() + (GTUBE if number % 2 else b"hello") for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        inbounds = [Inbound(Mail(raw, "alice@example.test", "")) for raw in mails]
        codes = [verdict.code for verdict in pool.map(asking.check, inbounds)]
    assert codes == ["", "spam"] * 6


def test_the_probe_says_where_spamd_answers(spamd: Spamd) -> None:
    assert SpamAssassin(spamd.place, LIMIT, SECONDS).probe() == f"spamd at {spamd.place} answers."


def test_localhost_finds_a_spamd_that_listens_on_ipv4_alone(spamd: Spamd) -> None:
    assert SpamAssassin(server_of("localhost", spamd.port), LIMIT, SECONDS).probe()


def test_a_spamd_on_a_unix_socket_is_asked_alike(tmp_path: Path) -> None:
    with Spamd(tmp_path, unix=True) as spamd:
        place = server_of(spamd.place, 783)
        assert SpamAssassin(place, LIMIT, SECONDS).probe() == f"spamd at {spamd.socket} answers."
        assert check(place, HEADER % b"unix" + GTUBE).code == "spam"
    with pytest.raises(FilterFailed, match="has no socket at") as caught:
        check(place, HEADER % b"unix")
    assert caught.value.down


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_spamd_that_dies_or_freezes_in_the_middle_of_a_check_costs_no_more_than_the_time_it_has(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Spamd(tmp_path, children=1) as spamd:
        result, begun = in_background(lambda: check(spamd.place, text(500_000, b"slow"), seconds=3))
        await_words(spamd, r"checking message <slow@x\.test>")
        spamd.signal_all(number)
        failed = result()
        assert time.monotonic() - begun < 4
        frozen = number is signal.SIGSTOP
        assert failed.down is frozen
        assert ("did not answer within 3 s" if frozen else "closed the connection without an answer") in str(failed)
        if frozen:
            with pytest.raises(FilterFailed, match=r"did not answer within 0\.5 s"):
                check(spamd.place, text(1000), seconds=0.5)
            spamd.signal_all(signal.SIGCONT)
            assert check(spamd.place, text(1000)).score is not None
        else:
            words, until = "", time.monotonic() + 5
            while "connection refused" not in words and time.monotonic() < until:  # it dies child by child
                with pytest.raises(FilterFailed) as caught:
                    check(spamd.place, text(1000))
                words = str(caught.value)
            assert "connection refused" in words
            assert caught.value.down


def in_background(work: Callable[[], object]) -> tuple[Callable[[], FilterFailed], float]:
    """Starts a check; returns what waits for its failure, and when it began."""
    failures: list[FilterFailed] = []

    def run() -> None:
        try:
            work()
        except FilterFailed as failed:
            failures.append(failed)

    thread = threading.Thread(target=run)
    begun = time.monotonic()
    thread.start()

    def result() -> FilterFailed:
        thread.join(SECONDS)
        (failed,) = failures
        return failed

    return result, begun


def await_words(spamd: Spamd, pattern: str) -> None:
    """Until spamd has logged them: it answers first, and logs then."""
    deadline = time.monotonic() + 10
    while not re.search(pattern, spamd.log):
        assert time.monotonic() < deadline, f"not in spamd's log: {pattern}"
        time.sleep(0.01)


@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_a_check_is_quick(spamd: Spamd, size: int) -> None:
    """Text; how long is spamd's affair, and printed for whoever asks (``-rP``)."""
    words = random.Random(1)
    letters = b"abcdefghijklmnopqrstuvwxyz     "
    lines = b"".join(bytes(words.choices(letters, k=70)) + b"\r\n" for _ in range(size // 72))
    seconds = []
    for number in range(3):
        begun = time.monotonic()
        check(spamd.place, HEADER % b"quick%d" % number + lines)
        seconds.append(time.monotonic() - begun)
    print(f"{size:,} bytes: {min(seconds) * 1000:.0f} ms a mail")
    assert min(seconds) < 20
