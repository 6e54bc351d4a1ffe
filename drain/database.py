"""A file of drain's: SQLite in WAL mode with ``synchronous=FULL``, and the versions of what is in it.

A commit that has returned is on the disk. The schema's version is ``user_version``;
an older file is brought up to date when it is opened, in one transaction, by the
steps that it lacks.

Commits are grouped
===================

With ``synchronous=FULL`` in WAL mode a COMMIT is one fsync (sqlite.org/pragma.html), which
takes an SD card milliseconds. So threads that write at about the same time share one.
Blocks still run one after the other; who ends its block and sees another thread wait for
its turn leaves the transaction open and waits, and who sees nobody commits for all. A
thread alone meets nobody: it neither waits nor pays.

- A thread that is in a group waits for it, so a group has no more members than there
  are threads; and a member that has waited for long commits by itself. So nobody waits
  for ever, and no other process is kept out for longer than the threads' blocks take.
- A block that joins is a SAVEPOINT: if it raises, its own changes are undone and
  nobody else's. If the COMMIT fails, every member is told so, and nothing of the group
  is there. A process that is killed leaves nothing of it, and had told nobody.

Reads see what others of the group have written and is not on the disk yet. That could
hurt: the relay's queue deletes a body when no entry needs it, and were the end of the last
entry, seen but not committed, undone, a mail would wait without its body. So whoever reads
while a transaction is open is a member of its group: what it has read is on the disk when
its block ends, or the block ends with the error. Therefore a block does not act upon what
it reads before its end.
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
# Only for when the thread that was to commit did not come; else somebody commits much sooner.
_PATIENCE_SECONDS = 0.1


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


class _Group:
    """The threads that wait for one COMMIT, and how that ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: sqlite3.Error | None = None


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
        self._lock = threading.Lock()  # whose turn it is with the connection, and with these four
        self._holder: int | None = None
        self._writing = False
        self._open = False
        self._group: _Group | None = None
        self._counting = threading.Lock()
        self._waiting = 0  # threads that wait for their turn
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
        """Closes the file; safe to call twice, and not within a block."""
        with self._translated(), self._lock:
            if self._open:
                self._end()
            self._sqlite.close()

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is in a block that writes."""
        return self._writing and self._holder == threading.get_ident()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For queries; fetch what they give before the end."""
        with self._translated():
            if self._holder == threading.get_ident():
                yield self._sqlite
                return
            self._take_turn()
            try:
                yield self._sqlite
            finally:
                group = self._end_turn()
            if group is not None:
                self._await(group)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All of a block or nothing, on the disk when this ends; nested calls join it.

        Not to be begun within `reading`: what is written then is on the disk when that ends.
        """
        with self.reading() as sqlite:
            if self._writing:
                yield sqlite
                return
            if self._open and not sqlite.in_transaction:
                self._end(sqlite3.OperationalError("a read failed, and what was written before it with it"))
            joins = self._open
            sqlite.execute("SAVEPOINT block" if joins else "BEGIN IMMEDIATE")
            self._writing = self._open = True
            try:
                yield sqlite
                if joins:
                    sqlite.execute("RELEASE block")
            except BaseException:
                self._undo(joined=joins)
                raise
            finally:
                self._writing = False

    def _take_turn(self) -> None:
        if not self._lock.acquire(blocking=False):
            with self._counting:
                self._waiting += 1
            try:
                self._lock.acquire()
            finally:
                with self._counting:
                    self._waiting -= 1
        self._holder = threading.get_ident()

    def _end_turn(self) -> _Group | None:
        """Commits, if nobody waits who can do it as well; else gives the group to wait with."""
        self._holder = None
        try:
            if not self._open:
                return None
            if self._waiting:
                self._group = self._group or _Group()
                return self._group
            self._end()
            return None
        finally:
            self._lock.release()

    def _await(self, group: _Group) -> None:
        while not group.ended.wait(_PATIENCE_SECONDS):
            with self._lock:
                if self._group is group:
                    self._end()
        if group.error is not None:
            raise group.error

    def _undo(self, *, joined: bool) -> None:
        """What this block has written."""
        error = sqlite3.OperationalError("another write failed, and this one with it")
        if joined:
            try:
                self._sqlite.execute("ROLLBACK TO block")
                self._sqlite.execute("RELEASE block")
            except sqlite3.Error:
                pass  # SQLite has undone the whole transaction, as for some errors it does (lang_transaction.html)
            else:
                return
        self._end(error)

    def _end(self, error: sqlite3.Error | None = None) -> None:
        """COMMIT, for the whole group; with *error*, nothing of it. Raises what COMMIT raises."""
        group, self._group, self._open = self._group, None, False
        failed: sqlite3.Error | None = error or sqlite3.OperationalError("the commit was interrupted")
        try:
            if error is None:
                self._sqlite.execute("COMMIT")
                failed = None
        except sqlite3.Error as refused:
            failed = refused
            raise
        finally:
            if failed is not None:
                with contextlib.suppress(sqlite3.Error):
                    if self._sqlite.in_transaction:
                        self._sqlite.execute("ROLLBACK")
            if group is not None:
                group.error = failed
                group.ended.set()

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
