"""Whether the upstream can be reached; while it cannot, the queue waits and one mail tries."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from drain import backoff
from drain.errors import Refused

_FIRST_SECONDS = 15.0
# A try costs one connection. A phone that comes back should not wait long.
_LAST_SECONDS = 300.0
# Providers lock out whoever comes with a wrong key again and again.
_LAST_REFUSED_SECONDS = 900.0


@dataclass
class Gate:
    """Open or shut; calls may come from several threads.

    Its clock stands still while the machine sleeps (CLOCK_MONOTONIC), so that what is
    said about "down for an hour" is an hour in which it was tried.
    """

    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failures: int = 0
    _shut_at: float = 0.0
    _try_at: float = 0.0
    _trying: bool = False
    why: str = ""

    def enter(self) -> bool:
        """Whether one more may go to the upstream now. Then `open`, `shut` or `leave` has to follow."""
        with self._lock:
            if not self._failures:
                return True
            if self._trying or self.clock() < self._try_at:
                return False
            self._trying = True
            return True

    def leave(self) -> None:
        """There was nothing to send after all."""
        with self._lock:
            self._trying = False

    def open(self) -> bool:
        """The upstream answered; whether it was shut until now."""
        with self._lock:
            was_shut = self._failures > 0
            self._failures, self._trying, self.why = 0, False, ""
            return was_shut

    def shut(self, error: Exception, retry_after: float | None = None) -> bool:
        """It could not be reached, or refuses all of us; whether that is new."""
        with self._lock:
            now = self.clock()
            is_new = not self._failures
            if is_new:
                self._shut_at = now
            elif not self._trying and now < self._try_at:
                return False  # one of several that were on their way when it happened
            last = _LAST_REFUSED_SECONDS if isinstance(error, Refused) else _LAST_SECONDS
            wait = backoff.seconds(self._failures, _FIRST_SECONDS, last)
            self._try_at = now + max(wait, retry_after or 0.0)
            self._failures += 1
            self._trying = False
            self.why = str(error)
            return is_new

    @property
    def wait_seconds(self) -> float:
        """Until it is worth to ask again; 0 if it is open."""
        with self._lock:
            if self._failures and self._trying:
                return _FIRST_SECONDS
            return max(0.0, self._try_at - self.clock()) if self._failures else 0.0

    @property
    def shut_seconds(self) -> float:
        """For how long it has been shut; 0 if it is open."""
        with self._lock:
            return self.clock() - self._shut_at if self._failures else 0.0
