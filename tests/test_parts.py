"""A mail taken apart and put together again is the same to a reader, or it was refused with a reason."""

import re
import time
from collections import Counter
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import getaddresses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from drain.setting import Secret
from drain.upstreams import Action, Shipment
from drain.upstreams.parts import Attachment, Mailbox, Parts, Unsayable, parts_of
from drain.upstreams.resend import Resend

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.eml"))
SENDER, TO = "alice@example.org", "bob@example.net"
HEAD = b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: s\r\n"
PNG = b"\x89PNG\r\n\x1a\n\0\xff picture"
INVITE = "BEGIN:VCALENDAR\nMETHOD:REQUEST\nSUMMARY:Käse\nEND:VCALENDAR\n"


def shipment(raw: bytes, *recipients: str, sender: str = SENDER) -> Shipment:
    return Shipment("key-1", sender, recipients or (TO,), raw)


def taken(raw: bytes, *recipients: str, sender: str = SENDER) -> Parts:
    return parts_of(shipment(raw, *recipients, sender=sender))


def put_together(
    author: str,
    to: str,
    cc: str,
    reply_to: str,
    subject: str,
    headers: list[tuple[str, str]],
    text: str | None,
    html: str | None,
    files: list[tuple[str, str, bytes, str]],
) -> bytes:
    """A message as a provider builds it; *files* are name, Content-Type, content, Content-ID."""
    message = EmailMessage(policy=policy.SMTP)
    own = [("From", author), ("To", to), ("Cc", cc), ("Reply-To", reply_to), ("Subject", subject)]
    for name, value in [*((name, value) for name, value in own if value), *headers]:
        message[name] = value
    if text is not None:
        message.set_content(text, cte="base64")
    if html is not None and text is not None:
        message.add_alternative(html, subtype="html", cte="base64")
    elif html is not None:
        message.set_content(html, subtype="html", cte="base64")
    for name, content_type, content, content_id in sorted(files, key=lambda file: not file[3]):
        part = EmailMessage(policy=policy.SMTP)
        if content_type == "message/rfc822":
            part.set_content(message_from_bytes(content, policy=policy.SMTP), filename=name)
        else:
            part.set_content(content, maintype="application", subtype="octet-stream", filename=name)
            part.replace_header("Content-Type", content_type)
        if content_id:
            part["Content-ID"] = f"<{content_id}>"
        if message.get_content_type() != "multipart/mixed":
            message.make_mixed()
        message.attach(part)
    return message.as_bytes()


def leaves(raw: bytes) -> "Counter[tuple[str, bytes]]":
    """Type and content of each part that has no parts, texts with LF and in UTF-8."""
    found: Counter[tuple[str, bytes]] = Counter()
    _leaves(message_from_bytes(raw, policy=policy.SMTP), found, outer=True)
    return found


def _leaves(part: Any, found: "Counter[tuple[str, bytes]]", *, outer: bool = False) -> None:
    kind = part.get_content_type()
    if kind.startswith("multipart/"):
        for child in part.get_payload():
            _leaves(child, found)
    elif kind == "message/rfc822" and part.is_multipart():
        found[kind, part.get_payload(0).as_bytes(policy=policy.SMTP.clone(refold_source="none"))] += 1
    else:
        content = part.get_payload(decode=True)
        if kind in ("text/plain", "text/html") and not part.get_filename():
            charset = part.get_content_charset() or "utf-8"
            charset = {"us-ascii": "utf-8", "gb2312": "gb18030", "iso-8859-1": "cp1252"}.get(charset, charset)
            content = content.decode(charset).replace("\r\n", "\n").strip().encode()
        found[kind, content] += 1


def seen(raw: bytes) -> dict[str, Any]:
    """What a reader sees of a message: all but its Date."""
    message = message_from_bytes(raw, policy=policy.SMTP)
    header = {
        name: [(one.display_name, one.addr_spec) for one in message[name].addresses] if message[name] else []
        for name in ("From", "To", "Cc", "Reply-To")
    }
    lines = {name: str(message.get(name, "")) for name in ("Subject", "Message-ID", "References", "X-Word", "List-Id")}
    pictures = re.findall(rb"cid:([^\"'> ]+)", b"".join(content for (kind, content) in leaves(raw) if "html" in kind))
    files: Counter[tuple[Any, ...]] = Counter()
    for part in message.walk():
        if part.get_filename() or part.get("Content-ID"):
            content_id = str(part.get("Content-ID", "")).strip("<> ")
            shown = content_id if content_id.encode() in pictures else ""
            method = part.get_param("method") or ""
            files[part.get_filename(), part.get_content_type(), method, shown] += 1
    return {**header, **lines, "leaves": leaves(raw), "files": files}


