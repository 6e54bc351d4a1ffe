"""What was copied is deleted by one thread of a pass: in one call what has come while the call before was under way.

So a mail's own thread waits for GET and COPY alone, and where the link is slow a
call takes many. No mail waits for another: the first is deleted at once.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Work = TypeVar("Work")
# More than come while a call is under way; who brings the next then waits, as for a call of its own.
_MOST_WAITING = 100
_TICK_SECONDS = 0.2


class Removal(Generic[Work]):
    """The thread, which calls *remove* with what there is; begun by the first that comes.

    It is a daemon thread: a process that has to end does not wait for one that
    hangs in a read. What *remove* raises is kept in ``error``; the thread goes on.
    """

    def __init__(self, remove: Callable[[Sequence[Work]], None], halted: Callable[[], bool]) -> None:
        self._remove = remove
        self._halted = halted
        self._queue: queue.Queue[Work | None] = queue.Queue(maxsize=_MOST_WAITING)
        self._begun = threading.Lock()
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None

    def put(self, work: Work) -> bool:
        """One more, from whatever thread; False if halted before there was room."""
        if not self._put(work):
            return False
        with self._begun:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="removal", daemon=True)
                self._thread.start()
        return True

    def finish(self, *, until: threading.Event | None = None, seconds: float = float("inf")) -> bool:
        """No more will come: waits for the last, for *seconds* or *until* an event is set; whether all were taken."""
        deadline = time.monotonic() + seconds
        said = False
        while self._thread is not None and self._thread.is_alive():
            said = said or self._put(None)
            if time.monotonic() >= deadline or (until is not None and until.is_set()):
                return False
            self._thread.join(_TICK_SECONDS)
        return True

    def _put(self, work: Work | None) -> bool:
        while True:
            try:
                self._queue.put(work, timeout=_TICK_SECONDS)
            except queue.Full:
                if self._halted():
                    return False
            else:
                return True

    def _run(self) -> None:
        last = False
        while not last:
            batch, last = self._waiting()
            try:
                if batch:
                    self._remove(batch)
            except Exception as error:  # noqa: BLE001 (kept: what comes next wants removing too)
                self.error = error

    def _waiting(self) -> tuple[list[Work], bool]:
        """What has come, once there is something; and whether it was the last."""
        batch: list[Work] = []
        work = self._queue.get()
        while work is not None:
            batch.append(work)
            if len(batch) == _MOST_WAITING or self._queue.empty():
                return batch, False
            work = self._queue.get()
        return batch, True
