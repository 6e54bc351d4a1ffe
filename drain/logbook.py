"""What drain did, over time, and what the person was told of it: a file beside the ledger.

Not in the ledger: a pass that finds nothing, or another drain at work, is noted
too, and needs no lock for it; and nothing here is worth stopping for. What is lost
with it is the memory of alerts, and the curves of `drain status`.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from drain.database import Database, Schema

_STEPS = (
    """
CREATE TABLE pass (
    at       REAL PRIMARY KEY,               -- Unix time, of its end
    seconds  REAL NOT NULL,
    listed   INTEGER NOT NULL,               -- objects under pending/ when it began
    pending  INTEGER,                        -- and when it ended; NULL if that is not known
    oldest_at REAL,                          -- when the oldest of these was written; NULL for none
    outcomes TEXT NOT NULL,                  -- JSON: how many came to which outcome
    trouble  TEXT NOT NULL,                  -- what ended it early, in words; "" for nothing
    kind     TEXT NOT NULL                   -- the kind of alert that this trouble belongs to; ""
);
CREATE TABLE alert (
    kind     TEXT NOT NULL,
    subject  TEXT NOT NULL,                  -- which filter, which key; "" where there is only one
    words    TEXT NOT NULL,
    over_words TEXT NOT NULL DEFAULT '',     -- what is said once it is over
    count    INTEGER NOT NULL,
    oldest_at REAL,                          -- Unix time
    since    REAL NOT NULL,                  -- when it was first so
    clear_since REAL,                        -- when it was last seen not to be so any more; NULL: it is so
    told_at  REAL,                           -- when the person was last told that it is so; NULL: not yet
    seen_at  REAL NOT NULL DEFAULT 0,        -- when it was last seen to be so
    rested   INTEGER NOT NULL DEFAULT 0,     -- 1: a long time after the look before that
    relapses INTEGER NOT NULL DEFAULT 0,     -- how often it began again soon after it was over
    over_at  REAL,                           -- when it was over; NULL: it is on
    PRIMARY KEY (kind, subject)
) WITHOUT ROWID;
CREATE TABLE outbox (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    outlet   TEXT NOT NULL,
    kind     TEXT NOT NULL,
    subject  TEXT NOT NULL,
    alert    TEXT NOT NULL,                  -- JSON
    at       REAL NOT NULL,
    tries    INTEGER NOT NULL DEFAULT 0,
    next_try_at REAL NOT NULL,
    UNIQUE (outlet, kind, subject)
);
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
""",
)

LOGBOOK = Schema(
    name="The logbook",
    steps=_STEPS,
    if_newer="Install that version again, or delete the logbook: it is about the past only.",
    if_damaged="Delete it: it is about the past only.",
)
NAME = "logbook.db"
# Shorter than the ledger's: signals and the watchdog wait for it.
_BUSY_TIMEOUT_SECONDS = 2.0
_KEPT_SECONDS = 100 * 86400.0


@dataclass(frozen=True)
class Pass:
    """What one pass came to; times are Unix times."""

    at: float
    seconds: float
    listed: int
    pending: int | None
    oldest_at: float | None
    outcomes: Mapping[str, int]
    trouble: str
    kind: str


class Logbook:
    """The open logbook, in memory without *path*; calls may come from several threads. Raises what `Database` raises."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.database = Database(path, LOGBOOK, busy_timeout_seconds=_BUSY_TIMEOUT_SECONDS)

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        self.database.close()

    @contextlib.contextmanager
    def again(self) -> Iterator["Logbook"]:
        """The same one, for somebody who outlives this."""
        if self._path is None:
            yield self
            return
        with contextlib.closing(Logbook(self._path)) as logbook:
            yield logbook

    def enter(self, one: Pass) -> None:
        """Notes a pass."""
        values = (one.at, one.seconds, one.listed, one.pending, one.oldest_at, json.dumps(dict(one.outcomes)))
        with self.database.writing() as db:
            db.execute("INSERT OR REPLACE INTO pass VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, one.trouble, one.kind))

    def passes(self, since: float) -> list[Pass]:
        """Those since then, in order."""
        columns = ", ".join(Pass.__dataclass_fields__)
        with self.database.reading() as db:
            rows = db.execute(f"SELECT {columns} FROM pass WHERE at >= ? ORDER BY at", (since,)).fetchall()
        return [
            Pass(at, seconds, listed, pending, oldest_at, json.loads(outcomes), trouble, kind)
            for at, seconds, listed, pending, oldest_at, outcomes, trouble, kind in rows
        ]

    def last_good_at(self) -> float | None:
        """When a pass last came to its end, or was last seen at work; None: not known."""
        with self.database.reading() as db:
            (at,) = db.execute("SELECT max(at) FROM pass WHERE trouble = ''").fetchone()
        working_at = self.note("working_at")
        return max(filter(None, (at, float(working_at or 0))), default=None)

    def prune(self, now: float) -> None:
        """Forgets what is long ago."""
        with self.database.writing() as db:
            db.execute("DELETE FROM pass WHERE at < ?", (now - _KEPT_SECONDS,))

    def note(self, name: str) -> str:
        """What is noted under a name; "" for nothing."""
        with self.database.reading() as db:
            found = db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found else ""

    def set_note(self, name: str, value: str) -> None:
        """Notes it."""
        with self.database.writing() as db:
            db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, value))
