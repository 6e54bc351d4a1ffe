"""`drain doctor` on filters, the upstream, the relay, IMAP and the ways out of alerts: each sound, and each broken."""

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from drain.doctor import services
from drain.doctor.finding import Finding, Level
from drain.filters import Inbound, Verdict
from drain.filters.auth import Auth
from drain.filters.decision import Decision
from drain.filters.dnsbl import Dnsbl
from drain.filters.spamassassin import SpamAssassin
from drain.login import Server
from drain.mailboxes import ANY, Login, Mailboxes
from drain.setting import Secret
from drain.upstreams.postmark import Postmark
from drain.upstreams.smtp import Smtp
from tests.daemon_fake import FakeDaemon, read_spamc
from tests.http_fake import Answer, FakeHttp, answer
from tests.imap_fake import FakeImap
from tests.real.nameserver import IP_TEST_ENTRY, FakeResolver, from_zones
from tests.real.smarthost import authority
from tests.relay import RelayHouse
from tests.smtp_fake import FakeSmtp
from tests.support import free_port

SECRET = Secret("s3cret-topic")


def the_one(findings: Iterable[Finding], check: str) -> Finding:
    """The only finding; if it is not ok, it says what to do."""
    (found,) = findings
    assert found.check == check
    assert found.next or found.level is Level.OK
    return found


# -- filters --


def spamd(reply: bytes) -> FakeDaemon:
    def converse(connection: socket.socket) -> None:
        read_spamc(connection)
        connection.sendall(reply)

    return FakeDaemon(converse)


def test_a_filter_whose_daemon_answers_is_ok_and_one_that_does_not_a_failure() -> None:
    with spamd(b"SPAMD/1.5 0 PONG\r\n") as daemon:
        found = the_one(services.filters([SpamAssassin(daemon.place, 1000, 5)]), "filters")
        assert (found.level, found.words.startswith("spamassassin: ")) == (Level.OK, True)
    found = the_one(services.filters([SpamAssassin(daemon.place, 1000, 5)]), "filters")
    assert (found.level, "SPAMD_HOST" in found.next) == (Level.FAILURE, True)
    with spamd(b"HTTP/1.1 400\r\n\r\n") as daemon:
        assert the_one(services.filters([SpamAssassin(daemon.place, 1000, 5)]), "filters").level is Level.FAILURE


def test_one_list_that_says_nothing_is_a_warning_and_the_others_are_ok() -> None:
    def filter_at(resolver: str, *zones: str) -> Dnsbl:
        return Dnsbl(
            ip_zones=zones,
            domain_zones=(),
            links=False,
            resolvers=(resolver,),
            dqs_key=Secret(""),
            score=1.0,
            timeout_seconds=5,
        )

    with FakeResolver(from_zones({"good.example.org": IP_TEST_ENTRY})) as resolver:
        findings = list(services.filters([filter_at(resolver.resolver, "good.example.org", "dead.example.org")]))
        levels = {part: one.level for one in findings for part in ("good.", "dead.") if part in one.words}
        assert levels == {"good.": Level.OK, "dead.": Level.WARNING}
        assert (
            the_one(services.filters([filter_at(resolver.resolver, "dead.example.org")]), "filters").level
            is Level.FAILURE
        )


def test_a_filter_that_asks_nobody_is_ok() -> None:
    assert the_one(services.filters([Auth({})]), "filters").level is Level.OK


def test_a_service_that_can_only_be_asked_about_a_mail_is_unknown_unless_it_is_not_there() -> None:
    with FakeHttp() as http:
        found = the_one(services.filters([Decision(f"{http.url}/secret/path", Secret(""), "minimal", 5)]), "filters")
        assert (found.level, "drain filter FILE" in found.next) == (Level.UNKNOWN, True)
        assert http.requests == []
    found = the_one(services.filters([Decision(f"{http.url}/secret/path", Secret(""), "minimal", 5)]), "filters")
    assert (found.level, f"127.0.0.1:{http.port}" in found.words) == (Level.FAILURE, True)
    assert "secret" not in found.words + found.next


