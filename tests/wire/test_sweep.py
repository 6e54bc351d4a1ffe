"""Passes over a fake bucket and a fake mail server: what becomes of each kind of mail and of each fault."""

import datetime
import itertools
import threading
from typing import Any

import pytest

from drain.demo.s3 import Fault, StoredObject
from drain.errors import (
    BucketRefused,
    BucketUnavailable,
    ConfigError,
    LockHeld,
    MailServerRefused,
    MailServerUnavailable,
)
from drain.ledger import Ledger
from drain.lock import held
from drain.mail import Mail, Wire
from drain.opener import OBJECT_LIMIT
from drain.outcome import Outcome
from drain.state import State
from tests.smtp_fake import DROP
from tests.support import MAIL, House, on_verb

ALICE = "alice@example.test"
BOB = "bob@example.test"


def test_a_mail_comes_home_and_its_object_moves(house: House) -> None:
    house.put("one")
    summary = house.sweep().run()
    assert summary.outcomes == {Outcome.DELIVERED: 1}
    (filed,) = house.smtp.mailbox(ALICE)
    verdict, stamp, rest = filed.split(b"\r\n", 2)
    assert verdict == b"X-Drain-Verdict: deliver; auth (spf=unknown dkim=unknown dmarc=unknown)"
    assert stamp.startswith(b"X-Drain-Id: ")
    assert rest == MAIL
    identity = Mail(MAIL, ALICE, "").identity
    assert house.keys() == [f"processed/{identity}-one"]
    assert house.s3.objects[house.keys()[0]].metadata == {"to": ALICE, "from": "a@x.test"}


def test_an_empty_bucket_costs_one_list_and_nothing_else(house: House) -> None:
    summary = house.sweep().run()
    assert summary.error is None
    assert house.s3.requests == {"ListObjectsV2": 1}
    assert house.smtp.connections == 0
    assert [path.name for path in house.state_dir.iterdir()] == ["logbook.db"]


def test_a_mail_costs_one_get_one_copy_and_one_delete_at_most(house: House) -> None:
    for number in range(10):
        house.put(str(number), MAIL + b"%d" % number)
    house.sweep().run()
    deletes = house.s3.requests.pop("DeleteObject", 0) + house.s3.requests.pop("DeleteObjects", 0)
    assert house.s3.requests == {"ListObjectsV2": 1, "GetObject": 10, "CopyObject": 10}
    assert 1 <= deletes <= 10


def test_the_sender_is_the_original_one_and_a_bounce_has_none(house: House) -> None:
    house.put("mail")
    house.put("bounce", MAIL + b"2", metadata={"to": ALICE, "from": "<>"})
    house.put("no-from", MAIL + b"3", metadata={"to": ALICE})
    house.sweep().run()
    assert sorted(mail.sender for mail in house.smtp.filed) == ["", "", "a@x.test"]


@pytest.mark.parametrize("sender", ["a b@x.test", "a@x.test\x01", "a" * 300 + "@x.test", "no-at", "a>@x.test"])
def test_a_sender_that_cannot_be_said_becomes_the_null_sender(house: House, sender: str) -> None:
    house.put("one", metadata={"to": ALICE, "from": sender})
    house.sweep().run()
    assert [mail.sender for mail in house.smtp.filed] == [""]


def test_the_same_bytes_for_two_people_arrive_twice(house: House) -> None:
    house.put("a", to=ALICE)
    house.put("b", to=BOB)
    house.sweep().run()
    assert len(house.smtp.mailbox(ALICE)) == len(house.smtp.mailbox(BOB)) == 1
    assert len(house.keys("processed/")) == 2


def test_bobs_copy_under_the_very_key_that_alices_had_arrives_too(house: House) -> None:
    """Same name, same ETag: only the envelope differs, and the ledger must not take the name's word for it."""
    house.put("same", to=ALICE)
    house.sweep().run()
    house.put("same", to=BOB)
    house.sweep().run()
    assert len(house.smtp.mailbox(ALICE)) == len(house.smtp.mailbox(BOB)) == 1
    assert len(house.keys("processed/")) == 2


def test_bobs_copy_that_overwrites_alices_before_the_move_is_not_lost(house: House) -> None:
    """The move asks for the version that was opened; what came since stays and is opened."""

    def overwrite(operation: str, key: str) -> Fault | None:
        if operation == "CopyObject":
            house.s3.fault = None
            house.s3.objects["pending/same"] = StoredObject(MAIL, {"to": BOB})
        return None

    house.put("same", to=ALICE)
    house.s3.fault = overwrite
    house.sweep().run()
    house.sweep().run()
    assert len(house.smtp.mailbox(ALICE)) == len(house.smtp.mailbox(BOB)) == 1


def test_an_object_written_this_very_moment_is_looked_at_twice(house: House) -> None:
    """Within its first two seconds a plain object could be overwritten without a later date."""
    house.put("same", to=ALICE)
    house.s3.objects["pending/same"] = StoredObject(MAIL, {"to": ALICE})
    house.sweep().run()
    assert house.slept == [2]
    assert house.s3.requests["GetObject"] == 2
    assert len(house.smtp.mailbox(ALICE)) == 1


