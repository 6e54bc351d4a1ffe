"""``drain ledger migrate``, ``rebuild`` and ``prune``."""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from drain import assembly, lock, rebuild as rebuilding
from drain.backup import snapshot
from drain.commands.common import LOCK_WAIT_SECONDS, begin, locked_ledger
from drain.database import Database, Schema, version_of
from drain.logbook import LOGBOOK
from drain.relay.tables import QUEUE
from drain.tables import LEDGER


def migrate(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Brings what drain keeps to the tables of this version."""
    config, log = begin(arguments, environ, complete=False)
    kept = [
        (config.ledger_path, LEDGER),
        (config.logbook_path, LOGBOOK),
        (config.relay_folder / "queue.db", QUEUE),
    ]
    with lock.held(config.lock_path, log, timeout_seconds=LOCK_WAIT_SECONDS):
        there = [(path, schema, version_of(path)) for path, schema in kept if path.exists()]
        # All of them or none: what an older drain can use no more, the person could not go back with.
        for path, schema, before in there:
            if before != schema.version:
                _try(path, schema)
        for path, schema, before in there:
            with contextlib.closing(Database(path, schema)):
                words = "as it was" if before == schema.version else f"until now {before}"
                print(f"{path}: schema {schema.version}, {words}.")
    return os.EX_OK


def _try(path: Path, schema: Schema) -> None:
    """Brings a copy up to date, beside the file, and throws it away."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        trial = Path(folder) / path.name
        snapshot.take(path, trial)
        Database(trial, schema).close()


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
