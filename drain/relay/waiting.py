"""How much outgoing mail waits, for who only wants to know that."""

import contextlib
import sqlite3
from pathlib import Path

_BUSY_TIMEOUT_SECONDS = 5


def waiting(folder: Path) -> tuple[int, float | None] | None:
    """How many entries of the queue in *folder* are to be sent, and when the oldest was taken (Unix time, or None).

    None without a queue. Reads only, and makes nothing; a queue that cannot be read now has nothing to say.
    """
    path = folder / "queue.db"
    if not path.exists():
        return None
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_SECONDS)
        ) as db:
            number, oldest_at = db.execute(
                "SELECT count(*), min(mail.received_at) FROM entry JOIN mail ON mail.id = entry.mail"
                " WHERE entry.state IN ('waiting', 'sending')"
            ).fetchone()
    except sqlite3.Error:
        return None
    return int(number), oldest_at
