"""`drain doctor`: modes and owners, and the files of SQLite."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from drain import config as configuration
from drain.doctor import files
from drain.doctor.finding import Finding, Level
from drain.ledger import Ledger
from drain.logbook import LOGBOOK, Logbook
from drain.tables import LEDGER

US = os.geteuid()
# As root every file can be read; of anybody else there is no other user's file to be had.
as_root = pytest.mark.skipif(US != 0, reason="only root gives files away")


def kept(folder: Path, name: str, mode: int) -> Path:
    path = folder / name
    path.touch()
    path.chmod(mode)
    return path


def looked(
    *, read: Sequence[Path] = (), written: Sequence[Path] = (), folders: Sequence[Path] = (), user: int = US
) -> list[Finding]:
    return list(files.modes(read, written, folders, user=user))


def test_files_for_their_owner_only_are_ok(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    found = looked(
        read=[kept(tmp_path, "drain.env", 0o600)], written=[kept(folder, "ledger.db", 0o600)], folders=[folder]
    )
    assert [finding.level for finding in found] == [Level.OK]
    assert "3 files and folders" in found[0].words


def test_a_file_that_others_may_read_is_a_warning_with_the_command(tmp_path: Path) -> None:
    path = kept(tmp_path, "my key.pem", 0o604)
    (finding,) = looked(read=[path])
    assert finding.level is Level.WARNING
    assert f"{path} can be read by other users" in finding.words
    assert finding.next == f"chmod 600 '{path}'"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_change_is_a_failure(tmp_path: Path, mode: int) -> None:
    (finding,) = looked(written=[kept(tmp_path, "ledger.db", mode)])
    assert finding.level is Level.FAILURE
    assert "can be changed by other users" in finding.words


def test_a_folder_has_its_own_mode(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o755)
    (finding,) = looked(folders=[folder])
    assert (finding.level, finding.next) == (Level.WARNING, f"chmod 700 {folder}")


def test_what_is_not_there_and_what_is_no_file_is_not_looked_at(tmp_path: Path) -> None:
    (finding,) = looked(read=[tmp_path / "none", Path("/dev/null")])
    assert finding.level is Level.OK
    assert "0 files" in finding.words


@as_root
def test_a_file_of_another_user_is_a_failure(tmp_path: Path) -> None:
    path = kept(tmp_path, "relay.key", 0o600)
    os.chown(path, 4711, 4711)
    (finding,) = looked(read=[path], user=4712)
    assert finding.level is Level.FAILURE
    assert f"{path} belongs to 4711" in finding.words
    assert finding.next == f"chown 4712 {path}"


@as_root
def test_root_is_told_that_drain_is_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4711)
    (finding,) = looked(folders=[tmp_path], user=0)
    assert finding.level is Level.WARNING
    assert "sudo -u 4711" in finding.next


@pytest.mark.skipif(US == 0, reason="root may read it")
def test_a_file_that_we_may_not_read_is_a_failure(tmp_path: Path) -> None:
    (finding,) = looked(read=[kept(tmp_path, "relay.key", 0o000)])
    assert finding.level is Level.FAILURE
    assert "cannot be read" in finding.words


def test_a_path_through_a_file_is_a_failure(tmp_path: Path) -> None:
    (finding,) = looked(read=[kept(tmp_path, "file", 0o600) / "key.pem"])
    assert finding.level is Level.FAILURE
    assert "cannot be looked at" in finding.words


def test_every_file_with_a_secret_is_among_those_looked_at(tmp_path: Path) -> None:
    names = ("key.pem", "old.pem", "mb.pem", "logins", "dkim.pem", "tls.pem", "pass", "token", "drain.env")
    paths = {name: str(tmp_path / name) for name in names}
    Path(paths["drain.env"]).write_text(f"ORIGIN_TOKEN_FILE={paths['token']}\n")
    Path(paths["token"]).write_text("t")
    Path(paths["pass"]).write_text("p")
    environ = {
        "DRAIN_ENV_FILE": paths["drain.env"],
        "PRIVATE_KEY_FILE": f"{paths['key.pem']}:{paths['old.pem']}",
        "MAILBRIDGE_PRIVATE_KEY_PATH": paths["mb.pem"],
        "VERIFY_IMAP_LOGINS_FILE": paths["logins"],
        "DKIM_KEY_FILE": paths["dkim.pem"],
        "RELAY_TLS_KEY_FILE": paths["tls.pem"],
        "INJECT_PASS_FILE": paths["pass"],
        "STATE_DIR": str(tmp_path),
        "RELAY_KEY_FILE": str(tmp_path / "relay.key"),
    }
    config, _ = configuration.load(environ, complete=False)
    assert {str(path) for path in files.with_secrets(config, environ)} == {*paths.values(), environ["RELAY_KEY_FILE"]}
    written = {path.name for path in files.kept(config)}
    assert written >= {"ledger.db", "ledger.db-wal", "logbook.db", "queue.db", "stamp.key", "relay-users"}


@pytest.mark.parametrize(
    ("owner", "mode", "level"), [(0, 0o640, Level.OK), (0, 0o660, Level.FAILURE), (1, 0o640, Level.WARNING)]
)
def test_what_is_root_s_a_group_may_read(tmp_path: Path, owner: int, mode: int, level: Level) -> None:
    """In that way a service reads its settings and cannot change them."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    path = kept(tmp_path, "drain.env", mode)
    os.chown(path, owner, 1)
    assert [finding.level for finding in looked(read=[path])] == [level]


