"""What several commands begin with."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TextIO

from drain import config as configuration, lock
from drain.errors import ConfigError, LockHeld
from drain.log import Log, for_environment
from drain.settings import Config
from drain.summary import Summary
from drain.text import clean

if TYPE_CHECKING:
    from drain.ledger import Ledger

LOCK_WAIT_SECONDS = 60.0


def begin(arguments: argparse.Namespace, environ: Mapping[str, str], *, complete: bool = True) -> tuple[Config, Log]:
    """The settings, and the log, with what is to be said of the settings; *complete* as of `config.load`."""
    config, warnings = configuration.load(environ, complete=complete)
    quiet = getattr(arguments, "quiet", False)
    log = for_environment(environ, as_json=arguments.json, addresses=config.log_addresses, quiet=quiet)
    for warning in warnings:
        log.warning("configuration", message=warning)
    return config, log


@contextlib.contextmanager
def locked_ledger(config: Config, log: Log) -> "Iterator[Ledger]":
    """The ledger, with no pass going on; waits a while for one to end."""
    from drain.ledger import Ledger  # noqa: PLC0415 (as in `assembly`)

    with (
        lock.held(config.lock_path, log, timeout_seconds=LOCK_WAIT_SECONDS),
        contextlib.closing(Ledger(config.ledger_path)) as ledger,
    ):
        yield ledger


@contextlib.contextmanager
def reading_ledger(config: Config) -> "Iterator[Ledger]":
    """The ledger as it is, while a pass may go on; neither locked nor brought up to date, but made where there is none."""
    from drain.ledger import Ledger  # noqa: PLC0415 (as in `assembly`)

    path = config.ledger_path
    with contextlib.closing(Ledger(path, writable=not path.exists())) as ledger:
        yield ledger


def tell(arguments: argparse.Namespace, told: Mapping[str, str], stream: TextIO) -> None:
    """One line of what became of one mail: ``id``, ``state``, perhaps ``words``; JSON with --json."""
    words = f": {told['words']}" if told.get("words") else ""
    print(json.dumps(told) if arguments.json else clean(f"{told['id']} {told['state']}{words}"), file=stream)


def exit_code(summary: Summary) -> int:
    """What one pass's end means to whoever started it."""
    if summary.bugs:
        return os.EX_SOFTWARE
    if isinstance(summary.error, LockHeld):
        return os.EX_OK
    if summary.error is not None:
        return summary.error.exit_code
    if summary.no_key:
        return ConfigError.exit_code
    return os.EX_TEMPFAIL if summary.left or summary.stopped else os.EX_OK
