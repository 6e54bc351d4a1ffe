"""What of all conditions is news: the memory, with a clock of the test's."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from drain.alerts.alert import Alert, AlertState, Kind
from drain.alerts.conditions import Condition, in_words
from drain.alerts.memory import Memory
from drain.logbook import Logbook

DAY = 86400.0
MINUTE = 60.0


class Remembering:
    """A memory whose process ends after every look."""

    def __init__(self, path: Path, repeat_seconds: float = DAY) -> None:
        self.path = path
        self.repeat_seconds = repeat_seconds
        self.now = 1_800_000_000.0

    def look(self, *conditions: Condition, subjects: dict[Kind, set[str]] | None = None) -> list[Alert]:
        book = Logbook(self.path)
        try:
            return Memory(book.database, self.repeat_seconds).look(conditions, subjects or {}, self.now)
        finally:
            book.close()

    def told(self, *, on: bool | None, minutes: float = 1, after: float = 0.0, kind: Kind = Kind.BUCKET) -> list[str]:
        """One look at what is so, is not, or is not known; what is heard of it. Then time goes by."""
        seen = [] if on is None else [Condition(kind, on=on, words="so" if on else "not so", after_seconds=after)]
        news = [str(alert.state) for alert in self.look(*seen) if alert.state.is_told]
        self.now += minutes * MINUTE
        return news


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Remembering]:
    return Remembering(tmp_path / "logbook.db")  # type: ignore[return-value]


def test_it_is_told_once_when_it_starts_again_after_a_day_and_once_when_it_is_over(memory: Remembering) -> None:
    heard = [memory.told(on=True) for _ in range(24 * 60 + 1)]
    assert heard[0] == ["on"]
    assert heard[1:-1] == [[]] * (24 * 60 - 1)
    assert heard[-1] == ["again"]
    heard = [memory.told(on=False) for _ in range(60)]
    assert [one for one in heard if one] == [["over"]]
    assert heard[10] == ["over"]


def test_what_comes_and_goes_every_minute_is_told_once(memory: Remembering) -> None:
    heard = [state for minute in range(4 * 60) for state in memory.told(on=minute % 2 == 0)]
    assert heard == ["on"]


def test_what_comes_and_goes_every_quarter_of_an_hour_is_told_less_and_less(memory: Remembering) -> None:
    heard = [state for minute in range(20 * 60) for state in memory.told(on=minute // 15 % 2 == 0)]
    assert heard == ["on", "over", "on"]


def test_what_lasts_less_than_its_threshold_is_never_told(memory: Remembering) -> None:
    for _ in range(10):
        for _ in range(29):
            assert memory.told(on=True, after=30 * MINUTE) == []
        assert memory.told(on=False) == []


def test_what_lasts_that_long_is_told_then(memory: Remembering) -> None:
    heard = [memory.told(on=True, after=30 * MINUTE) for _ in range(40)]
    assert heard.index(["on"]) == 30
    assert sum(map(len, heard)) == 1


def test_a_machine_that_wakes_is_given_another_look_before_it_is_told(memory: Remembering) -> None:
    for _ in range(3):
        assert memory.told(on=True, after=24 * 60 * MINUTE) == []
    memory.now += 25 * 3600
    assert memory.told(on=True, after=24 * 60 * MINUTE) == []
    assert memory.told(on=True, after=24 * 60 * MINUTE) == ["on"]


def test_but_one_that_looks_every_few_hours_is_told(memory: Remembering) -> None:
    heard = [memory.told(on=True, after=30 * MINUTE, minutes=180) for _ in range(4)]
    assert heard == [[], [], ["on"], []]


def test_what_was_not_looked_at_is_neither_told_again_nor_over(memory: Remembering) -> None:
    assert memory.told(on=True) == ["on"]
    assert [memory.told(on=None, minutes=600) for _ in range(10)] == [[]] * 10
    assert memory.told(on=True) == ["again"]


def test_what_was_seen_to_be_over_is_over_also_if_nobody_looks_again(memory: Remembering) -> None:
    assert memory.told(on=True) == ["on"]
    assert memory.told(on=False) == []
    assert memory.told(on=None, minutes=9) == []
    assert memory.told(on=None, minutes=9) == ["over"]


def test_without_repeat_it_is_told_once(tmp_path: Path) -> None:
    memory = Remembering(tmp_path / "logbook.db", repeat_seconds=0.0)
    assert [state for _ in range(100) for state in memory.told(on=True, minutes=600)] == ["on"]
    assert [state for _ in range(10) for state in memory.told(on=False, minutes=600)] == ["over"]


def test_a_clock_that_is_set_back_silences_nothing(memory: Remembering) -> None:
    memory.now += 400 * DAY
    assert memory.told(on=True) == ["on"]
    memory.now -= 400 * DAY
    assert memory.told(on=True, minutes=25 * 60) == []
    assert memory.told(on=True) == ["again"]
    memory.now += 400 * DAY
    memory.told(on=False)
    memory.now -= 400 * DAY
    assert [state for _ in range(30) for state in memory.told(on=False)] == ["over"]


def test_the_words_and_numbers_are_those_of_now(memory: Remembering) -> None:
    first = Condition(Kind.BACKLOG_COUNT, on=True, words="600 mails\x1b[31m", count=600, oldest_at=memory.now - 100)
    (alert,) = memory.look(first)
    assert (alert.words, alert.count, alert.oldest_seconds) == ("600 mails [31m", 600, 100.0)
    memory.now += DAY
    (alert,) = memory.look(Condition(Kind.BACKLOG_COUNT, on=True, words="700 mails", count=700))
    assert (alert.state, alert.words, alert.count, alert.oldest_seconds) == (
        AlertState.AGAIN, "700 mails It has been so for 24 hours.", 700, None
    )  # fmt: skip
    memory.look(Condition(Kind.BACKLOG_COUNT, on=False, words="Not much mail waits any more.", count=3))
    memory.now += 700
    (alert,) = memory.look()
    assert (alert.state, alert.words, alert.count) == (AlertState.OVER, "Not much mail waits any more.", 0)


def test_each_subject_of_a_kind_is_remembered_for_itself(memory: Remembering) -> None:
    def broken(name: str) -> Condition:
        return Condition(Kind.FILTER, on=True, words="away", subject=name)

    assert [alert.subject for alert in memory.look(broken("ai"), broken("dnsbl"))] == ["ai", "dnsbl"]
    assert memory.look(broken("ai")) == []
    memory.look(subjects={Kind.FILTER: {"ai"}})
    memory.now += 700
    (alert,) = memory.look(subjects={Kind.FILTER: {"ai"}})
    assert (alert.subject, alert.state, alert.words) == ("dnsbl", "over", "It is not used any more.")


def test_a_kind_of_a_newer_drain_is_no_reason_to_stop(memory: Remembering) -> None:
    memory.told(on=True)
    book = Logbook(memory.path)
    with book.database.writing() as db:
        db.execute("INSERT INTO alert (kind, subject, words, count, since) VALUES ('moon', '', 'full', 0, 0)")
    book.close()
    assert memory.told(on=True) == []


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.integers(0, 2000)), max_size=40))
def test_whatever_happens_on_and_over_take_turns(steps: list[tuple[bool | None, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        memory = Remembering(Path(folder) / "logbook.db")
        heard = [state for on, minutes in steps for state in memory.told(on=on, minutes=minutes)]
    news = [state for state in heard if state != "again"]
    assert news == ["on", "over"] * (len(news) // 2) + ["on"] * (len(news) % 2)
    for before, after in itertools.pairwise(heard):
        assert (before, after) not in {("over", "again"), ("on", "on"), ("over", "over")}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (-5, "0 seconds"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (3600, "1 hour"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (8 * DAY, "8 days"),
    ],
)
def test_times_are_said_in_a_unit_that_fits(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
