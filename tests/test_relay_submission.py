"""What a mail gets and loses on its way from the client."""

import datetime
import email.utils
import re
from email import message_from_bytes, policy

import pytest
from hypothesis import given, settings, strategies as st

from drain.header import LIMIT, Header
from drain.mail import normalised
from drain.relay.refusal import Refusal
from drain.relay.submission import Submission, complete

NOW = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
FALLBACK = "pi@mine.test"
RECEIVED = (
    b"Received: from localhost by home.mine.test (drain)\r\n with ESMTPSA id q1\r\n for <b@x.test>;\r\n"
    b" Wed, 04 Mar 2026 05:06:07 +0000\r\n"
)
FULL = b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@mine.test>\r\nFrom: a@mine.test\r\n"


def completed(raw: bytes, *, fallback: str = FALLBACK, recipients: tuple[str, ...] = ("b@x.test",)) -> Submission:
    return complete(
        raw,
        fallback=fallback,
        hostname="home.mine.test",
        protocol="ESMTPSA",
        queue_id="q1",
        recipients=recipients,
        now=NOW,
    )


def added(raw: bytes) -> tuple[list[str], bytes]:
    """The names of the fields below Received, and the body."""
    found = completed(raw)
    names = [field.name for field in found.header.fields]
    assert names[0] == "Received"
    assert found.raw.startswith(found.header.block + b"\r\n")
    assert found.header == Header.of(found.raw)
    return names[1:], found.raw[len(found.header.block) + 2 :]


# -- added --


def test_a_mail_that_has_everything_gets_a_received_field_alone() -> None:
    raw = FULL + b"Subject: =?utf-8?q?x?=  \r\n\t folded\r\nX-Odd:nothing \xff\r\n\r\n\xff\x00 body \r\n..\r\n"
    found = completed(raw)
    assert found.raw == RECEIVED + raw
    assert found.message_id == "<1@mine.test>"


def test_date_and_message_id_are_added_if_they_are_missing() -> None:
    found = completed(b"From: A <a@Mine.test>\r\nSubject: s\r\n\r\nbody")
    head, body = found.raw.split(b"\r\n\r\n")
    lines = head.removeprefix(RECEIVED).split(b"\r\n")
    assert lines[0] == b"Date: Wed, 04 Mar 2026 05:06:07 +0000"
    assert re.fullmatch(rb"Message-ID: <[0-9a-f]{32}@mine\.test>", lines[1])
    assert lines[2:] == [b"From: A <a@Mine.test>", b"Subject: s"]
    assert body == b"body"
    assert found.message_id == lines[1].removeprefix(b"Message-ID: ").decode()
    assert completed(b"From: a@mine.test\r\n\r\n").message_id != found.message_id


def test_a_message_id_is_ascii_whatever_the_domain() -> None:
    found = completed("From: a@bücher.test\r\n\r\n".encode())
    assert found.message_id.endswith("@xn--bcher-kva.test>")


def test_fields_are_known_by_name_in_any_case_and_folded() -> None:
    raw = b"DATE: x\r\nmessage-id:\r\n <1@x>\r\nfrom: a@mine.test\r\n\r\n"
    found = completed(raw)
    assert found.raw == RECEIVED + raw
    assert found.message_id == "<1@x>"


def test_a_message_id_that_is_none_stays_and_is_not_told() -> None:
    assert completed(b"Message-ID: x y\r\n" + b"From: a@mine.test\r\n\r\n").message_id == ""


@pytest.mark.parametrize(
    ("recipients", "told"),
    [
        (("b@x.test",), b" for <b@x.test>;"),
        (("b@x.test", "secret@x.test"), b" id q1;"),
        (("jürg@x.test",), b" id q1;"),
    ],
)
def test_received_tells_a_recipient_only_if_there_is_no_other(recipients: tuple[str, ...], told: bytes) -> None:
    found = completed(FULL + b"\r\n", recipients=recipients)
    assert told in found.raw
    assert b"secret" not in found.raw
    # RFC 5321 4.4: programs read the date behind the last semicolon.
    date = found.header.get("Received").rpartition(";")[2]
    assert email.utils.parsedate_to_datetime(date) == NOW


# -- taken away --


def test_bcc_and_return_path_are_taken_away_with_their_folded_lines() -> None:
    raw = (
        b"Return-Path: <x@x.test>\r\nBCC: secret@x.test,\r\n\tsecret2@x.test\r\n"
        + FULL
        + b"Resent-Bcc:\r\n secret@x.test\r\nX-Bcc: stays\r\nSubject: s\r\nbcc:\r\nTo: b@x.test\r\n\r\nBcc: in the body\r\n"
    )
    rest = FULL + b"X-Bcc: stays\r\nSubject: s\r\nTo: b@x.test\r\n\r\nBcc: in the body\r\n"
    assert completed(raw).raw == RECEIVED + rest


# -- From --


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"From: root", b"From: pi@mine.test"),
        (b"From: root (Cron Daemon)", b"From: pi@mine.test (Cron Daemon)"),
        (b'From: "(Cron Daemon)" <root>', b'From: "(Cron Daemon)" <pi@mine.test>'),
        (b"From: Anacron\r\n <root@raspberrypi>", b"From: Anacron\r\n <pi@mine.test>"),
        ("From: Jürg <root@localhost>".encode(), "From: Jürg <pi@mine.test>".encode()),
        (b"from:root", b"from:pi@mine.test"),
    ],
)
def test_an_author_without_a_domain_becomes_the_fallback_and_keeps_its_name(before: bytes, after: bytes) -> None:
    rest = b"\r\nDate: x\r\nMessage-ID: <1@x>\r\nSubject: Cron <root@pi> run-parts\r\n\r\nroot\r\n"
    assert completed(before + rest).raw == RECEIVED + after + rest
    with pytest.raises(Refusal, match="RELAY_FROM_FALLBACK") as refusal:
        completed(before + rest, fallback="")
    assert (refusal.value.code, refusal.value.status) == (550, "5.7.1")


