"""Findings, with a time limit on all of them together.

Time limits on sockets bound each read alone, and some waits (a name that is looked up)
have none that Python could set. So a check runs on a thread of its own; what it has
not found out when its time is over is said to be unknown, and the thread is left to
its own time limits.
"""

import queue
import threading
import time
from collections.abc import Iterable, Iterator

from drain.doctor.finding import Finding, Level
from drain.text import clean


def bounded(check: str, seconds: float, findings: Iterable[Finding]) -> Iterator[Finding]:
    """*findings* as they come, for at most so many *seconds*; raises nothing."""
    found: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()

    def look() -> None:
        try:
            for finding in findings:
                found.put(finding)
        except Exception as error:  # noqa: BLE001 - a bug in one check must not end the others
            words = clean(f"The check broke off: {type(error).__name__}: {error}")
            found.put(Finding(check, Level.UNKNOWN, words, "This is a bug of drain's; please report it."))
        finally:
            found.put(None)

    threading.Thread(target=look, name=f"doctor {check}", daemon=True).start()
    deadline = time.monotonic() + seconds
    while True:
        try:
            one = found.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            words = f"The check was given up after {seconds:g} s; what is not said above is not known."
            yield Finding(check, Level.UNKNOWN, words, "Try again; if it stays so, look for what is slow.")
            return
        if one is None:
            return
        yield one
