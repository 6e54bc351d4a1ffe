"""What is going on, as it is shown, exported and drawn; `gather` reads it from drain's files."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from drain.logbook import Pass

_WEEK = 7
_HOUR_SECONDS = 3600.0
_DAY_SECONDS = 86400.0


class Health(StrEnum):
    """How it is, all in all."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Pending:
    """What is in the bucket, as it was at ``seen_at`` (None: never seen).

    ``live``: it was asked for just now. ``count`` is None if that is not known;
    ``trouble`` is then what R2 said.
    """

    count: int | None = None
    oldest_at: float | None = None
    seen_at: float | None = None
    live: bool = False
    trouble: str = ""


@dataclass(frozen=True)
class Ends:
    """What became of mails in some time, in mails."""

    delivered: int = 0
    quarantined: int = 0
    discarded: int = 0


@dataclass(frozen=True)
class Day:
    """One day, from local midnight; ``date`` is ISO 8601.

    ``delay_median`` and ``delay_p95`` are seconds from the bucket to the inbox, None
    without a delivery; of mail that a person released or replayed they say nothing.
    ``most_pending`` is the largest backlog, None if no pass noted one.
    """

    date: str
    ends: Ends
    delay_median: float | None = None
    delay_p95: float | None = None
    most_pending: int | None = None


@dataclass(frozen=True)
class Deferred:
    """Mails that wait for the same reason; ``words`` are those of the last of them."""

    reason: str
    count: int
    next_attempt_at: float | None
    words: str


@dataclass(frozen=True)
class Outgoing:
    """The relay's queue: what is open, in entries, and what became of the rest in the last seven days.

    ``diagnostic`` is what the upstream said last of what is open.
    """

    waiting: int
    sending: int
    held: int
    oldest_at: float | None
    diagnostic: str
    relayed_week: int
    failed_week: int


@dataclass(frozen=True)
class On:
    """An alert that is on."""

    kind: str
    subject: str
    words: str
    count: int
    oldest_at: float | None
    since: float
    told_at: float


@dataclass(frozen=True)
class Backlog:
    """The most that waited in the bucket in an hour; ``at`` is when that hour's last pass ended."""

    at: float
    pending: int


@dataclass(frozen=True)
class Status:
    """All of it. Times are Unix times, words are safe to show.

    ``concerns`` are the reasons of ``health``. ``schemas`` is the version of each file
    that is there. ``days`` are the last thirty, today the last; empty if the ledger
    cannot be read. ``last_good_pass`` came to its end and saw all of the bucket;
    ``working_at`` is when one that takes long was last seen to get on. ``quarantine``
    and ``unfinished`` are mails by reason and by state; ``missing`` are those whose
    object was gone. ``relay`` is None if there is no queue.
    """

    at: float
    health: Health
    concerns: tuple[str, ...]
    version: str
    python: str
    schemas: Mapping[str, int]
    pending: Pending
    last_pass: Pass | None
    last_good_pass: Pass | None
    working_at: float | None
    deferred: tuple[Deferred, ...]
    quarantine: Mapping[str, int]
    unfinished: Mapping[str, int]
    missing: int
    relay: Outgoing | None
    alerts: tuple[On, ...]
    days: tuple[Day, ...]
    backlog: tuple[Backlog, ...]
    troubles: tuple[str, ...]

    @property
    def today(self) -> Ends:
        """Since local midnight."""
        return self._ends(1)

    @property
    def week(self) -> Ends:
        """Today and the six days before."""
        return self._ends(_WEEK)

    def _ends(self, days: int) -> Ends:
        values = [dataclasses.astuple(day.ends) for day in self.days[-days:]]
        return Ends(*(sum(column) for column in zip(*values, strict=True)))

    @property
    def as_json(self) -> Mapping[str, object]:
        """For programs: the names above, and ``today`` and ``week``."""
        sums = {"today": dataclasses.asdict(self.today), "week": dataclasses.asdict(self.week)}
        return {**dataclasses.asdict(self), **sums}


def span(seconds: float) -> str:
    """A length of time in its largest unit: ``0.4 s``, ``12 s``, ``5 min``, ``30 h``, ``4 d``."""
    # Not "60 min": each begins where it is what rounding gives.
    for unit, length, begin in (
        ("d", _DAY_SECONDS, 47.5 * _HOUR_SECONDS),
        ("h", _HOUR_SECONDS, 3570.0),
        ("min", 60.0, 59.5),
    ):
        if seconds >= begin:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s" if 0.01 <= seconds < 10 else f"{max(seconds, 0):.0f} s"
