"""The inbound injection as an upstream: DSNs go into the person's own mailbox, through the mail server at home."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from drain.errors import ConfigError, MailServerRefused, MailServerUnavailable
from drain.inject import Reply, Session, SessionLost
from drain.mail import on_the_wire
from drain.routing import Router
from drain.upstreams import Action, Fate, Shipment, UpstreamDown, UpstreamRefused, for_all


@dataclass(frozen=True)
class Returns:
    """Delivers what it is given as the pass delivers mail: to the mailbox, else to the catch-all."""

    connect: Callable[[], Session]
    router: Router
    name: str = "inbound"
    most_recipients: int = 1
    most_bytes: int = 2**31

    def objection(self, shipment: Shipment) -> str:  # noqa: ARG002 (as the protocol has it)
        """None: DSNs are our own."""
        return ""

    def send(self, shipment: Shipment) -> Mapping[str, Fate]:
        """One transaction for the one recipient; raises as `Upstream.send`."""
        with _translated(), contextlib.closing(self.connect()) as session:
            try:
                return for_all(shipment, self._transaction(session, shipment))
            except SessionLost as error:
                return for_all(shipment, Fate(Action.DELAYED, "4.4.2", f"smtp; {error}", unknown=error.after_dot))

    def _transaction(self, session: Session, shipment: Shipment) -> Fate:
        wire = on_the_wire(shipment.raw)
        # A header may be UTF-8 where the sender's address is.
        smtputf8 = session.offers("smtputf8") and not shipment.recipients[0].isascii()
        reply = session.mail("", len(wire), eight_bit=not wire.isascii(), smtputf8=smtputf8)
        if not reply.positive:
            return _fate(reply)
        for candidate in self.router.candidates(shipment.recipients[0]):
            if not candidate.address.isascii():
                continue  # its mailbox has an ASCII name too, or the catch-all takes it
            reply = session.rcpt(candidate.address)
            if reply.positive or not reply.no_such_mailbox:
                break
        if reply.command != "RCPT":
            return Fate(Action.FAILED, "5.1.1", "smtp; no mailbox of yours is meant, and there is no catch-all")
        if reply.positive:
            reply = session.data()
        if reply.code == 354:
            session.send(wire)
            session.send_dot()
            reply = session.final_reply()
        return _fate(reply)

    def probe(self) -> str:
        """Logs in; raises as `Upstream.probe`."""
        with _translated():
            self.connect().close()
        return "The mail server takes our login."

    def rest(self) -> None:
        """Nothing is kept."""

    def stop(self) -> None:
        """A DSN broken off is delivered again."""


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What is wrong with the mail server at home is so for every report."""
    try:
        yield
    except MailServerUnavailable as error:
        raise UpstreamDown(str(error)) from error
    except (MailServerRefused, ConfigError) as error:
        raise UpstreamRefused(str(error)) from error


def _fate(reply: Reply) -> Fate:
    words = f"smtp; {reply.command}: {reply}"
    if reply.positive:
        return Fate(Action.RELAYED, reply.enhanced or "2.0.0", words)
    if reply.transient or reply.says_nothing_of_the_mail:
        return Fate(Action.DELAYED, reply.enhanced if reply.transient and reply.enhanced else "4.0.0", words)
    return Fate(Action.FAILED, reply.enhanced or "5.0.0", words)
