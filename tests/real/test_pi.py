"""drain on a Raspberry Pi with a real systemd, from the first installation to the last: one machine, stage by stage.

The bucket is the fake one; Postfix is the one that install.sh sets up. Each stage begins with what
the one before left, and ends with the same question: has all mail come, and each once?
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drain import envfile
from drain.database import version_of
from drain.demo.s3 import S3Server
from drain.mail import Mail
from drain.tables import LEDGER
from tests.real.pi import Pi, why_not
from tests.real.pi_home import CHECKOUTS, ENV_FILE, INBOX, SENDER, Home
from tests.support import until

_WHY_NOT = why_not()
pytestmark = [pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT), pytest.mark.timeout(900)]

OLD_LEDGER = Path(__file__).parents[1] / "ledgers/2.sql"
# As `systemctl edit` writes it, so that the tests wait seconds where a person waits minutes.
IMPATIENT = "[Service]\nRestartSec=1\nWatchdogSec=4\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("machine")
    checkouts = folder / "checkouts"
    checkouts.mkdir()
    with S3Server() as s3, Pi(folder, {CHECKOUTS: checkouts}) as pi:
        home = Home(pi, s3, checkouts)
        home.checkout("now")
        home.answers("/root/answers")
        yield home


def test_an_unattended_install_ends_with_the_first_mail_in_its_mailbox(home: Home) -> None:
    said = home.install("--yes", "--answers", "answers")
    assert home.s3.secret_access_key not in said
    assert home.pi.words("systemctl", "is-enabled", "drain.service") == "enabled"
    assert home.unit("drain.service", "ActiveState") == "active"
    home.put()
    home.all_filed()


def test_the_doctor_finds_nothing_wrong_but_what_is_not_of_this_machine(home: Home) -> None:
    done = home.pi.run("drain", "doctor", "--json", check=False)
    findings = [json.loads(line) for line in done.stdout.splitlines()][:-1]
    # No DNS knows example.test, and the fake bucket knows no lifecycle rules.
    wrong = {found["check"] for found in findings if found["level"] in ("failure", "unknown")}
    assert wrong == {"dns", "lifecycle"}, done.stdout
    assert {"keys", "server", "systemd"} <= {found["check"] for found in findings if found["level"] == "ok"}


def test_nobody_but_drain_and_root_can_read_keys_settings_and_mail(home: Home) -> None:
    kept = "/var/lib/drain/ledger.db"
    for path in (ENV_FILE, "/etc/drain/drain-key.pem", "/etc/drain/mail-server.pem", kept):
        assert home.pi.run("cat", path, user="pi", check=False).returncode != 0
        # Who gets hold of drain reads its settings, and cannot have root read or write what they name.
        owner = "drain drain 600" if path == kept else "root drain 640"
        assert home.pi.words("stat", "-c", "%U %G %a", path) == owner
    assert home.pi.words("stat", "-c", "%U %G %a", "/etc/drain") == "root drain 750"
    assert "sudo drain" in home.pi.run("drain", "status", user="pi", check=False).stderr
    assert home.pi.run("sudo", "drain", "status", user="pi").returncode == 0


def test_installing_again_changes_nothing(home: Home) -> None:
    folders = ("/etc", "/opt/drain", "/usr/local/bin", "/var/backups/drain")
    before, process = home.tree_of_files(*folders), home.unit("drain.service", "MainPID")
    home.install("--yes", "--answers", "answers")
    after = home.tree_of_files(*folders)
    assert {path for path in before | after if before.get(path) != after.get(path)} == set()
    assert home.unit("drain.service", "MainPID") == process, "it was restarted for nothing"
    home.put()
    home.all_filed()


def test_a_daemon_that_is_killed_comes_back_and_delivers(home: Home) -> None:
    assert home.unit("drain.service", "WatchdogUSec") not in ("0", "infinity")
    home.drop_in("drain.service", IMPATIENT)
    home.pi.run("systemctl", "restart", "drain.service")
    process = home.unit("drain.service", "MainPID")
    home.pi.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "drain.service")
    home.put()
    until(lambda: home.restarted(process), 30)
    home.all_filed()
    assert home.unit("drain.service", "NRestarts") == "1"


def test_a_daemon_that_hangs_is_restarted_by_the_watchdog(home: Home) -> None:
    process = home.unit("drain.service", "MainPID")
    home.pi.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "drain.service")
    home.put()
    until(lambda: home.restarted(process), 30)
    home.all_filed()
    assert "Watchdog timeout" in home.pi.words("journalctl", "-u", "drain.service", "-o", "cat")


def test_after_a_reboot_it_starts_by_itself_and_delivers_what_waited(home: Home) -> None:
    home.pi.power_off()
    home.put()
    home.pi.power_on()
    home.all_filed()
    home.pi.reboot()
    home.put()
    home.all_filed()
    assert home.pi.words("systemctl", "is-system-running") == "running", home.pi.words("systemctl", "--failed")


def test_with_the_timer_it_makes_passes_and_is_not_running_between(home: Home) -> None:
    home.install("--yes", start="timer")
    assert home.pi.words("systemctl", "is-enabled", "drain.service", "drain.timer").split() == ["disabled", "enabled"]
    assert home.unit("drain.service", "ActiveState") == "inactive"
    assert home.unit("drain.timer", "NextElapseUSecRealtime"), "it is not due at any time"
    home.drop_in("drain.timer", "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/2\nRandomizedDelaySec=0\nAccuracySec=100ms\n")
    home.pi.run("systemctl", "restart", "drain.timer")
    for _ in range(2):
        home.put()
        home.all_filed()
    assert home.unit("drain-once.service", "Result") == "success"


def test_a_pass_that_fell_due_while_the_machine_was_off_is_made_up_for(home: Home) -> None:
    due = time.time() + 8
    moment = datetime.fromtimestamp(due, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    home.drop_in("drain.timer", f"[Timer]\nOnCalendar=\nOnCalendar={moment}\nRandomizedDelaySec=0\nAccuracySec=100ms\n")
    home.pi.run("systemctl", "restart", "drain.timer")
    home.put()
    home.pi.power_off()
    until(lambda: time.time() > due + 1)
    assert len(home.pending()) == 1, "it was not off in time"
    # Nothing is due any more: only what was missed can be.
    home.pi.power_on()
    home.all_filed()


def test_after_wrong_credentials_it_stays_down_and_the_journal_says_so(home: Home) -> None:
    home.install("--yes")
    assert home.pi.words("systemctl", "is-enabled", "drain.service", "drain.timer").split() == ["enabled", "disabled"]
    home.set(R2_SECRET_ACCESS_KEY="0" * 64)
    home.pi.run("systemctl", "restart", "drain.service", check=False)
    until(lambda: home.unit("drain.service", "ActiveState") == "failed")
    assert home.unit("drain.service", "ExecMainStatus") == "77"
    assert home.unit("drain.service", "NRestarts") == "0"
    until(lambda: "drain.service has failed" in home.pi.words("journalctl", "-t", "drain-alert", "-o", "cat"))


def test_a_secret_may_lie_in_the_credential_store_in_place_of_drain_env(home: Home) -> None:
    home.set(R2_SECRET_ACCESS_KEY="")
    secret = home.file("/etc/credstore/drain.R2_SECRET_ACCESS_KEY")
    secret.touch(mode=0o600)
    secret.write_text(home.s3.secret_access_key)
    home.pi.run("systemctl", "restart", "drain.service")
    home.put()
    home.all_filed()


def test_an_upgrade_brings_an_old_ledger_along_and_delivers_nothing_twice(home: Home) -> None:
    home.pi.run("systemctl", "stop", "drain.service")
    ledger = home.file("/var/lib/drain/ledger.db")
    _write_old_ledger(ledger, known=Mail(home.sent[0], INBOX, SENDER))
    home.pi.run("chown", "drain:", "/var/lib/drain/ledger.db")
    home.checkout("next", "9.9.8")
    home.put_again(0)
    home.put()
    home.install("upgrade", checkout="next")
    home.all_filed()
    assert version_of(ledger) == LEDGER.version
    (backup,) = home.file("/var/backups/drain").iterdir()
    assert backup.stat().st_mode & 0o077 == 0, "it holds addresses"
    assert home.pi.words("drain", "--version") == "drain 9.9.8"
    assert home.unit("drain.service", "RestartUSec") == "1s", "what the person changed is lost"


def test_an_upgrade_that_cannot_be_goes_back_to_what_worked(home: Home) -> None:
    tables = home.checkout("broken", "9.9.9") / "drain/tables.py"
    step = '""",\n)\n\nLEDGER ='
    assert step in tables.read_text()
    tables.write_text(tables.read_text().replace(step, '""",\n"CREATE TABLE mail (name TEXT);\\n",\n)\n\nLEDGER ='))
    said = home.install("upgrade", checkout="broken", fails=True)
    assert "the old one is in use again" in said
    assert home.pi.words("drain", "--version") == "drain 9.9.8"
    home.put()
    home.all_filed()
    assert version_of(home.file("/var/lib/drain/ledger.db")) == LEDGER.version


