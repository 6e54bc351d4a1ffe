"""What the DNS has at a name, and the four ways in which it can have nothing."""

import time
from dataclasses import dataclass
from enum import StrEnum

import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdtypes.ANY.TXT
import dns.resolver

from drain.places import host_and_port
from drain.text import clean

_QUESTION_SECONDS = 8.0
_ALL_SECONDS = 90.0
_PORT = 53
_STRING_OCTETS = 255  # of one string of a TXT record (RFC 1035 3.3)


class State(StrEnum):
    """What came of a question."""

    FOUND = "found"
    NO_NAME = "there is no such name"  # NXDOMAIN
    NO_RECORD = "the name is there, without such a record"  # NODATA
    NO_ANSWER = "no answer"  # nothing is known


@dataclass(frozen=True)
class Answer:
    """What the DNS said.

    ``records`` are texts: of TXT the strings joined (what is not UTF-8 replaced), of MX
    ``10 host.``, of A and AAAA the address. ``why`` says why there is no answer, "" if there is one.
    """

    state: State
    records: tuple[str, ...] = ()
    why: str = ""

    @property
    def nothing(self) -> bool:
        """Whether it is known that there is no such record."""
        return self.state in {State.NO_NAME, State.NO_RECORD}


class Resolver:
    """Asks *resolvers* (as ``DNS_RESOLVERS``; none: the system's), each question once.

    One question takes at most 8 s, and all together 90 s; after that there is no answer.
    """

    def __init__(
        self,
        resolvers: tuple[str, ...] = (),
        *,
        question_seconds: float = _QUESTION_SECONDS,
        all_seconds: float = _ALL_SECONDS,
    ) -> None:
        self._resolvers = resolvers
        self._question_seconds = question_seconds
        self._deadline = time.monotonic() + all_seconds
        self._known: dict[tuple[str, str], Answer] = {}

    def ask(self, name: str, kind: str) -> Answer:
        """The records of that kind (``TXT``, ``MX``, ``A``, ``AAAA``) at *name*."""
        question = (name.rstrip(".").lower(), kind)
        if question not in self._known:
            self._known[question] = self._asked(*question)
        return self._known[question]

    def _asked(self, name: str, kind: str) -> Answer:
        left = min(self._question_seconds, self._deadline - time.monotonic())
        if left <= 0:
            return Answer(State.NO_ANSWER, why="the DNS was too slow before, and was not asked any more")
        try:
            answer = self._resolver().resolve(
                dns.name.from_text(name, dns.name.root), kind, search=False, raise_on_no_answer=False, lifetime=left
            )
        except dns.resolver.NXDOMAIN:
            return Answer(State.NO_NAME)
        except dns.resolver.NoResolverConfiguration:
            return Answer(State.NO_ANSWER, why="/etc/resolv.conf names no resolver: set DNS_RESOLVERS")
        except dns.exception.Timeout:
            return Answer(State.NO_ANSWER, why=f"no answer within {left:.0f} s")
        except dns.resolver.NoNameservers as error:
            return Answer(State.NO_ANSWER, why=_reasons(error))
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return Answer(State.NO_ANSWER, why=clean(str(error) or type(error).__name__, 200))
        if answer.rrset is None:
            return Answer(State.NO_RECORD)
        return Answer(State.FOUND, tuple(sorted(_text(rdata) for rdata in answer.rrset)))

    def _resolver(self) -> dns.resolver.Resolver:
        resolver = dns.resolver.Resolver(configure=not self._resolvers)
        if self._resolvers:
            places = (host_and_port(place) for place in self._resolvers)
            resolver.nameservers = [dns.nameserver.Do53Nameserver(host, int(port or _PORT)) for host, port in places]
        resolver.timeout = self._question_seconds / 3  # a datagram can be lost
        return resolver


def _text(rdata: dns.rdata.Rdata) -> str:
    if isinstance(rdata, dns.rdtypes.ANY.TXT.TXT):
        return b"".join(rdata.strings).decode("utf-8", "replace")
    return rdata.to_text()


def _reasons(error: dns.resolver.NoNameservers) -> str:
    """What each resolver did: an RCODE's name, as SERVFAIL, or an error."""
    reasons = {clean(str(entry[3]), 100) for entry in error.kwargs.get("errors", [])}
    return ", ".join(sorted(reasons)) or "no resolver answered"


def txt(name: str, value: str) -> str:
    """A TXT record, ready to copy into a zone."""
    strings = [value[start : start + _STRING_OCTETS] for start in range(0, len(value), _STRING_OCTETS)]
    return f"{name}. TXT " + " ".join(f'"{string}"' for string in strings)
