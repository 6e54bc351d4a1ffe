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
from collections.abc import Callable, Iterable, Iterator, Mapping, Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from drain import lock
from drain.bucket import Bucket
from drain.errors import DrainError
from drain.listing import ListedObject
from drain.log import Log
from drain.outcome import Result, Step
from drain.prefixes import Prefixes
from drain.summary import Summary

if TYPE_CHECKING:
    from drain.delivery import Delivery, NoKey
    from drain.filters.chain import Chain
    from drain.ledger import Ledger, Version
    from drain.sessions import Sessions
    from drain.tools import Tools


@dataclass
class Sweep:
    """Makes passes, one at a time."""

    bucket: Bucket
    prefixes: Prefixes
    tools: "Callable[[], Tools]"
    state_dir: Path
    ledger_path: Path
    lock_path: Path
    log: Log
    concurrency: int
    inject_connections: int
    memory_budget: int
    retention_seconds: float
    stop: threading.Event = field(default_factory=threading.Event)
    step: Callable[[Step, str], None] = lambda step, name: None
    on_listed: Callable[[int], None] = lambda count: None
    on_result: Callable[[Result], None] = lambda result: None
    # What follows a pass, once the lock is released.
    on_end: Callable[[Summary], None] = lambda summary: None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] | None = None
    sleep: Callable[[float], None] = time.sleep
    # Whether the ledger had unfinished mails when last seen, and the files as they were then.
    _unfinished: bool = False
    _ledger_seen: tuple[tuple[int, int], ...] = ()
    _no_key: "dict[ListedObject, NoKey]" = field(default_factory=dict)

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
            if first is not None or self._has_unfinished():
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

    def _has_unfinished(self) -> bool:
        if not self.ledger_path.exists():
            return False
        from drain.ledger import Ledger  # noqa: PLC0415 (there is none before the first mail)

        # A command may have written to it meanwhile: `drain quarantine release` does.
        if self._ledger_seen != _stamps(self.ledger_path):
            with contextlib.closing(Ledger(self.ledger_path)) as ledger:
                self._unfinished = bool(ledger.unfinished())
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
        from drain.feeding import Feeding  # noqa: PLC0415 (an idle pass is over in less time than these take to load)
        from drain.ledger import Ledger  # noqa: PLC0415
        from drain.sessions import Sessions  # noqa: PLC0415

        self._ledger_seen = ()
        with (
            lock.held(self.lock_path, self.log, timeout_seconds=lock_wait_seconds),
            contextlib.closing(Ledger(self.ledger_path)) as ledger,
            contextlib.closing(Sessions(self.tools().connect, self.inject_connections)) as sessions,
        ):
            self.step(Step.LOCKED, "")
            delivery = self._delivery(ledger, sessions)
            work = Feeding(
                delivery=delivery,
                summary=summary,
                pending_prefix=self.prefixes.pending,
                concurrency=self.concurrency,
                memory_budget=self.memory_budget,
                stop=self.stop,
                on_listed=self.on_listed,
                on_result=self.on_result,
            )
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
            ledger.prune_daily(self.clock() - self.retention_seconds, self.clock(), self.stop.is_set)
            if complete:
                summary.woken = self._wake(work.canaries, delivery.chain, ledger)
            summary.error = work.error or (None if summary.progressed else work.refused)

    @staticmethod
    def _wake(canaries: AbstractSet[str], chain: "Chain", ledger: "Ledger") -> int:
        """Makes due what waited for a filter that one of its mails has passed by now; how many."""
        closed = {f"filter-{name}" for name in chain.failing - chain.fail_open}
        return sum(ledger.wake(reason) for reason in canaries - closed)

    def _delivery(self, ledger: "Ledger", sessions: "Sessions") -> "Delivery":
        from drain import stamp  # noqa: PLC0415 (as above)
        from drain.delivery import Delivery  # noqa: PLC0415
        from drain.ends import Ends  # noqa: PLC0415
        from drain.handover import Handover  # noqa: PLC0415
        from drain.notes import Purse  # noqa: PLC0415

        tools = self.tools()
        ends = Ends(self.bucket, ledger, self.prefixes, self.log, self.step, self.clock)
        if self.monotonic is not None:
            ends = replace(ends, monotonic=self.monotonic)
        return Delivery(
            bucket=self.bucket,
            ledger=ledger,
            opener=tools.opener,
            chain=tools.policy.chain(Purse(ledger.notes, self.clock), self.stop.is_set),
            marks=tools.marks,
            router=tools.router,
            handover=Handover(sessions, ledger, ends, self.log, self.step, self.clock),
            ends=ends,
            stamp=stamp.load(self.state_dir),
            mailboxes=tools.mailboxes,
            log=self.log,
            step=self.step,
            clock=self.clock,
            sleep=self.sleep,
            no_key=self._no_key,
        )

    def _released(self, unseen: "Mapping[Version, str]", delivery: "Delivery") -> Iterator[list[ListedObject]]:
        """What a person released from quarantine, or replays, and is not delivered yet; it lies where it was."""
        for (key, etag, last_modified), identity in list(unseen.items()):
            row = None if key.startswith(self.prefixes.pending) else delivery.ledger.find(identity)
            if row is None or not row.released:
                continue
            if delivery.not_due(row):
                yield [ListedObject(key, etag, datetime.datetime.fromisoformat(last_modified), 0)]
            elif (listed := self.bucket.find(key)) is not None and listed.key == key:
                yield [listed]

    def _account_for(self, unseen: "dict[Version, str]", ledger: "Ledger", summary: Summary) -> None:
        """Finds out what became of unfinished mails whose object a complete LIST did not show."""
        from drain.state import State  # noqa: PLC0415 (as above)

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
            if row.released and all(key.startswith(self.prefixes.processed) for key in names):
                self.log.warning(
                    "replay", id=identity[:16], message="It is gone from the bucket; it was delivered before."
                )
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
