"""JSON objects (RFC 8259) that services and models answer with: read so that there is one way to read them."""

import json
import re
from typing import Any, NoReturn

# A parser recurses, and threads of a phone have small stacks. Answers have four levels.
_DEEPEST = 32
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object that *text* is, and nothing around it but blanks.

    Raises:
        ValueError: it is none, has a name twice, NaN or Infinity, is nested deeper
            than 32 levels, or is no UTF-8. The message ends a sentence: "is not JSON".
    """
    try:
        words = text.decode("utf-8") if isinstance(text, bytes) else text
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    if _depth(words) > _DEEPEST:
        raise ValueError("is nested too deeply")
    try:
        value = json.loads(words, object_pairs_hook=_once_each, parse_constant=_not_json)
    except _TwiceError as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if isinstance(value, dict):
        return value
    raise ValueError("is not a JSON object")


class _TwiceError(ValueError):
    pass


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        # Which of the two counts is each parser's own choice.
        raise _TwiceError("has a name twice")
    return values


def _not_json(_: str) -> NoReturn:
    raise ValueError


def _depth(words: str) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", words)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
