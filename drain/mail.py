"""A mail: its envelope and its bytes, never decoded.

Shapes: ``raw`` is the message as the sender's side sent it (RFC 5322, or worse);
addresses are ``str`` as the envelope has them, "" for "none" and for ``<>``.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

# RFC 5322 2.2: a field name is printable US-ASCII except the colon. 4.5 (obsolete
# syntax) allows blanks before the colon, and such mail is still sent.
_HEADER_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
# The wire form is made in blocks of this size; nearly every mail is one.
_BLOCK_BYTES = 256 * 1024
# Real names are made of these (RFC 9110's token); `{"version":` is not one.
_USUAL_HEADER_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*:")


@dataclass(frozen=True)
class Mail:
    """One message for one recipient.

    ``aside`` says why the bytes are no mail, where that is so: then they have an
    identity of their own, and the mail of the same bytes keeps its own.
    """

    raw: bytes
    recipient: str
    sender: str
    aside: str = ""

    @cached_property
    def identity(self) -> str:
        """SHA-256, in hex, over the digest of the bytes and the recipient in lower case.

        Not keyed on the content alone (the same bytes for two people are two
        mails) and not on Message-ID (two alerts of a cheap device share theirs).
        """
        digest = hashlib.sha256(self.raw).digest()
        recipient = self.recipient.lower().encode("utf-8", "surrogatepass")
        aside = b"\0" + self.aside.encode() if self.aside else b""
        return hashlib.sha256(digest + recipient + aside).hexdigest()


def begins_with_header_field(raw: bytes) -> bool:
    """Whether the first line is a header field, so that a line may go above it."""
    return _HEADER_FIELD.match(raw) is not None


def begins_like_a_mail(raw: bytes) -> bool:
    """Whether the first line is a header field of a usual name, or an mbox ``From `` line."""
    return _USUAL_HEADER_FIELD.match(raw) is not None or begins_with_from_line(raw)


def begins_with_from_line(raw: bytes) -> bool:
    """Whether the first line is an mbox ``From `` line."""
    return raw.startswith(b"From ")


def normalised(raw: bytes) -> bytes:
    """*raw* with every line end as CRLF: lone CR and LF too."""
    # Not by regular expressions: those make an object a match, and 25 MiB of line
    # ends would cost gigabytes.
    return raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def on_the_wire(raw: bytes, added: bytes = b"") -> bytes:
    """The message as DATA carries it, without the final dot.

    Given the message and the header lines to add on top (each ending in CRLF; see `marks`).
    They are left out where the first line is not a header field: above a
    ``From `` line or a blank they would turn the whole header into body.
    Lone CR and LF become CRLF *before* dots are stuffed (RFC 5321 4.5.2), so no
    server can see an end of data where there is none; the last line gets its
    CRLF if it has none.
    """
    text = normalised(raw)
    if added and begins_with_header_field(raw):
        text = added + text
    if not text.endswith(b"\r\n"):
        text += b"\r\n"
    text = text.replace(b"\r\n.", b"\r\n..")
    return b"." + text if text.startswith(b".") else text


def cut_at(raw: bytes, place: int) -> int:
    """*place*, or the next one: where *raw* can be cut in two without parting a CR from its LF."""
    return place + 1 if raw[place - 1 : place + 1] == b"\r\n" else min(place, len(raw))


class Wire:
    """The same as `on_the_wire`, made block by block as it is sent: it is nowhere as a whole.

    Can be gone through several times. *head* is sent in place of the first *start* bytes
    of *raw*, where the header was changed; *start* is a place for `cut_at`.
    """

    def __init__(self, raw: bytes, added: bytes = b"", *, head: bytes = b"", start: int = 0) -> None:
        top = (added if begins_with_header_field(raw) else b"") + head
        self._raw = raw
        self._rest = cut_at(raw, start + _BLOCK_BYTES)
        # One with what is added, which so is no packet of its own; nearly every mail is no more than this.
        first = _made(top + raw[start : self._rest], begins_line=True)
        self._first = _ended(first) if self._rest == len(raw) else first
        self._is_made = False
        length = sum(map(len, self._others()))
        self._length = len(self._first) + length
        # All that is ever done to a mail makes it longer: most are found to be as they should be already.
        end = 0 if raw.endswith((b"\r", b"\n")) else len(b"\r\n")
        self._is_made = length - end == len(raw) - self._rest

    def __len__(self) -> int:
        """Its bytes, known before it is made (for SIZE, RFC 1870)."""
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        """The blocks: 256 KiB of the mail each, and what is added to that."""
        yield self._first
        yield from self._others()

    def __bytes__(self) -> bytes:
        return b"".join(self)

    def isascii(self) -> bool:
        """Whether no byte has its eighth bit set."""
        return self._first.isascii() and (self._rest == len(self._raw) or self._raw.isascii())

    def _others(self) -> Iterator[bytes]:
        raw, start = self._raw, self._rest
        while start < len(raw):
            end = cut_at(raw, start + _BLOCK_BYTES)
            block = raw[start:end]
            text = block if self._is_made else _made(block, begins_line=raw[start - 1] in b"\r\n")
            yield _ended(text) if end == len(raw) else text
            start = end


def _made(block: bytes, *, begins_line: bool) -> bytes:
    """A piece of a message as `on_the_wire` makes it, but for its end."""
    text = normalised(block).replace(b"\r\n.", b"\r\n..")
    return b"." + text if begins_line and text.startswith(b".") else text


def _ended(text: bytes) -> bytes:
    return text if text.endswith(b"\r\n") else text + b"\r\n"
