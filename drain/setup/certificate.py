"""The certificate of a mail server on this machine, which drain pins (INJECT_TLS_CA_FILE).

Self-signed: whoever connects compares it with the copy that is beside drain.env.
"""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from drain.errors import ConfigError
from drain.setup.changes import File
from drain.setup.plan import Plan

_LASTS = datetime.timedelta(days=3652)
# A machine whose clock is not set yet, as a Pi's after it was switched on, must not find it too young.
_AGO = datetime.timedelta(days=365)
_ENOUGH = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, PEM; ``key`` is a secret."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Certificate(***)"

    def files(
        self, certificate: Path, key: Path, plan: Plan, key_mode: int = 0o600, key_owner: tuple[int, int] | None = None
    ) -> tuple[File, File, File]:
        """The files: for the server its *key* and *certificate*, and the copy that drain pins."""
        return (
            File(key, self.key, key_mode, key_owner, secret=True),
            File(certificate, self.certificate),
            File(plan.pinned, self.certificate, drains=True),
        )


def kept_or_made(certificate: Path, key: Path, hostname: str, now: datetime.datetime) -> Certificate:
    """The one that is there, if it belongs to its key and is good for 30 days more; else a new one.

    Raises:
        ConfigError: what is there cannot be read.
    """
    try:
        there = Certificate(certificate.read_bytes(), key.read_bytes())
    except FileNotFoundError:
        return made(hostname, now)
    except OSError as error:
        raise ConfigError(f"The mail server's certificate cannot be read: {error}.", "Run this as root.") from error
    return there if _good(there, hostname, now) else made(hostname, now)


def made(hostname: str, now: datetime.datetime) -> Certificate:
    """A new one: EC P-256, ten years, for *hostname* and for loopback under its usual names."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname)])
    names = [
        x509.DNSName(hostname),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _AGO)
        .not_valid_after(now + _LASTS)
        # No CA: its key vouches for nobody else.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, SHA256())
    )
    return Certificate(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _good(there: Certificate, hostname: str, now: datetime.datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(there.certificate)
        key = load_pem_private_key(there.key, None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return False
    public = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pair = certificate.public_key().public_bytes(*public) == key.public_key().public_bytes(*public)
    named = hostname in names.get_values_for_type(x509.DNSName)
    return pair and named and certificate.not_valid_after_utc - now > _ENOUGH
