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
import hashlib
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import drain
from drain.backup import archive, snapshot
from drain.backup.archive import Manifest, Writer
from drain.backup.places import MADDY, Places
from drain.errors import ConfigError, Unavailable
from drain.relay.queue import OPEN

_OPEN = ", ".join(f"'{state}'" for state in OPEN)
_LARGE = 512 * 1024 * 1024


def write(file: Path, places: Places, *, with_keys: bool, host: str, now: float) -> Manifest:
    """Writes a backup to *file* (0600), which must not be there yet.

    Raises:
        Unusable: there is something already.
        Unavailable: something cannot be copied or written just now.
        ConfigError: the ledger or the queue is damaged.
    """
    if file.exists():
        raise archive.there_already(file)
    with _scratch(file) as scratch, archive.writing(file, scratch) as writer:
        _database(writer, "ledger.db", places.ledger, scratch)
        _queue(writer, places.relay, scratch)
        _database(writer, "logbook.db", places.logbook, scratch)
        for label, path in places.files.items():
            _file(writer, f"files/{label}", path)
        if with_keys:
            for label, path in places.keys.items():
                _file(writer, f"keys/{label}", path)
        else:
            writer.missing += [
                f"{path} ({label}): private keys only with --with-keys." for label, path in places.keys.items()
            ]
        _maddy(writer, places, scratch)
        return writer.finish(
            drain=drain.__version__,
            made_at=now,
            host=host,
            key_ids=tuple(_key_ids(places)),
            relay_key=id_of_relay_key(places.relay_key),
        )


def id_of_relay_key(path: Path) -> str:
    """What tells one key of the queue from another and says nothing of it; "" if there is none."""
    try:
        return hashlib.sha256(b"drain relay key id\0" + path.read_bytes().strip()).hexdigest()[:16]
    except OSError:
        return ""


@contextlib.contextmanager
def _scratch(file: Path) -> Iterator[Path]:
    """A folder beside *file* for what is not finished."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.absolute().parent)
    except OSError as error:
        raise Unavailable(f"{file} cannot be written: {error}.", "May drain write there?") from error
    with folder as path:
        yield Path(path)


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


def _queue(writer: Writer, folder: Path, scratch: Path) -> None:
    live, copy = folder / "queue.db", scratch / "queue.db"
    if not live.exists():
        writer.missing.append(f"{live}: it is not there.")
        return
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
    writer.missing += [f"{folder / 'mails' / name}: the mail waits, and its text is gone." for name in lost]
    writer.add("queue.db", copy)
    copy.unlink()


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


def _file(writer: Writer, name: str, path: Path) -> None:
    try:
        writer.add(name, path)
    except FileNotFoundError:
        writer.missing.append(f"{path}: it is not there.")
    except PermissionError as error:
        writer.missing.append(f"{path}: it cannot be read: {error.strerror}.")
    except OSError as error:
        if path.is_file():
            raise
        writer.missing.append(f"{path}: {error}.")


def _maddy(writer: Writer, places: Places, scratch: Path) -> None:
    for name in MADDY:
        path = places.maddy_database(name)
        if path is None:
            writer.missing.append(f"Maddy's {name}: it was not found.")
            continue
        try:
            size = path.stat().st_size
            _database(writer, f"maddy/{name}", path, scratch)
        except (ConfigError, Unavailable) as error:
            writer.missing.append(f"Maddy's {name}: {error}")
            continue
        if size > _LARGE:
            writer.missing.append(f"{path} is in it, and has {size // 2**20} MiB: mind the room that backups take.")
        if (path.parent / "messages").is_dir():
            words = "the texts of its mails, which imapsql.db only lists. Copy that folder too."
            writer.missing.append(f"{path.parent / 'messages'}: {words}")


def _key_ids(places: Places) -> Iterator[str]:
    """Of those that open sealed mail."""
    from drain.keys import key_id, read_x25519  # noqa: PLC0415 (cryptography takes a while to load)

    for path in places.keys.values():
        with contextlib.suppress(ConfigError):  # of another kind, or not there
            yield key_id(read_x25519(path)).hex()
