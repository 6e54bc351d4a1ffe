"""The end of what a person had delivered: released from quarantine, or replayed."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Mapping

from drain import assembly
from drain.commands.common import LOCK_WAIT_SECONDS, exit_code, tell
from drain.errors import LockHeld
from drain.ledger import Ledger
from drain.log import Log
from drain.settings import Config
from drain.state import Row
from drain.text import clean


def deliver(
    arguments: argparse.Namespace,
    config: Config,
    log: Log,
    marked: Mapping[str, str],
    became: Callable[[str, Row | None], tuple[str, str]],
    was: str,
) -> int:
    """Delivers what is marked as released in the ledger, and tells what became of each; the exit code.

    *marked* are the ids to show, by identity; *became* gives for an identity and its row
    a state and perhaps words; *was* is what was done with them ("released").
    """
    summary = assembly.sweep(config, log).deliver_released(LOCK_WAIT_SECONDS)
    with contextlib.closing(Ledger(config.ledger_path)) as ledger:
        for identity, name in marked.items():
            state, words = became(identity, ledger.find(identity))
            tell(arguments, {"id": name, "state": state, "words": clean(words)}, sys.stdout)
    if summary.error is not None:
        print(f"drain: {clean(str(summary.error))} What was {was} is delivered by the next pass.", file=sys.stderr)
    # A command that must act, and could not.
    return os.EX_TEMPFAIL if isinstance(summary.error, LockHeld) else exit_code(summary)
