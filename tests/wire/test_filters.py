"""What becomes of a mail that is judged: by a policy endpoint, since that can say anything."""

import contextlib
import re
from collections.abc import Iterator

import pytest

from drain.demo.s3 import StoredObject
from drain.errors import LedgerUnavailable
from drain.ledger import Ledger
from drain.mail import Mail
from drain.outcome import Outcome, Step
from drain.state import Row, State
from drain.sweep import Sweep
from tests.http_fake import Answer, FakeHttp, Request, answer
from tests.smtp_fake import DROP
from tests.support import MAIL, House, on_verb

ALICE = "alice@example.test"
BLOCK = (
    b"Received: from mx.x.test (192.0.2.9) by cloudflare-email.net (cloudflare) id abc for <alice@example.test>;"
    b" Sat, 21 Nov 2026 10:00:00 +0000\r\n"
    b"Authentication-Results: mx.cloudflare.net; dkim=none; dmarc=%s; spf=%s smtp.mailfrom=x.test\r\n"
    b"X-CF-SpamH-Score: 0\r\n"
)


@pytest.fixture
def policy() -> Iterator[FakeHttp]:
    with FakeHttp(lambda request: answer({"decision": "allow"})) as server:
        yield server


class Judged:
    """A house whose mail a policy endpoint judges."""

    def __init__(self, house: House, policy: FakeHttp) -> None:
        self.house = house
        self.policy = policy
        self.settings = {"FILTERS": "auth,decision", "WEBHOOK_DECISION_URL": policy.url, "FILTER_TIMEOUT": "5"}

    def sweep(self, **more: str) -> Sweep:
        return self.house.sweep(**{**self.settings, **more})

    def decides(self, decision: str, **more: str) -> None:
        self.policy.answer = lambda request: answer({"decision": decision, **more})

    @contextlib.contextmanager
    def ledger(self) -> Iterator[Ledger]:
        with contextlib.closing(Ledger(self.house.state_dir / "ledger.db")) as ledger:
            yield ledger

    def row(self, raw: bytes = MAIL) -> Row:
        with self.ledger() as ledger:
            row = ledger.find(Mail(raw, ALICE, "").identity)
        assert row is not None
        return row

    def verdict_lines(self) -> list[str]:
        unfolded = [re.sub(rb"\r\n[ \t]+", b" ", mail) for mail in self.house.smtp.mailbox(ALICE)]
        return [line.decode() for mail in unfolded for line in mail.split(b"\r\n") if line.startswith(b"X-Drain-Verd")]


@pytest.fixture
def judged(house: House, policy: FakeHttp) -> Judged:
    return Judged(house, policy)


def test_an_allowed_mail_is_delivered_with_what_was_said_of_it(judged: Judged) -> None:
    judged.house.put("one")
    assert judged.sweep().run().outcomes == {Outcome.DELIVERED: 1}
    assert judged.verdict_lines() == [
        "X-Drain-Verdict: deliver; auth (spf=unknown dkim=unknown dmarc=unknown); decision (allow)"
    ]
    (filed,) = judged.house.smtp.mailbox(ALICE)
    assert filed.endswith(b"\r\n" + MAIL)
    assert b"X-Spam" not in filed, "nobody gave points"


def test_a_denied_mail_goes_to_quarantine_with_its_reason_in_the_ledger(judged: Judged) -> None:
    judged.decides("deny", reason="blocked_sender", message="not from there")
    judged.house.put("one")
    assert judged.sweep().run().outcomes == {Outcome.QUARANTINED: 1}
    assert judged.house.smtp.filed == []
    row = judged.row()
    assert (row.state, row.reason) == (State.QUARANTINED, "denied")
    assert "blocked_sender" in (row.words or "")
    assert judged.house.keys() == [f"quarantine/{row.identity}-one"]
    about = judged.house.s3.objects[judged.house.keys()[0]].metadata
    assert about["drain-reason"] == "denied"
    assert "blocked_sender" not in str(about)
    with judged.ledger() as ledger:
        assert list(ledger.verdicts.of(row.identity)) == ["auth", "decision"]


