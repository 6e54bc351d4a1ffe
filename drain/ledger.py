"""The ledger: what has become of each mail. The states are explained in the package docstring.

SQLite in WAL mode with ``synchronous=FULL``: a commit that has returned is on
the disk. Two tables: ``mail``, one row a mail by identity, and ``object``, the
objects in ``pending/`` that are known to hold that mail (gone once moved).
"""

import datetime
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drain.bucket import ListedObject
from drain.errors import ConfigError, LedgerUnavailable
from drain.mail import Mail
from drain.state import Row, State

SCHEMA_VERSION = 1
_BUSY_TIMEOUT_SECONDS = 30
_PRUNE_EVERY_SECONDS = 86400


Version = tuple[str, str, str]  # key, ETag, last-modified
_SCHEMA = """
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
"""


_COLUMNS = ", ".join(Row.__dataclass_fields__)


class Ledger:
    """The open ledger. Calls may come from several threads; each commits before it returns.

    Every method raises `LedgerUnavailable` if the disk is full or the file is
    locked, and `ConfigError` if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                path.chmod(0o600)
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"The ledger {self._path} was written by a newer drain (schema {version}).",
                "Install that version again, or move the ledger away and rebuild it.",
            )
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        with self._lock:
            self._db.close()

    # -- reading --

    def find(self, identity: str) -> Row | None:
        """The row of a mail."""
        return self._one(f"SELECT {_COLUMNS} FROM mail WHERE identity = ?", identity)

    def find_by_object(self, version: ListedObject) -> Row | None:
        """The row of the mail that this very version of an object is known to hold."""
        columns = ", ".join(f"mail.{name}" for name in Row.__dataclass_fields__)
        return self._one(
            f"SELECT {columns} FROM object JOIN mail USING (identity) WHERE key = ? AND etag = ? AND last_modified = ?",
            *version_of(version),
        )

    def unfinished(self) -> dict[Version, str]:
        """Version to identity of every object whose mail is neither settled nor set aside, nor reported missing."""
        with self._translated(), self._lock:
            rows = self._db.execute(
                "SELECT key, etag, last_modified, identity FROM mail JOIN object USING (identity)"
                " WHERE state NOT IN ('settled', 'quarantined', 'discarded') AND missing_at IS NULL"
            )
            return {(key, etag, last_modified): identity for key, etag, last_modified, identity in rows}

    def counts(self) -> dict[State, int]:
        """How many mails there are in each state. Reads the whole table."""
        with self._translated(), self._lock:
            return {State(s): n for s, n in self._db.execute("SELECT state, count(*) FROM mail GROUP BY state")}

    # -- writing: each before the step that it guards --

    def link(self, version: ListedObject, mail: Mail) -> None:
        """Notes which mail an opened object holds, if its mail has a row."""
        with self._writing():
            self._link(version, mail.identity)
            self._db.execute(
                "UPDATE mail SET missing_at = NULL WHERE identity = ? AND missing_at IS NOT NULL", (mail.identity,)
            )

    def injecting(self, version: ListedObject, mail: Mail, mailbox: str, now: float) -> Row:
        """Before DATA."""
        with self._writing():
            self._put(mail, State.INJECTING, now)
            self._db.execute("UPDATE mail SET mailbox = ? WHERE identity = ?", (mailbox, mail.identity))
            self._link(version, mail.identity)
            row = self.find(mail.identity)
        assert row is not None
        return row

    def trying_again(self, identity: str, now: float) -> Row:
        """A row was found ``injecting``: how that try ended is not known, and another follows.

        Counted here and only here, so that a mail that came twice has a count
        that says why.
        """
        with self._writing():
            self._db.execute(
                "UPDATE mail SET state = 'deferred', reinjections = reinjections + 1, next_attempt_at = NULL,"
                " updated_at = ? WHERE identity = ?",
                (now, identity),
            )
            row = self.find(identity)
        assert row is not None
        return row

    def delivered(self, identity: str, words: str, now: float) -> None:
        """After the 250, before the move."""
        self._set(identity, State.DELIVERED, now, words=words)

    def settled(self, version: ListedObject, identity: str, now: float) -> None:
        """After the move to ``processed/``."""
        self._finish(version, identity, State.SETTLED, now)

    def deferred(
        self,
        version: ListedObject,
        mail: Mail,
        reason: str,
        words: str,
        next_attempt_at: float,
        now: float,
        *,
        undecided: bool = False,
    ) -> None:
        """After a refusal or failure before the final dot: nothing was sent."""
        with self._writing():
            self._put(mail, State.DEFERRED, now)
            self._link(version, mail.identity)
            self._failed(mail.identity, reason, words, next_attempt_at, now)
            if undecided:
                self._db.execute("UPDATE mail SET undecided = undecided + 1 WHERE identity = ?", (mail.identity,))

    def unknown(self, identity: str, words: str, next_attempt_at: float, now: float) -> None:
        """The connection broke between the final dot and its reply: stays ``injecting`` until then."""
        with self._writing():
            self._failed(identity, "no-reply", words, next_attempt_at, now)

    def setting_aside(self, version: ListedObject, mail: Mail, reason: str, words: str, now: float) -> None:
        """Before the move to ``quarantine/``."""
        with self._writing():
            self._put(mail, State.SETTING_ASIDE, now)
            self._link(version, mail.identity)
            self._failed(mail.identity, reason, words, None, now)

    def quarantined(self, version: ListedObject, identity: str, now: float) -> None:
        """After that move."""
        self._finish(version, identity, State.QUARANTINED, now)

    def found_moved(self, identity: str, now: float) -> None:
        """The object was found at the place where a crash, or another drain, had moved it."""
        with self._writing():
            row = self.find(identity)
            if row is not None:
                end = State.QUARANTINED if row.state is State.SETTING_ASIDE else State.SETTLED
                self._set(identity, end, now)
            self._db.execute("DELETE FROM object WHERE identity = ?", (identity,))

    def missing(self, identity: str, now: float) -> None:
        """The object is nowhere, and not by our doing."""
        with self._writing():
            self._db.execute("UPDATE mail SET missing_at = ? WHERE identity = ?", (now, identity))

    def adopt(self, identity: str, recipient: str, size: int, delivered_at: float, now: float) -> bool:
        """Takes over a mail found in ``processed/`` as settled; False if there is a row already."""
        with self._writing():
            done = self._db.execute(
                "INSERT INTO mail (identity, state, recipient, sender, size, reason, first_seen_at, updated_at)"
                " VALUES (?, 'settled', ?, '', ?, 'rebuilt', ?, ?) ON CONFLICT DO NOTHING",
                (identity, recipient, size, delivered_at, now),
            )
            return done.rowcount == 1

    def prune(self, before: float) -> int:
        """Forgets mails that were settled or discarded before then; how many."""
        with self._writing():
            done = self._db.execute(
                "DELETE FROM mail WHERE state IN ('settled', 'discarded') AND updated_at < ?", (before,)
            )
            self._db.execute(
                "DELETE FROM object WHERE NOT EXISTS (SELECT 1 FROM mail WHERE mail.identity = object.identity)"
            )
            return done.rowcount

    def prune_daily(self, before: float, now: float) -> int:
        """The same, at most once a day."""
        with self._writing():
            last = self._db.execute("SELECT value FROM note WHERE name = 'pruned_at'").fetchone()
            if last is not None and 0 <= now - float(last[0]) < _PRUNE_EVERY_SECONDS:
                return 0
            self._db.execute("INSERT OR REPLACE INTO note VALUES ('pruned_at', ?)", (str(now),))
            return self.prune(before)

    def is_key_proven(self, key: str, written_at: float) -> bool:
        """Whether the key of that name has opened an object that was written then or later."""
        with self._translated(), self._lock:
            found = self._db.execute("SELECT value FROM note WHERE name = ?", (f"key {key}",)).fetchone()
        return found is not None and written_at <= float(found[0])

    def key_proven(self, key: str, written_at: float) -> None:
        """Notes that the key of that name has opened an object that was written then."""
        if not self.is_key_proven(key, written_at):
            with self._writing():
                self._db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (f"key {key}", str(written_at)))

    def recipients(self) -> set[str]:
        """The envelope recipients of all mail that was delivered, in lower case."""
        with self._translated(), self._lock:
            rows = self._db.execute(
                "SELECT DISTINCT recipient FROM mail WHERE state IN ('delivered', 'settled')"
            ).fetchall()
        return {str(recipient).lower() for (recipient,) in rows if recipient}

    # -- below: SQL --

    def _one(self, sql: str, *parameters: str) -> Row | None:
        with self._translated(), self._lock:
            values = self._db.execute(sql, parameters).fetchone()
        if values is None:
            return None
        row = Row(*values)
        return Row(**{**row.__dict__, "state": State(row.state)})

    def _put(self, mail: Mail, state: State, now: float) -> None:
        """Makes or updates the row."""
        self._db.execute(
            "INSERT INTO mail (identity, state, recipient, sender, size, first_seen_at, updated_at)"
            " VALUES (:identity, :state, :recipient, :sender, :size, :now, :now)"
            " ON CONFLICT (identity) DO UPDATE SET"
            "  state = :state, next_attempt_at = NULL, missing_at = NULL, updated_at = :now",
            {
                "identity": mail.identity,
                "state": state,
                "recipient": _storable(mail.recipient),
                "sender": _storable(mail.sender),
                "size": len(mail.raw),
                "now": now,
            },
        )

    def _set(self, identity: str, state: State, now: float, words: str | None = None) -> None:
        with self._writing():
            self._db.execute(
                "UPDATE mail SET state = ?, updated_at = ?, words = coalesce(?, words), next_attempt_at = NULL,"
                " missing_at = NULL WHERE identity = ?",
                (state, now, words, identity),
            )

    def _failed(self, identity: str, reason: str, words: str, next_attempt_at: float | None, now: float) -> None:
        self._db.execute(
            "UPDATE mail SET reason = ?, words = ?, next_attempt_at = ?, attempts = attempts + 1, updated_at = ?"
            " WHERE identity = ?",
            (reason, words, next_attempt_at, now, identity),
        )

    def _link(self, version: ListedObject, identity: str) -> None:
        # Another mail's version under the same name stays noted: if that mail is not
        # finished it was overwritten, and its loss must come out.
        self._db.execute("DELETE FROM object WHERE key = ? AND identity = ?", (version.key, identity))
        self._db.execute("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?)", (*version_of(version), identity))

    def _finish(self, version: ListedObject, identity: str, state: State, now: float) -> None:
        with self._writing():
            self._set(identity, state, now)
            self._db.execute("DELETE FROM object WHERE key = ? AND identity = ?", (version.key, identity))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction; nested calls join it."""
        with self._translated(), self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
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


def version_of(version: ListedObject) -> Version:
    """What the ledger knows a version of an object by."""
    moment = version.last_modified.astimezone(datetime.UTC)
    return version.key, version.etag, moment.isoformat(timespec="milliseconds")


def _storable(address: str) -> str:
    """SQLite takes no lone surrogates."""
    return address.encode("utf-8", "backslashreplace").decode()
