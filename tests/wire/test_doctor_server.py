"""`drain doctor` on the mail server: a broken twin for each check, and sound ones; with Postfix and Maddy: tests/real."""

import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from drain.doctor import connection, server as doctor_server
from drain.doctor.finding import Finding, Level
from drain.doctor.say import Say
from drain.login import Server
from drain.routing import Router
from drain.setting import Secret
from tests.real.smarthost import Certificate, authority
from tests.smtp_fake import DROP, FakeSmtp
from tests.support import free_port, on_verb

LARGEST = 36_700_160
HOME = "example.test"
INBOX, ADMIN = f"inbox@{HOME}", f"admin@{HOME}"
ROOT = authority()


@pytest.fixture
def smtp() -> Iterator[FakeSmtp]:
    with FakeSmtp() as server:
        server.mailboxes |= {INBOX, ADMIN}
        yield server
        assert not [command for command in server.commands if command.upper().startswith("DATA")], "no mail is sent"


def login_to(smtp: Any, **changed: Any) -> Server:
    settings = {"host": "127.0.0.1", "port": smtp.port, "user": "drain", "password": Secret("s3cret"), "tls": "auto"}
    return Server(**{**settings, "ca_file": "", **changed})


def router(**changed: Any) -> Router:
    return Router(**{"domains": (HOME,), "catch_all": INBOX, "admin_mailbox": ADMIN, **changed})


def check(smtp: Any, rules: Router | None = None, seconds: float = 30, **changed: Any) -> list[Finding]:
    found = doctor_server.check(login_to(smtp, **changed), rules or router(), largest=LARGEST, seconds=seconds)
    return list(found)


def bad(findings: list[Finding]) -> list[Finding]:
    """What is not ok, but for the warning that each server without a pinned certificate gets."""
    return [one for one in findings if one.level is not Level.OK and "can take its port" not in one.words]


def the_one(findings: list[Finding]) -> Finding:
    (found,) = bad(findings)
    assert found.next, "a person is told what to do"
    assert found.check == "server"
    return found


# -- sound --


def test_a_sound_server_without_a_pinned_certificate_gets_one_warning(smtp: FakeSmtp) -> None:
    findings = check(smtp)
    assert bad(findings) == []
    (warning,) = (one for one in findings if one.level is not Level.OK)
    assert warning.level is Level.WARNING
    assert "INJECT_TLS_CA_FILE" in warning.next
    words = "\n".join(finding.words for finding in findings)
    for part in (
        "greets",
        "not logged in",
        "takes the login of drain",
        "36,700,160",
        "8BITMIME",
        "SMTPUTF8",
        INBOX,
        ADMIN,
    ):
        assert part in words


class Mailboxes:
    """What the server of aiosmtpd knows."""

    async def handle_RCPT(  # noqa: N802 (as the library has it)
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        if address not in {INBOX, ADMIN}:
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, *_: Any) -> str:  # noqa: N802 (as above)
        raise AssertionError("no mail is sent")


def _login(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (b"drain", b"s3cret"))


