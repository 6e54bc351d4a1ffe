"""A TCP proxy that is as far away, as narrow and as unreliable as it is told to be.

What it stands for, and what not:

- Round trip: what arrives goes on half of it later, in either direction. A connection over
  loopback is there at once, where a real one takes a round trip: so its first bytes go on one
  whole round trip later still, the client's, or the server's where the client waits for these.
- Bandwidth: of each direction by itself, shared by all connections, a turn each. It is that of
  what TCP carries; headers of TCP and IP are not reckoned. A turn is `wire.TURN_SECONDS` long.
- Loss: of whole connections. Each lives for a time that is drawn so that it ends with
  probability *lost* in every second, and then both ends are reset (RST). The draw is the same in
  every run. Lost packets, and TCP's slow start, are not here.

A timer of Linux's epoll, which has milliseconds, may be late by one; a round trip is so much longer, never shorter.
"""

import asyncio
import math
import random
import socket
import struct
import threading

from bench.child import Child, serve
from bench.wire import Flow, Wire


class Link(Child):
    """The proxy to *target_port* of 127.0.0.1, from ``with`` on; connect to ``port``.

    *bytes_per_second* is of each direction, 0 for as fast as it goes; *lost* is from 0 to
    below 1, the probability a second that a connection breaks (else ValueError).
    """

    def __init__(
        self,
        target_port: int,
        *,
        round_trip_seconds: float = 0.0,
        bytes_per_second: float = 0.0,
        lost: float = 0.0,
    ) -> None:
        if not 0 <= lost < 1:
            raise ValueError(f"A probability of {lost} that a connection breaks leaves none.")
        super().__init__(
            "bench.link",
            target_port=target_port,
            round_trip_seconds=round_trip_seconds,
            bytes_per_second=bytes_per_second,
            lost=lost,
        )

    def broken(self) -> int:
        """How many connections it has reset so far."""
        return int(self.ask("broken"))


class _End(asyncio.Protocol):
    """The proxy's socket at one end of a connection: *reads* begins there, *writes* ends there."""

    def __init__(self, connection: "_Connection", reads: Flow, writes: Flow) -> None:
        self._connection = connection
        self._reads = reads
        self._writes = writes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        # asyncio does so only for sockets that say their protocol, which an accepted one does not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reads.source = self._writes.target = transport
        self._writes.stalled = False
        self._writes.arrive()

    def data_received(self, data: bytes) -> None:
        self._reads.take(data)

    def eof_received(self) -> bool:
        self._reads.take(b"")
        return True  # the other direction may go on

    def pause_writing(self) -> None:
        self._writes.stalled = True

    def resume_writing(self) -> None:
        self._writes.stalled = False
        self._writes.arrive()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.end(reset=exc is not None)


class _Connection:
    """A connection through the proxy."""

    def __init__(self, proxy: "_Proxy") -> None:
        self._proxy = proxy
        self._up = Flow(proxy.up, self._on_end)
        self._down = Flow(proxy.down, self._on_end)
        self._up.lag = proxy.round_trip_seconds
        self._ended = False
        self._opening: asyncio.Task[None] | None = None
        self._life: asyncio.TimerHandle | None = None

    def accepted(self) -> _End:
        """The client's end."""
        loop = self._proxy.loop
        self._opening = loop.create_task(self._open())
        if self._proxy.lost:
            self._life = loop.call_later(self._proxy.lifetime(), self._break)
        return _End(self, self._up, self._down)

    async def _open(self) -> None:
        # The server sees a client whose SYN and ACK took one round trip and a half.
        await asyncio.sleep(1.5 * self._proxy.round_trip_seconds)
        # A client that is silent until then waits for the server to speak first, and has waited enough.
        self._up.lag = 0.0
        try:
            await self._proxy.loop.create_connection(
                lambda: _End(self, self._down, self._up), "127.0.0.1", self._proxy.target_port
            )
        except OSError:
            self.end(reset=True)

    def _on_end(self) -> None:
        if self._up.ended and self._down.ended:
            self.end(reset=False)

    def _break(self) -> None:
        self._proxy.resets += 1
        self.end(reset=True)

    def end(self, *, reset: bool) -> None:
        """Closes both ends, or resets them. Again, it does nothing."""
        if self._ended:
            return
        self._ended = True
        if self._life is not None:
            self._life.cancel()
        if self._opening is not None:
            self._opening.cancel()
        for transport in (self._up.source, self._down.source):
            if transport is not None and not reset:
                transport.close()
            elif transport is not None:
                # RST in place of FIN (socket(7), SO_LINGER of no seconds).
                linger = struct.pack("ii", 1, 0)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                transport.abort()
        self._up.stop()
        self._down.stop()


class _Proxy:
    """The server in the child; everything but ``broken`` happens on its loop's thread."""

    def __init__(self, target_port: int, round_trip_seconds: float, bytes_per_second: float, lost: float) -> None:
        self.loop = asyncio.new_event_loop()
        self.target_port = target_port
        self.round_trip_seconds = round_trip_seconds
        self.lost = lost
        self.up = Wire(self.loop, bytes_per_second, round_trip_seconds / 2)
        self.down = Wire(self.loop, bytes_per_second, round_trip_seconds / 2)
        self.resets = 0
        self._chance = random.Random(1)  # noqa: S311 (the same draw in every run is wanted)
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = listener.getsockname()[1]
        self.loop.run_until_complete(self.loop.create_server(lambda: _Connection(self).accepted(), sock=listener))
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def lifetime(self) -> float:
        """Seconds that a new connection has."""
        return math.log(1 - self._chance.random()) / math.log(1 - self.lost)

    def broken(self) -> int:
        return self.resets


if __name__ == "__main__":
    serve(_Proxy)
