"""Every alert, from its cause to its end, over passes that are each a process of their own."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drain import config, lock, oversight
from drain.alerts.alert import Alert, Kind, NotSent
from drain.alerts.outbox import Outbox
from drain.demo.s3 import Fault
from drain.ledger import Ledger
from drain.listing import ListedObject
from drain.logbook import Logbook
from drain.mail import Mail
from drain.notify import Notifier
from drain.relay.queue import Message, Parcel, Queue, State, new_id
from drain.service import Service
from drain.watch import Watch, _makeshift
from tests.http_fake import Answer, FakeHttp
from tests.smtp_fake import DROP
from tests.support import MAIL, House

HOUR = 3600.0
_FAILED = (
    b"Received: from mx.x.test (192.0.2.9) by cloudflare-email.net (cloudflare) id abc for <alice@example.test>;"
    b" Sat, 21 Nov 2026 10:00:00 +0000\r\n"
    b"Authentication-Results: mx.cloudflare.net; dkim=none; dmarc=fail; spf=fail smtp.mailfrom=x.test\r\n"
    b"X-CF-SpamH-Score: 0\r\n"
)
EVERY = {"ALERT_DAYS": "0", "ALERT_COUNT": "0", "ALERT_GROWTH_PASSES": "0"}


@pytest.fixture
def policy() -> Iterator[FakeHttp]:
    with FakeHttp(lambda request: Answer(status=503)) as http:
        yield http


@dataclass
class Case:
    """How something comes to be so, and how it ends; what makes a pass of it."""

    house: House
    policy: FakeHttp
    settings: dict[str, str] = field(default_factory=dict)
    passes: int = 0

    def pass_(self) -> None:
        self.passes += 1
        self.house.sweep(**{**EVERY, **self.settings}).run()
        self.house.now += 2 * HOUR

    def passes_until(self, state: str) -> None:
        """For three days at the most."""
        for _ in range(36):
            self.pass_()
            if self.house.events("alert") and self.house.events("alert")[-1]["state"] == state:
                return

    def refuses(self, verb: str, reply: str) -> None:
        self.house.smtp.answer = lambda asked, argument: reply if asked == verb else None

    def refuses_no_more(self) -> None:
        self.house.smtp.answer = lambda verb, argument: None


def backlog(case: Case, **settings: str) -> Callable[[], None]:
    case.settings = settings
    for number in range(3):
        case.house.put(str(number), MAIL + b"%d" % number)
    case.refuses("RCPT", "450 4.2.1 later")
    return case.refuses_no_more


def growing(case: Case) -> Callable[[], None]:
    case.settings = {"ALERT_GROWTH_PASSES": "3"}
    case.refuses("RCPT", "450 4.2.1 later")
    earlier = case.pass_

    def pass_() -> None:
        if case.passes < 30:
            case.house.put(str(case.passes), MAIL + b"%d" % case.passes)
        earlier()

    case.pass_ = pass_  # type: ignore[method-assign]

    def ends() -> None:
        case.passes = 30
        case.refuses_no_more()

    return ends


def bucket(case: Case) -> Callable[[], None]:
    case.settings = {"ALERT_OFFLINE_HOURS": "3"}
    case.house.s3.fault = lambda operation, key: Fault(status=403, code="AccessDenied")

    def ends() -> None:
        case.house.s3.fault = None

    return ends


def mail_server(case: Case) -> Callable[[], None]:
    case.house.put("one")
    case.refuses("AUTH", "535 5.7.8 no")
    return case.refuses_no_more


def failing(case: Case) -> Callable[[], None]:
    case.house.put("one")
    ledger = case.house.state_dir / "ledger.db"
    case.house.state_dir.mkdir(parents=True)
    ledger.write_bytes(b"this is no database, " * 100)
    return ledger.unlink


def quarantine(case: Case) -> Callable[[], None]:
    case.house.put("one")
    case.refuses("MAIL", "550 5.7.1 no")

    def ends() -> None:
        with contextlib.closing(Ledger(case.house.state_dir / "ledger.db")) as ledger:
            ledger.deleted(Mail(MAIL, "alice@example.test", "").identity, case.house.now)

    return ends


def no_key(case: Case) -> Callable[[], None]:
    key = case.house.put("sealed", b"DRN1" + bytes(100))
    return lambda: case.house.s3.objects.pop(key)  # type: ignore[return-value]


def no_reply(case: Case) -> Callable[[], None]:
    case.house.put("one")
    case.refuses("FILED", DROP)
    return case.refuses_no_more


def filter_(case: Case) -> Callable[[], None]:
    case.settings = {"FILTERS": "decision", "WEBHOOK_DECISION_URL": case.policy.url}
    case.policy.answer = lambda request: Answer(status=503)
    case.house.put("one")

    def ends() -> None:
        case.policy.answer = lambda request: Answer(b'{"decision": "allow"}')

    return ends


def filter_that_is_turned_off(case: Case) -> Callable[[], None]:
    filter_(case)
    return case.settings.clear


def junk(case: Case) -> Callable[[], None]:
    case.settings = {"AUTH_FAIL_ACTION": "junk", "SPAM_RCPT": "nobody"}
    earlier = case.pass_

    def pass_() -> None:
        case.house.put(str(case.passes), _FAILED + MAIL + b"%d" % case.passes)
        earlier()

    case.pass_ = pass_  # type: ignore[method-assign]
    return lambda: case.house.smtp.mailboxes.add("nobody@example.test")


def relay_queue(case: Case) -> Callable[[], None]:
    queue = Queue(case.house.state_dir / "relay", case.house.state_dir / "key")
    message = Message(
        new_id(), False, "phone", "a@example.test", "a@example.test", "<1@example.test>", len(MAIL), case.house.now
    )
    queue.accept(Parcel(message, [("b@x.test",)], MAIL), case.house.now)
    queue.close()

    def ends() -> None:
        with contextlib.closing(Queue(case.house.state_dir / "relay", case.house.state_dir / "key")) as queue:
            for entry in queue.entries(State.WAITING):
                queue.change(entry, State.REMOVED, case.house.now)

    return ends


CASES = {
    Kind.BACKLOG_AGE: lambda case: backlog(case, ALERT_DAYS="0.5"),
    Kind.BACKLOG_COUNT: lambda case: backlog(case, ALERT_COUNT="2"),
    Kind.BACKLOG_GROWTH: growing,
    Kind.BUCKET: bucket,
    Kind.MAIL_SERVER: mail_server,
    Kind.PASS: failing,
    Kind.QUARANTINE: quarantine,
    Kind.NO_KEY: no_key,
    Kind.NO_REPLY: no_reply,
    Kind.FILTER: filter_,
    Kind.JUNK: junk,
    Kind.RELAY_QUEUE: relay_queue,
}


def told(house: House) -> list[tuple[str, str]]:
    """Kind and state of all that a person hears."""
    return [(one["kind"], one["state"]) for one in house.events("alert") if one["state"] not in ("begins", "passed")]


@pytest.mark.parametrize("kind", CASES, ids=str)
def test_each_alert_is_told_once_when_it_starts_again_after_a_day_and_once_when_it_is_over(
    house: House, policy: FakeHttp, kind: Kind
) -> None:
    case = Case(house, policy)
    ends = CASES[kind](case)
    case.passes_until("again")
    began, again = house.alerts(kind)[-2:]
    assert (began["state"], again["state"]) == ("on", "again")
    assert told(house) == [(kind, "on"), (kind, "again")]
    ends()
    case.passes_until("over")
    for _ in range(3):
        case.pass_()
    assert told(house) == [(kind, "on"), (kind, "again"), (kind, "over")]
    assert all(len(one["message"]) > 15 for one in house.alerts(kind))


def test_a_mail_that_is_lost_is_told_once_and_not_for_ever(house: House, policy: FakeHttp) -> None:
    case = Case(house, policy)
    case.refuses("RCPT", "450 4.2.1 later")
    key = house.put("one")
    case.pass_()
    del house.s3.objects[key]
    for _ in range(20):
        case.pass_()
    assert told(house) == [("missing", "on"), ("missing", "over")]
    assert house.alerts("missing")[0]["mails"] == 1


def test_a_filter_that_is_not_used_any_more_is_no_alert_any_more(house: House, policy: FakeHttp) -> None:
    case = Case(house, policy)
    ends = filter_that_is_turned_off(case)
    for _ in range(3):
        case.pass_()
    ends()
    for _ in range(3):
        case.pass_()
    assert told(house) == [("filter", "on"), ("filter", "over")]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Kind.BACKLOG_AGE, {}),
        (Kind.BUCKET, {"ALERT_OFFLINE_HOURS": "0"}),
        (Kind.MAIL_SERVER, {"ALERT_SERVER_HOURS": "0"}),
        (Kind.PASS, {"ALERT_SERVER_HOURS": "0"}),
        (Kind.FILTER, {"ALERT_SERVER_HOURS": "0"}),
        (Kind.QUARANTINE, {"ALERT_QUARANTINE": "0"}),
        (Kind.RELAY_QUEUE, {"ALERT_RELAY_HOURS": "0"}),
    ],
    ids=str,
)
def test_a_threshold_of_0_is_never_an_alert(
    house: House, policy: FakeHttp, kind: Kind, settings: dict[str, str]
) -> None:
    case = Case(house, policy)
    CASES[kind](case)
    case.settings = {**case.settings, "ALERT_DAYS": "0", **settings}
    for _ in range(6):
        case.pass_()
    assert told(house) == []


def test_a_phone_that_is_offline_for_a_night_alarms_nobody(house: House, policy: FakeHttp) -> None:
    case = Case(house, policy)
    ends = bucket(case)
    case.settings = {}
    for _ in range(5):
        case.pass_()
    ends()
    for _ in range(12):
        case.pass_()
    assert told(house) == []
    assert [one["state"] for one in house.alerts("bucket")] == ["begins", "passed"]


def test_how_much_waits_is_known_also_while_nothing_can_be_delivered(house: House) -> None:
    for number in range(2500):
        house.put(f"{number:04}", MAIL + b"%d" % number)
    house.smtp.answer = lambda verb, argument: "421 4.3.2 later" if verb == "CONNECT" else None
    summary = house.sweep().run()
    assert summary.pending == 2500
    assert summary.oldest_at == 1767225600.0
    assert "2500 mails" in house.alerts("backlog-count")[0]["message"]


def test_what_was_in_hand_when_the_mail_server_went_away_waits_too(house: House) -> None:
    for number in range(3):
        house.put(str(number), MAIL + b"%d" % number)

    def answer(verb: str, _argument: str) -> str | None:
        if verb == "MAIL":
            house.smtp.answer = lambda verb, argument: DROP if verb == "CONNECT" else None
            return DROP
        return None

    house.smtp.answer = answer
    summary = house.sweep(CONCURRENCY="1").run()
    assert summary.error is not None
    assert summary.pending == 3


def test_what_was_delivered_waits_no_more(house: House) -> None:
    for number in range(3):
        house.put(str(number), MAIL + b"%d" % number)
    refuse = b"1"
    house.smtp.answer = lambda verb, argument: None
    house.smtp.refuse = MAIL + refuse
    summary = house.sweep().run()
    assert (summary.pending, summary.oldest_at) == (0, None)


# -- the ways out --


@dataclass
class Way:
    """An outlet that a test can watch."""

    name: str
    does: Callable[[Alert, Callable[[], bool]], None] = lambda alert, stopped: None
    sent: list[Alert] = field(default_factory=list)

    def send(self, alert: Alert, stopped: Callable[[], bool]) -> None:
        self.does(alert, stopped)
        self.sent.append(alert)


def watched(house: House, ways: Sequence[Way], **settings: str) -> tuple[Watch, Callable[[], None]]:
    """What follows passes, with these outlets; and what makes a pass."""
    sweep = house.sweep(**settings)
    watch = house.watch(**settings)
    watch.outbox.outlets = ways
    sweep.on_end = watch.after

    def pass_() -> None:
        sweep.run()

    return watch, pass_


def broken(house: House) -> None:
    house.put("one")
    house.smtp.answer = lambda verb, argument: "550 5.7.1 no" if verb == "MAIL" else None


def outbox(house: House) -> list[tuple[str, int]]:
    """Outlet and tries of what is not told yet."""
    with contextlib.closing(Logbook(house.state_dir / "logbook.db")) as book, book.database.reading() as db:
        return db.execute("SELECT outlet, tries FROM outbox ORDER BY outlet").fetchall()


def hang(_alert: Alert, stopped: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not stopped() and time.monotonic() < until:
        time.sleep(0.01)
    raise NotSent("It hung.")


def test_an_outlet_that_hangs_delays_neither_mail_nor_the_others(house: House) -> None:
    broken(house)
    hanging, good = Way("a", hang), Way("b")
    watch, pass_ = watched(house, [hanging, good])
    began = time.monotonic()
    pass_()
    house.smtp.answer = lambda verb, argument: None
    house.put("two", MAIL + b"2")
    pass_()
    assert time.monotonic() - began < 5
    assert len(house.smtp.filed) == 1
    watch.outbox.threads[-1].join(5)
    for _ in range(100):
        if good.sent:
            break
        time.sleep(0.02)
    assert [alert.kind for alert in good.sent] == [Kind.QUARANTINE]
    watch.finish(0.0)
    assert time.monotonic() - began < 8
    assert hanging.sent == []
    assert outbox(house) == [("a", 1)]


def test_several_hanging_outlets_are_waited_for_together(house: House) -> None:
    broken(house)

    def slow(_alert: Alert, _stopped: Callable[[], bool]) -> None:
        time.sleep(0.7)

    ways = [Way(str(number), slow) for number in range(6)]
    watch, pass_ = watched(house, ways)
    pass_()
    began = time.monotonic()
    watch.finish()
    assert time.monotonic() - began < 3
    assert [len(way.sent) for way in ways] == [1] * 6
    assert outbox(house) == []


def fail(_alert: Alert, _stopped: Callable[[], bool]) -> None:
    raise NotSent("It is offline.")


def test_what_is_not_taken_is_tried_again_by_the_next_process_until_it_is(house: House) -> None:
    broken(house)
    way = Way("a", fail)
    for _ in range(4):
        watch, pass_ = watched(house, [way])
        pass_()
        watch.finish()
        house.now += 4000
    assert outbox(house) == [("a", 4)]
    assert len(house.events("alert-not-sent")) == 4
    assert [one["level"] for one in house.events("alert-not-sent")] == ["warning", "debug", "debug", "debug"]
    assert len(told(house)) == 1
    way.does = lambda alert, stopped: None
    watch, pass_ = watched(house, [way])
    pass_()
    watch.finish()
    assert outbox(house) == []
    assert [alert.state for alert in way.sent] == ["on"]


def test_it_is_not_tried_again_at_once(house: House) -> None:
    broken(house)
    tries: list[Alert] = []

    def count(alert: Alert, _stopped: Callable[[], bool]) -> None:
        tries.append(alert)
        raise NotSent("No.")

    for _ in range(5):
        watch, pass_ = watched(house, [Way("a", count)])
        pass_()
        watch.finish()
        house.now += 10
    assert len(tries) == 1


def test_later_news_takes_the_place_of_earlier_news_that_was_never_told(house: House) -> None:
    broken(house)
    way = Way("a", fail)
    watch, pass_ = watched(house, [way])
    pass_()
    watch.finish()
    with contextlib.closing(Ledger(house.state_dir / "ledger.db")) as ledger:
        ledger.deleted(Mail(MAIL, "alice@example.test", "").identity, house.now)
    way.does = lambda alert, stopped: None
    for _ in range(3):
        house.now += 4000
        watch, pass_ = watched(house, [way])
        pass_()
        watch.finish()
    assert [alert.state for alert in way.sent][-1] == "over"
    assert outbox(house) == []


def test_a_bug_in_an_outlet_ends_nothing(house: House) -> None:
    broken(house)

    def bug(_alert: Alert, _stopped: Callable[[], bool]) -> None:
        raise ZeroDivisionError

    good = Way("b")
    watch, pass_ = watched(house, [Way("a", bug), good])
    pass_()
    watch.finish()
    assert len(good.sent) == 1
    assert "ZeroDivisionError" in house.events("alert-not-sent")[0]["message"]


def test_two_drains_do_not_both_tell_it(house: House) -> None:
    broken(house)
    way = Way("a", hang)
    watch, pass_ = watched(house, [way])
    pass_()
    other = Outbox([Way("a")], house.events.log, clock=lambda: house.now)
    with contextlib.closing(Logbook(house.state_dir / "logbook.db")) as book:
        other.send(book)
    assert other.threads == []
    watch.finish(0.0)


def test_an_outlet_that_is_gone_from_the_settings_leaves_nothing_behind(house: House) -> None:
    broken(house)
    watch, pass_ = watched(house, [Way("a", fail)])
    pass_()
    watch.finish()
    house.now += 4000
    watch, pass_ = watched(house, [Way("b")])
    pass_()
    watch.finish()
    assert outbox(house) == []


# -- the logbook --


def test_a_damaged_logbook_stops_neither_mail_nor_alerts_nor_tells_them_twice(house: House) -> None:
    house.state_dir.mkdir(parents=True)
    logbook = house.state_dir / "logbook.db"
    logbook.write_bytes(b"this is no database, " * 100)
    try:
        broken(house)
        way = Way("a")
        for _ in range(3):
            watch, pass_ = watched(house, [way])
            pass_()
            watch.finish()
            house.now += 400
        assert [alert.kind for alert in way.sent] == [Kind.QUARANTINE]
        assert "damaged" in house.events("logbook")[0]["message"]
        assert len(told(house)) == 1
    finally:
        makeshift = _makeshift(logbook)
        for path in makeshift.parent.iterdir():
            path.unlink()
        makeshift.parent.rmdir()


def test_a_place_that_somebody_else_made_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "logbook.db"
    makeshift = _makeshift(path)
    makeshift.parent.rmdir()
    makeshift.parent.symlink_to(tmp_path)
    with pytest.raises(OSError, match="somebody else's"):
        _makeshift(path)
    makeshift.parent.unlink()


def test_an_idle_daemon_writes_every_five_minutes_at_the_most(house: House) -> None:
    broken(house)
    _, pass_ = watched(house, [])
    pass_()
    pass_()
    noted = []
    for _ in range(60):
        house.now += 60
        pass_()
        with contextlib.closing(Logbook(house.state_dir / "logbook.db")) as book:
            noted.append(book.passes(0.0)[-1].at)
    assert len(set(noted)) == 13  # and the first
    assert house.s3.requests["ListObjectsV2"] == 62


def test_another_drain_at_work_is_not_noted_as_a_pass(house: House) -> None:
    house.put("one")
    with lock.held(house.state_dir / "drain.lock", house.events.log):
        house.sweep().run()
    with contextlib.closing(Logbook(house.state_dir / "logbook.db")) as book:
        assert book.passes(0.0) == []


def test_what_a_pass_came_to_is_noted(house: House) -> None:
    for number in range(3):
        house.put(str(number), MAIL + b"%d" % number)
    house.smtp.answer = lambda verb, argument: "450 4.2.1 later" if verb == "RCPT" and "bob" in argument else None
    house.put("bob", to="bob@example.test")
    house.sweep().run()
    with contextlib.closing(Logbook(house.state_dir / "logbook.db")) as book:
        (last,) = book.passes(0.0)
        assert (last.at, last.listed, last.pending, last.oldest_at) == (house.now, 4, 1, 1767225600.0)
        assert last.outcomes == {"delivered": 3, "deferred": 1}
        assert (last.trouble, last.kind) == ("", "")
        assert book.passes(house.now) == [last]
    house.s3.fault = lambda operation, key: Fault(drop=True)
    house.now += 1
    house.sweep().run()
    with contextlib.closing(Logbook(house.state_dir / "logbook.db")) as book:
        earlier, trouble = book.passes(0.0)
        assert (trouble.kind, trouble.pending) == ("bucket", None)
        assert earlier == last
        book.prune(house.now + 101 * 86400)
        assert book.passes(0.0) == []


# -- Healthchecks --


class Pings:
    """What is pinged, in words."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def success(self) -> None:
        self.heard.append("success")

    def failure(self, words: str) -> None:
        self.heard.append(f"failure: {words}")
        raise NotSent("It is away.")


