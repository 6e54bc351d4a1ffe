"""What goes upstream when, and what becomes of it: a queue on the disk and an upstream that says what it is told to."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drain.errors import LedgerUnavailable
from drain.relay.dispatch import Dispatch
from drain.relay.gate import Gate
from drain.relay.queue import Entry, Parcel, State
from drain.upstreams import Fate, Shipment, UpstreamDown, UpstreamRefused
from tests.support import Events
from tests.test_relay_queue import DELAYED, FAILED, NOW, RAW, RELAYED, message, opened

DAY = 86400.0


@dataclass
class Scripted:
    """An upstream: each answer is fates by address, one fate for all, or an exception; the last one stays."""

    answers: list[Mapping[str, Fate] | Fate | Exception]
    name: str = "scripted"
    most_recipients: int = 100
    most_bytes: int = 10**9
    seen: list[Shipment] = field(default_factory=list)
    rested: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def objection(self, shipment: Shipment) -> str:
        return ""

    def send(self, shipment: Shipment) -> Mapping[str, Fate]:
        self.seen.append(shipment)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict.fromkeys(shipment.recipients, answer) if isinstance(answer, Fate) else answer

    def probe(self) -> str:
        return ""

    def rest(self) -> None:
        self.rested += 1

    def stop(self) -> None:
        self.stopped.set()


class House:
    """A queue, an upstream, a clock."""

    def __init__(self, folder: Path) -> None:
        self.queue = opened(folder)
        self.now = NOW
        self.awake = 0.0
        self.events = Events()
        self.reports: list[tuple[Entry, dict[str, Fate]]] = []
        self.upstream = Scripted([RELAYED])
        self.dispatch = self.made()

    def made(self, *, inbound: bool = False, lifetime: float = 5 * DAY) -> Dispatch:
        return Dispatch(
            self.queue,
            self.upstream,
            self.events.log,
            inbound=inbound,
            workers=1,
            lifetime_seconds=lifetime,
            dsn=self.dsn,
            clock=lambda: self.now,
            gate=Gate(lambda: self.awake),
        )

    def dsn(self, entry: Entry, fates: Mapping[str, Fate], now: float) -> Parcel | None:
        self.reports.append((entry, dict(fates)))
        if not entry.mail.return_path:
            return None
        return Parcel(message(inbound=True, sender="", return_path=""), [(entry.mail.return_path,)], b"report")

    def put(self, *recipients: str, **more: object) -> str:
        made = message(received_at=self.now, **more)
        self.queue.accept(Parcel(made, [recipients or ("b@x.test",)], RAW), self.now)
        return made.id

    def turn(self) -> bool:
        """What a worker does in one round; whether there was something to do."""
        entry = self.dispatch._next()
        if entry is not None:
            self.dispatch._send(entry)
        return entry is not None

    def states(self, mail: str) -> set[State]:
        return {entry.state for entry in self.queue.find(mail)}

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.awake += seconds


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    with contextlib.closing(made.queue):
        yield made


def test_a_mail_goes_upstream_once(house: House) -> None:
    mail = house.put("b@x.test", "c@x.test")
    assert house.turn()
    assert not house.turn()
    [shipment] = house.upstream.seen
    assert (shipment.sender, shipment.recipients, shipment.raw) == ("a@example.org", ("b@x.test", "c@x.test"), RAW)
    assert house.states(mail) == {State.RELAYED}


def test_every_try_of_a_mail_has_the_same_key_and_no_two_mails_share_one(house: House) -> None:
    house.upstream.answers = [DELAYED, DELAYED, RELAYED]
    house.put()
    house.put()
    for _ in range(6):
        house.turn()
        house.later(4000)
    keys = [shipment.key for shipment in house.upstream.seen]
    assert len(keys) == 4
    assert len(set(keys)) == 2
    assert all(key.isascii() and len(key) <= 64 for key in keys)


def test_tries_are_a_minute_apart_then_twice_as_long_up_to_an_hour(house: House) -> None:
    house.upstream.answers = [DELAYED]
    house.put()
    waits = []
    for _ in range(12):
        assert house.turn()
        due = house.queue.next_due_at(inbound=False)
        assert due is not None
        waits.append(due - house.now)
        house.later(due - house.now)
    for number, wait in enumerate(waits):
        usual = min(60 * 2**number, 3600)
        assert 0.75 * usual <= wait <= 1.25 * usual
    assert len(set(waits[6:])) > 1, "without jitter, mails march in step"


def test_the_link_down_is_no_attempt_of_a_mail(house: House) -> None:
    house.upstream.answers = [UpstreamDown("no link")]
    mail = house.put()
    for _ in range(50):
        house.turn()
        house.later(400)
    [entry] = house.queue.find(mail)
    assert (entry.attempts, entry.state) == (0, State.WAITING)
    house.upstream.answers = [RELAYED]
    assert house.turn()
    assert house.states(mail) == {State.RELAYED}


def test_while_the_link_is_down_one_mail_tries_and_not_always_the_same(house: House) -> None:
    house.upstream.answers = [UpstreamDown("no link")]
    for number in range(3):
        house.put(f"b{number}@x.test")
    assert house.turn()
    assert not house.turn(), "the others wait"
    for _ in range(5):
        house.later(400)
        assert house.turn()
        assert not house.turn()
    assert len({shipment.recipients for shipment in house.upstream.seen}) == 3


def test_tries_of_a_link_that_is_down_are_five_minutes_apart_at_the_most(house: House) -> None:
    house.upstream.answers = [UpstreamDown("no link")]
    house.put()
    waits = []
    for _ in range(12):
        assert house.turn()
        waits.append(house.dispatch.gate.wait_seconds)
        house.later(max(waits[-1], 1.0))
    assert 10 < waits[0] < 20
    assert max(waits) <= 375


def test_retry_after_is_obeyed(house: House) -> None:
    house.upstream.answers = [UpstreamDown("too many requests", retry_after=1000), RELAYED]
    house.put()
    house.turn()
    house.later(999)
    assert not house.turn()
    house.later(2)
    assert house.turn()


def test_when_the_link_is_back_everything_goes_at_once(house: House) -> None:
    house.upstream.answers = [UpstreamDown("no link"), RELAYED]
    mails = [house.put() for _ in range(4)]
    house.turn()
    house.later(400)
    while house.turn():
        pass
    assert [house.states(mail) for mail in mails] == [{State.RELAYED}] * 4
    assert [event["level"] for event in house.events("relay") if "message" in event] == ["warning", "notice"]


def test_a_refused_login_alerts_once_and_blames_no_mail(house: House) -> None:
    house.upstream.answers = [UpstreamRefused("wrong key")]
    mail = house.put()
    for _ in range(5):
        house.turn()
        house.later(2000)
    assert [event["level"] for event in house.events("relay")] == ["alert"]
    assert house.queue.find(mail)[0].attempts == 0


def test_a_refusal_comes_back_as_a_report_in_the_same_commit(house: House) -> None:
    house.upstream.answers = [FAILED]
    mail = house.put()
    house.turn()
    assert house.states(mail) == {State.FAILED}
    [(entry, fates)] = house.reports
    assert (entry.mail.id, fates) == (mail, {"b@x.test": FAILED})
    report = house.queue.lease(house.now, inbound=True)
    assert report is not None
    assert (report.recipients, report.mail.sender, house.queue.body(report)) == (("a@example.org",), "", b"report")


def test_only_those_who_failed_are_in_the_report(house: House) -> None:
    house.upstream.answers = [{"ok@x.test": RELAYED, "no@x.test": FAILED, "later@x.test": DELAYED}]
    house.put("ok@x.test", "no@x.test", "later@x.test")
    house.turn()
    assert [set(fates) for _, fates in house.reports] == [{"no@x.test"}]


def test_nothing_is_returned_for_the_null_sender(house: House) -> None:
    house.upstream.answers = [FAILED]
    house.put(sender="", return_path="")
    house.turn()
    assert house.queue.lease(house.now, inbound=True) is None


def test_a_recipient_whom_the_upstream_says_nothing_of_is_tried_again(house: House) -> None:
    house.upstream.answers = [{"ok@x.test": RELAYED}, RELAYED]
    house.put("ok@x.test", "forgotten@x.test")
    house.turn()
    house.later(100)
    house.turn()
    assert [shipment.recipients for shipment in house.upstream.seen] == [
        ("ok@x.test", "forgotten@x.test"),
        ("forgotten@x.test",),
    ]


def test_after_its_lifetime_a_mail_that_was_tried_goes_back(house: House) -> None:
    house.upstream.answers = [DELAYED]
    mail = house.put()
    began = house.now
    while house.states(mail) == {State.WAITING}:
        house.turn()
        house.later(1000)
    assert 5 * DAY < house.now - began < 5 * DAY + 10000
    [(_, fates)] = house.reports
    assert fates == {"b@x.test": DELAYED}
    assert house.states(mail) == {State.FAILED}


def test_a_week_in_a_drawer_returns_no_mail_before_it_was_tried(house: House) -> None:
    house.upstream.answers = [UpstreamDown("no link yet"), DELAYED, RELAYED]
    mail = house.put()
    house.now += 7 * DAY  # asleep: only the wall clock went on
    for _ in range(4):
        house.turn()
        house.later(400)
    assert house.states(mail) == {State.RELAYED}
    assert house.reports == []


def test_a_link_that_is_down_for_longer_than_the_lifetime_returns_the_mail_too(house: House) -> None:
    house.upstream.answers = [UpstreamDown("no link")]
    old = house.put("old@x.test")
    house.later(4 * DAY)
    new = house.put("new@x.test")
    while house.now < NOW + 5.1 * DAY:
        house.turn()
        house.later(300)
    assert house.states(old) == {State.FAILED}
    assert house.states(new) == {State.WAITING}
    [(_, fates)] = house.reports
    assert fates["old@x.test"].diagnostic == "no link"


def test_a_bug_in_an_upstream_holds_up_no_other_mail(house: House) -> None:
    house.upstream.answers = [RuntimeError("oops"), RELAYED]
    bad, good = house.put("bad@x.test"), house.put("good@x.test")
    assert house.turn()
    assert house.turn()
    assert {frozenset(house.states(bad)), frozenset(house.states(good))} == {
        frozenset({State.WAITING}),
        frozenset({State.RELAYED}),
    }
    assert [event["message"] for event in house.events("bug")] == ["A bug in drain: RuntimeError: oops"]


def test_a_bug_anywhere_else_leaves_the_mail_in_a_persons_hands(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(*arguments: object) -> None:
        raise RuntimeError("oops")

    house.upstream.answers = [FAILED]
    house.dispatch.dsn = buggy
    mail = house.put()
    house.turn()
    assert house.states(mail) == {State.HELD}
    assert [event["level"] for event in house.events("relay")] == ["alert"]
    house.dispatch.dsn = house.dsn
    assert house.queue.change(house.queue.find(mail)[0], State.WAITING, house.now)
    house.turn()
    assert house.states(mail) == {State.FAILED}


def test_a_mail_that_shuts_the_gate_while_others_pass_is_to_blame_itself(house: House) -> None:
    """As where a provider says 403 to one mail for what is in it."""
    bad = house.put("bad@x.test")
    entry = house.queue.find(bad)[0]

    class Forbids(Scripted):
        def send(self, shipment: Shipment) -> Mapping[str, Fate]:
            if shipment.recipients == ("bad@x.test",):
                raise UpstreamRefused("403")
            return super().send(shipment)

    house.upstream = Forbids([RELAYED])
    house.dispatch = house.made(lifetime=1 * DAY)
    for hour in range(40):
        house.put(f"good{hour}@x.test")
        for _ in range(8):
            house.turn()
            house.later(450)
    assert house.states(bad) == {State.FAILED}
    [(returned, fates)] = house.reports
    assert (returned.id, fates["bad@x.test"].diagnostic) == (entry.id, "403")
    assert len([event for event in house.events("relay") if event["level"] == "alert"]) <= 5
    assert len(house.queue.entries(State.RELAYED)) == 40


def test_while_one_mail_tries_the_others_do_not_turn_in_circles(house: House) -> None:
    house.upstream.answers = [UpstreamDown("no link")]
    house.put()
    house.turn()
    house.later(400)
    assert house.dispatch.gate.enter()
    assert house.dispatch.gate.wait_seconds > 1
    assert not house.dispatch.gate.enter(), "one tries"
    house.dispatch.gate.leave()
    assert house.dispatch.gate.enter()


@pytest.mark.parametrize("taken_at", [0.0, NOW + 30 * DAY])
def test_a_mail_taken_by_a_wrong_clock_is_as_old_as_when_that_is_found_out(house: House, taken_at: float) -> None:
    house.upstream.answers = [UpstreamDown("no link"), DELAYED]
    house.now = taken_at
    mail = house.put()
    house.now = NOW
    house.turn()
    house.later(400)
    while house.states(mail) == {State.WAITING}:
        house.turn()
        house.later(1000)
    assert 5 * DAY < house.now - NOW < 5 * DAY + 10000


def test_a_body_that_cannot_be_read_is_held_and_told(house: House, tmp_path: Path) -> None:
    mail = house.put()
    (tmp_path / "relay" / "mails" / mail).write_bytes(b"x")
    house.turn()
    assert house.states(mail) == {State.HELD}
    assert [event["level"] for event in house.events("relay")] == ["alert"]


def test_a_report_that_cannot_be_filed_is_held_and_never_returned(house: House) -> None:
    house.upstream.answers = [FAILED]
    house.dispatch = house.made(inbound=True)
    report = house.put("a@example.org", inbound=True, sender="", return_path="")
    house.turn()
    assert house.states(report) == {State.HELD}
    assert house.reports == []
    assert house.queue.suppressed.all() == []


def test_a_report_waits_for_the_mail_server_for_ever(house: House) -> None:
    house.upstream.answers = [DELAYED]
    house.dispatch = house.made(inbound=True)
    report = house.put("a@example.org", inbound=True, sender="", return_path="")
    while house.now < NOW + 30 * DAY:
        house.turn()
        house.later(4500)
    assert house.states(report) == {State.WAITING}


def test_what_is_known_is_kept_until_the_disk_takes_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    mail = house.put()
    settle, tries = house.queue.settle, []

    def full_twice(*arguments: object) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise LedgerUnavailable("The disk is full.")
        settle(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(house.queue, "settle", full_twice)
    monkeypatch.setattr("drain.relay.dispatch._LOOK_SECONDS", 0.01)
    house.turn()
    assert len(house.upstream.seen) == 1, "sent again it would come twice"
    assert house.states(mail) == {State.RELAYED}


def test_threads_send_what_comes_and_end_when_told_to(house: House) -> None:
    house.dispatch.workers = 3
    house.dispatch.start()
    mails = [house.put() for _ in range(5)]
    house.dispatch.wake()
    _until(lambda: all(house.states(mail) == {State.RELAYED} for mail in mails))
    began = time.monotonic()
    house.dispatch.stop(5)
    assert time.monotonic() - began < 3
    assert not [thread for thread in house.dispatch._threads if thread.is_alive()]
    assert house.upstream.rested


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)
