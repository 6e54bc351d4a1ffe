"""What is due goes upstream: a few threads, each with one entry in hand.

An attempt of a mail is one that the upstream heard of. While the upstream cannot be
reached (`gate`) no mail is blamed for it: the queue waits, and one mail tries; which
one, goes round, so that no single mail can keep the others back.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from drain import backoff
from drain.errors import DrainError, Unavailable
from drain.log import Log
from drain.relay.bodies import BodyLost
from drain.relay.gate import Gate
from drain.relay.queue import Entry, Parcel, Queue
from drain.relay.step import Step
from drain.upstreams import Action, Fate, Shipment, Upstream, UpstreamDown, UpstreamRefused, for_all

_FIRST_RETRY_SECONDS = 60.0
_LAST_RETRY_SECONDS = 3600.0
# How long it may take until a `drain relay queue retry` is seen: another process wrote it.
_LOOK_SECONDS = 10.0
# A phone that was away for a week finds its link a moment after it wakes: mails that are
# too old go back only when the link was down for so long while it was awake.
_GIVE_UP_WHILE_DOWN_SECONDS = 3600.0
_DOWN_AGAIN_SECONDS = 1.0
# A provider may say "forbidden" to one mail for what is in it. After so many times in
# which the next mail got through, it is that mail's own failure, and its time is limited.
_MOST_COINCIDENCES = 4
# A program that sends one mail after the other gets one connection; a phone's radio may rest soon after.
_LINGER_SECONDS = 5.0
# A Pi without a clock may have taken a mail "in 1970"; and who was away for a week should
# not have everything returned for one greylisting.
_FEWEST_ATTEMPTS = 4


@dataclass
class Dispatch:
    """Sends the entries of one direction: users' mails, or (`inbound`) DSNs.

    ``dsn`` makes the DSN for those recipients of an entry that failed (a fate of
    `Action.DELAYED` among them: its time is over), ``reported`` says that there is one
    in the queue.
    """

    queue: Queue
    upstream: Upstream
    log: Log
    inbound: bool
    workers: int
    lifetime_seconds: float
    dsn: Callable[[Entry, Mapping[str, Fate], float], Parcel | None]
    reported: Callable[[], None] = lambda: None
    step: Callable[[Step, str], None] = lambda step, name: None
    clock: Callable[[], float] = time.time
    gate: Gate = field(default_factory=Gate)
    _stop: threading.Event = field(default_factory=threading.Event)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _threads: list[threading.Thread] = field(default_factory=list)
    _busy: int = 0
    _turned_back: set[str] = field(default_factory=set)  # entries, since the upstream last answered to one
    _blamed: dict[str, int] = field(default_factory=dict)
    _sent_at: float = float("-inf")

    def start(self) -> None:
        """Begins to send."""
        for number in range(self.workers):
            name = f"{self.upstream.name}-{number}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def wake(self) -> None:
        """There is something new in the queue."""
        with self._news:
            self._news.notify_all()

    def stop(self, seconds: float) -> None:
        """Ends: what is in hand is given that long, then broken off."""
        self._stop.set()
        self.wake()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self.upstream.stop()
            for thread in self._threads:
                thread.join(1.0)
        self.upstream.rest()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                entry = self._next()
                if entry is None:
                    self._wait()
                else:
                    self._send(entry)
            except DrainError as error:
                # The queue's own disk is full, say: the mail is safe, and is sent when that is over.
                self.log.warning("relay", message=str(error))
                self._stop.wait(_LOOK_SECONDS)
            except Exception as error:  # noqa: BLE001  # a bug, told; the thread has to go on
                self._bug(error)
                self._stop.wait(_LOOK_SECONDS)

    def _next(self) -> Entry | None:
        if not self.gate.enter():
            return None
        try:
            entry = self.queue.lease(self.clock(), inbound=self.inbound)
        except BaseException:
            self.gate.leave()
            raise
        if entry is None:
            self.gate.leave()
            return None
        with self._news:
            self._busy += 1
        return entry

    def _wait(self) -> None:
        with self._news:
            idle = not self._busy and time.monotonic() - self._sent_at > _LINGER_SECONDS
        if idle:
            self.upstream.rest()
        due_at = self.queue.next_due_at(inbound=self.inbound)
        wait = _LOOK_SECONDS if due_at is None else min(max(due_at - self.clock(), 0.05), _LOOK_SECONDS)
        wait = max(wait, min(self.gate.wait_seconds, _LOOK_SECONDS))
        with self._news:
            if not self._stop.is_set():
                self._news.wait(wait)

    def _send(self, entry: Entry) -> None:
        try:
            self._try(entry)
        except Exception as error:  # noqa: BLE001  # a bug: nobody knows what became of it, and it may be so again
            self._bug(error)
            self._noted(lambda: self.queue.hold(entry, "drain has a bug here; see its log", self.clock()))
            self._alert(entry, "drain has a bug, and does not know what became of a mail. It is held.")
        finally:
            self.gate.leave()
            with self._news:
                self._busy -= 1
                self._sent_at = time.monotonic()

    def _try(self, entry: Entry) -> None:
        try:
            raw = self.queue.body(entry)
        except BodyLost as error:
            words = str(error)
            self._noted(lambda: self.queue.hold(entry, words, self.clock()))
            self._alert(entry, f"{words} It is held until `drain relay queue retry`.")
            return
        shipment = Shipment(f"drain-{entry.id}", entry.mail.sender, entry.recipients, raw)
        try:
            fates = self.upstream.send(shipment)
        except (UpstreamDown, UpstreamRefused) as error:
            self._down(entry, error)
            return
        except Exception as error:  # noqa: BLE001  # a bug, and perhaps this mail's: the others must not wait for it
            self._bug(error)
            fate = Fate(Action.DELAYED, "4.3.0", "drain has a bug here; see its log", unknown=True)
            self._settle(entry, for_all(shipment, fate))
            return
        self.step(Step.ANSWERED, entry.id)
        self._blame_others(entry)
        if self.gate.open():
            self.log.notice(
                "relay", message="Reports can be filed again." if self.inbound else "Outgoing mail can be sent again."
            )
            self.wake()
        silent = Fate(Action.DELAYED, "4.0.0", "the upstream said nothing about this recipient")
        self._settle(entry, {address: fates.get(address, silent) for address in entry.recipients})

    def _blame_others(self, entry: Entry) -> None:
        """The upstream answers to this mail: what it said to those before was perhaps about them."""
        with self._news:
            self._blamed.pop(entry.id, None)
            self._turned_back.discard(entry.id)
            for other in self._turned_back:
                self._blamed[other] = self._blamed.get(other, 0) + 1
            self._turned_back.clear()

    def _is_to_blame(self, entry: Entry) -> bool:
        """Whether this mail found the upstream out of order again and again, while others got through."""
        with self._news:
            self._turned_back.add(entry.id)
            return self._blamed.get(entry.id, 0) >= _MOST_COINCIDENCES

    def _down(self, entry: Entry, error: UpstreamDown | UpstreamRefused) -> None:
        now = self.clock()
        if self._is_to_blame(entry):
            self._settle(entry, dict.fromkeys(entry.recipients, Fate(Action.DELAYED, "4.4.1", str(error))))
            return
        # A moment later than now, so that the next try is another mail's.
        self._noted(lambda: self.queue.give_back(entry, now + _DOWN_AGAIN_SECONDS, str(error), now))
        retry_after = error.retry_after if isinstance(error, UpstreamDown) else None
        if self.gate.shut(error, retry_after):
            say = self.log.alert if isinstance(error, UpstreamRefused) else self.log.warning
            say("relay", message=f"{error} Outgoing mail waits; one mail tries now and then.")
        if not self.inbound and self.gate.shut_seconds > _GIVE_UP_WHILE_DOWN_SECONDS:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        """What is too old goes back although the upstream was not to be had."""
        for overdue in self.queue.overdue(now - self.lifetime_seconds):
            if not self.queue.claim(overdue, now):
                continue  # another thread tries it just now
            fate = Fate(Action.DELAYED, "4.4.1", overdue.diagnostic or self.gate.why)
            self._settle(overdue, dict.fromkeys(overdue.recipients, fate), down=True)

    def _settle(self, entry: Entry, fates: Mapping[str, Fate], *, down: bool = False) -> None:
        now, last = self.clock(), fates
        if self.inbound:
            failed = next((fate for fate in fates.values() if fate.action is Action.FAILED), None)
            if failed is not None:
                self._noted(lambda: self.queue.hold(entry, failed.diagnostic, now))
                self._alert(entry, f"A report of a failed mail cannot be filed: {failed.diagnostic}. It is held.")
                return
        elif now - entry.mail.received_at > self.lifetime_seconds and (down or entry.attempts >= _FEWEST_ATTEMPTS):
            fates = {address: _given_up(fate) for address, fate in fates.items()}
        failures = {address: last[address] for address, fate in fates.items() if fate.action is Action.FAILED}
        report = self.dsn(entry, failures, now) if failures else None
        next_attempt_at = now + backoff.seconds(entry.attempts, _FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
        self._noted(lambda: self.queue.settle(entry, fates, next_attempt_at, report, now))
        if report is not None:
            self.reported()
        for address, fate in fates.items():
            self._say(entry, address, fate)

    def _noted(self, note: Callable[[], None]) -> None:
        """Writes into the queue; while its disk is full, again and again, since what is known would be lost.

        If drain is stopped meanwhile, the entry is sent again at the next start, and counted as unknown.
        """
        while True:
            try:
                note()
            except Unavailable as error:
                self.log.alert("relay", message=f"What became of a mail cannot be noted. {error}")
                if self._stop.wait(_LOOK_SECONDS):
                    return
            else:
                return

    def _bug(self, error: Exception) -> None:
        self.log.error("bug", message=f"A bug in drain: {type(error).__name__}: {error}")

    def _say(self, entry: Entry, address: str, fate: Fate) -> None:
        say = {Action.RELAYED: self.log.info, Action.DELAYED: self.log.notice, Action.FAILED: self.log.warning}
        say[fate.action](
            "dsn" if self.inbound else "relay",
            state=fate.action.value,
            id=entry.id[:16],
            mail=entry.mail.id[:16] if entry.mail.id != entry.id else None,
            to=address,
            status=fate.status,
            reply=fate.diagnostic,
            reference=fate.reference or None,
            attempt=entry.attempts + 1,
        )

    def _alert(self, entry: Entry, words: str) -> None:
        self.log.alert("relay", id=entry.id[:16], message=words)


def _given_up(fate: Fate) -> Fate:
    """The same after the lifetime: a delay is a failure now; its status still says why (RFC 3464 2.3.4)."""
    return replace(fate, action=Action.FAILED) if fate.action is Action.DELAYED else fate
