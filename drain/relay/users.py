"""Who may log in to the relay: a file of names and scrypt hashes.

One user a line::

    name:$scrypt$ln=15,r=8,p=1$SALT$HASH:senders

The middle is the PHC string format (base64 without padding); ``ln`` is the binary
logarithm of N (RFC 7914). The senders, with commas, are as in ``ALLOWED_FROM``; a
user with none of its own may use all of ``ALLOWED_FROM``. The file is 0600; one
that others may read or write is not believed.

A password is bytes, compared as they are: a client that writes the same letters in
another Unicode form has another password. RFC 4616 asks for SASLprep here, which
most clients leave out too.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import shlex
import stat
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock

from drain.disk import replace
from drain.errors import ConfigError, Unavailable
from drain.places import address_patterns
from drain.text import clean

NAME_WORDS = "1 to 64 printable ASCII characters without blanks and colons, the first of them no #"
LONGEST_PASSWORD = 1024

_NAME = re.compile(r"(?!#)[!-9;-~]{1,64}")
_HASHED = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d)\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{43})")
# 32 MiB and 0.2 s on a small machine: OWASP's password storage cheat sheet has N=2^15, r=8 with p=3;
# p=1 is for a phone, and for `guard`, which lets nobody try often.
_LN, _R, _P = 15, 8, 1
_HASH_BYTES = 32
_SALT_BYTES = 16
# What a line may ask for: 128 * N * r bytes (RFC 7914), so many times over.
_MOST_MEMORY = 64 * 1024 * 1024
_MOST_PARALLEL = 4
_LARGEST_FILE = 1024 * 1024
_MOST_REMEMBERED = 256
_LOCK_WAIT_SECONDS = 10.0
_HEAD = "# Who may log in to drain's relay. Written by `drain relay user`, which keeps no other comments.\n"

# A file as it was when it was read: another means that it has to be read again.
_State = tuple[int, int, int, int]


@dataclass(frozen=True)
class _User:
    ln: int
    r: int
    p: int
    salt: bytes
    hashed: bytes
    senders: tuple[str, ...]

    def fits(self, password: bytes) -> bool:
        return hmac.compare_digest(_scrypt(password, self.salt, self.ln, self.r, self.p), self.hashed)

    def __str__(self) -> str:
        words = f"$scrypt$ln={self.ln},r={self.r},p={self.p}${_base64(self.salt)}${_base64(self.hashed)}"
        return f"{words}:{','.join(self.senders)}"


class Users:
    """The users in the file at *path*; calls may come from several threads.

    The file is read again when it has changed. While it is missing or wrong nobody
    logs in: each question raises.

    A password that was right is remembered until the file changes, so that a client
    that logs in for each mail does not cost an scrypt each time: by an HMAC with a key
    that only this process has, and never on the disk.
    """

    def __init__(self, path: Path, *, ln: int = _LN) -> None:
        """*ln* is the cost of the passwords that are added from now on."""
        self._path = path
        self._ln = ln
        self._lock = threading.Lock()
        self._read: tuple[_State, Mapping[str, _User]] | None = None
        self._key = secrets.token_bytes(32)
        self._remembered: dict[bytes, None] = {}

    def check(self, name: str, password: bytes) -> bool:
        """Whether this is the name of a user and the password is right.

        An unknown name takes as long as a wrong password.

        Raises:
            ConfigError: the file is missing or wrong.
        """
        users = self._users()
        if self._remembers(users, name, password):
            return True
        user = users.get(name)
        # Who is not there costs what the first who is there costs.
        asked = user or next(iter(users.values()), None) or _User(self._ln, _R, _P, bytes(16), bytes(32), ())
        sound = 0 < len(password) <= LONGEST_PASSWORD
        right = asked.fits(password if sound else b"-") and sound and user is not None
        if right:
            self._remember(users, name, password)
        return right

    def remembers(self, name: str, password: bytes) -> bool:
        """Whether this process has found exactly this to be right, since the file was last changed; costs nothing.

        Raises:
            ConfigError: the file is missing or wrong.
        """
        return self._remembers(self._users(), name, password)

    def senders(self, name: str) -> tuple[str, ...]:
        """The user's own senders, for `drain.places.matches`; () means all of ``ALLOWED_FROM``.

        Raises:
            ConfigError: the file is missing or wrong, or has no such user (any more).
        """
        user = self._users().get(name)
        if user is None:
            raise ConfigError(f"{self._path} has no user {clean(name)}.", "`drain relay user list` shows all.")
        return user.senders

    def names(self) -> tuple[str, ...]:
        """All users; () also where there is no file yet.

        Raises:
            ConfigError: the file is wrong.
        """
        return tuple(self._users()) if self._path.exists() else ()

    def add(self, name: str, password: bytes, senders: tuple[str, ...] = ()) -> bool:
        """Adds a user, or gives it this password and these senders; whether it was there.

        Raises:
            ConfigError: the name or password cannot be one, or the file is wrong or cannot be written.
            Unavailable: another process is writing it.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{clean(name)!r} cannot be the name of a user.", f"It has {NAME_WORDS}.")
        if not 0 < len(password) <= LONGEST_PASSWORD or b"\0" in password:
            raise ConfigError(f"A password has 1 to {LONGEST_PASSWORD} bytes, and no NUL among them.")
        salt = secrets.token_bytes(_SALT_BYTES)
        user = _User(self._ln, _R, _P, salt, _scrypt(password, salt, self._ln, _R, _P), senders)
        with self._changing() as users:
            was_there = name in users
            users[name] = user
        return was_there

    def remove(self, name: str) -> bool:
        """Removes a user; whether it was there.

        Raises:
            ConfigError: the file is wrong or cannot be written.
            Unavailable: another process is writing it.
        """
        with self._changing() as users:
            return users.pop(name, None) is not None

    def _users(self) -> Mapping[str, _User]:
        with self._lock:
            try:
                state = _state_of(self._path.stat())
            except OSError as error:
                self._read = None
                raise self._unreadable(error) from error
            if self._read is None or self._read[0] != state:
                # First forgotten, then read: what cannot be read lets nobody in.
                self._read = None
                self._remembered = {}
                self._read = self._load()
            return self._read[1]

    def _load(self) -> tuple[_State, Mapping[str, _User]]:
        try:
            # NONBLOCK: a pipe in its place must not hold us.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                about = os.fstat(descriptor)
                self._must_be_ours(about)
                content = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise self._unreadable(error) from error
        if len(content) > _LARGEST_FILE:
            raise ConfigError(f"{self._path} is larger than a list of users can be.")
        return _state_of(about), self._parsed(content)

    def _must_be_ours(self, about: os.stat_result) -> None:
        place = shlex.quote(str(self._path))
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(f"{self._path} is not a file.", "Set RELAY_USERS_FILE to one.")
        if about.st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"{self._path} belongs to another user.", f"chown {os.geteuid()} {place}")
        if stat.S_IMODE(about.st_mode) & 0o077:
            raise ConfigError(f"{self._path} can be read or written by other users.", f"chmod 600 {place}")

    def _parsed(self, content: bytes) -> Mapping[str, _User]:
        users: dict[str, _User] = {}
        for number, line in enumerate(content.decode("utf-8", "replace").split("\n"), 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                name, user = _user_in(line.removesuffix("\r"))
                if name in users:
                    raise ValueError("a name for the second time")
            except ValueError as error:
                raise ConfigError(
                    f"Line {number} of {self._path} is no user: {error}.",
                    "Until it is mended nobody can log in; `drain relay user add` writes such lines.",
                ) from None
            users[name] = user
        return users

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, _User]]:
        """The users, to be changed and then written, while no other process does the same."""
        lock = filelock.FileLock(f"{self._path}.lock", mode=0o600)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock.acquire(timeout=_LOCK_WAIT_SECONDS)
        except filelock.Timeout as error:
            raise Unavailable(f"Another process is changing {self._path}.", "Try again when it has ended.") from error
        except (OSError, NotImplementedError) as error:
            raise self._unwritable(error) from error
        try:
            users = dict(self._users()) if self._path.exists() else {}
            yield users
            lines = [_HEAD, *(f"{name}:{user}\n" for name, user in users.items())]
            self._replace("".join(lines).encode("ascii"))
        finally:
            lock.release()

    def _replace(self, content: bytes) -> None:
        """The whole of the file, or as it was: also if the machine stops."""
        try:
            replace(self._path, content)  # there is no other writer, since we have the lock
        except OSError as error:
            raise self._unwritable(error) from error

    def _unreadable(self, error: OSError) -> ConfigError:
        if isinstance(error, FileNotFoundError):
            return ConfigError(
                f"Nobody can log in to the relay: {self._path} is not there.", "`drain relay user add NAME` writes it."
            )
        return ConfigError(f"Nobody can log in to the relay: {self._path} cannot be read: {error.strerror}.")

    def _unwritable(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"{self._path} cannot be written: {error}.", "Set RELAY_USERS_FILE to a place that drain may write to."
        )

    def _remembers(self, users: Mapping[str, _User], name: str, password: bytes) -> bool:
        mark = self._mark(name, password)
        with self._lock:
            # Of another file than the one that was asked: nothing.
            return self._read is not None and self._read[1] is users and mark in self._remembered

    def _remember(self, users: Mapping[str, _User], name: str, password: bytes) -> None:
        with self._lock:
            if self._read is None or self._read[1] is not users:
                return  # it changed while scrypt was at work
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[self._mark(name, password)] = None

    def _mark(self, name: str, password: bytes) -> bytes:
        # Looking it up in a dict is no leak: who does not know the key cannot choose its bytes.
        return hmac.digest(self._key, name.encode("utf-8", "surrogatepass") + b"\0" + password, "sha256")


