"""A drain between R2's simulator and a real mail server, run as a person runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from tests.real.maddy import Maddy
from tests.real.r2 import R2
from tests.support import environment

CORPUS = Path(__file__).parents[1] / "corpus"
ALICE = "alice@example.test"
BOB = "bob@example.test"
SENDER = "sender@example.net"


class Server(Protocol):
    """What Postfix and Maddy have in common here."""

    port: int
    user: str
    password: str
    ca_file: Path | None

    @property
    def listing(self) -> dict[str, str]:
        """What names its own list of mailboxes to drain."""

    def mailbox(self, address: str) -> list[bytes]:
        """All mails filed for an address."""

    def wait_until_filed(self, seconds: float = 30) -> None:
        """Until nothing is on its way."""


class RealHouse:
    """Mail in, drain, mail out."""

    def __init__(self, r2: R2, server: Server, state_dir: Path) -> None:
        self.r2 = r2
        self.server = server
        self.state_dir = state_dir

    def put(self, name: str, raw: bytes, to: str = ALICE, sender: str = SENDER) -> None:
        """Lays a plain object under pending/."""
        self.r2.put(f"pending/{name}", raw, {"to": to, "from": sender} if to else {})

    def environ(self, **more: str) -> dict[str, str]:
        """The settings, in a process's environment."""
        settings = environment(self.r2, self.server, self.state_dir, MAIL_DOMAIN="example.test,second.test")
        return {**os.environ, **settings, **more}

    def once(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """``drain once``, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "drain", "once", *arguments],
            env=self.environ(**settings),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def pass_(self, **settings: str) -> dict[str, Any]:
        """``drain once --json``; its line on the pass."""
        done = self.once("--json", **settings)
        assert not done.stderr, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        (summary,) = [event for event in events if event["event"] == "pass"]
        self.server.wait_until_filed()
        return {**summary, "exit": done.returncode}

    def filed(self, address: str) -> list[bytes]:
        """What lies in a mailbox, below the lines that were added on the way, with LF line ends."""
        return sorted(below_our_line(mail) for mail in self.server.mailbox(address))


def below_our_line(filed: bytes) -> bytes:
    """What follows ``X-Drain-Id``, the lowest line that was added; the whole where there is none."""
    lines = filed.replace(b"\r\n", b"\n").split(b"\n")
    ours = [number for number, line in enumerate(lines) if line.startswith(b"X-Drain-Id: ")]
    return b"\n".join(lines[ours[0] + 1 :] if ours else lines)


def as_filed(raw: bytes) -> bytes:
    """A mail as it must lie in the mailbox: every line end LF, the last line ended."""
    text = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text if text.endswith(b"\n") else text + b"\n"


# Postfix takes away the blank before a colon.
MENDED_BY_POSTFIX = {"malformed-019"}
# Maddy stores no mail whose MIME parts it cannot take apart, whatever its
# configuration (foxcpp/maddy#466): "554 5.0.0 Internal server error".
REFUSED_BY_MADDY = {f"malformed-{number:03}" for number in (*range(10), *range(11, 15), 16, *range(19, 23))}


def corpus_as_filed(server: Server) -> list[bytes]:
    """What of the corpus that server files, as it files it, sorted."""
    refused = REFUSED_BY_MADDY if isinstance(server, Maddy) else set()
    filed = {name: as_filed(raw) for name, raw in corpus().items() if name not in refused}
    if not isinstance(server, Maddy):
        for name in MENDED_BY_POSTFIX:
            filed[name] = filed[name].replace(b"Fro :", b"Fro:", 1)
    return sorted(filed.values())


def corpus() -> dict[str, bytes]:
    """The 77 mails by name."""
    mails = {path.stem: path.read_bytes() for path in sorted(CORPUS.glob("*.eml"))}
    assert len(mails) == 77
    return mails
