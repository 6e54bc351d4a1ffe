"""LIST without boto3, held against boto3: the request that goes out, and what comes of an answer."""

import datetime
import io
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape

import boto3
import botocore.auth
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from hypothesis import given, settings, strategies as st

from drain.bucket import Bucket
from drain.listing import ListedObject, Page, canonical_query, parsed
from drain.s3http import Http, address, signed
from drain.setting import Secret

KEYS = ("AKIDEXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
NOW = datetime.datetime(2026, 3, 1, 12, 0, 5, tzinfo=datetime.UTC)
SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MOMENT = "2026-03-01T12:00:00.486Z"
ENTRY = (
    f"<Contents><Key>pending/a</Key><Size>3</Size><LastModified>{MOMENT}</LastModified>"
    "<ETag>&quot;ab&quot;</ETag></Contents>"
)
LISTED = ListedObject("pending/a", '"ab"', datetime.datetime(2026, 3, 1, 12, 0, 0, 486000, tzinfo=datetime.UTC), 3)


class Wire:
    """boto3's own client, with its wire cut off: it keeps each request, and answers *body*."""

    def __init__(self, endpoint_url: str) -> None:
        self.sent: list[AWSPreparedRequest] = []
        self.body = answer()
        key, secret = KEYS
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name="auto",
            aws_access_key_id=key,
            aws_secret_access_key=secret.reveal(),
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )
        events: Any = self.client.meta.events
        events.register("before-send.s3", self._answer)

    def _answer(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        self.sent.append(request)
        return AWSResponse(request.url, 200, {}, _Body(self.body))  # type: ignore[arg-type]  # urllib3's is meant

    @property
    def objects(self) -> list[ListedObject]:
        """What `Bucket` makes of the answer where it has boto3 alone."""
        blind = Http(endpoint_url="", bucket="mail", access_key_id="", secret_access_key=Secret(""))
        return next(Bucket(lambda: self.client, blind, "mail").pages(""), [])


class _Body(io.BytesIO):
    def stream(self) -> Iterator[bytes]:
        yield self.read()


@pytest.fixture(scope="module")
def wire() -> Wire:
    return Wire("http://127.0.0.1:1")


def answer(*entries: str, space: str = SPACE, **about: str | None) -> bytes:
    """An answer to LIST, as R2 gives it; *about* changes what it says of itself, or (None) leaves it out."""
    told = {"Name": "mail", "IsTruncated": "false", "Prefix": "", "MaxKeys": "1000", "KeyCount": str(len(entries))}
    lines = "".join(f"<{name}>{value}</{name}>" for name, value in (told | about).items() if value is not None)
    mark = f' xmlns="{space}"' if space else ""
    text = f"<ListBucketResult{mark}>{lines}{''.join(entries)}</ListBucketResult>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


# -- the request --


@pytest.mark.parametrize(
    "url",
    [
        "https://account.eu.r2.cloudflarestorage.com",
        "https://Account.R2.test:443/",
        "HTTP://s3.test:80",
        "http://s3.test:8333/",
        "http://127.0.0.1:9000/cdn-cgi/local/r2/s3",
        "https://s3.test:8443/a/b-c_d.e/",
        "http://[::1]:9000",
        "https://[2001:DB8::2]/s3",
        "https://s3.test.",
    ],
)
@pytest.mark.parametrize("after", ["", "pending/a b+c&d=e%41/ü~*'()"])
def test_the_request_is_the_one_that_boto3_sends(url: str, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW)
    wire = Wire(url)
    more: dict[str, Any] = {"StartAfter": after} if after else {}
    wire.client.list_objects_v2(Bucket="mail", Prefix="pending/", **more)
    _same_request(wire.sent[0], url, "pending/", after)


@given(prefix=st.text(), after=st.text(min_size=1))
def test_any_prefix_and_any_name_are_asked_for_as_boto3_does(wire: Wire, prefix: str, after: str) -> None:
    wire.sent.clear()
    wire.body = answer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: NOW)
        wire.client.list_objects_v2(Bucket="mail", Prefix=prefix, StartAfter=after)
    _same_request(wire.sent[0], "http://127.0.0.1:1", prefix, after)


