"""The feeding of one pass: objects in, results counted, a halt where one concerns all."""

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from drain.crew import Crew
from drain.delivery import Delivery
from drain.errors import BucketRefused, BucketUnavailable, DrainError, Stopping
from drain.ledger import Version, version_of
from drain.listing import ListedObject
from drain.outcome import Outcome, Result, Step
from drain.state import Row, State
from drain.summary import LEFT, Summary

# After so many mails in a row that R2 did not give or take, a LIST tells whether
# the link is down: the rest of a long backlog would only wait for time-outs.
_BUCKET_FAILURES_IN_A_ROW = 5
# DESIGN: within 10 s of SIGTERM. Mails in hand may finish; then sessions are broken.
_GRACE_SECONDS = 6.0
_LAST_SECONDS = 0.5


@dataclass
class Feeding:
    """Gives each listed object to `delivery`, on several threads.

    ``error`` is what halted it, ``refused`` what R2 refused of single objects. Of what
    lies under ``pending_prefix``, ``left`` stays (None once that is not known), and
    ``oldest_at`` is when the oldest of it was written.
    """

    delivery: Delivery
    summary: Summary
    pending_prefix: str
    concurrency: int
    memory_budget: int
    stop: threading.Event
    on_listed: Callable[[int], None]
    on_result: Callable[[Result], None]
    # Reasons of which one mail is tried before it is due.
    canaries: set[str] = field(default_factory=set)
    left: int | None = 0
    oldest_at: float | None = None
    error: DrainError | None = None
    refused: BucketRefused | None = None
    _failures_in_a_row: int = 0
    _looking: bool = False  # whether the link is there; or it is known that it is not
    _connected: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # R2 is asked to delete what was copied on threads apart: the next mail need not wait for it.
        self._removers = Crew[Result](self.concurrency, self.memory_budget, self._remove, lambda: False)

    def feed(
        self, pages: Iterable[list[ListedObject]], unseen: dict[Version, str], forgotten: set[ListedObject]
    ) -> bool:
        """Hands every listed object to the crew, and waits for it; whether the LIST came to its end.

        Takes out of *unseen* and *forgotten* what is listed.
        """
        crew = Crew(self.concurrency, self.memory_budget, self._deliver, self._halted)
        complete = False
        try:
            complete = self._submit_all(pages, unseen, forgotten, crew)
        finally:
            crew.finish()
            self._wait(crew)
        for error in (crew.error, self._removers.error):
            if error is not None:
                raise error
        return complete and not self._halted()

    def _wait(self, crew: Crew[tuple[ListedObject, Row | None]]) -> None:
        """For the crew to end, and then for what it has left to remove.

        Asked to stop: lets mails in hand finish, then breaks the sessions. What is
        still under way after that has its state in the ledger.
        """
        stop_at = float("inf")
        if not crew.wait(until=self.stop):
            stop_at = time.monotonic() + _GRACE_SECONDS
            if not crew.wait(seconds=_GRACE_SECONDS):
                self.delivery.handover.sessions.abort()
                stop_at += _LAST_SECONDS
                if not crew.wait(seconds=_LAST_SECONDS):
                    self.left = None
        self._removers.finish()
        if self._removers.wait(until=self.stop):
            return
        stop_at = min(stop_at, time.monotonic() + _GRACE_SECONDS)
        if not self._removers.wait(seconds=max(stop_at - time.monotonic(), 0.0)):
            self.left = None  # what these are at is not known

    def _submit_all(
        self,
        pages: Iterable[list[ListedObject]],
        unseen: dict[Version, str],
        forgotten: set[ListedObject],
        crew: Crew[tuple[ListedObject, Row | None]],
    ) -> bool:
        for page in pages:
            self.summary.listed += len(page)
            self.on_listed(self.summary.listed)
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
        row = self.delivery.ledger.find_by_object(listed)
        if row is not None and self.delivery.not_due(row) and not self._is_canary(row):
            why, words = row.reason or "", row.words or ""
            self._count(listed, Result(Outcome.WAITING, listed.key, row.recipient, why=why, words=words))
            return True
        if not self._connected:
            self.delivery.handover.sessions.open()
            self._connected = self.summary.connected = True
            self.delivery.step(Step.CONNECTED, "")
        return crew.submit((listed, row), listed.size)

    def _leave_rest(self, page: Iterable[ListedObject], pages: Iterable[list[ListedObject]]) -> None:
        """What a halted pass leaves as it is; how much that is wants to be known all the same."""
        for listed in page:
            self._leave(listed)
        try:
            for more in pages:
                if self.stop.is_set():
                    raise Stopping("drain was asked to stop.")
                self.summary.listed += len(more)
                for listed in more:
                    self._leave(listed)
        except DrainError:
            self.left = None

    def _leave(self, listed: ListedObject) -> None:
        """It stays under ``pending/``, if that is where it is."""
        if not listed.key.startswith(self.pending_prefix):
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
        return self.delivery.ledger.wake(reason, row.identity) == 1

    def _halted(self) -> bool:
        return self.error is not None or self.stop.is_set()

    def _deliver(self, work: tuple[ListedObject, Row | None]) -> None:
        """One object, on a thread of the crew."""
        listed, row = work
        if self._halted():
            self._leave(listed)
            return
        try:
            result = self.delivery.deliver(listed, row)
        except Exception as error:  # noqa: BLE001 (told apart below)
            self._failed(listed, error)
            return
        self._failures_in_a_row = 0
        if result.copied is None:
            self._count(listed, result)
        else:
            try:
                self._removers.submit(result, 0)
            except RuntimeError as error:  # not even one thread
                self._failed(listed, error)

    def _remove(self, result: Result) -> None:
        """What a delivered mail has left behind, on a thread of the removers."""
        copied = result.copied
        assert copied is not None
        try:
            self.delivery.ends.remove(copied)
        except Exception as error:  # noqa: BLE001 (told apart below)
            self._failed(copied.version, error)
            if not isinstance(error, BucketUnavailable | BucketRefused):
                self.left = None  # it may be gone
        else:
            self._count(copied.version, replace(result, copied=None))

    def _failed(self, listed: ListedObject, error: Exception) -> None:
        """An object was not taken to its end."""
        if isinstance(error, Stopping):
            self._leave(listed)
        elif isinstance(error, BucketUnavailable | BucketRefused):
            self._count(listed, self._bucket_failed(listed, error))
        elif isinstance(error, DrainError):
            self._leave(listed)
            self._halt(error)
        else:  # a bug met by one mail must not hold up the others
            self._count(listed, self._bug(listed, error))

    def _count(self, listed: ListedObject, result: Result) -> None:
        if result.outcome in LEFT:
            self._leave(listed)
        with self._lock:
            self.summary.outcomes[result.outcome] += 1
            if result.outcome is Outcome.QUARANTINED and not result.verdict:
                self.summary.asided[result.why] += 1
            if result.outcome is Outcome.WAITING and result.why:
                self.summary.waiting[result.why] += 1
            if result.outcome is Outcome.DELIVERED and self.delivery.router.junk and result.verdict.startswith("junk"):
                self.summary.no_junk_mailbox = result.why != "junk"
            if result.outcome is Outcome.NO_KEY and result.words:
                self.summary.keyless[result.words] += 1
        with contextlib.suppress(OSError, ValueError):  # the terminal it was shown on is gone
            self.on_result(result)

    def _bucket_failed(self, listed: ListedObject, error: BucketUnavailable | BucketRefused) -> Result:
        """R2 failed one object: the object's fault (a name that it cannot handle), or the link's?"""
        self.delivery.log.warning("mail", state=Outcome.FAILED.value, object=listed.key, message=str(error))
        with self._lock:
            self._failures_in_a_row += 1
            suspicious = self._failures_in_a_row % _BUCKET_FAILURES_IN_A_ROW == 0 and not self._looking
            self._looking = self._looking or suspicious
            self.refused = self.refused or (error if isinstance(error, BucketRefused) else None)
        if suspicious:
            try:
                next(self.delivery.bucket.pages(self.pending_prefix), None)
            except DrainError as down:
                self._halt(down)
            self._looking = self._halted()
        return Result(Outcome.FAILED, listed.key, words=str(error))

    def _bug(self, listed: ListedObject, error: Exception) -> Result:
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__} in {Path(where.filename).name}, line {where.lineno}"
        self.delivery.log.error("bug", object=listed.key, message=f"{message}. Please report it; the mail stays.")
        with self._lock:
            self.summary.bugs += 1
        return Result(Outcome.FAILED, listed.key, words=message)

    def _halt(self, error: DrainError) -> None:
        with self._lock:
            self.error = self.error or error
