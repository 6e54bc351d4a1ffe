"""An alert: what a person is told, and the ways out that it takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from drain.text import clean


class Kind(StrEnum):
    """What it is about; also ``MAIL_ALERT_KIND``."""

    BACKLOG_AGE = "backlog-age"
    BACKLOG_COUNT = "backlog-count"
    BACKLOG_GROWTH = "backlog-growth"
    BUCKET = "bucket"
    MAIL_SERVER = "mail-server"
    PASS = "pass"  # noqa: S105 (a pass over the bucket)
    STALE = "stale"
    QUARANTINE = "quarantine"
    NO_KEY = "no-key"
    MISSING = "missing"
    NO_REPLY = "no-reply"
    FILTER = "filter"
    JUNK = "junk"
    RELAY_QUEUE = "relay-queue"
    TEST = "test"


class AlertState(StrEnum):
    """Where it is; also ``MAIL_ALERT_STATE``. `BEGINS` and `PASSED` are for the log alone."""

    BEGINS = "begins"  # so, and not long enough to be told
    PASSED = "passed"  # over before it was
    ON = "on"
    AGAIN = "again"  # still on, told again
    OVER = "over"

    @property
    def is_told(self) -> bool:
        """Whether a person hears of it."""
        return self not in (AlertState.BEGINS, AlertState.PASSED)


@dataclass(frozen=True)
class Alert:
    """One alert as it is told.

    ``subject`` says which one where there can be several of a kind (a filter's name);
    ``words`` is one sentence or more, safe to show; ``count`` is in mails, 0 where
    that means nothing; ``oldest_seconds`` is the age of the oldest of them, or None.
    ``at`` is Unix time.
    """

    kind: Kind
    subject: str
    state: AlertState
    words: str
    count: int
    oldest_seconds: float | None
    at: float

    @property
    def title(self) -> str:
        """A few words: ``backlog-age``, ``filter ai: over``."""
        about = f"{self.kind} {self.subject}" if self.subject else str(self.kind)
        return clean({AlertState.ON: about, AlertState.AGAIN: f"{about}: still so"}.get(self.state, f"{about}: over"))

    @property
    def as_json(self) -> Mapping[str, object]:
        """For programs."""
        return {
            "kind": str(self.kind),
            "subject": self.subject,
            "state": str(self.state),
            "message": self.words,
            "count": self.count,
            "oldest_seconds": self.oldest_seconds,
            "at": self.at,
        }


class NotSent(Exception):
    """An outlet did not take an alert; the message says why, in a sentence safe to show."""


class Outlet(Protocol):
    """A way out. Calls come from several threads at once."""

    name: str

    def send(self, alert: Alert, stopped: Callable[[], bool]) -> None:
        """Tells it, within a time limit of its own (at most some 35 s), and ends early once *stopped* says so.

        Raises:
            NotSent: it was not told; it is tried again later.
        """
