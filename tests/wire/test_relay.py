"""A mail's way through the relay: smtplib on one side, a smarthost and the mail server at home on the other."""

import base64
import concurrent.futures
import contextlib
import email
import smtplib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drain import config
from drain.commands.relay import runner_for
from drain.errors import ConfigError, LedgerUnavailable, LockHeld
from drain.relay.listener import Listener
from drain.relay.queue import Queue, State
from tests.http_fake import FakeHttp, answer
from tests.relay import ALICE, MAIL, RelayHouse, below_received
from tests.smtp_fake import DROP, FakeSmtp
from tests.support import on_verb, until


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RelayHouse]:
    monkeypatch.setattr("drain.relay.dispatch._LOOK_SECONDS", 0.5)
    with FakeSmtp() as smarthost, FakeSmtp() as smtp:
        yield RelayHouse(smarthost, smtp, tmp_path)


def refusal(error: smtplib.SMTPException) -> tuple[int, bytes]:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return next(iter(error.recipients.values()))
    assert isinstance(error, smtplib.SMTPResponseException)
    assert isinstance(error.smtp_error, bytes)
    return error.smtp_code, error.smtp_error


def test_a_mail_reaches_the_smarthost_byte_for_byte_below_one_received_line(house: RelayHouse) -> None:
    with house.running():
        house.send(to=["bob@elsewhere.test", "carol@elsewhere.test"])
        until(lambda: len(house.smarthost.filed) == 2)
    assert {(mail.sender, mail.mailbox) for mail in house.smarthost.filed} == {
        (ALICE, "bob@elsewhere.test"),
        (ALICE, "carol@elsewhere.test"),
    }
    assert {below_received(mail.content) for mail in house.smarthost.filed} == {MAIL}
    assert house.states() == [State.RELAYED]


def test_what_was_taken_while_the_smarthost_was_away_is_sent_by_the_next_relay(house: RelayHouse) -> None:
    house.smarthost.answer = lambda verb, argument: DROP if verb == "CONNECT" else None
    with house.running():
        house.send()
        until(lambda: [event for event in house.events("relay") if event["level"] == "warning"])
    assert house.states() == [State.WAITING]
    house.smarthost.answer = lambda verb, argument: None
    with house.running():
        until(lambda: len(house.smarthost.filed) == 1)
    assert below_received(house.smarthost.filed[0].content) == MAIL


def test_a_250_comes_after_the_disk_has_it(house: RelayHouse) -> None:
    house.smarthost.answer = lambda verb, argument: DROP if verb == "CONNECT" else None
    with house.running():
        with house.client() as client:
            client.mail(ALICE)
            client.rcpt("bob@elsewhere.test")
            code, text = client.data(MAIL)
        with house.queue() as queue:
            [entry] = queue.entries(State.WAITING, State.SENDING)
            assert (code, text) == (250, b"2.0.0 Ok: queued as " + entry.mail.id[:16].encode())
            assert below_received(queue.body(entry)) == MAIL


@pytest.mark.parametrize(
    ("sender", "raw", "code", "words"),
    [
        ("eve@evil.test", MAIL, 550, b"ALLOWED_FROM does not name it"),
        ("alice@example.test.evil.test", MAIL, 550, b"ALLOWED_FROM does not name it"),
        (ALICE, MAIL.replace(b"Alice <alice@example.test>", b"ceo@bank.test"), 550, b"The address in From"),
        (ALICE, MAIL.replace(b"Alice <alice@example.test>", b"alice@example.test, ceo@bank.test"), 550, b"in From"),
        (ALICE, b"From: ceo@bank.test\r\n" + MAIL, 550, b"5.6.0"),
        (ALICE, b"Sender: ceo@bank.test\r\n" + MAIL, 550, b"The address in Sender"),
        ("", MAIL, 550, b"RELAY_FROM_FALLBACK"),
        ("root", MAIL, 550, b"RELAY_FROM_FALLBACK"),
    ],
)
def test_nobody_sends_as_somebody_else(house: RelayHouse, sender: str, raw: bytes, code: int, words: bytes) -> None:
    with house.running(), pytest.raises(smtplib.SMTPException) as caught:
        house.send(raw, sender=sender)
    assert refusal(caught.value)[0] == code
    assert words in refusal(caught.value)[1]
    assert house.states() == []


