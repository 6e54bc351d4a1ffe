"""Any smarthost: submission over SMTP (RFC 5321, 6409), with several hosts in order.

What a host says before the first mail (no connection, no TLS, no greeting, no
login) is about the host, and the next one is tried. What it says from MAIL on is about
the mail: each recipient has its own answer, and where the connection breaks after the
final dot nobody knows (`SessionLost`), so that the mail is delayed and may come twice.
"""

import contextlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from drain.errors import ConfigError, DrainError, MailServerRefused, MailServerUnavailable
from drain.inject import Reply, Session, SessionLost
from drain.login import Server
from drain.mail import on_the_wire
from drain.places import domain_key, is_loopback
from drain.setting import Secret
from drain.text import clean
from drain.upstreams import Action, Fate, Shipment, UpstreamDown, UpstreamRefused, dane, for_all

# RFC 5321 4.5.3.1.8: every server takes so many.
_MOST_RECIPIENTS = 100
# Less than after which any provider closes; some wait no longer than half a minute.
_IDLE_SECONDS = 20.0
# Documented header fields by which a mail that comes again is known again, for 24 hours:
# resend.com/docs/send-with-smtp, support.jetemail.com/outbound/idempotency-keys.
_KEY_FIELDS = {"smtp.resend.com": b"Resend-Idempotency-Key", "relay.jetsmtp.net": b"X-Idempotency-Key"}
# RFC 3463 3.2 (no such mailbox; moved and nobody knows where) and RFC 7505 4.2 (the domain takes
# no mail). A 5xx without such a code may be anything: policy, a blocked sender, a full mailbox.
_BAD_ADDRESS = frozenset({"5.1.1", "5.1.6", "5.1.10"})
_TOO_MANY_RECIPIENTS = "5.5.3"  # RFC 3463 3.6
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_QUEUE_ID = re.compile(r"\b(?:queued as |id=)([\w.@-]{1,100})", re.ASCII)
_UNKNOWN = "it may have been sent"


