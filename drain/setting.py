"""What a setting is, and how each kind of value is read.

A parser takes the text that somebody wrote and gives the value, or raises
`ValueError` with what would be right ("a whole number from 1 to 64").
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Secret:
    """A value that prints as ``***``; `reveal` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the wire only."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "***" if self._value else "(not set)"

    __str__ = __repr__


@dataclass(frozen=True)
class Setting:
    """What is known about one setting, beside its value."""

    name: str
    help: str
    parse: Callable[[str], Any]
    default: str
    secret: bool
    required: bool
    section: str  # the heading that it begins; "": it belongs to the one before


def setting(
    parse: Callable[[str], Any],
    help_: str,
    *,
    default: str = "",
    secret: bool = False,
    required: bool = False,
    section: str = "",
) -> Any:
    """A dataclass field that declares a setting; the field's name in upper case is the setting's.

    *section* is the heading of the group that begins with it.
    """
    metadata = {
        "parse": parse,
        "help": help_,
        "default": default,
        "secret": secret,
        "required": required,
        "section": section,
    }
    return field(metadata=metadata)


_TOKEN = frozenset(map(chr, range(ord(" "), ord("~") + 1))) - {","}

# -- parsers: text in, value out; ValueError says what would be right --


def tokens(value: str) -> tuple[Secret, ...]:
    """One or two secrets, with a comma between."""
    parts = [part.strip() for part in value.split(",")] if value else []
    if len(parts) > 2 or not all(part and set(part) <= _TOKEN for part in parts):
        raise ValueError("one token of printable ASCII, or two with a comma between")
    return tuple(map(Secret, parts))


def text(value: str) -> str:
    """Any text."""
    return value


def account_id(value: str) -> str:
    """A Cloudflare account id."""
    if value and not (len(value) == 32 and set(value) <= set("0123456789abcdef")):
        raise ValueError("32 hex digits")
    return value


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return number

    return parse


def port_or_none(value: str) -> int:
    """A port, or 0 for none."""
    return whole(1, 65535)(value) if value else 0


def seconds(least: float) -> Callable[[str], float]:
    """Seconds, with fractions; at most a year."""

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not least <= number <= 366 * 86400:
            raise ValueError(f"a number of seconds, {least:g} or more")
        return number

    return parse


def days(value: str) -> float:
    """Days, with fractions."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number <= 36500:
        raise ValueError("a number of days above 0")
    return number


def hours(value: str) -> float:
    """Hours, with fractions; 0 for never."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 24 * 366:
        raise ValueError("a number of hours, or 0 for never")
    return number


_SIZE_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def size(value: str) -> int:
    """Bytes, with a unit of 1,024: ``64M``."""
    digits = value.strip().lower().removesuffix("ib").removesuffix("b")
    unit = digits[-1:] if digits[-1:] in "kmg" else ""
    try:
        number = int(digits.removesuffix(unit)) * _SIZE_UNITS[unit]
    except ValueError:
        number = 0
    if number <= 0:
        raise ValueError("a size like 64M")
    return number


_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def yes_no(value: str) -> bool:
    """``true`` or ``false``, and the usual other words for it."""
    try:
        return _WORDS[value.strip().lower()]
    except KeyError:
        raise ValueError("true or false") from None


def yes_no_auto(value: str) -> bool | None:
    """``true``, ``false``, or None for ``auto``."""
    if value.strip().lower() == "auto":
        return None
    try:
        return yes_no(value)
    except ValueError:
        raise ValueError("auto, true or false") from None


def choice(*words: str) -> Callable[[str], str]:
    """One of a few words."""

    def parse(value: str) -> str:
        word = value.strip().lower()
        if word not in words:
            raise ValueError("one of " + ", ".join(filter(None, words)))
        return word

    return parse


def path(value: str) -> Path:
    """A path; ``~`` is the home folder."""
    return Path(value).expanduser()


PEM_BEGIN = "-----BEGIN"


def paths(value: str) -> tuple[Path, ...]:
    """Paths with colons between."""
    if PEM_BEGIN in value:
        raise ValueError("the path of the key, not the key")
    return tuple(path(part) for part in value.split(":") if part)


def prefix(value: str) -> str:
    """A prefix in the bucket, with its slash."""
    if value.startswith("/") or not value.endswith("/") or not value.isascii():
        message = 'a name like "pending/", ending in a slash and not beginning with one'
        raise ValueError(message)
    return value


def words(value: str) -> tuple[str, ...]:
    """Words with commas between, in lower case."""
    return tuple(part.strip().lower() for part in value.split(",") if part.strip())


def some_of(*known: str) -> Callable[[str], tuple[str, ...]]:
    """Some of a few names, in the order given, with commas between; ``none`` for none."""

    def parse(value: str) -> tuple[str, ...]:
        names = words(value)
        if names == ("none",):
            return ()
        if len(set(names)) < len(names) or set(names) - set(known) or (value.strip() and not names):
            import difflib  # noqa: PLC0415 (for who made a mistake)

            near = [match for name in names for match in difflib.get_close_matches(name, known, n=1) if match != name]
            meant = f" (is it {near[0]}?)" if near else ""
            raise ValueError(f"some of {', '.join(known)}, each once, with commas between; or none{meant}")
        return names

    return parse


def each(defaults: Mapping[str, str], parse: Callable[[str], Any]) -> Callable[[str], Mapping[str, Any]]:
    """A value for each of a few names: ``name=value`` with commas between, or one value for all of them."""

    def parse_each(value: str) -> Mapping[str, Any]:
        texts, said = dict(defaults), dict[str, str]()
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if len(parts) == 1 and "=" not in parts[0]:
            texts = dict.fromkeys(defaults, parts[0])
            parts = []
        for part in parts:
            name, sign, text = (piece.strip() for piece in part.partition("="))
            if not sign or name.lower() not in defaults or name.lower() in said:
                raise ValueError(f"name=value with commas between, each name once, among {', '.join(defaults)}")
            said[name.lower()] = text
        texts.update(said)
        return {name: parse(text) for name, text in texts.items()}

    return parse_each


def number(least: float) -> Callable[[str], float]:
    """A number, with fractions."""

    def parse(value: str) -> float:
        try:
            found = float(value)
        except ValueError:
            found = least - 1
        if not least <= found <= 1e6:
            raise ValueError(f"a number, {least:g} or more")
        return found

    return parse


def tag(value: str) -> str:
    """A short text for the Subject."""
    if len(value) > 60 or not value.isprintable():
        raise ValueError("at most 60 letters on one line")
    return value.strip()
