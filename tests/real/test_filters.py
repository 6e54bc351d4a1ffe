"""Mail through every filter, each with its real part, into real Maildirs: and what of it goes elsewhere."""

import base64
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from drain.settings import FILTERS
from drain.state import State
from tests.http_fake import FakeHttp, answer
from tests.real.clamd import EICAR, VIRUS
from tests.real.filters import ALL, LISTED, PARTS, UNLISTED, Judged, Part, added, from_the_edge, says, verdict_of
from tests.real.house import ALICE, BOB, RealHouse, as_filed, corpus, corpus_as_filed
from tests.real.postfix import Postfix
from tests.real.r2 import R2

SAMPLES = Path(__file__).parent / "samples"
HEADER = b"From: carol@x.test\r\nTo: alice@example.test\r\nSubject: s\r\nMessage-ID: <%b@x.test>\r\n\r\n"
MAIL = HEADER % b"plain" + b"hello\r\n"
# In two pieces, so that no filter on the way of this file takes it for spam.
GTUBE = HEADER % b"gtube" + b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-" + b"STANDARD-ANTI-UBE-TEST-EMAIL*C.34X" + b"\r\n"
VIRUS_MAIL = (
    b"From: carol@x.test\r\nSubject: s\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(EICAR).replace(b"\n", b"\r\n")
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Part]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(make(tmp_path_factory.mktemp(name))) for name, make in PARTS.items()}


@pytest.fixture
def model(parts: dict[str, Part]) -> Iterator[FakeHttp]:
    yield from changeable(parts["ai"])


@pytest.fixture
def policy(parts: dict[str, Part]) -> Iterator[FakeHttp]:
    yield from changeable(parts["decision"])


def changeable(part: Part) -> Iterator[FakeHttp]:
    """A server whose answer a test may change, for itself alone."""
    assert part.http is not None
    usual = part.http.answer
    part.http.requests.clear()
    yield part.http
    part.http.answer = usual


@pytest.fixture
def judged(r2: R2, postfix: Postfix, parts: dict[str, Part], tmp_path: Path) -> Judged:
    postfix.clear()
    settings = {"FILTERS": ALL, "FILTER_FAIL_OPEN": "none"}
    for part in parts.values():
        settings |= part.settings
    return Judged(RealHouse(r2, postfix, tmp_path / "state"), settings)


def filed_at(judged: Judged, address: str = ALICE) -> bytes:
    """The one mail in a mailbox."""
    (filed,) = judged.house.server.mailbox(address)
    return filed


# -- nothing is changed --


def test_all_77_mails_of_the_corpus_pass_every_filter_byte_for_byte(
    judged: Judged, model: FakeHttp, policy: FakeHttp
) -> None:
    for name, raw in corpus().items():
        # Two of the 77 are alike, and to one address they would be one mail.
        judged.put(name, raw, to=f"alice+{name}@example.test")
    summary = judged.pass_(WEBHOOK_DECISION_PAYLOAD_MODE="full", AI_INPUT_SCOPE="full_email")
    assert (summary["delivered"], summary["exit"]) == (77, 0)
    assert judged.house.filed(ALICE) == corpus_as_filed(judged.house.server)
    assert len(judged.house.r2.keys("processed/")) == 77
    assert len(model.requests) == len(policy.requests) == 77
    filed = judged.house.server.mailbox(ALICE)
    for mail in filed:
        lines = added(mail)
        assert list(lines) == ["X-Drain-Verdict", "X-Spam-Flag", "X-Spam-Score", "X-Spam-Status"]
        said = re.sub(r" \([^)]*\)", "", lines["X-Drain-Verdict"]).split("; ")
        assert [part.partition("=")[0] for part in said[1:]] == list(FILTERS)
        assert "=failed" not in lines["X-Drain-Verdict"]
        assert lines["X-Spam-Flag"] == ("YES" if float(lines["X-Spam-Score"]) >= 5 else "NO")
    # Those that were judged, and not one answer for all.
    assert len({verdict_of(mail, "spamassassin") for mail in filed}) > 10