def _mail(head: str, body: bytes) -> bytes:
    return head.replace("\n", "\r\n").encode() + b"\r\n" + body


def _simple(**more: str) -> EmailMessage:
    message = EmailMessage(policy=policy.SMTP)
    lines = {"From": f"Alice <{SENDER}>", "To": TO, "Subject": "Lunch", "Message-ID": "<1@example.org>"}
    lines |= {"Date": "Sat, 21 Nov 2026 13:00:00 +0000", **more}
    for name, value in lines.items():
        message[name.replace("_", "-")] = value
    return message


def samples() -> dict[str, bytes]:
    """Mails by what is in them, from SENDER to TO (and to others in "many")."""
    found = {}
    plain = _simple(References="<0@x.test> <00@x.test>", X_Word="yes", List_Id="<list.example.org>")
    plain.set_content("Hello\n.\nFrom me\n")
    found["plain"] = plain.as_bytes()

    umlauts = _simple(Subject="Käse — 漢字", To=f"Bøb <{TO}>")
    umlauts.set_content("Grüße, 漢字, привет\n")
    umlauts.add_alternative("<p>Grüße, 漢字 &amp; привет</p>\n", subtype="html")
    found["umlauts"] = umlauts.as_bytes()

    html = _simple()
    html.set_content("<p>only</p>\n", subtype="html")
    found["html"] = html.as_bytes()

    picture = _simple()
    picture.set_content("see\n")
    picture.add_alternative('<img src="cid:pic@x">\n', subtype="html")
    picture.get_payload(1).add_related(PNG, "image", "png", cid="<pic@x>", filename="pic.png")  # type: ignore[union-attr]
    picture.add_attachment(b"%PDF-1.7\0\r\n\n\r", maintype="application", subtype="pdf", filename="Übersicht 1.pdf")
    found["picture"] = picture.as_bytes()

    attached = _simple()
    attached.set_content("see\n")
    attached.add_attachment("Köln\r\n".encode("latin-1"), maintype="text", subtype="plain", filename="a.txt")
    found["attached"] = attached.as_bytes()

    latin = _simple()
    latin.set_content("see\n")
    latin.add_attachment("Köln\n", charset="iso-8859-1", filename="a.txt")
    found["attached text with a charset"] = latin.as_bytes()

    comma = _simple(To=f'"Doe, Bob" <{TO}>')
    comma.set_content("see\n")
    found["comma"] = comma.as_bytes()

    message = _simple()
    message.set_content("see\n")
    message.add_attachment(message_from_bytes(found["umlauts"], policy=policy.SMTP), filename="f.eml")
    found["message"] = message.as_bytes()

    invitation = _simple()
    invitation.set_content("come\n")
    invitation.add_alternative("<p>come</p>\n", subtype="html")
    invitation.add_alternative(INVITE, subtype="calendar", params={"method": "REQUEST"}, filename="invite.ics")
    found["invitation"] = invitation.as_bytes()

    return found | more_samples()


def more_samples() -> dict[str, bytes]:
    found = {}
    many = _simple(To=f"{TO}, Carol <carol@example.net>", Cc="dan@example.net", Reply_To="a@x.test, B <b@x.test>")
    many.set_content("hello\n")
    found["many"] = many.as_bytes()

    empty = _simple(Subject="")
    empty.set_content("hello\n")
    found["no subject"] = empty.as_bytes()

    author = _simple(From=f"Ålice <{SENDER}>")
    author.set_content("hello\n")
    found["author"] = author.as_bytes()

    shown = _simple()
    shown.set_content("see\n")
    shown.add_attachment(PNG, maintype="image", subtype="png", disposition="inline", filename="p.png")
    found["shown in the text"] = shown.as_bytes()
    return found


SAMPLES = samples()
MANY = (TO, "carol@example.net", "dan@example.net", "eve@example.net")


def recipients_of(name: str) -> tuple[str, ...]:
    return MANY if name == "many" else (TO,)


