"""Files that are whole or not there."""

import errno
import os
import stat
from pathlib import Path

import pytest

from drain import disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def fails(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_new_file_gets_the_mode_that_is_asked_for_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        disk.replace(path, b"one", 0o644)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_new_file_is_for_its_owner_only_if_nothing_is_said(path: Path) -> None:
    disk.replace(path, b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_there_keeps_its_mode(path: Path) -> None:
    path.write_bytes(b"one")
    path.chmod(0o640)
    disk.replace(path, b"two", 0o600)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_is_there_keeps_its_owner(path: Path) -> None:
    path.write_bytes(b"one")
    os.chown(path, 12345, 23456)
    path.chmod(0o2640)
    disk.replace(path, b"two")
    about = path.stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (12345, 23456, 0o2640)


def test_what_a_link_points_to_is_replaced_and_not_the_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    disk.replace(link, b"one")
    assert link.is_symlink()
    assert path.read_bytes() == b"one"


@pytest.mark.parametrize("step", ["fsync", "fchmod"])
def test_a_full_disk_leaves_the_file_as_it_was_and_nothing_beside_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path.write_bytes(b"one")
    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OSError, match="No space left"):
        disk.replace(path, b"two")
    assert [one.name for one in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"one"


def test_it_is_on_the_disk_before_it_takes_the_others_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"one")
    seen: list[tuple[bool, bytes]] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.read_bytes()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    disk.replace(path, b"two")
    assert seen == [(False, b"one"), (True, b"two")], "the file before the rename, its folder after"


def test_what_a_killed_writer_left_does_not_stand_in_the_way(path: Path) -> None:
    path.with_name("file.new").write_bytes(b"half")
    path.with_name("file.new").chmod(0o644)
    disk.replace(path, b"one")
    assert [one.name for one in path.parent.iterdir()] == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_lies_in_wait_under_the_name_of_the_part_is_not_written_to(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"theirs")
    path.with_name("file.new").symlink_to(other)
    disk.replace(path, b"mine")
    assert other.read_bytes() == b"theirs"


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """As root a rename over /dev/null would be the end of it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a file"):
        disk.replace(pipe, b"one")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_that_must_be_new_never_takes_anothers_place(path: Path) -> None:
    disk.create(path, b"one", 0o640)
    with pytest.raises(FileExistsError):
        disk.create(path, b"two")
    assert path.read_bytes() == b"one"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_new_file_that_does_not_get_to_the_disk_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.with_name("file.new").write_bytes(b"half, of a writer that was killed")
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        disk.create(path, b"one")
    assert list(path.parent.iterdir()) == []


def test_without_hard_links_a_new_file_is_made_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", fails)
    disk.create(path, b"one")
    assert path.read_bytes() == b"one"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(("code", "raises"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_without_fsync_for_folders_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, *, raises: bool
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    if raises:
        with pytest.raises(OSError, match="Input/output"):
            disk.sync_folder(tmp_path)
    else:
        disk.sync_folder(tmp_path)


def test_what_the_opener_makes_is_for_its_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        with open(path, "xb", opener=disk.private) as file:
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    finally:
        os.umask(before)
