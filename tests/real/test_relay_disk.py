"""A disk that is full while the relay runs: nothing is accepted, nothing is lost, and later it goes on by itself."""

import contextlib
import resource
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.real.postfix import Postfix
from tests.real.relay import ALICE, BOB, RealRelay, added_around
from tests.real.smarthost import Smarthost, smarthost

MAIL = b"From: Alice <alice@example.test>\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.test>\r\n"
MAIL += b"Subject: s\r\n\r\nhello\r\n"
# An eighth of the small disk (`bodies`).
RESERVE = 256 * 1024
LARGE = MAIL + b"x" * 76 * 4000 + b"\r\n"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smarthost]:
    with smarthost(tmp_path_factory.mktemp("smarthost")) as running:
        yield running


class Full(Protocol):
    """A relay whose disk can be filled."""

    relay: RealRelay

    def fill(self, leave: int = 0, *, reserve: int = 0) -> None:
        """Now it is full, but for so many bytes, and what drain keeps to send what it has."""

    def free(self) -> None:
        """Now it is not."""


class SmallDisk:
    """Its queue is on a file system of 2 MiB, which really is full."""

    def __init__(self, relay: RealRelay) -> None:
        self.relay = relay
        self._filler = relay.state_dir / "relay" / "filler"

    def fill(self, leave: int = 0, *, reserve: int = 0) -> None:
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)) == 4096:
                pass
        size = self._filler.stat().st_size
        with self._filler.open("rb+") as file:
            file.truncate(size - leave - reserve)

    def free(self) -> None:
        self._filler.unlink()


class ShortFiles:
    """No file of the process may grow (RLIMIT_FSIZE): works everywhere, and says EFBIG."""

    def __init__(self, relay: RealRelay) -> None:
        self.relay = relay

    def fill(self, leave: int = 0, *, reserve: int = 0) -> None:
        self._limit(leave)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        _, hard = resource.prlimit(self.relay.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.relay.pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postfix]:
    with Postfix(tmp_path_factory.mktemp("home"), users=("alice", "inbox")) as server:
        yield server


@contextlib.contextmanager
def small_file_system(folder: Path) -> Iterator[None]:
    """A tmpfs there; skips where this may not be mounted."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        pytest.skip(f"no mount here: {error}")
    if done.returncode != 0:
        pytest.skip(f"a tmpfs may not be mounted here (wants root): {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=10)


@pytest.fixture(params=[SmallDisk, ShortFiles])
def full(request: pytest.FixtureRequest, tmp_path: Path, host: Smarthost, home: Postfix) -> Iterator[Full]:
    host.clear()
    home.clear()
    with contextlib.ExitStack() as stack:
        if request.param is SmallDisk:
            stack.enter_context(small_file_system(tmp_path / "state" / "relay"))
        relay = stack.enter_context(RealRelay(tmp_path, host, home))
        yield request.param(relay)


def bodies(relay: RealRelay) -> list[str]:
    """What lies in the folder of messages, finished or not."""
    return [path.name for path in (relay.state_dir / "relay" / "mails").iterdir()]


@pytest.mark.parametrize("mail", [MAIL, LARGE], ids=["small", "large"])
def test_while_the_disk_is_full_no_mail_is_accepted_and_then_the_same_client_gets_through(
    full: Full, mail: bytes
) -> None:
    relay = full.relay
    with relay.client() as client:
        full.fill()
        for _ in range(3):
            with pytest.raises(smtplib.SMTPDataError) as refused:
                client.sendmail(ALICE, [BOB], mail)
            assert refused.value.smtp_code == 452
            assert bytes(refused.value.smtp_error)[:4] == b"4.3."  # type: ignore[arg-type]  # it is bytes
            assert bodies(relay) == []
        full.free()
        assert relay.open() == []
        assert relay.smarthost.mails() == []
        client.sendmail(ALICE, [BOB], mail)
    (arrived,) = relay.arrived()
    assert added_around(arrived.raw, mail.replace(b"\r\n", b"\n")) == [b"Received"]
    assert bodies(relay) == []
    assert "Outgoing mail cannot be taken" in relay.log
    assert "bug" not in relay.log


def test_room_for_the_message_but_not_for_the_rest_of_it_is_no_room(full: Full) -> None:
    """It is full in the middle of the body: the half of it is gone again."""
    relay = full.relay
    full.fill(leave=128 * 1024, reserve=RESERVE)
    with pytest.raises(smtplib.SMTPDataError) as refused:
        relay.send(LARGE)
    assert (refused.value.smtp_code, refused.value.smtp_error[:6]) == (452, b"4.3.1 ")
    assert bodies(relay) == []
    relay.send(MAIL)  # what fits goes on
    assert len(relay.arrived()) == 1
    full.free()
    relay.send(LARGE)
    assert len(relay.arrived()) == 2


def test_a_report_for_which_there_is_no_room_is_written_when_there_is(full: Full, home: Postfix) -> None:
    """What the smarthost refused is not lost meanwhile, and not sent again."""
    if isinstance(full, ShortFiles):
        pytest.skip("the table, which has to be written before, is larger than the report")
    relay = full.relay
    # 60 KB of header, which the report repeats: there is room for the mail and for the table, and not for that.
    long = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 90) for number in range(600))
    relay.smarthost.halt()
    relay.send(long + MAIL, "unknown.d@example.net")
    relay.wait_for_log("Outgoing mail waits")
    full.fill(leave=40 * 1024)
    relay.smarthost.start()
    relay.wait_for_log("What became of a mail cannot be noted")
    assert home.mailbox(ALICE) == []
    assert [entry.recipients for entry in relay.open()] == [("unknown.d@example.net",)]
    assert len(bodies(relay)) == 1
    full.free()
    relay.wait_until_sent()
    (report,) = home.mailbox(ALICE)
    assert b"Final-Recipient: rfc822; unknown.d@example.net" in report
    assert b"X-599: yyy" in report
    assert bodies(relay) == []
