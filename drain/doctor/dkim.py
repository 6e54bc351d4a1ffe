"""The public key that belongs to DKIM_KEY_FILE, as it stands in the DNS (RFC 6376 3.6.1)."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drain.doctor.finding import Finding
from drain.doctor.records import Answer, Resolver, State, txt
from drain.doctor.say import Say
from drain.errors import ConfigError
from drain.text import clean

_SAY = Say("dns")
_WEAK_BITS = 2048  # RFC 8301 3.2: signers SHOULD have that many


@dataclass(frozen=True)
class Dkim:
    """Who signs: ``public_key`` is DER (SubjectPublicKeyInfo); None where somebody else has the private one."""

    domain: str
    selector: str
    public_key: bytes | None = None

    @property
    def name(self) -> str:
        """Where its record stands."""
        return f"{self.selector}._domainkey.{self.domain}"


def public_key(path: Path) -> bytes:
    """The public key of a private one (PEM), as DER.

    Raises:
        ConfigError: the file cannot be read, or is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 (only where mail is signed)
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 (as above)
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise ConfigError(f"DKIM_KEY_FILE {path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"DKIM_KEY_FILE {path} is no private key.", "It wants PEM, without a password.") from error
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def tags(record: str) -> dict[str, str] | None:
    """A list of ``tag=value`` with semicolons between (RFC 6376 3.2); None if it is none."""
    found: dict[str, str] = {}
    for part in record.split(";"):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or not name or name in found:
            return None
        found[name] = value.strip()
    return found


def check(resolver: Resolver, dkim: Dkim) -> Iterator[Finding]:
    """What there is to say of its record."""
    answer = resolver.ask(dkim.name, "TXT")
    wanted = _wanted(dkim)
    if answer.state is State.NO_ANSWER:
        yield _SAY.unknown(f"The DKIM key {dkim.name} is not known: {answer.why}.")
    elif answer.nothing:
        yield _SAY.failure(f"There is no DKIM key {dkim.name}: {answer.state.value}.", wanted)
    elif len(answer.records) > 1:
        yield _SAY.failure(f"{dkim.name} has {len(answer.records)} TXT records, and may have one.", wanted)
    else:
        yield _judged(dkim, answer, wanted)


def _judged(dkim: Dkim, answer: Answer, wanted: str) -> Finding:
    found = tags(answer.records[0])
    if found is None or found.get("v", "DKIM1") != "DKIM1" or "p" not in found:
        return _SAY.failure(f"{dkim.name} is no DKIM key: {clean(answer.records[0], 100)}.", wanted)
    if not found["p"]:
        return _SAY.failure(f"The DKIM key {dkim.name} is revoked (p= is empty).", wanted)
    problem, bits = _key(found, dkim.public_key)
    if problem:
        return _SAY.failure(f"The DKIM key {dkim.name} {problem}.", wanted)
    if "y" in found.get("t", "").replace(" ", "").split(":"):
        return _SAY.warning(
            f"The DKIM key {dkim.name} is marked as a test (t=y): receivers need not believe it.", wanted
        )
    if 0 < bits < _WEAK_BITS:
        return _SAY.warning(
            f"The DKIM key {dkim.name} has {bits} bits, which is few.",
            f"Make one of {_WEAK_BITS} bits, under a selector of its own.",
        )
    same = " and belongs to DKIM_KEY_FILE" if dkim.public_key else ""
    return _SAY.ok(f"The DKIM key {dkim.name} is there{same}.")


def _key(found: dict[str, str], ours: bytes | None) -> tuple[str, int]:
    """What is wrong with the key of a record, "" for nothing; and its bits, 0 for none to count."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 (as above)
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415 (as above)
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 (as above)
        Encoding,
        PublicFormat,
        load_der_public_key,
    )

    kind = found.get("k", "rsa")
    services = found.get("s", "*").replace(" ", "").split(":")
    if not {"*", "email"} & set(services):
        return "is not for mail (s=)", 0
    try:
        data = base64.b64decode("".join(found["p"].split()), validate=True)
        if kind == "ed25519":
            return ("is of another kind than DKIM_KEY_FILE (k=ed25519)" if ours else ""), 0
        key = load_der_public_key(data)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        return "cannot be read: its p= is damaged", 0
    if kind != "rsa" or not isinstance(key, RSAPublicKey):
        return f"is of a kind that is not used (k={clean(kind, 40)})", 0
    if ours and key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != ours:
        return "is another than that of DKIM_KEY_FILE: no signature will be believed", 0
    return "", key.key_size


def _wanted(dkim: Dkim) -> str:
    if dkim.public_key is None:
        return f"Its provider shows the record for {dkim.name}."
    return txt(dkim.name, "v=DKIM1; k=rsa; p=" + base64.b64encode(dkim.public_key).decode("ascii"))