def test_an_empty_allowed_from_sends_nothing(house: RelayHouse) -> None:
    with house.running(ALLOWED_FROM=""), pytest.raises(smtplib.SMTPSenderRefused, match="ALLOWED_FROM is empty"):
        house.send()


def test_a_user_with_senders_of_its_own_has_those_only(house: RelayHouse) -> None:
    from drain.relay.users import Users

    Users(house.folder / "state" / "relay-users").add("cron", b"another one", ("root@example.test",))
    with house.running():
        with pytest.raises(smtplib.SMTPSenderRefused, match="not among the user's own senders"):
            house.send(user="cron", password="another one")
        raw = MAIL.replace(b"Alice <alice@example.test>", b"root@example.test")
        house.send(raw, sender="root@example.test", user="cron", password="another one")


@pytest.mark.parametrize(
    ("settings", "to", "code", "words"),
    [
        ({"RECIPIENT_DENYLIST": "@Elsewhere.test"}, "bob@elsewhere.test", 550, b"RECIPIENT_DENYLIST"),
        ({"RECIPIENT_ALLOWLIST": "@example.test"}, "bob@elsewhere.test", 550, b"RECIPIENT_ALLOWLIST"),
        ({}, "victim%evil.test@elsewhere.test", 553, b"5.1.3"),
    ],
)
def test_recipients_are_kept_to_the_lists(
    house: RelayHouse, settings: dict[str, str], to: str, code: int, words: bytes
) -> None:
    with house.running(**settings), pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        house.send(to=to)
    assert refusal(caught.value)[0] == code
    assert words in refusal(caught.value)[1]


def test_who_sends_too_much_is_told_to_come_later_also_after_a_restart(house: RelayHouse) -> None:
    with house.running(RATE_LIMIT_PER_DAY="3"):
        house.send(to=["b1@elsewhere.test", "b2@elsewhere.test"])
    with house.running(RATE_LIMIT_PER_DAY="3"):
        with pytest.raises(smtplib.SMTPDataError) as caught:
            house.send(to=["b3@elsewhere.test", "b4@elsewhere.test"])
        assert refusal(caught.value)[0] == 451
        assert b"RATE_LIMIT_PER_DAY" in refusal(caught.value)[1]
        house.send()
        with pytest.raises(smtplib.SMTPSenderRefused) as at_mail:
            house.send()
        assert at_mail.value.smtp_code == 451


def test_a_mail_that_is_too_large_is_refused_before_and_after_it_came(house: RelayHouse) -> None:
    with house.running(RELAY_MAX_SIZE="2K"), house.client() as client:
        code, _ = client.mail(ALICE, ["SIZE=5000"])
        assert code == 552
        client.rset()
        client.mail(ALICE)
        client.rcpt("bob@elsewhere.test")
        code, text = client.data(MAIL + b"x" * 3000)
        assert (code, text[:5]) == (552, b"5.3.4")
    assert house.states() == []


def test_cron_may_send_as_the_fallback(house: RelayHouse) -> None:
    cron = b"From: root (Cron Daemon)\r\nTo: root\r\nSubject: Cron\r\n\r\noutput\r\n"
    with house.running(RELAY_FROM_FALLBACK=ALICE):
        house.send(cron, sender="root")
        until(lambda: len(house.smarthost.filed) == 1)
    [mail] = house.smarthost.filed
    assert mail.sender == ALICE
    parsed = email.message_from_bytes(mail.content)
    assert email.utils.parseaddr(parsed["From"])[1] == ALICE
    assert parsed["Date"]
    assert parsed["Message-ID"]


def test_bcc_stays_in_the_envelope(house: RelayHouse) -> None:
    with house.running():
        house.send(b"Bcc: secret@elsewhere.test\r\n" + MAIL, to=["bob@elsewhere.test", "secret@elsewhere.test"])
        until(lambda: len(house.smarthost.filed) == 2)
    assert all(b"secret" not in mail.content for mail in house.smarthost.filed)


