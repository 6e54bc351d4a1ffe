"""Who a mail is from: one reading, or none."""

import base64
import email.utils
import time
import unicodedata
import warnings
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.headerregistry import AddressHeader
from email.message import EmailMessage

import pytest
from hypothesis import example, given, settings, strategies as st

from drain.header import LIMIT, Header
from drain.relay import author
from drain.relay.author import Mailbox, Unclear, mailboxes_of, read


def addresses(value: bytes) -> list[str]:
    return [mailbox.address for mailbox in author.mailboxes_of(value)]


def header(*lines: bytes) -> Header:
    return Header.of(b"\r\n".join([*lines, b"", b"body", b""]))


# -- what is read --


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b" a@mine.test", ["a@mine.test"]),
        (b"a@mine.test", ["a@mine.test"]),
        (b" <a@mine.test>", ["a@mine.test"]),
        (b" Alice <a@mine.test>", ["a@mine.test"]),
        (b" Alice<a@mine.test>", ["a@mine.test"]),
        (b" John Q. Public, Jr. <a@mine.test>", None),  # the comma wants quotes
        (b' "Public, John Q., Jr." <a@mine.test>', ["a@mine.test"]),
        (b" John Q. Public <a@mine.test>", ["a@mine.test"]),
        (b' "A \\"B\\" \\\\ C" <a@mine.test>', ["a@mine.test"]),
        (b" a@mine.test (Alice (in the) office)", ["a@mine.test"]),
        (b" (first) Alice (second \\) ) <a@mine.test> (third)", ["a@mine.test"]),
        (b" Alice\r\n <a@mine.test>,\r\n\tb@mine.test", ["a@mine.test", "b@mine.test"]),
        (b" =?utf-8?q?M=C3=BCller=2C_Max?= <a@mine.test>", ["a@mine.test"]),
        (b" =?iso-8859-1?B?TfxsbGVy?= =?utf-8?q?_Max?= <a@mine.test>", ["a@mine.test"]),
        ("Jürg Müller <jürg@mine.test>".encode(), ["jürg@mine.test"]),
        ("Jürg <a@bücher.test>".encode(), ["a@bücher.test"]),
        (b' "a@mine.test" <a@mine.test>', ["a@mine.test"]),
        (b" \"'A@mine.test'\" <a@MINE.test>", ["a@MINE.test"]),
        (b" root", ["root"]),
        (b" root (Cron Daemon)", ["root"]),
        (b' "(Cron Daemon)" <root>', ["root"]),
        (b" Anacron <root@pi>", ["root@pi"]),
    ],
    ids=repr,
)
def test_usual_forms_are_read(value: bytes, found: list[str] | None) -> None:
    if found is None:
        with pytest.raises(Unclear):
            addresses(value)
    else:
        assert addresses(value) == found


def test_where_an_address_stands_is_told_in_bytes() -> None:
    value = " Jürg\r\n <jürg@mine.test>, b@mine.test".encode()
    found = author.mailboxes_of(value)
    assert [value[mailbox.start : mailbox.end].decode() for mailbox in found] == ["jürg@mine.test", "b@mine.test"]


# -- what is not --