class Hanging:
    """A filter whose service never answers, and that forgot its time limit."""

    name: ClassVar[str] = "hanging"
    timeout_seconds: ClassVar[float] = 1.0

    def check(self, inbound: Inbound) -> Verdict:
        raise NotImplementedError

    def probe(self) -> str:
        ours, _theirs = socket.socketpair()
        ours.recv(1)
        return "never"


def test_a_filter_that_hangs_is_unknown_and_does_not_hide_the_next() -> None:
    first, second = services.filters([Hanging(), Auth({})], seconds=0.2)
    assert (first.level, second.level) == (Level.UNKNOWN, Level.OK)


# -- the upstream --


def smarthost(port: int, password: str = "s3cret") -> Smtp:
    return Smtp(
        (("127.0.0.1", port),), "drain", Secret(password), tls="none", ca_file="", resolver=None, ehlo="example.test"
    )


def test_an_upstream_that_takes_the_login_is_ok_and_gets_no_mail() -> None:
    with FakeSmtp(takes_all=True) as server:
        found = the_one(services.upstream(smarthost(server.port)), "upstream")
        assert (found.level, "logged in as drain" in found.words) == (Level.OK, True)
        assert not {command.split()[0].upper() for command in server.commands} & {"MAIL", "RCPT", "DATA"}


def test_an_upstream_that_refuses_the_login_or_is_away_is_a_failure() -> None:
    with FakeSmtp() as server:
        found = the_one(services.upstream(smarthost(server.port, "wrong-one")), "upstream")
        assert (found.level, "SMARTHOST_PASS" in found.words, "wrong-one" in found.words) == (
            Level.FAILURE,
            True,
            False,
        )
    assert the_one(services.upstream(smarthost(free_port())), "upstream").level is Level.FAILURE


def test_a_provider_is_asked_in_its_own_way() -> None:
    with FakeHttp(lambda request: answer({"Name": "Home"})) as http:
        assert the_one(services.upstream(Postmark(Secret("token"), http.url)), "upstream").level is Level.OK
        http.answer = lambda request: Answer(b'{"ErrorCode": 10, "Message": "no"}', status=401)
        assert the_one(services.upstream(Postmark(Secret("token"), http.url)), "upstream").level is Level.FAILURE


# -- the ways out of alerts --


def test_that_nobody_is_told_is_a_warning() -> None:
    found = the_one(services.outlets("", {"NTFY_URL": Secret("")}), "alerts")
    assert (found.level, "MAIL_ALERT_CMD" in found.next) == (Level.WARNING, True)
    alone = the_one(services.outlets("", {}, mail=True), "alerts")
    assert (alone.level, "while the mail server" in alone.words) == (Level.WARNING, True)
    assert [found.level for found in services.outlets("cat", {}, mail=True)] == [Level.OK, Level.OK]


def test_an_address_that_can_be_reached_is_ok_and_is_neither_asked_nor_shown() -> None:
    with FakeHttp() as http:
        urls = {"NTFY_URL": Secret(f"{http.url}/{SECRET.reveal()}")}
        found = the_one(services.outlets("", urls), "alerts")
        assert (found.level, http.requests) == (Level.OK, [])
        assert SECRET.reveal() not in found.words + found.next
    found = the_one(services.outlets("", urls), "alerts")
    assert (found.level, "NTFY_URL" in found.words) == (Level.WARNING, True)
    assert SECRET.reveal() not in found.words + found.next


@pytest.mark.parametrize(
    "command", ["true", "exit 3", "echo done >&2 | cat", "X=1 nosuch", '"$HOME/x" y', ". ./x", "if true; then echo; fi"]
)
def test_a_command_that_a_shell_could_run_is_ok(command: str) -> None:
    assert the_one(services.outlets(command, {}), "alerts").level is Level.OK


@pytest.mark.parametrize("command", ["nosuch-command --now", "/nosuch/script", "{folder}/not-executable x"])
def test_a_command_that_is_not_there_is_a_warning_that_names_it(tmp_path: Path, command: str) -> None:
    (tmp_path / "not-executable").touch(0o644)
    command = command.format(folder=tmp_path)
    found = the_one(services.outlets(command, {}), "alerts")
    assert (found.level, command.split(maxsplit=1)[0] in found.words) == (Level.WARNING, True)


