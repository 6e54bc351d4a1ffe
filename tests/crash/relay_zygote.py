"""A process that forks relays, as `tests.crash.zygote` forks passes, and for the same reason.

It reads one JSON object a line (`Order`) and, for each, forks a relay that runs until
it is told to stop, or is killed: by itself at a step by name, or by the test at a
moment of its own. It answers with two lines: the child's process id, and how it
ended (as `os.waitstatus_to_exitcode` says it: -9 is SIGKILL).

Waits of minutes are hundredths of a second here, so that what is tried again is tried
at once.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

from drain import config as configuration, outbound
from drain.log import Level, Log, json_lines
from drain.relay import dispatch, gate
from drain.relay.queue import Entry, Parcel, Queue
from drain.relay.step import Step
from drain.settings import Config
from drain.upstreams import Fate


class Order(TypedDict):
    """What a child is to do."""

    environ: dict[str, str]
    log: str  # file, appended to
    clock_offset: float  # seconds to add: past the lifetime of a mail, say
    seconds: float  # for so long, if nobody ends it before
    kill_at: str  # a step as `_name` has it, or ""
    kill_count: int  # at which time of reaching it
    sabotage: str  # a name in SABOTAGES, or ""


def _answered_before_it_is_safe() -> None:
    """The 250 first, then the disk."""
    accept = Queue.accept

    def later(self: Queue, parcel: Parcel, now: float) -> None:
        threading.Timer(0.3, accept, (self, parcel, now)).start()

    Queue.accept = later  # type: ignore[method-assign]


def _row_before_body() -> None:
    """The queue knows of a mail whose body is not there yet."""

    def hasty(self: Queue, parcel: Parcel, now: float) -> None:
        self._insert(parcel, now)
        self._step(Step.BODY_SYNCED, parcel.message.id)
        self._bodies.put(parcel.message.id, parcel.raw)

    Queue.accept = hasty  # type: ignore[method-assign]


def _sending_read_as_done() -> None:
    """What was on its way is taken to have arrived."""
    recover = Queue.recover

    def hopeful(self: Queue, now: float) -> list[str]:
        with self._db.writing() as db:
            db.execute("UPDATE entry SET state = 'relayed' WHERE state = 'sending'")
        return recover(self, now)

    Queue.recover = hopeful  # type: ignore[method-assign]


def _unknown_not_counted() -> None:
    """What was on its way is sent again, and nobody is told."""
    recover = Queue.recover

    def silent(self: Queue, now: float) -> list[str]:
        ids = recover(self, now)
        with self._db.writing() as db:
            db.executemany("UPDATE entry SET unknown = unknown - 1 WHERE id = ?", [(id_,) for id_ in ids])
        return ids

    Queue.recover = silent  # type: ignore[method-assign]


def _bodies_deleted_first() -> None:
    """At the start only what waits is kept: what was on its way is made to wait too late."""
    recover = Queue.recover

    def thorough(self: Queue, now: float) -> list[str]:
        with self._db.reading() as db:
            wanted = {row[0] for row in db.execute("SELECT mail FROM entry WHERE state = 'waiting'")}
        for name in set(self._bodies.names()) - wanted:
            self._bodies.remove(name)
        return recover(self, now)

    Queue.recover = thorough  # type: ignore[method-assign]


def _report_in_a_commit_of_its_own(*, first: bool) -> None:
    """The failure and the DSN that tells of it are two commits."""
    settle = Queue.settle

    def in_two(
        self: Queue, entry: Entry, fates: Mapping[str, Fate], next_attempt_at: float, dsn: Parcel | None, now: float
    ) -> None:
        def report() -> None:
            if dsn is not None:
                self._bodies.put(dsn.message.id, dsn.raw)
                self._insert(dsn, now)
                self._step(Step.DSN_SYNCED, entry.id)

        if first:
            report()
        settle(self, entry, fates, next_attempt_at, None, now)
        if not first:
            report()

    Queue.settle = in_two  # type: ignore[method-assign]


SABOTAGES: dict[str, Callable[[], None]] = {
    "answered-first": _answered_before_it_is_safe,
    "row-first": _row_before_body,
    "sending-is-done": _sending_read_as_done,
    "unknown-not-counted": _unknown_not_counted,
    "bodies-deleted-first": _bodies_deleted_first,
    "report-later": lambda: _report_in_a_commit_of_its_own(first=False),
    "report-first": lambda: _report_in_a_commit_of_its_own(first=True),
}


def _without_long_waits() -> None:
    dispatch._FIRST_RETRY_SECONDS = 0.05
    dispatch._LAST_RETRY_SECONDS = 0.4
    dispatch._LOOK_SECONDS = 0.5
    dispatch._DOWN_AGAIN_SECONDS = 0.01
    gate._FIRST_SECONDS = 0.02
    gate._LAST_SECONDS = gate._LAST_REFUSED_SECONDS = 0.1


def _name(reached: Step) -> str:
    """The step, behind ``dsn:`` if it is on a DSN's own way home."""
    at_home = threading.current_thread().name.startswith("inbound")
    return f"dsn:{reached.value}" if at_home else reached.value


def _loaded(environ: Mapping[str, str]) -> Config:
    config, _ = configuration.load(environ, complete=False)
    configuration.check_relay(config)
    return config


def run(order: Order) -> int:
    """A relay in this process; it may not come back."""
    _without_long_waits()
    if order["sabotage"]:
        SABOTAGES[order["sabotage"]]()
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: told.set())
    left, counting, offset = order["kill_count"], threading.Lock(), order["clock_offset"]
    parent, until = os.getppid(), time.monotonic() + order["seconds"]
    with Path(order["log"]).open("a", encoding="utf-8") as file:
        log = Log(lambda: file, json_lines, threshold=Level.DEBUG)

        def step(reached: Step, name: str) -> None:
            nonlocal left
            log.debug("step", step=_name(reached), of=name)
            if _name(reached) == order["kill_at"]:
                with counting:
                    left -= 1
                    if left <= 0:
                        os.kill(os.getpid(), signal.SIGKILL)

        with outbound.relay(_loaded(order["environ"]), log, step=step, clock=lambda: time.time() + offset) as relay:
            relay.start()
            while not told.wait(0.5) and os.getppid() == parent and time.monotonic() < until:
                pass
            relay.stop()
    return 0


def main() -> None:
    """Serves orders until standard input ends."""
    outbound.upstream(_loaded(json.loads(os.environ["CRASH_WARM_UP"])))  # loads what is loaded lazily
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
