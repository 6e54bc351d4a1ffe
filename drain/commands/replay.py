"""``drain replay``."""

import argparse
import datetime
import os
import sys
import time
from collections.abc import Mapping
from functools import partial

from drain import assembly
from drain.commands.again import deliver
from drain.commands.ask import ask
from drain.commands.common import begin, locked_ledger, reading_ledger, tell
from drain.errors import DrainError
from drain.ledger import REPLAY_REFUSED, Ledger
from drain.replay import Entry, Replay
from drain.settings import Config
from drain.show.processed import processed
from drain.state import Row, State
from drain.text import clean


def replay(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Delivers mail out of ``processed/`` once more."""
    if bool(arguments.id) == bool(arguments.day or arguments.to):
        print("drain: Replay what? Give ids, or --day, --to or both.", file=sys.stderr)
        return os.EX_USAGE
    try:
        day = datetime.date.fromisoformat(arguments.day) if arguments.day else None
    except ValueError:
        print(f"drain: --day {clean(repr(arguments.day))} is no date; it is written 2026-11-21.", file=sys.stderr)
        return os.EX_USAGE
    config, log = begin(arguments, environ)
    with reading_ledger(config) as ledger:
        chosen, worst = _chosen(arguments, _replay(config, ledger), day)
    if not chosen:
        return worst
    question = f"Deliver {len(chosen)} mail{'s' * (len(chosen) != 1)} once more?"
    # Before the lock: nobody's mail waits for an answer.
    refused = ask(arguments, question, "Nothing was replayed", partial(processed, chosen))
    if refused is not None:
        return refused
    marked: dict[str, str] = {}
    with locked_ledger(config, log) as ledger:
        parts = _replay(config, ledger)
        for entry in chosen:
            # As it is now: a pass may have changed it since.
            failed = _left(arguments, parts, entry) or _marked(arguments, parts, entry)
            worst = failed or worst
            if not failed:
                marked[entry.identity] = entry.id
    code = deliver(arguments, config, log, marked, _became, "replayed") if marked else os.EX_OK
    return worst or code


def _replay(config: Config, ledger: Ledger) -> Replay:
    return Replay(assembly.bucket(config), ledger, assembly.opener(config), assembly.prefixes(config))


def _chosen(arguments: argparse.Namespace, parts: Replay, day: datetime.date | None) -> tuple[list[Entry], int]:
    """What is to be replayed, and the exit code for what is not, which is told."""
    if arguments.id:
        found = {entry.id: entry for word in arguments.id for entry in parts.find(word)}
        entries = list(found.values())
    else:
        entries = parts.search(day, arguments.to)
        if not entries:
            print("drain: No such mail was found.", file=sys.stderr)
            return [], os.EX_NOINPUT
    codes = [_left(arguments, parts, entry) for entry in entries]
    return [entry for entry, code in zip(entries, codes, strict=True) if not code], max(codes)


def _left(arguments: argparse.Namespace, parts: Replay, entry: Entry) -> int:
    """Tells of one that cannot be replayed now; 0 if it can be."""
    why = parts.why_not(entry)
    if why:
        tell(arguments, {"id": entry.id, "state": "left as it is", "words": clean(why)}, sys.stderr)
    return os.EX_DATAERR if why else 0


def _marked(arguments: argparse.Namespace, parts: Replay, entry: Entry) -> int:
    try:
        parts.again(entry, time.time())
    except DrainError as error:
        tell(arguments, {"id": entry.id, "state": "failed", "words": clean(str(error))}, sys.stderr)
        return error.exit_code
    return 0


def _became(_identity: str, row: Row | None) -> tuple[str, str]:
    if row is None or row.state not in (State.SETTLED, State.DELIVERED):
        return "replayed, and waiting for the next pass", (row.words or "") if row else ""
    if row.reason == REPLAY_REFUSED:
        return "refused, and left where it is", row.words or ""
    return "delivered", row.mailbox or ""
