"""What many tests share: a bucket to fill, a sweep over it, a log to read."""

import datetime
import io
import json
import random
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from drain import assembly, config, oversight
from drain.demo.s3 import S3Server, StoredObject
from drain.log import Level, Log, json_lines
from drain.sweep import Sweep
from drain.watch import Watch
from tests.smtp_fake import FakeSmtp

DOMAIN = "example.test"
MAIL = b"From: a@x.test\r\nSubject: s\r\n\r\nhello\r\n"
LONG_AGO = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def environment(s3: Any, smtp: Any, state_dir: Path, **more: str) -> dict[str, str]:
    """Settings for servers that have the usual attributes."""
    return {
        "R2_ENDPOINT_URL": s3.endpoint_url,
        "R2_ACCESS_KEY_ID": s3.access_key_id,
        "R2_SECRET_ACCESS_KEY": s3.secret_access_key,
        "R2_BUCKET": s3.bucket,
        "MAIL_DOMAIN": DOMAIN,
        "INJECT_PORT": str(smtp.port),
        "INJECT_USER": smtp.user,
        "INJECT_PASS": smtp.password,
        "INJECT_RCPT": "inbox",
        "STATE_DIR": str(state_dir),
        "DRAIN_ENV_FILE": "/dev/null",
        "ALERT_DAYS": "0",  # what lies in a test's bucket was written long ago
        **more,
    }


def until(true: Callable[[], object], seconds: float = 20.0, words: Callable[[], str] = lambda: "") -> None:
    """Waits until it is so."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, f"it has not come to that in {seconds} s. {words()}"
        time.sleep(0.02)


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody collects."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, and that no connection going out is given meanwhile."""
    while True:
        # Below where Linux takes the ports of clients from (ip_local_port_range).
        port = random.randrange(12_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


class Events:
    """A log whose events can be asked for."""

    def __init__(self) -> None:
        self._buffer = io.StringIO()
        self.log = Log(lambda: self._buffer, json_lines, threshold=Level.DEBUG)

    def __call__(self, name: str) -> list[dict[str, Any]]:
        """The events of that name."""
        events = [json.loads(line) for line in self._buffer.getvalue().splitlines()]
        return [event for event in events if event["event"] == name]


class House:
    """A drain in a temporary folder, between a fake S3 and a fake SMTP server."""

    def __init__(self, s3: S3Server, smtp: FakeSmtp, state_dir: Path) -> None:
        self.s3 = s3
        self.smtp = smtp
        self.state_dir = state_dir
        self.events = Events()
        self.slept: list[float] = []
        self.while_asleep: Callable[[], None] | None = None
        self.now = 1_800_000_000.0
        smtp.mailboxes |= {"inbox@example.test", "admin@example.test"}

    def put(
        self, name: str, raw: bytes = MAIL, to: str = "alice@example.test", metadata: Mapping[str, str] | None = None
    ) -> str:
        """Lays a plain object under pending/, written long ago; its key."""
        key = f"pending/{name}"
        about = {"to": to, "from": "a@x.test"} if metadata is None else dict(metadata)
        self.s3.objects[key] = StoredObject(raw, about, last_modified=LONG_AGO)
        return key

    def environ(self, **more: str) -> dict[str, str]:
        """The settings."""
        return environment(self.s3, self.smtp, self.state_dir, **more)

    def watch(self, **settings: str) -> Watch:
        """What follows passes, with the test's clock and log."""
        made = oversight.watch(config.load(self.environ(**settings))[0], self.events.log)
        made.clock = made.outbox.clock = lambda: self.now
        return made

    def alerts(self, kind: str) -> list[dict[str, Any]]:
        """The alerts of a kind, in the log."""
        return [event for event in self.events("alert") if event["kind"] == kind]

    def sweep(self, **settings: str) -> Sweep:
        """A sweep with the test's clock and log, and what follows it."""
        made = assembly.sweep(config.load(self.environ(**settings))[0], self.events.log)
        made.on_end = self.watch(**settings).after
        made.clock = lambda: self.now
        made.sleep = self._sleep
        return made

    def _sleep(self, seconds: float) -> None:
        """Time passes in the bucket: what lies there grows older."""
        self.slept.append(seconds)
        for key, stored in list(self.s3.objects.items()):
            older = stored.last_modified - datetime.timedelta(seconds=seconds)
            self.s3.objects[key] = StoredObject(stored.body, stored.metadata, last_modified=older)
        if self.while_asleep is not None:
            self.while_asleep()

    def keys(self, prefix: str = "") -> list[str]:
        """The keys in the bucket."""
        return sorted(key for key in self.s3.objects if key.startswith(prefix))

    def bodies(self, prefix: str) -> list[bytes]:
        """The bodies under a prefix, in the order of their keys."""
        return [self.s3.objects[key].body for key in self.keys(prefix)]


def on_verb(verb: str, *replies: str | None) -> Callable[[str, str], str | None]:
    """An ``answer`` for `FakeSmtp`: these replies to that verb, in turn, then the usual."""
    left = list(replies)

    def answer(asked: str, _argument: str) -> str | None:
        return left.pop(0) if asked == verb and left else None

    return answer
