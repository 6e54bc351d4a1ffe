"""What a stranger, a liar and a smuggler get from the running relay, and what of it reaches the smarthost: nothing."""

import base64
import itertools
import smtplib
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from drain.relay.guard import FAILURES
from tests.real.relay import ALICE, BOB, DOMAIN, PASSWORD, USER, RealRelay, added_around
from tests.real.server import HOST, self_signed_certificate
from tests.real.smarthost import Smarthost, smarthost
from tests.support import until

HEAD = b"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.test>\r\nSubject: s\r\n"
MAIL = b"From: Alice <alice@example.test>\r\n" + HEAD + b"\r\nhello\r\n"
ENVELOPE = (b"MAIL FROM:<alice@example.test>\r\n", b"RCPT TO:<bob@example.net>\r\n", b"DATA\r\n")
PLAIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smarthost]:
    with smarthost(tmp_path_factory.mktemp("smarthost")) as running:
        yield running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, host: Smarthost) -> Iterator[RealRelay]:
    with RealRelay(tmp_path_factory.mktemp("relay"), host, None) as relay:
        yield relay


@pytest.fixture
def relay(running: RealRelay, host: Smarthost) -> Iterator[RealRelay]:
    """One that sends what it takes: shown behind each test, so that "nothing arrived" says something."""
    host.clear()
    yield running
    host.clear()
    running.send(MAIL, "control@example.net")
    assert [mail.recipient for mail in running.arrived()] == ["control@example.net"]


def nothing_was_taken(relay: RealRelay) -> bool:
    """Neither into the queue, nor to the smarthost."""
    return relay.open() == [] and relay.smarthost.mails() == []


# an open relay


@pytest.mark.parametrize(
    "before",
    [(), (b"AUTH PLAIN AGEAYg==\r\n",), (b"AUTH PLAIN =\r\n",), (b"AUTH LOGIN cGhvbmU=\r\n", b"*\r\n")],
    ids=["no login", "a wrong one", "an empty one", "a cancelled one"],
)
def test_without_a_login_nothing_is_taken_whoever_it_is_for(relay: RealRelay, before: tuple[bytes, ...]) -> None:
    everybody = [f"RCPT TO:<{one}>\r\n".encode() for one in (BOB, ALICE, f"postmaster@{DOMAIN}", "postmaster")]
    replies = relay.say(*before, ENVELOPE[0], *everybody, b"DATA\r\n", login=False)
    assert [reply[:10] for reply in replies[-7:-1]] == [b"530 5.7.0 "] * 6
    assert replies[-1].startswith(b"221 ")
    assert nothing_was_taken(relay)


@pytest.mark.parametrize(("user", "password"), [(USER, "wrong"), (ALICE, PASSWORD)])
def test_a_wrong_login_is_refused_by_both_mechanisms(relay: RealRelay, user: str, password: str) -> None:
    for mechanism in ("PLAIN", "LOGIN"):
        with smtplib.SMTP(HOST, relay.port, "client.test", timeout=30) as client:
            client.ehlo()
            client.user, client.password = user, password
            with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))
            assert refused.value.smtp_code == 535
            assert client.mail(ALICE)[0] == 530
    assert nothing_was_taken(relay)


