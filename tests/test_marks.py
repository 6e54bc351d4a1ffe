"""What a mail gets: that it is what was asked for, and that nothing else changes."""

import email
import email.policy
import email.utils
import re
import time
from email.header import decode_header, make_header
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drain.filters.chain import Answer, Judgement
from drain.filters.verdict import Action, Verdict
from drain.header import LIMIT, Header, split
from drain.mail import begins_with_header_field, normalised, on_the_wire
from drain.marks import EXCHANGE, WRITTEN, Marks, tagged, without_forged

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.eml"))
STAMP = b"X-Drain-Id: " + b"0" * 64 + b"\r\n"
ADDED = (
    "X-Drain-Verdict",
    "X-Spam-Flag",
    "X-Spam-Score",
    "X-Spam-Status",
    "X-MS-Exchange-Organization-SCL",
    "X-Forefront-Antispam-Report",
    "X-Drain-Id",
)
# As mail programs and milters read SpamAssassin's line, unfolded.
STATUS = re.compile(r"(Yes|No), score=(-?[0-9.]+) required=(-?[0-9.]+) tests=([A-Za-z0-9_,\s]*?)(?:\s+autolearn=.*)?")
ENCODED_WORD = re.compile(rb"=\?[^?\s]+\?[bq]\?[^?\s]*\?=", re.IGNORECASE)
TAG = "[SPAM]"


def judged(*verdicts: tuple[str, Verdict], action: Action = Action.NONE, score: float | None = None) -> Judgement:
    return Judgement(action, score, tuple(Answer(name, verdict=verdict) for name, verdict in verdicts))


CLEAN = judged(("auth", Verdict(evidence=("spf=pass dkim=pass dmarc=pass",))))
SCORED = judged(("spamassassin", Verdict(1.3, evidence=("HTML_MESSAGE", "NO_RELAYS"))), score=1.3)
SPAM = judged(
    ("auth", Verdict(action=Action.TAG, code="auth-failed", reason="DMARC failed at Cloudflare")),
    ("dnsbl", Verdict(3.0, code="listed", reason="listed by zen.spamhaus.org")),
    ("spamassassin", Verdict(4.5, evidence=("GTUBE", "MISSING_DATE"))),
    action=Action.TAG,
    score=7.5,
)
NOT_ASKED = Judgement()


def lines(judgement: Judgement, *, exchange: bool = False) -> list[tuple[str, str]]:
    """The fields that are added, unfolded."""
    added = Marks(exchange=exchange).lines(judgement)
    return [(field.name, re.sub(r" ?\t", " ", field.text)) for field in Header(added).fields]


def below(wire: bytes) -> bytes:
    """What stands below the stamp."""
    above, stamp, rest = wire.partition(STAMP)
    assert stamp
    assert b"\r\n\r\n" not in above
    return rest


# -- which lines --


def test_without_filters_a_mail_gets_the_stamp_alone() -> None:
    raw = b"A: b\r\n\r\nx\r\n"
    assert bytes(Marks(exchange=True).on_the_wire(raw, STAMP, NOT_ASKED)) == STAMP + raw


def test_a_mail_that_nobody_scores_gets_a_verdict_and_no_score() -> None:
    assert lines(CLEAN) == [("X-Drain-Verdict", "deliver; auth (spf=pass dkim=pass dmarc=pass)")]


def test_a_clean_mail_with_points_gets_them() -> None:
    assert lines(SCORED) == [
        ("X-Drain-Verdict", "deliver, score=1.3; spamassassin=1.3 (HTML_MESSAGE)"),
        ("X-Spam-Flag", "NO"),
        ("X-Spam-Score", "1.3"),
        ("X-Spam-Status", "No, score=1.3 required=5.0 tests=HTML_MESSAGE,NO_RELAYS"),
    ]


def test_spam_gets_every_line_and_exchanges_on_request() -> None:
    found = dict(lines(SPAM))
    assert list(found) == ["X-Drain-Verdict", "X-Spam-Flag", "X-Spam-Score", "X-Spam-Status"]
    assert found["X-Drain-Verdict"].split("; ") == [
        "tag, score=7.5",
        "auth=tag (DMARC failed at Cloudflare)",
        "dnsbl=3.0 (listed by zen.spamhaus.org)",
        "spamassassin=4.5 (GTUBE)",
    ]
    assert (found["X-Spam-Flag"], found["X-Spam-Score"]) == ("YES", "7.5")
    status, _, tests = found["X-Spam-Status"].partition(" tests=")
    assert status == "Yes, score=7.5 required=5.0"
    assert re.split(r",\s*", tests) == ["DRAIN_AUTH_FAILED", "DRAIN_DNSBL_LISTED", "GTUBE", "MISSING_DATE"]
    assert lines(SPAM, exchange=True)[4:] == [
        ("X-MS-Exchange-Organization-SCL", "6"),
        ("X-Forefront-Antispam-Report", "SCL:6;SFV:SPM"),
    ]


