"""The files of a mail server's configuration: what would change, shown and asked about, then written.

Nothing is written before all of it is known and the person has said yes; what was
there before is kept beside, once, under its name and ``.before-drain``.
"""

import difflib
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from drain.disk import replace
from drain.errors import ConfigError
from drain.text import clean

BEFORE = ".before-drain"
_HIDDEN = "(not shown: it holds a secret)"


@dataclass(frozen=True)
class File:
    """A file as it shall be.

    Attributes:
        path: absolute, as this process sees it (within a proot's root too).
        content: all of it.
        mode: permission bits.
        owner: numeric user and group; None: of whoever runs this.
        secret: its content is never shown, only that it changes.
    """

    path: Path
    content: bytes
    mode: int = 0o644
    owner: tuple[int, int] | None = None
    secret: bool = False

    @property
    def done(self) -> bool:
        """Whether it is so already, mode and owner too."""
        try:
            about = self.path.stat()
            same = self.path.read_bytes() == self.content
        except OSError:
            return False
        owned = self.owner is None or (about.st_uid, about.st_gid) == self.owner
        return same and owned and stat.S_IMODE(about.st_mode) == self.mode


def pending(files: Sequence[File]) -> list[File]:
    """Those that are not yet as they shall be."""
    return [file for file in files if not file.done]


def show(files: Sequence[File], stream: TextIO) -> None:
    """What would change, as unified diffs; of a file that is new and of a secret one a line."""
    for file in files:
        if not file.path.exists():
            print(f"new file {file.path} (mode {file.mode:04o})", file=stream)
        elif file.secret:
            print(f"changed: {file.path} {_HIDDEN}", file=stream)
        else:
            before = file.path.read_text("utf-8", "replace").splitlines()
            after = file.content.decode("utf-8", "replace").splitlines()
            lines = list(difflib.unified_diff(before, after, str(file.path), f"{file.path} (drain's)", lineterm=""))
            print("\n".join(map(clean, lines)) or f"mode or owner: {file.path} ({file.mode:04o})", file=stream)


def overwritten(files: Sequence[File]) -> list[File]:
    """Those that are there with another content, and are not drain's own from an earlier time."""
    return [file for file in files if file.path.exists() and not file.done]


def write(files: Sequence[File]) -> None:
    """Writes them; what was there is kept beside, but never over what was kept before.

    Raises:
        ConfigError: one cannot be written; those before it are.
    """
    for file in files:
        try:
            kept = file.path.with_name(file.path.name + BEFORE)
            if file.path.exists() and not kept.exists():
                shutil.copy2(file.path, kept)
            file.path.parent.mkdir(parents=True, exist_ok=True)
            if file.path.exists():
                # Mode and owner first: a secret is not for a moment in a file that others read.
                _own(file)
            replace(file.path, file.content, file.mode)
            _own(file)
        except OSError as error:
            raise ConfigError(f"{file.path} cannot be written: {error}.", "Run this as root.") from error


def _own(file: File) -> None:
    if file.owner is not None:
        os.chown(file.path, *file.owner)
    file.path.chmod(file.mode)
