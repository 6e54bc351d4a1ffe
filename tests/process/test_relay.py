"""``drain relay`` as a process: exit codes, signals, systemd, beside passes; and its commands."""

import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drain import cli
from drain.relay.queue import State
from drain.relay.users import Users
from tests.relay import ALICE, MAIL, PASSWORD, RelayHouse, below_received
from tests.smtp_fake import DROP, FakeSmtp
from tests.support import House, until


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayHouse]:
    with FakeSmtp() as smarthost, FakeSmtp() as smtp:
        yield RelayHouse(smarthost, smtp, tmp_path)


@contextmanager
def running(environ: dict[str, str], *words: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-m", "drain", *words], env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_takes_mail_sends_it_and_ends_when_told_to(relay: RelayHouse) -> None:
    with running(relay.environ(), "relay") as process:
        until(lambda: listens(relay.port))
        relay.send()
        until(lambda: len(relay.smarthost.filed) == 1)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - began < 8
        assert process.stderr is not None
        said = process.stderr.read()
    assert below_received(relay.smarthost.filed[0].content) == MAIL
    assert "relay state=relayed" in said
    assert PASSWORD not in said
    assert "hello" not in said, "no subject, no body in the log"


def test_killed_after_the_250_it_sends_at_the_next_start(relay: RelayHouse) -> None:
    relay.smarthost.answer = lambda verb, argument: DROP if verb == "CONNECT" else None
    with running(relay.environ(), "relay") as process:
        until(lambda: listens(relay.port))
        relay.send()
        process.kill()
        process.wait(10)
    relay.smarthost.answer = lambda verb, argument: None
    with running(relay.environ(), "relay"):
        until(lambda: len(relay.smarthost.filed) == 1)


def test_systemd_hears_that_it_is_ready_when_it_listens(relay: RelayHouse, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        channel.settimeout(20)
        more = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"}
        with running({**relay.environ(), **more}, "relay") as process:
            assert b"READY=1" in channel.recv(4096)
            assert listens(relay.port)
            assert channel.recv(4096) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            while (heard := channel.recv(4096)) == b"WATCHDOG=1":
                pass
            assert heard == b"STOPPING=1"


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"RELAY_UPSTREAM": ""}, 78, "RELAY_UPSTREAM is not set"),
        ({"RELAY_UPSTREAM": "pigeon"}, 78, "one of"),
        ({"RELAY_HOST": "0.0.0.0"}, 78, "needs RELAY_TLS_CERT_FILE"),
        ({"RELAY_ALLOWED_CIDRS": "10.0.0.1/8"}, 78, "networks as in"),
        ({"RELAY_HOST": "192.0.2.1", "RELAY_TLS_CERT_FILE": "/x", "RELAY_TLS_KEY_FILE": "/x"}, 78, "cannot be read"),
    ],
)
def test_a_wrong_configuration_is_78_with_a_sentence(
    relay: RelayHouse, settings: dict[str, str], code: int, words: str
) -> None:
    with running(relay.environ(**settings), "relay") as process:
        assert process.wait(20) == code
        assert process.stderr is not None
        assert words in process.stderr.read()


def test_a_port_that_is_taken_is_75(relay: RelayHouse) -> None:
    with socket.create_server(("127.0.0.1", relay.port)), running(relay.environ(), "relay") as process:
        assert process.wait(20) == 75
        assert process.stderr is not None
        assert "is taken by another program" in process.stderr.read()


def test_a_second_relay_ends_with_0_and_a_line(relay: RelayHouse) -> None:
    with running(relay.environ(), "relay"):
        until(lambda: listens(relay.port))
        with running(relay.environ(), "relay") as second:
            assert second.wait(20) == 0
            assert second.stderr is not None
            assert "Another drain is at work" in second.stderr.read()


def test_beside_the_passes_it_is_one_process_and_ends_with_them(house: House, relay: RelayHouse) -> None:
    environ = {**relay.environ(), **house.environ(RELAY_ENABLED="true", STATE_DIR=str(relay.folder / "state"))}
    with running(environ, "run") as process:
        until(lambda: listens(relay.port))
        relay.send()
        until(lambda: len(relay.smarthost.filed) == 1)
        house.put("one")
        process.send_signal(signal.SIGUSR1)
        until(lambda: len(house.smtp.filed) == 1)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - began < 9


