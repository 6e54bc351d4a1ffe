import json
import time

import pytest
from hypothesis import given, settings, strategies as st

from drain import fields
from drain.errors import NotMail

FLAT = st.dictionaries(st.text(), st.none() | st.text(), min_size=1, max_size=10)


def test_a_small_object_is_read() -> None:
    assert fields.small_object(b'{"to": "a", "x": [1, {"y": null}]}', "it") == {"to": "a", "x": [1, {"y": None}]}


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"{",
        b"\xff",
        b"[" * 9000,
        b'{"x":' * 5000,
        b'{"x":[' + b"[]," * 20_000 + b"[]]}",
        b'{"x":"' + b"y" * fields.SMALL + b'"}',
        b'{"x": 1' + b"0" * 10_000 + b"}",
    ],
)
def test_anything_else_is_damage(encoded: bytes) -> None:
    with pytest.raises(NotMail) as caught:
        fields.small_object(encoded, "it")
    assert caught.value.reason == "damaged"


@settings(max_examples=50)
@given(FLAT, st.sampled_from([None, 1]), st.booleans())
def test_a_flat_object_is_what_json_says_it_is(
    values: dict[str, str | None],
    indent: int | None,
    ascii_: bool,  # noqa: FBT001
) -> None:
    encoded = json.dumps(values, indent=indent, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    if any("\ud800" <= letter <= "\udfff" for text in [*values, *values.values()] if text for letter in text):
        return
    assert fields.flat_object(encoded, "it") == values


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"{}",
        b"[]",
        b'{"a":1}',
        b'{"a":[]}',
        b'{"a":{}}',
        b'{"a":"b"',
        b'{"a":"b",}',
        b'{"a":"b"}x',
        b'{"a" "b"}',
        b'{"a":"\\"}',
        b'{"a":"\\x"}',
        b'{"a":"\n"}',
        b'{"a":"\xff"}',
        b'{a:"b"}',
        b'x"a":"b"}',
        b"{" + b",".join(b'"%d":"x"' % number for number in range(17)) + b"}",
    ],
)
def test_what_is_not_flat_or_not_json_is_damage(encoded: bytes) -> None:
    with pytest.raises(NotMail):
        fields.flat_object(encoded, "it")


@pytest.mark.parametrize(
    "encoded",
    [
        b'{"raw":"' + b"\\r\\n" * 1_000_000 + b'"}',
        b'{"x":[' + b"[]," * 1_500_000 + b"[]]}",
        b'{"raw":"' + b'\\"' * 2_000_000,
        b'{"raw":' + b" " * 4_000_000,
    ],
)
def test_a_large_object_takes_the_time_of_reading_it(encoded: bytes) -> None:
    """A pattern that tries things twice would take hours, and the parser gigabytes."""
    begun = time.process_time()
    try:
        assert len(fields.flat_object(encoded, "it")["raw"] or "") == 2_000_000
    except NotMail:
        pass
    assert time.process_time() - begun < 1


def test_text_is_text_of_bounded_length() -> None:
    assert fields.text_of({"a": "b"}, "a") == "b"
    assert fields.text_of({}, "a", optional=True) == ""
    for values in ({}, {"a": None}, {"a": 1}, {"a": "\ud800"}, {"a": "x" * (fields.SMALL + 1)}):
        with pytest.raises(NotMail):
            fields.text_of(values, "a")
    assert fields.text_of({"a": "x" * (fields.SMALL + 1)}, "a", limit=None)
