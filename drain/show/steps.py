"""What a restore would do."""

from collections.abc import Sequence
from typing import TextIO

from drain.backup.restoring import Step
from drain.show.table import table


def steps(planned: Sequence[Step], stream: TextIO) -> None:
    """The table of it."""
    table(
        ("what", "where", "what becomes of it"), [(step.what, str(step.where), step.words) for step in planned], stream
    )
