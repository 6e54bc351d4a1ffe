"""`drain ledger migrate`: all that drain keeps is brought up to date, or none of it."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drain.logbook import LOGBOOK
from drain.tables import LEDGER

LEDGERS = Path(__file__).parents[1] / "ledgers"


def migrate(state: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "drain", "ledger", "migrate"],
        env={"STATE_DIR": str(state), "DRAIN_ENV_FILE": "/dev/null", "PATH": "/usr/bin:/bin", "HOME": str(state)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def ledger_of(version: int, state: Path) -> Path:
    path = state / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript((LEDGERS / f"{version}.sql").read_text(encoding="utf-8"))
    return path


def asked(path: Path, question: str) -> Any:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute(question).fetchone()[0]


@pytest.mark.parametrize("version", [1, 2])
def test_an_old_ledger_is_brought_up_to_date_with_all_its_mails(tmp_path: Path, version: int) -> None:
    path = ledger_of(version, tmp_path)
    before = asked(path, "SELECT count(*) FROM mail")
    assert before
    done = migrate(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{path}: schema {LEDGER.version}, until now {version}.\n"
    assert asked(path, "PRAGMA user_version") == LEDGER.version
    assert asked(path, "SELECT count(*) FROM mail") == before
    assert {one.name for one in tmp_path.iterdir()} <= {"ledger.db", "ledger.db-wal", "ledger.db-shm", "drain.lock"}


def test_one_that_is_up_to_date_stays_as_it_is(tmp_path: Path) -> None:
    path = ledger_of(2, tmp_path)
    migrate(tmp_path)
    before = path.read_bytes()
    done = migrate(tmp_path)
    assert done.stdout == f"{path}: schema {LEDGER.version}, as it was.\n"
    assert path.read_bytes() == before


def test_where_one_file_cannot_be_brought_up_to_date_none_is(tmp_path: Path) -> None:
    """Or the older drain, to which the person would go back, could use neither."""
    path = ledger_of(1, tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "logbook.db")) as newer:
        newer.execute(f"PRAGMA user_version={LOGBOOK.version + 1}")
    done = migrate(tmp_path)
    assert done.returncode == 78
    assert "was written by a newer drain" in done.stderr
    assert asked(path, "PRAGMA user_version") == 1


def test_a_damaged_ledger_is_a_sentence_and_left_as_it_is(tmp_path: Path) -> None:
    path = ledger_of(1, tmp_path)
    content = path.read_bytes()
    damaged = content[:5000] + bytes(4000) + content[9000:]
    path.write_bytes(damaged)
    done = migrate(tmp_path)
    assert done.returncode == 78
    assert "damaged" in done.stderr
    assert path.read_bytes() == damaged


def test_with_nothing_there_nothing_is_made(tmp_path: Path) -> None:
    done = migrate(tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert not (tmp_path / "ledger.db").exists()
