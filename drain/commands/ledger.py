"""``drain ledger rebuild`` and ``drain ledger prune``."""

import argparse
import os
import sys
import time
from collections.abc import Mapping

from drain import assembly, rebuild as rebuilding
from drain.commands.common import begin, locked_ledger


def rebuild(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Reads a lost ledger back."""
    config, log = begin(arguments, environ)
    with locked_ledger(config, log) as ledger:
        rebuilt = rebuilding.rebuild(
            assembly.bucket(config), assembly.opener(config), config.processed_prefix, ledger, time.time()
        )
    print(
        f"{rebuilt.adopted} mails taken over from {config.processed_prefix}, {rebuilt.known} were known already,"
        f" {rebuilt.unreadable} could not be opened."
    )
    if rebuilt.keyless:
        print(f"{rebuilt.keyless} of these for want of a key: put it into place and run this again.", file=sys.stderr)
    return os.EX_OK


def prune(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Forgets what was delivered long ago."""
    config, log = begin(arguments, environ)
    with locked_ledger(config, log) as ledger:
        pruned = ledger.prune(time.time() - config.ledger_retention_days * 86400)
    print(f"{pruned} mails forgotten that were delivered more than {config.ledger_retention_days:g} days ago.")
    return os.EX_OK
