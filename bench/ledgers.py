"""Ledgers that look like years of mail: drain's own tables, filled without drain."""

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from drain.ledger import Ledger

_DAYS = 200
_DAY_SECONDS = 86400
_ANSWER = "250 2.0.0 OK: queued"


def make(path: Path, mails: int) -> None:
    """A ledger of so many settled mails, first seen in the last 200 days, each with its three events."""
    Ledger(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        # If this fails there is no ledger; drain sets both for itself.
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("PRAGMA synchronous=OFF")
        # Made at the end, from sorted rows, an index takes a fraction of the time.
        indexes = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
        for name, _ in indexes:
            db.execute(f"DROP INDEX {name}")
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO mail (identity, state, recipient, sender, size, mailbox, words, first_seen_at, updated_at,"
            " stored_at, message_id) VALUES (?, 'settled', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            _mails(mails),
        )
        for what, words in (("injecting", "mailbox"), ("delivered", "words"), ("settled", "''")):
            db.execute(
                "INSERT INTO event (identity, what, words, at, last_at)"
                f" SELECT identity, '{what}', {words}, first_seen_at, first_seen_at FROM mail"
            )
        for _, sql in indexes:
            db.execute(sql)
        db.execute("COMMIT")


def copy(path: Path, to: Path) -> None:
    """A copy that is on the disk: what is still on its way there would slow the commits of the run down."""
    shutil.copyfile(path, to)
    with to.open("rb+") as file:
        os.fsync(file.fileno())


def _mails(count: int) -> Iterator[tuple[object, ...]]:
    chance = random.Random(1)  # noqa: S311 (dates, and the same in every run)
    now = time.time()
    for number in range(count):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        # In order, which is faster; no two are alike.
        identity = f"{number:08x}{digest[8:]}"
        mailbox = f"user{number % 5}@example.test"
        seen = now - chance.random() * _DAYS * _DAY_SECONDS
        sender = f"sender{number % 1000}@x{number % 100}.test"
        yield identity, mailbox, sender, chance.randint(2_000, 200_000), mailbox, _ANSWER, seen, seen + 1, seen, digest
