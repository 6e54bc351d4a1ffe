"""DKIM: that others can verify it, and that nothing can be added."""

import base64
import hashlib
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from drain import config
from drain.errors import ConfigError
from drain.relay.signing import Signer

MAIL = (
    b"Received: from localhost by home.mine.test (drain) with ESMTPA id q1;\r\n x\r\n"
    b"From: Alice\r\n <a@mine.test>\r\nTo: b@x.test,\r\n\tc@x.test\r\nSubject:  two  blanks \r\n"
    b"Date: x\r\nMessage-ID: <1@mine.test>\r\n\r\nHello  you \r\n\r\n.\r\n\r\n\r\n"
)
KEY = rsa.generate_private_key(65537, 1024)  # a small one is made quickly


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("key") / "dkim.pem", KEY)


@pytest.fixture(scope="module")
def signer(key_file: Path) -> Signer:
    return Signer("mine.test", "sel", key_file)


def written(path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *, password: bytes = b"") -> Path:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    path.chmod(0o600)
    return path


def verified(raw: bytes) -> bool:
    """By dkimpy, which asks a DNS of ours."""
    public = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    asked: list[str] = []

    def answer(name: bytes, timeout: float = 5) -> bytes:
        asked.append(name.decode())
        return record

    good = dkim.verify(raw, dnsfunc=answer)
    assert set(asked) <= {"sel._domainkey.mine.test."}
    return bool(good)


def tags(raw: bytes) -> dict[str, str]:
    assert raw.startswith(b"DKIM-Signature: ")
    value = re.split(rb"\r\n(?![ \t])", raw, maxsplit=1)[0].partition(b":")[2]
    found = {}
    for tag in re.sub(rb"\s+", b"", value).decode().split(";"):
        name, _, text = tag.partition("=")
        found[name] = text
    return found


def verified_by_hand(raw: bytes) -> None:
    """RFC 6376 3.4.2, 3.4.4, 3.7 written anew, with another library's RSA."""
    found = tags(raw)
    assert (found["a"], found["c"]) == ("rsa-sha256", "relaxed/relaxed")
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    relaxed = b"".join(line + b"\r\n" for line in lines)
    assert base64.b64decode(found["bh"]) == hashlib.sha256(relaxed).digest()
    fields = re.split(rb"\r\n(?![ \t])", head)
    below = fields[1:]
    hashed = b""
    for name in found["h"].split(":"):
        place = max(
            (n for n, field in enumerate(below) if field.lower().startswith(name.encode() + b":")), default=None
        )
        if place is not None:
            hashed += _relaxed(below.pop(place)) + b"\r\n"
    hashed += re.sub(rb"([; ]b=)[^;]*\Z", rb"\1", _relaxed(fields[0]))
    signature = base64.b64decode(found["b"])
    KEY.public_key().verify(signature, hashed, padding.PKCS1v15(), hashes.SHA256())


def _relaxed(field: bytes) -> bytes:
    name, _, value = field.partition(b":")
    return name.lower().rstrip() + b":" + re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip(b" ")


# -- signed --


@pytest.mark.parametrize(
    "raw",
    [
        MAIL,
        b"From: a@mine.test\r\n\r\n",
        b"From: a@mine.test\r\n\r\n\r\n\r\n",
        b"From: a@mine.test\r\n\r\nno line end",
        b"From: a@mine.test\r\n\r\n \t \r\n",
        b"From: a@mine.test\r\nTo: b@x.test\r\nTo: c@x.test\r\nX-Odd: \xff\r\n\r\n\xff\0\r\n",
        b"From: a@mine.test\r\nSubject:\r\n\r\n\r\n leading\r\n",
        "From: Jürg <a@mine.test>\r\nSubject: ü\r\n\r\nü\r\n".encode(),
        b"DKIM-Signature: v=1; a=rsa-sha256; d=other.test\r\nFrom: a@mine.test\r\n\r\nx\r\n",
    ],
    ids=lambda raw: repr(raw[-40:]),
)
def test_a_mail_is_signed_so_that_two_verifiers_agree(signer: Signer, raw: bytes) -> None:
    signed = signer.sign(raw, "mine.test")
    assert signed.endswith(raw)
    assert verified(signed)
    verified_by_hand(signed)


