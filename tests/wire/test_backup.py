"""`drain backup` and `drain restore` as a person calls them, around a drain and a relay that go on."""

import contextlib
import datetime
import io
import json
import os
import shutil
import sqlite3
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drain import cli
from drain.backup import archive, restoring
from drain.demo.s3 import Fault, StoredObject
from drain.ledger import Ledger
from drain.lock import held
from drain.mail import Mail
from drain.relay.queue import Message, Parcel, Queue, State as Sending, new_id
from drain.relay.users import Users
from drain.state import State
from drain.upstreams import Action, Fate
from tests.sealing import KEY, key_files, seal
from tests.support import LONG_AGO, House, on_verb

ALICE = "alice@example.test"
BOB = "bob@example.test"
NOW = 1_800_000_000.0

Drain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings(house: House, tmp_path: Path) -> dict[str, str]:
    """Beside the usual ones."""
    del house
    return {"RELAY_KEY_FILE": str(tmp_path / "config" / "relay.key"), "MAIL_ALIASES_FILE": str(tmp_path / "aliases")}


@pytest.fixture
def drain(house: House, capsys: pytest.CaptureFixture[str], settings: dict[str, str]) -> Drain:
    def call(*words: str, **more: str) -> tuple[int, str, str]:
        (house.state_dir.parent / "aliases").touch()
        code = cli.main(list(words), house.environ(**settings, **more))
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.tar"


def mail(number: int) -> bytes:
    return b"From: Eve <eve@x.test>\r\nSubject: %d\r\n\r\nhello %d\r\n" % (number, number)


def identity(number: int, to: str = ALICE) -> str:
    return Mail(mail(number), to, "").identity


def filed(house: House) -> list[int]:
    """Which mails came, by number."""
    return sorted(int(one.content.rpartition(b" ")[2]) for one in house.smtp.filed)


def begin(house: House) -> None:
    """A ledger, as after the first mail."""
    Ledger(house.state_dir / "ledger.db").close()


def lose(house: House) -> None:
    """The disk is gone, with the folder of the state."""
    shutil.rmtree(house.state_dir)


def state_of(house: House, which: str) -> State | None:
    with contextlib.closing(Ledger(house.state_dir / "ledger.db")) as ledger:
        row = ledger.find(which)
    return row.state if row else None


def finish(house: House, drain: Drain) -> None:
    """Passes, with everything due, until there is nothing left."""
    for _ in range(3):
        with contextlib.closing(sqlite3.connect(house.state_dir / "ledger.db")) as db:
            db.execute("UPDATE mail SET next_attempt_at = NULL")
            db.commit()
        assert drain("once")[0] == 0
    assert house.keys("pending/") == []


@contextlib.contextmanager
def queue(house: House) -> Iterator[Queue]:
    opened = Queue(house.state_dir / "relay", house.state_dir.parent / "config" / "relay.key")
    try:
        yield opened
    finally:
        opened.close()


def submit(opened: Queue, text: bytes = b"From: a@x.test\r\n\r\nout\r\n") -> str:
    made = Message(new_id(), False, "phone", "a@x.test", "a@x.test", "<1@x>", len(text), NOW)
    opened.accept(Parcel(made, [("b@elsewhere.test",)], text), NOW)
    return made.id


def send_one(opened: Queue) -> None:
    entry = opened.lease(NOW, inbound=False)
    assert entry is not None
    ok = {address: Fate(Action.RELAYED, "2.0.0", "ok") for address in entry.recipients}
    opened.settle(entry, ok, NOW, None, NOW)


def names(file: Path) -> set[str]:
    with tarfile.open(file) as tar:
        return set(tar.getnames())


# -- what is in it --