# -- what each of them finds --


def test_gtube_goes_to_quarantine_with_reason_and_score(judged: Judged) -> None:
    judged.put("gtube", GTUBE)
    summary = judged.pass_()
    assert (summary["quarantined"], summary["exit"]) == (1, 0)
    assert judged.house.server.mailbox(ALICE) == []
    (key,) = judged.house.r2.keys()
    assert key.startswith("quarantine/")
    assert judged.house.r2.get(key)[1]["drain-reason"] == "spam"
    row = judged.row(GTUBE)
    assert (row.state, row.reason) == (State.QUARANTINED, "spam")
    assert re.match(r"100\d\.\d points; .*GTUBE", row.words or "")
    (entry,) = judged.quarantine()
    assert (entry["reason"], entry["to"], entry["object"]) == ("spam", ALICE, key)
    assert 999 < entry["score"] < 1010


def test_spamassassins_own_samples_go_their_ways(judged: Judged) -> None:
    spam, nonspam = ((SAMPLES / f"sample-{kind}.txt").read_bytes() for kind in ("spam", "nonspam"))
    judged.put("spam", spam)
    judged.put("nonspam", nonspam)
    summary = judged.pass_()
    assert (summary["quarantined"], summary["delivered"]) == (1, 1)
    assert judged.house.filed(ALICE) == [as_filed(nonspam)]
    assert added(filed_at(judged))["X-Spam-Flag"] == "NO"
    assert judged.row(spam).state is State.QUARANTINED


def test_a_listed_address_that_handed_it_over_makes_a_mail_tagged_and_one_that_the_sender_names_does_not(
    judged: Judged,
) -> None:
    bad = from_the_edge(MAIL, ip=LISTED)
    forger = from_the_edge(from_the_edge(MAIL, ip=LISTED), ip=UNLISTED)
    judged.put("bad", bad)
    judged.put("forger", forger, to=BOB)
    assert judged.pass_()["delivered"] == 2
    assert judged.house.filed(ALICE) == [as_filed(bad)]
    lines = added(filed_at(judged))
    assert lines["X-Drain-Verdict"].startswith("tag, score=")
    assert lines["X-Spam-Flag"] == "YES"
    assert "DRAIN_DNSBL_" in lines["X-Spam-Status"]
    assert "zen.spamhaus.org" in verdict_of(filed_at(judged), "dnsbl")
    assert judged.house.filed(BOB) == [as_filed(forger)]
    assert added(filed_at(judged, BOB))["X-Spam-Flag"] == "NO"


def test_a_virus_goes_to_quarantine_and_nobody_else_is_asked(judged: Judged, policy: FakeHttp) -> None:
    judged.put("virus", VIRUS_MAIL)
    assert judged.pass_()["quarantined"] == 1
    (entry,) = judged.quarantine()
    assert (entry["reason"], entry["score"]) == ("virus", 0), "dnsbl was asked before, and gave none"
    assert f"clamd found {VIRUS}" in entry["words"]
    assert policy.requests == []
    assert judged.house.server.mailbox(ALICE) == []


def test_what_the_policy_denies_goes_to_quarantine(judged: Judged, policy: FakeHttp) -> None:
    policy.answer = lambda request: answer({"decision": "deny", "reason": "not today"})
    judged.put("one", MAIL)
    assert judged.pass_(ALLOW_DISCARD="true")["quarantined"] == 1
    (entry,) = judged.quarantine()
    assert entry["reason"] == "denied"
    assert "not today" in entry["words"]
    assert judged.house.server.mailbox(ALICE) == []