def again(parts: Parts) -> bytes:
    files = [*parts.attachments, *([parts.calendar] if parts.calendar else [])]
    return put_together(
        str(parts.author),
        ", ".join(map(str, parts.to)),
        ", ".join(map(str, parts.cc)),
        ", ".join(map(str, parts.reply_to)),
        parts.subject,
        list(parts.headers),
        parts.text or None,
        parts.html or None,
        [(one.name, one.content_type, one.content, one.content_id) for one in files],
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_a_mail_put_together_again_is_the_same_to_a_reader(name: str) -> None:
    assert seen(again(taken(SAMPLES[name], *recipients_of(name)))) == seen(SAMPLES[name])


def test_who_is_in_the_envelope_only_is_a_bcc() -> None:
    parts = taken(SAMPLES["many"], *MANY)
    assert parts.bcc == ("eve@example.net",)
    assert [one.address for one in (*parts.to, *parts.cc)] == list(MANY[:3])
    assert parts.reply_to == (Mailbox("", "a@x.test"), Mailbox("B", "b@x.test"))


def test_a_bcc_line_is_never_said() -> None:
    parts = taken(b"Bcc: eve@example.net\r\n" + HEAD + b"\r\nhello", TO, "eve@example.net")
    assert parts.bcc == ("eve@example.net",)
    assert "bcc" not in {name.lower() for name, _ in parts.headers}


def test_upper_and_lower_case_are_the_same_recipient() -> None:
    assert taken(HEAD + b"\r\nhello", "BOB@EXAMPLE.NET").bcc == ()


def test_lines_that_another_writes_are_left_out_and_all_others_kept() -> None:
    extra = (
        b"Received: from x\r\nReceived: from y\r\nReturn-Path: <a@x>\r\nDKIM-Signature: v=1; d=x\r\n"
        b"DKIM-Signature: v=1; d=y\r\nARC-Seal: i=1\r\nMIME-Version: 1.0\r\nX-A: =?utf-8?q?=C3=A4?=\r\n folded\r\n"
        b"In-Reply-To: <1@x>\r\nDate: Sat, 21 Nov 2026 13:00:00 +0000\r\nDisposition-Notification-To: a@x.test\r\n"
    )
    assert taken(extra + HEAD + b"\r\nhello").headers == (
        ("X-A", "=?utf-8?q?=C3=A4?= folded"),
        ("In-Reply-To", "<1@x>"),
        ("Date", "Sat, 21 Nov 2026 13:00:00 +0000"),
        ("Disposition-Notification-To", "a@x.test"),
    )


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        *(("iso-8859-1", "Grüße"), ("iso-8859-15", "5 €"), ("windows-1252", "“so” €"), ("gb2312", "汉字")),
        *(("koi8-r", "привет"), ("windows-1251", "привет"), ("iso-2022-jp", "漢字かな"), ("shift_jis", "漢字")),
        *(("euc-kr", "한국어"), ("big5", "漢字"), ("utf-8", "😀"), ("utf-16", "ä"), ("us-ascii", "plain")),
    ],
)
def test_texts_are_read_in_their_charset(charset: str, text: str) -> None:
    line = f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    assert taken(HEAD + line.encode() + text.encode(charset)).text == text


@pytest.mark.parametrize(
    ("charset", "content", "text"),
    [
        ("gb2312", "镕".encode("gb18030"), "镕"),  # in GBK only
        ("iso-8859-1", b"\x93so\x94", "“so”"),  # as every reader has it, windows-1252
        ("us-ascii", "Grüße".encode(), "Grüße"),
    ],
)
def test_a_text_of_the_larger_charset_that_readers_take_is_read_as_that(
    charset: str, content: bytes, text: str
) -> None:
    assert taken(HEAD + f"Content-Type: text/plain; charset={charset}\r\n\r\n".encode() + content).text == text


def test_a_text_that_names_no_charset_is_utf8_or_refused() -> None:
    assert taken(HEAD + b"\r\n" + "Grüße".encode()).text == "Grüße"
    with pytest.raises(Unsayable, match="not in the charset"):
        taken(HEAD + b"\r\nGr\xfc\xdfe")