def test_uninstalling_keeps_keys_settings_and_ledger_and_installing_finds_them(home: Home) -> None:
    kept = home.tree_of_files("/etc/drain")
    assert any(path.endswith("drain-key.pem") for path in kept)
    home.install("uninstall")
    assert home.tree_of_files("/etc/drain") == kept
    assert version_of(home.file("/var/lib/drain/ledger.db")) == LEDGER.version
    for path in ("/opt/drain", "/usr/local/bin/drain", "/etc/systemd/system/drain.service"):
        assert not home.file(path).exists()
    assert home.pi.words("systemctl", "list-units", "--all", "--no-legend", "drain*") == ""
    home.put_again(len(home.sent) - 1)
    home.put()
    home.install("--yes")
    home.all_filed()


def test_purging_wants_the_typed_word_and_then_leaves_nothing_but_the_mail(home: Home) -> None:
    home.install("uninstall", "--purge", "--yes", typed="yes\n", fails=True)
    home.put()
    home.all_filed()
    values, _ = envfile.read(home.file(ENV_FILE))
    home.login = {name: values[name] for name in ("INJECT_USER", "INJECT_PASS")}
    home.certificate = home.file(values["INJECT_TLS_CA_FILE"]).read_bytes()
    home.install("uninstall", "--purge", typed="delete\n")
    for path in ("/etc/drain", "/var/lib/drain", "/opt/drain", "/usr/local/bin/drain"):
        assert not home.file(path).exists()
    assert home.pi.run("getent", "passwd", "drain", check=False).returncode == 2
    left = home.pi.words("find", "/etc/systemd", "/etc/sysusers.d", "/etc/tmpfiles.d", "-name", "*drain*").split()
    # What the person changed with `systemctl edit` is the person's.
    assert {Path(path).name for path in left} <= {"drain.service.d", "drain.timer.d"}
    home.all_filed()


