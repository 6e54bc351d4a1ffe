"""Whether passes come to their end, and whether what they write afterwards can be written."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from drain.doctor.finding import Finding
from drain.doctor.say import Say
from drain.status import Status, span

_SAY = Say("passes")


def check(status: Status, stale_seconds: float, written: Mapping[str, str]) -> Iterator[Finding]:
    """What the logbook says of passes; *written* are files to write after them, by their settings' names."""
    good = status.last_good_pass
    seen = max([at for at in (good.at if good else None, status.working_at) if at is not None], default=None)
    if seen is None:
        yield _SAY.warning("No pass has come to its end yet.", "`drain once` makes one; `drain selftest` tries it all.")
    elif stale_seconds and status.at - seen > stale_seconds:
        words = (
            f"The last pass that came to its end was {span(status.at - seen)} ago: no mail has been brought home since."
        )
        yield _SAY.failure(words, "Is drain running? `drain once` says what is wrong.")
    else:
        yield _SAY.ok(f"The last pass that came to its end was {span(status.at - seen)} ago.")
    for alert in status.alerts:
        name = f"{alert.kind} {alert.subject}".strip()
        yield _SAY.warning(f"An alert is on: {name}. {alert.words}", 'README, "When something is wrong".')
    for name, place in written.items():
        path = Path(place).expanduser()
        if not os.access(path.parent, os.W_OK | os.X_OK):
            words = f"{name}: {path} cannot be written: its folder is not there, or not drain's to write to."
            yield _SAY.failure(words, f"Make {path.parent}, or name another place.")
