"""What `drain setup maddy` would write, without a Maddy."""

import contextlib
import os
import pwd
import re
import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from drain.errors import ConfigError
from drain.relay.users import Users
from drain.setup import maddy, maddy_program, plan as planning
from drain.setup.changes import File
from drain.setup.maddy_people import People
from drain.setup.wanted import Wanted

SECRET = "correct-horse-battery"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
SMARTHOST = {"SMARTHOST_HOST": "smtp.example.net", "SMARTHOST_USER": "me", "SMARTHOST_PASS": SECRET}


def settings(folder: Path, **more: str) -> dict[str, str]:
    """An environment with a maddy on its PATH, which does nothing."""
    program = folder / "bin" / "maddy"
    program.parent.mkdir(exist_ok=True)
    program.touch(0o755)
    return {
        "PATH": str(program.parent),
        "DRAIN_ENV_FILE": str(folder / "drain.env"),
        "MADDY_CONFIG": str(folder / "maddy" / "maddy.conf"),
        "MAIL_DOMAIN": "example.test,second.test",
        "INJECT_USER": "drain",
        "INJECT_PASS": SECRET,
        **more,
    }


def wanted(folder: Path, **more: str) -> Wanted:
    """What it shall be with these settings."""
    environ = settings(folder, **more)
    return maddy.wanted(planning.make(environ), environ)


def file(made: Wanted, name: str) -> File:
    """The file of that name."""
    (found,) = [one for one in made.files if one.path.name == name]
    return found


def outgoing(folder: Path, **more: str) -> str:
    """The configuration of the way out."""
    return file(wanted(folder, **more), "drain-outgoing.conf").content.decode()


@pytest.mark.parametrize("way", [{}, {"RELAY_ENABLED": "true"}, SMARTHOST], ids=["none", "relay", "smarthost"])
def test_secrets_are_in_files_that_are_never_shown_and_that_others_cannot_read(
    tmp_path: Path, way: Mapping[str, str]
) -> None:
    made = wanted(tmp_path, STATE_DIR=str(tmp_path), **way)
    holders = [one for one in made.files if SECRET.encode() in one.content]
    assert all(one.secret for one in holders)
    assert len(holders) == bool(way)
    assert not any(one.mode & 0o007 for one in made.files if one.path.suffix == ".conf" or b"PRIVATE" in one.content)
    assert SECRET not in "".join((*made.closing, *(step.words for step in (*made.before, *made.after))))
    assert ("import drain-outgoing.conf" in file(made, "maddy.conf").content.decode()) == bool(way)


@pytest.mark.parametrize("password", ['a\\"b', "ends in \\", "{env:HOME}x", "a$(b)", "}", "two\x1blines"])
def test_a_password_that_maddy_would_read_as_something_else_is_refused_and_not_shown(
    tmp_path: Path, password: str
) -> None:
    with pytest.raises(ConfigError, match="SMARTHOST_PASS cannot be written") as error:
        wanted(tmp_path, **{**SMARTHOST, "SMARTHOST_PASS": password})
    assert password not in str(error.value).replace("{env: or $(", "").partition("It must")[0]


def test_a_password_with_blanks_and_quotes_stays_one_word(tmp_path: Path) -> None:
    text = outgoing(tmp_path, **{**SMARTHOST, "SMARTHOST_PASS": 'say "ü" # {now}'})
    assert 'auth plain me "say \\"ü\\" # {now}"\n' in text


@pytest.mark.parametrize(
    ("tls", "host", "lines"),
    [
        ("starttls", "a.test", ["targets tcp://a.test:587", "starttls yes"]),
        ("implicit", "a.test,b.test:2465", ["targets tls://a.test:465 tls://b.test:2465", "starttls no"]),
        ("none", "[::1]:2526", ["targets tcp://[::1]:2526", "starttls no"]),
    ],
)
def test_the_smarthost_is_reached_as_the_settings_say(tmp_path: Path, tls: str, host: str, lines: list[str]) -> None:
    text = outgoing(tmp_path, **{**SMARTHOST, "SMARTHOST_HOST": host, "SMARTHOST_TLS": tls})
    assert all(f"    {line}\n" in text for line in [*lines, f"auth plain me {SECRET}", "tls_client { }"])


def test_a_smarthost_without_a_login_gets_none(tmp_path: Path) -> None:
    assert "    auth off\n" in outgoing(tmp_path, SMARTHOST_HOST="smtp.example.net")