def test_passes_are_pinged_every_five_minutes_and_those_that_fail_once_it_is_an_alert(house: House) -> None:
    pings = Pings()
    watch, pass_ = watched(house, [], ALERT_OFFLINE_HOURS="1")
    watch.ping = pings

    def passes(number: int) -> None:
        for _ in range(number):
            pass_()
            if watch._pinging is not None:
                watch._pinging.join(5)
            house.now += 60

    passes(10)
    assert pings.heard == ["success"] * 2
    house.s3.fault = lambda operation, key: Fault(status=403, code="AccessDenied")
    passes(50)
    assert pings.heard == ["success"] * 2, "what may be over in a minute is nothing to ring for"
    passes(20)
    assert len(pings.heard) == 4
    assert pings.heard[2].startswith("failure: ")
    house.s3.fault = None
    passes(2)
    assert pings.heard[4:] == ["success"]
    assert len(house.events("ping")) == 1


# -- a pass that hangs --


def test_a_pass_that_hangs_for_long_is_told_and_told_when_it_is_over(house: House) -> None:
    watch, pass_ = watched(house, [])
    watch.hanging(7100.0)
    assert told(house) == []
    for _ in range(14):
        watch.hanging(7300.0)
        house.now += 2 * HOUR
    assert told(house) == [("stale", "on"), ("stale", "again")]
    for _ in range(3):
        pass_()
        house.now += 700
    assert told(house)[2:] == [("stale", "over")]


