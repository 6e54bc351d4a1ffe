"""A file of drain's: SQLite in WAL mode with ``synchronous=FULL``, and the versions of what is in it.

A commit that has returned is on the disk. The schema's version is ``user_version``;
an older file is brought up to date when it is opened, in one transaction, by the
steps that it lacks.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drain.errors import ConfigError, LedgerUnavailable

BUSY_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Schema:
    """What is in a file, and what its person is told of it.

    ``name`` begins a sentence ("The ledger"). ``steps`` are SQL: step N makes
    version N out of version N - 1, and what was released is never changed.
    ``if_newer`` and ``if_damaged`` say what to do then.
    """

    name: str
    steps: tuple[str, ...]
    if_newer: str
    if_damaged: str

    @property
    def version(self) -> int:
        """The one that this drain writes."""
        return len(self.steps)


class Database:
    """The open file, or one in memory without *path*. Calls may come from several threads.

    Not *writable*: it is read only, and neither made nor brought up to date.

    Every use raises `LedgerUnavailable` if the disk is full or the file is
    locked, and `ConfigError` if the file is damaged.
    """

    def __init__(
        self,
        path: Path | None,
        schema: Schema,
        *,
        writable: bool = True,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
    ) -> None:
        self._path = path
        self._schema = schema
        self._lock = threading.RLock()
        with self._translated():
            place = ":memory:"
            if path is not None:
                place = path.absolute().as_uri() + ("" if writable else "?mode=ro")
                if writable:
                    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sqlite = sqlite3.connect(
                place, timeout=busy_timeout_seconds, isolation_level=None, check_same_thread=False, uri=True
            )
            try:
                if path is not None and writable:
                    path.chmod(0o600)
                self._prepare(writable=writable)
            except BaseException:
                self._sqlite.close()
                raise

    def _prepare(self, *, writable: bool) -> None:
        if writable:
            self._sqlite.execute("PRAGMA journal_mode=WAL")
            self._sqlite.execute("PRAGMA synchronous=FULL")
        elif self._version() < self._schema.version:
            raise ConfigError(
                f"{self._schema.name} {self._path} was written by an older drain (schema {self._version()}).",
                "The next pass brings it up to date.",
            )
        if self._version() > self._schema.version:
            raise ConfigError(
                f"{self._schema.name} {self._path} was written by a newer drain (schema {self._version()}).",
                self._schema.if_newer,
            )
        if self._version() < self._schema.version:
            with self.writing():
                # Asked again: another process may have been faster.
                for step in self._schema.steps[self._version() :]:
                    for statement in _statements(step):
                        self._sqlite.execute(statement)
                self._sqlite.execute(f"PRAGMA user_version={self._schema.version}")

    def _version(self) -> int:
        return int(self._sqlite.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        with self._lock:
            self._sqlite.close()

    @property
    def in_transaction(self) -> bool:
        """Whether one is open."""
        return self._sqlite.in_transaction

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For queries; fetch what they give before the end."""
        with self._translated(), self._lock:
            yield self._sqlite

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on the disk when this ends; nested calls join it."""
        with self.reading() as sqlite:
            if sqlite.in_transaction:
                yield sqlite
                return
            sqlite.execute("BEGIN IMMEDIATE")
            try:
                yield sqlite
                sqlite.execute("COMMIT")
            except BaseException:
                if sqlite.in_transaction:
                    sqlite.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise LedgerUnavailable(
                f"{self._schema.name} {self._path} cannot be used just now: {error}.",
                "Check the disk's free space and who else has the file open.",
            ) from error
        except sqlite3.DatabaseError as error:
            message = f"{self._schema.name} {self._path} is damaged: {error}."
            raise ConfigError(message, self._schema.if_damaged) from error
        except OSError as error:
            raise ConfigError(
                f"{self._schema.name} {self._path} cannot be opened: {error}.",
                "Set STATE_DIR to a folder that drain may write to.",
            ) from error


def is_busy(error: BaseException) -> bool:
    """Whether an error that a `Database` raised is that somebody else has the file just now."""
    cause = error.__cause__
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorname", "").startswith("SQLITE_BUSY")


def _statements(step: str) -> list[str]:
    # executescript() would commit what is open first.
    return [statement for statement in step.split(";\n") if statement.strip()]


def version_of(path: Path) -> int:
    """The schema that a file of drain's has, whatever it is; 0 for one that is new, or none of SQLite's."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return int(database.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error:
        return 0