def other_address() -> str:
    """One of this machine's that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback's")
        address: str = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback's")
    return address


@pytest.fixture(scope="module")
def beyond(tmp_path_factory: pytest.TempPathFactory, host: Smarthost) -> Iterator[RealRelay]:
    """One that listens beyond loopback."""
    folder = tmp_path_factory.mktemp("beyond")
    certificate, key = self_signed_certificate(folder)
    address = other_address()
    settings = {
        "RELAY_HOST": address,
        "RELAY_ALLOWED_CIDRS": f"{address}/32",
        "RELAY_TLS_CERT_FILE": str(certificate),
        "RELAY_TLS_KEY_FILE": str(key),
    }
    with RealRelay(folder / "relay", host, None, settings) as relay:
        yield relay


def test_beyond_loopback_no_password_is_taken_before_tls(beyond: RealRelay, host: Smarthost) -> None:
    host.clear()
    address = beyond.settings["RELAY_HOST"]
    auth, mail, rcpt, data, bye = beyond.say(b"AUTH PLAIN " + PLAIN + b"\r\n", *ENVELOPE, login=False, host=address)
    assert auth.startswith(b"538 5.7.11 ")
    assert [reply[:10] for reply in (mail, rcpt, data)] == [b"530 5.7.0 "] * 3
    assert bye.startswith(b"221 ")
    with smtplib.SMTP(address, beyond.port, "client.test", timeout=20) as client:
        client.ehlo()
        assert client.has_extn("starttls")
        assert not client.has_extn("auth")
        client.starttls()
        client.login(USER, PASSWORD)
        client.sendmail(ALICE, BOB, MAIL)
    assert [mail.recipient for mail in beyond.arrived()] == [BOB]


def test_beyond_loopback_it_does_not_start_without_a_certificate(tmp_path: Path, host: Smarthost) -> None:
    relay = RealRelay(tmp_path, host, None, {"RELAY_HOST": other_address()})
    with pytest.raises(RuntimeError, match="RELAY_TLS_CERT_FILE"), relay:
        pass


def test_beyond_loopback_only_the_networks_that_are_named_are_let_in(tmp_path: Path, host: Smarthost) -> None:
    certificate, key = self_signed_certificate(tmp_path)
    address = other_address()
    settings = {"RELAY_HOST": address, "RELAY_TLS_CERT_FILE": str(certificate), "RELAY_TLS_KEY_FILE": str(key)}
    with RealRelay(tmp_path / "relay", host, None, settings) as relay:
        with pytest.raises(smtplib.SMTPConnectError) as refused:
            smtplib.SMTP(address, relay.port, "client.test", timeout=20)
        assert refused.value.smtp_code == 554


@pytest.mark.parametrize("with_login", [True, False])
def test_commands_piped_behind_starttls_are_not_looked_at(
    beyond: RealRelay, host: Smarthost, *, with_login: bool
) -> None:
    """Who sits between could put them there; after the handshake they would be the user's (CVE-2011-0411)."""
    host.clear()
    piped = (b"EHLO evil\r\nAUTH PLAIN " + PLAIN + b"\r\n" if with_login else b"") + b"".join(ENVELOPE)
    piped += MAIL.replace(b"hello", b"evil") + b".\r\n"
    context = ssl.create_default_context(cafile=beyond.settings["RELAY_TLS_CERT_FILE"])
    context.check_hostname = False
    with socket.create_connection((beyond.settings["RELAY_HOST"], beyond.port), timeout=20) as plain:
        reader = plain.makefile("rb")
        reader.readline()
        plain.sendall(b"EHLO client.test\r\n")
        while reader.readline()[3:4] == b"-":
            pass
        plain.sendall(b"STARTTLS\r\n" + piped)
        assert reader.readline().startswith(b"220 ")
        try:
            with context.wrap_socket(plain, server_hostname=HOST) as tls:
                tls.sendall(b"NOOP\r\nMAIL FROM:<alice@example.test>\r\nQUIT\r\n")
                answers = tls.makefile("rb").read().split(b"\r\n")[:-1]
        except (ssl.SSLError, ConnectionError):
            answers = []  # what was piped is taken for a handshake, and is none
    # Of the piped ones none is answered, and what comes after TLS is from a stranger.
    assert [answer[:3] for answer in answers] in ([], [b"250", b"503", b"221"], [b"250", b"530", b"221"])
    assert nothing_was_taken(beyond)


# somebody else's name


SENDERS = (
        b"<mallory@elsewhere.test>", b"<alice@example.test.elsewhere.test>", b"<alice@sub.example.test>",
        b"<alice@xexample.test>", b"<@example.test:mallory@elsewhere.test>", b"<@elsewhere.test:alice@example.test>",
        b"<@a.test,@b.test:alice@example.test>", b"<alice%elsewhere.test@example.test>",
        b"<elsewhere.test!alice@example.test>", b'<"mallory@elsewhere.test"@example.test>',
        b"<mallory@elsewhere.test@example.test>", b"<alice@example.test>@elsewhere.test", b"<<alice@example.test>>",
        b"alice@example.test", b"<alice@[127.0.0.1]>", b"<alice>", b"<>", b"<alice@example.test\r>",
        b"<alice@example.test\n>", b"<alice\x00@example.test>", b"<alice @example.test>",
        b"<alice@example.test> AUTH=mallory@elsewhere.test X=y", "<alice@ex\N{CYRILLIC SMALL LETTER A}mple.test>".encode(),
)  # fmt: skip
RECIPIENTS = (
        b"<@example.test:bob@example.net>", b"<@hop.test,@hop2.test:bob@example.net>", b"<bob%example.net@example.test>",
        b"<example.net!bob@example.test>", b'<"bob@example.net"@example.test>', b"<bob@example.net@example.test>",
        b"<bob@example.net>,<carol@example.net>", b"<bob@example.net,carol@example.net>",
        b"<bob@example.net\rRCPT TO:<carol@example.net>", b"<bob@example.net\n>", b"<bob@example.net\x00>",
        b"<bob@example.net> NOTIFY=NEVER", b"<bob>", b"<>", b'<"bob\r"@example.net>', b"<bob@[192.0.2.1]>",
)  # fmt: skip


