import hashlib
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drain import mail
from drain.mail import Mail, Wire, begins_with_header_field, cut_at, normalised, on_the_wire

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
    whole = raw * (4 * 1024 * 1024 // len(raw))
    tracemalloc.start()
    wire = on_the_wire(whole)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 2.1 * max(len(wire), len(whole))


# Of these few, chance makes every end of a line and every dot at a border.
LETTERS = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b":", b"\xff"]), max_size=40).map(b"".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    st.sampled_from([b"", b"A: "]), LETTERS | st.binary(max_size=40), st.sampled_from([b"", STAMP]), st.integers(1, 9)
)
def test_in_blocks_it_is_the_same_to_the_byte(
    monkeypatch: pytest.MonkeyPatch, begin: bytes, rest: bytes, added: bytes, block: int
) -> None:
    monkeypatch.setattr(mail, "_BLOCK_BYTES", block)
    raw = begin + rest
    wire, whole = Wire(raw, added), on_the_wire(raw, added)
    assert (bytes(wire), len(wire), wire.isascii()) == (whole, len(whole), whole.isascii())
    assert bytes(wire) == whole, "it is sent again after a session was lost"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.sampled_from([b"", b"A: "]), LETTERS, st.integers(1, 40), st.integers(1, 9))
def test_a_head_that_was_changed_goes_before_what_is_left(
    monkeypatch: pytest.MonkeyPatch, begin: bytes, rest: bytes, place: int, block: int
) -> None:
    monkeypatch.setattr(mail, "_BLOCK_BYTES", block)
    raw = begin + rest
    start = cut_at(raw, place)
    assert normalised(raw[:start]) + normalised(raw[start:]) == normalised(raw)
    wire, whole = Wire(raw, STAMP, head=normalised(raw[:start]), start=start), on_the_wire(raw, STAMP)
    assert (bytes(wire), len(wire), wire.isascii()) == (whole, len(whole), whole.isascii())


@pytest.mark.parametrize("line", [b"a line\r\n", b"a line\n", b"\n", b"\r", b"\n.", b"no end at all"])
def test_a_large_mail_is_sent_with_a_few_blocks_of_memory(line: bytes) -> None:
    """Whatever is in it; the block of only line ends is the longest."""
    raw = b"A: b\r\n\r\n" + line * (6 * 1024 * 1024 // len(line))
    tracemalloc.start()
    wire = Wire(raw, STAMP)
    length = sum(map(len, wire))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert length == len(wire) >= len(raw)
    assert peak < 10 * 256 * 1024


def test_what_is_added_is_no_block_of_its_own() -> None:
    """It would be one packet more a mail."""
    assert len(list(Wire(b"A: b\n\nx", STAMP))) == 1


def test_the_same_bytes_for_two_recipients_are_two_mails() -> None:
    assert Mail(b"x", "alice@x.test", "").identity != Mail(b"x", "bob@x.test", "").identity


def test_the_recipients_case_makes_no_other_mail() -> None:
    assert Mail(b"x", "Alice@X.test", "a").identity == Mail(b"x", "alice@x.test", "b").identity


def test_the_identity_is_what_the_contract_says() -> None:
    """SHA-256 over the digest of the bytes and the recipient: names in processed/ depend on it for ever."""
    expected = hashlib.sha256(hashlib.sha256(b"x").digest() + b"alice@x.test").hexdigest()
    assert Mail(b"x", "alice@x.test", "").identity == expected
