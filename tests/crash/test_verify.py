"""SIGKILL between the final dot and the commit, with a real Postfix and a Dovecot to ask: no mail comes twice."""

import contextlib
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drain import stamp
from drain.demo.s3 import S3Server, StoredObject
from drain.ledger import Ledger
from drain.mail import Mail
from drain.outcome import Step
from tests.crash.rig import ALICE, BOB, answer_of, give, running_zygote
from tests.real.dovecot import MASTER, Dovecot
from tests.real.house import as_filed, below_our_line
from tests.real.postfix import _MAIL_UID, Postfix
from tests.support import LONG_AGO, environment

KILLS = 200
SLOW = 10  # of these, while Postfix is slow to file
SIGKILLED = -9
# Postfix files within a moment; a busy machine may take a while longer.
GRACE_SECONDS = 30
FOLDERS = ("Junk", "Entw&APw-rfe", "Deep/er")


@dataclass
class Rig:
    """A bucket, a Postfix and a Dovecot that outlive the drains."""

    s3: S3Server
    postfix: Postfix
    dovecot: Dovecot
    folder: Path
    settings: dict[str, str]
    zygote: "subprocess.Popen[str]"
    laid: list[Mail] = field(default_factory=list)
    clock_offset: float = 0.0

    def lay(self) -> None:
        """One more mail under pending/."""
        number = len(self.laid)
        mail = Mail(b"Subject: %d\r\n\r\nbody %d\r\n" % (number, number), BOB if number % 3 == 0 else ALICE, "a@x.test")
        self.laid.append(mail)
        about = {"to": mail.recipient, "from": mail.sender}
        self.s3.objects[f"pending/{number:05}"] = StoredObject(mail.raw, about, last_modified=LONG_AGO)

    def pass_(self, kill_at: str = "") -> int:
        """A pass, or what is left of it."""
        give(
            self.zygote,
            {
                "environ": self.settings,
                "log": str(self.folder / "log"),
                "clock_offset": self.clock_offset,
                "kill_at": kill_at,
                "kill_count": 1,
                "sabotage": "",
            },
        )
        return answer_of(self.zygote)

    def kill(self, times: int) -> None:
        """Mails come in, and each pass dies with one of them in the mail server's hands; people tidy up meanwhile."""
        for number in range(times):
            self.lay()
            step = Step.DOT if number % 2 else Step.ACCEPTED
            assert self.pass_(kill_at=step.value) == SIGKILLED
            if number % 10 == 9:
                self.dovecot.move(ALICE, FOLDERS[number // 10 % len(FOLDERS)])

    def finish(self) -> None:
        """Passes without kills, every wait being over, until nothing is left in pending/."""
        for _ in range(5):
            self.postfix.wait_until_filed()
            self.clock_offset += 100_000
            self.pass_()
            if not any(key.startswith("pending/") for key in self.s3.objects):
                break
        self.postfix.wait_until_filed()
        assert [key for key in self.s3.objects if key.startswith("pending/")] == []

    def check(self) -> Counter[str]:
        """How many mails are lost or there twice, by their mark and by what is in them, over all folders."""
        mark = stamp.load(self.folder / "state")
        filed = {address: self.dovecot.files(address) for address in (ALICE, BOB)}
        contents = {address: Counter(below_our_line(mail) for mail in mails) for address, mails in filed.items()}
        counts = Counter[str](mails=len(self.laid), filed=sum(map(len, filed.values())))
        ledger = Ledger(self.folder / "state" / "ledger.db")
        for mail in self.laid:
            row = ledger.find(mail.identity)
            assert row is not None
            assert row.state == "settled", row
            line = mark.header(mail.identity).rstrip() + b"\n"
            times = sum(line in one for one in filed[mail.recipient])
            assert times == contents[mail.recipient][as_filed(mail.raw)]
            assert times <= 1 + row.reinjections, f"there {times} times without a reason: {row}"
            counts["lost"] += times == 0
            counts["twice"] += times > 1
            counts["reinjections"] += row.reinjections
            events = ledger.history.of(mail.identity)
            counts["found"] += any(event.words.startswith("Found in ") for event in events)
            counts["not found at first"] += any(event.what == "looked-for" for event in events)
        ledger.close()
        return counts


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Postfix, Dovecot]]:
    root = tmp_path_factory.mktemp("servers")
    with (
        Postfix(root, users=("alice", "bob", "inbox", "admin")) as postfix,
        Dovecot(root, postfix._running_home() / "mail", _MAIL_UID, postfix.addresses) as dovecot,
    ):
        yield postfix, dovecot