@contextlib.contextmanager
def over_tls(
    tmp_path: Path, certificate: Certificate, *, implicit: bool = False, **changed: Any
) -> Iterator[Controller]:
    """A server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain_file(tmp_path / "chain.pem"))
    how: dict[str, Any] = {"ssl_context": context, "auth_require_tls": False} if implicit else {"tls_context": context}
    settings = {"authenticator": _login, "auth_required": True, "data_size_limit": LARGEST, "enable_SMTPUTF8": True}
    controller = Controller(Mailboxes(), "127.0.0.1", free_port(), **{**settings, **how, **changed})
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(ROOT.pem)
    return str(path)


LONG = datetime.timedelta(days=60)


# Of aiosmtpd, which does not count TLS from the first byte as TLS.
AUTH_WITHOUT_STARTTLS = "ignore:Requiring AUTH while not requiring TLS"


@pytest.mark.filterwarnings(AUTH_WITHOUT_STARTTLS)
@pytest.mark.parametrize("tls", ["auto", "starttls", "implicit"])
def test_a_sound_server_with_a_certificate_that_is_verified_is_all_ok(tmp_path: Path, ca_file: str, tls: str) -> None:
    with over_tls(tmp_path, ROOT.issue("127.0.0.1", ends=LONG), implicit=tls == "implicit") as server:
        findings = check(server, tls=tls, ca_file=ca_file)
    assert [one for one in findings if one.level is not Level.OK] == []
    assert any("TLSv1" in one.words for one in findings)


# -- TCP --


def test_a_port_that_nobody_listens_on_is_a_failure_and_the_end(smtp: FakeSmtp) -> None:
    findings = check(smtp, port=free_port())
    assert len(findings) == 1
    found = the_one(findings)
    assert (found.level, "refuses connections" in found.words) == (Level.FAILURE, True)
    assert "Start the mail server" in found.next


@pytest.mark.parametrize("name", ["gone.invalid", "a..b"])
def test_a_name_that_is_not_found_is_a_failure(smtp: FakeSmtp, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(host: str, *_: object, **__: object) -> Any:
        host.encode("idna")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", not_found)
    found = the_one(check(smtp, host=name))
    assert (found.level, found.next) == (Level.FAILURE, "Is INJECT_HOST right?")


def test_a_host_that_does_not_answer_is_told_from_one_that_refuses(
    smtp: FakeSmtp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object, **__: object) -> Any:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    found = the_one(check(smtp, host="192.0.2.1"))
    assert "firewall" in found.words


@contextlib.contextmanager
def saying(first: bytes, *, and_then: str = "") -> Iterator[Any]:
    """Somebody who says that to each who connects, and then hangs up or not."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                kept.append(client)
                client.sendall(first)
                if and_then != "wait":
                    client.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    class At:
        port = listener.getsockname()[1]

    try:
        yield At
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for client in kept:
            client.close()


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no mail server: HTTP/1.1 400"),
        (b"SSH-2.0-\x1b[31mevil\r\n", "is no mail server: SSH-2.0- [31mevil"),
        (b"", "closes connections at once"),
        (b"554 5.3.2 not today\r\n", "lets nobody in: 554 5.3.2 not today"),
        (b"421 busy\r\n", "lets nobody in: 421 busy"),
    ],
)
def test_what_is_no_mail_server_is_named_by_what_it_says(first: bytes, words: str) -> None:
    with saying(first) as at:
        found = the_one(check(at))
    assert (found.level, words in found.words) == (Level.FAILURE, True)


def test_a_port_that_says_nothing_may_speak_tls_from_the_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_GREETING_SECONDS", 0.1)
    with saying(b"", and_then="wait") as at:
        found = the_one(check(at))
    assert "says nothing" in found.words
    assert "INJECT_TLS=implicit" in found.next


def test_who_greets_and_then_hangs_is_given_up_and_nothing_is_called_ok() -> None:
    began = time.monotonic()
    with saying(b"220 hello\r\n", and_then="wait") as at:
        findings = check(at, seconds=0.5)
    assert time.monotonic() - began < 4
    assert [one.level for one in findings] == [Level.OK, Level.UNKNOWN]
    assert "given up after 0.5 s" in findings[1].words


# -- TLS --


def test_a_server_without_starttls_where_it_is_due_is_a_failure(smtp: FakeSmtp, ca_file: str) -> None:
    found = the_one(check(smtp, ca_file=ca_file))
    assert (found.level, "no STARTTLS" in found.words) == (Level.FAILURE, True)


