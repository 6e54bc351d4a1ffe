"""One mail, from its object in ``pending/`` to its mailbox.

All that belongs to one mail happens here, on one thread; several deliveries run
at once. The order of the steps, and what is committed before which, is the
table in the package docstring.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from drain.bucket import OVERWRITE_UNSEEN_SECONDS, Bucket, FetchedObject, ListedObject, moved_name
from drain.errors import DrainError, KeyMissing, NotMail
from drain.inject import Reply, Session, SessionLost
from drain.keys import State as KeyState
from drain.ledger import Ledger
from drain.log import Log
from drain.mail import Mail, on_the_wire
from drain.opener import OBJECT_LIMIT, Kind, Opener, envelope_of, kind_of
from drain.outcome import Outcome, Result, Step
from drain.routing import Candidate, Router, is_sendable
from drain.sessions import Sessions
from drain.stamp import Stamp
from drain.state import Row, State

_FIRST_RETRY_SECONDS = 60.0
_LAST_RETRY_SECONDS = 3600.0
# Each of these tries can be a copy more in the mailbox.
_FIRST_NO_REPLY_RETRY_SECONDS = 300.0
_LAST_NO_REPLY_RETRY_SECONDS = 86400.0
_ALARMING_TRIES = 4
# So often an object may be overwritten under our eyes before it is left to the next pass.
_LOOKS = 5
# About an hour of tries: time to restart a mail server that is stuck.
_UNDECIDED_ATTEMPTS = 6
_AGAIN = "Set aside before, because: "
_REASON_METADATA = "drain-reason"


@dataclass(frozen=True)
class Prefixes:
    """Where mail lies in the bucket."""

    pending: str
    processed: str
    quarantine: str


@dataclass(frozen=True)
class NoKey:
    """What was known when no key opened an object: the key files as they were, and the key in doubt."""

    keys: KeyState
    suspect: str


@dataclass(frozen=True)
class Delivery:
    """What every mail of a pass shares; `deliver` may be called from several threads."""

    bucket: Bucket
    ledger: Ledger
    opener: Opener
    router: Router
    sessions: Sessions
    stamp: Stamp
    prefixes: Prefixes
    log: Log
    step: Callable[[Step, str], None] = lambda step, name: None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    # Versions that no key opened, so that they are fetched and reported once.
    no_key: dict[ListedObject, NoKey] = field(default_factory=dict)
    # The same mail can lie under two keys. Striped, so that they need no tidying;
    # taken before a session, never after.
    _stripes: tuple[threading.Lock, ...] = field(default_factory=lambda: tuple(threading.Lock() for _ in range(64)))

    def deliver(self, listed: ListedObject, row: Row | None) -> Result:
        """Takes one object as far as it goes now; *row* is what `Ledger.find_by_object` knows of it.

        Raises:
            DrainError: what concerns the whole pass (R2, the ledger or the mail
                server away or refusing).
        """
        if row is not None and row.state is State.DELIVERED:
            return self._settle(listed, row.identity, Outcome.MOVED, row)
        if self._still_has_no_key(listed):
            return Result(Outcome.NO_KEY, listed.key)
        if listed.size > OBJECT_LIMIT:
            return self._set_aside_unopened(listed)
        for _ in range(_LOOKS):
            fetched = self.bucket.get(listed)
            if fetched is None:
                return Result(Outcome.GONE, listed.key)
            if not _may_be_overwritten_unseen(fetched):
                return self._open(fetched)
            self.sleep(OVERWRITE_UNSEEN_SECONDS)
        return Result(Outcome.WAITING, listed.key, words="It is being written again and again.")

    def _open(self, fetched: FetchedObject) -> Result:
        listed = fetched.version
        self.step(Step.FETCHED, listed.key)
        keys = self.opener.state
        try:
            opened = self.opener.open(fetched.body, fetched.metadata)
        except KeyMissing as error:
            return self._no_key(fetched, error, keys)
        except NotMail as error:
            return self._not_mail(fetched, error.reason, str(error))
        if opened.key:
            self.ledger.key_proven(opened.key, listed.last_modified.timestamp())
        self.step(Step.OPENED, opened.mail.identity)
        with self._stripes[int(opened.mail.identity[:8], 16) % len(self._stripes)]:
            return self._deliver_opened(fetched, opened.mail)

    def _deliver_opened(self, fetched: FetchedObject, mail: Mail) -> Result:
        version = fetched.version
        row = self.ledger.find(mail.identity)
        if row is not None:
            self.ledger.link(version, mail)
            if row.state in (State.DELIVERED, State.SETTLED):
                return self._settle(version, mail.identity, Outcome.MOVED, row)
            if row.state in (State.SETTING_ASIDE, State.QUARANTINED, State.DISCARDED):
                words = row.words or ""
                if row.state is not State.SETTING_ASIDE and not words.startswith(_AGAIN):
                    words = _AGAIN + words
                return self._set_aside(version, mail, row.reason or "", words, fetched.metadata)
            if self.not_due(row):
                return Result(Outcome.WAITING, version.key, mail.recipient, words=row.words or "")
            if row.state is State.INJECTING:
                row = self.ledger.trying_again(mail.identity, self.clock())
                self.log.warning(
                    "again",
                    id=mail.identity[:16],
                    reinjections=row.reinjections,
                    message="How an earlier try ended is not known; this mail may come twice.",
                )
        return self._inject(fetched, mail)

    def _inject(self, fetched: FetchedObject, mail: Mail) -> Result:
        # A session that the server had closed between two mails is no failure of
        # this one: a lost session is replaced once.
        lost: SessionLost | None = None
        for _ in range(2):
            try:
                with self.sessions.borrow() as session:
                    return self._transaction(session, fetched, mail)
            except SessionLost as error:
                if error.after_dot:
                    return self._no_reply(fetched.version, mail, error)
                lost = error
            except DrainError:
                # A mail that fells the server must step back behind the others.
                if lost is not None:
                    self._defer(fetched.version, mail, "session-lost", str(lost))
                raise
        return self._defer(fetched.version, mail, "session-lost", str(lost))

    def _transaction(self, session: Session, fetched: FetchedObject, mail: Mail) -> Result:
        """One SMTP transaction, and the ledger around it."""
        wire = on_the_wire(mail.raw, self.stamp.header(mail.identity))
        sender = self._sender(session, mail)
        limit = session.size_limit()
        if limit is not None and len(wire) > limit:
            words = f"The mail has {len(wire)} bytes and the mail server takes {limit}."
            return self._set_aside(fetched.version, mail, "too-large", words, fetched.metadata)
        candidates = [c for c in self.router.candidates(mail.recipient) if self._speakable(session, c.address)]
        if not candidates:
            words = "None of your mailboxes is meant, and there is no catch-all."
            return self._set_aside(fetched.version, mail, "no-mailbox", words, fetched.metadata)
        smtputf8 = not (sender + "".join(c.address for c in candidates)).isascii()
        reply = session.mail(sender, len(wire), eight_bit=not wire.isascii(), smtputf8=smtputf8)
        if not reply.positive:
            return self._refused(fetched, mail, reply, "sender-refused")
        taken: Candidate | None = None
        for candidate in candidates:
            reply = session.rcpt(candidate.address)
            if reply.positive:
                taken = candidate
                break
            if not reply.no_such_mailbox:
                return self._refused(fetched, mail, reply, "recipient-refused")
        if taken is None:
            return self._refused(fetched, mail, reply, "no-mailbox")
        self.step(Step.ROUTED, mail.identity)
        row = self.ledger.injecting(fetched.version, mail, taken.address, self.clock())
        self.step(Step.INJECTING, mail.identity)
        reply = session.data()
        if reply.code != 354:
            return self._refused(fetched, mail, reply, "data-refused")
        self.step(Step.GO_AHEAD, mail.identity)
        session.send(wire)
        self.step(Step.SENT, mail.identity)
        session.send_dot()
        self.step(Step.DOT, mail.identity)
        reply = session.final_reply()
        if not reply.positive:
            return self._refused(fetched, mail, reply, "mail-refused")
        self.step(Step.ACCEPTED, mail.identity)
        self.ledger.delivered(mail.identity, str(reply), self.clock())
        self.step(Step.DELIVERED, mail.identity)
        return self._settle(fetched.version, mail.identity, Outcome.DELIVERED, row, taken.why, str(reply))

    # -- the ends --

    def _settle(
        self, version: ListedObject, identity: str, outcome: Outcome, row: Row, why: str = "", words: str = ""
    ) -> Result:
        """Moves a delivered mail's object to ``processed/``."""
        result = Result(outcome, version.key, row.recipient, row.mailbox or "", why, words)
        # Said before the move: the mail is there, whatever R2 answers now.
        self._say(result, identity, row)
        moved = self._move(version, self._processed_name(identity, version.key), None, identity)
        self.ledger.settled(version, identity, self.clock())
        self.step(Step.SETTLED, identity)
        return result if moved or outcome is Outcome.DELIVERED else Result(Outcome.GONE, version.key)

    def _set_aside(
        self, version: ListedObject, mail: Mail, reason: str, words: str, metadata: Mapping[str, str] | None
    ) -> Result:
        """Moves an object to ``quarantine/``, the reason's code beside its metadata where those are known.

        The reason's words stay in the ledger: they can hold addresses or anything else.
        """
        self.ledger.setting_aside(version, mail, reason, words, self.clock())
        self.step(Step.SETTING_ASIDE, mail.identity)
        to = moved_name(self.prefixes.quarantine, mail.identity, version.key, self.prefixes.pending)
        labelled = None if metadata is None else {**metadata, _REASON_METADATA: reason}
        moved = self._move(version, to, labelled, mail.identity)
        self.ledger.quarantined(version, mail.identity, self.clock())
        self.step(Step.QUARANTINED, mail.identity)
        if not moved:
            return Result(Outcome.GONE, version.key)
        result = Result(Outcome.QUARANTINED, version.key, mail.recipient, why=reason, words=words)
        self._say(result, mail.identity, None)
        return result

    def _not_mail(self, fetched: FetchedObject, reason: str, words: str) -> Result:
        recipient, sender = envelope_of(fetched.metadata)
        mail = Mail(fetched.body, recipient, sender, aside=reason)
        return self._set_aside(fetched.version, mail, reason, words, fetched.metadata)

    def _no_key(self, fetched: FetchedObject, error: KeyMissing, keys: KeyState) -> Result:
        """It waits, unless the key that failed has opened others since: then it is damaged."""
        written_at = fetched.version.last_modified.timestamp()
        if error.suspect and self.ledger.is_key_proven(error.suspect, written_at):
            return self._not_mail(fetched, "damaged", f"{error} It opened later ones, so this one was changed.")
        self.no_key[fetched.version] = NoKey(keys, error.suspect)
        result = Result(Outcome.NO_KEY, fetched.version.key, words=str(error))
        self.log.notice("mail", state=result.outcome.value, object=result.key, message=result.words)
        return result

    def _set_aside_unopened(self, listed: ListedObject) -> Result:
        """For an object too large to be fetched: what identifies it is its name and version."""
        stand_in = Mail(f"{listed.key}\n{listed.etag}".encode(), "", "")
        words = f"The object has {listed.size} bytes, more than any mail ({OBJECT_LIMIT})."
        return self._set_aside(listed, stand_in, "too-large", words, None)

    def _refused(self, fetched: FetchedObject, mail: Mail, reply: Reply, reason: str) -> Result:
        """A reply that was heard: try again after 4xx, quarantine after 5xx; a while for what can be either."""
        words = f"{reply.command}: {reply}"
        row = self.ledger.find(mail.identity)
        undecided = reply.says_nothing_of_the_mail and (row is None or row.undecided < _UNDECIDED_ATTEMPTS)
        if reply.transient or undecided:
            return self._defer(fetched.version, mail, reason, words, undecided=undecided)
        return self._set_aside(fetched.version, mail, reason, words, fetched.metadata)

    def _defer(self, version: ListedObject, mail: Mail, reason: str, words: str, *, undecided: bool = False) -> Result:
        row, now = self.ledger.find(mail.identity), self.clock()
        wait = _backoff_seconds(row.attempts if row else 0, _FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
        self.ledger.deferred(version, mail, reason, words, now + wait, now, undecided=undecided)
        self.step(Step.DEFERRED, mail.identity)
        result = Result(Outcome.DEFERRED, version.key, mail.recipient, why=reason, words=words)
        self._say(result, mail.identity, None)
        return result

    def _no_reply(self, version: ListedObject, mail: Mail, lost: SessionLost) -> Result:
        row, now = self.ledger.find(mail.identity), self.clock()
        # Not `attempts`: those that nothing was sent in left no copy.
        tries = 1 + (row.reinjections if row else 0)
        wait = _backoff_seconds(tries - 1, _FIRST_NO_REPLY_RETRY_SECONDS, _LAST_NO_REPLY_RETRY_SECONDS)
        self.ledger.unknown(mail.identity, str(lost), now + wait, now)
        result = Result(Outcome.UNKNOWN, version.key, mail.recipient, why="no-reply", words=str(lost))
        self._say(result, mail.identity, None)
        if tries >= _ALARMING_TRIES:
            self.log.alert(
                "no-reply",
                id=mail.identity[:16],
                tries=tries,
                message="The mail server never answers to this mail, and may have a copy of every try.",
            )
        return result

    def _move(self, version: ListedObject, to: str, metadata: Mapping[str, str] | None, identity: str) -> bool:
        """Whether it was there to be moved."""
        if not self.bucket.copy(version, to, metadata):
            return False
        self.step(Step.COPIED, identity)
        self.bucket.remove(version.key)
        self.step(Step.REMOVED, identity)
        return True

    # -- questions --

    def _still_has_no_key(self, listed: ListedObject) -> bool:
        known = self.no_key.get(listed)
        if known is None or known.keys != self.opener.state:
            return False
        return not (known.suspect and self.ledger.is_key_proven(known.suspect, listed.last_modified.timestamp()))

    def _processed_name(self, identity: str, key: str) -> str:
        return moved_name(self.prefixes.processed, identity, key, self.prefixes.pending)

    def not_due(self, row: Row) -> bool:
        """Whether a mail's next attempt lies ahead."""
        return (
            row.state in (State.DEFERRED, State.INJECTING)
            and row.next_attempt_at is not None
            # A clock that was set back since must not hold a mail for ever.
            and row.updated_at <= self.clock() < row.next_attempt_at
        )

    def _sender(self, session: Session, mail: Mail) -> str:
        """The envelope sender as it can be said; `<>` where it cannot."""
        if not mail.sender or (is_sendable(mail.sender) and self._speakable(session, mail.sender)):
            return mail.sender
        self.log.notice("sender", id=mail.identity[:16], message="The envelope sender is no address; <> is used.")
        return ""

    @staticmethod
    def _speakable(session: Session, address: str) -> bool:
        return address.isascii() or session.offers("smtputf8")

    def _say(self, result: Result, identity: str, row: Row | None) -> None:
        by_outcome = {
            Outcome.QUARANTINED: self.log.warning,
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
            size=row.size if row else None,
            reply=result.words or None,
        )


def _may_be_overwritten_unseen(fetched: FetchedObject) -> bool:
    """Whether another mail could yet take this one's name with the date that it has now.

    A sealed object's name comes from its recipient and content, and is never
    overwritten; a plain one's can be.
    """
    age = fetched.age_seconds
    return age is not None and age < OVERWRITE_UNSEEN_SECONDS and kind_of(fetched.body) is Kind.PLAIN


def _backoff_seconds(attempts: int, first: float, last: float) -> float:
    """Doubles from *first* to *last*, give or take a quarter so that mails do not march in step."""
    base = min(first * 2.0 ** min(attempts, 16), last)
    return base * random.uniform(0.75, 1.25)  # noqa: S311 (jitter, not cryptography)
