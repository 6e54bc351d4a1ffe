"""``drain doctor``."""

import argparse
import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping

from drain.doctor import examination
from drain.doctor.finding import Level
from drain.show import doctor as show
from drain.text import clean

_WARNING, _FAILURE = 1, 2


def doctor(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Every check, or some; 0 if all is well, 1 for a warning or what is not known, 2 for a failure."""
    only = [name.strip() for name in arguments.only.split(",") if name.strip()]
    unknown = [name for name in only if name not in examination.NAMES]
    if unknown or (arguments.only and not only):
        words = f"There is no check {', '.join(unknown) or 'of no name'}. There are: {', '.join(examination.NAMES)}."
        print(f"drain: {clean(words)}", file=sys.stderr)
        return os.EX_USAGE
    counts: Counter[Level] = Counter()
    for finding in examination.examine(environ, only):
        counts[finding.level] += 1
        if arguments.json:
            print(json.dumps(dataclasses.asdict(finding)), flush=True)
        else:
            show.finding(finding.check, finding.level, finding.words, finding.next, sys.stdout)
    code = _FAILURE if counts[Level.FAILURE] else _WARNING if counts.total() > counts[Level.OK] else os.EX_OK
    totals = {level.value: counts[level] for level in Level}
    if arguments.json:
        print(json.dumps({**totals, "exit": code}), flush=True)
    else:
        show.totals(totals, sys.stdout)
    return code
