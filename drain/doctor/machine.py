"""The machine: room on the disk, and the lock."""

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from drain.doctor.finding import Finding
from drain.doctor.say import Say
from drain.text import clean

_DISK, _LOCK = Say("disk"), Say("lock")
_LITTLE_BYTES, _TOO_LITTLE_BYTES = 500 * 1024**2, 50 * 1024**2
_FEW_INODES, _TOO_FEW_INODES = 10_000, 100


def disk(folder: Path, *, statvfs: Callable[[Path], Any] = os.statvfs) -> Iterator[Finding]:
    """Whether *folder* can be written to and has room, in bytes and in inodes."""
    place = _existing(folder)
    about = statvfs(place)
    free, inodes = about.f_bavail * about.f_frsize, about.f_favail
    room = f"{free // 1024**2} MiB are free in {folder}"
    if free < _LITTLE_BYTES:
        say = _DISK.failure if free < _TOO_LITTLE_BYTES else _DISK.warning
        yield say(f"Only {room}.", "Make room, or set STATE_DIR to another disk.")
    # 0 of 0: a file system that does not count them (btrfs).
    elif about.f_files and inodes < _FEW_INODES:
        say = _DISK.failure if inodes < _TOO_FEW_INODES else _DISK.warning
        words = f"{room}, but only {inodes} inodes: there is no more room for names of files."
        yield say(words, "Delete files that are no longer needed: `df -i` shows where.")
    elif place == folder and (fault := _why_not_writable(folder)):
        yield _DISK.failure(f"{folder} cannot be written to: {fault}.", "Set STATE_DIR, or mend it.")
    elif not os.access(place, os.W_OK):
        words = f"{folder} is not there, and cannot be made in {place}."
        yield _DISK.failure(words, "Make it, or set STATE_DIR to a folder that drain may write to.")
    else:
        yield _DISK.ok(f"{room}.")


def _why_not_writable(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"probe")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _existing(folder: Path) -> Path:
    """*folder*, or the first above it that is there."""
    return next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), Path("/"))


# -- the lock --


def lock(path: Path, *, flock: Callable[[int, int], None] = fcntl.flock) -> Iterator[Finding]:
    """Whether the lock's file system has locks that keep others out, by trying; and who holds drain's now."""
    folder = _existing(path.parent)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".drain-doctor-") as file, open(file.name, "rb") as other:
            flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            keeps_out = not _taken(other.fileno(), fcntl.LOCK_EX, flock)
    except OSError as error:
        yield _no_flock(path, folder, error)
        return
    if not keeps_out:
        words = f"Two at once got the same lock in {folder}: nothing keeps two drains apart there."
        yield _LOCK.failure(words, "Set LOCKFILE to a place on this machine's own disk.")
        return
    yield _LOCK.ok(f"Locks in {folder} keep others out. {_holder(path, flock)}")


def _taken(descriptor: int, kind: int, flock: Callable[[int, int], None]) -> bool:
    try:
        flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _no_flock(path: Path, folder: Path, error: OSError) -> Finding:
    if error.errno == errno.ENOSYS:  # what filelock goes over to a file of another kind for
        held = f" {path} names a process: {_first_line(path)}." if path.exists() else ""
        words = f"The file system of {folder} has no flock; a lock file that names its owner takes its place.{held}"
        hint = "Set STATE_DIR, or LOCKFILE, to a place on the machine's own disk (in Termux: below $HOME)."
        return _LOCK.warning(words, hint)
    words = f"No lock can be had in {folder}: {error.strerror}."
    return _LOCK.failure(words, "Set LOCKFILE to a place that drain may write to.")


def _holder(path: Path, flock: Callable[[int, int], None]) -> str:
    """A sentence."""
    try:
        with path.open("rb") as file:
            if _taken(file.fileno(), fcntl.LOCK_SH, flock):
                return "Nobody holds drain's now."
            inode = os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return "Nobody has had drain's yet."
    except OSError as error:
        return f"Who holds drain's cannot be seen: {error.strerror}."
    pid = _pid_of(inode)
    return f"Process {pid} holds drain's now{_command_of(pid)}." if pid else "A process holds drain's now."


def _pid_of(inode: int) -> str:
    """From proc_locks(5), which Android keeps to itself; "" for not known."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text("ascii", "replace").splitlines():
            words = line.split()
            if len(words) > 5 and words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
                return words[4]
    return ""


def _command_of(pid: str) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return f" ({clean(words, 80)})"


def _first_line(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").partition("\n")[0][:20]
    except OSError:
        return "which cannot be read"
