"""What became of mails, for a person: a row a mail, and the steps of one."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from drain.history import Event, Record
from drain.prefixes import Prefixes
from drain.show.table import minute, table
from drain.state import State
from drain.text import clean
from drain.verdicts import Kept

_SHORT = 12  # as much of an id as names it
_WORDS = 60
_COUNTED_SECONDS = 120.0
_CLOCK = "%Y-%m-%d %H:%M:%S.%f"


@dataclass(frozen=True)
class Step:
    """One step of a mail: when (Unix time), how long after the last time of the one before (None for the first), what, and words on it."""

    at: float
    seconds: float | None
    what: str
    words: str


@dataclass(frozen=True)
class Trace:
    """One mail, and all that is known of it; ``keys`` are where its object is known to lie."""

    record: Record
    events: Sequence[Event]
    verdicts: Sequence[Kept]
    keys: Sequence[str]
    prefixes: Prefixes

    @property
    def steps(self) -> list[Step]:
        """From the edge to where it is now. The edge has a clock of its own: its step can seem to be later than ours."""
        row = self.record.row
        steps: list[Step] = []
        before: float | None = None

        def add(at: float, what: str, words: str, last_at: float | None = None) -> None:
            nonlocal before
            steps.append(Step(at, None if before is None else at - before, what, words))
            before = at if last_at is None else last_at

        if self.record.stored_at is not None:
            add(self.record.stored_at, "stored", "at the edge, by its clock")
        add(row.first_seen_at, "first seen", "")
        for event in self.events:
            times = f"{event.times} times, the last at {_second(event.last_at)}" if event.times > 1 else ""
            add(event.at, event.what, ": ".join(filter(None, (times, event.words))), event.last_at)
        if not self.events:
            add(row.updated_at, row.state.value, "the steps before are not known")
        return steps

    @property
    def place(self) -> str:
        """Where its object is now."""
        row = self.record.row
        if row.missing_at is not None:
            return f"gone from the bucket, found out at {minute(row.missing_at)}"
        if row.state is State.DISCARDED:
            return "deleted"
        if self.keys:
            return ", ".join(self.keys)
        if row.state is State.SETTLED:
            return f"{self.prefixes.processed}{row.identity}-…, until a lifecycle rule removes it"
        if row.state is State.QUARANTINED:
            return f"{self.prefixes.quarantine}{row.identity}-…"
        return "not known"

    def next(self, now: float) -> str:
        """What comes next; "" for nothing."""
        row = self.record.row
        if row.missing_at is not None:
            return "nothing, unless its object is found again"
        if row.state in (State.DEFERRED, State.INJECTING):
            due = row.next_attempt_at
            act = (
                "another try"
                if row.state is State.DEFERRED
                else "it is sent again, unless it is in the mailbox already"
            )
            when = "with the next pass" if due is None or due <= now else f"at {minute(due)}, in {duration(due - now)}"
            return f"{act}, {when}"
        return {
            State.DELIVERED: "its object is moved, with the next pass",
            State.SETTING_ASIDE: "its object is moved to quarantine, with the next pass",
            State.DISCARDING: "its object is deleted, with the next pass",
            State.QUARANTINED: f"drain quarantine show, release or delete {row.identity[:_SHORT]}",
        }.get(row.state, "")


def rows(records: Sequence[Record], stream: TextIO) -> None:
    """The table of mails."""
    cells = [
        (
            minute(record.row.first_seen_at),
            record.row.identity[:_SHORT],
            record.row.from_whom,
            record.row.recipient,
            str(record.row.size),
            record.row.state.value,
            clean(_why(record), _WORDS),
        )
        for record in records
    ]
    table(("first seen", "id", "from", "to", "size", "state", "why"), cells, stream)


def trace(traced: Trace, now: float, stream: TextIO) -> None:
    """All that is known of one mail, step by step."""
    row = traced.record.row
    lines = [
        f"id       {row.identity}",
        f"from     <{row.sender}>",
        f"to       {row.recipient}" + (f" (mailbox {row.mailbox})" if row.mailbox else ""),
        f"size     {row.size} bytes",
        f"state    {row.state.value}, since {_second(row.updated_at)}",
        f"tries    {row.attempts} failed, {row.reinjections} of unknown end",
        f"object   {traced.place}",
    ]
    lines += [f"next     {words}"] if (words := traced.next(now)) else []
    for kept in traced.verdicts:
        verdict = kept.verdict
        points = "" if verdict.score is None else f" {verdict.score:.1f} points"
        action = f" {verdict.action.word}" if verdict.action else ""
        lines.append(f"filter   {kept.filter}:{points}{action} {verdict.reason}".rstrip())
    stream.write("".join(f"{clean(line, limit=1000)}\n" for line in lines) + "\n")
    cells = [
        (_second(step.at), "" if step.seconds is None else duration(step.seconds), step.what, step.words)
        for step in traced.steps
    ]
    table(("time", "after", "step", "words"), cells, stream)


def duration(seconds: float) -> str:
    """A time in the unit that fits: ``4 ms``, ``1.2 s``, ``5 min``, ``3.5 h``, ``2.1 d``; below zero with its sign."""
    size = abs(seconds)
    if size < 1:
        return f"{seconds * 1000:.0f} ms"
    if size < _COUNTED_SECONDS:
        return f"{seconds:.1f} s"
    if size < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if size < 2 * 86400 else f"{seconds / 86400:.1f} d"


def _why(record: Record) -> str:
    """Code and words of what held it up; of a mail at its end, its mailbox."""
    row = record.row
    if row.missing_at is not None:
        return "missing: its object is gone from the bucket"
    if row.state in (State.SETTLED, State.DELIVERED):
        return row.mailbox or row.reason or ""
    return ": ".join(filter(None, (row.reason, row.words)))


def _second(at: float) -> str:
    """A Unix time in local time, to the millisecond."""
    return datetime.datetime.fromtimestamp(at).astimezone().strftime(_CLOCK)[:-3]