def test_an_object_overwritten_while_it_was_waited_for_is_waited_for_again(house: House) -> None:
    """One mail to three people, all under one name: each that lies there for a moment is overwritten by the next."""
    carol = "admin@example.test"

    def bob_comes() -> None:
        house.while_asleep = None
        house.s3.objects["pending/same"] = StoredObject(MAIL, {"to": BOB})

    def carol_comes(operation: str, key: str) -> Fault | None:
        if operation == "CopyObject":
            house.s3.fault = None
            house.s3.objects["pending/same"] = StoredObject(MAIL, {"to": carol})
        return None

    house.put("same")
    house.s3.objects["pending/same"] = StoredObject(MAIL, {"to": ALICE})
    house.while_asleep, house.s3.fault = bob_comes, carol_comes
    for _ in range(3):
        house.sweep().run()
    assert len(house.smtp.mailbox(BOB)) == 1
    assert len(house.smtp.mailbox(carol)) == 1, "alice's was overwritten before anybody saw it; the others were not"


def test_an_object_that_is_written_all_the_time_is_left_to_the_next_pass(house: House) -> None:
    def again() -> None:
        house.s3.objects["pending/same"] = StoredObject(MAIL, {"to": ALICE})

    house.put("same")
    again()
    house.while_asleep = again
    assert house.sweep().run().outcomes == {Outcome.WAITING: 1}


def test_a_copy_that_is_never_taken_is_no_progress(house: House) -> None:
    """Else the next pass would follow at once, and the next, and the next."""
    house.put("one")
    house.s3.fault = lambda operation, key: (
        Fault(status=412, code="PreconditionFailed") if operation == "CopyObject" else None
    )
    sweep = house.sweep()
    assert sweep.run().progressed
    assert not sweep.run().progressed


def test_a_delivered_mail_put_back_is_moved_and_not_sent_again(house: House) -> None:
    house.put("one")
    house.sweep().run()
    house.put("one")
    house.put("other-name")
    summary = house.sweep().run()
    assert summary.outcomes == {Outcome.MOVED: 2}
    assert len(house.smtp.mailbox(ALICE)) == 1
    assert house.keys("pending/") == []


def test_a_failed_move_is_finished_next_time_without_a_get(house: House) -> None:
    house.put("one")
    house.s3.fault = lambda operation, key: (
        Fault(status=403, code="AccessDenied") if operation == "CopyObject" else None
    )
    assert isinstance(house.sweep().run().error, BucketRefused)
    assert len(house.smtp.mailbox(ALICE)) == 1
    house.s3.fault = None
    house.s3.requests.clear()
    assert house.sweep().run().outcomes == {Outcome.MOVED: 1}
    assert house.s3.requests["GetObject"] == 0
    assert len(house.smtp.mailbox(ALICE)) == 1
    assert house.keys("pending/") == []


def test_a_move_whose_last_answer_was_lost_is_settled_without_an_alarm(house: House) -> None:
    """The object is gone from pending/ and lies in processed/: that is our own doing."""
    house.put("one")

    def lose(operation: str, key: str) -> Fault | None:
        return Fault(status=403, code="AccessDenied", after=True) if operation == "DeleteObject" else None

    house.s3.fault = lose
    house.sweep().run()
    assert house.keys("pending/") == []
    house.s3.fault = None
    summary = house.sweep().run()
    assert summary.missing == 0
    assert state(house, ALICE) is State.SETTLED


def state(house: House, recipient: str, raw: bytes = MAIL) -> State | None:
    ledger = Ledger(house.state_dir / "ledger.db")
    row = ledger.find(Mail(raw, recipient, "").identity)
    ledger.close()
    return row.state if row else None


@pytest.mark.parametrize(
    ("to", "mailbox"),
    [
        ("alice+shop@example.test", ALICE),
        ("postmaster@example.test", "admin@example.test"),
        ("nobody@example.test", "inbox@example.test"),
        ("victim@elsewhere.test", "inbox@example.test"),
        ("bob@example.test\tRCPT TO:<victim@elsewhere.test>", "inbox@example.test"),
        ("x" * 2000 + "@example.test", "inbox@example.test"),
        ("", "inbox@example.test"),
    ],
)
def test_the_mail_server_is_asked_and_nobody_outside_is_reached(house: House, to: str, mailbox: str) -> None:
    house.put("one", metadata={"to": to} if to else {})
    house.sweep().run()
    assert [mail.mailbox for mail in house.smtp.filed] == [mailbox]
    said = [command for command in house.smtp.commands if command.startswith("RCPT")]
    assert not any("elsewhere" in command or "xxx" in command for command in said)


@pytest.mark.parametrize(
    "reply", ["550 5.1.1 x", "550 x", "551 x", "553 x", "550 5.1.2 x", "550 5.1.3 x", "550 5.1.6 x", "550 5.1.10 x"]
)
def test_a_refusal_of_the_mailbox_goes_on_to_the_next_candidate(house: House, reply: str) -> None:
    house.smtp.answer = on_verb("RCPT", reply)
    house.put("one")
    house.sweep().run()
    assert [mail.mailbox for mail in house.smtp.filed] == ["inbox@example.test"]