def test_what_a_filter_sets_aside_every_day_is_no_alarm(judged: Judged) -> None:
    judged.decides("deny")
    judged.house.put("one")
    judged.sweep().run()
    assert not judged.house.alerts("quarantine")
    (said,) = judged.house.events("mail")
    assert (said["state"], said["why"]) == ("quarantined", "denied")


def test_a_silent_denial_is_a_quarantine_unless_the_person_lets_filters_discard(judged: Judged) -> None:
    judged.decides("silent_deny")
    judged.house.put("one")
    assert judged.sweep().run().outcomes == {Outcome.QUARANTINED: 1}
    judged.house.put("two", MAIL + b"2")
    assert judged.sweep(ALLOW_DISCARD="true").run().outcomes == {Outcome.DISCARDED: 1}
    assert judged.row(MAIL + b"2").state is State.DISCARDED
    assert judged.house.keys() == [f"quarantine/{judged.row().identity}-one"]
    assert judged.house.smtp.filed == []


def test_a_discarded_mail_that_comes_again_is_discarded_again_only_if_it_still_may_be(judged: Judged) -> None:
    judged.decides("silent_deny")
    judged.house.put("one")
    judged.sweep(ALLOW_DISCARD="true").run()
    judged.house.put("again")
    assert judged.sweep(ALLOW_DISCARD="true").run().outcomes == {Outcome.DISCARDED: 1}
    judged.house.put("and-again")
    assert judged.sweep().run().outcomes == {Outcome.QUARANTINED: 1}
    assert len(judged.house.keys("quarantine/")) == 1


def test_a_discard_is_begun_in_the_ledger_before_the_object_is_gone(judged: Judged) -> None:
    judged.decides("silent_deny")
    judged.house.put("one")
    sweep = judged.sweep(ALLOW_DISCARD="true")
    seen: dict[str, tuple[State, int]] = {}

    def look(step: Step, _name: str) -> None:
        if step in (Step.DISCARDING, Step.DISCARDED):
            seen[step] = (judged.row().state, len(judged.house.keys()))

    sweep.step = look
    sweep.run()
    assert seen == {Step.DISCARDING: (State.DISCARDING, 1), Step.DISCARDED: (State.DISCARDED, 0)}


def test_another_mail_that_took_the_name_meanwhile_is_not_deleted(judged: Judged) -> None:
    """A policy endpoint can take its time, and a delete cannot be made conditional."""
    judged.house.put("one")
    other = MAIL + b"another"

    def slow(_request: Request) -> Answer:
        judged.house.put("one", other)
        judged.decides("allow")
        return answer({"decision": "silent_deny"})

    judged.policy.answer = slow
    sweep = judged.sweep(ALLOW_DISCARD="true")
    assert sweep.run().outcomes == {Outcome.GONE: 1}
    assert sweep.run().outcomes == {Outcome.DELIVERED: 1}
    assert [mail.endswith(b"another\r\n") for mail in judged.house.smtp.mailbox(ALICE)] == [True]


