"""Who hands mail to the relay: swaks, smtplib, Postfix and Maddy; each mail is at the smarthost byte for byte."""

import contextlib
import email
import email.policy
import itertools
import random
import re
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.real.house import CORPUS, MENDED_BY_POSTFIX, as_filed, corpus
from tests.real.maddy import maddy_binary
from tests.real.relay import (
    ALICE,
    BOB,
    DOMAIN,
    PASSWORD,
    USER,
    MaddyThatSends,
    PostfixThatSends,
    RealRelay,
    added_around,
    kept_log,
)
from tests.real.server import HOST, needed, self_signed_certificate
from tests.real.smarthost import Smarthost, smarthost
from tests.support import free_port, until

# Who the corpus is from; what has no From gets the fallback's.
AUTHORS = "@example.com,@example.org,@penguin.example.com"
# A line of its header is no field, and its From is that line: `Fro :uMmlti Sender <...>`.
REFUSED = {"malformed-019": "in its header is no header field"}
# It ends in a bare CR, of which Postfix makes a blank (cleanup_replace_stray_cr_lf).
BARE_CR = "legacy-049"
# An encoded word in To is in a charset that Maddy does not know, or in none.
REFUSED_BY_MADDY = {
    f"legacy-{number:03}" for number in (1, 5, 9, 10, 12, *range(15, 19), 20, *range(22, 28), 50, 51, 52)
}
HEAD = b"From: Alice <alice@example.test>\r\nTo: bob@example.net\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\n"
MAIL = HEAD + b"Message-ID: <1@example.test>\r\nSubject: hello\r\n\r\nline\r\n.\r\n..two dots\r\nFrom here\r\n\r\n"
MAILS = {
    "plain": MAIL,
    "8-bit": MAIL + "Grüße, 1 €\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
    "long lines": MAIL + b"x" * 998 + b"\r\n" + b"y" * 999 + b"\r\n." + b"z" * 100_000 + b"\r\n",
}
_SWAKS_TLS = {"none": [], "starttls": ["--tls"], "implicit": ["--tls-on-connect"]}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smarthost]:
    with smarthost(tmp_path_factory.mktemp("smarthost")) as running:
        yield running


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[PostfixThatSends]:
    with PostfixThatSends(tmp_path_factory.mktemp("home"), port, users=("alice", "inbox")) as server:
        yield server


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, host: Smarthost, home: PostfixThatSends, port: int
) -> Iterator[RealRelay]:
    folder = tmp_path_factory.mktemp("relay")
    with RealRelay(folder, host, home, {"ALLOWED_FROM": f"@{DOMAIN},{AUTHORS}"}, port=port) as relay:
        yield relay


@pytest.fixture
def relay(running: RealRelay, host: Smarthost, home: PostfixThatSends) -> RealRelay:
    host.clear()
    home.clear()
    return running


Relays: TypeAlias = Callable[[str], RealRelay]


