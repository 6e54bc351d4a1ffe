"""What of all conditions is news: once when it starts, again after a while, once when it is over.

States of what is remembered, by its columns::

    told_at NULL                   it is so, and not long enough to be an alert
    told_at, clear_since NULL      the alert is on
    clear_since                    it is not so any more; over, if that lasts
    over_at                        over; kept a while, to know a relapse

A machine that sleeps looks again before its link is up. So what has to last is not told at
the first look after a long rest, unless such rests are usual (a timer every few hours).

What comes and goes is told once: "over" waits until it has been clear for ten
minutes, and for twice as long with each relapse within ``ALERT_REPEAT``.
"""

from collections.abc import Iterable, Mapping, Set as AbstractSet
from dataclasses import dataclass, replace

from drain.alerts.alert import Alert, AlertState, Kind
from drain.alerts.conditions import Condition, in_words
from drain.database import Database
from drain.text import clean

_CLEAR_SECONDS = 600.0
_LONGEST_CLEAR_SECONDS = 86400.0
_MOST_DOUBLINGS = 10
_REST_SECONDS = 3600.0


@dataclass(frozen=True)
class Remembered:
    """One condition as it is remembered; times are Unix times."""

    kind: Kind
    subject: str
    words: str
    over_words: str
    count: int
    oldest_at: float | None
    since: float
    clear_since: float | None = None
    told_at: float | None = None
    seen_at: float = 0.0
    rested: int = 0
    relapses: int = 0
    over_at: float | None = None


class Memory:
    """What is remembered, in the logbook's file; raises what `Database` raises."""

    def __init__(self, database: Database, repeat_seconds: float) -> None:
        self._db = database
        self._repeat_seconds = repeat_seconds

    def look(self, seen: Iterable[Condition], subjects: Mapping[Kind, AbstractSet[str]], now: float) -> list[Alert]:
        """Takes in what is so, and gives the news, also what is for the log alone.

        *subjects* are, for kinds that have some, those that there can be: of others
        (a filter that is not used any more) it is over.
        """
        with self._db.writing():
            before = {(one.kind, one.subject): one for one in self.all()}
            rows: dict[tuple[Kind, str], Remembered | None] = {
                key: self._in_time(one, now) for key, one in before.items()
            }
            reported = {(condition.kind, condition.subject): condition for condition in seen}
            for (kind, subject), row in before.items():
                if kind in subjects and subject not in subjects[kind]:
                    reported[kind, subject] = Condition(
                        kind, on=False, words="It is not used any more.", subject=subject
                    )
                elif row.over_at is not None and abs(now - row.over_at) >= self._relapse_seconds:
                    rows[kind, subject] = None
            news = []
            for key in sorted(rows.keys() | reported.keys()):
                kept, alert = self._step(rows.get(key), reported.get(key), now)
                news += [alert] if alert else []
                if kept != before.get(key):
                    self._write(key, kept)
        return news

    def adopt(self, rows: Iterable[Remembered]) -> None:
        """Takes over what another memory has and this one does not."""
        known = {(one.kind, one.subject) for one in self.all()}
        for row in rows:
            if (row.kind, row.subject) not in known:
                self._write((row.kind, row.subject), row)

    def all(self) -> list[Remembered]:
        """All that is remembered."""
        columns = ", ".join(Remembered.__dataclass_fields__)
        with self._db.reading() as db:
            rows = db.execute(f"SELECT {columns} FROM alert").fetchall()
        known = set(Kind)
        return [Remembered(Kind(kind), *rest) for kind, *rest in rows if kind in known]

    @property
    def _relapse_seconds(self) -> float:
        return max(self._repeat_seconds, _CLEAR_SECONDS)

    def _step(
        self, row: Remembered | None, condition: Condition | None, now: float
    ) -> tuple[Remembered | None, Alert | None]:
        """What becomes of one, and the news of it."""
        before = row
        if condition is not None:
            row = self._with(row, condition, now)
        if row is None or row.over_at is not None:
            return row, None
        if row.clear_since is not None:
            if row.told_at is None:
                return None, _alert(row, AlertState.PASSED, now)
            if now - row.clear_since < self._clear_seconds(row):
                return row, None
            return replace(row, over_at=now), _alert(row, AlertState.OVER, now)
        if condition is None:  # not looked at
            return row, None
        if row.told_at is None:
            wakes = bool(row.rested) and (before is None or not before.rested)
            if now - row.since < condition.after_seconds or (condition.after_seconds and wakes):
                begins = before is None or before.over_at is not None
                return row, _alert(row, AlertState.BEGINS, now) if begins else None
            return replace(row, told_at=now), _alert(row, AlertState.ON, now)
        if not self._repeat_seconds or now - row.told_at < self._repeat_seconds:
            return row, None
        return replace(row, told_at=now), _alert(row, AlertState.AGAIN, now)

    def _with(self, row: Remembered | None, condition: Condition, now: float) -> Remembered | None:
        """The row as the condition makes it."""
        if not condition.on:
            if row is None or row.over_at is not None or row.clear_since is not None:
                return row
            return replace(row, clear_since=now, over_words=clean(condition.words))
        fresh = Remembered(
            condition.kind, condition.subject, clean(condition.words), "", condition.count, condition.oldest_at, now
        )
        fresh = replace(fresh, seen_at=now)
        if row is None:
            return fresh
        if row.over_at is not None:
            return replace(fresh, relapses=row.relapses + 1)
        rested = int(now - row.seen_at >= _REST_SECONDS)
        return replace(fresh, since=row.since, told_at=row.told_at, relapses=row.relapses, rested=rested)

    def _clear_seconds(self, row: Remembered) -> float:
        longest = max(min(self._repeat_seconds or _LONGEST_CLEAR_SECONDS, _LONGEST_CLEAR_SECONDS), _CLEAR_SECONDS)
        return float(min(_CLEAR_SECONDS * 2 ** min(row.relapses, _MOST_DOUBLINGS), longest))

    @staticmethod
    def _in_time(row: Remembered, now: float) -> Remembered:
        """Without times in the future: a clock that was set back must not silence anything."""
        times = {name: getattr(row, name) for name in ("since", "clear_since", "told_at", "seen_at", "over_at")}
        return replace(row, **{name: min(at, now) for name, at in times.items() if at is not None})

    def _write(self, key: tuple[Kind, str], row: Remembered | None) -> None:
        names = list(Remembered.__dataclass_fields__)
        with self._db.writing() as db:
            if row is None:
                db.execute("DELETE FROM alert WHERE kind = ? AND subject = ?", key)
                return
            marks = ", ".join("?" * len(names))
            db.execute(
                f"INSERT OR REPLACE INTO alert ({', '.join(names)}) VALUES ({marks})",
                [str(value) if isinstance(value := getattr(row, name), Kind) else value for name in names],
            )


def _alert(row: Remembered, state: AlertState, now: float) -> Alert:
    over = state in (AlertState.OVER, AlertState.PASSED)
    oldest = None if row.oldest_at is None or over else now - row.oldest_at
    words = row.over_words if over else row.words
    if state is AlertState.AGAIN:
        words = f"{words} It has been so for {in_words(now - row.since)}."
    return Alert(row.kind, row.subject, state, words, 0 if over else row.count, oldest, now)
