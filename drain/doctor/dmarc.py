"""What a domain asks of those who get mail in its name (DMARC, RFC 9989, and 7489 before it).

Without a list of public suffixes: where a domain has no record, its parents are asked,
one label less each time, as RFC 9989 4.10 has it. So for mail.example.org the record of
example.org counts. One of a registry's (``psd=y``) is not the person's, so names of one
label are not asked at all.
"""

import re
from collections.abc import Iterator

from drain.doctor.dkim import tags
from drain.doctor.finding import Finding
from drain.doctor.records import Answer, Resolver, State, txt
from drain.doctor.say import Say
from drain.text import clean

_SAY = Say("dns")
_POLICIES = ("none", "quarantine", "reject")
_VERSION = re.compile(r"v\s*=\s*DMARC1\s*(?:;|$)")
_MOST_LABELS = 8  # RFC 9989 4.10: from longer names it goes on with seven


def check(resolver: Resolver, domain: str) -> Iterator[Finding]:
    """What there is to say of its record, or of that which counts for it."""
    for name in _names(domain):
        answer = resolver.ask(f"_dmarc.{name}", "TXT")
        if answer.state is State.NO_ANSWER:
            yield _SAY.unknown(f"Whether {domain} has DMARC is not known: {answer.why}.")
            return
        found = [record for record in answer.records if _VERSION.match(record)]
        if len(found) > 1:
            yield _SAY.failure(
                f"_dmarc.{name} has {len(found)} DMARC records, which counts as none.",
                f"Leave one, such as: {_wanted(name)}",
            )
            return
        if found and not (name != domain and _registrys(found[0])):
            yield from _judged(resolver, domain, name, found[0])
            return
    beside = _beside(resolver.ask(f"_dmarc.{domain}", "TXT"))
    yield _SAY.warning(f"{domain} has no DMARC record{beside}: some receivers distrust mail from it.", _wanted(domain))


def _names(domain: str) -> Iterator[str]:
    labels = domain.split(".")
    yield domain
    for start in range(max(1, len(labels) - _MOST_LABELS + 1), len(labels) - 1):
        yield ".".join(labels[start:])


def _registrys(record: str) -> bool:
    return (tags(record) or {}).get("psd", "").lower() == "y"


def _beside(answer: Answer) -> str:
    return f" (what stands there begins otherwise: {clean(answer.records[0], 60)})" if answer.records else ""


def _judged(resolver: Resolver, domain: str, name: str, record: str) -> Iterator[Finding]:
    found = tags(record)
    if found is None:
        yield _SAY.failure(f"The DMARC record of {name} cannot be read: {clean(record, 100)}.", _wanted(name))
        return
    tag = "sp" if name != domain and "sp" in found else "p"
    policy = found.get(tag, "none").lower()
    if policy not in _POLICIES:
        yield _SAY.failure(
            f"The DMARC record of {name} has {tag}={clean(policy, 40)}, which is none of {', '.join(_POLICIES)}.",
            _wanted(name),
        )
        return
    at = f"{domain} has DMARC" if name == domain else f"{domain} has the DMARC record of {name}"
    yield _SAY.ok(f"{at}: {tag}={policy}{_reports(resolver, name, found.get('rua', ''))}.")


def _reports(resolver: Resolver, name: str, rua: str) -> str:
    """Whether those elsewhere who are to get reports have said that they want them (RFC 9990 4, RFC 7489 7.1)."""
    silent = []
    for uri in rua.split(","):
        host = uri.strip().partition("!")[0].rpartition("@")[2].lower()
        if not uri.strip().lower().startswith("mailto:") or host == name or host.endswith(f".{name}"):
            continue
        answer = resolver.ask(f"{name}._report._dmarc.{host}", "TXT")
        if answer.nothing and not name.endswith(f".{host}"):
            silent.append(host)
    return f" ({clean(', '.join(silent), 100)} has not said that it takes its reports)" if silent else ""


def _wanted(name: str) -> str:
    return txt(f"_dmarc.{name}", f"v=DMARC1; p=none; rua=mailto:dmarc@{name}")
