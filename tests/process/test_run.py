"""``drain run`` as a process: the loop, signals, and what systemd hears."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drain.demo.s3 import Fault
from drain.ledger import Ledger
from drain.mail import Mail
from drain.state import State
from tests.support import MAIL, House, until

ALICE = "alice@example.test"


@contextmanager
def running(house: House, **settings: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-m", "drain", "run"],
        env={**os.environ, **house.environ(**settings)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_it_polls_and_delivers_what_comes(house: House) -> None:
    with running(house, POLL_INTERVAL="1") as process:
        until(lambda: house.s3.requests["ListObjectsV2"] >= 1)
        house.put("one")
        until(lambda: len(house.smtp.filed) == 1)
        until(lambda: house.keys("pending/") == [])
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    assert "drain runs" in said
    assert "drain stopped" in said
    assert said.count("listed=0") <= 2, "an idle pass after an idle one is worth no line"


def test_sigusr1_looks_at_once_and_a_pass_with_mail_is_followed_by_another(house: House) -> None:
    with running(house, POLL_INTERVAL="3600") as process:
        until(lambda: house.s3.requests["ListObjectsV2"] == 1)
        time.sleep(0.3)
        house.put("one")
        process.send_signal(signal.SIGUSR1)
        until(lambda: house.s3.requests["ListObjectsV2"] == 3)
        time.sleep(0.3)
        assert house.s3.requests["ListObjectsV2"] == 3, "an empty pass is not followed by another"
        assert len(house.smtp.filed) == 1


def test_sigterm_finishes_the_mail_in_hand(house: House) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def answer(verb: str, argument: str) -> str | None:
        if verb == "DOT":
            begun.set()
            go_on.wait(20)
        return None

    house.smtp.answer = answer
    house.put("one")
    for number in range(20):
        house.put(f"z{number}", MAIL + b"%d" % number)
    with running(house, CONCURRENCY="1") as process:
        assert begun.wait(20)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        go_on.set()
        assert process.wait(10) == 0
    assert 1 <= len(house.smtp.filed) <= 2, "no new mail is begun"
    assert len(house.keys("processed/")) == len(house.smtp.filed)


@pytest.mark.slow
def test_sigterm_does_not_wait_for_ever_for_a_reply_and_leaves_the_mail_injecting(house: House) -> None:
    begun, never = threading.Event(), threading.Event()

    def answer(verb: str, argument: str) -> str | None:
        if verb == "FILED":
            begun.set()
            never.wait(60)
        return None

    house.smtp.answer = answer
    house.put("one")
    with running(house) as process:
        assert begun.wait(20)
        stopped = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert 6 < time.monotonic() - stopped < 10
    never.set()
    ledger = Ledger(house.state_dir / "ledger.db")
    row = ledger.find(Mail(MAIL, ALICE, "").identity)
    ledger.close()
    assert row is not None
    assert row.state is State.INJECTING


def test_sigterm_while_r2_is_silent_ends_within_ten_seconds(house: House) -> None:
    asked, never = threading.Event(), threading.Event()

    def silent(operation: str, key: str) -> Fault | None:
        asked.set()
        never.wait(60)
        return None

    house.s3.fault = silent
    with running(house) as process:
        assert asked.wait(20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    never.set()


@pytest.mark.parametrize("settings", [{"INJECT_PASS": "wrong"}, {"R2_SECRET_ACCESS_KEY": "wrong"}])
def test_a_first_pass_that_is_refused_ends_with_77(house: House, settings: dict[str, str]) -> None:
    house.put("one")
    with running(house, **settings) as process:
        assert process.wait(20) == 77


def test_r2_away_is_waited_out(house: House) -> None:
    house.s3.fault = lambda operation, key: Fault(status=403, code="RequestTimeTooSkewed")
    house.put("one")
    with running(house, POLL_INTERVAL="1"):
        until(lambda: house.s3.requests["ListObjectsV2"] >= 2)
        house.s3.fault = None
        until(lambda: len(house.smtp.filed) == 1)


def test_systemd_hears_ready_status_watchdog_and_stopping(house: House, tmp_path: Path) -> None:
    house.put("one")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(15)
        heard: list[str] = []
        with running(house, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000") as process:
            while sum("WATCHDOG=1" in said for said in heard) < 4 or not any("1 delivered" in said for said in heard):
                heard.append(systemd.recv(4096).decode())
            process.send_signal(signal.SIGTERM)
            process.wait(10)
            while "STOPPING=1" not in heard:
                heard.append(systemd.recv(4096).decode())
    assert heard[0].startswith("READY=1\nSTATUS=")


def test_sigterm_after_a_pass_that_was_refused_is_a_clean_end(house: House) -> None:
    """For systemd another exit code is a failure, which somebody would be told of at each stop."""
    with running(house, POLL_INTERVAL="1") as process:
        until(lambda: house.s3.requests["ListObjectsV2"] >= 1)
        house.s3.fault = lambda operation, key: Fault(status=403, code="AccessDenied")
        seen = house.s3.requests["ListObjectsV2"]
        until(lambda: house.s3.requests["ListObjectsV2"] >= seen + 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
