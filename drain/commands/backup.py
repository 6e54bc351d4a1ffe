"""``drain backup`` and ``drain restore``."""

import argparse
import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TextIO

from drain import assembly, envfile, lock
from drain.backup import restoring, writing
from drain.backup.archive import Archive, Manifest, in_a_sentence
from drain.backup.places import Places, labelled, maddy_folders
from drain.backup.restoring import Restore, Step
from drain.commands.ask import ask, output_to_nobody
from drain.commands.common import LOCK_WAIT_SECONDS, begin
from drain.errors import LockHeld, Unavailable
from drain.log import Log
from drain.settings import SETTINGS, Config
from drain.show.steps import steps
from drain.show.table import minute
from drain.text import clean

_NAMED = (
    "MAIL_USERS_FILE",
    "MADDY_CONFIG",
    "MAIL_ALIASES_FILE",
    "INJECT_TLS_CA_FILE",
    "VERIFY_IMAP_LOGINS_FILE",
    "VERIFY_IMAP_TLS_CA_FILE",
    "SMARTHOST_TLS_CA_FILE",
    "RELAY_TLS_CERT_FILE",
)
_KEYS = ("MAILBRIDGE_PRIVATE_KEY_PATH", "DKIM_KEY_FILE", "RELAY_TLS_KEY_FILE")
_LARGE = 512 * 1024 * 1024


