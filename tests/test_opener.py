import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from drain.errors import KeyMissing, NotMail
from drain.keys import KeyRing
from drain.opener import Kind, Opener
from tests import sealing
from tests.sealing import HEADER, KEY, OTHER_KEY, RAW, bridge, other_rsa_key, seal, seal_plaintext

INTEROP = Path(__file__).parent / "interop"
INSIDE = {
    "from": "bob@y.test",
    "to": "alice@example.test",
    "senderIp": None,
    "raw": "Subject: x\r\n\r\nü",
    "receivedAt": "t",
}
KEYLESS = Opener(KeyRing([], None))


@pytest.fixture(scope="module")
def opener(tmp_path_factory: pytest.TempPathFactory) -> Opener:
    return sealing.opener(tmp_path_factory.mktemp("keys"))


def reason(opener: Opener, body: bytes, metadata: dict[str, str] | None = None) -> str:
    """Why an object is no mail."""
    with pytest.raises(NotMail) as caught:
        opener.open(body, metadata or {})
    assert str(caught.value).endswith((".", "?")), "a sentence for a person"
    return caught.value.reason


# -- plain --


def test_a_plain_object_is_a_mail_with_the_envelope_beside_it(opener: Opener) -> None:
    opened = opener.open(b"Subject: x\n\n", {"to": "a@x.test", "from": "b@y.test", "subject": "x"})
    assert opened.kind is Kind.PLAIN
    assert (opened.mail.raw, opened.mail.recipient, opened.mail.sender) == (b"Subject: x\n\n", "a@x.test", "b@y.test")


@pytest.mark.parametrize("body", [b"Subject: x\n\n", b"From a Mon\nSubject: x\n", b"Fro :x\n"])
def test_what_begins_like_a_mail_is_one_without_an_envelope_too(opener: Opener, body: bytes) -> None:
    assert opener.open(body, {}).mail.recipient == ""


@pytest.mark.parametrize("body", [b"DRN", b"\x00\x01", b"\n\nbody", b"{}", b"just words\n", b" folded: x\n"])
def test_anything_else_without_an_envelope_is_no_mail(opener: Opener, body: bytes) -> None:
    """Else a damaged seal would be mailed to the catch-all."""
    assert reason(opener, body) == "not-mail"


def test_anything_with_an_envelope_is_a_mail(opener: Opener) -> None:
    assert opener.open(b"\n\nbody", {"to": "a@x.test"}).mail.raw == b"\n\nbody"


def test_an_empty_mail_is_none_in_any_kind_of_object(opener: Opener) -> None:
    for body in (b"", seal(b""), bridge({**INSIDE, "raw": ""})):
        assert reason(opener, body, {"to": "a@x.test"}) == "empty"


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (" a@x.test ", "a@x.test"),
        ("<a@x.test>", "a@x.test"),
        ("<>", ""),
        ("", ""),
        ("gr\u00c3\u00bc\u00c3\u009f@x.test", "grüß@x.test"),
        ("gr\u00fc@x.test", "grü@x.test"),
        (f"=?utf-8?B?{base64.b64encode('grüß@x.test'.encode()).decode()}?=", "grüß@x.test"),
        ("=?UTF-8?B?%%%?=", "=?UTF-8?B?%%%?="),
        ("=?UTF-8?B?/w==?=", ""),
    ],
)
def test_addresses_are_read_as_they_are_written(opener: Opener, value: str, address: str) -> None:
    assert opener.open(b"A: b\n", {"to": value}).mail.recipient == address


# -- sealed --


def test_a_sealed_object_holds_its_envelope(opener: Opener) -> None:
    opened = opener.open(seal(), {"to": "not@this.test"})
    assert (opened.kind, opened.mail.raw) == (Kind.SEALED, RAW)
    assert (opened.mail.recipient, opened.mail.sender) == ("alice@example.test", "bob@y.test")
    assert (opened.received, opened.ip) == ("2026-03-02T10:00:00Z", "192.0.2.7")