# -- SQLite --


def ledger(path: Path, rows: int = 0) -> Path:
    with contextlib.closing(Ledger(path)) as opened:
        for number in range(rows):
            opened.adopt(f"{number:064x}", "alice@example.test", 10, 1.0, 1.0)
    return path


def test_a_ledger_and_a_logbook_that_are_whole_are_ok(tmp_path: Path) -> None:
    ledger(tmp_path / "ledger.db", 20)
    Logbook(tmp_path / "logbook.db").close()
    for name, schema in (("ledger.db", LEDGER), ("logbook.db", LOGBOOK)):
        (finding,) = files.database(tmp_path / name, schema)
        assert finding.level is Level.OK
        assert f"is whole (schema {schema.version})" in finding.words


def test_one_that_is_not_there_yet_is_ok_and_is_not_made(tmp_path: Path) -> None:
    (finding,) = files.database(tmp_path / "ledger.db", LEDGER)
    assert finding.level is Level.OK
    assert not list(tmp_path.iterdir())


def test_one_in_use_is_looked_at_too(tmp_path: Path) -> None:
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as opened:
        opened.adopt("0" * 64, "alice@example.test", 10, 1.0, 1.0)
        (finding,) = files.database(tmp_path / "ledger.db", LEDGER)
    assert finding.level is Level.OK


def test_one_that_a_crash_left_stays_as_it_is(tmp_path: Path) -> None:
    """What its log holds is for drain to put into it."""
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as opened:
        opened.adopt("0" * 64, "alice@example.test", 10, 1.0, 1.0)
        left = tmp_path / "left"
        left.mkdir()
        for name in ("ledger.db", "ledger.db-wal"):
            shutil.copy(tmp_path / name, left / name)
    before = [(left / name).read_bytes() for name in ("ledger.db", "ledger.db-wal")]
    (finding,) = files.database(left / "ledger.db", LEDGER)
    assert finding.level is Level.OK
    assert [(left / name).read_bytes() for name in ("ledger.db", "ledger.db-wal")] == before


def test_an_older_schema_is_ok_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=1")
    (finding,) = files.database(path, LEDGER)
    assert finding.level is Level.OK
    assert f"is brought to {LEDGER.version}" in finding.words
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_newer_schema_is_a_failure(tmp_path: Path) -> None:
    path = ledger(tmp_path / "ledger.db")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")
    (finding,) = files.database(path, LEDGER)
    assert (finding.level, finding.next) == (Level.FAILURE, LEDGER.if_newer)
    assert "schema 99" in finding.words


def test_a_damaged_page_is_a_failure_that_says_what_to_do(tmp_path: Path) -> None:
    path = ledger(tmp_path / "ledger.db", 500)
    whole = bytearray(path.read_bytes())
    # A leaf in the middle: its header still says how many cells there are, and these are gone.
    place = len(whole) // 2 // 4096 * 4096
    whole[place + 8 : place + 4096] = b"\xff" * 4088
    path.write_bytes(whole)
    (finding,) = files.database(path, LEDGER)
    assert (finding.level, finding.next) == (Level.FAILURE, LEDGER.if_damaged)
    assert "is damaged" in finding.words


def test_what_is_no_database_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "logbook.db"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    (finding,) = files.database(path, LOGBOOK)
    assert (finding.level, finding.next) == (Level.FAILURE, LOGBOOK.if_damaged)


def test_a_look_that_takes_too_long_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (a)")
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) INSERT INTO t SELECT i FROM n"
        )
        db.commit()
    times = iter([0.0, *[1000.0] * 100])
    (finding,) = files.database(path, LEDGER, clock=lambda: next(times))
    assert finding.level is Level.UNKNOWN
    assert "interrupted" in finding.words