def test_exchange_is_told_of_clean_mail_too() -> None:
    assert lines(CLEAN, exchange=True)[1:] == [
        ("X-MS-Exchange-Organization-SCL", "1"),
        ("X-Forefront-Antispam-Report", "SCL:1;SFV:NSPM"),
    ]


def test_mail_tagged_without_points_has_a_score_of_none() -> None:
    tag = judged(("auth", Verdict(action=Action.TAG, code="auth-failed", reason="SPF failed")), action=Action.TAG)
    assert lines(tag) == [
        ("X-Drain-Verdict", "tag; auth=tag (SPF failed)"),
        ("X-Spam-Flag", "YES"),
        ("X-Spam-Score", "0.0"),
        ("X-Spam-Status", "Yes, score=0.0 required=5.0 tests=DRAIN_AUTH_FAILED"),
    ]


def test_a_filter_that_failed_is_named() -> None:
    answers = (Answer("dnsbl", failure="It is down."), Answer("auth", verdict=Verdict()))
    assert lines(Judgement(answers=answers)) == [("X-Drain-Verdict", "deliver; dnsbl=failed; auth")]


def test_junk_is_spam() -> None:
    found = dict(lines(judged(("ai", Verdict(8.0)), action=Action.JUNK, score=8.0)))
    assert (found["X-Spam-Flag"], found["X-Drain-Verdict"]) == ("YES", "junk, score=8.0; ai=8.0")


def test_the_stamp_is_the_lowest_line_of_ours_and_the_order_is_always_the_same() -> None:
    wire = bytes(Marks(exchange=True).on_the_wire(b"A: b\r\n\r\nx\r\n", STAMP, SPAM))
    assert [field.name for field in Header.of(wire).fields] == [*ADDED, "A"]
    assert set(ADDED) == {*WRITTEN, *EXCHANGE}


@pytest.mark.parametrize("judgement", [SCORED, SPAM, judged(("spamassassin", Verdict(-2.5)), score=-2.5)])
def test_the_status_is_what_programs_expect_of_spamassassin(judgement: Judgement) -> None:
    found = STATUS.fullmatch(dict(lines(judgement))["X-Spam-Status"])
    assert found
    assert (found[1] == "Yes") is (judgement.action >= Action.TAG)
    assert float(found[2]) == judgement.score
    assert float(found[3]) == 5.0
    names = re.split(r",\s*", found[4])
    assert names
    assert all(names)


def test_the_required_points_are_the_persons() -> None:
    assert b" required=7.2 " in Marks(tag_score=7.25).lines(SCORED)


def test_many_rules_are_folded_into_lines_of_the_usual_length() -> None:
    rules = tuple(f"RULE_NUMBER_{number}" for number in range(60))
    added = Marks().lines(judged(("spamassassin", Verdict(9.0, evidence=rules)), action=Action.TAG, score=9.0))
    assert max(map(len, added.split(b"\r\n"))) < 78
    status = Header(added).get("X-Spam-Status")
    assert re.split(r",\s*", status.partition("tests=")[2]) == list(rules)


@pytest.mark.parametrize("rule", ["GTUBE", "HEADER_FROM_DIFFERENT_DOMAINS", "R" * 70])
def test_the_status_line_begins_as_spamassassins_does_however_long_its_rules(rule: str) -> None:
    """Scripts look for ``Yes, score=`` on the first line: it may be folded among the tests alone."""
    verdict = Verdict(7.5, evidence=(rule, "GTUBE"))
    added = Marks().lines(judged(("spamassassin", verdict), action=Action.TAG, score=7.5))
    assert b"\r\nX-Spam-Status: Yes, score=7.5 required=5.0 tests=" in added