_REFUSED = [
    b"",
    b" ",
    b" <>",
    b" =?utf-8?b?Y2VvQGJhbmsudGVzdA==?=",
    b" =?utf-8?q?ceo?=@mine.test",
    b" Alice Smith",
    b" Alice <>",
    b" a@mine.test,",
    b" ,a@mine.test",
    b" a@mine.test,,b@mine.test",
    b" a@mine.test b@mine.test",
    b" a@mine.test <ceo@bank.test>",
    b" <a@mine.test><ceo@bank.test>",
    b" <a@mine.test> <ceo@bank.test>",
    b" <a@mine.test> ceo@bank.test",
    b" <a@mine.test> Alice",
    b" <a@mine.test",
    b" a@mine.test>",
    b" <<a@mine.test>>",
    b" Alice <a@mine.test> (ceo@bank.test)",
    b" a@mine.test (ceo@bank.test)",
    b" a@mine.test (\\ceo@bank.test)",
    b' "ceo@bank.test" <a@mine.test>',
    b' "<ceo@bank.test>" <a@mine.test>',
    b' "Alice <x" <a@mine.test>',
    b" =?utf-8?q?ceo=40bank.test?= <a@mine.test>",
    b" =?utf-8?q?ceo=40?= =?utf-8?q?bank.test?= <a@mine.test>",
    b' "=?utf-8?b?Y2VvQGJhbmsudGVzdA==?=" <a@mine.test>',
    b" =?utf-8?q?ceo=EF=BC=A0bank.test?= <a@mine.test>",
    b" =?utf-8?q?ceo=40bank.test=3E_=3C?= <a@mine.test>",
    b" =?utf-8?q?=3Cx=3E?= <a@mine.test>",
    b" =?utf-8?q?=E2=80=AEtset.knab_oec?= <a@mine.test>",
    b" =?utf-8?q?Alice=00?= <a@mine.test>",
    b" =?utf-8?q?Alice=0ABob?= <a@mine.test>",
    b" =?x-unknown?q?ceo=40bank.test?= <a@mine.test>",
    b" =?utf-7?q?ceo+AEA-bank.test?= <a@mine.test>",
    b" =?utf-8?q?=3D=3Futf-8=3Fq=3Fceo=3D40bank=2Etest=3F=3D?= <a@mine.test>",
    b" friends: a@mine.test;",
    b" friends:;",
    b" <@bank.test:a@mine.test>",
    b" <@bank.test,@x.test:a@mine.test>",
    b" ceo%bank.test@mine.test",
    b" bank.test!ceo@mine.test",
    b" ceo@bank.test@mine.test",
    b' "ceo@bank.test"@mine.test',
    b' "a b"@mine.test',
    b' a."b"@mine.test',
    b" a @mine.test",
    b" a@ mine.test",
    b" a@mine .test",
    b" a(x)@mine.test",
    b" a@(x)mine.test",
    b" < a@mine.test>",
    b" <a@mine.test >",
    b" <a@mine.test (x)>",
    b" <a@mine.test\r\n >",
    b" a@[192.0.2.1]",
    b" a@192.0.2.1",
    b" a@",
    b" @mine.test",
    b" .a@mine.test",
    b" a..b@mine.test",
    b" a@mine..test",
    b" a@mine.test.",
    b" a@-mine.test",
    b" a@mine.test;",
    b" a@mine.test\\",
    b' "a@mine.test',
    b" a@mine.test (x",
    b" a@mine.test x)",
    b" a@mine.test (x\\",
    b" a\0@mine.test",
    b" Ali\0ce <a@mine.test>",
    b" Ali\x0bce <a@mine.test>",
    b" Alice\x85 <a@mine.test>",
    b" M\xfcller <a@mine.test>",
    "a\uff20mine.test".encode(),
    "a@mine.test\uff1cceo@bank.test\uff1e".encode(),
    "a\ufe6bbank.test <a@mine.test>".encode(),
    "\u202eAlice <a@mine.test>".encode(),
    "a@m\u0456ne\u200b.test".encode(),
    "a\u00a0b@mine.test".encode(),
    "a@\uff4dine.test".encode(),
    "a@stra\u00dfe.test".encode(),
    "e\u0301@mine.test".encode(),
    "a@mine\u3002test".encode(),
    b" " + b"a" * 65 + b"@mine.test",
    b" a@" + b"b" * 64 + b".test",
    b" a@" + b".".join([b"b" * 60] * 5),
    b" a@mine.test" + b", a@mine.test" * 100,
    b" =?utf-8?q?" + b"x" * 990 + b"=40?= <a@mine.test>",
]


@pytest.mark.parametrize("value", _REFUSED, ids=lambda value: repr(value)[:50] + repr(value)[-50:])
def test_what_can_be_read_in_two_ways_is_not_read(value: bytes) -> None:
    with pytest.raises(Unclear):
        addresses(value)


# -- whatever Python reads is among what was judged --

_PIECES = st.sampled_from(
    [
        *("a@mine.test", "ceo@bank.test", "ceo", "bank.test", "root", "Alice", "@", "<", ">", "(", ")", '"', "\\"),
        *(",", ";", ":", ".", " ", "\r\n ", "\t", "!", "%", "[", "]", "=?utf-8?q?", "?=", "=40", "=3C", "=3E", "=2C"),
        *("=?utf-8?b?Y2VvQGJhbmsudGVzdA==?=", "\uff20", "\u202e", "\u00fc", "\0", "\x0b", "\u2028", "\u00a0", "'"),
        *(" <a@mine.test>", '"Al, ice" ', "(x) ", "=?utf-8?q?M=C3=BC?= "),
    ]
)
_VALUES = st.lists(_PIECES, max_size=14).map("".join)
_NEARLY = st.tuples(st.lists(_PIECES, max_size=3).map("".join), st.lists(_PIECES, max_size=3).map("".join)).map(
    lambda around: f"{around[0]} <a@mine.test>{around[1]}"
)


