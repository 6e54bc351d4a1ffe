"""The relay's queue that is there, and what a backup has of it that it lacks."""

from dataclasses import dataclass
from pathlib import Path

from drain.backup.standin import KEPT, Opened, numbered
from drain.relay.bodies import is_unfinished
from drain.relay.queue import OPEN

_OPEN = ", ".join(f"'{state}'" for state in OPEN)
HELD = "It comes from a backup and may have been sent since: `drain relay queue retry` or `remove`."


@dataclass(frozen=True)
class Merged:
    """``held``: mails that came from the backup and wait for a person; ``left``: that stay in it for want of the key.

    ``wanted``: ids of mails that wait, and whose bodies the backup may have.
    """

    held: int
    left: int
    wanted: tuple[str, ...]


def merge(opened: Opened, backup: Path, *, readable: bool, now: float) -> Merged:
    """Adds to the queue the mails that it does not know, those that waited as ``held``; in one transaction.

    *readable*: the key that their bodies are encrypted with is at hand. Without it no mail
    that waited is taken: it could never be sent, and the relay does not start where the
    key of its mails is missing.

    Raises:
        LedgerUnavailable, ConfigError: as `Database` does; nothing is changed then.
    """
    database = opened.database
    waiting = f"SELECT mail FROM backup.entry WHERE state IN ({_OPEN})"
    with database.reading() as db:
        db.execute("ATTACH ? AS backup", (str(backup),))
    try:
        with database.writing() as db:
            db.execute("CREATE TEMP TABLE chosen (id TEXT PRIMARY KEY, waited INTEGER) WITHOUT ROWID")
            db.execute(
                f"INSERT INTO chosen SELECT id, id IN ({waiting}) FROM backup.mail WHERE id NOT IN (SELECT id FROM main.mail)"
            )
            (held,) = db.execute("SELECT count(*) FROM chosen WHERE waited").fetchone()
            if not readable:
                db.execute("DELETE FROM chosen WHERE waited")
            db.execute("INSERT INTO main.mail SELECT * FROM backup.mail WHERE id IN (SELECT id FROM chosen)")
            db.execute("INSERT INTO main.entry SELECT * FROM backup.entry WHERE mail IN (SELECT id FROM chosen)")
            db.execute(
                "UPDATE main.entry SET state = 'held', diagnostic = ?, updated_at = ?"
                f" WHERE state IN ({_OPEN}) AND mail IN (SELECT id FROM chosen)",
                (HELD, now),
            )
            db.execute("INSERT OR IGNORE INTO main.suppressed SELECT * FROM backup.suppressed")
            if opened.anew:
                db.execute("INSERT INTO main.sent SELECT * FROM backup.sent")
            query = f"SELECT DISTINCT mail FROM main.entry WHERE state IN ({_OPEN}) AND mail IN (SELECT id FROM backup.mail)"
            wanted = tuple(mail for (mail,) in db.execute(query)) if readable else ()
            db.execute("DROP TABLE chosen")
    finally:
        with database.reading() as db:
            db.execute("DETACH backup")
    return Merged(held if readable else 0, 0 if readable else held, wanted)


def move_strangers(folder: Path, known: set[str]) -> tuple[int, Path]:
    """Lays the bodies of mails that nobody knows any more beside, where the relay does not delete them; how many, and where.

    For a queue that was lost: who they were for went with it.
    """
    bodies = folder / "mails"
    there = bodies.iterdir() if bodies.is_dir() else ()
    strangers = [path for path in there if path.name not in known and not is_unfinished(path.name)]
    beside = next(path for path in numbered(bodies, KEPT) if not path.exists())
    for path in strangers:
        beside.mkdir(mode=0o700, exist_ok=True)
        path.rename(beside / path.name)
    return len(strangers), beside