@pytest.mark.parametrize(
    "raw", [b"From a@b.test Mon\r\nA: b\r\n\r\nx\r\n", b"\r\nx\r\n", b" x\r\n", b"\xef\xbb\xbfA: b\r\n", b""]
)
def test_nothing_is_put_above_what_is_no_header(raw: bytes) -> None:
    marks = Marks(subject_tag=TAG, exchange=True, strip_forged=True)
    wire = bytes(marks.on_the_wire(raw, STAMP, SPAM))
    assert wire == on_the_wire(raw)


# -- words from outside --

HOSTILE = [
    "a\r\nX-Evil: 1",
    "a\r\n\r\nbody",
    "a\nX-Evil: 1",
    "a\rX-Evil: 1",
    "a\x00b",
    "a) ; b=(c",
    "((((",
    "))))",
    "\\",
    "a\\",
    "=?utf-8?q?=0D=0AX-Evil=3A_1?=",
    "x" * 10_000,
    "x; " * 5_000,
    ";   ;  ; " * 40,
    "x" * 60 + ";     ",
    ", , ,",
    "grüße 🔑 \u2028\u0085\x0b\x0c",
    "\ud800",
    " ",
    "\t\t",
    "ß" * 300,
]


def check_the_lines(added: bytes, names: list[str]) -> None:
    assert added.isascii()
    assert added.endswith(b"\r\n")
    physical = added.removesuffix(b"\r\n").split(b"\r\n")
    for line in physical:
        assert len(line) <= 998
        assert all(letter >= 32 or letter == 9 for letter in line), "control characters"
        assert line.strip(), "a blank line ends the header for some"
    found = list(Header(added).fields)
    assert [field.name for field in found] == names
    assert b"".join(added[field.start : field.end] for field in found) == added
    verdict = Header(added).get("X-Drain-Verdict")
    assert verdict.count("(") == verdict.count(")") <= 3
    assert "\\" not in verdict
    assert not ENCODED_WORD.search(added), "is decoded in a comment too (RFC 2047 5)"


@pytest.mark.parametrize("words", HOSTILE, ids=[f"{place}" for place in range(len(HOSTILE))])
def test_words_from_outside_add_no_line_and_break_none(words: str) -> None:
    for name in ("spamassassin", "ai"):
        for verdict in (
            Verdict(9.0, Action.TAG, words, words, (words, words), words),
            Verdict(9.0, evidence=(words, "GOOD_RULE")),
            Verdict(9.0, Action.TAG, code=words),
        ):
            judgement = judged(("auth", verdict), (name, verdict), ("dnsbl", verdict), action=Action.TAG, score=9.0)
            added = Marks(exchange=True).lines(judgement)
            check_the_lines(added, [name for name in ADDED if name != "X-Drain-Id"])
            # RFC 5322 2.2.3: unfolding takes the line end away and nothing else.
            assert STATUS.fullmatch(Header(added).get("X-Spam-Status").replace(" \t", "\t"))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=80), st.lists(st.text(max_size=20), max_size=3), st.text(max_size=20))
def test_no_words_at_all_add_a_line_or_break_one(reason: str, evidence: list[str], code: str) -> None:
    verdict = Verdict(9.0, Action.TAG, code, reason, tuple(evidence))
    added = Marks().lines(judged(("spamassassin", verdict), ("ai", verdict), action=Action.TAG, score=9.0))
    check_the_lines(added, ["X-Drain-Verdict", "X-Spam-Flag", "X-Spam-Score", "X-Spam-Status"])


# -- the mail itself --


def test_below_the_stamp_every_mail_of_the_corpus_is_as_it_was_sent() -> None:
    for path in CORPUS:
        raw = path.read_bytes()
        for marks in (Marks(), Marks(exchange=True), Marks(subject_tag=TAG)):
            for judgement in (NOT_ASKED, CLEAN, SCORED, SPAM):
                if marks.subject_tag and judgement is SPAM:
                    continue
                wire = bytes(marks.on_the_wire(raw, STAMP, judgement))
                assert (below(wire) if STAMP in wire else wire) == on_the_wire(raw)


_PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b".", b"\x00", b"\xff", b"x", b"X-A", b"X-Drain-Id", b"x-spam-flag"]
)
_WORDS = st.sampled_from([b"Subject", b"[SPAM]", b"=?utf-8?q?", b"?="])
_BUILT = st.lists(_PIECES | _WORDS, max_size=30).map(b"".join)
MAILS = st.one_of(st.binary(max_size=60), _BUILT, _BUILT.map(lambda rest: b"A: b\n" + rest))


