"""The proof that a mail server works and lets nobody else in; with real ones: tests/real."""

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drain.doctor.finding import Level
from drain.errors import ConfigError, Unavailable
from drain.login import Server
from drain.setting import Secret
from drain.setup import listeners
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


# -- its listeners --

ALICE = "alice@example.test"


def found(smtp: FakeSmtp, *mailboxes: str, **others: int) -> dict[str, Level]:
    """What there is to say of a server that has these, by its words."""
    server = Server("127.0.0.1", smtp.port, smtp.user, Secret(smtp.password), "auto", "")
    return {one.words: one.level for one in listeners.check(server, mailboxes or (ALICE,), others)}


def said(findings: dict[str, Level], words: str) -> Level:
    """The level of the one finding with these words."""
    (level,) = [level for text, level in findings.items() if words in text]
    return level


def test_a_mailbox_that_was_asked_for_and_is_refused_is_a_failure() -> None:
    with FakeSmtp() as server:
        assert said(found(server, ALICE, "bob@example.test"), "every mailbox that it has to have: 2") is Level.OK
        refused = found(server, ALICE, "nobody@example.test")
        assert said(refused, "refuses mail for nobody@example.test") is Level.FAILURE
        assert not any("every mailbox" in words for words in refused)
        server.answer = lambda verb, argument: "450 4.2.1 later" if verb == "RCPT" else None
        assert said(found(server), f"refuses mail for {ALICE}") is Level.UNKNOWN
    assert said(found(server), f"takes mail for {ALICE} is not known") is Level.UNKNOWN, "it is gone"


@pytest.mark.parametrize("protocol", ["lmtp", "submission"])
def test_another_port_that_takes_mail_without_a_login_is_a_failure(protocol: str) -> None:
    def lmtp(verb: str, _argument: str) -> str | None:
        return "250 fake" if verb == "LHLO" else None

    def opened(verb: str, argument: str) -> str | None:
        return "250 2.1.0 ok" if verb == "MAIL" else lmtp(verb, argument)

    def busy(verb: str, argument: str) -> str | None:
        return "451 4.3.0 later" if verb == "MAIL" else lmtp(verb, argument)

    with FakeSmtp() as server, FakeSmtp(answer=lmtp) as other:
        ports = {protocol: other.port}
        assert said(found(server, **ports), "takes no mail from who has not") is Level.OK
        other.answer = opened
        assert said(found(server, **ports), f"Port {other.port} ({protocol}) takes mail without") is Level.FAILURE
        other.answer, other.mailboxes, other.takes_all = opened, set(), False
        assert said(found(server, **ports), "takes no mail from who has not") is Level.OK
        other.answer = busy
        assert said(found(server, **ports), "is not known") is Level.UNKNOWN


def test_a_login_that_is_offered_before_tls_is_a_failure_but_for_lmtp() -> None:
    def lmtp(verb: str, _argument: str) -> str | None:
        return "250-fake\r\n250 AUTH PLAIN" if verb == "LHLO" else None

    with FakeSmtp() as server, FakeSmtp(answer=lmtp) as other:
        findings = found(server, lmtp=other.port, submission=other.port)
        for port, protocol in ((server.port, "smtp"), (other.port, "submission")):
            words = f"Port {port} ({protocol}) takes a password before there is TLS"
            assert said(findings, words) is Level.FAILURE
        assert not any("(lmtp) takes a password" in words for words in findings)
        other.extensions = ("8BITMIME",)
        assert not any("(submission) takes a password" in words for words in found(server, submission=other.port))


def test_a_port_that_answers_elsewhere_than_on_127_0_0_1_is_a_failure() -> None:
    with FakeSmtp() as server:
        assert said(found(server), "listens on 127.0.0.1 alone") is Level.OK
        with socket.create_server(("0.0.0.0", 0)) as wide:
            port = wide.getsockname()[1]
            assert said(found(server, other=port), f"Port {port} answers at 127.0.0.2 too") is Level.FAILURE


def test_a_port_at_an_address_of_this_machine_is_a_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_addresses", lambda: iter(["127.0.0.3"]))
    with FakeSmtp() as server, socket.create_server(("127.0.0.3", 0)) as there:
        port = there.getsockname()[1]
        assert said(found(server, other=port), f"Port {port} answers at 127.0.0.3 too") is Level.FAILURE