def _user_in(line: str) -> tuple[str, _User]:
    """The user in a line; `ValueError` says what is wrong with it."""
    fields = line.split(":")
    if len(fields) != 3:
        raise ValueError("it is not name:hash:senders")
    name, hashed, senders = fields
    if not _NAME.fullmatch(name):
        raise ValueError(f"a name has {NAME_WORDS}")
    found = _HASHED.fullmatch(hashed)
    if found is None:
        raise ValueError("its hash is not as in $scrypt$ln=15,r=8,p=1$SALT$HASH")
    ln, r, p = (int(found[place]) for place in (1, 2, 3))
    if not (1 <= ln <= 20 and r >= 1 and 1 <= p <= _MOST_PARALLEL and 128 * r << ln <= _MOST_MEMORY):
        raise ValueError(f"its hash asks for more than {_MOST_MEMORY >> 20} MiB, or for nothing")
    try:
        return name, _User(ln, r, p, _bytes(found[4]), _bytes(found[5]), address_patterns(senders))
    except binascii.Error:
        raise ValueError("its hash is not base64") from None


def _scrypt(password: bytes, salt: bytes, ln: int, r: int, p: int) -> bytes:
    # OpenSSL wants room for a little more than RFC 7914 does.
    return hashlib.scrypt(password, salt=salt, n=1 << ln, r=r, p=p, maxmem=2 * _MOST_MEMORY, dklen=_HASH_BYTES)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii").rstrip("=")


def _bytes(value: str) -> bytes:
    return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)


def _state_of(about: os.stat_result) -> _State:
    # ctime: also a chmod that makes it right is a change.
    return about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size
