"""`drain setup maddy` with a real Maddy: what it writes runs, is proven, and stays as it is."""

import multiprocessing
import os
import re
import signal
import smtplib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from drain.setup import maddy_program, template
from drain.setup.maddy_program import Maddy
from tests.real.maddy import maddy_binary
from tests.real.maddy_home import DOMAIN, Home, home
from tests.real.relay import RealRelay
from tests.real.smarthost import smarthost
from tests.support import free_port, until

pytestmark = [
    pytest.mark.maddy,
    pytest.mark.skipif(maddy_binary() is None, reason="no maddy on PATH"),
]
ALICE = f"alice@{DOMAIN}"
PASSWORD = "correct horse battery"
MAIL = b"From: alice@example.test\r\nTo: b@example.net\r\nSubject: s\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.test>\r\n\r\nhello\r\n"


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    with home(monkeypatch, Home) as made:
        yield made


def test_it_is_set_up_started_proven_and_then_as_it_should_be(
    at_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert at_home.setup() == os.EX_TEMPFAIL, "nothing is there to be asked about, and nothing here starts it"
    said = capsys.readouterr()
    assert "not proven" in said.err
    assert f"maddy --config {at_home.config} run" in said.err
    assert at_home.setting("INJECT_PASS") not in said.out + said.err

    at_home.start()
    assert at_home.setup() == os.EX_OK
    proof = capsys.readouterr().out
    for words in ("no mail from who has not logged in", "takes the login of drain", f"inbox@{DOMAIN}, admin@{DOMAIN}"):
        assert words in proof
    assert f"creds create admin@{DOMAIN}" in proof, "how to make a login"

    before = at_home.tree()
    assert at_home.setup() == os.EX_OK
    assert "as it should be" in capsys.readouterr().out
    assert at_home.tree() == before
    assert (at_home.env_file.stat().st_mode | at_home.config.stat().st_mode) & 0o007 == 0


def test_it_listens_on_loopback_only(at_home: Home) -> None:
    at_home.proven()
    listeners = re.findall(r"^\w+ (\S+) \{", at_home.config.read_text(), re.MULTILINE)
    endpoints = [one for one in listeners if "://" in one]
    assert len(endpoints) == 3
    assert all(one.startswith("tcp://127.0.0.1:") for one in endpoints)


def test_what_somebody_else_has_configured_is_shown_and_asked_about(
    at_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = b"hostname mx.theirs.test\nimap tcp://127.0.0.1:12345 {\n}\n"
    at_home.config.parent.mkdir()
    at_home.config.write_bytes(theirs)
    at_home.config.chmod(0o640)

    assert at_home.setup() == os.EX_USAGE, "there is nobody to ask"
    assert at_home.setup(typed="n\n") == os.EX_OK
    assert "-hostname mx.theirs.test" in capsys.readouterr().out
    assert [file.name for file in at_home.config.parent.iterdir()] == ["maddy.conf"]
    assert at_home.config.read_bytes() == theirs

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("getpass.getpass", lambda prompt: "")
        assert at_home.setup(typed="y\n") == os.EX_TEMPFAIL
    kept = at_home.config.with_name("maddy.conf.before-drain")
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (theirs, 0o640)
    assert "imap tcp://127.0.0.1:12345 {" in at_home.config.read_text(), "the port that its mail programs know"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user wants root")
def test_what_is_maddys_belongs_to_its_user(at_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maddy_program, "_USER", "nobody")
    at_home.user = "nobody"
    at_home.proven()
    folder = at_home.config.parent
    assert {path.owner() for name in ("state", "run") for path in (folder / name, *(folder / name).iterdir())} == {
        "nobody"
    }
    assert {path.owner() for path in folder.iterdir() if path.is_file()} == {"root"}, "it cannot change its own rules"


def test_a_configuration_that_maddy_does_not_take_is_put_back(at_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home.proven()
    before = at_home.config.read_bytes()
    monkeypatch.setattr("drain.setup.template.filled", lambda name, values: "no_such_directive yes\n")
    assert at_home.setup("--yes") == os.EX_CONFIG
    assert at_home.config.read_bytes() == before


def test_a_server_that_was_not_started_again_is_not_taken_for_the_one_that_was_set_up(
    at_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    at_home.proven()
    at_home.set(MAIL_DOMAIN=f"{DOMAIN},second.test")
    assert at_home.setup("--yes") == os.EX_TEMPFAIL
    assert at_home.setup("--yes") == os.EX_TEMPFAIL, "it runs with the old files still"
    assert "End the one that runs, and start it" in capsys.readouterr().err
    assert "setup.unfinished" in at_home.tree()
    at_home.restart()
    assert at_home.setup() == os.EX_OK
    assert "setup.unfinished" not in at_home.tree()


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("\nlmtp tcp://127.0.0.1:", "\nlmtp tcp://0.0.0.0:", "answers at 127.0.0.2 too"),
        (
            "    check &inject_user_only\n    # Maddy talks",
            "    # Maddy talks",
            "(lmtp) takes mail without a login",
        ),
        ("    dmarc no\n", "    dmarc no\n    insecure_auth yes\n", "(smtp) takes a password before there is TLS"),
        ("    storage &local_mailboxes\n", "    storage &local_mailboxes\n    insecure_auth yes\n", "(imap) takes"),
        (
            f"    destination {DOMAIN} {{",
            f'    destination {ALICE} {{\n        reject 550 5.1.1 "no"\n    }}\n    destination {DOMAIN} {{',
            f"refuses mail for {ALICE}",
        ),
    ],
    ids=["on every address", "LMTP without AUTH", "SMTP in the clear", "IMAP in the clear", "no such mailbox"],
)
def test_a_template_with_a_hole_is_not_proven(
    at_home: Home,
    right: str,
    wrong: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = template.filled

    def with_a_hole(name: str, values: Mapping[str, str]) -> str:
        text = filled(name, values)
        assert right in text
        return text.replace(right, wrong, 1)

    monkeypatch.setattr(template, "filled", with_a_hole)
    assert at_home.setup("--yes", "--mailbox", ALICE) == os.EX_TEMPFAIL
    at_home.start()
    assert at_home.setup("--mailbox", ALICE) == os.EX_CONFIG
    assert words in capsys.readouterr().err


def test_mail_that_waits_for_the_smarthost_is_not_left_behind(
    at_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    at_home.set(SMARTHOST_HOST=f"127.0.0.1:{free_port()}", SMARTHOST_TLS="none")
    at_home.proven("--mailbox", ALICE)
    at_home.login(ALICE, PASSWORD)
    at_home.submit(MAIL, ALICE, PASSWORD, "b@example.net")
    before = at_home.tree()
    assert at_home.setup("--yes", "--outbound", "none") == os.EX_CONFIG
    assert f"1 in {at_home.config.parent}/state/outgoing" in capsys.readouterr().err
    assert at_home.tree() == before
    at_home.stop()
    for mail in (at_home.config.parent / "state/outgoing").iterdir():
        mail.unlink()
    at_home.proven("--outbound", "none")
    assert "drain-outgoing.conf is of no use any more" in capsys.readouterr().out


def test_a_domain_and_a_mailbox_that_are_added_get_mail(at_home: Home) -> None:
    at_home.proven()
    assert at_home.inject(MAIL, "bob@second.test").code == 550
    at_home.set(MAIL_DOMAIN=f"{DOMAIN},second.test")
    at_home.proven("--mailbox", "bob@second.test")
    assert at_home.inject(MAIL, "bob@second.test").positive


def test_a_mail_of_25_mib_arrives_as_it_was(at_home: Home) -> None:
    at_home.proven("--mailbox", ALICE)
    line = b"0123456789 abcdefghijklmnopqrstuvwxyz \xe9\xff ABCDEFGHIJKLMNOPQRST\r\n"
    head = b"From: a@x.test\r\nSubject: large\r\n\r\n"
    raw = head + line * ((25 * 1024 * 1024 - len(head)) // len(line))
    assert at_home.inject(raw, ALICE).positive
    at_home.login(ALICE, PASSWORD)
    (filed,) = at_home.mails(ALICE, PASSWORD)
    assert filed.endswith(raw)


def test_a_person_at_a_terminal_is_asked_for_passwords_of_mailboxes(
    at_home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = {ALICE: ["short", PASSWORD, "another password", PASSWORD, PASSWORD]}
    current = [""]

    def getpass(prompt: str) -> str:
        if found := re.search(r"of (\S+) ", prompt):
            current[0] = found[1]
        return typed[current[0]].pop(0) if current[0] in typed else ""

    monkeypatch.setattr("getpass.getpass", getpass)
    assert at_home.setup("--mailbox", ALICE, typed="") == os.EX_TEMPFAIL
    said = capsys.readouterr()
    assert "not the same" in said.out
    assert PASSWORD not in said.out + said.err
    assert typed[ALICE] == []
    at_home.start()
    assert at_home.mails(ALICE, PASSWORD) == []
    assert ALICE in at_home.command("creds", "list").split()
    assert f"admin@{DOMAIN}" not in at_home.command("creds", "list").split(), "whoever gave none has none"


def test_a_password_that_changed_in_drain_env_is_mended(at_home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    at_home.proven()
    at_home.set(INJECT_PASS="another one, with blanks")
    capsys.readouterr()
    assert at_home.setup() == os.EX_OK
    assert "login drain gets the password" in capsys.readouterr().out
    with at_home.session() as session:
        assert session.noop().positive


def test_its_login_is_checked_cheaply(at_home: Home) -> None:
    at_home.proven()
    at_home.set(INJECT_PASS="another password")
    assert at_home.setup() == os.EX_OK
    hashes = (at_home.config.parent / "state" / "credentials.db").read_bytes()
    assert re.findall(rb"bcrypt:\$2a\$(\d+)\$", hashes)[0] == b"04"


def test_outgoing_mail_goes_through_the_relay(at_home: Home, tmp_path: Path) -> None:
    with smarthost(tmp_path) as host:
        relay = RealRelay(tmp_path, host, None)
        at_home.set(STATE_DIR=str(relay.state_dir), RELAY_ENABLED="true", RELAY_PORT=str(relay.port))
        at_home.proven("--mailbox", ALICE)
        at_home.login(ALICE, PASSWORD)
        before = at_home.tree()
        assert at_home.setup() == os.EX_OK
        assert at_home.tree() == before, "the relay's login is kept"
        with relay:
            at_home.submit(MAIL, ALICE, PASSWORD, "b@example.net")
            (arrived,) = relay.arrived()
        assert (arrived.sender, arrived.recipient) == (ALICE, "b@example.net")
        with pytest.raises(smtplib.SMTPResponseException):
            at_home.submit(MAIL, ALICE, "wrong", "b@example.net")


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_outgoing_mail_goes_straight_to_the_smarthost(at_home: Home, tmp_path: Path, tls: str) -> None:
    with smarthost(tmp_path) as host:
        at_home.set(
            SMARTHOST_HOST=f"127.0.0.1:{host.port if tls == 'starttls' else host.tls_port}",
            SMARTHOST_TLS=tls,
            SMARTHOST_USER=host.user,
            SMARTHOST_PASS=host.password,
            SMARTHOST_TLS_CA_FILE=str(host.ca_file),
        )
        at_home.proven("--mailbox", ALICE)
        at_home.login(ALICE, PASSWORD)
        at_home.submit(MAIL, ALICE, PASSWORD, "b@example.net")
        until(host.mails)
        (arrived,) = host.mails()
        assert (arrived.sender, arrived.recipient) == (ALICE, "b@example.net")

        at_home.submit(MAIL, ALICE, PASSWORD, "unknown@example.net")
        until(lambda: at_home.mails(ALICE, PASSWORD))
        (report,) = at_home.mails(ALICE, PASSWORD)
        assert b"unknown@example.net" in report
        assert host.password not in at_home.config.read_text()
        assert at_home.config.with_name("drain-outgoing.conf").stat().st_mode & 0o007 == 0


def test_a_smarthost_that_is_somebody_else_gets_nothing(at_home: Home, tmp_path: Path) -> None:
    from tests.real.smarthost import authority

    with smarthost(tmp_path) as host:
        other = tmp_path / "other.pem"
        other.write_bytes(authority("another CA").pem)
        at_home.set(
            SMARTHOST_HOST=f"127.0.0.1:{host.port}",
            SMARTHOST_USER=host.user,
            SMARTHOST_PASS=host.password,
            SMARTHOST_TLS_CA_FILE=str(other),
        )
        at_home.proven("--mailbox", ALICE)
        at_home.login(ALICE, PASSWORD)
        at_home.submit(MAIL, ALICE, PASSWORD, "b@example.net")
        log = at_home.folder / "maddy.log"
        until(lambda: "certificate signed by unknown authority" in log.read_text(), words=log.read_text)
        assert host.mails() == []


def test_another_program_on_its_port_is_not_taken_for_maddy(
    at_home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_home.proven()
    at_home.stop()
    with home(monkeypatch, Home) as other:
        other.set(INJECT_PORT=str(at_home.port))
        other.port = at_home.port
        assert other.setup() == os.EX_TEMPFAIL
        other.start()
        capsys.readouterr()
        assert at_home.setup() == os.EX_TEMPFAIL
        assert "End the one that runs, and start it" in capsys.readouterr().err


def _killed_at(at_home: Home, number: int) -> bool:
    """Sets up in a process that is killed before its change of that number; whether it came so far."""

    def run() -> None:
        left = [number]
        with pytest.MonkeyPatch.context() as patched:
            for place, name in (("drain.disk.os", "open"), ("pathlib.Path", "replace")):
                _count_down(patched, place, name, left)
            _count_down(patched, "drain.setup.maddy_program.Maddy", "run", left)
            os._exit(at_home.setup("--yes"))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode in (-signal.SIGKILL, os.EX_TEMPFAIL)
    return process.exitcode == -signal.SIGKILL


def _count_down(patched: pytest.MonkeyPatch, place: str, name: str, left: list[int]) -> None:
    target = Maddy if place.endswith("Maddy") else Path if place.endswith("Path") else os
    usual = getattr(target, name)

    def counted(*arguments: object, **more: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(*arguments, **more)

    patched.setattr(target, name, counted)


def test_killed_at_any_step_and_run_again_it_comes_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    number, cut_off = 0, True
    while cut_off:
        number += 1
        with home(monkeypatch, Home) as at_home:
            cut_off = _killed_at(at_home, number)
            at_home.proven()
            assert not [name for name in at_home.tree() if ".new" in name or "unfinished" in name]
    assert number > 10, "there are so many steps at least"
