"""Runs one command and says what it took: ``meter.py OUTPUT COMMAND...``, apart from the package.

On standard output: the command's process id; and once it has ended its seconds, its CPU
seconds (user and system), its peak of resident memory (bytes) and its exit status
(minus the signal that ended it). What the command itself says goes to the end of the file OUTPUT.

A process of its own, and a small one: Linux counts the memory of whoever starts a
command into that command's peak (getrusage(2), RUSAGE_CHILDREN and execve alike).
"""

import os
import sys
import time


def main() -> None:
    """One command."""
    output, *command = sys.argv[1:]
    opened = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, opened, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    begun = time.monotonic()
    process = os.posix_spawn(command[0], command, os.environ, file_actions=files)
    print(process, flush=True)
    _, status, usage = os.wait4(process, 0)
    seconds = time.monotonic() - begun
    cpu_seconds = usage.ru_utime + usage.ru_stime
    # Kilobytes on Linux (getrusage(2)).
    print(seconds, cpu_seconds, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