def test_a_wrong_envelope_sender_is_refused(relay: RealRelay) -> None:
    for path in SENDERS:
        mail, *others, _ = relay.say(b"MAIL FROM:" + path + b"\r\n", *ENVELOPE[1:])
        assert mail[:1] == b"5", (path, mail)
        assert all(reply[:1] == b"5" for reply in others), (path, others)
    assert nothing_was_taken(relay)


def test_a_recipient_that_could_be_another_is_refused(relay: RealRelay) -> None:
    for path in RECIPIENTS:
        mail, rcpt, *others, _ = relay.say(ENVELOPE[0], b"RCPT TO:" + path + b"\r\n", b"DATA\r\n")
        assert mail[:3] == b"250"
        assert rcpt[:1] == b"5", (path, rcpt)
        assert all(reply[:1] == b"5" for reply in others), (path, others)
    assert nothing_was_taken(relay)


def test_what_stands_behind_a_line_feed_is_a_command_of_its_own_and_judged_like_any(relay: RealRelay) -> None:
    """A bare LF ends a command too, as many programs have it; that is no way around anything."""
    replies = relay.say(b"MAIL FROM:<alice@example.test>\nMAIL FROM:<mallory@elsewhere.test>\r\n")
    assert [reply[:3] for reply in replies] == [b"250", b"503", b"221"]
    replies = relay.say(b"NOOP\nMAIL FROM:<mallory@elsewhere.test>\nRCPT TO:<bob@example.net>\nDATA\r\n")
    assert [reply[:3] for reply in replies] == [b"250", b"550", b"503", b"503", b"221"]
    assert nothing_was_taken(relay)


FROMS = {
    "another": b"From: mallory@elsewhere.test\r\n",
    "another, with our name": b'From: "alice@example.test" <mallory@elsewhere.test>\r\n',
    "ours in a comment": b"From: mallory@elsewhere.test (alice@example.test)\r\n",
    "another in the name": b'From: "mallory@elsewhere.test" <alice@example.test>\r\n',
    "another in the encoded name": b"From: =?utf-8?q?mallory=40elsewhere=2Etest?= <alice@example.test>\r\n",
    "two addresses, one of them another": b"From: alice@example.test, mallory@elsewhere.test\r\n",
    "two fields": b"From: alice@example.test\r\nFrom: mallory@elsewhere.test\r\n",
    "two fields, another first": b"From: mallory@elsewhere.test\r\nX: y\r\nfrom: alice@example.test\r\n",
    "two fields, one with a blank": b"From: alice@example.test\r\nFrom : mallory@elsewhere.test\r\n",
    "two fields, one below a line that is none": b"From: alice@example.test\r\nnonsense\r\nFrom: mallory@elsewhere.test\r\n",
    "folded away": b"From:\r\n mallory@elsewhere.test\r\n",
    "folded to nothing": b"From: alice@example.test\r\n \r\n, mallory@elsewhere.test\r\n",
    "a bare CR": b"From: alice@example.test\rFrom: mallory@elsewhere.test\r\n",
    "a bare LF": b"From: alice@example.test\nFrom: mallory@elsewhere.test\r\n",
    "a NUL": b"From: alice@example.test\0, mallory@elsewhere.test\r\n",
    "a group": b"From: us: alice@example.test, mallory@elsewhere.test;\r\n",
    "a route": b"From: <@elsewhere.test:alice@example.test>\r\n",
    "a quoted local part": b'From: <"mallory@elsewhere.test"@example.test>\r\n',
    "two in brackets": b"From: <alice@example.test> <mallory@elsewhere.test>\r\n",
    "a wide @": "From: mallory\N{FULLWIDTH COMMERCIAL AT}elsewhere.test <alice@example.test>\r\n".encode(),
    "a letter from another alphabet": "From: alice@ex\N{CYRILLIC SMALL LETTER A}mple.test\r\n".encode(),
    "a subdomain": b"From: alice@sub.example.test\r\n",
    "no address": b"From: Alice\r\n",
    "an empty one": b"From: \r\n",
    "none at all": b"",
    "another sender": b"From: alice@example.test\r\nSender: mallory@elsewhere.test\r\n",
    "another who sends again": b"From: alice@example.test\r\nResent-From: mallory@elsewhere.test\r\n",
    "not ASCII, not UTF-8": b"From: \xffmallory@elsewhere.test\xff <alice@example.test>\r\n",
}


def test_a_header_that_lies_about_its_author_is_refused(relay: RealRelay) -> None:
    for name, line in FROMS.items():
        *_, data, final, bye = relay.say(*ENVELOPE, line + HEAD + b"\r\nhello\r\n.\r\n")
        assert data[:3] == b"354"
        assert final[:8] in (b"550 5.6.", b"550 5.7."), (name, final)
        assert bye[:3] == b"221"
    assert nothing_was_taken(relay)


# smuggling