def test_a_refused_mail_comes_back_to_its_sender_by_the_inbound_injection(house: RelayHouse) -> None:
    house.smarthost.takes_all = False
    with house.running():
        house.send()
        until(lambda: house.smtp.filed)
        until(lambda: house.states() == [State.FAILED])
    [report] = house.smtp.filed
    assert (report.sender, report.mailbox) == ("", ALICE)
    parsed = email.message_from_bytes(report.content)
    assert parsed.get_content_type() == "multipart/report"
    status: Any = parsed.get_payload(1).get_payload()  # type: ignore[union-attr]
    assert "rfc822; bob@elsewhere.test" in str(status[1])
    assert "5.1.1" in str(status[1])
    assert "Subject: hello" in str(parsed.get_payload(2))


def test_an_address_that_bounced_is_refused_early_until_a_person_says_otherwise(house: RelayHouse) -> None:
    house.smarthost.takes_all = False
    with house.running():
        house.send()
        until(lambda: house.states() == [State.FAILED])
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            house.send(to="Bob@Elsewhere.test")
        assert b"drain relay suppressed remove" in refusal(caught.value)[1]
        with house.queue() as queue:
            assert queue.suppressed.remove("bob@elsewhere.test")
        house.smarthost.takes_all = True
        house.send()
        until(lambda: len(house.smarthost.filed) == 1)


def test_some_recipients_refused_and_one_asked_to_wait_each_get_what_is_theirs(house: RelayHouse) -> None:
    replies = {"no@elsewhere.test": "550 5.1.1 nobody", "later@elsewhere.test": "450 4.2.0 greylisted"}

    def answer(verb: str, argument: str) -> str | None:
        return (
            next((words for address, words in replies.items() if address in argument), None) if verb == "RCPT" else None
        )

    house.smarthost.answer = answer
    with house.running():
        house.send(to=["yes@elsewhere.test", "no@elsewhere.test", "later@elsewhere.test"])
        until(lambda: len(house.smtp.filed) == 1)
        assert [mail.mailbox for mail in house.smarthost.filed] == ["yes@elsewhere.test"]
        assert sorted(house.states()) == [State.FAILED, State.RELAYED, State.WAITING]
        replies.clear()
        house.now += 100
        house_wakes(house)
        until(lambda: len(house.smarthost.filed) == 2)
    assert [mail.mailbox for mail in house.smarthost.filed] == ["yes@elsewhere.test", "later@elsewhere.test"]


def house_wakes(house: RelayHouse) -> None:
    """What another mail does: the queue is looked through now."""
    with house.queue() as queue:
        for entry in queue.entries(State.WAITING):
            queue.change(entry, State.WAITING, 0.0)


def test_a_reply_that_was_cut_off_is_the_only_way_to_send_twice(house: RelayHouse) -> None:
    house.smarthost.answer = on_verb("FILED", DROP)
    with house.running():
        house.send()
        with house.queue() as queue:
            until(lambda: [entry.unknown for entry in queue.entries(State.WAITING)] == [1])
        house_wakes(house)
        until(lambda: len(house.smarthost.filed) == 2)
        until(lambda: house.states() == [State.RELAYED])
    assert len({mail.content for mail in house.smarthost.filed}) == 1


def test_a_report_waits_until_the_mail_server_at_home_is_back(house: RelayHouse) -> None:
    house.smarthost.takes_all = False
    house.smtp.answer = lambda verb, argument: "421 4.3.2 later" if verb == "CONNECT" else None
    with house.running():
        house.send()
        until(lambda: house.states() == [State.FAILED])
    assert house.smtp.filed == []
    house.smtp.answer = lambda verb, argument: None
    with house.running():
        until(lambda: len(house.smtp.filed) == 1)


