"""``drain config``."""

import argparse
import os
import sys
from collections.abc import Mapping

from drain import config as configuration
from drain.text import clean


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Every setting with its value, or the reference."""
    if arguments.reference:
        print(configuration.reference(), end="")
        return os.EX_OK
    config, warnings = configuration.load(environ)
    for name, value in configuration.shown(config).items():
        print(f"{name}={clean(value)}")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return os.EX_OK
