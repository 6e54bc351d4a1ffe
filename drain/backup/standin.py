"""A file of SQLite that is there, or another that takes its place where it is gone or damaged."""

import contextlib
import filecmp
import itertools
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drain.backup import snapshot
from drain.database import Database, Schema
from drain.disk import sync_folder
from drain.errors import Unavailable

_BESIDE = ("-wal", "-shm")
KEPT = ".before-restore"


@dataclass(frozen=True)
class Opened:
    """The database to write to; ``anew``: it was empty, and is not in its place yet."""

    database: Database
    anew: bool


@contextlib.contextmanager
def opened(path: Path, schema: Schema) -> Iterator[Opened]:
    """The file at *path*, or a new one that is put there when the block has ended well.

    What is damaged is kept beside as ``.before-restore``. At no moment is there
    nothing, or half of it: a pass that starts in between would begin a ledger of its own.

    Raises:
        Unavailable: it cannot be read just now, or there is no room.
        ConfigError: it was written by a newer drain.
    """
    if path.exists() and snapshot.is_sound(path):
        with contextlib.closing(Database(path, schema)) as database:
            yield Opened(database, anew=False)
        return
    new = path.with_name(f"{path.name}.new")
    try:
        for name in ("", *_BESIDE):
            _with(new, name).unlink(missing_ok=True)
        with contextlib.closing(Database(new, schema)) as database:
            yield Opened(database, anew=True)
        _place(new, path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error}.", "Is there room, and may drain write there?") from error


def numbered(path: Path, ending: str) -> Iterator[Path]:
    """Names beside *path* with that ending, one after the other."""
    for number in itertools.count(1):
        yield _with(path, ending + f".{number}" * (number > 1))


def _place(new: Path, path: Path) -> None:
    """Puts a database that nobody has open into its place; what is there is kept beside. Raises OSError."""
    _alone(new)
    there = [name for name in (*_BESIDE, "") if _with(path, name).exists()]
    kept = next(kept for kept in numbered(path, KEPT) if all(_free(kept, path, name) for name in there))
    for name in there:
        shutil.copy2(_with(path, name), _with(kept, name))
    # A log that is left of another file would be taken for this one's.
    for name in _BESIDE:
        _with(path, name).unlink(missing_ok=True)
    new.replace(path)
    sync_folder(path.parent)


def _free(kept: Path, path: Path, name: str) -> bool:
    """Whether nothing is lost if *path* is kept there; *name* is that of a log."""
    target = _with(kept, name)
    return not target.exists() or filecmp.cmp(target, _with(path, name), shallow=False)


def _alone(path: Path) -> None:
    """All of it in the one file, and on the disk."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _with(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}{ending}")
