"""`drain doctor`: Termux, by programs that answer as its do, or do not."""

import os
import time
from pathlib import Path

import pytest

from drain.doctor import program, termux
from drain.doctor.finding import Finding, Level
from tests.support import ended, until


class Phone:
    """Termux, as far as the check can see: all that can be sound is."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.boot = folder / "home/.termux/boot"
        self.state_dir = folder / "home/state"
        for one in (self.bin, self.boot):
            one.mkdir(parents=True)
        self.service = folder / "usr/var/service/drain"
        self.service.mkdir(parents=True)
        (self.service / "run").write_text("#!/bin/sh\n")
        self.environ = {
            "TERMUX_VERSION": "0.118.3",
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "PREFIX": str(folder / "usr"),
        }
        (self.boot / "10-drain").write_text("#!/bin/sh\ntermux-wake-lock\n. start-services.sh\n")
        self.sv("run: drain: (pid 12) 34s; run: log: (pid 11) 34s")
        self.program("termux-battery-status", 'echo \'{"health": "GOOD", "percentage": 80}\'')

    def program(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def sv(self, answer: str, code: int = 0) -> None:
        """What `sv status` prints of the service's folder; asked for anything else it fails."""
        self.program("sv", f'test "$*" = "status {self.service}" || exit 100\necho "{answer}"\nexit {code}')

    def looked(self, seconds: float = 5.0) -> list[Finding]:
        return list(termux.check(self.environ, self.state_dir, seconds=seconds))


@pytest.fixture
def phone(tmp_path: Path) -> Phone:
    return Phone(tmp_path)


def test_what_can_be_asked_is_ok_and_what_cannot_is_unknown_with_a_place_to_look(phone: Phone) -> None:
    found = phone.looked()
    assert [finding.level for finding in found] == [Level.OK] * 4 + [Level.UNKNOWN] * 2
    assert "wake lock held" in found[4].next
    assert "Battery: Unrestricted" in found[5].next


def test_elsewhere_there_is_nothing_to_say(phone: Phone) -> None:
    del phone.environ["TERMUX_VERSION"]
    assert phone.looked() == []
    phone.environ["PREFIX"] = "/data/data/com.termux/files/usr"
    assert len(phone.looked()) == 6


def test_shared_storage_is_a_failure(phone: Phone, tmp_path: Path) -> None:
    for place in ("/sdcard/drain", "/storage/emulated/0/drain"):
        phone.state_dir = Path(place)
        assert phone.looked()[0].level is Level.FAILURE
    # As termux-setup-storage makes it.
    link = tmp_path / "home/storage"
    link.symlink_to("/storage/emulated/0")
    phone.state_dir = link / "drain"
    assert phone.looked()[0].level is Level.FAILURE


def test_without_the_package_there_is_a_warning(phone: Phone) -> None:
    (phone.bin / "termux-battery-status").unlink()
    finding = phone.looked()[2]
    assert finding.level is Level.WARNING
    assert "pkg install termux-api" in finding.next


def test_a_package_that_hangs_without_its_app_is_a_warning_and_is_ended_with_all_it_started(
    phone: Phone, tmp_path: Path
) -> None:
    phone.program("termux-battery-status", f"sleep 1000 & echo $! > {tmp_path}/pid; wait")
    begun = time.monotonic()
    finding = phone.looked(seconds=0.3)[2]
    assert finding.level is Level.WARNING
    assert "did not answer within 0.3 s" in finding.words
    assert time.monotonic() - begun < 10
    pid = int((tmp_path / "pid").read_text())
    until(lambda: ended(pid), 5)  # SIGKILL takes a moment


def test_an_answer_that_is_none_is_a_warning(phone: Phone) -> None:
    for body in ("true", "echo nonsense", "echo '{}'; exit 1"):
        phone.program("termux-battery-status", body)
        assert phone.looked()[2].level is Level.WARNING


def test_without_a_service_nothing_starts_drain_again(phone: Phone) -> None:
    (phone.service / "run").unlink()
    finding = phone.looked()[1]
    assert finding.level is Level.WARNING
    assert "./install.sh" in finding.next


def test_a_service_that_runs_is_ok_unless_it_is_disabled(phone: Phone) -> None:
    assert "var/log/sv/drain/current" in phone.looked()[1].words
    (phone.service / "down").touch()
    finding = phone.looked()[1]
    assert finding.level is Level.WARNING
    assert finding.next == "sv-enable drain"


def test_a_service_that_is_down_or_waits_or_is_not_looked_after_is_said(phone: Phone) -> None:
    phone.sv("down: drain: 5s, normally up; run: log: (pid 11) 34s")
    down = phone.looked()[1]
    assert (down.level, "sv-enable drain" in down.next) == (Level.WARNING, True)
    phone.sv("run: drain: (pid 13) 3s; run: log: (pid 11) 34s")
    (phone.service / "waits").touch()
    waits = phone.looked()[1]
    assert (waits.level, "sv restart drain" in waits.next) == (Level.FAILURE, True)
    phone.sv("fail: drain: runsv not running", code=1)
    alone = phone.looked()[1]
    assert (alone.level, "service-daemon start" in alone.next) == (Level.FAILURE, True)


def test_without_a_script_nothing_starts_drain(phone: Phone) -> None:
    (phone.boot / "10-drain").unlink()
    finding = phone.looked()[3]
    assert finding.level is Level.WARNING
    assert "has no script" in finding.words
    assert "./install.sh" in finding.next


def test_a_script_without_the_wake_lock_is_a_warning(phone: Phone) -> None:
    (phone.boot / "10-drain").write_text("#!/bin/sh\n. start-services.sh\n")
    finding = phone.looked()[3]
    assert finding.level is Level.WARNING
    assert "termux-wake-lock" in finding.words


def test_a_script_that_starts_nothing_is_a_warning(phone: Phone) -> None:
    (phone.boot / "10-drain").write_text("#!/bin/sh\ntermux-wake-lock\n")
    finding = phone.looked()[3]
    assert finding.level is Level.WARNING
    assert "starts drain" in finding.words


def test_a_script_of_the_persons_own_will_do(phone: Phone) -> None:
    (phone.boot / "10-drain").rename(phone.boot / "mine")
    assert phone.looked()[3].level is Level.OK


def test_a_program_that_is_not_there_or_cannot_run_says_nothing(tmp_path: Path) -> None:
    assert program.ask(["none"], {"PATH": str(tmp_path)}) is None
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere/sh\n")
    broken.chmod(0o755)
    assert program.ask(["broken"], {"PATH": str(tmp_path)}) is None


def test_a_program_that_prints_for_ever_is_read_only_so_far(tmp_path: Path) -> None:
    flood = tmp_path / "flood"
    flood.write_text("#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' x\n")
    flood.chmod(0o755)
    assert program.ask(["flood"], {"PATH": f"{tmp_path}:{os.environ['PATH']}"}) == "x" * 65536