def test_nothing_is_returned_to_the_null_sender(house: RelayHouse) -> None:
    house.smarthost.takes_all = False
    with house.running(ALLOWED_FROM="@example.test,<>"):
        house.send(sender="")
        until(lambda: house.states() == [State.FAILED])
        with house.queue() as queue:
            assert [entry for entry in queue.entries(*State) if entry.mail.inbound] == []


def test_a_wrong_login_at_the_smarthost_is_told_and_blames_no_mail(house: RelayHouse) -> None:
    with house.running(SMARTHOST_PASS="wrong"):
        house.send()
        until(lambda: [event for event in house.events("relay") if event["level"] == "alert"])
    [alert] = [event for event in house.events("relay") if event["level"] == "alert"]
    assert "SMARTHOST_USER and SMARTHOST_PASS" in alert["message"]
    assert "wrong" not in str(alert).replace("went wrong", "")
    assert house.states() == [State.WAITING]


def test_no_two_relays_have_one_queue(house: RelayHouse) -> None:
    with house.running(), pytest.raises(LockHeld), house.running():
        pass


def test_the_relay_ends_within_seconds_while_the_smarthost_hangs(house: RelayHouse) -> None:
    def hang(verb: str, argument: str) -> str | None:
        if verb == "DOT":
            time.sleep(15)
        return None

    house.smarthost.answer = hang
    with house.running():
        house.send()
        until(lambda: house.states() == [State.SENDING])
        began = time.monotonic()
    assert time.monotonic() - began < 9
    assert house.states() in ([State.SENDING], [State.WAITING])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"RELAY_UPSTREAM": ""}, "RELAY_UPSTREAM is not set"),
        ({"SMARTHOST_HOST": ""}, "SMARTHOST_HOST is not set"),
        ({"RELAY_UPSTREAM": "mailgun", "RELAY_API_KEY": "k"}, "MAILGUN_DOMAIN is not set"),
        ({"RELAY_HOST": "0.0.0.0"}, "needs RELAY_TLS_CERT_FILE"),
        ({"RELAY_TLS": "implicit"}, "needs RELAY_TLS_CERT_FILE"),
        ({"SMARTHOST_HOST": "mail.example.com"}, "SMARTHOST_TLS=none is for loopback only"),
        ({"RELAY_FROM_FALLBACK": "x@other.test"}, "RELAY_FROM_FALLBACK is not in ALLOWED_FROM"),
        ({"DKIM_DOMAIN": "example.test"}, "Not set: DKIM_KEY_FILE, DKIM_SELECTOR"),
        ({"SMARTHOST_PASS": ""}, "SMARTHOST_USER and SMARTHOST_PASS go together"),
        ({"SMARTHOST_TLS_CA_FILE": "/nowhere"}, "SMARTHOST_TLS_CA_FILE /nowhere is not there"),
        ({"RELAY_UPSTREAM": "smpt"}, "one of smtp, cloudflare"),
        ({"INJECT_USER": ""}, "INJECT_USER, which is not set"),
        ({"RELAY_TLS_CERT_FILE": "/nowhere"}, "go together"),
        ({"RELAY_TLS_CERT_FILE": "/nowhere", "RELAY_TLS_KEY_FILE": "/nowhere"}, "cannot be read"),
    ],
)
def test_a_configuration_that_cannot_work_is_one_sentence(
    house: RelayHouse, settings: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words), house.running(**settings):
        pass


def test_a_provider_that_takes_json_gets_it_and_what_it_cannot_say_is_refused_at_once(house: RelayHouse) -> None:
    with FakeHttp(lambda request: answer({"id": "re-1"})) as provider:
        settings = {"RELAY_UPSTREAM": "resend", "RELAY_API_KEY": "re_key", "RELAY_API_URL": provider.url}
        with house.running(**settings):
            house.send()
            until(lambda: house.states() == [State.RELAYED])
            with pytest.raises(smtplib.SMTPDataError) as caught:
                house.send(
                    to="bob@elsewhere.test", raw=MAIL.replace(b"\r\nSubject", b", carol@elsewhere.test\r\nSubject")
                )
            assert (caught.value.smtp_code, refusal(caught.value)[1][:5]) == (554, b"5.6.3")
    [request] = provider.requests
    assert request.json["to"] == ["bob@elsewhere.test"]
    assert request.json["text"] == "line\n.\n..two dots\n"
    [key] = request.headers["idempotency-key"]
    with house.queue() as queue:
        [entry] = queue.entries(State.RELAYED)
    assert (key, entry.reference) == (f"drain-{entry.id}", "re-1")


