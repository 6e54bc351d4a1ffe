"""The parts of a backup: the file, copies of what is in use, two ledgers as one, two queues as one."""

import contextlib
import datetime
import io
import json
import os
import sqlite3
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from drain.backup import ledgers, queues, snapshot, standin
from drain.backup.archive import Archive, writing
from drain.backup.places import labelled, maddy_folders
from drain.database import Database
from drain.errors import ConfigError, NoInput, Unavailable, Unusable
from drain.ledger import Ledger
from drain.listing import ListedObject
from drain.mail import Mail
from drain.relay.queue import Message, Parcel, Queue, State as Sending, new_id
from drain.relay.tables import QUEUE
from drain.state import State
from drain.tables import LEDGER
from drain.upstreams import Action, Fate

NOW = 1_800_000_000.0
MAIL = Mail(b"From: a@x.test\r\n\r\nhello\r\n", "alice@example.test", "a@x.test")
VERSION = ListedObject("pending/x", '"etag"', datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), 20)
REPLAYED = ListedObject("processed/x", '"etag"', datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), 20)

# -- the file --


def archive(folder: Path, **files: bytes) -> Path:
    """A backup with these files in it."""
    folder.mkdir(exist_ok=True)
    path = folder / "backup.tar"
    scratch = folder / "scratch"
    scratch.mkdir()
    with writing(path, scratch) as writer:
        for name, content in files.items():
            (folder / name).write_bytes(content)
            writer.add(f"files/{name}", folder / name)
        writer.finish(drain="1", made_at=NOW, host="pi", key_ids=(), relay_key="")
    return path


def rewritten(path: Path, change: Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]) -> Path:
    """The same with other members."""
    changed = path.with_name("changed.tar")
    with tarfile.open(path) as old, tarfile.open(changed, "w") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            for other, content in change(member, file.read()):
                other.size = len(content)
                new.addfile(other, io.BytesIO(content))
    return changed


def test_what_is_in_the_file_comes_out_as_it_was(tmp_path: Path) -> None:
    path = archive(tmp_path, one=b"\0\xff" * 70_000, two=b"")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with contextlib.closing(Archive(path)) as opened:
        assert opened.manifest.host == "pi"
        opened.extract("files/one", tmp_path / "out" / "one")
        assert opened.is_at("files/one", tmp_path / "out" / "one")
        assert not opened.is_at("files/one", tmp_path / "two")
        assert not opened.is_at("files/two", tmp_path / "none")
    assert (tmp_path / "out" / "one").read_bytes() == b"\0\xff" * 70_000
    assert stat.S_IMODE((tmp_path / "out" / "one").stat().st_mode) == 0o600


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "backup.tar").write_text("mine")
    with pytest.raises(Unusable, match="there already"):
        archive(tmp_path, one=b"1")
    assert (tmp_path / "backup.tar").read_text() == "mine"


def test_a_backup_that_fails_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    with pytest.raises(Unavailable), writing(tmp_path / "b.tar", tmp_path / "scratch"):
        raise OSError(28, "No space left on device")
    assert not (tmp_path / "b.tar").exists()


def test_what_is_no_file_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with writing(tmp_path / "b.tar", tmp_path / "scratch") as writer, pytest.raises(OSError, match="not a file"):
        writer.add("files/pipe", tmp_path / "pipe")


def test_a_writer_takes_nothing_that_a_reader_would_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unusable, match="cannot hold"):
        archive(tmp_path / "name", **{"a b": b"1"})
    monkeypatch.setattr("drain.backup.archive._MOST_MEMBERS", 2)
    Archive(archive(tmp_path / "enough", one=b"1")).close()
    with pytest.raises(Unusable, match="cannot hold"):
        archive(tmp_path / "many", one=b"1", two=b"2")
    monkeypatch.setattr("drain.backup.archive._LARGEST_MANIFEST", 10)
    with pytest.raises(Unusable, match="cannot hold a manifest"):
        archive(tmp_path / "large", one=b"1")
    assert not (tmp_path / "large" / "backup.tar").exists()


