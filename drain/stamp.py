"""``X-Drain-Id``: the one line that drain puts on top of a mail.

It is an HMAC of the mail's identity under a secret of this machine. Whoever has
the mailbox and the secret can say whether a mail is there; a sender can neither
forge the line nor tell from it who else got the same mail.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from drain.errors import ConfigError

HEADER = "X-Drain-Id"
NAME = "stamp.key"
_SECRET_BYTES = 32


class Stamp:
    """Makes the line; holds the secret."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def value(self, identity: str) -> str:
        """The line's value for a mail's identity: 64 hex digits."""
        return hmac.new(self._secret, identity.encode("ascii"), hashlib.sha256).hexdigest()

    def header(self, identity: str) -> bytes:
        """The whole line, with its CRLF."""
        return f"{HEADER}: {self.value(identity)}\r\n".encode("ascii")


def load(folder: Path) -> Stamp:
    """The stamp of this machine, from ``stamp.key`` in *folder*; made there (0600) the first time.

    To be called under the lock: two first times at once would make two secrets.

    Raises:
        ConfigError: the file can be neither read nor made, or is damaged.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = _read_or_make(path)
    except OSError as error:
        raise ConfigError(
            f"{path} can be neither read nor made: {error}.", "Set STATE_DIR to a folder that drain may write to."
        ) from error
    if len(secret) != _SECRET_BYTES:
        raise ConfigError(
            f"{path} has {len(secret)} bytes and should have {_SECRET_BYTES}.",
            "Move it away; a new one is made, and mail delivered so far keeps its old mark.",
        )
    return Stamp(secret)


def _read_or_make(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    # Written whole under another name and linked into place by rename, so that
    # a crash in between leaves no half secret.
    fresh = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_SECRET_BYTES))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    return path.read_bytes()
