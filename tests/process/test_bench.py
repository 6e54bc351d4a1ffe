"""The bench as a person runs it: the peer delivers, runs are measured and checked, and all ends when it ends."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as bench, transfers, works
from bench.endpoint import Endpoint
from bench.mails import BenchMail
from bench.peer import Bucket
from bench.runs import PEER, Measured, RunFailed, Stage
from bench.sink import Sink
from tests.support import until

ROOT = Path(__file__).parents[2]
SIZE = 5000
MIB = 1024 * 1024
# A peer with a fault in the third mail that it hands over.
FAULTY = """
import sys
sys.path.insert(0, {folder!r})
import peer
give, given = peer.MailServer.give, []
def faulty(self, *mail):
    given.append(mail)
    for _ in range({times} if len(given) == 3 else 1):
        give(self, *mail)
peer.MailServer.give = faulty
sys.exit(peer.main())
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Endpoint(tmp_path) as endpoint, Sink() as sink:
        yield Stage(endpoint, sink, tmp_path)


# -- the peer --


def test_the_peer_delivers_each_mail_once_as_it_is_and_moves_it(stage: Stage) -> None:
    stage.load(5, SIZE)
    state = stage.state()
    stage.cost(PEER, 5, state=state)
    wanted = {hashlib.sha256(b"".join(BenchMail(number, SIZE).blocks())).hexdigest() for number in range(5)}
    assert {digest for digest, _ in stage.sink.mails()} == wanted
    assert stage.endpoint.left("processed/") == 5
    stage.cost(PEER, 5, state=state)  # of which none is left to do


def test_the_peer_makes_a_connection_for_each_request(stage: Stage) -> None:
    stage.load(5, SIZE)
    stage.cost(PEER, 5)
    assert stage.endpoint.requests() == {"ListObjectsV2": 1, "GetObject": 5, "CopyObject": 5, "DeleteObject": 5}
    assert stage.endpoint.connections() == 16


def test_the_peer_lists_page_after_page(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(stage.endpoint.certificate_file))
    stage.load(1100, SIZE)
    bucket = Bucket(
        {
            "R2_ENDPOINT_URL": stage.endpoint.url,
            "R2_BUCKET": stage.endpoint.bucket,
            "R2_ACCESS_KEY_ID": stage.endpoint.access_key_id,
            "R2_SECRET_ACCESS_KEY": stage.endpoint.secret_access_key,
        }
    )
    assert len(set(bucket.list("pending/"))) == 1100
    assert stage.endpoint.requests() == {"ListObjectsV2": 2}


# -- what is measured --


def measured(tmp_path: Path, code: str) -> Measured:
    return Measured((sys.executable, "-c", code), os.environ, tmp_path / "output")


def test_the_memory_of_who_measures_is_not_counted(tmp_path: Path) -> None:
    ballast = b"x" * (200 * MIB)
    with measured(tmp_path, "pass") as small, measured(tmp_path, f"b'x' * {150 * MIB}") as large:
        assert small.wait().peak_bytes < 100 * MIB
        assert 150 * MIB < large.wait().peak_bytes < len(ballast)


def test_the_cpu_of_a_run_is_its_own(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.4: pass"
    with measured(tmp_path, "import time; time.sleep(0.5)") as asleep, measured(tmp_path, busy) as awake:
        slept, worked = asleep.wait(), awake.wait()
    assert worked.cpu_seconds >= 0.4 > slept.cpu_seconds
    assert slept.seconds >= 0.5


def test_a_run_that_fails_has_no_figures_but_words(tmp_path: Path) -> None:
    failing = measured(tmp_path, "import sys; print('no such bucket'); sys.exit(77)")
    with failing, pytest.raises(RunFailed, match=r"It ended with 77\. Its last words: no such bucket"):
        failing.wait()


def test_a_run_that_does_not_end_is_ended(tmp_path: Path) -> None:
    endless = measured(tmp_path, "import time; time.sleep(600)")
    with endless, pytest.raises(RunFailed, match="It did not end within 1 s"):
        endless.wait(1.0)
    until(lambda: not Path(f"/proc/{endless.pid}").exists())


# -- python -m bench --


@pytest.fixture
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("times", "words"), [(0, "took 19, 0 of them more than once"), (2, "took 20, 1 of them more than once")]
)
@pytest.mark.usefixtures("_signals")
def test_a_run_that_loses_or_doubles_a_mail_is_an_error_and_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, words: str
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY.format(folder=str(ROOT / "bench"), times=times))
    monkeypatch.setattr(transfers, "PEER", (sys.executable, str(tmp_path / "faulty.py")))
    code = bench.main(["--quick", "--rounds", "1", "--only", "near", "--json", str(tmp_path / "rows")])
    rows = json.loads((tmp_path / "rows").read_text())["rows"]
    assert code == 1
    assert all(words in row["error"] and row["value"] is None for row in rows)


