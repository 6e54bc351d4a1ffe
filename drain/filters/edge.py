"""What Cloudflare found of a mail at the edge: read from its own lines, never from the sender's.

Cloudflare puts a block of its own on top, in this order: ``Received`` (by
``cloudflare-email.net``), ``ARC-Seal``, ``ARC-Message-Signature``,
``ARC-Authentication-Results``, ``Received-SPF``, ``Authentication-Results``, and last
``X-CF-SpamH-Score``. Below that mark the sender writes what he likes. So a block
counts only if it begins at the very first line, has these names alone, each once
and in this order, and ends with the mark; anything else is no block, and then
everything is "unknown".

Within the block too there are words of the sender's: his HELO name, his address,
the domains of his signatures, none of them escaped. ``a; dmarc=pass`` is a local
part. What he cannot write is a line end. So a result is believed where it stands at
the beginning of a line, as Cloudflare writes them; where all stand on one line, the
worst of several results for one method counts.

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
_AUTHSERV_ID = b"mx.cloudflare.net"
# The same in `worker/src/mail.js`.
_BY = b"by cloudflare-email.net"
_RECEIVED = re.compile(
    rb"[ \t]*from ([^\r\n]+) \(([0-9a-f:.]{2,45})\)\r\n[ \t]+by cloudflare-email\.net[ \t]", re.IGNORECASE
)
_RECEIVED_ON_ONE_LINE = re.compile(
    rb"[ \t]*from (\S+) \(([0-9a-f:.]{2,45})\) by cloudflare-email\.net[ \t]", re.IGNORECASE
)
# RFC 8601 2.7 and IANA's registry, worst first; `unknown`, for a word that is none of these, is worse than a pass.
_RESULTS = (
    "fail", "hardfail", "softfail", "permerror", "temperror", "policy", "neutral", "declined", "none", UNKNOWN, "pass",
)  # fmt: skip
_ARC_INSTANCE = re.compile(rb"\A[ \t]*i=\d{1,3};\s*")  # RFC 8617 4.1.1: it goes before
_NEXT_LINE = re.compile(rb";[ \t]*\r\n[ \t]+")


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
    host, ip = _handed_over_by(block["received"].value) or ("", "")
    results = _results(block)
    if results is None:
        why, results = "Cloudflare's block has no Authentication-Results", {}
    spf = results.get("spf", UNKNOWN)
    if spf == UNKNOWN and "received-spf" in block:
        spf = _known(block["received-spf"].value.lstrip())
    return Edge(ip, host, spf, results.get("dkim", UNKNOWN), results.get("dmarc", UNKNOWN), why)


def _block(header: Header) -> tuple[dict[str, Field], str]:
    """Cloudflare's fields by name, if they are a block; else none, and why."""
    block: dict[str, Field] = {}
    place = rank = 0
    for field in header.fields:
        name = field.name.lower()
        # Nothing between: a line that is no field would be none of Cloudflare's.
        if name not in _ORDER or _ORDER.index(name) < rank or field.start != place:
            if not block:
                return {}, f"there are no lines of Cloudflare's on top, where {field.name} stands"
            return {}, f"{field.name} stands within Cloudflare's lines"
        block[name] = field
        place, rank = field.end, _ORDER.index(name) + 1
        if name == "received" and _handed_over_by(field.value) is None:
            return {}, "the first Received line is not Cloudflare's"
        if "received" not in block:
            return {}, "there is no Received line of Cloudflare's on top"
        if name == _MARK:
            return block, ""
    return {}, "there is no X-CF-SpamH-Score line"


def _handed_over_by(received: bytes) -> tuple[str, str] | None:
    """Host and address; None if the line is not Cloudflare's. The host can be what the sender says of himself."""
    found = _RECEIVED.match(received)
    if found is None and received.count(_BY) == 1:
        found = _RECEIVED_ON_ONE_LINE.match(received)
    if found is None:
        return None
    host = found[1].decode("ascii", "replace")
    try:
        return host, str(ipaddress.ip_address(found[2].decode("ascii")))
    except ValueError:
        return host, ""


def _results(block: dict[str, Field]) -> dict[str, str] | None:
    for name in ("authentication-results", "arc-authentication-results"):
        if name in block:
            value = block[name].value
            if name.startswith("arc"):
                value = _ARC_INSTANCE.sub(b"", value)
            authserv_id, *results = _NEXT_LINE.split(value)
            lines = len(results) > 1
            if not lines:
                authserv_id, *results = value.split(b";")
            if authserv_id.strip().lower() == _AUTHSERV_ID:
                return _methods(results, lines=lines)
    return None


def _methods(results: list[bytes], *, lines: bool) -> dict[str, str]:
    """Method to result (RFC 8601 2.2). *lines*: each is one line, and Cloudflare's."""
    found: dict[str, list[bytes]] = {}
    for result in results:
        name, equals, rest = result.strip().partition(b"=")
        if equals:
            found.setdefault(name.strip().lower().decode("ascii", "replace"), []).append(rest)
    known = {}
    for method, rests in found.items():
        words = [_known(rest) for rest in rests]
        if lines and method == "dkim":  # one for each signature
            known[method] = "pass" if "pass" in words else words[0]
        elif lines and method == "spf":  # HELO's first, then MAIL FROM's
            known[method] = words[-1]
        else:
            of_sender = [_known(rest) for rest in rests if b" smtp.mailfrom=" in rest] if method == "spf" else []
            known[method] = min(of_sender or words, key=_RESULTS.index)
    return known


def _known(rest: bytes) -> str:
    """The result that *rest* begins with."""
    word = re.split(rb"[\s;(]", rest.lstrip(), maxsplit=1)[0].decode("ascii", "replace").lower()
    return word if word in _RESULTS else UNKNOWN
