"""How delivered mail leaves ``pending/``: copied on its own thread, deleted on another."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from drain.demo.s3 import Fault, StoredObject
from drain.errors import LedgerUnavailable
from drain.ledger import Ledger
from drain.outcome import Outcome
from drain.show import summary_in_words
from drain.state import State
from drain.summary import Summary
from tests.support import LONG_AGO, MAIL, House, until

BOB = "bob@example.test"


def states(house: House) -> Counter[State]:
    with contextlib.closing(Ledger(house.state_dir / "ledger.db")) as ledger:
        return Counter(ledger.counts())


def lay(house: House, count: int) -> None:
    for number in range(count):
        house.put(f"{number:03}", MAIL + b"%d" % number)


def bobs(house: House, name: str) -> None:
    """Bob's copy of a mail, under the name that alice's has: as a bucket does that names objects by content alone."""
    house.smtp.mailboxes.add(BOB)
    stored = StoredObject(house.s3.objects[f"pending/{name}"].body, {"to": BOB}, last_modified=LONG_AGO.replace(hour=1))
    house.s3.objects[f"pending/{name}"] = stored


@pytest.fixture
def deletes_wait(house: House) -> Iterator[threading.Event]:
    """R2 answers no delete before the event is set."""
    go = threading.Event()

    def wait(operation: str, _key: str) -> None:
        if operation == "DeleteObject":
            assert go.wait(20)

    house.s3.fault = wait
    yield go
    go.set()


def test_the_next_mails_do_not_wait_for_deletes(house: House, deletes_wait: threading.Event) -> None:
    lay(house, 40)
    thread = threading.Thread(target=house.sweep(CONCURRENCY="16").run)
    thread.start()
    # Sixteen are being deleted, sixteen wait for that, and all but one thread more could bring the next.
    until(lambda: house.s3.requests["CopyObject"] >= 32)
    deletes_wait.set()
    thread.join(20)
    assert house.s3.requests["DeleteObject"] == 40
    assert house.keys("pending/") == []
    assert len(house.keys("processed/")) == len(house.smtp.filed) == 40
    assert states(house) == {State.SETTLED: 40}


def test_a_session_with_the_mail_server_is_not_kept_while_r2_copies(house: House) -> None:
    """Or a link of 100 ms would leave ten mails a second to each session."""
    lay(house, 10)
    house.s3.fault = lambda operation, key: (
        until(lambda: len(house.smtp.filed) == 10) if operation == "CopyObject" else None
    )
    summary = house.sweep(INJECT_CONNECTIONS="1").run()
    assert summary.outcomes == {Outcome.DELIVERED: 10}


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(status=403, code="AccessDenied"), Fault(drop=True)])
def test_deletes_that_all_fail_leave_delivered_mail_which_is_not_sent_again(house: House, fault: Fault) -> None:
    lay(house, 12)
    house.s3.fault = lambda operation, key: fault if operation == "DeleteObject" else None
    summary = house.sweep().run()
    assert Outcome.DELIVERED not in summary.outcomes
    assert summary.pending == 12
    assert states(house) == {State.DELIVERED: 12}
    house.s3.fault = None
    house.s3.requests.clear()
    assert house.sweep().run().outcomes == {Outcome.MOVED: 12}
    assert house.s3.requests["GetObject"] == 0
    assert (len(house.smtp.filed), house.keys("pending/")) == (12, [])


def test_one_delete_that_fails_is_that_mails_trouble_alone(house: House) -> None:
    lay(house, 10)
    house.s3.fault = lambda operation, key: (
        Fault(status=503, message="later") if (operation, key) == ("DeleteObject", "pending/007") else None
    )
    assert house.sweep().run().outcomes == {Outcome.DELIVERED: 9, Outcome.FAILED: 1}
    (failed,) = [event for event in house.events("mail") if event["state"] == "failed"]
    assert failed["object"] == "pending/007"
    assert "later" in failed["message"]
    assert house.keys("pending/") == ["pending/007"]


def test_names_of_all_sorts_leave(house: House) -> None:
    names = ["plain", "other", "a b", "ä", "<&>", "new\nline", "\x01", "%41", " lead"]
    for name in names:
        house.put(name, MAIL + name.encode())
    house.sweep().run()
    assert house.keys("pending/") == []
    assert states(house) == {State.SETTLED: len(names)}


@pytest.mark.parametrize("late", ["delete", "copy"])
def test_another_mail_that_took_the_name_meanwhile_is_not_deleted(house: House, late: str) -> None:
    """The delete had to wait for its turn; or the copy, made long ago, was answered late."""
    house.put("one")
    sweep = house.sweep()
    now = [0.0]

    def tick() -> float:
        now[0] += 2.0 * (late == "delete")
        return now[0]

    def overwrite(operation: str, _key: str) -> None:
        if operation == "CopyObject" and late == "copy":
            now[0] += 4.0
        if operation == "HeadObject":
            house.s3.fault = None
            bobs(house, "one")

    sweep.monotonic = tick
    house.s3.fault = overwrite
    sweep.run()
    assert house.keys("pending/") == ["pending/one"]
    house.s3.fault = None
    house.sweep().run()
    assert len(house.smtp.mailbox(BOB)) == 1


@pytest.mark.parametrize("name", ["one", "not plain"])  # the second is boto3's from the first on
def test_a_delete_whose_answer_was_lost_is_not_made_again_on_another_mail(house: House, name: str) -> None:
    key = house.put(name)
    body = house.s3.objects[key].body
    first = [True]

    def lose(operation: str, _key: str) -> Fault | None:
        if key not in house.s3.objects and operation in ("HeadObject", "DeleteObject"):
            house.smtp.mailboxes.add(BOB)
            house.s3.objects[key] = StoredObject(body, {"to": BOB}, last_modified=LONG_AGO.replace(hour=1))
        if operation == "DeleteObject" and first:
            first.clear()
            return Fault(drop=True, after=True)
        return None

    house.s3.fault = lose
    house.sweep().run()
    house.s3.fault = None
    house.sweep().run()
    house.sweep().run()
    if not house.smtp.mailbox(BOB):  # it had not come yet
        bob = StoredObject(body, {"to": BOB}, last_modified=LONG_AGO.replace(hour=1))
        assert house.s3.requests["DeleteObject"] == 1, "made again, and nothing was asked"
        house.smtp.mailboxes.add(BOB)
        house.s3.objects[key] = bob
        house.sweep().run()
    assert len(house.smtp.mailbox(BOB)) == 1


def test_a_delete_that_had_to_wait_for_a_connection_asks_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is looked at when there is a connection, and not before."""
    house.put("one")
    sweep = house.sweep()
    now = [0.0]
    sweep.monotonic = lambda: now[0]
    http = sweep.bucket._http
    ask = http.ask

    def late(method: str, *rest: Any, **more: Any) -> Any:
        if method == "DELETE":
            now[0] += 4.0
            bobs(house, "one")
        return ask(method, *rest, **more)

    monkeypatch.setattr(http, "ask", late)
    sweep.run()
    assert house.keys("pending/") == ["pending/one"]
    monkeypatch.setattr(http, "ask", ask)
    house.sweep().run()
    assert len(house.smtp.mailbox(BOB)) == 1


