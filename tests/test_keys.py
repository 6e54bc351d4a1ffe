import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_public_key,
)

from drain import keys
from drain.errors import ConfigError
from tests.sealing import KEY, key_files, other_rsa_key, pem, rsa_key


def test_a_new_key_is_readable_by_its_owner_alone_and_has_its_public_half_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new/drain-key.pem"
    key, public = keys.make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public == tmp_path / "new/drain-key.pub.pem"
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert load_pem_public_key(public.read_bytes()) == key.public_key()
    assert keys.key_id(keys.read_x25519(path)) == keys.key_id(key)


def test_openssl_reads_what_we_make_and_we_read_what_openssl_makes(tmp_path: Path) -> None:
    ours = tmp_path / "ours.pem"
    _, public = keys.make(ours)
    done = subprocess.run(["openssl", "pkey", "-in", ours, "-pubout"], capture_output=True, check=True, timeout=20)
    assert done.stdout == public.read_bytes()
    for form in ("PEM", "DER"):
        theirs = tmp_path / f"theirs.{form}"
        command = ["openssl", "genpkey", "-algorithm", "X25519", "-outform", form, "-out", theirs]
        subprocess.run(command, check=True, timeout=20)
        assert len(keys.key_id(keys.read_x25519(theirs))) == 8


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "drain-key.pem"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is there already"):
        keys.make(path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pair_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "drain-key.pem"
    (tmp_path / "drain-key.pub.pem").mkdir()
    with pytest.raises(ConfigError, match=r"pub\.pem is there already"):
        keys.make(path)
    assert not path.exists()
    with pytest.raises(ConfigError, match="has a colon in it"):
        keys.make(tmp_path / "a:b.pem")


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"drain-key\.pem cannot be written"):
        keys.make(tmp_path / "file/drain-key.pem")


def test_a_file_that_holds_no_usable_key_is_named_with_the_reason(tmp_path: Path) -> None:
    (rsa,) = key_files(tmp_path, rsa_key())
    locked = tmp_path / "locked.pem"
    locked.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
    public = tmp_path / "drain-key.pub.pem"
    keys.make(tmp_path / "drain-key.pem")
    for path, words in (
        (rsa, "is not an X25519 key"),
        (locked, "has a passphrase"),
        (garbage, "holds no private key"),
        (public, "holds no private key"),
        (tmp_path, "is not a file"),
        (Path("/dev/zero"), "is not a file"),
        (tmp_path / "nowhere.pem", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            keys.read_x25519(path)
        assert str(path) in str(caught.value)
        assert "secret" not in str(caught.value)
    (x25519,) = key_files(tmp_path, KEY)
    with pytest.raises(ConfigError, match="is not an RSA key"):
        keys.read_rsa(x25519)


def test_one_key_that_cannot_be_read_does_not_keep_the_others_from_use(tmp_path: Path) -> None:
    (good,) = key_files(tmp_path, KEY)
    ring = keys.KeyRing([tmp_path / "gone.pem", good], tmp_path / "gone-too.pem")
    assert list(ring.sealed) == [keys.key_id(KEY)]
    assert "gone.pem cannot be read" in ring.why_not_sealed()
    assert keys.key_id(KEY).hex() in ring.why_not_sealed()
    assert ring.mailbridge is None
    assert "gone-too.pem cannot be read" in ring.why_not_mailbridge()


def test_a_key_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rsa.pem"
    ring = keys.KeyRing([], path)
    assert ring.mailbridge is None
    path.write_bytes(pem(rsa_key()))
    assert ring.mailbridge is not None
    assert ring.why_not_mailbridge() == ""
    other = other_rsa_key()
    path.with_suffix(".new").write_bytes(pem(other))
    path.with_suffix(".new").rename(path)
    assert ring.mailbridge.private_numbers() == other.private_numbers()
