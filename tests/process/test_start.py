"""What an idle drain loads and writes: as little as it can."""

import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.install_rig import Person
from tests.support import House, until

# What only mail, a person, or a setting that is not set here has a use for.
HEAVY = {
    *("boto3", "botocore", "s3transfer", "urllib3", "requests", "dateutil", "jmespath"),
    *("dns", "cryptography", "rich", "aiosmtpd", "aiospamc", "dkim", "filelock"),
    *("asyncio", "logging", "subprocess", "multiprocessing", "importlib.metadata", "difflib"),
}
LOG_OF_IMPORTS = re.compile(r"^import time: +\d+ \| +\d+ \| *(\S+)$", re.MULTILINE)
PASSES = 50
IDLE_MIB = 60  # what issue 8 asks of the daemon


@pytest.fixture
def settings(house: House) -> dict[str, str]:
    """With nothing in the environment by which boto3 would be asked: a proxy, certificates."""
    usual = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    return {**usual, **house.environ(POLL_INTERVAL="3600")}


def heavy(errors: str) -> set[str]:
    """Which of them were loaded, by what ``-X importtime`` says."""
    loaded = set(LOG_OF_IMPORTS.findall(errors))
    assert "drain.sweep" in loaded, errors[-2000:]
    return {name for name in loaded for one in HEAVY if name == one or name.startswith(f"{one}.")}


def once(house: House, settings: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "drain", "once"],
        env=settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_once_on_an_empty_bucket_loads_nothing_heavy(house: House, settings: dict[str, str]) -> None:
    done = once(house, settings)
    assert (done.returncode, house.s3.requests) == (0, {"ListObjectsV2": 1}), done.stderr[-2000:]
    assert heavy(done.stderr) == set()


def test_nor_does_it_once_there_is_a_ledger(house: House, settings: dict[str, str]) -> None:
    house.put("one")
    done = once(house, settings)
    assert len(house.smtp.filed) == 1
    # So what this test looks for can be seen.
    assert "filelock" in heavy(done.stderr)
    house.s3.requests.clear()
    done = once(house, settings)
    assert (done.returncode, house.s3.requests) == (0, {"ListObjectsV2": 1}), done.stderr[-2000:]
    assert heavy(done.stderr) == set()


@contextmanager
def daemon(settings: dict[str, str], errors: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (
        errors.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "drain", "run"], env=settings, stdout=file, stderr=file
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def looks_again(process: "subprocess.Popen[bytes]", house: House) -> None:
    """One more pass, from its beginning to its answer."""
    before = house.s3.requests["ListObjectsV2"]

    def asked() -> bool:
        # One that comes while a pass ends is heard with the next.
        process.send_signal(signal.SIGUSR1)
        return house.s3.requests["ListObjectsV2"] > before

    until(asked)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with what changes when it is written to."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def accounted(pid: int, name: str) -> int:
    """A counter of ``/proc/PID/io``."""
    found = re.search(rf"^{name}: (\d+)$", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def children(pid: int) -> tuple[str, int]:
    """Those that run, and the page faults of those that have ended (proc(5): cminflt)."""
    running = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return running, int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[8])


def test_an_idle_daemon_loads_nothing_heavy_writes_nothing_and_starts_nothing(
    house: House, settings: dict[str, str], tmp_path: Path
) -> None:
    errors = tmp_path / "errors"
    settings |= {"METRICS_FILE": str(tmp_path / "drain.prom"), "STATUS_HTML": str(tmp_path / "status.html")}
    with daemon(settings, errors) as process:
        until((tmp_path / "status.html").exists, words=lambda: errors.read_text()[-2000:])  # the first pass is noted
        for _ in range(2):
            looks_again(process, house)
        seen, written = files(tmp_path), accounted(process.pid, "write_bytes")
        for _ in range(PASSES):
            looks_again(process, house)
        assert files(tmp_path) == seen
        assert accounted(process.pid, "write_bytes") == written
        assert children(process.pid) == ("", 0)
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert resident is not None
        assert int(resident[1]) / 1024 < IDLE_MIB
        assert process.poll() is None
    assert set(house.s3.requests) == {"ListObjectsV2"}
    assert house.s3.requests["ListObjectsV2"] >= PASSES
    assert heavy(errors.read_text()) == set()


def test_what_is_wrong_with_the_settings_is_said_though_there_is_no_mail(
    house: House, settings: dict[str, str], tmp_path: Path
) -> None:
    """Parts that an idle pass does not load have settings too."""
    for wrong in (
        {"MAIL_ALIASES_FILE": str(tmp_path / "none")},
        {"FILTERS": "auth,clamav", "CLAMD_SOCKET": "clamd.ctl"},
    ):
        done = once(house, settings | wrong)
        assert done.returncode == os.EX_CONFIG, (wrong, done.stderr[-500:])


@pytest.mark.timeout(300)  # an environment takes half a minute to make
def test_what_is_installed_is_compiled_already(person: Person) -> None:
    """Who runs it cannot always write beside it, and would compile it anew at each start."""
    done = person.install()
    assert done.code == 0, done.failed
    (packages,) = (person.program / "current").resolve().glob("lib/python3*/site-packages")
    sources = [
        path
        for name in ("drain", "boto3", "botocore", "urllib3", "filelock")
        for path in (packages / name).rglob("*.py")
    ]
    assert len(sources) > 200
    assert [str(path) for path in sources if not compiled(path)] == []


def compiled(path: Path) -> bool:
    """Whether what Python would load in its place is there, and of this file (PEP 552: its date and size)."""
    about = path.stat()
    wanted = (int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF)
    return any(
        struct.unpack("<4xLLL", made.read_bytes()[:16]) == (0, *wanted)
        for made in path.parent.glob(f"__pycache__/{path.stem}.cpython-3*.pyc")
    )
