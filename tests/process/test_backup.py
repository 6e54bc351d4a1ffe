"""``drain backup`` and ``drain restore`` as processes, killed at moments of their own."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from drain.backup.archive import Archive
from drain.demo.s3 import Fault
from drain.ledger import Ledger
from drain.mail import Mail
from drain.relay.queue import Message, Parcel, Queue, State, new_id
from drain.state import State as Kept
from tests.support import MAIL, House

NOW = 1_800_000_000.0
MAILS = 40


def start(house: House, *words: str, stdout: int = subprocess.DEVNULL, **more: str) -> "subprocess.Popen[bytes]":
    key = str(house.state_dir.parent / "relay.key")
    return subprocess.Popen(
        [sys.executable, "-m", "drain", *words],
        env={**os.environ, **house.environ(RELAY_KEY_FILE=key), **more},
        stdout=stdout,
        stderr=subprocess.DEVNULL,
    )


def drain(house: House, *words: str) -> int:
    with start(house, *words) as process:
        return process.wait(60)


def seconds_of(house: House, *words: str) -> float:
    begun = time.monotonic()
    assert drain(house, *words) == 0
    return time.monotonic() - begun


def fill(house: House) -> list[bytes]:
    """Some mails delivered, and some of the relay's that wait; their bodies."""
    bodies = [MAIL + b"%d\r\n" % number for number in range(MAILS)]
    for number, body in enumerate(bodies):
        house.put(f"{number:03}", body)
    assert drain(house, "once") == 0
    with contextlib.closing(Queue(house.state_dir / "relay", house.state_dir.parent / "relay.key")) as queue:
        for _ in range(MAILS):
            made = Message(new_id(), False, "phone", "a@x.test", "a@x.test", "<1@x>", len(MAIL), NOW)
            queue.accept(Parcel(made, [("b@elsewhere.test",)], MAIL * 50), NOW)
    return bodies


def killed_after(house: House, seconds: float, *words: str) -> int:
    with start(house, *words) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(seconds)
        process.kill()
        return process.wait(10)


def test_a_backup_that_is_killed_leaves_no_half_file_under_its_name(house: House, tmp_path: Path) -> None:
    fill(house)
    whole = seconds_of(house, "backup", str(tmp_path / "whole.tar"))
    chance, killed = random.Random(6), 0
    for number in range(8):
        file = tmp_path / f"{number}.tar"
        # Most of a process's life is its start.
        code = killed_after(house, whole * chance.uniform(0.6, 1.0), "backup", str(file))
        killed += code == -signal.SIGKILL
        if file.exists():
            with contextlib.closing(Archive(file)) as archive:
                assert len(archive.items) > MAILS
    assert killed > 0
    assert drain(house, "backup", str(tmp_path / "last.tar")) == 0
    assert list(tmp_path.glob(".drain-backup*")) == [], "what those that were killed left is still there"


def test_a_restore_does_its_work_though_nobody_reads_what_it_says(house: House, tmp_path: Path) -> None:
    fill(house)
    file = tmp_path / "backup.tar"
    assert drain(house, "backup", str(file)) == 0
    shutil.rmtree(house.state_dir)
    for away in (True, False):
        house.s3.fault = lambda operation, key, away=away: Fault(status=503) if away else None
        reader, writer = os.pipe()
        os.close(reader)
        with start(house, "restore", "--yes", str(file), PYTHONUNBUFFERED="1", stdout=writer) as process:
            os.close(writer)
            code = process.wait(60)
        # Cut short it is not 0, whoever reads.
        assert code == (75 if away else 0)
        assert (house.state_dir / "ledger.db").exists() is not away
    with contextlib.closing(Queue(house.state_dir / "relay", house.state_dir.parent / "relay.key")) as queue:
        assert len(queue.entries(State.HELD)) == MAILS


def test_a_restore_that_is_killed_again_and_again_is_finished_by_the_last(house: House, tmp_path: Path) -> None:
    bodies = fill(house)
    file = tmp_path / "backup.tar"
    assert drain(house, "backup", str(file)) == 0
    shutil.rmtree(house.state_dir)
    whole = seconds_of(house, "restore", "--yes", str(file))
    chance, killed = random.Random(7), 0
    for number in range(10):
        if number % 5 == 0:
            shutil.rmtree(house.state_dir)
        killed += killed_after(house, whole * chance.uniform(0.5, 1.0), "restore", "--yes", str(file)) < 0
    assert killed > 0
    assert drain(house, "restore", "--yes", str(file)) == 0
    for number, body in enumerate(bodies):  # all once more, as after a move that was not finished
        house.put(f"{number:03}", body)
    assert drain(house, "once") == 0
    assert house.keys("pending/") == []
    assert len(house.smtp.filed) == MAILS
    with contextlib.closing(Ledger(house.state_dir / "ledger.db")) as ledger:
        rows = [ledger.find(Mail(body, "alice@example.test", "").identity) for body in bodies]
    assert {row.state for row in rows if row} == {Kept.SETTLED}
    with contextlib.closing(Queue(house.state_dir / "relay", house.state_dir.parent / "relay.key")) as queue:
        assert queue.recover(NOW) == []
        entries = queue.entries(*State)
        assert {entry.state for entry in entries} == {State.HELD}
        assert [queue.body(entry) for entry in entries] == [MAIL * 50] * MAILS
    assert [path.name for path in house.state_dir.iterdir() if "unfinished" in path.name or ".new" in path.name] == []
