"""The commands as a person runs them: exit codes, sentences, no traceback."""

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from drain import lock
from drain.demo.s3 import Fault
from tests.sealing import KEY, key_files, seal
from tests.smtp_fake import DROP
from tests.support import MAIL, House, on_verb


def drain(house: House, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "drain", *arguments],
        # A temporary folder of its own: what stands in for a logbook is remembered there.
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(house.state_dir.parent),
            "TMPDIR": str(house.state_dir.parent),
            **house.environ(**settings),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_once_delivers_and_says_a_line_a_mail_and_a_line_a_pass(house: House) -> None:
    house.put("one")
    done = drain(house, "once")
    assert done.returncode == 0
    mail, total = done.stderr.splitlines()
    assert " info mail state=delivered " in mail
    assert "to=alice@example.test" in mail
    assert " info pass listed=1 delivered=1 " in total
    assert "hello" not in done.stderr


def test_an_empty_bucket_is_a_line_too(house: House) -> None:
    """Silence could be a hang."""
    (line,) = drain(house, "--json", "once").stdout.splitlines()
    assert json.loads(line)["listed"] == 0


def test_a_quiet_pass_says_nothing_unless_something_is_wrong(house: House) -> None:
    """Cron makes a letter of every line."""
    house.put("one")
    done = drain(house, "once", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(house.smtp.filed) == 1
    done = drain(house, "once", "--quiet", R2_SECRET_ACCESS_KEY="wrong")
    assert done.returncode == 77
    assert "R2_SECRET_ACCESS_KEY" in done.stderr


def test_a_pass_with_nothing_sealed_does_not_load_cryptography(house: House, tmp_path: Path) -> None:
    """It costs as much as the rest of an idle pass."""
    script = "import sys; from drain.cli import main; main(['once']); print('cryptography' in sys.modules)"
    keyed = {"PRIVATE_KEY_FILE": str(key_files(tmp_path, KEY)[0])}
    for body, loaded in ((None, b"False"), (seal(), b"True")):
        if body:
            house.put("sealed", body, metadata={})
        environ = {**os.environ, **house.environ(**keyed)}
        done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, timeout=60, check=True)
        assert done.stdout.strip() == loaded


def test_oneshot_makes_bare_drain_end(house: House) -> None:
    house.put("one")
    assert drain(house, ONESHOT="1").returncode == 0
    assert len(house.smtp.filed) == 1


@pytest.mark.parametrize("arguments", [["--json", "once"], ["once", "--json"]])
def test_json_is_one_object_a_line_on_standard_output(house: House, arguments: list[str]) -> None:
    house.put("one")
    done = drain(house, *arguments)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["mail", "pass"]
    assert done.stderr == ""


def test_in_a_unit_the_lines_carry_journalds_priorities(house: House, tmp_path: Path) -> None:
    house.put("one")
    house.put("none", to="x@example.test")
    house.smtp.mailboxes.discard("inbox@example.test")
    journal = tmp_path / "journal"
    with journal.open("w") as stream:
        status = os.fstat(stream.fileno())
        environ = house.environ(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
        subprocess.run(
            [sys.executable, "-m", "drain", "once"],
            env={**os.environ, **environ},
            stderr=stream,
            timeout=60,
            check=False,
        )
    lines = journal.read_text().splitlines()
    assert sorted(line.split(" ")[0] for line in lines) == ["<1>alert", "<4>mail", "<6>mail", "<6>pass"]


def test_on_a_terminal_a_long_backlog_has_a_bar_and_the_end_a_summary(house: House) -> None:
    for number in range(30):
        house.put(f"{number:02}", MAIL + b"%d" % number)
    house.put("odd", b"", metadata={})
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "drain", "once"],
        env={**os.environ, **house.environ(), "TERM": "xterm", "COLUMNS": "100"},
        stderr=follower,
    ) as process:
        os.close(follower)
        shown = b""
        try:
            while chunk := os.read(leader, 65536):
                shown += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
        assert process.wait(30) == 0
    os.close(leader)
    text = shown.decode()
    assert "Bringing mail home" in text
    assert "31 in the bucket: 30 delivered, 1 set aside in quarantine" in text
    assert "quarantined: pending/odd" in text


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"MAIL_DOMAIN": ""}, 78, "MAIL_DOMAIN is not set"),
        ({"INJECT_PORT": "many"}, 78, "INJECT_PORT 'many'"),
        ({"DRAIN_ENV_FILE": "/nowhere/drain.env"}, 78, "/nowhere/drain.env"),
        ({"MAIL_ALIASES_FILE": "/nowhere"}, 78, "MAIL_ALIASES_FILE"),
        ({"STATE_DIR": "/proc/nowhere"}, 78, "LOCKFILE"),
        ({"R2_SECRET_ACCESS_KEY": "wrong"}, 77, "R2_SECRET_ACCESS_KEY"),
        ({"INJECT_PASS": "wrong"}, 77, "INJECT_PASS"),
        ({"R2_ENDPOINT_URL": "http://127.0.0.1:1"}, 75, "could not be reached"),
        ({"INJECT_PORT": "1"}, 75, "INJECT_PORT"),
    ],
)
def test_what_is_wrong_has_an_exit_code_and_one_sentence(
    house: House, settings: dict[str, str], code: int, words: str
) -> None:
    house.put("one")
    done = drain(house, "once", **settings)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    # Where nothing can be written, the logbook cannot be either.
    assert len([line for line in done.stderr.splitlines() if " logbook " not in line]) == 1
    assert house.keys() == ["pending/one"]