def _multipart(kind: str, *parts: bytes, more: str = "") -> bytes:
    line = f'MIME-Version: 1.0\r\nContent-Type: multipart/{kind}; boundary="=b{kind}"{more}\r\n\r\n'
    bodies = b"".join(b"--=b" + kind.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return line.encode() + bodies + b"--=b" + kind.encode() + b"--\r\n"


TEXT = b"Content-Type: text/plain\r\n\r\nhello"
HTML = b"Content-Type: text/html\r\n\r\n<p>hello <img src='cid:p'></p>"
PICTURE = b"Content-Type: image/png\r\nContent-ID: <p>\r\n\r\nPNG"
FILE = b"Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\nPDF"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        # sealed, signed, reported
        (HEAD + _multipart("signed", TEXT, FILE), "signed part"),
        (HEAD + _multipart("encrypted", TEXT, FILE), "encrypted part"),
        (HEAD + _multipart("report", TEXT, FILE), "a report"),
        (HEAD + b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\r\nx", "S/MIME"),
        (HEAD + _multipart("mixed", TEXT, b"Content-Type: application/x-pkcs7-mime; name=a\r\n\r\nx"), "S/MIME"),
        (HEAD + _multipart("mixed", TEXT, _multipart("signed", TEXT, FILE)), "signed part"),
        # odd structures
        (HEAD + _multipart("mixed", TEXT, TEXT), "a second text"),
        (HEAD + _multipart("mixed", TEXT, FILE, HTML), "a second text"),
        (HEAD + _multipart("mixed", FILE, TEXT), "begins with application/pdf"),
        (HEAD + _multipart("mixed", _multipart("digest", TEXT)), "begins with multipart/digest"),
        (HEAD + _multipart("mixed", TEXT, _multipart("alternative", TEXT, HTML)), "behind its text"),
        (HEAD + _multipart("alternative", HTML, TEXT), "alternatives are text/html, text/plain"),
        (HEAD + _multipart("alternative", TEXT, TEXT), "alternatives are text/plain, text/plain"),
        (HEAD + _multipart("alternative", TEXT, b"Content-Type: text/enriched\r\n\r\nx"), "alternatives is text/enri"),
        (HEAD + _multipart("related", TEXT, PICTURE), "a text without HTML"),
        (HEAD + _multipart("related", HTML, b"Content-Type: image/png\r\n\r\nPNG"), "no Content-ID"),
        (HEAD + _multipart("related", HTML, PICTURE, PICTURE), "the same Content-ID"),
        (HEAD + _multipart("related", HTML, PICTURE, more='; start="<p>"'), "not the one to start with"),
        (
            HEAD + _multipart("related", HTML, PICTURE.replace(b"-ID:", b"-Location: p\r\nContent-ID:")),
            "Content-Location",
        ),
        (HEAD + b"Content-Type: image/png\r\n\r\nPNG", "begins with image/png"),
        (HEAD + _multipart("mixed", TEXT.replace(b"hello", b" ")), "no text"),
        (HEAD + _multipart("mixed", TEXT, FILE.replace(b"PDF", b"")), "nothing in it"),
        (HEAD + b"\r\n \r\n", "no text"),
        # what the parser stumbles over
        (HEAD + _multipart("mixed", TEXT, FILE)[:-14], "its structure is broken"),
        (HEAD + b"Content-Type: multipart/mixed\r\n\r\nx", "its structure is broken"),
        (HEAD + b"no field\r\n\r\nhello", "its structure is broken"),
        (HEAD + b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nx", "content-type twice"),
        (HEAD + b"Content-Transfer-Encoding: base64\r\n\r\naGVsbG8", "in base64 is broken"),
        (HEAD + b"Content-Transfer-Encoding: x-uuencode\r\n\r\nx", "a way that nobody knows"),
        # texts
        (HEAD + b"Content-Type: text/plain; charset=x-none\r\n\r\nx", "a charset that nobody knows"),
        (HEAD + b"Content-Type: text/plain; charset=rot13\r\n\r\nx", "not in the charset"),
        (HEAD + b"Content-Type: text/plain; charset=idna\r\n\r\nx", "a charset that nobody knows"),
        (HEAD + b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xff", "not in the charset"),
        (HEAD + b"\r\nNUL \0", "not in the charset"),
        (HEAD + b"Content-Type: text/plain; format=flowed; delsp=yes\r\n\r\nx", "DelSp"),
        # the header
        (HEAD + b"X-A: 1\r\nx-a: 2\r\n\r\nx", "x-a twice"),
        (HEAD + b"To: carol@example.net\r\n\r\nx", "To twice"),
        (HEAD + b"X-A: \xc3\xa4\r\n\r\nx", "not ASCII"),
        (HEAD + b"X-A: \xe4\r\n\r\nx", "neither ASCII nor UTF-8"),
        (HEAD + b"Resent-From: a@x.test\r\n\r\nx", "sent on"),
        (HEAD + b"Sender: carol@example.org\r\n\r\nx", "Sender is another"),
        (HEAD + b"Cc: bob@example.net\r\n\r\nx", "in its To and in its Cc"),
        (HEAD + b"Cc: carol@example.net\r\n\r\nx", "names carol@example.net, to whom it is not to be sent"),
        (HEAD.replace(b"To:", b"Cc:") + b"\r\nx", "nobody is named in its To"),
        (HEAD.replace(b"bob@example.net", b"undisclosed-recipients:;") + b"\r\nx", "names a group"),
        (HEAD.replace(b"bob@example.net", b"friends: bob@example.net;") + b"\r\nx", "names a group"),
        (HEAD.replace(b"bob@example.net", b"bob@example.net, BOB@example.net") + b"\r\nx", "an address twice"),
        (HEAD.replace(b"bob@example.net", b"b\xc3\xb6b@example.net") + b"\r\nx", "its To"),
        (HEAD.replace(b"bob@example.net", b'"a b"@example.net') + b"\r\nx", "an address that is none"),
        (HEAD.replace(b"bob@example.net", b"bob") + b"\r\nx", "its To"),
        (HEAD.replace(b"Alice <alice@example.org>", b"a@x.test, alice@example.org") + b"\r\nx", "names several"),
        (HEAD.replace(b"From", b"X-From") + b"\r\nx", "it has no From"),
        (HEAD.replace(b": s\r\n", b": =?utf-8?q?a=0Ab?=\r\n") + b"\r\nx", "Subject"),
        (HEAD.replace(b": s\r\n", b": =?x-none?q?=FF?=\r\n") + b"\r\nx", "its Subject is in a charset"),
        (HEAD.replace(b": s\r\n", b": =?utf-8?q?=FF?=\r\n") + b"\r\nx", "its Subject"),
        # Python's parser breaks on these.
        (HEAD.replace(b"bob@example.net", b"=?=") + b"\r\nx", "its To"),
        (HEAD + b"Content-Disposition: attachment; filename*0*=\r\n\r\nx", "content-disposition"),
    ],
)
def test_what_would_be_changed_is_refused_with_the_reason(raw: bytes, why: str) -> None:
    with pytest.raises(Unsayable, match=re.escape(why)):
        taken(raw)


def test_what_breaks_pythons_parser_is_refused_too() -> None:
    with pytest.raises(Unsayable):
        taken(HEAD + b"Content-Type: text/plain; charset*\r\n\r\nx")
    deep = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(900))
    with pytest.raises(Unsayable):
        taken(HEAD + deep + b"\r\nhello")


def test_blanks_between_encoded_words_do_not_count_and_a_letter_may_be_cut_in_two() -> None:
    words = b"=?utf-8?q?K=C3?= =?utf-8?q?=A4?=\r\n =?utf-8*de?b?c2U=?= =?iso-8859-1?q?_=FC?= ok"
    head = HEAD.replace(b"bob@", words + b" <bob@").replace(b"net\r\n", b"net>\r\n").replace(b": s", b": " + words)
    parts = taken(head + b"\r\nhello")
    assert parts.to[0].name == parts.subject == "Käse ü ok"


def test_bounces_that_somebody_else_reads_are_a_reason() -> None:
    with pytest.raises(Unsayable, match=r"bounces are meant for list-bounces@example\.org"):
        taken(HEAD + b"\r\nhello", sender="list-bounces@example.org")
    assert taken(HEAD + b"\r\nhello", sender="").text == "hello"
    assert taken(HEAD + b"\r\nhello", sender="ALICE@example.org").text == "hello"


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + _multipart("alternative", TEXT, _multipart("related", HTML, PICTURE)),
        HEAD + _multipart("related", _multipart("alternative", TEXT, HTML), PICTURE),
        HEAD + _multipart("mixed", _multipart("related", _multipart("alternative", TEXT, HTML), PICTURE), FILE),
        HEAD + _multipart("mixed", _multipart("alternative", TEXT, HTML), PICTURE, FILE),
    ],
)
def test_each_usual_nesting_of_text_html_and_pictures_is_taken(raw: bytes) -> None:
    parts = taken(raw)
    assert (parts.text, parts.html) == ("hello", "<p>hello <img src='cid:p'></p>")
    picture = parts.attachments[0]
    assert (picture.content, picture.content_id, picture.inline) == (b"PNG", "p", True)
    assert leaves(again(parts)) == leaves(raw)


