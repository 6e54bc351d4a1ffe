"""The proof that a mail server works and lets nobody else in; with real ones: tests/real."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drain.errors import ConfigError, Unavailable
from drain.setup.prove import prove
from tests.smtp_fake import FakeSmtp
from tests.support import free_port


class Clock:
    """Time passes by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def smtp() -> Iterator[FakeSmtp]:
    with FakeSmtp(mailboxes={"inbox@example.test", "admin@example.test"}) as server:
        yield server


def environ(port: int, folder: Path, **more: str) -> dict[str, str]:
    login = {"INJECT_PORT": str(port), "INJECT_USER": "drain", "INJECT_PASS": "s3cret"}
    return {"DRAIN_ENV_FILE": "/dev/null", "MAIL_DOMAIN": "example.test", "STATE_DIR": str(folder), **login, **more}


def test_a_port_that_nobody_opens_is_waited_for_half_a_minute(tmp_path: Path) -> None:
    clock, port = Clock(), free_port()
    with pytest.raises(Unavailable, match=f"Nothing listens on 127.0.0.1:{port} after 30 s"):
        prove(environ(port, tmp_path), port, io.StringIO(), clock=clock, sleep=clock.sleep)
    assert 30 <= clock.now < 31


def test_a_server_that_comes_up_meanwhile_is_asked(tmp_path: Path) -> None:
    port, stream = free_port(), io.StringIO()
    late = FakeSmtp(port=port, mailboxes={"inbox@example.test", "admin@example.test"})
    first = threading.Event()

    def sleep(_seconds: float) -> None:
        if not first.is_set():
            first.set()
            late.__enter__()

    try:
        with pytest.raises(ConfigError):  # it has no TLS
            prove(environ(port, tmp_path), port, stream, sleep=sleep)
    finally:
        late.__exit__()
    assert first.is_set()
    assert "It takes the login of drain." in stream.getvalue()


def test_a_warning_is_no_proof(smtp: FakeSmtp, tmp_path: Path) -> None:
    stream = io.StringIO()
    with pytest.raises(ConfigError, match="any program on this machine can take its port"):
        prove(environ(smtp.port, tmp_path), smtp.port, stream)
    assert "It takes no mail from who has not logged in." in stream.getvalue()


def test_a_wrong_password_is_said_and_never_shown(smtp: FakeSmtp, tmp_path: Path) -> None:
    stream = io.StringIO()
    with pytest.raises(ConfigError) as raised:
        prove(environ(smtp.port, tmp_path, INJECT_PASS="hunter2"), smtp.port, stream)
    assert "refused the login of drain" in stream.getvalue()
    assert "hunter2" not in stream.getvalue() + str(raised.value)


def test_what_could_not_be_found_out_is_worth_another_try(smtp: FakeSmtp, tmp_path: Path) -> None:
    # Settings that contradict each other: nobody is shown a password then.
    wrong = environ(smtp.port, tmp_path, PENDING_PREFIX="a/", PROCESSED_PREFIX="a/b/")
    with pytest.raises(Unavailable, match="contradict"):
        prove(wrong, smtp.port, io.StringIO())
    assert not [command for command in smtp.commands if command.startswith("AUTH")]
