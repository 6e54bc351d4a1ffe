"""The header as bytes: every line end, every oddity, and no input that takes long."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from drain.header import LIMIT, Header, split
from drain.mail import normalised

# What headers are made of, so that random ones have fields, folds, blanks and ends.
_PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b"Subject",
        b"subject",
        b"X-A",
        b"x",
        b"\x00",
        b"\xff",
        b"=?",
        b".",
        b"\x0b",
    ]
)
_TEXTS = st.one_of(st.binary(max_size=60), st.lists(_PIECES, max_size=30).map(b"".join))


def fields(raw: bytes) -> list[tuple[str, bytes]]:
    return [(field.name, field.value) for field in Header.of(raw).fields]


# -- line ends and odd fields --


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"], ids=["CRLF", "LF", "CR"])
def test_fields_are_found_whatever_the_line_ends(end: bytes) -> None:
    raw = end.join([b"A: 1", b"B: 2", b" more", b"\tand more", b"C : 3", b"", b"D: body"])
    assert fields(raw) == [("A", b" 1"), ("B", b" 2\r\n more\r\n\tand more"), ("C", b" 3")]


def test_fields_are_found_where_line_ends_are_mixed() -> None:
    assert fields(b"A: 1\rB: 2\nC: 3\r\n D\n\rE: body") == [("A", b" 1"), ("B", b" 2"), ("C", b" 3\r\n D")]


def test_a_cr_before_a_crlf_ends_the_header() -> None:
    """A lone CR is a line end, so CR CR LF is two."""
    assert fields(b"A: 1\r\r\nB: 2\r\n") == [("A", b" 1")]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"A: 1", [("A", b" 1")]),
        (b"A:", [("A", b"")]),
        (b"A:\r\n 1\r\n", [("A", b"\r\n 1")]),
        (b"A \t : 1\r\n", [("A", b" 1")]),
        (b"A: b: c\r\n", [("A", b" b: c")]),
        (b"A: \x00\xff\xfe\r\nB: 2\r\n", [("A", b" \x00\xff\xfe"), ("B", b" 2")]),
        (b"A: 1\r\n \r\n\t\r\nB: 2\r\n", [("A", b" 1\r\n \r\n\t"), ("B", b" 2")]),
        (b"\r\nA: body\r\n", []),
        (b"", []),
        (b"\r\n", []),
        (b" folded: into nothing\r\nA: 1\r\n", [("A", b" 1")]),
        (b"no field\r\nA: 1\r\n: 2\r\nB\xff: 3\r\nC\x00: 4\r\nD d: 5\r\nE: 6\r\n", [("A", b" 1"), ("E", b" 6")]),
        (b"From someone@x.test Mon\r\nA: 1\r\n", [("A", b" 1")]),
        (b"A: 1\x0bB: 2\x0cC: 3\xc2\x85D: 4\r\n", [("A", b" 1\x0bB: 2\x0cC: 3\xc2\x85D: 4")]),
    ],
)
def test_what_is_a_field_and_what_is_none(raw: bytes, expected: list[tuple[str, bytes]]) -> None:
    assert fields(raw) == expected


def test_a_field_stands_where_it_says() -> None:
    header = Header.of(b"A : 1\n 2\nno field\nB:3\n\nbody")
    first, second = header.fields
    assert header.block[first.start : first.end] == b"A : 1\r\n 2\r\n"
    assert header.block[first.colon : first.end] == b" 1\r\n 2\r\n"
    assert header.block[second.start : second.end] == b"B:3\r\n"


def test_the_text_of_a_field_is_one_line_with_the_bytes_shown_as_they_can_be() -> None:
    (field,) = Header.of(b"A:\r\n\t b\xff\r\n\tgr\xc3\xbc\xc3\x9fe \r\n").fields
    assert field.text == "b\ufffd \tgrüße"


def test_names_are_the_same_in_upper_and_lower_case_and_of_several_the_first_counts() -> None:
    header = Header.of(b"sUbJect: 1\r\nX-Subject: 2\r\nSubject-X: 3\r\nSUBJECT : 4\r\n\r\nSubject: 5\r\n")
    assert [(field.name, field.text) for field in header.all("Subject")] == [("sUbJect", "1"), ("SUBJECT", "4")]
    assert header.get("subject") == "1"
    assert header.get("From") == ""


def test_a_name_is_no_pattern() -> None:
    assert Header.of(b"Xa: 1\r\nX.: 2\r\n").get("X.") == "2"


def test_a_folded_line_is_no_field_of_its_own() -> None:
    header = Header.of(b"A: 1\r\n Subject: 2\r\n\tSubject: 3\r\n")
    assert list(header.all("Subject")) == []


# -- the two halves --


@pytest.mark.parametrize(
    ("text", "head", "rest"),
    [
        (b"A: 1\r\n\r\nbody", b"A: 1\r\n", b"\r\nbody"),
        (b"A: 1\r\n\r\n", b"A: 1\r\n", b"\r\n"),
        (b"A: 1\r\n", b"A: 1\r\n", b""),
        (b"\r\nbody\r\n\r\n", b"", b"\r\nbody\r\n\r\n"),
        (b"A: 1\r\n \r\nB: 2\r\n\r\n\r\nbody", b"A: 1\r\n \r\nB: 2\r\n", b"\r\n\r\nbody"),
    ],
)
def test_a_message_in_two(text: bytes, head: bytes, rest: bytes) -> None:
    assert split(text) == (head, rest)


@given(_TEXTS)
def test_the_two_halves_are_the_message(raw: bytes) -> None:
    text = normalised(raw)
    head, rest = split(text)
    # Where there is no empty line, the last line gets the end that it lacks.
    expected = text if rest or text.endswith(b"\r\n") else text + b"\r\n"
    assert head + rest == expected
    assert rest == b"" or rest.startswith(b"\r\n")
    assert head == b"" or head.endswith(b"\r\n")
    if rest:
        assert not head.startswith(b"\r\n")
        assert b"\r\n\r\n" not in head


def by_lines(block: bytes) -> list[tuple[str, bytes]]:
    """The same by another way: line by line."""
    found: list[tuple[str, bytes]] = []
    within = False
    for line in block.split(b"\r\n")[:-1]:
        if line[:1] in (b" ", b"\t"):
            if within:
                found[-1] = (found[-1][0], found[-1][1] + b"\r\n" + line)
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        within = bool(colon) and bool(name) and all(33 <= letter <= 126 for letter in name)
        if within:
            found.append((name.decode("ascii"), value))
    return found


@given(_TEXTS)
def test_all_ways_of_asking_say_the_same(raw: bytes) -> None:
    header = Header.of(raw)
    found = list(header.fields)
    assert [(field.name, field.value) for field in found] == by_lines(header.block)
    place = 0
    for field in found:
        assert place <= field.start < field.colon <= field.end
        assert header.block[field.colon : field.end] == field.value + b"\r\n"
        place = field.end
    for name in {field.name.swapcase() for field in found} | {"Subject"}:
        same = [field for field in found if field.name.lower() == name.lower()]
        assert list(header.all(name)) == same
        assert header.get(name) == (same[0].text if same else "")


# -- sizes --


def test_no_more_than_a_megabyte_is_read() -> None:
    raw = b"A: 1\r\nB: " + b"x" * LIMIT + b"\r\nC: 3\r\n\r\n"
    header = Header.of(raw)
    assert [field.name for field in header.fields] == ["A", "B"]
    assert len(header.block) == LIMIT + 2
    # Cut within a line end, too.
    assert [field.name for field in Header.of(b"A: " + b"x" * (LIMIT - 4) + b"\r\nB: 2\r\n").fields] == ["A"]


def _list_of(name: str) -> Callable[[Header], object]:
    return lambda header: list(header.all(name))


@pytest.mark.parametrize(
    "piece", [b"a", b"a ", b"a:\r\n ", b" ", b"\r\n ", b"\t:", b"Subject \t", b"\xff", b"\x00"], ids=repr
)
def test_a_hostile_megabyte_takes_no_time(piece: bytes) -> None:
    raw = (piece * (LIMIT // len(piece) + 1))[:LIMIT]
    for read in (lambda header: list(header.fields), _list_of("Subject"), _list_of("a")):
        begun = time.process_time()
        read(Header.of(raw))
        assert time.process_time() - begun < 3
    begun = time.process_time()
    split(normalised(raw))
    assert time.process_time() - begun < 3


def test_the_first_of_very_many_fields_is_found_at_once() -> None:
    """A megabyte can hold 350,000; nobody should wait for all of them to have one."""
    header = Header.of(b"a:\n" * (LIMIT // 3))
    begun = time.process_time()
    assert next(iter(header.fields)).name == "a"
    assert header.get("a") == ""
    assert time.process_time() - begun < 0.3
