"""From what a client sent to an entry of the queue: may it, what is missing, and is it on the disk."""

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drain.errors import Unavailable
from drain.header import Header
from drain.log import Log
from drain.places import domain_key
from drain.relay.bodies import DiskFull
from drain.relay.policy import Policy
from drain.relay.queue import Message, Parcel, Queue, new_id
from drain.relay.rates import OverLimit
from drain.relay.refusal import Refusal
from drain.relay.signing import Signer
from drain.relay.submission import complete
from drain.text import clean
from drain.upstreams import Shipment, Upstream


@dataclass(frozen=True)
class Intake:
    """What the listener asks (`listener.Desk`); calls may come from several threads.

    ``own_senders`` gives a user's own, ``news`` says that the queue has got something.
    """

    queue: Queue
    policy: Policy
    own_senders: Callable[[str], tuple[str, ...]]
    upstream: Upstream
    signer: Signer | None
    hostname: str
    log: Log
    news: Callable[[], None]
    clock: Callable[[], float] = time.time

    def sender(self, user: str, address: str) -> None:
        """At MAIL: may this user send as *address*, and now?

        Raises:
            Refusal: no.
        """
        self.policy.sender(address, self.own_senders(user))
        try:
            self.queue.rates.check(user, 1, self.clock())
        except OverLimit as error:
            raise _over(user, error, 1) from error

    def recipient(self, address: str) -> None:
        """At RCPT: may mail go to *address*?

        Raises:
            Refusal: no.
        """
        self.policy.recipient(address)
        if suppressed := self.queue.suppressed.find(address):
            day = datetime.datetime.fromtimestamp(suppressed.at, datetime.UTC).date().isoformat()
            words = (
                f"Mail to <{clean(address, 80)}> came back on {day} ({clean(suppressed.diagnostic, 150)}). "
                f"If it is right again: drain relay suppressed remove {clean(address, 80)}"
            )
            raise Refusal(550, suppressed.status, words)

    def take(self, user: str, sender: str, recipients: Sequence[str], raw: bytes, *, protocol: str) -> str:
        """At the final dot: the mail's id in the queue, when it is on the disk.

        Raises:
            Refusal: it was not taken.
        """
        now = self.clock()
        own = self.own_senders(user)
        envelope_sender = self.policy.sender(sender, own)
        id_ = new_id()
        submission = complete(
            raw,
            fallback=self.policy.fallback,
            hostname=self.hostname,
            protocol=protocol,
            queue_id=id_[:16],
            recipients=recipients,
            now=datetime.datetime.fromtimestamp(now, datetime.UTC),
        )
        authors = self.policy.authors(submission.header, own)
        if not sender and envelope_sender and _is_automatic(submission.header):
            # What made it up was told a false sender, perhaps: under our own name it would go to a stranger.
            words = (
                "A report without a sender is not sent as RELAY_FROM_FALLBACK; with <> in ALLOWED_FROM reports go out."
            )
            raise Refusal(550, "5.7.1", words)
        signed = submission.raw
        if self.signer is not None and len(authors) == 1:
            signed = self.signer.sign(signed, authors[0].rpartition("@")[2])
        groups = _groups(recipients, self.upstream.most_recipients)
        if len(signed) > self.upstream.most_bytes:
            words = f"The mail has {len(signed)} bytes as it is sent, and {self.upstream.name} takes {self.upstream.most_bytes}."
            raise Refusal(552, "5.3.4", words)
        for group in groups:
            if objection := self.upstream.objection(Shipment(f"drain-{id_}", envelope_sender, group, signed)):
                raise Refusal(554, "5.6.3", clean(objection, 400))
        # Whoever sends as <> wants to hear of nothing, whatever the fallback makes of it.
        message = Message(
            id=id_,
            inbound=False,
            user=user,
            sender=envelope_sender,
            return_path=envelope_sender if sender else "",
            message_id=submission.message_id,
            size=len(signed),
            received_at=now,
        )
        try:
            self.queue.accept(Parcel(message, groups, signed), now)
        except OverLimit as error:
            raise _over(user, error, sum(map(len, groups))) from error
        except DiskFull as error:
            self.log.alert("relay", message=f"Outgoing mail cannot be taken. {error}")
            raise Refusal(452, "4.3.1", "There is no room on the disk for this mail; try again later.") from error
        except Unavailable as error:
            self.log.alert("relay", message=f"Outgoing mail cannot be taken. {error}")
            raise Refusal(452, "4.3.0", "The mail cannot be kept just now; try again later.") from error
        self.news()
        return id_[:16]


def _is_automatic(header: Header) -> bool:
    """Whether a program made it up in answer to another mail (RFC 3834 5, RFC 3464)."""
    kind = header.get("Content-Type").lower()
    return header.get("Auto-Submitted").lower() not in ("", "no", "auto-generated") or kind.startswith(
        "multipart/report"
    )


def _groups(recipients: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """In the order given, each once, as many together as the upstream takes."""
    once = list({_once(address): address for address in reversed(recipients)}.values())[::-1]
    return [tuple(once[start : start + most]) for start in range(0, len(once), most)]


def _once(address: str) -> str:
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain_key(domain)}"


def _over(user: str, error: OverLimit, recipients: int) -> Refusal:
    if recipients > error.number:
        words = (
            f"The mail has {recipients} recipients, and {error.setting} is {error.number}: send it to fewer at once."
        )
        return Refusal(550, "5.5.3", words)
    span = "minute" if error.setting == "RATE_LIMIT_PER_MINUTE" else "day"
    words = f"{user} may send to {error.number} recipients a {span} ({error.setting}); try again later."
    return Refusal(451, "4.7.1", words)
