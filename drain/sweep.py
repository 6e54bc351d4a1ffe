"""One pass over ``pending/``.

LIST comes first. Only if that shows something to do is the lock taken, the
ledger opened and the mail server logged in to, in this order; only then is
anything opened or moved. Pages of the LIST are worked off as they come, oldest
mail first within each; several mails are in flight at once.
"""

import contextlib
import datetime
import itertools
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from drain import lock, stamp
from drain.bucket import Bucket, ListedObject
from drain.crew import Crew
from drain.delivery import Delivery, NoKey
from drain.ends import Ends, Prefixes
from drain.errors import BucketRefused, BucketUnavailable, DrainError, Stopping
from drain.filters.chain import Chain
from drain.filters.policy import Policy
from drain.handover import Handover
from drain.inject import Session
from drain.ledger import Ledger, Version, version_of
from drain.log import Log
from drain.mailboxes import Mailboxes
from drain.marks import Marks
from drain.notes import Purse
from drain.opener import Opener
from drain.outcome import Outcome, Result, Step
from drain.routing import Router
from drain.sessions import Sessions
from drain.state import Row, State
from drain.summary import LEFT, Summary

# After so many mails in a row that R2 did not give or take, a LIST tells whether
# the link is down: the rest of a long backlog would only wait for time-outs.
_BUCKET_FAILURES_IN_A_ROW = 5
# DESIGN: within 10 s of SIGTERM. Mails in hand may finish; then sessions are broken.
_GRACE_SECONDS = 6.5
_LAST_SECONDS = 0.5


