"""A private clamd for tests, with one signature: EICAR's test file."""

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

_USER = "clamav"  # made by the Debian package clamav-base
# In two pieces: whole, it would make a virus of this file (https://www.eicar.org/download-anti-malware-testfile/).
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-" + b"STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
# clamd adds ".UNOFFICIAL" to the names of signatures that ClamAV did not sign.
VIRUS = "Eicar-Test-Signature.UNOFFICIAL"
_POLL_SECONDS = 0.05


class Clamd:
    """A clamd of its own, on a Unix socket and on a free port of 127.0.0.1, from `start` to `stop`.

    Started by root it becomes `clamav`, as Debian's does; else it stays who it is.
    It needs no database of freshclam's: any folder with one signature will do.
    """

    def __init__(self, root: Path, *, stream_max_length: str = "30M") -> None:
        """Choose the places; nothing is started.

        Args:
            root: where `stop` leaves ``clamd.log``.
            stream_max_length: the largest mail that it takes, as clamd.conf(5) has it.
        """
        self._root = root
        self._home = Path(tempfile.mkdtemp(prefix="drain-clamd-"))
        self._home.chmod(0o755)
        self.socket = str(self._home / "run" / "clamd.sock")
        self.port = free_port()
        self.tcp = f"{HOST}:{self.port}"
        self._stream_max_length = stream_max_length
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Run it; returns once it answers PING.

        Raises:
            RuntimeError: clamd is not installed, or did not come up; says which.
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

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None, "clamd is not started"
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it, frozen or not, and remove all that it had, but for its log."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            end(process)
        keep_log(self._log, self._root / "clamd.log")
        shutil.rmtree(self._home, ignore_errors=process is None)

    @property
    def _log(self) -> Path:
        return self._home / "clamd.log"

    def _command(self) -> list[str]:
        clamd = needed("clamd", "clamav-daemon")
        database, run = self._home / "database", self._home / "run"
        database.mkdir(exist_ok=True)
        run.mkdir(exist_ok=True)
        # Extended signature: name, any type of file, anywhere in it, these bytes.
        (database / "test.ndb").write_text(f"Eicar-Test-Signature:0:*:{EICAR.hex()}\n")
        lines = [
            *(f"DatabaseDirectory {database}", f"TemporaryDirectory {run}", "Foreground yes", "LogTime yes"),
            *(f"LocalSocket {self.socket}", "LocalSocketMode 666", f"TCPSocket {self.port}", f"TCPAddr {HOST}"),
            *(f"StreamMaxLength {self._stream_max_length}", "MaxFileSize 100M", "MaxScanSize 400M"),
        ]
        if os.geteuid() == 0:
            shutil.chown(run, _USER)
            lines.append(f"User {_USER}")
        configuration = self._home / "clamd.conf"
        configuration.write_text("\n".join(lines) + "\n")
        for path in (database, database / "test.ndb", configuration):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return [clamd, f"--config-file={configuration}"]

    def _await_pong(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not self._pong():
            status = process.poll()
            if status is not None or time.monotonic() > deadline:
                what = "does not answer" if status is None else f"ended with status {status}"
                message = f"clamd {what}.\n{log_end(self._log)}"
                raise RuntimeError(message)
            time.sleep(_POLL_SECONDS)

    def _pong(self) -> bool:
        # On both: it opens one after the other.
        try:
            with socket.socket(socket.AF_UNIX) as local, socket.socket() as tcp:
                local.connect(self.socket)
                tcp.connect((HOST, self.port))
                for channel in (local, tcp):
                    channel.settimeout(START_LIMIT_SECONDS)
                    channel.sendall(b"zPING\0")
                    if channel.recv(100) != b"PONG\0":
                        return False
        except OSError:
            return False
        return True
