"""``drain config``."""

import argparse
import os
import sys
from collections.abc import Mapping

from drain import config as configuration
from drain.text import clean


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Every setting with its value, then what is missing or wrong; or the reference."""
    if arguments.reference:
        print(configuration.reference(), end="")
        return os.EX_OK
    config, warnings = configuration.load(environ, complete=False)
    for name, value in configuration.shown(config).items():
        print(f"{name}={clean(value)}")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not config.r2_bucket and config.relay_upstream:
        configuration.check_relay(config)  # who only sends needs no bucket
    else:
        configuration.load(environ)
    return os.EX_OK
