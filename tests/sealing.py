"""Objects as the Workers make them, for tests that need one with this or that inside."""

import base64
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from drain.keys import KeyRing, key_id
from drain.opener import Opener
from drain.setting import Secret

HEADER = {"to": "alice@example.test", "from": "bob@y.test", "received": "2026-03-02T10:00:00Z", "ip": "192.0.2.7"}
RAW = b"From: bob@y.test\r\nSubject: s\r\n\r\nhello\r\n"
KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def seal_plaintext(plaintext: bytes, key: X25519PrivateKey = KEY) -> bytes:
    """A sealed object around anything at all."""
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    info = b"drain sealed v1" + key_id(key)
    return b"DRN1" + key_id(key) + suite.encrypt(plaintext, key.public_key(), info=info)


def plaintext_of(header: Any, raw: bytes = RAW) -> bytes:
    """What is sealed, around a header; bytes are taken for the header's own."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(encoded).to_bytes(4, "big") + encoded + raw


def seal(raw: bytes = RAW, header: Mapping[str, Any] | None = None, *, key: X25519PrivateKey = KEY) -> bytes:
    """A sealed object with a good header, but for these fields."""
    return seal_plaintext(plaintext_of({**HEADER, **(header or {})}, raw), key)


@cache
def rsa_key() -> RSAPrivateKey:
    """A key for Mailbridge's objects."""
    return generate_private_key(65537, 2048)


@cache
def other_rsa_key() -> RSAPrivateKey:
    """Another."""
    return generate_private_key(65537, 2048)


def bridge(inside: Any, outside: Mapping[str, Any] | None = None, *, key: RSAPrivateKey | None = None) -> bytes:
    """An object of Mailbridge's around a content, with these fields changed in it; None takes one away."""
    content_key, iv = os.urandom(32), os.urandom(12)
    content = inside if isinstance(inside, bytes) else json.dumps(inside).encode()
    wrapped = (key or rsa_key()).public_key().encrypt(content_key, OAEP(MGF1(SHA256()), SHA256(), None))
    values = {
        "version": "v1",
        "algorithm": "RSA-OAEP-256+A256GCM",
        "wrappedKey": base64.b64encode(wrapped).decode(),
        "iv": base64.b64encode(iv).decode(),
        "ciphertext": base64.b64encode(AESGCM(content_key).encrypt(iv, content, None)).decode(),
        **(outside or {}),
    }
    return json.dumps({name: value for name, value in values.items() if value is not None}).encode()


def pem(key: X25519PrivateKey | RSAPrivateKey) -> bytes:
    """A private key as a file has it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_files(folder: Path, *keys: X25519PrivateKey | RSAPrivateKey) -> list[Path]:
    """The keys, each in a file."""
    paths = []
    for number, key in enumerate(keys):
        path = folder / f"key-{number}.pem"
        path.write_bytes(pem(key))
        path.chmod(0o600)
        paths.append(path)
    return paths


def opener(folder: Path, *tokens: str, sealed_only: bool = False) -> Opener:
    """An opener with both test keys."""
    sealed, mailbridge = key_files(folder, KEY, rsa_key())
    return Opener(KeyRing([sealed], mailbridge), tuple(map(Secret, tokens)), sealed_only)
