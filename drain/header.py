"""The header of a mail as bytes: where each field begins and ends, and nothing decoded for good.

Lines end as they will on the wire (`mail.normalised`): at CRLF, at a lone LF and
at a lone CR. The header ends at the first empty line, whatever stands above it:
some servers end it at the first line that is no field, others do not, and what
is looked for must be found where any of them would.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from drain.mail import normalised

# What is read of a mail for its header. Maddy and Postfix take a megabyte and less.
LIMIT = 1024 * 1024
# What two line ends in a row have in them where they meet, before they are normalised; CRLF is one, and never two.
_TWO_LINE_ENDS = (b"\n\r", b"\n\n", b"\r\r")
# RFC 5322 2.2, and blanks before the colon as in 4.5. The value ends where a line does not go on.
_AFTER_NAME = rb"[ \t]*+:((?:[^\r\n]++|\r\n[ \t])*+)\r\n"
_FIELD = re.compile(rb"^([!-9;-~]++)" + _AFTER_NAME, re.MULTILINE)


@dataclass(frozen=True)
class Field:
    """One field: name as written, its value with its folding, and where it stands in the header."""

    name: str
    value: bytes
    start: int  # of the name
    colon: int  # behind it the value begins
    end: int  # behind its line end

    @property
    def text(self) -> str:
        """The value on one line, for reading only: RFC 2047 words as they are, bytes that are no UTF-8 replaced."""
        return " ".join(self.value.decode("utf-8", "replace").split("\r\n")).strip(" \t")


@dataclass(frozen=True)
class Header:
    """The header block: normalised lines, each with its CRLF, without the empty line that ends it."""

    block: bytes

    @classmethod
    def of(cls, raw: bytes) -> "Header":
        """The header of a message (at most its first `LIMIT` bytes)."""
        # Found first: the lines of the body are none of its business.
        return cls(split(normalised(raw[: _enough(raw)]))[0])

    @property
    def fields(self) -> Iterator[Field]:
        """The fields, in order; lines that belong to none are left out. A megabyte can hold 350,000."""
        return map(_field, _FIELD.finditer(self.block))

    def all(self, name: str) -> Iterator[Field]:
        """The fields of that name, in order; upper and lower case are the same."""
        wanted = re.compile(
            rb"^(" + re.escape(name.encode("ascii")) + rb")" + _AFTER_NAME, re.MULTILINE | re.IGNORECASE
        )
        return map(_field, wanted.finditer(self.block))

    def get(self, name: str) -> str:
        """The text of the first field of that name; "" if there is none."""
        return next((field.text for field in self.all(name)), "")


def _field(found: re.Match[bytes]) -> Field:
    return Field(found[1].decode("ascii"), found[2], found.start(), found.start(2), found.end())


def _enough(raw: bytes) -> int:
    """How many bytes of a message have its header and the empty line below it in them."""
    # Not by a regular expression, which takes twenty times as long.
    end = 0 if raw.startswith((b"\r", b"\n")) else LIMIT
    for meeting in _TWO_LINE_ENDS:
        found = raw.find(meeting, 0, end)
        end = found + 1 if found >= 0 else end
    return min(end + 2, LIMIT)


def split(text: bytes, limit: int | None = None) -> tuple[bytes, bytes]:
    """A normalised message in two: its header, and the rest, which begins with the empty line (or is empty).

    Of a header of more than *limit* bytes the rest has what is behind them, from a line's begin on.
    """
    if text.startswith(b"\r\n"):
        return b"", text
    found = text.find(b"\r\n\r\n", 0, len(text) if limit is None else limit + 4)
    if found >= 0:
        return text[: found + 2], text[found + 2 :]
    if limit is not None and len(text) > limit:
        cut = text.rfind(b"\r\n", 0, limit) + 2
        return (text[:cut], text[cut:]) if cut > 1 else (b"", text)
    return text if text.endswith(b"\r\n") else text + b"\r\n", b""
