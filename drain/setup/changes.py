"""The files of a mail server's configuration: what would change, shown, then written, or put back.

Nothing is written before all of it is known and the person has said yes; what was
there before is kept beside, under its name and ``.before-drain``, or ``.before-drain.2``
and so on where that is taken.
"""

import contextlib
import difflib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from drain.disk import replace, sync_folder
from drain.errors import ConfigError
from drain.setup.plan import as_owner
from drain.text import clean

BEFORE = ".before-drain"
_HIDDEN = "(not shown: it holds a secret)"
_LONGEST_LINE = 2000


@dataclass(frozen=True)
class File:
    """A file as it shall be.

    Attributes:
        path: absolute, as this process sees it (within a proot's root too).
        content: all of it.
        mode: permission bits.
        owner: numeric user and group; None: of whoever runs this, or as it is.
        secret: its content is never shown, only that it changes.
        nobodys: what its package puts there: in that form it is no person's work, and nobody is asked.
        drains: it lies in drain's folder, and is read and written as whoever owns that: what
            drain's user puts there must not lead root elsewhere.
    """

    path: Path
    content: bytes
    mode: int = 0o644
    owner: tuple[int, int] | None = None
    secret: bool = False
    nobodys: bytes | None = None
    drains: bool = False

    @property
    def done(self) -> bool:
        """Whether it is so already, mode and owner too.

        Raises:
            ConfigError: it is drain's, and a link.
        """
        try:
            with hand(self):
                about = self.path.stat()
                same = self.path.read_bytes() == self.content
        except OSError:
            return False
        owned = self.owner is None or (about.st_uid, about.st_gid) == self.owner
        return same and owned and stat.S_IMODE(about.st_mode) == self.mode


@dataclass(frozen=True)
class _Former:
    """A file as it was; ``content`` is None where there was none."""

    content: bytes | None
    mode: int = 0
    owner: tuple[int, int] | None = None


@contextlib.contextmanager
def hand(file: File) -> Iterator[None]:
    """As the one who may touch *file*: for what is drain's, the owner of its folder.

    Raises:
        ConfigError: it is drain's, and a link.
    """
    if not file.drains:
        yield
        return
    if file.path.is_symlink():
        raise ConfigError(f"{file.path} is a link, and has to be a file.", "Remove it.")
    with as_owner(file.path.parent):
        yield


def pending(files: Sequence[File]) -> list[File]:
    """Those that are not yet as they shall be.

    Raises:
        ConfigError: one is drain's, and a link.
    """
    return [file for file in files if not file.done]


def show(files: Sequence[File], stream: TextIO) -> None:
    """What would change, as unified diffs; of a file that is new and of a secret one a line.

    Raises:
        ConfigError: a file that is there cannot be read.
    """
    for file in files:
        if not file.path.exists():
            print(clean(f"new file {file.path} (mode {file.mode:04o})"), file=stream)
            continue
        was = _read(file)
        if was == file.nobodys:
            print(clean(f"new in its place {file.path} (mode {file.mode:04o})"), file=stream)
        elif was == file.content:
            print(clean(f"mode or owner: {file.path} ({file.mode:04o})"), file=stream)
        elif file.secret:
            print(clean(f"changed: {file.path} {_HIDDEN}"), file=stream)
        else:
            before, after = (text.decode("utf-8", "replace").splitlines() for text in (was, file.content))
            for line in difflib.unified_diff(before, after, str(file.path), f"{file.path} (drain's)", lineterm=""):
                print(clean(line, _LONGEST_LINE), file=stream)


def overwritten(files: Sequence[File]) -> list[File]:
    """Those that are there with another content which is a person's work, and would lose some: the person is asked.

    Raises:
        ConfigError: a file that is there cannot be read.
    """
    # Drain's own copy of the certificate is nobody's work; on another machine it is another.
    others = [file for file in files if file.path.exists() and not file.drains]
    return [file for file in others if (was := _read(file)) != file.nobodys and not _only_added_to(was, file)]


@contextlib.contextmanager
def written(files: Sequence[File]) -> Iterator[None]:
    """Writes them; if that or what is done meanwhile fails, all of them are put back as they were.

    What was there is kept beside, but never over what was kept before.

    Raises:
        ConfigError: one cannot be written.
    """
    former = [_former(file) for file in files]
    try:
        for file, was in zip(files, former, strict=True):
            try:
                _write(file, was)
            except OSError as error:
                raise ConfigError(f"{file.path} cannot be written: {error}.", "All is as it was.") from error
        yield
    except BaseException:
        for file, was in zip(files, former, strict=True):
            _put_back(file, was)
        raise


def _only_added_to(was: bytes, file: File) -> bool:
    return file.content.startswith(was)


def _former(file: File) -> _Former:
    with hand(file):
        if not file.path.exists():
            return _Former(None)
        about = file.path.stat()
    # What is drain's is written by drain's user, who can give nothing away.
    owner = None if file.drains else (about.st_uid, about.st_gid)
    return _Former(_read(file), stat.S_IMODE(about.st_mode), owner)


def _write(file: File, was: _Former) -> None:
    with hand(file):
        if was.content not in (None, file.content):
            _keep(file, was)
        file.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        _place(file.path, file.content, file.mode, file.owner)


def _keep(file: File, was: _Former) -> None:
    """Keeps what was there beside it, if it is not kept already and not all of it stays."""
    assert was.content is not None
    kept, number = file.path.with_name(file.path.name + BEFORE), 1
    while kept.exists():
        if kept.read_bytes() == was.content or was.content == file.nobodys or _only_added_to(was.content, file):
            return
        number += 1
        kept = file.path.with_name(f"{file.path.name}{BEFORE}.{number}")
    _place(kept, was.content, was.mode, was.owner)


def _place(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    """Whole, and for nobody else's eyes before its mode is narrow."""
    if path.exists():
        _own(path, mode, owner)
    # For a new one the mode comes last: its owner first.
    replace(path, content, 0o600)
    _own(path, mode, owner)


def _own(path: Path, mode: int, owner: tuple[int, int] | None) -> None:
    if owner is not None:
        os.chown(path, *owner)
    path.chmod(mode)


def _put_back(file: File, was: _Former) -> None:
    # The first error is the one to be told.
    with contextlib.suppress(OSError, ConfigError), hand(file):
        if was.content is not None:
            _place(file.path, was.content, was.mode, was.owner)
        elif file.path.exists():
            file.path.unlink()
            sync_folder(file.path.parent)


def _read(file: File) -> bytes:
    try:
        with hand(file):
            return file.path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file.path} cannot be read: {error}.", "Run this as root.") from error
