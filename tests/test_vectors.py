"""The vectors of sealed v1: what made them, and what drain makes of them."""

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from drain.errors import KeyMissing, NotMail
from drain.keys import KeyRing
from drain.opener import Opener
from drain.setting import Secret
from tests.sealing import key_files
from tests.vectors import make

VECTORS = json.loads(make.FILE.read_text("utf-8"))


def opener_for(case: make.Case, folder: Path) -> Opener:
    """An opener with the key and the token of a case."""
    files = key_files(folder, X25519PrivateKey.from_private_bytes(bytes.fromhex(case["key"])))
    token = case["token"]
    return Opener(KeyRing(files, None), () if token is None else (Secret(token),))


def object_of(case: make.Case) -> bytes:
    """The object of a case, made anew where the file has its digest alone."""
    if "object" in case:
        return bytes.fromhex(case["object"])
    plaintext = make.framed(case["header"].encode(), make.raw_of(case))
    body = make.sealed(plaintext, bytes.fromhex(case["ephemeral"]), bytes.fromhex(case["key"]))
    assert hashlib.sha256(body).hexdigest() == case["object_sha256"]
    return body


def test_the_file_is_what_its_maker_makes() -> None:
    assert make.FILE.read_text("utf-8") == make.text()


def test_each_case_is_there_once() -> None:
    cases = [case["description"] for kind in ("good", "bad") for case in VECTORS[kind]]
    assert len(set(cases)) == len(cases) > 50
    assert len({case["ephemeral"] for case in VECTORS["good"]}) == len(VECTORS["good"])


@pytest.mark.parametrize("case", VECTORS["good"], ids=lambda case: case["description"])
def test_every_good_object_opens_with_the_header_and_the_bytes_that_were_sealed(
    case: make.Case, tmp_path: Path
) -> None:
    opened = opener_for(case, tmp_path).open(object_of(case), {"to": "somebody@else.test"})
    header = json.loads(case["header"])
    assert opened.mail.raw == make.raw_of(case)
    assert (opened.mail.recipient, opened.mail.sender) == (header["to"], header["from"])
    assert (opened.received, opened.ip) == (header["received"], header.get("ip") or "")
    assert case["name"] == make.name(header["to"], opened.mail.raw, case["token"])


@pytest.mark.parametrize("case", VECTORS["bad"], ids=lambda case: case["description"])
def test_every_bad_object_has_its_reason(case: make.Case, tmp_path: Path) -> None:
    opener = opener_for(case, tmp_path)
    for metadata in ({}, {"to": "alice@example.test"}):
        with pytest.raises((NotMail, KeyMissing)) as caught:
            opener.open(bytes.fromhex(case["object"]), metadata)
        found = caught.value.reason if isinstance(caught.value, NotMail) else "key-missing"
        assert found == case["reason"]