@pytest.fixture(scope="module")
def relays(tmp_path_factory: pytest.TempPathFactory, running: RealRelay, host: Smarthost) -> Iterator[Relays]:
    """The relay without TLS, with STARTTLS, with implicit TLS."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = self_signed_certificate(folder)
    made = {"none": running}
    with contextlib.ExitStack() as stack:

        def get(tls: str) -> RealRelay:
            if tls not in made:
                settings = {
                    "RELAY_TLS": tls,
                    "RELAY_TLS_CERT_FILE": str(certificate),
                    "RELAY_TLS_KEY_FILE": str(key),
                }
                made[tls] = stack.enter_context(RealRelay(folder / tls, host, None, settings))
            return made[tls]

        yield get


def recipients(relay: RealRelay) -> list[str]:
    """Whom the smarthost has mail for."""
    return sorted(mail.recipient for mail in relay.arrived())


@pytest.mark.parametrize(("tls", "mechanism"), list(itertools.product(_SWAKS_TLS, ["PLAIN", "LOGIN"])))
def test_swaks_logs_in_by_every_way_there_is(relays: Relays, host: Smarthost, tls: str, mechanism: str) -> None:
    relay = relays(tls)
    host.clear()
    command = [needed("swaks", "swaks"), "--server", HOST, "--port", str(relay.port), *_SWAKS_TLS[tls]]
    login = ["--auth", mechanism, "--auth-user", USER, "--auth-password", PASSWORD]
    envelope = ["--from", ALICE, "--to", BOB, "--helo", "client.test", "--body", "line\\n.dot\\n"]
    done = subprocess.run([*command, *login, *envelope], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout
    ((recipient, sender, raw),) = [(mail.recipient, mail.sender, mail.raw) for mail in relay.arrived()]
    assert (recipient, sender) == (BOB, ALICE)
    protocol = b"ESMTPA" if tls == "none" else b"ESMTPSA"
    assert b" with " + protocol + b" id " in raw
    assert b"line\n.dot\n" in raw.partition(b"\n\n")[2]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_smtplib_verifies_the_relays_certificate(relays: Relays, host: Smarthost, tls: str) -> None:
    relay = relays(tls)
    host.clear()
    context = ssl.create_default_context(cafile=relay.settings["RELAY_TLS_CERT_FILE"])
    if tls == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL(HOST, relay.port, "client.test", timeout=20, context=context)
    else:
        client = smtplib.SMTP(HOST, relay.port, "client.test", timeout=20)
        client.starttls(context=context)
    with client:
        client.login(USER, PASSWORD)
        client.sendmail(ALICE, [BOB], MAIL)
    (mail,) = relay.arrived()
    assert added_around(mail.raw, as_filed(MAIL)) == [b"Received"]


def test_the_corpus_by_smtplib_is_at_the_smarthost_byte_for_byte(host: Smarthost, tmp_path: Path) -> None:
    """Below what the relay writes on top: Received, and of From, Date and Message-ID what was not there."""
    mails = corpus()
    refused: dict[str, str] = {}
    host.clear()
    settings = {"ALLOWED_FROM": f"@{DOMAIN},{AUTHORS}", "RELAY_FROM_FALLBACK": ALICE}
    with RealRelay(tmp_path, host, None, settings) as relay, relay.client() as client:
        for name, raw in mails.items():
            try:
                client.sendmail(ALICE, [f"{name}@example.net"], raw)
            except smtplib.SMTPDataError as error:
                refused[name] = str(error)
        arrived = {mail.recipient.partition("@")[0]: mail.raw for mail in relay.arrived()}
    assert refused.keys() == REFUSED.keys()
    assert all(refused[name].startswith("(550, ") and words in refused[name] for name, words in REFUSED.items())
    assert arrived.keys() == mails.keys() - REFUSED.keys()
    for name, raw in arrived.items():
        sent = mails[name] if mails[name].endswith(b"\r\n") else mails[name] + b"\r\n"  # smtplib's doing
        # It is written where the mail ends (RFC 5321 4.4), and is the only line that is taken away.
        wanted = as_filed(sent).removeprefix(b"Return-Path: <test@example.org>\n")
        assert (wanted != as_filed(sent)) == (name == "malformed-015")
        there = {field.lower() for field in names(wanted)}
        added = added_around(raw, wanted)
        assert added == [b"Received", *(f for f in (b"From", b"Date", b"Message-ID") if f.lower() not in there)], name
        assert raw.endswith(wanted), name


def names(mail: bytes) -> list[bytes]:
    """The names of a mail's fields, for better or worse."""
    lines = mail.partition(b"\n\n")[0].split(b"\n")
    return [line.partition(b":")[0] for line in lines if b":" in line and not line.startswith((b" ", b"\t"))]


@pytest.mark.parametrize("name", MAILS)
def test_smtplib_sends_what_is_odd_but_right(relay: RealRelay, name: str) -> None:
    relay.send(MAILS[name])
    (mail,) = relay.arrived()
    assert (mail.recipient, mail.sender) == (BOB, ALICE)
    assert added_around(mail.raw, as_filed(MAILS[name])) == [b"Received"]


def test_a_mail_of_20_mib_goes_through(relay: RealRelay) -> None:
    raw = MAIL + large(20)
    relay.send(raw)
    (mail,) = relay.arrived()
    assert added_around(mail.raw, as_filed(raw)) == [b"Received"]


def large(mib: int) -> bytes:
    """Lines of base64's length and 8-bit bytes, no two alike."""
    octets = random.Random(5).randbytes(mib * 2**20).translate(bytes.maketrans(b"\r\n\0.", b"abcd"))
    return b"\r\n".join(octets[start : start + 76] for start in range(0, len(octets), 76)) + b"\r\n"


