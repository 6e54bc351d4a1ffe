"""What two ledgers and the bucket know of each mail, as one."""

import contextlib
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from drain.backup import snapshot
from drain.backup.standin import Opened
from drain.database import Database
from drain.state import State

_TRIED = "('deferred', 'injecting')"
_DELIVERED = "('delivered', 'settled')"
_COLUMNS = "SELECT name FROM pragma_table_info(?)"
_WORDS = "when a backup was restored."

# A try says less than a delivery, whichever was noted later; but a person may want one more (`released`).
_CHOSEN = f"""
INSERT INTO chosen
SELECT b.identity, NOT EXISTS (SELECT 1 FROM main.event WHERE event.identity = b.identity)
FROM backup.mail AS b LEFT JOIN main.mail AS m ON m.identity = b.identity
WHERE m.identity IS NULL OR CASE
    WHEN b.state IN {_DELIVERED} AND m.state IN {_TRIED} AND NOT m.released THEN 1
    WHEN m.state IN {_DELIVERED} AND b.state IN {_TRIED} AND NOT b.released THEN 0
    ELSE b.updated_at > m.updated_at END
"""
_TAKE = (
    "DELETE FROM main.object WHERE identity IN (SELECT identity FROM chosen)",
    "INSERT OR REPLACE INTO main.mail SELECT * FROM backup.mail WHERE identity IN (SELECT identity FROM chosen)",
    "INSERT OR IGNORE INTO main.object SELECT * FROM backup.object WHERE identity IN (SELECT identity FROM chosen)",
    (
        "INSERT INTO main.event SELECT * FROM backup.event"
        " WHERE identity IN (SELECT identity FROM chosen WHERE no_events) ORDER BY rowid"
    ),
    "INSERT OR IGNORE INTO main.verdict SELECT * FROM backup.verdict WHERE identity IN (SELECT identity FROM chosen)",
    "INSERT OR IGNORE INTO main.note SELECT * FROM backup.note",
    # Where its object has lain since, nobody here knows: as `delivered` it would be missed.
    "UPDATE main.mail SET state = 'settled' WHERE state = 'delivered' AND identity IN (SELECT identity FROM chosen)",
)
# What moved on since, by where it lies: the state that it is in, and whose.
_MOVED = (
    (
        "settled",
        "Found among what is delivered",
        (
            "identity IN (SELECT identity FROM processed.mail) AND state != 'settled'"
            f" AND (identity IN (SELECT identity FROM chosen) OR state IN {_TRIED} AND NOT released)"
        ),
    ),
    (
        "quarantined",
        "Found in quarantine",
        (
            "identity IN (SELECT identity FROM chosen) AND identity IN (SELECT identity FROM aside)"
            f" AND (state = 'setting_aside' OR state IN {_TRIED} AND NOT released)"
        ),
    ),
)


@dataclass(frozen=True)
class Merged:
    """How many mails the ledger has now, came from the backup, were found in the bucket only, or had moved on since."""

    known: int
    from_backup: int
    from_bucket: int
    moved_on: int


def merge(opened: Opened, backup: Path, processed: Path, aside: Collection[str], now: float) -> Merged:
    """Adds to the ledger what a backup knows, as `drain.backup` says; in one transaction.

    *processed* is a ledger of what lies under ``processed/``, *aside* are the identities
    of what lies under ``quarantine/``. All three have the schema of now.

    Raises:
        LedgerUnavailable, ConfigError: as `Database` does; nothing is changed then.
    """
    database = opened.database
    with database.reading() as db:
        db.execute("ATTACH ? AS backup", (str(backup),))
        db.execute("ATTACH ? AS processed", (str(processed),))
    try:
        with database.writing() as db:
            db.execute("CREATE TEMP TABLE chosen (identity TEXT PRIMARY KEY, no_events INTEGER) WITHOUT ROWID")
            db.execute("CREATE TEMP TABLE aside (identity TEXT PRIMARY KEY) WITHOUT ROWID")
            db.executemany("INSERT OR IGNORE INTO aside VALUES (?)", [(identity,) for identity in aside])
            from_backup = db.execute(_CHOSEN).rowcount
            for statement in _TAKE:
                db.execute(statement)
            moved_on = 0
            for state, words, whose in _MOVED:
                values = {"state": state, "words": f"{words} {_WORDS}", "now": now}
                db.execute(
                    "INSERT INTO main.event (identity, what, words, at, last_at)"
                    f" SELECT identity, :state, :words, :now, :now FROM main.mail WHERE {whose}",
                    values,
                )
                moved_on += db.execute(
                    "UPDATE main.mail SET state = :state, words = :words, next_attempt_at = NULL, missing_at = NULL,"
                    f" updated_at = :now WHERE {whose}",
                    values,
                ).rowcount
            db.execute(
                "DELETE FROM main.object WHERE identity IN (SELECT identity FROM main.mail"
                " WHERE state IN ('settled', 'quarantined', 'discarded'))"
            )
            from_bucket = db.execute("INSERT OR IGNORE INTO main.mail SELECT * FROM processed.mail").rowcount
            (known,) = db.execute("SELECT count(*) FROM main.mail").fetchone()
            db.execute("DROP TABLE chosen")
            db.execute("DROP TABLE aside")
    finally:
        with database.reading() as db:
            db.execute("DETACH backup")
            db.execute("DETACH processed")
    return Merged(known, from_backup, from_bucket, moved_on)


def salvage(database: Database, damaged: Path) -> int:
    """Takes over into an empty ledger what can still be read of a damaged one; how many mails."""
    with (
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(sqlite3.connect(snapshot.address(damaged), uri=True)) as old,
    ):
        for table, key in (("mail", "identity"), ("object", "key")):
            there = {name for (name,) in old.execute(_COLUMNS, (table,))}
            if not there:
                continue
            with database.writing() as db:
                names = [name for (name,) in db.execute(_COLUMNS, (table,)) if name in there]
                rows = _readable(old, f"SELECT {', '.join(names)} FROM {table} ORDER BY {key}")
                marks = ", ".join("?" * len(names))
                db.executemany(f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)
    states = ", ".join(f"'{state}'" for state in State)
    with database.writing() as db:
        db.execute(
            f"DELETE FROM mail WHERE state NOT IN ({states}) OR length(identity) != 64"
            " OR typeof(updated_at) != 'real' OR typeof(first_seen_at) != 'real'"
        )
        db.execute("DELETE FROM object WHERE identity NOT IN (SELECT identity FROM mail)")
        return int(db.execute("SELECT count(*) FROM mail").fetchone()[0])


def _readable(db: sqlite3.Connection, query: str) -> list[tuple[object, ...]]:
    """The rows, from both ends up to what is damaged."""
    rows: list[tuple[object, ...]] = []
    for direction in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.DatabaseError):
            rows.extend(db.execute(f"{query} {direction}"))
    return rows