def test_tls_that_nobody_verifies_is_the_same_warning_as_none(tmp_path: Path) -> None:
    with over_tls(tmp_path, ROOT.issue("127.0.0.1")) as server:
        (found,) = (one for one in check(server) if one.level is not Level.OK)
    assert "its certificate is not looked at" in found.words
    assert "can take its port" in found.words


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [(13, Level.WARNING, "12 days more"), (-1, Level.FAILURE, "certificate has expired"), (15, Level.OK, "")],
)
def test_a_certificate_that_ends_soon_is_a_warning_and_one_that_is_over_a_failure(
    tmp_path: Path, ca_file: str, days: int, level: Level, words: str
) -> None:
    ends = datetime.timedelta(days=days)
    with over_tls(tmp_path, ROOT.issue("127.0.0.1", ends=ends)) as server:
        findings = check(server, ca_file=ca_file)
    if level is Level.OK:
        assert bad(findings) == []
        return
    found = the_one(findings)
    assert (found.level, words in found.words, found.next) == (level, True, "Renew it.")


def test_a_certificate_of_another_ca_is_a_failure(tmp_path: Path, ca_file: str) -> None:
    with over_tls(tmp_path, authority("another").issue("127.0.0.1")) as server:
        found = the_one(check(server, ca_file=ca_file))
    assert (found.level, "INJECT_TLS_CA_FILE" in found.next) == (Level.FAILURE, True)


def test_a_certificate_for_another_name_is_a_failure(tmp_path: Path, ca_file: str) -> None:
    # Loopback, but not to `is_loopback`: as a mail server on another machine.
    with over_tls(tmp_path, ROOT.issue("other.test")) as server:
        found = the_one(check(server, host="127.1", ca_file=ca_file))
    assert (found.level, "INJECT_HOST" in found.next) == (Level.FAILURE, True)


def test_a_ca_file_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with over_tls(tmp_path, ROOT.issue("127.0.0.1")) as server:
        found = the_one(check(server, ca_file=str(tmp_path / "gone.pem")))
    assert (found.level, "gone.pem cannot be read" in found.words) == (Level.FAILURE, True)


def test_implicit_tls_to_a_server_that_speaks_plainly_is_a_failure(smtp: FakeSmtp) -> None:
    found = the_one(check(smtp, tls="implicit"))
    assert (found.level, "INJECT_TLS" in found.next) == (Level.FAILURE, True)


@pytest.mark.filterwarnings(AUTH_WITHOUT_STARTTLS)
def test_elsewhere_a_login_that_is_offered_before_tls_is_a_warning(tmp_path: Path, ca_file: str) -> None:
    certificate = ROOT.issue("127.1", ends=LONG)
    settings: dict[str, Any] = {"host": "127.1", "ca_file": ca_file}
    with over_tls(tmp_path, certificate) as server:
        assert bad(check(server, **settings)) == []
    with over_tls(tmp_path, certificate, auth_require_tls=False) as server:
        found = the_one(check(server, **settings))
    assert (found.level, "before TLS" in found.words) == (Level.WARNING, True)


# -- AUTH --


def test_a_wrong_password_is_a_failure_that_says_how_to_set_one(smtp: FakeSmtp) -> None:
    found = the_one(check(smtp, password=Secret("wrong-one")))
    assert (found.level, "INJECT_PASS" in found.next, "maddy creds password" in found.next) == (
        Level.FAILURE,
        True,
        True,
    )
    assert "wrong-one" not in found.words + found.next


def test_a_server_without_a_login_is_a_failure(smtp: FakeSmtp) -> None:
    smtp.extensions = tuple(one for one in smtp.extensions if not one.startswith("AUTH"))
    found = the_one(check(smtp))
    assert (found.level, "offers no login" in found.words) == (Level.FAILURE, True)


def test_a_login_that_cannot_be_checked_now_is_a_failure(smtp: FakeSmtp) -> None:
    smtp.answer = on_verb("AUTH", "454 4.7.0 later")
    found = the_one(check(smtp))
    assert "454 4.7.0 later" in found.words


def always(verb: str, reply: str) -> Callable[[str, str], str | None]:
    return lambda asked, _argument: reply if asked == verb else None


def test_a_server_that_takes_mail_without_a_login_is_a_failure(smtp: FakeSmtp) -> None:
    smtp.answer = always("MAIL", "250 2.1.0 ok")
    found = the_one(check(smtp))
    assert (found.level, "every program on this machine" in found.words) == (Level.FAILURE, True)
    assert "AUTH" in found.next


