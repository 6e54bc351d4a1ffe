"""A message taken apart, for providers that take JSON and build the message anew.

After they have built it, a reader must see the same: addresses, subject, text, HTML,
attachments, pictures, and the thread that it belongs to. What cannot be said so, or
where that is not sure, is `Unsayable`: it is refused with the reason, not mangled.

What can be said is one body and its attachments: a text (``text/plain``), a
``text/html``, or both as alternatives, the text first, and a ``text/calendar`` behind
them; pictures that belong to the HTML (``multipart/related``); attachments after them
(``multipart/mixed``).

What is left out, since it says nothing to a reader or would be wrong in a message
that somebody else builds: ``Received``, ``Return-Path``, ``Bcc``, ``MIME-Version``,
``Content-…`` of the whole; signatures of the old bytes (``DKIM-Signature``, ``ARC-…``:
the provider signs its own); names of charsets, transfer encodings, and what stands
before and behind the parts. ``format=flowed`` is left out too: its text is made to be
read without (RFC 3676 4), but with ``DelSp=yes`` it is not.

The envelope sender cannot be said: a bounce goes to the provider, which shows it to the
owner of the account. So a sender that is not the one of the header, as a mailing list
has it that reads its own bounces, is refused; ``<>`` is not, since nobody waits for those.
"""

import base64
import codecs
import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.errors import MessageError, ObsoleteHeaderDefect
from email.header import decode_header
from email.message import EmailMessage
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from drain.places import address as one_address, domain_key
from drain.text import clean
from drain.upstreams import Shipment

