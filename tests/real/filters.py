"""What the filters ask, all of it on loopback, and the ways in which each part can go out of order."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drain.ledger import Ledger
from drain.mail import Mail
from drain.settings import FILTERS
from drain.state import Row
from tests.http_fake import Answer, FakeHttp, Request, answer
from tests.real.clamd import Clamd
from tests.real.house import ALICE, SENDER, RealHouse
from tests.real.nameserver import DBL_TEST_ENTRY, IP_TEST_ENTRY, Nameserver
from tests.real.spamd import Spamd
from tests.sealing import KEY, key_files, seal

ALL = ",".join(FILTERS)
LISTED, UNLISTED = "192.0.2.9", "192.0.2.8"
ZONES = {
    "zen.spamhaus.org": {**IP_TEST_ENTRY, LISTED: ["127.0.0.4"]},
    "dbl.spamhaus.org": DBL_TEST_ENTRY,
}
_PASS_SECONDS = 90
_BLOCK = (
    "Received: from mx.x.test ({ip}) by cloudflare-email.net (cloudflare) id abc for <alice@example.test>;"
    " Sat, 21 Nov 2026 10:00:00 +0000\r\n"
    "Authentication-Results: mx.cloudflare.net; dkim=none; dmarc={dmarc}; spf=none smtp.mailfrom=x.test\r\n"
    "X-CF-SpamH-Score: 0\r\n"
)
_FINE = {"spam": 0, "reason": "", "score": 0}


def from_the_edge(raw: bytes, ip: str = UNLISTED, dmarc: str = "none") -> bytes:
    """A mail with Cloudflare's block on top."""
    return _BLOCK.format(ip=ip, dmarc=dmarc).encode() + raw


def says(opinion: Mapping[str, object]) -> Answer:
    """An opinion as a model gives it."""
    return answer({"choices": [{"index": 0, "message": {"role": "assistant", "content": json.dumps(opinion)}}]})


@dataclass
class Part:
    """What one filter asks, running. ``settings`` say where it is; ``kill``, ``freeze`` and ``thaw`` happen to it."""

    name: str
    settings: dict[str, str]
    kill: Callable[[], object]
    freeze: Callable[[], object]
    thaw: Callable[[], object]
    http: FakeHttp | None = None


@contextlib.contextmanager
def spamd_part(folder: Path) -> Iterator[Part]:
    with Spamd(folder) as spamd:
        place = {"SPAMD_HOST": "127.0.0.1", "SPAMD_PORT": str(spamd.port)}
        yield _of_signals("spamassassin", place, spamd.signal_all)


@contextlib.contextmanager
def clamd_part(folder: Path) -> Iterator[Part]:
    with Clamd(folder) as clamd:
        yield _of_signals("clamav", {"CLAMD_SOCKET": clamd.socket}, clamd.signal_all)


@contextlib.contextmanager
def nsd_part(_folder: Path) -> Iterator[Part]:
    with Nameserver(ZONES) as nsd:
        server = nsd._server
        assert server is not None
        part = _of_signals("dnsbl", {"DNS_RESOLVERS": nsd.resolver}, lambda number: os.killpg(server.pid, number))
        yield part
        with contextlib.suppress(ProcessLookupError):
            part.thaw()


@contextlib.contextmanager
def ai_part(_folder: Path) -> Iterator[Part]:
    with _http_part("ai", lambda request: says(_FINE)) as part:
        assert part.http is not None
        part.settings |= {"AI_BASE_URL": f"{part.http.url}/v1", "AI_MODEL": "tiny"}
        yield part


@contextlib.contextmanager
def decision_part(_folder: Path) -> Iterator[Part]:
    with _http_part("decision", lambda request: answer({"decision": "allow"})) as part:
        assert part.http is not None
        part.settings["WEBHOOK_DECISION_URL"] = f"{part.http.url}/decide"
        yield part


PARTS = {
    "dnsbl": nsd_part,
    "clamav": clamd_part,
    "spamassassin": spamd_part,
    "ai": ai_part,
    "decision": decision_part,
}


def _of_signals(name: str, settings: dict[str, str], send: Callable[[signal.Signals], object]) -> Part:
    return Part(
        name,
        settings,
        kill=lambda: send(signal.SIGKILL),
        freeze=lambda: send(signal.SIGSTOP),
        thaw=lambda: send(signal.SIGCONT),
    )