@pytest.mark.parametrize(
    ("allowed", "outcome", "state", "left"),
    [("true", "discarded", State.DISCARDED, 0), ("false", "quarantined", State.QUARANTINED, 1)],
)
def test_what_the_policy_denies_silently_is_discarded_only_where_the_person_says_so(
    judged: Judged, policy: FakeHttp, allowed: str, outcome: str, state: State, left: int
) -> None:
    policy.answer = lambda request: answer({"decision": "silent_deny"})
    judged.put("one", MAIL)
    summary = judged.pass_(ALLOW_DISCARD=allowed)
    assert (summary[outcome], summary["exit"]) == (1, 0)
    row = judged.row(MAIL)
    assert (row.state, row.reason) == (state, "silently-denied")
    assert len(judged.house.r2.keys()) == len(judged.house.r2.keys("quarantine/")) == left
    assert judged.house.server.mailbox(ALICE) == []


@pytest.mark.parametrize(
    ("quarantine_score", "outcome", "prefix"), [("15", "delivered", "processed/"), ("9", "quarantined", "quarantine/")]
)
def test_a_model_that_is_certain_can_discard_nothing(
    judged: Judged, model: FakeHttp, quarantine_score: str, outcome: str, prefix: str
) -> None:
    model.answer = lambda request: says({"spam": 1, "reason": "discard it", "score": 9})
    judged.put("one", MAIL)
    summary = judged.pass_(ALLOW_DISCARD="true", FILTERS="auth,ai", SPAM_QUARANTINE_SCORE=quarantine_score)
    assert summary[outcome] == 1
    (key,) = judged.house.r2.keys()
    assert key.startswith(prefix)


# -- where spam goes, and what it gets --


@pytest.mark.parametrize(
    ("junk", "mailbox", "address"),
    [("+junk", ALICE, "alice+junk@example.test"), ("bob", BOB, BOB), ("nobody", ALICE, ALICE)],
)
def test_what_fails_dmarc_goes_to_the_junk_mailbox_that_there_is(
    judged: Judged, junk: str, mailbox: str, address: str
) -> None:
    failing, passing = from_the_edge(MAIL, dmarc="fail"), from_the_edge(MAIL, dmarc="pass")
    judged.put("fail", failing)
    assert judged.pass_(AUTH_FAIL_ACTION="dmarc=junk", SPAM_RCPT=junk)["delivered"] == 1
    filed = filed_at(judged, mailbox)
    assert re.findall(rb"^X-Original-To: (.*)$", filed, re.MULTILINE) == [address.encode()]
    assert judged.house.filed(mailbox) == [as_filed(failing)]
    assert added(filed)["X-Drain-Verdict"].startswith("junk, ")
    assert added(filed)["X-Spam-Flag"] == "YES"
    judged.put("pass", passing, to="admin@example.test")
    assert judged.pass_(AUTH_FAIL_ACTION="dmarc=junk", SPAM_RCPT=junk)["delivered"] == 1
    assert judged.house.filed("admin@example.test") == [as_filed(passing)]


def test_the_subject_of_spam_is_tagged_and_nothing_else_is_touched(judged: Judged) -> None:
    plain = MAIL.replace(b"Subject: s", b"Subject: =?utf-8?q?S=C3=BC=C3=9F?=\r\n =?utf-8?q?es?=") + b"\xff 8-bit\r\n"
    spam, fine = from_the_edge(plain, ip=LISTED), from_the_edge(plain)
    judged.put("spam", spam)
    judged.put("fine", fine, to=BOB)
    assert judged.pass_(SPAM_SUBJECT_TAG="[SPAM]", FILTERS="auth,dnsbl,clamav")["delivered"] == 2
    assert judged.house.filed(ALICE) == [as_filed(spam.replace(b"Subject:", b"Subject: [SPAM]"))]
    assert judged.house.filed(BOB) == [as_filed(fine)]


# -- quarantine by hand --


