"""Backups one after the other while a drain delivers and its relay takes mail; then the disk is lost."""

import contextlib
import os
import shutil
import signal
import smtplib
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from drain import cli
from drain.backup.archive import Archive
from drain.mail import on_the_wire
from drain.relay.queue import State
from drain.relay.users import Users
from tests.relay import PASSWORD
from tests.smtp_fake import FakeSmtp
from tests.support import House, free_port, until

BACKUPS = 8
_OPEN = ("waiting", "sending", "held")


class Load:
    """Mail that comes in and mail that goes out, until it is stopped."""

    def __init__(self, house: House, smarthost: FakeSmtp) -> None:
        smarthost.takes_all = True
        self.house = house
        self.smarthost = smarthost
        self.port = free_port()
        self.laid: list[bytes] = []
        self.accepted: list[bytes] = []  # subjects that the relay said 250 to
        self._over = threading.Event()
        Users(house.state_dir / "relay-users").add("phone", PASSWORD.encode(), ())

    def environ(self) -> dict[str, str]:
        return self.house.environ(
            POLL_INTERVAL="1",
            RELAY_ENABLED="true",
            RELAY_KEY_FILE=str(self.house.state_dir.parent / "relay.key"),
            RELAY_PORT=str(self.port),
            RELAY_UPSTREAM="smtp",
            SMARTHOST_HOST=f"127.0.0.1:{self.smarthost.port}",
            SMARTHOST_USER=self.smarthost.user,
            SMARTHOST_PASS=self.smarthost.password,
            SMARTHOST_TLS="none",
            ALLOWED_FROM="@example.test",
            RATE_LIMIT_PER_MINUTE="0",
            RATE_LIMIT_PER_DAY="0",
        )

    @contextlib.contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """A drain."""
        with subprocess.Popen(
            [sys.executable, "-m", "drain", "run"],
            env={**os.environ, **self.environ()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """While the block runs there is mail."""
        threads = [threading.Thread(target=self._incoming), threading.Thread(target=self._outgoing)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(30)

    def _incoming(self) -> None:
        while not self._over.wait(0.02):
            self.lay()

    def lay(self) -> None:
        raw = b"Subject: %d\r\n\r\nhello\r\n" % len(self.laid)
        self.laid.append(raw)
        self.house.put(f"{len(self.laid):05}", raw)

    def _outgoing(self) -> None:
        number = 0
        while not self._over.is_set():
            with (
                contextlib.suppress(OSError, smtplib.SMTPException),
                smtplib.SMTP("127.0.0.1", self.port, "client.test", timeout=20) as client,
            ):
                client.login("phone", PASSWORD)
                while not self._over.wait(0.02):
                    number += 1
                    subject = b"Subject: out %d\r\n" % number
                    raw = b"From: alice@example.test\r\n%s\r\nhello\r\n" % subject
                    client.sendmail("alice@example.test", "bob@elsewhere.test", raw)
                    self.accepted.append(subject)
            time.sleep(0.05)

    def take_more(self, number: int) -> None:
        """Waits until the relay has taken so many more."""
        enough = len(self.accepted) + number
        until(lambda: len(self.accepted) > enough)

    def filed(self) -> Counter[bytes]:
        """What came home, without drain's lines."""
        return Counter(one.content[one.content.index(b"Subject: ") :] for one in list(self.house.smtp.filed))

    def sent(self) -> Counter[bytes]:
        """The subjects that the smarthost has."""
        return Counter(
            line for one in list(self.smarthost.filed) for line in one.content.splitlines(keepends=True)
            if line.startswith(b"Subject: out")
        )  # fmt: skip


def check(file: Path, load: Load, settled_before: int, accepted_before: int, scratch: Path) -> int:
    """That a backup is whole and of one moment; how many mails wait in it."""
    with contextlib.closing(Archive(file)) as archive:
        for name in ("ledger.db", "queue.db"):
            archive.extract(name, scratch / name)
            with contextlib.closing(sqlite3.connect(scratch / name)) as copy:
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        bodies = {name.removeprefix("mails/") for name in archive.items if name.startswith("mails/")}
    with contextlib.closing(sqlite3.connect(scratch / "ledger.db")) as ledger:
        (settled,) = ledger.execute("SELECT count(*) FROM mail WHERE state IN ('delivered', 'settled')").fetchone()
    # A moment between the beginning of the backup and now.
    assert settled_before <= settled <= len(load.house.smtp.filed)
    with contextlib.closing(sqlite3.connect(scratch / "queue.db")) as queue:
        (known,) = queue.execute("SELECT count(*) FROM mail").fetchone()
        marks = ", ".join("?" * len(_OPEN))
        waiting = {mail for (mail,) in queue.execute(f"SELECT mail FROM entry WHERE state IN ({marks})", _OPEN)}
    assert known >= accepted_before
    assert waiting <= bodies, "a mail without its text"
    return len(waiting)


def test_backups_under_load_are_whole_and_after_a_restore_each_mail_is_there_once(house: House, tmp_path: Path) -> None:
    with FakeSmtp() as smarthost:
        load = Load(house, smarthost)
        with load.running() as process, load.going_on():
            until(lambda: len(house.smtp.filed) > 20 and len(load.accepted) > 20)
            for number in range(BACKUPS):
                if number == BACKUPS - 1:
                    # What waits in the last one may be sent after it.
                    smarthost.answer = lambda verb, argument: "451 4.3.0 later" if verb == "RCPT" else None
                    load.take_more(10)
                settled, accepted = len(house.keys("processed/")), len(load.accepted)
                file = tmp_path / f"{number}.tar"
                assert cli.main(["backup", str(file)], load.environ()) == 0
                waiting = check(file, load, settled, accepted, tmp_path)
            assert waiting >= 10
            in_last = load.accepted[:accepted]
            smarthost.answer = lambda verb, argument: None
            load.take_more(10)
            until(lambda: len(load.laid) > 100)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        delivered, sent = load.filed(), load.sent()
        assert sum(delivered.values()) > 50
        shutil.rmtree(house.state_dir)  # the disk is lost, and what waited for 250 in it since the last backup
        assert cli.main(["restore", "--yes", str(file)], load.environ()) == 0
        for _ in range(10):
            load.lay()
        # And some of what was delivered lies there again, as Cloudflare's retries would lay it.
        for number in range(0, 40, 7):
            house.put(f"again-{number}", load.laid[number])
        with load.running() as process:
            until(lambda: house.keys("pending/") == [], seconds=60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert load.filed() == Counter(on_the_wire(raw) for raw in load.laid)
        assert load.sent() == sent, "a mail that may have been sent was sent again, and nobody had said so"
        held(load, in_last)


def held(load: Load, in_last: list[bytes]) -> None:
    """Every mail that was taken before the last backup is sent, or waits for a person."""
    from drain import config, outbound

    loaded, _ = config.load(load.environ(), complete=False)
    with contextlib.closing(outbound.queue(loaded)) as queue:
        entries = queue.entries(State.HELD, State.WAITING, State.SENDING)
        assert {entry.state for entry in entries} == {State.HELD}
        waits = {
            line for entry in entries for line in queue.body(entry).splitlines(keepends=True)
            if line.startswith(b"Subject: out")
        }  # fmt: skip
    assert set(in_last) <= set(load.sent()) | waits
    assert waits
