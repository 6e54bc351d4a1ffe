"""The SMTP sessions of one pass: a few, shared by many threads."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drain.errors import Stopping, Unavailable
from drain.inject import FINAL_REPLY_SECONDS, Session

# Postfix closes a session after 20 errors and slows down after 10
# (smtpd_hard_error_limit, smtpd_soft_error_limit); an address that is not there
# is one. A fresh session on loopback costs less.
_REFUSALS_PER_SESSION = 8


class Sessions:
    """At most *size* sessions, connected when first needed, reused while they are sound."""

    def __init__(self, connect: Callable[[], Session], size: int) -> None:
        self._connect = connect
        # Last in, first out: a pass with little to do keeps to one session.
        self._slots: queue.LifoQueue[Session | None] = queue.LifoQueue()
        for _ in range(size):
            self._slots.put(None)
        self._active: set[Session] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def open(self) -> None:
        """Connects the first one. Raises what `Session` raises."""
        with self.borrow():
            pass

    @contextmanager
    def borrow(self) -> Iterator[Session]:
        """A session of one's own for one transaction; given back at the end, or thrown away if it broke.

        Raises:
            MailServerUnavailable, MailServerRefused: none can be had.
            Stopping: drain is stopping.
        """
        try:
            # Longer than the longest transaction, so that it only guards against a bug.
            session = self._slots.get(timeout=2 * FINAL_REPLY_SECONDS)
        except queue.Empty:
            raise Unavailable("All SMTP sessions are busy for very long.") from None
        try:
            if self._stopping:
                raise Stopping("drain is stopping.")
            if session is not None and (session.spent or session.refusals >= _REFUSALS_PER_SESSION):
                session.close()
                session = None
            if session is None:
                session = self._connect()
            with self._lock:
                self._active.add(session)
            yield session
        finally:
            if session is not None:
                with self._lock:
                    self._active.discard(session)
            self._slots.put(None if session is None or session.broken else session)

    def abort(self) -> None:
        """Breaks every session in use and lets nobody borrow another."""
        self._stopping = True
        with self._lock:
            for session in self._active:
                session.abort()

    def close(self) -> None:
        """Ends the idle ones politely."""
        while True:
            try:
                session = self._slots.get_nowait()
            except queue.Empty:
                return
            if session is not None:
                session.close()
