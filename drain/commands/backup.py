"""``drain backup`` and ``drain restore``."""

import argparse
import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from drain import assembly, envfile, lock
from drain.backup import restoring, writing
from drain.backup.archive import Archive, Manifest
from drain.backup.places import Places, maddy_folders
from drain.backup.restoring import Restore
from drain.commands.ask import ask
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


def backup(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Writes all that drain knows into one file."""
    config, _ = begin(arguments, environ, complete=False)
    file = Path(arguments.file)
    manifest = writing.write(
        file, _places(config, environ), with_keys=arguments.with_keys, host=socket.gethostname(), now=time.time()
    )
    bodies = sum(item.name.startswith("mails/") for item in manifest.items)
    size = sum(item.size for item in manifest.items)
    print(f"{file}: {len(manifest.items)} files, {size} bytes, {bodies} of them outgoing mails.")
    for words in manifest.missing:
        print(f"Not in it: {clean(words)}")
    print(f"It holds {'private keys' if arguments.with_keys else 'passwords'}: keep it where nobody else can read it.")
    if not arguments.with_keys:
        print("It holds no private key. Without them a restore elsewhere reads neither sealed nor queued mail.")
    return os.EX_OK


def restore(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Puts a backup back."""
    with contextlib.closing(Archive(Path(arguments.file))) as archive:
        print(_in_words(archive.manifest))
        # Where the rest belongs stands in these.
        refused = _configuration(arguments, archive, environ)
        if refused is not None:
            return refused
        config, log = begin(arguments, environ)
        places = _places(config, environ)
        planned = restoring.plan(archive, places)
        refused = ask(arguments, "Shall that be done?", "Nothing was restored", partial(steps, planned))
        if refused is not None:
            return refused
        with lock.held(config.lock_path, log, timeout_seconds=LOCK_WAIT_SECONDS), _relay_stopped(places.relay, log):
            work = Restore(archive, places, assembly.bucket(config), assembly.opener(config), assembly.prefixes(config))
            for words in work.run(time.time()):
                print(clean(words))
        return os.EX_OK


def _configuration(arguments: argparse.Namespace, archive: Archive, environ: Mapping[str, str]) -> int | None:
    """Puts back drain.env, then what it names, where that is missing; None to go on, else the exit code."""
    for files in (_env_file, _named):
        missing = {label: path for label, path in files(environ).items() if not path.exists()}
        planned = restoring.plan_files(archive, missing)
        if not planned:
            continue
        refused = ask(arguments, "Shall that be put back?", "Nothing was restored", partial(steps, planned))
        if refused is not None:
            return refused
        for words in restoring.put_files(archive, missing):
            print(clean(words))
    return None


def _places(config: Config, environ: Mapping[str, str]) -> Places:
    keys = {f"PRIVATE_KEY_FILE.{number}": path for number, path in enumerate(config.private_key_file, start=1)}
    keys |= {name: path for name in _KEYS if (path := _path(getattr(config, name.lower())))}
    return Places(
        ledger=config.ledger_path,
        logbook=config.logbook_path,
        relay=config.relay_folder,
        relay_key=config.relay_key_file,
        files={
            **_env_file(environ),
            **_named(environ),
            "relay-users": config.relay_users_path,
            "stamp.key": config.state_dir / "stamp.key",
        },
        keys={**keys, "relay.key": config.relay_key_file},
        maddy=maddy_folders(_path(config.maddy_config), environ),
    )


def _env_file(environ: Mapping[str, str]) -> dict[str, Path]:
    """drain.env: the one that is there, or where it is looked for."""
    usual = Path("/etc/drain/drain.env") if os.geteuid() == 0 else Path("~/.config/drain/drain.env").expanduser()
    path = envfile.find(environ) or usual
    return {"drain.env": path} if path.is_file() or not path.exists() else {}  # /dev/null means none


def _named(environ: Mapping[str, str]) -> dict[str, Path]:
    """The files that settings name; by the settings' names, also of secrets, and before the settings are loaded."""
    values: dict[str, str] = {}
    for file in _env_file(environ).values():
        values = envfile.read(file)[0] if file.exists() else {}
    values |= {name: text for name, text in environ.items() if text}
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
