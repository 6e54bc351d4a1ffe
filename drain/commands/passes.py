"""``drain once``, ``drain run``, and bare ``drain``."""

import argparse
import os
import sys
from collections.abc import Mapping

from drain import assembly, config as configuration, show
from drain.commands.common import begin, exit_code


def bare(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """One pass with ``ONESHOT``, else for ever."""
    config, _ = configuration.load(environ)
    return (once if config.oneshot else run)(arguments, environ)


def once(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """One pass."""
    config, log = begin(arguments, environ)
    service = assembly.service(config, log, environ)
    for_a_person = sys.stderr.isatty() and not arguments.json
    bar = show.Bar()
    if for_a_person:
        service.sweep.on_listed, service.sweep.on_result = bar.listed, bar.done
    try:
        summary = service.once()
    finally:
        bar.close()
    if for_a_person and (words := show.summary_in_words(summary)):
        print(words, file=sys.stderr)
    return exit_code(summary)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Passes for ever."""
    config, log = begin(arguments, environ)
    summary = assembly.service(config, log, environ).run()
    return os.EX_OK if summary.stopped else exit_code(summary)
