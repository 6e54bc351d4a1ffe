"""``drain status``."""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from drain import assembly, config as configuration, metrics, oversight, page
from drain.errors import DrainError
from drain.settings import Config
from drain.show import status as show
from drain.status import Health, Pending, Status
from drain.status.gather import ask
from drain.text import clean


def status(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """What is going on, in one of its forms."""
    if arguments.check:
        return _check(arguments, environ)
    config, warnings = configuration.load(environ, complete=arguments.live)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.watch is not None:
        return _watch(lambda: _gathered(config, live=arguments.live), arguments.watch, as_json=arguments.json)
    found = _gathered(config, live=arguments.live)
    if arguments.prometheus:
        print(metrics.text(found), end="")
    elif arguments.html == "-":
        print(page.page(found), end="")
    elif arguments.html:
        metrics.write(Path(arguments.html), page.page(found))
    else:
        _print(found, as_json=arguments.json)
    return os.EX_OK


def _gathered(config: Config, *, live: bool) -> Status:
    now = time.time()
    return oversight.status(config, now, _asked(config, now) if live else None)


def _asked(config: Config, now: float) -> Pending:
    return ask(assembly.bucket(config), config.pending_prefix, now)


def _print(found: Status, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found.as_json), flush=True)
    else:
        show.table(found, sys.stdout)


def _check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """One line, and the exit code of a monitoring plugin, whatever happens: others mean other things there."""
    try:
        config, _ = configuration.load(environ, complete=arguments.live)
        found = _gathered(config, live=arguments.live)
    except DrainError as error:
        print(f"DRAIN UNKNOWN - {clean(str(error)).replace('|', '/')}")
        return show.EXIT_CODES[Health.UNKNOWN]
    except Exception as error:  # noqa: BLE001 (1, which Python exits with, would mean a warning)
        print(f"DRAIN UNKNOWN - a bug in drain: {clean(repr(error)).replace('|', '/')}")
        return show.EXIT_CODES[Health.UNKNOWN]
    print(show.check(found))
    return show.EXIT_CODES[found.health]


def _watch(look: Callable[[], Status], seconds: float, *, as_json: bool) -> int:
    """Shows it again and again, until Ctrl-C."""
    if not 0 < seconds <= 86400:
        print("drain: --watch wants seconds, more than 0 and at most 86400.", file=sys.stderr)
        return os.EX_USAGE
    with contextlib.suppress(KeyboardInterrupt):
        if as_json or not sys.stdout.isatty():
            while True:
                _print(look(), as_json=as_json)
                sys.stdout.flush()
                time.sleep(seconds)
        from rich.live import Live  # noqa: PLC0415 (60 ms that only who watches has to pay)

        with Live(show.renderable(look()), auto_refresh=False) as live:
            while True:
                time.sleep(seconds)
                live.update(show.renderable(look()), refresh=True)
    return os.EX_OK