def test_a_backup_that_is_cut_short_while_it_is_read_ends_in_a_sentence(tmp_path: Path) -> None:
    path = archive(tmp_path, one=b"1" * 100_000)
    with contextlib.closing(Archive(path)) as opened:
        os.truncate(path, 5000)
        with pytest.raises(Unusable, match="was changed meanwhile"):
            opened.extract("files/one", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_with_holes_is_refused(tmp_path: Path) -> None:
    """A few bytes of it would be taken for as many as it says."""

    def sparse(member: tarfile.TarInfo, content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        if member.name == "manifest.json":
            return [(member, content)]
        member.pax_headers = {"GNU.sparse.size": "1", "GNU.sparse.map": "0,0", "GNU.sparse.numblocks": "1"}
        return [(member, b"")]

    changed = rewritten(archive(tmp_path, one=b"\0"), sparse)
    with pytest.raises(Unusable, match="does not belong"):
        Archive(changed)


def test_what_is_cut_short_or_changed_anywhere_is_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path, one=b"1" * 600, two=b"2" * 600).read_bytes()
    with contextlib.closing(Archive(tmp_path / "backup.tar")) as opened:
        assert len(opened.items) == 2
    with tarfile.open(tmp_path / "backup.tar") as members:
        end = max(member.offset_data + member.size for member in members)
    broken = tmp_path / "broken.tar"
    for cut in range(0, end, 100):
        broken.write_bytes(whole[:cut])
        with pytest.raises(Unusable):
            Archive(broken)
    for place in (600, 1100, 1700, 2200):  # in the one, in the header of the other, and in that
        changed = bytearray(whole)
        changed[place] ^= 1
        broken.write_bytes(changed)
        with pytest.raises(Unusable):
            Archive(broken)


def test_random_bytes_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(os.urandom(20_000))
    with pytest.raises(Unusable, match="is no backup"):
        Archive(tmp_path / "junk")
    with pytest.raises(NoInput):
        Archive(tmp_path / "nothing")
    with pytest.raises(Unusable):
        Archive(tmp_path)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up", "files/../../up", "files/a/b", "files/\x1b[2J", "files/.ssh", "", "FILES/x"]
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path, one=b"1")

    def renamed(member: tarfile.TarInfo, content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        if member.name == "manifest.json":
            return [(member, content.replace(b'"files/one"', json.dumps(name).encode()))]
        member.name = name
        return [(member, content)]

    with pytest.raises(Unusable, match="does not belong"):
        Archive(rewritten(path, renamed))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_what_is_no_file_in_it_is_refused(tmp_path: Path, kind: bytes) -> None:
    def linked(member: tarfile.TarInfo, content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        other = tarfile.TarInfo("files/other")
        other.type, other.linkname = kind, "/etc/passwd"
        return [(other, b""), (member, content)] if member.name == "manifest.json" else [(member, content)]

    with pytest.raises(Unusable, match="does not belong"):
        Archive(rewritten(archive(tmp_path, one=b"1"), linked))


@pytest.mark.parametrize(
    "change",
    [
        lambda member, content: [] if member.name == "manifest.json" else [(member, content)],
        lambda member, content: [] if member.name == "files/one" else [(member, content)],
        lambda member, content: [(member, content)] * (1 + (member.name == "files/one")),
        lambda member, content: [(member, content), (tarfile.TarInfo("files/more"), b"")],
        lambda member, content: [(member, b"[]" if member.name == "manifest.json" else content)],
        lambda member, content: [(member, content.replace(b'"drain-backup-1"', b'"drain-backup-2"'))],
        lambda member, content: [(member, content.replace(b'"sha256"', b'"sha"'))],
        lambda member, content: [(member, content.replace(b'"size": 1,', b'"size": 1e999,'))],
        lambda member, content: [(member, content.replace(b"1800000000.0", b"1e300"))],
        lambda member, content: [(member, content.replace(b'"host": "pi"', b'"host": 7'))],
    ],
    ids=["none", "one-less", "twice", "one-more", "list", "newer", "no-sum", "no-size", "no-date", "no-host"],
)
def test_what_does_not_fit_its_manifest_is_refused(
    tmp_path: Path, change: Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]
) -> None:
    with pytest.raises(Unusable):
        Archive(rewritten(archive(tmp_path, one=b"1"), change))


# -- copies of what is in use --


def test_a_copy_is_of_one_moment_though_others_write_all_the_time(tmp_path: Path) -> None:
    """Without a state to hold on to, each write would make the copy begin anew."""
    with contextlib.closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (n INTEGER, filler TEXT)")
        writer.execute("BEGIN")
        writer.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 4000) for n in range(1000)])
        writer.execute("COMMIT")
        original, steps = snapshot._PAGES_A_STEP, 0

        class Busy(sqlite3.Connection):
            def backup(self, target: sqlite3.Connection, **more: object) -> None:
                progress = more.pop("progress")

                def written_meanwhile(status: int, left: int, total: int) -> None:
                    nonlocal steps
                    steps += 1
                    writer.execute("INSERT INTO t VALUES (-1, '')")
                    assert callable(progress)
                    progress(status, left, total)

                super().backup(target, progress=written_meanwhile, **more)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                snapshot, "_opened", lambda where: sqlite3.connect(where, uri=True, isolation_level=None, factory=Busy)
            )
            snapshot.take(tmp_path / "db", tmp_path / "copy", longest_seconds=20)
    assert 2 <= steps < 20, f"{steps} steps of {original} pages"
    with contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy:
        assert copy.execute("SELECT count(*), min(n) FROM t").fetchone() == (1000, 0)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy"]


