"""`drain doctor` as a person runs it: a sound set-up, and each fault found and named."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drain.cli import main
from drain.demo.s3 import Fault
from drain.ledger import Ledger
from drain.logbook import Logbook, Pass
from tests.real.nameserver import FakeResolver
from tests.sealing import KEY, key_files
from tests.support import House, free_port
from tests.test_doctor_dns import SOUND, serving
from tests.wire.test_doctor_server import LONG, ROOT, over_tls

RULES = (
    b"<LifecycleConfiguration><Rule><ID>r</ID><Status>Enabled</Status><Filter><Prefix>processed/</Prefix></Filter>"
    b"<Expiration><Days>7</Days></Expiration></Rule></LifecycleConfiguration>"
)


class Sound:
    """A set-up in which all is well, and the settings for it."""

    def __init__(self, house: House, resolver: FakeResolver, folder: Path) -> None:
        self.house = house
        self.folder = folder
        house.state_dir.mkdir(mode=0o700, exist_ok=True)
        house.s3.fault = self._rules
        self.faults: Callable[[str, str], Fault | None] = lambda operation, key: None
        Ledger(house.state_dir / "ledger.db").close()
        with contextlib.closing(Logbook(house.state_dir / "logbook.db")) as book:
            book.enter(Pass(time.time(), 1.0, 0, 0, None, {}, "", ""))
        (self.key,) = key_files(folder, KEY)
        self.env_file = folder / "drain.env"
        self.settings = {
            **house.environ(),
            "PRIVATE_KEY_FILE": str(self.key),
            "ORIGIN_TOKEN": "t0ken-t0ken",
            "DNS_RESOLVERS": resolver.resolver,
            "MAIL_ALERT_CMD": "cat",
        }
        del self.settings["DRAIN_ENV_FILE"]

    def _rules(self, operation: str, key: str) -> Fault | None:
        return self.faults(operation, key) or (Fault(body=RULES) if operation == "GET" else None)

    def doctor(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "drain", "doctor", *arguments],
            env=self.environ(**more),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def environ(self, **more: str) -> dict[str, str]:
        """What drain is started with: the settings are in a file."""
        lines = (f"{name}='{text}'\n" for name, text in {**self.settings, **more}.items() if text)
        self.env_file.touch(0o600)
        self.env_file.write_text("".join(lines))
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "DRAIN_ENV_FILE": str(self.env_file)}


@pytest.fixture
def sound(house: House, tmp_path: Path) -> Iterator[Sound]:
    certificate = tmp_path / "ca.pem"
    certificate.write_bytes(ROOT.pem)
    with (
        FakeResolver(serving(SOUND)) as resolver,
        over_tls(tmp_path, ROOT.issue("127.0.0.1", ends=LONG)) as server,
    ):
        sound = Sound(house, resolver, tmp_path)
        sound.settings |= {"INJECT_PORT": str(server.port), "INJECT_TLS_CA_FILE": str(certificate)}
        yield sound


# What this machine is beneath the tests is not theirs to say.
REST = "configuration,files,ledger,clock,bucket,lifecycle,keys,server,dns,filters,upstream,relay,imap,alerts,passes,lock,termux"


def test_a_sound_set_up_is_ok_in_every_check(sound: Sound) -> None:
    done = sound.doctor("--only", REST)
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    checks = {line.split(":")[0].removeprefix("+ ok      ") for line in lines[:-1]}
    assert checks == {
        "configuration", "files", "ledger", "clock", "bucket", "lifecycle", "keys", "server", "dns", "filters",
        "alerts", "passes", "lock",
    }  # fmt: skip
    assert lines[-1] == f"{len(lines) - 1} ok, 0 warnings, 0 failures, 0 unknown."
    assert done.returncode == 0
    assert sound.house.keys() == []


def test_no_secret_is_in_what_it_says(sound: Sound) -> None:
    done = sound.doctor("--only", REST)
    shown = done.stdout + done.stderr
    for name in ("R2_SECRET_ACCESS_KEY", "INJECT_PASS", "ORIGIN_TOKEN"):
        assert sound.settings[name] not in shown


def _key_gone(sound: Sound) -> None:
    sound.key.unlink()


def _key_open(sound: Sound) -> None:
    sound.key.chmod(0o644)


def _ledger_damaged(sound: Sound) -> None:
    (sound.house.state_dir / "ledger.db").write_bytes(b"nonsense " * 1000)


def _logbook_damaged(sound: Sound) -> None:
    (sound.house.state_dir / "logbook.db").write_bytes(b"nonsense " * 1000)


def _state_open(sound: Sound) -> None:
    sound.house.state_dir.chmod(0o777)


def _clock_wrong(sound: Sound) -> None:
    sound.faults = lambda operation, key: Fault(403, "RequestTimeTooSkewed") if key or "List" in operation else None


def _read_only(sound: Sound) -> None:
    sound.faults = lambda operation, key: (
        Fault(403, "AccessDenied") if operation in ("PutObject", "CopyObject") else None
    )


def _rules_hidden(sound: Sound) -> None:
    sound.faults = lambda operation, key: Fault(403, "AccessDenied") if operation == "GET" else None


def _nothing(sound: Sound) -> None:
    pass


def _login_refused(sound: Sound) -> None:
    sound.settings |= {"INJECT_PORT": str(sound.house.smtp.port), "INJECT_TLS_CA_FILE": "", "INJECT_PASS": "wrong"}


def _server_gone(sound: Sound) -> None:
    sound.settings["INJECT_PORT"] = str(free_port())


@pytest.mark.parametrize(
    ("fault", "more", "code", "check", "said"),
    [
        (_nothing, {"ALERT_DAYS": "soon"}, 2, "configuration", "ALERT_DAYS 'soon' is not right"),
        (_nothing, {"ALERT_DAY": "3"}, 1, "configuration", "Is it ALERT_DAYS?"),
        (_nothing, {"R2_BUCKET": ""}, 2, "configuration", "R2_BUCKET is not set"),
        (_nothing, {"INJECT_RCPT": "inbox@other.test"}, 2, "configuration", "is not in MAIL_DOMAIN"),
        (_key_open, {}, 1, "files", "can be read by other users"),
        (_state_open, {}, 2, "files", "can be changed by other users"),
        (_ledger_damaged, {}, 2, "ledger", "The ledger"),
        (_logbook_damaged, {}, 2, "ledger", "The logbook"),
        (_clock_wrong, {}, 2, "bucket", "the clock of this machine is wrong"),
        (_nothing, {"R2_SECRET_ACCESS_KEY": "0" * 64}, 2, "bucket", "the secret access key is wrong"),
        (_nothing, {"R2_BUCKET": "other"}, 2, "bucket", "there is no such bucket"),
        (_read_only, {}, 2, "bucket", "Writing (PutObject) failed"),
        (_rules_hidden, {}, 1, "lifecycle", "not for this token to read"),
        (_key_gone, {}, 2, "keys", "cannot be read"),
        (_nothing, {"PRIVATE_KEY_FILE": ""}, 2, "keys", "There is no private key"),
        (_nothing, {"ORIGIN_TOKEN": ""}, 1, "keys", "ORIGIN_TOKEN is not set"),
        (_login_refused, {}, 2, "server", "INJECT_PASS"),
        (_server_gone, {}, 2, "server", "refuse"),
        (_nothing, {"MAIL_ALERT_CMD": ""}, 1, "alerts", "Nobody"),
        (_nothing, {"LOCKFILE": "/proc/drain.lock"}, 2, "lock", "No lock can be had"),
    ],
)
def test_each_fault_is_found_and_named(
    sound: Sound,
    fault: Callable[[Sound], None],
    more: dict[str, str],
    code: int,
    check: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault(sound)
    only = "configuration,lock" if check == "configuration" else check
    # In this process: a start of Python for each would take a minute.
    assert main(["doctor", "--json", "--only", only], sound.environ(**more)) == code
    *findings, totals = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert totals["exit"] == code
    found = [finding for finding in findings if finding["level"] != "ok"]
    assert {finding["check"] for finding in found} == {check}
    assert any(said in finding["words"] + finding["next"] for finding in found)
    assert all(finding["next"] for finding in found)


def test_it_runs_with_no_configuration_at_all_and_says_what_each_check_lacks(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DRAIN_ENV_FILE": "/dev/null"}
    done = subprocess.run(
        [sys.executable, "-m", "drain", "doctor", "--json", "--only", REST],
        env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()[:-1]]
    levels = {(one["check"], one["level"]) for one in found}
    assert {(name, "unknown") for name in ("clock", "bucket", "lifecycle", "server", "dns")} <= levels
    assert ("keys", "failure") in levels
    assert ("lock", "ok") in levels
    assert not list(tmp_path.iterdir())


def test_a_check_that_does_not_exist_is_wrong_use(sound: Sound) -> None:
    done = sound.doctor("--only", "lock,everything")
    assert done.returncode == 64
    assert "There is no check everything" in done.stderr
    assert "lifecycle" in done.stderr
