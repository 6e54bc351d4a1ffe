"""One mail, from its object in ``pending/`` to its end.

All that belongs to one mail happens here, on one thread; several deliveries run
at once. The order of the steps, and what is committed before which, is the
table in the package docstring.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from drain.bucket import OVERWRITE_UNSEEN_SECONDS, Bucket, FetchedObject
from drain.ends import Ends
from drain.errors import KeyMissing, NotMail
from drain.filters.chain import Answer as FilterAnswer, Chain, Judgement
from drain.filters.inbound import Inbound
from drain.filters.verdict import Action
from drain.handover import UNDECIDED_ATTEMPTS, Handover, Parcel
from drain.keys import State as KeyState
from drain.ledger import DELETED, Ledger
from drain.listing import ListedObject
from drain.log import Log
from drain.mail import Mail, begins_with_header_field
from drain.mailboxes import Answer, Mailboxes, Presence
from drain.marks import Marks
from drain.opener import OBJECT_LIMIT, Kind, Opened, Opener, envelope_of, kind_of
from drain.outcome import Outcome, Result, Step
from drain.routing import Router
from drain.stamp import HEADER, Stamp
from drain.state import Row, State
from drain.verdicts import Kept

# So often an object may be overwritten under our eyes before it is left to the next pass.
_LOOKS = 5
# Whoever mends a filter wants to see mail soon; another try costs a GET.
_LONGEST_WAIT_FOR_A_FILTER_SECONDS = 600.0
_AGAIN = "Set aside before, because: "
_ASIDE = (State.SETTING_ASIDE, State.QUARANTINED, State.DISCARDING, State.DISCARDED)


@dataclass(frozen=True)
class NoKey:
    """What was known when no key opened an object: the key files as they were, the key in doubt, and the words."""

    keys: KeyState
    suspect: str
    words: str


@dataclass(frozen=True)
class Delivery:
    """What every mail of a pass shares; `deliver` may be called from several threads."""

    bucket: Bucket
    ledger: Ledger
    opener: Opener
    chain: Chain
    marks: Marks
    router: Router
    handover: Handover
    ends: Ends
    stamp: Stamp
    mailboxes: Mailboxes | None
    log: Log
    step: Callable[[Step, str], None] = lambda step, name: None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    # Versions that no key opened, so that they are fetched and reported once.
    no_key: dict[ListedObject, NoKey] = field(default_factory=dict)
    # Identities of the mails that threads are at, and the news that one is done with.
    _in_hand: set[str] = field(default_factory=set)
    _done: threading.Condition = field(default_factory=threading.Condition)

    def deliver(self, listed: ListedObject, row: Row | None) -> Result:
        """Takes one object as far as it goes now; *row* is what `Ledger.find_by_object` knows of it.

        Raises:
            DrainError: what concerns the whole pass (R2, the ledger or the mail
                server away or refusing).
        """
        if row is not None and row.state is State.DELIVERED:
            return self._settle(listed, row)
        if self._still_has_no_key(listed):
            return Result(Outcome.NO_KEY, listed.key, words=self.no_key[listed].words)
        if listed.size > OBJECT_LIMIT:
            return self._set_aside_unopened(listed)
        for _ in range(_LOOKS):
            fetched = self.bucket.get(listed)
            if fetched is None:
                return Result(Outcome.GONE, listed.key)
            if not _may_be_overwritten_unseen(fetched):
                # Of another version nobody has said that it is to be believed.
                released = row is not None and bool(row.released) and fetched.version == listed
                return self._open(fetched, released=released)
            self.sleep(OVERWRITE_UNSEEN_SECONDS)
        return Result(Outcome.WAITING, listed.key, words="It is being written again and again.")

    def _open(self, fetched: FetchedObject, *, released: bool) -> Result:
        listed = fetched.version
        self.step(Step.FETCHED, listed.key)
        keys = self.opener.state
        opener = self.opener.believing_all() if released else self.opener
        try:
            opened = opener.open(fetched.body, fetched.metadata)
        except KeyMissing as error:
            return self._no_key(fetched, error, keys)
        except NotMail as error:
            return self._not_mail(fetched, error.reason, str(error))
        if opened.key:
            self.ledger.notes.key_proven(opened.key, listed.last_modified.timestamp())
        # What is needed from here on is the mail.
        fetched.body = b""
        self.step(Step.OPENED, opened.mail.identity)
        with self._alone_at(opened.mail.identity):
            return self._deliver_opened(fetched, opened)

    def _deliver_opened(self, fetched: FetchedObject, opened: Opened) -> Result:
        version, mail = fetched.version, opened.mail
        row = self.ledger.find(mail.identity)
        if row is not None:
            self.ledger.link(version, mail)
            if row.state in (State.DELIVERED, State.SETTLED):
                return self._settle(version, row)
            if row.state in _ASIDE:
                return self._aside_again(fetched, mail, row)
            if self.not_due(row):
                return Result(Outcome.WAITING, version.key, mail.recipient, words=row.words or "")
            if row.state is State.INJECTING:
                answer = self._looked_for(mail, row)
                if answer.presence is Presence.THERE:
                    return self._found(version, row, answer.words)
                if waits := self._looks_again(version, row, answer):
                    return waits
                row = self._again(row, answer)
        # Not metadata, which others can write: the ledger says that a person released it.
        released = row is not None and bool(row.released)
        judgement = Judgement(released=True) if released else self._judge(fetched, opened)
        self.step(Step.FILTERED, mail.identity)
        if judgement.failed or judgement.action.settles:
            return self._kept_back(fetched, mail, judgement)
        junk = judgement.action is Action.JUNK
        return self.handover.give(
            Parcel(
                fetched,
                mail,
                self.marks.on_the_wire(mail.raw, self.stamp.header(mail.identity), judgement),
                self.router.junk_candidates(mail.recipient) if junk else self.router.candidates(mail.recipient),
                judgement.in_words,
            )
        )

    @contextlib.contextmanager
    def _alone_at(self, identity: str) -> Iterator[None]:
        """The same mail can lie under two keys: one thread at a time. Taken before a session, never after."""
        with self._done:
            self._done.wait_for(lambda: identity not in self._in_hand)
            self._in_hand.add(identity)
        try:
            yield
        finally:
            with self._done:
                self._in_hand.discard(identity)
                self._done.notify_all()

    # -- what was found injecting --

    def _looked_for(self, mail: Mail, row: Row) -> Answer:
        """Whether it is in its mailbox, as far as that can be known."""
        if self.mailboxes is None or row.mailbox is None:
            return Answer(Presence.NO_LOGIN, "")
        if not begins_with_header_field(mail.raw):
            return Answer(Presence.NO_LOGIN, f"It has no {HEADER} to be known by.")
        if any(event.what == "replayed" for event in self.ledger.history.of(row.identity)):
            return Answer(Presence.NO_LOGIN, "It was delivered before: a copy in the mailbox may be that one.")
        return self.mailboxes.ask(row.mailbox, self.stamp.value(mail.identity))

    def _found(self, version: ListedObject, row: Row, words: str) -> Result:
        """The mail server has it: what the crash cut off is done now."""
        self.ledger.delivered(row.identity, words, self.clock())
        self.step(Step.DELIVERED, row.identity)
        result = Result(Outcome.DELIVERED, version.key, row.recipient, row.mailbox or "", why="found", words=words)
        return self.ends.settle(version, row.identity, result, size=row.size)

    def _looks_again(self, version: ListedObject, row: Row, answer: Answer) -> Result | None:
        """It waits for another look, where that is better than to send it again."""
        now = self.clock()
        # No next attempt: not looked for since it was sent. And a clock may have been set back.
        first = row.next_attempt_at is None or row.updated_at > now
        since = now if first else row.updated_at
        until = self.mailboxes.look_again_at(answer.presence, since, now) if self.mailboxes else None
        if until is None:
            return None
        self.ledger.looked_for(row.identity, answer.words, until, since, now)
        result = Result(
            Outcome.WAITING, version.key, row.recipient, row.mailbox or "", why="looked-for", words=answer.words
        )
        self.ends.say(result, row.identity)
        return result

    def _again(self, row: Row, answer: Answer) -> Row:
        """It is sent again, since a mail that comes twice is better than one that does not come."""
        again = self.ledger.trying_again(row.identity, self.clock())
        known = "It is sent again." if answer.presence is Presence.ABSENT else "This mail may come twice."
        self.log.warning(
            "again",
            id=row.identity[:16],
            reinjections=again.reinjections,
            message=" ".join(["How an earlier try ended is not known.", *filter(None, [answer.words]), known]),
        )
        return again

    def _judge(self, fetched: FetchedObject, opened: Opened) -> Judgement:
        """What the filters say, of which what cost something is kept."""
        identity = opened.mail.identity
        kept = self.ledger.verdicts.of(identity) if self.chain.asks else {}
        received = opened.received or fetched.version.last_modified.isoformat()
        inbound = Inbound(opened.mail, opened.ip, received)
        judgement = self.chain.judge(inbound, {name: (one.settings, one.verdict) for name, one in kept.items()})
        answers = judgement.answers
        if any(answer.costs for answer in answers) or judgement.action.settles:
            given = [
                Kept(answer.filter, answer.settings, answer.verdict)
                for answer in answers
                if answer.verdict and (judgement.action.settles or not answer.failure)
            ]
            self.ledger.verdicts.keep(identity, given, self.clock())
        return judgement

    def _kept_back(self, fetched: FetchedObject, mail: Mail, judgement: Judgement) -> Result:
        """The ends that filters make."""
        version, worst = fetched.version, judgement.worst
        if judgement.failed:
            return self._waits_for(judgement.answers[-1], fetched, mail)
        if worst.action.settles:
            reason, words = worst.code, worst.reason
        else:
            reason, words = "spam", f"{judgement.score:.1f} points; {worst.reason}"
        if judgement.action is Action.DISCARD:
            return self.ends.discard(version, mail, reason, words)
        return self.ends.set_aside(version, mail, reason, words, fetched.metadata, judgement.in_words)

    def _waits_for(self, answer: FilterAnswer, fetched: FetchedObject, mail: Mail) -> Result:
        """A filter has nothing to say of it: it waits; but not for ever, if it alone is what the filter cannot do."""
        reason = f"filter-{answer.filter}"
        undecided = not answer.down and answer.filter in self.chain.answered
        row = self.ledger.find(mail.identity)
        if undecided and row is not None and row.undecided >= UNDECIDED_ATTEMPTS:
            return self.ends.set_aside(fetched.version, mail, reason, answer.failure, fetched.metadata)
        longest = _LONGEST_WAIT_FOR_A_FILTER_SECONDS
        return self.ends.defer(
            fetched.version, mail, reason, answer.failure, undecided=undecided, longest_seconds=longest
        )

    # -- other ends --

    def _settle(self, version: ListedObject, row: Row) -> Result:
        """Delivered before; only the move is left."""
        result = Result(Outcome.MOVED, version.key, row.recipient, row.mailbox or "")
        return self.ends.settle(version, row.identity, result, size=row.size)

    def _aside_again(self, fetched: FetchedObject, mail: Mail, row: Row) -> Result:
        """What was begun is finished, and what was found again goes the same way: with the person's word as it is now."""
        words = row.words or ""
        if row.state in (State.QUARANTINED, State.DISCARDED) and not words.startswith(_AGAIN):
            words = _AGAIN + words
        by_filter = row.state in (State.DISCARDING, State.DISCARDED) and row.reason != DELETED
        if by_filter and self.chain.rules.allow_discard:
            return self.ends.discard(fetched.version, mail, row.reason or "", words)
        verdict = "again" if self.ledger.verdicts.of(mail.identity) else ""
        return self.ends.set_aside(fetched.version, mail, row.reason or "", words, fetched.metadata, verdict)

    def _not_mail(self, fetched: FetchedObject, reason: str, words: str) -> Result:
        recipient, sender = envelope_of(fetched.metadata)
        mail = Mail(fetched.body, recipient, sender, aside=reason)
        return self.ends.set_aside(fetched.version, mail, reason, words, fetched.metadata)

    def _no_key(self, fetched: FetchedObject, error: KeyMissing, keys: KeyState) -> Result:
        """It waits, unless the key that failed has opened others since: then it is damaged."""
        written_at = fetched.version.last_modified.timestamp()
        if error.suspect and self.ledger.notes.is_key_proven(error.suspect, written_at):
            return self._not_mail(fetched, "damaged", f"{error} It opened later ones, so this one was changed.")
        self.no_key[fetched.version] = NoKey(keys, error.suspect, str(error))
        result = Result(Outcome.NO_KEY, fetched.version.key, words=str(error))
        self.log.notice("mail", state=result.outcome.value, object=result.key, message=result.words)
        return result

    def _set_aside_unopened(self, listed: ListedObject) -> Result:
        """For an object too large to be fetched: what identifies it is its name and version."""
        stand_in = Mail(f"{listed.key}\n{listed.etag}".encode(), "", "")
        words = f"The object has {listed.size} bytes, more than any mail ({OBJECT_LIMIT})."
        return self.ends.set_aside(listed, stand_in, "too-large", words, None)

    # -- questions --

    def _still_has_no_key(self, listed: ListedObject) -> bool:
        known = self.no_key.get(listed)
        if known is None or known.keys != self.opener.state:
            return False
        return not (known.suspect and self.ledger.notes.is_key_proven(known.suspect, listed.last_modified.timestamp()))

    def not_due(self, row: Row) -> bool:
        """Whether a mail's next attempt lies ahead."""
        return (
            row.state in (State.DEFERRED, State.INJECTING)
            and row.next_attempt_at is not None
            # A clock that was set back since must not hold a mail for ever.
            and row.updated_at <= self.clock() < row.next_attempt_at
        )


def _may_be_overwritten_unseen(fetched: FetchedObject) -> bool:
    """Whether another mail could yet take this one's name with the date that it has now.

    A sealed object's name comes from its recipient and content, and is never
    overwritten; a plain one's can be.
    """
    age = fetched.age_seconds
    return age is not None and age < OVERWRITE_UNSEEN_SECONDS and kind_of(fetched.body) is Kind.PLAIN
