"""``drain filter``: a mail from disk through the filters, and what each of them says."""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from drain import assembly, config as configuration, show
from drain.commands.keys import from_file
from drain.errors import NotMail
from drain.filters.chain import Chain, Judgement
from drain.filters.inbound import Inbound
from drain.ledger import Ledger
from drain.settings import Config
from drain.text import clean


def filter_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """What would become of a mail, and why; nothing is delivered, moved or kept."""
    config, warnings = configuration.load(environ, complete=False)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.filters:
        config = dataclasses.replace(config, filters=configuration.parsed("FILTERS", arguments.filters))
    configuration.check_filters(config)
    body, metadata = (sys.stdin.buffer.read(), {}) if arguments.file == "-" else from_file(Path(arguments.file))
    envelope = {name: value for name, value in (("to", arguments.to), ("from", arguments.sender)) if value}
    try:
        opened = assembly.opener(config).believing_all().open(body, {**metadata, **envelope})
    except NotMail as error:
        print(f"drain: {clean(str(error))}", file=sys.stderr)
        return os.EX_DATAERR
    now = datetime.datetime.now(datetime.UTC)
    inbound = Inbound(opened.mail, arguments.ip or opened.ip, opened.received or now.isoformat())
    with _chain(config, now) as chain:
        judgement = chain.judge(inbound, {})
    lines = assembly.marks(config).lines(judgement)
    if arguments.json:
        print(json.dumps(_as_json(judgement, lines)))
    else:
        print(show.judgement(judgement, lines))
    return os.EX_TEMPFAIL if judgement.failed else os.EX_OK


@contextlib.contextmanager
def _chain(config: Config, now: datetime.datetime) -> Iterator[Chain]:
    """The chain as a pass has it. A call of the model is a call: it counts against the month's budget."""
    with contextlib.ExitStack() as stack:

        def spend(name: str, most: int) -> bool:
            ledger = stack.enter_context(contextlib.closing(Ledger(config.ledger_path)))
            return ledger.notes.spend(name, now.strftime("%Y-%m"), most)

        yield assembly.policy(config).chain(spend)


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
        "header": lines.decode("ascii").splitlines(),
    }
