"""install.sh for one person, without root and without systemd: install, run again, upgrade, uninstall."""

import re

import pytest

from drain.demo.s3 import StoredObject
from drain.keys import read_x25519
from tests.install_rig import Person
from tests.sealing import RAW, seal
from tests.support import House

pytestmark = pytest.mark.timeout(300)

SECRETS = ("drain.env", "drain-key.pem", "origin-token")


def lay(house: House, person: Person, name: str = "1") -> bytes:
    """A mail comes, sealed for the key that was made; the mail."""
    raw = RAW + f"This is {name}.\r\n".encode()
    token = (person.config / "origin-token").read_text().strip()
    sealed = seal(raw, {"to": "alice@example.test", "token": token}, key=read_x25519(person.config / "drain-key.pem"))
    house.s3.objects[f"pending/{name}"] = StoredObject(sealed)
    return raw


def delivers(house: House, person: Person, name: str = "1") -> None:
    """Checks that what is installed hands a mail over."""
    raw = lay(house, person, name)
    done = person.run(person.drain, ONESHOT="1")
    assert done.code == 0, done.failed
    assert house.smtp.filed[-1].content.endswith(raw)
    assert house.keys("pending/") == []


def steps(said: str) -> list[str]:
    """The numbers of the steps that were said."""
    return re.findall(r"^\[(\d+/\d+)\] ", said, re.MULTILINE)


EVERY_STEP = [f"{number}/8" for number in range(1, 9)]


def test_a_newcomer_gets_a_drain_that_delivers(newcomer: Person, house: House) -> None:
    done = newcomer.install()
    assert done.code == 0, done.failed
    newcomer.keep()
    assert steps(done.said) == EVERY_STEP
    assert "There is no systemd here." in done.said.splitlines()[0]
    for name in SECRETS:
        assert (newcomer.config / name).stat().st_mode & 0o777 == 0o600
    assert house.smtp.password not in done.said + done.failed
    delivers(house, newcomer)
    # Nothing that was installed lacks anything: also what builds.
    assert newcomer.run(newcomer.program / "current/bin/python", "-m", "pip", "check").code == 0


def test_the_line_in_the_crontab_delivers(person: Person, house: House) -> None:
    before = "* * * * * '/another home/drain' once # drain: written by its install.sh\n"
    person.crontab.write_text(f"{before}0 4 * * * their own # line\n")
    person.own(person.crontab)
    assert person.install().code == 0
    theirs, ours = person.crontab.read_text().splitlines()
    assert theirs == "0 4 * * * their own # line"
    assert ours.startswith("* * * * * ")
    raw = lay(house, person)
    done = person.run("sh", "-c", ours.removeprefix("* * * * * "))
    assert (done.code, done.said) == (0, "")
    assert house.smtp.filed[-1].content.endswith(raw)


def test_a_second_run_changes_nothing(person: Person) -> None:
    assert person.install().code == 0
    before = person.picture()
    done = person.install()
    assert done.code == 0
    assert steps(done.said) == EVERY_STEP
    assert person.picture() == before
    assert {f"a home/.config/drain/{name}" for name in SECRETS} < set(before)


@pytest.mark.parametrize("installed", [False, True])
def test_a_dry_run_says_every_step_and_changes_nothing(person: Person, installed: bool) -> None:  # noqa: FBT001
    if installed:
        assert person.install().code == 0
    else:
        person.move(program=False)
    before = person.picture()
    done = person.install("--dry-run")
    assert done.code == 0, done.failed
    assert steps(done.said) == EVERY_STEP
    assert person.picture() == before
    assert any(person.home.iterdir()) == installed


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ({"DRAIN_START": "sometimes"}, 64, "DRAIN_START is sometimes, and has to be one of: cron none."),
        ({"INJECT_PORT": "twenty-five"}, 65, "INJECT_PORT"),
    ],
)
def test_a_wrong_answer_is_named_before_anything_is_set_up(
    person: Person, answers: dict[str, str], code: int, words: str
) -> None:
    before = person.picture()
    person.answer(MAIL_DOMAIN="example.test", **answers)
    done = person.install()
    assert done.code == code
    assert words in done.failed
    assert not person.config.exists()
    assert not person.crontab.exists()
    if code == 64:
        assert person.picture() == before


def test_a_file_of_answers_that_is_not_there_is_one_sentence(person: Person) -> None:
    (person.folder / "answers").unlink()
    done = person.install()
    assert done.code == 66
    assert "answers cannot be read" in done.sentence
    assert not person.config.exists()


def test_a_backup_is_put_back_on_a_new_machine_before_keys_are_made(person: Person, house: House) -> None:
    assert person.install().code == 0
    delivers(house, person)
    key, token = ((person.config / name).read_bytes() for name in ("drain-key.pem", "origin-token"))
    backup = person.folder / "moved.tar"
    person.own(person.folder)
    assert person.run(person.drain, "backup", "--with-keys", backup).code == 0
    person.move()
    done = person.install("--restore", str(backup))
    assert done.code == 0, done.failed
    assert (person.config / "drain-key.pem").read_bytes() == key
    assert (person.config / "origin-token").read_bytes() == token
    assert "1 mails" in done.said or "knows 1 mail" in done.said
    delivers(house, person, "2")


def test_a_command_of_that_name_that_is_another_is_left_alone(person: Person) -> None:
    person.drain.parent.mkdir(parents=True)
    person.drain.write_text("theirs")
    person.own(person.home / ".local")
    done = person.install()
    assert done.code == 73
    assert "is there already, and is not drain's" in done.sentence
    assert person.run(str(person.folder / "a clone/install.sh"), "uninstall").code == 0
    assert person.drain.read_text() == "theirs"


def test_uninstall_leaves_keys_and_ledger_and_what_is_the_persons(person: Person, house: House) -> None:
    person.crontab.write_text("0 4 * * * their own\n")
    person.own(person.crontab)
    assert person.install().code == 0
    delivers(house, person)
    before = person.picture()
    script = str(person.folder / "a clone/install.sh")
    for _ in range(2):
        done = person.run(script, "uninstall")
        assert done.code == 0, done.failed
        assert not person.program.exists()
        assert not person.drain.is_symlink()
        assert person.crontab.read_text() == "0 4 * * * their own\n"
        kept = person.picture()
        kept.pop("crontab")
        assert kept == {name: seen for name, seen in before.items() if "/drain/" in name and "/share/" not in name}
        assert {f"a home/.config/drain/{name}" for name in SECRETS} | {"a home/.local/state/drain/ledger.db"} < set(
            kept
        )


def test_purge_wants_its_word(person: Person, house: House) -> None:
    assert person.install().code == 0
    delivers(house, person)
    before = person.picture()
    script = str(person.folder / "a clone/install.sh")
    for typed in ("", "yes\n", "deleted\n"):
        done = person.run(script, "uninstall", "--purge", "--yes", typed=typed)
        assert done.code == 64
        assert done.sentence == "nothing was changed."
        assert person.picture() == before
    assert person.run(script, "uninstall", "--purge", typed="delete\n").code == 0
    assert not [path for path in person.home.rglob("*") if "drain" in path.name]
    assert person.crontab.read_text() == ""