def test_a_deferred_mail_is_exit_75(house: House) -> None:
    house.put("one")
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    assert drain(house, "once").returncode == 75


def test_a_mail_without_a_reply_is_exit_75(house: House) -> None:
    house.put("one")
    house.smtp.answer = on_verb("FILED", DROP)
    assert drain(house, "once").returncode == 75


def test_a_missing_key_is_exit_78_and_the_other_mails_come(house: House) -> None:
    house.put("sealed", b"DRN1" + bytes(100))
    house.put("one")
    assert drain(house, "once").returncode == 78
    assert len(house.smtp.filed) == 1


def test_a_second_drain_says_so_and_exits_0(house: House) -> None:
    house.put("one")
    with lock.held(house.state_dir / "drain.lock", house.events.log):
        done = drain(house, "once")
    assert done.returncode == 0
    assert "Another drain is at work" in done.stderr


def test_ledger_commands_say_what_they_did(house: House) -> None:
    house.put("one")
    drain(house, "once")
    assert "1 were known already" in drain(house, "ledger", "rebuild").stdout
    (house.state_dir / "ledger.db").unlink()
    assert "1 mails taken over" in drain(house, "ledger", "rebuild").stdout
    assert "0 mails forgotten" in drain(house, "ledger", "prune").stdout
    house.put("one")
    drain(house, "once")
    assert len(house.smtp.filed) == 1


def test_a_rebuild_that_cannot_reach_r2_is_no_empty_ledger(house: House) -> None:
    house.s3.fault = lambda operation, key: Fault(body=b"<html/>")
    done = drain(house, "ledger", "rebuild")
    assert done.returncode == 75
    assert "not S3" in done.stderr


def test_config_shows_every_setting_and_no_secret(house: House) -> None:
    done = drain(house, "config")
    assert "INJECT_PASS=***" in done.stdout
    assert house.s3.secret_access_key not in done.stdout
    assert "MAIL_DOMAIN=example.test" in done.stdout


def test_the_demo_shows_where_each_mail_went(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "drain", "demo"],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "10 delivered (10 of them byte for byte" in done.stdout
    assert "2 in quarantine, 1 to be tried again, 0 lost" in done.stdout
    (folder,) = tmp_path.iterdir()
    assert folder.name in done.stdout.replace("\n", "")


def test_a_closed_pipe_is_no_traceback(house: House) -> None:
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m drain config --reference | head -n 1",
        shell=True,
        env={**os.environ, **house.environ()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.startswith("| setting |")
    assert done.stderr == ""


def test_a_closed_standard_output_does_not_stop_mail(house: House) -> None:
    for number in range(40):
        house.put(f"{number:02}", MAIL + b"%d" % number)
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m drain --json once >&-",
        shell=True,
        env={**os.environ, **house.environ()},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert len(house.smtp.filed) == 40


def test_an_aws_configuration_of_somebody_else_changes_nothing(house: House, tmp_path: Path) -> None:
    house.put("one")
    (tmp_path / "aws").write_text("[broken\n")
    done = drain(house, "once", AWS_PROFILE="nobody", AWS_CONFIG_FILE=str(tmp_path / "aws"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["-m", "bench"], ["bench/filters.py"], ["bench/relay.py"]], ids=" ".join)
def test_each_benchmark_still_starts(command: list[str]) -> None:
    asked = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert "usage" in asked.stdout