@pytest.mark.parametrize(
    "answered",
    [
        Answer(status=503),
        Answer(b"not JSON"),
        Answer(b'{"decision": "perhaps"}'),
        Answer(fate="reset"),
        Answer(status=302, headers={"Location": "http://127.0.0.1/"}),
    ],
)
def test_a_policy_that_is_out_of_order_makes_mail_wait_and_is_reported_once(judged: Judged, answered: Answer) -> None:
    judged.policy.answer = lambda request: answered
    for number in range(3):
        judged.house.put(str(number), MAIL + b"%d" % number)
    sweep = judged.sweep()
    assert sweep.run().outcomes == {Outcome.DEFERRED: 3}
    assert judged.house.smtp.filed == []
    assert len(judged.house.keys("pending/")) == 3
    assert judged.row(MAIL + b"0").reason == "filter-decision"
    (begins,) = judged.house.alerts("filter")
    assert (begins["subject"], begins["level"], begins["state"]) == ("decision", "warning", "begins")
    assert begins["message"].endswith("Mail waits for it.")
    for _ in range(2):
        judged.house.now += 7200
        judged.sweep().run()
    judged.decides("allow")
    for _ in range(2):
        judged.house.now += 7200
        judged.sweep().run()
    assert len(judged.house.smtp.filed) == 3
    assert [(event["level"], event["state"]) for event in judged.house.alerts("filter")][1:] == [
        ("alert", "on"),
        ("notice", "over"),
    ]
    assert judged.house.alerts("filter")[-1]["message"] == "decision: It works again."


def test_all_that_waited_comes_in_the_first_pass_after_the_filter_works_again(judged: Judged) -> None:
    judged.policy.answer = lambda request: Answer(status=503)
    for number in range(5):
        judged.house.put(str(number), MAIL + b"%d" % number)
    for _ in range(3):
        judged.sweep().run()
        judged.house.now += 7200
    judged.sweep().run()
    judged.decides("allow")
    summary = judged.sweep().run()
    assert +summary.outcomes == {Outcome.DELIVERED: 5}
    assert summary.listed == 5
    assert len(judged.house.smtp.filed) == 5


@pytest.mark.parametrize("settings", [{"FILTERS": "none"}, {"FILTER_FAIL_OPEN": "decision"}])
def test_or_after_the_person_does_without_it(judged: Judged, settings: dict[str, str]) -> None:
    judged.policy.answer = lambda request: Answer(status=503)
    for number in range(5):
        judged.house.put(str(number), MAIL + b"%d" % number)
    judged.sweep().run()
    assert +judged.sweep(**settings).run().outcomes == {Outcome.DELIVERED: 5}


def test_while_it_is_out_of_order_one_mail_a_pass_is_tried_and_the_log_says_what_the_others_wait_for(
    judged: Judged,
) -> None:
    judged.policy.answer = lambda request: Answer(status=503)
    for number in range(5):
        judged.house.put(str(number), MAIL + b"%d" % number)
    judged.sweep().run()
    judged.house.s3.requests.clear()
    asked = len(judged.policy.requests)
    summary = judged.sweep().run()
    assert +summary.outcomes == {Outcome.DEFERRED: 1, Outcome.WAITING: 4}
    assert summary.waiting == {"filter-decision": 4}
    assert len(judged.policy.requests) == asked + 1


def test_a_junk_mailbox_that_is_not_there_is_reported_once(house: House) -> None:
    for number in range(3):
        house.put(str(number), BLOCK % (b"fail", b"pass") + MAIL + b"%d" % number)
        house.sweep(AUTH_FAIL_ACTION="junk", SPAM_RCPT="nobody").run()
    (told,) = house.alerts("junk")
    assert (told["level"], told["subject"]) == ("alert", "nobody@example.test")
    house.smtp.mailboxes.add("nobody@example.test")
    house.put("4", BLOCK % (b"fail", b"pass") + MAIL + b"4")
    for _ in range(2):
        house.sweep(AUTH_FAIL_ACTION="junk", SPAM_RCPT="nobody").run()
        house.now += 700
    assert [told["state"] for told in house.alerts("junk")] == ["on", "over"]


def test_with_fail_open_mail_goes_on_and_says_so(judged: Judged) -> None:
    judged.policy.answer = lambda request: Answer(status=503)
    judged.house.put("one")
    assert judged.sweep(FILTER_FAIL_OPEN="decision").run().outcomes == {Outcome.DELIVERED: 1}
    assert judged.verdict_lines()[0].endswith("decision=failed")
    (told,) = judged.house.alerts("filter")
    assert told["message"].endswith("Mail goes on without it.")


