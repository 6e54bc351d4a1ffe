"""What happened to each mail, and when: beside its row, which says only how it is now."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drain.database import Database
from drain.state import Row

_LONGEST_WORDS = 500
SHORTEST_ID = 4
_ID = re.compile("[0-9a-f]*")
_DIGEST = re.compile("[0-9a-f]{64}")
_AT_ONCE = 10_000
_COLUMNS = ", ".join((*Row.__dataclass_fields__, "stored_at", "message_id"))


@dataclass(frozen=True)
class Event:
    """One thing that happened to a mail, or the same several times in a row.

    ``what`` is a state's name, or ``again``, ``no-reply``, ``looked-for``, ``missing``, ``released``,
    ``replayed``, ``replay-refused``. Times are Unix times, of the first and of the last.
    """

    what: str
    words: str
    at: float
    last_at: float
    times: int


@dataclass(frozen=True)
class Record:
    """A mail as the ledger knows it: its row, and what only a person asks for.

    ``stored_at`` is when its object was written, by the edge's clock (Unix time),
    ``message_id`` the `hashed` Message-ID; both None where they are not known.
    """

    row: Row
    stored_at: float | None
    message_id: str | None


@dataclass(frozen=True)
class Search:
    """What is looked for; each that is given narrows it.

    ``id`` is the beginning of an identity, ``sender`` a part of the envelope's sender
    (``<>``: the empty one), ``to`` a part of its recipient or of the mailbox,
    ``message_id`` a Message-ID or its digest in hex. In addresses a to z are A to Z
    too. ``since`` and ``until`` are Unix times, of when it was first seen.
    """

    id: str = ""
    sender: str = ""
    to: str = ""
    message_id: str = ""
    since: float | None = None
    until: float | None = None

    @property
    def conditions(self) -> tuple[str, dict[str, str | float]]:
        """The same in SQL, and its parameters."""
        parts: list[str] = []
        values: dict[str, str | float] = {}

        def add(name: str, value: str | float, sql: str) -> None:
            parts.append(sql)
            values[name] = value

        if self.id:
            # A range of the primary key, which LIKE would not be; "g" follows every hex digit.
            add("id", self.id.lower(), "identity >= :id AND identity < :id || 'g'")
        if self.sender == "<>":
            parts.append("sender = ''")
        elif self.sender:
            add("sender", _anywhere(self.sender), "sender LIKE :sender ESCAPE '!'")
        if self.to:
            add("to", _anywhere(self.to), "(recipient LIKE :to ESCAPE '!' OR mailbox LIKE :to ESCAPE '!')")
        if self.message_id:
            given = self.message_id.strip()
            digest = given.lower() if _DIGEST.fullmatch(given.lower()) else hashed(given)
            add("message_id", digest, "message_id = :message_id")
        if self.since is not None:
            add("since", self.since, f"{self.order} >= :since")
        if self.until is not None:
            add("until", self.until, f"{self.order} < :until")
        return " AND ".join(parts) or "TRUE", values

    @property
    def order(self) -> str:
        """What is sorted by. For words, which no index has, the + makes SQLite read the rows as they lie: 15 times as fast."""
        return "+first_seen_at" if self.sender or self.to or self.message_id else "first_seen_at"


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

    def search(self, wanted: Search, limit: int) -> list[Record]:
        """The newest *limit* mails that fit, by when they were first seen; the newest comes last.

        By id or date alone that is a step into an index. For words every row is read:
        0.6 s for a million of them (500 MB) in memory.
        """
        conditions, values = wanted.conditions
        with self._db.reading() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM mail WHERE {conditions} ORDER BY {wanted.order} DESC, identity DESC LIMIT :limit",
                {**values, "limit": limit},
            ).fetchall()
        return [_record(values) for values in reversed(rows)]

    def meant(self, word: str, limit: int) -> list[Record]:
        """The mails, at most *limit*, that a person means by the beginning of an id, by a Message-ID, or by its digest."""
        begins_an_id = len(word) >= SHORTEST_ID and _ID.fullmatch(word.lower())
        found = self.search(Search(id=word), limit) if begins_an_id else []
        return found or (self.search(Search(message_id=word), limit) if word else [])

    def identities(self) -> Iterator[str]:
        """Of all mails, the last one seen first; read as they are taken."""
        place: tuple[float, str] | None = (float("inf"), "")
        while place is not None:
            with self._db.reading() as db:
                rows = db.execute(
                    "SELECT first_seen_at, identity FROM mail WHERE (first_seen_at, identity) < (?, ?)"
                    " ORDER BY first_seen_at DESC, identity DESC LIMIT ?",
                    (*place, _AT_ONCE),
                ).fetchall()
            yield from (identity for _, identity in rows)
            place = rows[-1] if rows else None

    def objects(self, identity: str) -> list[str]:
        """The keys under which a mail is known to lie that is not at its end."""
        with self._db.reading() as db:
            return [key for (key,) in db.execute("SELECT key FROM object WHERE identity = ? ORDER BY key", (identity,))]


def _record(values: tuple[Any, ...]) -> Record:
    *of_row, stored_at, message_id = values
    return Record(Row.of(of_row), stored_at, message_id)


def _anywhere(part: str) -> str:
    """The pattern of LIKE for what holds *part*, with nothing in it that means something else."""
    return "%" + re.sub("[!%_]", r"!\g<0>", part) + "%"


def message_id_of(raw: bytes) -> str | None:
    """SHA-256, in hex, of a mail's Message-ID; None if it has none.

    Not the Message-ID: it is the sender's, and can hold anything.
    """
    from drain.header import Header  # noqa: PLC0415 (an idle pass opens the ledger, and has no mail to look into)

    found = Header.of(raw).get("Message-ID")
    return hashed(found) if found else None


def hashed(message_id: str) -> str:
    """What a Message-ID is known by, with or without its angle brackets."""
    return hashlib.sha256(message_id.strip().strip("<>").encode("utf-8", "surrogatepass")).hexdigest()