def test_a_pass_that_goes_on_is_noted_as_going_on(house: House) -> None:
    watch, _ = watched(house, [])
    watch.working()
    with contextlib.closing(Logbook(house.state_dir / "logbook.db")) as book:
        assert book.note("working_at") == str(house.now)


def test_the_settings_come_to_outlets(house: House) -> None:
    settings = house.environ(
        MAIL_ALERT_CMD="true",
        NTFY_URL="https://ntfy.example/topic",
        ALERT_WEBHOOK_URL="https://hooks.example/x",
        ALERT_MAIL="true",
    )
    found = oversight.outlets(config.load(settings)[0])
    assert [outlet.name for outlet in found] == ["command", "ntfy", "webhook", "mail"]
    assert oversight.outlets(config.load(house.environ())[0]) == []
    assert threading.active_count() < 50


# -- what is shown --


def test_the_metrics_and_the_page_are_written_after_a_pass(house: House, tmp_path: Path) -> None:
    house.put("one")
    house.sweep(METRICS_FILE=str(tmp_path / "drain.prom"), STATUS_HTML=str(tmp_path / "status.html")).run()
    assert "drain_pending_mails 0" in (tmp_path / "drain.prom").read_text()
    assert "<!doctype html>" in (tmp_path / "status.html").read_text().lower()


