import contextlib
import dataclasses
import datetime
import sqlite3
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from drain.errors import ConfigError, LedgerUnavailable
from drain.filters.verdict import Action, Verdict
from drain.history import hashed
from drain.ledger import Ledger, version_of
from drain.listing import ListedObject
from drain.mail import Mail
from drain.notes import Purse
from drain.state import State
from drain.tables import LEDGER
from drain.verdicts import Kept
from tests.support import LONG_AGO

MAIL = Mail(b"raw", "alice@example.test", "a@x.test")
TABLES = ("mail", "object", "event", "verdict")


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


def settled(ledger: Ledger, number: int) -> None:
    """That many mails, settled long ago."""
    for name in range(number):
        mail = Mail(b"%d" % name, "a@x.test", "")
        ledger.injecting(version(str(name)), mail, "m", 1.0)
        ledger.settled(version(str(name)), mail.identity, 1.0)


def test_much_is_pruned_in_pieces_so_that_nobody_who_writes_waits_for_all_of_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drain.ledger._PIECE_MAILS", 3)
    settled(ledger, 8)
    deletes: list[int] = [0]

    def traced(statement: str) -> None:
        deletes[-1] += statement.startswith("DELETE FROM mail ")
        if statement == "COMMIT":
            deletes.append(0)

    ledger._db._sqlite.set_trace_callback(traced)
    assert ledger.prune(2.0) == 8
    ledger._db._sqlite.set_trace_callback(None)
    assert deletes == [3, 3, 2, 0]
    assert ledger.counts() == {}


def test_a_pass_prunes_so_much_and_the_next_ones_go_on_until_all_is_done(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drain.ledger._PIECE_MAILS", 2)
    monkeypatch.setattr("drain.ledger._DAILY_PIECES", 3)
    settled(ledger, 8)
    assert [ledger.prune_daily(10.0, now) for now in (100.0, 101.0, 102.0)] == [6, 2, 0]
    assert not ledger.notes.is_due("pruned_at", 103.0)


def test_who_is_to_stop_prunes_no_more_and_the_next_pass_goes_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drain.ledger._PIECE_MAILS", 2)
    settled(ledger, 5)
    answers = iter([False, True])
    assert ledger.prune_daily(10.0, 100.0, lambda: next(answers)) == 2
    assert ledger.prune_daily(10.0, 101.0) == 3


def test_nothing_of_a_pruned_mail_is_left(ledger: Ledger) -> None:
    settled(ledger, 1)
    mail = Mail(b"0", "a@x.test", "")
    ledger.link(version("another name"), mail)
    ledger.verdicts.keep(mail.identity, [Kept("ai", "s", Verdict(1.0))], 1.0)
    assert ledger.prune(2.0) == 1
    with ledger._db.reading() as db:
        left = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone() for table in TABLES}
    assert left == dict.fromkeys(TABLES, (0,))


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
    ledger._db._sqlite.execute(f"PRAGMA user_version={LEDGER.version + 1}")
    with pytest.raises(ConfigError, match="newer drain"):
        again(path, ledger)


def test_a_folder_that_cannot_be_made_is_said_so() -> None:
    with pytest.raises(ConfigError, match="STATE_DIR"):
        Ledger(Path("/proc/nowhere/ledger.db"))


def test_an_odd_recipient_can_be_stored(ledger: Ledger) -> None:
    odd = Mail(b"x", "a\udcff\x00@x.test", "\udc80")
    ledger.injecting(version(), odd, "m", 1.0)
    assert ledger.find(odd.identity) is not None


# -- versions --


def written_by_version(number: int, path: Path) -> None:
    """A ledger as that version of the schema left it."""
    path.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript((Path(__file__).parent / "ledgers" / f"{number}.sql").read_text(encoding="utf-8"))


