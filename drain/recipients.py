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
from drain.places import domain_key
from drain.routing import Candidate, Router, is_sendable
from drain.sessions import Sessions
from drain.setting import Secret

KEY = "config/recipients"
_FIRST_LINE = "drain recipients v1\n"
_HASH_DIGITS = 32
_SALT_BYTES = 16
# What can be a recipient_delimiter of Postfix's and stand in an address that the Worker asks about.
_PUNCTUATION = "!#$%&'*+-./=?^_`{|}~"
# The Worker reads the list with the CPU time of a mail, of which a free plan has 10 ms.
MOST_NAMES = 2000


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

    A name without a domain is asked for at every mail domain, and ``name+anything``
    also as ``name``. One that is not ASCII is left out: such recipients the
    Worker lets through. A mailbox that is full or out of order just now is there.

    Raises:
        MailServerUnavailable: the server does not say whether it has a catch-all.
        ConfigError: there are more mailboxes than the Worker can know.
    """
    asked = {address for address in _at_our_domains(router, names) if address.isascii()}
    asked |= {_base(address) for address in asked}
    addresses = {
        address for address in asked if any(ask(candidate.address) is not False for candidate in _own(router, address))
    }
    # Who has the base has all of its plus addresses.
    addresses = {address for address in addresses if _base(address) == address or _base(address) not in addresses}
    if len(addresses) > MOST_NAMES:
        raise ConfigError(f"There are {len(addresses)} mailboxes; the Worker can know {MOST_NAMES}.")
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
        delimiters=_delimiters(addresses, closed, ask),
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
            why = " ".join(listing.faults) or "No mailbox of it is one of the mail server's."
            warnings.append(f"Not used: {listing.source}. {why} Mailboxes that only it names would be refused.")
    if not used:
        raise ConfigError(
            " ".join(["No list of mailboxes was found.", *warnings]), "Name them in MAIL_USERS_FILE, one a line."
        )
    if gaps and not vouched:
        raise ConfigError(" ".join(gaps), "Name the mailboxes in MAIL_USERS_FILE; then the rest is taken as it is.")
    return used, [*warnings, *gaps]


def unproven(router: Router, names: Iterable[str], found: Recipients) -> list[str]:
    """Which of the names lead to no mailbox."""
    return [
        name
        for name in sorted(names)
        if not any({address, _base(address)} & found.addresses for address in _at_our_domains(router, [name]))
    ]


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


def _base(address: str) -> str:
    local, _, domain = address.rpartition("@")
    base = local.partition("+")[0]
    return f"{base}@{domain}" if base else address


def _delimiters(addresses: Iterable[str], closed: set[str], ask: Ask) -> str:
    """The letters after which the server takes anything for the name before them, and ``+``, which is drain's.

    Tried at one mailbox of each domain. Postfix cuts a name at the first such
    letter, so it has to be a mailbox with none in its own name; without one,
    any letter may be a delimiter.
    """
    letters = {"+"}
    for domain in sorted(closed):
        here = sorted(address for address in addresses if address.endswith(f"@{domain}") and ask(address))
        plain = [address for address in here if not set(_PUNCTUATION) & set(address.rpartition("@")[0])]
        if plain:
            local = plain[0].rpartition("@")[0]
            probe = secrets.token_hex(8)
            letters |= {mark for mark in _PUNCTUATION if ask(f"{local}{mark}{probe}@{domain}") is not False}
        elif here:
            letters |= set(_PUNCTUATION)
    return "".join(sorted(letters))


def _certainly(ask: Ask, address: str) -> bool:
    answer = ask(address)
    if answer is None:
        raise _unclear(address, "not now")
    return answer


def _mac(token: Secret, text: str) -> str:
    return hmac.new(token.reveal().encode(), text.encode(), hashlib.sha256).hexdigest()