def test_who_the_smarthost_refuses_is_told_to_the_sender_at_home(relay: RealRelay, home: PostfixThatSends) -> None:
    relay.send(MAIL, [BOB, "unknown.a@example.net", "policy@example.net", "carol@example.net"])
    assert recipients(relay) == [BOB, "carol@example.net"]
    (filed,) = home.mailbox(ALICE)
    report: Any = email.message_from_bytes(filed, policy=email.policy.default)
    assert report["Return-Path"] == "<>"
    assert report["To"].addresses[0].addr_spec == ALICE
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["In-Reply-To"] == "<1@example.test>"
    assert (report.get_content_type(), report.get_param("report-type")) == ("multipart/report", "delivery-status")
    words, status, header = report.get_payload()
    assert "unknown.a@example.net" in words.get_content()
    of_mail, *of_recipients = status.get_payload()
    assert of_mail["Reporting-MTA"] == f"dns; {DOMAIN}"
    told = {one["Final-Recipient"]: (one["Action"], one["Status"], one["Diagnostic-Code"]) for one in of_recipients}
    assert told == {
        "rfc822; unknown.a@example.net": ("failed", "5.1.1", told["rfc822; unknown.a@example.net"][2]),
        "rfc822; policy@example.net": ("failed", "5.7.1", told["rfc822; policy@example.net"][2]),
    }
    assert "550 5.1.1" in told["rfc822; unknown.a@example.net"][2]
    assert header.get_content_type() == "text/rfc822-headers"
    assert "Subject: hello" in header.get_content()
    assert "two dots" not in filed.decode()
    # The one that does not exist is remembered, the other is not.
    with relay.client() as client, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        client.sendmail(ALICE, ["unknown.a@example.net"], MAIL)
    assert refused.value.recipients["unknown.a@example.net"][0] == 550
    relay.command("suppressed", "remove", "unknown.a@example.net")
    relay.send(MAIL, "unknown.a@example.net")
    relay.wait_until_sent()
    assert len(home.mailbox(ALICE)) == 2


def test_a_recipient_who_is_to_wait_waits_alone(relay: RealRelay) -> None:
    relay.send(MAIL, [BOB, "later@example.net"])
    until(lambda: [entry["to"] for entry in relay.queue() if entry["attempts"]] == [["later@example.net"]])
    (entry,) = relay.queue()
    assert (entry["state"], entry["status"]) == ("waiting", "4.2.1")
    assert [mail.recipient for mail in relay.smarthost.mails()] == [BOB]
    relay.command("queue", "remove", "--yes", entry["id"])
    assert relay.queue() == []


def test_while_the_smarthost_is_away_mail_waits_and_then_goes_by_itself(relay: RealRelay, host: Smarthost) -> None:
    host.halt()
    try:
        for number in range(3):
            relay.send(MAIL, f"u{number}@example.net")
        until(lambda: any(entry["diagnostic"] for entry in relay.queue()))
        waiting = relay.queue()
        assert [entry["to"] for entry in waiting] == [[f"u{number}@example.net"] for number in range(3)]
        # The link's fault is no mail's.
        assert {(entry["from"], entry["user"], entry["attempts"]) for entry in waiting} == {(ALICE, USER, 0)}
    finally:
        host.start()
    assert recipients(relay) == [f"u{number}@example.net" for number in range(3)]


# Postfix


def test_the_corpus_through_postfix_is_at_the_smarthost_byte_for_byte(relay: RealRelay, home: PostfixThatSends) -> None:
    """By sendmail(1), as cron would; Postfix writes its own Received, and below the header what was not there."""
    mails = corpus()
    for name, raw in mails.items():
        home.sendmail(raw, f"{name}@example.net", sender=ALICE)
    home.wait_until_filed()
    arrived = {mail.recipient.partition("@")[0]: mail.raw for mail in relay.arrived()}
    assert home.mailbox(ALICE) == []
    assert arrived.keys() == mails.keys()
    for name, raw in arrived.items():
        wanted = as_filed(mails[name]).removeprefix(b"Return-Path: <test@example.org>\n")
        if name == BARE_CR:
            wanted = wanted.removesuffix(b"\n") + b" \n"
        if name in MENDED_BY_POSTFIX:
            wanted = wanted.replace(b"Fro :", b"Fro:", 1)
        there = {field.lower() for field in names(wanted)}
        missing = [field for field in (b"From", b"Date", b"Message-Id") if field.lower() not in there]
        assert sorted(added_around(raw, wanted)) == sorted([b"Received", b"Received", *missing]), name