def test_a_content_id_that_nothing_refers_to_is_no_picture_of_the_text() -> None:
    gmail = FILE.replace(b"\r\n\r\n", b"\r\nContent-ID: <f_1>\r\n\r\n")
    assert taken(HEAD + _multipart("mixed", TEXT, gmail)).attachments == (
        Attachment("a.pdf", "application/pdf", (), b"PDF"),
    )


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"attachment; filename*=utf-8''%C3%9Cber%20sicht.pdf", "Über sicht.pdf"),
        (b"attachment; filename*0*=iso-8859-1''%DC; filename*1*=ber.pdf", "Über.pdf"),
        (b'attachment; filename="=?utf-8?b?w5xiZXIucGRm?="', "Über.pdf"),
        (b'attachment; filename="a;b, c\\"d.pdf"', 'a;b, c"d.pdf'),
    ],
)
def test_names_of_attachments_are_read_in_each_way_they_are_written(line: bytes, name: str) -> None:
    part = b"Content-Type: application/pdf\r\nContent-Disposition: " + line + b"\r\n\r\nPDF"
    assert taken(HEAD + _multipart("mixed", TEXT, part)).attachments[0].name == name


def test_an_attached_message_is_taken_out_byte_for_byte() -> None:
    inner = b"X-Odd: a\tb \r\nSubject: " + b"long " * 60 + b"\r\nDKIM-Signature: v=1\r\n\r\n.\r\n  body  \r\n"
    part = b"Content-Type: message/rfc822\r\n\r\n" + inner
    one = taken(HEAD + _multipart("mixed", TEXT, part)).attachments[0]
    assert (one.content, one.name, one.type) == (inner, "message.eml", "message/rfc822")


