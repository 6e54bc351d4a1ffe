"""The ends that one look at a mail can come to, each with its commits and its move.

Every end is committed in the ledger before the object is moved or deleted, and
after that again: what a crash leaves in between is the table in the package
docstring.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from drain import backoff
from drain.bucket import Bucket
from drain.inject import SessionLost
from drain.ledger import REPLAY_REFUSED, Ledger
from drain.listing import ListedObject
from drain.log import Log
from drain.mail import Mail
from drain.outcome import Copied, Outcome, Result, Step
from drain.prefixes import Prefixes

_FIRST_RETRY_SECONDS = 60.0
_LAST_RETRY_SECONDS = 3600.0
# Each of these tries can be a copy more in the mailbox.
_FIRST_NO_REPLY_RETRY_SECONDS = 300.0
_LAST_NO_REPLY_RETRY_SECONDS = 86400.0
_REASON_METADATA = "drain-reason"
# Another mail that took the name since the copy would be deleted unseen: see the package docstring.
_FRESH_SECONDS = 1.0


def awake_or_not() -> float:
    """Seconds that only go forward, and go on while the machine sleeps, which `time.monotonic` does not on Linux."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True)
class Ends:
    """What is shared by all mails of a pass; calls may come from several threads."""

    bucket: Bucket
    ledger: Ledger
    prefixes: Prefixes
    log: Log
    step: Callable[[Step, str], None] = lambda step, name: None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = awake_or_not

    def settle(self, version: ListedObject, identity: str, result: Result, *, size: int) -> Result:
        """Copies a delivered mail's object to ``processed/``; *result* says how it was delivered.

        What has to leave ``pending/`` then is ``copied`` in the answer, and is for `remove`.
        """
        # Said before the move: the mail is there, whatever R2 answers now.
        self.say(result, identity, size=size)
        to = self.prefixes.moved(self.prefixes.processed, identity, version.key)
        there = to == version.key
        asked_at = self.monotonic()
        if not there and self.bucket.copy(version, to):
            self.step(Step.COPIED, identity)
            return replace(result, copied=Copied(version, identity, asked_at))
        self.ledger.settled(version, identity, self.clock())
        self.step(Step.SETTLED, identity)
        return result if there or result.outcome is Outcome.DELIVERED else Result(Outcome.GONE, version.key)

    def remove(self, copied: Copied) -> None:
        """The second half of such a move."""
        # A delete cannot be made conditional, so what had to wait for it is asked for before.
        self.bucket.remove_version(copied.version, lambda: self.monotonic() - copied.at < _FRESH_SECONDS)
        self.step(Step.REMOVED, copied.identity)
        self.ledger.settled(copied.version, copied.identity, self.clock())
        self.step(Step.SETTLED, copied.identity)

    def set_aside(
        self,
        version: ListedObject,
        mail: Mail,
        reason: str,
        words: str,
        metadata: Mapping[str, str] | None,
        verdict: str = "",
    ) -> Result:
        """Moves an object to ``quarantine/``, the reason's code beside its metadata where those are known.

        The reason's words stay in the ledger: they can hold addresses or anything else.
        *verdict* is what the filters came to, where it is for them. What was to be replayed
        stays where it is: it was delivered before.
        """
        if version.key.startswith(self.prefixes.processed):
            self.ledger.replay_refused(version, mail.identity, f"{reason}: {words}", self.clock())
            result = Result(Outcome.MOVED, version.key, mail.recipient, why=REPLAY_REFUSED, words=words)
            self.say(result, mail.identity)
            return result
        self.ledger.setting_aside(version, mail, reason, words, self.clock())
        self.step(Step.SETTING_ASIDE, mail.identity)
        to = self.prefixes.moved(self.prefixes.quarantine, mail.identity, version.key)
        labelled = None if metadata is None else {**metadata, _REASON_METADATA: reason}
        # What was released and refused again lies there already.
        moved = self._move(version, to, labelled, mail.identity)
        self.ledger.quarantined(version, mail.identity, self.clock())
        self.step(Step.QUARANTINED, mail.identity)
        result = Result(Outcome.QUARANTINED, version.key, mail.recipient, why=reason, words=words, verdict=verdict)
        return self._gone_from_pending(result, mail, moved=moved)

    def discard(self, version: ListedObject, mail: Mail, reason: str, words: str) -> Result:
        """Deletes an object, undelivered: only ever because a filter says so and the person lets it."""
        self.ledger.discarding(version, mail, reason, words, self.clock())
        self.step(Step.DISCARDING, mail.identity)
        # A delete cannot be made conditional. Another mail may have taken the name since,
        # and a filter can take a minute; so it is asked just before.
        unchanged = self.bucket.is_unchanged(version)
        if unchanged:
            self.bucket.remove(version.key)
            self.step(Step.REMOVED, mail.identity)
        self.ledger.discarded(version, mail.identity, self.clock())
        self.step(Step.DISCARDED, mail.identity)
        result = Result(Outcome.DISCARDED, version.key, mail.recipient, why=reason, words=words)
        return self._gone_from_pending(result, mail, moved=unchanged)

    def defer(
        self,
        version: ListedObject,
        mail: Mail,
        reason: str,
        words: str,
        *,
        undecided: bool = False,
        longest_seconds: float = _LAST_RETRY_SECONDS,
    ) -> Result:
        """It stays, and is tried again later, after *longest_seconds* at the longest."""
        row, now = self.ledger.find(mail.identity), self.clock()
        wait = backoff.seconds(row.attempts if row else 0, _FIRST_RETRY_SECONDS, longest_seconds)
        self.ledger.deferred(version, mail, reason, words, now + wait, now, undecided=undecided)
        self.step(Step.DEFERRED, mail.identity)
        result = Result(Outcome.DEFERRED, version.key, mail.recipient, why=reason, words=words)
        self.say(result, mail.identity)
        return result

    def no_reply(self, version: ListedObject, mail: Mail, lost: SessionLost) -> Result:
        """The mail server may have it: it stays, and is tried again later, and more rarely each time."""
        row, now = self.ledger.find(mail.identity), self.clock()
        # Not `attempts`: those that nothing was sent in left no copy.
        tries = 1 + (row.reinjections if row else 0)
        wait = backoff.seconds(tries - 1, _FIRST_NO_REPLY_RETRY_SECONDS, _LAST_NO_REPLY_RETRY_SECONDS)
        self.ledger.unknown(mail.identity, str(lost), now + wait, now)
        result = Result(Outcome.UNKNOWN, version.key, mail.recipient, why="no-reply", words=str(lost))
        self.say(result, mail.identity)
        return result

    def say(self, result: Result, identity: str, *, size: int | None = None) -> None:
        """One line in the log."""
        by_outcome = {
            Outcome.QUARANTINED: self.log.warning,
            Outcome.DISCARDED: self.log.warning,
            Outcome.DEFERRED: self.log.notice,
            Outcome.UNKNOWN: self.log.warning,
        }
        by_outcome.get(result.outcome, self.log.info)(
            "mail",
            state=result.outcome.value,
            id=identity[:16],
            object=result.key,
            to=result.recipient,
            mailbox=result.mailbox or None,
            why=result.why or None,
            size=size,
            verdict=result.verdict or None,
            reply=result.words or None,
        )

    def _gone_from_pending(self, result: Result, mail: Mail, *, moved: bool) -> Result:
        if not moved:
            return Result(Outcome.GONE, result.key)
        self.say(result, mail.identity)
        return result

    def _move(self, version: ListedObject, to: str, metadata: Mapping[str, str] | None, identity: str) -> bool:
        """Whether it was there to be moved."""
        if to == version.key:
            return True
        if not self.bucket.copy(version, to, metadata):
            return False
        self.step(Step.COPIED, identity)
        self.bucket.remove(version.key)
        self.step(Step.REMOVED, identity)
        return True
