"""A bucket and a mail server that outlive the drains, and the check of what they hold in the end."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drain.demo.s3 import Fault, S3Server, StoredObject
from drain.ledger import Ledger
from drain.mail import Mail, on_the_wire
from drain.state import Row
from tests.crash.zygote import Order
from tests.http_fake import Answer, FakeHttp, Request, answer
from tests.smtp_fake import DROP, FakeSmtp
from tests.support import LONG_AGO, environment

ALICE = "alice@example.test"
BOB = "bob@example.test"


@dataclass
class Rig:
    """Lays mails, orders passes, checks."""

    s3: S3Server
    smtp: FakeSmtp
    policy: FakeHttp
    folder: Path
    zygote: "subprocess.Popen[str]"
    sabotage: str = ""
    laid: list[Mail] = field(default_factory=list)
    to_quarantine: set[str] = field(default_factory=set)
    to_nowhere: set[str] = field(default_factory=set)
    clock_offset: float = 0.0

    @property
    def log(self) -> Path:
        """Where the drains say what they do."""
        return self.folder / "log"

    def lay(self, number: int, *, refused: bool = False, decision: str = "allow") -> None:
        """One more mail under pending/; a refused or denied one is meant for quarantine, a silently denied one for nothing."""
        recipient = BOB if number % 3 == 0 else ALICE
        sender = f"{decision}@x.test"
        raw = b"Subject: %d\r\nX-Refuse: %s\r\n\r\nbody %d\r\n" % (number, b"yes" if refused else b"no", number)
        mail = Mail(raw, recipient, sender)
        self.laid.append(mail)
        if decision == "silent_deny":
            self.to_nowhere.add(mail.identity)
        elif refused or decision == "deny":
            self.to_quarantine.add(mail.identity)
        metadata = {"to": recipient, "from": sender}
        self.s3.objects[f"pending/{number:05}"] = StoredObject(raw, metadata, last_modified=LONG_AGO)

    def start(self, *, kill_at: str = "", kill_count: int = 1) -> int:
        """A drain begins a pass in which everything deferred is due; its process id."""
        self.clock_offset += 110_000  # longer than any wait between two tries
        order: Order = {
            # Hundreds of passes are years by this clock, and the check wants every row.
            "environ": {**_environ(self.s3, self.smtp, self.policy, self.folder), "LEDGER_RETENTION_DAYS": "36500"},
            "log": str(self.log),
            "clock_offset": self.clock_offset,
            "kill_at": kill_at,
            "kill_count": kill_count,
            "sabotage": self.sabotage,
        }
        return give(self.zygote, order)

    def end(self) -> int:
        """Waits for it; its exit code, -9 if it was killed."""
        return answer_of(self.zygote)

    def pass_(self, *, kill_at: str = "", kill_count: int = 1) -> int:
        """A whole pass, or what is left of it."""
        self.start(kill_at=kill_at, kill_count=kill_count)
        return self.end()

    def kill_after(self, seconds: float) -> int:
        """A pass killed at a moment, if it lives that long."""
        child = self.start()
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return self.end()

    def finish(self, passes: int = 12) -> None:
        """Passes without kills until nothing is left in pending/."""
        for _ in range(passes):
            self.pass_()
            if not any(key.startswith("pending/") for key in self.s3.objects):
                return
        raise AssertionError(f"still pending: {[k for k in self.s3.objects if k.startswith('pending/')][:5]}")

    def steps(self) -> Counter[str]:
        """How often each step was reached, in all passes."""
        return Counter(event["step"] for event in self._events() if event["event"] == "step")

    def last_step(self) -> str:
        """The step that the log ends at."""
        steps = [event["step"] for event in self._events() if event["event"] == "step"]
        return steps[-1] if steps else "(none)"

    def check(self) -> Counter[str]:
        """Every mail there, none half, each duplicate explained by the ledger; the counts.

        Raises:
            AssertionError: something is lost, or there twice without a reason.
        """
        counts = Counter[str](mails=len(self.laid))
        filed = Counter(_below_the_stamp(mail.content) for mail in self.smtp.filed)
        strangers = set(filed) - {on_the_wire(mail.raw) for mail in self.laid}
        assert not strangers, f"half a mail, or a changed one: {strangers.pop()!r}"
        keys = list(self.s3.objects)
        ledger = Ledger(self.folder / "state" / "ledger.db")
        for mail in self.laid:
            row = ledger.find(mail.identity)
            if mail.identity in self.to_nowhere:
                self._check_discarded(mail, row, filed, keys)
                continue
            aside = mail.identity in self.to_quarantine
            place = "quarantine/" if aside else "processed/"
            times = filed[on_the_wire(mail.raw)]
            assert times > 0 or aside, f"lost: {mail.raw!r}, ledger {row}"
            assert times == 0 or not aside, f"refused and yet filed: {mail.raw!r}"
            assert row is not None, f"no row: {mail.raw!r}"
            assert row.state == ("quarantined" if aside else "settled"), row
            assert any(key.startswith(f"{place}{mail.identity}-") for key in keys), f"no object in {place} for {row}"
            assert times <= 1 + row.reinjections, f"there {times} times without a reason: {row}"
            counts["twice"] += times > 1
            counts["reinjections"] += row.reinjections
        ledger.close()
        missing = [event for event in self._events() if event["event"] == "missing"]
        assert not missing, missing
        bugs = [event for event in self._events() if event["event"] == "bug"]
        assert not bugs, bugs
        return counts

    @staticmethod
    def _check_discarded(mail: Mail, row: Row | None, filed: Counter[bytes], keys: list[str]) -> None:
        assert row is not None, f"no row: {mail.raw!r}"
        assert row.state == "discarded", row
        assert not filed[on_the_wire(mail.raw)], f"discarded and yet filed: {mail.raw!r}"
        assert not any(mail.identity in key for key in keys), f"discarded and yet there: {row}"

    def _events(self) -> list[dict[str, str]]:
        events = []
        for line in self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):  # a kill can cut a line
                events.append(json.loads(line))
        return events


def give(zygote: "subprocess.Popen[str]", order: Order) -> int:
    """Has a drain begin; its process id."""
    assert zygote.stdin is not None
    zygote.stdin.write(json.dumps(order) + "\n")
    zygote.stdin.flush()
    return answer_of(zygote)


def answer_of(zygote: "subprocess.Popen[str]") -> int:
    """After `give`: how that drain ended, -9 if it was killed."""
    assert zygote.stdout is not None
    return int(zygote.stdout.readline())


def _below_the_stamp(filed: bytes) -> bytes:
    return filed.partition(b"X-Drain-Id: ")[2].partition(b"\r\n")[2]


@contextlib.contextmanager
def rig(folder: Path, sabotage: str = "") -> Iterator[Rig]:
    """A rig with a zygote of its own."""
    with S3Server() as s3, FakeSmtp() as smtp, FakeHttp(_decision) as policy:
        smtp.mailboxes.add("inbox@example.test")
        smtp.refuse = b"X-Refuse: yes"
        with running_zygote(_environ(s3, smtp, policy, folder)) as zygote:
            yield Rig(s3, smtp, policy, folder, zygote, sabotage)


@contextlib.contextmanager
def running_zygote(warm_up: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """One that has loaded what drains with these settings need."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.zygote"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CRASH_WARM_UP": json.dumps(warm_up)},
    ) as zygote:
        try:
            yield zygote
        finally:
            zygote.kill()


