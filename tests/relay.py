"""The relay of a test: the real one, in this process, between a fake smarthost and a fake mail server at home."""

import contextlib
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drain import config, outbound
from drain.relay.queue import Queue, State
from drain.relay.relay import Relay
from drain.relay.users import Users
from tests.smtp_fake import FakeSmtp
from tests.support import DOMAIN, Events, free_port

PASSWORD = "correct horse"
ALICE = f"alice@{DOMAIN}"
MAIL = (
    b"From: Alice <alice@example.test>\r\n"
    b"To: bob@elsewhere.test\r\n"
    b"Subject: hello\r\n"
    b"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <1@example.test>\r\n"
    b"\r\n"
    b"line\r\n.\r\n..two dots\r\n"
)


class RelayHouse:
    """Settings, a smarthost, a mail server, and a log; `running` gives the relay."""

    def __init__(self, smarthost: FakeSmtp, smtp: FakeSmtp, folder: Path) -> None:
        self.smarthost = smarthost
        self.smtp = smtp
        self.folder = folder
        self.events = Events()
        self.port = free_port()
        self.now = 0.0  # seconds that this clock is ahead
        smarthost.takes_all = True
        smtp.mailboxes |= {ALICE}
        Users(folder / "state" / "relay-users").add("phone", PASSWORD.encode(), ())

    def environ(self, **more: str) -> dict[str, str]:
        """The settings."""
        return {
            "STATE_DIR": str(self.folder / "state"),
            "RELAY_KEY_FILE": str(self.folder / "config" / "relay.key"),
            "DRAIN_ENV_FILE": "/dev/null",
            "MAIL_DOMAIN": DOMAIN,
            "INJECT_PORT": str(self.smtp.port),
            "INJECT_USER": self.smtp.user,
            "INJECT_PASS": self.smtp.password,
            "RELAY_PORT": str(self.port),
            "RELAY_UPSTREAM": "smtp",
            "SMARTHOST_HOST": f"127.0.0.1:{self.smarthost.port}",
            "SMARTHOST_USER": self.smarthost.user,
            "SMARTHOST_PASS": self.smarthost.password,
            "SMARTHOST_TLS": "none",
            "ALLOWED_FROM": f"@{DOMAIN}",
            **more,
        }

    @contextlib.contextmanager
    def running(self, **settings: str) -> Iterator[Relay]:
        """The relay, listening."""
        loaded, _ = config.load(self.environ(**settings), complete=False)
        config.check_relay(loaded)
        clock = lambda: time.time() + self.now  # noqa: E731
        with outbound.relay(loaded, self.events.log, clock=clock) as relay:
            try:
                relay.start()
                yield relay
            finally:
                relay.stop()

    @contextlib.contextmanager
    def queue(self) -> Iterator[Queue]:
        """The queue, as another process has it open."""
        with contextlib.closing(outbound.queue(config.load(self.environ(), complete=False)[0])) as queue:
            yield queue

    def client(self, user: str = "phone", password: str = PASSWORD) -> smtplib.SMTP:
        """A mail program that has logged in."""
        client = smtplib.SMTP("127.0.0.1", self.port, "client.test", timeout=20)
        try:
            client.login(user, password)
        except BaseException:
            client.close()
            raise
        return client

    def send(
        self, raw: bytes = MAIL, to: str | list[str] = "bob@elsewhere.test", sender: str = ALICE, **more: Any
    ) -> dict[str, tuple[int, bytes]]:
        """One mail; raises what smtplib raises."""
        with self.client(**more) as client:
            return client.sendmail(sender, to, raw)

    def states(self) -> list[State]:
        """Of all entries of users' mails."""
        with self.queue() as queue:
            return [entry.state for entry in queue.entries(*State) if not entry.mail.inbound]


def below_received(raw: bytes) -> bytes:
    """The message without the line that the relay put on top."""
    assert raw.startswith(b"Received: ")
    lines = raw.split(b"\r\n")
    first = next(number for number, line in enumerate(lines) if number and not line.startswith((b" ", b"\t")))
    return b"\r\n".join(lines[first:])