@pytest.mark.parametrize("command", ["echo 'open", "if true", "a | | b", "x\0y"])
def test_a_command_line_with_open_quotes_is_not_ok(command: str) -> None:
    assert the_one(services.outlets(command, {}), "alerts").level in {Level.FAILURE, Level.UNKNOWN}


def test_the_command_is_not_run(tmp_path: Path) -> None:
    for command in (f"touch {tmp_path}/ran", f"$(touch {tmp_path}/ran)", f"true; touch {tmp_path}/ran"):
        assert the_one(services.outlets(command, {}), "alerts").level is Level.OK
    assert list(tmp_path.iterdir()) == []


# -- IMAP --


def mailboxes(port: int, *names: str) -> Mailboxes:
    server = Server("127.0.0.1", port, "", Secret(""), "none", "", name="IMAP server", settings="VERIFY_IMAP")
    return Mailboxes(server, {name: Login("user", Secret("password")) for name in names}, 1.0, 5.0)


def test_logins_to_mailboxes_are_tried_each() -> None:
    with FakeImap() as imap:
        findings = list(services.imap(mailboxes(imap.port, "alice@example.test", ANY), "admin@example.test"))
        assert [one.level for one in findings] == [Level.OK] * 2
        assert {one.words.split()[0] for one in findings} == {"alice@example.test", "admin@example.test"}
        imap.answer = lambda verb, argument: (
            b"NO [AUTHENTICATIONFAILED] no" if verb in {"LOGIN", "AUTHENTICATE"} else None
        )
        found = the_one(services.imap(mailboxes(imap.port, ANY), "admin@example.test"), "imap")
        assert (found.level, "VERIFY_IMAP_LOGINS_FILE" in found.next) == (Level.FAILURE, True)
    assert the_one(services.imap(mailboxes(free_port(), ANY), "a@b.test"), "imap").level is Level.FAILURE
    assert the_one(services.imap(mailboxes(1), "a@b.test"), "imap").level is Level.WARNING


# -- the relay's own listener --


@pytest.fixture
def relay_house(tmp_path: Path) -> Any:
    with FakeSmtp() as to, FakeSmtp() as home:
        yield RelayHouse(to, home, tmp_path)


def test_the_relay_that_listens_is_ok_and_one_that_does_not_a_failure(relay_house: RelayHouse) -> None:
    with relay_house.running():
        found = the_one(services.relay("127.0.0.1", relay_house.port, tls="starttls", certificate=False), "relay")
        assert (found.level, "offers a login" in found.words) == (Level.OK, True)
        everywhere = services.relay("0.0.0.0", relay_house.port, tls="starttls", certificate=False)
        assert the_one(everywhere, "relay").level is Level.OK
        # It was started before its certificate was set.
        found = the_one(services.relay("127.0.0.1", relay_house.port, tls="starttls", certificate=True), "relay")
        assert (found.level, "Start drain again" in found.next) == (Level.FAILURE, True)
    found = the_one(services.relay("127.0.0.1", relay_house.port, tls="starttls", certificate=False), "relay")
    assert (found.level, "RELAY_ENABLED" in found.next) == (Level.FAILURE, True)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_the_relays_certificate_is_looked_at(relay_house: RelayHouse, tmp_path: Path, tls: str) -> None:
    # A week, as `Certificate.issue` has it, is soon.
    chain = str(authority().issue("relay.example.test").chain_file(tmp_path / "relay.pem"))
    with relay_house.running(RELAY_TLS=tls, RELAY_TLS_CERT_FILE=chain, RELAY_TLS_KEY_FILE=chain):
        listens, certificate = services.relay("127.0.0.1", relay_house.port, tls=tls, certificate=True)
    assert (listens.level, certificate.level) == (Level.OK, Level.WARNING)
    assert "RELAY_TLS_CERT_FILE" in certificate.next


def test_another_program_on_the_relays_port_is_a_failure() -> None:
    with FakeSmtp(extensions=("8BITMIME",)) as other:
        found = the_one(services.relay("127.0.0.1", other.port, tls="starttls", certificate=False), "relay")
    assert (found.level, "offers no login" in found.words) == (Level.FAILURE, True)