def test_a_backup_holds_what_drain_knows_and_no_private_key(
    house: House, drain: Drain, file: Path, tmp_path: Path
) -> None:
    house.put("1", mail(1))
    drain("once")
    with queue(house) as opened:
        waiting, sent = submit(opened), submit(opened)
        for _ in range(2):
            entry = opened.lease(NOW, inbound=False)
            assert entry is not None
            if entry.mail.id == sent:
                ok = {address: Fate(Action.RELAYED, "2.0.0", "ok") for address in entry.recipients}
                opened.settle(entry, ok, NOW, None, NOW)
            else:
                opened.give_back(entry, NOW + 60, "later", NOW)
    Users(house.state_dir / "relay-users").add("phone", b"correct horse", ())
    env = tmp_path / "drain.env"
    env.write_text(f"AI_API_KEY_FILE={tmp_path / 'ai'}\nVERIFY_IMAP_LOGINS_FILE={tmp_path / 'logins'}\n")
    env.chmod(0o600)
    for name in ("ai", "logins"):
        (tmp_path / name).write_text("secret")
        (tmp_path / name).chmod(0o600)
    (key,) = key_files(tmp_path, KEY)
    named = {"PRIVATE_KEY_FILE": str(key), "DRAIN_ENV_FILE": str(env)}
    code, output, _ = drain("backup", str(file), **named)
    assert code == 0
    there = {
        "manifest.json",
        "ledger.db",
        "queue.db",
        f"mails/{waiting}",
        "files/drain.env",
        "files/AI_API_KEY_FILE",
        "files/VERIFY_IMAP_LOGINS_FILE",
        "files/MAIL_ALIASES_FILE",
        "files/relay-users",
        "files/stamp.key",
    }
    assert names(file) == there
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "It holds passwords" in output
    assert "holds no private key" in output
    with contextlib.closing(archive.Archive(file)) as opened_file:
        manifest = opened_file.manifest
    from drain.keys import key_id

    assert manifest.key_ids == (key_id(KEY).hex(),)
    secret = key.read_bytes().splitlines()[1]
    assert secret not in file.read_bytes()
    assert (tmp_path / "config" / "relay.key").read_bytes().strip() not in file.read_bytes()
    assert drain("backup", "--with-keys", str(tmp_path / "keys.tar"), **named)[0] == 0
    assert names(tmp_path / "keys.tar") >= there | {f"keys/{key.name}", "keys/relay.key"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_backup_takes_no_file_s_place(drain: Drain, file: Path) -> None:
    file.write_text("mine")
    code, _, errors = drain("backup", str(file))
    assert code == 65
    assert "there already" in errors
    assert file.read_text() == "mine"


def test_a_backup_without_a_ledger_is_written_and_is_66(drain: Drain, file: Path, house: House) -> None:
    code, output, errors = drain("backup", str(file))
    assert code == 66
    assert f"Not in it: {house.state_dir / 'ledger.db'}: it is not there." in output
    assert f"There is no ledger at {house.state_dir / 'ledger.db'}" in errors
    with contextlib.closing(archive.Archive(file)) as opened:
        assert "files/MAIL_ALIASES_FILE" in opened.items


def test_where_drain_only_relays_there_need_be_no_ledger(drain: Drain, file: Path) -> None:
    code, _, errors = drain("backup", str(file), R2_BUCKET="")
    assert (code, errors) == (0, "")


def test_a_backup_where_nobody_may_write_is_75(drain: Drain, tmp_path: Path) -> None:
    code, _, errors = drain("backup", str(tmp_path / "nowhere" / "b.tar"))
    assert code == 75
    assert "cannot be read or written" in errors


def test_mail_that_is_sent_while_the_backup_is_made_is_not_in_it_as_waiting(
    house: House, drain: Drain, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the copy of the queue and that of its bodies."""
    from drain.backup import snapshot

    begin(house)
    with queue(house) as opened:
        first, second = submit(opened), submit(opened)
        take = snapshot.take

        def slow(source: Path, target: Path) -> None:
            take(source, target)
            if source.name == "queue.db":
                send_one(opened)

        monkeypatch.setattr(snapshot, "take", slow)
        assert drain("backup", str(file))[0] == 0
        (sent,) = {entry.mail.id for entry in opened.entries(Sending.RELAYED)}
    assert sent in (first, second)
    other = ({first, second} - {sent}).pop()
    assert {name for name in names(file) if name.startswith("mails/")} == {f"mails/{other}"}
    lose(house)
    drain("restore", "--yes", str(file))
    with queue(house) as opened:
        assert {entry.mail.id: entry.state for entry in opened.entries(*Sending)} == {
            sent: Sending.RELAYED,
            other: Sending.HELD,
        }


def test_mail_that_is_taken_while_the_backup_is_made_is_in_it_with_its_text(
    house: House, drain: Drain, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drain.backup import snapshot

    begin(house)
    with queue(house) as opened:
        taken = [submit(opened)]
        take = snapshot.take

        def busy(source: Path, target: Path) -> None:
            taken.append(submit(opened))
            take(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(snapshot, "take", busy)
            assert drain("backup", str(file))[0] == 0
        assert len(taken) > 1
    lose(house)
    assert drain("restore", "--yes", str(file))[0] == 0
    with queue(house) as opened:
        entries = opened.entries(Sending.HELD)
        assert {entry.mail.id for entry in entries} >= set(taken[:2])
        assert [bool(opened.body(entry)) for entry in entries] == [True] * len(entries)


def test_maddy_s_databases_are_taken_where_they_are_and_never_written_over(
    house: House, drain: Drain, file: Path, tmp_path: Path
) -> None:
    house.put("1", mail(1))
    drain("once")
    maddy = tmp_path / "maddy"
    (maddy / "messages").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(maddy / "imapsql.db")) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("CREATE TABLE mboxes AS SELECT 'then' AS name")
        live.commit()
        (tmp_path / "maddy.conf").write_text(f"state_dir {maddy}\n")
        code, output, _ = drain("backup", str(file), MADDY_CONFIG=str(tmp_path / "maddy.conf"))
        assert code == 0
        assert "Maddy's credentials.db: it was not found" in output
        with tarfile.open(file) as tar:  # what is delivered in between must be in the mailbox, not in the ledger alone
            order = tar.getnames()
        assert order.index("ledger.db") < order.index("maddy/imapsql.db")
        assert output.count(f"{maddy / 'messages'}: the texts of its mails") == 1
        live.execute("UPDATE mboxes SET name = 'now'")
        live.commit()
        code, output, errors = drain("restore", "--yes", str(file), MADDY_CONFIG=str(tmp_path / "maddy.conf"))
        assert (code, errors) == (0, "")
        assert "Maddy's own was not touched" in output
        assert "If you do, what was delivered since" in output
        assert live.execute("SELECT name FROM mboxes").fetchone() == ("now",)
    with contextlib.closing(sqlite3.connect(maddy / "imapsql.db.restored")) as beside:
        assert beside.execute("SELECT name FROM mboxes").fetchone() == ("then",)


# -- the ledger, back again --


def test_what_was_delivered_after_the_backup_does_not_come_again(house: House, drain: Drain, file: Path) -> None:
    house.put("1", mail(1))
    drain("once")
    assert drain("backup", str(file))[0] == 0
    house.put("2", mail(2))
    drain("once")
    lose(house)
    code, output, _ = drain("restore", "--yes", str(file))
    assert code == 0
    assert "1 are from the backup, and 1 were found in processed/ only" in output
    assert "If the mailboxes were lost too: what was delivered since" in output
    today = datetime.datetime.now().astimezone().date()
    assert f"`drain replay --day {today}`" in output
    assert "mailboxes" not in drain("restore", "--yes", str(file))[1]
    for number in (1, 2):  # and the same mails once more, as a retry of Cloudflare's has them
        house.put(str(number), mail(number))
    finish(house, drain)
    assert filed(house) == [1, 2]


def test_what_was_deferred_in_the_backup_and_delivered_since_does_not_come_again(
    house: House, drain: Drain, file: Path
) -> None:
    house.put("1", mail(1))
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    assert drain("once")[0] == 75
    assert drain("backup", str(file))[0] == 0
    finish(house, drain)
    assert filed(house) == [1]
    lose(house)
    assert drain("restore", "--yes", str(file))[0] == 0
    house.put("1", mail(1))
    finish(house, drain)
    assert filed(house) == [1]


def test_what_was_deferred_in_the_backup_and_still_waits_comes(house: House, drain: Drain, file: Path) -> None:
    house.put("1", mail(1))
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    drain("once")
    drain("backup", str(file))
    lose(house)
    assert drain("restore", "--yes", str(file))[0] == 0
    finish(house, drain)
    assert filed(house) == [1]


def test_what_the_ledger_of_now_knows_as_delivered_is_only_moved(house: House, drain: Drain, file: Path) -> None:
    house.put("1", mail(1))
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    drain("once")
    drain("backup", str(file))
    with contextlib.closing(sqlite3.connect(house.state_dir / "ledger.db")) as db:
        db.execute("UPDATE mail SET next_attempt_at = NULL")
        db.commit()
    house.s3.fault = lambda operation, key: Fault(status=503) if operation == "CopyObject" else None
    drain("once")
    house.s3.fault = None
    assert state_of(house, identity(1)) is State.DELIVERED
    assert drain("restore", "--yes", str(file))[0] == 0
    assert state_of(house, identity(1)) is State.DELIVERED
    finish(house, drain)
    assert filed(house) == [1]
    assert len(house.keys("processed/")) == 1


@pytest.mark.parametrize("lost", [True, False])
def test_what_was_in_quarantine_and_released_since_does_not_come_again(
    house: House, drain: Drain, file: Path, *, lost: bool
) -> None:
    house.put("1", mail(1))
    house.put("2", mail(2))
    house.smtp.refuse = b"hello"
    drain("once")
    house.smtp.refuse = None
    drain("backup", str(file))
    assert drain("quarantine", "release", identity(1)[:12])[0] == 0
    if lost:
        lose(house)
    assert drain("restore", "--yes", str(file))[0] == 0
    assert state_of(house, identity(1)) is State.SETTLED
    assert state_of(house, identity(2)) is State.QUARANTINED
    house.put("1", mail(1))
    finish(house, drain)
    assert filed(house) == [1]
    assert drain("quarantine", "release", identity(2)[:12])[0] == 0
    assert filed(house) == [1, 2]


def test_what_is_released_and_not_delivered_yet_is_delivered_after_the_restore(
    house: House, drain: Drain, file: Path
) -> None:
    house.put("1", mail(1))
    house.smtp.refuse = b"hello"
    drain("once")
    house.smtp.refuse = None
    drain("quarantine", "release", identity(1)[:12], INJECT_PORT="9")
    drain("backup", str(file))
    lose(house)
    drain("restore", "--yes", str(file))
    finish(house, drain)
    assert filed(house) == [1]
    assert house.keys("quarantine/") == []


def test_new_mail_under_a_name_that_the_backup_knows_comes(house: House, drain: Drain, file: Path) -> None:
    house.put("x", mail(1))
    house.put("y", mail(2))
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later", "450 4.2.1 later")
    drain("once")
    drain("backup", str(file))
    finish(house, drain)
    lose(house)
    house.put("x", mail(3))
    # And the very bytes that lay there, for somebody else.
    house.s3.objects["pending/y"] = StoredObject(mail(2), {"to": BOB, "from": "a@x.test"})
    drain("restore", "--yes", str(file))
    finish(house, drain)
    assert filed(house) == [1, 2, 2, 3]
    assert {one.mailbox for one in house.smtp.filed} == {ALICE, BOB}


def test_a_twin_for_somebody_else_of_what_was_delivered_comes(house: House, drain: Drain, file: Path) -> None:
    house.put("1", mail(1))
    drain("once")
    drain("backup", str(file))
    house.put("1", mail(1), to=BOB)
    lose(house)
    drain("restore", "--yes", str(file))
    finish(house, drain)
    assert [one.mailbox for one in house.smtp.filed] == [ALICE, BOB]


def test_mail_that_comes_during_the_restore_comes_once(house: House, drain: Drain, file: Path) -> None:
    house.put("1", mail(1))
    drain("once")
    drain("backup", str(file))
    lose(house)

    def arrives(operation: str, key: str) -> None:
        del operation, key
        house.put("2", mail(2))

    house.s3.fault = arrives
    assert drain("restore", "--yes", str(file))[0] == 0
    house.s3.fault = None
    assert house.keys("pending/") == ["pending/2"]
    finish(house, drain)
    assert filed(house) == [1, 2]


def test_no_pass_runs_meanwhile(house: House, drain: Drain, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from drain.commands import backup

    drain("once")
    house.put("1", mail(1))
    drain("once")
    drain("backup", str(file))
    monkeypatch.setattr(backup, "LOCK_WAIT_SECONDS", 0.1)
    lock = house.state_dir / "drain.lock"
    with held(lock, house.events.log):
        code, _, errors = drain("restore", "--yes", str(file))
    assert code == 75
    assert "Another drain is at work" in errors

    from drain.errors import LockHeld

    seen: list[bool] = []

    def asked(operation: str, key: str) -> None:
        del operation, key
        with contextlib.suppress(LockHeld), held(lock, house.events.log):
            seen.append(True)

    house.s3.fault = asked
    assert drain("restore", "--yes", str(file))[0] == 0
    assert seen == []


@pytest.mark.parametrize("there", ["lost", "damaged", "sound"])
def test_with_r2_away_nothing_is_changed(house: House, drain: Drain, file: Path, there: str) -> None:
    house.put("1", mail(1))
    drain("once")
    with queue(house) as opened:
        submit(opened)
    drain("backup", str(file))
    ledger = house.state_dir / "ledger.db"
    if there == "lost":
        lose(house)
    elif there == "damaged":
        ledger.write_bytes(b"junk" * 4000)
    before = {path: path.read_bytes() for path in house.state_dir.rglob("*") if path.is_file()}
    house.s3.fault = lambda operation, key: Fault(status=503)
    code, _, errors = drain("restore", "--yes", str(file))
    assert code == 75
    assert "drain: " in errors
    # The secret is put back before, where there is none.
    others = {house.state_dir / name for name in ("drain.lock", "relay/relay.lock", "stamp.key")}
    after = {path: path.read_bytes() for path in house.state_dir.rglob("*") if path.is_file()}
    unchanged = {path: content for path, content in after.items() if path not in others}
    assert unchanged == {path: content for path, content in before.items() if path not in others}


def test_a_damaged_ledger_is_replaced_and_drain_goes_on(house: House, drain: Drain, file: Path) -> None:
    house.put("1", mail(1))
    drain("once")
    drain("backup", str(file))
    house.put("2", mail(2))
    drain("once")
    (house.state_dir / "ledger.db").write_bytes(b"SQLite format 3\0" + os.urandom(20_000))
    house.put("2", mail(2))
    assert drain("once")[0] == 78
    assert drain("restore", "--yes", str(file))[0] == 0
    finish(house, drain)
    assert filed(house) == [1, 2]


def damage_an_index(house: House) -> None:
    """So that the ledger is damaged, and its mails can still be read."""
    path = house.state_dir / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name='event_of'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    content[(root - 1) * size : root * size] = b"\xff" * size
    path.write_bytes(content)


def cut_off_before_the_move(house: House, drain: Drain) -> None:
    house.s3.fault = lambda operation, key: Fault(status=503) if operation == "CopyObject" else None
    drain("once")
    house.s3.fault = None


def test_what_a_damaged_ledger_still_knows_is_not_forgotten(house: House, drain: Drain, file: Path) -> None:
    house.put("0", mail(0))
    drain("once")
    drain("backup", str(file))
    house.put("1", mail(1))
    cut_off_before_the_move(house, drain)
    damage_an_index(house)
    code, output, _ = drain("restore", "--yes", str(file))
    assert code == 0
    assert "was damaged: 2 mails could still be read of it" in output
    assert state_of(house, identity(1)) is State.DELIVERED
    finish(house, drain)
    assert filed(house) == [0, 1]


def test_a_backup_without_a_ledger_still_learns_from_what_was_processed(house: House, drain: Drain, file: Path) -> None:
    drain("backup", str(file))
    house.put("1", mail(1))
    drain("once")
    lose(house)
    code, output, _ = drain("restore", "--yes", str(file))
    assert code == 0
    assert "1 were found in processed/ only" in output
    house.put("1", mail(1))
    finish(house, drain)
    assert filed(house) == [1]


def test_what_another_machine_releases_meanwhile_is_seen(house: House, drain: Drain, file: Path) -> None:
    house.put("1", mail(1))
    house.smtp.refuse = b"hello"
    drain("once")
    house.smtp.refuse = None
    drain("backup", str(file))
    lose(house)
    lists: list[str] = []

    def moves(operation: str, key: str) -> None:
        if "List" in operation:
            lists.append(key)
            if len(lists) == 2:
                (name,) = house.keys("quarantine/")
                house.s3.objects[f"processed/{name.removeprefix('quarantine/')}"] = house.s3.objects.pop(name)

    house.s3.fault = moves
    drain("restore", "--yes", str(file))
    house.s3.fault = None
    assert len(lists) == 2
    assert state_of(house, identity(1)) is State.SETTLED


def test_what_is_not_found_in_quarantine_can_still_be_released(house: House, drain: Drain, file: Path) -> None:
    """A prefix that is not the one of then makes all of it look gone."""
    house.put("1", mail(1))
    house.smtp.refuse = b"hello"
    drain("once")
    house.smtp.refuse = None
    drain("backup", str(file))
    lose(house)
    assert drain("restore", "--yes", str(file), QUARANTINE_PREFIX="q/")[0] == 0
    assert drain("restore", "--yes", str(file))[0] == 0
    assert state_of(house, identity(1)) is State.QUARANTINED
    assert drain("quarantine", "release", identity(1)[:12])[0] == 0
    assert filed(house) == [1]


@pytest.mark.parametrize("there", [True, False])
def test_what_was_delivered_and_not_moved_then_is_not_missed(
    house: House, drain: Drain, file: Path, *, there: bool
) -> None:
    house.put("1", mail(1))
    cut_off_before_the_move(house, drain)
    assert state_of(house, identity(1)) is State.DELIVERED
    drain("backup", str(file))
    lose(house)
    if not there:  # moved since, and removed by a lifecycle rule
        del house.s3.objects["pending/1"]
    assert drain("restore", "--yes", str(file))[0] == 0
    code, _, errors = drain("once")
    assert code == 0
    assert "missing" not in errors
    assert "gone" not in errors
    assert filed(house) == [1]
    assert len(house.keys("processed/")) == there
    assert house.keys("pending/") == []


# -- the relay, back again --


def bodies_of(house: House) -> dict[str, bytes]:
    with queue(house) as opened:
        assert opened.recover(NOW) == []
        return {entry.mail.id: opened.body(entry) for entry in opened.entries(Sending.HELD, Sending.WAITING)}


@pytest.mark.parametrize("keys", [True, False])
def test_mail_of_another_key_is_put_under_the_one_of_now(
    house: House, drain: Drain, file: Path, tmp_path: Path, *, keys: bool
) -> None:
    begin(house)
    key = tmp_path / "config" / "relay.key"
    with queue(house) as opened:
        then = submit(opened, b"From: a@x.test\r\n\r\nthen\r\n")
    drain("backup", *["--with-keys"] * keys, str(file))
    old = key.read_bytes()
    lose(house)
    key.unlink()
    with queue(house) as opened:
        now = submit(opened, b"From: a@x.test\r\n\r\nnow\r\n")
    new = key.read_bytes()
    code, output, _ = drain("restore", "--yes", str(file))
    assert code == 0
    if not keys:
        assert "1 outgoing mails stay in the backup" in output
        beside = key.with_name("relay.key.restored")
        assert f"Put it at {beside}, beside the one of now, which stays" in output
        assert set(bodies_of(house)) == {now}
        beside.write_bytes(old)
        output = drain("restore", "--yes", str(file))[1]
    assert "1 outgoing mails are held" in output
    assert key.read_bytes() == new
    texts = {then: b"From: a@x.test\r\n\r\nthen\r\n", now: b"From: a@x.test\r\n\r\nnow\r\n"}
    assert bodies_of(house) == texts
    assert list(house.state_dir.rglob("*unfinished*")) == []


def test_outgoing_mail_of_the_backup_waits_for_a_person_and_can_be_sent(house: House, drain: Drain, file: Path) -> None:
    with queue(house) as opened:
        waiting = submit(opened, b"From: a@x.test\r\n\r\nthe text\r\n")
    drain("backup", str(file))
    lose(house)
    code, output, _ = drain("restore", "--yes", str(file))
    assert code == 0
    assert "1 outgoing mails are held" in output
    with queue(house) as opened:
        assert opened.recover(NOW) == []
        (entry,) = opened.entries(*Sending)
        assert (entry.mail.id, entry.state) == (waiting, Sending.HELD)
        assert "may have been sent since" in entry.diagnostic
        assert opened.body(entry) == b"From: a@x.test\r\n\r\nthe text\r\n"
        assert opened.lease(NOW, inbound=False) is None
    assert drain("relay", "queue", "retry", waiting)[0] == 0
    with queue(house) as opened:
        assert opened.lease(NOW + 1e6, inbound=False) is not None


def test_without_the_key_of_then_outgoing_mail_stays_in_the_backup(
    house: House, drain: Drain, file: Path, tmp_path: Path
) -> None:
    with queue(house) as opened:
        waiting = submit(opened)
        send_one(opened)
        waiting = submit(opened)
    drain("backup", str(file))
    lose(house)
    key = tmp_path / "config" / "relay.key"
    kept = key.read_bytes()
    key.unlink()
    code, output, _ = drain("restore", "--yes", str(file))
    assert code == 0
    assert "1 outgoing mails stay in the backup" in output
    with queue(house) as opened:  # a relay would start, and make a key
        assert [entry.state for entry in opened.entries(*Sending)] == [Sending.RELAYED]
    key.write_bytes(kept)
    assert "1 outgoing mails are held" in drain("restore", "--yes", str(file))[1]
    with queue(house) as opened:
        (entry,) = opened.entries(Sending.HELD)
        assert entry.mail.id == waiting
        assert opened.body(entry)


def test_a_relay_that_runs_is_75_and_nothing_is_changed(house: House, drain: Drain, file: Path) -> None:
    house.put("1", mail(1))
    drain("once")
    drain("backup", str(file))
    lose(house)
    with held(house.state_dir / "relay" / "relay.lock", house.events.log):
        code, _, errors = drain("restore", "--yes", str(file))
    assert code == 75
    assert "The relay is running" in errors
    assert "Stop it" in errors
    assert not (house.state_dir / "ledger.db").exists()


def test_mails_of_a_lost_queue_that_the_backup_does_not_know_are_laid_beside_and_not_deleted(
    house: House, drain: Drain, file: Path
) -> None:
    with queue(house) as opened:
        known = submit(opened)
    drain("backup", str(file))
    with queue(house) as opened:
        strangers = {submit(opened) for _ in range(20)}
    for path in (house.state_dir / "relay").glob("queue.db*"):
        path.unlink()
    code, output, _ = drain("restore", "--yes", str(file))
    assert code == 0
    assert "20 outgoing mails of which nothing is known" in output
    with queue(house) as opened:
        opened.recover(NOW)
    folder = house.state_dir / "relay"
    assert {path.name for path in (folder / "mails").iterdir()} == {known}
    assert {path.name for path in (folder / "mails.before-restore").iterdir()} == strangers


# -- the rest, and asking --


def test_no_file_is_written_over_and_what_is_another_is_laid_beside(
    house: House, drain: Drain, file: Path, tmp_path: Path, settings: dict[str, str]
) -> None:
    drain("once")
    house.put("1", mail(1))
    drain("once")
    (key,) = key_files(tmp_path, KEY)
    Path(settings["MAIL_ALIASES_FILE"]).write_text("sales: alice\n")
    old_stamp = (house.state_dir / "stamp.key").read_bytes()
    named = {"PRIVATE_KEY_FILE": str(key)}
    assert drain("backup", "--with-keys", str(file), **named)[0] == 0
    old_key = key.read_bytes()
    key.write_bytes(b"another key")
    Path(settings["MAIL_ALIASES_FILE"]).write_text("sales: bob\n")
    (house.state_dir / "stamp.key").unlink()
    assert drain("restore", "--yes", str(file), **named)[0] == 0
    assert key.read_bytes() == b"another key"
    assert key.with_name(f"{key.name}.restored").read_bytes() == old_key
    assert Path(settings["MAIL_ALIASES_FILE"]).read_text() == "sales: bob\n"
    assert (house.state_dir / "stamp.key").read_bytes() == old_stamp


def test_on_a_new_machine_the_configuration_comes_first(
    house: House, drain: Drain, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = tmp_path / "etc" / "drain.env"
    env.parent.mkdir()
    (tmp_path / "r2").write_text(house.s3.secret_access_key)
    (tmp_path / "r2").chmod(0o600)
    values = {k: v for k, v in house.environ().items() if k not in ("R2_SECRET_ACCESS_KEY", "DRAIN_ENV_FILE")}
    values["R2_SECRET_ACCESS_KEY_FILE"] = str(tmp_path / "r2")
    env.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
    env.chmod(0o600)
    environ = {"DRAIN_ENV_FILE": str(env)}
    house.put("1", mail(1))
    assert cli.main(["once"], environ) == 0
    assert cli.main(["backup", str(file)], environ) == 0
    lose(house)
    env.unlink()
    (tmp_path / "r2").unlink()
    capsys.readouterr()
    assert cli.main(["restore", "--yes", str(file)], environ) == 0
    output = capsys.readouterr().out
    assert f"{env}: put back." in output
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    house.put("1", mail(1))
    assert cli.main(["once"], environ) == 0
    assert filed(house) == [1]
    assert drain("status")[0] == 0


def test_it_shows_what_it_would_do_and_asks(
    house: House, drain: Drain, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    house.put("1", mail(1))
    drain("once")
    drain("backup", str(file))
    lose(house)
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    code, output, _ = drain("restore", str(file))
    assert code == 0
    assert str(house.state_dir / "ledger.db") in output
    assert "Shall that be done? [y/N] Nothing was restored." in output
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal: nobody to ask
    assert drain("restore", str(file))[0] == 64
    assert not (house.state_dir / "ledger.db").exists()
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert drain("restore", str(file))[0] == 0
    assert state_of(house, identity(1)) is State.SETTLED


def test_what_is_no_backup_is_65_and_none_is_66(drain: Drain, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(os.urandom(5000))
    assert drain("restore", "--yes", str(tmp_path / "junk"))[0] == 65
    assert drain("restore", "--yes", str(tmp_path / "none"))[0] == 66


PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nT0PS\n"
PEM += "-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "settings_of",
    [
        ("RELAY_TLS_CERT_FILE", "RELAY_TLS_KEY_FILE"),
        ("RELAY_TLS_CERT_FILE",),
        ("INJECT_TLS_CA_FILE",),
        ("SMARTHOST_TLS_CA_FILE",),
    ],
)
def test_no_private_key_is_in_it_by_whatever_name(
    house: House, drain: Drain, file: Path, tmp_path: Path, settings_of: tuple[str, ...]
) -> None:
    begin(house)
    pem = tmp_path / "combined.pem"
    pem.write_text(PEM)
    named = dict.fromkeys(settings_of, str(pem))
    code, output, _ = drain("backup", str(file), **named)
    assert code == 0
    assert b"T0PS" not in file.read_bytes()
    assert f"Not in it: {pem} ({settings_of[0]}): it holds a private key." in output
    assert "It holds passwords" in output
    with_keys = tmp_path / "keys.tar"
    assert "It holds private keys" in drain("backup", "--with-keys", str(with_keys), **named)[1]
    assert with_keys.read_bytes().count(b"T0PS") == 1
    pem.unlink()
    assert drain("restore", "--yes", str(with_keys), **named)[0] == 0
    assert pem.read_text() == PEM


def test_a_key_that_is_no_pem_is_not_taken_for_a_certificate(
    house: House, drain: Drain, file: Path, tmp_path: Path
) -> None:
    begin(house)
    (tmp_path / "key.der").write_bytes(b"\x30\x00T0PS")
    (tmp_path / "copy").write_bytes(b"\x30\x00T0PS")
    named = {"PRIVATE_KEY_FILE": str(tmp_path / "key.der"), "INJECT_TLS_CA_FILE": str(tmp_path / "copy")}
    drain("backup", str(file), **named)
    assert b"T0PS" not in file.read_bytes()


def test_a_backup_that_lacks_a_key_is_66_and_says_no_word_of_keys_that_it_has_not(
    house: House, drain: Drain, file: Path, tmp_path: Path
) -> None:
    begin(house)
    gone = tmp_path / "gone.pem"
    code, output, errors = drain("backup", "--with-keys", str(file), PRIVATE_KEY_FILE=str(gone))
    assert code == 66
    assert f"The private key {gone} cannot be had." in errors
    assert "relay.key" not in errors  # no relay, no key of it
    assert "It holds passwords" in output
    assert names(file) >= {"ledger.db"}


def test_a_backup_of_a_mail_without_its_text_is_66(house: House, drain: Drain, file: Path) -> None:
    begin(house)
    with queue(house) as opened:
        waiting = submit(opened)
    (house.state_dir / "relay" / "mails" / waiting).unlink()
    code, _, errors = drain("backup", str(file))
    assert code == 66
    assert f"{waiting}: the mail waits, and its text is gone." in errors
    assert "queue.db" in names(file)


def test_settings_that_are_in_no_file_are_named(house: House, drain: Drain, file: Path, tmp_path: Path) -> None:
    begin(house)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "INJECT_PASS").write_text(house.smtp.password)
    env = tmp_path / "drain.env"
    env.write_text(f"R2_BUCKET={house.s3.bucket}\n")
    env.chmod(0o600)
    more = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"), "DRAIN_ENV_FILE": str(env), "INJECT_PASS": ""}
    code, output, _ = drain("backup", str(file), **more)
    assert code == 0
    (line,) = [line for line in output.splitlines() if "from the environment" in line]
    assert "R2_SECRET_ACCESS_KEY" in line
    assert "R2_BUCKET" not in line
    assert "Not in it: secrets in $CREDENTIALS_DIRECTORY: INJECT_PASS." in output
    assert house.s3.secret_access_key not in output


@pytest.mark.parametrize("swapped", [True, False])
def test_keys_go_back_by_the_names_of_their_files(
    house: House, drain: Drain, file: Path, tmp_path: Path, *, swapped: bool
) -> None:
    begin(house)
    paths = [tmp_path / "a" / "k.pem", tmp_path / "b" / "k.pem", tmp_path / "old.pem", tmp_path / "new.pem"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"key {path}")
        path.chmod(0o600)
    drain("backup", "--with-keys", str(file), PRIVATE_KEY_FILE=":".join(map(str, paths)))
    for path in paths:
        path.unlink()
    order = paths[::-1] if swapped else paths
    assert drain("restore", "--yes", str(file), PRIVATE_KEY_FILE=":".join(map(str, order)))[0] == 0
    assert [path.read_text() for path in paths] == [f"key {path}" for path in paths]


def test_a_key_that_no_setting_names_is_spoken_of(house: House, drain: Drain, file: Path, tmp_path: Path) -> None:
    begin(house)
    (key,) = key_files(tmp_path, KEY)
    drain("backup", "--with-keys", str(file), PRIVATE_KEY_FILE=str(key))
    assert f"keys/{key.name} stays in the backup" in drain("restore", "--yes", str(file))[1]


def test_a_second_restore_leaves_what_the_first_laid_beside(house: House, drain: Drain, tmp_path: Path) -> None:
    begin(house)
    key = tmp_path / "k.pem"
    for name in "AB":
        key.write_text(name)
        key.chmod(0o600)
        drain("backup", "--with-keys", str(tmp_path / f"{name}.tar"), PRIVATE_KEY_FILE=str(key))
    key.write_text("C")
    for name in "ABAB":
        assert drain("restore", "--yes", str(tmp_path / f"{name}.tar"), PRIVATE_KEY_FILE=str(key))[0] == 0
    there = {path.name: path.read_text() for path in tmp_path.glob("k.pem*")}
    assert there == {"k.pem": "C", "k.pem.restored": "A", "k.pem.restored.2": "B"}


def test_keys_of_the_backup_open_what_is_sealed_in_the_same_run(
    house: House, drain: Drain, file: Path, tmp_path: Path
) -> None:
    begin(house)
    (key,) = key_files(tmp_path, KEY)
    drain("backup", "--with-keys", str(file), PRIVATE_KEY_FILE=str(key))
    house.s3.objects["processed/theirs"] = StoredObject(seal(), {}, last_modified=LONG_AGO)
    key.unlink()
    lose(house)
    output = drain("restore", "--yes", str(file), PRIVATE_KEY_FILE=str(key))[1]
    assert "could not be opened" not in output
    assert "1 were found in processed/ only" in output


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_in_the_way_of_a_restore_is_75_and_no_traceback(
    house: House, drain: Drain, file: Path, tmp_path: Path, what: str
) -> None:
    begin(house)
    drain("backup", str(file))
    place = house.state_dir / "restore.unfinished"
    place.touch() if what == "file" else place.symlink_to(tmp_path)
    code, _, errors = drain("restore", "--yes", str(file))
    assert code == 75
    assert "A file cannot be read or written" in errors
    assert file.exists()


def test_two_backups_at_once_do_not_meet(
    house: House, drain: Drain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drain.backup import snapshot

    begin(house)
    take = snapshot.take
    codes: list[int] = []

    def meanwhile(source: Path, target: Path) -> None:
        if not codes:
            codes.append(0)
            codes[0] = drain("backup", str(tmp_path / "second.tar"))[0]
        take(source, target)

    monkeypatch.setattr(snapshot, "take", meanwhile)
    assert drain("backup", str(tmp_path / "first.tar"))[0] == 0
    assert codes == [75]
    assert drain("backup", str(tmp_path / "second.tar"))[0] == 0


def test_what_was_done_is_said_though_the_rest_failed(
    house: House, drain: Drain, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(house)
    with queue(house) as opened:
        submit(opened)
    drain("backup", str(file))
    lose(house)

    def full(*words: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("drain.backup.queues.merge", full)
    code, output, errors = drain("restore", "--yes", str(file))
    assert code == 75
    assert "ledger.db: it knows 0 mails" in output
    assert "No space left" in errors


# -- killed in between --


class Killed(BaseException):
    """As by SIGKILL: nothing after it is done, as far as this process can."""


STEPS = [
    ("drain.backup.ledgers.merge", 1),
    ("drain.backup.standin._alone", 1),
    ("drain.backup.standin.sync_folder", 1),
    ("drain.backup.queues.merge", 1),
    ("drain.backup.standin._alone", 2),
    ("drain.backup.standin.sync_folder", 2),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("place", "time"), STEPS)
def test_a_restore_that_is_cut_off_anywhere_is_finished_by_another(
    house: House, drain: Drain, file: Path, monkeypatch: pytest.MonkeyPatch, place: str, time: int, *, after: bool
) -> None:
    house.put("1", mail(1))
    house.put("2", mail(2))
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    drain("once")
    with queue(house) as opened:
        submit(opened)
    drain("backup", str(file))
    finish(house, drain)
    lose(house)
    house.put("1", mail(1))
    left = time
    module, _, name = place.rpartition(".")
    original = getattr(sys.modules[module], name)

    def cut(*words: object, **more: object) -> object:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise Killed
        result = original(*words, **more)
        if left == 0:
            raise Killed
        return result

    with monkeypatch.context() as patched:
        patched.setattr(place, cut)
        with pytest.raises(Killed):
            drain("restore", "--yes", str(file))
    assert drain("restore", "--yes", str(file))[0] == 0
    finish(house, drain)
    assert filed(house) == [1, 2]
    with queue(house) as opened:
        (entry,) = opened.entries(*Sending)
        assert entry.state is Sending.HELD
        assert opened.body(entry)


def test_bodies_that_a_restore_did_not_come_to_are_put_back_by_the_next(
    house: House, drain: Drain, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with queue(house) as opened:
        for _ in range(3):
            submit(opened)
    drain("backup", str(file))
    lose(house)
    extract = archive.Archive.extract
    left = 2

    def cut(self: archive.Archive, name: str, to: Path) -> None:
        nonlocal left
        left -= name.startswith("mails/")
        if left == 0:
            raise Killed
        extract(self, name, to)

    with monkeypatch.context() as patched:
        patched.setattr(archive.Archive, "extract", cut)
        with pytest.raises(Killed):
            drain("restore", "--yes", str(file))
    with queue(house) as opened:
        assert opened.recover(NOW) == []  # a relay that is started in between deletes none of them
        assert opened.lease(NOW, inbound=False) is None
    assert drain("restore", "--yes", str(file))[0] == 0
    with queue(house) as opened:
        entries = opened.entries(Sending.HELD)
        assert [bool(opened.body(entry)) for entry in entries] == [True] * 3


def test_a_plan_names_each_place_once(house: House, drain: Drain, file: Path) -> None:
    house.put("1", mail(1))
    drain("once")
    drain("backup", "--with-keys", str(file))
    lose(house)
    from drain import config as configuration
    from drain.commands.backup import _places

    places = _places(configuration.load(house.environ())[0], {})
    with contextlib.closing(archive.Archive(file)) as opened:
        steps = restoring.plan(opened, places)
    assert len({step.where for step in steps}) == len(steps)
    assert json.dumps([step.what for step in steps]).count("ledger") == 1


def test_sealed_mail_that_another_program_moved_needs_the_key_and_that_is_said(
    house: House, drain: Drain, file: Path, tmp_path: Path
) -> None:
    house.put("1", mail(1))
    drain("once")
    drain("backup", str(file))
    house.s3.objects["processed/theirs"] = StoredObject(seal(), {}, last_modified=LONG_AGO)
    assert "1 objects in processed/ could not be opened" in drain("restore", "--yes", str(file))[1]
    (key,) = key_files(tmp_path, KEY)
    output = drain("restore", "--yes", str(file), PRIVATE_KEY_FILE=str(key))[1]
    assert "could not be opened" not in output
    assert "1 were found in processed/ only" in output
