"""DKIM (RFC 6376), for smarthosts that do not sign themselves.

A mail is signed when the domain of its From is DKIM_DOMAIN or below it: that is what
DMARC accepts as aligned (RFC 7489 3.1.1). Fields that must not be added on the way
are signed once more than they are there (RFC 6376 8.15); neither ``l=`` nor ``x=`` is
set, since either only weakens the signature (8.2).
"""

import re
from collections import Counter
from pathlib import Path

from drain import keys
from drain.errors import ConfigError
from drain.header import Header
from drain.places import domain_key
from drain.text import clean

# RFC 8301 3.2: verifiers take no less.
_LEAST_BITS = 1024
# RFC 6376 5.4.1. The first are signed even where they are missing, so that nobody adds one.
_ALWAYS = ("From", "Reply-To", "Subject", "To", "Cc")
_IF_THERE = (
    "Date",
    "Message-ID",
    "Sender",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-ID",
    "Content-Description",
    "Resent-Date",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Message-ID",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
)
# A field that may be there several times is not there more often than this.
_MOST_OF_A_NAME = 20
# Python's expressions, which dkimpy uses, take time with the square of a run of blanks,
# and memory, some hundred bytes, for each blank.
_RUN_OF_BLANKS = re.compile(rb"[ \t]{200}")
_MOST_BLANKS = 500_000
_NAME = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*"
)


class Signer:
    """Signs with the key of one domain. Calls may come from several threads.

    ``unsigned`` names fields that the upstream writes anew, such as Message-ID and Date
    at Amazon SES, so that signing them would spoil the signature
    (https://docs.aws.amazon.com/ses/latest/dg/send-email-authentication-dkim-manual.html).

    Raises:
        ConfigError: the domain, the selector or the key is not right.
    """

    def __init__(self, domain: str, selector: str, key_file: Path, *, unsigned: frozenset[str] = frozenset()) -> None:
        self.domain = domain_key(domain)
        self._selector = selector.encode("ascii", "replace")
        for name, value in (("DKIM_DOMAIN", self.domain), ("DKIM_SELECTOR", selector)):
            if not _NAME.fullmatch(value):
                raise ConfigError(f"{name} {clean(value, 80)!r} is not a name as the DNS has them.")
        self._key = _read(key_file)
        self._always = tuple(name for name in _ALWAYS if name not in unsigned)
        self._names = tuple(name for name in (*_ALWAYS, *_IF_THERE) if name not in unsigned)

    def signs_for(self, author_domain: str) -> bool:
        """Whether a mail from that domain is signed."""
        return f".{domain_key(author_domain)}".endswith(f".{self.domain}")

    def sign(self, raw: bytes, author_domain: str) -> bytes:
        """The message with a ``DKIM-Signature`` on top, if it is from the domain; else as it is.

        Given a message that is complete (`submission.complete`): CRLF, a header, a From.
        """
        if not self.signs_for(author_domain):
            return raw
        # Here, since dkimpy brings dnspython, and few want it.
        import dkim  # noqa: PLC0415

        header = Header.of(raw)
        # Not the whole of it, nor its empty lines at the end: dkimpy takes them one by one.
        message = dkim.DKIM(header.block + b"\r\n")
        message.body = raw[len(header.block) + 2 :].rstrip(b"\r\n") + b"\r\n"
        added: bytes = message.sign(
            self._selector,
            self.domain.encode("ascii"),
            self._key,
            canonicalize=(b"relaxed", _way_for(message.body)),
            include_headers=self._fields(header),
        )
        return added + raw

    def _fields(self, header: Header) -> list[bytes]:
        """The names for ``h=``, each once more than it is there."""
        there = Counter(field.name.lower() for field in header.fields)
        names = [name.lower() for name in self._names if name in self._always or there[name.lower()]]
        return [name.encode("ascii") for name in names for _ in range(min(there[name], _MOST_OF_A_NAME) + 1)]


def _way_for(body: bytes) -> bytes:
    """How blanks in the body are treated (RFC 6376 3.4): exactly, where else it would take too much time or memory."""
    many = body.count(b" ") + body.count(b"\t") > _MOST_BLANKS
    return b"simple" if many or _RUN_OF_BLANKS.search(body) else b"relaxed"


def _read(path: Path) -> bytes:
    """The key in the form that dkimpy reads."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    hint = "`openssl genrsa 2048` makes one; its public half goes into the DNS, below _domainkey."
    try:
        key = keys.read_rsa(path)
    except ConfigError as error:
        raise ConfigError(f"DKIM_KEY_FILE wants a private RSA key. {error}", "" if error.hint else hint) from error
    if key.key_size < _LEAST_BITS:
        raise ConfigError(f"The key in DKIM_KEY_FILE {path} has {key.key_size} bits, fewer than {_LEAST_BITS}.", hint)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
