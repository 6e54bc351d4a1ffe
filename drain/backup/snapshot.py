"""Copies of SQLite's files that others have open."""

import contextlib
import sqlite3
import time
import urllib.parse
from pathlib import Path

from drain.errors import ConfigError, Unavailable

_LONGEST_SECONDS = 900.0
_BUSY_SECONDS = 10.0
# 1 MiB of the usual 4 KiB.
_PAGES_A_STEP = 256


def address(path: Path) -> str:
    """The file for SQLite, to be read only."""
    return f"file:{urllib.parse.quote(str(path.absolute()))}?mode=ro"


def take(source: Path, target: Path, longest_seconds: float = _LONGEST_SECONDS) -> None:
    """Copies the database as it is at one moment into a file of its own, and checks it.

    A copy in steps begins anew whenever another process writes
    (https://sqlite.org/c3ref/backup_finish.html), so under load it would never end.
    In WAL mode a reader may hold on to one state while others write, and the copy is
    made under such a one. Without WAL a reader holds up who writes: then all is
    copied in one step, which takes the least time.

    Raises:
        Unavailable: it cannot be read or copied just now, or not within that time.
        ConfigError: it is damaged.
    """
    until = time.monotonic() + longest_seconds

    def progress(_status: int, left: int, total: int) -> None:
        if time.monotonic() > until:
            raise TimeoutError(f"{left} of {total} pages were left after {longest_seconds:g} seconds")

    try:
        with (
            contextlib.closing(_opened(address(source))) as there,
            contextlib.closing(_opened(f"file:{urllib.parse.quote(str(target))}")) as copy,
        ):
            target.chmod(0o600)
            wal = there.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            if wal:
                there.execute("BEGIN")
            there.execute("SELECT count(*) FROM sqlite_master").fetchone()
            there.backup(copy, pages=_PAGES_A_STEP if wal else -1, progress=progress)
            copy.execute("PRAGMA journal_mode=DELETE")
            _check(copy, source)
    except (sqlite3.OperationalError, TimeoutError, OSError) as error:
        raise Unavailable(f"{source} cannot be copied just now: {error}.", "Try again.") from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{source} is damaged: {error}.") from error


def is_sound(path: Path) -> bool:
    """Whether what is there can be read from end to end as a database.

    Raises:
        Unavailable: it cannot be read just now.
    """
    try:
        with contextlib.closing(_opened(address(path))) as database:
            return bool(database.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{path} cannot be read just now: {error}.", "Try again.") from error
    except sqlite3.DatabaseError:
        return False


def _check(copy: sqlite3.Connection, source: Path) -> None:
    (first, *_) = copy.execute("PRAGMA integrity_check").fetchone()
    if first != "ok":
        raise ConfigError(f"{source} is damaged: {first}.")


def _opened(where: str) -> sqlite3.Connection:
    return sqlite3.connect(where, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
