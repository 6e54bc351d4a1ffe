"""systemd: whether drain comes back after a boot, and what it logged too."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from drain.doctor.finding import Finding
from drain.doctor.program import ask
from drain.doctor.say import Say

_SAY = Say("systemd")
# One of these starts passes, and is enabled; the others have no part in whether drain comes back.
_STARTERS = ("drain.service", "drain.timer")
_OTHERS = ("drain-once.service", "drain-relay.service")
# As RestartPreventExitStatus= in systemd/: nothing starts drain again after these.
_MEANINGS = {
    str(os.EX_NOPERM): "R2 or the mail server refused the credentials",
    str(os.EX_CONFIG): "the configuration is wrong, or a key is missing",
}


def check(
    environ: Mapping[str, str],
    *,
    booted: Path = Path("/run/systemd/system"),  # sd_booted(3)
    journal: Path = Path("/var/log/journal"),
) -> Iterator[Finding]:
    """Whether a unit of drain comes back after a boot, and its log too; nothing where there is no systemd."""
    if not booted.is_dir():
        return
    found = False
    for user in (False, True):
        units = _units(environ, user=user)
        if units is None and not user:
            yield _SAY.unknown("systemctl did not answer.", "Look at `systemctl status drain.service drain.timer`.")
            return
        if units is None and not found:
            words = "There is no drain.service and no drain.timer of the system, and the user's manager did not answer."
            yield _SAY.unknown(words, "Run this as the user that drain runs as, logged in as such.")
            return
        if units:
            found = found or bool(units.keys() & set(_STARTERS))
            yield from _of_units(units, user=user)
            if user:
                yield from _linger(environ)
    if not found:
        words = "There is no drain.service and no drain.timer: nothing starts drain after a boot."
        yield _SAY.warning(words, "`./install.sh` installs the units, if nothing else (cron) starts it.")
    elif journal.is_dir():
        yield _SAY.ok("The journal is kept over a boot.")
    else:
        words = "The journal is in memory only: what drain logged is gone after a boot."
        hint = f"mkdir -p {journal} && systemctl restart systemd-journald (journald.conf: Storage=auto or persistent)"
        yield _SAY.warning(words, hint)


def _units(environ: Mapping[str, str], *, user: bool) -> dict[str, dict[str, str]] | None:
    """The properties of drain's units that are there; None for no answer."""
    scope = ["--user"] if user else []
    properties = "--property=Id,LoadState,UnitFileState,ActiveState,SubState,ExecMainStatus"
    answer = ask(["systemctl", *scope, "--no-pager", "show", properties, *_STARTERS, *_OTHERS], environ)
    if answer is None:
        return None
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in answer.split("\n\n")]
    return {block["Id"]: block for block in blocks if block.get("LoadState") == "loaded" and "Id" in block}


def _of_units(units: Mapping[str, Mapping[str, str]], *, user: bool) -> Iterator[Finding]:
    command = "systemctl --user" if user else "sudo systemctl"
    # systemd.service(5): auto-restart is the wait between a failure and the next start.
    failed = [
        name
        for name, unit in units.items()
        if unit.get("ActiveState") == "failed" or unit.get("SubState") == "auto-restart"
    ]
    for name in failed:
        yield _failed(name, units[name], command, "journalctl --user" if user else "sudo journalctl")
    starters = [name for name in _STARTERS if name in units]
    enabled = [name for name in starters if units[name].get("UnitFileState") == "enabled"]
    active = [name for name in enabled if units[name].get("ActiveState") in ("active", "activating")]
    active = [name for name in active if name not in failed]
    if active:
        yield _SAY.ok(f"{' and '.join(active)}: enabled and active.")
    elif starters and not enabled:
        words = f"{' and '.join(starters)}: not enabled, so that nothing starts drain after a boot."
        yield _SAY.warning(words, f"{command} enable --now {starters[0]}")
    elif enabled and not set(enabled) & set(failed):
        yield _SAY.warning(f"{enabled[0]} is enabled and not active.", f"{command} start {enabled[0]}")


def _failed(name: str, unit: Mapping[str, str], command: str, log: str) -> Finding:
    if unit.get("SubState") == "auto-restart":
        return _SAY.failure(f"{name} has failed, and is started again and again.", f"{log} -u {name} -e says why.")
    status = unit.get("ExecMainStatus", "")
    # reset-failed: after too many starts systemd refuses another (systemd.unit(5), StartLimitIntervalSec=).
    again = f"{command} reset-failed {name}; {command} restart {name}"
    if status not in _MEANINGS:
        return _SAY.failure(f"{name} has failed.", f"{log} -u {name} -e says why. Then: {again}")
    words = f"{name} has failed: {_MEANINGS[status]} (exit code {status}). It stays down until you start it."
    return _SAY.failure(words, f"{log} -u {name} -e says which. Mend it, then: {again}")


def _linger(environ: Mapping[str, str]) -> Iterator[Finding]:
    answer = ask(["loginctl", "--no-pager", "show-user", "--property=Linger", str(os.getuid())], environ)
    if answer is None or not answer.startswith("Linger="):
        words = "Whether your units run while you are not logged in could not be asked."
        yield _SAY.unknown(words, "loginctl enable-linger makes it so.")
    elif answer.strip() != "Linger=yes":
        words = "Your units end when you log out, and do not start with the machine."
        yield _SAY.warning(words, "loginctl enable-linger")
    else:
        yield _SAY.ok("Your units run while you are not logged in (linger).")