def test_a_database_without_a_write_ahead_log_is_copied_too(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as made:
        made.execute("CREATE TABLE t AS SELECT 7 AS n")
        made.commit()
    snapshot.take(tmp_path / "db", tmp_path / "copy")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy:
        assert copy.execute("SELECT n FROM t").fetchone() == (7,)


def test_a_copy_that_takes_too_long_ends_in_a_sentence(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db").close()
    with pytest.raises(Unavailable, match="cannot be copied just now"):
        snapshot.take(tmp_path / "ledger.db", tmp_path / "copy", longest_seconds=-1)


def test_a_damaged_database_is_not_taken_for_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    damaged(path)
    with pytest.raises(ConfigError, match="is damaged"):
        snapshot.take(path, tmp_path / "copy")
    assert not snapshot.is_sound(path)


def damaged(path: Path) -> None:
    """A database of which a part is gone."""
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, filler TEXT)")
        made.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 3000) for n in range(30)])
        made.commit()
    content = bytearray(path.read_bytes())
    content[8192:-4096] = os.urandom(len(content) - 12288)
    path.write_bytes(content)


# -- two ledgers and the bucket --

Deed = Callable[[Ledger, float], None]


def injecting(ledger: Ledger, now: float) -> None:
    ledger.injecting(VERSION, MAIL, "alice@example.test", now)


def deferred(ledger: Ledger, now: float) -> None:
    ledger.deferred(VERSION, MAIL, "mail-server", "450 later", now + 60, now)


def delivered(ledger: Ledger, now: float) -> None:
    injecting(ledger, now)
    ledger.delivered(MAIL.identity, "250 ok", now)


def settled(ledger: Ledger, now: float) -> None:
    delivered(ledger, now)
    ledger.settled(VERSION, MAIL.identity, now)


def setting_aside(ledger: Ledger, now: float) -> None:
    ledger.setting_aside(VERSION, MAIL, "spam", "x", now)


def quarantined(ledger: Ledger, now: float) -> None:
    setting_aside(ledger, now)
    ledger.quarantined(VERSION, MAIL.identity, now)


def released(ledger: Ledger, now: float) -> None:
    quarantined(ledger, now)
    ledger.release(VERSION, MAIL, MAIL.identity, now)


def replayed(ledger: Ledger, now: float) -> None:
    settled(ledger, now)
    ledger.replay(REPLAYED, MAIL, now)


def nothing(ledger: Ledger, now: float) -> None:
    del ledger, now


