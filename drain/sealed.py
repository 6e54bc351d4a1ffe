"""Sealed v1, the format in which this project's Worker stores a mail (``worker/FORMAT.md``).

::

    object    = "DRN1" ‖ key id (8) ‖ enc (32) ‖ ciphertext
    plaintext = header length (uint32, big endian) ‖ header (JSON) ‖ message

HPKE (RFC 9180), base mode, single shot, with X25519, HKDF-SHA256 and AES-256-GCM;
info is ``drain sealed v1`` and the key id.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drain.errors import KeyMissing, NotMail
from drain.fields import damaged, small_object, text_of
from drain.keys import KEY_ID_BYTES, key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_FAMILY = b"DRN"
_VERSION = b"1"
_INFO = b"drain sealed v1"
_HEAD = len(_FAMILY + _VERSION) + KEY_ID_BYTES
_ENC_BYTES = 32
_TAG_BYTES = 16
_LENGTH_BYTES = 4
_SHORTEST = _HEAD + _ENC_BYTES + _LENGTH_BYTES + len("{}") + _TAG_BYTES


@dataclass(frozen=True)
class Sealed:
    """What was sealed. ``sender`` is "" for a bounce; ``ip`` and ``token`` are "" for none."""

    recipient: str
    sender: str
    received: str
    ip: str
    token: str
    raw: bytes


def is_sealed(body: bytes) -> bool:
    """Whether an object says that it is sealed, in this version or another."""
    return body.startswith(_FAMILY) and body[3:4].isdigit()


def names_key(body: bytes, keys: Mapping[bytes, object]) -> bool:
    """Whether there is one of our key ids where a sealed object has it: then it was one, whatever it begins with."""
    return body[_HEAD - KEY_ID_BYTES : _HEAD] in keys


def open_sealed(body: bytes, keys: "Mapping[bytes, X25519PrivateKey]") -> Sealed:
    """What a sealed object holds.

    Raises:
        NotMail: it is damaged, or of an unknown version.
        KeyMissing: none of *keys* is the one that it was sealed for.
    """
    if not body.startswith(_FAMILY + _VERSION):
        version = body[3:4].decode("ascii", "replace")
        raise NotMail(
            "unknown-version", f"It is sealed in version {version} of the format, which this drain cannot open."
        )
    if len(body) < _SHORTEST:
        raise damaged(f"it was cut off after {len(body)} bytes")
    named = body[_HEAD - KEY_ID_BYTES : _HEAD]
    if named in keys:
        plaintext = _decrypt(body, keys, named)
        if plaintext is None:
            raise damaged("it was changed or cut off after it was sealed")
        return _unpack(plaintext)
    # An id with a damaged bit looks like a key that is missing, which would wait for ever.
    if any(_decrypt(body, keys, own) is not None for own in keys):
        raise damaged("its key id was changed after it was sealed")
    raise KeyMissing(f"It is sealed for the key {named.hex()}, which is not here.")


def _decrypt(body: bytes, keys: "Mapping[bytes, X25519PrivateKey]", named: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 (slow to load; a pass may have nothing sealed)
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite  # noqa: PLC0415

    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    try:
        # A view: a slice would be one more copy of up to 25 MiB.
        return suite.decrypt(memoryview(body)[_HEAD:], keys[named], info=_INFO + named)
    except (InvalidTag, ValueError):  # ValueError: an enc of low order (RFC 9180 7.1.4)
        return None


def seal(header: Mapping[str, str | None], raw: bytes, key: "X25519PrivateKey") -> bytes:
    """A sealed object for the public half of *key*, as the Worker makes it: for probes."""
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite  # noqa: PLC0415 (as above)

    encoded, own = json.dumps(header).encode(), key_id(key)
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    plaintext = len(encoded).to_bytes(_LENGTH_BYTES, "big") + encoded + raw
    return _FAMILY + _VERSION + own + suite.encrypt(plaintext, key.public_key(), info=_INFO + own)


def _unpack(plaintext: bytes) -> Sealed:
    """The parts of what was sealed; it can be anybody's work, since the public key is no secret."""
    start = _LENGTH_BYTES + int.from_bytes(plaintext[:_LENGTH_BYTES], "big")
    if start > len(plaintext):
        raise damaged(f"its header would end at byte {start} of {len(plaintext)}")
    header = small_object(plaintext[_LENGTH_BYTES:start], "its header")
    return Sealed(
        recipient=text_of(header, "to"),
        sender=text_of(header, "from", optional=True),
        received=text_of(header, "received"),
        ip=text_of(header, "ip", optional=True),
        token=text_of(header, "token", optional=True),
        raw=plaintext[start:],
    )
