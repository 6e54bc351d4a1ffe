"""The ledger: what has become of each mail. The states are explained in the package docstring.

Two of the `tables`: ``mail``, one row a mail by identity, and ``object``, the
objects that are known to hold a mail which is not finished (gone once moved).
Beside them the `history` of each, the `verdicts` of filters that cost something to
ask, and `notes`.
"""

import datetime
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from drain.database import Database
from drain.history import History, message_id_of
from drain.listing import ListedObject
from drain.mail import Mail
from drain.notes import Notes
from drain.state import REBUILT, Row, State, Troubles
from drain.tables import LEDGER
from drain.verdicts import Verdicts

Version = tuple[str, str, str]  # key, ETag, last-modified


# The reason of a mail that a person deleted: no filter's, so that no filter's rights apply.
DELETED = "deleted"
# The reason of one that was delivered, and that the mail server would not take once more.
REPLAY_REFUSED = "replay-refused"
_RECENT_SECONDS = 86400.0
_PRUNED_AT = "pruned_at"
# Each of these can be a copy more in the mailbox.
_ALARMING_REINJECTIONS = 3
_ENDS = {State.SETTING_ASIDE: State.QUARANTINED, State.DISCARDING: State.DISCARDED}
# A mail touches two or three pages of its own: SQLite's log takes 1,000 between two checkpoints.
_PIECE_MAILS = 500
# What is old is a day's mail as a rule; if it is half a year's, each pass does its share.
_DAILY_PIECES = 20
# As the tables' index has it, to the letter, or SQLite does not use it, and reads every mail.
_UNFINISHED = "state NOT IN ('settled', 'quarantined', 'discarded')"
_COLUMNS = ", ".join(f"mail.{name}" for name in Row.__dataclass_fields__)
_BY_IDENTITY = f"SELECT {_COLUMNS} FROM mail WHERE identity = ?"
_BY_OBJECT = (
    f"SELECT {_COLUMNS} FROM object JOIN mail USING (identity) WHERE key = ? AND etag = ? AND last_modified = ?"
)
_PUT = (
    "INSERT INTO mail"
    " (identity, state, recipient, sender, size, mailbox, first_seen_at, updated_at, stored_at, message_id)"
    " VALUES (:identity, :state, :recipient, :sender, :size, :mailbox, :now, :now, :stored_at, :message_id)"
    " ON CONFLICT (identity) DO UPDATE SET"
    "  state = :state, mailbox = coalesce(:mailbox, mailbox), next_attempt_at = NULL, missing_at = NULL,"
    "  updated_at = :now, stored_at = coalesce(stored_at, :stored_at), message_id = coalesce(message_id, :message_id)"
)


