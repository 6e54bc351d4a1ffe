"""Maddy started, or started again: by systemd, by Termux' runit, or by the person."""

import contextlib
import shlex
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from drain.errors import DrainError, Unavailable
from drain.setup import command
from drain.setup.maddy_program import Maddy

_CONNECT_SECONDS = 5.0
_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_UNIT = "maddy.service"


def older(runtime: Path, files: Iterable[Path]) -> bool:
    """Whether a Maddy that runs was started before one of *files* was written.

    *runtime* is the folder of its socket, as this process sees it: each start makes that anew.
    Without one nobody knows, and it counts as older.
    """
    started = max((path.stat().st_mtime_ns for path in runtime.glob("*.sock")), default=0)
    return any(path.stat().st_mtime_ns > started for path in files if path.exists())


@dataclass(frozen=True)
class Service:
    """Its start.

    *port* is one that it listens on. *stale*: one that runs does not have its files as they are
    then, since it reads them only when it starts; logins and mailboxes it looks up when it needs them.
    """

    maddy: Maddy
    port: int
    stale: bool
    systemd: Path = _SYSTEMD

    def start(self, changed: bool) -> str:  # noqa: FBT001 (as `drain.setup.wanted` has it)
        """Starts it, or starts it again where something *changed*; says what was done.

        Raises:
            ConfigError: it does not start.
            Unavailable: nothing here starts it, so that the person has to.
        """
        runs = self.runs()
        restart = self._restart()
        if restart is None:
            if runs and not self.stale:
                return ""
            raise self._left_to_the_person(runs=runs)
        if runs and not changed:
            return ""
        for words in restart:
            command.run(words, self.maddy.environ)
        return "Maddy was started again." if runs else "Maddy was started."

    def runs(self) -> bool:
        """Whether something listens on its port."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), _CONNECT_SECONDS):
            return True
        return False

    def _restart(self) -> list[list[str]] | None:
        """The commands that start it, again too, and at each boot; None where nothing is there for it."""
        if self.maddy.proot:
            prefix = self.maddy.environ.get("PREFIX", "")
            folder = Path(self.maddy.environ.get("SVDIR") or f"{prefix}/var/service") / "maddy"
            there = (folder / "run").exists() and command.find("sv", self.maddy.environ)
            return [["sv", "restart", str(folder)]] if there else None
        return [["systemctl", "enable", _UNIT], ["systemctl", "restart", _UNIT]] if self._has_unit() else None

    def _has_unit(self) -> bool:
        # The unit of Maddy's own release reads the usual configuration.
        if not (self.maddy.usual and self.systemd.is_dir()):
            return False
        try:
            command.run(["systemctl", "cat", _UNIT], self.maddy.environ)
        except DrainError:
            return False
        return True

    def _left_to_the_person(self, *, runs: bool) -> Unavailable:
        by_hand = shlex.join(self.maddy.words("run"))
        return Unavailable(
            "Maddy is set up, and not proven: nothing here starts it by itself.",
            f"{'End the one that runs, and start it' if runs else 'Start it'}: `{by_hand}`. "
            "Then run `drain setup maddy` once more, which proves it.",
        )