def test_a_verdict_is_asked_for_once_however_often_the_mail_server_refuses(judged: Judged) -> None:
    judged.house.smtp.answer = on_verb("RCPT", "450 4.2.1 later", "450 4.2.1 later")
    judged.house.put("one")
    for _ in range(3):
        judged.sweep().run()
        judged.house.now += 7200
    assert len(judged.house.smtp.mailbox(ALICE)) == 1
    assert len(judged.policy.requests) == 1


def test_other_settings_mean_another_question(judged: Judged) -> None:
    judged.house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    judged.house.put("one")
    judged.sweep().run()
    judged.house.now += 7200
    judged.sweep(WEBHOOK_DECISION_PAYLOAD_MODE="full").run()
    assert len(judged.policy.requests) == 2


def test_a_mail_that_waits_for_a_filter_costs_no_smtp_session_of_its_own(judged: Judged) -> None:
    judged.policy.answer = lambda request: Answer(status=503)
    judged.house.put("one")
    judged.sweep().run()
    assert not [command for command in judged.house.smtp.commands if command.startswith("MAIL")]


def test_filters_are_asked_again_for_the_same_bytes_to_another_person(judged: Judged) -> None:
    judged.house.put("one")
    judged.house.put("two", to="bob@example.test")
    judged.sweep().run()
    assert sorted(request.json["message"]["recipients"] for request in judged.policy.requests) == [
        ["alice@example.test"],
        ["bob@example.test"],
    ]


# -- auth --


@pytest.mark.parametrize(
    ("action", "outcome", "mailbox"),
    [
        ("none", Outcome.DELIVERED, ALICE),
        ("tag", Outcome.DELIVERED, ALICE),
        ("junk", Outcome.DELIVERED, "alice+junk@example.test"),
        ("quarantine", Outcome.QUARANTINED, ""),
    ],
)
def test_mail_that_fails_at_cloudflare_becomes_what_the_person_says(
    house: House, action: str, outcome: Outcome, mailbox: str
) -> None:
    house.smtp.mailboxes.add("alice+junk@example.test")
    house.put("one", BLOCK % (b"fail", b"pass") + MAIL)
    assert house.sweep(AUTH_FAIL_ACTION=f"dmarc={action}").run().outcomes == {outcome: 1}
    assert [mail.mailbox for mail in house.smtp.filed] == ([mailbox] if mailbox else [])
    tagged = [b"\r\nX-Spam-Flag: YES\r\n" in mail.content for mail in house.smtp.filed]
    assert tagged == ([action in ("tag", "junk")] if mailbox else [])


def test_a_forged_result_in_the_senders_part_changes_nothing(house: House) -> None:
    forged = b"Authentication-Results: mx.cloudflare.net; dmarc=fail; spf=fail\r\nX-CF-SpamH-Score: 9\r\n"
    house.put("one", BLOCK % (b"pass", b"pass") + forged + MAIL)
    house.put("two", forged + MAIL)
    assert house.sweep(AUTH_FAIL_ACTION="quarantine").run().outcomes == {Outcome.DELIVERED: 2}


def test_junk_goes_to_its_mailbox_or_where_there_is_none_to_the_usual_one(house: House) -> None:
    house.smtp.mailboxes.add("spam@example.test")
    house.put("one", BLOCK % (b"fail", b"pass") + MAIL)
    house.sweep(AUTH_FAIL_ACTION="junk", SPAM_RCPT="spam").run()
    house.smtp.mailboxes.discard("spam@example.test")
    house.put("two", BLOCK % (b"fail", b"pass") + MAIL + b"2")
    house.sweep(AUTH_FAIL_ACTION="junk", SPAM_RCPT="spam").run()
    assert [mail.mailbox for mail in house.smtp.filed] == ["spam@example.test", ALICE]


