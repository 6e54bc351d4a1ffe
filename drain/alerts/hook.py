"""The person's own command (MAIL_ALERT_CMD), run by ``sh -c`` for each alert.

It is told by its environment and on its standard input, never on the command line.
It has 30 s, and so has all that it leaves running; it cannot hold up drain, nor
fill the disk with what it prints.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from drain.alerts.alert import Alert, NotSent
from drain.alerts.message import message
from drain.alerts.output import Output
from drain.settings import SETTINGS
from drain.text import clean

_SECONDS = 30.0
_GRACE_SECONDS = 1.0
# Once drain was told to end: together less than the second that an outlet has.
_SHORT_GRACE_SECONDS = 0.5
_KILLED_SECONDS = 0.3
_LOOK_SECONDS = 0.02
# What the shell left is looked for in all of /proc.
_LOOK_AROUND_SECONDS = 0.1
# What is drain's own: its secrets, what systemd handed to it, its line to systemd.
_OURS = re.compile("CREDENTIALS_DIRECTORY|NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*")
_SECRETS = frozenset(name + ending for name, setting in SETTINGS.items() if setting.secret for ending in ("", "_FILE"))
# POSIX sh, "exit status for commands".
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


class Hook:
    """Runs *command*; *prefix* as of `message`.

    What it prints is kept in the file *output*, 0600: of the last runs, 64 KiB in all (`Output`).
    """

    name = "command"

    def __init__(self, command: str, prefix: str, output: Path) -> None:
        self._command, self._prefix, self._output = command, prefix, output

    def send(self, alert: Alert, stopped: Callable[[], bool]) -> None:
        """As `Outlet.send`: returns once the command has ended well, and all that it started.

        Raises:
            NotSent: it did not, or not in time; then all of it was killed.
        """
        with Output(self._output) as output:
            problem = self._run(alert, output, stopped)
            output.keep(f"{alert.kind} {alert.state}: {problem or 'done'}")
            if problem:
                line = clean(output.last_line, 200)
                raise NotSent(f"MAIL_ALERT_CMD {problem}" + (f": {line}" if line else "") + ".")

    def _run(self, alert: Alert, output: Output, stopped: Callable[[], bool]) -> str:
        """What went wrong, as the second half of a sentence; "" for nothing."""
        if stopped():
            return "was not run: drain ends"
        try:
            shell = self._start(alert, output.descriptor)
        except OSError as error:
            return f"cannot be run: {clean(error.strerror or str(error))}"
        end = time.monotonic() + _SECONDS
        grace, why = _GRACE_SECONDS, ""
        while _running(shell):
            output.bound()
            if stopped():
                grace, why = _SHORT_GRACE_SECONDS, "was broken off: drain ends"
            elif time.monotonic() > end:
                left = "ended, but what it left running did not" if shell.poll() == 0 else "did not end"
                why = f"{left} within {_SECONDS:g} s, and was killed"
            if why:
                _kill(shell, grace, output)
                return why
            time.sleep(_LOOK_SECONDS if shell.poll() is None else _LOOK_AROUND_SECONDS)
        return _meaning(shell.returncode)

    def _start(self, alert: Alert, output: int) -> "subprocess.Popen[bytes]":
        path = shutil.which("sh") or f"{os.environ.get('PREFIX', '/usr')}/bin/sh"  # Termux has no /bin
        told = message(self._prefix, alert)
        # A pipe with the whole message in it already: nobody waits for a hook that does not read.
        reading, writing = os.pipe()
        try:
            with os.fdopen(writing, "wb") as file:
                file.write(f"{told}\n".encode())
            return subprocess.Popen(  # noqa: S603  # it is the person's own command
                [path, "-c", self._command],
                stdin=reading,
                stdout=output,
                stderr=output,
                env=environment(os.environ, alert, told),
                start_new_session=True,
            )
        finally:
            os.close(reading)


def environment(ours: Mapping[str, str], alert: Alert, told: str) -> dict[str, str]:
    """What a hook's environment is: *ours* without what is drain's alone, and the alert."""
    kept = {name: value for name, value in ours.items() if name not in _SECRETS and not _OURS.fullmatch(name)}
    oldest = "" if alert.oldest_seconds is None else f"{alert.oldest_seconds:.0f}"
    return {
        **kept,
        "MAIL_ALERT_MSG": told,
        "MAIL_ALERT_KIND": str(alert.kind),
        "MAIL_ALERT_SUBJECT": clean(alert.subject),
        "MAIL_ALERT_STATE": str(alert.state),
        "MAIL_ALERT_COUNT": str(alert.count),
        "MAIL_ALERT_OLDEST_SECONDS": oldest,
    }


def _meaning(status: int) -> str:
    if status == 0:
        return ""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
        return f"was killed by signal {-status}"
    if status == _NOT_FOUND:
        return "names a command that is not there"
    if status == _NOT_EXECUTABLE:
        return "names a file that cannot be executed"
    return f"ended with exit code {status}"


def _running(shell: "subprocess.Popen[bytes]") -> bool:
    return shell.poll() is None or bool(_groups(shell.pid))


def _groups(session: int) -> set[int]:
    """The process groups of a session in which something is alive.

    `timeout` and interactive shells make groups of their own, and those have the same 30 s.
    Zombies do not count: where drain runs in a container, nobody may ever collect them.
    """
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):  # ended meanwhile
            # After the name, which may hold anything: state, parent, group, session (proc(5)).
            state, _parent, group, its_session, *_ = stat.read_bytes().rpartition(b")")[2].split()
            if int(its_session) == session and state not in (b"Z", b"X"):
                found.add(int(group))
    return found


def _kill(shell: "subprocess.Popen[bytes]", grace: float, output: Output) -> None:
    """SIGTERM, and SIGKILL for what is there after *grace* seconds; what even that does not end is left."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILLED_SECONDS)):
        for group in _groups(shell.pid) | ({shell.pid} if shell.poll() is None else set()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            output.bound()
            if not _running(shell):
                return
            time.sleep(_LOOK_SECONDS)
