"""A process that forks drains, so that two hundred of them need not each load boto3.

It reads one JSON object a line (`Order`) and, for each, forks a child that makes
one pass and ends, or is killed: by itself at a step by name, or by the test at a
moment of its own. It answers with two lines: the child's process id, and how it
ended (as `os.waitstatus_to_exitcode` says it: -9 is SIGKILL).
"""

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from drain import assembly, config
from drain.bucket import ListedObject
from drain.handover import Handover, Parcel
from drain.inject import Session
from drain.ledger import Ledger
from drain.log import Level, Log, json_lines
from drain.mail import Mail
from drain.outcome import Result, Step
from drain.state import Row, State


class Order(TypedDict):
    """What a child is to do."""

    environ: dict[str, str]
    log: str  # file, appended to
    clock_offset: float  # seconds to add, so that what is deferred is due
    kill_at: str  # a step, or ""
    kill_count: int  # at which time of reaching it
    sabotage: str  # a name in SABOTAGES, or ""


def _without_the_injecting_commit() -> None:
    """Nothing is noted until the 250 is heard: a crash after the dot looks as if nothing had been sent."""
    commit, delivered = Ledger.injecting, Ledger.delivered
    held_back: dict[str, tuple[ListedObject, Mail, str, float]] = {}

    def injecting(self: Ledger, version: ListedObject, mail: Mail, mailbox: str, now: float) -> Row:
        del self
        held_back[mail.identity] = (version, mail, mailbox, now)
        return Row(
            mail.identity, State.INJECTING, mail.recipient, "", 0, mailbox, None, None, 0, 0, 0, None, now, now, None, 0
        )

    def late(self: Ledger, identity: str, words: str, now: float) -> None:
        commit(self, *held_back.pop(identity))
        delivered(self, identity, words, now)

    Ledger.injecting = injecting  # type: ignore[method-assign]
    Ledger.delivered = late  # type: ignore[method-assign]


def _injecting_read_as_done() -> None:
    """The known peer's way to lose mail: a row is a row."""
    find = Ledger.find

    def done(self: Ledger, identity: str) -> Row | None:
        row = find(self, identity)
        if row is not None and row.state is State.INJECTING and not self._db.in_transaction:
            return Row(**{**row.__dict__, "state": State.DELIVERED})
        return row

    Ledger.find = done  # type: ignore[method-assign]


def _moved_before_it_is_injected() -> None:
    """The object leaves pending/ before the mail server has the mail."""
    transaction = Handover._transaction

    def hasty(self: Handover, session: Session, parcel: Parcel) -> Result:
        version, identity = parcel.fetched.version, parcel.mail.identity
        prefixes = self.ends.prefixes
        self.ends._move(version, prefixes.moved(prefixes.processed, identity, version.key), None, identity)
        return transaction(self, session, parcel)

    Handover._transaction = hasty  # type: ignore[method-assign]


SABOTAGES: dict[str, Callable[[], None]] = {
    "no-injecting-commit": _without_the_injecting_commit,
    "injecting-is-done": _injecting_read_as_done,
    "moved-first": _moved_before_it_is_injected,
}


def run(order: Order) -> int:
    """One pass in this process; it may not come back."""
    if order["sabotage"]:
        SABOTAGES[order["sabotage"]]()
    with Path(order["log"]).open("a", encoding="utf-8") as file:
        sweep = assembly.sweep(config.load(order["environ"])[0], Log(lambda: file, json_lines, threshold=Level.DEBUG))
        offset = order["clock_offset"]
        sweep.clock = lambda: time.time() + offset
        log_step, left = sweep.step, order["kill_count"]

        def step(reached: Step, name: str) -> None:
            nonlocal left
            log_step(reached, name)
            if reached.value == order["kill_at"]:
                left -= 1
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sweep.step = step
        summary = sweep.run()
    return 70 if summary.bugs else 75 if summary.error or summary.left else 0


def main() -> None:
    """Serves orders until standard input ends."""
    warm_up = config.load(json.loads(os.environ["CRASH_WARM_UP"]))[0]
    assembly.bucket(warm_up)  # loads what boto3 loads lazily
    assembly.policy(warm_up)  # and what the filters need
    if warm_up.verify_imap_host:
        importlib.import_module("drain.imap")
    for line in sys.stdin:
        order: Order = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = run(order)
            finally:
                os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