@pytest.mark.parametrize(
    "raw", [b"\x00\xff", b"no: end", b"a: b\n\nbare\rends\n", b"\xef\xbb\xbfBOM: x\r\n", bytes(range(256)) * 99]
)
def test_any_bytes_come_out_as_they_went_in(opener: Opener, raw: bytes) -> None:
    assert opener.open(seal(raw), {}).mail.raw == raw


def test_a_sealed_object_cut_off_anywhere_is_damaged(opener: Opener) -> None:
    body = seal()
    for length in range(1, len(body)):
        assert reason(opener, body[:length]) in {"damaged", "not-mail"}
        if length >= 4:
            assert reason(opener, body[:length]) == "damaged"


def test_a_sealed_object_with_any_bit_changed_is_damaged(opener: Opener) -> None:
    body = seal(b"A: b\n")
    for place in range(len(body)):
        for bit in range(8):
            changed = bytearray(body)
            changed[place] ^= 1 << bit
            assert reason(opener, bytes(changed)) in {"damaged", "unknown-version"}, (place, bit)


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\x00\x00\x00",
        b"\xff\xff\xff\xff{}" + RAW,
        b"\x00\x00\x00\x03{}",
        sealing.plaintext_of(b""),
        sealing.plaintext_of(b"{"),
        sealing.plaintext_of(b"[]"),
        sealing.plaintext_of(b"[" * 100_000),
        sealing.plaintext_of(b'{"to": 1' + b"0" * 10_000 + b"}"),
        sealing.plaintext_of(b'"to"'),
        sealing.plaintext_of(b"\xff\xfe"),
        sealing.plaintext_of({}),
        sealing.plaintext_of({**HEADER, "to": None}),
        sealing.plaintext_of({**HEADER, "from": 5}),
        sealing.plaintext_of({**HEADER, "received": []}),
        sealing.plaintext_of({**HEADER, "ip": {}}),
        sealing.plaintext_of({**HEADER, "token": True}),
        sealing.plaintext_of({**HEADER, "to": "\ud800@x.test"}),
    ],
)
def test_whoever_sealed_nonsense_finds_it_in_quarantine(opener: Opener, plaintext: bytes) -> None:
    """The public key is no secret, so what is inside can be anybody's work."""
    assert reason(opener, seal_plaintext(plaintext)) == "damaged"


def test_an_object_of_a_later_version_is_named_as_one(opener: Opener) -> None:
    assert reason(opener, b"DRN2" + seal()[4:]) == "unknown-version"
    assert reason(KEYLESS, b"DRN7 whatever") == "unknown-version"


def test_a_secret_shared_with_nobody_is_damage(opener: Opener) -> None:
    """An enc of low order gives zeros, which RFC 9180 7.1.4 wants refused."""
    body = seal()
    assert reason(opener, body[:12] + bytes(32) + body[44:]) == "damaged"


def test_a_seal_for_another_key_waits_whatever_is_beside_it(opener: Opener) -> None:
    for metadata in ({}, {"to": "a@x.test"}):
        with pytest.raises(KeyMissing, match=r"sealed for the key [0-9a-f]{16}.*PRIVATE_KEY_FILE has [0-9a-f]{16}"):
            opener.open(seal(key=OTHER_KEY), metadata)
        with pytest.raises(KeyMissing, match="PRIVATE_KEY_FILE is not set"):
            KEYLESS.open(seal(), metadata)


def test_of_several_keys_the_key_id_picks_one(tmp_path: Path) -> None:
    opener = Opener(KeyRing(sealing.key_files(tmp_path, OTHER_KEY, KEY), None))
    assert opener.open(seal(), {}).mail.raw == RAW
    assert opener.open(seal(key=OTHER_KEY), {}).mail.raw == RAW


def test_a_key_file_that_is_put_into_place_is_used_without_a_restart(tmp_path: Path) -> None:
    opener = Opener(KeyRing([tmp_path / "key-0.pem"], None))
    before = opener.state
    with pytest.raises(KeyMissing, match=r"key-0\.pem cannot be read"):
        opener.open(seal(), {})
    sealing.key_files(tmp_path, KEY)
    assert opener.state != before
    assert opener.open(seal(), {}).mail.raw == RAW


