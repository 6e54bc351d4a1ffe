"""Questions to the DNS for A records: asked at once, each once, and remembered as long as the answers allow.

Nothing that dnspython raises leaves this module, since its messages name what was
asked for, and that can hold a key.
"""

import asyncio
import contextlib
import ipaddress
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from drain.filters.verdict import FilterFailed

_PORT = 53
# In each question's time so many tries: a datagram can be lost, and a resolver can be away.
_TRIES = 3
# Questions under way at once in one check; a home router's resolver takes 150 (dnsmasq(8), --dns-forward-max).
_AT_ONCE = 32
# The mails of one pass come within a minute: they ask once. Lists give a minute or less (ZEN 60 s).
FLOOR_SECONDS = 60.0
# Lists change within minutes, so a resolver that says a day is not believed.
CEILING_SECONDS = 3600.0
ERROR_SECONDS = 30.0
_MOST_KEPT = 4096
LATE = "no answer in time"
_BROKEN = "the answer is no DNS message that makes sense"


@dataclass(frozen=True)
class Answer:
    """What the DNS says of one name.

    ``records`` are its IPv4 addresses, sorted, none if it has none or does not exist;
    ``error`` says why nothing is known ("" if something is); ``seconds`` how long the
    answer may be kept.
    """

    records: tuple[str, ...] = ()
    error: str = ""
    seconds: float = ERROR_SECONDS


Keep: TypeAlias = Callable[[Answer], float]


@dataclass(frozen=True)
class _Kept:
    answer: Answer
    asked: float
    until: float


def as_it_says(answer: Answer) -> float:
    """For how many seconds an answer is usually kept."""
    return answer.seconds


def address(text: str) -> tuple[str, int]:
    """Address and port of a resolver given as ``ip``, ``ip:port`` or ``[v6]:port``.

    Raises:
        ValueError: it is none of these; says what would be right.
    """
    host, port = text.strip(), str(_PORT)
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") if rest else port
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    with contextlib.suppress(ValueError):
        if port.isascii() and port.isdecimal() and 0 < int(port) < 65536:
            return str(ipaddress.ip_address(host)), int(port)
    raise ValueError("an address like 192.0.2.1, 192.0.2.1:53 or [2001:db8::1]:53")


class Asker:
    """The resolvers, for the questions of one check; lives in one event loop.

    Given the resolvers' addresses (none: the system's), the seconds for all
    questions together, and the cache.

    Raises:
        FilterFailed: the system names no resolver.
    """

    def __init__(self, resolvers: tuple[str, ...], seconds: float, cache: "Cache") -> None:
        self._resolver = _resolver(resolvers)
        self._resolver.timeout = seconds / _TRIES
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._cache = cache
        self._backend = dns.asyncbackend.get_backend("asyncio")

    def __str__(self) -> str:
        return ", ".join(
            _shown(server.address, server.port) if isinstance(server, dns.nameserver.Do53Nameserver) else str(server)
            for server in self._resolver.nameservers
        )

    async def ask(self, name: dns.name.Name, keep: Keep = as_it_says) -> Answer:
        """The answer for an absolute name, which may be one that was kept; never raises."""
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._cache.get(name, lambda: self._asked(name), keep)
        except TimeoutError:
            return Answer(error=LATE)

    async def _asked(self, name: dns.name.Name) -> Answer:
        async with self._places:
            lifetime = self._deadline - asyncio.get_running_loop().time()
            try:
                answer = await self._resolver.resolve(
                    name, "A", search=False, raise_on_no_answer=False, lifetime=lifetime, backend=self._backend
                )
                if answer.rrset is None:
                    return Answer(seconds=_negative_seconds(answer.response))
                records = sorted((rdata.to_text() for rdata in answer.rrset), key=ipaddress.IPv4Address)
                return Answer(tuple(records), seconds=_bounded(answer.chaining_result.minimum_ttl))
            except dns.resolver.NXDOMAIN as error:
                return Answer(seconds=_negative_seconds(error.kwargs["responses"][name]))
            except dns.exception.Timeout:
                return Answer(error=LATE)
            except dns.resolver.NoNameservers as error:
                return Answer(error=_reasons(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, its message may hold the key
                return Answer(error=_reason(error))


class Cache:
    """Answers by name; thread-safe, bounded; a name is asked for once, however many threads want it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[dns.name.Name, _Kept] = OrderedDict()
        self._asking: dict[dns.name.Name, Future[Answer]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, name: dns.name.Name, ask: Callable[[], Awaitable[Answer]], keep: Keep) -> Answer:
        """The answer that was kept, or that somebody is waiting for, or what *ask* gives; then kept for *keep*."""
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None and self._clock() < kept.until:
                self._kept.move_to_end(name)
                return kept.answer
            future = self._asking.get(name)
            if mine := future is None:
                future = self._asking[name] = Future()
                # From here on whoever gives up waiting cannot cancel it for the others.
                future.set_running_or_notify_cancel()
        if not mine:
            return await asyncio.wrap_future(future)
        answer = Answer(error=LATE)  # for who waits with us, if our time is over
        try:
            answer = await ask()
        finally:
            self._keep(name, answer, keep(answer))
            future.set_result(answer)
        return answer

    def forget(self, name: dns.name.Name, after: float = 0.0) -> None:
        """Keep an answer no longer than *after* seconds from when it was asked for."""
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None:
                self._kept[name] = _Kept(kept.answer, kept.asked, min(kept.until, kept.asked + after))

    def _keep(self, name: dns.name.Name, answer: Answer, seconds: float) -> None:
        now = self._clock()
        with self._lock:
            del self._asking[name]
            self._kept[name] = _Kept(answer, now, now + seconds)
            self._kept.move_to_end(name)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)


def _resolver(resolvers: tuple[str, ...]) -> dns.asyncresolver.Resolver:
    if resolvers:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*address(text)) for text in resolvers]
        return resolver
    try:
        # For each check anew: what the system says changes with its network.
        resolver = dns.asyncresolver.Resolver()
    except (dns.exception.DNSException, OSError):
        resolver = dns.asyncresolver.Resolver(configure=False)
    if not resolver.nameservers:
        raise FilterFailed("The block lists cannot be asked: /etc/resolv.conf names no resolver.", "Set DNS_RESOLVERS.")
    resolver.nameservers = [
        dns.nameserver.Do53Nameserver(server, resolver.port) if isinstance(server, str) else server
        for server in resolver.nameservers
    ]
    return resolver


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _negative_seconds(response: dns.message.Message) -> float:
    """RFC 2308 5: the least of the SOA's TTL and its MINIMUM; without a SOA it is not for keeping."""
    chain = response.resolve_chaining() if isinstance(response, dns.message.QueryMessage) else None
    has_soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)
    return _bounded(chain.minimum_ttl if chain is not None and has_soa else 0)


def _bounded(seconds: float) -> float:
    return min(max(seconds, FLOOR_SECONDS), CEILING_SECONDS)


def _reasons(error: dns.resolver.NoNameservers) -> str:
    """What each resolver did, without the name that was asked for."""
    reasons = {_reason(entry[3]) for entry in error.kwargs.get("errors", [])}
    return ", ".join(sorted(reasons)) or LATE


def _reason(error: Exception | str) -> str:
    if isinstance(error, str):  # the RCODE's name, as SERVFAIL
        return error
    if isinstance(error, (dns.exception.Timeout, TimeoutError)):
        return LATE
    if isinstance(error, dns.message.Truncated):
        return "a truncated answer"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # asyncio's own words name ports
    return _BROKEN