def _same_request(theirs: AWSPreparedRequest, url: str, prefix: str, after: str) -> None:
    at = address(url, "mail")
    assert at is not None
    query = canonical_query(prefix, after)
    headers = signed(at, "GET", query, *KEYS, NOW.timestamp())
    parts = urlsplit(theirs.url)
    assert (at.path, query.split("&")) == (parts.path, sorted(parts.query.split("&")))
    for name in ("x-amz-date", "x-amz-content-sha256", "authorization"):
        # The signature covers the method, the path, the query and the host.
        sent: Any = theirs.headers[name]
        assert headers[name] == sent.decode()
    usual = 443 if at.tls else 80
    assert (at.tls, at.host, at.port) == (parts.scheme == "https", parts.hostname, parts.port or usual)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3.test",
        "ftp://s3.test",
        "https://user:secret@s3.test",
        "https://s3.test?x=1",
        "https://s3.test/a%20b",
        "https://s3.test/a b",
        "https://s3.test/a//b",
        "https://s3.test/a/../b",
        "https://s3.test/#a",
        "https://s3_x.test",
        "https://s3.te\N{LATIN SMALL LETTER LONG S}t",
        "https://ü.test",
        "https://s3.test:0",
        "https://s3.test:",
        "https://[fe80::1%25eth0]",
        "https://[::1",
        "https://s3.test\n",
        "https://s3.test/\r\nX: y",
    ],
)
def test_an_endpoint_that_needs_interpretation_is_left_to_boto3(url: str) -> None:
    assert address(url, "mail") is None


@pytest.mark.parametrize("bucket", ["", "..", "a/b", "a b", "a?b", "arn:aws:s3:eu:1:accesspoint/x", "ü", "x" * 256])
def test_a_bucket_of_another_form_is_left_to_boto3(bucket: str) -> None:
    assert address("https://s3.test", bucket) is None


def test_the_secret_is_not_in_what_can_be_printed() -> None:
    key, secret = KEYS
    http = Http(endpoint_url="https://s3.test", bucket="mail", access_key_id=key, secret_access_key=secret)
    at = address("https://s3.test", "mail")
    assert at is not None
    shown = repr(http) + repr(vars(http)) + repr(signed(at, "GET", "", key, secret, 0.0))
    assert "AKIDEXAMPLE" in shown
    assert secret.reveal() not in shown


# -- the answer --

# What XML 1.0 can hold (section 2.2), without the three that a parser makes one line end of.
_XML_TEXT = st.text(
    st.characters(
        exclude_categories=["Cs"],
        exclude_characters=[chr(code) for code in range(32) if code != 9] + ["\ufffe", "\uffff"],
    )
)
_ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_MOMENTS = st.datetimes(min_value=datetime.datetime(1970, 1, 1), max_value=datetime.datetime(2999, 1, 1))  # noqa: DTZ001 (given as UTC below)
_FRACTIONS = st.sampled_from([0, 3, 6])


@st.composite
def _contents(draw: Callable[[st.SearchStrategy[Any]], Any], *, encoded: bool) -> str:
    """A line of an answer, its elements in any order and among others."""
    key = draw(
        _ANY_TEXT.map(draw(st.sampled_from([quote, lambda text: quote(text, safe="")]))) if encoded else _XML_TEXT
    )
    moment = draw(_MOMENTS).isoformat(timespec="microseconds")
    digits = draw(_FRACTIONS)
    elements = [
        f"<Key>{draw(st.sampled_from([escape(key), _cdata(key)]))}</Key>",
        f"<LastModified>{moment[: 20 + digits] if digits else moment[:19]}Z</LastModified>",
        f"<ETag>{escape(draw(_XML_TEXT))}</ETag>",
        f"<Size>{draw(st.integers(0, 5 * 2**40))}</Size>",
        *draw(
            st.lists(
                st.sampled_from(
                    [
                        "<StorageClass>STANDARD</StorageClass>",
                        "<!-- a -->",
                        "\n  ",
                        "<Owner><ID>a</ID><Key>b</Key></Owner>",
                    ]
                )
            )
        ),
    ]
    return f"<Contents>{''.join(draw(st.permutations(elements)))}</Contents>"


def _cdata(text: str) -> str:
    return "<![CDATA[" + text.replace("]]>", "]]]]><![CDATA[>") + "]]>"


@pytest.mark.parametrize("encoded", [True, False])
@given(data=st.data(), space=st.sampled_from([SPACE, "", "urn:x"]))
@settings(max_examples=60)
def test_an_answer_gives_the_objects_that_boto3_gives(
    wire: Wire, data: st.DataObject, space: str, *, encoded: bool
) -> None:
    entries = data.draw(st.lists(_contents(encoded=encoded), max_size=4))
    wire.body = answer(*entries, space=space, EncodingType="url" if encoded else None)
    assert parsed(wire.body) == Page(wire.objects, more=False)


