"""From the places into the file, while everything runs.

The order matters, since each part is copied at a moment of its own:

The ledger comes before the mailboxes (Maddy's databases). A mail that is delivered in
between is then in the mailbox and not in the ledger, and a restore finds it under
``processed/``. The other way round the ledger would know as delivered what the
mailbox does not have.

The queue comes before its bodies. A body is written before its row and deleted after
its mail has come to its end, so each body of a mail that waits in the copy was there
when that was made. What is gone when its turn comes was sent meanwhile, and the copy
is told so. The other way round there would be mails without a body.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import drain
from drain.backup import archive, snapshot
from drain.backup.archive import Manifest, Writer
from drain.backup.places import MADDY, Places
from drain.errors import ConfigError, Unavailable
from drain.relay.queue import OPEN

_OPEN = ", ".join(f"'{state}'" for state in OPEN)
_UNFINISHED = ".drain-backup.unfinished"
_PRIVATE = b"PRIVATE KEY-----"


@dataclass(frozen=True)
class Written:
    """``lacking``: what should be in it and is not, in sentences; ``private``: there are private keys in it."""

    manifest: Manifest
    lacking: tuple[str, ...]
    private: bool


@archive.in_a_sentence()
def write(
    file: Path, places: Places, *, elsewhere: Collection[str], with_ledger: bool, with_keys: bool, host: str, now: float
) -> Written:
    """Writes a backup to *file* (0600), which must not be there yet.

    *elsewhere* says in sentences what else drain has, and that is in none of the places;
    *with_ledger*: there should be one.

    Raises:
        Unusable: there is something already, or it is more than a backup can hold.
        Unavailable: something cannot be copied or written just now.
        ConfigError: the ledger or the queue is damaged.
    """
    if file.exists():
        raise archive.there_already(file)
    with _scratch(file) as scratch, archive.writing(file, scratch) as writer:
        lacking = []
        if not _database(writer, "ledger.db", places.ledger, scratch) and with_ledger:
            lacking.append(f"There is no ledger at {places.ledger}; is that where drain keeps it (STATE_DIR)?")
        lacking += _queue(writer, places.relay, scratch)
        private = _files(writer, places, with_keys=with_keys)
        if with_keys:
            for label, path in places.keys.items():
                if _content(writer, path, f"keys/{label}") is not None:
                    private = True
                elif path != places.relay_key or (places.relay / "queue.db").exists():
                    lacking.append(f"The private key {path} cannot be had.")
        else:
            writer.missing += [f"{path}: private keys only with --with-keys." for path in places.keys.values()]
        writer.missing += elsewhere
        _maddy(writer, places, scratch)
        manifest = writer.finish(
            drain=drain.__version__,
            made_at=now,
            host=host,
            key_ids=tuple(_key_ids(places)),
            relay_key=id_of_relay_key(places.relay_key),
        )
    return Written(manifest, tuple(lacking), private)


def id_of_relay_key(path: Path) -> str:
    """What tells one key of the queue from another and says nothing of it; "" if there is none."""
    try:
        return hashlib.sha256(b"drain relay key id\0" + path.read_bytes().strip()).hexdigest()[:16]
    except OSError:
        return ""


@contextlib.contextmanager
def _scratch(file: Path) -> Iterator[Path]:
    """A folder beside *file* for what is not finished; what was left in it by a backup that was killed is deleted."""
    beside = file.absolute().parent
    descriptor = os.open(beside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"Another backup is being written to {beside}.", "Wait for its end.") from None
        except OSError:  # no flock here (Android's shared storage)
            pass
        folder = beside / _UNFINISHED
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _database(writer: Writer, name: str, path: Path, scratch: Path) -> bool:
    """Whether there is one."""
    if not path.exists():
        writer.missing.append(f"{path}: it is not there.")
        return False
    copy = scratch / name.replace("/", "-")
    snapshot.take(path, copy)
    writer.add(name, copy)
    copy.unlink()
    return True


def _queue(writer: Writer, folder: Path, scratch: Path) -> list[str]:
    """In sentences, which mails that wait have no text any more."""
    live, copy = folder / "queue.db", scratch / "queue.db"
    if not live.exists():
        writer.missing.append(f"{live}: it is not there.")
        return []
    snapshot.take(live, copy)
    with contextlib.closing(sqlite3.connect(snapshot.address(copy), uri=True)) as database:
        names = [name for (name,) in database.execute(f"SELECT DISTINCT mail FROM entry WHERE state IN ({_OPEN})")]
    gone = []
    for name in names:
        try:
            writer.add(f"mails/{name}", folder / "mails" / name)
        except FileNotFoundError:
            gone.append(name)
    lost = _as_now(copy, live, gone) if gone else ()
    writer.add("queue.db", copy)
    copy.unlink()
    words = [f"{folder / 'mails' / name}: the mail waits, and its text is gone." for name in lost]
    writer.missing += words
    return words


def _as_now(copy: Path, live: Path, mails: Collection[str]) -> list[str]:
    """Enters what became of these mails since the copy was made; those that still wait."""
    try:
        with contextlib.closing(sqlite3.connect(copy.absolute().as_uri(), uri=True, isolation_level=None)) as database:
            database.execute("ATTACH ? AS live", (snapshot.address(live),))
            database.execute("CREATE TEMP TABLE gone (id TEXT PRIMARY KEY)")
            database.executemany("INSERT INTO gone VALUES (?)", [(mail,) for mail in mails])
            database.execute("BEGIN")
            database.execute("DELETE FROM main.entry WHERE mail IN (SELECT id FROM gone)")
            database.execute("INSERT INTO main.entry SELECT * FROM live.entry WHERE mail IN (SELECT id FROM gone)")
            query = f"SELECT DISTINCT mail FROM main.entry WHERE state IN ({_OPEN}) AND mail IN (SELECT id FROM gone)"
            lost = [mail for (mail,) in database.execute(query)]
            database.execute("COMMIT")
            return lost
    except sqlite3.Error as error:
        raise Unavailable(f"{live} cannot be read just now: {error}.", "Try again.") from error


def _files(writer: Writer, places: Places, *, with_keys: bool) -> bool:
    """Adds the files that are no private keys; whether private keys came with them."""
    keys = {content for path in places.keys.values() if (content := _read(path))}
    private = False
    for label, path in places.files.items():
        there = _content(writer, path)
        if there is None:
            continue
        if there in keys or (_PRIVATE in there and not with_keys):
            writer.missing.append(f"{path} ({label}): it holds a private key.")
        else:
            writer.put(f"files/{label}", there)
            private = private or _PRIVATE in there
    return private


def _read(path: Path) -> bytes:
    """What is in a file; nothing if it cannot be had."""
    with contextlib.suppress(OSError), archive.regular(path) as file:
        return file.read()
    return b""


def _content(writer: Writer, path: Path, name: str = "") -> bytes | None:
    """What is in a file, which is added under that name if there is one; None if it cannot be had, which is noted."""
    try:
        with archive.regular(path) as file:
            content = file.read()
    except FileNotFoundError:
        writer.missing.append(f"{path}: it is not there.")
    except OSError as error:
        writer.missing.append(f"{path}: it cannot be read: {error}.")
    else:
        if name:
            writer.put(name, content)
        return content
    return None


def _maddy(writer: Writer, places: Places, scratch: Path) -> None:
    for name in MADDY:
        path = places.maddy_database(name)
        if path is None:
            writer.missing.append(f"Maddy's {name}: it was not found.")
            continue
        try:
            _database(writer, f"maddy/{name}", path, scratch)
        except (ConfigError, Unavailable) as error:
            writer.missing.append(f"Maddy's {name}: {error}")
            continue
        if name == MADDY[0] and (path.parent / "messages").is_dir():
            words = "the texts of its mails, which imapsql.db only lists. Copy that folder too."
            writer.missing.append(f"{path.parent / 'messages'}: {words}")


def _key_ids(places: Places) -> Iterator[str]:
    """Of those that open sealed mail."""
    from drain.keys import key_id, read_x25519  # noqa: PLC0415 (cryptography takes a while to load)

    for path in places.keys.values():
        with contextlib.suppress(ConfigError):  # of another kind, or not there
            yield key_id(read_x25519(path)).hex()