@given(MAILS, st.booleans(), st.sampled_from([NOT_ASKED, CLEAN, SCORED, SPAM]))
def test_below_the_stamp_any_mail_is_as_it_was_sent(raw: bytes, exchange: bool, judgement: Judgement) -> None:  # noqa: FBT001
    marks = Marks(exchange=exchange)
    above = marks.lines(judgement) + STAMP if begins_with_header_field(raw) else b""
    assert bytes(marks.on_the_wire(raw, STAMP, judgement)) == above + on_the_wire(raw)


@given(MAILS)
def test_the_body_is_never_touched(raw: bytes) -> None:
    wire = bytes(Marks(subject_tag=TAG, strip_forged=True, exchange=True).on_the_wire(raw, STAMP, SPAM))
    _, rest = split(on_the_wire(raw))
    assert wire.endswith(rest)


# -- names that drain writes --


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"], ids=["CRLF", "LF", "CR"])
def test_forged_names_are_renamed_wherever_they_stand_in_the_header(name: str, end: bytes) -> None:
    forged = name.encode()
    raw = end.join(
        [
            b"A: b",
            forged + b": 1",
            forged.lower() + b" \t: 2",
            b"no field",
            forged.upper() + b":",
            b" " + forged + b": folded",
            b"X-" + forged + b": other",
            forged + b"-Other: other",
            forged[:-1] + b": other",
            b"Z: " + forged + b": 3",
            b"",
            forged + b": body",
        ]
    )
    expected = b"\r\n".join(
        [
            b"A: b",
            b"X-Original-" + forged + b": 1",
            b"X-Original-" + forged.lower() + b" \t: 2",
            b"no field",
            b"X-Original-" + forged.upper() + b":",
            b" " + forged + b": folded",
            b"X-" + forged + b": other",
            forged + b"-Other: other",
            forged[:-1] + b": other",
            b"Z: " + forged + b": 3",
            b"",
            forged + b": body",
            b"",
        ]
    )
    assert bytes(Marks(strip_forged=True).on_the_wire(raw, STAMP, NOT_ASKED)) == STAMP + expected
    assert below(bytes(Marks().on_the_wire(raw, STAMP, NOT_ASKED))) == on_the_wire(raw), "only on request"


def test_names_that_only_begin_alike_stay() -> None:
    head = b"X-Spam-Level: ***\r\nX-Spam: 1\r\nX-Spam-Flags: 1\r\nX-Drain: 1\r\nX-Drain-Ids: 1\r\nAuthentication-Results: x\r\n"
    assert without_forged(head) == head


@given(MAILS)
def test_after_renaming_no_name_of_ours_is_left_and_renaming_again_changes_nothing(raw: bytes) -> None:
    head = Header.of(raw).block
    once = without_forged(head)
    assert not any(list(Header(once).all(name)) for name in WRITTEN)
    assert without_forged(once) == once
    assert re.sub(rb"(?m)^X-Original-(?=x)", b"", once, flags=re.IGNORECASE) == head


def test_renaming_changes_nothing_else_of_the_corpus() -> None:
    for path in CORPUS:
        head, _ = split(normalised(path.read_bytes()))
        assert without_forged(head).replace(b"X-Original-", b"") == head.replace(b"X-Original-", b"")


# -- the Subject --


def shown(head: bytes) -> list[str]:
    """The Subjects as a mail program shows them, blanks counted as one."""
    # The standard library knows no blanks before the colon.
    head = re.sub(rb"(?mi)^(subject)[ \t]+:", rb"\1:", head)
    message = email.message_from_bytes(head + b"\r\n", policy=email.policy.compat32)
    found = []
    for value in message.get_all("Subject", []):
        words = str(make_header(decode_header(value)))
        found.append(" ".join(words.split()))
    return found