def test_a_subject_tag_is_put_on_once_even_if_the_mail_is_injected_twice(house: House) -> None:
    house.put("one", BLOCK % (b"fail", b"pass") + MAIL)
    house.smtp.answer = on_verb("FILED", DROP)
    sweep = house.sweep(AUTH_FAIL_ACTION="tag", SPAM_SUBJECT_TAG="[SPAM]")
    sweep.run()
    house.now += 7200
    sweep.run()
    assert len(house.smtp.filed) == 2
    assert all(mail.content.count(b"[SPAM]") == 1 for mail in house.smtp.filed)
    assert all(b"\r\nSubject: [SPAM] s\r\n" in mail.content for mail in house.smtp.filed)


def test_forged_lines_of_ours_are_renamed_on_request(house: House) -> None:
    forged = b"X-Spam-Flag: NO\r\nx-drain-verdict : deliver\r\n" + MAIL
    house.put("one", forged)
    house.sweep().run()
    house.put("two", forged + b"2")
    house.sweep(STRIP_FORGED="true").run()
    plain, stripped = house.smtp.mailbox(ALICE)
    assert plain.endswith(b"\r\n" + forged)
    assert stripped.endswith(
        b"X-Original-X-Spam-Flag: NO\r\nX-Original-x-drain-verdict : deliver\r\n" + MAIL + b"2\r\n"
    )


def test_without_filters_nothing_but_the_stamp_is_added(house: House) -> None:
    house.put("one")
    house.sweep(FILTERS="none").run()
    (filed,) = house.smtp.mailbox(ALICE)
    stamp, _, rest = filed.partition(b"\r\n")
    assert stamp.startswith(b"X-Drain-Id: ")
    assert rest == MAIL


# -- release --


def released(judged: Judged, name: str = "one", raw: bytes = MAIL) -> str:
    """Marks what lies in quarantine as a person does; its identity."""
    from drain.listing import ListedObject

    mail = Mail(raw, ALICE, "a@x.test")
    key = f"quarantine/{mail.identity}-{name}"
    stored = judged.house.s3.objects[key]
    listed = next(
        ListedObject(entry.key, entry.etag, entry.last_modified, entry.size)
        for page in judged.sweep().bucket.pages(key)
        for entry in page
    )
    assert stored is not None
    with judged.ledger() as ledger:
        ledger.release(listed, mail, mail.identity, judged.house.now)
    return mail.identity


def quarantined(judged: Judged, name: str = "one", raw: bytes = MAIL) -> None:
    judged.decides("deny")
    judged.house.put(name, raw)
    assert judged.sweep().run().outcomes == {Outcome.QUARANTINED: 1}


def test_a_released_mail_is_delivered_from_quarantine_without_asking_anybody(judged: Judged) -> None:
    quarantined(judged)
    identity = released(judged)
    asked = len(judged.policy.requests)
    assert judged.sweep().deliver_released(1.0).outcomes == {Outcome.DELIVERED: 1}
    assert len(judged.policy.requests) == asked
    assert judged.house.keys() == [f"processed/{identity}-one"]
    assert judged.row().state is State.SETTLED
    (filed,) = judged.house.smtp.mailbox(ALICE)
    assert filed.endswith(b"\r\n" + MAIL)


def test_a_release_that_the_mail_server_puts_off_is_delivered_by_a_later_pass(judged: Judged) -> None:
    quarantined(judged)
    identity = released(judged)
    judged.house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    assert judged.sweep().deliver_released(1.0).outcomes == {Outcome.DEFERRED: 1}
    summary = judged.sweep().run()
    assert (summary.outcomes, summary.missing) == ({Outcome.WAITING: 1}, 0)
    judged.house.now += 7200
    assert judged.sweep().run().outcomes == {Outcome.DELIVERED: 1}
    assert judged.house.keys() == [f"processed/{identity}-one"]


