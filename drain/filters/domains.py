"""The domains that a mail names: its envelope sender's, From's, and the hosts of links in its text.

Decoded for reading only, from the first megabyte, and with bounds on everything
that a sender can make many of: an attacker may hide a name, but not cost time. What
is searched is a superset of what mail programs show, since they differ.
"""

import binascii
import html
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote

from drain.filters.inbound import Inbound
from drain.mail import normalised

MOST = 20
_READ_BYTES = 1024 * 1024
_HEADER_BYTES = 16 * 1024  # of a part; `Header` has no bound that is small enough for many
_MOST_BOUNDARIES = 16
_MOST_PARTS = 100
_MOST_NESTED = 5
_MOST_LINKS = 300
_MOST_FROM = 4

# All patterns are for text in lower case: ignoring case would cost a tenth of a second for a megabyte.
# RFC 2046 5.1.1, and what is sent instead.
_BOUNDARY = re.compile(rb'boundary[ \t]{0,4}=[ \t]{0,4}(?:"([^"\r\n]{1,200})"|([^\s";]{1,200}))')
_TYPE = re.compile(rb"^content-type[ \t]{0,4}:\s{0,4}([^\s;]{1,100})", re.MULTILINE)
_CHARSET = re.compile(rb'charset[ \t]{0,4}=[ \t]{0,4}"?([\w-]{1,40})')
_ENCODING = re.compile(rb"^content-transfer-encoding[ \t]{0,4}:\s{0,4}([\w-]{1,40})", re.MULTILINE)
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
# In other charsets a link in ASCII is seen without them.
_WIDE = frozenset({"utf-7", "utf-16", "utf-16le", "utf-16be", "utf-32", "utf-32le", "utf-32be"})

# Browsers take a backslash for a slash, and any number of them (WHATWG URL 4.4, special authority).
_LINK = re.compile(r"https?:[/\\]{1,8}([^\s/\\?#<>\"'`()]{1,300})")
_ATTRIBUTE = re.compile(r"href\s{0,8}=\s{0,8}[\"']?([^\"'>\s]{1,300})")
_PORT = re.compile(r":\d{0,5}$")
# Never fails once begun, so that a megabyte of quotes is read once.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+\\?(?:"|$)')
_IN_ANGLES = re.compile(r"@([^<>@\s]{1,255})>")
_AFTER_AT = re.compile(r"@([^<>@\s,;()\"]{1,255})")

_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.){1,20}(?:[a-z]{2,63}|xn--[a-z0-9-]{1,59})")
# Nobody can have them (RFC 6761, 6762, 7686, 3172; .internal is ICANN's for private use): asking tells strangers of a
# network's inside, or nothing.
_PRIVATE = frozenset({"localhost", "local", "internal", "invalid", "onion", "arpa"})
# UTS 46: the other dots, and what browsers leave out of a name.
_MAPPED = str.maketrans(
    "\u3002\uff0e\uff61", "...", "\u00ad\u034f\u200b\u2060\ufeff" + "".join(map(chr, range(0xFE00, 0xFE10)))
)


def named(inbound: Inbound, *, links: bool) -> tuple[str, ...]:
    """At most `MOST` names in lower case as A-labels, each once, the same for the same mail.

    First the envelope sender's domain and those of From, then hosts of *links*, in
    the order in which they stand there, but one of each domain before a second one of it:
    twenty hosts below one domain hide no other.
    """
    senders = [inbound.mail.sender.rpartition("@")[2], *_of_from(inbound)]
    names = dict.fromkeys(name for sender in senders if (name := host_name(sender)))
    if links:
        names |= dict.fromkeys(_one_of_each_first(_of_links(inbound.mail.raw)))
    return tuple(names)[:MOST]


def host_name(text: str) -> str:
    """*text* as a name that can be asked about; "" where it is none, or an address, or private."""
    if len(text) > 253:
        return ""
    name = text.strip().lower()
    if not name.isascii():
        name = _a_labels(name)
    name = name.rstrip(".")
    if len(name) > 253 or not _NAME.fullmatch(name) or name.rpartition(".")[2] in _PRIVATE:
        return ""
    return name


