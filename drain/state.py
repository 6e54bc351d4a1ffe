"""Where a mail is, and what the ledger knows of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


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


# The reason of a mail that was only ever seen under ``processed/``.
REBUILT = "rebuilt"


@dataclass(frozen=True)
class Troubles:
    """What the ledger has that a person should know of.

    ``quarantined`` is how many mails for which reason, but for those that a filter
    put there; ``missing`` were found gone from the bucket in the last day;
    ``unanswered`` are those that the mail server never answers to.
    """

    quarantined: Mapping[str, int]
    missing: int
    unanswered: int


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

    @classmethod
    def of(cls, values: Iterable[Any]) -> "Row":
        """The row of these values, in the order of the fields."""
        identity, state, *rest = values
        return cls(identity, State(state), *rest)

    @property
    def from_whom(self) -> str:
        """The sender as it is shown: ``<>`` for a bounce, ``?`` where that is not known."""
        return self.sender or ("?" if self.reason == REBUILT else "<>")
