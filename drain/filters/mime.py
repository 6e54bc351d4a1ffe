"""The parts of a mail (RFC 2045 to 2047, 2183, 2231), for reading only, of mail that may be made to be unreadable.

Python's own parser of whole messages recurses with them, and its time grows with
lines times depth: a megabyte can take it minutes. So parts are found here, with a
bound on how deep and how many; their Content-Type and Content-Disposition are
Python's to read, cut to a length at which nothing in there takes long.
"""

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.errors import MessageError
from email.header import decode_header
from email.message import Message
from functools import cached_property
from itertools import islice

from drain.header import LIMIT, Header
from drain.text import clean

DEEPEST = 8
MOST_PARTS = 100
_HEADER_BYTES = 16 * 1024
_PARAMETERS = 1000
# Of a part's text, as encoded: enough for 16 KiB of words in most HTML.
_ENCODED_BYTES = 256 * 1024
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")
# Python's, and no charset of any mail: slow with the square of the length, or full of warnings.
_NO_CHARSETS = frozenset({"punycode", "idna", "unicode-escape", "raw-unicode-escape", "unicode_escape"})
# Python remembers every name of a charset that it was asked for.
_CHARSET = re.compile(r"[A-Za-z0-9._:-]{1,40}")
# Atomic: CRLF is one line end, never two.
_EMPTY_LINE = re.compile(rb"(?>\r\n|\n|\r){2}")
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Part:
    """One part that holds no others: a text, an attachment."""

    raw: bytes  # of the whole mail
    start: int
    end: int
    of_mail: Header | None = None  # where the part is the whole mail

    @cached_property
    def header(self) -> Header:
        """Its header; at most 16 KiB of it, if it is not the mail's."""
        return self.of_mail or Header.of(self.raw[self.start : min(self.end, self.start + _HEADER_BYTES)])

    @cached_property
    def content_type(self) -> str:
        """``text/plain`` where it names none, or nonsense (RFC 2045 5.2)."""
        return self._message.get_content_type()

    @cached_property
    def boundary(self) -> bytes:
        """What parts its parts; b"" if it has none."""
        found = _tried(self._message.get_boundary)
        # RFC 2046 5.1.1: 70 characters at most.
        return found.encode("utf-8", "replace") if isinstance(found, str) and len(found) <= 200 else b""

    @cached_property
    def filename(self) -> str:
        """Its name, in words; "" if it has none."""
        found = _tried(self._message.get_filename)
        return words_of(found) if isinstance(found, str) else ""

    @property
    def is_attachment(self) -> bool:
        """Whether a person is shown it as a file."""
        disposition = self.header.get("Content-Disposition").partition(";")[0].strip().lower()
        return disposition == "attachment" or bool(self.filename) or not self.content_type.startswith("text/")

    @cached_property
    def size(self) -> int:
        """Its length in bytes, decoded; for base64 reckoned from the length of what is encoded."""
        encoded = self.end - self.body_start
        if self._encoding != "base64":
            return encoded
        line_ends = self.raw.count(b"\n", self.body_start, self.end) + self.raw.count(b"\r", self.body_start, self.end)
        return max(encoded - line_ends, 0) * 3 // 4

    @cached_property
    def body_start(self) -> int:
        """Where its content begins; its header is not looked for longer than it is read."""
        end = min(self.end, self.start + (LIMIT if self.of_mail else _HEADER_BYTES))
        found = _LINE_END.match(self.raw, self.start, end) or _EMPTY_LINE.search(self.raw, self.start, end)
        return found.end() if found else end

    def text(self) -> str:
        """The beginning of its content as text.

        Raises:
            ValueError: it cannot be read; the message says why.
        """
        encoded = self.raw[self.body_start : min(self.end, self.body_start + _ENCODED_BYTES)]
        named = _tried(self._message.get_content_charset)
        charset = named if isinstance(named, str) else "utf-8"
        try:
            return _decoded(_unwrapped(encoded, self._encoding), charset)
        except (LookupError, ValueError):  # RFC 2045 6.4: unknown; UnicodeError and binascii.Error are ValueErrors
            words = clean(f"encoding {self._encoding or 'none'}, charset {charset}", 100)
            raise ValueError(f"it cannot be decoded ({words})") from None

    @property
    def _encoding(self) -> str:
        return self.header.get("Content-Transfer-Encoding").partition(";")[0].strip().lower()

    @cached_property
    def _message(self) -> Message:
        message = Message()
        for name in ("Content-Type", "Content-Disposition"):
            if value := self.header.get(name)[:_PARAMETERS]:
                message[name] = value
        return message


