"""The units in systemd/: what systemd says of them, and what they promise. No systemd has to run for that."""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from drain import cli
from drain.settings import SETTINGS

SYSTEMD = Path(__file__).parents[1] / "systemd"
SYSTEM, USER = SYSTEMD / "system", SYSTEMD / "user"
DAEMONS = ("drain.service", "drain-relay.service")
PASSES = (*DAEMONS, "drain-once.service")  # what both flavours have
SERVICES = (*PASSES, "drain-recipients.service")
EACH = [*(SYSTEM / name for name in SERVICES), *(USER / name for name in PASSES)]
# Of systemd's own units, those that ours name or depend on by default.
TARGETS = ("sysinit", "basic", "shutdown", "network", "network-online", "time-sync", "multi-user", "timers")
# systemd.exec(5), systemd.resource-control(5): what is "not supported for services running in per-user instances", what
# works there with a user namespace only, and controllers that are not delegated to users (user@.service, Delegate=).
_SYSTEM_ONLY = re.compile(
    "User|Group|SupplementaryGroups|(State|Runtime|Cache|Logs|Configuration)Directory.*|LoadCredential.*|"
    "(ReadWrite|ReadOnly|Inaccessible|Bind.*)Paths|Protect.*|Private.*|ProcSubset|RemoveIPC|KeyringMode|DevicePolicy|"
    "DeviceAllow|CapabilityBoundingSet|AmbientCapabilities|IPAddress.*|CPUQuota|CPUWeight|IOWeight"
)

Settings = dict[tuple[str, str], list[str]]


def read(path: Path) -> Settings:
    """The settings of a unit: by section and name, all the values in order."""
    found: Settings = defaultdict(list)
    section = ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, line
            found[section, name].append(value)
    return found


