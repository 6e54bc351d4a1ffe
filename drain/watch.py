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
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from drain.alerts.alert import Alert, AlertState, Kind, NotSent
from drain.alerts.conditions import Condition, Conditions, kind_of, trouble_of
from drain.alerts.memory import Memory
from drain.alerts.outbox import Outbox
from drain.database import is_busy
from drain.errors import ConfigError, DrainError, LockHeld
from drain.log import Log
from drain.logbook import Logbook, Pass
from drain.outcome import Outcome
from drain.state import Troubles
from drain.summary import Summary
from drain.text import clean

QUIET_SECONDS = 300.0
# What has not changed for so long does not grow.
_SAME_SECONDS = 6 * 3600.0
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

    ``subjects`` are those that conditions of a kind can have. ``troubles`` are the
    ledger's at a time, or None if it cannot be read. ``outgoing`` says how many
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
    troubles: Callable[[float], Troubles | None] = lambda now: None
    outgoing: Callable[[], tuple[int, float | None] | None] = lambda: None
    publish: Callable[[float], None] = lambda now: None
    clock: Callable[[], float] = time.time
    _noted_at: float = float("-inf")
    _came_to: tuple[object, ...] = ()
    # Kinds of which an alert is on, and told.
    _told: set[Kind] = field(default_factory=set)
    _in_memory: Logbook | None = None
    _pinging: threading.Thread | None = None
    _pinged_at: float = float("-inf")
    _pinged_failure: bool = False
    _said: set[str] = field(default_factory=set)

    def after(self, summary: Summary) -> None:
        """Takes in what a pass came to."""
        self._quietly("watch", lambda: self._after(summary))

    def ends(self, summary: Summary) -> None:
        """The process gives up for what this pass came to: it is told at once, since nobody looks again."""
        now = self.clock()

        def conditions(_logbook: Logbook) -> Iterator[Condition]:
            for condition in self.conditions.of(summary, None, 0, now):
                yield replace(condition, after_seconds=0.0)

        self._quietly("watch", lambda: self._look(conditions, now))

    def hanging(self, seconds: float) -> None:
        """A pass has not moved for so long."""
        found = list(self.conditions.hanging(seconds))
        if found:
            self._quietly("watch", lambda: self._look(lambda logbook: found, self.clock()))

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

    def _after(self, summary: Summary) -> None:
        now = self.clock()
        quiet = 0 <= now - self._noted_at < QUIET_SECONDS
        if isinstance(summary.error, LockHeld):  # another drain is at work, and notes it, if it is well
            if not quiet:
                self._noted_at = now
                self._look(lambda logbook: self.conditions.idle(now - (logbook.last_good_at() or now)), now)
            return
        # What waits for the same as before is no news, and is not worth a write each minute.
        outcomes = {str(outcome): number for outcome, number in summary.outcomes.items() if number}
        waits = outcomes.keys() <= {Outcome.WAITING, Outcome.NO_KEY}
        came_to = (summary.pending, summary.oldest_at, outcomes, kind_of(summary))
        same, self._came_to = waits and came_to == self._came_to, came_to
        if same and quiet:
            return
        self._noted_at = now
        self._look(lambda logbook: self._noted(logbook, summary, outcomes, now), now)
        self._ping(trouble_of(summary), kind_of(summary), now)
        self._quietly("status", lambda: self.publish(now))  # METRICS_FILE, STATUS_HTML

    def _look(self, conditions: Callable[[Logbook], Iterable[Condition]], now: float) -> None:
        """What is news of these conditions goes out, whatever is the matter with the logbook."""
        self._quietly("logbook", self._take_over)
        error = self._looked(lambda: Logbook(self.path), conditions, now)
        if isinstance(error, ConfigError) and self.path.is_file():  # damaged, or a newer drain's
            error = self._looked(self._anew, conditions, now)
        if error is None or is_busy(error):  # the next look is soon
            return
        # The disk is full, say.
        if self._looked(lambda: Logbook(_makeshift(self.path)), conditions, now) is not None:
            self._in_memory = self._in_memory or Logbook(None)
            self._looked(lambda: self._in_memory, conditions, now)

    def _looked(
        self, opened: Callable[[], Logbook | None], conditions: Callable[[Logbook], Iterable[Condition]], now: float
    ) -> Exception | None:
        """The same with one logbook; what went wrong, which is said."""
        try:
            logbook = opened()
            assert logbook is not None
            with contextlib.nullcontext() if logbook is self._in_memory else contextlib.closing(logbook):
                self._look_into(logbook, conditions, now)
        except Exception as error:  # noqa: BLE001 (an alert must come out, and mail must go on)
            self._say("logbook", str(error) if isinstance(error, DrainError | OSError) else _bug(error))
            return error
        return None

    def _look_into(self, logbook: Logbook, conditions: Callable[[Logbook], Iterable[Condition]], now: float) -> None:
        with logbook.database.writing():
            memory = Memory(logbook.database, self.repeat_seconds)
            news = memory.look(conditions(logbook), self.subjects, now)
            self.outbox.put(logbook, [alert for alert in news if alert.state.is_told])
        self._told = {one.kind for one in memory.all() if one.told_at is not None and one.over_at is None}
        for alert in news:
            self._log(alert)
        self.outbox.send(logbook)

    def _take_over(self) -> None:
        """What was told while another stood in for the logbook; nothing, mostly."""
        place = _stand_in(self.path)
        if not place.exists():
            return
        with contextlib.closing(Logbook(_makeshift(self.path))) as other:
            rows = Memory(other.database, self.repeat_seconds).all()
        with contextlib.closing(Logbook(self.path)) as own:
            Memory(own.database, self.repeat_seconds).adopt(rows)
        for path in place.parent.iterdir():
            path.unlink()
        place.parent.rmdir()

    def _anew(self) -> Logbook:
        """A new one, the old one laid aside: it is about the past only."""
        for ending in ("-wal", "-shm"):
            self.path.with_name(f"{self.path.name}{ending}").unlink(missing_ok=True)
        self.path.replace(self.path.with_name(f"{self.path.name}.unreadable"))
        return Logbook(self.path)

    def _noted(
        self, logbook: Logbook, summary: Summary, outcomes: Mapping[str, int], now: float
    ) -> Iterator[Condition]:
        """The pass, in the logbook; and its conditions."""
        seconds, kind = round(summary.seconds, 3), str(kind_of(summary) or "")
        trouble = clean(trouble_of(summary))
        logbook.enter(Pass(now, seconds, summary.listed, summary.pending, summary.oldest_at, outcomes, trouble, kind))
        logbook.prune(now)
        growth = _growth(logbook, summary.pending, now)
        yield from self.conditions.of(summary, self.troubles(now), growth, now)
        outgoing = self.outgoing()
        if outgoing is not None:
            yield self.conditions.relay(*outgoing, now)

    def _note_work(self) -> None:
        with contextlib.closing(Logbook(self.path)) as logbook:
            logbook.set_note("working_at", str(self.clock()))

    def _log(self, alert: Alert) -> None:
        said = alert.kind in (Kind.BUCKET, Kind.MAIL_SERVER, Kind.PASS)  # by the line of the pass
        by_state = {
            AlertState.BEGINS: self.log.debug if said else self.log.warning,
            AlertState.PASSED: self.log.debug if said else self.log.notice,
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

    def _ping(self, words: str, kind: Kind | None, now: float) -> None:
        """Every five minutes while nothing changes, on a thread: nobody waits for it.

        A pass that failed is not pinged before it is an alert: what is over in a minute
        is nothing to ring for, and pings that stay away are noticed at the other end.
        """
        ping, before = self.ping, self._pinging
        failed = kind is not None
        if ping is None or (before is not None and before.is_alive()) or (failed and kind not in self._told):
            return
        if failed == self._pinged_failure and 0 <= now - self._pinged_at < QUIET_SECONDS:
            return
        self._pinged_at, self._pinged_failure = now, failed

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
        except Exception as error:  # noqa: BLE001 (mail goes on)
            self._say(what, str(error) if isinstance(error, DrainError | OSError) else _bug(error))

    def _say(self, what: str, words: str) -> None:
        """Once a process: the next pass would say the same."""
        if (line := f"{what}: {words}") not in self._said:
            self._said.add(line)
            self.log.warning(what, message=words)


def _bug(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(where.filename).name}, line {where.lineno}. Please report it."


def _makeshift(path: Path) -> Path:
    """The logbook's place while its own cannot be used: the same for the next process, or each would tell all anew.

    Raises:
        OSError: there is none that is ours alone.
    """
    folder = _stand_in(path).parent
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise OSError(f"{folder} is somebody else's.")
    return folder / path.name


def _stand_in(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"drain-{os.getuid()}-{name}" / path.name


def _growth(logbook: Logbook, pending: int | None, now: float) -> int:
    """Over how many passes the backlog has grown since it last became less, or long stayed the same.

    A pass that changes nothing is none of them.
    """
    passes, before, at = (logbook.note("growth").split() or ["0", "0", "0"])[:3]
    grown, last = int(passes), int(before)
    if pending is None:
        return grown
    if pending == last:
        if not 0 <= now - float(at) < _SAME_SECONDS:
            grown = 0
        return grown
    grown = grown + 1 if pending > last else 0
    logbook.set_note("growth", f"{grown} {pending} {now}")
    return grown