@given(key=st.text(st.sampled_from("%+a4Ü é\ufffd&<")))
@settings(max_examples=100)
def test_names_that_are_encoded_badly_are_read_as_boto3_reads_them(wire: Wire, key: str) -> None:
    wire.body = answer(ENTRY.replace("pending/a", escape(key)), EncodingType="url")
    assert parsed(wire.body).objects == wire.objects


def test_more_is_more_only_where_it_says_so() -> None:
    assert parsed(answer(ENTRY, IsTruncated="true")) == Page([LISTED], more=True)
    assert parsed(answer(ENTRY)) == Page([LISTED], more=False)
    assert parsed(answer()) == Page([], more=False)


def test_an_answer_that_is_cut_is_none_wherever_it_is_cut() -> None:
    body = answer(ENTRY, EncodingType="url")
    assert parsed(body) == Page([LISTED], more=False)
    for length in range(len(body)):
        with pytest.raises(SyntaxError):
            parsed(body[:length])


_BOMB = "<!DOCTYPE x [<!ENTITY a '0123456789'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><title>Log in to the network</title>",
        b"<html xmlns='http://www.w3.org/1999/xhtml'><body>Log in</body></html>",
        b"<Error><Code>SlowDown</Code></Error>",
        answer().replace(b"ListBucketResult", b"ListBucketResults"),
        answer().replace(b"ListBucketResult", b"xListBucketResult"),
        answer(Name=None),
        answer(IsTruncated=None),
        answer(KeyCount=None),
        answer(ENTRY, IsTruncated="yes"),
        answer(ENTRY, IsTruncated=""),
        answer(ENTRY, IsTruncated="true</IsTruncated><IsTruncated>false"),
        answer(ENTRY, KeyCount="2"),
        answer(ENTRY, KeyCount="one"),
        answer(IsTruncated="true"),
        # The objects are in another namespace than what tells about them.
        answer(ENTRY.replace("<Contents>", "<Contents xmlns='urn:x'>")),
        answer(ENTRY.replace("<Key>", "<Key>b</Key><Key>")),
        answer(ENTRY.replace("<Key>pending/a</Key>", "")),
        answer(ENTRY.replace("<ETag>&quot;ab&quot;</ETag>", "")),
        answer(ENTRY.replace(">3<", "><")),
        answer(ENTRY.replace(">3<", ">3.0<")),
        answer(ENTRY.replace(MOMENT, "")),
        answer(ENTRY.replace(MOMENT, "2026-03-01T12:00:00.486")),
        answer(ENTRY.replace(MOMENT, "2026-03-01T12:00:00+01:00")),
        answer(ENTRY.replace(MOMENT, "2026-02-30T12:00:00Z")),
        answer(ENTRY.replace(MOMENT, "Sun, 01 Mar 2026 12:00:00 GMT")),
        answer(ENTRY.replace(MOMENT, "1772366400")),
        answer().replace(b"<ListBucketResult", f"{_BOMB}<ListBucketResult".encode()),
        answer(Prefix="&b;").replace(b"<ListBucketResult", f"{_BOMB}<ListBucketResult".encode()),
        f"<?xml version='1.0' encoding='UTF-16'?>{_BOMB}<ListBucketResult/>".encode("utf-16"),
        answer().decode().encode("utf-16"),
        answer(Prefix="&unknown;"),
        answer(Prefix="<a/>" * 60_001),
        answer(Prefix="<a>" * 40_000),
        b"<ListBucketResult>" + b"<a>" * 1_000_000,
        answer(Prefix="\x00"),
        answer(Prefix="\x1b[2J"),
        answer().replace(b"mail", b"\xff\xfe"),
        answer() + answer(),
    ],
    ids=range(39),
)
def test_what_is_not_the_plain_answer_to_list_is_none(body: bytes) -> None:
    with pytest.raises((ValueError, SyntaxError)):
        parsed(body)


def test_a_full_page_with_long_names_and_owners_is_within_the_limits() -> None:
    """A thousand objects whose names are 1,024 bytes, each of them encoded, and all that S3 tells of an object."""
    owner = "<Owner><ID>0123456789abcdef</ID><DisplayName>somebody</DisplayName></Owner>"
    more = f"{owner}<StorageClass>STANDARD</StorageClass><ChecksumAlgorithm>CRC32</ChecksumAlgorithm>"
    entry = ENTRY.replace("pending/a", quote("\x01" * 1024)).replace("</Contents>", f"{more}</Contents>")
    body = answer(*[entry] * 1000, EncodingType="url", IsTruncated="true")
    assert len(body) < 4 * 1024 * 1024
    page = parsed(body)
    assert (len(page.objects), page.more, page.objects[999].key) == (1000, True, "\x01" * 1024)
