"""Alerts of drain as a process: what a hook is told, and that one which hangs holds up nothing."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.http_fake import Answer, FakeHttp
from tests.support import MAIL, House

HOOK = """
import json, os, sys
told = {name: value for name, value in os.environ.items() if name.startswith("MAIL_ALERT_")}
open(sys.argv[1], "a").write(json.dumps({**told, "stdin": sys.stdin.read()}) + "\\n")
"""


def command(house: House, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
    environ = {"PATH": os.environ["PATH"], "HOME": str(house.state_dir.parent), **house.environ(**settings)}
    return subprocess.Popen(
        [sys.executable, "-m", "drain", *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def broken(house: House) -> None:
    house.put("one")
    house.smtp.answer = lambda verb, argument: "550 5.7.1 no" if verb == "MAIL" else None


def wait_for(path: Path) -> None:
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def hook(tmp_path: Path) -> str:
    script = tmp_path / "hook.py"
    script.write_text(HOOK)
    return shlex.join([sys.executable, str(script), str(tmp_path / "told")])


def test_a_hook_is_told_once_by_its_environment_and_on_standard_input(house: House, tmp_path: Path, hook: str) -> None:
    broken(house)
    for _ in range(3):
        done = command(house, "once", MAIL_ALERT_CMD=hook, MAIL_ALERT_MSG="The Pi")
        _, errors = done.communicate(timeout=60)
        assert done.returncode == 0, errors
    (told,) = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert told.pop("stdin").strip() == told["MAIL_ALERT_MSG"]
    assert told.pop("MAIL_ALERT_MSG").startswith("The Pi: 1 mail under quarantine/: 1 sender-refused.")
    assert {name: told[name] for name in ("MAIL_ALERT_KIND", "MAIL_ALERT_STATE", "MAIL_ALERT_COUNT")} == {
        "MAIL_ALERT_KIND": "quarantine",
        "MAIL_ALERT_STATE": "on",
        "MAIL_ALERT_COUNT": "1",
    }


def test_while_a_hook_hangs_the_lock_is_free_and_mail_goes_on_and_sigterm_ends_it(house: House, tmp_path: Path) -> None:
    broken(house)
    began = tmp_path / "began"
    hanging = command(house, "once", MAIL_ALERT_CMD=f"touch {shlex.quote(str(began))}; sleep 1000")
    try:
        wait_for(began)
        house.smtp.answer = lambda verb, argument: None
        house.put("two", MAIL + b"2")
        other = command(house, "once")
        _, errors = other.communicate(timeout=30)
        assert other.returncode == 0, errors
        assert "delivered" in errors
        assert hanging.poll() is None, "it waits for its hook"
        hanging.send_signal(signal.SIGTERM)
        started = time.monotonic()
        hanging.communicate(timeout=20)
        assert time.monotonic() - started < 5
    finally:
        hanging.kill()
        hanging.wait()
    left = subprocess.run(["pgrep", "-f", "sleep 1000"], capture_output=True, text=True, check=False)
    assert left.stdout == ""


def test_a_daemon_goes_on_beside_a_hook_that_hangs_and_ends_in_time(house: House, tmp_path: Path) -> None:
    broken(house)
    began = tmp_path / "began"
    daemon = command(house, "run", MAIL_ALERT_CMD=f"touch {shlex.quote(str(began))}; sleep 1000", POLL_INTERVAL="1")
    try:
        wait_for(began)
        house.smtp.answer = lambda verb, argument: None
        house.put("two", MAIL + b"2")
        until = time.monotonic() + 20
        while not house.smtp.filed and time.monotonic() < until:
            time.sleep(0.05)
        assert len(house.smtp.filed) == 1
        started = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=20)
        assert time.monotonic() - started < 10
    finally:
        daemon.kill()
        daemon.wait()


def test_a_hook_that_is_missing_is_a_line_in_the_log_and_no_more(house: House) -> None:
    broken(house)
    done = command(house, "once", MAIL_ALERT_CMD="there-is-no-such-command")
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0
    assert "alert-not-sent outlet=command kind=quarantine" in errors


def test_alert_test_tells_every_way_and_says_which_took_it(house: House, tmp_path: Path, hook: str) -> None:
    with FakeHttp(lambda request: Answer(b"{}")) as ntfy, FakeHttp(lambda request: Answer(status=500)) as webhook:
        settings = {
            "MAIL_ALERT_CMD": hook,
            "NTFY_URL": f"{ntfy.url}/topic",
            "ALERT_WEBHOOK_URL": webhook.url,
            "HEALTHCHECK_URL": f"{ntfy.url}/ping",
            "ALERT_MAIL": "true",
        }
        done = command(house, "alert", "test", "--json", **settings)
        output, errors = done.communicate(timeout=60)
    told = {line["outlet"]: line["told"] for line in map(json.loads, output.splitlines())}
    assert told == {"command": True, "ntfy": True, "webhook": False, "mail": True, "healthcheck": True}, errors
    assert done.returncode == 75
    assert [mail.mailbox for mail in house.smtp.filed] == ["admin@example.test"]
    assert json.loads((tmp_path / "told").read_text())["MAIL_ALERT_KIND"] == "test"


def test_alert_test_without_a_way_out_says_so(house: House) -> None:
    done = command(house, "alert", "test")
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 78
    assert "Nobody would be told" in errors
    assert "NTFY_URL" in errors
