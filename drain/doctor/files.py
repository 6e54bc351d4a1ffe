"""The files that drain reads and keeps: modes, owners, and whether those of SQLite are whole."""

import os
import pwd
import shlex
import sqlite3
import stat
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from drain import envfile
from drain.database import Schema
from drain.doctor.finding import Finding
from drain.doctor.say import Say
from drain.errors import ConfigError
from drain.settings import SETTINGS, Config

_FILES, _LEDGER = Say("files"), Say("ledger")
_QUICK_CHECK_SECONDS = 30.0
_BUSY_SECONDS = 5.0
_STEPS_BETWEEN_LOOKS = 100_000


def with_secrets(config: Config, environ: Mapping[str, str]) -> list[Path]:
    """The files with secrets that drain only reads: drain.env, keys, and what ``X_FILE`` names."""
    env_file = envfile.find(environ)
    values: Mapping[str, str] = {}
    if env_file is not None:
        try:
            values, _ = envfile.read(env_file)
        except ConfigError:
            pass  # the check of the configuration says so
    names = [config.mailbridge_private_key_path, config.verify_imap_logins_file]
    names += [config.dkim_key_file, config.relay_tls_key_file, str(config.relay_key_file)]
    names += [
        environ.get(f"{name}_FILE") or values.get(f"{name}_FILE", "")
        for name, setting in SETTINGS.items()
        if setting.secret
    ]
    paths = [*([env_file] if env_file else []), *config.private_key_file, *(Path(name) for name in names if name)]
    return list(dict.fromkeys(path.expanduser() for path in paths))


def kept(config: Config) -> list[Path]:
    """The files that drain itself writes."""
    databases = [config.ledger_path, config.logbook_path, config.relay_folder / "queue.db"]
    beside = [path.with_name(f"{path.name}{end}") for path in databases for end in ("-wal", "-shm")]
    others = [config.state_dir / "stamp.key", config.relay_users_path]
    return [*databases, *beside, *others]


def modes(read: Iterable[Path], written: Iterable[Path], folders: Iterable[Path], *, user: int) -> Iterator[Finding]:
    """Who may read and change what drain reads, writes and keeps it all in; what is not there is not looked at.

    *user* is the id of who runs drain. What others may read is a warning, what they may change a failure.
    """
    count, bad = 0, False
    groups = (
        (read, 0o600, os.R_OK),
        (written, 0o600, os.R_OK | os.W_OK),
        (folders, 0o700, os.R_OK | os.W_OK | os.X_OK),
    )
    for paths, mode, need in groups:
        for path in paths:
            try:
                about = path.stat()
            except FileNotFoundError:
                continue  # who needs it says so
            except OSError as error:
                yield _FILES.failure(
                    f"{path} cannot be looked at: {error.strerror}.", "Look at the modes of the folders above it."
                )
                bad = True
                continue
            if stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode):
                count += 1
                found = [*_mode(path, about, mode), *_owner(path, about, need, user)]
                bad = bad or bool(found)
                yield from found
    if not bad:
        yield _FILES.ok(f"{count} files and folders are for their owner only.")


def _mode(path: Path, about: os.stat_result, mode: int) -> Iterator[Finding]:
    open_to_others = envfile.open_to_others(about)
    # What is root's stays readable to the group that reads it.
    readable = mode | (mode & 0o500) >> 3 if about.st_uid == 0 and os.geteuid() != 0 else mode
    command = f"chmod {readable:o} {shlex.quote(str(path))}"
    if open_to_others & 0o022:
        yield _FILES.failure(f"{path} can be changed by other users.", command)
    elif open_to_others:
        yield _FILES.warning(f"{path} can be read by other users.", command)


def _owner(path: Path, about: os.stat_result, need: int, user: int) -> Iterator[Finding]:
    quoted = shlex.quote(str(path))
    if user == 0:
        if about.st_uid != 0 and need & os.X_OK:
            name = _name_of(about.st_uid)
            words = f"{path} belongs to {name}, and you are root: what you may, {name} may not."
            yield _FILES.warning(words, f"Ask as that user: sudo -u {name} drain doctor")
    elif about.st_uid not in (user, 0):
        yield _FILES.failure(f"{path} belongs to {_name_of(about.st_uid)}.", f"chown {_name_of(user)} {quoted}")
    elif not os.access(path, need):
        may_not = "written" if need & os.W_OK else "read"
        mend = f"chown {_name_of(user)} {quoted}"
        if about.st_uid == 0 and not need & os.W_OK:
            mend = f"chgrp {_name_of(user)} {quoted} && chmod 640 {quoted}"
        yield _FILES.failure(f"{path} cannot be {may_not} by {_name_of(user)}.", mend)


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def database(
    path: Path, schema: Schema, *, clock: Callable[[], float] = time.monotonic, seconds: float = _QUICK_CHECK_SECONDS
) -> Iterator[Finding]:
    """Whether a file of SQLite opens, is of a version that this drain knows, and is whole; it is not written to."""
    if not path.exists():
        yield _LEDGER.ok(f"{schema.name} {path} is not there yet; it is made when it is first needed.")
        return
    due = clock() + seconds
    address = f"file:{urllib.parse.quote(str(path.absolute()))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS)) as db:
            db.set_progress_handler(lambda: clock() > due, _STEPS_BETWEEN_LOOKS)
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > schema.version:
                words = f"{schema.name} {path} was written by a newer drain (schema {version})."
                yield _LEDGER.failure(words, schema.if_newer)
                return
            faults = [str(row[0]) for row in db.execute("PRAGMA quick_check(3)")]
    except sqlite3.OperationalError as error:
        words = f"{schema.name} {path} could not be looked through: {error}."
        yield _LEDGER.unknown(words, "Check its mode, the disk's free space, and who else has it open.")
    except sqlite3.DatabaseError as error:
        yield _LEDGER.failure(f"{schema.name} {path} is damaged: {error}.", schema.if_damaged)
    else:
        if faults != ["ok"]:
            words = f"{schema.name} {path} is damaged: {'; '.join(faults)}."
            yield _LEDGER.failure(words, schema.if_damaged)
        elif version < schema.version:
            words = (
                f"{schema.name} {path} is whole; its schema {version} is brought to {schema.version} when it is used."
            )
            yield _LEDGER.ok(words)
        else:
            yield _LEDGER.ok(f"{schema.name} {path} is whole (schema {version}).")