@pytest.mark.parametrize("reply", ["550 5.1.7 x", "550 5.1.8 x", "503 5.5.1 x", "554 5.7.1 x", "552 5.2.2 x", "554 x"])
def test_a_refusal_of_the_sender_or_session_is_no_reason_to_try_another_mailbox(house: House, reply: str) -> None:
    house.smtp.answer = on_verb("RCPT", reply)
    house.put("one")
    summary = house.sweep().run()
    assert summary.outcomes == {Outcome.QUARANTINED: 1}
    assert house.smtp.filed == []
    (key,) = house.keys()
    assert key.startswith("quarantine/")
    assert house.s3.objects[key].metadata["drain-reason"] == "recipient-refused"
    assert house.s3.objects[key].metadata["to"] == ALICE


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
@pytest.mark.parametrize("reply", ["450 4.2.1 later", "453 4.3.2 busy", "452 4.2.2 full"])
def test_any_4xx_defers_and_waits_its_time(house: House, verb: str, reply: str) -> None:
    house.smtp.answer = on_verb(verb, reply)
    house.put("one")
    sweep = house.sweep()
    assert sweep.run().outcomes == {Outcome.DEFERRED: 1}
    assert house.smtp.filed == []
    house.s3.requests.clear()
    connections = house.smtp.connections
    assert sweep.run().outcomes == {Outcome.WAITING: 1}
    assert house.s3.requests == {"ListObjectsV2": 1}
    assert house.smtp.connections == connections
    house.now += 3600
    assert sweep.run().outcomes == {Outcome.DELIVERED: 1}
    assert len(house.smtp.mailbox(ALICE)) == 1


def test_deferrals_grow_from_a_minute_to_an_hour(house: House) -> None:
    house.smtp.answer = lambda verb, argument: "450 4.2.1 later" if verb == "RCPT" else None
    house.put("one")
    sweep = house.sweep()
    waits = []
    for _ in range(9):
        sweep.run()
        ledger = Ledger(house.state_dir / "ledger.db")
        row = ledger.find(Mail(MAIL, ALICE, "").identity)
        ledger.close()
        assert row is not None
        assert row.next_attempt_at is not None
        waits.append(row.next_attempt_at - house.now)
        house.now = row.next_attempt_at
    assert 45 <= waits[0] <= 75
    assert 2700 <= waits[-1] <= 4500
    assert all(later > 1.15 * earlier for earlier, later in itertools.pairwise(waits[:5]))


def test_a_clock_set_back_does_not_hold_a_deferred_mail(house: House) -> None:
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    house.put("one")
    house.sweep().run()
    house.now -= 30 * 86400
    assert house.sweep().run().outcomes == {Outcome.DELIVERED: 1}


@pytest.mark.parametrize("verb", ["MAIL", "DATA", "DOT"])
def test_any_5xx_goes_to_quarantine_with_the_servers_words_in_the_ledger(house: House, verb: str) -> None:
    house.smtp.answer = on_verb(verb, "554 5.6.0 I do not like it")
    house.put("one")
    assert house.sweep().run().outcomes == {Outcome.QUARANTINED: 1}
    ledger = Ledger(house.state_dir / "ledger.db")
    row = ledger.find(Mail(MAIL, ALICE, "").identity)
    ledger.close()
    assert row is not None
    assert row.state is State.QUARANTINED
    assert row.words is not None
    assert "I do not like it" in row.words
    (key,) = house.keys("quarantine/")
    assert "like" not in house.s3.objects[key].metadata["drain-reason"]


def test_a_server_that_fails_and_cannot_say_why_gets_some_tries(house: House) -> None:
    """Maddy with a locked database says 554 5.0.0 to everything: no verdict on a thousand mails."""
    house.smtp.answer = lambda verb, argument: "554 5.0.0 Internal server error" if verb == "DOT" else None
    house.put("one")
    sweep = house.sweep()
    outcomes: list[Outcome] = []
    for _ in range(7):
        outcomes += sweep.run().outcomes
        house.now += 7200
    assert outcomes == [Outcome.DEFERRED] * 6 + [Outcome.QUARANTINED]


def test_a_session_that_refused_a_sender_is_not_used_again(house: House) -> None:
    """Maddy remembers the refusal over RSET and would give it to the next mail."""
    house.smtp.answer = on_verb("MAIL", "553 5.1.7 bad sender")
    house.put("one")
    house.put("two", MAIL + b"2")
    assert house.sweep(CONCURRENCY="1").run().outcomes == {Outcome.QUARANTINED: 1, Outcome.DELIVERED: 1}
    assert house.smtp.connections == 2


def test_a_mail_that_no_mailbox_takes_is_quarantined(house: House) -> None:
    house.smtp.mailboxes.clear()
    house.put("one")
    summary = house.sweep().run()
    assert summary.outcomes == {Outcome.QUARANTINED: 1}
    assert house.s3.objects[house.keys("quarantine/")[0]].metadata["drain-reason"] == "no-mailbox"


def test_a_quarantined_mail_put_back_is_set_aside_again(house: House) -> None:
    house.smtp.answer = on_verb("DOT", "554 5.7.1 virus")
    house.put("one")
    house.sweep().run()
    house.put("again")
    assert house.sweep().run().outcomes == {Outcome.QUARANTINED: 1}
    assert house.smtp.filed == []
    assert len(house.keys("quarantine/")) == 2


