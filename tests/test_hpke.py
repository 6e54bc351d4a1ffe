"""The library's HPKE against RFC 9180's own vectors."""

import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

AEADS: dict[str, tuple[AEAD, type[AESGCM | ChaCha20Poly1305]]] = {
    "AES_128_GCM": (AEAD.AES_128_GCM, AESGCM),
    "CHACHA20_POLY1305": (AEAD.CHACHA20_POLY1305, ChaCha20Poly1305),
}
CASES = json.loads(Path(__file__).with_name("vectors").joinpath("rfc9180.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["aead"])
def test_the_library_opens_what_the_rfcs_own_key_and_nonce_encrypt(case: dict[str, str]) -> None:
    """It takes no aad, so the RFC's ciphertext is not what it is given; its key schedule and KEM are tested all the same."""
    given = {name: bytes.fromhex(value) for name, value in case.items() if name not in {"description", "aead"}}
    number, cipher = AEADS[case["aead"]]
    aead = cipher(given["key"])
    assert aead.encrypt(given["base_nonce"], given["pt"], given["aad"]) == given["ct"]

    recipient = X25519PrivateKey.from_private_bytes(given["skRm"])
    assert recipient.public_key().public_bytes_raw() == given["pkRm"]
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, number)
    without_aad = given["enc"] + aead.encrypt(given["base_nonce"], given["pt"], None)
    assert suite.decrypt(without_aad, recipient, info=given["info"]) == given["pt"]
    for info in (b"", given["info"] + b"."):
        with pytest.raises(InvalidTag):
            suite.decrypt(without_aad, recipient, info=info)
