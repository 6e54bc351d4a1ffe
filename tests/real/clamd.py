"""A private clamd for tests, with one signature: EICAR's test file."""

import os
import shutil
import socket
from pathlib import Path

from tests.real.server import HOST, START_LIMIT_SECONDS, Daemon, needed
from tests.support import free_port

_USER = "clamav"  # made by the Debian package clamav-base
# In two pieces: whole, it would make a virus of this file (https://www.eicar.org/download-anti-malware-testfile/).
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-" + b"STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
# clamd adds ".UNOFFICIAL" to the names of signatures that ClamAV did not sign.
VIRUS = "Eicar-Test-Signature.UNOFFICIAL"


class Clamd(Daemon):
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
        super().__init__("clamd", root)
        self.socket = str(self._home / "run" / "clamd.sock")
        self.port = free_port()
        self.tcp = f"{HOST}:{self.port}"
        self._stream_max_length = stream_max_length

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