def test_metadata_that_cannot_be_stored_again_goes_along_as_it_is(house: House) -> None:
    house.smtp.mailboxes.clear()
    house.put("one", metadata={"to": ALICE, "subject": "x" * 1990})
    house.sweep().run()
    assert house.s3.objects[house.keys("quarantine/")[0]].metadata["subject"] == "x" * 1990


@pytest.mark.parametrize(
    ("body", "reason"), [(b"", "empty"), (b"\x00\x01 no mail", "not-mail"), (b"\n\nx", "not-mail")]
)
def test_what_is_no_mail_is_quarantined_with_a_reason(house: House, body: bytes, reason: str) -> None:
    house.put("odd", body, metadata={})
    house.put("mail")
    assert house.sweep().run().outcomes == {Outcome.QUARANTINED: 1, Outcome.DELIVERED: 1}
    assert house.s3.objects[house.keys("quarantine/")[0]].metadata == {"drain-reason": reason}


def test_a_mail_larger_than_the_server_takes_is_quarantined_unsent(house: House) -> None:
    house.smtp.extensions = ("AUTH PLAIN", "SIZE 1000")
    house.put("one", MAIL + b"x" * 2000)
    assert house.sweep().run().outcomes == {Outcome.QUARANTINED: 1}
    assert not any(command.startswith("MAIL") for command in house.smtp.commands)


def test_an_object_beyond_all_measure_is_set_aside_without_a_get(house: House) -> None:
    house.put("huge", b"x" * (OBJECT_LIMIT + 1))
    assert house.sweep().run().outcomes == {Outcome.QUARANTINED: 1}
    assert house.s3.requests["GetObject"] == 0
    assert house.s3.objects[house.keys()[0]].metadata["to"] == ALICE


def test_an_object_that_has_grown_since_the_list_is_left_to_the_next(house: House) -> None:
    """How much memory it takes was reckoned by the LIST."""

    def grow(operation: str, key: str) -> Fault | None:
        if operation == "GetObject":
            house.s3.fault = None
            house.put("one", MAIL + b"more")
        return None

    house.put("one")
    house.s3.fault = grow
    sweep = house.sweep()
    assert sweep.run().outcomes == {Outcome.GONE: 1}
    assert sweep.run().outcomes == {Outcome.DELIVERED: 1}


def test_a_mail_with_a_from_line_keeps_its_header_a_header(house: House) -> None:
    raw = b"From someone Mon Jan  1\nSubject: s\n\nbody\n"
    house.put("mbox", raw)
    house.sweep().run()
    assert house.smtp.mailbox(ALICE) == [raw.replace(b"\n", b"\r\n")]


def test_a_sealed_object_without_a_key_waits_and_the_others_go_on(house: House) -> None:
    house.put("sealed", b"DRN1" + bytes(100))
    house.put("bridge", b'{"version":"v1","algorithm":"RSA-OAEP-256+A256GCM","wrappedKey":""}')
    house.put("plain")
    summary = house.sweep().run()
    assert summary.outcomes == {Outcome.NO_KEY: 2, Outcome.DELIVERED: 1}
    assert len(house.keys("pending/")) == 2
    (alert,) = house.alerts("no-key")
    assert alert["mails"] == 2
    assert "And 1 other reason" in alert["message"]


def test_an_object_without_a_key_is_fetched_and_reported_once_a_process(house: House) -> None:
    house.put("sealed", b"DRN1" + bytes(100))
    sweep = house.sweep()
    for _ in range(3):
        assert sweep.run().no_key == 1
    assert house.s3.requests["GetObject"] == 1
    assert len(house.alerts("no-key")) == 1


# -- the line drops --


def test_a_session_that_the_server_closed_between_mails_is_no_failure(house: House) -> None:
    house.smtp.answer = on_verb("MAIL", DROP)
    house.put("one")
    assert house.sweep().run().outcomes == {Outcome.DELIVERED: 1}


def test_a_421_between_mails_is_no_failure_either(house: House) -> None:
    house.smtp.answer = on_verb("RCPT", "421 4.7.0 too many errors")
    house.put("one")
    assert house.sweep().run().outcomes == {Outcome.DELIVERED: 1}


def test_a_line_dropped_in_the_middle_of_data_delivers_nothing_half(house: House) -> None:
    house.smtp.answer = on_verb("BODY", DROP, DROP)
    # Larger than the socket's buffers: the dot is not sent yet when the line drops.
    house.put("one", MAIL + b"x" * 8 * 1024 * 1024)
    sweep = house.sweep()
    assert sweep.run().outcomes == {Outcome.DEFERRED: 1}
    assert house.smtp.filed == []
    house.now += 3600
    sweep.run()
    assert len(house.smtp.mailbox(ALICE)) == 1
    assert house.events("again") == [], "nothing was sent: it cannot come twice"