def test_the_bench_writes_a_table_and_its_rows(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "bench",
        "--quick",
        "--rounds",
        "1",
        "--only",
        "idle",
        "--json",
        str(tmp_path / "rows"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "rows").read_text())
    rows = {row["figure"]: row for row in found["rows"]}
    daemon = rows["pass of the daemon: CPU ÷ peer's one-shot"]
    assert (daemon["goal"], daemon["met"], len(daemon["values"])) == ("≤ 0.2", daemon["value"] <= 0.2, 1)
    assert rows["pass of the daemon: requests"]["value"] == 1.0
    for name in rows:
        assert name in done.stdout
    assert f"{os.cpu_count()} CPUs" in found["machine"]["machine"]


@pytest.mark.parametrize("name", [name for name in works.WORKS if name != "idle"])
@pytest.mark.usefixtures("_signals")
def test_every_other_work_is_measured_too(tmp_path: Path, name: str) -> None:
    code = bench.main(["--quick", "--rounds", "1", "--only", name, "--json", str(tmp_path / "rows")])
    rows = json.loads((tmp_path / "rows").read_text())["rows"]
    assert [row["error"] for row in rows] == [None] * len(works.WORKS[name].figures)
    assert code == 0


def test_an_interrupted_bench_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    mark = str(tmp_path / "tmp")
    command = [sys.executable, "-m", "bench", "--only", "far"]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": mark}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"far, round 1 of 3 ...\n"
        # The endpoint, the sink, the link, the meter and the peer.
        until(lambda: len(with_environment(f"TMPDIR={mark}")) == 6)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
        until(lambda: not with_environment(f"TMPDIR={mark}"))
    assert not list((tmp_path / "tmp").iterdir())


def with_environment(word: str) -> list[str]:
    """The processes that have it in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if word.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            continue  # it has ended, or is not ours
    return found


def test_a_work_that_there_is_not_gets_the_names_of_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--only", "idle,speed"])
    assert "there is no 'speed'; there are far, near," in capsys.readouterr().err


# -- ./install.sh bench --


def test_install_makes_the_environment_of_the_tests_and_hands_on_what_is_said(tmp_path: Path) -> None:
    place, commands = tmp_path / "a clone", tmp_path / "commands"
    (place / "tests").mkdir(parents=True)
    commands.mkdir()
    shutil.copy(ROOT / "install.sh", place)
    shutil.copy(ROOT / "tests/environment.sh", place / "tests")
    python = '#!/bin/sh\nprintf "%s|" "$@" >>said\necho >>said\n'
    made = 'case "$*" in *--clear*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;; esac\n'
    (commands / "python3").write_text(python + made)
    for name in ("apt-get", "npm", "dpkg-query"):
        (commands / name).write_text("#!/bin/sh\necho wanted >>said\nexit 1\n")
    for path in commands.iterdir():
        path.chmod(0o755)
    done = subprocess.run(
        [place / "install.sh", "bench", "--list", "--only", "a b"],
        env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = (place / "said").read_text().splitlines()
    assert said[-1] == "-m|bench|--list|--only|a b|"
    assert any(line.endswith("--editable|.|--group|test|--group|lint|") for line in said)
    assert "wanted" not in said
    assert (place / ".venv/ready-to-test").exists()


def test_the_list_names_every_work_and_measures_none() -> None:
    command = [sys.executable, "-m", "bench", "--list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["far", "near", "narrow", "big", "sealed", "idle", "start", "backlog", "ledger"]
    assert done.stderr == ""