def test_a_header_larger_or_deeper_than_any_is_damaged(opener: Opener) -> None:
    """Two bytes of JSON become sixty of memory, and a deep one a crash where stacks are small."""
    for header in (
        b'{"x":[' + b"[]," * 400_000 + b"[]]}",
        b"[" * 9000,
        json.dumps({**HEADER, "x": "y" * 65536}).encode(),
    ):
        assert reason(opener, seal_plaintext(sealing.plaintext_of(header))) == "damaged"


# -- the token --


@pytest.mark.parametrize(
    ("token", "good"), [("old", True), ("new", True), ("", False), ("ol", False), (None, False), ("öld", False)]
)
def test_with_tokens_a_mail_has_to_hold_one_of_them(tmp_path: Path, token: str | None, good: bool) -> None:  # noqa: FBT001
    opener = sealing.opener(tmp_path, "new", "old")
    body = seal(header={"token": token})
    if good:
        assert opener.open(body, {}).mail.raw == RAW
    else:
        assert reason(opener, body) == "wrong-token"


def test_without_a_token_here_a_token_there_is_ignored(opener: Opener) -> None:
    assert opener.open(seal(header={"token": "x"}), {}).mail.raw == RAW


def test_where_mail_has_to_be_sealed_nothing_else_is_believed(tmp_path: Path) -> None:
    opener = sealing.opener(tmp_path, sealed_only=True)
    assert opener.open(seal(), {}).mail.raw == RAW
    assert reason(opener, RAW, {"to": "a@x.test"}) == "not-sealed"
    assert reason(opener, bridge(INSIDE)) == "not-sealed"
    assert reason(opener, b"ERN1" + seal()[4:]) == "damaged"


# -- Mailbridge --


def test_mailbridges_objects_hold_text_which_comes_out_as_utf8(opener: Opener) -> None:
    opened = opener.open(bridge(INSIDE), {})
    assert (opened.kind, opened.mail.raw) == (Kind.MAILBRIDGE, "Subject: x\r\n\r\nü".encode())
    assert (opened.mail.recipient, opened.mail.sender) == ("alice@example.test", "bob@y.test")
    assert len(opened.key) == 64


@pytest.mark.parametrize(
    ("outside", "why"),
    [
        ({"version": "v2"}, "unknown-version"),
        ({"version": None}, "damaged"),
        ({"version": 1}, "damaged"),
        ({"wrappedKey": None}, "damaged"),
        ({"iv": "not base64!"}, "damaged"),
        ({"iv": "ü"}, "damaged"),
        ({"iv": ""}, "damaged"),
        ({"ciphertext": ""}, "damaged"),
        ({"ciphertext": "AAAA"}, "damaged"),
        ({"algorithm": "none", "was": "RSA-OAEP-256+A256GCM"}, "unknown-version"),
        ({"algorithm": "none"}, "not-mail"),
    ],
)
def test_mailbridges_objects_that_are_malformed_are_no_mail(opener: Opener, outside: dict[str, Any], why: str) -> None:
    assert reason(opener, bridge(INSIDE, outside)) == why


@pytest.mark.parametrize(
    "inside",
    [b"", b"null", b"{", b"\xff", {}, {**INSIDE, "raw": None}, {**INSIDE, "to": 1}, {**INSIDE, "raw": "\ud800"}],
)
def test_what_mailbridge_never_wrote_is_no_mail(opener: Opener, inside: Any) -> None:
    assert reason(opener, bridge(inside)) == "damaged"


def test_mailbridges_objects_are_flat(opener: Opener) -> None:
    insides: list[Any] = [
        b'{"raw":[' + b"[]," * 400_000 + b"[]]}",
        {**INSIDE, "to": "x" * 70_000},
        {**INSIDE, "more": []},
    ]
    for inside in insides:
        assert reason(opener, bridge(inside)) == "damaged"
    assert reason(opener, bridge(INSIDE, {"more": {}})) == "damaged"
    with pytest.raises(NotMail) as caught:
        opener.open(bridge(INSIDE, {"version": "a" * 60_000}), {})
    assert len(str(caught.value)) < 200


