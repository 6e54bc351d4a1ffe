"""The upstream `smtp` with a real smarthost: Postfix, AUTH, STARTTLS and implicit TLS, a CA of its own."""

import datetime
import smtplib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from drain.setting import Secret
from drain.upstreams import Action, Shipment, UpstreamDown, UpstreamRefused
from drain.upstreams.smtp import Smtp
from tests.real.house import MENDED_BY_POSTFIX, as_filed, corpus
from tests.real.server import needed
from tests.real.smarthost import NAME, Filed, Smarthost, authority, smarthost
from tests.support import free_port

MAIL = b"From: a@example.test\r\nTo: b@example.net\r\nBcc: c@example.net\r\nSubject: s\r\n\r\n.dot\r\nlast"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smarthost]:
    with smarthost(tmp_path_factory.mktemp("smarthost")) as host:
        yield host


@pytest.fixture
def host(running: Smarthost) -> Smarthost:
    running.clear()
    return running


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of hosts lead to loopback, as the DNS would say."""
    ask = socket.getaddrinfo

    def answer(name: Any, *more: Any, **options: Any) -> Any:
        return ask("127.0.0.1" if str(name).endswith(".test") else name, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


Upstreams: TypeAlias = Callable[..., Smtp]


@pytest.fixture
def upstream() -> Iterator[Upstreams]:
    """Makes one for a smarthost, with the usual settings but for those given."""
    made: list[Smtp] = []

    def make(host: Smarthost, **changed: Any) -> Smtp:
        settings: dict[str, Any] = {
            "hosts": ((NAME, host.tls_port if changed.get("tls") == "implicit" else host.port),),
            "user": host.user,
            "password": Secret(host.password),
            "ca_file": str(host.ca_file),
        }
        made.append(Smtp(**{**settings, **changed}))
        return made[-1]

    yield make
    for smtp in made:
        smtp.rest()


def shipment(*recipients: str, raw: bytes = MAIL, sender: str = "a@example.test") -> Shipment:
    return Shipment("a key", sender, recipients or ("b@example.net",), raw)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_all_77_mails_arrive_byte_for_byte(upstream: Upstreams, host: Smarthost, tls: str) -> None:
    """But for the blank that Postfix takes from `Fro :` in one of them."""
    mails = corpus()
    smtp = upstream(host, tls=tls)
    for name, raw in mails.items():
        fates = smtp.send(shipment(f"{name}@example.net", raw=raw))
        assert [fate.action for fate in fates.values()] == [Action.RELAYED], (name, fates)
    smtp.rest()
    wanted = {f"{name}@example.net": as_filed(raw) for name, raw in mails.items()}
    for name in MENDED_BY_POSTFIX:
        wanted[f"{name}@example.net"] = wanted[f"{name}@example.net"].replace(b"Fro :", b"Fro:", 1)
    assert {mail.recipient: mail.raw for mail in host.mails()} == wanted
    assert len(host.mails()) == 77


def test_each_recipient_has_its_own_fate(upstream: Upstreams, host: Smarthost) -> None:
    to = ("b@example.net", "unknown@example.net", "later@example.net", "policy@example.net", "c@example.net")
    fates = upstream(host).send(shipment(*to))
    assert [fates[one].action for one in to] == ["relayed", "failed", "delayed", "failed", "relayed"]
    assert [fates[one].status for one in to] == ["2.0.0", "5.1.1", "4.2.1", "5.7.1", "2.0.0"]
    assert [fates[one].bad_address for one in to] == [False, True, False, False, False]
    assert fates["b@example.net"].diagnostic.startswith("smtp; 250 2.0.0 Ok: queued as ")
    assert fates["b@example.net"].diagnostic.endswith(f" {fates['b@example.net'].reference}")
    assert sorted(mail.recipient for mail in host.mails()) == ["b@example.net", "c@example.net"]


def test_the_envelope_arrives_as_it_is_the_empty_sender_and_bcc_too(upstream: Upstreams, host: Smarthost) -> None:
    upstream(host).send(shipment("jörg@example.net", sender=""))
    assert host.mails() == [Filed("jörg@example.net", "", as_filed(MAIL))]


def test_many_mails_go_over_one_connection_and_it_may_be_closed_meanwhile(upstream: Upstreams, host: Smarthost) -> None:
    smtp = upstream(host)
    smtp.send(shipment())
    host.halt()
    host.start()
    assert smtp.send(shipment())["b@example.net"].action == Action.RELAYED
    assert len(host.mails()) == 2


def test_the_probe_says_what_is_there_and_sends_nothing(upstream: Upstreams, host: Smarthost) -> None:
    words = upstream(host).probe()
    assert words.startswith(f"smarthost {NAME}:{host.port}; TLSv1.3; logged in as {host.user}; answers 250")
    assert "8BITMIME" in words
    assert "SIZE 36700160" in words
    assert host.password not in words
    assert host.mails() == []


def test_a_mail_over_its_size_limit_fails_before_it_is_sent(upstream: Upstreams, host: Smarthost) -> None:
    fate = upstream(host).send(shipment(raw=MAIL + b"x" * 36700160))["b@example.net"]
    assert (fate.action, fate.status) == (Action.FAILED, "5.3.4")
    assert "36700160" in fate.diagnostic


def test_a_wrong_password_is_for_a_person_to_mend(upstream: Upstreams, host: Smarthost) -> None:
    with pytest.raises(UpstreamRefused, match=r"refused the login.*535.*SMARTHOST_PASS"):
        upstream(host, password=Secret("wrong")).send(shipment())


def test_without_a_user_a_smarthost_that_wants_one_says_so_about_the_mail(upstream: Upstreams, host: Smarthost) -> None:
    """Postfix answers 554 to RCPT, and not 530 to MAIL: it may take others without a login."""
    fate = upstream(host, user="").send(shipment())["b@example.net"]
    assert fate.action == Action.FAILED
    assert not fate.bad_address


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_certificate_of_another_ca_is_not_believed(
    upstream: Upstreams, host: Smarthost, tmp_path: Path, tls: str
) -> None:
    (tmp_path / "other.pem").write_bytes(authority().pem)
    for ca_file in (str(tmp_path / "other.pem"), ""):
        with pytest.raises(UpstreamDown, match="certificate"):
            upstream(host, tls=tls, ca_file=ca_file).send(shipment())
    assert host.mails() == []


def test_a_certificate_for_another_name_is_not_believed(upstream: Upstreams, host: Smarthost) -> None:
    with pytest.raises(UpstreamDown, match=r"other\.example\.test"):
        upstream(host, hosts=(("other.example.test", host.port),)).send(shipment())
    assert host.mails() == []


def test_an_expired_certificate_is_not_believed(upstream: Upstreams, tmp_path: Path) -> None:
    ca = authority()
    with Smarthost(tmp_path, ca.issue(NAME, ends=-datetime.timedelta(days=1))) as expired:
        (tmp_path / "ca.pem").write_bytes(ca.pem)
        with pytest.raises(UpstreamDown, match="expired"):
            upstream(expired, ca_file=str(tmp_path / "ca.pem")).send(shipment())


def test_the_next_host_is_tried_where_one_is_not_there_or_has_no_tls_that_is_due(
    upstream: Upstreams, host: Smarthost
) -> None:
    smtp = upstream(host, hosts=((NAME, free_port()), ("other.example.test", host.port), (NAME, host.port)))
    assert smtp.send(shipment())["b@example.net"].action == Action.RELAYED
    words = smtp.probe()
    assert "other.example.test" in words
    assert "Connection refused" in words
    assert len(host.mails()) == 1


def test_swaks_gets_through_as_the_rig_says(host: Smarthost) -> None:
    """The rig itself, by a client that is not ours."""
    command = [needed("swaks", "swaks"), "--server", "127.0.0.1", "--port", str(host.port), "--tls"]
    login = ["--auth", "PLAIN", "--auth-user", host.user, "--auth-password", host.password]
    envelope = ["--from", "a@example.test", "--to", "b@example.net", "--helo", "client.test"]
    subprocess.run([*command, *login, *envelope], check=True, capture_output=True, timeout=30)
    assert [(mail.recipient, mail.sender) for mail in host.mails()] == [("b@example.net", "a@example.test")]


def test_the_rig_takes_nothing_without_a_login_and_no_login_without_tls(host: Smarthost) -> None:
    with smtplib.SMTP("127.0.0.1", host.port, "localhost", timeout=10) as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@example.test", ["b@example.net"], MAIL)
