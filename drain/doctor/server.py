"""The mail server: TCP, TLS, AUTH, what it can carry, and the mailboxes that mail falls back to.

No mail is sent: after RCPT comes RSET, or QUIT.
"""

import contextlib
import dataclasses
import secrets
import smtplib
from collections.abc import Iterator, Sequence
from functools import partial

from drain.doctor import connection
from drain.doctor.bounded import bounded
from drain.doctor.finding import Finding, Level
from drain.doctor.say import Say
from drain.errors import DrainError, MailServerRefused
from drain.inject import Reply, Session
from drain.login import Server
from drain.places import is_loopback
from drain.routing import Router
from drain.sessions import Sessions
from drain.text import clean

_SAY = Say("server")
_SECONDS = 180.0
# RFC 2606 3: nobody's, but names that resolve. Whoever has one for a mail domain is asked for the next.
_FOREIGN = ("example.com", "example.net", "example.org")
_OPEN_DOOR = "Make AUTH mandatory on this port: see drain/templates (postfix-main.cf, maddy.conf)."


def check(server: Server, router: Router, *, largest: int, seconds: float = _SECONDS) -> Iterator[Finding]:
    """What there is to say of it; *largest* is the size of the largest mail that it has to take, in bytes."""
    return bounded(_SAY.check, seconds, _check(server, router, largest))


def _check(server: Server, router: Router, largest: int) -> Iterator[Finding]:
    reached = connection.reached(_SAY, server)
    yield reached
    if reached.level is not Level.OK:
        return
    tls = list(connection.secured(_SAY, server))
    yield from tls
    if any(finding.level is Level.FAILURE for finding in tls):
        return
    yield _stranger(server, _fallbacks(router))
    try:
        session = Session(server)
    except DrainError as error:
        yield _not_let_in(error)
        return
    yield _SAY.ok(f"It takes the login of {clean(server.user)}.")
    yield from _abilities(session, largest)
    session.close()
    with contextlib.closing(Sessions(partial(Session, server), 1)) as sessions:
        yield from _mailboxes(sessions, router)


def _stranger(server: Server, addresses: Sequence[str]) -> Finding:
    """Whether it takes mail from who has not logged in: on a phone that is every app."""
    replies: list[Reply] = []
    why = ""
    try:
        session = Session(dataclasses.replace(server, user=""))
        with contextlib.closing(session):
            for reply in _without_login(session, addresses):
                replies.append(reply)  # noqa: PERF402 (what was said before it breaks off counts)
    except MailServerRefused:
        pass  # 530, at whichever command
    except DrainError as error:
        why = str(error)
    if any(reply.positive for reply in replies):
        who = "every program on this machine" if is_loopback(server.host) else "everybody who reaches it"
        return _SAY.failure(f"It takes mail without a login: {who} can write into your mailboxes.", _OPEN_DOOR)
    if any(reply.no_such_mailbox for reply in replies):
        return _SAY.warning(
            "It answers who has not logged in about mailboxes, and takes mail for those that are there perhaps.",
            _OPEN_DOOR,
        )
    if why or any(reply.transient for reply in replies):
        return _SAY.unknown(f"Whether it takes mail without a login is not known: {why or replies[-1]}")
    return _SAY.ok("It takes no mail from who has not logged in.")


def _without_login(session: Session, addresses: Sequence[str]) -> Iterator[Reply]:
    reply = session.mail("", 0, eight_bit=False, smtputf8=False)
    if not reply.positive:
        yield reply
        return
    for address in addresses:
        yield session.rcpt(address)


def _abilities(session: Session, largest: int) -> Iterator[Finding]:
    wanted = (
        f"Postfix: `message_size_limit = {largest}`, and virtual_mailbox_limit no less (or 0). "
        f"Maddy: `max_message_size {-(-largest // 2**20)}M`."
    )
    limit = session.size_limit()
    if limit is not None and limit < largest:
        yield _SAY.failure(
            f"It takes mails of {limit:,} bytes at most, and they can be {largest:,} by the time they get here: "
            "larger ones go to quarantine.",
            wanted,
        )
    elif limit is None and not session.offers("size"):
        yield _SAY.warning("It does not say how large a mail may be (SIZE).", wanted)
    else:
        yield _SAY.ok(f"It takes mails of {f'{limit:,} bytes' if limit else 'any size'}; {largest:,} are needed.")
    if session.offers("8bitmime"):
        yield _SAY.ok("It takes 8-bit mail as it is (8BITMIME).")
    else:
        yield _SAY.warning(
            "It does not offer 8BITMIME; drain sends 8-bit mail all the same, and it may be damaged.",
            "Turn it on: Postfix and Maddy have it by default.",
        )
    if session.offers("smtputf8"):
        yield _SAY.ok("It takes addresses with letters outside ASCII (SMTPUTF8).")
    else:
        yield _SAY.warning(
            "It does not offer SMTPUTF8: mail from or to an address with letters outside ASCII cannot be delivered.",
            "Postfix: `smtputf8_enable = yes`. Maddy has it by default.",
        )


