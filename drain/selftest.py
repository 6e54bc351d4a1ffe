"""A probe mail sent the whole way, from the seal to the mailbox, and each leg timed.

It is laid into ``pending/`` as the Worker would, and delivered as any mail: by a pass
of our own, or by another drain that is at work. Nothing of it is cleaned up: it
goes to ``processed/`` as the others do, and one that is late stays where it is and
is delivered when it can be. To take it away could mean to take it out of the
hands of another drain.
"""

import contextlib
import datetime
import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import TYPE_CHECKING

from drain import stamp
from drain.errors import DrainError, LockHeld
from drain.history import Event
from drain.ledger import Ledger
from drain.mail import Mail
from drain.mailboxes import Answer, Presence
from drain.outcome import Outcome, Result, Step
from drain.sealed import seal
from drain.setting import Secret
from drain.state import Row, State
from drain.summary import Summary
from drain.sweep import Sweep

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_POLL_SECONDS = 2.0
_CONTENT_TYPE = "application/octet-stream"
# In the order in which they come; where one is not known, the next one's time is that of both.
_LEGS = {
    "sealed": "sealed",
    "put": "put into the bucket",
    Step.LISTED: "listed",
    Step.CONNECTED: "logged in to the mail server",
    Step.FETCHED: "fetched",
    Step.OPENED: "opened",
    Step.FILTERED: "judged by the filters",
    State.INJECTING: "taken up, and a mailbox found",
    State.DELIVERED: "handed over",
    State.SETTLED: "moved to processed/",
    "found": "found in the mailbox",
}
_ENDS = (State.SETTLED, State.QUARANTINED, State.DISCARDED)


@dataclass(frozen=True)
class Probe:
    """A mail and the object that it is in; ``name`` is the object's, without its prefix."""

    mail: Mail
    name: str
    body: bytes
    sealed: bool


def letter(recipient: str, sender: str, number: str, now: float) -> bytes:
    """The mail itself, which says what it is; *number* tells it from others, *now* is Unix time."""
    date = format_datetime(datetime.datetime.fromtimestamp(now, datetime.UTC))
    lines = (
        f"Date: {date}",
        f"From: drain selftest <{sender}>",
        f"To: <{recipient}>",
        f"Subject: drain selftest {number}",
        f"Message-ID: <drain-selftest-{number}@{sender.rpartition('@')[2]}>",
        "Auto-Submitted: auto-generated",  # RFC 3834: nobody on holiday answers it
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        "This is a probe mail. `drain selftest` put it into the bucket to see whether mail",
        "comes home, and how long that takes. It has done its work: you can delete it.",
        "",
    )
    return "\r\n".join(lines).encode()


def make(
    recipient: str, sender: str, key: "X25519PrivateKey | None", token: Secret | None, now: float | None = None
) -> Probe:
    """A probe for that recipient, sealed as this project's Worker seals; plain without a *key*.

    A plain one says nothing of its recipient, since nothing stands beside it in the
    bucket: the catch-all takes it.
    """
    now = time.time() if now is None else now
    raw = letter(recipient, sender, secrets.token_hex(6), now)
    if key is None:
        return Probe(Mail(raw, "", ""), hashlib.sha256(b"\n" + raw).hexdigest(), raw, sealed=False)
    named = recipient.encode() + b"\n" + raw
    header = {"to": recipient, "from": sender, "received": _rfc3339(now), "ip": None}
    if token is None:
        name = hashlib.sha256(named).hexdigest()
    else:
        header["token"] = token.reveal()
        name = hmac.new(token.reveal().encode(), named, hashlib.sha256).hexdigest()
    return Probe(Mail(raw, recipient, sender), name, seal(header, raw, key), sealed=True)


