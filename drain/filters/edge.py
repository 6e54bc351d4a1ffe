"""What Cloudflare found of a mail at the edge: read from its own lines, never from the sender's.

Cloudflare puts a block of its own on top, in this order: ``Received`` (by
``cloudflare-email.net``), ``ARC-Seal``, ``ARC-Message-Signature``,
``ARC-Authentication-Results``, ``Received-SPF``, ``Authentication-Results``, and last
``X-CF-SpamH-Score``. Below that mark the sender writes what he likes. So a block
counts only if it begins at the very first line, has these names alone, each once
and in this order, and ends with the mark; anything else is no block, and then
everything is "unknown".

``Authentication-Results`` is sometimes missing (workerd issue 6740): then what the
block's ``ARC-Authentication-Results`` says is taken, which is the same, and for
SPF what ``Received-SPF`` says.
"""

import ipaddress
import re
from dataclasses import dataclass

from drain.header import Field, Header

UNKNOWN = "unknown"
_MARK = "x-cf-spamh-score"
_ORDER = (
    "received",
    "arc-seal",
    "arc-message-signature",
    "arc-authentication-results",
    "received-spf",
    "authentication-results",
    _MARK,
)
_AUTHSERV_ID = "mx.cloudflare.net"
# The same in `worker/src/mail.js`.
_RECEIVED = re.compile(r"from (\S+) \(([0-9a-fA-F:.]{2,45})\)\s+by cloudflare-email\.net\s")
# RFC 8601 2.7, and `unknown`, for a word that is none of these.
_RESULTS = frozenset(
    {"none", "pass", "fail", "softfail", "neutral", "policy", "temperror", "permerror", "hardfail", "declined"}
)
# RFC 5322 3.2.4 and 3.2.2: a quoted string; a comment's pieces are told apart by hand, since comments nest.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Edge:
    """Cloudflare's findings; "" and ``unknown`` where it says nothing that can be believed.

    ``why`` says what they are unknown for.
    """

    ip: str = ""
    host: str = ""
    spf: str = UNKNOWN
    dkim: str = UNKNOWN
    dmarc: str = UNKNOWN
    why: str = ""

    @property
    def in_words(self) -> str:
        """All three on one line."""
        return f"spf={self.spf} dkim={self.dkim} dmarc={self.dmarc}"


def read(header: Header) -> Edge:
    """What the block on top of a header says."""
    block, why = _block(header)
    if not block:
        return Edge(why=why)
    host, ip = _handed_over_by(block)
    results = _results(block)
    if results is None:
        why, results = "Cloudflare's block has no Authentication-Results", {}
    spf = results.get("spf", UNKNOWN)
    if spf == UNKNOWN and "received-spf" in block:
        spf = _known(block["received-spf"].text.partition(" ")[0])
    return Edge(ip, host, spf, results.get("dkim", UNKNOWN), results.get("dmarc", UNKNOWN), why)


def _block(header: Header) -> tuple[dict[str, Field], str]:
    """Cloudflare's fields by name, if they are a block; else none, and why."""
    block: dict[str, Field] = {}
    place = rank = 0
    for field in header.fields:
        name = field.name.lower()
        # Nothing between: a line that is no field would be none of Cloudflare's.
        if name not in _ORDER or _ORDER.index(name) < rank or field.start != place:
            return {}, f"{field.name} stands where Cloudflare's block should be"
        block[name] = field
        place, rank = field.end, _ORDER.index(name) + 1
        if name == "received" and not _RECEIVED.match(field.text):
            return {}, "the first Received line is not Cloudflare's"
        if "received" not in block:
            return {}, "there is no Received line of Cloudflare's on top"
        if name == _MARK:
            return block, ""
    return {}, "there is no X-CF-SpamH-Score line"


def _handed_over_by(block: dict[str, Field]) -> tuple[str, str]:
    """Host and address."""
    found = _RECEIVED.match(block["received"].text)
    assert found is not None  # or it were no block
    try:
        return found[1], str(ipaddress.ip_address(found[2]))
    except ValueError:
        return found[1], ""


def _results(block: dict[str, Field]) -> dict[str, str] | None:
    for name in ("authentication-results", "arc-authentication-results"):
        if name in block:
            first, *others = _parts(block[name].text)
            if name.startswith("arc"):  # RFC 8617 4.1.1: the instance goes before
                first, *others = others or [""]
            if first.strip().lower() == _AUTHSERV_ID:
                return _methods(others)
    return None


def _methods(parts: list[str]) -> dict[str, str]:
    """Method to result (RFC 8601 2.2). Of several the one that counts: for SPF that of MAIL FROM, for DKIM any pass."""
    found: dict[str, list[tuple[str, str]]] = {}
    for part in parts:
        method, _, rest = part.strip().partition("=")
        result, _, properties = rest.strip().partition(" ")
        found.setdefault(method.strip().lower(), []).append((_known(result), properties))
    results = {}
    for method, ways in found.items():
        best = ways[0][0]
        if method == "spf":
            best = next((result for result, properties in ways if "smtp.mailfrom" in properties), best)
        elif any(result == "pass" for result, _ in ways):
            best = "pass"
        results[method] = best
    return results


def _known(word: str) -> str:
    word = word.strip().lower()
    return word if word in _RESULTS else UNKNOWN


def _parts(text: str) -> list[str]:
    """What stands between semicolons, without comments; a semicolon in a comment or in quotes parts nothing.

    Comments quote the sender's addresses, so it is here that one could write
    ``dmarc=pass`` for himself.
    """
    parts, depth, place = [""], 0, 0
    while place < len(text):
        letter = text[place]
        quoted = _QUOTED.match(text, place) if letter == '"' and not depth else None
        if quoted:
            parts[-1] += quoted[0].replace(";", " ").replace("=", " ")
            place = quoted.end()
            continue
        if letter == "\\" and depth:
            place += 1
        elif letter == "(":
            depth += 1
        elif letter == ")" and depth:
            depth -= 1
        elif letter == ";" and not depth:
            parts.append("")
        elif not depth:
            parts[-1] += letter
        place += 1
    return parts