def test_a_provider_that_fails_is_asked_again_with_the_same_key(house: RelayHouse) -> None:
    answers = [answer({"message": "oops"}, status=500), answer({"id": "re-1"})]
    with FakeHttp(lambda request: answers.pop(0)) as provider:
        settings = {"RELAY_UPSTREAM": "resend", "RELAY_API_KEY": "re_key", "RELAY_API_URL": provider.url}
        with house.running(**settings):
            house.send()
            with house.queue() as queue:
                until(lambda: [entry.attempts for entry in queue.entries(State.WAITING)] == [1])
            house_wakes(house)
            until(lambda: house.states() == [State.RELAYED])
    first, second = provider.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.body == second.body


def test_mail_of_the_domain_is_signed_and_the_signature_holds(house: RelayHouse, tmp_path: Path) -> None:
    import dkim
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    path = tmp_path / "dkim.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*form))
    path.chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    with house.running(DKIM_DOMAIN="example.test", DKIM_SELECTOR="home", DKIM_KEY_FILE=str(path)):
        house.send()
        until(lambda: len(house.smarthost.filed) == 1)
    [mail] = house.smarthost.filed
    asked: list[bytes] = []

    def txt(name: bytes, timeout: int = 5) -> bytes:
        asked.append(name)
        return record

    assert dkim.verify(mail.content, dnsfunc=txt)
    assert asked == [b"home._domainkey.example.test."]
    assert not dkim.verify(mail.content.replace(b"hello", b"hullo"), dnsfunc=txt)


def test_eight_clients_at_once_lose_nothing(house: RelayHouse) -> None:
    with house.running(RELAY_CONNECTIONS="4", RATE_LIMIT_PER_MINUTE="0"):
        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            raws = [MAIL.replace(b"<1@", b"<%d@" % number) for number in range(60)]
            list(clients.map(house.send, raws))
        until(lambda: len(house.smarthost.filed) == 60)
    assert sorted(below_received(mail.content) for mail in house.smarthost.filed) == sorted(raws)


def test_a_report_without_a_sender_never_goes_out_under_the_fallbacks_name(house: RelayHouse) -> None:
    """It is Postfix's bounce of a mail whose sender was a lie: it would go to a stranger."""
    bounce = (
        b"From: MAILER-DAEMON\r\nTo: stranger@elsewhere.test\r\nAuto-Submitted: auto-replied\r\n"
        b"Content-Type: multipart/report; boundary=x\r\n\r\n--x--\r\n"
    )
    with house.running(RELAY_FROM_FALLBACK=ALICE):
        with pytest.raises(smtplib.SMTPDataError, match="is not sent as RELAY_FROM_FALLBACK"):
            house.send(bounce, sender="", to="stranger@elsewhere.test")
        house.send(sender="")
        until(lambda: house.states() == [State.RELAYED])
    assert [mail.sender for mail in house.smarthost.filed] == [ALICE]


def test_a_mail_server_at_home_that_forgets_our_login_is_waited_for_and_told(house: RelayHouse) -> None:
    house.smarthost.takes_all = False
    house.smtp.answer = lambda verb, argument: "530 5.7.0 log in" if verb == "MAIL" else None
    with house.running():
        house.send()
        until(lambda: [event for event in house.events("relay") if event["level"] == "alert"])
        assert house.events("bug") == []
        with house.queue() as queue:
            [report] = [entry for entry in queue.entries(*State) if entry.mail.inbound]
    assert (report.state, report.unknown, report.attempts) == (State.WAITING, 0, 0)


