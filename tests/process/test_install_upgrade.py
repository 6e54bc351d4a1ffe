"""install.sh for one person: from one version to another, and back where that cannot be."""

import contextlib
import shutil
import sqlite3
import tarfile
from pathlib import Path

import pytest

from drain.tables import LEDGER
from tests.install_rig import ROOT, Person, kill, kill_after
from tests.support import until

pytestmark = pytest.mark.timeout(300)

NEWER = "9.1.0"
BROKEN = "9.2.0"


@pytest.fixture(scope="session")
def _clones(_somebody: Person) -> None:
    """Two clones of drains to come: one whose tables are as they are, one whose next table cannot be made."""
    _somebody.clone("newer", NEWER)
    tables = _somebody.clone("broken", BROKEN) / "drain/tables.py"
    begun, rest = tables.read_text(encoding="utf-8").split("_STEPS = (\n", 1)
    steps, rest = rest.split("\n)\n", 1)
    broken = '\n    "CREATE TABLE more (of TEXT); INSERT INTO less VALUES (1);",'
    tables.write_text(f"{begun}_STEPS = (\n{steps}{broken}\n)\n{rest}", encoding="utf-8")


@pytest.fixture
def installed(person: Person, _clones: None) -> Person:
    """A person who uses the version of ``a clone``."""
    assert person.install().code == 0
    person.keep()
    return person


def lay_ledger(person: Person, version: int) -> list[tuple[str, str]]:
    """Puts a ledger that an older drain left; its mails and their states."""
    person.state.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(person.state / "ledger.db")) as database:
        database.executescript((ROOT / f"tests/ledgers/{version}.sql").read_text(encoding="utf-8"))
    person.own(person.state)
    return mails(person.state / "ledger.db")


def asked(path: Path, question: str) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(question).fetchall()


def mails(path: Path) -> list[tuple[str, str]]:
    return asked(path, "SELECT identity, state FROM mail ORDER BY identity")


def schema(path: Path) -> int:
    return int(asked(path, "PRAGMA user_version")[0][0])


def in_use(person: Person) -> str:
    """The version that the command is."""
    return person.run(person.drain, "--version").said.strip()


def upgrade(person: Person, clone: str) -> tuple[str, ...]:
    return (str(person.folder / clone / "install.sh"), "upgrade")


def test_there_has_to_be_something_to_upgrade(person: Person) -> None:
    done = person.run(*upgrade(person, "a clone"))
    assert done.code == 66
    assert "./install.sh installs it" in done.sentence
    assert not person.drain.is_symlink()


@pytest.mark.parametrize("version", [1, 2])
def test_an_upgrade_keeps_a_backup_and_every_mail(installed: Person, version: int) -> None:
    before = lay_ledger(installed, version)
    keys = {path.name: path.read_bytes() for path in installed.config.iterdir()}
    old = in_use(installed)
    done = installed.run(*upgrade(installed, "newer"))
    assert done.code == 0, done.failed
    installed.keep()
    assert in_use(installed) == f"drain {NEWER}" != old
    assert schema(installed.state / "ledger.db") == LEDGER.version > version
    assert mails(installed.state / "ledger.db") == before
    assert {path.name: path.read_bytes() for path in installed.config.iterdir()} == keys
    (backup,) = installed.state.glob("backups/before-*.tar")
    assert backup.stat().st_mode & 0o777 == 0o600
    assert f"backup: {backup}\n" in done.said
    with tarfile.open(backup) as packed:
        (ledger,) = [one for one in packed.getnames() if one.endswith("ledger.db")]
        packed.extract(ledger, installed.folder, filter="data")
    assert mails(installed.folder / ledger) == before
    (installed.folder / ledger).unlink()
    # The way back is still there.
    assert len(list(installed.program.glob("versions/*/complete"))) >= 2


