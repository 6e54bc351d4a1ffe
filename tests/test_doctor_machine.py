"""`drain doctor`: the disk and the lock."""

import errno
import fcntl
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drain import lock
from drain.doctor import machine
from drain.doctor.finding import Finding, Level
from tests.support import Events

GIB = 1024**3


def disk(folder: Path, **about: Any) -> list[Finding]:
    usual = {"f_bavail": GIB, "f_frsize": 4096, "f_files": 10**6, "f_favail": 10**6}
    return list(machine.disk(folder, statvfs=lambda _path: SimpleNamespace(**{**usual, **about})))


def test_a_disk_with_room_is_ok_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    (finding,) = disk(tmp_path)
    assert finding.level is Level.OK
    assert "MiB are free" in finding.words
    assert not list(tmp_path.iterdir())


def test_the_disk_is_really_asked(tmp_path: Path) -> None:
    (finding,) = machine.disk(tmp_path)
    free = os.statvfs(tmp_path)
    assert abs(int(finding.words.split(" MiB")[0].split()[-1]) - free.f_bavail * free.f_frsize // 1024**2) < 1024


@pytest.mark.parametrize(("mebibytes", "level"), [(499, Level.WARNING), (49, Level.FAILURE), (500, Level.OK)])
def test_little_room_is_told(tmp_path: Path, mebibytes: int, level: Level) -> None:
    (finding,) = disk(tmp_path, f_bavail=mebibytes * 256)
    assert finding.level is level
    assert f"{mebibytes} MiB are free" in finding.words


@pytest.mark.parametrize(("inodes", "level"), [(9_999, Level.WARNING), (99, Level.FAILURE)])
def test_few_inodes_are_told(tmp_path: Path, inodes: int, level: Level) -> None:
    (finding,) = disk(tmp_path, f_favail=inodes)
    assert finding.level is level
    assert f"only {inodes} inodes" in finding.words


def test_a_file_system_that_counts_no_inodes_is_not_out_of_them(tmp_path: Path) -> None:
    (finding,) = disk(tmp_path, f_files=0, f_favail=0)
    assert finding.level is Level.OK


def test_a_folder_that_cannot_be_written_to_is_a_failure() -> None:
    (finding,) = disk(Path("/proc"))
    assert finding.level is Level.FAILURE
    assert "/proc cannot be written to" in finding.words


def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    (finding,) = disk(tmp_path / "state" / "drain")
    assert finding.level is Level.OK
    assert not list(tmp_path.iterdir())


# -- the lock --


def test_a_lock_that_keeps_others_out_is_ok_and_nothing_is_left(tmp_path: Path) -> None:
    (finding,) = machine.lock(tmp_path / "drain.lock")
    assert finding.level is Level.OK
    assert "Nobody has had drain's yet" in finding.words
    assert not list(tmp_path.iterdir())


def test_who_holds_it_now_is_named_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "drain.lock"
    with lock.held(path, Events().log):
        (finding,) = machine.lock(path)
        assert finding.level is Level.OK
        assert f"Process {os.getpid()} holds drain's now" in finding.words
    (finding,) = machine.lock(path)
    assert "Nobody holds drain's now" in finding.words


def test_a_file_system_that_gives_a_lock_twice_is_a_failure(tmp_path: Path) -> None:
    (finding,) = machine.lock(tmp_path / "drain.lock", flock=lambda descriptor, kind: None)
    assert finding.level is Level.FAILURE
    assert "nothing keeps two drains apart" in finding.words


def failing(number: int) -> Any:
    def flock(_descriptor: int, _kind: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


def test_a_file_system_without_flock_is_a_warning_that_names_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "drain.lock"
    path.write_text("4711\nphone\n")
    (finding,) = machine.lock(path, flock=failing(errno.ENOSYS))
    assert finding.level is Level.WARNING
    assert "has no flock" in finding.words
    assert "4711" in finding.words
    assert "LOCKFILE" in finding.next


def test_a_lock_that_fails_in_another_way_is_a_failure(tmp_path: Path) -> None:
    (finding,) = machine.lock(tmp_path / "drain.lock", flock=failing(errno.ENOLCK))
    assert finding.level is Level.FAILURE
    assert os.strerror(errno.ENOLCK) in finding.words


def test_a_place_where_no_file_can_be_made_is_a_failure() -> None:
    (finding,) = machine.lock(Path("/proc/drain.lock"), flock=fcntl.flock)
    assert finding.level is Level.FAILURE
    assert "No lock can be had in /proc" in finding.words
