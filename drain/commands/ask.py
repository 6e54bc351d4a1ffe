"""Asking the person before something is done."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import TextIO

from drain.errors import Unavailable

_FEW = 10


def ask(
    arguments: argparse.Namespace, question: str, nothing: str, show: Callable[[TextIO], None] = lambda stream: None
) -> int | None:
    """Shows what it is about and asks *question*, but for ``--yes``; None for yes, else the exit code.

    *nothing* says what was not done, without a full stop.
    """
    if arguments.yes:
        return None
    if not sys.stdin.isatty():
        print(f"drain: {nothing}: there is nobody to ask. --yes says that it should be.", file=sys.stderr)
        return os.EX_USAGE
    try:
        show(sys.stdout)
        print(f"{question} [y/N] ", end="", flush=True)
    except BrokenPipeError:
        output_to_nobody()
        raise Unavailable(f"{nothing}: nobody reads the question.") from None
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return None
    print(f"{nothing}.")
    return os.EX_OK


def output_to_nobody() -> None:
    """After a `BrokenPipeError`: standard output has no reader any more, and Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def ask_to_delete(arguments: argparse.Namespace, show: Callable[[TextIO], None], number: int) -> int | None:
    """The same before *number* mails are deleted for good, shown if they are few."""
    question = f"Delete {number} mail{'s' * (number != 1)} for good?"
    return ask(arguments, question, "Nothing was deleted", show if number <= _FEW else lambda stream: None)