def test_a_person_without_root_installs_it_for_himself_and_may_log_out(home: Home) -> None:
    home.key_folder = Path("/home/pi/.config/drain")
    home.file("/home/pi/mail-server.pem").write_bytes(home.certificate)
    home.answers("/home/pi/answers", **home.login, INJECT_TLS_CA_FILE="/home/pi/mail-server.pem")
    home.pi.run("chown", "-R", "pi:", "/home/pi")
    home.install("--yes", "--answers", "answers", user="pi")
    assert home.pi.words("systemctl", "--user", "is-enabled", "drain.service", user="pi") == "enabled"
    # Logged out, and yet not gone.
    until(lambda: home.pi.words("loginctl", "show-user", "--value", "--property=State", "pi") == "lingering")
    home.put()
    home.all_filed()
    home.pi.reboot()
    home.put()
    home.all_filed()


def test_a_person_without_root_uninstalls_it_and_keeps_the_keys(home: Home) -> None:
    home.install("uninstall", user="pi")
    assert home.pi.words("systemctl", "--user", "list-units", "--all", "--no-legend", "drain*", user="pi") == ""
    assert home.file(home.key_folder / "drain-key.pem").exists()
    for path in (".local/share/drain", ".local/bin/drain", ".config/systemd/user/drain.service"):
        assert not home.file(Path("/home/pi") / path).is_symlink()
        assert not home.file(Path("/home/pi") / path).exists()


def _write_old_ledger(path: Path, known: Mail) -> None:
    """The ledger of an older version, which knows that mail as delivered."""
    for file in path.parent.glob("ledger.db*"):
        file.unlink()
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(OLD_LEDGER.read_text(encoding="utf-8"))
        old.execute("UPDATE mail SET identity = ? WHERE state = 'settled'", (known.identity,))
        old.commit()
    assert version_of(path) < LEDGER.version
