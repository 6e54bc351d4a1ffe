"""``drain demo``."""

import argparse
from collections.abc import Mapping

from drain.demo import run


def demo(_arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    """The main job, shown with embedded servers."""
    return run()
