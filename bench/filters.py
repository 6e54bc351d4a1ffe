#!/usr/bin/env python3
"""What each filter costs: time per mail, against the real spamd, clamd and NSD that the tests start.

Run from anywhere with the Python that has the project and its test group; README.md beside
this file says how to read the figures.
"""

import argparse
import contextlib
import dataclasses
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the rigs, which are no part of the package

from drain import assembly, config as configuration  # noqa: E402 (needs the line above)
from drain.filters import Filter, Inbound, Verdict  # noqa: E402
from drain.filters.chain import Chain  # noqa: E402
from drain.mail import Mail  # noqa: E402
from drain.settings import FILTERS, Config  # noqa: E402
from tests.real.filters import PARTS, from_the_edge  # noqa: E402

SIZES = {"10 KB": 10_000, "1 MB": 1_000_000}
# The first mails of all pay for imports and for what is looked up once.
WARM_UP = 2
WORDS = 3000
BLANK = "   "


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A filter that says nothing; with a time of its own it is asked on a thread of its own."""

    timeout_seconds: float
    name: ClassVar[str] = "nothing"

    def check(self, inbound: Inbound) -> Verdict:  # noqa: ARG002 (a filter's)
        """Nothing."""
        return Verdict()


class Mails:
    """Mails of text, no two with the same words, sender or address, so that nothing is known from before."""

    def __init__(self) -> None:
        self._chance = random.Random(1)  # noqa: S311 (words, and the same in every run)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = ["".join(self._chance.choices(letters, k=self._chance.randint(2, 9))) for _ in range(WORDS)]
        self._number = 0

    def next(self, size: int) -> Inbound:
        """One of about that many bytes."""
        self._number += 1
        number = self._number
        lines = []
        left = size
        while left > 0:
            lines.append(" ".join(self._chance.choices(self._words, k=11)) + "\r\n")
            left -= len(lines[-1])
        head = (
            f"From: Carol <carol@x{number}.test>\r\nTo: alice@example.test\r\nSubject: about {number}\r\n"
            f"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{number}@x{number}.test>\r\n\r\n"
        )
        raw = from_the_edge((head + "".join(lines)).encode(), ip=f"198.51.{100 + number // 250}.{1 + number % 250}")
        return Inbound(Mail(raw, "alice@example.test", f"carol@x{number}.test"))


def main() -> int:
    """The table, on standard output."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=30, help="mails of each size for each filter (default: 30)")
    parser.add_argument("--seconds", type=float, default=180, help="begin no round after so many (default: 180)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds wants one or more")
    busy = os.getloadavg()[0]
    until = time.monotonic() + arguments.seconds
    with _parts() as settings:
        asked = _asked(settings)
        taken = {size: _measure(asked, size, arguments.rounds, until) for size in SIZES}
    rounds = min(len(times) for by_name in taken.values() for times in by_name.values())
    machine = f"{os.cpu_count()} CPUs ({platform.machine()}), load {busy:.1f} at the start"
    print(f"{machine}; Python {platform.python_version()}; median of {rounds}\n")
    for line in _table(taken):
        print(line)
    return 0


@contextlib.contextmanager
def _parts() -> Iterator[dict[str, str]]:
    """All that filters ask, running; and the settings that say where."""
    settings = {"FILTERS": ",".join(FILTERS), "FILTER_FAIL_OPEN": "none", "DRAIN_ENV_FILE": "/dev/null"}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for start in PARTS.values():
            settings |= stack.enter_context(start(Path(folder))).settings
        yield settings


def _asked(settings: dict[str, str]) -> dict[str, Callable[[Inbound], object]]:
    """What is measured, by name."""
    config = _config(settings)
    policy = assembly.policy(config)
    # Without a budget: that lies in the ledger, which is a pass's.
    whole = Chain(policy.filters, policy.rules)
    full = _config({**settings, "AI_INPUT_SCOPE": "full_email", "WEBHOOK_DECISION_PAYLOAD_MODE": "full"})
    return {
        **{one.name: one.check for one in policy.filters},
        "ai, full_email": assembly.filter_named("ai", full).check,
        "decision, full": assembly.filter_named("decision", full).check,
        "whole chain": _judge(whole),
        "chain, nothing": _judge(_chain([Nothing(0)], whole)),
        "chain, nothing, thread": _judge(_chain([Nothing(5)], whole)),
    }


def _config(settings: dict[str, str]) -> Config:
    return configuration.load(settings, complete=False)[0]


def _chain(filters: Sequence[Filter], like: Chain) -> Chain:
    return Chain(filters, like.rules)


def _judge(chain: Chain) -> Callable[[Inbound], object]:
    def judge(inbound: Inbound) -> object:
        judgement = chain.judge(inbound, {})
        # A figure of a filter that failed would be one of something else.
        assert not judgement.failed, judgement
        return judgement

    return judge


def _measure(
    asked: dict[str, Callable[[Inbound], object]], size: str, rounds: int, until: float
) -> dict[str, list[float]]:
    """Seconds of each check: in turn, so that what else the machine does meets all of them."""
    mails = Mails()
    taken: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(-WARM_UP, rounds):
        if number > 0 and time.monotonic() > until:
            break
        for name, check in asked.items():
            inbound = mails.next(SIZES[size])
            begun = time.perf_counter()
            check(inbound)
            took = time.perf_counter() - begun
            if number >= 0:
                taken[name].append(took)
    return taken


def _table(taken: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    medians = {size: {name: statistics.median(times) for name, times in found.items()} for size, found in taken.items()}
    width = max(len(name) for found in medians.values() for name in found)
    heads = [f"{size + ', ms':>12}{BLANK}{'/ auth':>8}" for size in medians]
    yield BLANK.join([" " * width, *heads]).rstrip()
    for name in next(iter(medians.values())):
        cells = []
        for found in medians.values():
            ratio = found[name] / found["auth"]
            cells.append(f"{found[name] * 1000:>12.3f}{BLANK}{ratio:>8,.1f}")
        yield BLANK.join([f"{name:<{width}}", *cells])


if __name__ == "__main__":
    sys.exit(main())