def test_a_ledger_of_version_1_is_brought_up_to_date_with_all_that_is_in_it(path: Path) -> None:
    written_by_version(1, path)
    with contextlib.closing(sqlite3.connect(path)) as old:
        before = old.execute("SELECT * FROM mail ORDER BY identity").fetchall()
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
    with contextlib.closing(Ledger(path)) as ledger:
        states = {name: ledger.find(Mail(name.encode(), MAIL.recipient, MAIL.sender).identity) for name in State}
        assert {name: row.state for name, row in states.items() if row} == {
            name: State(name) for name in State if name not in ("discarded", "discarding")
        }
        assert all(row.released == 0 for row in states.values() if row)
        assert len(ledger.unfinished()) == 5
        assert ledger.notes.is_key_proven("0123456789abcdef", 999.0)
        assert not ledger.notes.is_due("pruned_at", 1009.0)
        assert ledger.verdicts.of("any") == {}
    with contextlib.closing(sqlite3.connect(path)) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (LEDGER.version,)
        assert [row[: len(before[0])] for row in new.execute("SELECT * FROM mail ORDER BY identity")] == before


def test_a_ledger_of_version_2_is_brought_up_to_date_with_all_that_is_in_it(path: Path) -> None:
    written_by_version(2, path)
    with contextlib.closing(sqlite3.connect(path)) as old:
        before = old.execute("SELECT * FROM mail ORDER BY identity").fetchall()
    with contextlib.closing(Ledger(path)) as ledger:
        rows = {name: ledger.find(Mail(name.encode(), MAIL.recipient, MAIL.sender).identity) for name in State}
        assert {name: row.state for name, row in rows.items() if row} == {name: State(name) for name in State}
        identity = rows[State.QUARANTINED].identity  # type: ignore[union-attr]
        assert ledger.verdicts.of(identity)["clamav"].verdict.code == "virus"
        assert ledger.history.of(identity) == []
        troubles = ledger.troubles(2010.0)
        assert (troubles.quarantined, troubles.missing, troubles.unanswered) == ({}, 1, 0)
        # And it goes on from there.
        mail = Mail(b"deferred", MAIL.recipient, MAIL.sender)
        ledger.injecting(version("deferred"), mail, "alice@example.test", 3001.0)
        assert [event.what for event in ledger.history.of(mail.identity)] == ["injecting"]
    with contextlib.closing(sqlite3.connect(path)) as new:
        assert new.execute("PRAGMA user_version").fetchone() == (LEDGER.version,)
        after = [row[: len(before[0])] for row in new.execute("SELECT * FROM mail ORDER BY identity")]
        changed = {old[0] for old, row in zip(before, after, strict=True) if old != row}
        assert changed == {mail.identity}


def test_a_ledger_of_version_3_is_brought_up_to_date_with_all_that_is_in_it(path: Path) -> None:
    written_by_version(3, path)

    def read() -> dict[str, list[tuple[object, ...]]]:
        with contextlib.closing(sqlite3.connect(path)) as db:
            return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in (*TABLES, "note")}

    before = read()
    assert all(before.values())
    with contextlib.closing(Ledger(path)) as ledger:
        assert {row.state for row in map(ledger.find, ledger.history.identities()) if row} == set(State)
    assert read() == before


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_ledger_made_anew_is_the_same_as_one_brought_up_to_date(path: Path, tmp_path: Path, number: int) -> None:
    written_by_version(number, path)
    made = []
    for place in (path, tmp_path / "fresh.db"):
        Ledger(place).close()
        with contextlib.closing(sqlite3.connect(place)) as db:
            tables = [
                name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            ]
            columns = {table: db.execute(f"PRAGMA table_info({table})").fetchall() for table in tables}
            indexes = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' ORDER BY name").fetchall()
            made.append((columns, indexes))
    assert made[0] == made[1]


