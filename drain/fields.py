"""JSON from strangers: what was sealed can be anybody's work, since public keys are no secret.

A parser makes of a small text a large thing (two bytes, ``[]``, become 60), and
of a deep one a stack overflow. So what is parsed is small, or proven to be flat.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from drain.errors import NotMail

# 64 KiB are two addresses of a thousand letters, and as much again for what comes later.
SMALL = 64 * 1024
_MOST_BRACKETS = 100
_MOST_FIELDS = 16
# A field of a flat object: its name, and a string or null. Possessive, so that nothing is tried twice.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FIELD = re.compile(rb"\s*+(" + _STRING + rb")\s*+:\s*+(null|" + _STRING + rb")\s*+([,}])", re.DOTALL)


def small_object(encoded: bytes, what: str) -> dict[str, Any]:
    """The JSON object (RFC 8259) in at most `SMALL` bytes.

    Raises:
        NotMail: it is none, or too large or too deep to be what it says.
    """
    if len(encoded) > SMALL or encoded.count(b"[") + encoded.count(b"{") > _MOST_BRACKETS:
        raise damaged(f"{what} is larger than any")
    value = _parsed(encoded, what)
    if not isinstance(value, dict):
        raise damaged(f"{what} is not a JSON object")
    return value


def flat_object(encoded: bytes, what: str) -> dict[str, str | None]:
    """The JSON object of any size in *encoded* that has a few fields, each a string or null.

    Raises:
        NotMail: it is none.
    """
    fields: dict[str, str | None] = {}
    place, more = 1, encoded[:1] == b"{"
    while more and len(fields) < _MOST_FIELDS and (found := _FIELD.match(encoded, place)):
        fields[_parsed(found[1], what)] = _parsed(found[2], what)
        place, more = found.end(), found[3] == b","
    if more or not fields or encoded[place:].strip():
        raise damaged(f"{what} is not the JSON that it should be")
    return fields


def text_of(values: Mapping[str, Any], name: str, *, optional: bool = False, limit: int | None = SMALL) -> str:
    """The string under *name*; "" for null or nothing where it is *optional*.

    Raises:
        NotMail: it is something else, or has more than *limit* characters.
    """
    value = values.get(name)
    if optional and value is None:
        return ""
    if not isinstance(value, str) or (limit is not None and len(value) > limit):
        raise damaged(f"it has no {name}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half a character: JSON's \ud800
        raise damaged(f"its {name} is no text") from None
    return value


def damaged(how: str) -> NotMail:
    """The error for what was sealed and is not what it should be."""
    return NotMail("damaged", f"It is sealed, but {how}.")


def _parsed(encoded: bytes, what: str) -> Any:
    try:
        return json.loads(encoded.decode("utf-8"))
    except (ValueError, RecursionError):
        raise damaged(f"{what} is not JSON") from None
