"""What a delivery status notification looks like (RFC 3464, in the wrapping of RFC 6522).

Three parts: words for a person; the same for programs; the header of the mail that
could not be delivered, without its body. All of it is ASCII on the wire, so that any
mail server takes it; but for an address in ``To`` that is not (RFC 6532). What others wrote, diagnostics and header, is encoded or cleaned
and cannot end a line, a field or a part.
"""

import binascii
import datetime
import email.utils
import hashlib
import re
from collections.abc import Mapping
from email.header import Header as EncodedWords

from drain.filters.mime import words_of
from drain.header import Header
from drain.text import clean
from drain.upstreams import Action, Fate

# Of the original's header; the rest is left out, with a line that says so.
_HEADER_BYTES = 64 * 1024
# RFC 5322 2.1.1.
_LONGEST_LINE = 998
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
# RFC 3464 2.3.6: the kind of diagnostic, then what it says.
_DIAGNOSTIC = re.compile(r"[A-Za-z0-9-]{1,40}; *\S")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")
# RFC 6533 3: of utf-8-addr-xtext all but QCHAR is written by its number.
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
_LONG_LINE = re.compile(rb"[^\n]{%d}" % (_LONGEST_LINE - 1))
_NOT_ASCII = re.compile(r"[^ -~]")
_LINE_END = "\r\n"
_DATE = "%d %B %Y, %H:%M UTC"


def build(
    *,
    sender: str,
    fates: Mapping[str, Fate],
    header: bytes,
    arrived: datetime.datetime,
    now: datetime.datetime,
    hostname: str,
    queue_id: str,
    attempted: datetime.datetime | None = None,
) -> bytes:
    """The message, with CRLF line ends, to *sender* (not "": nobody is told of what nobody sent).

    ``fates`` has the recipients, at least one, that the mail did not get to, with the
    last that was heard of each: a fate of `Action.DELAYED` means that its time is over.
    ``header`` is the original's header block; ``arrived`` is when the mail was taken, ``attempted``
    when it was last tried; all times with their zone. ``queue_id`` is that of the original's
    entry. From it comes the Message-ID: the same at every call, and another for another entry.
    """
    assert sender
    assert fates
    original = Header.of(header)
    told = attempted or now
    parts = [
        _part("text/plain; charset=utf-8", _words(fates, original, arrived, now, hostname).encode()),
        _part("message/delivery-status", _status(fates, arrived, told, hostname, queue_id).encode("ascii")),
        _part("text/rfc822-headers; charset=utf-8", _cut(original.block)),
    ]
    # No text contains its own hash.
    boundary = "=_" + hashlib.sha256(b"".join(parts)).hexdigest()[:40]
    subject = EncodedWords(f"Not delivered: {_decoded(original, 'Subject') or '(no subject)'}", header_name="Subject")
    head = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{clean(sender)}>",
        f"Subject: {subject.encode(linesep=_LINE_END)}",
        f"Date: {email.utils.format_datetime(now)}",
        f"Message-ID: <{queue_id}.dsn@{hostname}>",
        # RFC 3834 5.1: what answers it automatically would make a loop.
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"',
    ]
    if found := _MESSAGE_ID.search(original.get("Message-ID")):
        head[5:5] = [f"In-Reply-To: {found[0]}", f"References: {found[0]}"]
    delimiter = f"\r\n--{boundary}".encode("ascii")
    top = _LINE_END.join([*head, ""]).encode()
    return b"".join([top, *(delimiter + b"\r\n" + part for part in parts), delimiter, b"--\r\n"])


def _words(
    fates: Mapping[str, Fate], original: Header, arrived: datetime.datetime, now: datetime.datetime, hostname: str
) -> str:
    """For somebody who knows nothing of mail servers. Lines end in LF."""
    spent = _spent(now - arrived)
    lines = [f"This is the mail relay on {hostname}. A mail of yours was not delivered to:", ""]
    for recipient, fate in fates.items():
        lines += [f"  {clean(recipient)}", f"    {_why(fate, spent)}"]
        if fate.diagnostic:
            lines += ["    The mail service said:", f"    {clean(fate.diagnostic)}"]
        lines += [""]
    lines += ["It will not be tried again for these. Others that the mail was for are not concerned.", ""]
    for name in ("Subject", "To", "Date"):
        if text := _decoded(original, name):
            lines += [f"  {name}: {text}"]
    lines += [f"  Taken from you: {arrived.astimezone(datetime.UTC).strftime(_DATE)}", ""]
    lines += ["The header of the mail is attached. To send it again, take it from the folder of what you sent.", ""]
    return "\n".join(lines)


def _why(fate: Fate, spent: str) -> str:
    if fate.action is Action.DELAYED:
        return f"It could not be handed over in {spent}, and that is as long as is tried."
    if fate.bad_address:
        return "This address does not exist, or takes no mail. Is it written correctly?"
    return "It was refused for good."


def _spent(time: datetime.timedelta) -> str:
    """``3 days``, ``5 hours``, ``1 minute``."""
    minutes = max(1, round(time.total_seconds() / 60))
    for size, name in ((24 * 60, "day"), (60, "hour"), (1, "minute")):
        if (number := round(minutes / size)) >= 1 and (minutes >= size):
            return f"{number} {name}{'' if number == 1 else 's'}"
    raise AssertionError


def _status(
    fates: Mapping[str, Fate], arrived: datetime.datetime, attempted: datetime.datetime, hostname: str, queue_id: str
) -> str:
    """RFC 3464 2.1: fields of the message, and after an empty line those of each recipient. Lines end in LF."""
    blocks = [
        [
            f"Reporting-MTA: dns; {hostname}",
            f"X-Drain-Queue-Id: {queue_id}",
            f"Arrival-Date: {email.utils.format_datetime(arrived)}",
        ]
    ]
    for recipient, fate in fates.items():
        block = [
            f"Final-Recipient: {_typed(clean(recipient))}",
            # RFC 3464 2.3.3: what is given up has failed, whatever its status.
            f"Action: {Action.FAILED}",
            f"Status: {fate.status if _STATUS.fullmatch(fate.status) else '5.0.0'}",
        ]
        diagnostic = _NOT_ASCII.sub("?", clean(fate.diagnostic))
        if _DIAGNOSTIC.match(diagnostic):
            block.append(f"Diagnostic-Code: {diagnostic}")
        block.append(f"Last-Attempt-Date: {email.utils.format_datetime(attempted)}")
        blocks.append(block)
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _typed(address: str) -> str:
    """An address with its type (RFC 3464 2.3.2; RFC 6533 3 where it is not ASCII)."""
    if address.isascii():
        return f"rfc822; {address}"
    return "utf-8; " + _NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", address)


def _decoded(original: Header, name: str) -> str:
    return clean(words_of(original.get(name)), 150).strip()


def _cut(block: bytes) -> bytes:
    """The header, or as many whole fields of it as are told."""
    if len(block) <= _HEADER_BYTES:
        return block
    ends = [field.end for field in Header(block[:_HEADER_BYTES]).fields]
    # The last may go on behind the cut.
    return block[: ends[-2] if len(ends) > 1 else 0] + b"X-Drain-Note: the rest of this header is left out\r\n"


def _part(content_type: str, content: bytes) -> bytes:
    """One part with its header, as ASCII."""
    text = content.replace(b"\r\n", b"\n")
    encoding = "7bit"
    if not text.isascii() or b"\0" in text or b"\r" in text or _LONG_LINE.search(text):
        encoding, text = "quoted-printable", binascii.b2a_qp(text)
    head = f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode("ascii") + text.replace(b"\n", b"\r\n")
