"""What was measured, as figures: medians, ratios, goals and the table of them."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

AT_LEAST = "≥"
AT_MOST = "≤"
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Goal:
    """What a figure is to be: *sign* is `AT_LEAST` or `AT_MOST`."""

    sign: str
    value: float

    def met_by(self, value: float) -> bool:
        """Whether that value will do."""
        return value >= self.value if self.sign == AT_LEAST else value <= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


@dataclass(frozen=True)
class Figure:
    """One thing that is measured, in *unit* ("" for a ratio or a number); *note* says what it is made of."""

    name: str
    goal: Goal | None = None
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Turn:
    """One round: the first is 1. A *quick* one shows whether it runs, not what it costs."""

    number: int
    quick: bool

    def of(self, whole: int, quick: int) -> int:
        """How much of it: *whole*, or in a quick turn *quick*."""
        return quick if self.quick else whole


@dataclass(frozen=True)
class Work:
    """What is done in each round, and what is measured of it.

    ``measure`` does one round and gives values by the figures' names; it may leave
    one out that it does not measure in every round.
    """

    name: str
    what: str
    measure: Callable[[Any, Turn], Mapping[str, float]]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, and its values, one a round. ``error`` says why there are none."""

    work: str
    figure: Figure
    values: tuple[float, ...] = ()
    error: str = ""

    @property
    def value(self) -> float | None:
        """The median."""
        return statistics.median(self.values) if self.values and not self.error else None

    @property
    def met(self) -> bool | None:
        """Whether the median meets the goal; None where there is no goal, False for an error."""
        goal = self.figure.goal
        if goal is None:
            return None
        return self.value is not None and goal.met_by(self.value)

    def as_json(self) -> dict[str, object]:
        """The same for a program."""
        return {
            "work": self.work,
            "figure": self.figure.name,
            "unit": self.figure.unit,
            "value": self.value,
            "values": list(self.values),
            "goal": str(self.figure.goal) if self.figure.goal else None,
            "met": self.met,
            "note": self.figure.note or None,
            "error": self.error or None,
        }


def scaled(few: float, more: float, few_mails: int, more_mails: int, mails: int) -> float:
    """What *mails* would take, if each takes what one of the difference between two runs took; the start counts once."""
    each = (more - few) / (more_mails - few_mails)
    return few + each * (mails - few_mails)


def mib(size: float) -> float:
    """Bytes as MiB."""
    return size / _MIB


def table(rows: Iterable[Row]) -> list[str]:
    """The lines of the table, and below it the notes and errors, numbered."""
    heads = ("work", "figure", "goal", "median", "min-max", "met")
    notes: list[str] = []
    lines = [heads]
    for row in rows:
        words = f"error: {row.error}" if row.error else row.figure.note
        if words and words not in notes:
            notes.append(words)
        mark = f" [{notes.index(words) + 1}]" if words else ""
        lines.append((row.work, row.figure.name + mark, str(row.figure.goal or ""), *_cells(row)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    aligned: list[Callable[[str, int], str]] = [str.ljust, str.ljust, str.rjust, str.rjust, str.rjust, str.ljust]
    drawn = [
        "  ".join(align(cell, width) for align, cell, width in zip(aligned, line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return [*drawn, "", *(f"[{number}] {words}" for number, words in enumerate(notes, 1))]


def _cells(row: Row) -> tuple[str, str, str]:
    if row.value is None:
        return "error", "", "error"
    spread = f"{_shown(min(row.values))}-{_shown(max(row.values))}" if len(row.values) > 1 else ""
    verdict = {None: "", True: "yes", False: "NO"}[row.met]
    return f"{_shown(row.value)} {row.figure.unit}".rstrip(), spread, verdict


def _shown(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
