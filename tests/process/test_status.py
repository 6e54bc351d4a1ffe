"""``drain status`` as a person, a monitoring system and a shell script run it."""

import fcntl
import json
import os
import pty
import re
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from drain.demo.s3 import Fault
from tests.support import House
from tests.test_metrics import parse

# https://www.monitoring-plugins.org/doc/guidelines.html#PLUGOUTPUT
_FIGURE = r"(?:'[^'=]+'|[^'= ]+)=-?[0-9.]+(?:s|us|ms|%|B|KB|MB|TB|c)?(?:;[-0-9.:~@]*){0,4}"
_PLUGIN = re.compile(rf"DRAIN (OK|WARNING|CRITICAL|UNKNOWN) - ([^|\n]+)(?:\|({_FIGURE}(?: {_FIGURE})*))?\n")


def environ(house: House, **settings: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(house.state_dir.parent), **house.environ(**settings)}


def without_network(state_dir: Path, **settings: str) -> dict[str, str]:
    """No settings but the folder: nobody could be asked."""
    return {"PATH": os.environ["PATH"], "STATE_DIR": str(state_dir), "DRAIN_ENV_FILE": "/dev/null", **settings}


def drain(env: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "drain", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def noted(state_dir: Path, seconds_ago: float = 60.0, pending: int | None = 2) -> None:
    """Notes a pass."""
    from drain.logbook import Logbook, Pass

    now = time.time()
    logbook = Logbook(state_dir / "logbook.db")
    logbook.enter(Pass(now - seconds_ago, 1.0, 2, pending, now - 3600, {"delivered": 2}, "", ""))
    logbook.close()


def test_without_anything_it_says_never_and_makes_nothing(tmp_path: Path) -> None:
    done = drain(without_network(tmp_path / "state"), "status")
    assert done.returncode == 0
    assert re.search(r"^last pass +never *$", done.stdout, re.MULTILINE)
    assert done.stderr == ""
    assert not (tmp_path / "state").exists()


def test_the_table_shows_what_became_of_mail(house: House) -> None:
    house.put("one")
    house.put("odd", b"", metadata={})
    assert drain(environ(house), "once").returncode == 0
    shown = drain(environ(house), "status").stdout
    assert re.search(r"^today +1 delivered, 1 quarantined, 0 discarded; from bucket to inbox", shown, re.MULTILINE)


def test_the_table_shows_the_last_pass_and_what_it_left(tmp_path: Path) -> None:
    noted(tmp_path)
    shown = drain(without_network(tmp_path), "status").stdout
    assert re.search(r"^waiting +2 in the bucket, the oldest for 1 h; seen 1 min ago *$", shown, re.MULTILINE)
    assert re.search(r"^last pass +[-0-9]+ [0-9:]+, 1 min ago, 1 s: 2 delivered *$", shown, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["--json", "status"], ["status", "--json"]])
def test_json_is_one_object_and_nothing_secret(house: House, arguments: list[str]) -> None:
    noted(house.state_dir)
    done = drain(environ(house), *arguments)
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert told["pending"]["count"] == 2
    assert told["last_good_pass"]["outcomes"] == {"delivered": 2}
    for secret in (house.smtp.password, house.s3.secret_access_key, house.s3.access_key_id):
        assert secret not in done.stdout


def test_prometheus_is_in_its_format(house: House) -> None:
    noted(house.state_dir)
    samples = parse(drain(environ(house), "status", "--prometheus").stdout)
    assert samples["drain_pending_mails", ()] == 2


