"""What is so and what is not, of what a pass came to.

A condition that was not looked at in a pass is not there: what is remembered of it
stays as it is. Thresholds of 0 mean "never": such a condition is not so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from drain.alerts.alert import Kind
from drain.errors import BucketRefused, BucketUnavailable, LockHeld, MailServerRefused, MailServerUnavailable
from drain.state import Troubles
from drain.summary import Summary

_HOUR = 3600.0
_DAY = 86400.0
_NEVER = float("inf")


@dataclass(frozen=True)
class Condition:
    """One thing that is so (``on``) or is not; ``words`` say which.

    ``after_seconds`` is how long it may be so before it is an alert; ``count`` is in
    mails, ``oldest_at`` the Unix time of the oldest of them.
    """

    kind: Kind
    on: bool
    words: str
    subject: str = ""
    count: int = 0
    oldest_at: float | None = None
    after_seconds: float = 0.0


@dataclass(frozen=True)
class Thresholds:
    """From when on a condition is an alert; 0: never."""

    days: float
    count: int
    growth_passes: int
    offline_seconds: float
    server_seconds: float
    quarantine: int
    relay_seconds: float
    stale_seconds: float


@dataclass(frozen=True)
class Conditions:
    """The conditions of a pass. ``junk`` is the junk mailbox, ``fail_open`` are the filters that mail passes without."""

    thresholds: Thresholds
    catch_all: str
    quarantine: str
    junk: str
    fail_open: frozenset[str]

    def of(self, summary: Summary, troubles: Troubles | None, growth: int, now: float) -> Iterator[Condition]:
        """Those that the pass says something of.

        *troubles* are the ledger's, None if nobody could look; *growth* is over how many
        passes the backlog has grown.
        """
        yield from self._trouble(summary)
        yield from self._backlog(summary, growth, now)
        yield from self._ledger(troubles)
        yield from self._filters(summary)
        yield _lasting(Kind.STALE, 0.0, on=False, words="Passes end again.")

    def hanging(self, seconds: float) -> Iterator[Condition]:
        """Whether a pass that has not moved for so long is an alert."""
        limit = self.thresholds.stale_seconds or _NEVER
        words = f"A pass has hung for {in_words(seconds)}, and nothing is delivered. Restart drain."
        if seconds >= limit:
            yield Condition(Kind.STALE, on=True, words=words)

    def idle(self, seconds: float) -> Iterator[Condition]:
        """Whether it is an alert that no pass has ended for so long while another drain holds the lock."""
        if seconds >= (self.thresholds.stale_seconds or _NEVER):
            words = f"Another drain has held the lock, and no pass has ended, for {in_words(seconds)}. Is it stuck?"
            yield Condition(Kind.STALE, on=True, words=words)

    def relay(self, waiting: int, oldest_at: float | None, now: float) -> Condition:
        """Whether outgoing mail is stuck: *waiting* mails, the oldest taken then."""
        limit = self.thresholds.relay_seconds or _NEVER
        age = 0.0 if oldest_at is None else now - oldest_at
        if age < limit:
            return Condition(Kind.RELAY_QUEUE, on=False, words="Outgoing mail is not stuck any more.")
        words = (
            f"{_mails(waiting)} cannot be sent, the oldest for {in_words(age)}. `drain relay queue list` says what the"
            " upstream answers."
        )
        return Condition(Kind.RELAY_QUEUE, on=True, words=words, count=waiting, oldest_at=oldest_at)

    def _trouble(self, summary: Summary) -> Iterator[Condition]:
        kind, limits = kind_of(summary), self.thresholds
        words = trouble_of(summary)
        if kind is Kind.BUCKET:
            yield _lasting(kind, limits.offline_seconds, on=True, words=f"R2 is in the way of mail: {words}")
            return
        yield _lasting(Kind.BUCKET, limits.offline_seconds, on=False, words="R2 answers again.")
        if kind is Kind.MAIL_SERVER:
            yield _lasting(kind, limits.server_seconds, on=True, words=f"The mail server takes no mail: {words}")
        elif summary.connected or not summary.listed:
            yield _lasting(Kind.MAIL_SERVER, limits.server_seconds, on=False, words="The mail server is there again.")
        if kind is Kind.PASS:
            yield _lasting(kind, limits.server_seconds, on=True, words=f"No pass comes to its end: {words}")
        elif not summary.stopped:
            yield _lasting(Kind.PASS, limits.server_seconds, on=False, words="Passes come to their end again.")

    def _backlog(self, summary: Summary, growth: int, now: float) -> Iterator[Condition]:
        if summary.pending is None:
            return
        limits, oldest_at = self.thresholds, summary.oldest_at
        about = {"count": summary.pending, "oldest_at": oldest_at}
        age = 0.0 if oldest_at is None else now - oldest_at
        waits = f"{_mails(summary.pending)} in the bucket, the oldest for {in_words(age)}"
        why = ", ".join(f"{number} {reason}" for reason, number in summary.waiting.items())
        why = f" They wait for: {why}." if why else ""
        yield Condition(
            Kind.BACKLOG_AGE,
            on=age >= (limits.days * _DAY or _NEVER),
            words=f"Mail waits for long: {waits}.{why}" if oldest_at else "No mail waits for long any more.",
            **about,  # type: ignore[arg-type]  # as its fields are
        )
        many = summary.pending > (limits.count or _NEVER)
        words = f"Much mail waits: {waits}.{why}" if many else "Not much mail waits any more."
        yield Condition(Kind.BACKLOG_COUNT, on=many, words=words, **about)  # type: ignore[arg-type]
        grows = growth >= (limits.growth_passes or _NEVER)
        words = f"More mail waits after each of {growth} passes: {waits}.{why}" if grows else "No more mail piles up."
        yield Condition(Kind.BACKLOG_GROWTH, on=grows, words=words, **about)  # type: ignore[arg-type]

    def _ledger(self, troubles: Troubles | None) -> Iterator[Condition]:
        if troubles is None:
            return
        number = sum(troubles.quarantined.values())
        reasons = ", ".join(f"{many} {reason}" for reason, many in troubles.quarantined.items())
        words = (
            f"{_mails(number)} under {self.quarantine}: {reasons}.{_hint(troubles.quarantined, self.catch_all)}"
            " `drain quarantine list` shows them."
        )
        full = number >= (self.thresholds.quarantine or _NEVER)
        words = words if full else "Nothing is in quarantine that should not be."
        yield Condition(Kind.QUARANTINE, on=full, words=words, count=number)
        lost = troubles.missing > 0
        words = (
            f"{_mails(troubles.missing)} not finished and gone from the bucket: removed by a lifecycle rule,"
            " overwritten, or taken by somebody else. The log says which."
        )
        words = words if lost else "No more mail has gone missing since."
        yield Condition(Kind.MISSING, on=lost, words=words, count=troubles.missing)
        silent = troubles.unanswered > 0
        words = (
            f"The mail server never answers to {_mails(troubles.unanswered)}, and may have a copy of every try."
            if silent
            else "No mail is without an answer any more."
        )
        yield Condition(Kind.NO_REPLY, on=silent, words=words, count=troubles.unanswered)

    def _filters(self, summary: Summary) -> Iterator[Condition]:
        for name in summary.answered - summary.failing.keys():
            yield Condition(Kind.FILTER, on=False, words="It works again.", subject=name)
        for name, words in summary.failing.items():
            means = "Mail goes on without it." if name in self.fail_open else "Mail waits for it."
            yield _lasting(Kind.FILTER, self.thresholds.server_seconds, on=True, words=f"{words} {means}", subject=name)
        if summary.no_junk_mailbox is not None:
            words = "The mail server has no such mailbox; spam goes to its own, tagged."
            words = words if summary.no_junk_mailbox else "It is there."
            yield Condition(Kind.JUNK, on=summary.no_junk_mailbox, words=words, subject=self.junk)
        # A pass that was halted has opened nothing.
        if summary.no_key or (summary.pending is not None and summary.error is None and not summary.stopped):
            (words, _), *others = summary.keyless.most_common() or [("", 0)]
            more = f" And {len(others)} other reason{'s' * (len(others) > 1)} like it." if others else ""
            waits = f"{_mails(summary.no_key)} cannot be opened; such mail waits in the bucket."
            yield Condition(
                Kind.NO_KEY,
                on=summary.no_key > 0,
                words=f"{waits} {words}{more}".strip() if summary.no_key else "All mail has its key.",
                count=summary.no_key,
            )


def kind_of(summary: Summary) -> Kind | None:
    """Which kind of alert what ended a pass belongs to; None for nothing."""
    error = summary.error
    if error is None or isinstance(error, LockHeld):
        return Kind.PASS if summary.bugs and error is None else None
    if isinstance(error, BucketUnavailable | BucketRefused):
        return Kind.BUCKET
    return Kind.MAIL_SERVER if isinstance(error, MailServerUnavailable | MailServerRefused) else Kind.PASS


def trouble_of(summary: Summary) -> str:
    """What ended it, in words; "" for nothing."""
    if kind_of(summary) is None:
        return ""
    return str(summary.error) if summary.error else "drain met a bug; the log says where. Please report it."


def in_words(seconds: float) -> str:
    """``3 days``, ``2 hours``, ``10 minutes``."""
    for unit, length in (("day", _DAY), ("hour", _HOUR), ("minute", 60.0)):
        if seconds >= 2 * length or (seconds >= length and unit != "day"):
            number = int(seconds // length)
            return f"{number} {unit}{'s' * (number != 1)}"
    return f"{max(int(seconds), 0)} seconds"


def _lasting(kind: Kind, limit_seconds: float, *, on: bool, words: str, subject: str = "") -> Condition:
    """One that has to last before it is an alert."""
    return Condition(kind, on=on and limit_seconds > 0, words=words, subject=subject, after_seconds=limit_seconds)


def _mails(number: int) -> str:
    return f"{number} mail{'s' * (number != 1)}"


def _hint(reasons: Mapping[str, int], catch_all: str) -> str:
    """Refusals at RCPT, catch-all included, are seldom the mail's fault."""
    if not {"no-mailbox", "recipient-refused"} & set(reasons):
        return ""
    if not catch_all:
        return " There is no catch-all (INJECT_RCPT=none). Does the mail server have the domains in MAIL_DOMAIN?"
    return " Does the mail server have the domains in MAIL_DOMAIN, and the mailbox in INJECT_RCPT?"