def _a_labels(name: str) -> str:
    """Punycode (RFC 3492) of each label, mapped about as browsers do.

    Not by Python's codec: it has IDNA 2003, which makes another name of ß and none of
    newer letters, and takes milliseconds for a name that was made for it.
    """
    labels = unicodedata.normalize("NFKC", name.translate(_MAPPED)).lower().split(".")
    if max(map(len, labels)) > 63:
        return ""
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}" for label in labels)


def _of_from(inbound: Inbound) -> list[str]:
    domains: list[str] = []
    for field in itertools.islice(inbound.header.all("from"), _MOST_FROM):
        text = field.text[:4096]
        bare = _QUOTED.sub("", text)
        domains += _IN_ANGLES.findall(bare) or _AFTER_AT.findall(bare) or _AFTER_AT.findall(text)
    return domains[:_MOST_FROM]


def _one_of_each_first(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, str]] = []
    for name in names:
        domain = ".".join(name.split(".")[-2:])
        ranked.append((seen[domain], name))
        seen[domain] += 1
    return [name for _, name in sorted(ranked, key=lambda entry: entry[0])]


def _of_links(raw: bytes) -> list[str]:
    """The host names of the links in a message, each once, in order."""
    authorities: dict[str, None] = {}
    for text in _texts(normalised(raw[:_READ_BYTES])):
        authorities |= dict.fromkeys(_LINK.findall(text))
        escaped = (value for value in dict.fromkeys(_ATTRIBUTE.findall(text)) if "&" in value)
        for value in itertools.islice(escaped, _MOST_LINKS):
            authorities |= dict.fromkeys(_LINK.findall(html.unescape(value).lower()))
        if len(authorities) > _MOST_LINKS:
            break
    hosts = (_host(authority) for authority in itertools.islice(authorities, _MOST_LINKS))
    return list(dict.fromkeys(host for host in hosts if host))


def _host(authority: str) -> str:
    """The host in ``user:password@host:port``, without what only ends the sentence that it stands in."""
    host = _PORT.sub("", unquote(authority).rpartition("@")[2].rstrip(".,;:!*_|]}")).rstrip(".")
    return host_name(host)


def _texts(message: bytes) -> Iterator[str]:
    """The text parts, decoded, in lower case."""
    for part in itertools.islice(_parts(message), _MOST_PARTS):
        header, body = _opened(part)
        kind = _found(_TYPE, header)
        for _ in range(_MOST_NESTED):
            if not kind.startswith("message/"):
                break
            header, body = _opened(body)
            kind = _found(_TYPE, header)
        if not kind or kind.startswith("text"):
            yield _decoded(body, _found(_ENCODING, header), _found(_CHARSET, header)).lower()


def _parts(message: bytes) -> Iterator[bytes]:
    """What stands between the lines that are any of the boundaries named in the message, however they are nested."""
    lower = message.lower()
    named = (quoted or bare for quoted, bare in _BOUNDARY.findall(lower))
    boundaries = list(itertools.islice(dict.fromkeys(named), _MOST_BOUNDARIES))
    if not boundaries:
        yield message
        return
    line = re.compile(rb"\r\n--(?:" + b"|".join(map(re.escape, boundaries)) + rb")(?:--)?[ \t]{0,80}(?=\r\n)")
    start = 0
    for found in line.finditer(lower):
        yield message[start : found.start()]
        start = found.end() + 2
    yield message[start:]


def _opened(part: bytes) -> tuple[bytes, bytes]:
    """Header and body of a part; one without a header begins with the empty line."""
    if part.startswith(b"\r\n"):
        return b"", part[2:]
    header, _, body = part.partition(b"\r\n\r\n")
    return header[:_HEADER_BYTES].lower(), body


def _found(pattern: re.Pattern[bytes], header: bytes) -> str:
    found = pattern.search(header)
    return found[1].decode("latin-1") if found else ""


def _decoded(body: bytes, encoding: str, charset: str) -> str:
    if encoding == "quoted-printable":
        body = binascii.a2b_qp(body)
    elif encoding == "base64":
        digits = body.translate(None, _NOT_BASE64)
        try:
            body = binascii.a2b_base64(digits[: len(digits) // 4 * 4])
        except binascii.Error:
            body = b""
    if charset in _WIDE:
        return body.decode(charset, "replace")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("latin-1")
