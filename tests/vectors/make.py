"""Makes sealed-v1.json, always the same: ``python tests/vectors/make.py``.

HPKE is written out here from RFC 9180, with primitives alone and a given ephemeral key,
so that these vectors do not come from the library that drain opens mail with.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Case = dict[str, Any]

FILE = Path(__file__).with_name("sealed-v1.json")
RAW = b"From: bob@example.net\r\nTo: alice@example.test\r\nSubject: a vector\r\n\r\nhello\r\n"
TOKEN = "correct horse battery staple"

_KEY = hashlib.sha256(b"the recipient's key").digest()
_OTHER_KEY = hashlib.sha256(b"the key of somebody else").digest()
_KEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")
_HPKE_SUITE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x0020, 0x0001, 0x0002))
_LARGEST_IN_FULL = 4096


def public(key: bytes) -> bytes:
    """The public key, raw."""
    return X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()


def key_id(key: bytes) -> bytes:
    """By which an object names its key."""
    return hashlib.sha256(public(key)).digest()[:8]


def hpke(key: bytes, ephemeral: bytes, info: bytes, plaintext: bytes) -> bytes:
    """RFC 9180 SealBase() with empty aad: enc and ciphertext."""
    recipient = X25519PrivateKey.from_private_bytes(key).public_key()
    dh = X25519PrivateKey.from_private_bytes(ephemeral).exchange(recipient)
    enc = public(ephemeral)
    # What 4.1 calls Encap.
    eae_prk = _extract(_KEM_SUITE, b"", b"eae_prk", dh)
    shared_secret = _expand(_KEM_SUITE, eae_prk, b"shared_secret", enc + public(key), 32)
    # What 5.1 calls KeySchedule, in mode_base: neither psk nor psk_id.
    psk_id_hash = _extract(_HPKE_SUITE, b"", b"psk_id_hash", b"")
    info_hash = _extract(_HPKE_SUITE, b"", b"info_hash", info)
    context = b"\x00" + psk_id_hash + info_hash
    secret = _extract(_HPKE_SUITE, shared_secret, b"secret", b"")
    aes_key = _expand(_HPKE_SUITE, secret, b"key", context, 32)
    nonce = _expand(_HPKE_SUITE, secret, b"base_nonce", context, 12)
    return enc + AESGCM(aes_key).encrypt(nonce, plaintext, None)


def _extract(suite: bytes, salt: bytes, label: bytes, value: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + value, "sha256")


def _expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    # RFC 5869 2.3; nothing here is longer than one block of it.
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(secret, labeled + b"\x01", "sha256")[:length]


def framed(header: bytes, raw: bytes) -> bytes:
    """What is sealed."""
    return len(header).to_bytes(4, "big") + header + raw


def sealed(plaintext: bytes, ephemeral: bytes, key: bytes = _KEY) -> bytes:
    """An object around anything at all."""
    return b"DRN1" + key_id(key) + hpke(key, ephemeral, b"drain sealed v1" + key_id(key), plaintext)


def name(to: str, raw: bytes, token: str | None) -> str:
    """The object's key in the bucket."""
    text = to.encode() + b"\n" + raw
    if token is None:
        return f"pending/{hashlib.sha256(text).hexdigest()}"
    return f"pending/{hmac.new(token.encode(), text, 'sha256').hexdigest()}"


def raw_of(case: Case) -> bytes:
    """The message of a case."""
    raw = case["raw"]
    return bytes.fromhex(raw) if isinstance(raw, str) else bytes.fromhex(raw["repeat"]) * raw["times"]


