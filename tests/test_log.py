import io
import json
import time

import pytest

from drain.log import Level, Log, for_a_person, journald, json_lines, key_value


def said(form: object, **fields: object) -> str:
    buffer = io.StringIO()
    Log(lambda: buffer, form).warning("mail", **fields)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        (5, "5"),
        (True, "true"),
        ("line\nforged=1", '"line forged=1"'),
    ],
)
def test_values_are_quoted_where_they_must(value: object, shown: str) -> None:
    assert said(key_value, x=value) == f"mail x={shown}\n"


def test_journald_gets_the_priority_in_front() -> None:
    assert said(journald, x=1) == "<4>mail x=1\n"


def test_json_has_time_level_and_event() -> None:
    event = json.loads(said(json_lines, to="ü@x.test"))
    assert (event["level"], event["event"], event["to"]) == ("warning", "mail", "ü@x.test")
    assert event["time"].endswith("Z")


def test_a_person_reads_a_sentence() -> None:
    assert said(for_a_person, message="No luck.") == "warning: No luck.\n"
    assert said(for_a_person, state="deferred", object="pending/x", to="a@x.test", reply="450 later") == (
        "deferred: pending/x to a@x.test (450 later)\n"
    )


def test_fields_that_are_none_are_left_out() -> None:
    assert said(key_value, x=None, y=0) == "mail y=0\n"


def test_what_is_below_the_threshold_is_not_said() -> None:
    buffer = io.StringIO()
    log = Log(lambda: buffer, key_value, threshold=Level.NOTICE)
    log.info("x")
    log.debug("x")
    log.notice("y")
    assert buffer.getvalue() == "y\n"


def test_a_stream_that_was_never_open_does_not_stop_mail() -> None:
    Log(lambda: None, key_value).alert("x")


def test_an_odd_address_is_taken_out_where_addresses_stand() -> None:
    buffer = io.StringIO()
    Log(lambda: buffer, key_value, addresses=False).alert("x", to='"j d"@x.test', mailbox="a b", reply="<a@x.test> no")
    assert buffer.getvalue() == 'x to=(address) mailbox=(address) reply="(address) no"\n'


def test_a_broken_stream_does_not_stop_mail() -> None:
    buffer = io.StringIO()
    buffer.close()
    Log(lambda: buffer, key_value).alert("x")


def test_words_of_any_length_are_cut_before_anything_is_looked_for_in_them() -> None:
    """Looking for an address takes the square of the length."""
    buffer = io.StringIO()
    begun = time.process_time()
    Log(lambda: buffer, key_value, addresses=False).warning("mail", reply="a" * 10_000_000)
    assert time.process_time() - begun < 2
    assert len(buffer.getvalue()) < 1000
