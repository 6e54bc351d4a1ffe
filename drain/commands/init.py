"""``drain init``."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from drain.commands import doctor
from drain.errors import Unavailable
from drain.init import answers, person, steps, writing
from drain.init.answers import Answers
from drain.text import clean

# A DKIM record can be copied whole.
_LONGEST = 2000


def init(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Writes drain.env and the keys, says what is left to do, and ends as ``drain doctor`` does.

    Whoever breaks off the questions gets 75, and nothing is written.
    """
    env_file = writing.place(environ)
    found = answers.gather(env_file, environ, arguments.answers)
    for warning in found.warnings:
        print(f"warning: {clean(warning)}", file=sys.stderr)
    if arguments.steps:
        _show(env_file, found, environ)
        return os.EX_OK
    _fill(found, asks=not arguments.yes and sys.stdin.isatty())
    if _write(env_file, found, environ):
        _show(env_file, found, environ, places=True)
    else:
        print("What there is to do at Cloudflare and in the DNS: `drain init --steps`.")
    if missing := found.missing():
        print(f"\nNot set yet: {', '.join(missing)}. `drain init` asks for that again.", flush=True)
    if arguments.no_doctor:
        return os.EX_OK
    print("\n`drain doctor` says:\n", flush=True)
    every = argparse.Namespace(only="", json=False)
    return doctor.doctor(every, {**environ, "DRAIN_ENV_FILE": str(env_file)})


def _show(env_file: Path, found: Answers, environ: Mapping[str, str], *, places: bool = False) -> None:
    """What is left to do elsewhere, and perhaps first where everything is."""
    config = writing.loaded(found, environ)
    there = steps.files(env_file, config, found.values)
    text = steps.shown(there, config)
    for line in ((steps.places(there, config) if places else "") + text).splitlines():
        print(clean(line, _LONGEST))
    sys.stdout.flush()


def _fill(found: Answers, *, asks: bool) -> None:
    """Asks for what is missing."""
    try:
        found.fill(person.ask if asks else None)
    except (EOFError, KeyboardInterrupt):
        print(flush=True)  # the line of the question
        raise Unavailable("Broken off: nothing was written.", "Run `drain init` again when you like.") from None


def _write(env_file: Path, found: Answers, environ: Mapping[str, str]) -> bool:
    """Writes what is new, and says so; whether there was anything."""
    old = env_file.exists()
    if not writing.write(env_file, found, environ):
        asked = "" if found.missing() else "Nothing to ask, and "
        print(f"{asked}{'nothing' if asked else 'Nothing'} to change in {env_file}.")
        return False
    print(f"\n{'Brought up to date' if old else 'Written'}: {env_file}")
    if found.new.get("REQUIRE_SEALED") == "false":
        print(
            "REQUIRE_SEALED=false is in it, so that mail of another Worker is still delivered.\n"
            "Take that out when this project's Worker is the only one that fills the bucket."
        )
    return True