def test_a_place_where_they_cannot_be_written_is_a_line_in_the_log_and_no_more(house: House) -> None:
    house.put("one")
    sweep = house.sweep(METRICS_FILE="/proc/none/drain.prom")
    assert sweep.run().error is None
    assert len(house.smtp.filed) == 1
    (warning,) = house.events("status")
    assert "/proc/none/drain.prom" in warning["message"]


# -- found by trying --


def test_a_pass_that_a_bug_ends_is_noted_and_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_pages(prefix: str) -> Iterator[list[ListedObject]]:
        raise RuntimeError(prefix)

    sweep = house.sweep()
    sweep.bucket = type("Broken", (), {"pages": staticmethod(broken_pages)})()
    monkeypatch.setattr(threading, "excepthook", lambda told: None)
    service = Service(sweep, house.events.log, Notifier({}), 60.0, house.watch())
    for _ in range(3):
        assert service.once().bugs == 1
        house.now += HOUR
    assert told(house) == [("pass", "on")]


def test_a_daemon_that_gives_up_tells_so_at_once_and_once_a_day_over_restarts(house: House) -> None:
    house.s3.fault = lambda operation, key: Fault(status=403, code="AccessDenied")
    for _ in range(5):
        service = Service(house.sweep(), house.events.log, Notifier({}), 60.0, house.watch())
        assert service.run().error is not None
        house.now += HOUR
    assert told(house) == [("bucket", "on")]