# As it came: nothing is folded again.
_AS_IT_IS: Any = policy.SMTP.clone(refold_source="none", max_line_length=None)
_LEFT_OUT = frozenset({"received", "return-path", "dkim-signature", "bcc", "mime-version"})
_LEFT_OUT_PREFIXES = ("content-", "arc-")
# RFC 5322 2.2.
_FIELD_NAME = re.compile(r"[!-9;-~]+")
# Encoded words with only blanks between them, which do not count (RFC 2047 2, 6.2).
_WORD = r"=\?[^?\s]*\?[bBqQ]\?[^?\s]*\?="
_ENCODED_WORDS = re.compile(rf"{_WORD}(?:[ \t]+{_WORD})*")
_FOLD = re.compile(r"\r?\n(?=[ \t])")
# C0 but tab and line end, DEL, C1, and halves of pairs: no text has them, and what becomes of them nobody knows.
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffd]")
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,127}")
# RFC 2045 5.1.
_TOKEN = re.compile(r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+")
# RFC 5322 3.2.3: what may stand in a name without quotes, and what else is no ASCII.
_PLAIN_NAME = re.compile(r"[^\x00-\x1f\x7f()<>\[\]:;@\\,.\"]+")
_CHARSET = re.compile(r"[A-Za-z0-9._:+-]{1,40}")
_ENCODINGS = frozenset({"7bit", "8bit", "binary", "quoted-printable", "base64"})
# Python's, and no charset of any mail.
_NO_CHARSETS = frozenset({"punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"})
# What a text is tried as if it is not what it says: the larger charset that every reader takes in its place
# (WHATWG Encoding 4.2).
_LARGER = {
    "ascii": "utf-8",
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
}
_SEALED = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime", "application/pgp-encrypted"})
# Python's words for `=?utf-8?q?...?=` between quotes, and for the quote behind it.
_QUOTED = "encoded word inside quoted string"
_THEN_A_QUOTE = "missing trailing whitespace after encoded-word"
# Python's own list, not the machine's: a mail that is sent again must be the same.
_TYPES = mimetypes.MimeTypes()


# Python's parser makes objects of each line and each part: 25 MiB of short lines cost it
# 870 MB, 300,000 parts 40 seconds. A file of 25 MiB in base64 has 350,000 lines.
_MOST_LINES = 500_000
_MOST_BOUNDARIES = 1_000


class Unsayable(Exception):
    """It cannot be said in JSON without a change of meaning; the message says why, as the end of a sentence."""


@dataclass(frozen=True)
class Mailbox:
    """An address with the name before it, "" for none; both decoded."""

    name: str
    address: str

    def __str__(self) -> str:
        """As RFC 5322 3.4 has it, but in Unicode."""
        if not self.name:
            return self.address
        if _PLAIN_NAME.fullmatch(self.name) and self.name == self.name.strip():
            return f"{self.name} <{self.address}>"
        return '"{}" <{}>'.format(self.name.replace("\\", "\\\\").replace('"', '\\"'), self.address)


@dataclass(frozen=True)
class Attachment:
    """A file, a picture, a message.

    ``type`` is without parameters, in lower case; ``parameters`` are those of its Content-Type, but for its
    name. ``content_id`` is without its brackets, "" for none or where nothing refers to it. ``inline``: it is
    shown where the text is.
    """

    name: str
    type: str
    parameters: tuple[tuple[str, str], ...]
    content: bytes
    content_id: str = ""
    inline: bool = False

    @property
    def content_type(self) -> str:
        """Type and parameters, as in the header."""
        written = [self.type]
        for name, value in self.parameters:
            quoted = (
                value if _TOKEN.fullmatch(value) else '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))
            )
            written.append(f"{name}={quoted}")
        return "; ".join(written)


@dataclass(frozen=True)
class Parts:
    """All that a message says. Texts have LF line ends.

    ``to`` has one address at least; ``bcc`` are recipients that the header does not name. ``headers`` are the
    other lines, ASCII, none twice, unfolded, their encoded words (RFC 2047) as they are. ``text`` and ``html``
    are "" where there is none, but one of them is there. ``calendar`` is the third alternative.
    """

    author: Mailbox
    reply_to: tuple[Mailbox, ...]
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    bcc: tuple[str, ...]
    subject: str
    headers: tuple[tuple[str, str], ...]
    text: str
    html: str
    calendar: Attachment | None
    attachments: tuple[Attachment, ...]


def parts_of(shipment: Shipment) -> Parts:
    """The message of *shipment*, taken apart.

    Raises:
        Unsayable: that would change it.
    """
    if shipment.raw.count(b"\n") > _MOST_LINES or shipment.raw.count(b"\n--") > _MOST_BOUNDARIES:
        raise Unsayable("it has more lines or parts than can be taken apart in this machine's memory")
    try:
        message = message_from_bytes(shipment.raw, policy=_AS_IT_IS)
    except Exception as error:  # it recurses with the parts, and on nonsense has raised IndexError and others
        raise Unsayable("it cannot be read") from error
    assert isinstance(message, EmailMessage)
    header = _Header(message)
    body = _Body(shipment.raw)
    body.take(message)
    to, cc = header.mailboxes("to"), header.mailboxes("cc")
    if not to:
        raise Unsayable("nobody is named in its To")
    author = header.author
    _agree(shipment.sender, author.address)
    return Parts(
        author=author,
        reply_to=header.mailboxes("reply-to"),
        to=to,
        cc=cc,
        bcc=_unnamed(shipment.recipients, [*to, *cc]),
        subject=header.subject,
        headers=header.others,
        text=body.text,
        html=body.html,
        calendar=body.calendar,
        attachments=body.attached,
    )


class _Header:
    """The header of the whole message."""

    def __init__(self, message: EmailMessage) -> None:
        self._lines: dict[str, tuple[str, str]] = {}
        for name, raw in message.raw_items():
            key = name.lower()
            if key in _LEFT_OUT or key.startswith(_LEFT_OUT_PREFIXES):
                continue
            shown = clean(name, 60)
            if key.startswith("resent-"):
                raise Unsayable(f"it was sent on with new lines on top ({shown})")
            if not _FIELD_NAME.fullmatch(name):
                raise Unsayable(f"its header has a line that is none ({shown})")
            if key in self._lines:
                raise Unsayable(f"its header has {shown} twice")
            self._lines[key] = name, _unfolded(name, raw)

    def mailboxes(self, name: str) -> tuple[Mailbox, ...]:
        """The addresses of a line, in order; none twice."""
        parsed, shown = self._parsed(name), name.title()
        found = []
        for group in parsed.groups if parsed else ():
            if group.display_name is not None:
                raise Unsayable(f"its {shown} names a group ({clean(group.display_name, 60)})")
            for one in group.addresses:
                if not one.addr_spec.isascii() or _NO_LINE.search(one.display_name):
                    raise Unsayable(f"its {shown} has an address that not every server takes")
                try:
                    found.append(Mailbox(one.display_name, one_address(one.addr_spec)))
                except ValueError:
                    raise Unsayable(f"its {shown} has an address that is none ({clean(one.addr_spec, 60)})") from None
        if len({_key(one.address) for one in found}) < len(found):
            raise Unsayable(f"its {shown} names an address twice")
        return tuple(found)

    @property
    def author(self) -> Mailbox:
        """From; a Sender must be the same address, since JSON has no room for another."""
        authors, senders = self.mailboxes("from"), self.mailboxes("sender")
        if len(authors) != 1:
            raise Unsayable("it has no From" if not authors else "its From names several")
        if senders and [_key(one.address) for one in senders] != [_key(authors[0].address)]:
            raise Unsayable("its Sender is another than its From")
        return authors[0]

    @property
    def subject(self) -> str:
        """Decoded; "" for none."""
        parsed = self._parsed("subject")
        subject = str(parsed) if parsed is not None else ""
        if _NO_LINE.search(subject.replace("\t", " ")):
            raise Unsayable("its Subject has control characters")
        return subject

    @property
    def others(self) -> tuple[tuple[str, str], ...]:
        """The lines that have no field of their own."""
        own = {"from", "sender", "reply-to", "to", "cc", "subject"}
        others = tuple(line for key, line in self._lines.items() if key not in own)
        for name, value in others:
            if not value.isascii() or _NO_LINE.search(value.replace("\t", " ")):
                raise Unsayable(f"its {clean(name, 60)} has characters that are not ASCII")
        return others

    def _parsed(self, key: str) -> Any:
        """The value as Python's parser has it, None if there is none."""
        if key not in self._lines:
            return None
        what = f"its {key.title()}"
        value = _ENCODED_WORDS.sub(lambda found: _one_word(found[0], what), self._lines[key][1])
        try:
            parsed = _AS_IT_IS.header_factory(key, value)
        except Exception as error:  # on nonsense it has raised IndexError, AttributeError and others
            raise Unsayable(f"{what} cannot be read") from error
        _no_defects(parsed.defects, what)
        return parsed


class _Body:
    """What the parts come to. Each is taken once, or nothing is."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.text = ""
        self.html = ""
        self.calendar: Attachment | None = None
        self._attachments: list[Attachment] = []

    @cached_property
    def attached(self) -> tuple[Attachment, ...]:
        """The attachments; what is referred to by nothing has no Content-ID."""
        html = unquote(self.html)
        found = []
        for one in self._attachments:
            referred = bool(one.content_id) and f"cid:{one.content_id}" in html
            inline = one.inline or referred
            content_id = one.content_id if inline else ""
            found.append(Attachment(one.name, one.type, one.parameters, one.content, content_id, inline))
        ids = [one.content_id for one in found if one.content_id]
        if len(set(ids)) < len(ids):
            raise Unsayable("two of its parts have the same Content-ID")
        return tuple(found)

    def take(self, message: EmailMessage) -> None:
        """The whole message."""
        if _type(message) == "multipart/mixed":
            first, *others = _children(message)
            self._take_body(first)
            for other in others:
                self._attach(other)
        else:
            self._take_body(message)
        if not self.text.strip() and not self.html.strip():
            raise Unsayable("it has no text")

    def _take_body(self, part: EmailMessage) -> None:
        """Text and HTML, and the pictures that belong to it."""
        kind = _type(part)
        if kind == "multipart/related":
            self._take_related(part)
        elif kind == "multipart/alternative":
            self._take_alternatives(part)
        elif _disposition(part) == "attachment" or kind not in ("text/plain", "text/html"):
            raise Unsayable(f"it begins with {_what(kind)} and not with a text")
        elif kind == "text/html":
            self.html = _text(part)
        else:
            self.text = _text(part)

    def _take_related(self, part: EmailMessage) -> None:
        root, *others = _children(part)
        start = part["content-type"].params.get("start", "")
        if start and start != str(root.get("content-id", "")).strip():
            raise Unsayable("of its parts that belong together the first is not the one to start with")
        if _type(root) == "multipart/related":
            raise Unsayable("its parts are nested in a way that cannot be said")
        self._take_body(root)
        if not self.html:
            raise Unsayable("it has pictures that belong to a text without HTML")
        for other in others:
            if not other.get("content-id"):
                raise Unsayable("a part that belongs to its HTML has no Content-ID")
            self._attach(other, related=True)

    def _take_alternatives(self, part: EmailMessage) -> None:
        taken = []
        for child in _children(part):
            kind = _type(child)
            if kind == "multipart/related":
                self._take_related(child)
                kind = "text/html"
                if _type(_children(child)[0]) != kind:
                    raise Unsayable("its parts are nested in a way that cannot be said")
            elif kind == "text/calendar":
                self.calendar = self._attachment(child)
            elif kind in ("text/plain", "text/html"):
                self._take_body(child)
            else:
                raise Unsayable(f"one of its alternatives is {_what(kind)}")
            taken.append(kind)
        # The order is the author's choice: the last is the best (RFC 2046 5.1.4).
        if taken not in [
            [*bodies, *calendar]
            for bodies in (["text/plain"], ["text/html"], ["text/plain", "text/html"])
            for calendar in ([], ["text/calendar"])
        ]:
            raise Unsayable(f"its alternatives are {clean(', '.join(taken), 100)}")

    def _attach(self, part: EmailMessage, *, related: bool = False) -> None:
        kind, disposition = _type(part), _disposition(part)
        if kind.startswith("multipart/"):
            raise Unsayable(f"behind its text there is {_what(kind)}")
        if kind in ("text/plain", "text/html") and disposition != "attachment" and not _name(part):
            raise Unsayable("it has a second text")
        one = self._attachment(part)
        inline = disposition == "inline" or (related and disposition != "attachment")
        self._attachments.append(
            Attachment(one.name, one.type, one.parameters, one.content, one.content_id, inline=inline)
        )

    def _attachment(self, part: EmailMessage) -> Attachment:
        kind = _type(part)
        if kind in _SEALED:
            raise Unsayable("it is encrypted or signed (S/MIME, PGP)")
        parameters = (
            tuple((name, value) for name, value in part["content-type"].params.items() if name != "name")
            if ("content-type" in part)
            else ()
        )
        content_id = str(part.get("content-id", "")).strip().removeprefix("<").removesuffix(">")
        if content_id and not _CONTENT_ID.fullmatch(content_id):
            raise Unsayable("a part has a Content-ID that is none")
        # Where the sender gave no name, a reader makes one; JSON wants it at once.
        name = _name(part) or ("message.eml" if kind == "message/rfc822" else f"attachment{_extension(kind)}")
        content = self._message(part) if kind.startswith("message/") else _content(part)
        if not content:
            raise Unsayable("it has an attachment with nothing in it")
        return Attachment(name, kind, parameters, content, content_id)

    def _message(self, part: EmailMessage) -> bytes:
        """An attached message, byte for byte (RFC 2046 5.2)."""
        inner: Any = part.get_payload()
        encoding = _encoding(part)
        if not isinstance(inner, list) or len(inner) != 1 or encoding not in ("7bit", "8bit", "binary"):
            raise Unsayable("it has an attached message that cannot be taken out")
        try:
            content = bytes(inner[0].as_bytes(policy=_AS_IT_IS.clone(linesep="\r\n" if b"\r\n" in self._raw else "\n")))
        except Exception as error:  # what cannot be parsed cannot be written either
            raise Unsayable("it has an attached message that cannot be taken out") from error
        # Written anew, it must be what stands between two boundaries.
        start = self._raw.find(content)
        if start < 0 or not self._raw.startswith((b"\r\n--", b"\n--"), start + len(content)):
            raise Unsayable("it has an attached message that cannot be taken out as it is")
        return content


def _children(part: EmailMessage) -> list[EmailMessage]:
    _no_defects(part.defects, "its structure")
    children: Any = part.get_payload()
    if not isinstance(children, list) or not children:
        raise Unsayable("its structure is broken")
    return children


def _type(part: EmailMessage) -> str:
    """Its type; what would be guessed is not."""
    _no_defects(part.defects, "its structure")
    for name in ("content-type", "content-disposition", "content-transfer-encoding", "content-id"):
        values = _tried(part, name)
        if len(values) > 1:
            raise Unsayable(f"a part has {name} twice")
        for value in values:
            _no_defects(value.defects, f"the {name} of a part")
    if "content-location" in part:
        raise Unsayable("a part has a Content-Location, to which links may refer")
    return part.get_content_type()


def _tried(part: EmailMessage, name: str) -> list[Any]:
    try:
        return part.get_all(name, [])
    except Exception as error:  # as in _Header
        raise Unsayable(f"the {name} of a part cannot be read") from error


def _disposition(part: EmailMessage) -> str:
    disposition = part.get_content_disposition() or ""
    # RFC 2183 2.8: what is not known is an attachment.
    return disposition if disposition in ("", "inline") else "attachment"


def _name(part: EmailMessage) -> str:
    name = part.get_filename() or ""
    if _NO_LINE.search(name):
        raise Unsayable("an attachment has a name with control characters")
    return name


def _extension(kind: str) -> str:
    return _TYPES.guess_extension(kind) or ""


def _encoding(part: EmailMessage) -> str:
    return str(part.get("content-transfer-encoding", "7bit")).strip().lower()


def _content(part: EmailMessage) -> bytes:
    encoding = _encoding(part)
    if encoding not in _ENCODINGS:
        raise Unsayable(f"a part is encoded in a way that nobody knows ({clean(encoding, 40)})")
    content = part.get_payload(decode=True)
    _no_defects(part.defects, f"what a part has in {encoding}")
    if not isinstance(content, bytes):
        raise Unsayable("a part has no content")
    return content


def _text(part: EmailMessage) -> str:
    """A text, decoded, with LF line ends."""
    content = _content(part)
    params = part["content-type"].params if "content-type" in part else {}
    if params.get("delsp", "").lower() == "yes":
        raise Unsayable("its text is flowed with DelSp (RFC 3676)")
    return _decoded(content, params.get("charset", "us-ascii"), "its text").replace("\r\n", "\n")


def _one_word(run: str, what: str) -> str:
    """*run*, encoded words, as a single one: Python's parser keeps the blanks between those of a name."""
    text = ""
    try:
        for piece, charset in decode_header(run):
            assert isinstance(piece, bytes)
            # RFC 2231 5: the language may stand behind the charset.
            text += _decoded(piece, (charset or "us-ascii").partition("*")[0], what)
    except MessageError as error:
        raise Unsayable(f"{what} cannot be read") from error
    return f"=?utf-8?b?{base64.b64encode(text.encode()).decode('ascii')}?="


def _decoded(content: bytes, named: str, what: str) -> str:
    for codec in _codecs(named, what):
        try:
            text = content.decode(codec)
        except (UnicodeError, LookupError):  # LookupError: of Python's, but not of text
            continue
        if not _NO_TEXT.search(text.replace("\r\n", "\n")):
            return text
    raise Unsayable(f"{what} is not in the charset that it names ({clean(named, 40)})")


def _codecs(named: str, what: str) -> Iterator[str]:
    """What a text is tried as, in this order."""
    try:
        codec = codecs.lookup(named).name if _CHARSET.fullmatch(named) else ""
    except LookupError:
        codec = ""
    if not codec or codec in _NO_CHARSETS:
        raise Unsayable(f"{what} is in a charset that nobody knows ({clean(named, 40)})")
    yield codec
    if codec in _LARGER:
        yield _LARGER[codec]


def _unfolded(name: str, raw: Any) -> str:
    """The value on one line; bytes that are no ASCII must be UTF-8 (RFC 6532)."""
    try:
        return _FOLD.sub("", str(raw).encode("ascii", "surrogateescape").decode("utf-8")).strip(" \t\r\n")
    except UnicodeError:
        raise Unsayable(f"its {clean(name, 60)} has bytes that are neither ASCII nor UTF-8") from None


def _no_defects(defects: Any, what: str) -> None:
    """Older forms, which all read alike, are none, nor is an encoded word in quotes, which is nothing but common."""
    found = [str(defect) or type(defect).__name__ for defect in defects if not isinstance(defect, ObsoleteHeaderDefect)]
    if _QUOTED in found:
        found = [words for words in found if words not in (_QUOTED, _THEN_A_QUOTE)]
    if found:
        raise Unsayable(f"{what} is broken ({clean(found[0], 100)})")


def _what(kind: str) -> str:
    words = {
        "multipart/signed": "a signed part (multipart/signed)",
        "multipart/encrypted": "an encrypted part (multipart/encrypted)",
        "multipart/report": "a report (multipart/report)",
    }
    sealed = "an encrypted or signed part (S/MIME)" if kind in _SEALED else ""
    return words.get(kind) or sealed or clean(kind, 60)


def _agree(sender: str, author: str) -> None:
    if sender and _key(sender) != _key(author):
        raise Unsayable(f"its bounces are meant for {clean(sender, 100)}, who is not in its From")


def _unnamed(recipients: tuple[str, ...], named: list[Mailbox]) -> tuple[str, ...]:
    """The recipients that *named* has not; all that it has must be recipients, for the provider sends to them."""
    keys = {_key(one) for one in recipients}
    seen = set()
    for one in named:
        key = _key(one.address)
        if key in seen:
            raise Unsayable(f"{clean(one.address, 100)} is in its To and in its Cc")
        if key not in keys:
            raise Unsayable(f"it names {clean(one.address, 100)}, to whom it is not to be sent")
        seen.add(key)
    return tuple({_key(one): one for one in recipients if _key(one) not in seen}.values())


def _key(address: str) -> str:
    local, _, domain = address.rpartition("@")
    return f"{local.lower()}@{domain_key(domain)}"
