"""What is measured, in the order in which it is: the rows of the table."""

import sys
from collections.abc import Mapping, Sequence

from bench import idling, plenty, transfers
from bench.figures import Figure, Row, Turn, Work
from bench.runs import RunFailed, Stage

WORKS: Mapping[str, Work] = {work.name: work for work in (*transfers.WORKS, *idling.WORKS, *plenty.WORKS)}


def measured(work: Work, stage: Stage, rounds: int, *, quick: bool) -> list[Row]:
    """A row for each of its figures; a round that fails makes all of them errors, and is the last."""
    found: list[Mapping[str, float]] = []
    for number in range(1, rounds + 1):
        print(f"{work.name}, round {number} of {rounds} ...", file=sys.stderr, flush=True)
        try:
            found.append(work.measure(stage, Turn(number, quick)))
        except (RunFailed, OSError, RuntimeError) as error:
            return [Row(work.what, figure, error=str(error) or repr(error)) for figure in work.figures]
    return [_row(work, figure, found) for figure in work.figures]


def _row(work: Work, figure: Figure, found: Sequence[Mapping[str, float]]) -> Row:
    values = tuple(values[figure.name] for values in found if figure.name in values)
    return Row(work.what, figure, values, error="" if values else "It was not measured.")
