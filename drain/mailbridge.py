"""Mailbridge's objects, version 1: JSON, RSA-OAEP-256 around a key for AES-256-GCM.

::

    object  = {"version", "algorithm", "wrappedKey", "iv", "ciphertext"}      base64
    content = {"from", "to", "senderIp", "raw", "receivedAt"}

That Worker reads a mail as UTF-8 before it seals it: ``raw`` is text, and what
of an 8-bit mail was lost there is not to be had back.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drain.errors import KeyMissing, NotMail
from drain.fields import flat_object, text_of
from drain.text import clean

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_ALGORITHM = "RSA-OAEP-256+A256GCM"
_VERSION = "v1"
_NAMED_WITHIN = 4096  # the name of the algorithm stands near the beginning


@dataclass(frozen=True)
class Bridged:
    """What was in the object; ``ip`` is "" for none."""

    recipient: str
    sender: str
    received: str
    ip: str
    raw: bytes


def is_mailbridge(body: bytes) -> bool:
    """Whether an object says that it is one."""
    return body.startswith(b"{") and f'"{_ALGORITHM}"'.encode() in body[:_NAMED_WITHIN]


def fingerprint(key: "RSAPrivateKey") -> str:
    """A name for a key, in hex; the object has none."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()


def open_mailbridge(body: bytes, key: "RSAPrivateKey") -> Bridged:
    """What an object holds.

    Raises:
        NotMail: it is damaged, or of an unknown version.
        KeyMissing: *key* is not the one that it was sealed for, or it is damaged just where
            that would show. ``suspect`` is the key's fingerprint: whether the key has
            opened a later object tells the two apart.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 (slow to load; as in sealed)
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    values = flat_object(body, "it")
    if (version := text_of(values, "version")) != _VERSION or text_of(values, "algorithm") != _ALGORITHM:
        raise NotMail(
            "unknown-version", f"It is Mailbridge's, in version {clean(version, 20)}, which this drain cannot open."
        )
    wrapped, iv, ciphertext = (_base64_of(values, name) for name in ("wrappedKey", "iv", "ciphertext"))
    del values
    try:
        content_key = key.decrypt(wrapped, OAEP(MGF1(SHA256()), SHA256(), None))
    except ValueError as error:
        raise KeyMissing(
            "It is Mailbridge's, and the key in MAILBRIDGE_PRIVATE_KEY_PATH does not open it.",
            suspect=fingerprint(key),
        ) from error
    try:
        content = AESGCM(content_key).decrypt(iv, ciphertext, None)
    except (InvalidTag, ValueError):  # ValueError: a key or iv of no size that there is
        raise NotMail("damaged", "It is Mailbridge's, but was changed after it was sealed.") from None
    del ciphertext
    return _contents(content)


def _contents(content: bytes) -> Bridged:
    """The parts of what was sealed; it can be anybody's work, since the public key is no secret."""
    inside = flat_object(content, "what it holds")
    return Bridged(
        recipient=text_of(inside, "to"),
        sender=text_of(inside, "from", optional=True),
        received=text_of(inside, "receivedAt", optional=True),
        ip=text_of(inside, "senderIp", optional=True),
        raw=text_of(inside, "raw", limit=None).encode("utf-8"),
    )


def _base64_of(values: Mapping[str, Any], name: str) -> bytes:
    text = text_of(values, name, limit=None)
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NotMail("damaged", f"It is Mailbridge's, but its {name} is not base64.") from None
    # The last letter can have bits that say nothing, and padding can be too long; who changed them
    # changed the object. Four letters are three bytes: only the last can be written in two ways.
    last = base64.b64encode(decoded[(len(decoded) - 1) // 3 * 3 :]) if decoded else b""
    if len(text) != (len(decoded) + 2) // 3 * 4 or not text.endswith(last.decode()):
        raise NotMail("damaged", f"It is Mailbridge's, but its {name} was changed.")
    return decoded