def test_mailbridges_object_cut_off_anywhere_is_no_mail(opener: Opener) -> None:
    body = bridge(INSIDE)
    for length in range(1, len(body)):
        assert reason(opener, body[:length]) in {"damaged", "not-mail"}


def test_mailbridges_object_with_any_bit_changed_is_no_mail_or_its_key_is_in_doubt(opener: Opener) -> None:
    """A wrong key and a damaged one look alike; that is settled by what the key has opened (test_sweep)."""
    body = bridge(INSIDE)
    suspects = 0
    for place in range(len(body)):
        changed = bytearray(body)
        changed[place] ^= 1 << (place % 8)
        try:
            opener.open(bytes(changed), {})
        except NotMail:
            continue
        except KeyMissing as error:
            suspects += bool(error.suspect)
            continue
        raise AssertionError(f"opened with byte {place} changed")
    assert suspects > 100


def test_without_its_key_mailbridges_object_waits(opener: Opener) -> None:
    with pytest.raises(KeyMissing, match="MAILBRIDGE_PRIVATE_KEY_PATH is not set") as caught:
        KEYLESS.open(bridge(INSIDE), {})
    assert not caught.value.suspect
    with pytest.raises(KeyMissing, match="does not open it") as caught:
        opener.open(bridge(INSIDE, key=other_rsa_key()), {})
    assert caught.value.suspect


# -- what others made --


def test_objects_that_another_implementation_sealed_open_with_the_header_that_they_were_given() -> None:
    index = json.loads((INTEROP / "sealed/index.json").read_text())
    opener = Opener(KeyRing([INTEROP / "sealed/test-private-key.pkcs8.der"], None))
    assert len(index["objects"]) == 4
    for made in index["objects"]:
        opened = opener.open((INTEROP / "sealed" / made["file"]).read_bytes(), {})
        header = made["header"]
        assert opened.mail.raw == (INTEROP / made["raw"]).read_bytes()
        assert (opened.mail.recipient, opened.mail.sender) == (header["to"], header["from"])
        assert (opened.received, opened.ip) == (header["received"], header["ip"] or "")


def test_mailbridges_own_objects_open() -> None:
    opener = Opener(KeyRing([], INTEROP / "mailbridge/test-private-key.pkcs8.der"))
    raws = {path.read_bytes().decode("utf-8", "replace").encode() for path in (INTEROP / "raw").glob("*.eml")}
    opened = {opener.open(path.read_bytes(), {}).mail.raw for path in (INTEROP / "mailbridge").glob("*-?.json")}
    assert len(opened) == 5
    assert opened == raws


# -- anything --

BODIES = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda rest: b"DRN1" + rest),
    st.binary(max_size=200).map(seal_plaintext),
    st.binary(max_size=100).map(lambda header: seal_plaintext(sealing.plaintext_of(header))),
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: seal_plaintext(sealing.plaintext_of(value))),
    st.dictionaries(st.sampled_from(["version", "wrappedKey", "iv", "ciphertext"]), st.none() | st.text()).map(
        lambda outside: bridge(INSIDE, outside)
    ),
    st.dictionaries(st.sampled_from(["to", "from", "raw", "senderIp"]), st.none() | st.text() | st.integers()).map(
        bridge
    ),
)


@settings(deadline=None, max_examples=50)
@given(BODIES, st.dictionaries(st.sampled_from(["to", "from", "x"]), st.text(max_size=20)))
def test_no_object_makes_it_fail_in_another_way(opener: Opener, body: bytes, metadata: dict[str, str]) -> None:
    try:
        opened = opener.open(body, metadata)
    except (NotMail, KeyMissing):
        return
    assert opened.mail.raw
    assert len(opened.mail.identity) == 64


@settings(deadline=None, max_examples=30)
@given(st.binary(min_size=1), st.text(), st.text(), st.text(), st.none() | st.text())
def test_what_is_sealed_comes_out(
    opener: Opener, raw: bytes, to: str, sender: str, received: str, ip: str | None
) -> None:
    opened = opener.open(seal(raw, {"to": to, "from": sender, "received": received, "ip": ip}), {})
    assert (opened.mail.raw, opened.mail.recipient, opened.mail.sender) == (raw, to, sender)
