"""What drain remembers beside the mails: keys that are proven, what was spent, what a person was told."""

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

    def once_a_day(self, name: str, now: float) -> bool:
        """Whether this is the first time in a day; then it is noted."""
        last = self._get(name)
        if last and 0 <= now - float(last) < _DAY_SECONDS:
            return False
        self._set(name, str(now))
        return True

    def spend(self, name: str, month: str, most: int) -> bool:
        """Takes one of *most* in that month ("2026-11"); False if none is left. On the disk before it is used."""
        with self._db.writing():
            noted, _, number = self._get(f"spent {name}").partition(" ")
            spent = int(number) if noted == month else 0
            if spent >= most:
                return False
            self._set(f"spent {name}", f"{month} {spent + 1}")
            return True

    def told(self, what: str) -> str:
        """The words that the person was last told of something that is still so; "" for none."""
        return self._get(f"told {what}")

    def tell(self, what: str, words: str) -> None:
        """Notes what the person is told; "" once it is over."""
        self._set(f"told {what}", words)

    def _get(self, name: str) -> str:
        with self._db.reading() as db:
            found = db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found else ""

    def _set(self, name: str, value: str) -> None:
        with self._db.writing() as db:
            db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, value))