def test_an_author_with_a_domain_stays_whoever_it_is() -> None:
    for value in (b"ceo@bank.test", b"A <a@mine.test>", b"root, a@mine.test"):
        assert b"\r\nFrom: " + value + b"\r\n" in completed(b"From: " + value + b"\r\n\r\n").raw


def test_a_missing_author_becomes_the_fallback_or_is_refused() -> None:
    names, body = added(b"Subject: s\r\n\r\nbody\r\n")
    assert names == ["From", "Date", "Message-ID", "Subject"]
    assert body == b"body\r\n"
    assert completed(b"Subject: s\r\n\r\n").header.get("From") == FALLBACK
    assert completed(b"Subject: s\r\n\r\n").message_id.endswith("@mine.test>")
    with pytest.raises(Refusal, match=r"has no From field.*RELAY_FROM_FALLBACK"):
        completed(b"Subject: s\r\n\r\nbody\r\n", fallback="")


# -- no header --


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"\r\nbody\r\n", b"body\r\n"),
        (b"\nFrom: in the body\n", b"From: in the body\r\n"),
        (b"disk full\r\n", b"disk full\r\n"),
        (b"disk full", b"disk full\r\n"),
        (b"disk full\r\nFrom: ceo@bank.test\r\n\r\nmore", b"disk full\r\nFrom: ceo@bank.test\r\n\r\nmore"),
        (b" From: ceo@bank.test\r\n\r\nmore\r\n", b" From: ceo@bank.test\r\n\r\nmore\r\n"),
        (b"x" * (LIMIT + 10), b"x" * (LIMIT + 10)),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_body_alone_gets_a_header_and_stays_a_body(raw: bytes, body: bytes) -> None:
    names, found = added(raw)
    assert names == ["From", "Date", "Message-ID"]
    assert found == body


def test_a_header_alone_gets_its_empty_line() -> None:
    assert completed(FULL).raw == RECEIVED + FULL + b"\r\n"


# -- refused --


@pytest.mark.parametrize(
    "raw",
    [
        b"From root Mon Jan  1 00:00:00 2024\r\n" + FULL + b"\r\nbody",
        FULL + b"no field\r\n\r\nbody",
        FULL + b"Subject : x\r\n\r\nbody",
        FULL + b"Subject: x\r\n \r\n\r\nbody",
        FULL + b"Subject: \0\r\n\r\nbody",
        FULL + b"From: ceo@bank.test\r\n\r\nbody",
        FULL + b"X: y\rFrom: ceo@bank.test\r\n\r\nbody",
        b"From: <a@mine.test> <ceo@bank.test>\r\n\r\nbody",
        b"From:\r\n\r\nbody",
        b"Note: this is no header,\r\nbut looks like one\r\n",
        FULL + b"X: y\r\n" * (LIMIT // 6) + b"\r\nbody",
        FULL + b"X: " + b"y" * LIMIT + b"\r\n\r\nbody",
        b"X: " + b"y" * LIMIT + b"\r\n" + FULL + b"\r\nbody",
        FULL + b"Bcc: " + b"y" * LIMIT + b"\r\nFrom: ceo@bank.test\r\n\r\nbody",
    ],
    ids=lambda raw: repr(raw[:12] + raw[-60:]),
)
def test_what_cannot_be_read_for_certain_is_refused(raw: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        completed(raw)
    assert (refusal.value.code, refusal.value.status) == (550, "5.6.0")


def test_a_mail_that_runs_in_circles_is_refused() -> None:
    hop = b"Received: from a by b; x\r\n"
    completed(hop * 100 + FULL + b"\r\n")
    with pytest.raises(Refusal) as refusal:
        completed(hop * 101 + FULL + b"\r\n")
    assert (refusal.value.code, refusal.value.status) == (554, "5.4.6")


# -- whatever comes --

_LINES = st.sampled_from(
    [
        *(
            b"From: a@mine.test",
            b"From: root",
            b"Bcc: secret@x.test",
            b"Bcc: x,\r\n secret@x.test",
            b"Return-Path: <secret@x.test>",
        ),
        *(
            b"Subject: s",
            b"Message-ID: <1@x>",
            b"Date: x",
            b"",
            b"body",
            b".",
            b"\tx",
            b"To: b@x.test",
            b"\xff",
            b"bcc:",
        ),
    ]
)


@settings(max_examples=300)
@given(st.lists(st.tuples(_LINES, st.sampled_from([b"\r\n", b"\n", b"\r"])), max_size=12))
def test_whatever_is_taken_is_complete_and_has_its_body(lines: list[tuple[bytes, bytes]]) -> None:
    raw = b"".join(line + end for line, end in lines)
    try:
        found = completed(raw, recipients=("b@x.test", "secret@x.test"))
    except Refusal:
        return
    assert normalised(found.raw) == found.raw
    head, _, body = found.raw.partition(b"\r\n\r\n")
    assert b"secret" not in head
    message = message_from_bytes(found.raw, policy=policy.SMTP)
    assert not message.defects
    for name in ("From", "Date", "Message-ID"):
        assert message[name] is not None
    assert len(message.get_all("From", [])) == 1
    assert message["Bcc"] is None
    text = normalised(raw)
    assert text.endswith(body)
