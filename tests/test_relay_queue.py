"""The queue: what it remembers, over crashes and full disks."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from drain.errors import ConfigError, LedgerUnavailable, Unavailable
from drain.relay.bodies import BodyLost, DiskFull
from drain.relay.queue import Entry, Message, Parcel, Queue, State, new_id
from drain.relay.rates import OverLimit
from drain.upstreams import Action, Fate

RAW = b"From: a@example.org\r\n\r\nhello\r\n"
NOW = 1_800_000_000.0
RELAYED = Fate(Action.RELAYED, "2.0.0", "smtp; 250 ok", reference="X1")
DELAYED = Fate(Action.DELAYED, "4.2.0", "smtp; 450 later")
FAILED = Fate(Action.FAILED, "5.1.1", "smtp; 550 5.1.1 nobody", bad_address=True)


def message(**more: object) -> Message:
    values = {
        "id": new_id(),
        "inbound": False,
        "user": "phone",
        "sender": "a@example.org",
        "return_path": "a@example.org",
        "message_id": "<1@example.org>",
        "size": len(RAW),
        "received_at": NOW,
    }
    return Message(**{**values, **more})  # type: ignore[arg-type]


def opened(folder: Path, per_minute: int = 0, per_day: int = 0) -> Queue:
    return Queue(folder / "relay", folder / "config" / "relay.key", per_minute=per_minute, per_day=per_day)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    made = opened(tmp_path)
    yield made
    made.close()


def put(queue: Queue, *recipients: str, **more: object) -> Message:
    made = message(**more)
    queue.accept(Parcel(made, [recipients or ("b@x.test",)], RAW), NOW)
    return made


def leased(queue: Queue, now: float = NOW, *, inbound: bool = False) -> Entry:
    entry = queue.lease(now, inbound=inbound)
    assert entry is not None
    return entry


def test_what_was_accepted_is_there_after_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path)
    mail = put(first, "b@x.test", "c@x.test")
    first.close()
    second = opened(tmp_path)
    entry = leased(second)
    assert (entry.mail, entry.recipients, entry.state) == (mail, ("b@x.test", "c@x.test"), State.SENDING)
    assert second.body(entry) == RAW
    second.close()


def test_a_body_on_the_disk_shows_nothing_of_the_mail_and_is_for_its_owner_only(tmp_path: Path, queue: Queue) -> None:
    mail = put(queue)
    path = tmp_path / "relay" / "mails" / mail.id
    assert b"hello" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "config" / "relay.key").stat().st_mode) == 0o600


def test_the_key_does_not_lie_beside_the_mails(tmp_path: Path, queue: Queue) -> None:
    put(queue)
    assert not [path for path in (tmp_path / "relay").rglob("*") if path.suffix == ".key"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "another mail's"])
def test_a_body_that_is_not_what_was_written_is_not_sent(tmp_path: Path, queue: Queue, damage: str) -> None:
    mail, other = put(queue), put(queue)
    path = tmp_path / "relay" / "mails" / mail.id
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-20] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:10])
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes((path.parent / other.id).read_bytes())
    entry = queue.find(mail.id)[0]
    with pytest.raises(BodyLost):
        queue.body(entry)


def test_a_lost_key_is_never_made_anew_over_mails_that_need_it(tmp_path: Path, queue: Queue) -> None:
    put(queue)
    (tmp_path / "config" / "relay.key").unlink()
    with pytest.raises(ConfigError, match="is gone"):
        opened(tmp_path)
    assert not (tmp_path / "config" / "relay.key").exists()


@pytest.mark.parametrize("text", ["", "rubbish", "c2hvcnQ="])
def test_a_key_file_without_a_key_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "relay.key").write_text(text)
    with pytest.raises(ConfigError, match="holds no key"):
        opened(tmp_path)


def test_an_entry_is_leased_once(queue: Queue) -> None:
    put(queue)
    leased(queue)
    assert queue.lease(NOW, inbound=False) is None


def test_what_is_not_due_is_not_leased(queue: Queue) -> None:
    put(queue)
    queue.settle(leased(queue), {"b@x.test": DELAYED}, NOW + 60, None, NOW)
    assert queue.lease(NOW + 59, inbound=False) is None
    assert queue.next_due_at(inbound=False) == NOW + 60
    assert leased(queue, NOW + 60).attempts == 1


def test_a_clock_set_back_by_a_year_keeps_no_mail_waiting_for_a_year(queue: Queue) -> None:
    put(queue)
    queue.settle(leased(queue), {"b@x.test": DELAYED}, NOW + 3600, None, NOW)
    assert queue.lease(NOW, inbound=False) is None
    assert leased(queue, NOW - 365 * 86400).state is State.SENDING


def test_a_crash_while_sending_is_sent_again_under_the_same_key_and_counted(tmp_path: Path) -> None:
    first = opened(tmp_path)
    put(first)
    before = leased(first)
    first.close()  # as after a SIGKILL: nothing is noted
    second = opened(tmp_path)
    assert second.recover(NOW) == [before.id]
    after = leased(second)
    assert (after.id, after.unknown, after.attempts) == (before.id, 1, 0)
    second.close()


def test_bodies_of_no_mail_are_deleted_at_the_start_and_no_others(tmp_path: Path, queue: Queue) -> None:
    mail, held = put(queue), put(queue)
    queue.change(queue.find(held.id)[0], State.HELD, NOW)
    folder = tmp_path / "relay" / "mails"
    (folder / new_id()).write_bytes(b"x")
    (folder / f"{new_id()}.new").write_bytes(b"x")
    queue.recover(NOW)
    assert {path.name for path in folder.iterdir()} == {mail.id, held.id}


def test_partial_acceptance_splits_an_entry(tmp_path: Path, queue: Queue) -> None:
    mail = put(queue, "ok@x.test", "later@x.test", "nobody@x.test")
    entry = leased(queue)
    queue.settle(entry, {"ok@x.test": RELAYED, "later@x.test": DELAYED, "nobody@x.test": FAILED}, NOW + 60, None, NOW)
    by_state = {one.state: one for one in queue.find(mail.id)}
    assert {state: one.recipients for state, one in by_state.items()} == {
        State.RELAYED: ("ok@x.test",),
        State.WAITING: ("later@x.test",),
        State.FAILED: ("nobody@x.test",),
    }
    assert by_state[State.RELAYED].id == entry.id
    # With the old key, an upstream that remembers keys would take it for the mail that it has.
    assert by_state[State.WAITING].id != entry.id
    assert by_state[State.RELAYED].reference == "X1"
    assert queue.body(by_state[State.WAITING]) == RAW


def test_what_is_delayed_as_a_whole_keeps_its_key(queue: Queue) -> None:
    put(queue, "b@x.test", "c@x.test")
    entry = leased(queue)
    queue.settle(entry, {"b@x.test": DELAYED, "c@x.test": DELAYED}, NOW, None, NOW)
    assert leased(queue).id == entry.id


def test_a_body_goes_when_the_last_entry_has_ended_and_not_before(tmp_path: Path, queue: Queue) -> None:
    mail = message()
    queue.accept(Parcel(mail, [("b@x.test",), ("c@x.test",)], RAW), NOW)
    path = tmp_path / "relay" / "mails" / mail.id
    first, second = leased(queue), leased(queue)
    queue.settle(first, dict.fromkeys(first.recipients, RELAYED), NOW, None, NOW)
    assert path.exists()
    queue.settle(second, dict.fromkeys(second.recipients, FAILED), NOW, None, NOW)
    assert not path.exists()


def test_the_report_is_in_the_queue_when_the_failure_is_noted(queue: Queue) -> None:
    put(queue)
    report = Parcel(message(inbound=True, sender="", return_path=""), [("a@example.org",)], b"the report")
    entry = leased(queue)
    queue.settle(entry, {"b@x.test": FAILED}, NOW, report, NOW)
    assert queue.lease(NOW, inbound=False) is None
    returned = leased(queue, inbound=True)
    assert (returned.recipients, queue.body(returned)) == (("a@example.org",), b"the report")


def test_an_address_that_does_not_exist_is_suppressed_until_a_person_says_otherwise(queue: Queue) -> None:
    put(queue, "Nobody@X.test")
    queue.settle(leased(queue), {"Nobody@X.test": FAILED}, NOW, None, NOW)
    found = queue.suppressed.find("nobody@x.TEST")
    assert found is not None
    assert (found.status, found.diagnostic, found.at) == ("5.1.1", "smtp; 550 5.1.1 nobody", NOW)
    assert [one.address for one in queue.suppressed.all()] == ["nobody@x.test"]
    assert queue.suppressed.remove("NOBODY@x.test")
    assert not queue.suppressed.remove("nobody@x.test")
    assert queue.suppressed.find("nobody@x.test") is None


def test_a_failure_that_is_not_about_the_address_suppresses_nothing(queue: Queue) -> None:
    put(queue)
    queue.settle(leased(queue), {"b@x.test": Fate(Action.FAILED, "5.7.1", "policy")}, NOW, None, NOW)
    assert queue.suppressed.all() == []


@pytest.mark.parametrize(("limits", "setting"), [((3, 0), "RATE_LIMIT_PER_MINUTE"), ((0, 3), "RATE_LIMIT_PER_DAY")])
def test_limits_count_recipients_for_each_user_and_survive_a_restart(
    tmp_path: Path, limits: tuple[int, int], setting: str
) -> None:
    first = opened(tmp_path, per_minute=limits[0], per_day=limits[1])
    put(first, "b@x.test", "c@x.test")
    first.close()
    second = opened(tmp_path, per_minute=limits[0], per_day=limits[1])
    with pytest.raises(OverLimit) as caught:
        put(second, "d@x.test", "e@x.test")
    assert (caught.value.setting, caught.value.number) == (setting, 3)
    put(second, "d@x.test")
    put(second, "e@x.test", user="laptop")
    second.close()


def test_a_mail_over_the_limit_leaves_nothing_behind(tmp_path: Path) -> None:
    queue = opened(tmp_path, per_minute=1)
    with pytest.raises(OverLimit):
        put(queue, "b@x.test", "c@x.test")
    assert list((tmp_path / "relay" / "mails").iterdir()) == []
    assert queue.entries(*State) == []
    queue.close()


def test_a_limit_is_over_when_its_time_is(tmp_path: Path) -> None:
    queue = opened(tmp_path, per_minute=1)
    put(queue)
    queue.rates.check("phone", 1, NOW + 60)
    with pytest.raises(OverLimit):
        queue.rates.check("phone", 1, NOW + 59)
    queue.close()


def test_a_person_can_hold_send_and_remove_what_waits(tmp_path: Path, queue: Queue) -> None:
    mail = put(queue)
    entry = queue.find(mail.id[:8])[0]
    assert queue.change(entry, State.HELD, NOW)
    assert queue.lease(NOW, inbound=False) is None
    assert queue.change(entry, State.WAITING, NOW)
    leased(queue)
    assert not queue.change(entry, State.REMOVED, NOW), "it is being sent"
    queue.give_back(entry, NOW + 100, "down", NOW)
    assert queue.change(entry, State.REMOVED, NOW)
    assert not (tmp_path / "relay" / "mails" / mail.id).exists()
    assert queue.counts() == {State.REMOVED: 1}


def test_what_ended_long_ago_is_forgotten_and_nothing_else(queue: Queue) -> None:
    done, waits = put(queue), put(queue)
    entry = queue.find(done.id)[0]
    assert queue.claim(entry, NOW)
    queue.settle(entry, {"b@x.test": RELAYED}, NOW, None, NOW)
    assert queue.prune(NOW + 89 * 86400) == 0
    assert queue.prune(NOW + 91 * 86400) == 1
    assert [one.mail.id for one in queue.entries(*State)] == [waits.id]


def test_a_disk_that_refuses_to_sync_takes_nothing(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left"):
            put(queue)
    assert list((tmp_path / "relay" / "mails").iterdir()) == []
    assert queue.entries(*State) == []


def test_whom_the_upstream_may_have_keeps_the_key_and_the_others_get_one_of_their_own(queue: Queue) -> None:
    mail = put(queue, "later@x.test", "perhaps@x.test")
    entry = leased(queue)
    perhaps = Fate(Action.DELAYED, "4.4.2", "lost after the dot", unknown=True)
    queue.settle(entry, {"later@x.test": DELAYED, "perhaps@x.test": perhaps}, NOW, None, NOW)
    found = {one.recipients: one for one in queue.find(mail.id)}
    assert found["perhaps@x.test",].id == entry.id
    assert found["later@x.test",].id != entry.id
    assert [found[to,].unknown for to in ("perhaps@x.test", "later@x.test")] == [1, 0]


def test_what_is_committed_is_not_done_again_for_what_comes_after(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look whether a body is needed still comes behind the commit, and can fail."""
    put(queue, "b@x.test")
    entry = leased(queue)
    report = Parcel(message(inbound=True, sender="", return_path=""), [("a@example.org",)], b"the report")
    reading, looks = queue._db.reading, []

    def fails_once_behind_the_commit() -> AbstractContextManager[sqlite3.Connection]:
        if not queue._db.in_transaction:
            looks.append(1)
            if len(looks) == 2:  # the first is the one that begins the transaction
                raise LedgerUnavailable("busy")
        return reading()

    monkeypatch.setattr(queue._db, "reading", fails_once_behind_the_commit)
    queue.settle(entry, {"b@x.test": FAILED}, NOW, report, NOW)
    assert len(looks) == 2
    returned = leased(queue, inbound=True)
    assert queue.body(returned) == b"the report"