def test_a_full_disk_comes_out_also_where_the_stand_in_is_full_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> Path:
        raise OSError(28, "No space left on device")

    house.state_dir.mkdir(parents=True)
    (house.state_dir / "logbook.db").mkdir()
    monkeypatch.setattr("drain.watch._makeshift", full)
    monkeypatch.setattr(Watch, "_anew", lambda self: full(self.path))
    broken(house)
    way = Way("a")
    watch, pass_ = watched(house, [way])
    for _ in range(3):
        pass_()
        house.now += 400
    watch.finish()
    assert [alert.kind for alert in way.sent] == [Kind.QUARANTINE]


def test_a_logbook_that_somebody_else_holds_is_waited_for_and_nothing_is_told_twice(house: House) -> None:
    broken(house)
    way = Way("a")
    watch, pass_ = watched(house, [way])
    pass_()
    watch.finish()
    with contextlib.closing(sqlite3.connect(house.state_dir / "logbook.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        house.now += 400
        began = time.monotonic()
        pass_()
        assert time.monotonic() - began < 10
    house.now += 400
    pass_()
    watch.finish()
    assert len(way.sent) == 1


def test_in_an_empty_bucket_an_alert_of_the_ledger_is_told_again_and_ends(house: House, policy: FakeHttp) -> None:
    ends = quarantine(Case(house, policy))
    _, pass_ = watched(house, [])
    for _ in range(30):
        pass_()
        house.now += HOUR
    assert told(house) == [("quarantine", "on"), ("quarantine", "again")]
    ends()
    for _ in range(3):
        pass_()
        house.now += HOUR
    assert told(house)[2:] == [("quarantine", "over")]


def test_a_pass_that_was_halted_says_nothing_of_keys(house: House) -> None:
    house.put("sealed", b"DRN1" + bytes(100))
    house.sweep().run()
    house.smtp.answer = lambda verb, argument: "535 5.7.8 no" if verb == "AUTH" else None
    for _ in range(3):
        house.now += HOUR
        house.sweep().run()
    assert [one["state"] for one in house.alerts("no-key")] == ["on"]


def test_a_lock_that_is_held_for_ever_is_told(house: House) -> None:
    house.sweep().run()
    house.put("one")
    with lock.held(house.state_dir / "drain.lock", house.events.log):
        for _ in range(5):
            house.now += HOUR
            house.sweep().run()
    assert told(house) == [("stale", "on")]
    for _ in range(3):
        house.now += HOUR
        house.sweep().run()
    assert told(house) == [("stale", "on"), ("stale", "over")]


def test_a_lock_that_is_held_while_passes_end_is_nothing(house: House) -> None:
    other = house.sweep()
    _, pass_ = watched(house, [])
    for _ in range(5):
        house.now += HOUR
        house.put("one")
        with lock.held(house.state_dir / "drain.lock", house.events.log):
            pass_()
        other.run()
    assert told(house) == []


def test_a_clock_that_is_set_back_drops_nothing_that_was_not_told(house: House) -> None:
    broken(house)
    watch, pass_ = watched(house, [Way("a", fail)])
    pass_()
    watch.finish()
    house.now -= 3 * HOUR
    way = Way("a")
    watch, pass_ = watched(house, [way])
    pass_()
    watch.finish()
    assert len(way.sent) == 1


def test_what_has_grown_and_stays_as_it_is_does_not_grow_for_ever(house: House, policy: FakeHttp) -> None:
    case = Case(house, policy)
    growing(case)
    for _ in range(6):
        case.pass_()
    case.passes = 30
    for _ in range(20):
        case.pass_()
    assert [one["state"] for one in house.alerts("backlog-growth")] == ["on", "over"]


def test_one_mail_that_waits_is_no_write_at_every_poll(house: House) -> None:
    house.put("sealed", b"DRN1" + bytes(100))
    _, pass_ = watched(house, [])
    for _ in range(30):
        pass_()
        house.now += 60
    with contextlib.closing(Logbook(house.state_dir / "logbook.db")) as book:
        assert 6 <= len(book.passes(0.0)) <= 8


def test_what_a_newer_drain_wanted_to_tell_is_no_reason_to_tell_nothing(house: House) -> None:
    broken(house)
    with contextlib.closing(Logbook(house.state_dir / "logbook.db")) as book, book.database.writing() as db:
        db.execute(
            "INSERT INTO outbox (outlet, kind, subject, alert, at, next_try_at) VALUES ('a', 'moon', '', '{}', 0, 0)"
        )
    way = Way("a")
    watch, pass_ = watched(house, [way])
    pass_()
    watch.finish()
    assert len(way.sent) == 1
    assert outbox(house) == []


def test_what_was_mended_before_it_could_be_told_is_not_told_as_if_it_were_so(house: House, policy: FakeHttp) -> None:
    ends = quarantine(Case(house, policy))
    way = Way("a", fail)
    watch, pass_ = watched(house, [way])
    pass_()
    watch.finish()
    ends()
    way.does = lambda alert, stopped: None
    for _ in range(4):
        house.now += 310
        watch, pass_ = watched(house, [way])
        pass_()
        watch.finish()
    assert [alert.state for alert in way.sent] == ["over"]


def test_what_a_stand_in_was_told_is_taken_over_when_the_logbook_works_again(house: House) -> None:
    house.state_dir.mkdir(parents=True)
    logbook = house.state_dir / "logbook.db"
    logbook.mkdir()  # nothing that could be laid aside and made anew
    (logbook / "x").touch()
    house.smtp.answer = lambda verb, argument: "550 5.7.1 no" if verb == "MAIL" else None
    house.put("one")
    house.sweep().run()
    assert _makeshift(logbook).exists() or not logbook.is_dir()
    for path in (logbook, house.state_dir / "logbook.db.unreadable"):
        if path.is_dir():
            (path / "x").unlink()
            path.rmdir()
    for _ in range(3):
        house.now += 400
        house.sweep().run()
    assert told(house) == [("quarantine", "on")]
    assert not _makeshift(logbook).exists()
    _makeshift(logbook).parent.rmdir()


def test_a_mistake_in_the_file_of_logins_does_not_stop_mail(house: House, tmp_path: Path) -> None:
    logins = tmp_path / "logins"
    logins.write_text("nonsense\n")
    logins.chmod(0o600)
    house.put("one")
    settings = {"VERIFY_IMAP_HOST": "127.0.0.1", "VERIFY_IMAP_LOGINS_FILE": str(logins)}
    assert house.sweep(**settings).run().error is None
    assert len(house.smtp.filed) == 1
    assert "No mailbox is asked." in house.events("configuration")[0]["message"]
