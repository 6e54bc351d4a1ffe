"""A private spamd for tests: Debian's SpamAssassin with its own rules, local tests only."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.real.server import HOST, START_LIMIT_SECONDS, end, free_port, keep_log, log_end, needed

_USER = "debian-spamd"  # made by the Debian package spamd
_RULES = Path("/etc/spamassassin")  # which plugins there are; the rules lie in /usr/share
_LOCAL_CF = """\
required_score 5.0
skip_rbl_checks 1
dns_available no
use_bayes 0
"""
_POLL_SECONDS = 0.05


class Spamd:
    """A spamd of its own, on a free port of 127.0.0.1 or on a Unix socket, from `start` to `stop`.

    Started by root it becomes `debian-spamd`, as Debian's does; else it stays who it is.
    """

    def __init__(self, root: Path, *, unix: bool = False, children: int = 2) -> None:
        """Choose the place; nothing is started.

        Args:
            root: where `stop` leaves ``spamd.log``. spamd lives elsewhere, since its
                user must be able to walk there and pytest's folders are 0700.
            unix: listen on a Unix socket.
            children: how many mails it checks at once.
        """
        self._root = root
        self._home = Path(tempfile.mkdtemp(prefix="drain-spamd-"))
        self._home.chmod(0o755)
        self.socket = self._home / "spamd.sock" if unix else None
        self.port = 0 if unix else free_port()
        self._children = children
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def place(self) -> str:
        """Where it listens: ``host:port``, or the path of its socket."""
        return str(self.socket) if self.socket else f"{HOST}:{self.port}"

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        """Run it; returns once it answers PING.

        Raises:
            RuntimeError: SpamAssassin is not installed, or spamd did not come up; says which.
        """
        try:
            command = self._command()
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self._await_pong(self._process)
        except BaseException:
            self.stop()
            raise

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to spamd and to each of its children."""
        assert self._process is not None, "spamd is not started"
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """End it, frozen or not, and remove all that it had, but for its log."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            end(process)
        keep_log(self._log, self._root / "spamd.log")
        shutil.rmtree(self._home, ignore_errors=process is None)

    @property
    def _log(self) -> Path:
        return self._home / "spamd.log"

    def _command(self) -> list[str]:
        spamd = needed("spamd", "spamd")
        site, own = self._home / "site", self._home / "own"
        site.mkdir(exist_ok=True)
        own.mkdir(exist_ok=True)
        for file in (*_RULES.glob("*.pre"), *_RULES.glob("65_debian.cf")):
            shutil.copyfile(file, site / file.name)
        (site / "local.cf").write_text(_LOCAL_CF)
        if os.geteuid() == 0:
            shutil.chown(own, _USER)
        place = (
            [f"--socketpath={self.socket}", "--socketmode=0666"] if self.socket else ["-i", HOST, "-p", str(self.port)]
        )
        count = str(self._children)
        return [
            *(spamd, "-L", *place, "-H", str(own), f"--siteconfigpath={site}", "-s", "stderr"),
            *("--min-children", count, "--max-children", count, "--min-spare", "1", "--max-spare", count),
            *(("-u", _USER) if os.geteuid() == 0 else ()),
        ]

    def _await_pong(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not self._pong():
            status = process.poll()
            if status is not None or time.monotonic() > deadline:
                what = "does not answer" if status is None else f"ended with status {status}"
                message = f"spamd {what}.\n{log_end(self._log)}"
                raise RuntimeError(message)
            time.sleep(_POLL_SECONDS)

    def _pong(self) -> bool:
        with socket.socket(socket.AF_UNIX if self.socket else socket.AF_INET) as channel:
            channel.settimeout(START_LIMIT_SECONDS)
            try:
                channel.connect(str(self.socket) if self.socket else (HOST, self.port))
                channel.sendall(b"PING SPAMC/1.2\r\n\r\n")
                return b"PONG" in channel.recv(100)
            except OSError:
                return False
