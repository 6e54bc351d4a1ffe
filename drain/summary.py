"""What a pass came to."""

from collections import Counter
from dataclasses import dataclass, field

from drain.errors import DrainError
from drain.outcome import Outcome

_PROGRESS = (Outcome.DELIVERED, Outcome.MOVED, Outcome.QUARANTINED, Outcome.DISCARDED)
LEFT = (Outcome.DEFERRED, Outcome.UNKNOWN, Outcome.WAITING, Outcome.NO_KEY, Outcome.FAILED)


@dataclass
class Summary:
    """What a pass came to."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    listed: int = 0
    pending: int | None = None  # what is left of that; None: R2 did not say how much there is
    oldest_at: float | None = None  # when the oldest of these was written; Unix time
    missing: int = 0
    asided: Counter[str] = field(default_factory=Counter)  # reasons of what went to quarantine, but for filters'
    keyless: Counter[str] = field(default_factory=Counter)  # what was seen to have no key, in words
    waiting: Counter[str] = field(default_factory=Counter)  # what deferred mail waits for
    woken: int = 0  # of these, what is due after all
    no_junk_mailbox: bool | None = None  # whether SPAM_RCPT was refused; None: not asked for
    connected: bool = False  # whether the mail server let us in
    answered: set[str] = field(default_factory=set)  # filters that had something to say
    failing: dict[str, str] = field(default_factory=dict)  # filters that had not, and why
    bugs: int = 0
    stopped: bool = False
    seconds: float = 0.0
    error: DrainError | None = None

    def after(self, first: "Summary") -> "Summary":
        """Both as one, where the second looked again at what waited in the first."""
        again = (Outcome.WAITING, Outcome.NO_KEY)  # seen in both
        for name in ("outcomes", "asided"):
            getattr(self, name).update(getattr(first, name))
        for outcome in again:
            self.outcomes[outcome] -= first.outcomes[outcome]
        self.listed += first.listed - sum(first.outcomes[outcome] for outcome in again)
        self.missing += first.missing
        self.connected = self.connected or first.connected
        self.answered |= first.answered
        self.bugs += first.bugs
        self.seconds += first.seconds
        return self

    @property
    def progressed(self) -> bool:
        """Whether any object left ``pending/``: then another look is worth while at once."""
        return any(self.outcomes[outcome] for outcome in _PROGRESS)

    @property
    def no_key(self) -> int:
        """Mails that no key here opens."""
        return self.outcomes[Outcome.NO_KEY]

    @property
    def left(self) -> int:
        """Mails seen that wait for another pass."""
        return sum(self.outcomes[outcome] for outcome in LEFT)