def test_incoming_mail_comes_although_the_relay_cannot_listen(house: House, relay: RelayHouse) -> None:
    environ = {**relay.environ(), **house.environ(RELAY_ENABLED="true")}
    house.put("one")
    with socket.create_server(("127.0.0.1", relay.port)), running(environ, "run") as process:
        until(lambda: len(house.smtp.filed) == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "No outgoing mail is taken" in process.stderr.read()


def test_a_relay_without_what_it_needs_stops_drain_run_before_it_begins(house: House, relay: RelayHouse) -> None:
    environ = {**relay.environ(), **house.environ(RELAY_ENABLED="true", SMARTHOST_HOST="")}
    with running(environ, "run") as process:
        assert process.wait(20) == 78


Drain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def drain(relay: RelayHouse, capsys: pytest.CaptureFixture[str]) -> Drain:
    def call(*words: str) -> tuple[int, str, str]:
        code = cli.main(list(words), relay.environ())
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def two_wait(relay: RelayHouse) -> list[str]:
    """Two mails that wait, since nobody sends; their ids."""
    relay.smarthost.answer = lambda verb, argument: DROP if verb == "CONNECT" else None
    with relay.running():
        relay.send()
        relay.send(to=["carol@elsewhere.test", "dave@elsewhere.test"])
    with relay.queue() as queue:
        return [entry.id for entry in queue.entries(State.WAITING)]


def test_the_queue_can_be_seen(drain: Drain, two_wait: list[str]) -> None:
    code, said, _ = drain("relay", "queue", "list")
    assert code == 0
    for words in (two_wait[0][:12], two_wait[1][:12], "waiting", ALICE, "bob@elsewhere.test", "and 1 more"):
        assert words in said
    code, said, _ = drain("relay", "queue", "list", "--json")
    assert [json.loads(line)["id"] for line in said.splitlines()] == two_wait
    code, said, _ = drain("relay", "queue", "show", two_wait[1][:6])
    assert code == 0
    assert "dave@elsewhere.test" in said
    assert "<1@example.test>" in said


def test_an_empty_queue_is_said_in_words(drain: Drain) -> None:
    assert drain("relay", "queue", "list") == (0, "Nothing is in the queue.\n", "")
    assert drain("relay", "suppressed", "list") == (0, "No address is suppressed.\n", "")


def test_a_person_holds_retries_and_removes(drain: Drain, two_wait: list[str]) -> None:
    one, two = two_wait
    assert drain("relay", "queue", "hold", one[:8]) == (0, f"{one[:12]} held\n", "")
    assert "held" in drain("relay", "queue", "show", one)[1]
    assert drain("relay", "queue", "retry", "--all")[0] == 0
    assert "held" not in drain("relay", "queue", "show", one)[1]
    code, said, complained = drain("relay", "queue", "remove", two)
    assert (code, said) == (64, "")
    assert "--yes" in complained
    assert drain("relay", "queue", "remove", two, "--yes") == (0, f"{two[:12]} removed\n", "")
    code, _, complained = drain("relay", "queue", "retry", two)
    assert code == 65
    assert "it was removed before" in complained
    assert two not in drain("relay", "queue", "list", "--json")[1]
    assert two in drain("relay", "queue", "list", "--json", "--all")[1]


@pytest.mark.parametrize("id_", ["zz", ""])
def test_an_id_that_is_none_is_66(drain: Drain, two_wait: list[str], id_: str) -> None:
    code, _, complained = drain("relay", "queue", "show", id_)
    assert code == 66
    assert "Nothing in the queue has an id" in complained


def test_what_bounced_can_be_seen_and_let_go(relay: RelayHouse, drain: Drain) -> None:
    relay.smarthost.takes_all = False
    with relay.running():
        relay.send()
        until(lambda: relay.states() == [State.FAILED])
    code, said, _ = drain("relay", "suppressed", "list")
    assert "bob@elsewhere.test" in said
    assert "5.1.1" in said
    assert drain("relay", "suppressed", "remove", "Bob@elsewhere.test")[0] == 0
    code, _, complained = drain("relay", "suppressed", "remove", "bob@elsewhere.test")
    assert code == 66
    assert "is not suppressed" in complained


def test_users_are_added_listed_and_removed(relay: RelayHouse) -> None:
    def call(*words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "drain", "relay", "user", *words],
            env={**os.environ, **relay.environ()},
            input=given,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    added = call("add", "laptop", "--from", "bob@example.test", given="a long enough one\n")
    assert (added.returncode, added.stdout) == (0, "laptop may log in.\n")
    assert "laptop: bob@example.test" in call("list").stdout
    with relay.running():
        with relay.client("laptop", "a long enough one"):
            pass
        with pytest.raises(smtplib.SMTPAuthenticationError):
            relay.client("laptop", "another")
        assert call("remove", "laptop").returncode == 0
        with pytest.raises(smtplib.SMTPAuthenticationError):
            relay.client("laptop", "a long enough one")
    assert call("remove", "laptop").returncode == 66
    assert call("add", "bad name", given="a long enough one\n").returncode == 78
    assert call("add", "x", "--from", "nonsense", given="a long enough one\n").returncode == 65


def test_the_relay_and_its_commands_load_nothing_of_the_buckets() -> None:
    program = "import sys, drain.commands.relay; assert not {'boto3', 'botocore', 'dkim'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_who_only_sends_sees_the_configuration_and_then_what_is_missing(relay: RelayHouse) -> None:
    def call(**settings: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "drain", "config"],
            env={**os.environ, **relay.environ(**settings)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    whole = call()
    assert whole.returncode == 0
    assert "RELAY_UPSTREAM=smtp" in whole.stdout
    assert relay.smarthost.password not in whole.stdout
    lacking = call(SMARTHOST_HOST="")
    assert lacking.returncode == 78
    assert "RELAY_UPSTREAM=smtp" in lacking.stdout
    assert "SMARTHOST_HOST is not set" in lacking.stderr


def test_a_bucket_that_refuses_us_is_no_reason_to_send_nothing(house: House, relay: RelayHouse) -> None:
    environ = {**relay.environ(), **house.environ(RELAY_ENABLED="true", R2_SECRET_ACCESS_KEY="wrong")}
    with running(environ, "run") as process:
        until(lambda: listens(relay.port))
        time.sleep(1)
        Users(house.state_dir / "relay-users").add("phone", PASSWORD.encode(), ())
        relay.send()
        until(lambda: len(relay.smarthost.filed) == 1)
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_ways_to_end_it_end_it_in_order(relay: RelayHouse, number: signal.Signals) -> None:
    with running(relay.environ(), "relay") as process:
        until(lambda: listens(relay.port))
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "The relay stopped." in process.stderr.read()