def test_a_step_that_fails_leaves_the_old_ledger_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from drain import ledger

    written_by_version(1, path)
    with monkeypatch.context() as patched:
        broken = "CREATE TABLE half (x);\nCREATE TABLE mail (x);\n"
        patched.setattr(ledger, "LEDGER", dataclasses.replace(LEDGER, steps=(*LEDGER.steps, broken)))
        with pytest.raises(LedgerUnavailable):
            Ledger(path)
    with contextlib.closing(sqlite3.connect(path)) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
        assert not old.execute("SELECT 1 FROM sqlite_schema WHERE name IN ('half', 'verdict')").fetchall()
    Ledger(path).close()


def test_two_that_open_an_old_ledger_at_once_bring_it_up_to_date_once(path: Path) -> None:
    written_by_version(1, path)
    errors: list[Exception] = []

    def opened() -> None:
        try:
            Ledger(path).close()
        except Exception as error:  # noqa: BLE001 (any is a failure of this test)
            errors.append(error)

    threads = [threading.Thread(target=opened) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []


# -- set aside, discarded, released --


def test_a_discard_is_unfinished_until_it_is_done(ledger: Ledger) -> None:
    one = version()
    ledger.discarding(one, MAIL, "silently-denied", "The rule.", 1.0)
    row = ledger.find(MAIL.identity)
    assert row is not None
    assert (row.state, row.reason, row.words) == (State.DISCARDING, "silently-denied", "The rule.")
    assert list(ledger.unfinished().values()) == [MAIL.identity]
    ledger.found_moved(MAIL.identity, 2.0)
    row = ledger.find(MAIL.identity)
    assert row is not None
    assert row.state is State.DISCARDED
    assert ledger.unfinished() == {}


def test_a_release_makes_a_quarantined_mail_due_at_once(ledger: Ledger) -> None:
    ledger.setting_aside(version(), MAIL, "denied", "The rule.", 1.0)
    ledger.quarantined(version(), MAIL.identity, 2.0)
    there = ListedObject(f"quarantine/{MAIL.identity}-one", '"e"', LONG_AGO, 3)
    ledger.release(there, MAIL, MAIL.identity, 3.0)
    row = ledger.find_by_object(there)
    assert row is not None
    assert (row.state, row.released, row.attempts, row.next_attempt_at) == (State.DEFERRED, 1, 0, None)
    assert row.first_seen_at == 1.0


def test_a_release_under_another_identity_leaves_nothing_of_the_first(ledger: Ledger) -> None:
    for name in ("one", "two"):
        ledger.setting_aside(version(name), MAIL, "no-key", "No key.", 1.0)
    ledger.quarantined(version("two"), MAIL.identity, 2.0)
    opened = Mail(b"opened", MAIL.recipient, MAIL.sender)
    ledger.release(version("two"), opened, MAIL.identity, 3.0)
    assert ledger.history.objects(MAIL.identity) == []
    assert [event.what for event in ledger.history.of(opened.identity)][-1] == "released"


def test_waking_makes_due_what_is_deferred_for_that_reason_and_nothing_else(ledger: Ledger) -> None:
    mails = {name: Mail(name.encode(), "a@x.test", "") for name in ("one", "two", "other", "settled")}
    for name, mail in mails.items():
        ledger.deferred(version(name), mail, "filter-ai" if name != "other" else "busy", "w", 100.0, 1.0)
    ledger.found_moved(mails["settled"].identity, 2.0)

    def due() -> set[str]:
        rows = {name: ledger.find(mail.identity) for name, mail in mails.items()}
        return {name for name, row in rows.items() if row and row.state is State.DEFERRED and not row.next_attempt_at}

    assert ledger.wake("filter-ai", mails["two"].identity) == 1
    assert due() == {"two"}
    assert ledger.wake("filter-ai", mails["other"].identity) == 0
    assert ledger.wake("filter-ai") == 2
    assert due() == {"one", "two"}


def test_what_was_delivered_stays_so_when_another_copy_of_it_is_released(ledger: Ledger) -> None:
    ledger.injecting(version(), MAIL, "alice@example.test", 1.0)
    ledger.delivered(MAIL.identity, "250", 2.0)
    ledger.settled(version(), MAIL.identity, 3.0)
    aside = Mail(MAIL.raw, MAIL.recipient, MAIL.sender, aside="not-sealed")
    ledger.setting_aside(version("two"), aside, "not-sealed", "words", 4.0)
    ledger.release(version("two"), MAIL, aside.identity, 5.0)
    row = ledger.find(MAIL.identity)
    assert row is not None
    assert row.state is State.DELIVERED, "only the move is left"
    assert ledger.find(aside.identity) is None, "its other identity is forgotten"


# -- verdicts and notes --


def test_verdicts_are_kept_as_they_were_given_and_in_their_order(path: Path, ledger: Ledger) -> None:
    given = [
        Kept("spamassassin", "s1", Verdict(7.25, Action.NONE, "spam", "spamd gives 7.25 points", ("GTUBE", "ALL"))),
        Kept("auth", "s2", Verdict(None, Action.JUNK, "auth-failed", "DMARC failed", ())),
    ]
    ledger.verdicts.keep(MAIL.identity, given, 1e9)
    assert list(again(path, ledger).verdicts.of(MAIL.identity).values()) == given


def test_a_later_verdict_takes_the_place_of_an_earlier_one(ledger: Ledger) -> None:
    for score in (1.0, 2.0):
        ledger.verdicts.keep(MAIL.identity, [Kept("ai", "s", Verdict(score))], score)
    assert ledger.verdicts.of(MAIL.identity)["ai"].verdict.score == 2.0


def test_words_of_a_verdict_are_cleaned_before_they_are_kept(ledger: Ledger) -> None:
    evil = "\x1b[31m\r\n\u202e\ud800"
    ledger.verdicts.keep(MAIL.identity, [Kept("ai", "s", Verdict(1.0, Action.NONE, evil, evil, (evil,) * 1000))], 1.0)
    verdict = ledger.verdicts.of(MAIL.identity)["ai"].verdict
    assert verdict.reason.isprintable()
    assert len(verdict.evidence) == 100


def test_pruning_forgets_verdicts_with_their_mails_and_after_their_time(ledger: Ledger) -> None:
    ledger.injecting(version(), MAIL, "alice@example.test", 1.0)
    ledger.settled(version(), MAIL.identity, 1.0)
    for identity in (MAIL.identity, "never-delivered"):
        ledger.verdicts.keep(identity, [Kept("ai", "s", Verdict(1.0))], 1.0)
    ledger.verdicts.keep("of-today", [Kept("ai", "s", Verdict(1.0))], 50.0)
    ledger.prune(10.0)
    assert [bool(ledger.verdicts.of(name)) for name in (MAIL.identity, "never-delivered", "of-today")] == [
        False,
        False,
        True,
    ]


def test_a_budget_is_for_a_month_and_is_counted_on_the_disk(path: Path, ledger: Ledger) -> None:
    now = [datetime.datetime(2026, 11, 30, 23, 59, tzinfo=datetime.UTC).timestamp()]
    purse = Purse(ledger.notes, lambda: now[0])
    assert [purse.spend("ai", 3) for _ in range(2)] == [True, True]
    ledger = again(path, ledger)
    purse = Purse(ledger.notes, lambda: now[0])
    assert [purse.spend("ai", 3) for _ in range(3)] == [True, False, False]
    assert purse.spend("other", 3)
    purse.refund("ai")
    assert [purse.spend("ai", 3) for _ in range(2)] == [True, False]
    now[0] += 60
    assert purse.spend("ai", 3), "another month"
    assert not purse.spend("ai", 0)


def test_each_mail_has_its_history_in_order_and_what_is_repeated_is_counted(path: Path, ledger: Ledger) -> None:
    for number in range(100):
        ledger.deferred(version(), MAIL, "recipient-refused", "RCPT: 450 4.2.1 later", 60.0, float(number))
    ledger.injecting(version(), MAIL, "alice@example.test", 200.0)
    ledger = again(path, ledger)
    ledger.trying_again(MAIL.identity, 201.0)
    ledger.injecting(version(), MAIL, "alice@example.test", 202.0)
    ledger.delivered(MAIL.identity, "250 ok", 203.0)
    ledger.settled(version(), MAIL.identity, 204.0)
    ledger.replay(version("again"), MAIL, 205.0)
    events = ledger.history.of(MAIL.identity)
    assert [event.what for event in events] == [
        "deferred", "injecting", "again", "injecting", "delivered", "settled", "replayed"
    ]  # fmt: skip
    first = events[0]
    assert (first.times, first.at, first.last_at) == (100, 0.0, 99.0)
    assert first.words == "recipient-refused: RCPT: 450 4.2.1 later"
    assert events[4].words == "250 ok"
    row = ledger.find(MAIL.identity)
    assert row is not None
    assert (row.state, row.released, row.reason) == (State.DEFERRED, 1, "replayed")


def test_the_history_of_a_mail_is_forgotten_with_it(ledger: Ledger) -> None:
    ledger.injecting(version(), MAIL, "m", 1.0)
    ledger.delivered(MAIL.identity, "250 ok", 2.0)
    ledger.settled(version(), MAIL.identity, 3.0)
    other = Mail(b"other", MAIL.recipient, "")
    ledger.injecting(version("other"), other, "m", 1.0)
    assert ledger.prune(10.0) == 1
    assert ledger.history.of(MAIL.identity) == []
    assert len(ledger.history.of(other.identity)) == 1


def test_the_ledger_knows_when_a_mail_was_stored_and_its_message_id_hashed(path: Path, ledger: Ledger) -> None:
    mail = Mail(b"Message-ID: <One@x.test>\r\n\r\n", "alice@example.test", "")
    ledger.injecting(version(), mail, "m", 1.0)
    later = dataclasses.replace(version(), last_modified=LONG_AGO + datetime.timedelta(days=3))
    ledger.injecting(later, mail, "m", 2.0)
    ledger.injecting(version(), MAIL, "m", 1.0)
    with contextlib.closing(sqlite3.connect(path)) as db:
        found = dict(db.execute("SELECT identity, message_id FROM mail"))
        stored = {at for (at,) in db.execute("SELECT stored_at FROM mail")}
    assert found == {mail.identity: hashed("One@x.test"), MAIL.identity: None}
    assert stored == {LONG_AGO.timestamp()}


def test_what_a_filter_set_aside_is_no_trouble_and_the_rest_is_counted_by_reason(ledger: Ledger) -> None:
    def aside(name: str, reason: str) -> Mail:
        mail = Mail(name.encode(), MAIL.recipient, "")
        ledger.setting_aside(version(name), mail, reason, "why", 1.0)
        ledger.quarantined(version(name), mail.identity, 1.0)
        return mail

    aside("spam", "spam")
    virus = aside("virus", "virus")
    verdict = Verdict(None, Action.QUARANTINE, "virus", "Eicar", ())
    ledger.verdicts.keep(virus.identity, [Kept("clamav", "settings", verdict)], 1.0)
    aside("one", "no-mailbox")
    aside("two", "no-mailbox")
    aside("three", "damaged")
    assert ledger.troubles(1.0).quarantined == {"damaged": 1, "no-mailbox": 2}


def test_a_budget_cannot_be_refunded_below_nothing(ledger: Ledger) -> None:
    purse = Purse(ledger.notes)
    purse.refund("ai")
    assert [purse.spend("ai", 1) for _ in range(2)] == [True, False]


def test_a_budget_is_not_overspent_by_threads_that_come_at_once(ledger: Ledger) -> None:
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda _: Purse(ledger.notes).spend("ai", 20), range(100)))
    assert sum(taken) == 20
