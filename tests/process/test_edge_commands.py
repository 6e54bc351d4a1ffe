"""`drain keygen`, `drain open` and `drain publish-recipients`, as a person runs them."""

import hashlib
import hmac
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from drain.demo.s3 import Fault
from tests.sealing import KEY, key_files, seal
from tests.support import MAIL, House, on_verb

TOKEN = "correct horse"


def drain(house: House, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "drain", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(house.state_dir.parent), **house.environ(**settings)},
        capture_output=True,
        timeout=60,
        check=False,
    )


def bare(home: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[bytes]":
    """On a machine where nothing is set up."""
    return subprocess.run(
        [sys.executable, "-m", "drain", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(home), **settings},
        capture_output=True,
        timeout=60,
        check=False,
    )


# -- keygen --


def test_keygen_needs_no_settings_and_its_key_opens_mail(tmp_path: Path) -> None:
    done = bare(tmp_path, "keygen")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / ".config/drain"
    assert {path.name for path in folder.iterdir()} == {"drain-key.pem", "drain-key.pub.pem", "origin-token"}
    assert f"PRIVATE_KEY_FILE={folder}/drain-key.pem" in done.stdout.decode()
    again = bare(tmp_path, "keygen")
    assert again.returncode == 0
    assert again.stdout.replace(b", there already", b"") == done.stdout


def test_keygen_rotate_adds_a_key_to_the_one_in_use(tmp_path: Path) -> None:
    (key,) = key_files(tmp_path, KEY)
    env_file = tmp_path / "drain.env"
    env_file.write_text(f"PRIVATE_KEY_FILE={key}\n")
    env_file.chmod(0o600)
    done = bare(tmp_path, "keygen", "--rotate", DRAIN_ENV_FILE=str(env_file))
    assert done.returncode == 0, done.stderr
    assert f"Put into {env_file}, and restart drain" in done.stdout.decode()
    assert (tmp_path / "drain-key-2.pem").exists()


# -- open --


def test_open_writes_the_mail_in_a_file_and_its_envelope_beside(tmp_path: Path) -> None:
    raw = b"Subject: \xff\x00\r\n\r\nx"
    (key,) = key_files(tmp_path, KEY)
    sealed = tmp_path / "object"
    sealed.write_bytes(seal(raw))
    done = bare(tmp_path, "open", str(sealed), PRIVATE_KEY_FILE=str(key))
    assert done.returncode == 0
    assert done.stdout == raw
    assert b"kind: sealed  to: alice@example.test  from: <bob@y.test>  received: 2026-03-02T10:00:00Z" in done.stderr


def test_open_finds_an_object_in_the_bucket(house: House, tmp_path: Path) -> None:
    (key,) = key_files(tmp_path, KEY)
    house.put("pla in")
    done = drain(house, "open", "pending/pla in")
    assert (done.returncode, done.stdout) == (0, MAIL)
    assert b"to: alice@example.test" in done.stderr
    house.put("sealed", seal(), metadata={})
    assert drain(house, "open", "pending/sealed", PRIVATE_KEY_FILE=str(key)).stdout.endswith(b"hello\r\n")
    assert len(house.keys("pending/")) == 2, "looking changes nothing"


def test_open_takes_the_beginning_of_a_name_and_names_what_is_odd(house: House, tmp_path: Path) -> None:
    house.put("abcdef")
    assert drain(house, "open", "pending/abc").stdout == MAIL
    house.put("abcxyz")
    assert drain(house, "open", "pending/abc").returncode == 66
    assert drain(house, "open", "x" * 300).returncode == 66
    (key,) = key_files(tmp_path, KEY)
    assert drain(house, "open", str(key)).returncode == 65


def test_open_shows_what_drain_would_not_believe_and_says_so(tmp_path: Path) -> None:
    (key,) = key_files(tmp_path, KEY)
    sealed = tmp_path / "object"
    sealed.write_bytes(seal(header={"token": "guess"}))
    done = bare(tmp_path, "open", str(sealed), PRIVATE_KEY_FILE=str(key), ORIGIN_TOKEN=TOKEN)
    assert done.returncode == 0
    assert done.stdout.endswith(b"hello\r\n")
    assert b"would not deliver it: It has another ORIGIN_TOKEN" in done.stderr
    assert TOKEN.encode() not in done.stderr


def test_open_says_why_there_is_no_mail(house: House, tmp_path: Path) -> None:
    (key,) = key_files(tmp_path, KEY)
    path = tmp_path / "object"
    path.write_bytes(seal()[:-1])
    damaged = bare(tmp_path, "open", str(path), PRIVATE_KEY_FILE=str(key))
    assert (damaged.returncode, damaged.stdout) == (65, b"")
    assert b"It is sealed, but it was changed or cut off" in damaged.stderr
    assert bare(tmp_path, "open", str(path)).returncode == 78
    absent = drain(house, "open", "pending/nothing")
    assert absent.returncode == 66
    assert b"There is neither a file pending/nothing here nor an object" in absent.stderr
    assert b"Traceback" not in damaged.stderr + absent.stderr


def test_open_does_not_let_a_mail_move_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "mail"
    path.write_bytes(b"Subject: \x1b]0;owned\x07 x\r\n\r\nfirst\r\n\tsecond\r\n")
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "drain", "open", str(path)], env={"HOME": str(tmp_path)}, stdout=slave, stderr=slave
    ) as process:
        assert process.wait(60) == 0
    os.close(slave)
    shown = os.read(master, 65536)
    os.close(master)
    assert b"\x1b" not in shown
    assert b"first\r\n    second" in shown


