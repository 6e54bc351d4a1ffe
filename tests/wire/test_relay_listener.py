"""The relay's listener, over real sockets."""

import base64
import contextlib
import datetime
import ipaddress
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drain.errors import ConfigError, Unavailable
from drain.places import networks
from drain.relay import listener as module
from drain.relay.guard import FAILURES, Guard
from drain.relay.listener import Limits, Listener, tls_context
from drain.relay.refusal import Refusal
from drain.relay.users import Users
from tests.support import Events

MAIL = b"From: alice@example.org\r\nSubject: s\r\n\r\nhello\r\n"
PASSWORD = "correct horse"


class MemoryDesk:
    """A desk that keeps what it takes, and refuses what a test wants."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, str, tuple[str, ...], bytes, str]] = []
        self.senders: list[tuple[str, str]] = []
        self.refused: dict[str, Exception] = {}
        self.hold: threading.Event | None = None
        self.holding = threading.Event()

    def sender(self, user: str, address: str) -> None:
        self.senders.append((user, address))
        self._may(address)

    def recipient(self, address: str) -> None:
        self._may(address)

    def take(self, user: str, sender: str, recipients: Sequence[str], raw: bytes, *, protocol: str) -> str:
        if self.hold is not None:
            self.holding.set()
            self.hold.wait(10)
        self._may("data")
        self.mails.append((user, sender, tuple(recipients), raw, protocol))
        return f"ID{len(self.mails)}"

    def _may(self, what: str) -> None:
        if what in self.refused:
            raise self.refused[what]


class Relay:
    """A listener between a test and a `MemoryDesk`."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.desk = MemoryDesk()
        self.events = Events()
        self.users = Users(folder / "users", ln=4)
        self.users.add("alice", PASSWORD.encode())
        settings = {
            "host": "127.0.0.1",
            "port": 0,
            "networks": networks("127.0.0.0/8,::1/128"),
            "tls_context": None,
            "tls": "starttls",
            "max_size": 3_000_000,
            "max_recipients": 5,
            "memory_budget": 4_000_000,
            **more,
        }
        self.listener = Listener(self.desk, self.users, Guard(), log=self.events.log, **settings)

    @property
    def place(self) -> tuple[str, int]:
        return "127.0.0.1", self.listener.port

    def client(self) -> smtplib.SMTP:
        return smtplib.SMTP(*self.place, timeout=10)

    def logged_in(self) -> smtplib.SMTP:
        client = self.client()
        client.login("alice", PASSWORD)
        return client

    def raw(self) -> "Raw":
        return Raw(socket.create_connection(self.place, timeout=10))