def test_an_attached_message_that_would_be_written_otherwise_is_refused() -> None:
    part = b"Content-Type: message/rfc822\r\n\r\nX-Odd:no space\r\n\r\nbody\r\n"
    with pytest.raises(Unsayable, match="cannot be taken out as it is"):
        taken(HEAD + _multipart("mixed", TEXT, part))


def test_an_invitation_keeps_its_method() -> None:
    calendar = taken(SAMPLES["invitation"]).calendar
    assert calendar is not None
    assert calendar.content_type == "text/calendar; charset=utf-8; method=REQUEST"


@pytest.mark.parametrize(
    ("mailbox", "written"),
    [
        (Mailbox("", TO), TO),
        (Mailbox("Bøb B", TO), f"Bøb B <{TO}>"),
        (Mailbox("Doe, Bob", TO), f'"Doe, Bob" <{TO}>'),
        (Mailbox('a "b" \\', TO), f'"a \\"b\\" \\\\" <{TO}>'),
    ],
)
def test_a_mailbox_is_written_so_that_it_is_read_as_it_was(mailbox: Mailbox, written: str) -> None:
    assert str(mailbox) == written
    assert getaddresses([written]) == [(mailbox.name, TO)]


def test_an_objection_says_why_and_where_the_mail_can_go() -> None:
    one = shipment(HEAD + b"\r\nbody", "x@y.test")  # not whom its To names
    resend = Resend(Secret("key"))
    words = resend.objection(one)
    assert words.startswith("Resend builds each message anew")
    assert "smtp.resend.com" in words
    fate = resend.send(one)["x@y.test"]
    assert (fate.action, fate.status, fate.diagnostic) == (Action.FAILED, "5.6.3", f"x-drain; {words}")


def test_every_mail_of_the_corpus_is_complete_or_refused_with_a_reason() -> None:
    complete = 0
    for path in CORPUS:
        raw = path.read_bytes()
        for mail in (raw, _with_a_clean_header(raw)):
            message = message_from_bytes(mail)
            lines = [str(line) for name in ("To", "Cc") for line in message.get_all(name, [])]
            recipients = tuple(dict.fromkeys(address for _, address in getaddresses(lines) if "@" in address))
            if parts := _parts_or_none(mail, *recipients):
                complete += 1
                assert leaves(again(parts)) == leaves(mail), path.name
    assert complete >= 60  # of 154; the rest is refused