@contextlib.contextmanager
def frozen_queue(postfix: Postfix) -> Iterator[None]:
    """Postfix goes on to take mail, and files none."""
    assert postfix._master is not None
    (manager,) = [
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if (words := stat.read_text().split())[1] == "(qmgr)" and int(words[3]) == postfix._master.pid
    ]
    os.kill(manager, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(manager, signal.SIGCONT)


@contextlib.contextmanager
def rig(s3: S3Server, servers: tuple[Postfix, Dovecot], folder: Path, *, verified: bool) -> Iterator[Rig]:
    postfix, dovecot = servers
    dovecot.clear()
    settings = environment(s3, postfix, folder / "state", LEDGER_RETENTION_DAYS="36500")
    if verified:
        logins = folder / "logins"
        alice = f"{ALICE}: {ALICE} {dovecot.passwords[ALICE]}\n"
        logins.write_text(f"{alice}*: %*{MASTER} {dovecot.master_password}\n")
        logins.chmod(0o600)
        settings |= {
            "VERIFY_IMAP_HOST": "127.0.0.1",
            "VERIFY_IMAP_PORT": str(dovecot.port),
            "VERIFY_IMAP_TLS": "none",
            "VERIFY_IMAP_LOGINS_FILE": str(logins),
            "VERIFY_IMAP_GRACE": str(GRACE_SECONDS),
        }
    with running_zygote(settings) as zygote:
        yield Rig(s3, postfix, dovecot, folder, settings, zygote)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_200_times_between_dot_and_commit_every_mail_is_there_once(
    s3: S3Server, servers: tuple[Postfix, Dovecot], tmp_path: Path
) -> None:
    with rig(s3, servers, tmp_path, verified=True) as crashing:
        crashing.kill(KILLS - SLOW)
        with frozen_queue(servers[0]):
            crashing.kill(SLOW)
            assert crashing.pass_() == os.EX_TEMPFAIL
        crashing.finish()
        counts = crashing.check()
    print(f"\n{dict(counts)}")
    assert (counts["lost"], counts["twice"]) == (0, 0)
    assert counts["mails"] == counts["filed"] == KILLS
    # Each was in the mail server's hands when its drain died, and some were not filed yet when they were looked for.
    assert counts["found"] + counts["reinjections"] == KILLS
    assert counts["not found at first"] >= SLOW


def test_without_a_grace_a_mail_that_postfix_has_not_filed_yet_comes_twice(
    s3: S3Server, servers: tuple[Postfix, Dovecot], tmp_path: Path
) -> None:
    """What the grace is for: Postfix says 250 first."""
    with rig(s3, servers, tmp_path, verified=True) as crashing:
        crashing.settings["VERIFY_IMAP_GRACE"] = "0"
        with frozen_queue(servers[0]):
            crashing.kill(2)
            crashing.pass_()
        crashing.finish()
        counts = crashing.check()
    assert counts["lost"] == 0
    assert counts["twice"] > 0


def test_without_asking_the_same_kills_bring_mails_twice(
    s3: S3Server, servers: tuple[Postfix, Dovecot], tmp_path: Path
) -> None:
    """The check can fail."""
    with rig(s3, servers, tmp_path, verified=False) as crashing:
        crashing.kill(10)
        crashing.finish()
        counts = crashing.check()
    assert counts["lost"] == 0
    assert counts["twice"] > 0
