"""GET, COPY and DELETE without boto3, held against boto3: the requests that go out, and what they may be about."""

import datetime
import posixpath
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from hypothesis import given, strategies as st

from drain.direct import _PLAIN_KEY, Direct
from drain.s3http import Http, address, signed
from tests.test_listing import KEYS, NOW, Wire

WHEN = datetime.datetime(2026, 1, 1, 0, 0, 1, tzinfo=datetime.UTC)


class Recorder(Http):
    """Keeps what would be sent, and answers nothing."""

    def __init__(self) -> None:
        super().__init__(endpoint_url="http://s3.test", bucket="mail", access_key_id="AK", secret_access_key=KEYS[1])
        self.sent: list[tuple[str, str, str, dict[str, str]]] = []
        self.again: list[bool] = []

    def ask(self, method: str, take: Any, **more: Any) -> None:
        path = "/mail" + (f"/{more['key']}" if more.get("key") else "")
        self.sent.append((method, path, more.get("query", ""), more.get("headers", {})))
        self.again.append(more.get("again", True))
        assert more.keys() <= {"key", "query", "headers", "again", "still"}


REQUESTS: dict[str, tuple[Callable[[Direct], Any], Callable[[Any], Any]]] = {
    "get": (
        lambda ours: ours.get("pending/a-1.eml", 5),
        lambda client: client.get_object(Bucket="mail", Key="pending/a-1.eml"),
    ),
    "copy": (
        lambda ours: ours.copy("pending/a_b", "processed/0-a_b", WHEN),
        lambda client: client.copy_object(
            Bucket="mail",
            Key="processed/0-a_b",
            CopySource={"Bucket": "mail", "Key": "pending/a_b"},
            CopySourceIfUnmodifiedSince=WHEN,
        ),
    ),
    "delete": (
        lambda ours: ours.remove("pending/a", lambda: True),
        lambda client: client.delete_object(Bucket="mail", Key="pending/a"),
    ),
}


@pytest.mark.parametrize("which", REQUESTS)
def test_a_request_asks_for_what_boto3_asks_for(which: str) -> None:
    """Every header of ours is boto3's, and neither sends a body."""
    ask, ask_boto3 = REQUESTS[which]
    http, wire = Recorder(), Wire("http://s3.test")
    ask(Direct(http))
    try:
        ask_boto3(wire.client)
    except Exception:  # noqa: BLE001 (the answer is a LIST's: what went out is asked about)
        assert wire.sent
    (method, path, query, headers), theirs = http.sent[0], wire.sent[0]
    url = urlsplit(theirs.url)
    assert (method, path) == (theirs.method, url.path)
    assert parse_qs(query, keep_blank_values=True) == parse_qs(url.query, keep_blank_values=True)
    known = {name.lower(): _text(value) for name, value in theirs.headers.items()}
    assert {name for name in headers if headers[name] != known.get(name)} == set()
    asked = {name for name in known if name.startswith(("x-amz-copy", "x-amz-meta", "if-", "x-amz-bypass"))}
    assert asked == {name for name in headers if name.startswith("x-amz")}
    assert not theirs.body
    # By the second time another object may have the name.
    assert http.again == [which != "delete"]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_what_is_asked_besides_is_signed_too() -> None:
    at = address("http://s3.test", "mail")
    assert at is not None
    headers = {"x-amz-copy-source": "mail/a", "x-amz-meta-to": "x"}
    found = signed(at, "PUT", "", *KEYS, NOW.timestamp(), "b", headers)
    names = found["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert names == sorted({*headers, "host", "x-amz-content-sha256", "x-amz-date"})
    others = [
        signed(at, method, "", *KEYS, NOW.timestamp(), key, about)["authorization"]
        for method, key, about in [
            ("PUT", "c", headers),
            ("PUT", "b", {**headers, "x-amz-meta-to": "y"}),
            ("DELETE", "b", headers),
        ]
    ]
    assert len({found["authorization"], *others}) == 4


@pytest.mark.parametrize("hours", [0, 5, -8])
def test_a_date_in_another_zone_is_asked_about_as_the_same_moment(hours: int) -> None:
    http = Recorder()
    zone = datetime.timezone(datetime.timedelta(hours=hours))
    assert not Direct(http).copy("a", "b", WHEN.astimezone(zone))
    assert http.sent[0][3]["x-amz-copy-source-if-unmodified-since"] == "Thu, 01 Jan 2026 00:00:01 GMT"


@given(st.text(st.sampled_from("aZ0._-/ +%&<>?#*~ü\\\r\n'\"") | st.characters(exclude_categories=["Cs"]), max_size=12))
def test_a_plain_name_means_the_same_in_a_path_and_a_header(key: str) -> None:
    if _PLAIN_KEY.fullmatch(key):
        assert key == quote(key, safe="/") == posixpath.normpath(key)


@pytest.mark.parametrize(
    "key",
    ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.b", "a b", "a+b", "a%62", "é", "a\n", "a?b", "a#b", "a&b"],
)
def test_a_name_that_is_not_plain_is_left_to_boto3(key: str) -> None:
    http = Recorder()
    ours = Direct(http)
    assert ours.get(key, 9) is None
    assert not ours.copy(key, "b", WHEN)
    assert not ours.copy("a", key, WHEN)
    assert not ours.remove(key, lambda: True)
    assert http.sent == []


@pytest.mark.parametrize("key", ["a", "pending/a", "pending/2026/01-02_x.eml", "-", "_/0", "x" * 1024])
def test_the_names_that_mail_has_are_plain(key: str) -> None:
    http = Recorder()
    assert Direct(http).get(key, 9) is None
    assert len(http.sent) == 1