def test_a_release_that_the_mail_server_refuses_stays_in_quarantine_and_can_be_released_again(judged: Judged) -> None:
    quarantined(judged)
    identity = released(judged)
    judged.house.smtp.answer = on_verb("DOT", "554 5.6.0 no")
    assert judged.sweep().deliver_released(1.0).outcomes == {Outcome.QUARANTINED: 1}
    assert judged.house.keys() == [f"quarantine/{identity}-one"]
    assert (judged.row().state, judged.row().reason) == (State.QUARANTINED, "mail-refused")
    released(judged)
    assert judged.sweep().deliver_released(1.0).outcomes == {Outcome.DELIVERED: 1}


def test_a_released_mail_that_is_gone_is_reported(judged: Judged) -> None:
    quarantined(judged)
    identity = released(judged)
    del judged.house.s3.objects[f"quarantine/{identity}-one"]
    assert judged.sweep().run().missing == 1
    assert judged.house.events("missing")


def test_a_reply_lost_in_a_release_is_injected_again_with_its_count(judged: Judged) -> None:
    quarantined(judged)
    released(judged)
    judged.house.smtp.answer = on_verb("FILED", DROP)
    assert judged.sweep().deliver_released(1.0).outcomes == {Outcome.UNKNOWN: 1}
    judged.house.now += 7200
    assert judged.sweep().run().outcomes == {Outcome.DELIVERED: 1}
    assert judged.row().reinjections == 1


def test_metadata_that_says_released_says_nothing(judged: Judged) -> None:
    judged.decides("deny")
    judged.house.put("one", metadata={"to": ALICE, "from": "a@x.test", "released": "1", "drain-released": "true"})
    assert judged.sweep().run().outcomes == {Outcome.QUARANTINED: 1}


def test_deliver_released_leaves_what_is_pending_alone(judged: Judged) -> None:
    quarantined(judged)
    released(judged)
    judged.decides("allow")
    judged.house.put("two", MAIL + b"2")
    judged.sweep().deliver_released(1.0)
    assert judged.house.keys("pending/") == ["pending/two"]


def test_a_mail_quarantined_in_one_pass_is_not_sent_if_it_lies_there_again(judged: Judged) -> None:
    quarantined(judged)
    judged.decides("allow")
    judged.house.put("one")
    assert judged.sweep().run().outcomes == {Outcome.QUARANTINED: 1}
    assert judged.house.smtp.filed == []


