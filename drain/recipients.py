"""The mailboxes that exist at home, as the Worker may know them (``worker/FORMAT.md``).

The Worker can refuse a mail to somebody who is not there while the sender's
server still listens; drain never can. A refusal is for ever, so the list says
no more than was proven: each address by RCPT, each domain by the refusal of a
name that nobody has. Where home takes any name at all, nobody is refused.
"""

import datetime
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from drain.directory import Listing
from drain.errors import ConfigError, MailServerUnavailable
from drain.routing import Candidate, Router, is_sendable
from drain.sessions import Sessions
from drain.setting import Secret, domain_key

KEY = "config/recipients"
_FIRST_LINE = "drain recipients v1\n"
_HASH_DIGITS = 32
_SALT_BYTES = 16
# What Postfix's recipient_delimiter can be, beside `+`, which is drain's own.
_DELIMITERS = "-_.=#"


@dataclass(frozen=True)
class Recipients:
    """What was proven.

    ``addresses`` are taken, each at one of the mail domains; ``domains`` are
    those in which no other name is; ``delimiters`` end a name that stands for
    all that begin with it. ``catch_alls`` are addresses that take everything.
    """

    addresses: frozenset[str]
    domains: frozenset[str]
    delimiters: str
    catch_alls: tuple[str, ...]


# Whether the mail server has a mailbox; None: it cannot say just now.
Ask = Callable[[str], bool | None]


def asker(sessions: Sessions) -> Ask:
    """Asks by RCPT, once for each address.

    What it returns raises:
        MailServerUnavailable: the server refuses something else than the mailbox.
    """
    known: dict[str, bool | None] = {}

    def ask(address: str) -> bool | None:
        if address not in known:
            with sessions.borrow() as session:
                reply = session.mail("", 0, eight_bit=False, smtputf8=False)
                if reply.positive:
                    reply = session.rcpt(address)
                if not (reply.positive or (reply.command == "RCPT" and (reply.transient or reply.no_such_mailbox))):
                    raise _unclear(address, str(reply))
            known[address] = None if reply.transient else reply.positive
        return known[address]

    return ask


def _unclear(address: str, words: str) -> MailServerUnavailable:
    return MailServerUnavailable(
        f"The mail server gave no clear answer about {address}: {words}.", "Nothing was published."
    )


def prove(router: Router, names: Iterable[str], ask: Ask) -> Recipients:
    """Which of the names are mailboxes, or lead to one as *router* has it.

    A name without a domain is asked for at every mail domain. One that is not
    ASCII is left out: such recipients the Worker lets through. A mailbox that is
    full or out of order just now is there.

    Raises:
        MailServerUnavailable: the server does not say whether it has a catch-all.
    """
    addresses = {
        address
        for address in _at_our_domains(router, names)
        if address.isascii() and any(ask(candidate.address) is not False for candidate in _own(router, address))
    }
    catch_alls = [router.catch_all] if router.catch_all and _certainly(ask, router.catch_all) else []
    closed = set()
    for domain in router.domains:
        if _certainly(ask, f"nobody-{secrets.token_hex(8)}@{domain}"):
            catch_alls.append(f"@{domain}")
        else:
            closed.add(domain)
    return Recipients(
        addresses=frozenset(addresses),
        domains=frozenset() if router.catch_all in catch_alls else frozenset(closed),
        delimiters="+" + "".join(letter for letter in _DELIMITERS if _is_delimiter(letter, addresses, closed, ask)),
        catch_alls=tuple(catch_alls),
    )


def in_use(listings: Iterable[Listing], router: Router, ask: Ask, *, vouched: bool) -> tuple[list[Listing], list[str]]:
    """The lists that are of this mail server, and warnings about the others.

    A list is, if it names a mailbox that the server has. *vouched*: the person
    names mailboxes in a file of his own, so that a list with gaps will do.

    Raises:
        ConfigError: there is none, or one has gaps: mailboxes that nobody named would be refused.
    """
    used: list[Listing] = []
    warnings: list[str] = []
    gaps: list[str] = []
    for listing in listings:
        addresses = _at_our_domains(router, sorted(listing.names))
        if any(ask(address) is not False for address in addresses if is_sendable(address)):
            used.append(listing)
            gaps += listing.faults
        else:
            why = " ".join(listing.faults) or "It names no mailbox that the mail server has."
            warnings.append(f"{listing.source} is not used. {why}")
    if not used:
        raise ConfigError(
            " ".join(["No list of mailboxes was found.", *warnings]), "Name them in MAIL_USERS_FILE, one a line."
        )
    if gaps and not vouched:
        raise ConfigError(" ".join(gaps), "Name the mailboxes in MAIL_USERS_FILE; then the rest is taken as it is.")
    return used, [*warnings, *gaps]


def document(recipients: Recipients, token: Secret, published: datetime.datetime) -> bytes:
    """The list as it lies in the bucket, signed: who can write there could bounce all mail otherwise."""
    salt = secrets.token_hex(_SALT_BYTES)
    names = recipients.addresses | {f"@{domain}" for domain in recipients.domains}
    content = {
        "published": published.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "salt": salt,
        "delimiters": recipients.delimiters,
        "hashes": sorted(_mac(token, f"drain recipient v1\n{salt}\n{name}")[:_HASH_DIGITS] for name in names),
    }
    encoded = json.dumps(content, separators=(",", ":"))
    return f"{_FIRST_LINE}{_mac(token, _FIRST_LINE + encoded)}\n{encoded}".encode()


def _at_our_domains(router: Router, names: Iterable[str]) -> Iterable[str]:
    for name in names:
        local, at, domain = name.lower().rpartition("@")
        if not at:
            yield from (f"{name.lower()}@{own}" for own in router.domains)
        elif domain_key(domain) in router.domains:
            yield f"{local}@{domain_key(domain)}"


def _own(router: Router, address: str) -> list[Candidate]:
    return [candidate for candidate in router.candidates(address) if candidate.why != "catch-all"]


def _is_delimiter(letter: str, addresses: Iterable[str], closed: set[str], ask: Ask) -> bool:
    """Whether the server takes ``name<letter>anything`` for ``name``, tried on one mailbox of its own."""
    for address in sorted(addresses):
        local, _, domain = address.rpartition("@")
        if domain in closed and ask(address):
            return ask(f"{local}{letter}{secrets.token_hex(8)}@{domain}") is not False
    return False


def _certainly(ask: Ask, address: str) -> bool:
    answer = ask(address)
    if answer is None:
        raise _unclear(address, "not now")
    return answer


def _mac(token: Secret, text: str) -> str:
    return hmac.new(token.reveal().encode(), text.encode(), hashlib.sha256).hexdigest()
