"""News on its way out: on the disk, one entry an outlet, tried until it is told or overtaken.

Each entry goes out on a thread of its own, so that an outlet which hangs keeps
neither mail nor the others waiting. An entry is claimed on the disk before it is
tried: two drains do not both tell it, and one that was killed meanwhile is tried again.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from drain import backoff
from drain.alerts.alert import Alert, AlertState, Kind, NotSent, Outlet
from drain.errors import DrainError
from drain.log import Log
from drain.logbook import Logbook

_FIRST_RETRY_SECONDS = 300.0
_LAST_RETRY_SECONDS = 3600.0
# A repeat takes the place of an entry long before.
_LIFETIME_SECONDS = 3 * 86400.0
_MOST_AT_ONCE = 16
_BREAK_OFF_SECONDS = 1.2


@dataclass(frozen=True)
class _Entry:
    id: int
    outlet: str
    alert: Alert
    tries: int
    logbook: Callable[[], AbstractContextManager[Logbook]]


@dataclass
class Outbox:
    """The entries, in the logbook, and the outlets."""

    outlets: Sequence[Outlet]
    log: Log
    # Whether drain is to stop.
    stopped: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time
    threads: list[threading.Thread] = field(default_factory=list)
    _broken_off: threading.Event = field(default_factory=threading.Event)

    def put(self, logbook: Logbook, news: Iterable[Alert]) -> None:
        """Enters news for every outlet; later news of the same takes the place of earlier."""
        with logbook.database.writing() as db:
            for alert in news:
                for outlet in self.outlets:
                    db.execute(
                        "INSERT OR REPLACE INTO outbox (outlet, kind, subject, alert, at, next_try_at)"
                        " VALUES (?, ?, ?, ?, ?, ?)",
                        (outlet.name, alert.kind, alert.subject, json.dumps(dict(alert.as_json)), alert.at, alert.at),
                    )

    def send(self, logbook: Logbook) -> None:
        """Begins to send what is due, on `threads`, and does not wait for it."""
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        for entry in self._claimed(logbook, _MOST_AT_ONCE - len(self.threads)):
            thread = threading.Thread(target=self._send, args=(entry,), name=f"alert {entry.outlet}", daemon=True)
            self.threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Breaks off what is being sent; it is tried again another time."""
        self._broken_off.set()
        until = time.monotonic() + _BREAK_OFF_SECONDS
        for thread in self.threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _claimed(self, logbook: Logbook, most: int) -> list[_Entry]:
        now, names = self.clock(), {outlet.name for outlet in self.outlets}
        with logbook.database.writing() as db:
            rows = db.execute(
                # A clock that was set back must not hold an entry for ever.
                "SELECT id, outlet, alert, at, tries FROM outbox WHERE next_try_at <= ? OR next_try_at > ? ORDER BY at",
                (now, now + 2 * _LAST_RETRY_SECONDS),
            ).fetchall()
            # What is mended, and not over yet, is not told late as if it were so.
            clear = set(db.execute("SELECT kind, subject FROM alert WHERE clear_since IS NOT NULL AND over_at IS NULL"))
            entries: list[_Entry] = []
            for number, outlet, alert, at, tries in rows:
                read = _alert(alert)
                if read is None or outlet not in names or now - at >= _LIFETIME_SECONDS:
                    db.execute("DELETE FROM outbox WHERE id = ?", (number,))
                elif read.state is not AlertState.OVER and (str(read.kind), read.subject) in clear:
                    continue
                elif len(entries) < most:
                    wait = backoff.seconds(tries, _FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
                    db.execute(
                        "UPDATE outbox SET tries = tries + 1, next_try_at = ? WHERE id = ?", (now + wait, number)
                    )
                    entries.append(_Entry(number, outlet, read, tries, logbook.again))
        return entries

    def _send(self, entry: _Entry) -> None:
        """One entry, on a thread of its own."""
        outlet = next(outlet for outlet in self.outlets if outlet.name == entry.outlet)
        try:
            outlet.send(entry.alert, lambda: self._broken_off.is_set() or self.stopped())
        except NotSent as error:
            # Of a hook that is broken one line is enough, until it works again.
            say = self.log.debug if entry.tries else self.log.warning
            say("alert-not-sent", outlet=entry.outlet, kind=str(entry.alert.kind), message=str(error))
            return
        except Exception as error:  # noqa: BLE001 (an outlet's bug must not end what tells of others)
            words = f"A bug in drain: {type(error).__name__}. It is tried again."
            self.log.alert("alert-not-sent", outlet=entry.outlet, kind=str(entry.alert.kind), message=words)
            return
        self.log.info("alert-sent", outlet=entry.outlet, kind=str(entry.alert.kind), state=str(entry.alert.state))
        try:
            with entry.logbook() as logbook, logbook.database.writing() as db:
                db.execute("DELETE FROM outbox WHERE id = ?", (entry.id,))
        except DrainError as error:
            self.log.warning("alert-sent", outlet=entry.outlet, message=f"It may be told again: {error}")


def _alert(text: str) -> Alert | None:
    """What was entered; None if a newer drain did, and this one does not know it."""
    try:
        said = json.loads(text)
        kind, state = Kind(said["kind"]), AlertState(said["state"])
        return Alert(kind, said["subject"], state, said["message"], said["count"], said["oldest_seconds"], said["at"])
    except (KeyError, ValueError):
        return None
