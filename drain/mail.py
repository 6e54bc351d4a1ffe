"""A mail: its envelope and its bytes, never decoded.

Shapes: ``raw`` is the message as the sender's side sent it (RFC 5322, or worse);
addresses are ``str`` as the envelope has them, "" for "none" and for ``<>``.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

# RFC 5322 2.2: a field name is printable US-ASCII except the colon. 4.5 (obsolete
# syntax) allows blanks before the colon, and such mail is still sent.
_HEADER_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
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