@pytest.mark.parametrize("name", MAILS)
def test_postfix_hands_on_what_is_odd_but_right(relay: RealRelay, home: PostfixThatSends, name: str) -> None:
    home.sendmail(MAILS[name].replace(b"\r\n", b"\n"), BOB, sender=ALICE)
    home.wait_until_filed()
    (mail,) = relay.arrived()
    assert added_around(mail.raw, as_filed(MAILS[name])) == [b"Received", b"Received"]


def test_cron_writes_to_its_owner_at_home_and_as_its_owner_to_others(relay: RealRelay, home: PostfixThatSends) -> None:
    home.sendmail(b"Subject: cron\n\nhi\n", "root")
    home.sendmail(b"From: root (Cron Daemon)\nTo: root\nSubject: cron\n\nhi\n", BOB)
    home.wait_until_filed()
    (mail,) = relay.arrived()
    assert mail.sender == ALICE
    assert b"\nFrom: alice@example.test (Cron Daemon)\nTo: alice@example.test\n" in mail.raw
    assert len(home.mailbox(ALICE)) == 1


def test_what_the_relay_refuses_postfix_returns_to_its_sender_and_to_nobody_outside(
    relay: RealRelay, home: PostfixThatSends
) -> None:
    """A From that is not ours; a sender that is not; and a mail that is too large, which is not even tried."""
    home.sendmail(MAIL.replace(b"alice@", b"mallory@elsewhere."), BOB, sender=ALICE)
    home.sendmail(MAIL, BOB, sender="mallory@elsewhere.test")
    home.sendmail(MAIL + large(26), BOB, sender=ALICE)
    home.wait_until_filed()
    assert recipients(relay) == []
    bounces = sorted(home.mailbox(ALICE), key=len)
    assert len(bounces) == 2
    refused, too_large = (bounce if b"ALLOWED_FROM" in bounce else b"" for bounce in bounces), bounces
    assert any(refused)
    assert any(b"size" in bounce and b"26214400" in bounce for bounce in too_large)


def test_what_is_injected_into_that_postfix_still_stays_at_home(relay: RealRelay, home: PostfixThatSends) -> None:
    with smtplib.SMTP(HOST, home.port, "client.test", timeout=20) as client:
        client.login(home.user, home.password)
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail(ALICE, [BOB], MAIL)
    assert recipients(relay) == []


def test_postfix_keeps_what_it_has_while_the_relay_is_away(relay: RealRelay, home: PostfixThatSends) -> None:
    relay.stop()
    try:
        home.sendmail(MAIL, BOB, sender=ALICE)
        with pytest.raises(RuntimeError, match="still in Postfix's queue"):
            home.wait_until_filed(1)
    finally:
        relay.start()
    home.flush()
    home.wait_until_filed()
    assert recipients(relay) == [BOB]


# Maddy


@pytest.fixture(scope="module")
def maddy_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MaddyThatSends]:
    if maddy_binary() is None:
        pytest.skip("no maddy on PATH")
    with MaddyThatSends(tmp_path_factory.mktemp("maddy"), free_port(), users=("alice", "inbox")) as server:
        yield server


@pytest.fixture(scope="module")
def maddys_relay(
    tmp_path_factory: pytest.TempPathFactory, host: Smarthost, maddy_home: MaddyThatSends
) -> Iterator[RealRelay]:
    folder = tmp_path_factory.mktemp("maddys-relay")
    with kept_log(RealRelay(folder / "r", host, maddy_home, port=maddy_home.relay_port), folder / "kept.log") as relay:
        yield relay


@pytest.fixture
def maddy(maddys_relay: RealRelay, maddy_home: MaddyThatSends, host: Smarthost) -> MaddyThatSends:
    assert maddys_relay.home is maddy_home
    host.clear()
    maddy_home.clear()
    return maddy_home


def submit(maddy: MaddyThatSends, raw: bytes, *to: str, sender: str = ALICE) -> dict[str, tuple[int, bytes]]:
    """A mail program of alice's."""
    with smtplib.SMTP(HOST, maddy.submission_port, "client.test", timeout=60) as client:
        client.login(ALICE, maddy.password)
        return client.sendmail(sender, to, raw)