def read_by_python(value: str) -> set[str]:
    """All that one of its readers takes for an address; also of what it decodes first, as some programs do."""
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decoded = str(make_header(decode_header(value)))
        except (ValueError, LookupError, email.errors.MessageError):
            decoded = value
        for text in (value, decoded, value.replace("\r\n", "")):
            found += [address for _, address in email.utils.getaddresses([text])]
            found.append(email.utils.parseaddr(text)[1])
        try:
            wanted: dict[str, object] = {"defects": []}
            AddressHeader.parse(value.replace("\r\n", ""), wanted)
            groups = wanted["groups"]
            assert isinstance(groups, list)
            found += [address.addr_spec for group in groups for address in group.addresses]
        except (IndexError, AttributeError, ValueError):
            pass
    return {address for address in found if "@" in address}


@settings(max_examples=300)
@given(st.one_of(_VALUES, _NEARLY))
@example(' "Al, ice" <a@mine.test>')
@example(" John Q. Public (x) <a@mine.test>")
@example("=?utf-8?q?M=C3=BC?= =?utf-8?q?=2C_x?= <a@mine.test>")
def test_whatever_python_reads_is_among_what_was_judged_or_nothing_is(value: str) -> None:
    try:
        judged = addresses(value.encode())
    except Unclear:
        return
    # Upper and lower case are the same address to whoever judges.
    assert {address.casefold() for address in read_by_python(value)} <= {address.casefold() for address in judged}


def test_that_comparison_is_made_with_values_that_are_read() -> None:
    read = 0

    @settings(max_examples=100, database=None, derandomize=True)
    @given(_NEARLY)
    def count(value: str) -> None:
        nonlocal read
        try:
            addresses(value.encode())
        except Unclear:
            return
        read += 1

    count()
    assert read >= 5


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_name_that_python_writes_is_read(name: str) -> None:
    """Whatever it is, as long as it has no address and nothing that is not shown."""
    message = EmailMessage(policy=policy.SMTP)
    try:
        message["From"] = email.utils.formataddr((name, "a@mine.test"))
        value = next(Header.of(message.as_bytes()).all("From")).value
    except (ValueError, IndexError):
        return
    try:
        assert addresses(value) == ["a@mine.test"]
    except Unclear:
        plain = unicodedata.normalize("NFKC", name)
        assert any(c in "@<>=" or unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp", "Cs"} for c in plain) or (
            not name.strip()
        )


# -- fields --


def test_each_field_is_read_and_case_does_not_matter() -> None:
    found = author.read(
        header(
            b"fROM: a@mine.test, b@mine.test",
            b"sender: c@mine.test",
            b"Resent-From: d@mine.test",
            b"Resent-From: e@mine.test",
            b"Resent-Sender: f@mine.test",
            b"To: x@other.test",
        )
    )
    assert {name: [mailbox.address for mailbox in some] for name, some in found.items()} == {
        "From": ["a@mine.test", "b@mine.test"],
        "Sender": ["c@mine.test"],
        "Resent-From": ["d@mine.test", "e@mine.test"],
        "Resent-Sender": ["f@mine.test"],
    }
    assert author.read(header(b"To: x@other.test")) == {}


_GOOD = b"From: a@mine.test"


@pytest.mark.parametrize(
    "lines",
    [
        (_GOOD, b"From: ceo@bank.test"),
        (_GOOD, _GOOD),
        (_GOOD, b"from: ceo@bank.test"),
        (_GOOD, b"From : ceo@bank.test"),
        (b"From : a@mine.test",),
        (b"From\t: a@mine.test",),
        (_GOOD, b"Subject: x\rFrom: ceo@bank.test"),
        (_GOOD, b"Subject: x\nFrom: ceo@bank.test"),
        (_GOOD, b"Sender: a@mine.test", b"Sender: ceo@bank.test"),
        (_GOOD, b"Sender: a@mine.test, ceo@bank.test"),
        (_GOOD, b"Resent-Sender: a@mine.test, ceo@bank.test"),
        (_GOOD, b"Sender:"),
        (_GOOD, b"no field"),
        (b"no field", _GOOD),
        (b" continues nothing", _GOOD),
        (b"From a@mine.test Mon Jan  1 00:00:00 2024", _GOOD),
        (b">From a@mine.test Mon Jan  1 00:00:00 2024", _GOOD),
        (_GOOD, b"Subject: x", b" ", b"Sender: ceo@bank.test"),
        (_GOOD, b"Subject: x", b"\t \t", b" y"),
        (_GOOD, b"Subject: a\0b"),
        (_GOOD, b"Sub\0ject: x"),
        (_GOOD, b"Fr\xc3\xb6m: x"),
        (_GOOD, b": x"),
        (b"From: a@mine.test,", b" ", b" ceo@bank.test"),
        tuple([_GOOD] + [b"Resent-From: a@mine.test"] * 21),
    ],
    ids=lambda lines: repr(lines[:3]),
)
def test_a_header_that_programs_take_apart_differently_is_not_read(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(Unclear):
        author.read(header(*lines))


def test_a_header_that_is_cut_off_is_not_read() -> None:
    for filling in (b"X: y\r\n", b"X: y\n", b"X: " + b"y" * 900 + b"\r\n"):
        raw = b"From: a@mine.test\r\n" + filling * (LIMIT // len(filling)) + b"From: ceo@bank.test\r\n\r\nbody"
        with pytest.raises(Unclear):
            author.read(Header.of(raw))
    # Even where the cut is exactly between two lines.
    exact = b"From: a@mine.test\r\nX: " + b"y" * (LIMIT - 24) + b"\r\n"
    assert len(exact) == LIMIT
    with pytest.raises(Unclear):
        author.read(Header.of(exact + b"From: ceo@bank.test\r\n\r\n"))


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from([b"From", b"from", b":", b" ", b"\t", b"a@mine.test", b"ceo@bank.test", b"\r\n", b"\n"])
        | st.sampled_from([b"\r", b"x", b"X: y\r\n", b"From: a@mine.test\r\n", b"\r\n ", b"\0", b"\x0b", b"<", b">"]),
        max_size=20,
    ).map(b"".join)
)
def test_whatever_python_finds_in_a_whole_mail_is_among_what_was_judged(raw: bytes) -> None:
    try:
        found = author.read(Header.of(raw))
    except Unclear:
        return
    judged = {mailbox.address for mailbox in found.get("From", ())}
    seen = message_from_bytes(raw).get_all("From", [])
    assert len(seen) <= 1
    assert {address for _, address in email.utils.getaddresses(map(str, seen)) if "@" in address} <= judged


