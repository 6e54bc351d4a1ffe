"""install.sh for one person, when something goes wrong: it works, or stops with one sentence; then again, and it works."""

import fcntl
import os
import random
import shutil
import subprocess

import pytest

from drain import envfile
from drain.keys import read_x25519
from tests.install_rig import Person, kill, kill_after
from tests.process.test_install_own import EVERY_STEP, delivers
from tests.small_disk import small_disk
from tests.support import House, free_port

pytestmark = pytest.mark.timeout(300)

KEYS = ("drain-key.pem", "origin-token")


def keys(person: Person) -> dict[str, bytes]:
    """The keys that are there, which are whole."""
    found = {name: (person.config / name).read_bytes() for name in KEYS if (person.config / name).exists()}
    if "drain-key.pem" in found:
        read_x25519(person.config / "drain-key.pem")
    return found


def nothing_is_half_done(person: Person) -> None:
    """Checks that what is there is whole, whatever is missing yet."""
    if (person.program / "current").is_symlink():
        assert (person.program / "current/complete").exists()
        assert person.run(person.program / "current/bin/drain", "--version").code == 0
    if person.drain.is_symlink():
        assert person.run("test", "-x", person.drain).code == 0
    if (person.config / "drain.env").exists():
        assert envfile.read(person.config / "drain.env")[0]["MAIL_DOMAIN"] == "example.test"
        assert set(keys(person)) == set(KEYS)
    if person.crontab.exists():
        assert person.crontab.read_text().count("\n") == 1


def kill_at(line: str, process: "subprocess.Popen[str]") -> None:
    """Kills it as it says that."""
    assert process.stdout is not None
    for said in process.stdout:
        if said.startswith(line):
            break
    else:
        pytest.fail(f"it ended without {line}: {process.communicate()[1]}")
    kill(process)


def test_killed_at_each_step_it_goes_on_when_run_again(person: Person, house: House) -> None:
    made: dict[str, bytes] = {}
    for step in EVERY_STEP:
        kill_at(f"[{step}]", person.start(*person.installing()))
        nothing_is_half_done(person)
        assert made.items() <= keys(person).items()
        made = keys(person)
    assert set(made) == set(KEYS)
    assert person.install().code == 0
    assert keys(person) == made
    delivers(house, person)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_it_goes_on_when_run_again(person: Person, house: House, seed: int) -> None:
    chance = random.Random(seed)
    made: dict[str, bytes] = {}
    for tenth in range(10):  # of some four seconds
        kill_after(0.4 * (tenth + chance.random()), person.start(*person.installing()))
        nothing_is_half_done(person)
        assert made.items() <= keys(person).items()
        made = keys(person)
    assert person.install().code == 0
    assert made.items() <= keys(person).items()
    delivers(house, person)


def test_killed_while_the_program_is_made_it_makes_it_anew(newcomer: Person, house: House) -> None:
    chance = random.Random(7)
    for second in (0, 4):
        kill_after(second + 2 * chance.random(), newcomer.start(*newcomer.installing()))
        nothing_is_half_done(newcomer)
        assert not newcomer.config.exists()
    assert newcomer.install().code == 0
    delivers(house, newcomer)
    assert len(list(newcomer.program.glob("versions/*"))) == 1


def test_a_second_one_at_the_same_time_is_told_so(person: Person) -> None:
    person.program.mkdir(parents=True, exist_ok=True)
    person.own(person.home)
    with (person.program / "lock").open("w") as lock:
        person.own(person.program)
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = person.install()
    assert done.code == 75
    assert done.sentence == "another install.sh is at work; nothing was changed."
    assert not person.config.exists()


def test_no_network_is_one_sentence(newcomer: Person) -> None:
    closed = f"http://127.0.0.1:{free_port()}/simple"
    done = newcomer.install(PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_INDEX_URL=closed, PIP_RETRIES="1")
    assert done.code == 69
    assert done.sentence == "pip cannot reach its package index; is this machine online?"
    nothing_is_installed(newcomer)


def nothing_is_installed(person: Person) -> None:
    """Checks that all that is there is what a next run takes away first."""
    assert not (person.program / "current").is_symlink()
    assert not list(person.program.glob("versions/*/complete"))
    assert not person.drain.is_symlink()
    assert not person.config.exists()
    assert not person.crontab.exists()


def test_a_package_that_was_tampered_with_is_refused(newcomer: Person) -> None:
    others = newcomer.folder / "tampered"
    others.mkdir()
    for wheel in newcomer.wheels.iterdir():
        (others / wheel.name).symlink_to(wheel)
    (wheel,) = others.glob("packaging-*.whl")
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.unlink()
    wheel.write_bytes(content)
    done = newcomer.install(PIP_FIND_LINKS=str(others))
    shutil.rmtree(others)
    assert done.code == 69
    (sentence,) = [line for line in done.failed.splitlines() if line.startswith("install.sh: ")]
    assert "its checksum is another" in sentence
    assert "packaging" in done.failed
    nothing_is_installed(newcomer)


def test_a_python_too_old_is_one_sentence(newcomer: Person) -> None:
    newcomer.command("python3", '[ "$1" = -V ] && echo Python 3.9.2', "exit 1")
    done = newcomer.install()
    assert done.code == 69
    assert done.sentence == "drain needs Python 3.11 or newer, and python3 here is Python 3.9.2."
    nothing_is_installed(newcomer)


def test_a_home_that_cannot_be_written_is_one_sentence(newcomer: Person) -> None:
    newcomer.home.chmod(0o555)
    done = newcomer.install()
    newcomer.home.chmod(0o755)
    assert done.code == 73
    assert done.sentence == f"cannot write to {newcomer.program}."
    assert list(newcomer.home.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
def test_on_a_full_disk_it_stops_with_one_sentence_and_with_room_it_goes_on(newcomer: Person, house: House) -> None:
    with small_disk(newcomer, "4m") as person:
        # As the environment is made, and as pip fills it.
        for size in ("4m", "40m"):
            person.resize(size)
            done = person.install()
            assert done.code == 73
            assert "disk is full" in done.sentence or "No space left" in done.sentence
            nothing_is_installed(person)
        person.resize("400m")
        assert person.install().code == 0
        # And from the settings on.
        shutil.rmtree(person.config)
        shutil.rmtree(person.state, ignore_errors=True)
        person.drain.unlink()
        for kilobytes in (0, 4, 8, 12, 20, 32):
            person.resize(f"{person.used + kilobytes}k")
            done = person.install()
            if done.code != 0:
                assert done.failed.splitlines()[-1].startswith("install.sh: ")
                assert "Traceback" not in done.failed
            nothing_is_half_done(person)
            person.resize("400m")
        assert person.install().code == 0
        delivers(house, person)
