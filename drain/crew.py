"""Threads that work off a queue, with a bound on the bytes in their hands."""

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Work = TypeVar("Work")
_TICK_SECONDS = 0.2
_SHORT_SECONDS = 0.02  # while there is no room yet to say that nothing will come
# What an object takes of memory, in its own bytes. A sealed one takes most while it is
# opened: as it was fetched, as it was inside, and the message cut out of that. From then
# on only the message is whole, as it is all the time of a plain one. What is sent is made
# of it in blocks (`mail.Wire`), TLS encrypts in records, and filters are shown the message
# itself; but `decision` with the payload mode ``full`` posts one text of it, which is then
# about the second of three (and up to six, of a mail that is no text). Mailbridge's are
# opened one at a time (`opener`).
_COPIES = 3
_LARGE_BYTES = 1024 * 1024
_M_MMAP_THRESHOLD = -3  # glibc's malloc.h


class Crew(Generic[Work]):
    """*size* threads that call *do* for each piece of work; work may come from several threads.

    What they have in hand takes at most *memory_budget* bytes, unless one alone takes more.
    They are daemon threads: a process that has to end does not wait for one that hangs in a
    read. What *do* raises is kept in ``error``; the thread goes on.
    """

    def __init__(
        self,
        size: int,
        memory_budget: int,
        do: Callable[[Work], None],
        halted: Callable[[], bool],
    ) -> None:
        self._do = do
        self._halted = halted
        self._budget = memory_budget
        self._bytes = 0
        self._freed = threading.Condition()
        self._queue: queue.Queue[tuple[Work, int] | None] = queue.Queue(maxsize=size)
        self._size = size
        self._threads: list[threading.Thread] = []
        self._finishing = False
        self.error: Exception | None = None

    def submit(self, work: Work, size: int) -> bool:
        """Waits for room for an object of *size* bytes and for a place, then hands *work* over; False if halted."""
        if size >= _LARGE_BYTES:
            _give_freed_memory_back()
        size = min(_COPIES * size, self._budget)  # a larger one travels alone
        with self._freed:
            while self._bytes + size > self._budget:
                if self._halted():
                    return False
                self._freed.wait(_TICK_SECONDS)
            self._bytes += size
        try:
            self._hire()
        except RuntimeError:
            self._free(size)
            raise
        while not self._halted():
            try:
                self._queue.put((work, size), timeout=_TICK_SECONDS)
            except queue.Full:
                continue
            return True
        self._free(size)
        return False

    def finish(self) -> None:
        """No more work will come."""
        self._finishing = True

    def wait(self, *, until: threading.Event | None = None, seconds: float = float("inf")) -> bool:
        """Waits for the threads to end, for *seconds* or *until* an event is set; whether they did.

        After `finish`; what is left then, of a halted pass, is handed to *do* here.
        """
        deadline = time.monotonic() + seconds
        while alive := [thread for thread in self._threads if thread.is_alive()]:
            if self._finishing:
                self._say_so()
            left = deadline - time.monotonic()
            if left <= 0 or (until is not None and until.is_set()):
                return False
            alive[0].join(min(_TICK_SECONDS if self._queue.empty() else _SHORT_SECONDS, left))
        return True

    def _say_so(self) -> None:
        """To the threads, once: the first hands it on."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            if self._halted():
                self._discard()
        else:
            self._finishing = False

    def _hire(self) -> None:
        # One at a time, as work comes: a pass over one mail needs one thread.
        with self._freed:
            if len(self._threads) < self._size:
                thread = threading.Thread(target=self._run, name=f"mail-{len(self._threads)}", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads are to be had
                    if not self._threads:
                        raise
                    return
                self._threads.append(thread)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, size = item
            try:
                self._do(work)
            except Exception as error:  # noqa: BLE001 (whatever it is, the others need their threads)
                self.error = error
            finally:
                self._free(size)
        self._queue.put(None)  # for the next thread; nothing comes after it, so there is room

    def _free(self, size: int) -> None:
        with self._freed:
            self._bytes -= size
            self._freed.notify()

    def _discard(self) -> None:
        try:
            item = self._queue.get_nowait()
        except queue.Empty:
            return
        if item is not None:
            work, size = item
            self._do(work)  # which leaves it, as halted
            self._free(size)


@functools.cache
def _give_freed_memory_back() -> None:
    """From now on large blocks go back to the system when they are freed (mallopt(3), ``M_MMAP_THRESHOLD``).

    glibc does so until the first is freed; from then on it keeps what is no larger than
    that was, up to 32 MiB, on each thread: of twenty mails of 25 MiB it held 528 MiB, and
    with this it is 130. On 32 bits the limit is half a megabyte, and this is refused; other
    C libraries have no such option.
    """
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import ctypes  # noqa: PLC0415 (slow to load, and for large mails only)

        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
