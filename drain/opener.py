"""From an object to the mail in it: which kind is it, and what does it hold.

Three kinds can lie under ``pending/``. They are told apart by their bytes, never
by their name:

=========== ============================================ =====================
kind        begins with                                  opened
=========== ============================================ =====================
sealed      ``DRN1``                                     not by this version
mailbridge  ``{``, and names the algorithm of that       not by this version
            project
plain       a header field or ``From ``, or anything at  yes
            all where ``x-amz-meta-to`` says that it is
            a mail
=========== ============================================ =====================

A sealed object that cannot be opened for want of a key is `KeyMissing`: it
waits. Only what is no mail at all is `NotMail`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from drain.errors import KeyMissing
from drain.mail import Mail, begins_with_from_line, begins_with_header_field

# Cloudflare accepts 25 MiB; twice that, and some, is still a mail to somebody.
OBJECT_LIMIT = 64 * 1024 * 1024
_SEALED_MAGIC = b"DRN1"
_MAILBRIDGE_ALGORITHM = b'"RSA-OAEP-256+A256GCM"'
_MAILBRIDGE_HEAD = 4096  # the name of the algorithm stands near the beginning


class Kind(StrEnum):
    """What an object is, by its bytes."""

    SEALED = "sealed"
    MAILBRIDGE = "mailbridge"
    PLAIN = "plain"


class NotMail(Exception):
    """The object is no mail; ``reason`` is a short code, the message says it in words."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


@dataclass(frozen=True)
class Opened:
    """A mail and the kind of object that it came in."""

    mail: Mail
    kind: Kind


def kind_of(body: bytes) -> Kind:
    """Which kind an object is; plain is whatever is not one of the others."""
    if body.startswith(_SEALED_MAGIC):
        return Kind.SEALED
    if body.startswith(b"{") and _MAILBRIDGE_ALGORITHM in body[:_MAILBRIDGE_HEAD]:
        return Kind.MAILBRIDGE
    return Kind.PLAIN


def open_object(body: bytes, metadata: Mapping[str, str]) -> Opened:
    """The mail in an object.

    Raises:
        NotMail: it holds none.
        KeyMissing: it is sealed, and there is no key for it here.
    """
    kind = kind_of(body)
    if kind is not Kind.PLAIN:
        raise KeyMissing(
            f"The object is of the kind {kind}, and there is no key here that opens it.",
            "It stays in the bucket until there is one.",
        )
    return Opened(_open_plain(body, metadata), kind)


def envelope_of(metadata: Mapping[str, str]) -> tuple[str, str]:
    """Recipient and sender of a plain object, "" where there is none."""
    return _address(metadata.get("to", "")), _address(metadata.get("from", ""))


def _open_plain(body: bytes, metadata: Mapping[str, str]) -> Mail:
    if not body:
        raise NotMail("empty", "The object is empty.")
    recipient, sender = envelope_of(metadata)
    # Without this a damaged seal would be mailed to the catch-all.
    if not (recipient or begins_with_header_field(body) or begins_with_from_line(body)):
        raise NotMail("not-mail", "The object does not begin like a mail, and nothing beside it says that it is one.")
    return Mail(body, recipient, sender)


def _address(value: str) -> str:
    # HTTP headers arrive as Latin-1; who writes an address that is not ASCII writes UTF-8.
    try:
        value = value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        pass
    value = value.strip(" \t")
    return value[1:-1] if value.startswith("<") and value.endswith(">") else value
