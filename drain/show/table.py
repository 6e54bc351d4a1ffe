"""Tables on a terminal, and times in them."""

import datetime
from collections.abc import Iterable, Sequence
from typing import TextIO

from drain.text import clean


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], stream: TextIO) -> None:
    from rich.console import Console  # noqa: PLC0415 (as above)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in ("score", "tries") else "left")
    for row in rows:
        # As text: in a string rich would take what a sender writes for markup.
        table.add_row(*[Text(clean(cell)) for cell in row])
    Console(file=stream, width=None if stream.isatty() else _WIDE, highlight=False).print(table)


def minute(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")
