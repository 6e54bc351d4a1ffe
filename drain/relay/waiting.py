"""How much outgoing mail waits, for who only wants to know that."""

import contextlib
from pathlib import Path

from drain.database import Database
from drain.errors import DrainError
from drain.relay.tables import QUEUE

_BUSY_TIMEOUT_SECONDS = 5.0


def waiting(folder: Path) -> tuple[int, float | None] | None:
    """How many entries of the queue in *folder* are to be sent, and when the oldest was taken (Unix time, or None).

    None without a queue. Reads only, and makes nothing; a queue that cannot be read now has nothing to say.
    """
    path = folder / "queue.db"
    if not path.exists():
        return None
    try:
        opened = Database(path, QUEUE, writable=False, busy_timeout_seconds=_BUSY_TIMEOUT_SECONDS)
        with contextlib.closing(opened) as database, database.reading() as db:
            number, oldest_at = db.execute(
                "SELECT count(*), min(mail.received_at) FROM entry JOIN mail ON mail.id = entry.mail"
                " WHERE entry.state IN ('waiting', 'sending')"
            ).fetchone()
    except DrainError:
        return None
    return int(number), oldest_at