@dataclass
class Sweep:
    """Makes passes, one at a time."""

    bucket: Bucket
    prefixes: Prefixes
    opener: Opener
    router: Router
    connect: Callable[[], Session]
    state_dir: Path
    ledger_path: Path
    lock_path: Path
    log: Log
    concurrency: int
    inject_connections: int
    memory_budget: int
    retention_seconds: float
    policy: Policy
    marks: Marks
    mailboxes: Mailboxes | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    step: Callable[[Step, str], None] = lambda step, name: None
    on_listed: Callable[[int], None] = lambda count: None
    on_result: Callable[[Result], None] = lambda result: None
    # What follows a pass, once the lock is released.
    on_end: Callable[[Summary], None] = lambda summary: None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    # Whether the ledger had unfinished mails when last seen, and the files as they were then.
    _unfinished: bool = False
    _ledger_seen: tuple[tuple[int, int], ...] = ()
    _no_key: dict[ListedObject, NoKey] = field(default_factory=dict)

    def run(self) -> Summary:
        """Makes one pass, or two if the first finds that what mail waited for works again.

        What ends it early is in the summary's ``error``, not raised.
        """
        summary = self._run()
        if summary.woken and not self.stop.is_set():
            summary = self._run().after(summary)
        self.on_end(summary)
        return summary

    def _run(self) -> Summary:
        summary = Summary()
        begun = time.monotonic()
        try:
            pages = self.bucket.pages(self.prefixes.pending)
            first = next(pages, None)
            self.step(Step.LISTED, "")
            summary.pending = 0 if first is None else None
            if first is not None or self._has_unfinished(summary):
                self._work(itertools.chain([first] if first else [], pages), summary)
        except DrainError as error:
            summary.error = error
        summary.stopped = self.stop.is_set()
        summary.seconds = time.monotonic() - begun
        return summary

    def deliver_released(self, lock_wait_seconds: float) -> Summary:
        """Delivers what a person has released from quarantine, and nothing else; waits for another pass to end."""
        summary = Summary()
        try:
            self._work((), summary, listed_all=False, lock_wait_seconds=lock_wait_seconds)
        except DrainError as error:
            summary.error = error
        return summary

    def _has_unfinished(self, summary: Summary) -> bool:
        if not self.ledger_path.exists():
            return False
        # A command may have written to it meanwhile: `drain quarantine release` does.
        if self._ledger_seen != _stamps(self.ledger_path):
            with contextlib.closing(Ledger(self.ledger_path)) as ledger:
                self._unfinished = bool(ledger.unfinished())
                summary.troubles = ledger.troubles(self.clock())
            self._ledger_seen = _stamps(self.ledger_path)
        return self._unfinished

    def _work(
        self,
        pages: Iterable[list[ListedObject]],
        summary: Summary,
        *,
        listed_all: bool = True,
        lock_wait_seconds: float = 0.0,
    ) -> None:
        self._ledger_seen = ()
        with (
            lock.held(self.lock_path, self.log, timeout_seconds=lock_wait_seconds),
            contextlib.closing(Ledger(self.ledger_path)) as ledger,
            contextlib.closing(Sessions(self.connect, self.inject_connections)) as sessions,
        ):
            self.step(Step.LOCKED, "")
            delivery = self._delivery(ledger, sessions)
            work = _Pass(self, delivery, summary)
            unseen = ledger.unfinished()
            forgotten = set(self._no_key)
            try:
                complete = work.feed(itertools.chain(pages, self._released(dict(unseen), delivery)), unseen, forgotten)
            finally:
                summary.pending, summary.oldest_at = (work.left, work.oldest_at) if listed_all else (None, None)
                summary.answered = set(delivery.chain.answered)
                summary.failing = {name: delivery.chain.troubles[name] for name in delivery.chain.failing}
            if complete and listed_all:
                for version in forgotten:
                    self._no_key.pop(version, None)
                self._account_for(unseen, ledger, summary)
            ledger.prune_daily(self.clock() - self.retention_seconds, self.clock())
            if complete:
                summary.woken = self._wake(work.canaries, delivery.chain, ledger)
            summary.error = work.error or (None if summary.progressed else work.refused)
            summary.troubles = ledger.troubles(self.clock())

    @staticmethod
    def _wake(canaries: AbstractSet[str], chain: Chain, ledger: Ledger) -> int:
        """Makes due what waited for a filter that one of its mails has passed by now; how many."""
        closed = {f"filter-{name}" for name in chain.failing - chain.fail_open}
        return sum(ledger.wake(reason) for reason in canaries - closed)

    def _delivery(self, ledger: Ledger, sessions: Sessions) -> Delivery:
        ends = Ends(self.bucket, ledger, self.prefixes, self.log, self.step, self.clock)
        return Delivery(
            bucket=self.bucket,
            ledger=ledger,
            opener=self.opener,
            chain=self.policy.chain(Purse(ledger.notes, self.clock), self.stop.is_set),
            marks=self.marks,
            router=self.router,
            handover=Handover(sessions, ledger, ends, self.log, self.step, self.clock),
            ends=ends,
            stamp=stamp.load(self.state_dir),
            mailboxes=self.mailboxes,
            log=self.log,
            step=self.step,
            clock=self.clock,
            sleep=self.sleep,
            no_key=self._no_key,
        )

    def _released(self, unseen: Mapping[Version, str], delivery: Delivery) -> Iterator[list[ListedObject]]:
        """What a person released from quarantine, or replays, and is not delivered yet; it lies where it was."""
        for (key, etag, last_modified), identity in list(unseen.items()):
            row = delivery.ledger.find(identity)
            if row is None or not row.released or key.startswith(self.prefixes.pending):
                continue
            if delivery.not_due(row):
                yield [ListedObject(key, etag, datetime.datetime.fromisoformat(last_modified), 0)]
            elif (listed := self.bucket.find(key)) is not None and listed.key == key:
                yield [listed]

    def _account_for(self, unseen: dict[Version, str], ledger: Ledger, summary: Summary) -> None:
        """Finds out what became of unfinished mails whose object a complete LIST did not show."""
        unfinished = ledger.unfinished()
        # Not those finished in this pass, nor those that lie under another name too.
        seen = {identity for version, identity in unfinished.items() if version not in unseen}
        keys: dict[str, list[str]] = {}
        for version, identity in unseen.items():
            if version in unfinished and identity not in seen:
                keys.setdefault(identity, []).append(version[0])
        for identity, names in keys.items():
            row = ledger.find(identity)
            if self.stop.is_set() or row is None:
                continue
            aside = row.state is State.SETTING_ASIDE
            prefix = self.prefixes.quarantine if aside else self.prefixes.processed
            places = [self.prefixes.moved(prefix, identity, key) for key in names]
            # What was to be deleted is gone, as it should be.
            if row.state is State.DISCARDING or any(self.bucket.exists(place) for place in places):
                ledger.found_moved(identity, self.clock())
                continue
            ledger.missing(identity, self.clock())
            summary.missing += 1
            self.log.error(
                "missing",
                id=identity[:16],
                object=names[0],
                state=row.state.value,
                to=row.recipient,
                message="A mail that was not finished is gone from the bucket: removed by a lifecycle rule, overwritten,"
                " or taken by somebody else.",
            )