def analyze(*words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs systemd-analyze; fails, not skips, where there is none."""
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is not here: Debian's package systemd has it."
    return subprocess.run(
        [program, *words],
        env={**os.environ, "LC_ALL": "C.UTF-8", **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def program(path: Path) -> None:
    """Lays something that can be run."""
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with the units installed, as far as systemd-analyze looks at it."""
    units = tmp_path / "etc/systemd/system"
    shutil.copytree(SYSTEM, units)
    for name in SERVICES:
        (units / f"{name}.d").mkdir()
        shutil.copy(SYSTEM / "hardening.conf", units / f"{name}.d")
    (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
    for name in TARGETS:
        (tmp_path / f"usr/lib/systemd/system/{name}.target").write_text(f"[Unit]\nDescription={name}\n")
    program(tmp_path / "opt/drain/current/bin/drain")
    program(tmp_path / "opt/drain/systemd/alert.sh")
    return tmp_path


def names(folder: Path) -> list[str]:
    """The units in a folder, the template as systemd would start it."""
    there = [path.name for path in sorted(folder.iterdir()) if path.suffix in (".service", ".timer")]
    return [name.replace("@", "@drain.service") for name in there]


def test_systemd_has_nothing_to_say_of_the_system_s_units(root: Path) -> None:
    done = analyze("verify", f"--root={root}", "--man=no", *names(SYSTEM))
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_systemd_has_nothing_to_say_of_the_user_s_units(tmp_path: Path) -> None:
    home = tmp_path / "home"
    units = home / ".config/systemd/user"
    shutil.copytree(USER, units)
    program(home / ".local/share/drain/current/bin/drain")
    program(home / ".local/share/drain/systemd/alert.sh")
    (tmp_path / "run").mkdir(mode=0o700)
    environ = {"HOME": str(home), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_CONFIG_HOME": str(home / ".config")}
    done = analyze("verify", "--user", "--man=no", *(str(units / name) for name in names(USER)), environ=environ)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_exposed_to_one_and_a_half_at_the_most(root: Path, name: str) -> None:
    done = analyze("security", "--offline=yes", "--threshold=15", "--no-pager", f"--root={root}", name)
    assert done.returncode == 0, done.stdout + done.stderr
    level = re.search(rf"Overall exposure level for {re.escape(name)}: ([0-9.]+)", done.stdout)
    assert level, done.stdout
    assert float(level[1]) <= 1.5


def test_each_line_that_hardens_has_its_reason_above_it() -> None:
    lines = (SYSTEM / "hardening.conf").read_text().splitlines()
    before = dict(zip(lines, ["", *lines], strict=False))
    without = [line for line in lines if re.match(r"\w+=", line) and not re.match(r"# (?!--)\S", before[line])]
    assert without == []
    assert len(read(SYSTEM / "hardening.conf")) > 25


@pytest.mark.parametrize("name", SERVICES)
def test_each_secret_may_come_from_systemd(name: str) -> None:
    secrets = [f"{setting.name}:drain.{setting.name}" for setting in SETTINGS.values() if setting.secret]
    assert sorted(read(SYSTEM / name)["Service", "LoadCredential"]) == sorted(secrets)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_the_system_runs_as_drain_in_its_own_folder(name: str) -> None:
    unit = read(SYSTEM / name)
    assert unit["Service", "User"] == ["drain"]
    assert unit["Service", "StateDirectory"] == ["drain"]
    assert unit["Service", "StateDirectoryMode"] == ["0700"]
    assert unit["Service", "Environment"] == ["DRAIN_ENV_FILE=/etc/drain/drain.env"]


@pytest.mark.parametrize("path", EACH, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_waits_for_another_try_is_no_failure_and_any_failure_is_told(path: Path) -> None:
    unit = read(path)
    assert unit["Service", "SuccessExitStatus"] == [str(os.EX_TEMPFAIL)]
    assert unit["Unit", "OnFailure"] == ["drain-failed@%n.service"]
    assert (path.parent / "drain-failed@.service").is_file()


@pytest.mark.parametrize("name", DAEMONS)
@pytest.mark.parametrize("folder", [SYSTEM, USER], ids=["system", "user"])
def test_a_daemon_is_started_again_but_for_what_a_person_has_to_mend(folder: Path, name: str) -> None:
    unit = read(folder / name)
    assert unit["Service", "Type"] == ["notify"]
    assert unit["Service", "NotifyAccess"] == ["main"]
    assert unit["Service", "Restart"] == ["always"]
    assert unit["Service", "RestartPreventExitStatus"] == [f"{os.EX_NOPERM} {os.EX_CONFIG}"]
    # The relay feeds the watchdog every 30 s (`drain.relay.relay`), drain ends within 10 s (`drain.service`).
    assert unit["Service", "WatchdogSec"] == ["5min"]
    assert unit["Service", "TimeoutStopSec"] == ["30"]


@pytest.mark.parametrize("path", EACH, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_service_starts_a_command_that_there_is(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = read(path)["Service", "ExecStart"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split()[1:], "--help"])
    assert ended.value.code == 0
    assert "usage: drain" in capsys.readouterr().out


@pytest.mark.parametrize("folder", [SYSTEM, USER], ids=["system", "user"])
def test_the_timer_catches_up_and_a_pass_of_its_own_does_not_end_the_daemon(folder: Path) -> None:
    timer = read(folder / "drain.timer")
    assert timer["Timer", "Unit"] == ["drain-once.service"]
    # systemd.timer(5): Persistent= has an effect with OnCalendar= only.
    assert timer["Timer", "OnCalendar"]
    assert timer["Timer", "Persistent"] == ["true"]
    assert timer["Timer", "RandomizedDelaySec"] == ["30"]
    assert timer["Unit", "Conflicts"] == ["drain.service"]
    assert ("Unit", "Conflicts") not in read(folder / "drain-once.service")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_fits_a_machine_of_512_mb(name: str) -> None:
    unit = read(SYSTEM / name)
    (high,), (most,) = unit["Service", "MemoryHigh"], unit["Service", "MemoryMax"]
    assert int(high.removesuffix("M")) < int(most.removesuffix("M")) < 448
    for limit in ("CPUQuota", "CPUWeight", "IOWeight", "Nice", "TasksMax"):
        assert unit["Service", limit]


@pytest.mark.parametrize("name", ["drain-failed@.service", "drain.timer", *PASSES])
def test_a_user_s_unit_is_the_system_s_without_what_its_manager_cannot_do(name: str) -> None:
    """Both ways: nothing there that it cannot do, and nothing missing that it can."""
    hardening = read(SYSTEM / "hardening.conf") if name in PASSES else {}
    system = {**read(SYSTEM / name), **hardening}
    expected = {
        key: values for key, values in system.items() if key[0] != "Unit" and not _SYSTEM_ONLY.fullmatch(key[1])
    }
    if name in PASSES:
        del expected["Service", "Environment"]  # where drain.env is, which it finds by itself
    found = read(USER / name)
    assert {key: _at_home(values) for key, values in expected.items()} == {
        key: values for key, values in found.items() if key[0] != "Unit"
    }
    # The manager of a user has neither the network's units nor the mail server's.
    assert found.keys() & {("Unit", "After"), ("Unit", "Wants"), ("Unit", "Requires")} == set()


def _at_home(values: list[str]) -> list[str]:
    return [
        value.replace("/opt/drain/", "%h/.local/share/drain/")
        .replace("`journalctl ", "`journalctl --user ")
        .replace("multi-user.target", "default.target")
        for value in values
    ]


def test_user_and_folders_are_as_systemd_reads_them() -> None:
    (user,) = _lines("sysusers.conf")
    assert user.split()[:3] == ["u", "drain", "-"]
    assert user.split()[-2] == "/var/lib/drain"
    assert sorted(_lines("tmpfiles.conf")) == [
        "d /etc/credstore 0700 root root -",
        "d /etc/drain 0750 root drain -",
        "d /var/lib/drain 0700 drain drain -",
    ]


def _lines(name: str) -> list[str]:
    return [line for line in (SYSTEM / name).read_text().splitlines() if line and not line.startswith("#")]