class Ledger:
    """The open ledger. Calls may come from several threads; each commits before it returns.

    Every method raises `LedgerUnavailable` if the disk is full or the file is
    locked, and `ConfigError` if the file is damaged.
    """

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        """Opens it; as `Database` does."""
        self._db = Database(path, LEDGER, writable=writable)
        self.history = History(self._db)
        self.notes = Notes(self._db)
        self.verdicts = Verdicts(self._db)

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        self._db.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """One commit for all that is written within."""
        with self._db.writing():
            yield

    # -- reading --

    def find(self, identity: str) -> Row | None:
        """The row of a mail."""
        return self._one(_BY_IDENTITY, identity)

    def find_by_object(self, version: ListedObject) -> Row | None:
        """The row of the mail that this very version of an object is known to hold."""
        return self._one(_BY_OBJECT, *version_of(version))

    def unfinished(self) -> dict[Version, str]:
        """Version to identity of every object whose mail is neither settled nor set aside, nor reported missing."""
        with self._db.reading() as db:
            rows = db.execute(
                "SELECT key, etag, last_modified, identity FROM mail JOIN object USING (identity)"
                f" WHERE {_UNFINISHED} AND missing_at IS NULL"
            )
            return {(key, etag, last_modified): identity for key, etag, last_modified, identity in rows}

    def quarantined_identities(self) -> list[str]:
        """Of all that is in quarantine, as far as is known here."""
        with self._db.reading() as db:
            return [identity for (identity,) in db.execute("SELECT identity FROM mail WHERE state = 'quarantined'")]

    def counts(self) -> dict[State, int]:
        """How many mails there are in each state. Reads the whole table."""
        with self._db.reading() as db:
            return {State(s): n for s, n in db.execute("SELECT state, count(*) FROM mail GROUP BY state")}

    def troubles(self, now: float) -> Troubles:
        """What a person should know of."""
        with self._db.reading() as db:
            # A filter's reason is in its verdict too; "spam" is what several add up to.
            quarantined = db.execute(
                "SELECT coalesce(reason, ''), count(*) FROM mail WHERE state = 'quarantined' AND reason != 'spam'"
                " AND NOT EXISTS (SELECT 1 FROM verdict WHERE verdict.identity = mail.identity"
                " AND verdict.code = mail.reason) GROUP BY reason"
            ).fetchall()
            (missing,) = db.execute(
                "SELECT count(*) FROM mail WHERE missing_at > ?", (now - _RECENT_SECONDS,)
            ).fetchone()
            (unanswered,) = db.execute(
                f"SELECT count(*) FROM mail WHERE {_UNFINISHED} AND state = 'injecting' AND reinjections >= ?",
                (_ALARMING_REINJECTIONS,),
            ).fetchone()
        return Troubles(dict(quarantined), missing, unanswered)

    # -- writing: each before the step that it guards --

    def link(self, version: ListedObject, mail: Mail) -> None:
        """Notes which mail an opened object holds, if its mail has a row."""
        with self._db.writing() as db:
            self._link(db, version, mail.identity)
            db.execute(
                "UPDATE mail SET missing_at = NULL WHERE identity = ? AND missing_at IS NOT NULL", (mail.identity,)
            )

    def injecting(self, version: ListedObject, mail: Mail, mailbox: str, now: float) -> Row:
        """Before DATA."""
        with self._db.writing() as db:
            self._put(db, version, mail, State.INJECTING, now, mailbox)
            self.history.note(mail.identity, State.INJECTING, mailbox, now)
            self._link(db, version, mail.identity)
            row = self.find(mail.identity)
        assert row is not None
        return row

    def trying_again(self, identity: str, now: float) -> Row:
        """A row was found ``injecting``: how that try ended is not known, and another follows.

        Counted here and only here, so that a mail that came twice has a count
        that says why.
        """
        with self._db.writing() as db:
            db.execute(
                "UPDATE mail SET state = 'deferred', reinjections = reinjections + 1, next_attempt_at = NULL,"
                " updated_at = ? WHERE identity = ?",
                (now, identity),
            )
            self.history.note(identity, "again", "How the earlier try ended is not known.", now)
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
        counted: bool = True,
    ) -> None:
        """After a refusal or failure before the final dot: nothing was sent.

        Not *counted*, it was none of the tries that make the wait for the next longer.
        """
        with self._db.writing() as db:
            self._put(db, version, mail, State.DEFERRED, now)
            self._link(db, version, mail.identity)
            self.history.note(mail.identity, State.DEFERRED, f"{reason}: {words}", now)
            self._failed(db, mail.identity, reason, words, next_attempt_at, now)
            if not counted:
                db.execute("UPDATE mail SET attempts = attempts - 1 WHERE identity = ?", (mail.identity,))
            if undecided:
                db.execute("UPDATE mail SET undecided = undecided + 1 WHERE identity = ?", (mail.identity,))

    def wake(self, reason: str, identity: str = "") -> int:
        """Makes due what is deferred for that reason, all of it or one mail; how many."""
        with self._db.writing() as db:
            return db.execute(
                f"UPDATE mail SET next_attempt_at = NULL WHERE {_UNFINISHED} AND state = 'deferred' AND reason = ?"
                + (" AND identity = ?" if identity else ""),
                (reason, identity) if identity else (reason,),
            ).rowcount

    def unknown(self, identity: str, words: str, next_attempt_at: float, now: float) -> None:
        """The connection broke between the final dot and its reply: stays ``injecting`` until then."""
        with self._db.writing() as db:
            self.history.note(identity, "no-reply", words, now)
            self._failed(db, identity, "no-reply", words, next_attempt_at, now)

    def looked_for(self, identity: str, words: str, next_attempt_at: float, since: float, now: float) -> None:
        """Looked for in its mailbox, and not found or not to be known yet: stays ``injecting`` until then.

        *since* is when it was first looked for; it becomes ``updated_at``. Nothing was
        sent, so it is no attempt.
        """
        with self._db.writing() as db:
            self.history.note(identity, "looked-for", words, now)
            db.execute(
                "UPDATE mail SET reason = 'looked-for', words = ?, next_attempt_at = ?, updated_at = ? WHERE identity = ?",
                (_storable(words), next_attempt_at, since, identity),
            )

    def setting_aside(self, version: ListedObject, mail: Mail, reason: str, words: str, now: float) -> None:
        """Before the move to ``quarantine/``."""
        self._aside(State.SETTING_ASIDE, version, mail, reason, words, now)

    def quarantined(self, version: ListedObject, identity: str, now: float) -> None:
        """After that move."""
        self._finish(version, identity, State.QUARANTINED, now)

    def discarding(self, version: ListedObject, mail: Mail, reason: str, words: str, now: float) -> None:
        """Before the object is deleted, undelivered, by the person's own word."""
        self._aside(State.DISCARDING, version, mail, reason, words, now)

    def discarded(self, version: ListedObject, identity: str, now: float) -> None:
        """After that."""
        self._finish(version, identity, State.DISCARDED, now)

    def deleted(self, identity: str, now: float) -> None:
        """A person has deleted it."""
        with self._db.writing() as db:
            db.execute("UPDATE mail SET reason = ? WHERE identity = ?", (DELETED, identity))
            self._set(identity, State.DISCARDED, now, words="Deleted by hand.")

    def release(self, version: ListedObject, mail: Mail, instead_of: str, now: float) -> None:
        """A person wants a quarantined mail delivered, filters passed over; due at once, as any deferred mail.

        One that was delivered before is moved only.

        *instead_of* is the identity that it was set aside under: another one, which is
        forgotten, if it was not taken for a mail then.
        """
        with self._db.writing() as db:
            row = self.find(mail.identity)
            if row is not None and row.state is State.SETTLED:  # delivered before: only the move is left
                db.execute(
                    "UPDATE mail SET state = 'delivered', updated_at = ? WHERE identity = ?", (now, mail.identity)
                )
            elif row is None or row.state not in (State.DELIVERED, State.INJECTING):
                self._begin_anew(db, version, mail, "released", now)
            db.execute("UPDATE mail SET released = 1 WHERE identity = ?", (mail.identity,))
            self.history.note(mail.identity, "released", "", now)
            self._link(db, version, mail.identity)
            if instead_of != mail.identity:
                db.execute("UPDATE event SET identity = ? WHERE identity = ?", (mail.identity, instead_of))
                db.execute("DELETE FROM object WHERE identity = ?", (instead_of,))
                db.execute("DELETE FROM mail WHERE identity = ?", (instead_of,))

    def replay(self, version: ListedObject, mail: Mail, now: float) -> None:
        """A person wants a mail in ``processed/`` once more, filters passed over; due at once."""
        with self._db.writing() as db:
            self._begin_anew(db, version, mail, "replayed", now)
            db.execute("UPDATE mail SET released = 1 WHERE identity = ?", (mail.identity,))
            self.history.note(mail.identity, "replayed", "", now)
            self._link(db, version, mail.identity)

    def replay_refused(self, version: ListedObject, identity: str, words: str, now: float) -> None:
        """A mail that was to come once more was not taken: it was delivered before, and that stands."""
        with self._db.writing() as db:
            self.history.note(identity, REPLAY_REFUSED, words, now)
            self._finish(version, identity, State.SETTLED, now)
            values = (REPLAY_REFUSED, _storable(words), identity)
            db.execute("UPDATE mail SET reason = ?, words = ? WHERE identity = ?", values)

    def found_moved(self, identity: str, now: float) -> None:
        """The object was found where a crash, or another drain, had moved it; or is gone, and should be."""
        with self._db.writing() as db:
            row = self.find(identity)
            if row is not None:
                self._set(identity, _ENDS.get(row.state, State.SETTLED), now)
            db.execute("DELETE FROM object WHERE identity = ?", (identity,))

    def missing(self, identity: str, now: float) -> None:
        """The object is nowhere, and not by our doing."""
        with self._db.writing() as db:
            db.execute("UPDATE mail SET missing_at = ? WHERE identity = ?", (now, identity))
            self.history.note(identity, "missing", "Its object is gone from the bucket.", now)

    def adopt(self, identity: str, recipient: str, size: int, delivered_at: float, now: float) -> bool:
        """Takes over a mail found in ``processed/`` as settled; False if there is a row already."""
        with self._db.writing() as db:
            done = db.execute(
                "INSERT INTO mail (identity, state, recipient, sender, size, reason, first_seen_at, updated_at)"
                " VALUES (?, 'settled', ?, '', ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (identity, recipient, size, REBUILT, delivered_at, now),
            )
            return done.rowcount == 1

    def prune(self, before: float) -> int:
        """Forgets mails that were settled or discarded before then; how many."""
        pruned = piece = self._prune_piece(before)
        while piece == _PIECE_MAILS:
            piece = self._prune_piece(before)
            pruned += piece
        return pruned

    def prune_daily(self, before: float, now: float, stopped: Callable[[], bool] = lambda: False) -> int:
        """The same, at most once a day, and not for long: what is left over, or once *stopped*, is for the next call."""
        if not self.notes.is_due(_PRUNED_AT, now):
            return 0
        pruned = 0
        for _ in range(_DAILY_PIECES):
            if stopped():
                break
            piece = self._prune_piece(before)
            pruned += piece
            if piece < _PIECE_MAILS:
                self.notes.done(_PRUNED_AT, now)
                break
        return pruned

    def _prune_piece(self, before: float) -> int:
        """Forgets the oldest of them, one commit for all that belongs to each; how many."""
        with self._db.writing() as db:
            old = db.execute(
                "SELECT identity FROM mail WHERE state IN ('settled', 'discarded') AND updated_at < ?"
                " ORDER BY updated_at LIMIT ?",
                (before, _PIECE_MAILS),
            ).fetchall()
            for table in ("event", "object", "verdict", "mail"):
                db.executemany(f"DELETE FROM {table} WHERE identity = ?", old)
            if len(old) < _PIECE_MAILS:  # and verdicts on what never came to be a mail here
                db.execute(
                    "DELETE FROM verdict WHERE at < ?"
                    " AND NOT EXISTS (SELECT 1 FROM mail WHERE mail.identity = verdict.identity)",
                    (before,),
                )
        return len(old)

    def recipients(self) -> set[str]:
        """The envelope recipients of all mail that was delivered, in lower case."""
        with self._db.reading() as db:
            rows = db.execute("SELECT DISTINCT recipient FROM mail WHERE state IN ('delivered', 'settled')").fetchall()
        return {str(recipient).lower() for (recipient,) in rows if recipient}

    # -- below: SQL --

    def _one(self, sql: str, *parameters: str) -> Row | None:
        with self._db.reading() as db:
            values = db.execute(sql, parameters).fetchone()
        return None if values is None else Row.of(values)

    def _begin_anew(self, db: sqlite3.Connection, version: ListedObject, mail: Mail, reason: str, now: float) -> None:
        """As if it had never been tried."""
        self._put(db, version, mail, State.DEFERRED, now)
        db.execute(
            "UPDATE mail SET reason = ?, words = NULL, attempts = 0, undecided = 0 WHERE identity = ?",
            (reason, mail.identity),
        )

    @staticmethod
    def _put(
        db: sqlite3.Connection,
        version: ListedObject,
        mail: Mail,
        state: State,
        now: float,
        mailbox: str | None = None,
    ) -> None:
        """Makes or updates the row; *mailbox*, where it is known now."""
        values = {
            "identity": mail.identity,
            "state": state,
            "recipient": _storable(mail.recipient),
            "sender": _storable(mail.sender),
            "size": len(mail.raw),
            "mailbox": mailbox,
            "now": now,
            "stored_at": version.last_modified.timestamp(),
            "message_id": message_id_of(mail.raw),
        }
        db.execute(_PUT, values)

    def _set(self, identity: str, state: State, now: float, words: str | None = None) -> None:
        with self._db.writing() as db:
            db.execute(
                "UPDATE mail SET state = ?, updated_at = ?, words = coalesce(?, words), next_attempt_at = NULL,"
                " missing_at = NULL WHERE identity = ?",
                (state, now, None if words is None else _storable(words), identity),
            )
            self.history.note(identity, state, words or "", now)

    @staticmethod
    def _failed(
        db: sqlite3.Connection, identity: str, reason: str, words: str, next_attempt_at: float | None, now: float
    ) -> None:
        db.execute(
            "UPDATE mail SET reason = ?, words = ?, next_attempt_at = ?, attempts = attempts + 1, updated_at = ?"
            " WHERE identity = ?",
            (reason, _storable(words), next_attempt_at, now, identity),
        )

    @staticmethod
    def _link(db: sqlite3.Connection, version: ListedObject, identity: str) -> None:
        # Another mail's version under the same name stays noted: if that mail is not
        # finished it was overwritten, and its loss must come out.
        db.execute("DELETE FROM object WHERE key = ? AND identity = ?", (version.key, identity))
        db.execute("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?)", (*version_of(version), identity))

    def _aside(self, state: State, version: ListedObject, mail: Mail, reason: str, words: str, now: float) -> None:
        with self._db.writing() as db:
            self._put(db, version, mail, state, now)
            self._link(db, version, mail.identity)
            self.history.note(mail.identity, state, f"{reason}: {words}", now)
            self._failed(db, mail.identity, reason, words, None, now)

    def _finish(self, version: ListedObject, identity: str, state: State, now: float) -> None:
        with self._db.writing() as db:
            self._set(identity, state, now)
            db.execute("DELETE FROM object WHERE key = ? AND identity = ?", (version.key, identity))


def version_of(version: ListedObject) -> Version:
    """What the ledger knows a version of an object by."""
    moment = version.last_modified.astimezone(datetime.UTC)
    return version.key, version.etag, moment.isoformat(timespec="milliseconds")


def _storable(words: str) -> str:
    """SQLite takes no lone surrogates."""
    return words.encode("utf-8", "backslashreplace").decode()