def test_a_line_dropped_after_the_final_dot_is_unknown_and_injected_again_when_due(house: House) -> None:
    house.smtp.answer = on_verb("FILED", DROP)
    house.put("one")
    house.put("two", MAIL + b"2")
    sweep = house.sweep(CONCURRENCY="1")
    assert sweep.run().outcomes == {Outcome.UNKNOWN: 1, Outcome.DELIVERED: 1}
    assert state(house, ALICE) is State.INJECTING
    assert sweep.run().outcomes == {Outcome.WAITING: 1}
    house.now += 3600
    assert sweep.run().outcomes == {Outcome.DELIVERED: 1}
    assert len(house.smtp.mailbox(ALICE)) == 3
    (again,) = house.events("again")
    assert again["reinjections"] == 1


def test_a_refusal_after_an_unknown_end_does_not_forget_that_it_was_unknown(house: House) -> None:
    """The mail may be there already; a duplicate later must have its count."""
    answers = iter([DROP])
    house.smtp.answer = lambda verb, argument: next(answers, None) if verb == "FILED" else None
    house.put("one")
    sweep = house.sweep()
    sweep.run()
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    house.now += 3600
    sweep.run()
    house.now += 7200
    sweep.run()
    assert len(house.smtp.mailbox(ALICE)) == 2
    ledger = Ledger(house.state_dir / "ledger.db")
    row = ledger.find(Mail(MAIL, ALICE, "").identity)
    ledger.close()
    assert row is not None
    assert row.reinjections == 1


def test_a_mail_whose_reply_never_comes_is_tried_less_and_less_and_reported(house: House) -> None:
    """Each try can be a copy more in the mailbox."""
    house.smtp.answer = lambda verb, argument: DROP if verb == "FILED" else None
    house.put("one")
    sweep = house.sweep()
    for _ in range(48):
        sweep.run()
        house.now += 3600
    assert 4 <= len(house.smtp.filed) <= 10
    assert [alert["state"] for alert in house.alerts("no-reply")][:1] == ["on"]


def test_the_wait_after_a_missing_reply_counts_no_try_that_sent_nothing(house: House) -> None:
    house.smtp.answer = lambda verb, argument: "450 4.2.1 later" if verb == "RCPT" else None
    house.put("one")
    sweep = house.sweep()
    for _ in range(8):
        sweep.run()
        house.now += 7200
    house.smtp.answer = on_verb("FILED", DROP)
    assert sweep.run().outcomes == {Outcome.UNKNOWN: 1}
    house.now += 400
    assert sweep.run().outcomes == {Outcome.DELIVERED: 1}


def test_a_mail_that_fells_the_server_steps_back_behind_the_others(house: House) -> None:
    def answer(verb: str, argument: str) -> str | None:
        if verb == "BODY" and argument == BOB:
            house.smtp.answer = lambda verb, argument: DROP if verb == "CONNECT" else None
            return DROP
        return None

    house.put("a-poison", MAIL + b"x" * 8 * 1024 * 1024, to=BOB)
    house.put("good")
    house.smtp.answer = answer
    sweep = house.sweep(CONCURRENCY="1")
    assert isinstance(sweep.run().error, MailServerUnavailable)
    house.smtp.answer = lambda verb, argument: None
    assert sweep.run().outcomes == {Outcome.WAITING: 1, Outcome.DELIVERED: 1}
    assert house.events("again") == [], "no dot was ever sent"


@pytest.mark.parametrize(
    ("verb", "reply", "filed"),
    [
        ("DATA", "354 go on\r\n250 2.0.0 filed", 0),  # before the dot: not ours
        ("RCPT", "250 ok\r\n354 go on", 0),
        ("MAIL", "garbage", 1),
        ("MAIL", "250 ok\r\n250 ok", 1),
    ],
)
def test_a_reply_that_nobody_asked_for_is_never_taken_for_another(
    house: House, verb: str, reply: str, filed: int
) -> None:
    """Taken for the answer to the dot it would lose a mail."""
    house.smtp.answer = on_verb(verb, reply, *([] if filed else [reply]))
    house.put("one")
    sweep = house.sweep()
    sweep.run()
    assert len(house.smtp.filed) == filed
    if not filed:
        assert house.keys("pending/") == ["pending/one"]
        house.now += 3600
        assert sweep.run().outcomes == {Outcome.DELIVERED: 1}


def test_a_4xx_with_an_enhanced_code_of_a_5xx_is_still_a_4xx(house: House) -> None:
    house.smtp.answer = on_verb("RCPT", "450 5.1.1 greylisted")
    house.put("one")
    assert house.sweep().run().outcomes == {Outcome.DEFERRED: 1}


def test_ordinary_deferrals_do_not_use_up_the_tries_of_a_server_that_cannot_say_why(house: House) -> None:
    house.smtp.answer = on_verb("RCPT", *["450 4.2.1 later"] * 8)
    house.put("one")
    sweep = house.sweep()
    for _ in range(8):
        sweep.run()
        house.now += 7200
    house.smtp.answer = on_verb("DOT", "554 5.0.0 Internal server error")
    assert sweep.run().outcomes == {Outcome.DEFERRED: 1}


