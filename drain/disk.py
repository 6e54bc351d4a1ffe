"""Files that are whole or not there, also when the machine stops in between."""

import errno
import os
from pathlib import Path


def private(path: str, flags: int) -> int:
    """An opener for `open`: what it makes is 0600 from the first moment."""
    return os.open(path, flags, 0o600)


def sync_folder(folder: Path) -> None:
    """Waits until the names in it are on the disk; raises OSError if they are not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems on Android have no fsync for folders; what they cannot, nobody can.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes a file in the place of the one that is there, whose mode and owner it keeps; one that is new gets *mode*.

    Two writers must not be at it at once. What a link points to is replaced, not the link.

    Raises:
        OSError: it cannot be written; then it is as it was.
    """
    path = path.resolve()
    part = path.with_name(f"{path.name}.new")
    part.unlink(missing_ok=True)  # of a writer that was killed
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            try:
                before = path.stat()
            except FileNotFoundError:
                os.fchmod(file.fileno(), mode)
            else:
                # First the owner: a change of it takes some bits of the mode away.
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & 0o7777)
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
