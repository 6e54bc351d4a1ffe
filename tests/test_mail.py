import hashlib

import pytest
from hypothesis import given, strategies as st

from drain.mail import Mail, begins_with_header_field, on_the_wire

STAMP = b"X-Drain-Id: 00\r\n"


def unstuffed(wire: bytes) -> bytes:
    """What a server files: dots off, as RFC 5321 4.5.2 says."""
    return b"".join(line.removeprefix(b".") for line in wire.splitlines(keepends=True))


@pytest.mark.parametrize(
    ("raw", "wire"),
    [
        (b"A: b\r\n\r\nx\r\n", b"A: b\r\n\r\nx\r\n"),
        (b"A: b\n\nx\n", b"A: b\r\n\r\nx\r\n"),
        (b"A: b\r\rx\r", b"A: b\r\n\r\nx\r\n"),
        (b"A: b\r\n\r\nno final line end", b"A: b\r\n\r\nno final line end\r\n"),
        (b"A: b\n\n.\n..\n.x\n", b"A: b\r\n\r\n..\r\n...\r\n..x\r\n"),
        (b".leading dot", b"..leading dot\r\n"),
        (b"A: \x00\xff\xfe\n", b"A: \x00\xff\xfe\r\n"),
        (b"\xef\xbb\xbfA: BOM\n", b"\xef\xbb\xbfA: BOM\r\n"),
        (b"", b"\r\n"),
    ],
)
def test_only_line_ends_and_dots_change_on_the_wire(raw: bytes, wire: bytes) -> None:
    assert on_the_wire(raw) == wire


@given(st.binary(max_size=200), st.sampled_from([b"", STAMP]))
def test_no_input_ends_the_data_early_or_loses_a_byte(raw: bytes, added: bytes) -> None:
    """Smuggling needs a line of one dot, or a CR or LF alone; neither leaves this house."""
    wire = on_the_wire(raw, added)
    lines = wire.split(b"\r\n")
    assert lines[-1] == b""
    assert b"." not in lines
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    expected = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    got = unstuffed(wire).removeprefix(added)
    assert got in {expected, expected + b"\r\n"}


@pytest.mark.parametrize("raw", [b"From: a\n\nx", b"X-Y:\n", b"Fro :u\n\n"])
def test_the_line_of_ours_goes_above_a_header(raw: bytes) -> None:
    assert begins_with_header_field(raw)
    assert on_the_wire(raw, STAMP).startswith(STAMP)


@pytest.mark.parametrize(
    "raw", [b"From someone@x.test Mon\nSubject: s\n\nx", b"\nSubject: s\n\nx", b" folded\n", b"\xef\xbb\xbfA: b\n", b""]
)
def test_nothing_goes_above_what_is_no_header(raw: bytes) -> None:
    """Above a From line it would turn the header into body."""
    assert STAMP not in on_the_wire(raw, STAMP)


@pytest.mark.parametrize("raw", [b"\n", b"\r", b".\n", b"\r\n", b"\n."])
def test_a_mail_of_line_ends_costs_no_more_memory_than_it_must(raw: bytes) -> None:
    """With a regular expression 4 MiB of these took 400 MiB; a stranger could fell a phone."""
    import tracemalloc

    mail = raw * (4 * 1024 * 1024 // len(raw))
    tracemalloc.start()
    wire = on_the_wire(mail)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 2.1 * max(len(wire), len(mail))


def test_the_same_bytes_for_two_recipients_are_two_mails() -> None:
    assert Mail(b"x", "alice@x.test", "").identity != Mail(b"x", "bob@x.test", "").identity


def test_the_recipients_case_makes_no_other_mail() -> None:
    assert Mail(b"x", "Alice@X.test", "a").identity == Mail(b"x", "alice@x.test", "b").identity


def test_the_identity_is_what_the_contract_says() -> None:
    """SHA-256 over the digest of the bytes and the recipient: names in processed/ depend on it for ever."""
    expected = hashlib.sha256(hashlib.sha256(b"x").digest() + b"alice@x.test").hexdigest()
    assert Mail(b"x", "alice@x.test", "").identity == expected
