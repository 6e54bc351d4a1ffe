import datetime
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drain.commands.history import moment
from drain.history import History, Record, Search, hashed
from drain.ledger import Ledger
from drain.listing import ListedObject
from drain.mail import Mail
from drain.prefixes import Prefixes
from drain.show import history as show
from drain.stamp import Stamp
from drain.state import State
from tests.support import LONG_AGO

PREFIXES = Prefixes("pending/", "processed/", "quarantine/")
ALICE = "alice@example.test"
T = 1_800_000_000.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


def letter(number: int = 0, to: str = ALICE, sender: str = "a@x.test") -> Mail:
    return Mail(b"Message-ID: <m%d@x.test>\r\n\r\nhello" % number, to, sender)


def version(mail: Mail) -> ListedObject:
    return ListedObject(f"pending/{mail.identity[:8]}", '"e"', LONG_AGO, len(mail.raw))


def deliver(ledger: Ledger, mail: Mail, at: float, mailbox: str = ALICE) -> str:
    """A second for each step."""
    ledger.injecting(version(mail), mail, mailbox, at)
    ledger.delivered(mail.identity, "250 ok", at + 1)
    ledger.settled(version(mail), mail.identity, at + 2)
    return mail.identity


def found(history: History, wanted: Search, limit: int = 50) -> list[str]:
    return [record.row.identity for record in history.search(wanted, limit)]


def one(ledger: Ledger, identity: str) -> Record:
    (record,) = ledger.history.search(Search(id=identity), 2)
    return record


def traced(ledger: Ledger, identity: str) -> show.Trace:
    verdicts = list(ledger.verdicts.of(identity).values())
    events, keys = ledger.history.of(identity), ledger.history.objects(identity)
    return show.Trace(one(ledger, identity), events, verdicts, keys, PREFIXES)


# -- searching --


def test_the_newest_mails_are_found_and_the_newest_comes_last(ledger: Ledger) -> None:
    # Their identities are in another order than their times.
    names = [deliver(ledger, letter(number), T + number) for number in range(6)]
    assert names != sorted(names)
    assert found(ledger.history, Search()) == names
    assert found(ledger.history, Search(), limit=2) == names[-2:]
    assert found(ledger.history, Search(to="alice"), limit=2) == names[-2:]


def test_a_record_has_what_the_row_has_and_when_it_was_stored(ledger: Ledger) -> None:
    identity = deliver(ledger, letter(3), T)
    record = one(ledger, identity)
    assert record.row == ledger.find(identity)
    assert record.row.state is State.SETTLED
    assert (record.stored_at, record.message_id) == (LONG_AGO.timestamp(), hashed("m3@x.test"))


def test_mail_is_found_by_the_beginning_of_its_id_and_by_no_other_part(ledger: Ledger) -> None:
    names = [deliver(ledger, letter(number), T + number) for number in range(6)]
    for name in names:
        assert found(ledger.history, Search(id=name[:8])) == [name]
        assert found(ledger.history, Search(id=name.upper())) == [name]
        assert found(ledger.history, Search(id=name[1:9])) == []
    assert found(ledger.history, Search(id="%")) == []
    assert found(ledger.history, Search(id="zz")) == []


def test_mail_is_found_by_parts_of_addresses(ledger: Ledger) -> None:
    plain = deliver(ledger, letter(1), T)
    other = deliver(ledger, letter(2, "sales@example.test", "Bob@Y.test"), T + 1, mailbox="carol@example.test")
    bounce = deliver(ledger, letter(3, sender=""), T + 2)
    history = ledger.history
    assert found(history, Search(sender="@y.TEST")) == [other]
    assert found(history, Search(to="sales@")) == [other]
    assert found(history, Search(to="carol")) == [other], "the mailbox counts too"
    assert found(history, Search(to="ALICE")) == [plain, bounce]
    assert found(history, Search(sender="<>")) == [bounce]
    assert found(history, Search(sender="@y.test", to="alice")) == []


@pytest.mark.parametrize("sign", ["%", "_", "!", "!_", "\\", "'", "[a-z]", "*"])
def test_signs_that_mean_something_to_sqlite_mean_themselves(ledger: Ledger, sign: str) -> None:
    deliver(ledger, letter(1, sender="axb@x.test"), T)
    meant = deliver(ledger, letter(2, sender=f"a{sign}b@x.test"), T + 1)
    assert found(ledger.history, Search(sender=f"a{sign}b")) == [meant]
    assert found(ledger.history, Search(sender=sign)) == [meant]


