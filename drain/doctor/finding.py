"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How it is. `UNKNOWN`: the check could not run, which is not "ok"."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One line of `drain doctor`.

    ``check`` names the check (``bucket``, ``dns``), ``words`` says in a sentence what
    was found, ``next`` what to do about it ("" for nothing). Both are safe to show.
    """

    check: str
    level: Level
    words: str
    next: str = ""
