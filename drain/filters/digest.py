"""What is told of a mail to a model: as data, bounded, and safe to put between its words.

Nothing here has to be exact: what cannot be read is left out, and that is said.
"""

import re
from typing import Any

from drain.filters import hypertext
from drain.filters.inbound import Inbound
from drain.filters.mime import Part, parts, words_of
from drain.text import clean

SCOPES = ("headers", "attachments", "full_email")
_HEADER_CHARACTERS = 8 * 1024
_VALUE_CHARACTERS = 300
_TEXT_CHARACTERS = 8 * 1024
_MOST_ATTACHMENTS = 30
_NAME_CHARACTERS = 150
_BLANK_LINES = re.compile(r"\n{3,}")


def digest(inbound: Inbound, scope: str) -> dict[str, Any]:
    """What *scope* (one of `SCOPES`) lets a model know of a mail.

    ``cloudflare`` is what Cloudflare found, ``subject``, ``from`` and ``to`` are
    decoded, ``headers`` are ``[name, text]`` in order; then ``attachments``, each
    with ``name``, ``type`` and ``bytes``; then ``text`` and ``html``, since mail
    programs show the one or the other. ``left_out`` says what is missing.
    """
    left_out: list[str] = []
    told: dict[str, Any] = {"cloudflare": inbound.edge.in_words}
    for name in ("Subject", "From", "To"):
        told[name.lower()] = _shown(words_of(inbound.header.get(name)), _VALUE_CHARACTERS)
    told["headers"] = _headers(inbound, left_out)
    if scope != "headers":
        found, missing = parts(inbound.mail.raw, inbound.header)
        if missing:
            left_out.append(missing)
        told["attachments"] = _attachments(found, left_out)
        if scope == "full_email":
            told["text"] = _text(found, ("text/plain", "multipart/"), left_out)
            told["html"] = _text(found, ("text/html",), left_out)
    told["left_out"] = left_out
    return told


def _headers(inbound: Inbound, left_out: list[str]) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    room = _HEADER_CHARACTERS
    for field in inbound.header.fields:
        name, text = _shown(field.name, _NAME_CHARACTERS), _shown(field.text, _VALUE_CHARACTERS)
        room -= len(name) + len(text) + 4
        if room < 0:
            left_out.append("the last header lines")
            break
        lines.append((name, text))
    return lines


def _attachments(found: list[Part], left_out: list[str]) -> list[dict[str, Any]]:
    attached = [part for part in found if part.is_attachment]
    if len(attached) > _MOST_ATTACHMENTS:
        left_out.append(f"attachments after the first {_MOST_ATTACHMENTS}")
    return [
        {
            "name": _shown(part.filename, _NAME_CHARACTERS),
            "type": _shown(part.content_type, _NAME_CHARACTERS),
            "bytes": part.size,
        }
        for part in attached[:_MOST_ATTACHMENTS]
    ]


def _text(found: list[Part], kinds: tuple[str, ...], left_out: list[str]) -> str:
    """The first text of these kinds that says anything; of HTML its words. ``multipart/``: what no boundary parts."""
    for kind in kinds:
        for part in found:
            if not part.content_type.startswith(kind) or (kind != "multipart/" and part.is_attachment):
                continue
            try:
                text = part.text()
            except ValueError as error:
                left_out.append(f"a text of the mail: {error}")
                continue
            text = _lines(hypertext.words(text) if kind == "text/html" else text)
            if len(text) > _TEXT_CHARACTERS:
                left_out.append("the end of the text")
            if text:
                return text[:_TEXT_CHARACTERS]
    return ""


def _lines(text: str) -> str:
    """*text* without control characters but line ends; no more of it than is told, and one to see that there is more."""
    beginning = text.replace("\r\n", "\n").replace("\r", "\n")[: 4 * _TEXT_CHARACTERS]
    lines = (clean(line, len(line) + 1).rstrip() for line in beginning.split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()[: _TEXT_CHARACTERS + 1]


def _shown(words: str, limit: int) -> str:
    return clean(" ".join(words[: 4 * limit].split()), limit)