class Raw:
    """A client that sends just what a test says."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rb")

    def reply(self) -> bytes:
        """The last line of the next reply; b"" at the end of the connection."""
        line = b"   -"
        while line[3:4] == b"-":
            try:
                line = self.file.readline()
            except ConnectionError:
                return b""
        return line.rstrip(b"\r\n")

    def rest(self) -> list[bytes]:
        """All replies up to the end of the connection."""
        return list(iter(self.reply, b""))

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)

    def say(self, content: bytes) -> bytes:
        self.send(content + b"\r\n")
        return self.reply()

    def log_in(self) -> None:
        self.reply()
        assert self.say(b"EHLO me").startswith(b"250 ")
        assert self.say(b"AUTH PLAIN " + plain(PASSWORD)).startswith(b"235")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.connection.close()


def plain(password: str, name: str = "alice") -> bytes:
    return base64.b64encode(f"\0{name}\0{password}".encode())


@pytest.fixture
def relay_with(tmp_path: Path) -> Iterator[Callable[..., Relay]]:
    with contextlib.ExitStack() as stack:

        def make(**more: Any) -> Relay:
            made = Relay(tmp_path, **more)
            made.listener.start()
            stack.callback(made.listener.stop, 0)
            return made

        yield make


@pytest.fixture
def relay(relay_with: Callable[..., Relay]) -> Relay:
    return relay_with()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(*encoding))
    return paths


@pytest.fixture
def context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return tls_context(*certificate)


@pytest.fixture
def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """What a client needs to believe it."""
    return ssl.create_default_context(cafile=str(certificate[0]))


def test_a_mail_of_a_user_is_taken_byte_for_byte(relay: Relay) -> None:
    odd = b"X: " + b"x" * 100_000 + b"\r\n\r\n.dot\r\n..two\r\n\xff\x00 bare\rcr and\nlf\r\n" + b"y" * 2047 + b"\r\n"
    with relay.logged_in() as client:
        client.ehlo()
        assert client.mail("alice@example.org", ["BODY=8BITMIME", f"SIZE={len(odd)}"])[0] == 250
        assert client.rcpt("bob@example.net")[0] == 250
        assert client.docmd("DATA")[0] == 354
        client.send(odd.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        assert client.getreply() == (250, b"2.0.0 Ok: queued as ID1")
    assert relay.desk.mails == [("alice", "alice@example.org", ("bob@example.net",), odd, "ESMTPA")]
    assert relay.desk.senders == [("alice", "alice@example.org")]
    (event,) = relay.events("relay-accepted")
    assert (event["id"], event["user"], event["bytes"]) == ("ID1", "alice", len(odd))


@pytest.mark.parametrize("length", [0, 1, 2045, 2046, 2047, 2048, 2049, 4096, 200_000])
def test_a_line_of_any_length_arrives_as_it_is(relay: Relay, length: int) -> None:
    with relay.logged_in() as client:
        client.sendmail("alice@example.org", ["bob@example.net"], b"." * length + b"\r\n.\r\n..\r\n")
    assert relay.desk.mails[0][3] == b"." * length + b"\r\n.\r\n..\r\n"


def test_an_empty_mail_is_a_mail(relay: Relay) -> None:
    with relay.raw() as raw:
        raw.log_in()
        raw.send(b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n.\r\nQUIT\r\n")
        assert [reply[:3] for reply in raw.rest()] == [b"250", b"250", b"354", b"250", b"221"]
    assert relay.desk.mails == [("alice", "", ("b@x.test",), b"", "ESMTPA")]


def test_what_is_announced_is_there_and_the_version_is_not(relay: Relay) -> None:
    with relay.client() as client:
        assert client.ehlo()[0] == 250
        assert set(client.esmtp_features) == {
            "pipelining", "size", "8bitmime", "smtputf8", "enhancedstatuscodes", "auth",
        }  # fmt: skip
        assert client.esmtp_features["size"] == "3000000"
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
    with relay.raw() as raw:
        banner = raw.reply()
        assert banner.endswith(b" ESMTP")
        assert b"ython" not in banner


def test_nothing_is_sent_without_a_login_on_loopback_either(relay: Relay) -> None:
    with relay.raw() as raw:
        raw.reply()
        assert raw.say(b"MAIL FROM:<a@x.test>").startswith(b"503 5.5.1")
        raw.say(b"EHLO me")
        for command in (b"MAIL FROM:<a@x.test>", b"RCPT TO:<a@x.test>", b"DATA", b"VRFY a"):
            assert raw.say(command) == b"530 5.7.0 Authentication required"
    assert relay.desk.senders == []


@pytest.mark.parametrize("method", ["auth_plain", "auth_login"])
def test_both_mechanisms_log_in(relay: Relay, method: str) -> None:
    with relay.client() as client:
        client.user, client.password = "alice", PASSWORD
        client.ehlo()
        assert client.auth(method[5:].upper(), getattr(client, method))[0] == 235
        assert client.docmd("AUTH", "PLAIN " + plain(PASSWORD).decode())[0] == 503
        assert client.mail("a@x.test")[0] == 250


def test_a_wrong_password_is_refused_late_and_logged_without_it(relay: Relay) -> None:
    with relay.client() as client:
        client.ehlo()
        began = time.monotonic()
        assert client.docmd("AUTH", "plain " + plain("wrong guess").decode())[0] == 535
        assert time.monotonic() - began > 0.4
        assert client.mail("a@x.test")[0] == 530
    (event,) = relay.events("relay-login")
    assert (event["user"], event["peer"], event["code"]) == ("alice", "127.0.0.1", 535)
    assert "guess" not in str(event)


def test_a_lock_out_on_loopback_does_not_stop_who_was_logged_in_before(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_DELAY_SECONDS", 0)
    relay.users.add("bob", b"of bob")
    relay.logged_in().quit()
    for user in ("alice", "bob"):
        for _ in range(FAILURES):
            relay.listener._guard.failed(user, "127.0.0.1")
    with relay.client() as client:
        client.ehlo()
        assert client.docmd("AUTH PLAIN " + plain("wrong").decode())[0] == 454
        assert client.docmd("AUTH PLAIN " + plain("of bob", "bob").decode())[0] == 454
        assert client.docmd("AUTH PLAIN " + plain(PASSWORD).decode())[0] == 235


def test_a_users_file_that_is_wrong_lets_nobody_in_and_is_logged(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "users").chmod(0o644)
    with relay.client() as client, pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        client.login("alice", PASSWORD)
    assert caught.value.smtp_code == 454
    assert "chmod 600" in relay.events("relay-login")[0]["message"]


def test_a_refusal_of_the_desk_is_what_the_client_is_told(relay: Relay) -> None:
    relay.desk.refused = {
        "a@x.test": Refusal(550, "5.7.1", "Not your\r\n250 address"),
        "b@x.test": Refusal(451, "4.7.1", "Too many"),
        "data": Refusal(554, "5.6.0", "No From"),
    }
    with relay.logged_in() as client:
        assert client.mail("a@x.test") == (550, b"5.7.1 Not your  250 address")
        assert client.mail("c@x.test")[0] == 250
        assert client.rcpt("b@x.test") == (451, b"4.7.1 Too many")
        assert client.rcpt("d@x.test")[0] == 250
        assert client.data(MAIL) == (554, b"5.6.0 No From")
    assert {event["code"] for event in relay.events("relay-refused")} == {550, 451, 554}


def test_what_breaks_behind_is_451_and_never_250_and_never_an_exceptions_words(relay: Relay) -> None:
    relay.desk.refused = {"data": OSError(28, "No space left"), "b@x.test": ValueError("secret")}
    with relay.logged_in() as client:
        client.mail("c@x.test")
        assert client.rcpt("b@x.test") == (451, b"4.3.0 Something went wrong here; try again later")
        client.rcpt("d@x.test")
        assert client.data(MAIL) == (451, b"4.3.0 Something went wrong here; try again later")
    assert relay.desk.mails == []
    assert "No space" in str(relay.events("relay"))


def test_a_mail_too_large_is_refused_by_its_declared_and_by_its_real_size(relay: Relay) -> None:
    with relay.logged_in() as client:
        client.ehlo()
        assert client.mail("a@x.test", ["SIZE=3000001"]) == (552, b"5.3.4 The mail is larger than 3000000 bytes")
        client.mail("a@x.test", ["SIZE=10"])
        client.rcpt("b@x.test")
        assert client.data(b"x" * 3_000_001)[0] == 552
        client.mail("a@x.test")
        client.rcpt("b@x.test")
        assert client.data(b"x" * 2_999_998)[0] == 250
    assert [len(mail[3]) for mail in relay.desk.mails] == [3_000_000]
    assert relay.listener.memory._used == 0


def test_mails_share_their_memory_and_a_large_one_goes_alone(relay_with: Callable[..., Relay]) -> None:
    relay = relay_with(memory_budget=1_000_000)
    relay.desk.hold = threading.Event()
    with relay.logged_in() as first, relay.logged_in() as second:
        for client in (first, second):
            client.ehlo()
            client.mail("a@x.test")
            client.rcpt("b@x.test")
        first.docmd("DATA")
        first.send(b"x" * 800_000 + b"\r\n.\r\n")
        assert relay.desk.holding.wait(10)
        assert second.data(b"y" * 300_000)[0] == 452
        second.mail("a@x.test", ["SIZE=300000"])
        second.rcpt("b@x.test")
        assert second.docmd("DATA")[0] == 452, "what was declared is enough to know"
        relay.desk.hold.set()
        assert first.getreply()[0] == 250
        second.rset()
        second.sendmail("a@x.test", ["b@x.test"], b"y" * 2_000_000)
    assert len(relay.desk.mails) == 2
    assert relay.listener.memory._used == 0


def test_the_room_of_a_mail_whose_client_left_is_free_only_when_the_disk_is_done(relay: Relay) -> None:
    relay.desk.hold = threading.Event()
    client = relay.logged_in()
    client.mail("a@x.test")
    client.rcpt("b@x.test")
    client.docmd("DATA")
    client.send(b"x" * 100_000 + b"\r\n.\r\n")
    assert relay.desk.holding.wait(10)
    client.close()
    wait_until(lambda: not relay.listener._clients)
    assert relay.listener.memory._used > 100_000
    relay.desk.hold.set()
    wait_until(lambda: relay.listener.memory._used == 0)


def wait_until(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not there():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_recipients_beyond_the_limit_wait_for_the_next_mail(relay: Relay) -> None:
    with relay.logged_in() as client:
        client.mail("a@x.test")
        codes = [client.rcpt(f"u{number}@x.test")[0] for number in range(30)]
        assert codes == [250] * 5 + [452] * 25
        assert client.data(MAIL)[0] == 250
    assert len(relay.desk.mails[0][2]) == 5


def test_errors_end_the_connection_and_what_was_piped_behind_is_not_looked_at(relay: Relay) -> None:
    with relay.raw() as raw:
        raw.log_in()
        raw.send(b"MAIL\r\n" * 10 + b"MAIL FROM:<a@x.test>\r\n")
        replies = raw.rest()
    assert replies[-1] == b"421 4.7.0 Too many errors"
    assert len(replies) == 11
    assert relay.desk.senders == []


def test_refused_recipients_do_not_end_the_connection(relay: Relay) -> None:
    relay.desk.refused = {f"u{number}@x.test": Refusal(550, "5.1.1", "Bounced") for number in range(20)}
    with relay.logged_in() as client:
        refused = client.sendmail("a@x.test", [*relay.desk.refused, "good@x.test"], MAIL)
    assert len(refused) == 20
    assert relay.desk.mails[0][2] == ("good@x.test",)


@pytest.mark.parametrize(
    "command",
    [b"NOOP", b"RSET", b"VRFY <a@x.test>", b"EXPN l", b"HELP", b"HELP MAIL", b"FOO", b"MAIL", b"DATA", b"\xff"],
)
def test_every_reply_has_an_enhanced_code(relay: Relay, command: bytes) -> None:
    with relay.raw() as raw:
        raw.log_in()
        reply = raw.say(command)
        assert reply[4:5] == reply[:1]
        assert reply[5:6] == b"."
        assert raw.say(b"QUIT") == b"221 2.0.0 Bye"


def test_postfixs_way_to_say_mail_is_understood(relay: Relay) -> None:
    with relay.raw() as raw:
        raw.log_in()
        assert raw.say(b"MAIL FROM:<> SIZE=300 AUTH=<> BODY=8BITMIME").startswith(b"250 2.1.0")
        assert raw.say(b"RSET").startswith(b"250 2.0.0")
        assert raw.say("mail from: <ä@x.test> smtputf8".encode()).startswith(b"250 2.1.0")
        assert raw.say("rcpt to: <ö@x.test>".encode()).startswith(b"250 2.1.5")
        assert raw.say(b"DATA").startswith(b"354")
        assert raw.say(b".").startswith(b"250")
    assert relay.desk.mails == [("alice", "ä@x.test", ("ö@x.test",), b"", "UTF8SMTPA")]


def test_starttls_is_offered_and_a_login_before_it_is_forgotten(
    relay_with: Callable[..., Relay], context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    relay = relay_with(tls_context=context)
    with relay.logged_in() as client:
        client.starttls(context=trusting)
        assert client.docmd("MAIL FROM:<a@x.test>")[0] == 503, "EHLO again"
        client.ehlo()
        assert client.docmd("MAIL FROM:<a@x.test>")[0] == 530
        assert "starttls" not in client.esmtp_features
        assert client.docmd("STARTTLS")[0] == 503
        client.login("alice", PASSWORD)
        client.sendmail("a@x.test", ["b@x.test"], MAIL)
    assert relay.desk.mails[0][4] == "ESMTPSA"


def test_implicit_tls_speaks_tls_from_the_first_byte(
    relay_with: Callable[..., Relay], context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    relay = relay_with(tls_context=context, tls="implicit")
    with smtplib.SMTP_SSL(*relay.place, context=trusting, timeout=10) as client:
        client.login("alice", PASSWORD)
        assert "starttls" not in client.esmtp_features
        client.sendmail("a@x.test", ["b@x.test"], b"x" * 1_000_000)
    assert relay.desk.mails[0][4] == "ESMTPSA"
    with relay.raw() as raw:
        raw.send(b"EHLO me\r\n")
        assert not any(reply[:1].isdigit() for reply in raw.rest())
    wait_until(lambda: not relay.listener._clients)


def test_beyond_loopback_nothing_goes_without_tls(
    relay_with: Callable[..., Relay], context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    relay = relay_with(host="0.0.0.0", tls_context=context)
    with relay.client() as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert client.docmd("AUTH", "PLAIN " + plain(PASSWORD).decode())[:2][0] == 538
        assert client.docmd("AUTH", "LOGIN")[0] == 538
        for command in ("MAIL FROM:<a@x.test>", "RCPT TO:<a@x.test>", "DATA"):
            assert client.docmd(command) == (530, b"5.7.0 Must issue a STARTTLS command first")
        client.starttls(context=trusting)
        client.login("alice", PASSWORD)
        client.sendmail("a@x.test", ["b@x.test"], MAIL)
    assert len(relay.desk.mails) == 1


def test_beyond_loopback_it_does_not_start_without_a_certificate(relay_with: Callable[..., Relay]) -> None:
    with pytest.raises(ConfigError, match="RELAY_TLS_CERT_FILE"):
        relay_with(host="0.0.0.0")


def test_a_port_that_is_taken_is_said_in_words(relay: Relay, relay_with: Callable[..., Relay]) -> None:
    with pytest.raises(Unavailable, match="taken"):
        relay_with(port=relay.listener.port)
    with pytest.raises(ConfigError, match="RELAY_HOST"):
        relay_with(host="192.0.2.1")


def test_a_bad_certificate_is_said_in_words(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="RELAY_TLS_KEY_FILE"):
        tls_context(certificate[0], tmp_path / "none")
    with pytest.raises(ConfigError, match="no certificate"):
        tls_context(certificate[1], certificate[1])


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(certificate[1].read_bytes(), None)
    locked = tmp_path / "locked.pem"
    encryption = serialization.BestAvailableEncryption(b"secret")
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked.write_bytes(key.private_bytes(*encoding, encryption))
    with pytest.raises(ConfigError, match="passphrase"):
        tls_context(certificate[0], locked)


def test_who_is_not_in_the_networks_is_sent_away(relay_with: Callable[..., Relay]) -> None:
    relay = relay_with(networks=networks("192.0.2.0/24,::1/128"))
    with relay.raw() as raw:
        assert raw.rest() == [b"554 5.7.1 This address may not use this relay"]
    assert relay.events("relay-refused")[0]["peer"] == "127.0.0.1"


def test_an_ipv4_client_at_an_ipv6_socket_is_known_by_its_ipv4_address() -> None:
    assert module._address(("::ffff:192.0.2.7", 1, 0, 0)) == "192.0.2.7"
    assert module._address(("fe80::1%eth0", 1, 0, 0)) == "fe80::1"
    assert module._address(None) == ""


def test_too_many_connections_are_told_so(relay_with: Callable[..., Relay]) -> None:
    relay = relay_with(limits=Limits(connections=2))
    with relay.logged_in(), relay.logged_in(), relay.raw() as raw:
        assert raw.rest() == [b"421 4.7.0 Too many connections; try again later"]
    wait_until(lambda: not relay.listener._clients)
    relay.logged_in().quit()


def test_an_idle_client_is_let_go(relay_with: Callable[..., Relay]) -> None:
    relay = relay_with(limits=Limits(idle_seconds=0.3))
    with relay.raw() as raw:
        raw.log_in()
        assert raw.rest() == [b"421 4.4.2 Nothing was said for too long"]


def test_stopping_lets_a_mail_on_its_way_end_and_the_idle_go(relay: Relay) -> None:
    relay.desk.hold = threading.Event()
    with relay.raw() as idle, relay.raw() as busy:
        idle.log_in()
        busy.log_in()
        busy.send(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nx\r\n.\r\n")
        assert relay.desk.holding.wait(10)
        stopping = threading.Thread(target=relay.listener.stop, args=(10,))
        stopping.start()
        assert idle.rest() == [b"421 4.3.2 The relay is stopping; try again later"]
        with pytest.raises(OSError, match="refused"):
            relay.raw()
        relay.desk.hold.set()
        assert [reply[:3] for reply in busy.rest()] == [b"250", b"250", b"354", b"250", b"421"]
        stopping.join(10)
    assert len(relay.desk.mails) == 1


def test_stopping_does_not_wait_for_a_mail_that_does_not_end(relay: Relay) -> None:
    with relay.raw() as raw:
        raw.log_in()
        raw.send(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nx\r\n")
        assert [raw.reply()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        began = time.monotonic()
        relay.listener.stop(0.3)
        assert 0.3 <= time.monotonic() - began < 3
        assert raw.rest() in ([b"421 4.3.2 The relay is stopping; try again later"], [])
    assert relay.desk.mails == []
