"""Asking real mailboxes: Dovecot over a Postfix' Maildirs, and Maddy."""

import dataclasses
import smtplib
from collections.abc import Iterator

import pytest

from drain.login import Server
from drain.mailboxes import ANY, Login, Mailboxes, Presence
from drain.setting import Secret
from tests.real.dovecot import MASTER, Dovecot
from tests.real.maddy import Maddy
from tests.real.postfix import _MAIL_UID, Postfix

ALICE, BOB = "alice@example.test", "bob@example.test"
VALUE = "0123456789abcdef" * 4
GERMAN = "Entw&APw-rfe"


@pytest.fixture(scope="module")
def running(postfix: Postfix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dovecot]:
    mail = postfix._running_home() / "mail"
    with Dovecot(tmp_path_factory.mktemp("dovecot"), mail, _MAIL_UID, postfix.addresses) as server:
        yield server


@pytest.fixture
def dovecot(running: Dovecot, postfix: Postfix) -> Dovecot:
    postfix.wait_until_filed()
    running.clear()
    return running


def file(server: Postfix | Maddy, address: str, value: str, subject: str = "s") -> None:
    with smtplib.SMTP("127.0.0.1", server.port, local_hostname="localhost", timeout=10) as client:
        client.login(server.user, server.password)
        message = f"X-Drain-Id: {value}\r\nFrom: a@x.test\r\nSubject: {subject}\r\n\r\nhello\r\n"
        client.sendmail("a@x.test", [address], message)
    server.wait_until_filed()


def mailboxes(dovecot: Dovecot, *, tls: str = "none", port: int = 0, ca_file: str = "") -> Mailboxes:
    server = Server(
        "127.0.0.1", port or dovecot.port, "", Secret(""), tls, ca_file, name="IMAP server", settings="VERIFY_IMAP"
    )
    return Mailboxes(server, {ALICE: Login(ALICE, Secret(dovecot.passwords[ALICE]))}, 0, seconds=10)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("INBOX", "Found in INBOX."),
        ("Junk", "Found in Junk."),
        (GERMAN, "Found in Entwürfe."),
        (f"Deep/{GERMAN} &- b/last one", "Found in Deep/Entwürfe & b/last one."),
        ('\\\\ \\"q\\" (x) {3}', 'Found in \\ "q" (x) {3}.'),
    ],
)
def test_a_mail_is_found_wherever_it_was_moved_to(dovecot: Dovecot, postfix: Postfix, folder: str, words: str) -> None:
    for number in range(3):
        file(postfix, ALICE, f"{number}" * 64)
    file(postfix, ALICE, VALUE)
    if folder != "INBOX":
        dovecot.move(ALICE, folder)
    file(postfix, ALICE, "f" * 64)
    answer = mailboxes(dovecot).ask(ALICE, VALUE)
    assert (answer.presence, answer.words) == (Presence.THERE, words)
    assert mailboxes(dovecot).ask("Alice+shop@EXAMPLE.test", VALUE).presence is Presence.THERE


def test_a_mail_that_is_not_there_is_absent_and_no_mail_is_marked_as_seen(dovecot: Dovecot, postfix: Postfix) -> None:
    file(postfix, ALICE, "a" * 64)
    file(postfix, BOB, VALUE)
    assert mailboxes(dovecot).ask(ALICE, VALUE).presence is Presence.ABSENT
    assert mailboxes(dovecot).ask(ALICE, "a" * 64).presence is Presence.THERE
    assert mailboxes(dovecot).ask(ALICE, "a" * 63).presence is Presence.ABSENT, "a part of a value is none"
    with dovecot.client(ALICE) as client:
        client.select("INBOX", readonly=True)
        assert client.search(None, "UNSEEN")[1] == [b"1"]


def test_one_who_may_read_all_looks_into_every_mailbox(dovecot: Dovecot, postfix: Postfix) -> None:
    file(postfix, BOB, VALUE)
    master = Login(f"%*{MASTER}", Secret(dovecot.master_password))
    everyone = dataclasses.replace(mailboxes(dovecot), logins={ANY: master})
    assert everyone.ask(BOB, VALUE).presence is Presence.THERE
    assert everyone.ask(ALICE, VALUE).presence is Presence.ABSENT
    assert everyone.ask("nobody@example.test", VALUE).presence is Presence.UNKNOWN
    assert mailboxes(dovecot).ask(BOB, VALUE).presence is Presence.NO_LOGIN
    assert everyone.probe(BOB) == {BOB: ""}


def test_a_wrong_password_is_said_and_not_shown(dovecot: Dovecot) -> None:
    wrong = dataclasses.replace(mailboxes(dovecot), logins={ALICE: Login(ALICE, Secret("wr0ng"))})
    answer = wrong.ask(ALICE, VALUE)
    assert answer.presence is Presence.UNKNOWN
    assert f"refused the login of {ALICE}" in answer.words
    assert "VERIFY_IMAP_LOGINS_FILE" in answer.words
    assert "wr0ng" not in answer.words
    assert wrong.probe("") == {ALICE: answer.words}


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_tls_is_verified_against_the_servers_own_certificate(dovecot: Dovecot, postfix: Postfix, tls: str) -> None:
    file(postfix, ALICE, VALUE)
    port = dovecot.tls_port if tls == "implicit" else dovecot.port
    pinned = mailboxes(dovecot, tls=tls, port=port, ca_file=str(dovecot.ca_file))
    assert pinned.ask(ALICE, VALUE).presence is Presence.THERE
    answer = mailboxes(dovecot, tls=tls, port=port).ask(ALICE, VALUE)
    assert answer.presence is Presence.UNKNOWN
    assert "certificate that is not believed" in answer.words


def test_tls_where_the_server_speaks_none_is_unknown(dovecot: Dovecot) -> None:
    answer = mailboxes(dovecot, tls="implicit", port=dovecot.port).ask(ALICE, VALUE)
    assert answer.presence is Presence.UNKNOWN
    assert "VERIFY_IMAP_TLS" in answer.words


def test_a_server_that_is_away_is_unknown(dovecot: Dovecot) -> None:
    dovecot.halt()
    try:
        answer = mailboxes(dovecot).ask(ALICE, VALUE)
    finally:
        dovecot.start()
    assert answer.presence is Presence.UNKNOWN
    assert "refuses connections" in answer.words


@pytest.mark.maddy
def test_maddy_is_asked_alike(maddy: Maddy) -> None:
    maddy.clear()
    assert maddy.mailbox(ALICE) == []  # makes the login
    file(maddy, ALICE, "0" * 64)
    file(maddy, ALICE, VALUE)
    server = Server("127.0.0.1", maddy.imap_port, "", Secret(""), "none", "", name="IMAP server")
    asked = Mailboxes(server, {ALICE: Login(ALICE, Secret(maddy.password))}, 0, seconds=10)
    assert asked.ask(ALICE, VALUE).words == "Found in INBOX."
    assert asked.ask(ALICE, "a" * 64).presence is Presence.ABSENT
    assert asked.probe("") == {ALICE: ""}
