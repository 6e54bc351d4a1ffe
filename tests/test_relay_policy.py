"""Who may send what to whom."""

import pytest
from hypothesis import given, strategies as st

from drain.header import Header
from drain.places import address_patterns
from drain.relay.policy import Policy
from drain.relay.refusal import Refusal

FALLBACK = "pi@mine.test"


def policy(
    allowed: str = "@mine.test, me@other.test", *, allow: str = "", deny: str = "", fallback: str = ""
) -> Policy:
    return Policy(address_patterns(allowed), address_patterns(allow), address_patterns(deny), fallback)


def refused(refusal: pytest.ExceptionInfo[Refusal]) -> tuple[int, str]:
    """Code and status; the words say what it is about, on one line."""
    words = refusal.value.words
    assert words.isprintable()
    assert words.isascii()
    assert words.endswith(".")
    assert len(words) < 400
    return refusal.value.code, refusal.value.status


# -- the envelope's sender --


@pytest.mark.parametrize("address", ["a@mine.test", "A@MINE.Test", "me@other.test", "Me@Other.test"])
def test_an_allowed_sender_is_used_as_it_is(address: str) -> None:
    assert policy().sender(address, ()) == address


@pytest.mark.parametrize(
    "address", ["ceo@bank.test", "you@other.test", "a@sub.mine.test", "a@xmine.test", "a@mine.test.bank.test"]
)
def test_another_sender_is_refused(address: str) -> None:
    with pytest.raises(Refusal, match="ALLOWED_FROM does not name it") as refusal:
        policy(fallback=FALLBACK).sender(address, ())
    assert refused(refusal) == (550, "5.7.1")


@pytest.mark.parametrize("own", [(), ("@mine.test",), ("a@mine.test",)])
@pytest.mark.parametrize("address", ["a@mine.test", "root", ""])
def test_without_allowed_from_nothing_is_sent(address: str, own: tuple[str, ...]) -> None:
    with pytest.raises(Refusal, match="Set ALLOWED_FROM") as refusal:
        policy("", fallback=FALLBACK).sender(address, own)
    assert refused(refusal) == (550, "5.7.1")


def test_own_senders_narrow_and_never_widen() -> None:
    some = policy()
    assert some.sender("a@mine.test", ("a@mine.test",)) == "a@mine.test"
    with pytest.raises(Refusal, match="not among the user's own"):
        some.sender("b@mine.test", ("a@mine.test",))
    with pytest.raises(Refusal, match="ALLOWED_FROM does not name it"):
        some.sender("ceo@bank.test", ("ceo@bank.test", "@bank.test"))


def test_the_empty_sender_wants_to_be_allowed_by_name() -> None:
    assert policy("@mine.test, <>").sender("", ()) == ""
    assert policy("@mine.test, <>", fallback=FALLBACK).sender("", ("<>",)) == ""
    with pytest.raises(Refusal, match="RELAY_FROM_FALLBACK") as refusal:
        policy().sender("", ())
    assert refused(refusal) == (550, "5.7.1")
    # A user with senders of its own has it only among them.
    with pytest.raises(Refusal):
        policy("@mine.test, <>").sender("", ("a@mine.test",))


@pytest.mark.parametrize("address", ["", "root", "root@pi", "root@localhost", "root@localhost.localdomain"])
def test_a_sender_without_a_domain_becomes_the_fallback_or_is_refused(address: str) -> None:
    assert policy(fallback=FALLBACK).sender(address, ()) == FALLBACK
    with pytest.raises(Refusal, match="RELAY_FROM_FALLBACK") as refusal:
        policy().sender(address, ())
    assert refused(refusal) == (550, "5.7.1")


@pytest.mark.parametrize("address", ["", "root"])
def test_the_fallback_is_judged_like_any_other_sender(address: str) -> None:
    with pytest.raises(Refusal, match="RELAY_FROM_FALLBACK"):
        policy(fallback="ceo@bank.test").sender(address, ())
    with pytest.raises(Refusal, match=r"RELAY_FROM_FALLBACK.*not among the user's own"):
        policy(fallback=FALLBACK).sender(address, ("a@mine.test",))
    assert policy(fallback=FALLBACK).sender(address, (FALLBACK,)) == FALLBACK


