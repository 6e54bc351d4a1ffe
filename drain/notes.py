"""What drain remembers beside the mails: keys that are proven, what was spent."""

import datetime
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from drain.database import Database

_DAY_SECONDS = 86400


class Notes:
    """Names and values in the ledger's file; raises what `Database` raises."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def is_key_proven(self, key: str, written_at: float) -> bool:
        """Whether the key of that name has opened an object that was written then or later."""
        return written_at <= float(self._get(f"key {key}") or "-inf")

    def key_proven(self, key: str, written_at: float) -> None:
        """Notes that the key of that name has opened an object that was written then."""
        if not self.is_key_proven(key, written_at):
            self._set(f"key {key}", str(written_at))

    def is_due(self, name: str, now: float) -> bool:
        """Whether what is to be done once a day was not done in the last."""
        last = self._get(name)
        return not last or not 0 <= now - float(last) < _DAY_SECONDS

    def done(self, name: str, now: float) -> None:
        """Notes that it was."""
        self._set(name, str(now))

    def spent(self, name: str, month: str) -> int:
        """How much of a budget is spent in that month ("2026-11")."""
        noted, _, number = self._get(f"spent {name}").partition(" ")
        return int(number) if noted == month else 0

    def spend(self, name: str, month: str, number: int, most: int) -> bool:
        """Spends *number* more (or, below 0, less); False if that would be more than *most*. On the disk before it is used."""
        with self._db.writing():
            spent = self.spent(name, month) + number
            if spent > most:
                return False
            self._set(f"spent {name}", f"{month} {max(spent, 0)}")
            return True

    def _get(self, name: str) -> str:
        with self._db.reading() as db:
            found = db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found else ""

    def _set(self, name: str, value: str) -> None:
        with self._db.writing() as db:
            db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, value))


@dataclass(frozen=True)
class Purse:
    """Budgets in calls a month (of UTC), on the disk."""

    notes: Notes
    clock: Callable[[], float] = time.time

    def spend(self, name: str, most: int) -> bool:
        """Takes one of *most* calls of this month; False if none is left."""
        return self.notes.spend(name, self._month, 1, most)

    def refund(self, name: str) -> None:
        """Gives one back."""
        self.notes.spend(name, self._month, -1, sys.maxsize)

    @property
    def _month(self) -> str:
        return datetime.datetime.fromtimestamp(self.clock(), datetime.UTC).strftime("%Y-%m")
