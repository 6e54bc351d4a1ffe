"""The zones of DNS block lists: what they are asked, and what their answers mean (RFC 5782; Spamhaus' own codes).

A zone says by its test entries whether it can be relied on. One entry must be
listed: resolvers that a list refuses often get "no such name" to everything, which
would look like clean mail. Another must not be: lists that are given up sometimes
list everything.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TypeAlias

import dns.exception
import dns.name

from drain.errors import ConfigError
from drain.filters.lookups import Answer
from drain.setting import Secret

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LISTS = ipaddress.IPv4Network("127.0.0.0/8")
# https://docs.spamhaus.com/datasets/docs/source/10-data-type-documentation/datasets/040-zones.html
_SPAMHAUS_IP = frozenset(f"127.0.0.{code}" for code in (2, 3, 4, 9, 10, 11, 30))
_SPAMHAUS_IP_LISTS = frozenset({"zen", "sbl", "xbl", "sbl-xbl", "pbl"})
_SPAMHAUS_DBL = frozenset(f"127.0.1.{code}" for code in range(2, 255))
# For these a key is asked for in another place, under a name of its own (ibid., 040-dqs-queries).
_SPAMHAUS = re.compile(r"([a-z-]+)\.(?:spamhaus\.org|dq\.spamhaus\.net)")
_DQS_KEY = re.compile(r"[A-Za-z0-9-]{1,63}")

# RFC 5782 5: what every list of addresses, and every list of names, must have and must not have.
# Lists of names in use have 127.0.0.2 instead (URIBL, SURBL), so that will do.
_IP_ENTRIES = (("127.0.0.2",), "127.0.0.1")
_DOMAIN_ENTRIES = (("test", "127.0.0.2"), "invalid")
# Lists of names that have an entry of their own instead, as their makers say.
_OWN_ENTRIES = {"dbl": "dbltest.com", "multi.surbl.org": "test.surbl.org", "multi.uribl.com": "test.uribl.com"}

_OWN_RESOLVER = "Set DNS_RESOLVERS to a resolver of your own"
_ERRORS = "127.255.255."
_SPAMHAUS_ERRORS = {
    "127.255.255.250": ("its DQS key is disabled", "Check SPAMHAUS_DQS_KEY."),
    "127.255.255.251": ("it does not accept the DQS key", "Check SPAMHAUS_DQS_KEY."),
    "127.255.255.252": ("there is no such zone, its name is mistyped", "Check DNSBL_IP_ZONES and DNSBL_DOMAIN_ZONES."),
    "127.255.255.254": ("it refuses public resolvers", f"{_OWN_RESOLVER}, or set SPAMHAUS_DQS_KEY."),
    "127.255.255.255": (
        "it gets too many questions from this resolver",
        f"{_OWN_RESOLVER}, or set SPAMHAUS_DQS_KEY.",
    ),
    "127.0.1.255": (
        "it was asked about an IP address and lists only names",
        "Move the zone from DNSBL_IP_ZONES to DNSBL_DOMAIN_ZONES.",
    ),
}


@dataclass(frozen=True)
class Trouble:
    """Why a zone says nothing: a sentence, and what the person can do."""

    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.message} {self.hint}"


@dataclass(frozen=True)
class Zone:
    """One zone. ``name`` is the public one; ``origin``, which is asked, can hold the DQS key."""

    name: str
    of_addresses: bool
    origin: dns.name.Name = field(repr=False)
    listings: frozenset[str] = field(repr=False)  # none: any of 127.0.0.0/8 that is no error
    own_entry: str = field(repr=False)
    keyed: bool

    @classmethod
    def of(cls, name: str, key: Secret, *, of_addresses: bool) -> "Zone":
        """The zone of that name.

        Raises:
            ConfigError: the name is none, or holds a DQS key, or the key can be none.
        """
        name = name.strip().rstrip(".").lower()
        if name.endswith(".dq.spamhaus.net") and name.count(".") > 3:
            raise ConfigError(
                "A zone below dq.spamhaus.net is set with its key in it.",
                "Name it as in zen.spamhaus.org, and put the key into SPAMHAUS_DQS_KEY.",
            )
        if key and not _DQS_KEY.fullmatch(key.reveal()):
            raise ConfigError("SPAMHAUS_DQS_KEY is no key: it has letters and digits only.")
        spamhaus = _SPAMHAUS.fullmatch(name)
        asked = f"{key.reveal()}.{spamhaus[1]}.dq.spamhaus.net" if spamhaus and key else name
        try:
            origin = dns.name.from_text(asked, dns.name.root)
        except dns.exception.DNSException:
            origin = dns.name.root
        if len(origin) < 3:  # two labels and the root's
            raise ConfigError(f"{name!r} is no zone of a block list.", "Check DNSBL_IP_ZONES and DNSBL_DOMAIN_ZONES.")
        kind = spamhaus[1] if spamhaus else name
        listings = _SPAMHAUS_DBL if kind == "dbl" else _SPAMHAUS_IP if kind in _SPAMHAUS_IP_LISTS else frozenset()
        return cls(name, of_addresses, origin, listings, _OWN_ENTRIES.get(kind, ""), asked != name)

    def question(self, name: str) -> dns.name.Name | None:
        """What to ask for *name* (labels with dots between, ASCII); None if that is too long a name."""
        labels = [label.encode("ascii") for label in name.split(".")]
        # A name of full length leaves no room for the zone's. What is listed is most often a domain, which is its end.
        while labels:
            try:
                return dns.name.Name(labels + list(self.origin.labels))
            except dns.exception.DNSException:
                labels = [] if self.of_addresses else labels[1:]
        return None

    @property
    def entries(self) -> tuple[tuple[str, ...], str]:
        """Of the first, one must be listed; the other must not be."""
        entries, never = _IP_ENTRIES if self.of_addresses else _DOMAIN_ENTRIES
        return ((self.own_entry,) if self.own_entry and not self.of_addresses else entries), never

    def listed(self, answer: Answer, resolver: str) -> tuple[str, ...] | Trouble:
        """The codes by which it lists what was asked about, none if it does not; or why that is not known."""
        if answer.error:
            # Asked for what a key does not include, Spamhaus refuses, and resolvers make that a SERVFAIL (020-dqs-auth).
            return self.trouble(
                resolver, answer.error, "Check DNS_RESOLVERS" + (" and SPAMHAUS_DQS_KEY." if self.keyed else ".")
            )
        for record in answer.records:
            if trouble := self._error(record, resolver):
                return trouble
        codes = tuple(record for record in answer.records if not self.listings or record in self.listings)
        if answer.records and not codes:
            return self.trouble(
                resolver, f"{answer.records[0]} is none of its codes", "drain may be too old for this zone."
            )
        return codes

    def tested(self, answers: list[Answer], resolver: str) -> tuple[str, tuple[str, ...]] | Trouble:
        """By the answers for its `entries`, in that order: the entry that it lists with its codes, if it can be relied on."""
        *outcomes, of_never = (self.listed(answer, resolver) for answer in answers)
        entries, never = self.entries
        for entry, codes in zip(entries, outcomes, strict=True):
            if isinstance(codes, tuple) and codes:
                if isinstance(of_never, Trouble):
                    return of_never
                return self._listed_too(never, resolver) if of_never else (entry, codes)
        for outcome in outcomes:
            if isinstance(outcome, Trouble):
                return outcome
        return self.trouble(
            resolver,
            "it does not list its own test entry",
            f"If this machine is online: {_OWN_RESOLVER[0].lower()}{_OWN_RESOLVER[1:]}, since public ones are refused, and "
            "some routers drop answers like 127.0.0.2; or the zone is no more.",
        )

    def trouble(self, resolver: str, words: str, hint: str) -> Trouble:
        """The same sentence for the same failure, so that it is reported once."""
        return Trouble(f"{self.name}, asked by way of {resolver}, cannot be relied on: {words}.", hint)

    def _listed_too(self, never: str, resolver: str) -> Trouble:
        setting = "DNSBL_IP_ZONES" if self.of_addresses else "DNSBL_DOMAIN_ZONES"
        return self.trouble(resolver, f"it lists {never} too, which no list may", f"Take it out of {setting}.")

    def _error(self, record: str, resolver: str) -> Trouble | None:
        if record in _SPAMHAUS_ERRORS:
            words, hint = _SPAMHAUS_ERRORS[record]
            return self.trouble(resolver, f"{words} ({record})", hint)
        if record.startswith(_ERRORS):
            return self.trouble(resolver, f"it answers with an error ({record})", f"{_OWN_RESOLVER}.")
        if record == "127.0.0.1":  # URIBL says so to those whom it refuses, and blockers of ads for what they block
            return self.trouble(resolver, "its questions are refused (127.0.0.1)", f"{_OWN_RESOLVER}.")
        if ipaddress.IPv4Address(record) not in _LISTS:
            return self.trouble(
                resolver,
                f"{record} is no answer of a block list",
                f"{_OWN_RESOLVER} that makes up no answers; or the zone is no more.",
            )
        return None


def label(entry: str) -> str:
    """A test entry as it is asked for."""
    try:
        return reversed_address(ipaddress.ip_address(entry))
    except ValueError:
        return entry


def reversed_address(ip: IPAddress) -> str:
    """An address as lists of addresses are asked for it: octets or nibbles, last first (RFC 5782 2.1, 2.4)."""
    return ip.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
