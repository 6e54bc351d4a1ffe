import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from drain.filters import hypertext
from drain.filters.digest import digest
from drain.filters.inbound import Inbound
from drain.mail import Mail

CORPUS = Path(__file__).parent / "corpus"
CLOUDFLARE = (
    b"Received: from mx.example.net (203.0.113.7)\r\n        by cloudflare-email.net (unknown) id 4Xq\r\n"
    b"Authentication-Results: mx.cloudflare.net; dkim=pass; dmarc=fail; spf=softfail smtp.mailfrom=x.test\r\n"
    b"X-CF-SpamH-Score: 0\r\n"
)
MIXED = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"


def told(raw: bytes, scope: str = "full_email") -> dict[str, Any]:
    """The digest, which can always be sent."""
    result = digest(Inbound(Mail(raw, "a@example.test", "b@x.test")), scope)
    json.dumps(result, ensure_ascii=False).encode()
    return result


def text(body: bytes, content_type: str = "text/plain; charset=utf-8", encoding: str = "8bit") -> str:
    head = f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    found = told(head + body)
    return str(found["text"] or found["html"])


# -- scopes --


def test_each_scope_tells_what_it_says_and_no_more() -> None:
    raw = MIXED + b"--b\r\n\r\nwords\r\n--b\r\nContent-Type: a/b; name=c.exe\r\n\r\nMZ-CONTENT\r\n--b--\r\n"
    common = {"cloudflare", "subject", "from", "to", "headers", "left_out"}
    assert set(told(raw, "headers")) == common
    assert set(told(raw, "attachments")) == common | {"attachments"}
    assert set(told(raw)) == common | {"attachments", "text", "html"}
    assert "words" not in str(told(raw, "attachments"))
    assert "MZ-CONTENT" not in str(told(raw))


def test_the_header_is_told_in_order_decoded_where_a_person_reads() -> None:
    raw = CLOUDFLARE + b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nfrom: =?utf-8?b?w5w=?=\r\n <a@b.c>\r\n\r\n"
    result = told(raw, "headers")
    assert result["cloudflare"] == "spf=softfail dkim=pass dmarc=fail"
    assert (result["subject"], result["from"], result["to"]) == ("Grüße", "Ü <a@b.c>", "")
    assert [name for name, _ in result["headers"]][-2:] == ["Subject", "from"]
    assert result["headers"][-2][1] == "=?utf-8?q?Gr=C3=BC=C3=9Fe?="
    assert result["left_out"] == []


def test_a_sender_s_results_are_not_taken_for_cloudflare_s() -> None:
    raw = b"Authentication-Results: mx.cloudflare.net; spf=pass; dkim=pass; dmarc=pass\r\n\r\n"
    assert told(raw)["cloudflare"] == "spf=unknown dkim=unknown dmarc=unknown"


def test_a_long_header_and_long_lines_are_cut_and_that_is_said() -> None:
    result = told(b"Subject: x\r\n" + b"X: " + b"y" * 5000 + b"\r\n" + b"Z: zzz\r\n" * 1500 + b"\r\n")
    assert len(result["headers"][1][1]) == 300
    assert sum(len(name) + len(value) for name, value in result["headers"]) <= 8 * 1024
    assert result["left_out"] == ["the last header lines"]


# -- attachments --


def test_attachments_are_told_by_name_type_and_size() -> None:
    encoded = base64.encodebytes(b"x" * 3000).replace(b"\n", b"\r\n")
    raw = (
        MIXED + b"--b\r\n\r\nhello\r\n"
        b"--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename*=UTF-8''R%C3%A9sum%C3%A9.pdf\r\n\r\n" + encoded + b"\r\n"
        b'--b\r\nContent-Type: text/html; name="=?utf-8?q?=C3=BC=2Ehtml?="\r\n\r\n<b>hi\r\n'
        b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx\r\n--b--\r\n"
    )
    first, second, third = told(raw)["attachments"]
    assert (first["name"], first["type"]) == ("Résumé.pdf", "application/pdf")
    assert abs(first["bytes"] - 3000) < 5
    assert (second["name"], second["type"]) == ("ü.html", "text/html")
    assert third["type"] == "message/rfc822"
    assert told(raw)["text"] == "hello"


def test_an_attachment_behind_a_large_one_is_told_too() -> None:
    large = b"--b\r\nContent-Type: image/png; name=a.png\r\n\r\n" + b"A" * 2_000_000 + b"\r\n"
    raw = MIXED + large + b"--b\r\nContent-Type: application/x-msdownload; name=b.exe\r\n\r\nMZ\r\n--b--\r\n"
    assert [part["name"] for part in told(raw)["attachments"]] == ["a.png", "b.exe"]


def test_a_boundary_that_begins_like_another_is_not_taken_for_it() -> None:
    raw = (
        MIXED
        + b"--b\r\nContent-Type: multipart/alternative; boundary=bb\r\n\r\n--bb\r\n\r\ninner\r\n--bb--\r\n--b--\r\n"
    )
    assert told(raw)["text"] == "inner"


# -- text --


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "expected"),
    [
        ("Grüße".encode(), "text/plain; charset=utf-8", "8bit", "Grüße"),
        ("Grüße".encode("latin-1"), "text/plain; charset=iso-8859-1", "8bit", "Grüße"),
        (b"Gr=C3=BC=\r\n=C3=9Fe", "text/plain; charset=utf-8", "quoted-printable", "Grüße"),
        (base64.b64encode("Grüße".encode()), "text/plain; charset=utf-8", "base64", "Grüße"),
        (base64.b64encode(b"Hello, World")[:-3] + b"\xff!", "text/plain", "base64", "Hello, Wo"),
        ("Grüße".encode(), "text/plain; charset=us-ascii", "7bit", "Grüße"),
        (b"a\r\n\r\n \r\n\t\r\n\r\nb", "text/plain", "7bit", "a\n\nb"),
        (b"V\xe2\x80\x8bia\x1b[31m\xe2\x80\xaegra", "text/plain", "8bit", "V ia [31m gra"),
        (b"<p>a<b>b</b>&amp;<br>c</p><style>x{}</style><!-- d -->", "text/html", "7bit", "ab&\nc"),
    ],
)
def test_text_is_decoded_for_reading(body: bytes, content_type: str, encoding: str, expected: str) -> None:
    assert text(body, content_type, encoding) == expected


