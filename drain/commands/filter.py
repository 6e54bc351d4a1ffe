"""``drain filter``: a mail from disk through the filters, and what each of them says."""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from drain import assembly, config as configuration, show
from drain.commands.keys import read
from drain.errors import NotMail
from drain.filters.chain import Judgement
from drain.filters.inbound import Inbound
from drain.header import LIMIT
from drain.ledger import Ledger
from drain.notes import Purse
from drain.stamp import HEADER
from drain.text import clean

_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_STAMP = re.compile(rb"^" + HEADER.encode() + rb": [0-9a-f]{64}\r?\n", re.MULTILINE)


def filter_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """What would become of a mail, and why; nothing is delivered, moved or kept."""
    if arguments.file == "-":
        config, _ = configuration.load(environ, complete=False)
        body = sys.stdin.buffer.read()
        metadata: Mapping[str, str] = {}
    else:
        config, body, metadata = read(arguments.file, environ)
    if arguments.filters:
        config = dataclasses.replace(config, filters=configuration.parsed("FILTERS", arguments.filters))
    configuration.check_filters(config)
    envelope = {name: value for name, value in (("to", arguments.to), ("from", arguments.sender)) if value}
    try:
        opened = assembly.opener(config).believing_all().open(body, {**metadata, **envelope})
    except NotMail as error:
        print(f"drain: {clean(str(error))}", file=sys.stderr)
        return os.EX_DATAERR
    now = datetime.datetime.now(datetime.UTC)
    inbound = Inbound(opened.mail, arguments.ip or opened.ip, opened.received or now.isoformat())
    if inbound.edge.why:
        mail = dataclasses.replace(opened.mail, raw=_below_the_stamp(opened.mail.raw))
        inbound = dataclasses.replace(inbound, mail=mail)
    judgement = assembly.policy(config).chain(_Purse(config.ledger_path)).judge(inbound, {})
    lines = assembly.marks(config).lines(judgement)
    if arguments.json:
        print(json.dumps(_as_json(judgement, lines)))
    else:
        print(show.judgement(judgement, lines))
    return os.EX_TEMPFAIL if judgement.failed else os.EX_OK


def _below_the_stamp(raw: bytes) -> bytes:
    """What was sent, of a mail that was saved from a mailbox: without the lines that were added at home."""
    end = _END_OF_HEADER.search(raw, 0, LIMIT)
    found = _STAMP.search(raw, 0, end.start() if end else LIMIT)
    return raw[found.end() :] if found else raw


class _Purse:
    """That of a pass, which is opened when it is first needed: a call of the model is a call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def spend(self, name: str, most: int) -> bool:
        with contextlib.closing(Ledger(self._path)) as ledger:
            return Purse(ledger.notes).spend(name, most)

    def refund(self, name: str) -> None:
        with contextlib.closing(Ledger(self._path)) as ledger:
            Purse(ledger.notes).refund(name)


def _as_json(judgement: Judgement, lines: bytes) -> dict[str, object]:
    return {
        "disposition": "deferred" if judgement.failed else judgement.action.word if judgement.action else "deliver",
        "score": judgement.score,
        "filters": [
            {
                "filter": answer.filter,
                "score": answer.verdict.score if answer.verdict else None,
                "action": answer.verdict.action.word if answer.verdict else None,
                "reason": clean(answer.verdict.reason) if answer.verdict else None,
                "evidence": [clean(line) for line in answer.verdict.evidence] if answer.verdict else [],
                "failure": clean(answer.failure) or None,
                "seconds": round(answer.seconds, 4),
            }
            for answer in judgement.answers
        ],
        "header": [] if judgement.failed or judgement.action.settles else lines.decode("ascii").splitlines(),
    }