def _environ(s3: S3Server, smtp: FakeSmtp, policy: FakeHttp, folder: Path) -> dict[str, str]:
    settings = {"FILTERS": "auth,decision", "ALLOW_DISCARD": "true", "WEBHOOK_DECISION_URL": policy.url}
    return environment(s3, smtp, folder / "state", **settings)


def _decision(request: Request) -> Answer:
    """The sender's name says it."""
    return answer({"decision": request.json["message"]["sender"].partition("@")[0]})


def random_policy_fault(chance: random.Random, request: Request) -> Answer:
    """Now and then a policy endpoint that is out of order."""
    if chance.random() > 0.05:
        return _decision(request)
    return chance.choice([Answer(status=503), Answer(b"no JSON"), Answer(fate="reset"), Answer(fate="close")])


def random_s3_fault(chance: random.Random, operation: str) -> Fault | None:
    """Now and then something that R2 and the way to it do."""
    if chance.random() > 0.04:
        return None
    after = operation in {"CopyObject", "DeleteObject"} and chance.random() < 0.5
    return chance.choice(
        [
            Fault(status=503, code="SlowDown", after=after),
            Fault(status=429, code="TooManyRequests", after=after),
            Fault(status=500, after=after),
            Fault(drop=True, after=after),
            Fault(cut_after=10) if operation == "GetObject" else Fault(drop=True, after=after),
        ]
    )


def random_smtp_fault(chance: random.Random, verb: str) -> str | None:
    """Now and then something that a mail server does; ``FILED`` loses the 250 of a mail that is filed."""
    if chance.random() > 0.03:
        return None
    return {
        "CONNECT": "421 4.3.2 shutting down",
        "MAIL": "451 4.3.0 later",
        "RCPT": chance.choice(["450 4.2.1 later", "453 4.3.2 busy", DROP]),
        "DATA": DROP,
        "BODY": DROP,
        "DOT": "452 4.3.1 disk full",
        "FILED": DROP,
    }.get(verb)
