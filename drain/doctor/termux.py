"""Termux: what keeps drain running on Android, as far as an app can ask."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from drain.doctor.finding import Finding
from drain.doctor.program import SECONDS, ask
from drain.doctor.say import Say

_SAY = Say("termux")
# Android's storage that apps share is FAT or something that looks like it: no modes, no flock.
_SHARED_STORAGE = ("/storage/", "/sdcard/", "/mnt/media_rw/", "/data/media/")


def check(environ: Mapping[str, str], state_dir: Path, *, seconds: float = SECONDS) -> Iterator[Finding]:
    """What keeps drain running on Android, as far as an app can ask; nothing where this is not Termux."""
    if not environ.get("TERMUX_VERSION") and "com.termux" not in environ.get("PREFIX", ""):
        return
    place = f"{state_dir.expanduser().resolve()}/"
    if place.startswith(_SHARED_STORAGE):
        words = f"{state_dir} is on shared storage: every app can read it, and there are no modes and no flock."
        yield _SAY.failure(words, "Set STATE_DIR to a folder below $HOME.")
    else:
        yield _SAY.ok(f"{state_dir} is in Termux's own storage.")
    yield from _api(environ, seconds)
    yield from _boot(Path(environ.get("HOME") or "~").expanduser() / ".termux/boot")
    words = "Whether Termux holds its wake lock cannot be asked. Without it Android lets drain sleep."
    look = "Termux's notification says `wake lock held`; if not, run termux-wake-lock."
    yield _SAY.unknown(words, look)
    words = "Whether Android's battery optimisation stops Termux cannot be asked."
    look = "Android's settings: Apps, Termux, Battery: Unrestricted. The same for Termux:API and Termux:Boot."
    yield _SAY.unknown(words, look)


def _api(environ: Mapping[str, str], seconds: float) -> Iterator[Finding]:
    if shutil.which("termux-battery-status", path=environ.get("PATH")) is None:
        words = "The package termux-api is not installed; alerts by termux-notification need it."
        yield _SAY.warning(words, "pkg install termux-api, and the app Termux:API.")
        return
    # Without the app it hangs for ever: https://github.com/termux/termux-api/issues/402
    answer = ask(["termux-battery-status"], environ, seconds)
    try:
        answered = isinstance(json.loads(answer or ""), dict)
    except ValueError:
        answered = False
    if answered:
        yield _SAY.ok("Termux:API answers.")
    else:
        words = f"Termux:API did not answer within {seconds:g} s; termux-notification would hang."
        hint = "Install the app Termux:API from where Termux is from, open it once, and let it run in the background."
        yield _SAY.warning(words, hint)


def _boot(folder: Path) -> Iterator[Finding]:
    try:
        scripts = [path.read_text("utf-8", "replace") for path in sorted(folder.iterdir()) if path.is_file()]
    except OSError:
        scripts = []
    if not scripts:
        words = f"{folder} has no script: nothing starts drain after the phone was off."
        hint = "Install the app Termux:Boot, open it once, and put the script in termux/ there."
        yield _SAY.warning(words, hint)
    elif not any("termux-wake-lock" in script for script in scripts):
        words = f"No script in {folder} calls termux-wake-lock."
        yield _SAY.warning(words, "Make it the first line of the first script.")
    else:
        words = f"{folder} has a script with termux-wake-lock. That the app Termux:Boot is there cannot be asked."
        yield _SAY.ok(words)
