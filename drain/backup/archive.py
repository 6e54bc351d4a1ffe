"""The file: a tar, so that a person can look into it, with a manifest as its last member.

The manifest (JSON) says what else is in it, with size and SHA-256. Nothing is taken
out by the name or the kind that the tar gives it: what is asked for is copied to
where the caller says, and that is all.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from drain.answer import json_object
from drain.disk import private, sync_folder
from drain.errors import NoInput, Unavailable, Unusable

_MANIFEST = "manifest.json"
_FORMAT = "drain-backup-1"
_NAME = re.compile(r"(?:[a-z]{1,10}/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,100}")
_MOST_MEMBERS = 200_000
_LARGEST_MANIFEST = 64 * 1024 * 1024
_CHUNK = 1024 * 1024
_LATEST = 1e11  # a Unix time that dates can still be made of
# What reading a tar that was made to do harm can end in.
_TROUBLE = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError)


@contextlib.contextmanager
def in_a_sentence() -> Iterator[None]:
    """Raises Unavailable for what files could not do."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        hint = "Is there room, and may drain read and write there?"
        raise Unavailable(f"A file cannot be read or written: {error}.", hint) from error


@dataclass(frozen=True)
class Item:
    """One file in it: its name there, its size in bytes, its SHA-256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What is in a backup, and of when.

    ``missing`` says in sentences what is not in it. ``key_ids`` are those of the keys
    that mail was sealed for, ``relay_key`` is that of the key that queued mails are
    encrypted with; "" for none.
    """

    drain: str
    made_at: float
    host: str
    items: tuple[Item, ...]
    missing: tuple[str, ...]
    key_ids: tuple[str, ...]
    relay_key: str


class Writer:
    """Adds files to the tar, and to what its manifest will say.

    Every method raises `Unusable` for what the reader would refuse.
    """

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._items: dict[str, Item] = {}
        self.missing: list[str] = []

    def add(self, name: str, path: Path) -> None:
        """Adds a file. Raises OSError: it cannot be read, or is no file."""
        with regular(path) as file:
            self._add(name, os.fstat(file.fileno()).st_size, file)

    def put(self, name: str, content: bytes) -> None:
        """Adds a file with that in it."""
        self._add(name, len(content), io.BytesIO(content))

    def _add(self, name: str, size: int, file: IO[bytes]) -> None:
        if not _NAME.fullmatch(name) or name in self._items or len(self._items) + 1 >= _MOST_MEMBERS:
            raise Unusable(f"A backup cannot hold {name!r} as its file number {len(self._items) + 1}.")
        digest = hashlib.sha256()
        self._tar.addfile(_member(name, size), _Hashed(file, digest))
        self._items[name] = Item(name, size, digest.hexdigest())

    def finish(self, *, drain: str, made_at: float, host: str, key_ids: tuple[str, ...], relay_key: str) -> Manifest:
        """Adds the manifest."""
        manifest = Manifest(drain, made_at, host, tuple(self._items.values()), tuple(self.missing), key_ids, relay_key)
        encoded = json.dumps({"format": _FORMAT, **dataclasses.asdict(manifest)}, indent=1).encode()
        if len(encoded) > _LARGEST_MANIFEST:
            raise Unusable(f"A backup cannot hold a manifest of {len(encoded)} bytes.")
        self._tar.addfile(_member(_MANIFEST, len(encoded)), io.BytesIO(encoded))
        return manifest


@contextlib.contextmanager
def writing(path: Path, scratch: Path) -> Iterator[Writer]:
    """A new archive, at *path* when the block has ended well, and else nowhere; made in the folder *scratch* beside it.

    Raises:
        Unusable: there is something already.
        Unavailable: it cannot be written, for instance for want of room.
    """
    unfinished = scratch / f"{os.getpid()}.tar"
    try:
        with open(unfinished, "xb", opener=private) as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
                yield Writer(tar)
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename it takes the place of nothing.
            os.link(unfinished, path)
        except FileExistsError:
            raise there_already(path) from None
        except OSError:  # no hard links here (Android's shared storage)
            if path.exists():
                raise there_already(path) from None
            unfinished.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error}.", "Is there room, and may drain write there?") from error


