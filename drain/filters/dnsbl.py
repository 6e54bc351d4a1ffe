"""The filter `dnsbl`: what DNS block lists say of who handed a mail over, and of the names in it.

Lists of addresses are asked only about the address that handed the mail to
Cloudflare, never about deeper ``Received`` lines (Spamhaus' terms, and they are the
sender's to write). Lists of names are asked about the envelope sender's domain,
that of ``From``, and the hosts of links.

Before a zone is relied on, and about every hour, its test entries are asked for
(`zones`); while they are not answered as they must be, it is asked nothing else.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeAlias, TypeVar

from drain.errors import ConfigError
from drain.filters import domains
from drain.filters.inbound import Inbound
from drain.filters.lookups import Asker, Cache, address
from drain.filters.verdict import FilterFailed, Verdict
from drain.filters.zones import IPAddress, Trouble, Zone, label, reversed_address
from drain.setting import Secret

_Result = TypeVar("_Result")

_TEST_SECONDS = 3600.0
_RETEST_SECONDS = 180.0
_MOST_CHARACTERS = 200
_MOST_CODES = 8
# Nobody has these addresses (RFC 5737, RFC 3849): asking about them tells nobody anything.
_DOCUMENTATION = tuple(
    ipaddress.ip_network(network) for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)
# What is asked about, as the person knows it and as a zone does.
_Subjects: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True)
class _Finding:
    """What one zone said: what it lists by which codes, of how many names; and what went wrong."""

    zone: Zone
    listed: tuple[tuple[str, tuple[str, ...]], ...] = ()
    answered: tuple[str, ...] = ()
    trouble: Trouble | None = None
    usable: bool = True  # by its test entries


@dataclass(frozen=True)
class Dnsbl:
    """Asks DNS block lists.

    ``resolvers`` are ``ip``, ``ip:port`` or ``[v6]:port``, none for the system's;
    ``dqs_key`` is for Spamhaus' Data Query Service; ``score`` is for each zone that
    lists something, ``timeout_seconds`` for a whole check.
    """

    name: ClassVar[str] = "dnsbl"

    ip_zones: tuple[str, ...]
    domain_zones: tuple[str, ...]
    links: bool
    resolvers: tuple[str, ...]
    dqs_key: Secret
    score: float
    timeout_seconds: float
    cache: Cache = field(repr=False, compare=False, default_factory=Cache)

    def __post_init__(self) -> None:
        """Raises `ConfigError` where a zone, a resolver or the key cannot be one."""
        _ = self._zones
        for text in self.resolvers:
            try:
                address(text)
            except ValueError as error:
                raise ConfigError(f"DNS_RESOLVERS names {text!r}.", f"It takes {error}.") from error

    def check(self, inbound: Inbound) -> Verdict:
        """What the zones list; ``incomplete`` where some of them could not be asked.

        Raises:
            FilterFailed: none could. ``down`` if that is so by their test entries.
        """
        ip = _public(inbound.ip)
        names = domains.named(inbound, links=self.links) if self.domain_zones else ()
        of_addresses: _Subjects = [(str(ip), reversed_address(ip))] if ip else []
        of_names: _Subjects = [(name, name) for name in names]
        questions = [
            (zone, subjects) for zone in self._zones if (subjects := of_addresses if zone.of_addresses else of_names)
        ]
        findings = self._run(lambda asker: self._ask(asker, questions)) if questions else []
        return self._verdict(findings, () if ip or not self.ip_zones else (_not_asked(inbound.ip),))

    def probe(self) -> str:
        """How each zone answers to its test entries just now, a line each.

        Raises:
            FilterFailed: none can be relied on.
        """
        started = time.monotonic()
        for zone in self._zones:
            self._forget_entries(zone, 0.0)
        lines, troubles = self._run(self._probe)
        if troubles and len(troubles) == len(self._zones):
            raise _failure(troubles, down=True)
        took = f"The slowest answer took {(time.monotonic() - started) * 1000:.0f} ms."
        return "\n".join((*lines, took))

    @cached_property
    def _zones(self) -> tuple[Zone, ...]:
        return (
            *(Zone.of(name, self.dqs_key, of_addresses=True) for name in dict.fromkeys(self.ip_zones)),
            *(Zone.of(name, self.dqs_key, of_addresses=False) for name in dict.fromkeys(self.domain_zones)),
        )

    def _run(self, work: Callable[[Asker], Coroutine[Any, Any, _Result]]) -> _Result:
        async def main() -> _Result:
            return await work(Asker(self.resolvers, self.timeout_seconds, self.cache))

        return asyncio.run(main())

    async def _ask(self, asker: Asker, questions: list[tuple[Zone, _Subjects]]) -> list[_Finding]:
        return list(await asyncio.gather(*(self._ask_zone(asker, zone, subjects) for zone, subjects in questions)))

    async def _ask_zone(self, asker: Asker, zone: Zone, subjects: _Subjects) -> _Finding:
        tested = await self._test(asker, zone)
        if isinstance(tested, Trouble):
            return _Finding(zone, trouble=tested, usable=False)
        asked = [(shown, name) for shown, labels in subjects if (name := zone.question(labels)) is not None]
        answers = await asyncio.gather(*(asker.ask(name) for _, name in asked))
        outcomes = [(shown, zone.listed(answer, str(asker))) for (shown, _), answer in zip(asked, answers, strict=True)]
        troubles = [outcome for _, outcome in outcomes if isinstance(outcome, Trouble)]
        if troubles:
            self._forget_entries(zone, _RETEST_SECONDS)
        said = [(shown, outcome) for shown, outcome in outcomes if not isinstance(outcome, Trouble)]
        return _Finding(
            zone,
            tuple((shown, codes) for shown, codes in said if codes),
            tuple(shown for shown, _ in said),
            troubles[0] if troubles else None,
        )

    async def _test(self, asker: Asker, zone: Zone) -> tuple[str, tuple[str, ...]] | Trouble:
        """The test entry that it lists and the codes, if it can be relied on."""
        entries, never = zone.entries
        asked = [name for entry in (*entries, never) if (name := zone.question(label(entry))) is not None]
        answers = await asyncio.gather(*(asker.ask(name, lambda _: _TEST_SECONDS) for name in asked))
        outcome = zone.tested(answers, str(asker))
        if isinstance(outcome, Trouble):
            self._forget_entries(zone, _RETEST_SECONDS)
        return outcome

    def _forget_entries(self, zone: Zone, after: float) -> None:
        entries, never = zone.entries
        for entry in (*entries, never):
            if (name := zone.question(label(entry))) is not None:
                self.cache.forget(name, after)

    async def _probe(self, asker: Asker) -> tuple[list[str], list[Trouble]]:
        tested = await asyncio.gather(*(self._test(asker, zone) for zone in self._zones))
        lines = [
            f"{zone.name}: {outcome}"
            if isinstance(outcome, Trouble)
            else f"{zone.name} answers by way of {asker}: it lists its test entry {outcome[0]} ({_codes(outcome[1])})."
            for zone, outcome in zip(self._zones, tested, strict=True)
        ]
        return lines, [outcome for outcome in tested if isinstance(outcome, Trouble)]

    def _verdict(self, findings: list[_Finding], notes: tuple[str, ...]) -> Verdict:
        troubles = [finding.trouble for finding in findings if finding.trouble]
        if troubles and not any(finding.answered for finding in findings):
            raise _failure(troubles, down=not any(finding.usable for finding in findings))
        evidence = list(notes)
        reasons = []
        for finding in findings:
            for shown, codes in finding.listed:
                evidence.append(_short(f"{finding.zone.name} {shown}: {_codes(codes)}"))
            if finding.listed:
                more = f" and {len(finding.listed) - 1} more" if len(finding.listed) > 1 else ""
                reasons.append(f"{finding.listed[0][0]}{more} is listed by {finding.zone.name}")
            elif finding.answered:
                evidence.append(_short(f"{finding.zone.name} does not list {', '.join(finding.answered)}"))
        return Verdict(
            score=self.score * len(reasons),
            code="listed" if reasons else "",
            reason=_short("; ".join(reasons)),
            evidence=tuple(evidence),
            incomplete=" ".join(map(str, troubles)),
        )


def _failure(troubles: list[Trouble], *, down: bool) -> FilterFailed:
    return FilterFailed(" ".join(trouble.message for trouble in troubles), troubles[0].hint, down=down)


def _public(ip: str) -> IPAddress | None:
    """The address, if it is one that the Internet routes; None otherwise."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    documentation = any(address in network for network in _DOCUMENTATION)
    return address if (address.is_global or documentation) and not address.is_multicast else None


def _not_asked(ip: str) -> str:
    if not ip:
        return "no list of addresses was asked: it is not known who handed the mail to Cloudflare"
    return _short(f"no list of addresses was asked: {ip} is not an address on the Internet")


def _codes(codes: tuple[str, ...]) -> str:
    return ", ".join(codes[:_MOST_CODES])


def _short(words: str) -> str:
    return words if len(words) <= _MOST_CHARACTERS else words[: _MOST_CHARACTERS - 1] + "…"
