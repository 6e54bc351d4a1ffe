"""Clients, a smarthost and a mail server at home that outlive the relays, and the check of what they hold in the end."""

import contextlib
import email
import functools
import json
import os
import random
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drain import config as configuration, outbound
from drain.relay.bodies import BodyLost
from drain.relay.queue import OPEN, Entry, Queue, State
from drain.relay.users import Users
from tests.crash.relay_zygote import Order
from tests.relay import PASSWORD, below_received
from tests.smtp_fake import DROP, FakeSmtp
from tests.support import DOMAIN, until as wait_until

# What the smarthost makes of a recipient is in its local part.
FINE, REFUSED, LATER, NEVER = "fine", "refused", "later", "never"
_CLIENTS = 2
_DAY_SECONDS = 86400.0
_FINAL_RECIPIENT = re.compile(rb"^Final-Recipient: rfc822; (\S+)\r?$", re.MULTILINE)


@dataclass
class Submission:
    """One try of a client to send a mail. Each has bytes, sender and recipients of its own, so that it is known again."""

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    accepted: bool = False  # the client has read the 250


@dataclass
class RelayRig:
    """Lets clients send, orders relays, checks. Clients send each mail again until they have a 250 for it."""

    smarthost: FakeSmtp
    home: FakeSmtp
    folder: Path
    port: int
    zygote: "subprocess.Popen[str]"
    sabotage: str = ""
    submissions: list[Submission] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)  # what a client heard that is neither a 250 nor the end of a relay
    child: int = 0
    _asked_to_wait: set[str] = field(default_factory=set)
    _unsent: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _in_hand: int = 0
    _news: threading.Condition = field(default_factory=threading.Condition)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.smarthost.takes_all = self.home.takes_all = True
        self.smarthost.answer = self.usual
        Users(self.folder / "state" / "relay-users", ln=4).add("phone", PASSWORD.encode())
        for _ in range(_CLIENTS):
            threading.Thread(target=self._client, daemon=True).start()

    # -- clients --

    def submit(self, number: int, *kinds: str) -> None:
        """One more mail for the clients to send, with a recipient of each kind."""
        with self._news:
            self._unsent[number] = kinds
            self._news.notify()

    def usual(self, verb: str, argument: str) -> str | None:
        """What the smarthost says, by the recipient's local part."""
        if verb != "RCPT":
            return None
        address = argument[argument.index("<") + 1 : argument.index(">")]
        if address.startswith(REFUSED):
            return "550 5.1.1 nobody of that name"
        if address.startswith(NEVER) or (address.startswith(LATER) and address not in self._asked_to_wait):
            self._asked_to_wait.add(address)
            return "450 4.2.1 greylisted"
        return None

    def submission(self, number: int, kinds: tuple[str, ...]) -> Submission:
        """A new try of a mail."""
        with self._news:
            name = f"{number}.{len(self.submissions)}"
            sender = f"s{name}@{DOMAIN}"
            head = (
                f"From: <{sender}>\r\nTo: x@elsewhere.test\r\nSubject: {name}\r\n"
                f"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{name}@{DOMAIN}>\r\n\r\n"
            )
            lines = 2000 if number % 10 == 0 else number % 10 * 7
            raw = (head + "".join(f".line {line} of {name}\r\n" for line in range(lines))).encode()
            recipients = tuple(f"{kind}.{name}.{place}@elsewhere.test" for place, kind in enumerate(kinds))
            self.submissions.append(Submission(f"<{name}@{DOMAIN}>", sender, recipients, raw))
            return self.submissions[-1]

    def client(self, *, wait: bool = False) -> smtplib.SMTP:
        """A mail program that has logged in; with *wait* as soon as a relay listens."""
        if wait:
            wait_until(self._listens)
        client = smtplib.SMTP("127.0.0.1", self.port, "client.test", timeout=30)
        client.login("phone", PASSWORD)
        return client

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def _client(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._unsent or self._over.is_set())
                if self._over.is_set():
                    return
                number = min(self._unsent)
                kinds = self._unsent.pop(number)
                self._in_hand += 1
            while not self._sent(number, kinds) and not self._over.is_set():
                time.sleep(0.01)
            with self._news:
                self._in_hand -= 1

    def _sent(self, number: int, kinds: tuple[str, ...]) -> bool:
        try:
            client = self.client()
        except (OSError, smtplib.SMTPException):
            return False
        mail = self.submission(number, kinds)
        try:
            refused = client.sendmail(mail.sender, mail.recipients, mail.raw)
        except (OSError, smtplib.SMTPServerDisconnected):
            return False
        except smtplib.SMTPException as error:
            if "421" not in str(error):
                self.strange.append(str(error))
            return False
        else:
            mail.accepted = True
            self.strange += map(str, refused.items())
            return True
        finally:
            client.close()

    # -- relays --

    def start(
        self, *, kill_at: str = "", kill_count: int = 1, seconds: float = 20.0, clock_offset: float = 0.0
    ) -> None:
        """A relay begins."""
        order: Order = {
            "environ": environ(self.folder, self.port, self.smarthost, self.home),
            "log": str(self.folder / "log"),
            "clock_offset": clock_offset,
            "seconds": seconds,
            "kill_at": kill_at,
            "kill_count": kill_count,
            "sabotage": self.sabotage,
        }
        assert self.zygote.stdin is not None
        self.zygote.stdin.write(json.dumps(order) + "\n")
        self.zygote.stdin.flush()
        self.child = self._answer()

    def end(self) -> int:
        """Waits until it has ended; its exit code, -9 if it was killed."""
        code = self._answer()
        self.child = 0
        return code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Now, from whatever thread."""
        if child := self.child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    def kill_on(self, verb: str) -> Callable[[str, str], str | None]:
        """An ``answer``, as `usual` but for the first time that *verb* is heard: then the relay dies, and has no reply."""
        left = [verb]

        def answer(asked: str, argument: str) -> str | None:
            if asked in left:
                left.remove(asked)
                self.kill()
                return DROP
            return self.usual(asked, argument)

        return answer

    def let_all_be_sent(self, seconds: float = 30.0) -> None:
        """A relay that nobody kills runs until each mail has its 250."""
        with self._running_until(seconds) as until:
            until(lambda: not (self._unsent or self._in_hand))

    def finish(self, seconds: float = 30.0, *, days: float = 0.0) -> None:
        """The same, until the queue is empty too; by a clock that is *days* ahead."""
        with self._running_until(seconds, days) as until, self.queue() as queue:
            until(lambda: not (self._unsent or self._in_hand or queue.entries(State.WAITING, State.SENDING)))

    @contextlib.contextmanager
    def _running_until(self, seconds: float, days: float = 0.0) -> Iterator[Callable[[Callable[[], bool]], None]]:
        self.start(seconds=seconds + 10, clock_offset=days * _DAY_SECONDS)
        wait_until(self._listens)  # from then on it ends as it should, and has looked through its queue
        yield functools.partial(wait_until, seconds=seconds)
        self.kill(signal.SIGTERM)
        code = self.end()
        assert code == 0, f"the relay ended with {code}"

    def steps(self) -> Counter[str]:
        """How often each step was reached, in all relays."""
        return Counter(event["step"] for event in self._events() if event["event"] == "step")

    def last_step(self) -> str:
        """The step that the log ends at."""
        steps = [event["step"] for event in self._events() if event["event"] == "step"]
        return steps[-1] if steps else "(none)"

    # -- the check --

    @contextlib.contextmanager
    def queue(self) -> Iterator[Queue]:
        """The queue, as another process has it open."""
        settings = environ(self.folder, self.port, self.smarthost, self.home)
        with contextlib.closing(outbound.queue(configuration.load(settings, complete=False)[0])) as queue:
            yield queue

    def look(self) -> None:
        """What a kill left: every mail that the queue wants to send can be read, and is what a client sent.

        Raises:
            AssertionError: one cannot, or is not.
        """
        sent = {mail.raw for mail in self.submissions}
        with self.queue() as queue:
            for entry in queue.entries(*OPEN):
                try:
                    raw = queue.body(entry)
                except BodyLost as error:
                    raise AssertionError(f"a body is lost: {error}") from error
                assert entry.mail.inbound or below_received(raw) in sent, f"a changed mail: {entry}"

    def check(self) -> Counter[str]:
        """Every mail there or reported, none half, each duplicate explained by the queue, and nothing left; the counts.

        Raises:
            AssertionError: it is not so.
        """
        with self.queue() as queue:
            entries = queue.entries(*State)
        assert not self.strange, self.strange
        left = [entry for entry in entries if entry.state in OPEN]
        assert not left, f"left in the queue: {left}"
        bodies = list((self.folder / "state" / "relay" / "mails").iterdir())
        assert not bodies, f"bodies left: {bodies}"
        alarms = [event for event in self._events() if event["level"] in {"error", "alert"}]
        assert not alarms, alarms
        filed = Counter((below_received(mail.content), mail.mailbox) for mail in self.smarthost.filed)
        strangers = {raw for raw, _ in filed} - {mail.raw for mail in self.submissions}
        assert not strangers, f"half a mail, or a changed one: {strangers.pop()[:500]!r}"
        reported = self._reported()
        counts = Counter[str](dict.fromkeys(("twice", "reported twice"), 0))
        of_mail, of_report = _unknown(entries)
        for mail in self.submissions:
            counts["mails"] += mail.accepted
            counts["without a 250, yet there"] += not mail.accepted and mail.message_id in of_mail
            counts["unknown"] += of_mail[mail.message_id]
            for recipient in mail.recipients:
                there, reports = filed[mail.raw, recipient], reported[mail.message_id, recipient]
                why = f"{mail.message_id} to {recipient}: filed {there}, reported {reports}, unknown {of_mail[mail.message_id]}"
                assert there or reports or not mail.accepted, f"lost: {why}"
                assert there <= 1 + of_mail[mail.message_id], f"there without a reason: {why}"
                assert not (there and reports) or of_mail[mail.message_id], f"reported and yet there: {why}"
                assert reports <= 1 + of_report[mail.sender], f"reported without a reason: {why}"
                counts["there"] += there > 0
                counts["reported"] += reports > 0
                counts["twice"] += there > 1
                counts["reported twice"] += reports > 1
                counts["reported and there"] += bool(there and reports)
        return counts

    def _reported(self) -> Counter[tuple[str, str]]:
        """How often the sender has heard of each mail and recipient that it failed."""
        sender_of = {mail.message_id: mail.sender for mail in self.submissions}
        reported = Counter[tuple[str, str]]()
        for report in self.home.filed:
            message_id = str(email.message_from_bytes(report.content)["In-Reply-To"])
            recipients = _FINAL_RECIPIENT.findall(report.content)
            assert (report.sender, report.mailbox) == ("", sender_of[message_id]), report
            assert recipients, report
            reported.update((message_id, recipient.decode()) for recipient in recipients)
        return reported

    def _events(self) -> list[dict[str, str]]:
        events, log = [], self.folder / "log"
        for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):  # a kill can cut a line
                events.append(json.loads(line))
        return events

    def _answer(self) -> int:
        assert self.zygote.stdout is not None
        return int(self.zygote.stdout.readline())

    def stop(self) -> None:
        """No client goes on, no relay is left."""
        with self._news:
            self._over.set()
            self._news.notify_all()
        if self.child:
            self.kill()
            self.end()


def _unknown(entries: Iterable[Entry]) -> tuple[defaultdict[str, int], defaultdict[str, int]]:
    """How many tries of a mail, by its Message-ID, and of its reports, by its sender, had an end that is not known."""
    of_mail, of_report = defaultdict[str, int](int), defaultdict[str, int](int)
    for entry in entries:
        if entry.mail.inbound:
            of_report[entry.recipients[0]] += entry.unknown
        else:
            of_mail[entry.mail.message_id] += entry.unknown
    return of_mail, of_report


@contextlib.contextmanager
def zygote(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """One for all rigs of a run."""
    settings = environ(folder, 1, FakeSmtp(port=2), FakeSmtp(port=3))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.relay_zygote"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CRASH_WARM_UP": json.dumps(settings)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def relay_rig(folder: Path, zygote: "subprocess.Popen[str]", sabotage: str = "") -> Iterator[RelayRig]:
    """A rig, with whatever *sabotage* in each of its relays."""
    with FakeSmtp() as smarthost, FakeSmtp() as home:
        rig = RelayRig(smarthost, home, folder, _port(), zygote, sabotage)
        try:
            yield rig
        finally:
            rig.stop()


def environ(folder: Path, port: int, smarthost: FakeSmtp, home: FakeSmtp) -> dict[str, str]:
    """The settings of a relay."""
    return {
        "STATE_DIR": str(folder / "state"),
        "RELAY_KEY_FILE": str(folder / "relay.key"),
        "DRAIN_ENV_FILE": "/dev/null",
        "MAIL_DOMAIN": DOMAIN,
        "ALLOWED_FROM": f"@{DOMAIN}",
        "RATE_LIMIT_PER_MINUTE": "0",
        "RATE_LIMIT_PER_DAY": "0",
        "INJECT_PORT": str(home.port),
        "INJECT_USER": home.user,
        "INJECT_PASS": home.password,
        "RELAY_PORT": str(port),
        "RELAY_CONNECTIONS": "3",
        "RELAY_UPSTREAM": "smtp",
        "SMARTHOST_HOST": f"127.0.0.1:{smarthost.port}",
        "SMARTHOST_USER": smarthost.user,
        "SMARTHOST_PASS": smarthost.password,
        "SMARTHOST_TLS": "none",
    }


def _port() -> int:
    """A free one below those that the kernel gives out: a client that finds nobody there must not meet itself."""
    for port in random.sample(range(20000, 32000), 50):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


def random_smarthost_fault(chance: random.Random, verb: str) -> str | None:
    """Now and then something that a smarthost does; ``FILED`` loses the 250 of a mail that is filed."""
    if chance.random() > 0.05:
        return None
    if chance.random() < 0.1:
        time.sleep(0.2)
        return None
    replies = {
        "CONNECT": [DROP, "421 4.3.2 shutting down", "554 5.3.2 not today"],
        "MAIL": [DROP, "421 4.3.2 shutting down", "451 4.3.0 later"],
        "RCPT": [DROP, "450 4.2.1 later", "452 4.5.3 too many", "550 5.7.1 not to this one"],
        "DATA": [DROP, "451 4.3.0 later"],
        "BODY": [DROP],
        "DOT": [DROP, "452 4.3.1 disk full", "421 4.3.2 shutting down", "554 5.6.0 not such a mail"],
        "FILED": [DROP],
    }.get(verb)
    return chance.choice(replies) if replies else None


def random_home_fault(chance: random.Random, verb: str) -> str | None:
    """The same of the mail server at home, which has nothing against a report for good."""
    answer = random_smarthost_fault(chance, verb)
    return None if answer is not None and answer.startswith("5") else answer