def _stamps(ledger: Path) -> tuple[tuple[int, int], ...]:
    """What changes whenever something is written to SQLite's file."""
    found = []
    for path in (ledger, ledger.with_name(f"{ledger.name}-wal")):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            found.append((about.st_mtime_ns, about.st_size))
    return tuple(found)


class _Pass:
    """The feeding of one pass: objects in, results counted, a halt where one concerns all."""

    def __init__(self, sweep: Sweep, delivery: Delivery, summary: Summary) -> None:
        self._sweep = sweep
        self._delivery = delivery
        self._summary = summary
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._connected = False
        # Reasons of which one mail is tried before it is due.
        self.canaries: set[str] = set()
        # Of what lies under pending/: how much stays, None once that is not known.
        self.left: int | None = 0
        self.oldest_at: float | None = None
        self.error: DrainError | None = None
        self.refused: BucketRefused | None = None

    def feed(
        self, pages: Iterable[list[ListedObject]], unseen: dict[Version, str], forgotten: set[ListedObject]
    ) -> bool:
        """Hands every listed object to the crew, and waits for it; whether the LIST came to its end.

        Takes out of *unseen* and *forgotten* what is listed.
        """
        sweep = self._sweep
        crew = Crew(sweep.concurrency, sweep.memory_budget, self._deliver, self._halted)
        complete = False
        try:
            complete = self._submit_all(pages, unseen, forgotten, crew)
        finally:
            crew.finish()
            # Asked to stop: let mails in hand finish, then break the sessions. What is
            # still under way after that has its state in the ledger.
            if not crew.wait(until=sweep.stop) and not crew.wait(seconds=_GRACE_SECONDS):
                self._delivery.handover.sessions.abort()
                crew.wait(seconds=_LAST_SECONDS)
        if crew.error is not None:
            raise crew.error
        return complete and not self._halted()

    def _submit_all(
        self,
        pages: Iterable[list[ListedObject]],
        unseen: dict[Version, str],
        forgotten: set[ListedObject],
        crew: Crew[tuple[ListedObject, Row | None]],
    ) -> bool:
        for page in pages:
            self._summary.listed += len(page)
            self._sweep.on_listed(self._summary.listed)
            ordered = sorted(page, key=lambda entry: entry.last_modified)
            for place, listed in enumerate(ordered):
                unseen.pop(version_of(listed), None)
                forgotten.discard(listed)
                try:
                    taken = self._submit(listed, crew)
                except DrainError:
                    self._leave_rest(ordered[place:], pages)
                    raise
                if not taken:
                    self._leave_rest(ordered[place:], pages)
                    return False
        return True

    def _submit(self, listed: ListedObject, crew: Crew[tuple[ListedObject, Row | None]]) -> bool:
        """Hands one object to the crew, if it is due; False if the pass is halted."""
        row = self._delivery.ledger.find_by_object(listed)
        if row is not None and self._delivery.not_due(row) and not self._is_canary(row):
            why, words = row.reason or "", row.words or ""
            self._count(listed, Result(Outcome.WAITING, listed.key, row.recipient, why=why, words=words))
            return True
        if not self._connected:
            self._delivery.handover.sessions.open()
            self._connected = self._summary.connected = True
            self._sweep.step(Step.CONNECTED, "")
        return crew.submit((listed, row), listed.size)

    def _leave_rest(self, page: Iterable[ListedObject], pages: Iterable[list[ListedObject]]) -> None:
        """What a halted pass leaves as it is; how much that is wants to be known all the same."""
        for listed in page:
            self._leave(listed)
        try:
            for more in pages:
                if self._sweep.stop.is_set():
                    raise Stopping("drain was asked to stop.")
                self._summary.listed += len(more)
                for listed in more:
                    self._leave(listed)
        except DrainError:
            self.left = None

    def _leave(self, listed: ListedObject) -> None:
        """It stays under ``pending/``, if that is where it is."""
        if not listed.key.startswith(self._sweep.prefixes.pending):
            return
        written_at = listed.last_modified.timestamp()
        with self._lock:
            self.left = None if self.left is None else self.left + 1
            self.oldest_at = written_at if self.oldest_at is None else min(self.oldest_at, written_at)

    def _is_canary(self, row: Row) -> bool:
        """Of the mails that wait for a filter one is tried in each pass: so it is found out when the filter is mended.

        The wait is for the others, which would each be fetched for nothing.
        """
        reason = row.reason or ""
        if row.state is not State.DEFERRED or not reason.startswith("filter-") or reason in self.canaries:
            return False
        self.canaries.add(reason)
        return self._delivery.ledger.wake(reason, row.identity) == 1

    def _halted(self) -> bool:
        return self.error is not None or self._sweep.stop.is_set()

    def _deliver(self, work: tuple[ListedObject, Row | None]) -> None:
        """One object, on a thread of the crew."""
        listed, row = work
        if self._halted():
            self._leave(listed)
            return
        try:
            result = self._delivery.deliver(listed, row)
        except Stopping:
            self._leave(listed)
            return
        except (BucketUnavailable, BucketRefused) as error:
            result = self._bucket_failed(listed, error)
        except DrainError as error:
            self._leave(listed)
            self._halt(error)
            return
        except Exception as error:  # noqa: BLE001 (a bug met by one mail must not hold up the others)
            result = self._bug(listed, error)
        else:
            self._failures_in_a_row = 0
        self._count(listed, result)

    def _count(self, listed: ListedObject, result: Result) -> None:
        if result.outcome in LEFT:
            self._leave(listed)
        with self._lock:
            self._summary.outcomes[result.outcome] += 1
            if result.outcome is Outcome.QUARANTINED and not result.verdict:
                self._summary.asided[result.why] += 1
            if result.outcome is Outcome.WAITING and result.why:
                self._summary.waiting[result.why] += 1
            if result.outcome is Outcome.DELIVERED and self._sweep.router.junk and result.verdict.startswith("junk"):
                self._summary.no_junk_mailbox = result.why != "junk"
            if result.outcome is Outcome.NO_KEY and result.words:
                self._summary.keyless[result.words] += 1
        self._sweep.on_result(result)

    def _bucket_failed(self, listed: ListedObject, error: BucketUnavailable | BucketRefused) -> Result:
        """R2 failed one object: the object's fault (a name that it cannot handle), or the link's?"""
        self._sweep.log.warning("mail", state=Outcome.FAILED.value, object=listed.key, message=str(error))
        with self._lock:
            self._failures_in_a_row += 1
            suspicious = self._failures_in_a_row % _BUCKET_FAILURES_IN_A_ROW == 0
            self.refused = self.refused or (error if isinstance(error, BucketRefused) else None)
        if suspicious:
            try:
                next(self._sweep.bucket.pages(self._sweep.prefixes.pending), None)
            except DrainError as down:
                self._halt(down)
        return Result(Outcome.FAILED, listed.key, words=str(error))

    def _bug(self, listed: ListedObject, error: Exception) -> Result:
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__} in {Path(where.filename).name}, line {where.lineno}"
        self._sweep.log.error("bug", object=listed.key, message=f"{message}. Please report it; the mail stays.")
        with self._lock:
            self._summary.bugs += 1
        return Result(Outcome.FAILED, listed.key, words=message)

    def _halt(self, error: DrainError) -> None:
        with self._lock:
            self.error = self.error or error