def test_tables_that_cannot_be_made_leave_the_old_version_in_use(installed: Person) -> None:
    before = lay_ledger(installed, 2)
    old, crontab = in_use(installed), installed.crontab.read_bytes()
    done = installed.run(*upgrade(installed, "broken"))
    installed.keep()
    assert done.code == 70
    (sentence,) = [line for line in done.failed.splitlines() if line.startswith("install.sh: ")]
    assert "the old one is in use again" in sentence
    (backup,) = installed.state.glob("backups/before-*.tar")
    assert str(backup.parent) in sentence
    assert in_use(installed) == old
    assert installed.crontab.read_bytes() == crontab
    assert schema(installed.state / "ledger.db") <= LEDGER.version
    assert mails(installed.state / "ledger.db") == before
    assert installed.run(installed.drain, "status").code == 0


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        ("newer", 70, "the old one is in use again"),
        ("torn", 75, "the backup before the upgrade failed, so nothing was changed"),
    ],
)
def test_a_ledger_that_cannot_be_used_leaves_the_old_version_in_use(
    installed: Person, damage: str, code: int, words: str
) -> None:
    lay_ledger(installed, 2)
    ledger = installed.state / "ledger.db"
    if damage == "newer":
        with contextlib.closing(sqlite3.connect(ledger)) as database:
            database.execute("PRAGMA user_version = 99")
    else:
        ledger.write_bytes(b"torn" * 1000)
    before, old = ledger.read_bytes(), in_use(installed)
    done = installed.run(*upgrade(installed, "newer"))
    installed.keep()
    assert done.code == code
    (sentence,) = [line for line in done.failed.splitlines() if line.startswith("install.sh: ")]
    assert words in sentence
    assert in_use(installed) == old
    assert ledger.read_bytes() == before


def test_an_upgrade_that_is_killed_is_finished_by_another_run(installed: Person) -> None:
    """The command is a whole version at each moment, and no mail is missing from the ledger."""
    before = lay_ledger(installed, 2)
    known = {in_use(installed), f"drain {NEWER}"}
    for seconds in (0.3, 0.7, 1.1, 1.5):
        kill_after(seconds, installed.start(*upgrade(installed, "newer")))
        assert in_use(installed) in known
        assert mails(installed.state / "ledger.db") == before
    done = installed.run(*upgrade(installed, "newer"))
    assert done.code == 0, done.failed
    assert in_use(installed) == f"drain {NEWER}"
    assert schema(installed.state / "ledger.db") == LEDGER.version
    assert mails(installed.state / "ledger.db") == before


def test_an_upgrade_that_is_killed_as_it_switches_is_finished_by_another_run(installed: Person) -> None:
    before = lay_ledger(installed, 2)
    current = installed.program / "current"
    old = current.readlink()
    process = installed.start(*upgrade(installed, "newer"))
    until(lambda: current.readlink() != old or process.poll() is not None, 60)
    kill(process)
    assert in_use(installed) == f"drain {NEWER}"
    assert schema(installed.state / "ledger.db") == 2
    done = installed.run(*upgrade(installed, "newer"))
    assert done.code == 0, done.failed
    assert schema(installed.state / "ledger.db") == LEDGER.version
    assert mails(installed.state / "ledger.db") == before


def test_a_version_that_does_not_run_any_more_is_replaced_and_the_new_one_makes_the_backup(installed: Person) -> None:
    """As after an upgrade of Debian's Python, or of Termux'."""
    lay_ledger(installed, 2)
    old = (installed.program / "current").resolve()
    shutil.rmtree(next((old / "lib").glob("python3*/site-packages")) / "drain")
    try:
        done = installed.run(*upgrade(installed, "newer"))
        assert done.code == 0, done.failed
        assert in_use(installed) == f"drain {NEWER}"
        (backup,) = installed.state.glob("backups/before-*.tar")
        with tarfile.open(backup) as archive:
            assert "ledger.db" in archive.getnames()
        assert schema(installed.state / "ledger.db") == LEDGER.version
    finally:
        (old / "complete").unlink(missing_ok=True)  # or the next test would have it