def test_mail_is_found_by_its_message_id_however_it_is_written(ledger: Ledger) -> None:
    first = deliver(ledger, letter(1), T)
    copy = deliver(ledger, letter(1, to="bob@example.test"), T + 1)
    deliver(ledger, letter(2), T + 2)
    for word in ("m1@x.test", "<m1@x.test>", " <m1@x.test> ", hashed("m1@x.test"), hashed("m1@x.test").upper()):
        assert found(ledger.history, Search(message_id=word)) == [first, copy]


@pytest.mark.parametrize("words", ["", "alice"])  # by the index, and row by row
def test_since_is_from_then_on_and_until_is_before_then(ledger: Ledger, words: str) -> None:
    names = [deliver(ledger, letter(number), T + number) for number in range(5)]
    assert found(ledger.history, Search(to=words, since=T + 3)) == names[3:]
    assert found(ledger.history, Search(to=words, until=T + 3)) == names[:3]
    assert found(ledger.history, Search(to=words, since=T + 1, until=T + 3)) == names[1:3]


def test_what_has_an_index_is_found_by_it_and_words_by_reading_the_rows_as_they_lie(ledger: Ledger) -> None:
    def plan(wanted: Search) -> str:
        conditions, values = wanted.conditions
        with ledger.history._db.reading() as db:
            sql = f"SELECT * FROM mail WHERE {conditions} ORDER BY {wanted.order} DESC, identity DESC LIMIT 50"
            return " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values))

    assert "PRIMARY KEY" in plan(Search(id="abcd"))
    assert "mail_seen" in plan(Search())
    assert "mail_seen" in plan(Search(since=T, until=T + 1))
    for wanted in (Search(sender="x"), Search(to="x"), Search(message_id="x"), Search(sender="x", since=T)):
        # By way of the index each row would be looked up on its own: ten seconds for a million.
        assert plan(wanted).startswith("SCAN mail ")
        assert "INDEX" not in plan(wanted)


def test_a_person_means_an_id_a_message_id_or_its_digest(ledger: Ledger) -> None:
    identity = deliver(ledger, letter(1), T)
    deliver(ledger, letter(2), T)

    def meant(word: str) -> list[str]:
        return [record.row.identity for record in ledger.history.meant(word, 5)]

    for word in (identity, identity[:4], identity[:12].upper(), "<m1@x.test>", hashed("m1@x.test")):
        assert meant(word) == [identity]
    assert meant(identity[:3]) == [], "too short to be meant"
    assert meant("") == []


