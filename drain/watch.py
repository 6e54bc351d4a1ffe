"""What follows a pass: it is noted in the logbook, news of it is told, and what is shown is written.

All of it after the lock is released, and none of it may stop or delay mail: what
fails here is a line in the log. A daemon's pass that found nothing is looked at every
five minutes at the most: each look is a write, and there are SD cards.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from drain.alerts.alert import Alert, AlertState, Kind, NotSent
from drain.alerts.conditions import Condition, Conditions, kind_of, trouble_of
from drain.alerts.memory import Memory
from drain.alerts.outbox import Outbox
from drain.errors import DrainError, LockHeld
from drain.log import Log
from drain.logbook import Logbook, Pass
from drain.summary import Summary

_QUIET_SECONDS = 300.0
_DAY_SECONDS = 86400.0
# More than any outlet takes (`alerts.alert.Outlet`).
OUTLETS_END_SECONDS = 40.0


class Pinged(Protocol):
    """What wants to hear of every pass (`alerts.ping`)."""

    def success(self) -> None:
        """One that came to its end; raises `NotSent`."""

    def failure(self, words: str) -> None:
        """One that did not; raises `NotSent`."""


@dataclass
class Watch:
    """Follows the passes of one process; calls come from one thread at a time.

    ``subjects`` are those that conditions of a kind can have. ``outgoing`` says how many
    mails wait in the relay's queue and since when the oldest does, or None without a
    relay. ``publish`` writes the metrics and the page.
    """

    path: Path
    conditions: Conditions
    subjects: Mapping[Kind, AbstractSet[str]]
    repeat_seconds: float
    outbox: Outbox
    log: Log
    ping: Pinged | None = None
    outgoing: Callable[[], tuple[int, float | None] | None] = lambda: None
    publish: Callable[[float], None] = lambda now: None
    clock: Callable[[], float] = time.time
    _noted_at: float = float("-inf")
    _failed: bool = False
    _pinging: threading.Thread | None = None
    _pinged_at: float = float("-inf")
    _said: set[str] = field(default_factory=set)

    def after(self, summary: Summary) -> None:
        """Takes in what a pass came to."""
        if isinstance(summary.error, LockHeld):
            return  # another drain is at work, and notes it
        now, failed = self.clock(), kind_of(summary) is not None
        idle = not summary.listed and summary.troubles is None and not failed and not self._failed
        self._failed = failed
        if idle and 0 <= now - self._noted_at < _QUIET_SECONDS:
            return
        self._look(lambda logbook: self._noted(logbook, summary, now), now)
        self._noted_at = now
        self._ping(trouble_of(summary), failed=failed, now=now)
        self._quietly("status", lambda: self.publish(now))  # METRICS_FILE, STATUS_HTML

    def hanging(self, seconds: float) -> None:
        """A pass has not moved for so long."""
        found = list(self.conditions.hanging(seconds))
        if found:
            self._look(lambda logbook: found, self.clock())

    def working(self) -> None:
        """A pass goes on, and is not at its end yet."""
        self._quietly("logbook", self._note_work)

    def finish(self, seconds: float = OUTLETS_END_SECONDS) -> None:
        """Waits until what is on its way is told, so long at the longest; then, or once drain is to stop, breaks it off."""
        until = time.monotonic() + seconds
        threads = [*self.outbox.threads, *([self._pinging] if self._pinging else [])]
        while any(thread.is_alive() for thread in threads) and time.monotonic() < until and not self.outbox.stopped():
            time.sleep(0.05)
        self.outbox.stop()

    def _look(self, conditions: Callable[[Logbook], Iterable[Condition]], now: float) -> None:
        """What is news of these conditions goes out."""
        try:
            self._look_into(self.path, conditions, now)
        except DrainError as error:
            self._say("logbook", str(error))
            # A full disk, or a damaged logbook, must come out all the same.
            self._quietly("logbook", lambda: self._look_into(_makeshift(self.path), conditions, now))

    def _look_into(self, path: Path, conditions: Callable[[Logbook], Iterable[Condition]], now: float) -> None:
        with _opened(path) as logbook:
            with logbook.database.writing():
                memory = Memory(logbook.database, self.repeat_seconds)
                news = memory.look(conditions(logbook), self.subjects, now)
                self.outbox.put(logbook, [alert for alert in news if alert.state.is_told])
            for alert in news:
                self._log(alert)
            self.outbox.path = path
            self.outbox.send(logbook)

    def _noted(self, logbook: Logbook, summary: Summary, now: float) -> Iterator[Condition]:
        """The pass, in the logbook; and its conditions."""
        outcomes = {str(outcome): number for outcome, number in summary.outcomes.items() if number}
        kind = kind_of(summary)
        logbook.enter(
            Pass(
                now,
                round(summary.seconds, 3),
                summary.listed,
                summary.pending,
                summary.oldest_at,
                outcomes,
                trouble_of(summary),
                str(kind or ""),
            )
        )
        logbook.prune(now)
        yield from self.conditions.of(summary, _growth(logbook, summary.pending), now)
        outgoing = self.outgoing()
        if outgoing is not None:
            yield self.conditions.relay(*outgoing, now)

    def _note_work(self) -> None:
        with _opened(self.path) as logbook:
            logbook.set_note("working_at", str(self.clock()))

    def _log(self, alert: Alert) -> None:
        by_state = {
            AlertState.BEGINS: self.log.warning,
            AlertState.PASSED: self.log.notice,
            AlertState.OVER: self.log.notice,
        }
        say = by_state.get(alert.state, self.log.alert)
        say(
            "alert",
            kind=str(alert.kind),
            state=str(alert.state),
            subject=alert.subject or None,
            mails=alert.count or None,
            message=f"{alert.subject}: {alert.words}" if alert.subject else alert.words,
        )

    def _ping(self, words: str, *, failed: bool, now: float) -> None:
        """At most every five minutes while nothing changes, on a thread: nobody waits for it."""
        ping, before = self.ping, self._pinging
        if ping is None or (before is not None and before.is_alive()):
            return
        changed = failed != ("ping failed" in self._said)
        if not changed and 0 <= now - self._pinged_at < _QUIET_SECONDS:
            return
        self._pinged_at = now
        (self._said.add if failed else self._said.discard)("ping failed")

        def send() -> None:
            try:
                ping.failure(words) if failed else ping.success()
            except NotSent as error:
                self._say("ping", str(error))

        self._pinging = threading.Thread(target=send, name="ping", daemon=True)
        self._pinging.start()

    def _quietly(self, what: str, do: Callable[[], None]) -> None:
        try:
            do()
        except (DrainError, OSError) as error:
            self._say(what, str(error))
        except Exception as error:  # noqa: BLE001 (mail goes on)
            self._say(what, f"A bug in drain: {type(error).__name__}: {error}")

    def _say(self, what: str, words: str) -> None:
        """Once a process: the next pass would say the same."""
        if (line := f"{what}: {words}") not in self._said:
            self._said.add(line)
            self.log.warning(what, message=words)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Logbook]:
    with contextlib.closing(Logbook(path)) as logbook:
        yield logbook


def _makeshift(path: Path) -> Path:
    """The logbook's place while its own cannot be used: the same for the next process, or each would tell all anew.

    Raises:
        OSError: there is none that is ours alone.
    """
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"drain-{os.getuid()}-{name}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise OSError(f"{folder} is somebody else's.")
    return folder / path.name


def _growth(logbook: Logbook, pending: int | None) -> int:
    """Over how many passes the backlog has grown since it last became less; a pass that changes nothing is none of them."""
    passes, _, before = logbook.note("growth").partition(" ")
    grown, last = int(passes or 0), int(before or 0)
    if pending is None or pending == last:
        return grown
    grown = grown + 1 if pending > last else 0
    logbook.set_note("growth", f"{grown} {pending}")
    return grown
