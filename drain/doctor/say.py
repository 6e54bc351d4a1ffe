"""Findings of one check, made safe to show."""

from dataclasses import dataclass

from drain.doctor.finding import Finding, Level
from drain.text import clean

# As much as the longest record that there is to copy, a DKIM key of 4,096 bits.
_LONGEST = 2000


@dataclass(frozen=True)
class Say:
    """Says what a check found; ``check`` is its name."""

    check: str

    def ok(self, words: str) -> Finding:
        """It is as it should be."""
        return self._finding(Level.OK, words, "")

    def warning(self, words: str, next_: str) -> Finding:
        """It works, but not as well as it could, or not for ever."""
        return self._finding(Level.WARNING, words, next_)

    def failure(self, words: str, next_: str) -> Finding:
        """It does not work."""
        return self._finding(Level.FAILURE, words, next_)

    def unknown(self, words: str, next_: str = "Try again.") -> Finding:
        """It could not be found out."""
        return self._finding(Level.UNKNOWN, words, next_)

    def _finding(self, level: Level, words: str, next_: str) -> Finding:
        return Finding(self.check, level, clean(words, _LONGEST), clean(next_, _LONGEST))
