"""From the file to the places. What that makes of each mail stands in `drain.backup`."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from drain.backup import ledgers, queues, standin, writing
from drain.backup.archive import Archive, in_a_sentence
from drain.backup.places import MADDY, Places
from drain.bucket import IDENTITY, Bucket
from drain.database import Database
from drain.ledger import Ledger
from drain.opener import Opener
from drain.prefixes import Prefixes
from drain.rebuild import rebuild
from drain.relay import bodies
from drain.relay.bodies import BodyLost
from drain.relay.tables import QUEUE
from drain.tables import LEDGER

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
        if not path.exists():
            steps.append(Step(label, path, "put back"))
        elif not archive.is_at(name, beside := _beside(archive, name, path)):
            steps.append(Step(label, beside, f"laid beside {path.name}, which stays as it is"))
    return steps


@in_a_sentence()
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
    steps = [Step("the ledger", places.ledger, "what it lacks is added; then compared with the bucket")]
    if "queue.db" in there:
        steps.append(Step("the relay's queue", places.relay, "mails that it lacks are added, and held"))
    steps += plan_files(archive, places.files)
    steps += plan_files(archive, places.keys, "keys")
    for name in MADDY:
        if f"maddy/{name}" in there:
            steps.append(Step(f"Maddy's {name}", _maddy_place(archive, places, name), "laid beside"))
    return steps


@dataclass(frozen=True)
class Restore:
    """A backup, and where it goes. drain's lock and the relay's have to be held.

    ``made`` is when it was made, as a person reads it, the date first.
    """

    archive: Archive
    places: Places
    bucket: Bucket
    opener: Opener
    prefixes: Prefixes
    made: str

    @in_a_sentence()
    def run(self, now: float, done: list[str]) -> None:
        """Does it, and adds to *done* what was done, in sentences, also if it then raises.

        Keys and configuration come first: they write over nothing, and open what is
        sealed. Then everything that can be away is asked before anything is changed.

        Raises:
            BucketUnavailable, BucketRefused: R2 did not say what lies there; ledger and
                queue are as they were.
            Unavailable: something cannot be read or written just now. All of it can be
                done again.
            ConfigError: a file was written by a newer drain.
        """
        with self._scratch() as scratch:
            done += put_files(self.archive, self.places.keys, "keys")
            done += put_files(self.archive, self.places.files)
            done += self._keys_of_no_place()
            ledger = self._extracted("ledger.db", scratch) or scratch / "ledger.db"
            Ledger(ledger).close()  # brought up to date, or empty
            queue = self._extracted("queue.db", scratch)
            if queue is not None:
                Database(queue, QUEUE).close()
            processed, aside, unread = self._bucket_knows(scratch, now)
            # From here on things change.
            done += self._ledger(ledger, processed, aside, unread, now)
            if queue is not None:
                done += self._queue(queue, scratch, now)
            done += self._maddy()

    def _keys_of_no_place(self) -> Iterator[str]:
        for name in self.archive.items:
            folder, _, label = name.partition("/")
            if folder == "keys" and label not in self.places.keys:
                yield f"{name} stays in the backup: no setting that is here names a file {label}. `tar xf` takes it out."

    def _bucket_knows(self, scratch: Path, now: float) -> tuple[Path, set[str], int]:
        """A ledger of what lies under ``processed/``, the identities under ``quarantine/``, and how many could not be read.

        In the order in which mail may move meanwhile: another machine may release some.
        """
        prefix = self.prefixes.quarantine
        names = (listed.key.removeprefix(prefix) for page in self.bucket.pages(prefix) for listed in page)
        aside = {found[1] for name in names if (found := IDENTITY.match(name))}
        path = scratch / "processed.db"
        with contextlib.closing(Ledger(path)) as ledger:
            rebuilt = rebuild(self.bucket, self.opener, self.prefixes.processed, ledger, now)
        return path, aside, rebuilt.unreadable

    def _ledger(self, backup: Path, processed: Path, aside: set[str], unread: int, now: float) -> Iterator[str]:
        path = self.places.ledger
        with standin.opened(path, LEDGER) as opened:
            damaged = opened.anew and path.exists()
            salvaged = ledgers.salvage(opened.database, path) if damaged else 0
            merged = ledgers.merge(opened, backup, processed, aside, now)
        if damaged:
            yield f"{path} was damaged: {salvaged} mails could still be read of it. It is kept beside, as {standin.KEPT}."
        yield (
            f"{path}: it knows {merged.known} mails; {merged.from_backup} are from the backup, and"
            f" {merged.from_bucket} were found in {self.prefixes.processed} only. {merged.moved_on} had moved on since."
        )
        if merged.from_bucket or merged.moved_on:
            yield f"If the mailboxes were lost too: {self._not_in_mailboxes()}"
        if unread:
            yield (
                f"{unread} objects in {self.prefixes.processed} could not be opened. If keys are missing, put them into"
                " place and run `drain ledger rebuild`."
            )

    def _not_in_mailboxes(self) -> str:
        return (
            f"what was delivered since {self.made} is in {self.prefixes.processed} and not in them. `drain replay --day"
            f" {self.made[:10]}`, and so on for each day since, brings it, before the lifecycle rule takes it."
        )

    def _queue(self, backup: Path, scratch: Path, now: float) -> Iterator[str]:
        folder, key = self.places.relay, self.places.relay_key
        here, then = writing.id_of_relay_key(key), self.archive.manifest.relay_key
        # Beside the key of now the one of then may lie, by this restore's doing or by a person's.
        other = next((path for path in _all_beside(key) if writing.id_of_relay_key(path) == then), None)
        readable = bool(here and then) and (here == then or other is not None)
        with standin.opened(folder / "queue.db", QUEUE) as opened:
            merged = queues.merge(opened, backup, readable=readable, now=now)
            if opened.anew:
                strangers, beside = queues.move_strangers(folder, set(merged.wanted))
                if strangers:
                    yield f"{beside}: {strangers} outgoing mails of which nothing is known any more."
        for mail in merged.wanted:
            if f"mails/{mail}" not in self.archive.items or (folder / "mails" / mail).exists():
                continue
            if here == then:
                self.archive.extract(f"mails/{mail}", folder / "mails" / mail)
                continue
            assert other is not None
            self.archive.extract(f"mails/{mail}", scratch / "mails" / mail)
            try:
                raw = bodies.opened(scratch / "mails", other, make_key=False).get(mail)
            except BodyLost as error:
                yield str(error)
            else:
                bodies.opened(folder / "mails", key, make_key=False).put(mail, raw, spare=True)
        yield f"{folder}: {merged.held} outgoing mails are held; `drain relay queue list` shows them."
        if merged.left:
            free = next(place for place in standin.numbered(key, _LAID_BESIDE) if not place.exists())
            where = f"{free}, beside the one of now, which stays" if here else key
            yield (
                f"{merged.left} outgoing mails stay in the backup: they are encrypted with a key that is not here."
                f" Put it at {where}, and run this again."
            )

    def _maddy(self) -> Iterator[str]:
        for name in MADDY:
            if f"maddy/{name}" in self.archive.items:
                place = _maddy_place(self.archive, self.places, name)
                self.archive.extract(f"maddy/{name}", place)
                yield (
                    f"{place}: Maddy's own was not touched. To use it, stop Maddy, delete {name}-wal and {name}-shm"
                    f" beside Maddy's {name}, move this over it, and start Maddy again. If you do,"
                    f" {self._not_in_mailboxes()}"
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


def _all_beside(path: Path) -> Iterator[Path]:
    """What lies beside *path* from this restore or others."""
    for beside in standin.numbered(path, _LAID_BESIDE):
        if not beside.exists():
            return
        yield beside


def _beside(archive: Archive, name: str, path: Path) -> Path:
    """Where it is laid beside *path*, or lies there already."""
    places = standin.numbered(path, _LAID_BESIDE)
    return next(place for place in places if not place.exists() or archive.is_at(name, place))


def _maddy_place(archive: Archive, places: Places, name: str) -> Path:
    return _beside(archive, f"maddy/{name}", places.maddy_database(name) or places.ledger.with_name(name))
