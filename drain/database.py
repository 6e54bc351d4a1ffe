"""The ledger's file: SQLite in WAL mode with ``synchronous=FULL``, and the versions of what is in it.

A commit that has returned is on the disk. The schema's version is ``user_version``;
an older file is brought up to date when it is opened, in one transaction, by the
steps that it lacks.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drain.errors import ConfigError, LedgerUnavailable

_BUSY_TIMEOUT_SECONDS = 30

# Step N makes version N out of version N - 1. What was released is never changed.
_STEPS = (
    """
CREATE TABLE mail (
    identity        TEXT PRIMARY KEY,
    state           TEXT NOT NULL,
    recipient       TEXT NOT NULL,           -- of the envelope; "" for none
    sender          TEXT NOT NULL,           -- of the envelope; "" for <>
    size            INTEGER NOT NULL,        -- bytes as fetched and opened
    mailbox         TEXT,                    -- the address that the server took
    reason          TEXT,                    -- short code of a deferral or quarantine
    words           TEXT,                    -- the same in words, often the server's
    attempts        INTEGER NOT NULL DEFAULT 0,
    undecided       INTEGER NOT NULL DEFAULT 0,  -- tries that the server failed without a verdict on the mail
    reinjections    INTEGER NOT NULL DEFAULT 0,  -- tries whose end was not known and that another followed
    next_attempt_at REAL,                    -- Unix time
    first_seen_at   REAL NOT NULL,
    updated_at      REAL NOT NULL,
    missing_at      REAL                     -- when its object was found gone without our doing
) WITHOUT ROWID;
CREATE INDEX mail_unfinished ON mail (state) WHERE state NOT IN ('settled', 'quarantined', 'discarded');
CREATE INDEX mail_settled ON mail (updated_at) WHERE state IN ('settled', 'discarded');
CREATE TABLE object (
    key           TEXT NOT NULL,
    etag          TEXT NOT NULL,
    last_modified TEXT NOT NULL,             -- ISO 8601, UTC, as LIST has it
    identity      TEXT NOT NULL,
    PRIMARY KEY (key, etag, last_modified)
) WITHOUT ROWID;
CREATE INDEX object_identity ON object (identity);
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
""",
    # released: 1 if a person did, and the filters are passed over.
    """
ALTER TABLE mail ADD COLUMN released INTEGER NOT NULL DEFAULT 0;
CREATE TABLE verdict (
    identity TEXT NOT NULL,
    filter   TEXT NOT NULL,
    settings TEXT NOT NULL,                  -- digest of the filter's settings; with others it is asked again
    score    REAL,
    action   TEXT NOT NULL,
    code     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    evidence TEXT NOT NULL,                  -- JSON, a list of strings
    at       REAL NOT NULL,
    PRIMARY KEY (identity, filter)
) WITHOUT ROWID;
""",
)
SCHEMA_VERSION = len(_STEPS)


class Database:
    """The open file. Calls may come from several threads.

    Every use raises `LedgerUnavailable` if the disk is full or the file is
    locked, and `ConfigError` if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sqlite = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                path.chmod(0o600)
                self._prepare()
            except BaseException:
                self._sqlite.close()
                raise

    def _prepare(self) -> None:
        self._sqlite.execute("PRAGMA journal_mode=WAL")
        self._sqlite.execute("PRAGMA synchronous=FULL")
        if self._version() > SCHEMA_VERSION:
            raise ConfigError(
                f"The ledger {self._path} was written by a newer drain (schema {self._version()}).",
                "Install that version again, or move the ledger away and rebuild it.",
            )
        if self._version() < SCHEMA_VERSION:
            with self.writing():
                # Asked again: another process may have been faster.
                for step in _STEPS[self._version() :]:
                    for statement in _statements(step):
                        self._sqlite.execute(statement)
                self._sqlite.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

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
                f"The ledger {self._path} cannot be used just now: {error}.",
                "Check the disk's free space and who else has the file open.",
            ) from error
        except sqlite3.DatabaseError as error:
            message = f"The ledger {self._path} is damaged: {error}."
            raise ConfigError(
                message, "Move it away and run `drain ledger rebuild`, or mail delivered before may come again."
            ) from error
        except OSError as error:
            raise ConfigError(
                f"The ledger {self._path} cannot be opened: {error}.",
                "Set STATE_DIR to a folder that drain may write to.",
            ) from error


def _statements(step: str) -> list[str]:
    # executescript() would commit what is open first.
    return [statement for statement in step.split(";\n") if statement.strip()]
