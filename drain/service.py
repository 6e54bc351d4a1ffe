"""``drain run``: pass after pass until told to stop; also one pass with the same manners.

- ``SIGTERM``, ``SIGINT``: mails in hand are finished, and the process ends
  within 10 s. ``SIGUSR1``: look now.
- While a pass moved mail, the next follows at once. While R2 or the mail server
  is away, the wait doubles, up to a quarter of an hour.
- A pass runs on a thread of its own, so that signals are heard while it waits
  for the network.
"""

import queue
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from types import FrameType

from drain.errors import ConfigError, LockHeld, Refused
from drain.log import Level, Log
from drain.notify import Notifier
from drain.outcome import Outcome, Step
from drain.summary import Summary
from drain.sweep import Sweep
from drain.watch import Watch

# With what Python takes to end, on a slow machine, within the 10 s that are promised.
_STOP_SECONDS = 7.5
_LONGEST_BACKOFF_SECONDS = 900.0
_JITTER = 0.1
# A mail may rightly wait for one reply as long as `inject` lets it (600 s), which an idle
# daemon need not load. A pass without any step for longer hangs, and the watchdog should
# have its way.
_LONGEST_SILENCE_SECONDS = 660.0
_TICK_SECONDS = 0.5
# How often a long pass is said to go on, or to hang.
_LOOK_SECONDS = 300.0


@dataclass
class Service:
    """Runs passes and listens to signals. Make it on the main thread.

    ``gives_up``: whether `run` ends where the first pass is refused.
    """

    sweep: Sweep
    log: Log
    notifier: Notifier
    poll_interval_seconds: float
    watch: Watch
    gives_up: bool = True
    # A signal's handler may put into it whatever the thread that it interrupts is at. An Event's
    # lock it may find held by that very thread, and then neither goes on.
    _wake: "queue.SimpleQueue[None]" = field(default_factory=queue.SimpleQueue)
    _last_step_at: float = field(default_factory=time.monotonic)
    _failures: int = 0
    _idle: bool = False

    def once(self) -> Summary:
        """One pass."""
        self._listen()
        summary = self._pass()
        self.watch.finish()
        return summary

    def run(self) -> Summary:
        """Passes for ever; the last one's summary.

        It ends by itself only if the very first pass is refused or finds the
        configuration wrong: later the same can be R2's bad day.
        """
        self._listen()
        self.notifier.ready("Looking into the bucket")
        self.log.info("run", message="drain runs; the first look into the bucket comes now.")
        summary = self._pass()
        if self.gives_up and isinstance(summary.error, (Refused, ConfigError)):
            self.watch.ends(summary)
            self.watch.finish()
            return summary
        while not self.sweep.stop.is_set():
            self._wait(self._delay_seconds(summary))
            if not self.sweep.stop.is_set():
                summary = self._pass()
        self.notifier.stopping()
        self.watch.finish(0.0)
        self.log.info("run", message="drain stopped.")
        return summary

    def _listen(self) -> None:
        def stop(_signal: int, _frame: FrameType | None) -> None:
            self.sweep.stop.set()
            self._wake.put(None)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGUSR1, lambda _signal, _frame: self._wake.put(None))
        observer = self.sweep.step

        def stepped(step: Step, name: str) -> None:
            self._last_step_at = time.monotonic()
            observer(step, name)

        self.sweep.step = stepped

    def _pass(self) -> Summary:
        self._last_step_at = time.monotonic()
        done: list[Summary] = []
        thread = threading.Thread(target=lambda: done.append(self.sweep.run()), name="pass", daemon=True)
        thread.start()
        stop_at = float("inf")
        look_at = time.monotonic() + _LOOK_SECONDS
        while thread.is_alive() and time.monotonic() < stop_at:
            thread.join(_TICK_SECONDS)
            silence = time.monotonic() - self._last_step_at
            if silence < _LONGEST_SILENCE_SECONDS:
                self.notifier.alive()
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + _LOOK_SECONDS
                self.watch.working() if silence < _LOOK_SECONDS else self.watch.hanging(silence)
            if self.sweep.stop.is_set():
                stop_at = min(stop_at, time.monotonic() + _STOP_SECONDS)
        # No summary: it hangs in the network and is left behind, or a bug ended it.
        summary = done[0] if done else Summary(stopped=self.sweep.stop.is_set(), bugs=int(not self.sweep.stop.is_set()))
        if summary.bugs and not done:
            self.watch.after(summary)
        self._failures = self._failures + 1 if summary.error or summary.bugs else 0
        self._say(summary)
        return summary

    def _delay_seconds(self, summary: Summary) -> float:
        if summary.error is not None and not isinstance(summary.error, LockHeld):
            longest = max(_LONGEST_BACKOFF_SECONDS, self.poll_interval_seconds)
            delay = min(self.poll_interval_seconds * 2.0 ** min(self._failures - 1, 10), longest)
        elif summary.progressed:
            return 0.0
        else:
            delay = self.poll_interval_seconds
        return delay * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 (jitter, not cryptography)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        beat = (self.notifier.watchdog_seconds or 2e6) / 2
        while (left := until - time.monotonic()) > 0 and not self._woken(min(left, beat)):
            self.notifier.alive()
        while self._woken(0.0):
            pass  # several are one

    def _woken(self, seconds: float) -> bool:
        try:
            self._wake.get(timeout=seconds) if seconds else self._wake.get_nowait()
        except queue.Empty:
            return False
        return True

    def _say(self, summary: Summary) -> None:
        """One line a pass; an empty one that follows an empty one is worth no line in a log on an SD card."""
        counts = {str(outcome.value): summary.outcomes[outcome] for outcome in Outcome if summary.outcomes[outcome]}
        if isinstance(summary.error, LockHeld):
            level = Level.NOTICE
        elif summary.error is not None:
            # Away for now is a warning; refused or misconfigured needs a person.
            level = Level.ALERT if isinstance(summary.error, (Refused, ConfigError)) else Level.WARNING
        elif summary.listed or summary.missing or summary.bugs or not self._idle:
            level = Level.INFO
        else:
            level = Level.DEBUG
        self._idle = summary.error is None and not summary.listed
        self.log.event(
            level,
            "pass",
            listed=summary.listed,
            **counts,
            left=summary.left or None,
            waiting_for=", ".join(f"{number} {reason}" for reason, number in summary.waiting.items()) or None,
            missing=summary.missing or None,
            seconds=round(summary.seconds, 3),
            stopped=summary.stopped or None,
            message=str(summary.error) if summary.error else None,
        )
        words = str(summary.error) if summary.error else f"Last pass: {_in_words(counts)}"
        self.notifier.status(f"{time.strftime('%H:%M')} {words}")


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items()) or "nothing to do"
