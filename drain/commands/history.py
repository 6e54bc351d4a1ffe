"""``drain history`` and ``drain trace``."""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping

from drain import assembly, stamp
from drain.commands.common import begin
from drain.errors import NoInput, WrongUse
from drain.history import SHORTEST_ID, Event, Record, Search
from drain.ledger import Ledger
from drain.settings import Config
from drain.show import history as show
from drain.verdicts import Kept

_AGO = re.compile(r"(\d+(?:\.\d+)?)([mhd])")
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
_STAMP = re.compile(rf"(?:{stamp.HEADER}:\s*)?([0-9a-f]{{64}})", re.IGNORECASE)
_DATES = "It wants a date (2026-11-21), a time (2026-11-21T10:30), today, yesterday, or how long ago: 45m, 36h, 7d."
_NOTHING_YET = "Nothing yet: this drain has seen no mail."
_ELSEWHERE = "Mail that you sent is in `drain relay queue list --all`; `drain open NAME` shows what lies in the bucket."
_NAMED = 5  # mails, where a word could mean several


def history(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """What became of mails: by id, addresses, dates or Message-ID."""
    config, _ = begin(arguments, environ, complete=False)
    wanted = _wanted(arguments, time.time())
    with _reading(config) as ledger:
        found = ledger.history.search(wanted, arguments.limit + 1) if ledger else []
        shown = found[-arguments.limit :]
        events = [ledger.history.of(record.row.identity) for record in shown] if ledger and arguments.json else []
    if not found and ledger and wanted != Search():
        raise NoInput("No such mail is in the ledger.", _ELSEWHERE)
    if arguments.json:
        for record, its in zip(shown, events, strict=True):
            print(json.dumps(_as_json(record, its)))
    elif found:
        show.rows(shown, sys.stdout)
    else:
        print(_NOTHING_YET)
    if len(found) > len(shown):
        print(f"drain: These are the newest {len(shown)}; --limit shows more.", file=sys.stderr)
    return os.EX_OK


def trace(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Every step of one mail."""
    config, _ = begin(arguments, environ, complete=False)
    with _reading(config) as ledger:
        if ledger is None:
            raise NoInput(_NOTHING_YET, _ELSEWHERE)
        record = _one(ledger, arguments.id.strip(), config)
        identity = record.row.identity
        traced = show.Trace(
            record,
            ledger.history.of(identity),
            list(ledger.verdicts.of(identity).values()),
            ledger.history.objects(identity),
            assembly.prefixes(config),
        )
    if arguments.json:
        print(json.dumps(_traced(traced, time.time())))
    else:
        show.trace(traced, time.time(), sys.stdout)
    return os.EX_OK


def _wanted(arguments: argparse.Namespace, now: float) -> Search:
    """What the words of the command ask for."""
    if arguments.limit < 1:
        raise WrongUse("--limit wants a number of mails, 1 or more.")
    times: list[float | None] = []
    for name, word in (("since", arguments.since), ("until", arguments.until)):
        try:
            times.append(moment(word, now, ends=name == "until") if word else None)
        except (ValueError, OverflowError):
            raise WrongUse(f"--{name} {word} is not understood. {_DATES}") from None
    return Search(arguments.id, arguments.sender, arguments.to, arguments.message_id, *times)


def moment(word: str, now: float, *, ends: bool = False) -> float:
    """The Unix time that a person means; *ends*: of a day its end.

    ``2026-11-21``, ``2026-11-21T10:30``, ``today``, ``yesterday``, all in local time,
    or how long before *now*: ``45m``, ``36h``, ``7d``.

    Raises:
        ValueError: none of these.
        OverflowError: no calendar has it.
    """
    if ago := _AGO.fullmatch(word):
        return now - float(ago[1]) * _SECONDS[ago[2]]
    today = datetime.datetime.fromtimestamp(now).astimezone().date()
    named = {"today": today, "yesterday": today - datetime.timedelta(days=1)}.get(word)
    if named is None:
        try:
            named = datetime.date.fromisoformat(word)
        except ValueError:
            return datetime.datetime.fromisoformat(word).timestamp()
    day = named + datetime.timedelta(days=int(ends))
    return datetime.datetime(day.year, day.month, day.day).astimezone().timestamp()


def _one(ledger: Ledger, word: str, config: Config) -> Record:
    """The mail that a person means by the beginning of its id, its Message-ID, or its whole ``X-Drain-Id``."""
    found = ledger.history.meant(word, _NAMED + 1)
    if not found and (value := _STAMP.fullmatch(word)):
        found = _stamped(ledger, value[1].lower(), config)
    if not found:
        hint = f" The first {SHORTEST_ID} letters of an id are the least." if len(word) < SHORTEST_ID else ""
        raise NoInput(f"The ledger knows no mail {word}.{hint}", _ELSEWHERE)
    if len(found) > 1:
        number = f"more than {_NAMED}" if len(found) > _NAMED else str(len(found))
        named = ", ".join(f"{one.row.identity[:12]} (to {one.row.recipient})" for one in found[-_NAMED:])
        raise NoInput(f"{word} could be any of {number} mails: {named}.", "Give more of the id.")
    return found[0]


def _stamped(ledger: Ledger, value: str, config: Config) -> list[Record]:
    """The mail that has this ``X-Drain-Id``: made anew for each that is known, the newest first, ten seconds for a million."""
    if not (config.state_dir / stamp.NAME).exists():
        return []  # not the time to make one
    own = stamp.load(config.state_dir)
    identity = next((one for one in ledger.history.identities() if own.value(one) == value), "")
    return ledger.history.search(Search(id=identity), 1) if identity else []


@contextlib.contextmanager
def _reading(config: Config) -> Iterator[Ledger | None]:
    """The ledger, while a pass may go on; None where there is none yet, and none is made."""
    if not config.ledger_path.exists():
        yield None
        return
    with contextlib.closing(Ledger(config.ledger_path, writable=False)) as ledger:
        yield ledger


def _as_json(record: Record, events: list[Event]) -> dict[str, object]:
    row = {
        name: _time(value) if name.endswith("_at") else value for name, value in dataclasses.asdict(record.row).items()
    }
    return {
        "id": record.row.identity[:12],
        **row,
        "stored_at": _time(record.stored_at),
        "message_id": record.message_id,
        "events": [{**dataclasses.asdict(one), "at": _time(one.at), "last_at": _time(one.last_at)} for one in events],
    }


def _traced(traced: show.Trace, now: float) -> dict[str, object]:
    return {
        **_as_json(traced.record, list(traced.events)),
        "verdicts": [_verdict(kept) for kept in traced.verdicts],
        "steps": [{**dataclasses.asdict(step), "at": _time(step.at)} for step in traced.steps],
        "object": traced.place,
        "next": traced.next(now) or None,
    }


def _verdict(kept: Kept) -> dict[str, object]:
    return {"filter": kept.filter, **dataclasses.asdict(kept.verdict), "action": kept.verdict.action.word}


def _time(at: float | None) -> str | None:
    """ISO 8601, UTC, for programs."""
    return None if at is None else datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds")
