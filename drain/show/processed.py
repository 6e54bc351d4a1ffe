"""Mail that was delivered, as it lies in the bucket."""

from collections.abc import Sequence
from typing import TextIO

from drain.replay import Entry
from drain.show.table import minute, table

_MOST = 200


def processed(entries: Sequence[Entry], stream: TextIO) -> None:
    """The table of what is to be replayed; the last ones of very many."""
    rows = [
        (
            entry.id,
            minute(entry.delivered_at[-1]),
            entry.sender or "<>",
            entry.recipient,
            (entry.row.mailbox if entry.row else None) or "",
            str(entry.listed.size),
        )
        for entry in entries[-_MOST:]
    ]
    table(("id", "delivered", "from", "to", "mailbox", "size"), rows, stream)
    if len(entries) > _MOST:
        stream.write(f"and {len(entries) - _MOST} earlier ones\n")
