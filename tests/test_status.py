"""The status: what is in the files, and nothing done to them."""

import datetime
import json
import sqlite3
import zoneinfo
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from drain.ledger import Ledger
from drain.listing import ListedObject
from drain.logbook import Logbook, Pass
from drain.mail import Mail
from drain.relay.queue import Message, Parcel, Queue, State as Outgoing, new_id
from drain.status import Ends, Health, Pending, Status, span
from drain.status.gather import gather
from drain.tables import LEDGER
from drain.upstreams import Action, Fate

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NOON = datetime.datetime(2026, 11, 21, 12, tzinfo=BERLIN).timestamp()
HOUR, DAY = 3600.0, 86400.0


class Files:
    """drain's three files in a folder, opened when they are written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.db"

    @property
    def logbook(self) -> Path:
        return self.folder / "logbook.db"

    @property
    def queue(self) -> Path:
        return self.folder / "relay" / "queue.db"

    def status(self, now: float = NOON, *, stale_seconds: float = 2 * HOUR, pending: Pending | None = None) -> Status:
        return gather(
            ledger=self.ledger,
            logbook=self.logbook,
            queue=self.queue,
            now=now,
            stale_seconds=stale_seconds,
            pending=pending,
            zone=BERLIN,
        )

    def mail(self, at: float, delay: float = 5.0) -> tuple[ListedObject, Mail]:
        """A mail that was written to the bucket *delay* before then."""
        self._count += 1
        written = datetime.datetime.fromtimestamp(at - delay, datetime.UTC)
        version = ListedObject(f"pending/{self._count}", "e", written, 1)
        return version, Mail(b"From: a@x.test\r\n\r\n%d\r\n" % self._count, "alice@example.test", "a@x.test")

    def deliver(self, at: float, delay: float = 5.0) -> str:
        version, mail = self.mail(at, delay)
        with closing(Ledger(self.ledger)) as ledger:
            ledger.injecting(version, mail, "alice@example.test", at)
            ledger.delivered(mail.identity, "250 ok", at)
            ledger.settled(version, mail.identity, at)
        return mail.identity

    def quarantine(self, at: float, reason: str) -> str:
        version, mail = self.mail(at)
        with closing(Ledger(self.ledger)) as ledger:
            ledger.setting_aside(version, mail, reason, "words", at)
            ledger.quarantined(version, mail.identity, at)
        return mail.identity

    def defer(self, at: float, reason: str, words: str, next_attempt_at: float) -> str:
        version, mail = self.mail(at)
        with closing(Ledger(self.ledger)) as ledger:
            ledger.deferred(version, mail, reason, words, next_attempt_at, at)
        return mail.identity

    def passed(self, at: float, pending: int | None = 0, oldest_at: float | None = None, trouble: str = "") -> None:
        with closing(Logbook(self.logbook)) as logbook:
            kind = "bucket" if trouble else ""
            logbook.enter(Pass(at, 1.5, 4, pending, oldest_at, {"delivered": 3}, trouble, kind))

    def alert(self, kind: str, subject: str = "", *, told: bool = True, over: bool = False) -> None:
        with closing(Logbook(self.logbook)) as logbook, logbook.database.writing() as db:
            db.execute(
                "INSERT INTO alert (kind, subject, words, count, oldest_at, since, told_at, over_at)"
                " VALUES (?, ?, ?, 2, ?, ?, ?, ?)",
                (
                    kind,
                    subject,
                    f"Words of {kind}.",
                    NOON - DAY,
                    NOON - HOUR,
                    NOON if told else None,
                    NOON if over else None,
                ),
            )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_without_any_file_nothing_is_known_and_nothing_is_made(files: Files) -> None:
    status = files.status()
    assert status.last_pass is None
    assert status.pending == Pending()
    assert status.relay is None
    assert status.today == status.week == Ends()
    assert status.troubles == ()
    assert len(status.days) == 30
    assert list(files.folder.iterdir()) == []


def test_mails_are_counted_by_local_days_also_where_the_clock_changes(files: Files) -> None:
    midnight = datetime.datetime(2026, 11, 21, tzinfo=BERLIN).timestamp()
    files.deliver(midnight)
    files.deliver(midnight - 1)
    files.deliver(midnight - 6 * DAY)
    files.deliver(midnight - 6 * DAY - 1)
    files.quarantine(midnight + 60, "spam")
    # 25 October has 25 hours there; its last is a day's that begins an hour earlier in UTC.
    summer = datetime.datetime(2026, 10, 25, tzinfo=BERLIN).timestamp()
    for at in (summer, summer + 25 * HOUR - 1):
        files.deliver(at)
    status = files.status()
    assert status.today == Ends(1, 1, 0)
    assert status.week == Ends(3, 1, 0)
    by_date = {day.date: day.ends.delivered for day in status.days}
    assert next(iter(by_date)) == "2026-10-23"
    assert by_date["2026-10-25"] == 2
    assert by_date["2026-11-14"] == 1
    assert sum(by_date.values()) == 6


def test_the_delay_is_from_the_bucket_to_the_inbox(files: Files) -> None:
    for seconds in range(1, 101):
        files.deliver(NOON, float(seconds))
    (today,) = files.status().days[-1:]
    assert today.delay_median == pytest.approx(50.5)
    assert today.delay_p95 == pytest.approx(95.0)


def test_what_a_person_let_wait_does_not_count_as_delay(files: Files) -> None:
    files.deliver(NOON, 5.0)
    version, mail = files.mail(NOON, 20 * DAY)
    with closing(Ledger(files.ledger)) as ledger:
        ledger.setting_aside(version, mail, "spam", "words", NOON - DAY)
        ledger.quarantined(version, mail.identity, NOON - DAY)
        ledger.release(version, mail, mail.identity, NOON - 60)
        ledger.injecting(version, mail, "alice@example.test", NOON)
        ledger.delivered(mail.identity, "250 ok", NOON)
    (today,) = files.status().days[-1:]
    assert today.ends.delivered == 2
    assert today.delay_p95 == pytest.approx(5.0)


def test_a_clock_behind_the_edges_gives_no_delay_below_nothing(files: Files) -> None:
    files.deliver(NOON, -30.0)
    assert files.status().days[-1].delay_median == 0


def test_of_a_day_with_very_many_mails_some_stand_for_all(files: Files) -> None:
    files.deliver(NOON)
    with sqlite3.connect(files.ledger) as db:
        for number in range(3000):
            row = (f"{number:064x}", NOON - number % 100)
            db.execute(
                "INSERT INTO mail (identity, state, recipient, sender, size, first_seen_at, updated_at, stored_at)"
                " VALUES (?, 'settled', '', '', 1, 0, 0, ?)",
                row,
            )
            db.execute(
                "INSERT INTO event (identity, what, words, at, last_at) VALUES (?, 'delivered', '', ?, 0)",
                (row[0], NOON),
            )
    db.close()
    today = files.status().days[-1]
    assert today.ends.delivered == 3001
    assert today.delay_median == pytest.approx(49.5, abs=5)
    assert today.delay_p95 == pytest.approx(94, abs=5)


def test_deferred_mail_is_shown_by_reason_with_the_next_try_and_the_last_words(files: Files) -> None:
    files.defer(NOON - 60, "greylisted", "451 first", NOON + 300)
    files.defer(NOON - 30, "greylisted", "451 last\x1b[31m", NOON + 600)
    files.defer(NOON, "clamav", "no clamd", NOON + 60)
    first, second = files.status().deferred
    assert (first.reason, first.count, first.next_attempt_at) == ("greylisted", 2, NOON + 300)
    assert first.words == "451 last [31m"
    assert (second.reason, second.count) == ("clamav", 1)


def test_quarantine_is_shown_by_reason_and_what_is_gone_as_missing(files: Files) -> None:
    for reason in ("spam", "spam", "virus"):
        files.quarantine(NOON - 3 * DAY, reason)
    gone = files.defer(NOON - DAY, "greylisted", "451", NOON)
    version, mail = files.mail(NOON)
    with closing(Ledger(files.ledger)) as ledger:
        ledger.injecting(version, mail, "alice@example.test", NOON)
        with ledger._db.writing() as db:
            db.execute("UPDATE mail SET missing_at = ? WHERE identity = ?", (NOON, gone))
    status = files.status()
    assert status.quarantine == {"spam": 2, "virus": 1}
    assert status.unfinished == {"injecting": 1}
    assert status.missing == 1
    assert status.deferred == ()


def test_the_last_pass_and_what_it_saw(files: Files) -> None:
    files.passed(NOON - 120, 7, NOON - HOUR)
    files.passed(NOON - 60, None, None, "R2 cannot be reached.\n")
    status = files.status()
    assert status.last_pass is not None
    assert status.last_good_pass is not None
    assert (status.last_pass.at, status.last_pass.trouble) == (NOON - 60, "R2 cannot be reached. ")
    assert status.last_pass.outcomes == {"delivered": 3}
    assert status.last_good_pass.at == NOON - 120
    assert status.pending == Pending(7, NOON - HOUR, NOON - 120)


def test_what_was_asked_just_now_takes_the_place_of_what_the_last_pass_saw(files: Files) -> None:
    files.passed(NOON - 60, 7)
    live = Pending(9, NOON - 1, NOON, live=True)
    assert files.status(pending=live).pending == live


def test_the_backlog_is_thinned_to_the_most_of_each_hour(files: Files) -> None:
    with closing(Logbook(files.logbook)) as logbook, logbook.database.writing():
        for minute in range(180):
            at = NOON - 180 * 60 + minute * 60
            logbook.enter(Pass(at, 0.1, 0, minute if minute != 90 else None, None, {}, "", ""))
    status = files.status()
    assert [point.pending for point in status.backlog] == [59, 119, 179]
    assert status.days[-1].most_pending == 179
    assert status.days[-2].most_pending is None


def test_the_relays_queue_is_read_without_a_key_and_while_a_relay_has_it_open(files: Files) -> None:
    queue = Queue(files.queue.parent, files.folder / "relay.key")
    for number in range(4):
        message = Message(new_id(), False, "phone", "a@x.test", "a@x.test", "", 1, NOON - HOUR * number)
        queue.accept(Parcel(message, [(f"b{number}@x.test",)], b"raw"), NOON)
    failed, delayed = queue.lease(NOON, inbound=False), queue.lease(NOON, inbound=False)
    assert failed is not None
    assert delayed is not None
    for entry, action in ((failed, Action.FAILED), (delayed, Action.DELAYED)):
        fate = Fate(action, "4.2.1", f"smtp; 451 {action} \x07")
        queue.settle(entry, {entry.recipients[0]: fate}, NOON + 60, None, NOON)
    held = queue.entries(Outgoing.WAITING)[0]
    queue.change(held, Outgoing.HELD, NOON)
    (files.folder / "relay.key").unlink()
    relay = files.status().relay
    queue.close()
    assert relay is not None
    assert (relay.waiting, relay.sending, relay.held, relay.failed_week, relay.relayed_week) == (2, 0, 1, 1, 0)
    assert relay.oldest_at is not None
    assert relay.diagnostic == "smtp; 451 delayed  "
    assert not (files.folder / "relay.key").exists()


# -- health: what `--check` says --


def test_all_is_well_after_a_good_pass(files: Files) -> None:
    files.passed(NOON - 60)
    status = files.status()
    assert (status.health, status.concerns) == (Health.OK, ())


def test_a_pass_that_never_came_to_its_end_is_critical_unless_nobody_wants_to_hear_of_it(files: Files) -> None:
    assert files.status().health is Health.CRITICAL
    files.passed(NOON - 60, None, None, "R2 cannot be reached.")
    assert files.status().health is Health.CRITICAL
    assert files.status(stale_seconds=0).health is Health.WARNING


def test_a_last_pass_that_failed_is_a_warning_with_its_words(files: Files) -> None:
    files.passed(NOON - 120)
    files.passed(NOON - 60, None, None, "R2 refused listing.")
    status = files.status()
    assert status.health is Health.WARNING
    assert status.concerns == ("the last pass failed: R2 refused listing.",)


def test_a_last_good_pass_long_ago_is_critical_whatever_ended_early_since(files: Files) -> None:
    files.passed(NOON - 3 * HOUR)
    files.passed(NOON - 60, None, None, "R2 cannot be reached.")
    status = files.status()
    assert status.health is Health.CRITICAL
    assert status.concerns == (
        "no pass has come to its end for 3 h", "the last pass failed: R2 cannot be reached."
    )  # fmt: skip


def test_who_only_found_another_drain_at_work_does_not_make_a_hanging_one_look_well(files: Files) -> None:
    files.passed(NOON - 3 * HOUR)
    files.passed(NOON - 60, None)
    assert files.status().health is Health.CRITICAL


def test_a_pass_that_takes_hours_and_gets_on_is_no_cause_for_alarm(files: Files) -> None:
    def at_work(at: float) -> None:
        with closing(Logbook(files.logbook)) as logbook:
            logbook.set_note("working_at", str(at))

    at_work(NOON - 60)
    assert files.status().health is Health.OK
    files.passed(NOON - 9 * HOUR)
    status = files.status()
    assert (status.health, status.working_at) == (Health.OK, NOON - 60)
    at_work(NOON - 3 * HOUR)
    assert files.status().concerns == ("no pass has come to its end for 3 h",)
    at_work(NOON + DAY)
    assert files.status().concerns == ("no pass has come to its end for 9 h",)


def test_a_pass_noted_by_a_clock_far_ahead_does_not_make_it_look_well_for_years(files: Files) -> None:
    files.passed(NOON - 3 * HOUR)
    files.passed(NOON + 1000 * DAY)
    status = files.status()
    assert status.health is Health.CRITICAL
    assert status.last_pass is not None
    assert status.last_pass.at == NOON - 3 * HOUR


@pytest.mark.parametrize("kind", ["bucket", "mail-server", "pass", "missing", "backlog-age", "stale"])
def test_alerts_that_mean_that_mail_stays_away_are_critical(files: Files, kind: str) -> None:
    files.passed(NOON - 60)
    files.alert(kind)
    status = files.status()
    assert status.health is Health.CRITICAL
    assert status.concerns == (f"{kind}: Words of {kind}.",)
    (alert,) = status.alerts
    assert (alert.kind, alert.count, alert.oldest_at, alert.since) == (kind, 2, NOON - DAY, NOON - HOUR)


def test_every_kind_that_is_critical_is_a_kind_of_alert() -> None:
    from drain.alerts.alert import Kind
    from drain.status import gather as module

    assert {str(kind) for kind in Kind} >= module._CRITICAL


def test_other_alerts_are_a_warning_and_those_not_told_or_over_are_none(files: Files) -> None:
    files.passed(NOON - 60)
    files.alert("mail-server", told=False)
    files.alert("bucket", over=True)
    assert files.status().health is Health.OK
    files.alert("filter", "ai")
    status = files.status()
    assert (status.health, status.concerns) == (Health.WARNING, ("filter ai: Words of filter.",))


def test_a_bucket_that_does_not_answer_when_asked_is_a_warning(files: Files) -> None:
    files.passed(NOON - 60)
    status = files.status(pending=Pending(seen_at=NOON, live=True, trouble="R2 cannot be reached."))
    assert (status.health, status.concerns) == (Health.WARNING, ("R2 cannot be reached.",))


# -- files that cannot be read --


def broken(files: Files) -> Iterator[tuple[str, Path, str]]:
    files.passed(NOON - 60)
    files.deliver(NOON)
    with closing(sqlite3.connect(files.ledger)) as db:
        db.execute("PRAGMA user_version=99")
    yield "newer", files.ledger, "a newer drain wrote it (schema 99). Install that version again"
    with closing(sqlite3.connect(files.ledger)) as db:
        db.execute("PRAGMA user_version=2")
    yield "older", files.ledger, "an older drain wrote it (schema 2), and the next pass brings it up to date"
    files.ledger.write_bytes(b"no database" * 1000)
    yield "damaged", files.ledger, "is damaged: file is not a database. Move it away"
    files.ledger.unlink()
    files.ledger.mkdir()
    yield "folder", files.ledger, "cannot be read just now: unable to open database file."


def test_a_file_that_cannot_be_read_is_a_sentence_and_the_rest_is_shown(files: Files) -> None:
    seen = []
    for name, path, words in broken(files):
        status = files.status()
        assert status.health is Health.UNKNOWN
        (trouble,) = status.troubles
        assert trouble.startswith(f"The ledger {path} ")
        assert words in trouble
        assert status.last_pass is not None
        assert status.days == ()
        seen.append(name)
    assert seen == ["newer", "older", "damaged", "folder"]


def test_a_damaged_logbook_is_not_taken_for_one_in_which_no_pass_was_noted(files: Files) -> None:
    files.deliver(NOON)
    files.logbook.write_bytes(b"no database" * 1000)
    status = files.status()
    assert status.health is Health.UNKNOWN
    assert status.today.delivered == 1


def test_a_page_that_is_overwritten_is_a_sentence_too(files: Files) -> None:
    files.deliver(NOON)
    content = bytearray(files.ledger.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    files.ledger.write_bytes(content)
    assert "is damaged" in files.status().troubles[0]


def test_a_locked_file_is_a_sentence_after_a_while(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drain.status.gather._BUSY_TIMEOUT_SECONDS", 0.05)
    files.deliver(NOON)
    with closing(sqlite3.connect(files.ledger, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("CREATE TABLE t (x)")
        status = files.status()
    assert "cannot be read just now: database is locked" in status.troubles[0]


def test_looking_changes_nothing_and_leaves_nothing_behind(files: Files) -> None:
    files.passed(NOON - 60)
    files.deliver(NOON)
    Queue(files.queue.parent, files.folder / "relay.key").close()
    before = {path: path.read_bytes() if path.is_file() else b"" for path in files.folder.rglob("*")}
    files.status()
    after = {path: path.read_bytes() if path.is_file() else b"" for path in files.folder.rglob("*")}
    assert after == before


def test_what_is_being_written_is_seen_as_of_its_last_commit(files: Files) -> None:
    files.deliver(NOON)
    with closing(Ledger(files.ledger)) as ledger:
        version, mail = files.mail(NOON)
        ledger.setting_aside(version, mail, "spam", "words", NOON)
        ledger.quarantined(version, mail.identity, NOON)
        with ledger._db.writing() as db:
            db.execute("UPDATE mail SET reason = 'half'")
            status = files.status()
    assert status.quarantine == {"spam": 1}
    assert status.troubles == ()


def test_a_file_that_is_opened_while_it_is_read_as_it_lies_is_read_again(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drain.status import gather as module

    files.deliver(NOON)
    looked, opened = module._looked, []

    def interrupted(path: Path, mode: str, *rest: object) -> object:
        if mode == "immutable=1" and path == files.ledger:
            opened.append(Ledger(files.ledger))
            opened[0].notes.done("x", NOON)
            raise sqlite3.DatabaseError("database disk image is malformed")
        return looked(path, mode, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_looked", interrupted)
    status = files.status()
    opened[0].close()
    assert status.troubles == ()
    assert status.today.delivered == 1


# -- how it is told --


def test_json_has_times_as_unix_numbers_and_the_documented_names(files: Files) -> None:
    files.passed(NOON - 60, 7, NOON - HOUR)
    files.deliver(NOON)
    told = json.loads(json.dumps(files.status().as_json))
    assert told["at"] == NOON
    assert told["health"] == "ok"
    assert told["today"] == {"delivered": 1, "quarantined": 0, "discarded": 0}
    assert told["pending"]["oldest_at"] == NOON - HOUR
    assert told["schemas"]["ledger"] == LEDGER.version
    assert set(told) == {*Status.__dataclass_fields__, "today", "week"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.00001, "0 s"),
        (0.42, "0.42 s"),
        (59, "59 s"),
        (59.9, "1 min"),
        (60, "1 min"),
        (3599, "1 h"),
        (3600, "1 h"),
        (86400, "24 h"),
        (2 * 86400, "2 d"),
        (47.9 * 3600, "2 d"),
    ],
)
def test_a_length_of_time_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words


# -- speed --


@pytest.mark.parametrize("many", [1000, 10_000])
def test_old_mail_is_not_read_again(files: Files, many: int) -> None:
    """Instructions of SQLite, since time depends on the machine."""
    files.deliver(NOON)
    with closing(sqlite3.connect(files.ledger)) as db:
        for number in range(many):
            identity, at = f"{number:064x}", NOON - (40 + number % 300) * DAY
            db.execute(
                "INSERT INTO mail (identity, state, recipient, sender, size, first_seen_at, updated_at, stored_at)"
                " VALUES (?, 'settled', '', '', 1, ?, ?, ?)",
                (identity, at, at, at),
            )
            for what in ("injecting", "delivered", "settled"):
                db.execute(
                    "INSERT INTO event (identity, what, words, at, last_at) VALUES (?, ?, '', ?, 0)",
                    (identity, what, at),
                )
        db.commit()
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        from drain.status import queries
        from drain.status.gather import _midnights

        db.set_progress_handler(step, 100)
        queries.mails(db, _midnights(NOON, BERLIN))
    assert steps < 100


def test_what_is_critical_goes_before_what_is_not_known_and_that_before_a_warning(files: Files) -> None:
    files.passed(NOON - 60)
    files.alert("filter", "ai")
    files.ledger.write_bytes(b"no database" * 1000)
    status = files.status()
    assert status.health is Health.UNKNOWN
    assert [words.split(" ")[0] for words in status.concerns] == ["The", "filter"]
    files.alert("bucket")
    status = files.status()
    assert status.health is Health.CRITICAL
    assert [words.split(" ")[0] for words in status.concerns] == ["bucket:", "The", "filter"]