def backup(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Writes all that drain knows into one file."""
    config, _ = begin(arguments, environ, complete=False)
    file = Path(arguments.file)
    written = writing.write(
        file,
        _places(config, environ),
        elsewhere=list(_elsewhere(environ)),
        with_ledger=bool(config.r2_bucket),
        with_keys=arguments.with_keys,
        host=socket.gethostname(),
        now=time.time(),
    )
    items = written.manifest.items
    bodies = sum(item.name.startswith("mails/") for item in items)
    said = [f"{file}: {len(items)} files, {sum(item.size for item in items)} bytes, {bodies} of them outgoing mails."]
    large = [item for item in items if item.size > _LARGE]
    said += [f"{item.name} has {item.size // 2**20} MiB: mind the room that backups take." for item in large]
    said += [f"Not in it: {words}" for words in written.manifest.missing]
    said.append(
        f"It holds {'private keys' if written.private else 'passwords'}: keep it where nobody else can read it."
    )
    if not written.private:
        said.append("It holds no private key. Without them a restore elsewhere reads neither sealed nor queued mail.")
    _tell(said)
    for words in written.lacking:
        print(f"drain: {file} is written, and lacks what it should have. {clean(words)}", file=sys.stderr)
    return os.EX_NOINPUT if written.lacking else os.EX_OK


def restore(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Puts a backup back."""
    with contextlib.closing(Archive(Path(arguments.file))) as archive:
        done = [_in_words(archive.manifest)]
        try:
            return _restore(arguments, archive, environ, done)
        finally:
            _tell(done)


@in_a_sentence()
def _restore(arguments: argparse.Namespace, archive: Archive, environ: Mapping[str, str], done: list[str]) -> int:
    # Where the rest belongs stands in these.
    refused = _configuration(arguments, archive, environ, done)
    if refused is not None:
        return refused
    config, log = begin(arguments, environ)
    places = _places(config, environ)
    show = partial(_plan, done, restoring.plan(archive, places))
    refused = ask(arguments, "Shall that be done?", "Nothing was restored", show)
    if refused is not None:
        return refused
    with lock.held(config.lock_path, log, timeout_seconds=LOCK_WAIT_SECONDS), _relay_stopped(places.relay, log):
        bucket, opener, prefixes = assembly.bucket(config), assembly.opener(config), assembly.prefixes(config)
        work = Restore(archive, places, bucket, opener, prefixes, minute(archive.manifest.made_at))
        work.run(time.time(), done)
    return os.EX_OK


def _configuration(
    arguments: argparse.Namespace, archive: Archive, environ: Mapping[str, str], done: list[str]
) -> int | None:
    """Puts back drain.env, then what it names, where that is missing; None to go on, else the exit code."""
    for files in (_env_file, _named):
        missing = {label: path for label, path in files(environ).items() if not path.exists()}
        planned = restoring.plan_files(archive, missing)
        if not planned:
            continue
        show = partial(_plan, done, planned)
        refused = ask(arguments, "Shall that be put back?", "Nothing was restored", show)
        if refused is not None:
            return refused
        done += restoring.put_files(archive, missing)
    return None


def _plan(done: list[str], planned: list[Step], stream: TextIO) -> None:
    """What was done so far, and what is to be."""
    _show(done, stream)
    steps(planned, stream)


def _tell(words: list[str]) -> None:
    """At the end, so that nothing depends on whether somebody reads it."""
    try:
        _show(words, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        output_to_nobody()


def _show(done: list[str], stream: TextIO) -> None:
    while done:
        print(clean(done.pop(0)), file=stream)


def _places(config: Config, environ: Mapping[str, str]) -> Places:
    keys = [*config.private_key_file, *(path for name in _KEYS if (path := _path(getattr(config, name.lower()))))]
    return Places(
        ledger=config.ledger_path,
        relay=config.relay_folder,
        relay_key=config.relay_key_file,
        files={
            **_env_file(environ),
            **_named(environ),
            "relay-users": config.relay_users_path,
            "stamp.key": config.state_dir / "stamp.key",
        },
        keys=labelled(keys, config.relay_key_file),
        maddy=maddy_folders(_path(config.maddy_config), environ),
    )


def _elsewhere(environ: Mapping[str, str]) -> Iterator[str]:
    """Which settings are in no file that a backup has; their names only."""
    in_file = _env_values(environ)
    names = [*SETTINGS, *(f"{name}_FILE" for name, setting in SETTINGS.items() if setting.secret)]
    names = [name for name in names if environ.get(name) not in ("", None, in_file.get(name))]
    if names:
        yield f"settings that come from the environment: {', '.join(names)}."
    folder = environ.get("CREDENTIALS_DIRECTORY")
    secrets = [
        name for name, setting in SETTINGS.items() if setting.secret and folder and (Path(folder) / name).is_file()
    ]
    if secrets:
        yield f"secrets in $CREDENTIALS_DIRECTORY: {', '.join(secrets)}."


def _env_file(environ: Mapping[str, str]) -> dict[str, Path]:
    """drain.env: the one that is there, or where it is looked for."""
    usual = Path("/etc/drain/drain.env") if os.geteuid() == 0 else Path("~/.config/drain/drain.env").expanduser()
    path = envfile.find(environ) or usual
    return {"drain.env": path} if path.is_file() or not path.exists() else {}  # /dev/null means none


def _env_values(environ: Mapping[str, str]) -> dict[str, str]:
    """What stands in drain.env."""
    return next((envfile.read(path)[0] for path in _env_file(environ).values() if path.exists()), {})


def _named(environ: Mapping[str, str]) -> dict[str, Path]:
    """The files that settings name; by the settings' names, also of secrets, and before the settings are loaded."""
    values = _env_values(environ) | {name: text for name, text in environ.items() if text}
    names = (*_NAMED, *(f"{name}_FILE" for name, setting in SETTINGS.items() if setting.secret))
    return {name: path for name in names if (path := _path(values.get(name, "")))}


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


@contextlib.contextmanager
def _relay_stopped(folder: Path, log: Log) -> Iterator[None]:
    """Holds the relay's lock.

    Raises:
        Unavailable: a relay has it.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock.held(folder / "relay.lock", log))
        except LockHeld as error:
            raise Unavailable(f"The relay is running. {error}", "Stop it, and run this again.") from error
        yield


def _in_words(manifest: Manifest) -> str:
    keys = f" Mail was sealed for the key {', '.join(manifest.key_ids)}." if manifest.key_ids else ""
    return clean(f"A backup of {manifest.host}, made {minute(manifest.made_at)} by drain {manifest.drain}.{keys}")