def test_the_signature_names_the_domain_and_neither_a_length_nor_an_end(signer: Signer) -> None:
    found = tags(signer.sign(MAIL, "mine.test"))
    assert (found["d"], found["s"], found["v"]) == ("mine.test", "sel", "1")
    assert not {"l", "x"} & set(found)
    assert found["h"].split(":") == [
        *("from", "from", "reply-to", "subject", "subject", "to", "to", "cc"),
        *("date", "date", "message-id", "message-id"),
    ]


@pytest.mark.parametrize(
    ("domain", "signs"),
    [
        ("mine.test", True),
        ("MINE.Test", True),
        ("sub.mine.test", True),
        ("xmine.test", False),
        ("test", False),
        ("other.test", False),
        ("mine.test.other.test", False),
        ("", False),
    ],
)
def test_a_mail_is_signed_for_the_domain_and_those_below(signer: Signer, domain: str, signs: bool) -> None:  # noqa: FBT001
    assert signer.signs_for(domain) is signs
    assert (signer.sign(MAIL, domain) == MAIL) is not signs


def test_a_signer_for_an_idn_signs_for_both_its_forms(key_file: Path) -> None:
    some = Signer("Bücher.test", "sel", key_file)
    assert some.signs_for("bücher.test")
    assert some.signs_for("xn--bcher-kva.test")
    assert tags(some.sign(MAIL, "bücher.test"))["d"] == "xn--bcher-kva.test"


@pytest.mark.parametrize("name", [b"From", b"To", b"Cc", b"Subject", b"Reply-To", b"Date", b"Message-ID"])
def test_nobody_can_add_a_field_that_is_shown(signer: Signer, name: bytes) -> None:
    signed = signer.sign(MAIL, "mine.test")
    assert verified(signed)
    head, _, body = signed.partition(b"\r\n\r\n")
    # A verifier takes the lowest first (RFC 6376 5.4.2); many mail programs show the highest.
    assert not verified(name + b": x\r\n" + signed)
    assert not verified(head + b"\r\n" + name + b": x\r\n\r\n" + body)


def test_what_servers_change_on_the_way_does_no_harm(signer: Signer) -> None:
    signed = signer.sign(MAIL, "mine.test")
    assert verified(b"Received: from home by smarthost; x\r\nReturn-Path: <a@mine.test>\r\n" + signed)
    assert verified(signed.replace(b"Hello  you \r\n", b"Hello you\r\n").replace(b"Subject:  two", b"Subject: two"))
    assert verified(signed.rstrip(b"\r\n") + b"\r\n")
    assert not verified(signed.replace(b"Hello", b"Hallo"))
    assert not verified(signed + b"more\r\n")


def test_fields_that_the_upstream_writes_anew_are_left_out(key_file: Path) -> None:
    some = Signer("mine.test", "sel", key_file, unsigned=frozenset({"Message-ID", "Date"}))
    signed = some.sign(MAIL, "mine.test")
    assert verified(
        signed.replace(b"Message-ID: <1@mine.test>", b"Message-ID: <ses@x>").replace(b"Date: x", b"Date: y")
    )


def test_many_fields_of_a_name_do_no_harm(signer: Signer) -> None:
    raw = b"From: a@mine.test\r\n" + b"To: b@x.test\r\n" * 10_000 + b"\r\n"
    begun = time.process_time()
    signed = signer.sign(raw, "mine.test")
    assert time.process_time() - begun < 1
    assert verified(signed)
    assert len(signed) - len(raw) < 2000


# -- sizes --


