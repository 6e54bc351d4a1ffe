"""One direction of a link: what is on its way, how long it takes, and whose turn it is."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

TURN_SECONDS = 0.002
_SEGMENT_BYTES = 1460  # a turn is no shorter: TCP's payload in an Ethernet frame
# The most of one connection that is on its way in one direction, as TCP has a window: 80 MB/s at 100 ms.
_WINDOW_BYTES = 4 * 1024 * 1024


class Wire:
    """One direction: flows take turns on it. What a turn has sent arrives *delay* after its last byte left.

    *rate* is in bytes a second, 0 for as fast as it goes; *delay* in seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, rate: float, delay: float) -> None:
        self.loop = loop
        self.delay = delay
        self._rate = rate
        self._turn = max(_SEGMENT_BYTES, int(rate * TURN_SECONDS))
        self._waiting: deque[Flow] = deque()
        self._free_at = 0.0
        self._asleep = True

    def carry(self, flow: "Flow") -> None:
        """*flow* has something to send, and had not before."""
        if not self._rate:
            while flow.unsent:
                flow.leave(flow.unsent.popleft(), self.loop.time())
            return
        self._waiting.append(flow)
        if self._asleep:
            self._free_at = max(self._free_at, self.loop.time())
            self._send()

    def _send(self) -> None:
        # A timer that was late is made up for: time that the wire was wanted is not lost to it.
        now = self.loop.time()
        while self._waiting and self._free_at <= now:
            flow = self._waiting.popleft()
            if not flow.unsent:
                continue  # its connection has ended
            block = flow.cut(self._turn)
            self._free_at += len(block) / self._rate
            flow.leave(block, self._free_at)
            if flow.unsent:
                self._waiting.append(flow)
        self._asleep = not self._waiting
        if not self._asleep:
            self.loop.call_at(self._free_at, self._send)


class Flow:
    """One direction of one connection: what arrives keeps its order. A block of no bytes is its end.

    Attributes:
        unsent: read, and not on the wire yet.
        lag: seconds that the next block takes longer than the wire's delay.
        stalled: whether who reads it has enough for now, or is not there yet.
        ended: whether all of it, and its end, have been handed on.
    """

    def __init__(self, wire: Wire, on_end: Callable[[], None]) -> None:
        self.unsent: deque[bytes] = deque()
        self.source: asyncio.Transport | None = None
        self.target: asyncio.Transport | None = None
        self.lag = 0.0
        self.stalled = True
        self.ended = False
        self._wire = wire
        self._on_end = on_end
        self._travelling: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, block: bytes) -> None:
        """Begins the way of what was read."""
        self._held += len(block)
        if self._held > _WINDOW_BYTES and self.source is not None:
            self.source.pause_reading()
        self.unsent.append(block)
        if len(self.unsent) == 1:
            self._wire.carry(self)

    def cut(self, limit: int) -> bytes:
        """At most so many bytes of what is unsent."""
        block = self.unsent.popleft()
        if len(block) > limit:
            self.unsent.appendleft(block[limit:])
        return block[:limit]

    def leave(self, block: bytes, at: float) -> None:
        """The block has left at that time, and is on its way."""
        due, self.lag = at + self._wire.delay + self.lag, 0.0
        self._travelling.append((due, block))
        if len(self._travelling) == 1:
            self.arrive()

    def arrive(self) -> None:
        """Hands on what is due."""
        if self._timer is not None:
            self._timer.cancel()
        while self._travelling and not self.stalled and self.target is not None:
            due, block = self._travelling[0]
            if due > self._wire.loop.time():
                self._timer = self._wire.loop.call_at(due, self.arrive)
                return
            self._travelling.popleft()
            self._hand_on(block)

    def stop(self) -> None:
        """What has not arrived never will."""
        self.target = None
        self.unsent.clear()

    def _hand_on(self, block: bytes) -> None:
        assert self.target is not None
        if not block:
            self.ended = True
            with contextlib.suppress(OSError):  # reset meanwhile
                self.target.write_eof()
            self._on_end()
            return
        self.target.write(block)
        self._held -= len(block)
        if self.source is not None and self._held <= _WINDOW_BYTES // 2:
            self.source.resume_reading()
