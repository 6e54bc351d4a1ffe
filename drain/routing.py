"""Which addresses to ask the mail server for, and in which order.

There is no list of mailboxes here: the server knows its own. The candidates are
offered to it by RCPT TO until it takes one. Nothing outside the person's own
mail domains is ever a candidate: who can write to the bucket would otherwise
have an open relay behind an authenticated session.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drain.errors import ConfigError
from drain.places import domain_key
from drain.text import clean

# RFC 2142, and the address that DMARC reports usually go to.
ROLES = frozenset({"postmaster", "abuse", "hostmaster", "webmaster", "security", "dmarc", "root"})
# A local part with one of these can be a route to somewhere else, which a mail
# server may follow for whoever has logged in: `victim%away@here`, `away!victim@here`,
# `victim@away@here` and the same in quotes (Postfix: allow_percent_hack,
# swap_bangpath, resolve_dequoted_address).
_ROUTES_ON = frozenset('@%!"\\')
_JUNK = "+junk"
_ADDRESS_LIMIT = 254  # octets; RFC 5321 4.5.3.1.3, less the angle brackets


@dataclass(frozen=True)
class Candidate:
    """An address to ask for, and why: ``alias``, ``itself``, ``plus``, ``role``, ``catch-all`` or ``junk``."""

    address: str
    why: str


@dataclass(frozen=True)
class Router:
    """The person's rules.

    ``catch_all`` is "" where there is none; ``junk`` is the mailbox for junk, "" for
    ``<mailbox>+junk``.
    """

    domains: tuple[str, ...]
    catch_all: str
    admin_mailbox: str
    more_roles: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    junk: str = ""

    def candidates(self, recipient: str) -> list[Candidate]:
        """What to try for an envelope recipient, best first, never twice the same."""
        result: dict[str, Candidate] = {}
        for candidate in self._all(recipient):
            result.setdefault(candidate.address.lower(), candidate)
        return list(result.values())

    def junk_candidates(self, recipient: str) -> list[Candidate]:
        """The same for junk: its mailbox first, and where the server has none, as any other mail."""
        usual = self.candidates(recipient)
        if self.junk:
            return [Candidate(self.junk, "junk"), *usual]
        result: dict[str, Candidate] = {}
        for candidate in usual:
            local, _, domain = candidate.address.rpartition("@")
            beside = f"{local.partition('+')[0]}{_JUNK}@{domain}"
            if is_sendable(beside):
                result.setdefault(beside.lower(), Candidate(beside, "junk"))
            result.setdefault(candidate.address.lower(), candidate)
        return list(result.values())

    def _all(self, recipient: str) -> Iterator[Candidate]:
        local, _, domain = recipient.rpartition("@")
        # First, since it bounds the length of what comes after.
        ours = is_sendable(recipient) and not _ROUTES_ON & set(local)
        if ours and (domain := domain_key(domain)) in self.domains:
            base, plus, _ = local.partition("+")
            if target := self._alias(local, domain):
                yield Candidate(target, "alias")
            yield Candidate(f"{local}@{domain}", "itself")
            if plus and base:
                yield Candidate(self._alias(base, domain) or f"{base}@{domain}", "plus")
            if (base or local).lower() in ROLES | self.more_roles:
                yield Candidate(self.admin_mailbox, "role")
        if self.catch_all:
            yield Candidate(self.catch_all, "catch-all")

    def _alias(self, local: str, domain: str) -> str | None:
        name = local.lower()
        return self.aliases.get(f"{name}@{domain}") or self.aliases.get(name)


def is_sendable(address: str) -> bool:
    """Whether an address may go on the wire: no controls, blanks or angle brackets, at most 254 octets."""
    local, _, domain = address.rpartition("@")
    return (
        bool(local and domain)
        and len(address.encode("utf-8", "surrogatepass")) <= _ADDRESS_LIMIT
        and address.isprintable()
        and not any(c.isspace() or c in "<>" for c in address)
    )


def load_aliases(path: Path, domains: tuple[str, ...]) -> dict[str, str]:
    """The aliases of a file: ``name: target`` or ``name@domain: target@domain``, ``#`` for comments.

    A target without a domain is in the first mail domain.

    Raises:
        ConfigError: the file cannot be read, or a line is not like that, or a
            target lies outside the mail domains.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"MAIL_ALIASES_FILE {path} cannot be read: {error}.") from error
    aliases = {}
    for number, line in enumerate(lines, start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        name, colon, target = (part.strip() for part in content.partition(":"))
        if target and "@" not in target:
            target = f"{target}@{domains[0]}"
        if not (colon and name and is_sendable(target) and domain_key(target.rpartition("@")[2]) in domains):
            raise ConfigError(
                f"MAIL_ALIASES_FILE {path}, line {number}: {clean(content)!r} is not right.",
                "It wants `name: mailbox`, one mailbox, in a domain of MAIL_DOMAIN.",
            )
        local, at, domain = name.lower().rpartition("@")
        aliases[f"{local}@{domain_key(domain)}" if at else name.lower()] = target
    return aliases
