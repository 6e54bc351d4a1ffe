import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drain.bucket import ListedObject
from drain.errors import ConfigError, LedgerUnavailable
from drain.ledger import SCHEMA_VERSION, Ledger, version_of
from drain.mail import Mail
from drain.state import State
from tests.support import LONG_AGO

MAIL = Mail(b"raw", "alice@example.test", "a@x.test")


def version(name: str = "one", etag: str = '"e"') -> ListedObject:
    return ListedObject(f"pending/{name}", etag, LONG_AGO, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


_OPEN: list[Ledger] = []


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    _OPEN.append(Ledger(path))
    yield _OPEN[0]
    while _OPEN:
        _OPEN.pop().close()


def again(path: Path, ledger: Ledger) -> Ledger:
    ledger.close()
    _OPEN.append(Ledger(path))
    return _OPEN[-1]


def test_a_mail_goes_through_its_states_and_each_is_on_disk(path: Path, ledger: Ledger) -> None:
    one = version()
    assert ledger.find(MAIL.identity) is None
    row = ledger.injecting(one, MAIL, "alice@example.test", 1.0)
    assert (row.state, row.mailbox, row.sender) == (State.INJECTING, "alice@example.test", "a@x.test")
    ledger = again(path, ledger)
    ledger.delivered(MAIL.identity, "250 ok", 2.0)
    found = ledger.find_by_object(one)
    assert found is not None
    assert (found.state, found.words) == (State.DELIVERED, "250 ok")
    ledger.settled(one, MAIL.identity, 3.0)
    ledger = again(path, ledger)
    row_at_end = ledger.find(MAIL.identity)
    assert row_at_end is not None
    assert (row_at_end.state, row_at_end.first_seen_at, row_at_end.updated_at) == (State.SETTLED, 1.0, 3.0)
    assert ledger.find_by_object(one) is None


def test_only_the_very_version_of_an_object_is_recognised(ledger: Ledger) -> None:
    ledger.injecting(version(), MAIL, "m", 1.0)
    assert ledger.find_by_object(version()) is not None
    assert ledger.find_by_object(version(etag='"other"')) is None
    assert ledger.find_by_object(version("two")) is None
    later = ListedObject("pending/one", '"e"', LONG_AGO.replace(microsecond=1000), 3)
    assert ledger.find_by_object(later) is None


def test_a_try_whose_end_is_unknown_is_counted_when_another_follows(ledger: Ledger) -> None:
    ledger.injecting(version(), MAIL, "m", 1.0)
    ledger.unknown(MAIL.identity, "line dropped", 400.0, 2.0)
    row = ledger.find(MAIL.identity)
    assert row is not None
    assert (row.state, row.next_attempt_at, row.reinjections) == (State.INJECTING, 400.0, 0)
    assert ledger.trying_again(MAIL.identity, 500.0).reinjections == 1
    assert ledger.injecting(version(), MAIL, "m", 501.0).reinjections == 1


def test_a_known_end_is_not_counted(ledger: Ledger) -> None:
    ledger.injecting(version(), MAIL, "m", 1.0)
    ledger.deferred(version(), MAIL, "mail-refused", "452", 60.0, 2.0)
    row = ledger.injecting(version(), MAIL, "m", 61.0)
    assert (row.reinjections, row.attempts, row.next_attempt_at) == (0, 1, None)


def test_pruning_forgets_the_settled_and_nothing_else(ledger: Ledger) -> None:
    for number, finish in enumerate([ledger.settled, ledger.quarantined, None]):
        mail = Mail(b"%d" % number, "a@x.test", "")
        ledger.injecting(version(str(number)), mail, "m", 1.0)
        if finish is not None:
            finish(version(str(number)), mail.identity, 2.0)
    assert ledger.prune(2.0) == 0
    assert ledger.prune(3.0) == 1
    assert ledger.counts() == {State.QUARANTINED: 1, State.INJECTING: 1}


def test_pruning_by_itself_happens_once_a_day(ledger: Ledger) -> None:
    def settle(name: str) -> None:
        mail = Mail(name.encode(), "a@x.test", "")
        ledger.injecting(version(name), mail, "m", 1.0)
        ledger.settled(version(name), mail.identity, 1.0)

    settle("1")
    assert ledger.prune_daily(10.0, 100.0) == 1
    settle("2")
    assert ledger.prune_daily(10.0, 200.0) == 0
    assert ledger.prune_daily(10.0, 100.0 + 86400) == 1


def test_unfinished_objects_are_known_until_they_are_finished_or_reported(ledger: Ledger) -> None:
    ledger.deferred(version(), MAIL, "r", "w", 60.0, 1.0)
    assert ledger.unfinished() == {version_of(version()): MAIL.identity}
    ledger.missing(MAIL.identity, 2.0)
    assert ledger.unfinished() == {}
    ledger.link(version(), MAIL)
    assert ledger.unfinished() == {version_of(version()): MAIL.identity}


def test_calls_from_many_threads_lose_nothing(ledger: Ledger) -> None:
    def work(thread: int) -> None:
        for number in range(20):
            mail = Mail(b"%d.%d" % (thread, number), "a@x.test", "")
            one = version(f"{thread}.{number}")
            ledger.injecting(one, mail, "m", 1.0)
            ledger.delivered(mail.identity, "250", 2.0)
            ledger.settled(one, mail.identity, 3.0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ledger.counts() == {State.SETTLED: 160}


def test_commits_are_durable(ledger: Ledger, path: Path) -> None:
    """WAL with synchronous=FULL (2): what has returned is on the disk."""
    assert ledger._db._sqlite.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._db._sqlite.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_nothing_half(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_link", broken)
        with pytest.raises(LedgerUnavailable, match="full"):
            ledger.injecting(version(), MAIL, "m", 1.0)
    assert ledger.find(MAIL.identity) is None


def test_a_damaged_ledger_is_said_so(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(ConfigError, match="rebuild"):
        Ledger(path)


def test_a_ledger_of_a_newer_drain_is_not_touched(path: Path, ledger: Ledger) -> None:
    ledger._db._sqlite.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(ConfigError, match="newer drain"):
        again(path, ledger)


def test_a_folder_that_cannot_be_made_is_said_so() -> None:
    with pytest.raises(ConfigError, match="STATE_DIR"):
        Ledger(Path("/proc/nowhere/ledger.db"))


def test_an_odd_recipient_can_be_stored(ledger: Ledger) -> None:
    odd = Mail(b"x", "a\udcff\x00@x.test", "\udc80")
    ledger.injecting(version(), odd, "m", 1.0)
    assert ledger.find(odd.identity) is not None
