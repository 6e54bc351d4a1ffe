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
# As termux/steps.sh of install.sh puts them.
_SERVICE = "var/service/drain"
_LOG = "var/log/sv/drain/current"
_BOOT_SCRIPT = "10-drain"
_PREFIX = "/data/data/com.termux/files/usr"


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
    yield from _service(environ, seconds)
    yield from _api(environ, seconds)
    yield from _boot(Path(environ.get("HOME") or "~").expanduser() / ".termux/boot")
    words = "Whether Termux holds its wake lock cannot be asked. Without it Android lets drain sleep."
    look = "Termux's notification says `wake lock held`; if not, run termux-wake-lock."
    yield _SAY.unknown(words, look)
    words = "Whether Android's battery optimisation stops Termux cannot be asked."
    look = "Android's settings: Apps, Termux, Battery: Unrestricted. The same for Termux:API and Termux:Boot."
    yield _SAY.unknown(words, look)


def _service(environ: Mapping[str, str], seconds: float) -> Iterator[Finding]:
    """Whether runit looks after drain: what `sv status` prints is in sv(8)."""
    prefix = Path(environ.get("PREFIX") or _PREFIX)
    folder = prefix / _SERVICE
    if not (folder / "run").is_file():
        words = f"There is no service {folder}: nothing starts drain again after it was killed."
        yield _SAY.warning(words, "`./install.sh` puts it there, if nothing else starts drain.")
        return
    state = (ask(["sv", "status", str(folder)], environ, seconds) or "").partition(":")[0]
    if state == "run" and (folder / "waits").exists():
        words = "The service drain has ended, and waits to be tried again."
        yield _SAY.failure(words, f"{prefix / _LOG} says why. Once that is mended: sv restart drain")
    elif state == "run" and not (folder / "down").exists():
        yield _SAY.ok(f"The service drain runs; its log is {prefix / _LOG}.")
    elif state == "run":
        words = f"The service drain runs, but {folder / 'down'} keeps it from starting with Termux."
        yield _SAY.warning(words, "sv-enable drain")
    elif state in ("down", "finish"):
        yield _SAY.warning("The service drain is down: no mail is fetched.", "sv-enable drain; then: sv status drain")
    else:
        words = "`sv status drain` does not answer: termux-services does not run, and so drain does not."
        yield _SAY.failure(words, "Open a new session of Termux, which starts it; or: service-daemon start")


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
        scripts = {path.name: path.read_text("utf-8", "replace") for path in folder.iterdir() if path.is_file()}
    except OSError:
        scripts = {}
    script = folder / _BOOT_SCRIPT
    if not scripts:
        words = f"{folder} has no script: nothing starts drain after the phone was off."
        hint = f"`./install.sh` puts {_BOOT_SCRIPT} there; then install the app Termux:Boot, and open it once."
        yield _SAY.warning(words, hint)
    elif not any("termux-wake-lock" in text for text in scripts.values()):
        words = f"No script in {folder} calls termux-wake-lock."
        yield _SAY.warning(words, f"`./install.sh` puts {_BOOT_SCRIPT} there, which does so first.")
    elif not any("start-services" in text or "service-daemon" in text or "drain" in text for text in scripts.values()):
        words = f"No script in {folder} starts drain or termux-services."
        yield _SAY.warning(words, f"`./install.sh` puts {_BOOT_SCRIPT} there, which does so.")
    else:
        there = script if script.name in scripts else folder
        words = f"{there} starts drain with the phone. That the app Termux:Boot is there cannot be asked."
        yield _SAY.ok(words)
