"""Who may send what to whom.

Everything fails closed: where nothing is allowed by name, nothing is sent, and what
cannot be read for certain is refused.
"""

from dataclasses import dataclass

from drain.header import Header
from drain.places import matches
from drain.relay import author
from drain.relay.author import Unclear
from drain.relay.refusal import Refusal


@dataclass(frozen=True)
class Policy:
    """The person's rules: ALLOWED_FROM, RECIPIENT_ALLOWLIST, RECIPIENT_DENYLIST, RELAY_FROM_FALLBACK.

    Patterns as `places.address_patterns` gives them; ``fallback`` is "" for none. A user's
    ``own`` senders narrow ALLOWED_FROM down and never widen it; without any, a user
    may use all of it.
    """

    allowed_from: tuple[str, ...]
    allowlist: tuple[str, ...] = ()
    denylist: tuple[str, ...] = ()
    fallback: str = ""

    def sender(self, address: str, own: tuple[str, ...]) -> str:
        """The envelope's sender to use: *address* ("" for ``<>``), or the fallback where it has no domain.

        Raises:
            Refusal: it is no address, or not one that the user may use.
        """
        if address:
            try:
                author.parts(address)
            except Unclear as error:
                raise Refusal(553, "5.1.7", f"The sender is refused: {error}.") from error
        if not address and self._may(address, own):
            return address
        if not address or author.is_unqualified(address):
            return self._fallback(address, own)
        if not self._may(address, own):
            raise self._not_allowed("The sender", address, own)
        return address

    def recipient(self, address: str) -> None:
        """Whether mail may go there; the denylist wins.

        Raises:
            Refusal: it is no address, could be a route to another one, or is kept out by a list.
        """
        try:
            _, domain = author.parts(address, dots_anywhere=True)
        except Unclear as error:
            raise Refusal(553, "5.1.3", f"The recipient is refused: {error}.") from error
        shown = author.shown(address)
        if not domain:
            words = f"The recipient <{shown}> has no domain; this relay has no mailboxes. Write a full address."
            raise Refusal(553, "5.1.3", words)
        if matches(address, self.denylist):
            raise Refusal(550, "5.7.1", f"Mail to <{shown}> is refused: RECIPIENT_DENYLIST names it.")
        if self.allowlist and not matches(address, self.allowlist):
            words = f"Mail to <{shown}> is refused: RECIPIENT_ALLOWLIST is set and does not name it."
            raise Refusal(550, "5.7.1", words)

    def authors(self, header: Header, own: tuple[str, ...]) -> tuple[str, ...]:
        """The addresses in From, when all of them and those in Sender and Resent-* may be used.

        Given the header as it will be sent (`submission.complete`), so that From is there.

        Raises:
            Refusal: one may not, there is no From, or it cannot be read for certain.
        """
        try:
            found = author.read(header)
        except Unclear as error:
            raise Refusal(550, "5.6.0", f"The mail is refused: {error}.") from error
        if not found.get("From"):
            raise Refusal(550, "5.6.0", "The mail is refused: it has no From field.")
        for name, mailboxes in found.items():
            for mailbox in mailboxes:
                if not self._may(mailbox.address, own):
                    raise self._not_allowed(f"The address in {name}", mailbox.address, own)
        return tuple(mailbox.address for mailbox in found["From"])

    def _may(self, address: str, own: tuple[str, ...]) -> bool:
        if address and author.is_unqualified(address):
            return False
        return matches(address, self.allowed_from) and (not own or matches(address, own))

    def _fallback(self, address: str, own: tuple[str, ...]) -> str:
        shown = f"<{author.shown(address)}>"
        if not self.fallback:
            what = f"{shown} has no domain that is known outside this machine" if address else f"{shown} is empty"
            also = "" if address else ", or put <> into ALLOWED_FROM for reports"
            words = f"The sender {what}. Send with a full address, or set RELAY_FROM_FALLBACK{also}."
            raise Refusal(550, "5.7.1", words)
        if not self._may(self.fallback, own):
            raise self._not_allowed(f"RELAY_FROM_FALLBACK, for the sender {shown},", self.fallback, own)
        return self.fallback

    def _not_allowed(self, what: str, address: str, own: tuple[str, ...]) -> Refusal:
        shown = f"{what} <{author.shown(address)}> may not be used"
        if not self.allowed_from:
            return Refusal(550, "5.7.1", f"{shown}: ALLOWED_FROM is empty, so nothing is sent. Set ALLOWED_FROM.")
        if matches(address, self.allowed_from) and own:
            return Refusal(550, "5.7.1", f"{shown} by this user: it is not among the user's own senders.")
        return Refusal(550, "5.7.1", f"{shown}: ALLOWED_FROM does not name it.")
