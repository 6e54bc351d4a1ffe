"""Templates, filled in."""

import pytest

from drain.errors import ConfigError
from drain.setup.template import filled

VALUES = {"INJECT_PORT": "9125"}


def test_every_place_gets_its_value() -> None:
    text = filled("postfix-master.cf", VALUES)
    assert "127.0.0.1:9125 inet" in text
    assert "@" not in text


@pytest.mark.parametrize("values", [{}, {**VALUES, "OTHER": "x"}])
def test_names_that_do_not_fit_the_places_are_a_bug(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"postfix-master\.cf"):
        filled("postfix-master.cf", values)


def test_a_value_cannot_bring_a_line_of_its_own() -> None:
    with pytest.raises(ConfigError, match="INJECT_PORT has control characters"):
        filled("postfix-master.cf", {"INJECT_PORT": "1\nevil unix - - - - - pipe"})


def test_a_value_that_looks_like_a_place_stays_as_it_is() -> None:
    assert "127.0.0.1:@INJECT_PORT@ inet" in filled("postfix-master.cf", {"INJECT_PORT": "@INJECT_PORT@"})
