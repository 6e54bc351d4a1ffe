"""A program that does something, with a time limit, and its own words where it fails."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from drain.errors import ConfigError, Unavailable
from drain.text import clean

_SECONDS = 60.0
_WORDS = 400
# A plain user's PATH leaves these out, and so does that of sudo in places.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find(name: str, environ: Mapping[str, str]) -> str | None:
    """The path of a program, looked for in the folders of the administrator's too."""
    return shutil.which(name, path=os.pathsep.join([environ.get("PATH", os.defpath), *_SBIN]))


def run(command: Sequence[str], environ: Mapping[str, str], *, stdin: bytes = b"", seconds: float = _SECONDS) -> str:
    """Runs it to its end; what it says on standard output. *stdin* is for what must not be seen, as a password.

    Raises:
        ConfigError: it is not there, or fails.
        Unavailable: it does not end in time.
    """
    shown = clean(" ".join(command))
    program = find(command[0], environ)
    if program is None:
        raise ConfigError(f"{command[0]} is not on this machine.")
    try:
        done = subprocess.run(  # noqa: S603 (no shell; the words are ours)
            [program, *command[1:]], env=dict(environ), input=stdin, capture_output=True, timeout=seconds, check=False
        )
    except OSError as error:
        raise ConfigError(f"`{shown}` could not be run: {error}.") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"`{shown}` did not end in {seconds:g} s.") from error
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).decode("utf-8", "replace")
        raise ConfigError(f"`{shown}` failed: {clean(words, _WORDS) or f'exit code {done.returncode}'}.")
    return done.stdout.decode("utf-8", "replace")