@pytest.mark.parametrize(
    "piece",
    [b"A" * 76 + b"\r\n", b" ", b"\r\n", b"ab ", b"x" + b" " * 190, b"\t\r\n", b"a\r\n"],
    ids=lambda piece: repr(piece[-5:]),
)
def test_a_large_mail_takes_neither_long_nor_much_memory(signer: Signer, piece: bytes) -> None:
    size = 8 * 1024 * 1024
    raw = MAIL[:-8] + piece * (size // len(piece)) + b"\r\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    signed = signer.sign(raw, "mine.test")
    assert time.process_time() - begun < 4
    # In KiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * size / 1024
    assert tags(signed)["c"].startswith("relaxed/")


@pytest.mark.parametrize("blanks", [b" " * 250 + b"x ", b"ab " * 600_000])
def test_a_body_of_blanks_is_signed_exactly(signer: Signer, blanks: bytes) -> None:
    signed = signer.sign(b"From: a@mine.test\r\n\r\n" + blanks + b"\r\n\r\n", "mine.test")
    assert tags(signed)["c"] == "relaxed/simple"
    if len(blanks) < 1000:  # dkimpy, verifying, takes it line by line
        assert verified(signed)
        assert not verified(signed.replace(b"  x", b" x"))
    body = signed.partition(b"\r\n\r\n")[2].rstrip(b"\r\n") + b"\r\n"
    assert base64.b64decode(tags(signed)["bh"]) == hashlib.sha256(body).digest()


def test_dkimpy_is_not_loaded_before_something_is_signed(key_file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from drain.relay.signing import Signer;"
        f"s = Signer('mine.test', 'sel', Path({str(key_file)!r})); s.sign(b'', 'other.test'); assert 'dkim' not in sys.modules;"
        "assert s.sign(b'From: a@mine.test\\r\\n\\r\\n', 'mine.test'); assert 'dkim' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


# -- settings --


def test_a_key_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    path = written(tmp_path / "key.pem", KEY)
    environ = {"DKIM_KEY_FILE": str(path), "DRAIN_ENV_FILE": "/dev/null"}
    assert config.load(environ, complete=False)[1] == []
    path.chmod(0o644)
    assert "chmod 600" in config.load(environ, complete=False)[1][0]


def test_a_key_in_the_old_form_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pem = KEY.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.write_bytes(pem.replace(b"\n", b"\r\n"))
    assert verified(Signer("mine.test", "sel", path).sign(MAIL, "mine.test"))


# Made once by `openssl genrsa 512`; the library at hand makes none so small.
_SMALL = """-----BEGIN PRIVATE KEY-----
MIIBVQIBADANBgkqhkiG9w0BAQEFAASCAT8wggE7AgEAAkEArQp/SWLx6FiBcX9j
6JHvtTutw65OBh4dHoWn/W3tmYbO15TyrjkC1Dc9suIJsVXndvV8ZM1mAEgmTZhj
3KRnFwIDAQABAkEAqkgmMiV4QFi4KORfgMH7zbDIskOY7FQ9+4czZSUEJ4rvHIbP
pAq8+dS9DjlPeyTy15ppQ9bPl7/MyUcZlm8qAQIhANjevKSy3DkAVAm9DHPw//F9
1IqAtUXBXPLunXRD5gNBAiEAzENJ+V92ojXAl+6Rlr/z+F5Yd3KAz7wGACDt//oC
TFcCIQDLST6bQ+2aoOwllMgvhiDkRYcNrUg+ctql/XYqndrmAQIgLsXtx4O7p7NF
UcUYY3u7AxGfkmKO6oK0oQzpUudN5WsCICaJie8ux88yGVipXNbbRoDaOWfxsZSH
bDCILCDlbKdM
-----END PRIVATE KEY-----
"""


@pytest.mark.parametrize(
    "content", ["", "nothing", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", _SMALL]
)
def test_what_is_no_key_of_use_is_said_at_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key.pem"
    path.write_text(content)
    with pytest.raises(ConfigError, match="DKIM_KEY_FILE"):
        Signer("mine.test", "sel", path)


def test_another_kind_of_key_and_one_with_a_passphrase_are_refused(tmp_path: Path) -> None:
    for path in (
        tmp_path / "missing.pem",
        tmp_path,
        written(tmp_path / "ec.pem", ec.generate_private_key(ec.SECP256R1())),
        written(tmp_path / "locked.pem", KEY, password=b"x"),
    ):
        with pytest.raises(ConfigError, match="DKIM_KEY_FILE wants a private RSA key"):
            Signer("mine.test", "sel", path)


@pytest.mark.parametrize("name", ["", "a b", "a;b", "x\r\ny", "-a", "a..b", "a.", "s\u00e9l", "a=b"])
def test_names_that_the_dns_does_not_have_are_refused(key_file: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="DKIM_SELECTOR"):
        Signer("mine.test", name, key_file)
    if name not in {"a.", "s\u00e9l"}:  # as a domain these have another form
        with pytest.raises(ConfigError, match="DKIM_DOMAIN"):
            Signer(name, "sel", key_file)
