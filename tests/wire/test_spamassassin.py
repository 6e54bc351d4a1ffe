import math
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drain.filters import Action, FilterFailed, Inbound, Verdict
from drain.filters.spamassassin import SpamAssassin, server_of
from drain.mail import Mail
from tests.daemon_fake import FakeDaemon, read_spamc

MAIL = b"From: a@x.test\r\nSubject: s\r\n\r\nhello\r\n"


class FakeSpamd:
    """A spamd whose answer a test chooses."""

    def __init__(self) -> None:
        self.answer = spam("False ; 0.0 / 5.0")
        self.requests: list[bytes] = []
        self.place = ""

    def converse(self, connection: socket.socket) -> None:
        self.requests.append(read_spamc(connection))
        connection.sendall(self.answer)

    def check(self, raw: bytes = MAIL, max_bytes: int = 1_000_000) -> Verdict:
        inbound = Inbound(Mail(raw, "alice@example.test", "a@x.test"))
        return SpamAssassin(self.place, max_bytes, 5).check(inbound)


def spam(words: str, symbols: bytes = b"") -> bytes:
    """An answer to SYMBOLS as spamd 4.0.1 writes it."""
    return b"SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: %b\r\n\r\n%b" % (len(symbols), words.encode(), symbols)


@pytest.fixture(scope="module")
def running() -> Iterator[FakeSpamd]:
    spamd = FakeSpamd()
    with FakeDaemon(spamd.converse) as daemon:
        spamd.place = daemon.place
        yield spamd


@pytest.fixture
def spamd(running: FakeSpamd) -> FakeSpamd:
    running.requests.clear()
    return running


def test_spam_has_its_score_its_rules_and_asks_for_nothing(spamd: FakeSpamd) -> None:
    spamd.answer = spam("True ; 7.3 / 5.0", b"HTML_MESSAGE,MISSING_DATE")
    assert spamd.check() == Verdict(
        score=7.3,
        action=Action.NONE,
        code="spam",
        reason="HTML_MESSAGE, MISSING_DATE",
        evidence=("spamd itself calls it spam from 5 points on", "HTML_MESSAGE", "MISSING_DATE"),
    )


@pytest.mark.parametrize(
    ("words", "score", "code"),
    [
        ("False ; 4.9 / 5.0", 4.9, ""),
        ("False ; -2.3 / 5.0", -2.3, ""),
        ("False ; -0.0 / 5.0", 0.0, ""),
        ("True ; 1000.0 / 5.0", 1000.0, "spam"),
        ("True ; -1.0 / -5.0", -1.0, "spam"),
        ("Yes ; 15 / 5", 15.0, "spam"),
    ],
)
def test_spamd_itself_says_what_is_spam(spamd: FakeSpamd, words: str, score: float, code: str) -> None:
    spamd.answer = spam(words)
    verdict = spamd.check()
    assert (verdict.score, verdict.code) == (score, code)


@pytest.mark.parametrize(
    "words",
    [
        *("True ; nan / 5.0", "True ; inf / 5.0", "True ; -inf / 5.0", "True ; 1e999 / 5.0", "True ; 7.3 / nan"),
        # A spamd that wrote its numbers as its locale does would say 73 or 7: neither is right.
        *("True ; 7,3 / 5,0", "Maybe ; 7.3 / 5.0", "True ; 7.3", "True", "", "7.3 / 5.0", "True ; x / 5.0"),
    ],
)
def test_a_score_that_is_no_number_is_no_verdict(spamd: FakeSpamd, words: str) -> None:
    spamd.answer = spam(words)
    with pytest.raises(FilterFailed, match="no answer of spamd's") as caught:
        spamd.check()
    assert not caught.value.down


@pytest.mark.parametrize("header", [b"Content-length: 0\r\n", b"", b"\xff: x\r\n"])
def test_an_answer_without_a_score_is_no_verdict(spamd: FakeSpamd, header: bytes) -> None:
    spamd.answer = b"SPAMD/1.1 0 EX_OK\r\n" + header + b"\r\n"
    with pytest.raises(FilterFailed, match="no answer of spamd's"):
        spamd.check()


@pytest.mark.parametrize(
    ("code", "name", "down"),
    [
        *((69, "EX_UNAVAILABLE", True), (71, "EX_OSERR", True), (74, "EX_IOERR", True), (75, "EX_TEMPFAIL", True)),
        *((77, "EX_NOPERM", True), (78, "EX_CONFIG", True)),
        # These say something of this mail: the next one may be checked.
        *((64, "EX_USAGE", False), (65, "EX_DATAERR", False), (70, "EX_SOFTWARE", False)),
        *((76, "EX_PROTOCOL", False), (79, "EX_TIMEOUT", False)),
    ],
)
def test_an_error_of_spamds_is_told_by_its_name(spamd: FakeSpamd, code: int, name: str, *, down: bool) -> None:
    spamd.answer = b"SPAMD/1.0 %d Service Unavailable: the \x1b[31mwords\r\n" % code
    with pytest.raises(FilterFailed) as caught:
        spamd.check()
    assert caught.value.down is down
    assert f"spamd at {spamd.place} says {name} ({code}): Service Unavailable: the  [31mwords." in str(caught.value)
    assert "SPAMD_HOST" in caught.value.hint


def test_an_error_with_a_number_of_its_own_is_told_too(spamd: FakeSpamd) -> None:
    spamd.answer = b"SPAMD/1.0 99 EX_NEW\r\n"
    with pytest.raises(FilterFailed, match=r"says error 99: EX_NEW\.") as caught:
        spamd.check()
    assert not caught.value.down