def test_what_is_released_is_delivered_byte_for_byte_with_the_filters_passed_over(
    judged: Judged, policy: FakeHttp
) -> None:
    judged.put("virus", VIRUS_MAIL)
    judged.put("other", GTUBE, to=BOB)
    assert judged.pass_()["quarantined"] == 2
    (entry,) = [entry for entry in judged.quarantine() if entry["reason"] == "virus"]
    done = judged.drain("quarantine", "release", entry["id"], "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert '"delivered"' in done.stdout.splitlines()[-1]
    judged.house.server.wait_until_filed()
    assert judged.house.filed(ALICE) == [as_filed(VIRUS_MAIL)]
    assert added(filed_at(judged)) == {"X-Drain-Verdict": "deliver; released by hand"}
    assert policy.requests == []
    (processed,) = judged.house.r2.keys("processed/")
    assert processed.endswith("-virus")
    assert [entry["reason"] for entry in judged.quarantine()] == ["spam"], "what was not released stays"
    assert judged.house.server.mailbox(BOB) == []
    # And it is not set aside again by a later pass, nor sent again.
    judged.put("again", VIRUS_MAIL)
    assert judged.pass_()["moved"] == 1
    assert len(judged.house.filed(ALICE)) == 1


def test_what_is_released_while_the_mail_server_is_down_is_delivered_by_the_next_pass(
    judged: Judged, postfix: Postfix
) -> None:
    judged.put("gtube", GTUBE)
    assert judged.pass_()["quarantined"] == 1
    (entry,) = judged.quarantine()
    postfix.halt()
    try:
        done = judged.drain("quarantine", "release", entry["id"])
        assert done.returncode == 75
        assert judged.house.r2.keys() == [entry["object"]], "it stays where it was"
    finally:
        postfix.start()
    summary = judged.pass_()
    assert (summary["delivered"], summary["exit"]) == (1, 0)
    assert judged.house.filed(ALICE) == [as_filed(GTUBE)]
    assert judged.quarantine() == []
    assert len(judged.house.r2.keys("processed/")) == 1


def test_what_is_deleted_is_gone_and_only_by_a_word_for_it(judged: Judged) -> None:
    judged.put("gtube", GTUBE)
    judged.pass_()
    (entry,) = judged.quarantine()
    assert judged.drain("quarantine", "delete", entry["id"]).returncode == 64
    assert judged.house.r2.keys() == [entry["object"]]
    assert judged.drain("quarantine", "delete", entry["id"], "--yes").returncode == 0
    assert judged.house.r2.keys() == []
    assert judged.quarantine() == []
    assert judged.pass_()["exit"] == 0
    assert judged.house.server.mailbox(ALICE) == []


# -- the way to try settings --


def test_drain_filter_prints_each_verdict_and_its_time_and_delivers_nothing(judged: Judged, tmp_path: Path) -> None:
    file = tmp_path / "gtube.eml"
    file.write_bytes(GTUBE)
    order = ("auth", "dnsbl", "clamav", "ai", "decision", "spamassassin")
    done = judged.drain("filter", str(file), FILTERS=",".join(order))
    assert (done.returncode, done.stderr) == (0, "")
    said = re.findall(r"^(\w+)  (.+)  \((\d+\.\d) ms\)$", done.stdout, re.MULTILINE)
    assert [name for name, _, _ in said] == list(order)
    assert all(float(took) > 0 for name, _, took in said if name != "auth")
    words = {name: verdict for name, verdict, _ in said}
    assert words["clamav"] == words["decision"] == "asks for nothing"
    assert words["ai"] == "0.0 points"
    assert re.match(r"100\d\.\d points: .*GTUBE", words["spamassassin"])
    assert re.search(r"^=> quarantine, 100\d\.\d points$", done.stdout, re.MULTILINE)
    assert re.search(r"^ +GTUBE$", done.stdout, re.MULTILINE)
    assert judged.house.r2.keys() == []
    assert judged.house.server.mailbox(ALICE) == []


def test_drain_filter_does_not_ask_who_comes_after_the_one_that_settles_it(
    judged: Judged, policy: FakeHttp, tmp_path: Path
) -> None:
    file = tmp_path / "gtube.eml"
    file.write_bytes(GTUBE)
    done = judged.drain("filter", str(file))
    assert re.findall(r"^(\w+)  ", done.stdout, re.MULTILINE) == ["auth", "dnsbl", "clamav", "spamassassin"]
    assert policy.requests == []