def _good() -> Iterator[Case]:
    yield _sealed_case("an ordinary mail", RAW)
    yield _sealed_case("an ordinary mail, with a token", RAW, token=TOKEN)
    yield _sealed_case("a token with letters that are not ASCII", RAW, token="Schlüssel-鍵-🔑")
    yield _sealed_case("a bounce: the sender is empty", RAW, sender="", token=TOKEN)
    yield _sealed_case("nobody said who handed it to Cloudflare", RAW, ip=None)
    yield _sealed_case("handed over by IPv6", RAW, ip="2001:db8::7")
    yield _sealed_case("addresses that are not ASCII", RAW, to="grüße@münchen.example", sender="用户@例子.example")
    yield _sealed_case("addresses with upper case, which stays", RAW, to="Alice+News@EXAMPLE.test", token=TOKEN)
    yield _sealed_case("the mail of one byte", b"x")
    yield _sealed_case("NUL, and every other byte", b"Subject: bytes\r\n\r\n" + bytes(range(256)))
    yield _sealed_case("8-bit text that is not UTF-8", b"Subject: gr\xfc\xdfe\r\n\r\n\xe4\xf6\xfc\r\n")
    yield _sealed_case("line ends that are bare LF", RAW.replace(b"\r\n", b"\n"))
    yield _sealed_case("line ends that are bare CR", RAW.replace(b"\r\n", b"\r"))
    yield _sealed_case("line ends of all kinds", b"A: b\n\r\n\r\n\rc\r\r\n\n")
    yield _sealed_case("no line end at the end", RAW.rstrip(b"\r\n"))
    yield _sealed_case("a byte order mark first", b"\xef\xbb\xbf" + RAW)
    yield _sealed_case("a message that looks like a sealed object", b"DRN1" + key_id(_KEY) + bytes(32) + RAW)
    yield _sealed_case("a message that looks like a header", framed(b'{"to": "mallory@example.net"}', RAW))
    yield _sealed_case(
        "a mail of 1 MiB", {"repeat": (b"Subject: x\n\n\x00\xff\r\n").hex(), "times": 2**16}, token=TOKEN
    )
    yield _header_case(
        "a header whose letters are escaped, blanks between",
        '{ "to" : "\\u0061lice@example.test",\n\t"from": "\\"b\\\\o\\/b\\"@example.net",'
        ' "received":"2026-03-02T10:00:00\\u005A", "ip": "192.0.2.7" }\r\n',
        "alice@example.test",
    )
    yield _header_case(
        "a header with a character beyond 16 bits, escaped as two",
        '{"to":"\\ud83d\\udd11@example.test","from":"","received":"2026-03-02T10:00:00Z","ip":null}',
        "🔑@example.test",
    )
    yield _header_case(
        "a header in another order, without ip, with fields of a later day",
        '{"later":{"a":[1,null]},"received":"2026-03-02T10:00:00Z","from":"bob@example.net","to":"alice@example.test"}',
        "alice@example.test",
    )
    yield _header_case(
        "no token here, whatever token is there",
        json.dumps({**_header("alice@example.test", "", "192.0.2.7"), "token": "of somebody"}),
        "alice@example.test",
    )


def _header(to: str, sender: str, ip: str | None) -> Case:
    return {"to": to, "from": sender, "received": "2026-03-02T10:00:00.000Z", "ip": ip}


def _sealed_case(
    description: str,
    raw: bytes | Case,
    *,
    to: str = "alice@example.test",
    sender: str = "bob@example.net",
    ip: str | None = "192.0.2.7",
    token: str | None = None,
) -> Case:
    header = _header(to, sender, ip) | ({} if token is None else {"token": token})
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
    return _header_case(description, text, to, raw, token)


def _header_case(description: str, header: str, to: str, raw: bytes | Case = RAW, token: str | None = None) -> Case:
    ephemeral = _ephemeral(description)
    case: Case = {
        "description": description,
        "key": _KEY.hex(),
        "ephemeral": ephemeral.hex(),
        "token": token,
        "header": header,
        "raw": raw.hex() if isinstance(raw, bytes) else raw,
    }
    message = raw_of(case)
    body = sealed(framed(header.encode(), message), ephemeral)
    case["name"] = name(to, message, token)
    if len(body) <= _LARGEST_IN_FULL:
        case["object"] = body.hex()
    else:
        case["object_sha256"] = hashlib.sha256(body).hexdigest()
    return case


def _ephemeral(description: str) -> bytes:
    return hashlib.sha256(b"ephemeral key of: " + description.encode()).digest()


