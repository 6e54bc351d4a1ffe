"""What happened to each mail, and when: beside its row, which says only how it is now."""

import hashlib
from dataclasses import dataclass

from drain.database import Database
from drain.header import Header

_LONGEST_WORDS = 500


@dataclass(frozen=True)
class Event:
    """One thing that happened to a mail, or the same several times in a row.

    ``what`` is a state's name, or ``again``, ``no-reply``, ``missing``, ``released``,
    ``replayed``. Times are Unix times, of the first and of the last.
    """

    what: str
    words: str
    at: float
    last_at: float
    times: int


class History:
    """The events of each mail, in the ledger's file; raises what `Database` raises."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def note(self, identity: str, what: str, words: str, now: float) -> None:
        """Writes one down; what is repeated is counted: a mail may be tried for weeks."""
        words = words.encode("utf-8", "backslashreplace").decode()[:_LONGEST_WORDS]
        with self._db.writing() as db:
            last = db.execute(
                "SELECT rowid, what, words FROM event WHERE identity = ? ORDER BY rowid DESC LIMIT 1", (identity,)
            ).fetchone()
            if last and last[1:] == (what, words):
                db.execute("UPDATE event SET times = times + 1, last_at = ? WHERE rowid = ?", (now, last[0]))
                return
            db.execute(
                "INSERT INTO event (identity, what, words, at, last_at) VALUES (?, ?, ?, ?, ?)",
                (identity, what, words, now, now),
            )

    def of(self, identity: str) -> list[Event]:
        """What happened to a mail, in order."""
        with self._db.reading() as db:
            rows = db.execute(
                "SELECT what, words, at, last_at, times FROM event WHERE identity = ? ORDER BY rowid", (identity,)
            ).fetchall()
        return [Event(*row) for row in rows]


def message_id_of(raw: bytes) -> str | None:
    """SHA-256, in hex, of a mail's Message-ID; None if it has none.

    Not the Message-ID: it is the sender's, and can hold anything.
    """
    found = Header.of(raw).get("Message-ID")
    return hashed(found) if found else None


def hashed(message_id: str) -> str:
    """What a Message-ID is known by, with or without its angle brackets."""
    return hashlib.sha256(message_id.strip().strip("<>").encode("utf-8", "surrogatepass")).hexdigest()
