"""The upstream `smtp` against a smarthost that answers as it is told; with a real one: tests/real/test_smarthost.py."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drain.errors import ConfigError
from drain.setting import Secret
from drain.upstreams import Action, Fate, Shipment, UpstreamDown, UpstreamRefused, smtp as module
from drain.upstreams.smtp import Smtp
from tests.smtp_fake import DROP, FakeSmtp
from tests.support import on_verb

ALICE, BOB = "alice@example.test", "bob@example.test"
MAIL = b"From: a@x.test\r\nSubject: s\r\n\r\n.hello\r\n"
WITHOUT = ("AUTH PLAIN LOGIN", "ENHANCEDSTATUSCODES")
Upstreams: TypeAlias = Callable[..., Smtp]


@pytest.fixture
def fake() -> Iterator[FakeSmtp]:
    with FakeSmtp() as server:
        yield server


@pytest.fixture
def upstream(fake: FakeSmtp) -> Iterator[Upstreams]:
    """Makes one for the fake, with the usual settings but for those given."""
    made: list[Smtp] = []

    def make(**changed: Any) -> Smtp:
        usual: dict[str, Any] = {
            "hosts": (("127.0.0.1", fake.port),),
            "user": fake.user,
            "password": Secret(fake.password),
            "tls": "none",
        }
        made.append(Smtp(**{**usual, **changed}))
        return made[-1]

    yield make
    for one in made:
        one.rest()


def shipment(*recipients: str, raw: bytes = MAIL, sender: str = "a@x.test") -> Shipment:
    return Shipment("key-1", sender, recipients or (ALICE,), raw)


def replies(**said: str | list[str]) -> Callable[[str, str], str | None]:
    """An ``answer``: to a verb this, or to RCPT one after the other."""
    left = {verb: list(words) if isinstance(words, list) else None for verb, words in said.items()}

    def answer(verb: str, _argument: str) -> str | None:
        words = said.get(verb)
        if isinstance(words, list):
            rest = left[verb]
            return rest.pop(0) if rest else None
        return words

    return answer


# -- what is said to a mail --


@pytest.mark.parametrize(
    ("verb", "reply", "action", "status"),
    [
        ("MAIL", "451 4.3.0 busy", "delayed", "4.3.0"),
        ("MAIL", "550 5.1.8 not your domain", "failed", "5.1.8"),
        ("MAIL", "552 5.3.4 too big", "failed", "5.3.4"),
        ("MAIL", "421 4.7.0 slowly", "delayed", "4.7.0"),
        ("MAIL", DROP, "delayed", "4.4.2"),
        ("RCPT", "450 4.2.1 later", "delayed", "4.2.1"),
        ("RCPT", "550 5.7.1 policy", "failed", "5.7.1"),
        ("RCPT", "550 no", "failed", "5.0.0"),
        ("RCPT", "450 5.1.1 of two minds", "delayed", "4.0.0"),
        ("RCPT", "552 too much in this mailbox", "failed", "5.0.0"),
        ("RCPT", "421 4.3.2 closing", "delayed", "4.3.2"),
        ("RCPT", DROP, "delayed", "4.4.2"),
        ("DATA", "451 4.3.0 busy", "delayed", "4.3.0"),
        ("DATA", "554 5.5.1 no valid recipients", "failed", "5.5.1"),
        ("DATA", "250 what?", "delayed", "4.5.0"),
        ("DOT", "451 4.7.1 greylisted", "delayed", "4.7.1"),
        ("DOT", "554 5.7.1 spam", "failed", "5.7.1"),
        ("DOT", "552 too big", "failed", "5.0.0"),
        ("DOT", "999 what?", "delayed", "4.4.2"),
        ("DOT", DROP, "delayed", "4.4.2"),
    ],
)
def test_a_refusal_is_the_fate_of_all_whom_it_concerns(
    fake: FakeSmtp, upstream: Upstreams, verb: str, reply: str, action: str, status: str
) -> None:
    fake.answer = replies(**{verb: reply})
    smtp = upstream()
    fates = smtp.send(shipment(ALICE, BOB))
    assert {to: (fate.action, fate.status) for to, fate in fates.items()} == {
        ALICE: (action, status),
        BOB: (action, status),
    }
    assert not any(fate.bad_address for fate in fates.values())
    if reply != DROP:
        assert reply in fates[ALICE].diagnostic
    assert ("may have been sent" in fates[ALICE].diagnostic) == fates[ALICE].unknown
    assert fates[ALICE].unknown == (verb == "DOT" and reply in {DROP, "999 what?"})
    fake.answer = replies()
    assert smtp.send(shipment())[ALICE].action == Action.RELAYED  # the next one is not the worse for it
    # A mailbox that is not there is no reason for another connection; anything else may be.
    assert fake.connections == (1 if (verb, reply) == ("RCPT", "550 no") else 2)


def test_a_mail_whose_answer_was_lost_may_have_been_sent(fake: FakeSmtp, upstream: Upstreams) -> None:
    fake.answer = replies(FILED=DROP)
    fate = upstream().send(shipment())[ALICE]
    assert (fate.action, fate.status) == (Action.DELAYED, "4.4.2")
    assert fate.unknown
    assert "may have been sent" in fate.diagnostic
    assert len(fake.filed) == 1


def test_a_mail_that_is_cut_off_in_its_body_was_not_sent(fake: FakeSmtp, upstream: Upstreams) -> None:
    fake.answer = replies(BODY=DROP)
    # More than the system takes in advance, so that the end comes before the final dot.
    fate = upstream().send(shipment(raw=MAIL + b"x" * 30_000_000))[ALICE]
    assert (fate.action, fate.status) == (Action.DELAYED, "4.4.2")
    assert "broke off at DATA" in fate.diagnostic
    assert not fate.unknown


@pytest.mark.parametrize("reply", ["550 5.1.1 no such user", "550 5.1.6 moved", "556 5.1.10 null MX"])
def test_an_address_is_bad_if_the_smarthost_says_so_with_a_code(
    fake: FakeSmtp, upstream: Upstreams, reply: str
) -> None:
    fake.answer = replies(RCPT=reply)
    assert upstream().send(shipment())[ALICE].bad_address


@pytest.mark.parametrize("reply", ["550 no such user", "550 5.1.2 no domain", "552 5.2.2 full", "450 5.1.1 two minds"])
def test_anything_else_may_be_policy(fake: FakeSmtp, upstream: Upstreams, reply: str) -> None:
    fake.answer = replies(RCPT=reply)
    assert not upstream().send(shipment())[ALICE].bad_address


def test_who_was_refused_stays_so_where_the_connection_then_breaks(fake: FakeSmtp, upstream: Upstreams) -> None:
    fake.answer = replies(DOT=DROP)
    fates = upstream().send(shipment("nobody@example.test", ALICE))
    assert [fate.action for fate in fates.values()] == ["failed", "delayed"]


def test_one_is_taken_and_one_is_not(fake: FakeSmtp, upstream: Upstreams) -> None:
    fake.answer = replies(DOT="250 2.0.0 Ok: queued as 4bCd\x1b[31m")
    fates = upstream().send(shipment("nobody@example.test", ALICE))
    assert list(fates.values()) == [
        Fate(Action.FAILED, "5.1.1", "smtp; 550 5.1.1 no such user", bad_address=True),
        Fate(Action.RELAYED, "2.0.0", "smtp; 250 2.0.0 Ok: queued as 4bCd [31m", reference="4bCd"),
    ]
    assert fake.mailbox(ALICE) == [MAIL]


@pytest.mark.parametrize("reply", ["452 4.5.3 too many", "452 too many", "552 too many", "550 5.5.3 too many"])
def test_too_many_recipients_is_for_the_next_transaction(fake: FakeSmtp, upstream: Upstreams, reply: str) -> None:
    fake.answer = replies(RCPT=["250 ok", reply])
    fates = upstream().send(shipment(ALICE, BOB))
    assert [fates[to].action for to in (ALICE, BOB)] == ["relayed", "delayed"]


def test_nothing_follows_where_no_recipient_is_taken(fake: FakeSmtp, upstream: Upstreams) -> None:
    upstream().send(shipment("nobody@example.test"))
    assert not [command for command in fake.commands if command == "DATA"]


# -- what is said of a mail --


def test_size_and_8bit_are_said_where_they_are_understood(fake: FakeSmtp, upstream: Upstreams) -> None:
    upstream().send(shipment(raw=MAIL + b"\xe4\r\n"))
    assert f"MAIL FROM:<a@x.test> SIZE={len(MAIL) + 4} BODY=8BITMIME" in fake.commands


def test_an_8bit_mail_goes_as_it_is_where_8bitmime_is_not_offered(fake: FakeSmtp, upstream: Upstreams) -> None:
    fake.extensions = WITHOUT
    raw = MAIL + b"\xe4\xff\r\n"
    assert upstream().send(shipment(raw=raw))[ALICE].action == Action.RELAYED
    assert "MAIL FROM:<a@x.test>" in fake.commands
    assert fake.mailbox(ALICE) == [raw]


def test_a_mail_over_the_limit_fails_before_anything_is_said(fake: FakeSmtp, upstream: Upstreams) -> None:
    fake.extensions = ("SIZE 100", "AUTH PLAIN LOGIN")
    fate = upstream().send(shipment(raw=MAIL + b"x" * 100))[ALICE]
    assert (fate.action, fate.status) == (Action.FAILED, "5.3.4")
    assert not [command for command in fake.commands if command.startswith("MAIL")]


def test_an_address_beyond_ascii_goes_with_smtputf8(fake: FakeSmtp, upstream: Upstreams) -> None:
    fake.mailboxes.add("jörg@example.test")
    assert upstream().send(shipment("jörg@example.test"))["jörg@example.test"].action == Action.RELAYED
    assert any(command.endswith(" SMTPUTF8") for command in fake.commands)
    upstream().send(shipment(raw=MAIL + b"\xc3\xb6"))
    assert "SMTPUTF8" not in fake.commands[-4]


def test_without_smtputf8_only_those_fail_who_need_it(fake: FakeSmtp, upstream: Upstreams) -> None:
    fake.extensions = WITHOUT
    fake.mailboxes.add("bob@xn--bcher-kva.test")
    fates = upstream().send(shipment("jörg@example.test", "bob@bücher.test", ALICE))
    assert [(fate.action, fate.status) for fate in fates.values()] == [
        ("failed", "5.6.7"),
        ("relayed", "2.0.0"),
        ("relayed", "2.0.0"),
    ]
    fates = upstream().send(shipment(ALICE, BOB, sender="jörg@x.test"))
    assert [(fate.action, fate.status) for fate in fates.values()] == [("failed", "5.6.7")] * 2


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.text(alphabet=st.characters(), max_size=12), st.sampled_from("\r\n\0\x7f\ud800"))
def test_no_address_brings_a_command_of_its_own(fake: FakeSmtp, upstream: Upstreams, words: str, bad: str) -> None:
    smtp = upstream()
    for made in (shipment(f"{words}{bad}@x.test"), shipment(sender=f"{words}{bad}RCPT TO:<{BOB}>")):
        assert smtp.objection(made)
        assert {fate.action for fate in smtp.send(made).values()} == {Action.FAILED}
    assert fake.connections == 0


@pytest.mark.parametrize("name", ["smtp.resend.com", "SMTP.Resend.com."])
def test_resend_is_told_the_key(
    fake: FakeSmtp, upstream: Upstreams, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import socket

    ask = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: ask("127.0.0.1", *more, **options))
    monkeypatch.setattr(module, "is_loopback", lambda host: True)  # the fake has no TLS
    upstream(hosts=((name, fake.port),)).send(shipment())
    assert fake.mailbox(ALICE) == [b"Resend-Idempotency-Key: key-1\r\n" + MAIL]


# -- what is said before a mail --


def test_the_next_host_is_tried_until_one_can_be_used(fake: FakeSmtp, upstream: Upstreams) -> None:
    faults = ["CONNECT", "EHLO", "AUTH", "AUTH"]
    said = ["421 4.3.2 closing", "550 go away", "454 4.7.0 not now", "535 5.7.8 no"]
    with FakeSmtp() as one, FakeSmtp() as two, FakeSmtp() as three, FakeSmtp() as four:
        others = (one, two, three, four)
        for other, verb, words in zip(others, faults, said, strict=True):
            # After a refused EHLO a client may try HELO.
            other.answer = replies(**{verb: words, "HELO": words})
        hosts = (("127.0.0.1", 1), *(("127.0.0.1", other.port) for other in others), ("127.0.0.1", fake.port))
        assert upstream(hosts=hosts).send(shipment())[ALICE].action == Action.RELAYED
        assert [other.connections for other in others] == [1, 1, 1, 1]
        with pytest.raises(UpstreamRefused, match=r"Connection refused.*421.*550.*454.*535"):
            upstream(hosts=hosts[:-1]).send(shipment())
        with pytest.raises(UpstreamDown, match=r"Connection refused.*421.*550.*454"):
            upstream(hosts=hosts[:-2]).send(shipment())


def test_the_first_host_is_used_as_long_as_it_can_be(fake: FakeSmtp, upstream: Upstreams) -> None:
    with FakeSmtp() as other:
        smtp = upstream(hosts=(("127.0.0.1", fake.port), ("127.0.0.1", other.port)))
        smtp.send(shipment())
        smtp.rest()
        smtp.send(shipment())
        assert (fake.connections, other.connections) == (2, 0)


@pytest.mark.parametrize("words", ["530 5.7.0 Authentication required", "538 5.7.11 Encryption required"])
def test_a_login_that_is_wanted_and_not_there_is_for_a_person_to_mend(
    fake: FakeSmtp, upstream: Upstreams, words: str
) -> None:
    fake.answer = replies(MAIL=words)
    with pytest.raises(UpstreamRefused, match="Set SMARTHOST_USER"):
        upstream(user="").send(shipment())


def test_without_a_user_there_is_no_login(fake: FakeSmtp, upstream: Upstreams) -> None:
    fake.answer = replies(MAIL="250 ok")
    assert upstream(user="").send(shipment())[ALICE].action == Action.RELAYED
    assert not [command for command in fake.commands if command.startswith("AUTH")]


def test_where_starttls_was_taken_out_nothing_is_said(fake: FakeSmtp, upstream: Upstreams) -> None:
    with pytest.raises(UpstreamDown, match="offers no STARTTLS"):
        upstream(tls="starttls").send(shipment())
    assert {command.split(" ")[0] for command in fake.commands} == {"ehlo"}


def test_the_password_is_shown_nowhere(fake: FakeSmtp, upstream: Upstreams) -> None:
    fake.answer = replies(AUTH="535 5.7.8 no")
    with pytest.raises(UpstreamRefused) as refused:
        upstream(password=Secret("hunter2")).send(shipment())
    assert "hunter2" not in str(refused.value)


def test_what_cannot_be_right_is_said_at_once(upstream: Upstreams) -> None:
    for wrong in ({"hosts": ()}, {"hosts": (("mail.example", 25),)}):
        with pytest.raises(ConfigError, match="SMARTHOST"):
            upstream(**wrong)


# -- connections --


def test_a_connection_is_kept_for_the_next_mail(fake: FakeSmtp, upstream: Upstreams) -> None:
    smtp = upstream(ehlo="relay.x.test")
    for _ in range(3):
        smtp.send(shipment())
    assert fake.connections == 1
    assert fake.commands.count("ehlo relay.x.test") == 1
    smtp.rest()
    smtp.send(shipment())
    assert fake.connections == 2


@pytest.mark.parametrize("reply", [DROP, "421 4.4.2 timeout", "530 5.7.0 log in first"])
def test_one_that_was_closed_while_idle_is_nobodys_fault(fake: FakeSmtp, upstream: Upstreams, reply: str) -> None:
    smtp = upstream()
    smtp.send(shipment())
    fake.answer = on_verb("RSET", reply)
    assert smtp.send(shipment())[ALICE].action == Action.RELAYED
    assert (fake.connections, len(fake.filed)) == (2, 2)


def test_one_that_was_idle_for_long_is_closed(fake: FakeSmtp, upstream: Upstreams) -> None:
    now = [0.0]
    smtp = upstream(clock=lambda: now[0], idle_seconds=20)
    smtp.send(shipment())
    now[0] = 19
    smtp.send(shipment())
    assert fake.connections == 1
    now[0] = 40
    smtp.send(shipment())
    assert fake.connections == 2
    assert fake.commands.count("quit") == 1


def test_several_threads_have_a_connection_each(fake: FakeSmtp, upstream: Upstreams) -> None:
    smtp = upstream()
    met = threading.Barrier(4, timeout=10)

    def answer(verb: str, _argument: str) -> str | None:
        if verb == "DOT":
            met.wait()
        return None

    fake.answer = answer
    threads = [threading.Thread(target=smtp.send, args=(shipment(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (fake.connections, len(fake.filed)) == (4, 4)


@pytest.mark.parametrize("verb", ["RCPT", "DOT"])
def test_stop_breaks_what_is_in_flight(fake: FakeSmtp, upstream: Upstreams, verb: str) -> None:
    """Before the final dot it is as if it had not begun; after it, nobody knows."""
    smtp = upstream()
    there, over = threading.Event(), threading.Event()

    def answer(asked: str, _argument: str) -> str | None:
        if asked == verb:
            there.set()
            over.wait(10)
        return None

    fake.answer = answer
    ends: list[Any] = []

    def send() -> None:
        try:
            ends.append(smtp.send(shipment())[ALICE].action)
        except UpstreamDown as error:
            ends.append(str(error))

    thread = threading.Thread(target=send)
    thread.start()
    assert there.wait(10)
    began = time.monotonic()
    smtp.stop()
    thread.join(5)
    took = time.monotonic() - began
    over.set()
    assert ends == [Action.DELAYED if verb == "DOT" else "drain is stopping."]
    assert took < 2
    with pytest.raises(UpstreamDown, match="stopping"):
        smtp.send(shipment())


def test_the_probe_sends_nothing(fake: FakeSmtp, upstream: Upstreams) -> None:
    words = upstream(hosts=(("127.0.0.1", 1), ("127.0.0.1", fake.port))).probe()
    assert words.startswith(
        f"smarthost 127.0.0.1:{fake.port}; no TLS; logged in as drain; answers 250 2.0.0 ok; offers"
    )
    assert "127.0.0.1:1 cannot be used" in words
    assert [command.split(" ")[0] for command in fake.commands] == ["ehlo", "AUTH", "NOOP"]