def parts(raw: bytes, header: Header) -> tuple[list[Part], str]:
    """All parts of a mail that hold no others, in order; and what was left out, "" if nothing was."""
    found = list(islice(_inside(Part(raw, 0, len(raw), header), 0), MOST_PARTS + 1))
    if len(found) > MOST_PARTS:
        return found[:MOST_PARTS], f"parts after the first {MOST_PARTS}"
    whole = not any(part.content_type.startswith("multipart/") for part in found)
    return found, "" if whole else "a part that could not be taken apart"


def words_of(value: str) -> str:
    """*value* with its encoded words decoded (RFC 2047); as it is where that cannot be done."""
    value = value[:_PARAMETERS]
    try:
        return "".join(_piece(piece, charset) for piece, charset in decode_header(value))
    except (MessageError, LookupError, ValueError):
        return value


def _piece(piece: bytes | str, charset: str | None) -> str:
    if isinstance(piece, str):
        return piece
    # What stands between encoded words comes back in this encoding.
    return _decoded(piece, charset) if charset else piece.decode("raw-unicode-escape", "replace")


def _inside(part: Part, depth: int) -> Iterator[Part]:
    """Its parts, or itself where it has none that are found: no part costs time and gives nothing."""
    if depth >= DEEPEST or not part.boundary or not part.content_type.startswith("multipart/"):
        yield part
        return
    start = None
    empty = True
    # Begins with letters that have to be there: the search for those is quick.
    delimiter = re.compile(b"--" + re.escape(part.boundary) + rb"(--)?[ \t]*+(?:\r\n|\n|\r|\Z)")
    for found in islice(delimiter.finditer(part.raw, part.body_start, part.end), 10 * MOST_PARTS):
        if found.start() > 0 and part.raw[found.start() - 1] not in b"\r\n":
            continue
        if start is not None:
            empty = False
            yield from _inside(Part(part.raw, start, found.start()), depth + 1)
        start = found.end()
        if found[1]:
            break
    else:
        if start is not None:  # never closed: cut off, or by a careless program
            empty = False
            yield from _inside(Part(part.raw, start, part.end), depth + 1)
    if empty:
        yield part


def _unwrapped(encoded: bytes, encoding: str) -> bytes:
    if encoding == "base64":
        letters = _NOT_BASE64.sub(b"", encoded.partition(b"=")[0])
        if len(letters) % 4 == 1:  # cut off
            letters = letters[:-1]
        return base64.b64decode(letters + b"=" * (-len(letters) % 4))
    if encoding == "quoted-printable":
        return binascii.a2b_qp(encoded)
    if encoding in {"", "7bit", "8bit", "binary"}:
        return encoded
    raise ValueError(encoding)


def _decoded(content: bytes, charset: str) -> str:
    if not _CHARSET.fullmatch(charset) or (codec := codecs.lookup(charset).name) in _NO_CHARSETS:
        raise LookupError(charset)
    # ASCII that is none is UTF-8 more often than not.
    return content.decode("utf-8" if codec == "ascii" else codec, "replace")


def _tried(read: object) -> object:
    """What Python's parser makes of a parameter; None where it breaks."""
    assert callable(read)
    try:
        return read()
    except Exception:  # noqa: BLE001  # on nonsense it has raised TypeError, IndexError, UnicodeError and others
        return None
