"""The relay's users: their file, their passwords."""

import contextlib
import json
import os
import stat
import threading
import time
from argparse import Namespace
from pathlib import Path

import filelock
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drain.commands import relay_user
from drain.errors import ConfigError, NoInput, Unavailable, Unusable
from drain.relay import users as module
from drain.relay.users import Users

LN = 4  # cheap


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay-users"


@pytest.fixture
def users(path: Path) -> Users:
    made = Users(path, ln=LN)
    made.add("alice", b"correct horse", ("@example.org",))
    return made


def test_only_the_right_password_of_a_user_passes(users: Users) -> None:
    assert users.check("alice", b"correct horse")
    assert not users.check("alice", b"correct horsE")
    assert not users.check("Alice", b"correct horse")
    assert not users.check("bob", b"correct horse")
    assert not users.check("alice", b"")
    assert not users.check("alice", b"x" * 5000)


def test_the_file_is_for_its_owner_only_and_holds_no_password(users: Users, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"correct horse" not in path.read_bytes()
    assert not list(path.parent.glob("*.new"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_read_or_write_lets_nobody_in(users: Users, path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        users.check("alice", b"correct horse")
    path.chmod(0o600)
    assert users.check("alice", b"correct horse")


@pytest.mark.skipif(os.geteuid() != 0, reason="wants root to give a file away")
def test_a_file_of_another_user_lets_nobody_in(users: Users, path: Path) -> None:
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to another"):
        users.check("alice", b"correct horse")


def test_a_pipe_in_place_of_the_file_holds_nobody(path: Path) -> None:
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="not a file"):
        Users(path).check("alice", b"x")


def test_a_missing_file_lets_nobody_in_and_says_what_writes_it(path: Path) -> None:
    with pytest.raises(ConfigError, match="drain relay user add"):
        Users(path).check("alice", b"x")
    assert Users(path).names() == ()


def test_what_another_process_changes_counts_at_once(users: Users, path: Path) -> None:
    assert users.check("alice", b"correct horse")
    other = Users(path, ln=LN)
    assert other.add("alice", b"another") is True
    assert not users.check("alice", b"correct horse")
    assert users.check("alice", b"another")
    assert other.remove("alice")
    assert not users.check("alice", b"another")


def test_a_file_that_is_broken_while_we_run_lets_nobody_in_until_it_is_mended(users: Users, path: Path) -> None:
    assert users.check("alice", b"correct horse")
    good = path.read_bytes()
    path.write_bytes(good + b"rubbish\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match="Line 3"):
            users.check("alice", b"correct horse")
        with pytest.raises(ConfigError, match="Line 3"):
            users.remembers("alice", b"correct horse")
    with pytest.raises(ConfigError, match="Line 3"):
        users.add("bob", b"x")
    path.write_bytes(good)
    assert users.check("alice", b"correct horse")


@pytest.mark.parametrize(
    "cost",
    [
        "ln=15,r=64,p=1",
        "ln=20,r=8,p=1",
        "ln=30,r=8,p=1",
        "ln=99,r=1,p=1",
        "ln=15,r=8,p=9",
        "ln=0,r=8,p=1",
        "ln=4,r=0,p=1",
    ],
)
def test_a_line_cannot_ask_for_memory_or_time_without_end(users: Users, path: Path, cost: str) -> None:
    path.write_text(path.read_text().replace(f"ln={LN},r=8,p=1", cost))
    began = time.monotonic()
    with pytest.raises(ConfigError, match="Line 2"):
        users.check("alice", b"correct horse")
    assert time.monotonic() - began < 1


@given(
    st.text(max_size=120) | st.from_regex(r"[a-z]{1,5}:\$scrypt\$ln=\d+,r=\d+,p=\d\$[A-Za-z0-9+/=]*\$[A-Za-z0-9+/]*:.*")
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_does_anything_but_be_read_or_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "any"
    path.write_bytes(line.encode("utf-8", "replace") + b"\n")
    path.chmod(0o600)
    names: tuple[str, ...] = ()
    with contextlib.suppress(ConfigError):
        names = Users(path).names()
    assert all(line.startswith(f"{name}:$scrypt$ln=") or f"\n{name}:$scrypt$ln=" in line for name in names)


def test_a_user_twice_is_refused(users: Users, path: Path) -> None:
    path.write_bytes(path.read_bytes() + path.read_bytes())
    with pytest.raises(ConfigError, match="second time"):
        users.names()


@pytest.mark.parametrize("name", ["", "a b", "a:b", "#a", "ä", "x" * 65, "a\nb", "a\x00"])
def test_a_name_that_would_break_the_file_is_refused(users: Users, path: Path, name: str) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="cannot be the name"):
        users.add(name, b"x")
    assert path.read_bytes() == before


@pytest.mark.parametrize("password", [b"", b"a\0b", b"x" * 1025])
def test_a_password_that_no_client_could_send_is_refused(users: Users, password: bytes) -> None:
    with pytest.raises(ConfigError, match="1 to 1024"):
        users.add("bob", password)


@given(st.binary(min_size=1, max_size=200).filter(lambda password: 0 not in password))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_password(tmp_path: Path, password: bytes) -> None:
    users = Users(tmp_path / "bytes", ln=1)
    users.add("carol", password)
    assert users.check("carol", password)
    assert not users.check("carol", password + b"x")


def test_senders_are_kept_and_none_means_all(users: Users, path: Path) -> None:
    users.add("bob", b"x")
    again = Users(path)
    assert again.senders("alice") == ("@example.org",)
    assert again.senders("bob") == ()
    with pytest.raises(ConfigError, match="no user carol"):
        again.senders("carol")


def test_two_who_add_at_once_lose_nobody(path: Path) -> None:
    names = [f"u{number}" for number in range(8)]
    threads = [threading.Thread(target=Users(path, ln=1).add, args=(name, b"x")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(Users(path).names()) == names


def test_who_waits_too_long_for_another_writer_is_told(
    users: Users, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOCK_WAIT_SECONDS", 0.05)
    with filelock.FileLock(f"{path}.lock"), pytest.raises(Unavailable, match="Another process"):
        users.add("bob", b"x")


def test_a_disk_that_fails_leaves_the_file_as_it_was(users: Users, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space"):
        users.add("bob", b"x")
    assert path.read_bytes() == before


def test_an_unknown_name_costs_one_scrypt_like_a_wrong_password(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[tuple[int, int, int]] = []
    real = module._scrypt

    def counting(password: bytes, salt: bytes, ln: int, r: int, p: int) -> bytes:
        costs.append((ln, r, p))
        return real(password, salt, ln, r, p)

    monkeypatch.setattr(module, "_scrypt", counting)
    for name, password in (("alice", b"wrong"), ("nobody", b"wrong"), ("alice", b""), ("alice", b"x" * 5000)):
        assert not users.check(name, password)
    assert costs == [(LN, 8, 1)] * 4


def test_only_a_right_password_is_remembered_and_costs_nothing_then(
    users: Users, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not users.check("alice", b"wrong")
    assert not users.remembers("alice", b"wrong")
    assert not users.remembers("alice", b"correct horse")
    assert users.check("alice", b"correct horse")
    assert users.remembers("alice", b"correct horse")
    with monkeypatch.context() as patched:
        patched.setattr(module, "_scrypt", None)
        assert users.check("alice", b"correct horse")
    Users(path, ln=LN).add("bob", b"x")
    assert not users.remembers("alice", b"correct horse"), "the file has changed"


def environ(path: Path) -> dict[str, str]:
    return {"RELAY_USERS_FILE": str(path), "DRAIN_ENV_FILE": "/dev/null"}


class Input:
    """Standard input that is not a terminal."""

    def __init__(self, content: bytes) -> None:
        import io

        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


def test_the_commands_add_list_and_remove(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Input(b"a longer p\xc3\xa4ss word\r\nsecond line"))
    assert relay_user.add(Namespace(name="alice", senders="@Example.org"), environ(path)) == 0
    out = capsys.readouterr()
    assert "alice may log in" in out.out
    assert Users(path).check("alice", "a longer päss word".encode())
    relay_user.list_(Namespace(json=True), environ(path))
    assert json.loads(capsys.readouterr().out) == {"user": "alice", "senders": ["@example.org"]}
    assert relay_user.remove(Namespace(name="alice"), environ(path)) == 0
    with pytest.raises(NoInput):
        relay_user.remove(Namespace(name="alice"), environ(path))
    capsys.readouterr()
    relay_user.list_(Namespace(json=False), environ(path))
    assert "no users" in capsys.readouterr().out


def test_a_password_that_can_be_guessed_is_not_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Input(b"eleven char\n"))
    with pytest.raises(Unusable, match="can be guessed"):
        relay_user.add(Namespace(name="alice", senders=""), environ(path))
    assert not path.exists()


def test_a_person_types_the_password_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    typed = iter(["a long password", "another password"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    with pytest.raises(Unusable, match="not the same"):
        relay_user.add(Namespace(name="alice", senders=""), environ(path))
    assert not path.exists()


def test_senders_that_are_none_are_refused(path: Path) -> None:
    with pytest.raises(Unusable, match="no senders"):
        relay_user.add(Namespace(name="alice", senders="example.org"), environ(path))