def test_only_what_is_being_sent_can_be_held_by_the_sender(queue: Queue) -> None:
    mail = put(queue)
    entry = leased(queue)
    queue.give_back(entry, NOW, "down", NOW)
    assert queue.change(entry, State.REMOVED, NOW)
    queue.hold(entry, "late", NOW)
    assert queue.find(mail.id)[0].state is State.REMOVED


def test_mails_without_the_database_that_knows_of_them_are_not_deleted(tmp_path: Path) -> None:
    first = opened(tmp_path)
    put(first)
    first.close()
    for path in (tmp_path / "relay").glob("queue.db*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"queue\.db is gone"):
        opened(tmp_path)
    assert len(list((tmp_path / "relay" / "mails").iterdir())) == 1


def test_more_strange_mails_than_a_crash_can_leave_are_not_deleted(tmp_path: Path, queue: Queue) -> None:
    folder = tmp_path / "relay" / "mails"
    for _ in range(17):
        (folder / new_id()).write_bytes(b"x")
    with pytest.raises(ConfigError, match="knows nothing of 17 mails"):
        queue.recover(NOW)
    assert len(list(folder.iterdir())) == 17


def test_only_who_takes_mail_makes_a_key(tmp_path: Path) -> None:
    reader = Queue(tmp_path / "relay", tmp_path / "config" / "relay.key", make_key=False)
    assert reader.entries(*State) == []
    reader.close()
    assert not (tmp_path / "config" / "relay.key").exists()


@pytest.mark.parametrize("change", ["gone", "another"])
def test_nothing_is_taken_that_the_next_start_could_not_read(tmp_path: Path, queue: Queue, change: str) -> None:
    put(queue)
    key = tmp_path / "config" / "relay.key"
    if change == "gone":
        key.unlink()
    else:
        key.write_bytes(b"A" * 43 + b"=\n")
    with pytest.raises(Unavailable, match="is not the one any more"):
        put(queue)
    assert len(queue.entries(*State)) == 1


def test_room_is_left_to_send_what_is_there(tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    put(queue)
    entry = leased(queue)
    real = os.statvfs(tmp_path)
    nearly_full = os.statvfs_result((*real[:2], 10**7, *real[3:4], 15 * 2**20 // real.f_frsize, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: nearly_full)
    with pytest.raises(DiskFull):
        put(queue)
    report = Parcel(message(inbound=True, sender="", return_path=""), [("a@example.org",)], b"the report")
    queue.settle(entry, {"b@x.test": FAILED}, NOW, report, NOW)
    assert queue.body(leased(queue, inbound=True)) == b"the report"


def test_a_clock_that_was_ahead_locks_nobody_out(tmp_path: Path) -> None:
    queue = opened(tmp_path, per_minute=1)
    with pytest.raises(OverLimit):
        queue.accept(Parcel(message(), [("b@x.test", "c@x.test")], RAW), NOW)
    queue.accept(Parcel(message(), [("b@x.test",)], RAW), NOW + 20 * 3600)
    put(queue)
    queue.close()
