"""What another program says, with a time limit for it and all that it starts."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

SECONDS = 5.0


def ask(command: Sequence[str], environ: Mapping[str, str], seconds: float = SECONDS) -> str | None:
    """What a program says on standard output; None if it is not there, fails, or takes longer."""
    program = shutil.which(command[0], path=environ.get("PATH"))
    if program is None:
        return None
    # A file, not a pipe: what it started could hold a pipe open for ever.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(  # noqa: S603 (no shell, and every word is ours)
                [program, *command[1:]],
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            return None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return output.read(65536).decode("utf-8", "replace") if code == 0 else None
