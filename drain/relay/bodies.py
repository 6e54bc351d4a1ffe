"""The messages of the queue on the disk, each a file encrypted with AES-256-GCM.

The key is a file of its own, which by default does not lie beside them: who gets
hold of the state's folder, or of a backup of it, reads no mail.

A file is ``drain-relay-1`` and a line end, a nonce of 12 bytes, then ciphertext and
tag. The additional data are the same first line and the message's id, so that one
file cannot stand in for another.
"""

import base64
import binascii
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from drain.disk import private, sync_folder
from drain.errors import ConfigError, Unavailable

_FORMAT = b"drain-relay-1\n"
_NONCE_BYTES = 12
_KEY_BYTES = 32
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNFINISHED = ".new"
# More than SQLite's write-ahead log grows to, and some reports.
_SPARE_BYTES = 16 * 1024 * 1024


class DiskFull(Unavailable):
    """There is no room for another message."""


class BodyLost(Exception):
    """A message cannot be read back: it is gone, changed, or encrypted with another key."""


class Bodies:
    """The folder of messages. Calls may come from several threads, each for messages of its own."""

    def __init__(self, folder: Path, key_file: Path, key: AESGCM) -> None:
        self._folder = folder
        self._key_file = key_file
        self._key_state = _state_of(key_file)
        self._aead = key

    def put(self, name: str, raw: bytes, *, spare: bool = False) -> None:
        """Writes a message; it is on the disk when this returns.

        *spare*: what is left for sending what is there already may be used.

        Raises:
            DiskFull: there is no room.
            Unavailable: it cannot be written for another reason.
        """
        if _state_of(self._key_file) != self._key_state:
            raise Unavailable(
                f"RELAY_KEY_FILE {self._key_file} is not the one any more with which the relay began.",
                "Put it back, or start the relay again.",
            )
        nonce = secrets.token_bytes(_NONCE_BYTES)
        path, unfinished = self._folder / name, self._folder / f"{name}{_UNFINISHED}"
        try:
            try:
                if not spare:
                    _leave_room(self._folder, len(raw))
                with open(unfinished, "xb", opener=private) as file:
                    file.write(_FORMAT + nonce)
                    file.write(self._aead.encrypt(nonce, raw, _FORMAT + name.encode()))
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.rename(path)
                sync_folder(self._folder)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            kind = DiskFull if error.errno in _FULL else Unavailable
            raise kind(f"A mail cannot be written to {self._folder}: {error.strerror}.", "Is its disk full?") from error

    def get(self, name: str) -> bytes:
        """Reads a message.

        Raises:
            BodyLost: it cannot be had.
        """
        try:
            content = memoryview((self._folder / name).read_bytes())
        except OSError as error:
            raise BodyLost(f"The message {self._folder / name} cannot be read: {error.strerror}.") from error
        begin = len(_FORMAT) + _NONCE_BYTES
        if content[: len(_FORMAT)] != _FORMAT or len(content) < begin:
            raise BodyLost(f"The message {self._folder / name} is damaged.")
        try:
            return self._aead.decrypt(content[len(_FORMAT) : begin], content[begin:], _FORMAT + name.encode())
        except InvalidTag:
            raise BodyLost(
                f"The message {self._folder / name} cannot be decrypted: it is damaged, or RELAY_KEY_FILE is another one."
            ) from None

    def remove(self, name: str) -> None:
        """Deletes a message, if it is there. What cannot be deleted now is deleted at the next start."""
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError:
            pass

    def names(self) -> Iterator[str]:
        """The messages that are there, and what was left unfinished."""
        for path in self._folder.iterdir():
            yield path.name


def is_unfinished(name: str) -> bool:
    """Whether a name in the folder is one of a message that was being written."""
    return name.endswith(_UNFINISHED)


def opened(folder: Path, key_file: Path, *, make_key: bool) -> Bodies:
    """The messages in *folder*, which is made if it is not there; so is the key, with *make_key*, as long as there is no message.

    Without it, and without a key, there are no messages that could be read.

    Raises:
        ConfigError: the key is missing while there are messages, or is none; or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not key_file.exists() and not any(folder.iterdir()):
            if not make_key:
                return Bodies(folder, key_file, AESGCM(secrets.token_bytes(_KEY_BYTES)))
            _make_key(key_file)
        text = key_file.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(
            f"RELAY_KEY_FILE {key_file} is gone, and the mails in {folder} are encrypted with it.",
            "Put it back. Without it they are lost; to begin anew, move that folder away.",
        ) from error
    except OSError as error:
        raise ConfigError(f"RELAY_KEY_FILE {key_file} or {folder} cannot be used: {error}.") from error
    try:
        key = base64.b64decode(text.strip(), validate=True)
        if len(key) != _KEY_BYTES:
            raise ValueError
    except (binascii.Error, ValueError):
        raise ConfigError(f"RELAY_KEY_FILE {key_file} holds no key.", "It is 32 bytes in base64.") from None
    return Bodies(folder, key_file, AESGCM(key))


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{_UNFINISHED}")
    try:
        with open(unfinished, "xb", opener=private) as file:
            file.write(base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename it takes nobody else's key away.
            os.link(unfinished, path)
        except FileExistsError:
            pass
        except OSError:  # no hard links here (Android's shared storage)
            unfinished.rename(path)
        sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _leave_room(folder: Path, size: int) -> None:
    """Raises ENOSPC where too little would be left to send what is there: that writes too, and so do the passes."""
    disk = os.statvfs(folder)
    spare = min(_SPARE_BYTES, disk.f_blocks * disk.f_frsize // 8)
    if disk.f_bavail * disk.f_frsize < size + spare:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _state_of(path: Path) -> tuple[int, int, int]:
    """Another one means another file; zeros if there is none."""
    try:
        about = path.stat()
    except OSError:
        return 0, 0, 0
    return about.st_ino, about.st_mtime_ns, about.st_size