def test_a_queue_that_cannot_forget_just_now_goes_on_sending(
    house: RelayHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(self: Queue, now: float) -> int:
        raise LedgerUnavailable("The database is locked.")

    monkeypatch.setattr(Queue, "prune", busy)
    monkeypatch.setattr("drain.relay.relay._BEAT_SECONDS", 0.1)
    with running_beside(house):
        until(lambda: "could not be forgotten" in str(house.events("relay")))
        house.send()
        until(lambda: len(house.smarthost.filed) == 1)


def test_beside_the_passes_a_bug_ends_nothing_for_good(house: RelayHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError("odd"), OSError("odd")]

    def once_odd(self: Queue, now: float) -> int:
        if failures:
            raise failures.pop()
        return 0

    monkeypatch.setattr(Queue, "prune", once_odd)
    monkeypatch.setattr("drain.relay.relay._BEAT_SECONDS", 0.1)
    monkeypatch.setattr("drain.relay.relay._TRY_AGAIN_SECONDS", 0.1)
    with running_beside(house):
        until(lambda: not failures)
        until(lambda: len(house.events("bug")) == 2)
        until(lambda: _takes(house))
    assert len(house.smarthost.filed) >= 1


def test_a_listener_that_ended_is_started_again(house: RelayHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drain.relay.relay._BEAT_SECONDS", 0.1)
    monkeypatch.setattr("drain.relay.relay._TRY_AGAIN_SECONDS", 0.1)
    ended: list[Listener] = []
    start = Listener.start

    def start_and_end_once(self: Listener) -> None:
        start(self)
        if not ended:
            ended.append(self)
            assert self._stop is not None
            self._stop(0.0)

    monkeypatch.setattr(Listener, "start", start_and_end_once)
    with running_beside(house):
        until(lambda: "listener has ended" in str(house.events("relay")))
        until(lambda: _takes(house))


@contextlib.contextmanager
def running_beside(house: RelayHouse) -> Iterator[None]:
    """As `drain run` has it."""
    loaded, _ = config.load(house.environ(), complete=False)
    runner = runner_for(loaded, house.events.log, threading.Event())
    thread = threading.Thread(target=runner.run_beside)
    thread.start()
    try:
        until(lambda: "listens on port" in str(house.events("relay")))
        yield
    finally:
        runner.stop.set()
        thread.join(10)
        assert not thread.is_alive()


def _takes(house: RelayHouse) -> bool:
    try:
        house.send()
    except OSError:
        return False
    return True


def test_more_recipients_than_the_limit_ever_lets_through_are_refused_for_good(house: RelayHouse) -> None:
    with house.running(RATE_LIMIT_PER_MINUTE="2"), pytest.raises(smtplib.SMTPDataError) as caught:
        house.send(to=[f"b{number}@elsewhere.test" for number in range(3)])
    assert caught.value.smtp_code == 550
    assert b"send it to fewer at once" in refusal(caught.value)[1]


def test_the_id_that_the_client_hears_is_the_one_in_the_log_and_in_the_queue(house: RelayHouse) -> None:
    with house.running():
        with house.client() as client:
            client.mail(ALICE)
            client.rcpt("bob@elsewhere.test")
            _, text = client.data(MAIL)
        until(lambda: house.states() == [State.RELAYED])
        until(lambda: [event for event in house.events("relay") if event.get("state")])
    told = text.decode().rpartition(" ")[2]
    [event] = [event for event in house.events("relay") if event.get("state")]
    assert event["id"] == told
    with house.queue() as queue:
        assert [entry.id[:16] for entry in queue.entries(State.RELAYED)] == [told]


def test_the_first_line_says_where_mail_goes_and_that_nobody_can_log_in(house: RelayHouse) -> None:
    with house.running():
        pass
    words = f"The relay listens on port {house.port} of 127.0.0.1, 1 user, to 127.0.0.1:{house.smarthost.port}."
    assert words in [event.get("message") for event in house.events("relay")]
    assert "Nobody can log in" not in str(house.events("relay"))
    (house.folder / "state" / "relay-users").unlink()
    with house.running():
        pass
    assert "Nobody can log in" in str(house.events("relay"))
