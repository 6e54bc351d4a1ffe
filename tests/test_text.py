import pytest

from drain.text import clean, without_addresses


@pytest.mark.parametrize(
    ("words", "safe"),
    [
        ("plain", "plain"),
        ("Grüße", "Grüße"),
        ("a\r\nmail state=forged", "a  mail state=forged"),
        ("\x1b[2Jgone", " [2Jgone"),
        ("\x9b31m", " 31m"),
        ("a\u202eb\u2028c\u200b", "a b c "),
        ("\udcff", " "),
        ("x" * 600, "x" * 499 + "…"),
    ],
)
def test_words_from_outside_cannot_move_the_cursor_or_forge_a_line(words: str, safe: str) -> None:
    assert clean(words) == safe


@pytest.mark.parametrize(
    "words",
    ["550 5.1.1 <bob@example.test>: no", "to bob@example.test.", "bob+x@example.test", "<bob smith@example.test>"],
)
def test_addresses_can_be_taken_out(words: str) -> None:
    assert "@" not in without_addresses(words)
