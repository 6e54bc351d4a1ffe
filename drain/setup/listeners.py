"""The listeners of a mail server on this machine: on loopback only, and nobody gets by without a login.

What `drain doctor` asks of the port for injection is not asked again.
"""

import contextlib
import imaplib
import smtplib
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from drain.doctor.finding import Finding
from drain.doctor.say import Say
from drain.errors import DrainError
from drain.inject import Session
from drain.login import Server
from drain.sessions import Sessions
from drain.text import clean

_SAY = Say("server")
_HOST = "127.0.0.1"
_SECONDS = 10.0
# A listener on 0.0.0.0 answers here, and one on 127.0.0.1 does not.
_OTHER_LOOPBACK = "127.0.0.2"
# RFC 5737 and RFC 3849: nobody's. Nothing is sent to them.
_NOBODYS = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_FOREIGN = "postmaster@example.com"  # RFC 2606 3
_TEMPLATES = "See drain/templates for how it has to be, and its log."


def check(server: Server, mailboxes: Sequence[str], others: Mapping[str, int]) -> Iterator[Finding]:
    """What there is to say of them.

    *server* is the one for injection, *mailboxes* are addresses that it has to take mail for,
    *others* its other ports on 127.0.0.1 by protocol (``lmtp``, ``submission``, ``imap``).
    """
    yield from _mailboxes(server, mailboxes)
    for protocol, port in others.items():
        if protocol in ("lmtp", "submission"):
            yield _stranger(protocol, port, mailboxes[0])
    for protocol, port in {"smtp": server.port, **others}.items():
        # LMTP is Maddy's talk with itself: there is no TLS, and no mail program comes.
        if protocol in ("smtp", "submission", "imap"):
            yield from _in_the_clear(protocol, port)
    yield _reach([server.port, *others.values()])


def _mailboxes(server: Server, mailboxes: Sequence[str]) -> Iterator[Finding]:
    """Whether all of them are there."""
    refused = False
    with contextlib.closing(Sessions(partial(Session, server), 1)) as sessions:
        for address in mailboxes:
            try:
                with sessions.borrow() as session:
                    reply = session.mail("", 0, eight_bit=False, smtputf8=not address.isascii())
                    if reply.positive:
                        reply = session.rcpt(address)
            except DrainError as error:
                yield _SAY.unknown(f"Whether it takes mail for {address} is not known. {error}")
                return
            if not reply.positive:
                refused = True
                say = _SAY.unknown if reply.transient else _SAY.failure
                yield say(f"It refuses mail for {address}, which was to be made: {reply}.", _TEMPLATES)
    if not refused:
        yield _SAY.ok(f"It has every mailbox that it has to have: {len(mailboxes)}.")


def _stranger(protocol: str, port: int, mailbox: str) -> Finding:
    """Whether somebody without a login gets a mail in at another port; nothing is sent."""
    try:
        codes = _without_login(protocol, port, mailbox)
    except (OSError, smtplib.SMTPException) as error:
        return _SAY.unknown(f"Whether port {port} ({protocol}) takes mail without a login is not known: {error}")
    if any(200 <= code < 300 for code in codes):
        words = f"Port {port} ({protocol}) takes mail without a login: every program on this machine can write there."
        return _SAY.failure(words, _TEMPLATES)
    if any(400 <= code < 500 for code in codes):
        return _SAY.unknown(f"Whether port {port} ({protocol}) takes mail without a login is not known: {codes[-1]}.")
    return _SAY.ok(f"Port {port} ({protocol}) takes no mail from who has not logged in.")


def _without_login(protocol: str, port: int, mailbox: str) -> list[int]:
    """The codes of what decides it: of MAIL if that is refused, else of RCPT, for a mailbox here and one elsewhere."""
    wide = () if mailbox.isascii() else ("SMTPUTF8",)
    with _connected(protocol, port) as smtp:
        if smtp.has_extn("starttls"):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # no password is shown here
            smtp.starttls(context=context)
            smtp.ehlo_or_helo_if_needed()
        # Its own address: a stranger would say so.
        code, _ = smtp.mail(mailbox, wide)
        return [smtp.rcpt(address)[0] for address in (mailbox, _FOREIGN)] if 200 <= code < 300 else [code]


def _in_the_clear(protocol: str, port: int) -> Iterator[Finding]:
    """Whether it wants a password before there is TLS, where another program could be in between."""
    try:
        if protocol == "imap":
            with imaplib.IMAP4(_HOST, port, _SECONDS) as imap:
                offered = "LOGINDISABLED" not in imap.capabilities  # RFC 3501 7.2.1
        else:
            with _connected(protocol, port) as smtp:
                offered = smtp.has_extn("auth")
    except (OSError, smtplib.SMTPException, imaplib.IMAP4.error) as error:
        yield _SAY.unknown(f"Whether port {port} ({protocol}) wants TLS before a login is not known: {error}")
        return
    if offered:
        yield _SAY.failure(f"Port {port} ({protocol}) takes a password before there is TLS.", _TEMPLATES)


@contextlib.contextmanager
def _connected(protocol: str, port: int) -> Iterator[smtplib.SMTP]:
    kind = smtplib.LMTP if protocol == "lmtp" else smtplib.SMTP
    smtp = kind(_HOST, port, "localhost", timeout=_SECONDS)
    try:
        smtp.ehlo_or_helo_if_needed()
        yield smtp
    finally:
        smtp.close()


def _reach(ports: Sequence[int]) -> Finding:
    """Whether one of them can be reached by another address than 127.0.0.1."""
    for port in ports:
        for address in (_OTHER_LOOPBACK, *_addresses()):
            with contextlib.suppress(OSError), socket.create_connection((address, port), _SECONDS):
                return _SAY.failure(
                    f"Port {port} answers at {clean(address)} too, and has to at {_HOST} alone.",
                    f"Let it listen on {_HOST} only. {_TEMPLATES}",
                )
    return _SAY.ok(f"It listens on {_HOST} alone.")


def _addresses() -> Iterator[str]:
    """This machine's own addresses in its networks, those by which it would go out; none without a network."""
    for family, nobody in _NOBODYS:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as there:
            there.connect((nobody, 9))  # UDP: only the route is looked up
            yield str(there.getsockname()[0])
