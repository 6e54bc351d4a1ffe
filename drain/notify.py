"""What systemd wants to hear (``sd_notify(3)``), where it asks."""

import os
import socket
from collections.abc import Mapping

from drain.text import clean


class Notifier:
    """Sends datagrams to ``$NOTIFY_SOCKET``; without one it does nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        self.watchdog_seconds = _watchdog_seconds(environ)

    def ready(self, status: str) -> None:
        """The service runs."""
        self._send("READY=1", f"STATUS={clean(status)}")

    def status(self, status: str) -> None:
        """What it is doing, for ``systemctl status``."""
        # Cleaned: a line end in it would begin a message of its own (MAINPID=, WATCHDOG=trigger).
        self._send(f"STATUS={clean(status)}")

    def alive(self) -> None:
        """Feeds the watchdog."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """It is about to end."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if not self._path:
            return
        # A name that begins with @ is in the abstract namespace.
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(1)
                channel.connect(address)
                channel.sendall("\n".join(lines).encode())
        except OSError:  # systemd away is no reason to stop mail
            pass


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """``$WATCHDOG_USEC``, if it is meant for this process (``sd_watchdog_enabled(3)``)."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None