@pytest.mark.parametrize("second", ["421 too many", "550 5.1.1 no such user"])
def test_one_mailbox_that_is_taken_without_a_login_is_enough_whatever_comes_then(smtp: FakeSmtp, second: str) -> None:
    asked: list[str] = []

    def answer(verb: str, argument: str) -> str | None:
        if verb == "RCPT":
            asked.append(argument)
            return "250 2.1.5 ok" if len(asked) == 1 else second if len(asked) == 2 else None
        return "250 2.1.0 ok" if verb == "MAIL" else None

    smtp.answer = answer
    assert "without a login" in the_one(check(smtp)).words


def test_a_server_that_answers_strangers_about_mailboxes_is_a_warning(smtp: FakeSmtp) -> None:
    replies = iter(["550 5.1.1 no such user"] * 2)

    def answer(verb: str, _argument: str) -> str | None:
        return "250 2.1.0 ok" if verb == "MAIL" else next(replies, None) if verb == "RCPT" else None

    smtp.answer = answer
    assert the_one(check(smtp)).level is Level.WARNING


def test_whether_it_takes_mail_without_a_login_can_be_unknown(smtp: FakeSmtp) -> None:
    smtp.answer = on_verb("MAIL", "451 4.3.0 later")
    assert the_one(check(smtp)).level is Level.UNKNOWN
    smtp.answer = on_verb("MAIL", DROP)
    assert the_one(check(smtp)).level is Level.UNKNOWN


# -- what it can carry --


def with_extensions(smtp: FakeSmtp, old: str, new: str = "") -> None:
    smtp.extensions = tuple(part for one in smtp.extensions if (part := new if one.startswith(old) else one))


def test_a_size_limit_that_is_too_small_is_a_failure_with_the_line_to_change(smtp: FakeSmtp) -> None:
    with_extensions(smtp, "SIZE", "SIZE 10240000")
    found = the_one(check(smtp))
    assert (found.level, "10,240,000" in found.words) == (Level.FAILURE, True)
    assert "message_size_limit = 36700160" in found.next
    assert "max_message_size 35M" in found.next
    with_extensions(smtp, "SIZE", f"SIZE {LARGEST - 1}")
    assert the_one(check(smtp)).level is Level.FAILURE


@pytest.mark.parametrize("announced", ["SIZE", "SIZE 0"])
def test_a_server_without_a_limit_is_ok(smtp: FakeSmtp, announced: str) -> None:
    with_extensions(smtp, "SIZE", announced)
    assert bad(check(smtp)) == []


@pytest.mark.parametrize("extension", ["SIZE", "8BITMIME", "SMTPUTF8"])
def test_an_extension_that_is_missing_is_a_warning_that_names_it(smtp: FakeSmtp, extension: str) -> None:
    with_extensions(smtp, extension)
    found = the_one(check(smtp))
    assert (found.level, extension in found.words) == (Level.WARNING, True)


# -- mailboxes --


@pytest.mark.parametrize("address", [INBOX, ADMIN])
def test_a_mailbox_that_is_missing_is_a_failure_that_says_how_to_make_it(smtp: FakeSmtp, address: str) -> None:
    smtp.mailboxes.discard(address)
    found = the_one(check(smtp))
    assert (found.level, f"no mailbox {address}" in found.words) == (Level.FAILURE, True)
    assert f"maddy imap-acct create {address}" in found.next
    assert f"{address} {HOME}/{address.partition('@')[0]}/" in found.next


def test_targets_of_aliases_and_the_mailbox_for_spam_are_asked_for_too(smtp: FakeSmtp) -> None:
    rules = router(aliases={"sales": f"carol@{HOME}", "info": f"alice@{HOME}"}, junk=f"spam@{HOME}")
    alias, junk = bad(check(smtp, rules))
    assert (alias.level, f"carol@{HOME}" in alias.words) == (Level.FAILURE, True)
    assert (junk.level, f"spam@{HOME}" in junk.words) == (Level.WARNING, True)
    smtp.mailboxes |= {f"carol@{HOME}", f"spam@{HOME}"}
    assert bad(check(smtp, rules)) == []


