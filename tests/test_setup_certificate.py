"""The certificate that drain pins."""

import datetime
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from drain.errors import ConfigError
from drain.login import Server, verified
from drain.setting import Secret
from drain.setup import certificate, plan as planning
from drain.setup.certificate import Certificate

NAME = "mail.home.arpa"
NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)


def kept_or_made(folder: Path, now: datetime.datetime = NOW, name: str = NAME) -> Certificate:
    return certificate.kept_or_made(folder / "cert.pem", folder / "key.pem", name, now)


def lay(folder: Path, made: Certificate) -> Certificate:
    (folder / "cert.pem").write_bytes(made.certificate)
    (folder / "key.pem").write_bytes(made.key)
    return made


def test_it_is_of_p_256_good_for_ten_years_and_vouches_for_nobody_else(tmp_path: Path) -> None:
    made = x509.load_pem_x509_certificate(kept_or_made(tmp_path).certificate)
    key = made.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert made.not_valid_after_utc - NOW >= datetime.timedelta(days=3650)
    assert made.not_valid_before_utc < NOW - datetime.timedelta(days=300)
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_it_is_kept_until_it_is_good_for_less_than_30_days(tmp_path: Path) -> None:
    made = lay(tmp_path, kept_or_made(tmp_path))
    ends = x509.load_pem_x509_certificate(made.certificate).not_valid_after_utc
    assert kept_or_made(tmp_path, ends - datetime.timedelta(days=31)) == made
    assert kept_or_made(tmp_path, ends - datetime.timedelta(days=29)) != made


def test_one_that_does_not_belong_to_its_key_or_has_another_name_or_is_none_is_made_anew(tmp_path: Path) -> None:
    made = lay(tmp_path, kept_or_made(tmp_path))
    assert kept_or_made(tmp_path, name="other.test") != made
    (tmp_path / "key.pem").write_bytes(certificate.made(NAME, NOW).key)
    assert kept_or_made(tmp_path).certificate != made.certificate
    (tmp_path / "key.pem").write_bytes(b"")
    assert kept_or_made(tmp_path).certificate != made.certificate
    (tmp_path / "key.pem").unlink()
    assert kept_or_made(tmp_path).certificate != made.certificate


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads all")
def test_one_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    lay(tmp_path, certificate.made(NAME, NOW))
    (tmp_path / "key.pem").chmod(0)
    with pytest.raises(ConfigError, match="cannot be read"):
        kept_or_made(tmp_path)


def test_its_copy_for_drain_is_drains(tmp_path: Path) -> None:
    plan = planning.make({"DRAIN_ENV_FILE": str(tmp_path / "drain.env"), "MAIL_DOMAIN": "example.test"})
    files = certificate.made(NAME, NOW).files(tmp_path / "cert.pem", tmp_path / "key.pem", plan)
    assert [file.path for file in files if file.drains] == [tmp_path / "mail-server.pem"]


def test_its_key_is_not_shown() -> None:
    assert repr(certificate.made(NAME, NOW)) == "Certificate(***)"


def test_drain_believes_it_and_no_other_of_the_same_name(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    made, other = lay(tmp_path, certificate.made(NAME, now)), certificate.made(NAME, now)
    assert _handshake(tmp_path, made)
    (tmp_path / "cert.pem").write_bytes(other.certificate)
    (tmp_path / "key.pem").write_bytes(other.key)
    assert not _handshake(tmp_path, made)


def _handshake(folder: Path, pinned: Certificate) -> bool:
    """Whether drain goes on with a server that has what is in *folder*."""
    (folder / "pinned.pem").write_bytes(pinned.certificate)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    ours.settimeout(10)
    context = verified(Server("127.0.0.1", 25, "drain", Secret("x"), "auto", str(folder / "pinned.pem")))
    try:
        context.wrap_socket(ours, server_hostname="127.0.0.1").close()
    except ssl.SSLCertVerificationError:
        return False
    finally:
        ours.close()
        thread.join(10)
    return True