@contextlib.contextmanager
def _http_part(name: str, says_fine: Callable[[Request], Answer]) -> Iterator[Part]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(FakeHttp(says_fine))

        def fall_silent(fate: str) -> None:
            # Before and after it has read a request: who is connected already waits, too.
            server.fate = fate
            server.answer = (lambda request: Answer(fate=fate)) if fate else says_fine

        yield Part(name, {}, stack.close, lambda: fall_silent("hang"), lambda: fall_silent(""), server)


@dataclass
class Judged:
    """A house with filters, and the ledger of its drain."""

    house: RealHouse
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.house.state_dir.mkdir(exist_ok=True)
        self.settings["PRIVATE_KEY_FILE"] = str(key_files(self.house.state_dir, KEY)[0])

    def put(self, name: str, raw: bytes, to: str = ALICE, sender: str = SENDER) -> None:
        """Lays a sealed object under pending/: a plain one would be left alone for two seconds."""
        self.house.r2.put(f"pending/{name}", seal(raw, {"to": to, "from": sender, "ip": None}))

    def pass_(self, **more: str) -> dict[str, Any]:
        return self.house.pass_(**{**self.settings, **more})

    def drain(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Any command, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "drain", *arguments],
            env=self.house.environ(**{**self.settings, **more}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PASS_SECONDS,
            check=False,
        )

    def watched(self, strike: Callable[[], object] | None = None, after: int = 0, **more: str) -> "Watched":
        """``drain once`` to its end; once *after* mails are delivered, *strike* happens."""
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                [sys.executable, "-m", "drain", "once", "--json"],
                env=self.house.environ(**{**self.settings, **more}),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                events = []
                for line in process.stdout:
                    events.append(json.loads(line))
                    if strike is not None and len(_of(events, "mail", state="delivered")) == after:
                        strike()
                        strike = None
                code = process.wait(_PASS_SECONDS)
            finally:
                process.kill()
            errors.seek(0)
            assert not (words := errors.read()), words
        self.house.server.wait_until_filed()
        return Watched(events, code)

    def all_are_due(self) -> None:
        """The time of every deferred mail's next attempt has come."""
        with contextlib.closing(sqlite3.connect(self.house.state_dir / "ledger.db")) as ledger, ledger:
            ledger.execute("UPDATE mail SET next_attempt_at = 0 WHERE state = 'deferred'")

    def row(self, raw: bytes, to: str = ALICE) -> Row:
        with contextlib.closing(Ledger(self.house.state_dir / "ledger.db")) as ledger:
            row = ledger.find(Mail(raw, to, SENDER).identity)
        assert row is not None
        return row

    def quarantine(self) -> list[dict[str, Any]]:
        """What ``drain quarantine list --json`` says."""
        done = self.drain("quarantine", "list", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]


@dataclass
class Watched:
    """What a pass logged, and its exit code."""

    events: list[dict[str, Any]]
    code: int

    def __call__(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """The events of that name and with these fields."""
        return _of(self.events, name, **fields)


def _of(events: list[dict[str, Any]], name: str, **fields: object) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name and fields.items() <= event.items()]


def added(filed: bytes) -> dict[str, str]:
    """The lines of drain's on top of a filed mail, unfolded, by name: down to ``X-Drain-Id``, the lowest."""
    head = filed.replace(b"\r\n", b"\n")
    above, found, _ = head.partition(b"\nX-Drain-Id: ")
    assert found, "no line of drain's"
    lines = re.sub(rb"\n[ \t]+", b" ", above).split(b"\n")
    # Postfix's own stand above ours.
    pairs = (line.decode("ascii").partition(": ") for line in lines if line.startswith((b"X-Drain-", b"X-Spam-")))
    return {name: value for name, _, value in pairs}


def verdict_of(filed: bytes, name: str) -> str:
    """What one filter said, as it stands in ``X-Drain-Verdict``; "" if it was not asked."""
    said = added(filed).get("X-Drain-Verdict", "")
    for part in said.split("; "):
        if part == name or part.startswith((f"{name}=", f"{name} ")):
            return part.removeprefix(name).removeprefix("=").strip() or "nothing"
    return ""