SUBJECTS = {
    "plain": b"Subject: hello",
    "no blank behind the colon": b"Subject:hello",
    "a blank before the colon": b"Subject : hello",
    "a tab behind it": b"Subject:\thello",
    "lower case": b"subject: hello",
    "folded": b"Subject: hello\r\n there",
    "first line empty": b"Subject:\r\n hello",
    "first line blank": b"Subject: \r\n\thello",
    "folded with tabs": b"Subject: hello\r\n\tthere\r\n\tand there",
    "encoded B": b"Subject: =?utf-8?B?R3LDvMOfZQ==?=",
    "encoded Q": b"Subject: =?iso-8859-1?Q?Gr=FC=DFe_an_alle?=",
    "encoded, no blank before it": b"Subject:=?utf-8?B?R3LDvMOfZQ==?=",
    "adjacent": b"Subject: =?utf-8?q?a?= =?utf-8?q?b?=",
    "adjacent and folded": b"Subject: =?utf-8?q?a?=\r\n =?iso-2022-jp?b?GyRCJCIbKEI=?=\r\n =?utf-8?q?b?=",
    "encoded behind a fold": b"Subject:\r\n =?utf-8?q?a?= b",
    "plain, then encoded": b"Subject: Re: =?utf-8?q?=C3=BC?= x",
    "the word and a number": b"Subject: = ?utf-8?q?x?=",
    "a word of another kind": b"Subject: 100% [x] (y)",
}


@pytest.mark.parametrize("tag", ["[SPAM]", "***", "Spam:", "[WÜRG]", "迷惑メール"])
def test_the_tag_is_shown_in_front_of_what_was_shown(tag: str) -> None:
    for subject in SUBJECTS.values():
        check_the_tag(subject, tag)


def check_the_tag(subject: bytes, tag: str) -> None:
    head = b"A: b\r\n" + subject + b"\r\nC: d\r\n"
    (before,) = shown(head)
    after, added = tagged(head, tag)
    assert added == b""
    assert shown(after) == [f"{tag} {before}"]
    old, new = Header(head), Header(after)
    assert [field.name for field in new.fields] == [field.name for field in old.fields]
    assert all(len(line) <= 998 for line in after.split(b"\r\n"))
    (value,) = old.all("Subject")
    assert value.value.strip() in after, "what was there stays as it was written"
    assert tagged(after, tag) == (after, b""), "never twice"


def test_the_tag_of_an_empty_subject_is_all_that_it_says() -> None:
    for subject in (b"Subject:", b"Subject: ", b"Subject:\r\n ", b"Subject :"):
        after, _ = tagged(subject + b"\r\nA: b\r\n", TAG)
        assert shown(after) == [TAG]
        assert tagged(after, TAG) == (after, b"")


def test_raw_8_bit_letters_stay_as_they_are() -> None:
    for tag, word in ((TAG, b"[SPAM]"), ("[Ü]", b"=?utf-8?b?W8OcXQ==?=")):
        for old in (b" gr\xfc\xdfe", b" gr\xc3\xbc\xc3\x9fe", b"\xff"):
            after, _ = tagged(b"Subject:" + old + b"\r\n", tag)
            assert after == b"Subject: " + word + b" " + old.lstrip() + b"\r\n"
            assert tagged(after, tag) == (after, b"")


def test_a_mail_without_a_subject_gets_one() -> None:
    raw = b"A: b\r\n\r\nSubject: body\r\n"
    wire = bytes(Marks(subject_tag=TAG).on_the_wire(raw, STAMP, SPAM))
    assert below(wire) == raw
    head, _ = split(wire)
    assert shown(head) == [TAG]
    again = bytes(Marks(subject_tag=TAG).on_the_wire(wire, STAMP, SPAM))
    assert shown(split(again)[0]) == [TAG]
    assert Header.of(bytes(Marks(subject_tag="Ü").on_the_wire(raw, STAMP, SPAM))).get("Subject") == "=?utf-8?b?w5w=?="


def test_of_several_subjects_each_gets_it() -> None:
    """Programs do not agree which one they show."""
    after, _ = tagged(b"Subject: a\r\nSUBJECT: [spam] b\r\nsubject:c\r\n", TAG)
    assert shown(after) == ["[SPAM] a", "[spam] b", "[SPAM] c"]


@pytest.mark.parametrize(
    "subject",
    [
        b" [SPAM] x",
        b"[SPAM] x",
        b" [spam] x",
        b" Re: [SPAM] x",
        b"\r\n [SPAM] x",
        b" =?utf-8?q?=5BSPAM=5D_x?=",
        b" =?utf-8?b?W1NQQU1dIHg=?=",
        b" =?utf-8?q?=5BSP?= =?utf-8?q?AM=5D_x?=",
        b" =?utf-8?q?=5BSP?=\r\n\t=?utf-8?q?AM=5D_x?=",
        b" =?utf-8?q?[sPaM]?= x",
    ],
)
def test_a_tag_that_is_there_already_is_not_put_there_again(subject: bytes) -> None:
    head = b"Subject:" + subject + b"\r\n"
    assert tagged(head, TAG) == (head, b"")


