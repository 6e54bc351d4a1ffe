"""``drain quarantine list|show|release|delete``."""

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from drain import assembly, show
from drain.commands.again import deliver
from drain.commands.ask import ask_to_delete
from drain.commands.common import begin, locked_ledger, reading_ledger, tell
from drain.errors import DrainError
from drain.ledger import Ledger
from drain.log import Log
from drain.quarantine import Entry, Quarantine, left_by_all
from drain.settings import Config
from drain.state import Row, State
from drain.text import clean
from drain.verdicts import Kept

_ENDS = {
    State.SETTLED: "delivered",
    State.DELIVERED: "delivered",
    State.QUARANTINED: "refused again, and in quarantine",
    State.SETTING_ASIDE: "refused again, and in quarantine",
}


def list_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """What is in quarantine."""
    config, _ = begin(arguments, environ)
    with _reading(config) as quarantine:
        entries = quarantine.because_of(arguments.reason) if arguments.reason else quarantine.entries()
        gone = 0 if arguments.reason else len(quarantine.gone(entries))
    if arguments.json:
        for entry in entries:
            print(json.dumps(_as_json(entry)))
    else:
        show.quarantine(entries, sys.stdout)
    if gone:
        words = f"{gone} more are in the ledger only: somebody deleted their objects."
        print(f"drain: {words} `drain quarantine delete --gone` forgets them.", file=sys.stderr)
    return os.EX_OK


def show_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """One mail, and why it is there."""
    config, _ = begin(arguments, environ)
    with _reading(config) as quarantine:
        entries = quarantine.find(arguments.id)
        for entry in entries:
            verdicts = quarantine.verdicts(entry)
            try:
                header, problem = show.header(quarantine.open(entry)), ""
            except DrainError as error:
                header, problem = {}, str(error)
            if arguments.json:
                told = {**_as_json(entry), "verdicts": [_verdict(kept) for kept in verdicts], "header": header}
                print(json.dumps({**told, "problem": problem} if problem else told))
            else:
                print(show.quarantined(entry, verdicts, header, problem), end="")
    return os.EX_OK


def release(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Delivers mail out of quarantine, the filters passed over."""
    config, log = begin(arguments, environ)
    worst = os.EX_OK
    released: dict[str, tuple[str, bool]] = {}
    with locked_ledger(config, log) as ledger:
        quarantine = _quarantine(config, ledger)
        entries = _chosen(quarantine, arguments)
        if arguments.all:
            entries, left = left_by_all(entries)
            if left:
                words = f"Left where they are: {left}. Release these by id or --reason, after a look."
                print(f"drain: {clean(words)}", file=sys.stderr)
        for entry in entries:
            try:
                identity, before = quarantine.release(entry, time.time())
                released[identity] = (entry.id, before)
            except DrainError as error:
                worst = error.exit_code
                tell(arguments, {"id": entry.id, "state": "failed", "words": clean(str(error))}, sys.stderr)
    if not released:
        return worst

    def became(identity: str, row: Row | None) -> tuple[str, str]:
        return _became(row, before=released[identity][1])

    names = {identity: name for identity, (name, _) in released.items()}
    code = deliver(arguments, config, log, names, became, "released")
    return worst or code


def delete(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Deletes mail in quarantine for good."""
    config, log = begin(arguments, environ)
    if arguments.gone:
        return _forget_gone(arguments, config, log)
    with _reading(config) as quarantine:
        entries = _chosen(quarantine, arguments)
        # Before the lock: nobody's mail waits for an answer.
        refused = ask_to_delete(arguments, partial(show.quarantine, entries), len(entries))
        if refused is not None:
            return refused
    with locked_ledger(config, log) as ledger:
        quarantine = _quarantine(config, ledger)
        for entry in entries:
            quarantine.delete(entry, time.time())
            tell(arguments, {"id": entry.id, "state": "deleted"}, sys.stdout)
    return os.EX_OK


def _forget_gone(arguments: argparse.Namespace, config: Config, log: Log) -> int:
    with locked_ledger(config, log) as ledger:
        quarantine = _quarantine(config, ledger)
        for identity in quarantine.gone(quarantine.entries()):
            ledger.deleted(identity, time.time())
            tell(arguments, {"id": identity[:12], "state": "forgotten"}, sys.stdout)
    return os.EX_OK


def _quarantine(config: Config, ledger: Ledger) -> Quarantine:
    return Quarantine(assembly.bucket(config), ledger, assembly.opener(config), assembly.prefixes(config))


@contextmanager
def _reading(config: Config) -> Iterator[Quarantine]:
    """For what changes nothing: no lock is needed."""
    with reading_ledger(config) as ledger:
        yield _quarantine(config, ledger)


def _chosen(quarantine: Quarantine, arguments: argparse.Namespace) -> list[Entry]:
    if arguments.reason:
        return quarantine.because_of(arguments.reason)
    if arguments.all:
        return quarantine.entries()
    return [entry for word in arguments.id for entry in quarantine.find(word)]


def _became(row: Row | None, *, before: bool) -> tuple[str, str]:
    state = row.state if row is not None else State.DEFERRED
    if before and state is State.SETTLED:
        return "delivered before, and moved to the others", ""
    words = ((row.mailbox if state is State.SETTLED else row.words) or "") if row is not None else ""
    return _ENDS.get(state, "released, and waiting for the next pass"), words


def _as_json(entry: Entry) -> dict[str, str | float | int | None]:
    row = entry.row
    return {
        "id": entry.id,
        "identity": entry.identity or None,
        "object": entry.listed.key,
        "size": entry.listed.size,
        "set_aside_at": datetime.datetime.fromtimestamp(entry.set_aside_at, datetime.UTC).isoformat(timespec="seconds"),
        "reason": row.reason if row else None,
        "words": row.words if row else None,
        "from": row.sender if row else None,
        "to": row.recipient if row else None,
        "score": entry.score,
    }


def _verdict(kept: Kept) -> dict[str, object]:
    verdict = kept.verdict
    return {
        "filter": kept.filter,
        "score": verdict.score,
        "action": verdict.action.word,
        "code": verdict.code,
        "reason": verdict.reason,
        "evidence": list(verdict.evidence),
    }
