"""How delivered mail leaves ``pending/``: copied on its own thread, deleted with others."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from drain.demo.s3 import Fault, StoredObject
from drain.ledger import Ledger
from drain.outcome import Outcome
from drain.state import State
from tests.support import LONG_AGO, MAIL, House, until

DELETES = ("DeleteObject", "DeleteObjects")


def states(house: House) -> Counter[State]:
    with contextlib.closing(Ledger(house.state_dir / "ledger.db")) as ledger:
        return Counter(ledger.counts())


def lay(house: House, count: int) -> None:
    for number in range(count):
        house.put(f"{number:03}", MAIL + b"%d" % number)


@pytest.fixture
def first_delete_waits(house: House) -> Iterator[threading.Event]:
    """The first delete call is answered when the event is set: what is copied meanwhile goes with the next."""
    go, seen = threading.Event(), threading.Event()

    def wait(operation: str, _key: str) -> None:
        if operation in DELETES and not seen.is_set():
            seen.set()
            assert go.wait(20)

    house.s3.fault = wait
    yield go
    go.set()


def test_what_is_copied_during_a_slow_delete_goes_with_the_next_in_one_call(
    house: House, first_delete_waits: threading.Event
) -> None:
    lay(house, 50)
    thread = threading.Thread(target=house.sweep().run)
    thread.start()
    until(lambda: house.s3.requests["CopyObject"] == 50)
    first_delete_waits.set()
    thread.join(20)
    assert house.s3.requests["DeleteObject"] + house.s3.requests["DeleteObjects"] <= 3
    assert house.keys("pending/") == []
    assert len(house.keys("processed/")) == len(house.smtp.filed) == 50
    assert states(house) == {State.SETTLED: 50}


def test_a_session_with_the_mail_server_is_not_kept_while_r2_copies(house: House) -> None:
    """Or a link of 100 ms would leave ten mails a second to each session."""
    lay(house, 10)
    house.s3.fault = lambda operation, key: (
        until(lambda: len(house.smtp.filed) == 10) if operation == "CopyObject" else None
    )
    summary = house.sweep(INJECT_CONNECTIONS="1").run()
    assert summary.outcomes == {Outcome.DELIVERED: 10}


def test_a_delete_that_fails_for_one_of_many_leaves_that_one_to_the_next_pass(
    house: House, first_delete_waits: threading.Event
) -> None:
    lay(house, 10)
    waits = house.s3.fault
    assert waits is not None

    def answer(operation: str, key: str) -> Fault | None:
        waits(operation, key)
        if operation != "DeleteObjects":
            return None
        deleted = [f"pending/{number:03}" for number in range(10) if number != 7]
        for one in deleted:
            house.s3.objects.discard(one)
        said = "".join(f"<Deleted><Key>{one}</Key></Deleted>" for one in deleted)
        failed = "<Error><Key>pending/007</Key><Code>InternalError</Code><Message>later</Message></Error>"
        return Fault(body=f"<DeleteResult>{said}{failed}</DeleteResult>".encode())

    house.s3.fault = answer
    thread = threading.Thread(target=lambda: summaries.append(house.sweep().run()))
    summaries: list[object] = []
    thread.start()
    until(lambda: house.s3.requests["CopyObject"] == 10)
    first_delete_waits.set()
    thread.join(20)
    (failed,) = [event for event in house.events("mail") if event["state"] == "failed"]
    assert failed["object"] == "pending/007"
    assert "InternalError later" in failed["message"]
    assert house.keys("pending/") == ["pending/007"]
    assert states(house) == {State.SETTLED: 9, State.DELIVERED: 1}
    house.s3.fault = None
    house.s3.requests.clear()
    assert house.sweep().run().outcomes == {Outcome.MOVED: 1}
    assert house.s3.requests["GetObject"] == 0
    assert len(house.smtp.filed) == 10


def test_what_a_delete_does_not_mention_is_not_deleted(house: House, first_delete_waits: threading.Event) -> None:
    """Something that is not S3 can answer with XML of its own."""
    lay(house, 5)
    waits = house.s3.fault
    assert waits is not None

    def answer(operation: str, key: str) -> Fault | None:
        waits(operation, key)
        return Fault(body=b"<html></html>") if operation == "DeleteObjects" else None

    house.s3.fault = answer
    thread = threading.Thread(target=house.sweep().run)
    thread.start()
    until(lambda: house.s3.requests["CopyObject"] == 5)
    first_delete_waits.set()
    thread.join(20)
    left = len(house.keys("pending/"))
    assert left >= 3
    assert states(house) == {State.SETTLED: 5 - left, State.DELIVERED: left}


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(status=403, code="AccessDenied"), Fault(drop=True)])
def test_deletes_that_all_fail_leave_delivered_mail_which_is_not_sent_again(house: House, fault: Fault) -> None:
    lay(house, 12)
    house.s3.fault = lambda operation, key: fault if operation in DELETES else None
    summary = house.sweep().run()
    assert Outcome.DELIVERED not in summary.outcomes
    assert summary.pending == 12
    assert states(house) == {State.DELIVERED: 12}
    house.s3.fault = None
    assert house.sweep().run().outcomes == {Outcome.MOVED: 12}
    assert (len(house.smtp.filed), house.keys("pending/")) == (12, [])


def test_names_that_xml_cannot_hold_are_deleted_one_by_one(house: House, first_delete_waits: threading.Event) -> None:
    names = ["plain", "other", "a b", "ä", "<&>", "new\nline", "\x01", "%41", " lead"]
    for name in names:
        house.put(name, MAIL + name.encode())
    thread = threading.Thread(target=house.sweep().run)
    thread.start()
    until(lambda: house.s3.requests["CopyObject"] == len(names))
    first_delete_waits.set()
    thread.join(20)
    assert house.keys("pending/") == []
    assert states(house) == {State.SETTLED: len(names)}


def test_another_mail_that_took_the_name_while_the_delete_waited_is_not_deleted(
    house: House, first_delete_waits: threading.Event
) -> None:
    """A bucket filled by something that names objects by content alone: bob's copy, under the key of alice's."""
    for name in ("first", "second"):
        house.put(name, MAIL + name.encode())
    sweep = house.sweep(CONCURRENCY="1")
    # Each look at this clock is two seconds after the one before.
    ticks = iter(range(0, 1000, 2))
    sweep.monotonic = lambda: float(next(ticks))
    thread = threading.Thread(target=sweep.run)
    thread.start()
    until(lambda: house.s3.requests["CopyObject"] == 2)
    bobs = StoredObject(MAIL + b"second", {"to": "bob@example.test"}, last_modified=LONG_AGO.replace(hour=1))
    house.smtp.mailboxes.add("bob@example.test")
    house.s3.objects["pending/second"] = bobs
    first_delete_waits.set()
    thread.join(20)
    assert house.keys("pending/") == ["pending/second"]
    house.sweep().run()
    assert len(house.smtp.mailbox("bob@example.test")) == 1


def test_a_stop_leaves_what_was_not_deleted_yet_and_the_next_pass_finishes_it(
    house: House, first_delete_waits: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drain.feeding._GRACE_SECONDS", 0.5)
    lay(house, 8)
    sweep = house.sweep()
    thread = threading.Thread(target=sweep.run)
    thread.start()
    until(lambda: house.s3.requests["CopyObject"] == 8)
    sweep.stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert states(house) == {State.DELIVERED: 8}
    first_delete_waits.set()
    until(lambda: states(house)[State.DELIVERED] < 8 or house.s3.requests["DeleteObjects"])
    house.s3.fault = None
    until(lambda: threading.active_count() < 100)
    house.sweep().run()
    assert house.keys("pending/") == []
    assert len(house.smtp.filed) == 8
