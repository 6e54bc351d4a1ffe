"""What an attacker says to the relay: smuggling, injection, exhaustion."""

import base64
import contextlib
import socket
import ssl
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drain.relay import listener as module
from drain.relay.listener import Limits
from drain.relay.refusal import Refusal
from tests.wire.test_relay_listener import (
    Raw,
    Relay,
    certificate,
    context,
    plain,
    relay,
    relay_with,
    trusting,
    wait_until,
)

__all__ = ["certificate", "context", "relay", "relay_with", "trusting"]  # fixtures

ENVELOPE = b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n"


@pytest.mark.parametrize(
    "end",
    [
        b"\n.\r\n", b"\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\r\n.\r\r\n",
        b"\r\n\x00.\r\n", b"\r\n.\x00\r\n", b"\r\n. \r\n", b"\r\r\n.\n", b"\n\r\n.\r\x00\n", b"\r\n..\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [1, 2046, 2047, 2048])
def test_nothing_but_crlf_dot_crlf_ends_a_mail(relay: Relay, end: bytes, before: int) -> None:
    inner = b"x" * before + end + b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<victim@x.test>\r\nDATA\r\nevil"
    with relay.raw() as raw:
        raw.log_in()
        raw.send(ENVELOPE + inner + b"\r\n.\r\nQUIT\r\n")
        assert [reply[:3] for reply in raw.rest()] == [b"250", b"250", b"354", b"250", b"221"]
    ((_, sender, recipients, content, _),) = relay.desk.mails
    assert (sender, recipients) == ("a@x.test", ("b@x.test",))
    # Only the dots that were stuffed at the beginning of a line are gone (RFC 5321 4.5.2).
    assert content == (b"\r\n" + inner + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]


def test_the_end_is_found_however_it_is_cut(relay: Relay) -> None:
    with relay.raw() as raw:
        raw.log_in()
        raw.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in ENVELOPE + b"a\r\n..\r\n\r\n.\r\n" + ENVELOPE + b".\r\nQUIT\r\n":
            raw.send(bytes([octet]))
        assert [reply[:3] for reply in raw.rest()] == [b"250", b"250", b"354", b"250"] * 2 + [b"221"]
    assert [mail[3] for mail in relay.desk.mails] == [b"a\r\n.\r\n\r\n", b""]


def test_a_dot_at_the_end_of_a_long_line_that_comes_in_pieces_ends_nothing(relay: Relay) -> None:
    line = b"x" * 3000 + b"."
    with relay.raw() as raw:
        raw.log_in()
        raw.send(ENVELOPE)
        assert [raw.reply()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        raw.send(line)
        time.sleep(0.2)  # the listener takes what it has of the line, and is left with the dot
        raw.send(b"\r\nQUIT\r\n.\r\n")
        assert raw.reply().startswith(b"250")
    assert relay.desk.mails[0][3] == line + b"\r\nQUIT\r\n"


def test_a_mail_that_is_cut_off_is_no_mail(relay: Relay) -> None:
    for end in (b"", b"\r", b"\r\n", b"\r\n.", b"\r\n.\r"):
        with relay.raw() as raw:
            raw.log_in()
            raw.send(ENVELOPE + b"x" + end)
            raw.connection.shutdown(socket.SHUT_WR)
            assert b"2.0.0" not in b"".join(raw.rest())
    wait_until(lambda: not relay.listener._clients)
    assert relay.desk.mails == []
    assert relay.listener.memory._used == 0


def test_commands_behind_starttls_are_thrown_away(
    relay_with: Callable[..., Relay], context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    relay = relay_with(tls_context=context)
    with relay.raw() as raw:
        raw.log_in()
        raw.send(b"STARTTLS\r\nEHLO injected\r\nAUTH PLAIN " + plain("correct horse") + b"\r\nMAIL FROM:<a@x.test>\r\n")
        assert raw.reply().startswith(b"220")
        raw.file.close()
        with Raw(trusting.wrap_socket(raw.connection, server_hostname="127.0.0.1")) as inside:
            # The first reply is to the first command inside, and nobody has said EHLO.
            assert inside.say(b"MAIL FROM:<b@x.test>") == b"503 5.5.1 Send EHLO first"
            inside.say(b"EHLO me")
            assert inside.say(b"MAIL FROM:<b@x.test>") == b"530 5.7.0 Authentication required"
            inside.say(b"AUTH PLAIN " + plain("correct horse"))
            assert inside.say(b"MAIL FROM:<b@x.test>").startswith(b"250")
    assert [sender for _, sender in relay.desk.senders] == ["b@x.test"]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("rubbish", [b"", b"EHLO me\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00" * 5000])
def test_a_handshake_that_fails_leaves_nothing_behind(
    relay_with: Callable[..., Relay], context: ssl.SSLContext, tls: str, rubbish: bytes
) -> None:
    relay = relay_with(tls_context=context, tls=tls, limits=Limits(login_seconds=2))
    for _ in range(5):
        with relay.raw() as raw:
            if tls == "starttls":
                raw.reply()
                raw.say(b"STARTTLS")
            with contextlib.suppress(ConnectionError):
                raw.send(rubbish)
            raw.connection.shutdown(socket.SHUT_WR)
            raw.rest()
    wait_until(lambda: not relay.listener._clients)


def test_a_handshake_that_does_not_go_on_is_cut_off(relay_with: Callable[..., Relay], context: ssl.SSLContext) -> None:
    relay = relay_with(tls_context=context, tls="implicit", limits=Limits(login_seconds=0.3))
    with relay.raw() as raw:
        assert raw.rest() == []
    wait_until(lambda: not relay.listener._clients)


@pytest.mark.parametrize(
    "path",
    [
        b"<@evil.test:a@x.test>", b"<@a.test,@b.test:c@x.test>", b"a@x.test", b"<a@x.test", b"a@x.test>", b"<<a@x.test>>",
        b"<a@x.test>>", b"<a@x.test><b@x.test>", b"<a@x.test> <b@x.test>", b"<a\r@x.test>", b"<a\n@x.test>",
        b"<a\x00@x.test>", b"<a\x7f@x.test>", b"<a\x1b[2J@x.test>", b"<a\t@x.test>", b"<a b@x.test>", b"<\xff@x.test>",
        b"<a@x..test>", b"<a@.x.test>", b"<a@x.test.>", b"<a@-x.test>", b"<a@>", b"<@x.test>", b"<@>", b"<a@x,y.test>",
        b"<a@b@x.test>", b"<a,b@x.test>", b"<a;b@x.test>", b"<(c)a@x.test>", b'<"a@x.test>', b'<"a"b@x.test>',
        b'<"a\rb"@x.test>', b"<a@[1.2.3]>", b"<a@[x.test]>", b"<a@[1.2.3.4>", b"Name <a@x.test>", b"<" + b"a" * 65 + b"@x.test>",
        b"<a@" + b"x" * 64 + b".test>", b"<a@" + b"xy." * 90 + b"test>", "<ä@x.test>".encode(), "<a@x\u2028.test>".encode(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [b"MAIL FROM:", b"RCPT TO:"])
def test_what_is_no_address_does_not_reach_the_desk(relay: Relay, command: bytes, path: bytes) -> None:
    with relay.raw() as raw:
        raw.log_in()
        if command == b"RCPT TO:":
            raw.say(b"MAIL FROM:<a@x.test> SMTPUTF8")
            if path == "<ä@x.test>".encode():
                return
        asked = len(relay.desk.senders)
        reply = raw.say(command + path)
        if b"\n" in path:
            raw.reply()  # to the second line, which is a command of its own
        assert reply[:3] in (b"501", b"553")
        assert reply[4:6] == b"5."
        assert raw.say(b"DATA")[:3] in (b"503", b"554")
    assert len(relay.desk.senders) == asked


@pytest.mark.parametrize(
    "path", ["root", "", "a..b.@x.test", '"a b\\"@c>"@x.test', "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]"]
)
def test_what_is_one_does(relay: Relay, path: str) -> None:
    with relay.raw() as raw:
        raw.log_in()
        assert raw.say(f"MAIL FROM:<{path}>".encode()).startswith(b"250")
    assert relay.desk.senders == [("alice", path)]


@given(st.text(max_size=60))
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_path_is_more_than_one_plain_word(words: str) -> None:
    try:
        path, _ = module._path(f"FROM:<{words}", "FROM:", "5.1.7")
        address = module._mailbox(path, "5.1.7", utf8=True)
    except Refusal as refusal:
        code = refusal.code
        assert code in (501, 553)
    else:
        assert address.count("@") == 1 or address.startswith('"')
        assert address.isprintable()


@pytest.mark.parametrize(
    "parameters",
    [
        b"SIZE=x",
        b"SIZE",
        b"SIZE=-1",
        b"SIZE=1 SIZE=2",
        b"BODY=BINARYMIME",
        b"SMTPUTF8=1",
        b"FOO=1",
        b"=1",
        b"AUTH",
        b"\xe9",
    ],
)
def test_parameters_that_are_wrong_are_refused(relay: Relay, parameters: bytes) -> None:
    with relay.raw() as raw:
        raw.log_in()
        assert raw.say(b"MAIL FROM:<a@x.test> " + parameters)[:3] in (b"501", b"555")
    assert relay.desk.senders == []


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([b"AUTH"], b"504"),
        ([b"AUTH CRAM-MD5"], b"504"),
        ([b"AUTH PLAIN a b"], b"501"),
        ([b"AUTH PLAIN !!!!"], b"501"),
        ([b"AUTH PLAIN YQ="], b"501"),
        ([b"AUTH PLAIN ="], b"501"),
        ([b"AUTH PLAIN " + base64.b64encode(b"alice")], b"501"),
        ([b"AUTH PLAIN " + base64.b64encode(b"\0alice\0a\0b")], b"501"),
        ([b"AUTH PLAIN " + base64.b64encode(b"root\0alice\0correct horse")], b"535"),
        ([b"AUTH PLAIN " + base64.b64encode(b"\0\xff\xfe\0\xff")], b"535"),
        ([b"AUTH PLAIN", b"*"], b"501"),
        ([b"AUTH PLAIN", b"\xff\xff"], b"501"),
        ([b"AUTH PLAIN", b"x" * 100_000], b"500"),
        ([b"AUTH LOGIN", b"*"], b"501"),
        ([b"AUTH LOGIN", base64.b64encode(b"alice"), b"*"], b"501"),
        ([b"AUTH LOGIN", base64.b64encode(b"alice"), b"x" * 5000], b"500"),
        ([b"AUTH LOGIN", b"", b""], b"535"),
    ],
)
def test_a_login_that_is_none_is_refused_and_the_next_one_is_looked_at(
    relay: Relay, lines: list[bytes], code: bytes
) -> None:
    with relay.raw() as raw:
        raw.reply()
        raw.say(b"EHLO me")
        for line in lines:
            reply = raw.say(line)
        assert reply[:3] == code
        assert raw.say(b"MAIL FROM:<a@x.test>").startswith(b"530")
        assert raw.say(b"AUTH PLAIN " + plain("correct horse")).startswith(b"235")


@pytest.mark.parametrize("length", [2049, 4096, 100_000, 3_000_000])
@pytest.mark.parametrize("command", [b"EHLO ", b"FOO", b"MAIL FROM:<a@x.test> ", b""])
def test_a_command_that_is_too_long_is_refused_once_and_not_kept(relay: Relay, command: bytes, length: int) -> None:
    with relay.raw() as raw:
        raw.reply()
        assert raw.say(command + b"x" * length).startswith(b"500 5.5.2")
        assert raw.say(b"NOOP") == b"250 2.0.0 OK"


def test_a_refusal_cannot_be_made_to_say_more_than_one_line(relay: Relay) -> None:
    with relay.raw() as raw:
        raw.reply()
        raw.send(b"FOO\rBAR\x1b[2J\r\nNOOP\r\n")
        assert b"\r" not in raw.reply()
        assert raw.reply() == b"250 2.0.0 OK"


def test_who_says_much_but_does_not_log_in_is_let_go(relay_with: Callable[..., Relay]) -> None:
    relay = relay_with(limits=Limits(login_seconds=0.6))
    began = time.monotonic()
    with relay.raw() as raw:
        raw.reply()
        replies = [b"250"]
        while replies[-1].startswith(b"250"):
            time.sleep(0.02)
            with contextlib.suppress(ConnectionError):
                raw.send(b"NOOP\r\n")
            replies.append(raw.reply())
    assert replies[-1].startswith(b"421") or replies[-1] == b""
    assert time.monotonic() - began < 3


def test_one_octet_at_a_time_does_not_keep_a_stranger(relay_with: Callable[..., Relay]) -> None:
    relay = relay_with(limits=Limits(login_seconds=0.4))
    with relay.raw() as raw:
        raw.reply()
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                raw.send(b"x")
                time.sleep(0.01)
        assert raw.rest()[:1] in ([b"421 4.4.2 Nothing was said for too long"], [])
    wait_until(lambda: not relay.listener._clients)


def test_a_thousand_connections_keep_nobody_out_and_cost_little(relay: Relay) -> None:
    # Frames and buffers of what this process holds for them; the sockets of both ends are the kernel's.
    tracemalloc.start()
    with contextlib.ExitStack() as stack:
        for number in range(1000):
            raw = stack.enter_context(relay.raw())
            if number % 4 == 0:
                with contextlib.suppress(OSError):
                    raw.connection.setblocking(False)
                    raw.connection.send(b"AUTH PLAIN " + b"x" * 500_000)
        wait_until(lambda: len(relay.listener._clients) <= Limits().strangers)
        with relay.logged_in() as client:
            client.sendmail("a@x.test", ["b@x.test"], b"hello")
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(relay.desk.mails) == 1
    assert peak < 40_000_000


def test_a_mail_without_end_is_not_kept_and_ends_the_connection(relay_with: Callable[..., Relay]) -> None:
    relay = relay_with(max_size=100_000)
    with relay.raw() as raw:
        raw.log_in()
        with contextlib.suppress(ConnectionError):
            raw.send(ENVELOPE + b"x" * 20_000_000)
        assert b"250 2.0.0 Ok" not in b"".join(raw.rest())
    wait_until(lambda: not relay.listener._clients)
    assert relay.listener.memory._used == 0
    assert relay.desk.mails == []


def test_a_source_route_is_called_by_its_name(relay: Relay) -> None:
    with relay.raw() as raw:
        raw.log_in()
        assert raw.say(b"MAIL FROM:<@a.test:b@x.test>") == b"553 5.1.7 No source routes here"


def test_what_breaks_in_the_listener_itself_is_not_told_to_strangers(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, password: bytes) -> bool:
        raise RuntimeError("a secret place")

    monkeypatch.setattr(relay.users, "check", broken)
    with relay.raw() as raw:
        raw.reply()
        raw.say(b"EHLO me")
        assert raw.say(b"AUTH PLAIN " + plain("x")) == b"451 4.3.0 Something went wrong here; try again later"
    assert "a secret place" in str(relay.events("relay"))