class Archive:
    """A backup, open, complete and undamaged."""

    def __init__(self, path: Path) -> None:
        """Reads all of it once.

        Raises:
            NoInput: there is no such file.
            Unusable: it is no backup, is damaged or cut short, or of a newer drain.
        """
        self._path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise Unusable(f"{path} is not a file.")
            self._tar = tarfile.open(path, mode="r:")  # noqa: SIM115 (closed by close)
        except FileNotFoundError:
            raise NoInput(f"There is no {path}.") from None
        except _TROUBLE as error:
            raise Unusable(f"{path} is no backup of drain's: {error}.") from error
        try:
            self._members = self._listed()
            self.manifest = self._manifest()
            self._check()
        except _TROUBLE as error:
            self.close()
            raise Unusable(f"{path} is damaged: {error}.") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._tar.close()

    @functools.cached_property
    def items(self) -> dict[str, Item]:
        """What is in it, by name."""
        return {item.name: item for item in self.manifest.items}

    def extract(self, name: str, to: Path) -> None:
        """Writes one file to that place (0600), over what was there; the whole of it or nothing.

        Raises:
            Unavailable: it cannot be written.
            Unusable: the backup was changed meanwhile.
        """
        unfinished = to.with_name(f"{to.name}.{os.getpid()}.new")
        try:
            to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            unfinished.unlink(missing_ok=True)
            with open(unfinished, "xb", opener=private) as file:
                if self._copy(name, file) != self.items[name].sha256:
                    raise Unusable(f"{self._path} was changed meanwhile.")
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(to)
            sync_folder(to.parent)
        except (tarfile.TarError, EOFError) as error:
            raise Unusable(f"{self._path} was changed meanwhile.") from error
        except OSError as error:
            raise Unavailable(
                f"{to} cannot be written: {error}.", "Is there room, and may drain write there?"
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)

    def is_at(self, name: str, path: Path) -> bool:
        """Whether this very file is at *path*."""
        item = self.items[name]
        try:
            if path.stat().st_size != item.size:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == item.sha256
        except OSError:
            return False

    def _listed(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        for member in self._tar:
            plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
            if not plain or not _NAME.fullmatch(member.name):
                raise ValueError(f"{member.name!r} does not belong there")
            if member.name in members or len(members) >= _MOST_MEMBERS:
                raise ValueError(f"{member.name!r} is one too many")
            members[member.name] = member
        return members

    def _manifest(self) -> Manifest:
        member = self._members.pop(_MANIFEST, None)
        if member is None or member.size > _LARGEST_MANIFEST:
            raise ValueError("it has no manifest, which comes last: is it the whole file?")
        encoded = io.BytesIO()
        self._copy_member(member, encoded)
        values = json_object(encoded.getvalue())
        if values.pop("format", None) != _FORMAT:
            raise ValueError("its manifest is of a format that this drain does not know; it may be of a newer one")
        try:
            return _manifest(values)
        except (TypeError, KeyError):
            raise ValueError("its manifest is not what it should be") from None

    def _check(self) -> None:
        items = self.items
        if len(items) != len(self.manifest.items) or items.keys() != self._members.keys():
            raise ValueError("it does not hold what its manifest says")
        for name, item in items.items():
            if self._members[name].size != item.size or self._copy(name, io.BytesIO(), keep=False) != item.sha256:
                raise ValueError(f"{name} is not what it was")

    def _copy(self, name: str, to: IO[bytes], *, keep: bool = True) -> str:
        return self._copy_member(self._members[name], to, keep=keep)

    def _copy_member(self, member: tarfile.TarInfo, to: IO[bytes], *, keep: bool = True) -> str:
        """Its SHA-256, in hex."""
        digest = hashlib.sha256()
        source = self._tar.extractfile(member)
        if source is None:
            raise ValueError(f"{member.name} is not a file")
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            if keep:
                to.write(chunk)
        return digest.hexdigest()


def regular(path: Path) -> IO[bytes]:
    """A file, to be read. Raises OSError: it cannot be, or is no file."""
    if not stat.S_ISREG(path.stat().st_mode):  # asked before: a pipe would have to be waited for
        raise OSError(f"{path} is not a file")
    return path.open("rb")


def there_already(path: Path) -> Unusable:
    """The error for a backup that would take the place of something."""
    return Unusable(f"{path} is there already, and is left as it is.", "Give a new name.")


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes], digest: Any) -> None:
        self._file = file
        self._digest = digest

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._digest.update(chunk)
        return chunk


def _manifest(values: dict[str, Any]) -> Manifest:
    """From JSON. Raises TypeError, KeyError or ValueError: it is not what it should be."""
    made_at = float(values["made_at"])
    if not 0 <= made_at < _LATEST:
        raise ValueError("its date is none")
    return Manifest(
        drain=_text(values["drain"]),
        made_at=made_at,
        host=_text(values["host"]),
        items=tuple(Item(_text(item["name"]), int(item["size"]), _text(item["sha256"])) for item in values["items"]),
        missing=tuple(_text(words) for words in values["missing"]),
        key_ids=tuple(_text(key_id) for key_id in values["key_ids"]),
        relay_key=_text(values["relay_key"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member
