"""The SMTP sessions of one pass: a few, shared by many threads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drain.errors import Stopping, Unavailable
from drain.inject import FINAL_REPLY_SECONDS, Session

# Postfix closes a session after 20 errors and slows down after 10
# (smtpd_hard_error_limit, smtpd_soft_error_limit); an address that is not there
# is one. A fresh session on loopback costs less.
_REFUSALS_PER_SESSION = 8
# To find out that one more is too many costs a transaction: with this, at most one in fifty.
_CALM_TRANSACTIONS = 50


class Sessions:
    """At most *size* sessions, connected when first needed, reused while they are sound.

    How many may be in use at once adapts to the server: one fewer when it is crowded
    (`narrow`), one more again after a while in which it was not.
    """

    def __init__(self, connect: Callable[[], Session], size: int) -> None:
        self._connect = connect
        self._size = size
        self._width = size  # how many may be in use just now
        self._calm = 0  # how many transactions there were since the server was crowded
        self._in_use = 0
        # Last in, first out: a pass with little to do keeps to one session.
        self._idle: list[Session] = []
        # What is lent, and how many were in use at the same time, at the most.
        self._active: dict[Session, int] = {}
        self._freed = threading.Condition()
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
        session = self._take()
        try:
            if session is not None and (session.spent or session.refusals >= _REFUSALS_PER_SESSION):
                session.close()
                session = None
            if session is None:
                session = self._connect()
            with self._freed:
                self._active[session] = self._in_use
                stopping = self._stopping
            if stopping:  # since: who breaks the sessions off has not seen this one
                session.spent = True
                raise Stopping("drain is stopping.")
            yield session
        finally:
            self._give_back(session)

    def narrow(self, session: Session) -> bool:
        """The server said that it is crowded, to *session*, which is borrowed: fewer may be in use from now on.

        False if it was alone all the time, so that fewer would be none. Several that met in
        one crowd make one fewer, not several.
        """
        with self._freed:
            self._calm = 0
            crowd = self._active[session]
            if crowd == 1:
                return False
            self._width = min(self._width, crowd - 1)
            return True

    def abort(self) -> None:
        """Breaks every session in use and lets nobody borrow another."""
        with self._freed:
            self._stopping = True
            for session in self._active:
                session.abort()
            self._freed.notify_all()

    def close(self) -> None:
        """Ends the idle ones politely."""
        with self._freed:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def _take(self) -> Session | None:
        """A place among those in use, and an idle session if there is one."""
        with self._freed:
            # Longer than the longest transaction, so that it only guards against a bug.
            if not self._freed.wait_for(
                lambda: self._stopping or self._in_use < self._width, timeout=2 * FINAL_REPLY_SECONDS
            ):
                raise Unavailable("All SMTP sessions are busy for very long.")
            if self._stopping:
                raise Stopping("drain is stopping.")
            self._in_use += 1
            for other, crowd in self._active.items():
                self._active[other] = max(crowd, self._in_use)
            return self._idle.pop() if self._idle else None

    def _give_back(self, session: Session | None) -> None:
        with self._freed:
            self._in_use -= 1
            if session is not None:
                self._active.pop(session, None)
                self._count_calm()
                if not session.broken and self._in_use + len(self._idle) < self._width:
                    self._idle.append(session)
                    session = None
            self._freed.notify_all()
        if session is not None:
            session.close()

    def _count_calm(self) -> None:
        self._calm += 1
        if self._calm >= _CALM_TRANSACTIONS:
            self._calm = 0
            self._width = min(self._width + 1, self._size)
