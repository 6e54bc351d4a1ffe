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


def create(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes a file that must not be there yet; a crash leaves the whole of it or none.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be written; then it is not there.
    """
    part = path.with_name(f"{path.name}.new")
    part.unlink(missing_ok=True)  # of a writer that was killed
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # unlike a rename it takes nobody else's file away
        except FileExistsError:
            raise
        except OSError:  # no hard links here (Android's shared storage)
            part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes a file in the place of the one that is there, whose mode and owner it keeps; one that is new gets *mode*.

    Two writers must not be at it at once. What a link points to is replaced, not the link.

    Raises:
        OSError: it cannot be written; then it is as it was.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        # A rename would take a device's place: /dev/null is what DRAIN_ENV_FILE names for no file.
        raise OSError(errno.EINVAL, "It is not a file", str(path))
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
