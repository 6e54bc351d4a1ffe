"""The DSN: what a person and a program read in it, whatever others wrote into it."""

import datetime
import email.utils
import re
import time
from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from drain.header import LIMIT
from drain.relay import dsn
from drain.upstreams import Action, Fate

ARRIVED = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
NOW = ARRIVED + datetime.timedelta(days=5, hours=1)
HEADER = (
    b"Received: from localhost by home.mine.test (drain)\r\n with ESMTPA id q1; x\r\n"
    b"From: a@mine.test\r\nTo: b@x.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Date: Wed, 4 Mar 2026 05:06:00 +0000\r\nMessage-ID: <1@mine.test>\r\n"
)
UNKNOWN = Fate(Action.FAILED, "5.1.1", "smtp; 550 5.1.1 no such user", bad_address=True)
LATE = Fate(Action.DELAYED, "4.4.1", "smtp; 451 4.4.1 try later")


def built(fates: Mapping[str, Fate] | None = None, header: bytes = HEADER, **more: Any) -> bytes:
    given: dict[str, Any] = {
        "sender": "a@mine.test",
        "fates": fates or {"b@x.test": UNKNOWN},
        "header": header,
        "arrived": ARRIVED,
        "now": NOW,
        "hostname": "home.mine.test",
        "queue_id": "q1",
    }
    return dsn.build(**given | more)