def test_all_identities_are_given_the_last_seen_first_across_many_reads(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drain.history._AT_ONCE", 3)
    names = [deliver(ledger, letter(number), T + number // 4) for number in range(10)]  # several at one time
    given = list(ledger.history.identities())
    assert sorted(given) == sorted(names)
    assert set(given[:2]) == set(names[8:])
    stamp = Stamp(b"secret")
    assert next(name for name in given if stamp.value(name) == stamp.value(names[0])) == names[0]


# -- dates --


NOW = datetime.datetime(2026, 11, 21, 15, 30).astimezone()  # a time of day where the machine is


@pytest.mark.parametrize(
    ("word", "begins", "ends"),
    [
        ("2026-11-03", (2026, 11, 3), (2026, 11, 4)),
        ("2026-11-03T10:30", (2026, 11, 3, 10, 30), (2026, 11, 3, 10, 30)),
        ("2026-11-03 10:30:15", (2026, 11, 3, 10, 30, 15), (2026, 11, 3, 10, 30, 15)),
        ("today", (2026, 11, 21), (2026, 11, 22)),
        ("yesterday", (2026, 11, 20), (2026, 11, 21)),
        ("45m", (2026, 11, 21, 14, 45), (2026, 11, 21, 14, 45)),
        ("36h", (2026, 11, 20, 3, 30), (2026, 11, 20, 3, 30)),
        ("7d", (2026, 11, 14, 15, 30), (2026, 11, 14, 15, 30)),
        ("1.5h", (2026, 11, 21, 14, 0), (2026, 11, 21, 14, 0)),
    ],
)
def test_a_date_is_what_a_person_means_by_it(word: str, begins: tuple[int, ...], ends: tuple[int, ...]) -> None:
    def local(at: tuple[int, ...]) -> float:
        return datetime.datetime(*at).astimezone().timestamp()  # type: ignore[arg-type]

    assert moment(word, NOW.timestamp()) == local(begins)
    assert moment(word, NOW.timestamp(), ends=True) == local(ends)


def test_a_time_with_its_zone_is_of_that_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert moment("2026-11-21T10:30+02:00", 0) == moment("2026-11-21T08:30Z", 0) == 1_795_249_800.0


def test_days_are_those_of_the_persons_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert moment("2026-11-21", 0) == moment("2026-11-20T15:00Z", 0)
        # Half past midnight there, when it is still the day before in Greenwich.
        assert moment("today", moment("2026-11-20T15:30Z", 0)) == moment("2026-11-20T15:00Z", 0)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "word", ["", "tomorrow", "7", "d", "-3d", "7w", "2026-13-01", "21.11.2026", "10:30", "9999-12-31"]
)
def test_what_is_no_date_is_refused(word: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        moment(word, NOW.timestamp(), ends=True)


# -- the steps of one --


def test_a_trace_begins_at_the_edge_and_times_each_step(ledger: Ledger) -> None:
    identity = deliver(ledger, letter(), LONG_AGO.timestamp() + 60)
    steps = traced(ledger, identity).steps
    assert [(step.what, step.seconds) for step in steps] == [
        ("stored", None),
        ("first seen", 60.0),
        ("injecting", 0.0),
        ("delivered", 1.0),
        ("settled", 1.0),
    ]
    assert [step.words for step in steps[2:4]] == [ALICE, "250 ok"]


def test_what_happened_again_and_again_is_one_step_that_says_how_often(ledger: Ledger) -> None:
    mail = letter()
    for number in range(12):
        ledger.deferred(version(mail), mail, "full", "452 full", T + 100, T + number * 60)
    ledger.injecting(version(mail), mail, ALICE, T + 11 * 60 + 5)
    *_, step, after = traced(ledger, mail.identity).steps
    assert (step.what, step.at) == ("deferred", T)
    assert (after.what, after.seconds) == ("injecting", 5.0), "since the last time, not the first"
    assert step.words.startswith("12 times, the last at 2027-01-15 ")
    assert step.words.endswith(": full: 452 full")


def test_a_mail_from_before_there_were_events_says_so(ledger: Ledger) -> None:
    ledger.adopt("a" * 64, ALICE, 5, T, T + 9)
    steps = traced(ledger, "a" * 64).steps
    assert [(step.what, step.seconds) for step in steps] == [("first seen", None), ("settled", 9.0)]
    assert "not known" in steps[-1].words
    row = ledger.find("a" * 64)
    assert row is not None
    assert row.from_whom == "?", "not a bounce"


def test_a_trace_says_where_the_object_is_and_what_comes_next_in_every_state(ledger: Ledger) -> None:
    mail = letter()
    listed, identity = version(mail), mail.identity

    def now(at: float = T) -> tuple[str, str]:
        trace = traced(ledger, identity)
        return trace.place, trace.next(at)

    ledger.deferred(listed, mail, "full", "452 full", T + 300, T)
    assert now()[0] == listed.key
    assert now()[1].startswith("another try, at 2027-01-15 ")
    assert now()[1].endswith(", in 5 min")
    assert now(T + 301)[1] == "another try, with the next pass"
    ledger.injecting(listed, mail, ALICE, T)
    assert now() == (listed.key, "it is sent again, unless it is in the mailbox already, with the next pass")
    ledger.missing(identity, T)
    assert now()[0].startswith("gone from the bucket")
    assert now()[1] == "nothing, unless its object is found again"
    ledger.delivered(identity, "250", T)
    assert now() == (listed.key, "its object is moved, with the next pass")
    ledger.settled(listed, identity, T)
    assert now() == (f"processed/{identity}-…, until a lifecycle rule removes it", "")
    ledger.setting_aside(listed, mail, "virus", "Eicar", T)
    assert now() == (listed.key, "its object is moved to quarantine, with the next pass")
    ledger.quarantined(listed, identity, T)
    assert now() == (f"quarantine/{identity}-…", f"drain quarantine show, release or delete {identity[:12]}")
    ledger.discarding(listed, mail, "spam", "9 points", T)
    assert now() == (listed.key, "its object is deleted, with the next pass")
    ledger.discarded(listed, identity, T)
    assert now() == ("deleted", "")


def test_what_is_shown_cannot_move_the_terminal(ledger: Ledger) -> None:
    mail = letter(sender="\x1b[2J\u202e@x.test")
    ledger.deferred(version(mail), mail, "full", "452 \x1b]0;owned\x07 full", T, T)
    table, steps = io.StringIO(), io.StringIO()
    show.rows([one(ledger, mail.identity)], table)
    show.trace(traced(ledger, mail.identity), T, steps)
    for shown in (table.getvalue(), steps.getvalue()):
        assert "owned" in shown
        assert "[2J" in shown
        assert not set(shown) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0042, "4 ms"),
        (-0.3, "-300 ms"),
        (1.24, "1.2 s"),
        (119, "119.0 s"),
        (300, "5 min"),
        (12600, "3.5 h"),
        (2e5, "2.3 d"),
    ],
)
def test_a_duration_is_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert show.duration(seconds) == words