# -- publish-recipients --


def published(house: House) -> dict[str, object]:
    """What the Worker would read."""
    first, mac, content = house.s3.objects["config/recipients"].body.decode().split("\n")
    assert mac == hmac.new(TOKEN.encode(), f"{first}\n{content}".encode(), hashlib.sha256).hexdigest()
    return dict(json.loads(content))


@pytest.fixture
def settings(house: House, tmp_path: Path) -> dict[str, str]:
    house.smtp.mailboxes |= {"alice@example.test"}
    house.smtp.mailboxes -= {"inbox@example.test"}
    users = tmp_path / "users"
    users.write_text("alice\ngone\n")
    return {"MAIL_USERS_FILE": str(users), "ORIGIN_TOKEN": TOKEN, "INJECT_RCPT": "none"}


def test_the_list_is_shown_and_published(house: House, settings: dict[str, str]) -> None:
    done = drain(house, "publish-recipients", **settings)
    assert done.returncode == 0, done.stderr
    words = done.stdout.decode()
    assert "alice@example.test\n" in words
    assert "postmaster@example.test\n" in words, "a role, since there is an admin"
    assert "gone" not in words
    assert "Anybody else at example.test is refused" in words
    assert "MAIL_USERS_FILE names gone, which the mail server does not have" in done.stderr.decode()
    assert "admin@example.test\n" in words, "in no list, but the roles' mail goes there"
    hashes = published(house)["hashes"]
    assert isinstance(hashes, list)
    assert len(hashes) == len(words.split("These")[0].splitlines()) + 1, "and the domain"
    assert house.smtp.filed == []


def test_a_dry_run_only_shows_it(house: House, settings: dict[str, str]) -> None:
    done = drain(house, "publish-recipients", "--dry-run", **settings)
    assert b"alice@example.test" in done.stdout
    assert house.keys() == []


def test_with_a_catch_all_the_list_refuses_nobody(house: House, settings: dict[str, str]) -> None:
    house.smtp.mailboxes |= {"inbox@example.test"}
    done = drain(house, "publish-recipients", **{**settings, "INJECT_RCPT": "inbox"})
    assert b"Nobody is refused" in done.stdout
    hashes = published(house)["hashes"]
    salt = published(house)["salt"]
    domain = hmac.new(TOKEN.encode(), f"drain recipient v1\n{salt}\n@example.test".encode(), hashlib.sha256)
    assert isinstance(hashes, list)
    assert domain.hexdigest()[:32] not in hashes


def test_who_got_mail_before_is_asked_for_even_if_no_list_names_him(house: House, settings: dict[str, str]) -> None:
    house.smtp.mailboxes |= {"forgotten@example.test"}
    house.put("x", to="Forgotten@example.test")
    assert drain(house, "once").returncode == 0
    assert b"forgotten@example.test\n" in drain(house, "publish-recipients", **settings).stdout


@pytest.mark.parametrize("reply", ["451 4.3.0 not now", "554 5.7.1 Relay access denied"])
def test_an_unclear_answer_publishes_nothing(house: House, settings: dict[str, str], reply: str) -> None:
    house.smtp.answer = on_verb("RCPT", *[reply] * 99)
    done = drain(house, "publish-recipients", **settings)
    assert done.returncode == 75
    assert b"Nothing was published" in done.stderr
    assert house.keys() == []


def test_without_a_token_or_a_list_nothing_is_published(house: House, settings: dict[str, str]) -> None:
    done = drain(house, "publish-recipients", **{**settings, "ORIGIN_TOKEN": ""})
    assert (done.returncode, b"ORIGIN_TOKEN is not set" in done.stderr) == (78, True)
    Path(settings["MAIL_USERS_FILE"]).write_text("nobody-here\n")
    done = drain(house, "publish-recipients", **{**settings, "PATH": "/nowhere"})
    assert (done.returncode, b"No list of mailboxes was found" in done.stderr) == (78, True)
    assert house.keys() == []


def test_a_bucket_that_does_not_take_the_list_is_said(house: House, settings: dict[str, str]) -> None:
    house.s3.fault = lambda operation, _key: (
        Fault(status=403, code="AccessDenied") if operation == "PutObject" else None
    )
    done = drain(house, "publish-recipients", **settings)
    assert done.returncode == 77
    assert b"Object Read & Write" in done.stderr


def test_the_list_can_be_taken_away(house: House, settings: dict[str, str]) -> None:
    drain(house, "publish-recipients", **settings)
    done = drain(house, "publish-recipients", "--remove", **settings)
    assert b"is gone from bucket" in done.stdout
    assert house.keys() == []
