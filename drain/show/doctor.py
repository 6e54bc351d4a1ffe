"""What `drain doctor` found, as a person reads it."""

from collections.abc import Mapping
from typing import TextIO

from drain.text import clean

# By level: a sign beside the word, since colours are not for everybody; in ASCII, which every terminal has.
_SIGNS = {"ok": "+", "warning": "!", "failure": "x", "unknown": "?"}
_COLOURS = {"ok": "green", "warning": "yellow", "failure": "bold red", "unknown": "magenta"}
_SEVERAL = {"ok": "ok", "warning": "warnings", "failure": "failures", "unknown": "unknown"}
_INDENT = " " * 10
# A DKIM record can be copied whole.
_LONGEST = 2000


def finding(check: str, level: str, words: str, next_: str, stream: TextIO) -> None:
    """A line, and below it what to do next."""
    from rich.console import Console  # noqa: PLC0415 (60 ms that only a person has to pay)
    from rich.text import Text  # noqa: PLC0415

    line = Text(f"{_SIGNS[level]} {level:<7} ", style=_COLOURS[level])
    line.append(f"{check}: {clean(words, _LONGEST)}", style="default not bold")
    if next_:
        line.append(f"\n{_INDENT}-> {clean(next_, _LONGEST)}", style="default not bold")
    # The terminal breaks lines: a command to be copied stays one.
    Console(file=stream, highlight=False, soft_wrap=True).print(line)


def totals(counts: Mapping[str, int], stream: TextIO) -> None:
    """The closing line."""
    numbers = {level: counts.get(level, 0) for level in _SIGNS}
    parts = [f"{number} {level if number == 1 else _SEVERAL[level]}" for level, number in numbers.items()]
    print(", ".join(parts) + ".", file=stream)
