"""The relay's parts together: what starts, in which order, and how it ends."""

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from drain.errors import DrainError, Unavailable
from drain.log import Log
from drain.notify import Notifier
from drain.relay.dispatch import Dispatch
from drain.relay.listener import Listener
from drain.relay.queue import Queue

# With what Python takes to end, within the 10 s that are promised.
_LISTENER_SECONDS = 2.0
_SENDING_SECONDS = 3.5
_RETURNING_SECONDS = 0.5
_TRY_AGAIN_SECONDS = 60.0
_BEAT_SECONDS = 30.0
_DAY_SECONDS = 86400.0


@dataclass(frozen=True)
class Relay:
    """Everything that runs; the queue is in nobody else's hand. ``words`` say where mail goes, and of whom."""

    queue: Queue
    listener: Listener
    outgoing: Dispatch
    returns: Dispatch
    log: Log
    clock: Callable[[], float]
    words: str = ""

    def start(self) -> None:
        """Begins to listen, then to send.

        Raises:
            Unavailable, ConfigError: it cannot listen.
        """
        interrupted = self.queue.recover(self.clock())
        if interrupted:
            words = f"Being sent when drain ended, and sent again now: {len(interrupted)}."
            self.log.notice("relay", message=words)
        self.listener.start()
        self.outgoing.start()
        self.returns.start()
        self.log.info("relay", message=f"The relay listens on port {self.listener.port}{self.words}.")

    def stop(self) -> None:
        """Ends within seconds; what was accepted is in the queue."""
        with contextlib.ExitStack() as each:  # all of them, whatever goes wrong with one
            each.callback(self.returns.stop, _RETURNING_SECONDS)
            each.callback(self.outgoing.stop, _SENDING_SECONDS)
            each.callback(self.listener.stop, _LISTENER_SECONDS)
        self.log.info("relay", message="The relay stopped.")


@dataclass(frozen=True)
class Runner:
    """Keeps a relay running until it is told to stop; ``made`` gives one with the queue locked."""

    made: Callable[[], AbstractContextManager[Relay]]
    log: Log
    stop: threading.Event
    _running: list[Relay] = field(default_factory=list)

    def look(self) -> None:
        """What is due goes now."""
        for relay in self._running:
            relay.outgoing.wake()
            relay.returns.wake()

    def run(self, notifier: Notifier) -> None:
        """Alone in its process: what goes wrong at the start is raised, as `made` and `Relay.start` raise it."""
        with self.made() as relay:
            try:
                relay.start()
                notifier.ready(f"Taking outgoing mail on port {relay.listener.port}")
                beat = min((notifier.watchdog_seconds or 2e6) / 2, _BEAT_SECONDS)
                self._until_stopped(relay, beat, notifier.alive)
                notifier.stopping()
            finally:
                relay.stop()

    def run_beside(self) -> None:
        """Beside passes, on a thread of its own: incoming mail must not wait for what is wrong with outgoing mail."""
        told = ""
        while not self.stop.is_set():
            try:
                with self.made() as relay:
                    try:
                        relay.start()
                        told = ""
                        self._until_stopped(relay, _BEAT_SECONDS, lambda: None)
                    finally:
                        relay.stop()
            except DrainError as error:
                if str(error) != told:
                    told = str(error)
                    self.log.alert("relay", message=f"No outgoing mail is taken. {error}")
                self.stop.wait(_TRY_AGAIN_SECONDS)
            except Exception as error:  # noqa: BLE001  # a bug; the passes go on, and so shall this
                self.log.alert("bug", message=f"A bug in drain: {type(error).__name__}: {error}")
                self.stop.wait(_TRY_AGAIN_SECONDS)

    def _until_stopped(self, relay: Relay, beat_seconds: float, alive: Callable[[], None]) -> None:
        pruned_at = float("-inf")
        self._running[:] = [relay]
        while not self.stop.wait(beat_seconds):
            if not relay.listener.alive:
                raise Unavailable("The relay's listener has ended; its log says why.", "It is started again.")
            alive()
            if not 0 <= relay.clock() - pruned_at < _DAY_SECONDS:
                pruned_at = relay.clock()
                self._prune(relay, pruned_at)

    def _prune(self, relay: Relay, now: float) -> None:
        try:
            relay.queue.prune(now)
        except Unavailable as error:
            self.log.warning("relay", message=f"What ended long ago could not be forgotten. {error}")
