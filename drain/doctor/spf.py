"""SPF (RFC 7208) as a receiver evaluates it: whether an address may send for a domain.

Evaluated for no address at all, it tells what becomes of everybody whom no term names,
and how many questions a receiver may have to ask.
"""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from drain.doctor.records import Answer, State
from drain.places import domain_key
from drain.text import clean

# RFC 7208 4.6.4.
MOST_LOOKUPS = 10
_MOST_VOID_LOOKUPS = 2
_MOST_MX = 10

_TERM = re.compile(r"([+?~-]?)([a-z][a-z0-9_.-]*)([:/].*)?", re.IGNORECASE)
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE)
_TARGET = re.compile(r"(?::([^/]*))?(?:/(\d{1,3}))?(?://(\d{1,3}))?")

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Result(StrEnum):
    """RFC 7208 2.6, and ``unclear`` where a term cannot be evaluated here (macros, ``ptr``)."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105 (no password)
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"
    UNCLEAR = "unclear"


_QUALIFIERS = {"": Result.PASS, "+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}


class Resolver(Protocol):
    """Who is asked."""

    def ask(self, name: str, kind: str) -> Answer:
        """As `records.Resolver.ask`."""


@dataclass
class Verdict:
    """What came of it.

    ``why`` explains an error; ``lookups`` counts the terms that ask the DNS; ``includes``
    are the domains that the records lead to, in lower case.
    """

    result: Result = Result.NONE
    why: str = ""
    lookups: int = 0
    includes: list[str] = field(default_factory=list)


class _Broken(Exception):
    """The evaluation ends here, with this result."""

    def __init__(self, result: Result, why: str) -> None:
        super().__init__(why)
        self.result = result


def records(answer: Answer) -> list[str]:
    """Those of a name's TXT records that are SPF's (RFC 7208 4.5)."""
    return [record for record in answer.records if re.match(r"v=spf1(?: |$)", record, re.IGNORECASE)]


def evaluate(resolver: Resolver, domain: str, ip: IPAddress | None) -> Verdict:
    """What *domain*'s record says of a client at *ip*; of None: of one that nothing but ``all`` matches."""
    walk = _Walk(resolver, ip)
    verdict = walk.verdict
    try:
        verdict.result = walk.domain(domain)
    except _Broken as broken:
        verdict.result, verdict.why = broken.result, str(broken)
    if walk.unclear and verdict.result not in {Result.PASS, Result.PERMERROR, Result.TEMPERROR}:
        verdict.result, verdict.why = Result.UNCLEAR, f"{walk.unclear} cannot be evaluated here"
    return verdict