def _parts_or_none(raw: bytes, *recipients: str) -> Parts | None:
    try:
        return taken(raw, *recipients, sender="")
    except Unsayable as error:
        if len(str(error)) < 10:
            raise
        return None


def _with_a_clean_header(raw: bytes) -> bytes:
    """The same body, under a header with nothing in it to stumble over."""
    head, line_end, body = raw.partition(b"\r\n\r\n" if b"\r\n\r\n" in raw else b"\n\n")
    kept = re.findall(rb"(?im)^(?:content-|mime-)[^\n]*\n(?:[ \t][^\n]*\n)*", head + b"\n")
    return HEAD + b"".join(kept).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + line_end[len(line_end) // 2 :] + body


WORDS = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1, max_size=30).map(
    lambda words: " ".join(words.split()) or "x"
)
LINES = st.lists(
    st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=200), min_size=1, max_size=5
).map(lambda lines: "x" + "\n".join(lines) + "\n")
NAMES = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\"), min_size=1, max_size=40)
FILES = st.lists(
    st.tuples(NAMES, st.sampled_from(["application/pdf", "image/png", "text/csv"]), st.binary(min_size=1)), max_size=3
)


@settings(max_examples=150, deadline=None)
@given(WORDS, WORDS, LINES | st.none(), LINES | st.none(), FILES, st.booleans(), st.sampled_from(["base64", "8bit"]))
def test_whatever_is_written_is_read(
    subject: str,
    name: str,
    text: str | None,
    html: str | None,
    files: list[tuple[str, str, bytes]],
    picture: bool,  # noqa: FBT001  # drawn
    encoding: str,
) -> None:
    if text is None and html is None:
        text = "x\n"
    message = EmailMessage(policy=policy.SMTP)
    message["From"], message["To"], message["Subject"] = SENDER, TO, "s"
    if text is not None:
        message.set_content(text, cte=encoding)
    if html is not None:
        html += '<img src="cid:p@x">\n'
        (message.add_alternative if text is not None else message.set_content)(html, subtype="html", cte=encoding)
        if picture:
            body: Any = message.get_body(("html",))
            body.add_related(PNG, "image", "png", cid="<p@x>", filename="p.png")
    for file, kind, content in files:
        maintype, _, subtype = kind.partition("/")
        message.add_attachment(content, maintype=maintype, subtype=subtype, filename=file)
    # The address and the subject as encoded words of our own: Python's folding loses a blank now and then.
    raw = message.as_bytes().replace(b"Subject: s\r\n", b"Subject: " + _encoded(subject) + b"\r\n", 1)
    raw = raw.replace(b"To: " + TO.encode(), b"To: " + _encoded(name) + b" <" + TO.encode() + b">", 1)
    parts = taken(raw)
    assert parts.subject == subject
    assert parts.to == (Mailbox(name, TO),)
    assert (parts.text, parts.html) == (text or "", html or "")
    shown = [("p.png", "image/png", PNG, "p@x")] if picture and html is not None else []
    expected = [*shown, *[(file, kind, content, "") for file, kind, content in files]]
    assert [(one.name, one.type, one.content, one.content_id) for one in parts.attachments] == expected


def _encoded(words: str) -> bytes:
    return b" ".join(
        b"=?utf-8?q?" + b"".join(b"=%02X" % byte for byte in piece.encode()) + b"?="
        for piece in (words[place : place + 8] for place in range(0, len(words), 8))
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_mail_is_taken_or_refused_and_nothing_else(data: st.DataObject) -> None:
    raw = data.draw(st.sampled_from(list(SAMPLES.values())))
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, min(len(raw), start + 60)))
    damaged = raw[:start] + data.draw(st.binary(max_size=20)) + raw[end:]
    parts = _parts_or_none(damaged, *MANY)
    assert parts is None or parts.text.strip() or parts.html.strip()


@pytest.mark.parametrize("body", [b"x\r\n" * 500_001, b"\r\n--b\r\n" * 1_001])
def test_what_would_take_the_memory_of_the_machine_is_refused_before_it_is_taken_apart(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(Unsayable, match="more lines or parts"):
        taken(HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + body)
    assert time.process_time() - began < 1
