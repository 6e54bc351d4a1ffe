"""From the file to the places. What that makes of each mail stands in `drain.backup`."""

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from drain.backup import ledgers, queues, standin, writing
from drain.backup.archive import Archive
from drain.backup.places import MADDY, Places
from drain.bucket import Bucket
from drain.database import Database
from drain.ends import Prefixes
from drain.ledger import Ledger
from drain.logbook import LOGBOOK
from drain.opener import Opener
from drain.rebuild import rebuild
from drain.relay.tables import QUEUE
from drain.tables import LEDGER

_IDENTITY = re.compile(r"([0-9a-f]{64})-")
_LAID_BESIDE = ".restored"


@dataclass(frozen=True)
class Step:
    """One thing that a restore does: with what, where, and what becomes of it, in words."""

    what: str
    where: Path
    words: str


def plan_files(archive: Archive, files: Mapping[str, Path], kind: str = "files") -> list[Step]:
    """What becomes of files: put where there is none, laid beside where there is another one, never written over."""
    steps = []
    for label, path in files.items():
        name = f"{kind}/{label}"
        if name not in archive.items or archive.is_at(name, path):
            continue
        if path.exists():
            beside = _beside(path)
            if not archive.is_at(name, beside):
                steps.append(Step(label, beside, f"laid beside {path.name}, which stays as it is"))
        else:
            steps.append(Step(label, path, "put back"))
    return steps


def put_files(archive: Archive, files: Mapping[str, Path], kind: str = "files") -> list[str]:
    """Does so; what was done, in sentences."""
    done = []
    for step in plan_files(archive, files, kind):
        archive.extract(f"{kind}/{step.what}", step.where)
        done.append(f"{step.where}: {step.words}.")
    return done


def plan(archive: Archive, places: Places) -> list[Step]:
    """What a restore would do."""
    there = archive.items
    steps = []
    if "ledger.db" in there:
        steps.append(Step("the ledger", places.ledger, "what it lacks is added; then compared with the bucket"))
    if "queue.db" in there:
        steps.append(Step("the relay's queue", places.relay, "mails that it lacks are added, and held"))
    if "logbook.db" in there and not places.logbook.exists():
        steps.append(Step("the logbook", places.logbook, "put back"))
    steps += plan_files(archive, places.files)
    steps += plan_files(archive, places.keys, "keys")
    for name in MADDY:
        if f"maddy/{name}" in there:
            steps.append(Step(f"Maddy's {name}", _maddy_place(places, name), "laid beside"))
    return steps


