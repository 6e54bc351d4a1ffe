"""What it costs to find nothing: the daemon between two mails, one pass over an empty bucket, and boto3's start."""

import statistics
import sys
from collections.abc import Mapping

from bench.figures import AT_MOST, Figure, Goal, Turn, Work, mib
from bench.runs import DAEMON, DRAIN, PEER, Measured, Stage

_SMALL = 20_000
_LIST = "ListObjectsV2"
_ONE_SHOTS = 7
_RESIDENT = Goal(AT_MOST, 60.0)

_NOTHING = "pass"
_BOTO3 = """
import boto3.session
boto3.session.Session().client(
    "s3", region_name="auto", endpoint_url="https://x.test", aws_access_key_id="a", aws_secret_access_key="b"
)
"""
_OURS = """
from drain import s3client, setting
s3client.client(
    endpoint_url="https://x.test", access_key_id="a", secret_access_key=setting.Secret("b"), connections=16
)
"""


def idle(stage: Stage, turn: Turn) -> Mapping[str, float]:
    """One-shots of both, in turn; then a daemon."""
    stage.load(0, 0)
    cpu: dict[tuple[str, ...], list[float]] = {PEER: [], DRAIN: []}
    seconds: dict[tuple[str, ...], list[float]] = {PEER: [], DRAIN: []}
    peaks = {}
    for number in range(turn.of(_ONE_SHOTS, 1) + 1):
        for command, taken in cpu.items():
            cost = stage.cost(command, 0)
            # The first of all may compile what it imports, or read it from the disk.
            if number > 0:
                taken.append(cost.cpu_seconds)
                seconds[command].append(cost.seconds)
            peaks[command] = cost.peak_bytes
    peer, drain = (statistics.median(cpu[command]) for command in (PEER, DRAIN))
    daemon = _daemon(stage, turn)
    return {
        "pass of the daemon: CPU ÷ peer's one-shot": daemon["pass of the daemon: CPU"] / 1000 / peer,
        "one-shot: CPU, drain ÷ peer": drain / peer,
        "one-shot: CPU, drain": drain * 1000,
        "one-shot: CPU, peer": peer * 1000,
        "one-shot: time, drain": statistics.median(seconds[DRAIN]) * 1000,
        "one-shot: time, peer": statistics.median(seconds[PEER]) * 1000,
        "one-shot: peak, drain": mib(peaks[DRAIN]),
        "one-shot: peak, peer": mib(peaks[PEER]),
        **daemon,
    }


def _daemon(stage: Stage, turn: Turn) -> dict[str, float]:
    passes, mails = turn.of(200, 5), turn.of(200, 10)
    stage.load(0, 0)
    # It looks when it is told to, and not else.
    with stage.started(DAEMON, settings={"POLL_INTERVAL": "86400"}) as daemon:
        daemon.until(lambda: stage.endpoint.requests().get(_LIST, 0) > 0, "the first LIST")
        # One more, for what a process does once.
        _look(stage, daemon)
        daemon.until_quiet()
        stage.check(0, daemon.words)
        before = mib(daemon.memory("VmRSS"))
        stage.load(0, 0)
        cpu_seconds = daemon.cpu_seconds
        for _ in range(passes):
            _look(stage, daemon)
        daemon.until_quiet()
        cpu_seconds = daemon.cpu_seconds - cpu_seconds
        asked, connections = stage.endpoint.requests(), stage.endpoint.connections()
        stage.load(mails, _SMALL)
        daemon.wake()
        daemon.until(lambda: stage.sink.taken() >= mails and stage.endpoint.left() == 0, f"the last of {mails} mails")
        daemon.until_quiet()
        stage.check(mails, daemon.words)
        after = mib(daemon.memory("VmRSS"))
        daemon.stop()
    return {
        "pass of the daemon: CPU": cpu_seconds / passes * 1000,
        "pass of the daemon: requests": sum(asked.values()) / passes,
        "pass of the daemon: new connections": connections / passes,
        "daemon: resident, no mail yet": before,
        "daemon: resident, after 200 mails": after,
    }


def _look(stage: Stage, daemon: Measured) -> None:
    """One pass. The next can be asked for while it ends: a signal in that time is kept."""
    seen = stage.endpoint.requests().get(_LIST, 0)
    daemon.wake()
    daemon.until(lambda: stage.endpoint.requests().get(_LIST, 0) > seen, "a LIST", 30.0)


def start(stage: Stage, turn: Turn) -> Mapping[str, float]:
    """Import and client, without the interpreter's own start: as boto3 does it, and as drain has it."""
    taken: dict[str, list[float]] = {_NOTHING: [], _BOTO3: [], _OURS: []}
    for number in range(turn.of(_ONE_SHOTS, 1) + 1):
        for code, values in taken.items():
            with stage.started((sys.executable, "-c", code)) as measured:
                cost = measured.wait()
            if number > 0:
                values.append(cost.cpu_seconds)
    nothing, boto3, ours = (statistics.median(values) * 1000 for values in taken.values())
    return {"CPU, as it comes": boto3 - nothing, "CPU, drain's client": ours - nothing, "CPU, had back": boto3 - ours}


WORKS = (
    Work(
        "idle",
        "nothing pending",
        idle,
        (
            Figure("pass of the daemon: CPU ÷ peer's one-shot", Goal(AT_MOST, 0.2)),
            Figure("one-shot: CPU, drain ÷ peer", Goal(AT_MOST, 2.0)),
            Figure("daemon: resident, no mail yet", _RESIDENT, unit="MiB"),
            Figure("daemon: resident, after 200 mails", _RESIDENT, unit="MiB"),
            Figure("pass of the daemon: CPU", unit="ms"),
            Figure("pass of the daemon: requests", Goal(AT_MOST, 1.0)),
            Figure("pass of the daemon: new connections"),
            Figure("one-shot: CPU, drain", unit="ms"),
            Figure("one-shot: CPU, peer", unit="ms"),
            Figure("one-shot: time, drain", unit="ms"),
            Figure("one-shot: time, peer", unit="ms"),
            Figure("one-shot: peak, drain", unit="MiB"),
            Figure("one-shot: peak, peer", unit="MiB"),
        ),
    ),
    Work(
        "start",
        "boto3's start, import and client",
        start,
        (
            Figure("CPU, as it comes", unit="ms", note="Beyond what Python itself takes to start."),
            Figure("CPU, drain's client", unit="ms"),
            Figure("CPU, had back", unit="ms"),
        ),
    ),
)