@pytest.mark.parametrize(
    "raw",
    [
        *(MAIL, b"", b"\n", b"From: a\n\nbare\nlines\n", b"From: a\r\n\r\n\0\0NUL\0", b"S: \xff\xfe\r\n\r\n\xe9\x80"),
        *(b"From x\r\nA: b\r\rlone\r", b"no end of line", b"Content-length: 3\r\n\r\nPING SPAMC/1.2\r\n\r\n"),
    ],
)
def test_the_mail_goes_to_spamd_byte_for_byte(spamd: FakeSpamd, raw: bytes) -> None:
    spamd.answer = spam("False ; 0.0 / 5.0")
    spamd.check(raw)
    length = b"Content-length: %d\r\n" % len(raw) if raw else b""
    assert spamd.requests == [b"SYMBOLS SPAMC/1.5\r\n" + length + b"\r\n" + raw]


def sent(spamd: FakeSpamd) -> bytes:
    """The mail in the last request."""
    return spamd.requests[-1].partition(b"\r\n\r\n")[2]


def test_of_a_large_mail_the_header_and_what_fits_of_the_body_are_sent_and_the_evidence_says_so(
    spamd: FakeSpamd,
) -> None:
    spamd.answer = spam("True ; 7.3 / 5.0", b"GTUBE")
    raw = MAIL + b"a line of the body\r\n" * 1000
    verdict = spamd.check(raw, max_bytes=5_005)
    assert raw.startswith(sent(spamd))
    assert sent(spamd).endswith(b"body\r\n")
    assert 5_005 - 20 < len(sent(spamd)) <= 5_005
    assert verdict.evidence[1] == f"spamd was sent the first {len(sent(spamd)):,} of 20,037 bytes"
    assert verdict.evidence[2:] == ("GTUBE",)


@pytest.mark.parametrize("extra", [0, 1])
def test_only_what_is_larger_than_the_limit_is_cut(spamd: FakeSpamd, extra: int) -> None:
    spamd.answer = spam("False ; 0.0 / 5.0")
    verdict = spamd.check(MAIL, max_bytes=len(MAIL) - extra)
    assert (sent(spamd) == MAIL) is (extra == 0)
    assert any("bytes" in line for line in verdict.evidence) is (extra == 1)


@pytest.mark.parametrize(
    ("raw", "max_bytes", "kept"),
    [
        (b"A: b\r\n\r\n" + b"x" * 5000, 3000, 3000),  # no line end near: cut where the limit is
        (b"A: b\r\n\r\n" + b"x" * 500 + b"\n" + b"y" * 5000, 1400, 509),  # a line end within a line's length
        (b"A: b\r\n" * 1000, 100, 96),  # a header alone larger than the limit
        (b"A: b\r\n\r\nxyz", 3, 3),
    ],
)
def test_the_cut_is_at_a_line_end_where_one_is_near(spamd: FakeSpamd, raw: bytes, max_bytes: int, kept: int) -> None:
    spamd.answer = spam("False ; 0.0 / 5.0")
    spamd.check(raw, max_bytes)
    assert sent(spamd) == raw[:kept]


def test_rules_are_few_and_short_whatever_spamd_says(spamd: FakeSpamd) -> None:
    spamd.answer = spam("True ; 7.3 / 5.0", b",".join([b"\xff" * 300] * 150))
    evidence = spamd.check().evidence
    assert len(evidence) == 101
    assert max(len(line) for line in evidence) == 100


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_spamd_answers_comes_to_a_finite_score_or_to_a_sentence(spamd: FakeSpamd, data: st.DataObject) -> None:
    good = spam("True ; 7.3 / 5.0", b"GTUBE")
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, len(good)))
    spamd.answer = good[:start] + data.draw(st.binary(max_size=40)) + good[end:]
    try:
        score = spamd.check().score
    except FilterFailed:
        return
    assert score is not None
    assert math.isfinite(score)


def test_the_probe_says_that_spamd_answers(spamd: FakeSpamd) -> None:
    spamd.answer = b"SPAMD/1.5 0 PONG\r\n"
    assert SpamAssassin(spamd.place, 1, 5).probe() == f"spamd at {spamd.place} answers."
    assert spamd.requests == [b"PING SPAMC/1.5\r\n\r\n"]


def test_the_probe_takes_nothing_for_pong_but_pong(spamd: FakeSpamd) -> None:
    spamd.answer = b"SPAMD/1.5 0 EX_OK\r\n"
    with pytest.raises(FilterFailed, match="no answer of spamd's"):
        SpamAssassin(spamd.place, 1, 5).probe()


@pytest.mark.parametrize(
    ("host", "port", "server"),
    [
        ("127.0.0.1", 783, "127.0.0.1:783"),
        ("localhost", 783, "localhost:783"),
        ("::1", 783, "[::1]:783"),
        ("[::1]", 784, "[::1]:784"),
        ("/run/spamd.sock", 783, "/run/spamd.sock"),
    ],
)
def test_host_and_port_make_a_place_and_a_path_is_one(host: str, port: int, server: str) -> None:
    assert server_of(host, port) == server
    assert SpamAssassin(server, 1, 1).server == server


def test_its_name_and_its_settings_are_what_a_kept_verdict_is_known_by() -> None:
    asking = SpamAssassin("127.0.0.1:783", 500_000, 30)
    before = repr(asking)
    with pytest.raises(FilterFailed):
        SpamAssassin("/nowhere", 1, 1).probe()
    assert repr(asking) == before
    assert before == "SpamAssassin(server='127.0.0.1:783', max_bytes=500000, timeout_seconds=30)"
    assert asking.name == "spamassassin"
