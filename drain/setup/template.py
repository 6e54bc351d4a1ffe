"""A template of `drain/templates`, filled in."""

import re
from collections.abc import Mapping
from importlib import resources

from drain.errors import ConfigError
from drain.text import clean

_PLACE = re.compile(r"@([A-Z][A-Z_]*)@")


def filled(name: str, values: Mapping[str, str]) -> str:
    """The template *name* with the value of ``NAME`` for each ``@NAME@``.

    Raises:
        ConfigError: a value has line ends or other control characters: it could say anything there.
        ValueError: names and places do not fit together: a bug.
    """
    text = (resources.files("drain") / "templates" / name).read_text(encoding="utf-8")
    places = set(_PLACE.findall(text))
    if places != set(values):
        raise ValueError(f"{name}: {sorted(places ^ set(values))}")
    for place, value in values.items():
        if not value.isprintable():
            raise ConfigError(f"A value for the mail server's {place} has control characters: {clean(value, 80)!r}.")
    return _PLACE.sub(lambda match: values[match[1]], text)