def test_a_ledger_that_cannot_be_written_holds_the_verdict_and_the_mail(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drain.verdicts import Verdicts

    def full(*_: object) -> None:
        raise LedgerUnavailable("The disk is full.")

    judged.decides("silent_deny")
    judged.house.put("one")
    with monkeypatch.context() as patched:
        patched.setattr(Verdicts, "keep", full)
        assert isinstance(judged.sweep(ALLOW_DISCARD="true").run().error, LedgerUnavailable)
    assert judged.house.keys() == ["pending/one"]


def test_a_running_drain_delivers_what_another_process_released(judged: Judged) -> None:
    """Its own last pass had left nothing unfinished."""
    quarantined(judged)
    running = judged.sweep()
    assert running.run().outcomes == {}
    released(judged)
    assert running.run().outcomes == {Outcome.DELIVERED: 1}


def test_an_idle_pass_does_not_open_a_ledger_that_nobody_wrote_to(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantined(judged)
    running = judged.sweep()
    running.run()

    def opened(_path: object) -> None:
        raise AssertionError

    monkeypatch.setattr("drain.ledger.Ledger", opened)
    assert running.run().outcomes == {}


def test_what_is_put_in_the_place_of_a_released_object_is_not_believed(judged: Judged) -> None:
    """Between the LIST and the GET; released means that neither token nor filter is asked."""
    judged.house.put("one")
    judged.sweep(REQUIRE_SEALED="true").run()
    (key,) = judged.house.keys("quarantine/")
    sweep = judged.sweep(REQUIRE_SEALED="true")
    (listed,) = next(sweep.bucket.pages(key))
    with judged.ledger() as ledger:
        ledger.release(listed, Mail(MAIL, ALICE, "a@x.test"), key.split("/")[1][:64], judged.house.now)

    def overwrite(step: Step, _name: str) -> None:
        if step is Step.CONNECTED:
            about = judged.house.s3.objects[key].metadata
            judged.house.s3.objects[key] = StoredObject(MAIL + b"forged", about)

    sweep.step = overwrite
    sweep.deliver_released(1.0)
    assert not [mail for mail in judged.house.smtp.filed if b"forged" in mail.content]


def test_a_mail_that_a_filter_alone_cannot_check_is_set_aside_after_a_while_and_reported(judged: Judged) -> None:
    """A virus scanner takes none of that size: for ever waiting, a lifecycle rule would delete it."""

    def odd(request: Request) -> Answer:
        large = request.json["message"]["subject"] == "large"
        return Answer(b"nonsense") if large else answer({"decision": "allow"})

    judged.policy.answer = odd
    judged.house.put("large", b"Subject: large\r\n\r\nx\r\n")
    for number in range(10):
        judged.house.put(str(number), MAIL + b"%d" % number)
        judged.sweep(CONCURRENCY="1").run()
        judged.house.now += 7200
    assert len(judged.house.smtp.filed) == 10
    (key,) = judged.house.keys("quarantine/")
    assert key.endswith("-large")
    assert judged.house.alerts("quarantine")[0]["message"].startswith("1 mail under quarantine/: 1 filter-decision.")


def test_but_while_a_filter_has_nothing_to_say_of_any_mail_all_wait(judged: Judged) -> None:
    judged.policy.answer = lambda request: Answer(b"nonsense")
    judged.house.put("one")
    for _ in range(12):
        judged.sweep().run()
        judged.house.now += 7200
    assert judged.house.keys() == ["pending/one"]


def test_a_sender_cannot_turn_the_alert_of_a_filter_on_and_off(judged: Judged) -> None:
    def odd(request: Request) -> Answer:
        return Answer(b"nonsense") if request.json["message"]["subject"] == "odd" else answer({"decision": "allow"})

    judged.policy.answer = odd
    for number in range(4):
        judged.house.put(f"{number}", MAIL + b"%d" % number)
        judged.house.put(f"{number}-odd", b"Subject: odd\r\n\r\n%d\r\n" % number)
        judged.sweep().run()
        judged.house.now += 300
    assert [event["level"] for event in judged.house.alerts("filter")].count("alert") <= 1


def test_what_a_person_deleted_is_never_discarded_when_it_comes_again(judged: Judged) -> None:
    quarantined(judged)
    identity = judged.row().identity
    with judged.ledger() as ledger:
        ledger.deleted(identity, judged.house.now)
    del judged.house.s3.objects[f"quarantine/{identity}-one"]
    judged.house.put("one")
    assert judged.sweep(ALLOW_DISCARD="true").run().outcomes == {Outcome.QUARANTINED: 1}


def test_a_reason_that_no_database_takes_is_stored_all_the_same(judged: Judged) -> None:
    judged.policy.answer = lambda request: Answer(b'{"decision": "deny", "reason": "\\ud800"}')
    judged.house.put("one")
    assert judged.sweep().run().outcomes == {Outcome.QUARANTINED: 1}
    assert not judged.house.events("bug")


def test_a_released_mail_has_a_verdict_of_ours_above_a_forged_one(judged: Judged) -> None:
    forged = b"X-Drain-Verdict: deliver; auth (spf=pass)\r\n" + MAIL
    quarantined(judged, raw=forged)
    released(judged, raw=forged)
    judged.sweep().deliver_released(1.0)
    (filed,) = judged.house.smtp.mailbox(ALICE)
    assert filed.startswith(b"X-Drain-Verdict: deliver; released by hand\r\nX-Drain-Id: ")


def test_a_virus_that_comes_again_is_no_alarm_either(judged: Judged) -> None:
    quarantined(judged)
    judged.house.put("again")
    judged.sweep().run()
    assert not judged.house.alerts("quarantine")
