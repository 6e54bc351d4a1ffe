"""A mail handed over to the mail server: one SMTP transaction, and the ledger around it.

The row says ``injecting`` before DATA and ``delivered`` after the 250. Between the
final dot and its reply there is no "failed", only "unknown".
"""

from collections.abc import Callable
from dataclasses import dataclass

from drain.bucket import FetchedObject
from drain.ends import Ends
from drain.errors import DrainError
from drain.inject import Reply, Session, SessionLost
from drain.ledger import Ledger
from drain.log import Log
from drain.mail import Mail, Wire
from drain.outcome import Outcome, Result, Step
from drain.routing import Candidate, is_sendable
from drain.sessions import Sessions

# About an hour of tries: time to restart a mail server that is stuck.
UNDECIDED_ATTEMPTS = 6
# Maddy's, when several injections meet in its database: "453 4.3.2" (its storage/imapsql, delivery.go).
_CROWDED = 453


class _Crowded(Exception):
    """The mail met others, was refused for that, and may be tried again: there are fewer at once now."""


@dataclass(frozen=True)
class Parcel:
    """One mail as it is handed over.

    ``wire`` is what DATA carries, ``candidates`` are the addresses to ask for, best
    first; ``verdict`` is what the filters came to, in words.
    """

    fetched: FetchedObject
    mail: Mail
    wire: Wire
    candidates: list[Candidate]
    verdict: str = ""


@dataclass(frozen=True)
class Handover:
    """The sessions of a pass and what is done around a transaction; calls may come from several threads."""

    sessions: Sessions
    ledger: Ledger
    ends: Ends
    log: Log
    step: Callable[[Step, str], None]
    clock: Callable[[], float]

    def give(self, parcel: Parcel) -> Result:
        """Hands one mail over, and says how that ended.

        Raises:
            DrainError: what concerns the whole pass.
        """
        # A session that the server had closed between two mails is no failure of
        # this one: a lost session is replaced once.
        lost = ""  # not the error: that would hold on to this call, and so to the mail
        version, mail = parcel.fetched.version, parcel.mail
        losses = 0
        while losses < 2:
            try:
                begun = False
                with self.sessions.borrow() as session:
                    begun = True
                    result = self._transaction(session, parcel)
            except SessionLost as error:
                if error.after_dot:
                    return self.ends.no_reply(version, mail, error)
                lost, losses = str(error), losses + 1
            except _Crowded:
                pass  # each time there are fewer at once, and at last it is alone
            except DrainError:
                # A mail that fells the server must step back behind the others; but not one that was sent this time.
                if lost and not begun:
                    self.ends.defer(version, mail, "session-lost", lost)
                raise
            else:
                # Not while the session is ours: others wait for it, and R2 is far away.
                delivered = result.outcome is Outcome.DELIVERED
                return self.ends.settle(version, mail.identity, result, size=len(mail.raw)) if delivered else result
        return self.ends.defer(version, mail, "session-lost", lost)

    def _transaction(self, session: Session, parcel: Parcel) -> Result:
        mail, wire = parcel.mail, parcel.wire
        sender = self._sender(session, mail)
        limit = session.size_limit()
        if limit is not None and len(wire) > limit:
            words = f"The mail has {len(wire)} bytes and the mail server takes {limit}."
            return self._set_aside(parcel, "too-large", words)
        candidates = [c for c in parcel.candidates if _speakable(session, c.address)]
        if not candidates:
            return self._set_aside(parcel, "no-mailbox", "None of your mailboxes is meant, and there is no catch-all.")
        smtputf8 = not (sender + "".join(c.address for c in candidates)).isascii()
        reply = session.mail(sender, len(wire), eight_bit=not wire.isascii(), smtputf8=smtputf8)
        if not reply.positive:
            return self._refused(session, parcel, reply, "sender-refused")
        taken: Candidate | None = None
        for candidate in candidates:
            reply = session.rcpt(candidate.address)
            if reply.positive:
                taken = candidate
                break
            if not reply.no_such_mailbox:
                return self._refused(session, parcel, reply, "recipient-refused")
        if taken is None:
            return self._refused(session, parcel, reply, "no-mailbox")
        self.step(Step.ROUTED, mail.identity)
        return self._data(session, parcel, taken)

    def _data(self, session: Session, parcel: Parcel, taken: Candidate) -> Result:
        mail, version = parcel.mail, parcel.fetched.version
        row = self.ledger.injecting(version, mail, taken.address, self.clock())
        self.step(Step.INJECTING, mail.identity)
        reply = session.data()
        if reply.code != 354:
            return self._refused(session, parcel, reply, "data-refused")
        self.step(Step.GO_AHEAD, mail.identity)
        session.send(parcel.wire)
        self.step(Step.SENT, mail.identity)
        session.send_dot()
        self.step(Step.DOT, mail.identity)
        reply = session.final_reply()
        if not reply.positive:
            return self._refused(session, parcel, reply, "mail-refused")
        self.step(Step.ACCEPTED, mail.identity)
        self.ledger.delivered(mail.identity, str(reply), self.clock())
        self.step(Step.DELIVERED, mail.identity)
        return Result(
            Outcome.DELIVERED, version.key, row.recipient, taken.address, taken.why, str(reply), parcel.verdict
        )

    def _refused(self, session: Session, parcel: Parcel, reply: Reply, reason: str) -> Result:
        """A reply that was heard: try again after 4xx, quarantine after 5xx; a while for what can be either.

        A mail that was refused for a crowd is tried again at once. The refusal is committed
        first: a row that says ``injecting`` until then would after a crash be one of which
        it is not known how it ended, and counted in ``reinjections``.
        """
        words = f"{reply.command}: {reply}"
        if reply.code == _CROWDED and self.sessions.narrow(session):
            now = self.clock()
            self.ledger.deferred(parcel.fetched.version, parcel.mail, reason, words, now, now, counted=False)
            self.step(Step.DEFERRED, parcel.mail.identity)
            raise _Crowded
        row = self.ledger.find(parcel.mail.identity)
        undecided = reply.says_nothing_of_the_mail and (row is None or row.undecided < UNDECIDED_ATTEMPTS)
        if reply.transient or undecided:
            return self.ends.defer(parcel.fetched.version, parcel.mail, reason, words, undecided=undecided)
        return self._set_aside(parcel, reason, words)

    def _set_aside(self, parcel: Parcel, reason: str, words: str) -> Result:
        return self.ends.set_aside(parcel.fetched.version, parcel.mail, reason, words, parcel.fetched.metadata)

    def _sender(self, session: Session, mail: Mail) -> str:
        """The envelope sender as it can be said; `<>` where it cannot."""
        if not mail.sender or (is_sendable(mail.sender) and _speakable(session, mail.sender)):
            return mail.sender
        self.log.notice("sender", id=mail.identity[:16], message="The envelope sender is no address; <> is used.")
        return ""


def _speakable(session: Session, address: str) -> bool:
    return address.isascii() or session.offers("smtputf8")