def test_many_unknown_addresses_do_not_wear_out_a_session(house: House) -> None:
    """Postfix hangs up after 20 errors; we begin afresh before that."""
    for number in range(30):
        house.put(f"{number:02}", MAIL + b"%d" % number, to=f"nobody{number}@example.test")
    house.sweep(CONCURRENCY="1", INJECT_CONNECTIONS="1").run()
    assert len(house.smtp.mailbox("inbox@example.test")) == 30
    assert house.smtp.connections == 4


# -- what concerns the whole pass --


def test_no_mail_server_leaves_everything_where_it_is(house: House) -> None:
    house.put("one")
    sweep = house.sweep(INJECT_PORT="1")
    error = sweep.run().error
    assert isinstance(error, MailServerUnavailable)
    assert "127.0.0.1:1" in str(error)
    assert house.s3.requests == {"ListObjectsV2": 1}


def test_a_wrong_smtp_password_leaves_everything_where_it_is(house: House) -> None:
    house.put("one")
    error = house.sweep(INJECT_PASS="wrong").run().error
    assert isinstance(error, MailServerRefused)
    assert "INJECT_PASS" in str(error)
    assert "wrong" not in str(error)
    assert house.s3.requests == {"ListObjectsV2": 1}


def test_a_password_that_a_login_cannot_carry_is_said_so(house: House) -> None:
    """RFC 4616 has UTF-8 for PLAIN; smtplib's other ways are ASCII."""
    house.put("one")
    house.smtp.extensions = ("AUTH LOGIN",)
    house.smtp.answer = on_verb("AUTH", "334 UGFzc3dvcmQ6")
    error = house.sweep(INJECT_PASS="geheimnüs").run().error
    assert isinstance(error, ConfigError)
    assert "geheim" not in str(error)


def test_a_password_beyond_ascii_works_with_plain(house: House) -> None:
    house.put("one")
    house.smtp.password = "geheimnüs"
    assert house.sweep().run().outcomes == {Outcome.DELIVERED: 1}


def test_a_page_with_nothing_on_it_is_not_the_end_of_the_list(house: House) -> None:
    """S3 may say "more follows" before it has found anything."""
    house.put("one")
    empty = (
        b"<ListBucketResult><Name>mail</Name><KeyCount>0</KeyCount><IsTruncated>true</IsTruncated>"
        b"<NextContinuationToken>cGVuZGluZy8=</NextContinuationToken></ListBucketResult>"
    )
    house.s3.fault = lambda operation, key: (
        Fault(body=empty) if operation == "ListObjectsV2" and house.s3.requests[operation] == 1 else None
    )
    assert house.sweep().run().outcomes == {Outcome.DELIVERED: 1}
    assert house.s3.requests["ListObjectsV2"] == 2


def test_a_mail_server_that_dies_in_the_middle_stops_the_pass(house: House) -> None:
    for number in range(20):
        house.put(f"{number:02}", MAIL + b"%d" % number)

    def die(verb: str, argument: str) -> str | None:
        if verb == "FILED" and len(house.smtp.filed) == 5:
            house.smtp.__exit__()
            return DROP
        return None

    house.smtp.answer = die
    summary = house.sweep(CONCURRENCY="1", INJECT_CONNECTIONS="1").run()
    assert isinstance(summary.error, MailServerUnavailable)
    assert len(house.keys("processed/")) == 4
    assert len(house.keys("pending/")) == 16


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"R2_SECRET_ACCESS_KEY": "wrong"}, "R2_SECRET_ACCESS_KEY"),
        ({"R2_ACCESS_KEY_ID": "wrong"}, "R2_ACCESS_KEY_ID"),
        ({"R2_BUCKET": "wrong"}, "R2_BUCKET"),
    ],
)
def test_wrong_keys_or_bucket_are_named(house: House, settings: dict[str, str], words: str) -> None:
    error = house.sweep(**settings).run().error
    assert isinstance(error, BucketRefused)
    assert words in str(error)


def test_a_clock_an_hour_off_is_said_in_words(house: House) -> None:
    house.s3.fault = lambda operation, key: Fault(status=403, code="RequestTimeTooSkewed")
    error = house.sweep().run().error
    assert isinstance(error, BucketUnavailable)
    assert "clock" in str(error)


@pytest.mark.parametrize(
    "body", [b"garbage", b"<html><body>log in to this network</body></html>", b"", b"<ListBucketResult>", b"\xff\x00"]
)
def test_a_list_of_garbage_is_not_an_empty_bucket(house: House, body: bytes) -> None:
    house.put("one")
    house.s3.fault = lambda operation, key: Fault(body=body) if operation == "ListObjectsV2" else None
    assert isinstance(house.sweep().run().error, BucketUnavailable)


@pytest.mark.parametrize("operation", ["GetObject", "CopyObject", "DeleteObject"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503, code="SlowDown"),
        Fault(status=429, code="TooManyRequests"),
        Fault(status=500),
        Fault(drop=True),
        Fault(drop=True, after=True),
        Fault(status=503, code="SlowDown", after=True),
    ],
)
def test_r2_that_fails_once_is_asked_again(house: House, operation: str, fault: Fault) -> None:
    faults = iter([fault])
    house.s3.fault = lambda asked, key: next(faults, None) if asked == operation else None
    house.put("one")
    assert house.sweep().run().outcomes == {Outcome.DELIVERED: 1}
    assert len(house.smtp.mailbox(ALICE)) == 1
    assert house.keys("pending/") == []