def test_where_no_more_threads_are_to_be_had_the_others_do_the_work(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(house, 20)
    start = threading.Thread.start
    begun: list[str] = []

    def few(thread: threading.Thread) -> None:
        if thread.name.startswith("mail-"):
            if len(begun) >= 3:
                raise RuntimeError("can't start new thread")
            begun.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    summary = house.sweep(CONCURRENCY="2").run()
    assert summary.outcomes == {Outcome.DELIVERED: 20}
    assert house.keys("pending/") == []


def test_a_stop_leaves_what_was_not_deleted_yet_and_says_so_and_the_next_pass_finishes_it(
    house: House, deletes_wait: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drain.feeding._GRACE_SECONDS", 0.5)
    lay(house, 8)
    sweep = house.sweep()
    ended: list[Summary] = []
    thread = threading.Thread(target=lambda: ended.append(sweep.run()))
    thread.start()
    until(lambda: house.s3.requests["CopyObject"] == 8)
    sweep.stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert states(house) == {State.DELIVERED: 8}
    assert ended[0].pending is None, "nobody knows"
    assert summary_in_words(ended[0]) == "Stopped."
    deletes_wait.set()
    until(lambda: not house.keys("pending/"))
    house.s3.fault = None
    house.sweep().run()
    assert len(house.smtp.filed) == 8
    assert states(house) == {State.SETTLED: 8}


def test_a_ledger_that_fails_after_a_delete_halts_the_pass_and_nothing_is_said_of_what_is_left(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(house, 20)

    def full(*_: object) -> None:
        raise LedgerUnavailable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "settled", full)
        summary = house.sweep(CONCURRENCY="2").run()
    assert isinstance(summary.error, LedgerUnavailable)
    assert summary.pending is None
    house.sweep().run()
    assert house.keys("pending/") == []
    assert len(house.smtp.filed) == 20


def test_a_terminal_that_is_gone_stops_no_mail(house: House) -> None:
    lay(house, 20)
    sweep = house.sweep()

    def broken(_: object) -> None:
        raise BrokenPipeError

    sweep.on_result = broken
    summary = sweep.run()
    assert summary.error is None
    assert summary.outcomes == {Outcome.DELIVERED: 20}


def test_a_link_that_goes_down_under_many_is_asked_after_once(house: House) -> None:
    """Each look takes its time-outs, and a long one looks like a pass that hangs."""
    lay(house, 60)
    down = threading.Event()

    def drop(operation: str, _key: str) -> Fault | None:
        if operation == "DeleteObject":
            down.set()
        return Fault(drop=True) if down.is_set() else None

    house.s3.fault = drop
    house.sweep().run()
    # One for the pass, and one look: ours, once more, and boto3's.
    assert 2 <= house.s3.requests["ListObjectsV2"] <= 1 + 5