def _mailboxes(sessions: Sessions, router: Router) -> Iterator[Finding]:
    taken: list[str] = []
    for address, what, level in _wanted(router):
        try:
            reply = _asked(sessions, address)
        except DrainError as error:
            yield _SAY.unknown(f"Whether it has {clean(address)}, {what}, is not known. {error}")
            continue
        if reply.positive:
            taken.append(address)
        else:
            yield _not_taken(address, what, level, reply)
    if taken:
        yield _SAY.ok(f"It takes mail for {clean(', '.join(taken), 400)}.")
    if not router.catch_all:
        yield _SAY.ok("There is no catch-all (INJECT_RCPT=none): mail that no mailbox takes goes to quarantine.")
    yield from _strangers_mailbox(sessions, router)


def _wanted(router: Router) -> Iterator[tuple[str, str, Level]]:
    """Addresses that must be there, what they are, and how bad it is if they are not."""
    seen: set[str] = set()
    wanted = [
        (router.catch_all, "the catch-all (INJECT_RCPT)", Level.FAILURE),
        (router.admin_mailbox, "the admin mailbox (MAIL_ADMIN_LOCALPART)", Level.FAILURE),
        *((target, "the target of an alias (MAIL_ALIASES_FILE)", Level.FAILURE) for target in router.aliases.values()),
        (router.junk, "the mailbox for spam (SPAM_RCPT)", Level.WARNING),
    ]
    for address, what, level in wanted:
        if address and address.lower() not in seen:
            seen.add(address.lower())
            yield address, what, level


def _fallbacks(router: Router) -> list[str]:
    return [address for address in (router.admin_mailbox, router.catch_all) if address]


def _asked(sessions: Sessions, address: str) -> Reply:
    """What it says to RCPT, or to MAIL if that is refused already."""
    with sessions.borrow() as session:
        wide = not address.isascii() and session.offers("smtputf8")
        reply = session.mail("", 0, eight_bit=False, smtputf8=wide)
        return session.rcpt(address) if reply.positive else reply


def _not_taken(address: str, what: str, level: Level, reply: Reply) -> Finding:
    shown = clean(address)
    if reply.transient:
        return _SAY.unknown(
            f"Whether it has {shown}, {what}, is not known: it says {reply}.", "Try again; its log says why."
        )
    if reply.command == "MAIL":
        return _SAY.failure(
            f"It does not take mail with an empty sender, as bounces have it: {reply}.", "Its log says why."
        )
    if not reply.no_such_mailbox:
        return _SAY.failure(f"It refuses mail for {shown}, {what}: {reply}.", "Its log says why.")
    local, _, domain = shown.rpartition("@")
    say = _SAY.failure if level is Level.FAILURE else _SAY.warning
    return say(
        f"It has no mailbox {shown}, which is {what}: {reply}.",
        f"Postfix: a line `{shown} {domain}/{local}/` in the file of virtual_mailbox_maps, then `postfix reload`. "
        f"Maddy: `maddy creds create {shown}` and `maddy imap-acct create {shown}`.",
    )


def _strangers_mailbox(sessions: Sessions, router: Router) -> Iterator[Finding]:
    """An address that nobody has, here and elsewhere."""
    nobody = f"drain-doctor-{secrets.token_hex(6)}"
    foreign = next((domain for domain in _FOREIGN if domain not in router.domains), _FOREIGN[0])
    try:
        here = _asked(sessions, f"{nobody}@{router.domains[0]}")
        elsewhere = _asked(sessions, f"{nobody}@{foreign}")
    except DrainError as error:
        yield _SAY.unknown(f"Whether it takes mail for anybody at all is not known. {error}")
        return
    if here.positive:
        yield _SAY.ok(
            f"It takes mail for any name at {router.domains[0]}: it has a catch-all of its own, and drain's is idle."
        )
    elif here.no_such_mailbox:
        yield _SAY.ok(f"It refuses names at {router.domains[0]} that nobody has; drain asks for the next address then.")
    if elsewhere.positive:
        yield _SAY.warning(
            f"After the login it takes mail for other domains too ({foreign}): who has the password can send "
            "through it. (drain never does.)",
            "Postfix: `smtpd_relay_restrictions = reject_unauth_destination, permit_sasl_authenticated, reject`. "
            "Maddy: `default_destination { reject 550 5.7.1 }` on this port.",
        )


def _not_let_in(error: DrainError) -> Finding:
    words, hint = str(error.args[0]), error.hint
    if isinstance(error, MailServerRefused) and isinstance(error.__cause__, smtplib.SMTPAuthenticationError):
        hint += " A password is set by `maddy creds password USER`, or for Postfix by `saslpasswd2 -c -u REALM USER`."
    return _SAY.failure(words, hint or "Its log says why.")
