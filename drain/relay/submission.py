"""What a mail still needs when it comes from the client, and what it must lose (RFC 6409 8, RFC 5321 4.4).

=================  =====================================================================
``Received``       on top
``Date``,          if there is none
``Message-ID``
``From``           RELAY_FROM_FALLBACK's, if there is none, or one that has no domain, as
                   cron writes it; the name that stands with it stays
``Bcc``,           taken away: who else got the mail is nobody's business
``Resent-Bcc``
``Return-Path``    taken away: it is written where the mail ends
=================  =====================================================================

Line ends become CRLF; all else stays as it is, byte for byte.
"""

import datetime
import email.utils
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from drain import mail
from drain.header import LIMIT, Header, split
from drain.places import domain_key
from drain.relay import author
from drain.relay.author import Unclear
from drain.relay.refusal import Refusal

# RFC 5321 6.3: a mail with more has most likely been here before.
_MOST_HOPS = 100
_LOST = re.compile(rb"^(?:Bcc|Resent-Bcc|Return-Path):(?:[^\r\n]++|\r\n[ \t])*+\r\n", re.MULTILINE | re.IGNORECASE)
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")


@dataclass(frozen=True)
class Submission:
    """A mail that is complete: its bytes, its header among them, its Message-ID with the brackets ("" if it is none)."""

    raw: bytes
    header: Header
    message_id: str


def complete(
    raw: bytes,
    *,
    fallback: str,
    hostname: str,
    protocol: str,
    queue_id: str,
    recipients: Sequence[str],
    now: datetime.datetime,
) -> Submission:
    """What goes upstream, of what the client sent (dots no longer stuffed).

    ``fallback`` is RELAY_FROM_FALLBACK, "" for none; ``hostname`` this machine's name;
    ``protocol`` how it came (RFC 3848, RFC 6531: ``ESMTPA``, ``ESMTPSA``, ``UTF8SMTPSA``);
    ``recipients`` the envelope's, of which only a single one is told; ``now`` with its zone.
    Who the mail may be from is not judged here (`Policy.authors`, of the header given back).

    Raises:
        Refusal: its header cannot be read for certain, it has no author and there is no
            fallback, or it runs in circles.
    """
    head, rest = split(mail.normalised(raw), LIMIT)
    if mail.begins_with_from_line(head):
        raise Refusal(550, "5.6.0", "The mail is refused: its first line is mbox's `From `, which is no header field.")
    if rest[:2] not in {b"", b"\r\n"} and mail.begins_with_header_field(head or rest):
        raise Refusal(550, "5.6.0", "The mail is refused: its header is longer than a megabyte.")
    if not mail.begins_with_header_field(head):
        # A body alone. Its first line may even be empty, as it is where there is no header.
        head, rest = b"", head + rest if head.strip(b"\r\n") else rest
        rest = rest if rest.startswith(b"\r\n") else b"\r\n" + rest
    header = Header(_LOST.sub(b"", head))
    try:
        authors = author.read(header).get("From")
    except Unclear as error:
        raise Refusal(550, "5.6.0", f"The mail is refused: {error}.") from error
    if sum(1 for _ in header.all("Received")) > _MOST_HOPS:
        raise Refusal(554, "5.4.6", f"The mail has been through more than {_MOST_HOPS} servers: it runs in circles.")
    added = _received(hostname, protocol, queue_id, recipients, now)
    if authors is None:
        added += b"From: " + _fallback(fallback, "has no From field").encode() + b"\r\n"
        domain = fallback.rpartition("@")[2]
    else:
        address = authors[0].address
        if len(authors) == 1 and author.is_unqualified(address):
            address = _fallback(fallback, f"is from <{author.shown(address)}>, which is known on its machine only")
            header = _with_author(header, authors[0], address)
        domain = address.rpartition("@")[2]
    if not any(header.all("Date")):
        added += f"Date: {email.utils.format_datetime(now)}\r\n".encode("ascii")
    if not any(header.all("Message-ID")):
        added += f"Message-ID: <{secrets.token_hex(16)}@{domain_key(domain) or hostname}>\r\n".encode("ascii")
    header = Header(added + header.block)
    message_id = _MESSAGE_ID.search(header.get("Message-ID"))
    return Submission(header.block + (rest or b"\r\n"), header, message_id[0] if message_id else "")


def _received(hostname: str, protocol: str, queue_id: str, recipients: Sequence[str], now: datetime.datetime) -> bytes:
    """RFC 5321 4.4. The client is on this machine, or in one's own network: where exactly is not for strangers."""
    lines = [f"Received: from localhost by {hostname} (drain)", f" with {protocol} id {queue_id}"]
    # Where there are several, one could be in Bcc.
    if len(recipients) == 1 and recipients[0].isascii():
        lines.append(f" for <{recipients[0]}>")
    lines[-1] += ";"
    return "\r\n".join([*lines, f" {email.utils.format_datetime(now)}", ""]).encode("ascii")


def _fallback(fallback: str, what: str) -> str:
    if not fallback:
        raise Refusal(550, "5.7.1", f"The mail {what}. Send with a full From, or set RELAY_FROM_FALLBACK.")
    return fallback


def _with_author(header: Header, mailbox: author.Mailbox, address: str) -> Header:
    """The header with *address* in the place of the one in From, and the name as it is."""
    field = next(header.all("From"))
    start, end = field.colon + mailbox.start, field.colon + mailbox.end
    return Header(header.block[:start] + address.encode() + header.block[end:])
