"""Addresses that bounced: mail to them is refused early, since providers count what bounces."""

from dataclasses import dataclass

from drain.database import Database
from drain.places import domain_key
from drain.upstreams import Fate


@dataclass(frozen=True)
class Suppression:
    """One address, and what the upstream said of it."""

    address: str
    status: str
    diagnostic: str
    at: float


class Suppressed:
    """The list; raises what `Database` raises."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, address: str, fate: Fate, now: float) -> None:
        """Notes an address that does not exist."""
        with self._db.writing() as db:
            row = (_key(address), fate.status, fate.diagnostic, now)
            db.execute("INSERT OR REPLACE INTO suppressed VALUES (?, ?, ?, ?)", row)

    def find(self, address: str) -> Suppression | None:
        """What is known of an address."""
        with self._db.reading() as db:
            row = db.execute("SELECT * FROM suppressed WHERE address = ?", (_key(address),)).fetchone()
        return Suppression(*row) if row else None

    def all(self) -> list[Suppression]:
        """All of them, the newest first."""
        with self._db.reading() as db:
            return [Suppression(*row) for row in db.execute("SELECT * FROM suppressed ORDER BY at DESC, address")]

    def remove(self, address: str) -> bool:
        """Takes an address off the list; whether it was on it."""
        with self._db.writing() as db:
            return db.execute("DELETE FROM suppressed WHERE address = ?", (_key(address),)).rowcount > 0


def _key(address: str) -> str:
    # RFC 5321 2.4 lets local parts differ by case; hardly any server does, and those that
    # do have no two mailboxes that differ by it.
    local, _, domain = address.rpartition("@")
    return f"{local.lower()}@{domain_key(domain)}"
