"""Names of places: hosts, addresses, domains, mailboxes; how they are written and compared.

Parsers as in `setting`: text in, value out; `ValueError` says what would be right.
"""

import ipaddress
import re
import urllib.parse

from drain.setting import Secret, words

# RFC 5894 7.2: IDNA 2003, which Python has, maps them away; IDNA 2008, and the domain's owner, does not.
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")
_MAILBOX = re.compile(r"\+junk|[^\s\x00-\x20\x7f<>+@][^\s\x00-\x20\x7f<>@]*(?:@[^\s@<>]+)?", re.IGNORECASE)
# RFC 5321 4.1.2, without quoted local parts and without address literals.
_ADDRESS = re.compile(r"[^\s\x00-\x20\x7f<>@\"(),:;\[\]\\]{1,64}@[^\s\x00-\x20\x7f<>@\"(),:;\[\]\\]{1,253}")
# RFC 1123 2.1, with the underscore that some have; in a mail server's configuration no other sign would be safe.
_DOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_ZONE = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
# RFC 6598; also what Tailscale gives to a person's own machines.
_SHARED = ipaddress.ip_network("100.64.0.0/10")


IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def domain_key(domain: str) -> str:
    """The one form in which domains are compared: lower case, IDNA A-labels, no final dot."""
    name = domain.strip().rstrip(".").lower()
    if _DEVIATIONS & set(name):
        return name  # Python's codec would make another domain of it
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return name


def domains(value: str) -> tuple[str, ...]:
    """Mail domains, in the form that `domain_key` gives them."""
    names = tuple(domain_key(part) for part in value.split(",") if part.strip())
    if (value and not names) or not all(map(_DOMAIN.fullmatch, names)):
        raise ValueError("one mail domain, or several with commas between (in its xn-- form where it has \u00df)")
    return names


def host(value: str) -> str:
    """A host's name or address without a port, or the path of a socket."""
    if value and not value.startswith("/") and not re.fullmatch(r"[A-Za-z0-9_.-]+", value):
        try:
            ipaddress.ip_address(value.strip("[]"))
        except ValueError:
            raise ValueError("a name or an address without a port, or a path beginning with /") from None
    return value.strip("[]")


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine, by name or by address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_private(host: str) -> bool:
    """Whether *host* is this machine or in one's own network: by its address, or by a name that is not public."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return "." not in host or host.endswith((".local", ".home.arpa", ".lan", ".internal", ".localhost"))
    return address.is_private or address in _SHARED


def url(value: str) -> str:
    """An address on the web."""
    if value and not value.startswith(("https://", "http://")):
        raise ValueError("an address beginning with https:// (or http:// on loopback)")
    return value.rstrip("/")


def private_url(value: str) -> str:
    """An address on the web that may see mail: ``https://``, or ``http://`` in one's own network."""
    if not value:
        return ""
    address = value.rstrip("/")
    parts = urllib.parse.urlsplit(address)
    host = parts.hostname or ""
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_private(host))):
        raise ValueError("an address beginning with https:// (http:// is for this machine and your own network)")
    if "@" in parts.netloc:
        raise ValueError("an address without a user and a password in it")
    return address


def secret_url(value: str) -> Secret:
    """The same where the address itself is what lets one in."""
    return Secret(private_url(value))


def junk_mailbox(value: str) -> str:
    """A mailbox's name or address, or ``+junk``, or ``none``."""
    if value and not _MAILBOX.fullmatch(value):
        raise ValueError("a mailbox, with its domain or without, or +junk, or none")
    return value


def zones(value: str) -> tuple[str, ...]:
    """Names of DNS zones; ``none`` for none."""
    names = tuple(name.rstrip(".") for name in words(value))
    if names == ("none",):
        return ()
    if any(name.endswith(".dq.spamhaus.net") for name in names):
        raise ValueError("names as in zen.spamhaus.org; the key of dq.spamhaus.net goes into SPAMHAUS_DQS_KEY")
    if not all(_ZONE.fullmatch(name) and len(name) < 200 for name in names):
        raise ValueError("names of DNS zones with commas between, or none")
    return names


def resolvers(value: str) -> tuple[str, ...]:
    """Addresses of DNS resolvers, each with a port or without."""
    found = words(value)
    for place in found:
        host, port = host_and_port(place)
        try:
            ipaddress.ip_address(host)
            good = port is None or 0 < int(port) < 65536
        except ValueError:
            good = False
        if not good:
            raise ValueError("IP addresses with commas between, each with :port or without ([2001:db8::1]:53)")
    return found


def servers(value: str) -> tuple[str, ...]:
    """Names or addresses of servers, each with a port or without."""
    found = words(value)
    for place in found:
        name, port = host_and_port(place)
        host(name)
        if not name or name.startswith("/") or not (port is None or (port.isdecimal() and 0 < int(port) < 65536)):
            raise ValueError("names or addresses with commas between, each with :port or without")
    return found


def networks(value: str) -> tuple[IPNetwork, ...]:
    """Networks as in ``192.0.2.0/24``, with commas between."""
    try:
        return tuple(ipaddress.ip_network(part) for part in words(value))
    except ValueError:
        raise ValueError("networks as in 192.0.2.0/24 or 2001:db8::/64, with commas between") from None


def local_part(value: str) -> str:
    """What stands before the @ of a mail address."""
    if value and not _ADDRESS.fullmatch(f"{value}@example.org"):
        raise ValueError("what stands before the @ of an address of yours")
    return value


def address(value: str) -> str:
    """One mail address."""
    if value and not _ADDRESS.fullmatch(value):
        raise ValueError("one mail address")
    return value


def address_patterns(value: str) -> tuple[str, ...]:
    """Patterns of mail addresses in the form that `matches` wants: ``a@b``, ``@b`` for a whole domain, ``<>``."""
    patterns = []
    for word in words(value):
        if word == "<>":
            patterns.append(word)
            continue
        local, at, domain = (word[1:] if word.startswith("*@") else word).rpartition("@")
        key = domain_key(domain)
        sound = at and key.isascii() and "*" not in local + key and _ADDRESS.fullmatch(f"{local or 'any'}@{key}")
        if not sound:
            raise ValueError("addresses, or @domain for all of a domain, with commas between")
        patterns.append(f"{local}@{key}")
    return tuple(patterns)


def matches(address: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of *patterns* means this address, "" being ``<>``; upper and lower case are the same."""
    if not address:
        return "<>" in patterns
    local, _, domain = address.rpartition("@")
    domain = domain_key(domain)
    return bool(local) and (f"@{domain}" in patterns or f"{local.lower()}@{domain}" in patterns)


def host_and_port(place: str) -> tuple[str, str | None]:
    """The two parts of ``name``, ``name:port``, ``[address]:port`` or a bare IPv6 address."""
    if place.startswith("["):
        host, _, port = place[1:].partition("]")
        return host, port.removeprefix(":") or None
    host, colon, port = place.partition(":")
    return (host, port) if colon and ":" not in port else (place, None)