@dataclass(frozen=True)
class Restore:
    """A backup, and where it goes. drain's lock and the relay's have to be held."""

    archive: Archive
    places: Places
    bucket: Bucket
    opener: Opener
    prefixes: Prefixes

    def run(self, now: float) -> Iterator[str]:
        """Does it, and says each thing that was done when it is done.

        Everything that can be away is asked before anything is changed.

        Raises:
            BucketUnavailable, BucketRefused: R2 did not say what lies there; nothing was changed.
            Unavailable: something cannot be read or written just now. What was said was
                done, and all of it can be done again.
            ConfigError: a file was written by a newer drain.
        """
        with self._scratch() as scratch:
            there = self.archive.items
            ledger = self._extracted("ledger.db", scratch)
            processed, aside, unread = self._bucket_knows(scratch, now)
            if ledger is not None:
                Ledger(ledger).close()  # brought up to date
            queue = self._extracted("queue.db", scratch)
            if queue is not None:
                Database(queue, QUEUE).close()
            # From here on things change. First what the rest may need.
            yield from put_files(self.archive, self.places.keys, "keys")
            yield from put_files(self.archive, self.places.files)
            if ledger is not None:
                yield from self._ledger(ledger, processed, aside, unread, now)
            if queue is not None:
                yield from self._queue(queue, now)
            if "logbook.db" in there and not self.places.logbook.exists():
                yield from self._logbook(scratch)
            yield from self._maddy()

    def _bucket_knows(self, scratch: Path, now: float) -> tuple[Path, set[str], int]:
        """A ledger of what lies under ``processed/``, the identities under ``quarantine/``, and how many could not be read."""
        path = scratch / "processed.db"
        with contextlib.closing(Ledger(path)) as ledger:
            rebuilt = rebuild(self.bucket, self.opener, self.prefixes.processed, ledger, now)
        prefix = self.prefixes.quarantine
        names = (listed.key.removeprefix(prefix) for page in self.bucket.pages(prefix) for listed in page)
        return path, {found[1] for name in names if (found := _IDENTITY.match(name))}, rebuilt.unreadable

    def _ledger(self, backup: Path, processed: Path, aside: set[str], unread: int, now: float) -> Iterator[str]:
        with standin.opened(self.places.ledger, LEDGER) as opened:
            merged = ledgers.merge(opened, backup, processed, aside, now)
        yield (
            f"{self.places.ledger}: it knows {merged.known} mails; {merged.from_backup} are from the backup, and"
            f" {merged.from_bucket} were found in {self.prefixes.processed} only. {merged.moved_on} had moved on since."
        )
        if unread:
            yield (
                f"{unread} objects in {self.prefixes.processed} could not be opened. If keys are missing, put them into"
                " place and run `drain ledger rebuild`."
            )

    def _queue(self, backup: Path, now: float) -> Iterator[str]:
        folder = self.places.relay
        key = writing.id_of_relay_key(self.places.relay_key)
        readable = bool(key) and key == self.archive.manifest.relay_key
        with standin.opened(folder / "queue.db", QUEUE) as opened:
            merged = queues.merge(opened, backup, readable=readable, now=now)
            if opened.anew and (strangers := queues.move_strangers(folder, set(merged.wanted))):
                yield f"{folder}/mails{standin.KEPT}: {strangers} outgoing mails of which nothing is known any more."
        for mail in merged.wanted:
            if f"mails/{mail}" in self.archive.items and not (folder / "mails" / mail).exists():
                self.archive.extract(f"mails/{mail}", folder / "mails" / mail)
        yield f"{folder}: {merged.held} outgoing mails are held; `drain relay queue list` shows them."
        if merged.left:
            yield (
                f"{merged.left} outgoing mails stay in the backup: they are encrypted with a key that is not here."
                f" Put it at {self.places.relay_key}, and run this again."
            )

    def _logbook(self, scratch: Path) -> Iterator[str]:
        path = self._extracted("logbook.db", scratch)
        assert path is not None
        with contextlib.closing(Database(path, LOGBOOK)) as logbook, logbook.writing() as db:
            db.execute("DELETE FROM outbox")  # who was to be told of it was, or need not be any more
        standin.place(path, self.places.logbook)
        yield f"{self.places.logbook}: put back."

    def _maddy(self) -> Iterator[str]:
        for name in MADDY:
            if f"maddy/{name}" in self.archive.items:
                place = _maddy_place(self.places, name)
                self.archive.extract(f"maddy/{name}", place)
                yield (
                    f"{place}: Maddy's own was not touched. To use it, stop Maddy, delete {name}-wal and {name}-shm"
                    f" beside Maddy's {name}, move this over it, and start Maddy again."
                )

    def _extracted(self, name: str, scratch: Path) -> Path | None:
        if name not in self.archive.items:
            return None
        self.archive.extract(name, scratch / name)
        return scratch / name

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder for what is not finished; one that was left by a restore that was killed is emptied."""
        folder = self.places.ledger.with_name("restore.unfinished")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}{_LAID_BESIDE}")


def _maddy_place(places: Places, name: str) -> Path:
    found = places.maddy_database(name)
    if found is None:
        return _beside(places.ledger.with_name(name))
    return _beside(found)