def _rfc3339(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Leg:
    """One part of the way, and how long it took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """How far a probe came.

    ``state`` is that of its row, else what the pass made of it (`Outcome`), else
    ``pending`` or ``gone``; ``words`` say what holds it up, "" for nothing. ``answer``
    is the mailbox's; None: not asked. ``others`` is how many other mails the passes
    met that were made for this one.
    """

    probe: Probe
    legs: tuple[Leg, ...]
    state: str
    mailbox: str
    verdict: str
    words: str
    answer: Answer | None
    others: int
    exit_code: int

    @property
    def seconds(self) -> float:
        """From the seal to the last that is known."""
        return sum(leg.seconds for leg in self.legs)


@dataclass
class Selftest:
    """Sends probes. ``ask`` is `Mailboxes.ask`, or None where no mailbox can be asked."""

    sweep: Sweep
    ask: Callable[[str, str], Answer] | None
    clock: Callable[[], float] = time.time
    _at: dict[str, float] = field(default_factory=dict)
    _result: Result | None = None
    _others: int = 0

    def run(self, make_probe: Callable[[], Probe], timeout_seconds: float) -> Report:
        """Makes a probe, lays it into the bucket and follows it, for at most that long (and 10 s for mail in hand).

        Raises:
            DrainError: the bucket does not take it.
        """
        begun = self.clock()
        probe = make_probe()
        self._at["sealed"] = self.clock()
        key = f"{self.sweep.prefixes.pending}{probe.name}"
        self.sweep.bucket.put(key, probe.body, _CONTENT_TYPE)
        self._at["put"] = self.clock()
        self._listen(probe, key)
        # A backlog can keep a pass busy for hours.
        timer = threading.Timer(timeout_seconds, self.sweep.stop.set)
        timer.daemon = True
        timer.start()
        try:
            row, events, error = self._follow(probe)
            answer = self._look(row) if row is not None and row.state is State.SETTLED else None
        finally:
            timer.cancel()
        if events and Step.FETCHED not in self._at:  # another drain had it, and our looks in between are no legs
            self._at = {mark: self._at[mark] for mark in ("sealed", "put", "found") if mark in self._at}
        self._at |= {event.what: event.last_at for event in events}
        state = self._state(row, key)
        return Report(
            probe=probe,
            legs=tuple(_legs(begun, self._at)),
            state=state,
            mailbox=(row.mailbox or "") if row else "",
            verdict=self._result.verdict if self._result else "",
            words=self._words(row, state, error, answer),
            answer=answer,
            others=self._others,
            exit_code=_exit_code(state, error, answer),
        )

    def _listen(self, probe: Probe, key: str) -> None:
        observer, told = self.sweep.step, self.sweep.on_result

        def stepped(step: Step, name: str) -> None:
            # What belongs to no mail counts until ours is fetched: a later pass lists too.
            if name in (key, probe.mail.identity) or (not name and Step.FETCHED not in self._at):
                self._at[step] = self.clock()
            observer(step, name)

        def resulted(result: Result) -> None:
            if result.key == key:
                self._result = result
            elif result.outcome is not Outcome.WAITING:
                self._others += 1
            told(result)

        self.sweep.step, self.sweep.on_result = stepped, resulted

    def _follow(self, probe: Probe) -> tuple[Row | None, list[Event], DrainError | None]:
        """Until it is at an end, or something else is, or the time is over."""
        while True:
            summary: Summary = self.sweep.run()
            row, events = self._known(probe.mail.identity)
            failed = summary.error is not None and not isinstance(summary.error, LockHeld)
            if failed or (row is not None and row.state in _ENDS) or self._set_aside_unknown(row):
                break
            if self.sweep.stop.wait(_POLL_SECONDS):
                row, events = self._known(probe.mail.identity)
                break
        return row, events, summary.error

    def _set_aside_unknown(self, row: Row | None) -> bool:
        """Whether it was not even taken for the mail that it is."""
        return row is None and self._result is not None and self._result.outcome is Outcome.QUARANTINED

    def _known(self, identity: str) -> tuple[Row | None, list[Event]]:
        if not self.sweep.ledger_path.exists():  # another drain has just begun, or no pass could
            return None, []
        with contextlib.closing(Ledger(self.sweep.ledger_path)) as ledger:
            return ledger.find(identity), ledger.history.of(identity)

    def _look(self, row: Row) -> Answer | None:
        """Asks the mailbox until it has it: a mail server may say 250 before it files."""
        if self.ask is None or row.mailbox is None:
            return None
        value = stamp.load(self.sweep.state_dir).value(row.identity)
        while True:
            answer = self.ask(row.mailbox, value)
            if answer.presence is Presence.THERE:
                self._at["found"] = self.clock()
            if answer.presence in (Presence.THERE, Presence.NO_LOGIN) or self.sweep.stop.wait(_POLL_SECONDS):
                return answer

    def _state(self, row: Row | None, key: str) -> str:
        if row is not None:
            return row.state.value
        if self._result is not None and self._result.outcome is not Outcome.GONE:
            return self._result.outcome.value
        try:
            return "pending" if self.sweep.bucket.exists(key) else "gone"
        except DrainError:  # said already
            return "pending"

    def _words(self, row: Row | None, state: str, error: DrainError | None, answer: Answer | None) -> str:
        """What holds it up."""
        if state == State.SETTLED:
            return answer.words if answer is not None and answer.presence is not Presence.THERE else ""
        if row is not None and row.reason:
            return ": ".join(filter(None, (row.reason, row.words)))
        if error is not None:
            return str(error)
        if self._result is not None and (self._result.why or self._result.words):
            return ": ".join(filter(None, (self._result.why, self._result.words)))
        if state == "gone":
            return "It is not in pending/ any more, and this ledger does not know it: another drain, with a ledger of its own, has taken it."
        return "" if state in _ENDS else "The time was over before it could be looked at: raise --timeout."


def _legs(begun: float, at: dict[str, float]) -> list[Leg]:
    legs, before = [], begun
    for mark, name in _LEGS.items():
        if mark in at:
            legs.append(Leg(name, at[mark] - before))
            before = at[mark]
    return legs


def _exit_code(state: str, error: DrainError | None, answer: Answer | None) -> int:
    if state == State.SETTLED:
        late = answer is not None and answer.presence in (Presence.ABSENT, Presence.UNKNOWN)
        return os.EX_TEMPFAIL if late else os.EX_OK
    if state in (State.QUARANTINED, State.SETTING_ASIDE, State.DISCARDED, State.DISCARDING):
        # Nothing is wrong with the probe: it is the set-up that keeps it back.
        return os.EX_CONFIG
    return error.exit_code if error is not None else os.EX_TEMPFAIL