@pytest.mark.parametrize("address", ["root@pi", "root@localhost"])
def test_an_address_of_one_machine_is_never_sent_with_even_if_allowed(address: str) -> None:
    with pytest.raises(Refusal):
        policy("@pi, @localhost").sender(address, ())


_NO_ADDRESSES = [
    "a b@mine.test",
    "a@mine.test>",
    "<a@mine.test",
    "a@mine.test\r\nRCPT TO:<b@bank.test>",
    "a\n@mine.test",
    "a\0@mine.test",
    "a@mine.test\u2028",
    "a@@mine.test",
    "@mine.test",
    "a@",
    "a@mine.test.",
    "a@.mine.test",
    "a@mine..test",
    "a@" + "b" * 64 + ".test",
    "a" * 65 + "@mine.test",
    "a@" + "b." * 130 + "test",
    "\ud800@mine.test",
    "a@mine.test,b@bank.test",
    "a@mine.test b@bank.test",
]
_ROUTES = [
    "victim%bank.test@mine.test",
    "bank.test!victim@mine.test",
    "victim@bank.test@mine.test",
    '"victim@bank.test"@mine.test',
    '"victim"@mine.test',
    "@mine.test:victim@bank.test",
    "@mine.test,@x.test:victim@bank.test",
    "vic\\tim@mine.test",
    "victim%bank.test",
    "bank.test!victim",
]
_NUMBERS = ["a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@192.0.2.1", "a@2130706433", "a@x.1"]
_LOOK_ALIKES = [
    "a\uff20bank.test@mine.test",
    "a@\uff4dine.test",
    "a@stra\u00dfe.test",
    "a@mine\u3002test",
    "e\u0301@mine.test",
]
_BAD = ["a@xn--\u00fc.xn--zzzzzz99999.test", *_NO_ADDRESSES, *_ROUTES, *_NUMBERS, *_LOOK_ALIKES]


@pytest.mark.parametrize("address", _BAD, ids=lambda address: ascii(address)[:70])
def test_what_is_no_plain_address_is_neither_sender_nor_recipient(address: str) -> None:
    any_domain = policy("@mine.test, @bank.test, @xn--strae-oqa.test, @192.0.2.1, @2130706433, @x.1", fallback=FALLBACK)
    with pytest.raises(Refusal) as refusal:
        any_domain.sender(address, ())
    assert refused(refusal) == (553, "5.1.7")
    with pytest.raises(Refusal) as refusal:
        any_domain.recipient(address)
    assert refused(refusal) == (553, "5.1.3")


# -- recipients --


@pytest.mark.parametrize("address", ["a.@mine.test", ".a@mine.test", "a..b.@mine.test"])
def test_dots_where_they_should_not_be_are_some_peoples_addresses_and_nobodys_of_ours(address: str) -> None:
    any_domain = policy("@mine.test")
    any_domain.recipient(address)
    with pytest.raises(Refusal):
        any_domain.sender(address, ())


@pytest.mark.parametrize(
    "address", ["a@x.test", "a+b@X.TEST", "jürg@bücher.test", "a@xn--bcher-kva.test", "a@nas", "a=b@x.test"]
)
def test_without_lists_every_address_is_a_recipient(address: str) -> None:
    policy().recipient(address)


def test_a_recipient_without_a_domain_is_refused_with_words() -> None:
    for address in ("root", "postmaster", ""):
        with pytest.raises(Refusal) as refusal:
            policy().recipient(address)
        assert refused(refusal) == (553, "5.1.3")


def test_with_an_allowlist_nobody_else_gets_mail() -> None:
    some = policy(allow="friend@x.test, @home.test, @bücher.test")
    for address in ("friend@x.test", "FRIEND@X.test", "any@home.test", "a@xn--bcher-kva.test", "a@BÜCHER.test"):
        some.recipient(address)
    for address in ("other@x.test", "a@sub.home.test", "a@xhome.test", "friend+x@x.test", "a@bucher.test"):
        with pytest.raises(Refusal, match="RECIPIENT_ALLOWLIST") as refusal:
            some.recipient(address)
        assert refused(refusal) == (550, "5.7.1")