def test_maddy_gets_a_copy_of_the_smarthosts_ca(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(f"of the smarthost:\n{CERTIFICATE}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    made = wanted(tmp_path, SMARTHOST_TLS_CA_FILE=str(ca), **SMARTHOST)
    copy = file(made, "smarthost-ca.pem")
    assert copy.content == CERTIFICATE.encode(), "everybody may read it: nothing else of that file"
    assert f"tls_client {{ root_ca {copy.path} }}" in file(made, "drain-outgoing.conf").content.decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user wants root")
def test_the_smarthosts_ca_is_read_with_no_more_rights_than_who_owns_drain_env() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        ca, env_file = folder / "ca.pem", folder / "drain.env"
        ca.write_text(CERTIFICATE)
        env_file.touch()
        os.chown(env_file, 65534, 65534)
        way = {**SMARTHOST, "SMARTHOST_TLS_CA_FILE": str(ca)}
        assert file(wanted(folder, **way), "smarthost-ca.pem").content == CERTIFICATE.encode()
        ca.chmod(0o600)
        with pytest.raises(ConfigError, match="Permission denied"):
            wanted(folder, **way)


def test_a_domain_outside_ascii_is_refused_since_maddy_finds_no_mailbox_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot take mail for xn--bcher-kva\.example.*Use Postfix"):
        wanted(tmp_path, MAIL_DOMAIN="example.test,b\u00fccher.example")


def test_a_password_that_maddy_cannot_hash_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    wanted(tmp_path, INJECT_PASS="\u00fc" * 36)
    with pytest.raises(ConfigError, match="INJECT_PASS has more than 72 bytes"):
        wanted(tmp_path, INJECT_PASS="\u00fc" * 36 + "x")


@pytest.mark.parametrize(
    "line",
    ["dsn mymail.db", 'dsn "my mail.db" # here', "driver postgres", "table_name logins", "msg_store s3 { }"],
)
def test_a_configuration_with_other_databases_is_not_overwritten(tmp_path: Path, line: str) -> None:
    there = tmp_path / "maddy" / "maddy.conf"
    there.parent.mkdir()
    there.write_text(f"storage.imapsql mine {{\n    {line}\n}}\n")
    words = line.partition(" #")[0].replace('"', "")
    with pytest.raises(ConfigError, match=re.escape(f"maddy.conf has `{words}`")):
        wanted(tmp_path)
    state = tmp_path / "state"
    there.write_text(f'state_dir {state}\n# {line}\n    dsn {state}/imapsql.db\n    dsn "credentials.db" # logins\n')
    wanted(tmp_path)


@pytest.mark.parametrize(("name", "line"), [("remote_queue", ""), ("elsewhere/q", "location {}/elsewhere/q\n")])
def test_waiting_mail_is_not_left_in_a_queue_that_goes_away(tmp_path: Path, name: str, line: str) -> None:
    state = tmp_path / "maddy" / "state"
    queue = state / name
    queue.mkdir(parents=True)
    (tmp_path / "maddy" / "maddy.conf").write_text(f"state_dir {state}\n{line.format(state)}")
    wanted(tmp_path)
    for number in "12":
        (queue / f"{number}.meta").touch()
    for way in ({}, SMARTHOST):
        with pytest.raises(ConfigError, match=re.escape(f"2 in {queue}.")):
            wanted(tmp_path, **way)


def test_the_queue_of_the_smarthost_stays_as_long_as_there_is_one(tmp_path: Path) -> None:
    queue = tmp_path / "maddy" / "state" / "outgoing"
    queue.mkdir(parents=True)
    way = file(wanted(tmp_path, **SMARTHOST), "drain-outgoing.conf")
    way.path.write_bytes(way.content)
    (queue / "1.meta").touch()
    assert not any("remove it" in words for words in wanted(tmp_path, **SMARTHOST).closing)
    with pytest.raises(ConfigError, match="1 in "):
        wanted(tmp_path)
    (queue / "1.meta").unlink()
    assert any(f"{way.path} is of no use any more and has passwords" in words for words in wanted(tmp_path).closing)


def test_folders_and_ports_that_are_there_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "maddy"
    folder.mkdir()
    (folder / "maddy.conf").write_text(
        'state_dir "/srv/my mail"\nruntime_dir /run/mine\nimap tcp://127.0.0.1:1143 {\n}\nlmtp tcp://0.0.0.0:24 {\n}\n'
    )
    (folder / "drain-outgoing.conf").write_text("submission tcp://127.0.0.1:1587 {\n}\n")
    made = wanted(tmp_path, **SMARTHOST)
    text = file(made, "maddy.conf").content.decode()
    for line in (
        'state_dir "/srv/my mail"',
        "runtime_dir /run/mine",
        "imap tcp://127.0.0.1:1143 {",
        f"lmtp tcp://127.0.0.1:{maddy.LMTP_PORT} {{",
    ):
        assert f"{line}\n" in text
    assert "submission tcp://127.0.0.1:1587 {" in file(made, "drain-outgoing.conf").content.decode()
    assert "port 1143" in "".join(made.closing)


def test_the_relays_login_is_kept_as_long_as_the_relay_takes_it(tmp_path: Path) -> None:
    relay = {"STATE_DIR": str(tmp_path), "RELAY_ENABLED": "true"}
    made = wanted(tmp_path, **relay)
    assert [step.done() for step in made.before] == [False]
    for step in made.before:
        step.do()
    first = file(made, "drain-outgoing.conf")
    first.path.parent.mkdir()
    first.path.write_bytes(first.content)
    again = wanted(tmp_path, **relay)
    assert (file(again, "drain-outgoing.conf").content, [step.done() for step in again.before]) == (
        first.content,
        [True],
    )
    Users(tmp_path / "relay-users").remove(maddy.RELAY_USER)
    assert file(wanted(tmp_path, **relay), "drain-outgoing.conf").content != first.content


def test_with_a_user_for_maddy_the_files_are_its_groups_and_its_commands_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = pwd.struct_passwd(("maddy", "x", 4711, 4712, "", "/", "/bin/false"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: known if name == "maddy" else None)
    made = wanted(tmp_path, **SMARTHOST)
    modes = {one.path.name: (one.mode, one.owner) for one in made.files}
    private = (0o640, (0, 4712))
    for name in ("maddy.conf", "drain-outgoing.conf", "certificate-key.pem"):
        assert modes[name] == private, name
    assert any(f"`runuser -u maddy -- maddy --config {tmp_path}" in words for words in made.closing)
    assert sum("is made, for Maddy alone" in step.words for step in made.before) == 2


def test_without_a_maddy_it_says_where_to_get_one(tmp_path: Path) -> None:
    environ = settings(tmp_path)
    (tmp_path / "bin" / "maddy").unlink()
    with pytest.raises(ConfigError, match=r"not on this machine\. Put the program of its release"):
        maddy.wanted(planning.make(environ), environ)


def test_nothing_is_changed_by_looking(tmp_path: Path) -> None:
    before = settings(tmp_path, RELAY_ENABLED="true", STATE_DIR=str(tmp_path / "state"))
    made = maddy.wanted(planning.make(before), before)
    assert [step.done() for step in (*made.before, *made.after)].count(True) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_every_listener_of_the_templates_is_on_loopback() -> None:
    templates = Path(maddy.__file__).parents[1] / "templates"
    for name in ("maddy.conf", "maddy-relay.conf", "maddy-smarthost.conf"):
        text = (templates / name).read_text()
        found: list[Any] = re.findall(r"^(?:smtp|lmtp|imap|submission) (\S+) \{", text, re.MULTILINE)
        assert found, name
        assert all(re.fullmatch(r"tcp://127\.0\.0\.1:@[A-Z_]+@", one) for one in found)


class Deaf(maddy_program.Maddy):
    """One whose commands end well and do nothing, but for each third."""

    asked: ClassVar[list[str]] = []

    def run(self, *words: str, stdin: bytes = b"") -> str:
        """Makes a mailbox in the third attempt."""
        self.asked.append(words[-1])
        if words[:2] == ("imap-acct", "create") and len(self.asked) % 3 == 0:
            with contextlib.closing(sqlite3.connect(self.config.parent / "imapsql.db")) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS users (username)")
                database.execute("INSERT INTO users VALUES (?)", words[-1:])
        return ""


def test_what_maddy_only_seemed_to_do_is_done_again_and_in_the_end_said(tmp_path: Path) -> None:
    environ = settings(tmp_path)
    deaf = Deaf(tmp_path / "maddy.conf", Path("/"), "", None, environ)
    login, mailbox, *_ = People(planning.make(environ), deaf, tmp_path, ask=False).steps()
    mailbox.do()
    assert mailbox.done()
    assert Deaf.asked == ["admin@example.test"] * 3
    mailbox.do()
    assert len(Deaf.asked) == 3, "it is there"
    with pytest.raises(ConfigError, match="The login drain is not changed"):
        login.do()
    with pytest.raises(ConfigError, match="says nothing of"):
        deaf.verify()