def merged(
    folder: Path,
    backup: Deed,
    current: Deed,
    *,
    processed: bool = False,
    aside: bool = False,
    current_at: float = 100.0,
) -> tuple[State | None, Ledger]:
    """The state that the mail has then, and the ledger."""
    for name, deed, at in (("backup.db", backup, NOW), ("ledger.db", current, NOW + current_at)):
        with contextlib.closing(Ledger(folder / name)) as ledger:
            deed(ledger, at)
    with contextlib.closing(Ledger(folder / "processed.db")) as ledger:
        if processed:
            ledger.adopt(MAIL.identity, "", 20, NOW, NOW)
    with standin.opened(folder / "ledger.db", LEDGER) as opened:
        there = {MAIL.identity} if aside else set[str]()
        ledgers.merge(opened, folder / "backup.db", folder / "processed.db", there, NOW + 1000)
    ledger = Ledger(folder / "ledger.db")
    row = ledger.find(MAIL.identity)
    return row.state if row else None, ledger


CASES: list[tuple[Deed, Deed, bool, bool, State | None]] = [
    # in the backup, in the ledger of now, under processed/, under quarantine/, and what comes of it
    (nothing, nothing, True, False, State.SETTLED),
    (nothing, nothing, False, True, None),
    (deferred, nothing, False, False, State.DEFERRED),
    (deferred, nothing, True, False, State.SETTLED),
    (deferred, nothing, False, True, State.QUARANTINED),
    (injecting, nothing, False, False, State.INJECTING),
    (injecting, nothing, True, False, State.SETTLED),
    (delivered, nothing, False, False, State.SETTLED),
    (delivered, nothing, True, False, State.SETTLED),
    (settled, nothing, False, False, State.SETTLED),
    (settled, nothing, False, True, State.SETTLED),
    (setting_aside, nothing, False, False, State.SETTING_ASIDE),
    (setting_aside, nothing, False, True, State.QUARANTINED),
    (setting_aside, nothing, True, False, State.SETTLED),
    (quarantined, nothing, False, True, State.QUARANTINED),
    (quarantined, nothing, True, False, State.SETTLED),
    (quarantined, nothing, False, False, State.QUARANTINED),
    (released, nothing, False, True, State.DEFERRED),
    (released, nothing, True, False, State.SETTLED),
    (replayed, nothing, True, False, State.SETTLED),
    (deferred, delivered, False, False, State.DELIVERED),
    (deferred, settled, True, False, State.SETTLED),
    (deferred, quarantined, False, True, State.QUARANTINED),
    (quarantined, released, False, True, State.DEFERRED),
    (settled, replayed, True, False, State.DEFERRED),
    (delivered, deferred, False, False, State.SETTLED),
    (nothing, delivered, False, False, State.DELIVERED),
    (delivered, delivered, False, False, State.DELIVERED),
    (settled, injecting, False, False, State.SETTLED),
    (nothing, deferred, True, False, State.SETTLED),
    (nothing, injecting, True, False, State.SETTLED),
    (nothing, deferred, False, False, State.DEFERRED),
    (nothing, replayed, True, False, State.DEFERRED),
    (nothing, quarantined, False, False, State.QUARANTINED),
]


@pytest.mark.parametrize(
    ("backup", "current", "processed", "aside", "becomes"),
    CASES,
    ids=[f"{b.__name__}-{c.__name__}{'-processed' * p}{'-aside' * a}" for b, c, p, a, _ in CASES],
)
def test_what_becomes_of_a_mail(
    tmp_path: Path, backup: Deed, current: Deed, *, processed: bool, aside: bool, becomes: State | None
) -> None:
    state, ledger = merged(tmp_path, backup, current, processed=processed, aside=aside)
    assert state == becomes
    linked = bool(ledger.history.objects(MAIL.identity))
    done = becomes in (None, State.SETTLED, State.QUARANTINED, State.DISCARDED)
    assert linked is not done
    ledger.close()