class _Walk:
    def __init__(self, resolver: Resolver, ip: IPAddress | None) -> None:
        self._resolver = resolver
        self._ip = ip
        self._voids = 0
        self.verdict = Verdict()
        self.unclear = ""

    def domain(self, name: str) -> Result:
        """`check_host` of RFC 7208 4."""
        answer = self._ask(name, "TXT", counted=False)
        found = records(answer)
        if not found:
            return Result.NONE
        if len(found) > 1:
            raise _Broken(Result.PERMERROR, f"{clean(name, 100)} has {len(found)} SPF records, and may have one")
        terms = found[0].split()[1:]
        for term in terms:
            if _MODIFIER.fullmatch(term):
                continue
            parsed = _TERM.fullmatch(term)
            if parsed is None:
                raise _Broken(Result.PERMERROR, f"{clean(term, 100)!r} in the record of {clean(name, 100)} is no SPF")
            if self._matches(name, term, parsed[2].lower(), parsed[3] or ""):
                return _QUALIFIERS[parsed[1]]
        return self._redirected(terms)

    def _redirected(self, terms: list[str]) -> Result:
        """What holds where no term matched (RFC 7208 4.7, 6.1)."""
        found = (modifier for term in terms if (modifier := _MODIFIER.fullmatch(term)))
        target = next((modifier[2] for modifier in found if modifier[1].lower() == "redirect"), "")
        if not target:
            return Result.NEUTRAL
        self._count(f"redirect={target}")
        if "%" in target:
            self.unclear = f"redirect={clean(target, 100)}"
            return Result.NEUTRAL
        self.verdict.includes.append(domain_key(target))
        result = self.domain(target)
        if result is Result.NONE:
            raise _Broken(Result.PERMERROR, f"redirect={clean(target, 100)} leads to a domain without SPF record")
        return result

    def _matches(self, name: str, term: str, mechanism: str, argument: str) -> bool:
        if mechanism == "all":
            return True
        if mechanism in {"ip4", "ip6"}:
            return self._in_network(term, argument[1:])
        needs_name = mechanism in {"include", "exists"}
        if mechanism not in {"include", "a", "mx", "ptr", "exists"} or (needs_name and len(argument) < 2):
            raise _Broken(Result.PERMERROR, f"{clean(term, 100)!r} in the record of {clean(name, 100)} is no SPF")
        self._count(term)
        if mechanism == "include" and "%" not in argument:
            return self._included(argument[1:])
        target = _TARGET.fullmatch(argument)
        if mechanism in {"a", "mx"} and target is None:
            raise _Broken(Result.PERMERROR, f"{clean(term, 100)!r} in the record of {clean(name, 100)} is no SPF")
        if self._ip is None:
            return False
        if mechanism == "ptr" or "%" in argument:
            self.unclear = self.unclear or clean(term, 100)
            return False
        if mechanism == "exists":
            return self._ask(argument[1:], "A").state is State.FOUND
        assert target is not None, "as above"
        return self._names_it(name, term, mechanism, target)

    def _included(self, target: str) -> bool:
        """RFC 7208 5.2."""
        self.verdict.includes.append(domain_key(target))
        result = self.domain(target)
        if result is Result.NONE:
            raise _Broken(Result.PERMERROR, f"include:{clean(target, 100)} leads to a domain without SPF record")
        return result is Result.PASS

    def _names_it(self, name: str, term: str, mechanism: str, target: re.Match[str]) -> bool:
        """``a`` and ``mx`` (RFC 7208 5.3, 5.4)."""
        hosts = [target[1] or name]
        if mechanism == "mx":
            hosts = [record.split()[1] for record in self._ask(hosts[0], "MX").records]
            if len(hosts) > _MOST_MX:
                raise _Broken(Result.PERMERROR, f"{clean(term, 100)!r} leads to more than {_MOST_MX} hosts")
        return any(
            address in network for host in hosts for network in [self._around(target)] for address in self._of(host)
        )

    def _around(self, target: re.Match[str]) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The client's network, as large as the term says."""
        assert self._ip is not None
        length = int(target[2] or 32) if self._ip.version == 4 else int(target[3] or 128)
        if length > self._ip.max_prefixlen:
            raise _Broken(Result.PERMERROR, f"{clean(target[0], 100)!r} is no network")
        return ipaddress.ip_network((self._ip, length), strict=False)

    def _of(self, host: str) -> Iterator[IPAddress]:
        assert self._ip is not None
        for record in self._ask(host, "A" if self._ip.version == 4 else "AAAA").records:
            yield ipaddress.ip_address(record)

    def _in_network(self, term: str, text: str) -> bool:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise _Broken(Result.PERMERROR, f"{clean(term, 100)!r} is no network") from None
        return self._ip is not None and self._ip.version == network.version and self._ip in network

    def _count(self, term: str) -> None:
        self.verdict.lookups += 1
        if self.verdict.lookups > MOST_LOOKUPS:
            raise _Broken(
                Result.PERMERROR, f"it takes more than {MOST_LOOKUPS} DNS lookups; the eleventh is {clean(term, 100)}"
            )

    def _ask(self, name: str, kind: str, *, counted: bool = True) -> Answer:
        answer = self._resolver.ask(name, kind)
        if answer.state is State.NO_ANSWER:
            raise _Broken(Result.TEMPERROR, f"{kind} of {clean(name, 100)}: {answer.why}")
        if counted and answer.nothing:
            self._voids += 1
            if self._voids > _MOST_VOID_LOOKUPS:
                raise _Broken(
                    Result.PERMERROR, f"it leads to more than {_MOST_VOID_LOOKUPS} names without such records"
                )
        return answer


def with_term(record: str, term: str) -> str:
    """*record* with one more term, before those that end it."""
    terms = record.split()
    ends = [place for place, one in enumerate(terms) if re.match(r"[+?~-]?all$|redirect=", one, re.IGNORECASE)]
    place = ends[0] if ends else len(terms)
    return " ".join([*terms[:place], term, *terms[place:]])