def test_plain_text_and_html_are_both_told() -> None:
    html = b"--b\r\nContent-Type: text/html\r\n\r\n<p>html\r\n"
    assert told(MIXED + html + b"--b\r\n\r\nplain\r\n--b--\r\n")["text"] == "plain"
    only = told(MIXED + html + b"--b\r\n\r\n \r\n\r\n--b--\r\n")
    assert (only["text"], only["html"]) == ("", "html")
    assert told(MIXED + html + b"--b\r\n\r\nplain\r\n--b--\r\n")["html"] == "html", "it can say something else"


def test_a_long_text_is_cut_and_that_is_said() -> None:
    result = told(b"Subject: x\r\n\r\n" + b"word " * 100_000)
    assert len(result["text"]) == 8 * 1024
    assert result["left_out"] == ["the end of the text"]


@pytest.mark.parametrize("charset", ["x-nonsense", "punycode", "idna", "unicode_escape", "hex", "x\0y", "a" * 500])
def test_a_charset_that_is_none_leaves_the_text_out_and_says_so(charset: str) -> None:
    result = told(f'Content-Type: text/plain; charset="{charset}"\r\n\r\n\\x words'.encode())
    assert result["text"] == ""
    assert "cannot be decoded" in result["left_out"][0]


def test_what_no_boundary_parts_is_told_as_it_is() -> None:
    result = told(MIXED + b"words without a boundary")
    assert result["text"] == "words without a boundary"
    assert result["left_out"] == ["a part that could not be taken apart"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", "a < b"),
        ("<a href='x'>link</a>", "link"),
        ("x<script>if (a<b) {}</script>y", "xy"),
        ("x<SCRIPT>y", "x"),
        ("İİİ<script>x</script>y", "İİİy"),
        ("<!-- <b> -->x<!--", "x"),
        ("&lt;b&gt;", "<b>"),
        ("<", "<"),
        ("", ""),
    ],
)
def test_html_is_reduced_to_its_words(source: str, expected: str) -> None:
    assert hypertext.words(source) == expected


# -- mail that is made to be unreadable --


MANY = 100_000
HOSTILE = {
    "nested": b"".join(b"Content-Type: multipart/x; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(5000)),
    "nested in itself": b"Content-Type: multipart/x; boundary=b\r\n\r\n--b\r\n" * 20_000,
    "parts of nothing": MIXED + b"--b\r\nContent-Type: multipart/x; boundary=c\r\n\r\n" * 20_000,
    "nested mail": b"Content-Type: message/rfc822\r\n\r\n" * 30_000,
    "semicolons": b'Content-Type: multipart/x; x="' + b";" * MANY + b"\r\n\r\n",
    "parameters": b"Content-Type: a/b" + b"".join(b"; name*%d*=%%41" % n for n in range(5000)) + b"\r\n\r\n",
    "delimiters that are none": MIXED + b"x--b" * MANY,
    "dashes": MIXED.replace(b"=b", b"=" + b"-" * 70) + b"-" * MANY * 5,
    "tags": b"Content-Type: text/html\r\n\r\n" + b"<a" * MANY,
    "comments": b"Content-Type: text/html\r\n\r\n" + b"<!--" * MANY,
    "scripts": b"Content-Type: text/html\r\n\r\n" + b"<script></script" * MANY,
    "brackets": b"Content-Type: text/html\r\n\r\n" + b"<" * (MANY // 2),
    "blanks": b"\r\n" + b" " * MANY * 5,
    "lines": b"\r\n" + b"\n" * MANY * 5,
    "encoded words": b"Subject: " + b"=?a?q?" * (MANY // 5) + b"\r\n\r\n",
    "fields": b"a:\r\n" * 10_000,
    "folds": b"Subject: x" + b"\r\n " * MANY,
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_hostile_mail_is_told_of_in_bounded_time_and_size(raw: bytes) -> None:
    begin = time.process_time()
    result = told(raw)
    assert time.process_time() - begin < 2
    assert len(json.dumps(result)) < 200_000


def test_every_mail_of_the_corpus_can_be_told_of() -> None:
    results = [told(path.read_bytes()) for path in sorted(CORPUS.glob("*.eml"))]
    assert len(results) == 77
    assert sum(bool(result["text"] or result["html"]) for result in results) == 68
    assert told((CORPUS / "legacy-003.eml").read_bytes())["text"].startswith("Die Hasen und die Frösche")


PIECES = [
    b"Content-Type:", b"multipart/mixed", b"text/html", b"; boundary=b", b"; charset=", b"\r\n", b"\n", b"--b", b"--",
    b"; name*0*=x''%", b"\xff", b'"', b"<", b"=?", b"?=", b"base64", b"Content-Transfer-Encoding: ", b" ", b"(", b"\0",
    b"Content-Disposition: attachment; filename", b"=", b"\r", b"message/rfc822", b"punycode", b"utf-8", b"'",
]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=5), max_size=60).map(b"".join))
def test_whatever_a_mail_is_made_of_it_can_be_told_of(raw: bytes) -> None:
    assert set(told(raw)) >= {"headers", "attachments", "text", "left_out"}