class Smtp:
    """A smarthost, or several that stand in for each other.

    Args:
        hosts: name and port of each, in the order in which they are tried.
        user: "" where it wants no login.
        password: for AUTH.
        tls: ``starttls``, ``implicit`` or ``none``.
        ca_file: CA file, or the server's own certificate; "" for the system's CAs.
        resolver: who is asked for TLSA records; None: no DANE.
        ehlo: the name that we give; some relays (Google's) take no ``localhost``.
        idle_seconds: after so long a connection is not used again.

    Raises:
        ConfigError: no host, or no TLS beyond loopback, or DANE without TLS.
    """

    name = "smtp"
    most_recipients = _MOST_RECIPIENTS
    # Which size a host takes, it says in its answer to EHLO.
    most_bytes = sys.maxsize

    def __init__(
        self,
        hosts: Sequence[tuple[str, int]],
        user: str,
        password: Secret,
        *,
        tls: str = "starttls",
        ca_file: str = "",
        resolver: dane.Resolver | None = None,
        ehlo: str = "localhost",
        idle_seconds: float = _IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not hosts:
            raise ConfigError("There is no smarthost.", "Set SMARTHOST_HOST.")
        if tls == "none" and (far := next((host for host, _ in hosts if not is_loopback(host)), "")):
            raise ConfigError(
                f"SMARTHOST_TLS=none is for loopback only, and {far} is not there.", "Set SMARTHOST_TLS=starttls."
            )
        if tls == "none" and resolver is not None:
            raise ConfigError("SMARTHOST_DANE proves a certificate, and with SMARTHOST_TLS=none there is none.")
        self._servers = [
            Server(host, port, user, password, tls, ca_file, name="smarthost", settings="SMARTHOST", ehlo=ehlo)
            for host, port in hosts
        ]
        self._resolver = resolver
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._lock = threading.Lock()
        # Last in, first out: with little to do it keeps to one connection.
        self._idle: list[tuple[_Connection, float]] = []
        self._busy: set[_Connection] = set()
        self._stopping = False

    def objection(self, shipment: Shipment) -> str:
        """An address that no SMTP command can carry."""
        if any(_CONTROLS.search(address) for address in (shipment.sender, *shipment.recipients)):
            return "An address has control characters in it."
        return ""

    def send(self, shipment: Shipment) -> Mapping[str, Fate]:
        """One transaction; the fate of each recipient.

        Raises:
            UpstreamDown, UpstreamRefused: it concerns all mail, and nothing was sent.
        """
        if words := self.objection(shipment):
            return for_all(shipment, Fate(Action.FAILED, "5.1.3", f"smtp; {words}"))
        with self._translated():
            connection = self._kept() or self._connected()
            try:
                transaction = _Transaction(connection, shipment)
                try:
                    transaction.run()
                except SessionLost as lost:
                    if self._stopping and not lost.after_dot:
                        raise UpstreamDown("drain is stopping.") from lost
                    transaction.lost(lost)
                return transaction.fates
            finally:
                self._give_back(connection)

    def probe(self) -> str:
        """Logs in to the first host that can be used: what it is, and what it offers.

        Raises:
            UpstreamDown, UpstreamRefused: none can be used.
        """
        passed_over: list[str] = []
        with self._translated():
            connection = self._connected(passed_over)
            session, server = connection.session, connection.server
            try:
                words = [
                    str(server),
                    f"{session.tls or 'no TLS'}{connection.proof}",
                    f"logged in as {server.user}" if server.user else "no login",
                    f"answers {session.noop()}",
                    f"offers {', '.join(session.extensions)}",
                    *passed_over,
                ]
            except SessionLost as lost:
                raise UpstreamDown(str(lost)) from lost
            finally:
                self._give_back(connection)
        return clean("; ".join(words), 2000)

    def rest(self) -> None:
        """Closes what is kept."""
        with self._lock:
            kept, self._idle = self._idle, []
        for connection, _ in kept:
            connection.session.close()

    def stop(self) -> None:
        """Breaks what is in flight, from any thread; from then on nothing is sent."""
        with self._lock:
            self._stopping = True
            for connection in self._busy:
                connection.session.abort()
        self.rest()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except MailServerUnavailable as error:
            raise UpstreamDown(str(error)) from error
        except (MailServerRefused, ConfigError) as error:  # a CA file that cannot be read is for a person, too
            raise UpstreamRefused(str(error)) from error

    # -- connections --

    def _kept(self) -> "_Connection | None":
        """One from before that is still there."""
        while True:
            with self._lock:
                if not self._idle or self._stopping:
                    return None
                connection, since = self._idle.pop()
                self._busy.add(connection)
            if self._clock() - since < self._idle_seconds:
                try:
                    connection.session.reset()
                except (SessionLost, MailServerRefused):
                    pass  # it was closed meanwhile, which is no mail's fault
                else:
                    return connection
            with self._lock:
                self._busy.discard(connection)
            connection.session.close()

    def _connected(self, passed_over: list[str] | None = None) -> "_Connection":
        """A new one to the first host that takes us; why others did not is added to *passed_over*."""
        failures: list[DrainError] = []
        for server in self._servers:
            if self._stopping:
                break
            try:
                connection = self._connect(server)
            except (MailServerUnavailable, MailServerRefused, UpstreamDown) as error:
                failures.append(error)
                continue
            with self._lock:
                self._busy.add(connection)
                stopping = self._stopping
            if stopping:
                self._give_back(connection)
                break
            if passed_over is not None:
                passed_over += map(str, failures)
            return connection
        if self._stopping:
            raise UpstreamDown("drain is stopping.")
        words = " ".join(map(str, failures))
        if any(isinstance(error, MailServerRefused) for error in failures):
            raise UpstreamRefused(words)
        raise UpstreamDown(words)

    def _connect(self, server: Server) -> "_Connection":
        if self._resolver is None:
            return _Connection(server, Session(server))
        records = self._resolver.records(server.host, server.port)
        if not records:
            return _Connection(server, Session(server), " (no signed TLSA records: verified by CA and name)")
        check = partial(dane.verify, records, server.host)
        return _Connection(server, Session(replace(server, check=check)), " (proven by DANE)")

    def _give_back(self, connection: "_Connection") -> None:
        session = connection.session
        with self._lock:
            self._busy.discard(connection)
            usable = not (session.broken or session.spent or self._stopping)
            if usable:
                self._idle.append((connection, self._clock()))
        if not usable:
            session.close()


@dataclass(frozen=True, eq=False)
class _Connection:
    """A session, whose it is, and what its certificate was verified by."""

    server: Server
    session: Session
    proof: str = ""


class _Transaction:
    """One shipment over one session, from MAIL to the answer to the final dot."""

    def __init__(self, connection: _Connection, shipment: Shipment) -> None:
        self._server = connection.server
        self._session = connection.session
        self._shipment = shipment
        self.fates: dict[str, Fate] = {}

    def run(self) -> None:
        """To the end; then ``fates`` has each recipient.

        Raises:
            SessionLost: the connection broke; see `lost`.
            MailServerRefused: the server wants a login that it had, or that we have not.
        """
        session, shipment = self._session, self._shipment
        field = _KEY_FIELDS.get(self._server.host.lower().rstrip("."))
        added = b"%b: %b\r\n" % (field, shipment.key.encode("ascii")) if field else b""
        wire = on_the_wire(shipment.raw, added)
        limit = session.size_limit()
        if limit is not None and len(wire) > limit:
            self._rest(_failed("5.3.4", f"the {self._server} takes {limit} bytes, and this mail has {len(wire)}"))
            return
        sender, recipients = self._sayable()
        if sender is None or not recipients:
            return
        reply = session.mail(
            sender,
            len(wire),
            # Without 8BITMIME it goes as it is: re-encoded (RFC 6152 3) it would lose its signature, and
            # returned it would be lost, for the sake of servers that nobody runs any more.
            eight_bit=not shipment.raw.isascii(),
            smtputf8=not "".join((sender, *recipients.values())).isascii(),
        )
        if not reply.positive:
            self._rest(_fate(reply))
        elif self._ask_for(recipients):
            self._hand_over(wire)

    def lost(self, lost: SessionLost) -> None:
        """The connection broke: all who have no answer yet are delayed."""
        words = f"{lost.reply or lost}{f' ({_UNKNOWN})' if lost.after_dot else ''}"
        status = _status(lost.reply) if lost.reply else "4.4.2"
        self._rest(Fate(Action.DELAYED, status, f"smtp; {words}", unknown=lost.after_dot))

    def _sayable(self) -> tuple[str | None, dict[str, str]]:
        """Sender and recipients in the form that this server takes, as far as it does; the others have failed."""
        sender, recipients = self._said(self._shipment.sender), {}
        for to in self._shipment.recipients:
            said = self._said(to)
            if sender is not None and said is not None:
                recipients[to] = said
                continue
            whose = "the sender's" if sender is None else "this"
            self.fates[to] = _failed(
                "5.6.7", f"{whose} address is not ASCII, and the {self._server} offers no SMTPUTF8 (RFC 6531)"
            )
        return sender, recipients

    def _ask_for(self, recipients: Mapping[str, str]) -> bool:
        """RCPT for each; whether any was taken."""
        taken = False
        for to, said in recipients.items():
            reply = self._session.rcpt(said)
            if reply.positive:
                taken = True
            elif taken and _too_many(reply):
                self.fates[to] = Fate(Action.DELAYED, "4.5.3", f"smtp; {reply}")
            else:
                self.fates[to] = _fate(reply)
        return taken

    def _hand_over(self, wire: bytes) -> None:
        """DATA, for those who were taken."""
        reply = self._session.data()
        if reply.code != 354:
            self._rest(_fate(reply))
            return
        self._session.send(wire)
        self._session.send_dot()
        reply = self._session.final_reply()
        self._rest(_relayed(reply) if reply.positive else _fate(reply))

    def _said(self, address: str) -> str | None:
        """The address as this server can take it; None if it cannot."""
        if address.isascii() or self._session.offers("smtputf8"):
            return address
        local, _, domain = address.rpartition("@")
        ascii_form = f"{local}@{domain_key(domain)}"
        return ascii_form if ascii_form.isascii() else None

    def _rest(self, fate: Fate) -> None:
        """The fate of all who have none yet."""
        for to in self._shipment.recipients:
            self.fates.setdefault(to, fate)


def _relayed(reply: Reply) -> Fate:
    found = _QUEUE_ID.search(reply.text)
    return Fate(Action.RELAYED, _status(reply), f"smtp; {reply}", reference=found.group(1) if found else "")


def _fate(reply: Reply) -> Fate:
    """Of a refusal; what makes no sense, such as 250 to DATA, is tried again."""
    if 500 <= reply.code < 600:
        bad = reply.command == "RCPT" and reply.enhanced in _BAD_ADDRESS
        return Fate(Action.FAILED, _status(reply), f"smtp; {reply}", bad_address=bad)
    return Fate(Action.DELAYED, _status(reply) if reply.transient else "4.5.0", f"smtp; {reply}")


def _failed(status: str, words: str) -> Fate:
    return Fate(Action.FAILED, status, f"smtp; {words}")


def _status(reply: Reply) -> str:
    """The enhanced status code, where it is of the reply's own class."""
    kind = str(reply.code)[0]
    return reply.enhanced if reply.enhanced and reply.enhanced.startswith(kind) else f"{kind}.0.0"


def _too_many(reply: Reply) -> bool:
    """Whether others were taken, and this one would be in a transaction of its own (RFC 5321 4.5.3.1.10)."""
    return reply.enhanced == _TOO_MANY_RECIPIENTS or (reply.code == 552 and reply.enhanced is None)