def test_a_get_that_ends_early_delivers_nothing_and_the_others_go_on(house: House) -> None:
    house.put("cut")
    house.put("whole", MAIL + b"2")
    house.s3.fault = lambda operation, key: (
        Fault(cut_after=20) if operation == "GetObject" and key == "pending/cut" else None
    )
    summary = house.sweep().run()
    assert summary.outcomes == {Outcome.FAILED: 1, Outcome.DELIVERED: 1}
    assert summary.bugs == 0
    assert len(house.smtp.filed) == 1
    house.s3.fault = None
    assert house.sweep().run().outcomes == {Outcome.DELIVERED: 1}


def test_a_dead_link_does_not_make_every_mail_of_a_backlog_wait(house: House) -> None:
    for number in range(50):
        house.put(f"{number:02}", MAIL + b"%d" % number)
    house.s3.fault = lambda operation, key: (
        Fault(drop=True) if house.s3.requests["GetObject"] > 5 or operation == "GetObject" else None
    )
    summary = house.sweep(CONCURRENCY="1").run()
    assert isinstance(summary.error, BucketUnavailable)
    assert house.s3.requests["GetObject"] <= 5 * (2 + 3)  # ours, once more on a new connection, and boto3's


def test_many_objects_that_r2_cannot_give_do_not_hold_up_the_others(house: House) -> None:
    """R2 refuses the signature of a name with dots for a segment, and of that name alone."""
    for number in range(12):
        house.put(f"{number:02}..", MAIL + b"%d" % number)
    house.put("good")
    house.s3.fault = lambda operation, key: (
        Fault(status=403, code="SignatureDoesNotMatch") if operation == "GetObject" and ".." in key else None
    )
    sweep = house.sweep(CONCURRENCY="1")
    summary = sweep.run()
    assert summary.outcomes == {Outcome.FAILED: 12, Outcome.DELIVERED: 1}
    assert summary.error is None
    assert sweep.run().error is None, "with nothing else to do either: the keys are right, the names are not"


def test_a_token_that_may_not_write_is_said_so(house: House) -> None:
    house.put("one")
    house.s3.fault = lambda operation, key: (
        Fault(status=403, code="AccessDenied") if operation == "CopyObject" else None
    )
    error = house.sweep().run().error
    assert isinstance(error, BucketRefused)
    assert "Read & Write" in str(error)


@pytest.mark.parametrize("operation", ["GetObject", "CopyObject"])
@pytest.mark.parametrize("body", [b"<html/>", b"", b"ok"])
def test_an_answer_that_is_not_s3s_never_leads_to_a_delete(house: House, operation: str, body: bytes) -> None:
    """A log-in page of the network says 200 to everything."""
    house.put("one")
    house.s3.fault = lambda asked, key: Fault(body=body) if asked == operation else None
    assert house.sweep().run().outcomes[Outcome.FAILED] == 1
    assert house.keys() == ["pending/one"]
    assert house.s3.requests["DeleteObject"] == 0
    house.s3.fault = None
    house.sweep().run()
    assert len(house.smtp.mailbox(ALICE)) == 1


def test_an_object_that_is_gone_is_no_error(house: House) -> None:
    house.put("one")

    def gone(operation: str, key: str) -> Fault | None:
        if operation == "GetObject":
            house.s3.objects.pop(key, None)
        return None

    house.s3.fault = gone
    summary = house.sweep().run()
    assert summary.error is None
    assert summary.outcomes == {Outcome.GONE: 1}


def test_a_second_drain_does_nothing(house: House) -> None:
    house.put("one")
    with held(house.state_dir / "drain.lock", house.events.log):
        summary = house.sweep().run()
    assert isinstance(summary.error, LockHeld)
    assert house.smtp.connections == 0
    assert house.keys() == ["pending/one"]


def test_an_unfinished_mail_that_vanished_is_reported_once(house: House) -> None:
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    house.put("one")
    sweep = house.sweep()
    sweep.run()
    del house.s3.objects["pending/one"]
    assert sweep.run().missing == 1
    assert sweep.run().missing == 0
    assert len(house.events("missing")) == 1
    house.put("one")
    house.now += 3600
    assert sweep.run().outcomes == {Outcome.DELIVERED: 1}


def test_a_vanished_mail_is_noticed_by_a_fresh_process_with_an_empty_bucket(house: House) -> None:
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    house.put("one")
    house.sweep().run()
    del house.s3.objects["pending/one"]
    assert house.sweep().run().missing == 1


def test_an_unfinished_mail_whose_object_was_overwritten_by_another_mail_is_reported(house: House) -> None:
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    house.put("same")
    sweep = house.sweep()
    sweep.run()
    house.put("same", MAIL + b"another", to=BOB)
    summary = sweep.run()
    assert summary.outcomes == {Outcome.DELIVERED: 1}
    assert summary.missing == 1
    assert house.events("missing")[0]["to"] == ALICE