def test_each_mailbox_is_asked_for_once_after_the_login(smtp: FakeSmtp) -> None:
    assert bad(check(smtp, router(catch_all=ADMIN, aliases={"x": ADMIN.upper()}))) == []
    assert smtp.commands.count(f"RCPT TO:<{ADMIN}>") == 1


def test_a_mailbox_that_cannot_be_asked_for_now_is_unknown(smtp: FakeSmtp) -> None:
    smtp.answer = lambda verb, argument: "450 4.2.1 busy" if verb == "RCPT" and INBOX in argument else None
    found = the_one(check(smtp))
    assert (found.level, "450 4.2.1 busy" in found.words) == (Level.UNKNOWN, True)


def test_a_refusal_that_is_not_about_the_mailbox_is_a_failure_and_the_next_is_asked_for(smtp: FakeSmtp) -> None:
    smtp.answer = lambda verb, argument: "554 5.7.1 no" if verb == "RCPT" and INBOX in argument else None
    findings = check(smtp)
    found = the_one(findings)
    assert (found.level, f"refuses mail for {INBOX}" in found.words) == (Level.FAILURE, True)
    assert "554 5.7.1 no" in found.words
    assert any(f"takes mail for {ADMIN}" in one.words for one in findings)


def test_a_connection_that_breaks_at_one_mailbox_does_not_hide_the_others(smtp: FakeSmtp) -> None:
    smtp.answer = lambda verb, argument: DROP if verb == "RCPT" and INBOX in argument else None
    findings = check(smtp)
    assert the_one(findings).level is Level.UNKNOWN
    assert any(f"takes mail for {ADMIN}" in one.words for one in findings)


def test_a_server_that_refuses_bounces_is_a_failure(smtp: FakeSmtp) -> None:
    smtp.answer = always("MAIL", "550 5.7.1 no empty sender")
    findings = bad(check(smtp))
    assert findings[0].level is Level.FAILURE
    assert "empty sender" in findings[0].words


def test_no_catch_all_is_said_and_is_ok(smtp: FakeSmtp) -> None:
    findings = check(smtp, router(catch_all=""))
    assert bad(findings) == []
    assert any("no catch-all" in one.words for one in findings)


def test_a_server_that_takes_any_name_at_home_is_ok_and_elsewhere_a_warning(smtp: FakeSmtp) -> None:
    smtp.answer = lambda verb, argument: "250 2.1.5 ok" if verb == "RCPT" and f"@{HOME}>" in argument else None
    findings = check(smtp)
    assert bad(findings) == []
    assert any("catch-all of its own" in one.words for one in findings)
    smtp.takes_all = True
    found = the_one(check(smtp))
    assert (found.level, "example.com" in found.words) == (Level.WARNING, True)


def test_ones_own_domain_is_never_taken_for_a_foreign_one(smtp: FakeSmtp) -> None:
    check(smtp, router(domains=("example.com",)))
    asked = [command for command in smtp.commands if command.startswith("RCPT")]
    assert sum("@example.com>" in command for command in asked) == 1
    assert sum("@example.net>" in command for command in asked) == 1


def test_a_bug_in_a_check_is_unknown_and_raises_nothing(smtp: FakeSmtp) -> None:
    rules = router(domains=())
    findings = check(smtp, rules)
    assert (findings[-1].level, "broke off" in findings[-1].words) == (Level.UNKNOWN, True)


def test_what_a_server_says_is_safe_to_show(smtp: FakeSmtp) -> None:
    assert Say("server").warning("a\x1b[2J", "b\u202e").words == "a [2J"
    smtp.answer = always("RCPT", "550 5.1.1 \x1b[2Jgone\u202e")
    findings = check(smtp)
    assert all(part.isprintable() for one in findings for part in (one.words, one.next))
    assert any("[2Jgone" in one.words for one in findings)