def test_the_denylist_wins() -> None:
    some = policy(allow="@x.test", deny="foe@x.test, @bücher.test")
    some.recipient("friend@x.test")
    for address in ("foe@x.test", "Foe@X.Test", "a@bücher.test", "a@xn--bcher-kva.test", "a@XN--BCHER-KVA.test"):
        with pytest.raises(Refusal, match="RECIPIENT_DENYLIST") as refusal:
            some.recipient(address)
        assert refused(refusal) == (550, "5.7.1")


@given(
    st.text(st.sampled_from('foe@x.test%!":<>[]()\\ .\u3002\uff20\uff58\u200b\u00adFOEX\u017f\u212a'), max_size=16).map(
        lambda text: text if "@" in text else f"{text}@x.test"
    )
)
def test_no_spelling_of_a_domain_gets_around_the_lists(address: str) -> None:
    """What is taken is, in its domain's A-labels, what the lists were asked about; no other letters are left in it."""
    try:
        policy(deny="@x.test").recipient(address)
    except Refusal:
        return
    domain = address.rpartition("@")[2]
    assert domain.encode("idna").decode().lower() != "x.test"
    with pytest.raises(Refusal):
        policy(allow="@x.test").recipient(address)


# -- authors --


def header(*lines: str) -> Header:
    return Header.of("\r\n".join([*lines, "", ""]).encode())


def test_all_authors_and_senders_are_judged() -> None:
    some = policy()
    good = header(
        "From: a@mine.test, Me <me@other.test>", "Sender: b@mine.test", "Resent-From: c@mine.test", "To: x@x.test"
    )
    assert some.authors(good, ()) == ("a@mine.test", "me@other.test")
    for name in ("From", "Sender", "Resent-From", "Resent-Sender"):
        lines = {"From": "From: a@mine.test", name: f"{name}: ceo@bank.test"}
        with pytest.raises(Refusal, match=f"address in {name} <ceo@bank.test>.*ALLOWED_FROM") as refusal:
            some.authors(header(*lines.values()), ())
        assert refused(refusal) == (550, "5.7.1")
    with pytest.raises(Refusal, match=r"<ceo@bank\.test>"):
        some.authors(header("From: a@mine.test, ceo@bank.test"), ())
    with pytest.raises(Refusal, match=r"<ceo@bank\.test>"):
        some.authors(header("From: a@mine.test", "Resent-From: a@mine.test", "Resent-From: ceo@bank.test"), ())


def test_authors_are_within_the_users_own_senders() -> None:
    with pytest.raises(Refusal, match="not among the user's own"):
        policy().authors(header("From: b@mine.test"), ("a@mine.test",))
    assert policy().authors(header("From: a@mine.test"), ("a@mine.test",)) == ("a@mine.test",)


@pytest.mark.parametrize(
    "lines",
    [
        ["To: x@x.test"],
        ["From:"],
        ["From: a@mine.test", "From: a@mine.test"],
        ["From: a@mine.test", "from: ceo@bank.test"],
        ["From: <a@mine.test> <ceo@bank.test>"],
        ['From: "ceo@bank.test" <a@mine.test>'],
        ["From: a@mine.test", "no field"],
    ],
    ids=repr,
)
def test_authors_that_are_missing_or_unclear_are_refused(lines: list[str]) -> None:
    with pytest.raises(Refusal) as refusal:
        policy().authors(header(*lines), ())
    assert refused(refusal) == (550, "5.6.0")


def test_an_author_without_a_domain_is_refused() -> None:
    for value in ("root", "root (Cron Daemon)", "root@pi"):
        with pytest.raises(Refusal) as refusal:
            policy("@mine.test, @pi", fallback=FALLBACK).authors(header(f"From: {value}"), ())
        assert refused(refusal) == (550, "5.7.1")


def test_with_an_empty_allowed_from_no_author_is_taken() -> None:
    with pytest.raises(Refusal, match="Set ALLOWED_FROM"):
        policy("").authors(header("From: a@mine.test"), ("a@mine.test",))