def _bad() -> Iterator[Case]:
    body = _of(_header("alice@example.test", "bob@example.net", None))
    yield _bad_case("cut off by one byte", body[:-1], "damaged")
    yield _bad_case("cut off in the ciphertext", body[:100], "damaged")
    yield _bad_case("cut off in enc", body[:30], "damaged")
    yield _bad_case("cut off in the key id", body[:8], "damaged")
    yield _bad_case("cut off after the magic", body[:4], "damaged")
    yield _bad_case("one byte more", body + b"\x00", "damaged")
    for part, place in {
        "the magic": 0,
        "the key id": 4,
        "the key id's end": 11,
        "enc": 12,
        "enc's end, but for the bit that X25519 ignores": 43,
        "the ciphertext": 44,
        "the ciphertext's end": len(body) - 17,
        "the tag": len(body) - 16,
        "the tag's end": len(body) - 1,
    }.items():
        yield _bad_case(f"a bit changed in {part}", _flipped(body, place, 0x01), "damaged")
    yield _bad_case("the bit of enc changed that X25519 ignores", _flipped(body, 43, 0x80), "damaged")
    yield _bad_case("an enc of zeros, which shares a secret with nobody", body[:12] + bytes(32) + body[44:], "damaged")
    yield _bad_case("a version that is a letter", b"DRNq" + body[4:], "damaged")
    yield _bad_case("version 0", b"DRN0" + body[4:], "unknown-version")
    yield _bad_case("version 2", b"DRN2" + body[4:], "unknown-version")
    yield _bad_case("sealed for another key", sealed(framed(b"{}", RAW), _ephemeral("x"), _OTHER_KEY), "key-missing")
    header = json.dumps(_header("alice@example.test", "bob@example.net", None)).encode()
    for description, plaintext in {
        "nothing in it": b"",
        "a header length of three bytes": b"\x00\x00\x00",
        "a header length of 2³² - 1": b"\xff" * 4 + header + RAW,
        "a header length of one byte beyond the end": (len(header) + 1).to_bytes(4, "big") + header,
        "an empty header": framed(b"", RAW),
        "a header that is an array": framed(b"[]", RAW),
        "a header that is a string": framed(b'"to"', RAW),
        "a header that is null": framed(b"null", RAW),
        "a header that is cut off": framed(header[:-1], RAW),
        "a header with more behind it": framed(header + b"{}", RAW),
        "a header that is not UTF-8": framed(header.replace(b"alice", b"\xff\xfe"), RAW),
        "a header without to": framed(b'{"from": "", "received": "2026-03-02T10:00:00Z", "ip": null}', RAW),
        "a header whose to is a number": framed(header.replace(b'"alice@example.test"', b"5"), RAW),
        "a header whose to is half a character": framed(header.replace(b"alice", rb"\ud83d"), RAW),
    }.items():
        yield _bad_case(description, sealed(plaintext, _ephemeral(description)), "damaged")
    yield _bad_case("no message", sealed(framed(header, b""), _ephemeral("no message")), "empty")
    for description, token in {
        "another token than the Worker's": "another",
        "the token in upper case": TOKEN.upper(),
        "the beginning of the token": TOKEN[:-1],
        "the token and a blank": TOKEN + " ",
        "an empty token": "",
        "null for a token": None,
    }.items():
        other = _of({**_header("alice@example.test", "bob@example.net", None), "token": token})
        yield _bad_case(description, other, "wrong-token", TOKEN)
    yield _bad_case("no token, where one is wanted", body, "wrong-token", TOKEN)


def _of(header: Case) -> bytes:
    text = json.dumps(header)
    return sealed(framed(text.encode(), RAW), _ephemeral(text))


def _flipped(body: bytes, place: int, bits: int) -> bytes:
    return body[:place] + bytes([body[place] ^ bits]) + body[place + 1 :]


def _bad_case(description: str, body: bytes, reason: str, token: str | None = None) -> Case:
    return {
        "description": description,
        "key": _KEY.hex(),
        "token": token,
        "object": body.hex(),
        "reason": reason,
    }


def text() -> str:
    """What is in the file."""
    return json.dumps({"good": [*_good()], "bad": [*_bad()]}, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