@pytest.mark.parametrize(
    ("backup", "current", "becomes"),
    [
        (delivered, deferred, State.SETTLED),
        (deferred, delivered, State.DELIVERED),
        (settled, deferred, State.SETTLED),
        (quarantined, deferred, State.QUARANTINED),
        (released, quarantined, State.DEFERRED),
    ],
)
def test_a_ledger_of_now_that_is_the_older_one_learns(
    tmp_path: Path, backup: Deed, current: Deed, becomes: State
) -> None:
    state, ledger = merged(tmp_path, backup, current, aside=True, current_at=-100.0)
    assert state == becomes
    ledger.close()


def test_a_restore_that_is_done_again_changes_nothing(tmp_path: Path) -> None:
    def rows() -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
            return [row for name in ("mail", "object", "event", "note") for row in db.execute(f"SELECT * FROM {name}")]

    merged(tmp_path, deferred, nothing, processed=True)[1].close()
    once = rows()
    merged(tmp_path, nothing, nothing, processed=True)[1].close()
    assert rows() == once


def test_the_history_of_a_mail_comes_with_it_and_says_what_the_restore_did(tmp_path: Path) -> None:
    _, ledger = merged(tmp_path, deferred, nothing, processed=True)
    assert [event.what for event in ledger.history.of(MAIL.identity)] == ["deferred", "settled"]
    assert "backup was restored" in ledger.history.of(MAIL.identity)[-1].words
    ledger.close()
    (tmp_path / "second").mkdir()
    _, ledger = merged(tmp_path / "second", deferred, settled, processed=True)
    assert [event.what for event in ledger.history.of(MAIL.identity)] == ["injecting", "delivered", "settled"]
    ledger.close()


def test_nobody_else_s_mail_of_the_same_bytes_is_touched(tmp_path: Path) -> None:
    twin = Mail(MAIL.raw, "bob@example.test", MAIL.sender)

    def both(ledger: Ledger, now: float) -> None:
        settled(ledger, now)
        ledger.deferred(VERSION, twin, "mail-server", "450", now + 60, now)

    _, ledger = merged(tmp_path, both, nothing, processed=True)
    row = ledger.find(twin.identity)
    assert row is not None
    assert row.state is State.DEFERRED
    ledger.close()


def test_what_is_remembered_beside_mails_is_not_set_back(tmp_path: Path) -> None:
    def spent(number: int) -> Deed:
        def deed(ledger: Ledger, now: float) -> None:
            del now
            ledger.notes.spend("ai", "2026-11", number, 1000)

        return deed

    _, ledger = merged(tmp_path, spent(5), spent(9))
    assert ledger.notes.spent("ai", "2026-11") == 9
    ledger.close()
    (tmp_path / "lost").mkdir()
    _, ledger = merged(tmp_path / "lost", spent(5), nothing)
    assert ledger.notes.spent("ai", "2026-11") == 5
    ledger.close()


def test_a_merge_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "_TAKE", (*ledgers._TAKE, "INSERT INTO nothing VALUES (1)"))
    with pytest.raises(Unavailable):
        merged(tmp_path, settled, nothing, processed=True)
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        assert ledger.counts() == {}


def test_a_damaged_ledger_is_kept_beside_and_another_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    damaged(path)
    was = path.read_bytes()
    with standin.opened(path, LEDGER) as opened:
        assert opened.anew
        # A pass that starts now must not find an empty ledger.
        assert path.read_bytes() == was
    with contextlib.closing(Ledger(path)) as ledger:
        assert ledger.counts() == {}
    assert (tmp_path / "ledger.db.before-restore").read_bytes() == was


def test_what_an_earlier_restore_kept_is_not_written_over(tmp_path: Path) -> None:
    path, was = tmp_path / "ledger.db", []
    for _ in range(2):
        damaged(path)
        was.append(path.read_bytes())
        with standin.opened(path, LEDGER):
            pass
    assert was[0] != was[1]
    kept = [(tmp_path / f"ledger.db.before-restore{ending}").read_bytes() for ending in ("", ".2")]
    assert kept == was
    path.write_bytes(was[0])
    with standin.opened(path, LEDGER):
        pass
    assert not (tmp_path / "ledger.db.before-restore.3").exists()