def test_a_mail_that_lies_there_under_another_name_is_not_missing(house: House) -> None:
    house.smtp.answer = lambda verb, argument: "450 4.2.1 later" if verb == "RCPT" else None
    house.put("k1")
    house.put("k2")
    sweep = house.sweep()
    sweep.run()
    sweep.run()
    del house.s3.objects["pending/k1"]
    assert sweep.run().missing == 0
    del house.s3.objects["pending/k2"]
    assert sweep.run().missing == 1


def test_a_mail_finished_in_this_very_pass_is_not_missing(house: House) -> None:
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    house.put("k1")
    sweep = house.sweep()
    sweep.run()
    del house.s3.objects["pending/k1"]
    house.put("k2")
    house.now += 3600
    summary = sweep.run()
    assert (summary.missing, summary.outcomes) == (0, {Outcome.DELIVERED: 1})


def test_an_incomplete_list_reports_nobody_missing(house: House) -> None:
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    house.put("one")
    house.sweep().run()
    del house.s3.objects["pending/one"]
    house.s3.fault = lambda operation, key: Fault(body=b"<html/>") if operation == "ListObjectsV2" else None
    assert house.sweep().run().missing == 0


def test_a_bug_met_by_one_mail_does_not_hold_up_the_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.put("bad", MAIL + b"bad")
    house.put("good")
    from drain import marks

    def broken(raw: bytes, *added: bytes, **head: Any) -> Wire:
        if raw.endswith(b"bad"):
            raise ZeroDivisionError
        return Wire(raw, *added, **head)

    monkeypatch.setattr(marks, "Wire", broken)
    summary = house.sweep().run()
    assert summary.bugs == 1
    assert summary.outcomes == {Outcome.FAILED: 1, Outcome.DELIVERED: 1}
    assert "ZeroDivisionError" in house.events("bug")[0]["message"]
    assert house.keys("pending/") == ["pending/bad"]


# -- pages, order, threads --


def test_the_oldest_comes_first(house: House) -> None:
    for number in range(9):
        house.put(str(number), MAIL + b"%d" % number)
        stored = house.s3.objects[f"pending/{number}"]
        older = stored.last_modified - datetime.timedelta(days=number)
        house.s3.objects[f"pending/{number}"] = StoredObject(stored.body, stored.metadata, last_modified=older)
    house.sweep(CONCURRENCY="1").run()
    assert [mail.content[-3:-2] for mail in house.smtp.filed] == [b"%d" % number for number in range(8, -1, -1)]


def test_the_first_mail_does_not_wait_for_the_last_page(house: House) -> None:
    """Pages are asked for as they are worked off: of 2,500 objects the first is home after one LIST."""
    for number in range(2500):
        house.put(f"{number:04}", MAIL + b"%d" % number)
    sweep = house.sweep()
    lists: list[int] = []

    def first(_result: object) -> None:
        lists.append(house.s3.requests["ListObjectsV2"])
        sweep.stop.set()

    sweep.on_result = first
    summary = sweep.run()
    assert lists[0] == 1
    assert 0 < summary.outcomes[Outcome.DELIVERED] <= 32


def test_several_mails_are_in_flight_at_once(house: House) -> None:
    together = threading.Barrier(8, timeout=10)

    def meet(operation: str, key: str) -> Fault | None:
        if operation == "GetObject":
            together.wait()
        return None

    house.s3.fault = meet
    for number in range(8):
        house.put(str(number), MAIL + b"%d" % number)
    assert house.sweep(CONCURRENCY="8").run().outcomes == {Outcome.DELIVERED: 8}


def test_the_same_mail_under_many_names_at_once_is_sent_once(house: House) -> None:
    for number in range(40):
        house.put(str(number))
    house.sweep(CONCURRENCY="16", INJECT_CONNECTIONS="8").run()
    assert len(house.smtp.mailbox(ALICE)) == 1
    assert house.keys("pending/") == []


def test_bytes_in_flight_are_bounded(house: House) -> None:
    """Two mails of 3 MiB do not meet under a budget of 4; a larger one than that still travels."""
    flying, most = 0, 0
    lock = threading.Lock()

    def count(operation: str, key: str) -> Fault | None:
        nonlocal flying, most
        with lock:
            flying += operation == "GetObject"
            flying -= operation == "CopyObject"
            most = max(most, flying)
        return None

    house.s3.fault = count
    for number in range(4):
        house.put(str(number), MAIL + b"%d" % number + bytes(3 * 1024 * 1024))
    house.put("larger", MAIL + bytes(6 * 1024 * 1024))
    assert house.sweep(MEMORY_BUDGET="4M").run().outcomes == {Outcome.DELIVERED: 5}
    assert most == 1


def test_no_address_and_no_content_is_in_the_log_when_addresses_are_off(house: House) -> None:
    import io

    from drain.log import Level, Log, key_value

    buffer = io.StringIO()
    sweep = house.sweep()
    sweep.log = Log(lambda: buffer, key_value, addresses=False, threshold=Level.DEBUG)
    house.smtp.answer = on_verb("DOT", "554 5.7.1 <alice@example.test>: virus")
    house.put("one", b"Subject: secret words\r\n\r\nbody words\r\n")
    house.put("two", MAIL + b"2", to="nobody@example.test")
    sweep.run()
    said = buffer.getvalue()
    assert said.count("mail state=") == 2
    assert "@" not in said
    assert "words" not in said
