"""The queue: which mail waits, which is being sent, what became of it. The states are explained in `drain.relay`.

Two tables of `tables`: ``mail``, one row a message, whose body is a file by the same
name in `bodies`; and ``entry``, one row for the recipients that go upstream together.
"""

import contextlib
import json
import math
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from drain.database import Database
from drain.errors import ConfigError, LedgerUnavailable
from drain.relay import bodies
from drain.relay.rates import Rates
from drain.relay.step import Step
from drain.relay.suppressed import Suppressed
from drain.relay.tables import QUEUE
from drain.upstreams import Action, Fate

# How long it is remembered what became of a mail.
_KEPT_SECONDS = 90 * 86400.0
# Mails that may be between their body and their row when drain is killed; more than the listener has threads.
_MOST_IN_HAND = 16
# A clock that says so is none (a Pi without one begins in 1970), and one that was a day ahead was wrong too.
_EARLIEST = 1_767_225_600.0  # 2026
_AHEAD_SECONDS = 86400.0
# More than any wait between two attempts.
_LONGEST_WAIT_SECONDS = 2 * 3600.0


class State(StrEnum):
    """Where an entry is."""

    WAITING = "waiting"
    SENDING = "sending"
    HELD = "held"
    RELAYED = "relayed"
    FAILED = "failed"
    REMOVED = "removed"


OPEN = (State.WAITING, State.SENDING, State.HELD)


@dataclass(frozen=True)
class Message:
    """One message. ``return_path`` is who hears that it failed, "" for nobody; ``inbound``: it is a DSN of ours."""

    id: str
    inbound: bool
    user: str
    sender: str
    return_path: str
    message_id: str
    size: int
    received_at: float


@dataclass(frozen=True)
class Entry:
    """The recipients of a message that go together, and how far they are."""

    id: str
    mail: Message
    state: State
    recipients: tuple[str, ...]
    attempts: int
    unknown: int
    next_attempt_at: float
    status: str
    diagnostic: str
    reference: str
    updated_at: float


@dataclass(frozen=True)
class Parcel:
    """A message that goes into the queue: the groups of its recipients, and its bytes."""

    message: Message
    groups: Sequence[tuple[str, ...]]
    raw: bytes


_MESSAGE = ", ".join(f"mail.{name}" for name in Message.__dataclass_fields__)
_ENTRY_NAMES = [name for name in Entry.__dataclass_fields__ if name != "mail"]
_ENTRY = ", ".join(f"entry.{name}" for name in _ENTRY_NAMES)
_ENTRIES = f"SELECT {_ENTRY}, {_MESSAGE} FROM entry JOIN mail ON mail.id = entry.mail"


def new_id() -> str:
    """An id: 32 hex digits."""
    return secrets.token_hex(16)