def parts(raw: bytes) -> tuple[EmailMessage, str, list[dict[str, str]], bytes]:
    """The message, its words, its status fields (first those of the message), the original's header; all checked."""
    assert re.fullmatch(rb"(?:[^\r\n]{0,998}\r\n)*", raw)
    message = message_from_bytes(raw, policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    found = list(message.iter_parts())
    assert [part.get_content_type() for part in found] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    for one in (message, *found):
        assert not one.defects
    assert not message.epilogue
    blocks: Any = found[1].get_payload()
    status = [dict(block.items()) for block in blocks]
    for block in blocks:
        assert not block.defects
        assert len(set(block)) == len(block.items())
        assert block.get_payload() == ""
    original = found[2].get_payload(decode=True)
    assert isinstance(original, bytes)
    return message, found[0].get_content(), status, original


def test_it_is_addressed_from_the_mail_system_to_the_sender() -> None:
    message, *_ = parts(built())
    assert message["From"].addresses[0].addr_spec == "MAILER-DAEMON@home.mine.test"
    assert message["From"].addresses[0].display_name == "Mail Delivery System"
    assert [address.addr_spec for address in message["To"].addresses] == ["a@mine.test"]
    assert message["Subject"] == "Not delivered: Grüße"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["References"] == message["In-Reply-To"] == "<1@mine.test>"
    assert message["Message-ID"] == "<q1.dsn@home.mine.test>"
    assert message["Date"].datetime == NOW
    assert message["MIME-Version"] == "1.0"


def test_programs_read_what_became_of_each_recipient() -> None:
    _, _, status, _ = parts(
        built({"b@x.test": UNKNOWN, "c@y.test": LATE}, attempted=NOW - datetime.timedelta(minutes=30))
    )
    assert status == [
        {
            "Reporting-MTA": "dns; home.mine.test",
            "X-Drain-Queue-Id": "q1",
            "Arrival-Date": "Wed, 04 Mar 2026 05:06:07 +0000",
        },
        {
            "Final-Recipient": "rfc822; b@x.test",
            "Action": "failed",
            "Status": "5.1.1",
            "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
            "Last-Attempt-Date": "Mon, 09 Mar 2026 05:36:07 +0000",
        },
        {
            "Final-Recipient": "rfc822; c@y.test",
            "Action": "failed",
            "Status": "4.4.1",
            "Diagnostic-Code": "smtp; 451 4.4.1 try later",
            "Last-Attempt-Date": "Mon, 09 Mar 2026 05:36:07 +0000",
        },
    ]


def test_a_person_reads_what_happened_to_which_mail_and_why() -> None:
    refused = Fate(Action.FAILED, "5.7.1", "http; 422 refusé")
    _, words, _, _ = parts(built({"b@x.test": UNKNOWN, "c@y.test": LATE, "jürg@z.test": refused}))
    for said in (
        "b@x.test",
        "This address does not exist",
        "smtp; 550 5.1.1 no such user",
        "c@y.test",
        "could not be handed over in 5 days",
        "jürg@z.test",
        "It was refused for good.",
        "http; 422 refusé",
        "Subject: Grüße",
        "Date: Wed, 4 Mar 2026 05:06:00 +0000",
        "04 March 2026, 05:06 UTC",
    ):
        assert said in words


@pytest.mark.parametrize(
    ("spent", "words"),
    [
        ({"seconds": 5}, "in 1 minute,"),
        ({"minutes": 59}, "in 59 minutes,"),
        ({"minutes": 60}, "in 1 hour,"),
        ({"hours": 23}, "in 23 hours,"),
        ({"days": 1}, "in 1 day,"),
        ({"seconds": -60}, "in 1 minute,"),  # a clock that was set back
    ],
)
def test_how_long_it_was_tried_is_said_in_one_unit(spent: dict[str, float], words: str) -> None:
    assert words in parts(built({"b@x.test": LATE}, now=ARRIVED + datetime.timedelta(**spent)))[1]


def test_the_original_header_comes_back_as_it_was() -> None:
    assert parts(built())[3] == HEADER
    odd = HEADER + "X-Odd: grün \t\r\n".encode() + b"X-Odder: \xff\0 =20\r\nX-Long: " + b"y" * 2000 + b"\r\n"
    assert parts(built(header=odd))[3] == odd
    assert parts(built(header=b""))[3].strip() == b""


def test_of_the_original_nothing_but_the_header_comes_back() -> None:
    raw = built(header=HEADER + b"\r\nthe body\r\n")
    assert b"the body" not in raw
    assert parts(raw)[3] == HEADER


def test_of_a_long_header_the_first_fields_come_back() -> None:
    long = HEADER + b"X-Long: y\r\n\tz\r\n" * (LIMIT // 16)
    original = parts(built(header=long))[3]
    assert len(original) < 65 * 1024
    assert original.startswith(HEADER)
    assert original.endswith(b"X-Long: y\r\n\tz\r\nX-Drain-Note: the rest of this header is left out\r\n")
    assert long.startswith(original.rpartition(b"X-Drain-Note")[0])
    assert parts(built(header=b"X: " + b"y" * LIMIT + b"\r\n"))[3].startswith(b"X-Drain-Note")


def test_no_field_comes_back_without_its_end() -> None:
    field = b"X-Long: y\r\n\tz\r\n"
    for shift in range(len(field)):
        head = b"A: " + b"b" * shift + b"\r\n"
        original = parts(built(header=head + field * 6000))[3]
        told = original.removeprefix(head).rpartition(b"X-Drain-Note")[0]
        assert told
        assert told == field * (len(told) // len(field))


def test_addresses_that_are_not_ascii_have_the_type_for_them() -> None:
    """RFC 6533 3: also a plus and an equals sign are written by number there."""
    raw = built({"jürg+x=y@bücher.test": UNKNOWN}, sender="müller@mine.test")
    message, _, status, _ = parts(raw)
    assert status[1]["Final-Recipient"] == r"utf-8; j\x{FC}rg\x{2B}x\x{3D}y@b\x{FC}cher.test"
    assert "To: <müller@mine.test>".encode() in raw
    assert message["To"].addresses[0].username


def test_without_a_message_id_there_is_nothing_to_refer_to() -> None:
    for header in (b"From: a@mine.test\r\n", b"Message-ID: x y\r\n", b"Message-ID: <a\xffb>\r\n"):
        message, *_ = parts(built(header=header))
        assert message["References"] is None
        assert message["In-Reply-To"] is None
        assert message["Subject"] == "Not delivered: (no subject)"


def test_but_for_an_address_in_to_it_is_ascii() -> None:
    raw = built({"jürg@x.test": UNKNOWN}, header=HEADER + "Subject: ü\r\nX: ü\r\n".encode())
    assert raw.isascii()


def test_it_is_the_same_at_every_call() -> None:
    assert built() == built()


def test_what_is_no_status_or_diagnostic_is_left_out() -> None:
    for fate in (Fate(Action.FAILED, "", ""), Fate(Action.FAILED, "5.1.1\r\nX: y", "no kind\r\n\r\n")):
        status = parts(built({"b@x.test": fate}))[2]
        assert status[1]["Status"] == "5.0.0"
        assert "Diagnostic-Code" not in status[1]


def test_a_boundary_from_elsewhere_ends_no_part() -> None:
    found = re.search(rb'boundary="([^"]+)"', built())
    assert found
    forged = b"--" + found[1] + b"\r\n--" + found[1] + b"--\r\n"
    evil = Fate(Action.FAILED, "5.0.0", f"smtp; 550 \r\n--{found[1].decode()}\r\n\r\nforged")
    assert parts(built({"b@x.test": evil}, header=HEADER + forged))[3] == HEADER + forged


_HOSTILE = st.text(
    st.sampled_from('ab @:;=?<>"()\\.-_\r\n\t\0\x0b\x1b\x85\u2028\u202e\u00fc\U0001f600\ud800%{}'), max_size=60
) | st.text(max_size=60)


@settings(max_examples=150)
@given(
    _HOSTILE,
    _HOSTILE,
    st.text(max_size=20),
    st.lists(
        st.sampled_from(
            [
                b"Subject: ",
                b"Message-ID: <",
                b">",
                b"\r\n",
                b"\n",
                b"\r",
                b" ",
                b"--",
                b"=?utf-8?q?",
                b"=0D=0A?=",
                b"x" * 1200,
                b"\xff",
                b"\0",
                b":",
                b"Date: ",
                b"To: ",
            ]
        ),
        max_size=20,
    ).map(b"".join),
)
def test_nothing_that_others_wrote_breaks_it(recipient: str, diagnostic: str, status: str, header: bytes) -> None:
    fates = {f"r{recipient}": Fate(Action.FAILED, status, f"smtp; {diagnostic}"), "c@y.test": UNKNOWN}
    message, words, blocks, original = parts(built(fates, header=header))
    assert message["To"].addresses[0].addr_spec == "a@mine.test"
    assert message["Subject"].startswith("Not delivered: ")
    assert {name.lower() for name in message.keys()} <= {  # noqa: SIM118
        *("from", "to", "subject", "date", "message-id", "in-reply-to", "references", "auto-submitted"),
        *("mime-version", "content-type"),
    }
    assert len(blocks) == 3
    assert [block["Action"] for block in blocks[1:]] == ["failed", "failed"]
    assert set(blocks[1]) <= {"Final-Recipient", "Action", "Status", "Diagnostic-Code", "Last-Attempt-Date"}
    assert blocks[2]["Final-Recipient"] == "rfc822; c@y.test"
    assert "smtp; 550 5.1.1 no such user" in words
    assert original.endswith(b"\r\n") or not original


def test_a_megabyte_of_header_and_a_hundred_recipients_take_no_time() -> None:
    fates = {f"r{number}@x.test": UNKNOWN for number in range(100)}
    for piece in (b"A: b\r\n", b"\xff", b" ", b"Subject: \xff", b"a:\r\n "):
        begun = time.process_time()
        raw = built(fates, header=piece * (LIMIT // len(piece)))
        assert time.process_time() - begun < 1
        assert len(raw) < 300 * 1024
    assert email.utils.parsedate_to_datetime(parts(raw)[2][1]["Last-Attempt-Date"]) == NOW