def test_a_tag_with_letters_beyond_ascii_is_found_again() -> None:
    for subject in (b" =?utf-8?q?=5BW=C3=9CRG=5D?= x", b" =?utf-8?q?=5Bw=C3=BCrg=5D?= x", " [würg] x".encode()):
        head = b"Subject:" + subject + b"\r\n"
        assert tagged(head, "[WÜRG]") == (head, b"")


def test_a_name_that_only_looks_like_subject_is_left_alone() -> None:
    head = b"X-Subject: a\r\nSubject-X: a\r\n Subject: a\r\n"
    assert tagged(head, TAG) == (head, b"Subject: [SPAM]\r\n")


@pytest.mark.parametrize("length", [900, 975, 985, 989, 990, 991, 998, 1_000, 5_000])
@pytest.mark.parametrize("tag", ["[SPAM]", "[WÜRG]"])
def test_the_tag_makes_no_line_too_long(length: int, tag: str) -> None:
    head = b"Subject: " + b"x" * (length - len(b"Subject: ")) + b"\r\n"
    after, _ = tagged(head, tag)
    assert max(map(len, after.split(b"\r\n"))) <= max(998, length)
    assert shown(after) == [f"{tag} {shown(head)[0]}"]
    assert tagged(after, tag) == (after, b"")


@pytest.mark.parametrize("tag", ["ü" * 60, "迷" * 60, "🔑" * 60], ids=["two bytes", "three", "four"])
def test_a_long_tag_is_words_of_the_length_that_programs_decode(tag: str) -> None:
    """RFC 2047 2: an encoded word has at most 75 letters, a line with one at most 76."""
    for subject in (b" plain", b" =?utf-8?q?x?="):
        after, _ = tagged(b"Subject:" + subject + b"\r\n", tag)
        assert all(len(word) <= 75 for word in after.split() if word.startswith(b"=?"))
        (now,) = shown(after)
        assert now.replace(" ", "") == tag + shown(b"Subject:" + subject + b"\r\n")[0]


@pytest.mark.parametrize(
    "subject",
    [
        b" =?nope?q?x?=",
        b" =?utf-8?b?a?=",
        b" =?utf-8?q?=zz?=",
        b" =?utf-16?b?AAA=?=",
        b" =?idna?q?xn--?=",
        b" =?hex?q?zz?=",
        b" =?unknown-8bit?q?=FF?=",
        b" =?u\xc3\xbc?q?x?=",
        b" =?\xff?q?x?=",
        b" =?\x00?q?x?=",
        b" =??q?x?=",
        b" =?utf-8?x?x?=",
        b" =?unicode_escape?q?=5CN{x}?=",
        b" \x00",
        b" =?",
    ],
)
def test_a_subject_that_cannot_be_decoded_is_tagged_all_the_same(subject: bytes) -> None:
    after, _ = tagged(b"Subject:" + subject + b"\r\n", TAG)
    assert after == b"Subject: [SPAM]" + subject + b"\r\n"


@given(st.one_of(MAILS, MAILS.map(lambda raw: b"Subject: " + raw)), st.sampled_from([TAG, "Ü"]))
def test_no_subject_is_too_odd_to_be_tagged_and_none_is_tagged_twice(raw: bytes, tag: str) -> None:
    head = Header.of(raw).block
    after, added = tagged(head, tag)
    assert bool(added) == (not list(Header(head).all("Subject")))
    assert tagged(after, tag) == (after, added)
    names = [field.name for field in Header(head).fields]
    assert [field.name for field in Header(after).fields] == names


@given(st.lists(st.sampled_from(["=?", "?=", "?q?", "?b?", "utf-8", "ü", "=C3", "_", " ", "a", "\x00"]), max_size=20))
def test_no_encoded_word_is_too_odd_to_be_tagged(pieces: list[str]) -> None:
    words = "".join(pieces)
    head = b"Subject: " + words.encode() + b"\r\n"
    after, _ = tagged(head, TAG)
    assert after == b"Subject: [SPAM] " + words.encode() + b"\r\n"


def test_a_tag_changes_nothing_else_of_the_corpus() -> None:
    for path in CORPUS:
        head, rest = split(normalised(path.read_bytes()))
        after, _ = tagged(head, TAG)
        assert after.replace(b" [SPAM]", b"") == head
        assert bytes(Marks(subject_tag=TAG).on_the_wire(head + rest, STAMP, SPAM)).endswith(
            on_the_wire(after + rest).removeprefix(b".")
        )


