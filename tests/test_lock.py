import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from drain import lock
from drain.errors import ConfigError, LockHeld
from tests.support import Events


def test_one_at_a_time_and_free_again_after(tmp_path: Path) -> None:
    path = tmp_path / "state" / "lock"
    log = Events().log
    with lock.held(path, log):
        code = (
            "import sys; from pathlib import Path; from drain import lock, errors; from tests.support import Events\n"
            "try:\n"
            "    with lock.held(Path(sys.argv[1]), Events().log): pass\n"
            "except errors.LockHeld: sys.exit(3)\n"
        )
        other = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=30)
        assert other.returncode == 3
    with lock.held(path, log):
        pass


def test_a_command_that_must_act_waits_and_then_gives_up(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with (
        pytest.raises(LockHeld, match="Another drain"),
        lock.held(tmp_path / "lock", Events().log, timeout_seconds=0.2),
    ):
        pass
    os.close(descriptor)


def test_where_flock_is_missing_another_kind_of_lock_is_used_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ExFAT and shared storage on Android answer ENOSYS; a peer skips every pass for ever there."""

    def enosys(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", enosys)
    events = Events()
    path = tmp_path / "lock"
    for _ in range(3):
        with lock.held(path, events.log), pytest.raises(LockHeld), lock.held(path, events.log):
            pass
    assert len(events("lock")) == 1


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="LOCKFILE"), lock.held(tmp_path / "file" / "lock", Events().log):
        pass
