"""Where a mail is, and what the ledger knows of it."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a mail is; see the package docstring."""

    INJECTING = "injecting"
    DELIVERED = "delivered"
    SETTLED = "settled"
    DEFERRED = "deferred"
    SETTING_ASIDE = "setting_aside"
    QUARANTINED = "quarantined"
    DISCARDING = "discarding"
    DISCARDED = "discarded"


@dataclass(frozen=True)
class Row:
    """One mail's row."""

    identity: str
    state: State
    recipient: str
    sender: str
    size: int
    mailbox: str | None
    reason: str | None
    words: str | None
    attempts: int
    undecided: int
    reinjections: int
    next_attempt_at: float | None
    first_seen_at: float
    updated_at: float
    missing_at: float | None
    released: int