def test_mail_that_is_not_spam_is_not_tagged() -> None:
    raw = b"Subject: x\r\n\r\ny\r\n"
    for judgement in (NOT_ASKED, CLEAN, SCORED):
        assert below(bytes(Marks(subject_tag=TAG).on_the_wire(raw, STAMP, judgement))) == raw


def test_marks_on_a_mail_that_has_them_are_the_same_below() -> None:
    marks = Marks(subject_tag=TAG, exchange=True)
    once = bytes(marks.on_the_wire(b"Subject: x\n\ny", STAMP, SPAM))
    assert bytes(marks.on_the_wire(once, STAMP, SPAM)) == marks.lines(SPAM) + STAMP + once


@pytest.mark.parametrize(
    "piece",
    [b"=?a?q?x", b"=?a?q?x?= ", b"=?a?q?x?=", b"=?", b"?=", b"=?a?b?", b"x", b"\r\n =?a?q?x?=", b"\xff"],
    ids=repr,
)
def test_a_hostile_subject_takes_no_time(piece: bytes) -> None:
    """The standard library's pattern for encoded words goes over the rest of the line at every ``=?``."""
    # Small first: what takes long there would take hours with all of it.
    for size in (20_000, LIMIT):
        head = b"Subject: " + piece * (size // len(piece)) + b"\r\n"
        begun = time.process_time()
        tagged(head, TAG)
        assert time.process_time() - begun < (1 if size < LIMIT else 5)


@pytest.mark.parametrize("line", [b"Subject:\r\n", b"X-Spam-Flag:\r\n", b"x-spam-flag ", b"a:\r\n"], ids=repr)
def test_a_header_of_very_many_fields_takes_no_time(line: bytes) -> None:
    raw = line * (LIMIT // 4 // len(line))
    begun = time.process_time()
    bytes(Marks(subject_tag=TAG, strip_forged=True).on_the_wire(raw, STAMP, SPAM))
    assert time.process_time() - begun < 5


def test_a_hostile_header_costs_neither_time_nor_memory() -> None:
    """25 MiB of Subjects, and of names of ours: the first megabyte of a header is what any server reads."""
    marks = Marks(subject_tag=TAG, strip_forged=True)
    for line in (b"Subject:a\n", b"x-spam-flag:\n"):
        raw = line * (25 * 1024 * 1024 // len(line))
        begun = time.process_time()
        wire = bytes(marks.on_the_wire(raw, STAMP, SPAM))
        assert time.process_time() - begun < 5
        assert wire.count(b"[SPAM]") <= 10
        assert len(wire) < 2 * 25 * 1024 * 1024


@pytest.mark.parametrize(
    "subject",
    [
        b"Subject: Cheap pills" + b" " * 300 + b"[spam]",
        b"Subject: =?utf-8?q?Invoice?= =?bogus?q?[SPAM]?=",
    ],
)
def test_a_tag_where_nobody_looks_is_no_tag(subject: bytes) -> None:
    after, _ = tagged(subject + b"\r\n", TAG)
    assert after.startswith(b"Subject: [SPAM] ")


def test_names_that_exchange_writes_are_its_own_unless_we_write_them() -> None:
    head = b"X-Forefront-Antispam-Report: SCL:1\r\n"
    assert without_forged(head) == head
    assert without_forged(head, exchange=True) == b"X-Original-" + head


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("over", range(-6, 8))
def test_a_header_at_its_limit_is_marked_as_if_the_whole_mail_were_looked_at(over: int, end: bytes) -> None:
    """Only so much of a mail is copied; where that ends must not show."""
    line = b"X-Spam-Flag: a" + end
    head = b"Subject: s" + end + line * (LIMIT // len(line.replace(end, b"\r\n")))
    raw = head[: LIMIT + over - len(end)] + end + end + b".x" + end * 3 + b"X-Spam-Flag: b" + end
    marks = Marks(subject_tag=TAG, strip_forged=True)
    before, rest = split(normalised(raw), LIMIT)
    after, _ = tagged(without_forged(before), TAG)
    wire = marks.on_the_wire(raw, STAMP, SPAM)
    assert bytes(wire) == on_the_wire(after + rest, marks.lines(SPAM) + STAMP)
    assert len(wire) == len(bytes(wire))