@pytest.mark.maddy
@pytest.mark.parametrize("name", [*MAILS, "large"])
def test_maddy_hands_on_what_its_users_send(maddy: MaddyThatSends, maddys_relay: RealRelay, name: str) -> None:
    raw = {**MAILS, "large": MAIL + large(20)}[name]
    submit(maddy, raw, BOB)
    (mail,) = maddys_relay.arrived()
    assert (mail.recipient, mail.sender) == (BOB, ALICE)
    assert added_around(mail.raw, as_filed(raw)) == [b"Received", b"Received"]


@pytest.mark.maddy
def test_the_corpus_through_maddy_is_at_the_smarthost_byte_for_byte(
    maddy: MaddyThatSends, maddys_relay: RealRelay
) -> None:
    """From alice, as all that is sent there: Maddy looks at the rest of the header itself."""
    mails = {path.stem: path.read_bytes() for path in sorted(CORPUS.glob("legacy-*.eml"))}
    sent = {name: without_author(raw) for name, raw in mails.items()}
    refused = {}
    for name, raw in sent.items():
        try:
            submit(maddy, raw, f"{name}@example.net")
        except smtplib.SMTPDataError as error:
            refused[name] = str(error)
    assert refused.keys() == REFUSED_BY_MADDY
    assert all("(554, b'5.6.0 Invalid address in To" in words for words in refused.values())
    arrived = {mail.recipient.partition("@")[0]: mail.raw for mail in maddys_relay.arrived()}
    assert arrived.keys() == mails.keys() - REFUSED_BY_MADDY
    for name, raw in arrived.items():
        missing = [] if b"message-id" in {field.lower() for field in names(as_filed(sent[name]))} else [b"Message-ID"]
        assert sorted(added_around(raw, as_filed(sent[name]))) == sorted([b"Received", b"Received", *missing]), name


def without_author(raw: bytes) -> bytes:
    """The mail, CRLF, written by alice: Maddy lets nobody else be named in From."""
    text, number = re.subn(
        rb"^From: .*$", b"From: Alice <alice@example.test>", as_filed(raw), count=1, flags=re.MULTILINE
    )
    assert number
    return text.replace(b"\n", b"\r\n")


@pytest.mark.maddy
def test_maddys_user_hears_at_once_what_the_relay_refuses(maddy: MaddyThatSends, maddys_relay: RealRelay) -> None:
    maddys_relay.send(MAIL, "unknown.m@example.net")
    maddys_relay.wait_until_sent()
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        submit(maddy, MAIL, "unknown.m@example.net")
    code, words = refused.value.recipients["unknown.m@example.net"]
    assert code == 550
    assert b"drain relay suppressed remove" in words
    # The report of the first one, filed by the inbound injection.
    (report,) = maddy.mailbox(ALICE)
    assert b"Final-Recipient: rfc822; unknown.m@example.net" in report


@pytest.mark.maddy
def test_maddy_lets_nobody_send_as_somebody_else(maddy: MaddyThatSends, maddys_relay: RealRelay) -> None:
    for sender, raw in (
        (f"inbox@{DOMAIN}", MAIL),
        ("mallory@elsewhere.test", MAIL),
        (ALICE, MAIL.replace(b"alice@", b"inbox@")),
    ):
        with pytest.raises(smtplib.SMTPException, match=r"\b5(50|53|54)\b"):
            submit(maddy, raw, BOB, sender=sender)
    assert recipients(maddys_relay) == []


@pytest.mark.maddy
def test_maddy_files_what_is_for_its_own_mailboxes_and_hands_on_the_rest(
    maddy: MaddyThatSends, maddys_relay: RealRelay
) -> None:
    submit(maddy, MAIL, BOB, f"inbox@{DOMAIN}")
    assert recipients(maddys_relay) == [BOB]
    (filed,) = maddy.mailbox(f"inbox@{DOMAIN}")
    assert as_filed(filed).endswith(as_filed(MAIL))


@pytest.mark.maddy
def test_maddys_user_keeps_the_mail_while_the_relay_is_away(maddy: MaddyThatSends, maddys_relay: RealRelay) -> None:
    maddys_relay.stop()
    try:
        with pytest.raises(smtplib.SMTPException) as refused:
            submit(maddy, MAIL, BOB)
        assert "4" in str(refused.value)
    finally:
        maddys_relay.start()
    submit(maddy, MAIL, BOB)
    assert recipients(maddys_relay) == [BOB]
