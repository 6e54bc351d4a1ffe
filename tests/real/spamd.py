"""A private spamd for tests: Debian's SpamAssassin with its own rules, local tests only."""

import os
import shutil
import socket
from pathlib import Path

from tests.real.server import HOST, START_LIMIT_SECONDS, Daemon, needed
from tests.support import free_port

_USER = "debian-spamd"  # made by the Debian package spamd
_RULES = Path("/etc/spamassassin")  # which plugins there are; the rules lie in /usr/share
_LOCAL_CF = """\
required_score 5.0
skip_rbl_checks 1
dns_available no
use_bayes 0
"""


class Spamd(Daemon):
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
        super().__init__("spamd", root)
        self.socket = self._home / "spamd.sock" if unix else None
        self.port = 0 if unix else free_port()
        self._children = children

    @property
    def place(self) -> str:
        """Where it listens: ``host:port``, or the path of its socket."""
        return str(self.socket) if self.socket else f"{HOST}:{self.port}"

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

    def _pong(self) -> bool:
        with socket.socket(socket.AF_UNIX if self.socket else socket.AF_INET) as channel:
            channel.settimeout(START_LIMIT_SECONDS)
            try:
                channel.connect(str(self.socket) if self.socket else (HOST, self.port))
                channel.sendall(b"PING SPAMC/1.2\r\n\r\n")
                return b"PONG" in channel.recv(100)
            except OSError:
                return False
