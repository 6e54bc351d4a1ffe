"""Private keys: X25519 for sealed mail, RSA for Mailbridge's.

A key is a file of its own, PEM or DER (PKCS #8), as ``openssl genpkey`` and
``drain keygen`` make it. Its id is the first 8 bytes of the SHA-256 of the raw
public key (32 bytes); a sealed object names the id of the key that opens it.

`KeyRing` reads the files when it first needs them and again when one of them
has changed, so that a key put into place is used without a restart.
"""

import hashlib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drain.disk import create
from drain.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

KEY_ID_BYTES = 8
_LARGEST_KEY = 65536

# A file as it was when it was read: another means that it has to be read again.
State = tuple[tuple[int, int, int, int] | None, ...]


class KeyRing:
    """The keys in a few files. A file that holds none is no error before a key is missed."""

    def __init__(self, sealed: Sequence[Path], mailbridge: Path | None) -> None:
        self._sealed_files = tuple(sealed)
        self._mailbridge_file = mailbridge
        self._read: tuple[State, _Keys] | None = None

    @property
    def state(self) -> State:
        """Changes when a file does."""
        files = [*self._sealed_files, *([self._mailbridge_file] if self._mailbridge_file else [])]
        return tuple(_state_of(path) for path in files)

    @property
    def sealed(self) -> Mapping[bytes, "X25519PrivateKey"]:
        """X25519 keys by key id."""
        return self._keys().sealed

    @property
    def mailbridge(self) -> "RSAPrivateKey | None":
        """Mailbridge's key."""
        return self._keys().mailbridge

    def why_not_sealed(self) -> str:
        """In words, what there is to open sealed mail with."""
        if not self._sealed_files:
            return "PRIVATE_KEY_FILE is not set."
        keys = self._keys()
        there = ", ".join(key_id.hex() for key_id in keys.sealed)
        parts = [f"PRIVATE_KEY_FILE has {there}."] if there else []
        return " ".join([*parts, *keys.sealed_faults, "Put the private key of that id into PRIVATE_KEY_FILE."])

    def why_not_mailbridge(self) -> str:
        """In words, why there is no key for Mailbridge's objects; "" if there is one."""
        if self._mailbridge_file is None:
            return "MAILBRIDGE_PRIVATE_KEY_PATH is not set."
        return self._keys().mailbridge_fault

    def _keys(self) -> "_Keys":
        state = self.state
        if self._read is None or self._read[0] != state:
            self._read = state, self._load()
        return self._read[1]

    def _load(self) -> "_Keys":
        sealed, sealed_faults = {}, []
        for path in self._sealed_files:
            try:
                key = read_x25519(path)
            except ConfigError as error:
                sealed_faults.append(str(error))
            else:
                sealed[key_id(key)] = key
        mailbridge, mailbridge_fault = None, ""
        if self._mailbridge_file is not None:
            try:
                mailbridge = read_rsa(self._mailbridge_file)
            except ConfigError as error:
                mailbridge_fault = str(error)
        return _Keys(sealed, tuple(sealed_faults), mailbridge, mailbridge_fault)


@dataclass(frozen=True)
class _Keys:
    sealed: "Mapping[bytes, X25519PrivateKey]"
    sealed_faults: tuple[str, ...]
    mailbridge: "RSAPrivateKey | None"
    mailbridge_fault: str


def key_id(key: "X25519PrivateKey") -> bytes:
    """The 8 bytes by which a sealed object names its key."""
    return hashlib.sha256(key.public_key().public_bytes_raw()).digest()[:KEY_ID_BYTES]


def read_x25519(path: Path) -> "X25519PrivateKey":
    """The X25519 private key in a file.

    Raises:
        ConfigError: there is none, in words.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

    key = _read(path)
    if not isinstance(key, X25519PrivateKey):
        raise ConfigError(f"The key in {path} is not an X25519 key, as mail is sealed for.")
    return key


def read_rsa(path: Path) -> "RSAPrivateKey":
    """The RSA private key in a file.

    Raises:
        ConfigError: there is none, in words.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415

    key = _read(path)
    if not isinstance(key, RSAPrivateKey):
        raise ConfigError(f"The key in {path} is not an RSA key.")
    return key


def make(path: Path) -> tuple["X25519PrivateKey", Path]:
    """Makes a key pair: the private key at *path* (0600), the public one beside it; the key and that place.

    Raises:
        ConfigError: something is there already, or the place cannot be written to; then nothing is made.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

    if ":" in str(path):
        raise ConfigError(f"{path} has a colon in it, which stands between two keys in PRIVATE_KEY_FILE.")
    public_path = path.with_suffix(".pub.pem")
    for taken in (path, public_path):
        if taken.exists():
            raise _there_already(taken)
    key = X25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_new(path, private, 0o600)
    try:
        write_new(public_path, public_pem(key), 0o644)
    except ConfigError:
        path.unlink()  # nobody can have sealed for it yet
        raise
    return key, public_path


def pair_at(path: Path) -> tuple["X25519PrivateKey", Path]:
    """The key pair whose private key is at *path*; its public half is written where it is missing.

    Raises:
        ConfigError: the file holds no key, or the public key beside it is another's.
    """
    key, public_path = read_x25519(path), path.with_suffix(".pub.pem")
    if not public_path.exists():
        write_new(public_path, public_pem(key), 0o644)
    elif public_path.read_bytes() != public_pem(key):
        raise ConfigError(
            f"{public_path} is not the public half of {path}.", f"openssl pkey -in {path} -pubout writes that."
        )
    return key, public_path


def public_pem(key: "X25519PrivateKey") -> bytes:
    """The public half, as ``openssl pkey -pubout`` writes it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Writes a file that must not be there yet, and waits until it is on the disk; the whole of it or none.

    Raises:
        ConfigError: it is there, or cannot be written.
    """
    if path.exists():
        raise _there_already(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        create(path, content, mode)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}.") from error


def _there_already(path: Path) -> ConfigError:
    return ConfigError(f"{path} is there already, and is left as it is.", "Move it away if it is not in use.")


def _read(path: Path) -> object:
    # Here, since cryptography takes a while to load and a pass may have nothing sealed.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"The key {path} is not a file.")
        with path.open("rb") as file:
            content = file.read(_LARGEST_KEY)
    except OSError as error:
        raise ConfigError(f"The key {path} cannot be read: {error.strerror}.") from error
    load = serialization.load_pem_private_key if b"-----BEGIN" in content else serialization.load_der_private_key
    try:
        return load(content, None)
    except TypeError as error:  # cryptography's way to say that it wants a password
        hint = "drain has nobody to ask for it; `openssl pkey -in FILE -out NEWFILE` takes it away."
        raise ConfigError(f"The key {path} has a passphrase.", hint) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} holds no private key (PKCS #8, PEM or DER).") from error


def _state_of(path: Path) -> tuple[int, int, int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    # ctime: also a chown that lets us read it is a change.
    return about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size
