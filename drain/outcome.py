"""What one look at one object came to, and the steps on the way, by name."""

from dataclasses import dataclass
from enum import StrEnum

from drain.listing import ListedObject


class Step(StrEnum):
    """The points of a pass, in order, at which the crash suite kills the process."""

    LISTED = "listed"
    LOCKED = "locked"
    CONNECTED = "connected"
    FETCHED = "fetched"
    OPENED = "opened"
    FILTERED = "filtered"
    ROUTED = "routed"  # RCPT taken
    INJECTING = "injecting"  # committed
    GO_AHEAD = "go-ahead"  # 354 heard
    SENT = "sent"  # all but the final dot
    DOT = "dot"
    ACCEPTED = "accepted"  # 250 heard
    DELIVERED = "delivered"  # committed
    COPIED = "copied"
    REMOVED = "removed"
    SETTLED = "settled"  # committed
    DEFERRED = "deferred"  # committed
    SETTING_ASIDE = "setting-aside"  # committed
    QUARANTINED = "quarantined"  # committed
    DISCARDING = "discarding"  # committed
    DISCARDED = "discarded"  # committed


class Outcome(StrEnum):
    """What one look at one object came to."""

    DELIVERED = "delivered"
    MOVED = "moved"  # delivered before; only the move was left
    QUARANTINED = "quarantined"
    DISCARDED = "discarded"  # by a filter, and the person's word
    DEFERRED = "deferred"
    UNKNOWN = "unknown"  # no reply to the final dot
    WAITING = "waiting"  # its next attempt is not due
    GONE = "gone"  # somebody else moved it
    NO_KEY = "no-key"
    FAILED = "failed"  # R2 or drain failed at it; it stays as it is


@dataclass(frozen=True)
class Copied:
    """A delivered mail's object that lies under ``processed/`` too, and has to leave ``pending/``.

    ``at`` is when the copy was asked for, by the clock of `ends`.
    """

    version: ListedObject
    identity: str
    at: float


@dataclass(frozen=True)
class Result:
    """An outcome with what a person wants to know of it; and what it wants yet, to be as it says."""

    outcome: Outcome
    key: str
    recipient: str = ""
    mailbox: str = ""
    why: str = ""
    words: str = ""
    verdict: str = ""  # what the filters came to, in words
    copied: Copied | None = None
