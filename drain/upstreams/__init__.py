"""Where outgoing mail goes: one file a smarthost or provider, behind one small protocol.

`Upstream.send` hands over one `Shipment`: one message for some recipients, and says
for each recipient what became of it (`Fate`). What concerns every mail alike is an
exception, so that the queue waits and no mail is blamed:

=================  ============================================================
`UpstreamDown`     no link, no name, no TLS, a 5xx of the whole service, too
                   many requests: later; after ``retry_after`` where it said so
`UpstreamRefused`  our login or key, or the account, is refused: a person must act
=================  ============================================================

What it cannot carry is said beforehand (`Upstream.objection`), so that the client
hears it while it is still connected.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from drain.errors import Refused, Unavailable


class Action(StrEnum):
    """What became of a mail for one recipient (RFC 3464 2.3.3)."""

    RELAYED = "relayed"
    DELAYED = "delayed"
    FAILED = "failed"


@dataclass(frozen=True)
class Fate:
    """The same, with why.

    ``status`` is the enhanced status code (RFC 3463; 2.0.0, 4.x.x or 5.x.x, as the
    action is); ``diagnostic`` is what the upstream said, cleaned, on one line, such as
    ``smtp; 550 5.1.1 no such user`` or ``http; 422 ...``: that is what a DSN shows
    after ``Diagnostic-Code:``. ``bad_address``: the address itself does not exist or
    takes no mail, so that it is of no use to try it with another mail (suppression).
    ``reference`` is the upstream's own id of the mail, "" for none. ``unknown``, of a
    delay: how it ended is not known, the upstream may have the mail.
    """

    action: Action
    status: str
    diagnostic: str
    bad_address: bool = False
    reference: str = ""
    unknown: bool = False


@dataclass(frozen=True)
class Shipment:
    """One message for some recipients.

    ``key`` (printable ASCII, at most 64 characters) is the same at every try: where
    an upstream takes an idempotency key, a mail whose answer was lost is not sent
    twice. ``sender`` is the envelope's, "" for ``<>``; ``recipients`` are the
    envelope's, at least one, none twice. ``raw`` is the message with CRLF line ends,
    dots not stuffed.
    """

    key: str
    sender: str
    recipients: tuple[str, ...]
    raw: bytes


class Upstream(Protocol):
    """A smarthost or a provider. Calls may come from several threads."""

    @property
    def name(self) -> str:
        """That of ``RELAY_UPSTREAM``."""

    @property
    def most_recipients(self) -> int:
        """How many one shipment may have."""

    @property
    def most_bytes(self) -> int:
        """How large the message may be, as it came from the client."""

    def objection(self, shipment: Shipment) -> str:
        """Why this upstream cannot carry it as it is, in words for its sender; "" if it can. Asks nobody; `send` fails with the same."""

    def send(self, shipment: Shipment) -> Mapping[str, Fate]:
        """Hands it over; the fate of each recipient. Not knowing how it ended is `Action.DELAYED`.

        Raises:
            UpstreamDown, UpstreamRefused: it concerns all mail, and nothing was sent.
        """

    def probe(self) -> str:
        """Logs in, sends nothing; what is there, in words.

        Raises:
            UpstreamDown, UpstreamRefused: as `send`.
        """

    def rest(self) -> None:
        """There is nothing to send for a while: connections are closed."""

    def stop(self) -> None:
        """Drain ends: what is in flight is broken off."""


class UpstreamDown(Unavailable):
    """It cannot be reached, or asks all of us to wait.

    Attributes:
        retry_after: seconds that it asked for, None if it named none.
    """

    def __init__(self, message: str, hint: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class UpstreamRefused(Refused):
    """It does not take our login, or nothing from this account: a person must act."""


def for_all(shipment: Shipment, fate: Fate) -> dict[str, Fate]:
    """The same fate for each recipient."""
    return dict.fromkeys(shipment.recipients, fate)
