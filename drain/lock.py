"""One drain at a time on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drain.errors import ConfigError, LockHeld
from drain.log import Log


@contextmanager
def held(path: Path, log: Log, *, timeout_seconds: float = 0) -> Iterator[None]:
    """Holds the lock at *path* while the block runs.

    Where the file system has no flock (ENOSYS: exFAT, shared storage on
    Android) filelock goes over to a lock file that names its owner, with a
    warning that is passed on once a process.

    Raises:
        LockHeld: another process has it after *timeout_seconds*.
        ConfigError: no lock can be made at that place.
    """
    import warnings  # noqa: PLC0415 (a pass that finds nothing to do needs no lock)

    import filelock  # noqa: PLC0415

    lock = filelock.FileLock(path, mode=0o600)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            lock.acquire(timeout=timeout_seconds)
    except filelock.Timeout as error:
        raise LockHeld(f"Another drain is at work; it holds {path}.") from error
    except (OSError, NotImplementedError) as error:
        raise ConfigError(
            f"The lock {path} cannot be made: {error}.", "Set LOCKFILE to a place that drain may write to."
        ) from error
    try:
        for warning in caught:
            _say_once(path, str(warning.message), log)
        yield
    finally:
        lock.release()


_said: set[Path] = set()


def _say_once(path: Path, words: str, log: Log) -> None:
    if path not in _said:
        _said.add(path)
        log.warning("lock", message=f"{path}: {words}")