@pytest.mark.parametrize(
    "piece", [b"(", b"()", b'"', b"\\", b"a ", b"a.", b"<", b" ", b"=?", b"=?a?q?", b",", b"\r\n "], ids=repr
)
def test_a_hostile_value_takes_no_time(piece: bytes) -> None:
    for size in (990, LIMIT - 100):
        begun = time.process_time()
        with pytest.raises(Unclear):
            author.read(Header.of(b"From: " + piece * (size // len(piece)) + b"@@\r\n\r\n"))
        assert time.process_time() - begun < 0.5


# -- addresses --


@pytest.mark.parametrize(
    ("address", "unqualified"),
    [
        ("root", True),
        ("root@pi", True),
        ("root@localhost", True),
        ("root@localhost.localdomain", True),
        ("root@PI.LocalDomain", True),
        ("root@pi.localhost", True),
        ("root@mine.test", False),
        ("root@pi.home.arpa", False),
    ],
)
def test_what_is_an_address_on_one_machine_only(address: str, unqualified: bool) -> None:  # noqa: FBT001
    author.parts(address)
    assert author.is_unqualified(address) is unqualified


def test_parts_are_those_of_the_address() -> None:
    assert author.parts("a+b=c@mine.test") == ("a+b=c", "mine.test")
    assert author.parts("root") == ("root", "")
    assert author.parts("jürg@bücher.test") == ("jürg", "bücher.test")
    assert author.parts("a@xn--strae-oqa.test") == ("a", "xn--strae-oqa.test")


@settings(max_examples=100)
@given(st.text(max_size=20) | _VALUES)
def test_an_address_that_is_taken_is_one_in_a_field_too(text: str) -> None:
    try:
        author.parts(text)
    except Unclear:
        return
    size = len(text.encode())
    assert author.mailboxes_of(text.encode()) == [Mailbox(text, 0, size)]
    assert author.mailboxes_of(b"<" + text.encode() + b">") == [Mailbox(text, 1, size + 1)]


@pytest.mark.parametrize("byte", [b"\0", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e"])
def test_what_a_program_may_take_for_the_end_of_a_line_is_in_no_header(byte: bytes) -> None:
    with pytest.raises(Unclear, match="no header field"):
        read(Header(b"X-A: y" + byte + b"From: eve@evil.test\r\nFrom: alice@mine.test\r\n"))


@pytest.mark.parametrize("charset", ["utf-16", "utf-32", "cp1026", "utf-7", "hz-gb-2312", "unknown", ""])
def test_a_name_in_letters_that_programs_read_differently_is_refused(charset: str) -> None:
    encoded = base64.b64encode(b"a name").decode()
    with pytest.raises(Unclear):
        mailboxes_of(f" =?{charset}?b?{encoded}?= <alice@mine.test>".encode())


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "iso-8859-15", "windows-1252", "koi8-r", "gb18030", "big5"])
def test_a_name_in_a_usual_charset_is_read(charset: str) -> None:
    encoded = base64.b64encode(b"a name").decode()
    assert mailboxes_of(f" =?{charset}?b?{encoded}?= <alice@mine.test>".encode())[0].address == "alice@mine.test"