class Queue:
    """The open queue. Calls may come from several threads; each commits before it returns.

    Every method raises `LedgerUnavailable` if the disk is full or the file is
    locked, and `ConfigError` if the file is damaged.
    """

    def __init__(
        self,
        folder: Path,
        key_file: Path,
        *,
        per_minute: int = 0,
        per_day: int = 0,
        make_key: bool = True,
        step: Callable[[Step, str], None] = lambda step, name: None,
    ) -> None:
        """Opens the queue in *folder*; makes it if it is not there, its key too with *make_key*.

        Raises:
            ConfigError: it cannot be opened, or its key or its state is missing.
        """
        self._bodies = bodies.opened(folder / "mails", key_file, make_key=make_key)
        if not (folder / "queue.db").exists() and any(self._bodies.names()):
            raise ConfigError(
                f"{folder / 'queue.db'} is gone, and there are mails in {folder / 'mails'} of which it knew where they go.",
                "Put it back; to begin anew, move that folder away.",
            )
        self._db = Database(folder / "queue.db", QUEUE)
        self._step = step
        self.rates = Rates(self._db, per_minute, per_day)
        self.suppressed = Suppressed(self._db)

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        self._db.close()

    # -- in --

    def accept(self, parcel: Parcel, now: float) -> None:
        """Takes a message of a user; body and state are on the disk when this returns.

        Raises:
            DiskFull, Unavailable: they could not be written; nothing was taken.
            OverLimit: the user has sent enough; nothing was taken.
        """
        message = parcel.message
        self._bodies.put(message.id, parcel.raw)
        self._step(Step.BODY_SYNCED, message.id)
        try:
            with self._db.writing():
                self.rates.take(message.user, sum(map(len, parcel.groups)), now)
                self._insert(parcel, now)
        except BaseException:
            self._bodies.remove(message.id)
            raise
        self._step(Step.ACCEPTED, message.id)

    def _insert(self, parcel: Parcel, now: float) -> None:
        with self._db.writing() as db:
            values = [getattr(parcel.message, name) for name in Message.__dataclass_fields__]
            db.execute(f"INSERT INTO mail VALUES ({', '.join('?' * len(values))})", values)
            for number, group in enumerate(parcel.groups):
                # The first has the mail's own id, which the client was told.
                self._new_entry(parcel.message, group, now, new_id() if number else parcel.message.id)

    def _new_entry(self, message: Message, recipients: Iterable[str], now: float, entry: str) -> None:
        with self._db.writing() as db:
            db.execute(
                "INSERT INTO entry (id, mail, inbound, state, recipients, next_attempt_at, updated_at)"
                " VALUES (?, ?, ?, 'waiting', ?, ?, ?)",
                (entry, message.id, message.inbound, json.dumps(list(recipients)), now, now),
            )

    # -- out --

    def recover(self, now: float) -> list[str]:
        """At the start: entries that a crash left as ``sending`` wait again; bodies of no mail are deleted.

        Nothing else may have the queue in hand. Gives the ids of these entries.

        Raises:
            ConfigError: there are more bodies of no mail than a crash can leave.
        """
        with self._db.writing() as db:
            ids = [row[0] for row in db.execute("SELECT id FROM entry WHERE state = 'sending'")]
            db.execute(
                "UPDATE entry SET state = 'waiting', unknown = unknown + 1, next_attempt_at = ?, updated_at = ?"
                " WHERE state = 'sending'",
                (now, now),
            )
            wanted = {row[0] for row in db.execute("SELECT mail FROM entry WHERE state IN ('waiting', 'held')")}
            known = {row[0] for row in db.execute("SELECT id FROM mail")}
        unwanted = [name for name in self._bodies.names() if name not in wanted]
        strange = [name for name in unwanted if name not in known and not bodies.is_unfinished(name)]
        if len(strange) > _MOST_IN_HAND:
            raise ConfigError(
                f"The relay's queue knows nothing of {len(strange)} mails that lie in its folder.",
                "Was it put back from a backup? Move these mails away: where they were to go is not known.",
            )
        for name in unwanted:
            self._bodies.remove(name)
        return ids

    def lease(self, now: float, *, inbound: bool) -> Entry | None:
        """The entry that is due for the longest, now ``sending``; None if there is none."""
        with self._db.writing() as db:
            found = db.execute(
                # One that is due in a far future was noted before the clock was set back.
                "SELECT id FROM entry WHERE state = 'waiting' AND inbound = ? AND NOT next_attempt_at BETWEEN ? AND ?"
                " ORDER BY next_attempt_at, id LIMIT 1",
                (inbound, math.nextafter(now, math.inf), now + _LONGEST_WAIT_SECONDS),
            ).fetchone()
            if found is None:
                return None
            db.execute("UPDATE entry SET state = 'sending', updated_at = ? WHERE id = ?", (now, found[0]))
            # What was taken by a wrong clock is as old as when that is found out.
            db.execute(
                "UPDATE mail SET received_at = ? WHERE id = (SELECT mail FROM entry WHERE id = ?)"
                " AND (received_at < ? OR received_at > ?)",
                (now, found[0], min(_EARLIEST, now), now + _AHEAD_SECONDS),
            )
            entry = self.entry(found[0])
        self._step(Step.LEASED, found[0])
        return entry

    def claim(self, entry: Entry, now: float) -> bool:
        """The same for this entry; False if it does not wait any more."""
        with self._db.writing() as db:
            query = "UPDATE entry SET state = 'sending', updated_at = ? WHERE id = ? AND state = 'waiting'"
            return db.execute(query, (now, entry.id)).rowcount > 0

    def body(self, entry: Entry) -> bytes:
        """The message.

        Raises:
            BodyLost: it cannot be read.
        """
        return self._bodies.get(entry.mail.id)

    def next_due_at(self, *, inbound: bool) -> float | None:
        """When the next entry is due, Unix time; None if none waits."""
        with self._db.reading() as db:
            row = db.execute(
                "SELECT min(next_attempt_at) FROM entry WHERE state = 'waiting' AND inbound = ?", (inbound,)
            ).fetchone()
        return None if row[0] is None else float(row[0])

    def overdue(self, received_before: float) -> list[Entry]:
        """Entries of users' mails that wait and were received before that time."""
        query = f"{_ENTRIES} WHERE entry.state = 'waiting' AND entry.inbound = 0 AND mail.received_at BETWEEN ? AND ?"
        return self._entries(query, _EARLIEST, received_before)

    def give_back(self, entry: Entry, next_attempt_at: float, diagnostic: str, now: float) -> None:
        """It waits again, and this was no attempt: the upstream could not be reached."""
        with self._db.writing() as db:
            db.execute(
                "UPDATE entry SET state = 'waiting', next_attempt_at = ?, diagnostic = ?, updated_at = ?"
                " WHERE id = ? AND state = 'sending'",
                (next_attempt_at, diagnostic, now, entry.id),
            )

    def hold(self, entry: Entry, diagnostic: str, now: float) -> None:
        """It waits for a person."""
        with self._db.writing() as db:
            db.execute(
                "UPDATE entry SET state = 'held', diagnostic = ?, updated_at = ? WHERE id = ? AND state = 'sending'",
                (diagnostic, now, entry.id),
            )

    def settle(
        self,
        entry: Entry,
        fates: Mapping[str, Fate],
        next_attempt_at: float,
        dsn: Parcel | None,
        now: float,
    ) -> None:
        """Notes what became of an entry, whose recipients have a fate each; in one commit with the DSN, if there is one.

        What is delayed is tried again at *next_attempt_at*. Those with whom it went
        otherwise than with the first get an entry of their own: the same key with other
        recipients would be another mail to an upstream that remembers keys. So the
        first are those whom the upstream may have taken under this key.
        """
        if dsn is not None:
            self._bodies.put(dsn.message.id, dsn.raw, spare=True)
            self._step(Step.DSN_SYNCED, entry.id)
        groups: dict[tuple[bool, Action], list[str]] = {}
        for address in entry.recipients:
            groups.setdefault((fates[address].unknown, fates[address].action), []).append(address)
        first, *others = sorted(groups, key=_first)
        try:
            with self._db.writing():
                self._update(entry.id, groups[first], fates[groups[first][0]], next_attempt_at, now)
                for other in others:
                    new = new_id()
                    self._new_entry(entry.mail, groups[other], now, new)
                    self._update(new, groups[other], fates[groups[other][0]], next_attempt_at, now)
                for address, fate in fates.items():
                    if fate.action is Action.FAILED and fate.bad_address:
                        self.suppressed.add(address, fate, now)
                if dsn is not None:
                    self._insert(dsn, now)
        except BaseException:
            if dsn is not None:
                self._bodies.remove(dsn.message.id)
            raise
        self._step(Step.SETTLED, entry.id)
        self._clear(entry.mail.id)

    def _update(
        self,
        entry: str,
        recipients: Collection[str],
        fate: Fate,
        next_attempt_at: float,
        now: float,
    ) -> None:
        state = {Action.RELAYED: State.RELAYED, Action.FAILED: State.FAILED, Action.DELAYED: State.WAITING}
        with self._db.writing() as db:
            db.execute(
                "UPDATE entry SET state = ?, recipients = ?, attempts = attempts + 1, unknown = unknown + ?,"
                " next_attempt_at = ?, status = ?, diagnostic = ?, reference = ?, updated_at = ? WHERE id = ?",
                (
                    state[fate.action],
                    json.dumps(list(recipients)),
                    fate.unknown,
                    next_attempt_at,
                    fate.status,
                    fate.diagnostic,
                    fate.reference,
                    now,
                    entry,
                ),
            )

    def _clear(self, mail: str) -> None:
        """Deletes a body that nobody needs any more."""
        try:
            with self._db.reading() as db:
                query = "SELECT 1 FROM entry WHERE mail = ? AND state IN ('waiting', 'sending', 'held') LIMIT 1"
                needed = db.execute(query, (mail,)).fetchone()
        except LedgerUnavailable:
            return  # what it follows is committed, and must not be done again; the next start deletes the body
        if not needed:
            self._bodies.remove(mail)
            self._step(Step.CLEARED, mail)

    def prune(self, now: float) -> int:
        """Forgets entries that ended long ago; how many."""
        with self._db.writing() as db:
            pruned = db.execute(
                "DELETE FROM entry WHERE state IN ('relayed', 'failed', 'removed') AND updated_at < ?",
                (now - _KEPT_SECONDS,),
            ).rowcount
            if pruned:
                db.execute("DELETE FROM mail WHERE id NOT IN (SELECT mail FROM entry)")
        return pruned

    # -- for a person --

    def entry(self, id_: str) -> Entry:
        """The entry with exactly this id. Raises KeyError if there is none."""
        found = self._entries(f"{_ENTRIES} WHERE entry.id = ?", id_)
        if not found:
            raise KeyError(id_)
        return found[0]

    def entries(self, *states: State) -> list[Entry]:
        """The entries in these states, the oldest mail first."""
        marks = ", ".join("?" * len(states))
        return self._entries(f"{_ENTRIES} WHERE entry.state IN ({marks}) ORDER BY mail.received_at, entry.id", *states)

    def find(self, beginning: str) -> list[Entry]:
        """The entries whose id, or whose mail's id, begins so, the oldest first."""
        query = f"{_ENTRIES} WHERE substr(entry.id, 1, ?) = ? OR substr(mail.id, 1, ?) = ? ORDER BY mail.received_at"
        return self._entries(query, len(beginning), beginning, len(beginning), beginning)

    def change(self, entry: Entry, to: State, now: float) -> bool:
        """What a person wants: `WAITING` is now, `HELD` is not, `REMOVED` is never.

        False if it is too late: it is being sent, or has ended. Nobody is told of what is removed.
        """
        with self._db.writing() as db:
            changed = db.execute(
                "UPDATE entry SET state = ?, next_attempt_at = ?, updated_at = ? WHERE id = ? AND state IN ('waiting', 'held')",
                (to, now, now, entry.id),
            ).rowcount
        if changed and to is State.REMOVED:
            self._clear(entry.mail.id)
        return bool(changed)

    def counts(self) -> dict[State, int]:
        """How many entries there are in each state."""
        with self._db.reading() as db:
            return {State(s): n for s, n in db.execute("SELECT state, count(*) FROM entry GROUP BY state")}

    def _entries(self, query: str, *values: object) -> list[Entry]:
        with self._db.reading() as db, contextlib.closing(db.execute(query, values)) as cursor:
            return [_entry(row) for row in cursor]


def _first(group: tuple[bool, Action]) -> tuple[bool, int]:
    """Whose entry keeps its id: whom the upstream may have, else who has an end, else who waits."""
    unknown, action = group
    return not unknown, (Action.RELAYED, Action.FAILED, Action.DELAYED).index(action)


def _entry(row: Sequence[object]) -> Entry:
    values = dict(zip(_ENTRY_NAMES, row, strict=False))
    message = dict(zip(Message.__dataclass_fields__, row[len(_ENTRY_NAMES) :], strict=True))
    message["inbound"] = bool(message["inbound"])
    values["state"] = State(str(values["state"]))
    values["recipients"] = tuple(json.loads(str(values["recipients"])))
    return Entry(mail=Message(**message), **values)  # type: ignore[arg-type]  # as the table's columns are