ENDS = (
    b"\n.\r\n", b"\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\r\n.\r\r\n",
    b"\r\n\x00.\r\n", b"\r\n.\x00\r\n", b"\r\n. \r\n", b"\r\r\n.\n", b"\r\n..\r\n", b"\n\n.\r\n\n",
)  # fmt: skip


def test_what_only_looks_like_the_end_ends_nothing_and_one_mail_arrives(relay: RealRelay) -> None:
    """One mail here, and one at the smarthost: what was left of the trick is the text of that one."""
    evil = b"MAIL FROM:<alice@example.test>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n" + MAIL + b"evil"
    for number, end in enumerate(ENDS):
        recipient = b"RCPT TO:<u%d@example.net>\r\n" % number
        replies = relay.say(ENVELOPE[0], recipient, ENVELOPE[2], MAIL + b"before" + end + evil + b"\r\n.\r\n")
        assert [reply[:3] for reply in replies] == [b"250", b"250", b"354", b"250", b"221"], end
    arrived = {mail.recipient: mail.raw for mail in relay.arrived()}
    assert len(relay.smarthost.mails()) == len(ENDS)
    assert arrived.keys() == {f"u{number}@example.net" for number in range(len(ENDS))}
    for raw in arrived.values():
        assert raw.startswith(b"Received: from localhost by ")
        begin, _, rest = raw.partition(b"\nhello\nbefore")
        assert begin.endswith(b"Subject: s\n")
        assert rest.endswith(
            b"MAIL FROM:<alice@example.test>\nRCPT TO:<victim@example.net>\nDATA\n" + lf(MAIL) + b"evil\n"
        )


def lf(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n")


def test_dots_and_bare_line_ends_arrive_as_lines(relay: RealRelay) -> None:
    body = b"\r\n..one\r\na\n.\nb\r.\rc\r\n....\r\n"
    relay.say(*ENVELOPE, MAIL + body + b".\r\n")
    (mail,) = relay.arrived()
    assert added_around(mail.raw, lf(MAIL) + b"\n.one\na\n.\nb\n.\nc\n...\n") == [b"Received"]


def test_two_mails_in_one_breath_are_two(relay: RealRelay) -> None:
    """PIPELINING as it is meant; and a mail that was cut off is none."""
    second = (ENVELOPE[0], b"RCPT TO:<carol@example.net>\r\n", b"DATA\r\n")
    replies = relay.say(*ENVELOPE, MAIL + b".\r\n", *second, MAIL + b".\r\n")
    assert [reply[:3] for reply in replies] == [b"250", b"250", b"354", b"250"] * 2 + [b"221"]
    with socket.create_connection((HOST, relay.port), timeout=20) as connection:
        connection.sendall(b"EHLO c\r\nAUTH PLAIN " + PLAIN + b"\r\n" + b"".join(ENVELOPE) + MAIL + b".\r")
    assert sorted(mail.recipient for mail in relay.arrived()) == [BOB, "carol@example.net"]


def test_guessing_passwords_is_slowed_down_then_locked_out_and_a_known_client_goes_on(
    tmp_path: Path, host: Smarthost
) -> None:
    """On loopback who locks out could lock out the user: whose password was right before, it stays so."""
    host.clear()
    with RealRelay(tmp_path, host, None) as relay:
        relay.send(MAIL)
        # Each is answered late; so all at once.
        with ThreadPoolExecutor(FAILURES) as guessers:
            assert set(guessers.map(lambda _: guess(relay), range(FAILURES))) == {535}
        assert guess(relay) == 454
        relay.send(MAIL)
        until(lambda: "locked out after wrong passwords" in relay.log)
        assert len(relay.arrived()) == 2


def guess(relay: RealRelay) -> int:
    """What a wrong password is answered."""
    with smtplib.SMTP(HOST, relay.port, "client.test", timeout=60) as client:
        client.ehlo()
        return client.docmd("AUTH", "PLAIN " + base64.b64encode(f"\0{USER}\0guess".encode()).decode())[0]


@pytest.mark.parametrize(("allowed", "own"), list(itertools.product(["", f"bob@{DOMAIN}"], [(), (ALICE,)])))
def test_where_nothing_is_allowed_by_name_nothing_is_sent(
    tmp_path: Path, host: Smarthost, allowed: str, own: tuple[str, ...]
) -> None:
    """A user's own senders narrow ALLOWED_FROM down and never widen it."""
    from drain.relay.users import Users

    host.clear()
    relay = RealRelay(tmp_path, host, None, {"ALLOWED_FROM": allowed})
    Users(relay.state_dir / "relay-users", ln=4).add(USER, PASSWORD.encode(), own)
    with relay:
        mail, *_ = relay.say(*ENVELOPE)
        assert mail.startswith(b"550 5.7.1 ")
        assert b"ALLOWED_FROM" in mail
        assert nothing_was_taken(relay)
