"""Tables on a terminal, and times in them."""

import datetime
from collections.abc import Iterable, Sequence
from typing import TextIO

from drain.text import clean

_WIDE = 160
_NUMBERS = frozenset({"score", "tries", "mails", "seconds", "size"})


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], stream: TextIO) -> None:
    """Writes rows of words below their headings; what is from outside is made safe."""
    from rich.console import Console  # noqa: PLC0415 (60 ms that only a person has to pay)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=None, pad_edge=False)
    for heading in headings:
        made.add_column(heading, overflow="fold", justify="right" if heading in _NUMBERS else "left")
    for row in rows:
        # As text: in a string rich would take what a sender writes for markup.
        made.add_row(*[Text(clean(cell)) for cell in row])
    Console(file=stream, width=None if stream.isatty() else _WIDE, highlight=False).print(made)


def minute(at: float) -> str:
    """A Unix time in local time, to the minute."""
    return datetime.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")