@pytest.mark.parametrize("kind", ["older", "page", "junk", "none"])
def test_what_can_be_read_of_a_damaged_ledger_is_taken_over(tmp_path: Path, kind: str) -> None:
    path, number = tmp_path / "old.db", 3000
    with contextlib.closing(Ledger(path)) as old, old.together():
        for n in range(number):
            old.adopt(f"{n:064x}", "", 20, NOW, NOW)
        injecting(old, NOW)
    with contextlib.closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'mail'").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute("PRAGMA journal_mode=DELETE")
        if kind == "older":  # a column that it has not
            db.execute("DROP INDEX event_of")
            db.execute("ALTER TABLE mail DROP COLUMN message_id")
            db.execute("INSERT INTO mail (identity, state, recipient, sender, size, first_seen_at, updated_at)"
                       " VALUES ('x', 'garbage', '', '', 1, 'a', 'b')")  # fmt: skip
            db.commit()
    content = bytearray(path.read_bytes())
    if kind == "page":  # a leaf in the middle
        middle = 4096 * (pages // 2)
        assert root < pages // 2
        content[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(os.urandom(20_000) if kind == "junk" else b"" if kind == "none" else content)
    with contextlib.closing(Database(tmp_path / "new.db", LEDGER)) as new:
        found = ledgers.salvage(new, path)
    with contextlib.closing(Ledger(tmp_path / "new.db")) as ledger:
        assert sum(ledger.counts().values()) == found
        if kind == "older":
            assert found == number + 1
            assert ledger.history.objects(MAIL.identity)
        elif kind == "page":
            assert number * 0.95 < found <= number
            assert ledger.find(f"{0:064x}")
            assert ledger.find(f"{number - 1:064x}")
        else:
            assert found == 0


def test_a_log_that_a_lost_ledger_left_is_not_taken_for_that_of_the_new_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    settled(ledger, NOW)
    log = (tmp_path / "ledger.db-wal").read_bytes()
    assert len(log) > 1000
    ledger.close()
    (tmp_path / "ledger.db").unlink()
    (tmp_path / "ledger.db-wal").write_bytes(log)
    with standin.opened(tmp_path / "ledger.db", LEDGER) as opened, opened.database.writing() as db:
        db.execute("INSERT INTO note VALUES ('a', 'b')")
    with contextlib.closing(Ledger(tmp_path / "ledger.db")) as ledger:
        assert ledger.counts() == {}
        assert ledger.notes._get("a") == "b"
    assert (tmp_path / "ledger.db.before-restore-wal").read_bytes() == log


def test_what_fails_in_between_leaves_what_was_there(tmp_path: Path) -> None:
    damaged(tmp_path / "ledger.db")
    was = (tmp_path / "ledger.db").read_bytes()
    with pytest.raises(RuntimeError), standin.opened(tmp_path / "ledger.db", LEDGER):
        raise RuntimeError
    assert (tmp_path / "ledger.db").read_bytes() == was


def test_a_ledger_of_a_newer_drain_is_not_replaced(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(ConfigError, match="newer"), standin.opened(tmp_path / "ledger.db", LEDGER):
        pass
    assert sorted(path.name for path in tmp_path.iterdir() if "restore" in path.name) == []


# -- two queues --

RAW = b"From: a@example.org\r\n\r\nhello\r\n"


def queue(folder: Path) -> Queue:
    return Queue(folder, folder.parent / "relay.key")


def put(opened: Queue) -> str:
    made = Message(new_id(), False, "phone", "a@example.org", "a@example.org", "<1@x>", len(RAW), NOW)
    opened.accept(Parcel(made, [("b@x.test",), ("c@x.test",)], RAW), NOW)
    return made.id


def states(opened: Queue, mail: str) -> set[Sending]:
    return {entry.state for entry in opened.find(mail)}


@pytest.mark.parametrize("readable", [True, False])
def test_outgoing_mail_that_only_the_backup_knows_waits_for_a_person(tmp_path: Path, *, readable: bool) -> None:
    with contextlib.closing(queue(tmp_path / "old")) as old:
        sent, waiting, sending = put(old), put(old), put(old)
        for _ in range(6):
            entry = old.lease(NOW, inbound=False)
            assert entry is not None
            if entry.mail.id == sent:
                ok = {address: Fate(Action.RELAYED, "2.0.0", "ok") for address in entry.recipients}
                old.settle(entry, ok, NOW, None, NOW)
            elif entry.mail.id == waiting:
                old.give_back(entry, NOW + 60, "later", NOW)
    with contextlib.closing(queue(tmp_path / "new")) as new:
        own = put(new)
    with standin.opened(tmp_path / "new" / "queue.db", QUEUE) as opened:
        found = queues.merge(opened, tmp_path / "old" / "queue.db", readable=readable, now=NOW)
    with contextlib.closing(queue(tmp_path / "new")) as new:
        assert states(new, own) == {Sending.WAITING}
        assert states(new, sent) == {Sending.RELAYED}
        held = {Sending.HELD} if readable else set()
        assert states(new, waiting) == states(new, sending) == held
        assert new.recover(NOW) == []
    assert (found.held, found.left) == ((2, 0) if readable else (0, 2))
    assert set(found.wanted) == ({waiting, sending} if readable else set())


def test_where_the_queue_of_now_has_a_mail_that_counts(tmp_path: Path) -> None:
    with contextlib.closing(queue(tmp_path / "new")) as new:
        sent, waiting = put(new), put(new)
    snapshot.take(tmp_path / "new" / "queue.db", tmp_path / "backup.db")
    with contextlib.closing(queue(tmp_path / "new")) as new:
        for _ in range(4):  # two entries a mail
            entry = new.lease(NOW, inbound=False)
            assert entry is not None
            if entry.mail.id == sent:
                ok = {address: Fate(Action.RELAYED, "2.0.0", "ok") for address in entry.recipients}
                new.settle(entry, ok, NOW, None, NOW)
            else:
                new.give_back(entry, NOW + 60, "later", NOW)
    with standin.opened(tmp_path / "new" / "queue.db", QUEUE) as opened:
        found = queues.merge(opened, tmp_path / "backup.db", readable=True, now=NOW)
    assert found == queues.Merged(held=0, left=0, wanted=(waiting,))
    with contextlib.closing(queue(tmp_path / "new")) as new:
        assert states(new, sent) == {Sending.RELAYED}
        assert states(new, waiting) == {Sending.WAITING}


# -- where everything is --


def test_keys_are_called_by_their_files_names_in_whatever_order(tmp_path: Path) -> None:
    one, other, odd = tmp_path / "a" / "k.pem", tmp_path / "b" / "k.pem", tmp_path / ".my key"
    relay, twin = tmp_path / "relay.key", tmp_path / "a" / "relay.key"
    assert labelled([one], relay) == {"k.pem": one, "relay.key": relay}
    labels = labelled([one, other, odd, twin, one], relay)
    assert labels == labelled([twin, odd, other, one], relay)
    assert (labels["relay.key"], labels["_my_key"]) == (relay, odd)
    assert set(labels.values()) == {one, other, odd, relay, twin}
    assert labelled([one], tmp_path / "queue") == {"k.pem": one, "relay.key": tmp_path / "queue"}


@pytest.mark.parametrize("layout", ["containers/debian/rootfs", "installed-rootfs/debian"])
def test_maddy_is_looked_for_where_its_configuration_says_and_in_a_proot(tmp_path: Path, layout: str) -> None:
    config = tmp_path / "maddy.conf"
    config.write_text('hostname x\n# state_dir /comment\nstate_dir "/srv/my maddy"\n')
    root = tmp_path / "usr" / "var/lib/proot-distro" / layout
    root.mkdir(parents=True)
    folders = maddy_folders(config, {"PREFIX": str(tmp_path / "usr")})
    assert folders[:3] == (Path("/srv/my maddy"), root / "srv/my maddy", root / "var/lib/maddy")
    assert folders[-1] == Path("/var/lib/maddy")
    assert maddy_folders(tmp_path / "none", {}) == (Path("/var/lib/maddy"),)
