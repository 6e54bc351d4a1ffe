"""A home on a disk that is too small."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.install_rig import UID, Person


@contextmanager
def small_disk(person: Person, size: str) -> Iterator["SmallDisk"]:
    """A person whose home is on a disk of its own, of that size (tmpfs(5)), which nobody else sees. Wants root."""
    script = 'mount -t tmpfs -o size="$2",mode=755,uid="$3",gid="$3" drain "$1" && echo mounted && exec cat'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(person.home), size, str(UID)]
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout is not None
        if keeper.stdout.readline() != "mounted\n":
            pytest.skip("no mount namespace may be made here")
        yield SmallDisk(person, keeper.pid)
    finally:
        keeper.kill()
        keeper.communicate(timeout=10)


class SmallDisk(Person):
    """A person in the mount namespace of a process."""

    def __init__(self, person: Person, keeper: int) -> None:
        self._enter = ("nsenter", f"--mount=/proc/{keeper}/ns/mnt")
        become = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
        super().__init__(person.folder, (*self._enter, *become), Path(f"/proc/{keeper}/root"))

    def resize(self, size: str) -> None:
        """Gives the disk another size."""
        command = ["mount", "-o", f"remount,size={size}", self._there(self.home)]
        subprocess.run([*self._enter, *command], check=True, timeout=10)

    @property
    def used(self) -> int:
        """Kilobytes that are on it."""
        about = os.statvfs(self.home)
        return (about.f_blocks - about.f_bfree) * about.f_frsize // 1024
