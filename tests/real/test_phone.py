"""drain on a phone: installed unattended in a Termux, killed, started again, taken away."""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from drain.demo.s3 import S3Server, StoredObject
from tests.real import phone as rig, termux
from tests.real.phone import Done, Phone
from tests.sealing import seal
from tests.smtp_fake import FakeSmtp
from tests.support import LONG_AGO, environment, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(rig.why_not()), reason=rig.why_not() or "-"),
]
PROJECT = Path(__file__).resolve().parents[2]
INSTALL = f'"{termux.HOME}/a drain/install.sh"'  # a path with a blank
INSTALL_SECONDS = 600.0
SECONDS = 60.0
STATUS = 'sv status "$PREFIX/var/service/drain"'
SESSION = '. "$PREFIX/etc/profile.d/start-services.sh"'
SETTINGS = "~/.config/drain/drain.env"
BOOT_SCRIPT = "~/.termux/boot/10-drain"
LOG = "var/log/sv/drain/current"


@dataclasses.dataclass
class Home:
    """A phone with drain on it, and what it works between."""

    phone: Phone
    s3: S3Server
    smtp: FakeSmtp

    def put(self, name: str, body: bytes) -> None:
        """Lays an object into the bucket."""
        about = {"to": "alice@example.test", "from": "bob@y.test"}
        self.s3.objects[f"pending/{name}"] = StoredObject(body, about, last_modified=LONG_AGO)

    def delivers(self, subject: str) -> None:
        """Waits until a new mail is at the mail server: sealed for the key that was made at home."""
        raw = f"From: bob@y.test\r\nSubject: {subject}\r\n\r\nhello\r\n".encode()
        key = load_pem_private_key(self.phone.path("~/.config/drain/drain-key.pem").read_bytes(), None)
        assert isinstance(key, X25519PrivateKey)
        token = self.phone.text("~/.config/drain/origin-token").strip()
        self.put(subject, seal(raw, {"token": token}, key=key))
        until(lambda: self.came(subject), SECONDS, lambda: self.phone.text(LOG)[-3000:])

    def came(self, subject: str) -> int:
        """How often that mail was filed."""
        return sum(f"Subject: {subject}\r\n".encode() in mail.content for mail in self.smtp.filed)

    def pid(self) -> int:
        """The service's process; 0 while there is none."""
        found = re.match(r"run: \S+ \(pid (\d+)\)", self.phone.run(STATUS, check=False).words)
        return int(found[1]) if found else 0

    def is_up(self) -> int:
        """Waits for the service's process; it."""
        until(self.pid, SECONDS, lambda: self.phone.text(LOG)[-3000:])
        return self.pid()

    def waits(self) -> bool:
        """Whether the service waits for its person."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended
            children = Path(f"/proc/{(pid := self.pid())}/task/{pid}/children").read_text().split()
            return any(b"sleep\x00900\x00" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
        return False


@pytest.fixture(scope="module")
def mail_server() -> Iterator[FakeSmtp]:
    with FakeSmtp(mailboxes={"alice@example.test", "inbox@example.test", "admin@example.test"}) as smtp:
        yield smtp


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Server]:
    """Of its own: what others share is cleared for each test only, and this stays over all of them."""
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def installed(bucket: S3Server, mail_server: FakeSmtp) -> Iterator[tuple[Phone, Done, Done]]:
    """A phone on which drain was installed and has delivered a mail, and which Android then killed; what was said."""
    answers = environment(bucket, mail_server, Path("unused"), POLL_INTERVAL="1")
    del answers["STATE_DIR"], answers["DRAIN_ENV_FILE"]
    with Phone() as made:
        clone(made.path("~/a drain"))
        made.write("~/answers", "".join(f"{name}={value}\n" for name, value in answers.items()))
        dry = made.run(f"{INSTALL} --yes --answers answers --dry-run")
        done = made.run(f"{INSTALL} --yes --answers answers", seconds=INSTALL_SECONDS)
        Home(made, bucket, mail_server).delivers("the first")
        made.kill_all()
        yield made, dry, done


def clone(folder: Path) -> None:
    """The project as somebody clones it, as far as an installation reads it."""
    folder.mkdir()
    for name in ("install.sh", "requirements.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder)
    for name in ("drain", "systemd", "termux"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, termux.APP, termux.APP)


@pytest.fixture
def home(installed: tuple[Phone, Done, Done], bucket: S3Server, mail_server: FakeSmtp) -> Iterator[Home]:
    """That phone, with nothing running on it; it is to be left as it was."""
    mail_server.filed.clear()
    bucket.fault = None
    bucket.objects.clear()
    phone = installed[0]
    for log in (LOG, "var/log/notifications"):
        phone.path(log).unlink(missing_ok=True)
    kept = {phone.path(place): phone.text(place) for place in (SETTINGS, BOOT_SCRIPT, "bin/termux-wake-lock")}
    yield Home(phone, bucket, mail_server)
    phone.kill_all()
    phone.path("var/service/drain/waits").unlink(missing_ok=True)
    for path, text in kept.items():
        path.write_text(text)


@pytest.fixture
def other_home(home: Home) -> Iterator[Home]:
    """A copy of that phone, to be used up."""
    with Phone(like=home.phone) as phone:
        yield dataclasses.replace(home, phone=phone)


def kept_files(phone: Phone) -> dict[str, tuple[float, int]]:
    """What an installation consists of: the time and the mode of each file."""
    found: dict[str, tuple[float, int]] = {}
    for place in ("opt/drain", "bin/drain", "var/service/drain", "~/.termux", "~/.config"):
        top = phone.path(place)
        for path in (top, *top.rglob("*")):
            about = path.lstat()
            if "supervise" not in path.parts and path.name not in ("answers", "lock"):
                found[str(path)] = (about.st_mtime if not path.is_dir() else 0.0, about.st_mode)
    return found


def test_a_fresh_termux_comes_to_a_drain_that_runs_in_one_go(installed: tuple[Phone, Done, Done]) -> None:
    phone, _, done = installed
    assert "This is Termux." in done.words
    numbers = re.findall(r"^\[(\d)/9\]", done.words, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 10)]
    assert "Not started yet" not in done.words
    assert "+ ok      termux: The service drain runs" in done.words
    assert set(phone.text("var/log/pkg").split()) >= {"python", "python-cryptography", "termux-services", "termux-api"}
    assert phone.text("var/log/wake-lock").startswith("held\n")
    assert phone.path(SETTINGS).stat().st_mode & 0o777 == 0o600
    assert phone.path(BOOT_SCRIPT).stat().st_mode & 0o777 == 0o700
    assert f"MAIL_ALERT_CMD={termux.PREFIX}/opt/drain/termux/alert.sh\n" in phone.text(SETTINGS)
    owners = {path.lstat().st_uid for path in phone.path("opt/drain").rglob("*")}
    assert owners == {termux.APP}


def test_a_dry_run_on_a_fresh_termux_changes_nothing(installed: tuple[Phone, Done, Done]) -> None:
    _, dry, _ = installed
    assert "would run: pkg install -y" in dry.words
    assert "pkg install python\n" in dry.words


def test_a_drain_that_is_killed_comes_back(home: Home) -> None:
    home.phone.boot()
    before = home.is_up()
    os.kill(before, signal.SIGKILL)
    until(lambda: home.pid() not in (0, before), SECONDS, lambda: home.phone.text(LOG)[-2000:])
    home.delivers("after a kill")
    assert home.came("after a kill") == 1


def test_when_android_has_killed_everything_the_boot_script_starts_it_again(home: Home) -> None:
    held = home.phone.text("var/log/wake-lock")
    home.phone.boot()
    assert home.phone.text("var/log/wake-lock") == held + "held\n"
    home.delivers("after a boot")
    home.phone.kill_all()
    assert home.phone.processes() == set()
    # Not after a boot, but when somebody opens Termux.
    home.phone.run(SESSION)
    home.delivers("in a session")
    assert home.came("the first") == 0, "what was delivered before came again"


def test_a_wake_lock_that_hangs_holds_up_no_start(home: Home) -> None:
    script = home.phone.text(BOOT_SCRIPT)
    assert "timeout -k 5 30 termux-wake-lock" in script
    home.phone.path("bin/termux-wake-lock").write_text(f"#!{termux.PREFIX}/bin/sh\nexec sleep 1000\n")
    # The test has not that long.
    home.phone.path(BOOT_SCRIPT).write_text(script.replace("-k 5 30", "-k 1 1"))
    home.phone.boot()
    home.is_up()


def test_a_notification_that_hangs_holds_up_no_mail_and_is_logged_as_not_sent(home: Home) -> None:
    home.phone.boot()
    home.put("not sealed", b"From: x@y.test\r\n\r\nplain\r\n")
    until(lambda: home.phone.text("var/log/notifications"), SECONDS, lambda: home.phone.text(LOG)[-2000:])
    home.delivers("meanwhile")
    assert "alert-not-sent" not in home.phone.text(LOG), "the notification did not hang"
    until(lambda: "alert-not-sent" in home.phone.text(LOG), SECONDS, lambda: home.phone.text(LOG)[-2000:])
    assert "termux-notification did not answer: is the app Termux:API installed" in home.phone.text(LOG)


def test_wrong_settings_are_told_once_and_not_tried_every_second(home: Home) -> None:
    home.phone.boot()
    home.is_up()
    file = home.phone.path(SETTINGS)
    right = file.read_text()
    restart = 'sv -w 20 restart "$PREFIX/var/service/drain"'
    for _ in range(2):
        file.write_text(f"{right}\nINJECT_PORT=many\n")
        home.phone.run(restart)
        until(home.waits, SECONDS, lambda: home.phone.text(LOG)[-2000:])
    # Two restarts; on a busy machine one more, for what was up when the settings were written.
    assert home.phone.text(LOG).count("INJECT_PORT") in (2, 3)
    assert home.phone.text("var/log/notifications").count("drain: service drain") == 1
    file.write_text(right)
    home.phone.run(restart)
    home.delivers("once mended")


def test_a_second_install_changes_nothing_and_leaves_the_process_alone(home: Home) -> None:
    home.phone.boot()
    pid, before = home.is_up(), kept_files(home.phone)
    home.phone.run(f"{INSTALL} --yes", seconds=INSTALL_SECONDS)
    assert kept_files(home.phone) == before
    assert home.pid() == pid


def test_a_python_without_its_packages_is_mended_by_another_install(other_home: Home) -> None:
    """As after an upgrade of Termux's Python: another version number, and nothing of pip's is left."""
    for packages in other_home.phone.path("opt/drain/versions").glob("*/lib/python3*/site-packages"):
        shutil.rmtree(packages)
        packages.mkdir()
    place = next(other_home.phone.path("lib").glob("python3.*"))
    (place / "sitecustomize.py").unlink(missing_ok=True)
    (place / "sitecustomize.py").write_text('import sys\nsys.version += " upgraded"\n')
    assert other_home.phone.run("drain --version", check=False).code != 0
    other_home.phone.boot()
    other_home.phone.run(f"{INSTALL} --yes", seconds=INSTALL_SECONDS)
    other_home.delivers("with another Python")


def test_a_backup_takes_drain_to_a_new_phone(home: Home, other_home: Home) -> None:
    home.phone.run("drain backup drain.tar --with-keys")
    known = re.findall(r'"id": "\w+"', home.phone.run("drain history --json").words)
    assert known
    new = other_home.phone
    shutil.copy2(home.phone.path("~/drain.tar"), new.path("~/drain.tar"))
    shutil.chown(new.path("~/drain.tar"), termux.APP, termux.APP)
    # As a fresh installation left it: settings and keys of its own, and no ledger.
    shutil.rmtree(new.path("~/.local/state/drain"))
    new.write("~/.config/drain/drain-key.pem", "another key")
    new.run("rm -r ~/.config/drain; drain restore drain.tar --yes")
    new.run(f"{INSTALL} --yes", seconds=INSTALL_SECONDS)
    key = "~/.config/drain/drain-key.pem"
    assert new.path(key).read_bytes() == home.phone.path(key).read_bytes()
    assert re.findall(r'"id": "\w+"', new.run("drain history --json").words) == known
    other_home.delivers("on the new phone")


def test_uninstall_keeps_keys_settings_and_ledger_unless_purge_and_a_word_say_otherwise(other_home: Home) -> None:
    phone = other_home.phone
    # Not the boot script: what install.sh started must not be in the way of the next one.
    phone.run(f"{INSTALL} --yes", seconds=INSTALL_SECONDS)
    other_home.is_up()
    kept = [f"~/.config/drain/{name}" for name in ("drain.env", "drain-key.pem", "origin-token")]
    before = {place: phone.path(place).read_bytes() for place in kept}
    assert "drain is uninstalled." in phone.run(f"{INSTALL} uninstall").words
    for place in ("opt/drain", "bin/drain", "var/service/drain", "var/service/.drain", "~/.termux/boot/10-drain"):
        assert not os.path.lexists(phone.path(place)), place
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in phone.processes()]
    assert [command for command in commands if b"drain" in command] == []
    assert {place: phone.path(place).read_bytes() for place in kept} == before
    assert phone.path("~/.local/state/drain/ledger.db").exists()
    assert phone.run(f"echo yes | {INSTALL} uninstall --purge --yes", check=False).code == 64
    assert phone.path("~/.config/drain/drain-key.pem").exists()
    phone.run(f"echo delete | {INSTALL} uninstall --purge")
    for place in ("~/.config/drain", "~/.local/state/drain", "var/log/sv/drain"):
        assert not phone.path(place).exists(), place


def test_with_maddy_its_service_is_put_beside_and_a_debian_made(home: Home) -> None:
    done = home.phone.run(f"DRAIN_MAIL_SERVER=maddy {INSTALL} --yes --dry-run")
    for words in ("pkg install -y proot-distro", "proot-distro install debian", "service/.maddy/run", "--proot debian"):
        assert words in done.words
