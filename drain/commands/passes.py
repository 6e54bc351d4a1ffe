"""``drain once``, ``drain run``, and bare ``drain``."""

import argparse
import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping

from drain import config as configuration, oversight
from drain.commands.common import begin, exit_code
from drain.log import Log
from drain.service import Service
from drain.settings import Config
from drain.summary import Summary

# It began to end when the passes did.
_RELAY_ENDS_SECONDS = 9.0


def bare(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """One pass with ``ONESHOT``, else for ever."""
    config, _ = configuration.load(environ)
    return (once if config.oneshot else run)(arguments, environ)


def once(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """One pass."""
    config, log = begin(arguments, environ)
    service = oversight.service(config, log, environ)
    for_a_person = sys.stderr.isatty() and not arguments.json and not getattr(arguments, "quiet", False)
    return exit_code(_shown(service) if for_a_person else service.once())


def _shown(service: Service) -> Summary:
    """One pass, with its progress on the terminal."""
    from drain import show  # noqa: PLC0415 (for a person)

    bar = show.Bar()
    service.sweep.on_listed, service.sweep.on_result = bar.listed, bar.done
    try:
        summary = service.once()
    finally:
        bar.close()
    if words := show.summary_in_words(summary):
        print(words, file=sys.stderr)
    return summary


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Passes for ever."""
    config, log = begin(arguments, environ)
    service = oversight.service(config, log, environ)
    # A bucket that refuses us is no reason to send nothing.
    service.gives_up = not config.relay_enabled
    with _relay_beside(config, log, service.sweep.stop):
        summary = service.run()
        # By a signal, whatever became of the last pass; else it gave up.
        stopped = service.sweep.stop.is_set()
    return os.EX_OK if stopped else exit_code(summary)


@contextlib.contextmanager
def _relay_beside(config: Config, log: Log, stop: threading.Event) -> Iterator[None]:
    """The relay too, on a thread, where it is enabled; it ends with the passes, by the same signal."""
    if not config.relay_enabled:
        yield
        return
    from drain.commands.relay import runner_for  # noqa: PLC0415 (asyncio and more, that passes alone do not need)

    thread = threading.Thread(target=runner_for(config, log, stop).run_beside, name="relay")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_RELAY_ENDS_SECONDS)
