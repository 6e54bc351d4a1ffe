"""What a hook prints: bounded while it runs, and the last of it kept in a file.

A file and not a pipe, since whatever the hook leaves running holds on to it. While
it runs it is one without a name: several hooks do not write into each other's, and
a crash leaves nothing behind.
"""

import contextlib
import datetime
import fcntl
import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import IO, Self

_KEPT = 64 * 1024
_OF_ONE_RUN = 8 * 1024
# More than this is cut off while the hook runs.
_MOST = 256 * 1024

_keeping = threading.Lock()


class Output:
    """Where one run prints to; *path* is the file in which the last of all runs is kept.

    Where no file can be made (a full disk), the hook prints to nowhere: the alert matters more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._seen = b""

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = tempfile.TemporaryFile(dir=self._path.parent)
            # So that what is written after `bound` begins at the new end.
            fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) | os.O_APPEND)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    @property
    def descriptor(self) -> int:
        """What the hook gets as standard output and standard error."""
        return self._file.fileno() if self._file else subprocess.DEVNULL

    @property
    def last_line(self) -> str:
        """Its last line that is not empty."""
        lines = [line.strip() for line in self._tail().decode("utf-8", "replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def bound(self) -> None:
        """Cuts off what is too much; to be called now and then."""
        if self._file and os.fstat(self._file.fileno()).st_size > _MOST:
            self._seen = self._tail()
            os.ftruncate(self._file.fileno(), 0)

    def keep(self, headline: str) -> None:
        """Appends *headline* and the last of the output to the file, which keeps its last 64 KiB."""
        at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        tail = self._tail()
        entry = (
            f"{at} {headline}\n".encode("utf-8", "replace")
            + tail
            + (b"" if tail.endswith(b"\n") or not tail else b"\n")
        )
        with _keeping, contextlib.suppress(OSError):
            before = self._path.read_bytes() if self._path.exists() else b""
            fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            try:
                descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write((before + entry)[-_KEPT:])
                fresh.replace(self._path)
            finally:  # where the disk is full, half of it
                fresh.unlink(missing_ok=True)

    def _tail(self) -> bytes:
        """The last 8 KiB that were printed."""
        if not self._file:
            return b""
        size = os.fstat(self._file.fileno()).st_size
        printed = os.pread(self._file.fileno(), _OF_ONE_RUN, max(0, size - _OF_ONE_RUN))
        return (self._seen + printed)[-_OF_ONE_RUN:]