def test_html_is_written_to_its_file_or_to_standard_output(house: House, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert drain(environ(house), "status", "--html", str(path)).returncode == 0
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert drain(environ(house), "status", "--html", "-").stdout.startswith("<!DOCTYPE html>")
    missing = drain(environ(house), "status", "--html", str(tmp_path / "no" / "page.html"))
    assert missing.returncode == os.EX_CONFIG
    assert "cannot be written" in missing.stderr
    assert "Traceback" not in missing.stderr


# -- --check --


@pytest.mark.parametrize(
    ("ago", "settings", "code", "word"),
    [
        (60.0, {}, 0, "OK"),
        (3 * 3600.0, {}, 2, "CRITICAL"),
        (3 * 3600.0, {"ALERT_STALE_HOURS": "4"}, 0, "OK"),
        (None, {}, 2, "CRITICAL"),
        (60.0, {"ALERT_STALE_HOURS": "soon"}, 3, "UNKNOWN"),
        (60.0, {"DRAIN_ENV_FILE": "/nowhere/drain.env"}, 3, "UNKNOWN"),
    ],
)
def test_check_is_one_line_of_a_monitoring_plugin(
    tmp_path: Path, ago: float | None, settings: dict[str, str], code: int, word: str
) -> None:
    if ago is not None:
        noted(tmp_path, ago)
    done = drain(without_network(tmp_path, **settings), "status", "--check")
    found = _PLUGIN.fullmatch(done.stdout)
    assert found, done.stdout
    assert (done.returncode, found[1]) == (code, word)
    assert "bug" not in found[2]
    if word == "OK":
        assert found[3].startswith("last_good_pass=")
        assert " pending=2;;;0 " in found[3]


def test_check_says_that_a_file_cannot_be_read(tmp_path: Path) -> None:
    noted(tmp_path)
    (tmp_path / "ledger.db").write_bytes(b"no | database" * 1000)
    done = drain(without_network(tmp_path), "status", "--check")
    found = _PLUGIN.fullmatch(done.stdout)
    assert found
    assert (done.returncode, found[1]) == (3, "UNKNOWN")


def test_check_needs_neither_the_lock_nor_a_ledger_that_nobody_writes_to(house: House) -> None:
    from drain.ledger import Ledger

    house.state_dir.mkdir()
    noted(house.state_dir)
    ledger = Ledger(house.state_dir / "ledger.db")
    with (house.state_dir / "drain.lock").open("w") as lock, ledger._db.writing() as db:
        fcntl.flock(lock, fcntl.LOCK_EX)
        db.execute("INSERT INTO note VALUES ('x', 'y')")
        done = drain(environ(house), "status", "--check")
    ledger.close()
    assert done.returncode == 0, done.stdout


def test_a_bar_in_the_words_of_an_alert_does_not_begin_the_figures(tmp_path: Path) -> None:
    from drain.logbook import Logbook

    noted(tmp_path)
    logbook = Logbook(tmp_path / "logbook.db")
    with logbook.database.writing() as db:
        db.execute(
            "INSERT INTO alert (kind, subject, words, count, since, told_at) VALUES ('bucket', '', 'a|b\nc', 0, 1, 1)"
        )
    logbook.close()
    done = drain(without_network(tmp_path), "status", "--check")
    found = _PLUGIN.fullmatch(done.stdout)
    assert found, done.stdout
    assert (done.returncode, found[2]) == (2, "bucket: a/b c")


# -- --live --


def test_only_live_asks_the_bucket_and_once(house: House) -> None:
    for number in range(3):
        house.put(f"{number}")
    noted(house.state_dir)
    assert "2 in the bucket" in drain(environ(house), "status").stdout
    assert house.s3.requests.total() == 0
    shown = drain(environ(house), "status", "--live").stdout
    assert re.search(r"^waiting +3 in the bucket, the oldest for [0-9]+ d *$", shown, re.MULTILINE)
    assert house.s3.requests.total() == 1


def test_live_says_what_r2_says_if_it_refuses(house: House) -> None:
    house.s3.fault = lambda *_: Fault(403, "AccessDenied")
    done = drain(environ(house), "status", "--live")
    assert done.returncode == 0
    assert re.search(r"^waiting +not known\. .*R2", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stderr


# -- --watch --


def test_watch_prints_again_until_ctrl_c_where_there_is_no_terminal(tmp_path: Path) -> None:
    noted(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "drain", "--json", "status", "--watch", "0.05"],
        env=without_network(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == b""
    times = [line["at"] for line in lines]
    assert times == sorted(set(times))


def test_watch_refreshes_on_a_terminal_until_ctrl_c(tmp_path: Path) -> None:
    noted(tmp_path, pending=2)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "drain", "status", "--watch", "0.05"],
        env={**without_network(tmp_path), "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        shown = b""
        deadline = time.monotonic() + 30
        while b"2 in the bucket" not in shown and time.monotonic() < deadline:
            shown += os.read(leader, 65536)
        noted(tmp_path, 1.0, pending=77)
        while b"77 in the bucket" not in shown and time.monotonic() < deadline:
            shown += os.read(leader, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    os.close(leader)
    assert b"77 in the bucket" in shown
    assert b"Traceback" not in shown


@pytest.mark.parametrize("arguments", [["--watch", "0"], ["--watch", "nan"], ["--watch", "5", "--html", "x"]])
def test_a_watch_that_cannot_be_is_wrong_use(tmp_path: Path, arguments: list[str]) -> None:
    done = drain(without_network(tmp_path), "status", *arguments)
    assert done.returncode == os.EX_USAGE
    assert "Traceback" not in done.stderr


def test_a_bug_is_unknown_to_a_monitoring_system_and_not_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from drain import cli

    def broken(*_: object) -> None:
        raise RuntimeError("a | b")

    monkeypatch.setattr("drain.oversight.status", broken)
    assert cli.main(["status", "--check"], without_network(tmp_path)) == 3
    found = _PLUGIN.fullmatch(capsys.readouterr().out)
    assert found
    assert found[1] == "UNKNOWN"
