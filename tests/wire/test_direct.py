"""GET, COPY and DELETE without boto3, over connections that stay, break, stall and lie."""

import contextlib
import datetime
import itertools
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drain import s3client, s3http
from drain.bucket import Bucket, FetchedObject, ListedObject
from drain.demo.s3 import Fault, S3Server, StoredObject
from drain.direct import Direct
from drain.errors import BucketRefused, BucketUnavailable
from drain.s3http import Http
from drain.setting import Secret
from tests.support import LONG_AGO, until
from tests.wire.test_listing import (  # noqa: F401 (_plain_environment is a fixture that acts by itself)
    CLOSE,
    SILENT,
    Line,
    _plain_environment,
    boto3_is_not_asked,
    bucket_of,
    chunked,
    reply,
)

MODIFIED = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"
DATE = "Date: Thu, 01 Jan 2026 01:00:00 GMT"
ABOUT = ('ETag: "e"', MODIFIED, DATE, "x-amz-meta-To: a@x.test")
MAIL = b"Subject: s\r\n\r\nhello\r\n"
GOT = reply(MAIL, "200 OK", *ABOUT)
LISTED = ListedObject("pending/a", '"e"', LONG_AGO, len(MAIL))
COPIED = reply(b"<CopyObjectResult><ETag>&quot;e&quot;</ETag></CopyObjectResult>")
GONE = b"HTTP/1.1 204 No Content\r\n\r\n"
DELETED = reply(b"<DeleteResult><Deleted><Key>pending/a</Key></Deleted></DeleteResult>")
LOOKED = reply(b"", "200 OK", *ABOUT, length=len(MAIL))  # what HEAD says of LISTED
TWO = ["pending/a", "pending/b"]
OTHERS = b"<CopyObjectResult/>", b"<html>Log in</html>", b"", b"<Error><Code>InternalError</Code></Error>"


def direct_of(url: str) -> Direct:
    return Direct(Http(endpoint_url=url, bucket="mail", access_key_id="AK", secret_access_key=Secret("SK")))


@contextlib.contextmanager
def line(script: Callable[[int, int], Any]) -> Iterator[tuple[Line, Direct]]:
    with Line(script) as server:
        yield server, direct_of(server.url)


def buckets_at(url: str) -> tuple[Bucket, Bucket]:
    """The bucket as it is, and with boto3 alone."""
    known: dict[str, Any] = {"access_key_id": "AK", "secret_access_key": Secret("SK")}
    client = s3client.client(endpoint_url=url, connections=1, **known)
    ours, theirs = (
        Bucket(lambda: client, Http(endpoint_url=endpoint, bucket="mail", **known), "mail") for endpoint in (url, "")
    )
    return ours, theirs


def get(ours: Direct, most: int = len(MAIL)) -> bytes | None:
    got = ours.get("pending/a", most)
    return None if got is None else got.body


def copy(ours: Direct) -> bool:
    return ours.copy("pending/a", "processed/a", LONG_AGO)


ASKED: dict[str, tuple[Callable[[Direct], Any], bytes, Any]] = {
    "get": (get, GOT, MAIL),
    "copy": (copy, COPIED, True),
    "delete": (lambda ours: ours.remove("pending/a", lambda: True), GONE, True),
}
every = pytest.mark.parametrize("which", ASKED)


# -- the same as boto3 --


@pytest.fixture(scope="module")
def both(s3_server: S3Server) -> tuple[Bucket, Bucket]:
    return bucket_of(s3_server), bucket_of(s3_server, boto3_alone=True)


def listed_in(bucket: Bucket, prefix: str = "") -> list[ListedObject]:
    return [listed for page in bucket.pages(prefix) for listed in page]


def answered(bucket: Bucket, listed: ListedObject) -> FetchedObject | None:
    """What a GET gives, but for the age, which goes by the second of the asking."""
    fetched = bucket.get(listed)
    if fetched is not None:
        assert fetched.age_seconds is not None
        fetched.age_seconds = None
    return fetched


_NAME = st.text(
    st.sampled_from("abc-._/ +%ü&<") | st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20
)
_VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip)


@given(names=st.sets(_NAME, min_size=1, max_size=4), body=st.binary(max_size=50), value=_VALUE)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_object_is_fetched_copied_and_deleted_as_by_boto3(
    s3_server: S3Server, both: tuple[Bucket, Bucket], names: set[str], body: bytes, value: str
) -> None:
    s3_server.fault = None
    left = []
    for bucket in both:
        s3_server.objects.clear()
        for name in names:
            s3_server.objects[f"pending/{name}"] = StoredObject(body, {"to": value}, last_modified=LONG_AGO)
        found = [answered(bucket, listed) for listed in listed_in(bucket)]
        assert [bucket.copy(listed, f"processed/{listed.key}") for listed in listed_in(bucket)] == [True] * len(names)
        for listed in listed_in(bucket, "pending/"):
            bucket.remove_version(listed, lambda: True)
        left.append((found, {key: (one.body, one.metadata) for key, one in s3_server.objects.items()}))
    assert left[0] == left[1]
    assert set(left[0][1]) == {f"processed/pending/{name}" for name in names}


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 16384, 1_000_000])
def test_a_body_of_any_size_is_taken_whole_and_boto3_is_not_asked(s3: S3Server, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    s3.objects["pending/a"] = StoredObject(body, {"to": "a@x.test"}, last_modified=LONG_AGO)
    bucket = bucket_of(s3)
    bucket._make_client = boto3_is_not_asked
    (listed,) = listed_in(bucket)
    for _ in range(2):
        fetched = bucket.get(listed)
        assert fetched is not None
        assert (fetched.version, fetched.body, fetched.metadata) == (listed, body, {"to": "a@x.test"})
    assert bucket.copy(listed, "processed/a")
    assert bucket.copy(listed, "processed/b")
    bucket.remove_version(listed, lambda: True)
    assert sorted(s3.objects) == ["processed/a", "processed/b"]
    for one in listed_in(bucket):
        bucket.remove_version(one, lambda: True)
    assert dict(s3.objects) == {}
    assert dict(s3.requests) == {"ListObjectsV2": 2, "GetObject": 2, "CopyObject": 2, "DeleteObject": 3}


def test_an_object_that_grew_shrank_changed_or_went_is_what_boto3_says_it_is(
    s3: S3Server, both: tuple[Bucket, Bucket]
) -> None:
    old = StoredObject(b"12345", last_modified=LONG_AGO)
    s3.objects["pending/a"] = old
    (listed,) = listed_in(both[0])
    later = LONG_AGO + datetime.timedelta(seconds=1)
    for now in [b"123456", b"1234", b"", b"54321", b"12345", None]:
        copied = []
        for bucket in both:
            s3.objects.discard("pending/a")
            if now is not None:
                s3.objects["pending/a"] = StoredObject(now, last_modified=later)
            copied.append((answered(bucket, listed), bucket.copy(listed, "processed/a")))
        assert copied[0] == copied[1]
        assert copied[0][1] is False
        fetched = copied[0][0]
        assert fetched is None if now is None or len(now) > 5 else fetched is not None and fetched.body == now
    assert "processed/a" not in s3.objects


def test_where_this_fails_boto3_does_it(s3: S3Server) -> None:
    """Before it deletes anything it is asked whether that is still the version."""
    faults = [Fault(status=503), Fault(drop=True), Fault(drop=True, after=True)]
    for operation, fault in itertools.product(["GetObject", "CopyObject", "DeleteObject"], faults):
        s3.fault = None
        for key in TWO:
            s3.objects[key] = StoredObject(MAIL, last_modified=LONG_AGO)
        bucket = bucket_of(s3)
        listed = listed_in(bucket, "pending/")
        turns = itertools.count(1)
        s3.requests.clear()
        s3.fault = lambda asked, _key, operation=operation, fault=fault, turns=turns: (
            fault if asked == operation and next(turns) == 1 else None
        )
        fetched = [bucket.get(one) for one in listed]
        assert [one and one.body for one in fetched] == [MAIL, MAIL]
        assert all(bucket.copy(one, f"processed/{one.key}") for one in listed)
        for one in listed:
            bucket.remove_version(one, lambda: True)
        assert sorted(s3.objects) == [f"processed/{key}" for key in TWO]
        assert next(turns) > 2
        deletes = operation == "DeleteObject"
        assert s3.requests["HeadObject"] == deletes
        assert s3.requests["DeleteObject"] == 2 + (deletes and not fault.after)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("other", [b"another mail", MAIL])
def test_another_object_that_took_the_name_of_one_whose_delete_went_unanswered_stays(
    s3: S3Server, other: bytes, *, kept: bool
) -> None:
    """The first DELETE was heard; the next, of whichever of the two, would be about the other."""
    s3.objects["pending/a"] = StoredObject(MAIL, last_modified=LONG_AGO)
    bucket = bucket_of(s3)
    (listed,) = listed_in(bucket)
    if not kept:
        bucket = bucket_of(s3)
    later = StoredObject(other, {"to": "b@x.test"}, last_modified=LONG_AGO + datetime.timedelta(seconds=1))
    asked: list[str] = []

    def fault(operation: str, _key: str) -> Fault | None:
        asked.append(operation)
        if asked == ["DeleteObject"]:
            return Fault(drop=True, after=True)
        if len(asked) == 2:
            assert "pending/a" not in s3.objects
            s3.objects["pending/a"] = later
        return None

    s3.fault = fault
    bucket.remove_version(listed, lambda: True)
    assert asked == ["DeleteObject", "HeadObject"]
    assert s3.objects["pending/a"] is later


def test_nor_is_it_where_the_delete_was_not_heard(s3: S3Server) -> None:
    bucket = bucket_of(s3)
    s3.objects["pending/a"] = StoredObject(MAIL, last_modified=LONG_AGO)
    (listed,) = listed_in(bucket)
    later = StoredObject(MAIL, last_modified=LONG_AGO + datetime.timedelta(seconds=1))

    def fault(operation: str, _key: str) -> Fault | None:
        s3.objects["pending/a"] = later
        return Fault(status=503) if operation == "DeleteObject" else None

    s3.fault = fault
    bucket.remove_version(listed, lambda: True)
    assert s3.objects["pending/a"] is later
    assert (s3.requests["DeleteObject"], s3.requests["HeadObject"]) == (1, 1)


def test_a_copy_with_metadata_of_its_own_has_it(both: tuple[Bucket, Bucket], s3: S3Server) -> None:
    for number, bucket in enumerate(both):
        s3.objects["pending/a"] = StoredObject(MAIL, {"to": "a"}, last_modified=LONG_AGO)
        (listed,) = listed_in(bucket, "pending/")
        assert bucket.copy(listed, f"quarantine/{number}", {"to": "a", "reason": "size"})
        assert s3.objects[f"quarantine/{number}"].metadata == {"to": "a", "reason": "size"}


def test_wrong_keys_are_said_in_words(s3: S3Server) -> None:
    bucket = bucket_of(s3, secret="0" * 64)
    s3.objects["pending/a"] = StoredObject(MAIL, last_modified=LONG_AGO)
    with pytest.raises((BucketRefused, BucketUnavailable), match="SignatureDoesNotMatch"):
        bucket.get(LISTED)
    with pytest.raises((BucketRefused, BucketUnavailable), match="SignatureDoesNotMatch"):
        bucket.remove("pending/a")
    with pytest.raises((BucketRefused, BucketUnavailable), match="403"):  # HEAD's answer has no words
        bucket.remove_version(LISTED, lambda: True)
    assert list(s3.objects) == ["pending/a"]


# -- GET: answers that are taken, and those that are not --


@pytest.mark.parametrize(
    "head",
    [
        ["x-amz-meta-to: =?UTF-8?Q?=C3=BC?= <a@x.test>"],
        ["x-amz-meta-to: ü@x.test"],  # Latin-1 bytes
        ["x-amz-meta-to: \x85\x1c\x0b\x80 a"],  # what str.splitlines takes for the end of a line
        ["X-AMZ-META-TO:   a  b  ", "x-amz-meta-:", "x-amz-meta-a: "],
        ["x-amz-meta-to: one", "x-amz-meta-to: two"],
        ["x-amz-meta-to: one", "X-Amz-Meta-To: two"],
        ["x-amz-meta-to: one", "  and two"],
        ["x-amz-meta-to: one\rx-amz-meta-from: two"],
        ["no colon", "x-amz-meta-to: behind it"],
        ["Set-Cookie: a=1", "Set-Cookie: b=2", "x-amz-meta-to: a"],
        ["Content-Encoding: gzip"],
        ["Content-Encoding: identity"],
        ["Content-Type: text/html", "Connection: close"],
    ],
)
def test_metadata_of_all_sorts_is_as_boto3_gives_it(head: list[str]) -> None:
    def answer() -> bytes:
        lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(MAIL)}", *ABOUT[:3], *head, "", ""]
        return "\r\n".join(lines).encode("latin-1") + MAIL

    with Line(lambda _connection, _turn: answer()) as server:
        ours, theirs = buckets_at(server.url)
        found = ours.get(LISTED)
        assert found is not None
        assert found == theirs.get(LISTED)
        assert found.body == MAIL


@pytest.mark.parametrize(
    ("text", "connections"),
    [
        (GOT, 1),
        (reply(MAIL, "200 OK", *ABOUT, "Set-Cookie: a", "Set-Cookie: b"), 1),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + GOT, 1),
        (reply(MAIL, "200 OK", *ABOUT, "Connection: close"), 2),
        (GOT.replace(b"HTTP/1.1", b"HTTP/1.0"), 2),
        (GOT.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Date", b"Connection: keep-alive\r\nDate"), 1),
        (GOT.replace(DATE.encode(), b"X: y"), 1),
        (GOT.replace(b" OK", b""), 1),
    ],
    ids=range(8),
)
def test_a_whole_answer_is_taken_and_its_connection_kept_if_it_stays(text: bytes, connections: int) -> None:
    with line(lambda _connection, _turn: text) as (server, ours):
        assert [get(ours) for _ in range(2)] == [MAIL, MAIL]
        assert server.connections == connections


def _but(old: str, new: str) -> bytes:
    changed = GOT.replace(old.encode(), new.encode())
    assert changed != GOT
    return changed


NOT_TAKEN = {
    "cut": GOT[:-1],
    "cut to nothing": GOT[: -len(MAIL)],
    "cut in its head": GOT[:40],
    "longer than listed": reply(MAIL + b"x", "200 OK", *ABOUT),
    "no length": _but(f"Content-Length: {len(MAIL)}\r\n", ""),
    "length and close": _but(f"Content-Length: {len(MAIL)}", "Connection: close"),
    "chunked": chunked(MAIL).replace(b"\r\n\r\n", b"\r\n" + "\r\n".join(ABOUT).encode() + b"\r\n\r\n", 1),
    "chunked with a length": _but('ETag: "e"', 'ETag: "e"\r\nTransfer-Encoding: chunked'),
    "another coding": _but('ETag: "e"', 'ETag: "e"\r\nTransfer-Encoding: gzip'),
    "two lengths": _but('ETag: "e"', 'ETag: "e"\r\nContent-Length: 3'),
    "the same length twice": _but('ETag: "e"', f'ETag: "e"\r\nContent-Length: {len(MAIL)}'),
    "a list of lengths": _but(f"Length: {len(MAIL)}", f"Length: {len(MAIL)}, {len(MAIL)}"),
    "a length with a sign": _but(f"Length: {len(MAIL)}", f"Length: +{len(MAIL)}"),
    "a length as Python writes it": _but(f"Length: {len(MAIL)}", "Length: 2_1"),
    "a negative length": _but(f"Length: {len(MAIL)}", "Length: -1"),
    "no ETag": _but('ETag: "e"\r\n', ""),
    "an empty ETag": _but('"e"', ""),
    "two ETags": _but('ETag: "e"', 'ETag: "e"\r\nEtag: "f"'),
    "no date of change": _but(MODIFIED + "\r\n", ""),
    "an odd date of change": _but(MODIFIED, "Last-Modified: yesterday"),
    "a date of change without a zone": _but(MODIFIED, MODIFIED.replace("GMT", "-0000")),
    "a date of change past all calendars": _but(MODIFIED, MODIFIED.replace("2026", "99999999999999999999")),
    "two dates of change": _but(MODIFIED, f"{MODIFIED}\r\n{MODIFIED}"),
    "compressed on the way": _but('ETag: "e"', 'ETag: "e"\r\nContent-Encoding: gzip'),
    "a log-in page": reply(b"<html>Log in</html>"),
    "203": _but("200 OK", "203 Non-Authoritative"),
    "206": _but("200 OK", "206 Partial Content"),
    "204": GONE,
    "304": _but("200 OK", "304 Not Modified"),
    "302": reply(b"", "302 Found", "Location: http://192.0.2.1/"),
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + GOT,
    "404": reply(b"<Error><Code>NoSuchKey</Code></Error>", "404 Not Found"),
    "503": reply(b"<Error><Code>SlowDown</Code></Error>", "503 Slow Down"),
    "HTTP/2": GOT.replace(b"HTTP/1.1", b"HTTP/2"),
    "no HTTP": b"220 mail.example.test ESMTP\r\n",
    "nothing": CLOSE,
}


@pytest.mark.parametrize("which", NOT_TAKEN)
def test_what_is_not_the_whole_object_is_not_taken_and_its_connection_is_not_kept(which: str) -> None:
    with line(lambda _connection, _turn: (NOT_TAKEN[which], "close")) as (server, ours):
        assert [get(ours) for _ in range(2)] == [None, None]
        assert server.asked == [(1, 1), (2, 1)]


@pytest.mark.parametrize("which", [which for which in NOT_TAKEN if "cut" not in which])
def test_nor_is_it_where_the_server_keeps_it_open(which: str) -> None:
    with line(lambda connection, _turn: NOT_TAKEN[which] if connection == 1 else GOT) as (server, ours):
        assert [get(ours) for _ in range(2)] == [None, MAIL]
        assert server.asked == [(1, 1), (2, 1)]


@pytest.mark.parametrize("which", ["a date", "-0000", "Thu, 01 Jan 99999999999999999999 00:00:00 GMT"])
def test_a_server_that_does_not_know_the_date_is_not_s3(which: str) -> None:
    """How old a mail is decides whether another may yet take its name unseen."""
    text = _but(DATE, DATE.replace("GMT", "-0000") if which == "-0000" else f"Date: {which}")
    with Line(lambda _connection, _turn: text) as server:
        for bucket in buckets_at(server.url):
            with pytest.raises(BucketUnavailable, match="not S3"):
                bucket.get(LISTED)


def test_the_same_version_with_fewer_bytes_is_refused() -> None:
    """Something on the way has cut it, and written a length to match."""
    with Line(lambda _connection, _turn: reply(MAIL[:-1], "200 OK", *ABOUT)) as server:
        for bucket in buckets_at(server.url):
            with pytest.raises(BucketUnavailable, match="20 bytes, and listing it 21"):
                bucket.get(LISTED)


# -- COPY and DELETE: what is believed --


@pytest.mark.parametrize("space", ["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'])
@pytest.mark.parametrize("form", [reply, chunked])
def test_the_answer_of_s3_is_believed_in_its_forms(space: str, form: Callable[[bytes], bytes]) -> None:
    copied = f'<?xml version="1.0" encoding="UTF-8"?>\n<CopyObjectResult{space}><ETag>"e"</ETag></CopyObjectResult>'
    with line(lambda _connection, _turn: form(copied.encode())) as (server, ours):
        assert copy(ours)
        assert copy(ours)
        assert server.connections == 1


@pytest.mark.parametrize("text", [GONE, reply(b"", "204 No Content"), reply(b"", "204 No Content", DATE)])
def test_a_delete_is_believed_in_its_forms(text: bytes) -> None:
    with line(lambda _connection, _turn: text) as (server, ours):
        assert ours.remove("pending/a", lambda: True)
        assert ours.remove("pending/b", lambda: True)
        assert server.asked == [(1, 1), (1, 2)]
        assert [head.split(" HTTP")[0] for head in server.heads] == [f"DELETE /mail/{key}" for key in TWO]


@pytest.mark.parametrize(
    "text",
    [
        *(reply(body) for body in OTHERS),
        *(COPIED.replace(b"200 OK", status) for status in (b"202 Accepted", b"201 Created", b"302 Found", b"412 No")),
        reply(b"<CopyObjectResult><ETag/></CopyObjectResult>"),
        reply(b"<CopyPartResult><ETag>e</ETag></CopyPartResult>"),
        reply(b"<a><CopyObjectResult><ETag>e</ETag></CopyObjectResult></a>"),
        reply(b"<!DOCTYPE a><CopyObjectResult><ETag>e</ETag></CopyObjectResult>"),
        reply(b"<CopyObjectResult><ETag>" + b"e" * 2_000_000 + b"</ETag></CopyObjectResult>"),
        COPIED[:-1],
        reply(b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>", length=200),
        GONE,
        b"HTTP/1.1 200 OK\r\n\r\n" + COPIED.partition(b"\r\n\r\n")[2],
        DELETED,
    ],
    ids=range(18),
)
def test_a_copy_is_believed_from_s3_alone(text: bytes) -> None:
    with line(lambda _connection, _turn: (text, "close")) as (_, ours):
        assert not copy(ours)


NOT_DELETED = {
    "200": reply(b""),
    "200 in XML": DELETED,
    "a log-in page": reply(b"<html>Log in</html>"),
    "202": reply(b"", "202 Accepted"),
    "302": reply(b"", "302 Found", "Location: http://192.0.2.1/"),
    "307 without a place": reply(b"", "307 Temporary Redirect"),
    "404": reply(b"<Error><Code>NoSuchKey</Code></Error>", "404 Not Found"),
    "404 of something else": reply(b"<html>Not found</html>", "404 Not Found"),
    "412": reply(b"", "412 Precondition Failed"),
}


@pytest.mark.parametrize("which", [*NOT_DELETED, "204 with a body", "204 in chunks", "204 in another coding"])
def test_a_delete_is_believed_from_s3_alone(which: str) -> None:
    with_bodies = {
        "204 with a body": reply(b"<html>", "204 No Content"),
        "204 in chunks": chunked(b"<html>").replace(b"200 OK", b"204 No Content"),
        "204 in another coding": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: gzip\r\n\r\n",
    }
    text = {**NOT_DELETED, **with_bodies}[which]
    with line(lambda _connection, _turn: (text, "close")) as (_, ours):
        assert not ours.remove("pending/a", lambda: True)


@pytest.mark.parametrize("which", [which for which in NOT_DELETED if which != "200"])
def test_nor_is_it_when_boto3_asks(which: str) -> None:
    """But for an empty 200, which some that are like S3 answer."""

    def script(_connection: int, _turn: int) -> tuple[bytes, str]:
        return LOOKED if server.heads[-1].startswith("HEAD ") else NOT_DELETED[which], "close"

    with Line(script) as server:
        for bucket in buckets_at(server.url):
            with pytest.raises(BucketUnavailable):
                bucket.remove_version(LISTED, lambda: True)
            with pytest.raises(BucketUnavailable):
                bucket.remove("pending/a")
        # Each `remove_version` has looked once, and there was no other way to fail than a DELETE's.
        assert [head.split(" HTTP")[0] for head in server.heads].count("HEAD /mail/pending/a") == 2


def test_what_answers_all_with_one_page_is_not_s3() -> None:
    with Line(lambda _connection, _turn: (reply(b"<html>Log in</html>"), "close")) as server:
        for bucket in buckets_at(server.url):
            with pytest.raises(BucketUnavailable, match="not S3"):
                bucket.remove_version(LISTED, lambda: True)


# -- connections --


@pytest.mark.parametrize("which", [which for which in ASKED if which != "delete"])
@pytest.mark.parametrize("cut", [0, 10, -1])
def test_a_connection_that_breaks_in_use_is_replaced_once(which: str, cut: int) -> None:
    ask, good, found = ASKED[which]
    broken = good[:cut] or CLOSE
    with line(lambda _connection, turn: good if turn == 1 else (broken, "close")) as (server, ours):
        assert [ask(ours) for _ in range(2)] == [found, found]
        assert server.asked == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize("cut", [0, 10, -1])
def test_a_delete_whose_connection_breaks_in_use_is_not_asked_again(cut: int) -> None:
    """Only the next goes over a new one. But the end of an empty line need not be waited for."""
    with line(lambda _connection, turn: GONE if turn == 1 else (GONE[:cut] or CLOSE, "close")) as (server, ours):
        assert [ours.remove("pending/a", lambda: True) for _ in range(2)] == [True, cut == -1]
        assert server.asked == [(1, 1), (1, 2)]
        assert ours.remove("pending/b", lambda: True)
        assert server.asked == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize("good", [0, 1])
def test_a_delete_that_stays_without_an_answer_is_not_asked_again(good: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a new connection, and on a kept one that the network may have forgotten."""
    monkeypatch.setattr(s3http, "_BUSY_SECONDS", -1)
    monkeypatch.setattr(s3http, "_KEPT_READ_TIMEOUT_SECONDS" if good else "_READ_TIMEOUT_SECONDS", 0.05)
    with line(lambda _connection, turn: GONE if turn <= good else SILENT) as (server, ours):
        assert [ours.remove("pending/a", lambda: True) for _ in range(good + 1)] == [True] * good + [False]
        assert server.asked == [(1, turn + 1) for turn in range(good + 1)]


@every
def test_a_connection_that_the_server_has_closed_meanwhile_is_not_asked(which: str) -> None:
    """All of them are passed over, not the first alone."""
    ask, good, found = ASKED[which]
    together = threading.Barrier(3)

    def script(connection: int, _turn: int) -> tuple[bytes, str]:
        if connection <= 3:
            together.wait(20)
        return good, "close"

    with line(script) as (server, ours):
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(lambda _: ask(ours), range(3))) == [found] * 3
        until(lambda: len(server.closed) == 3)
        until(lambda: not any(s3http._is_silent(kept) for kept, _ in ours._http._kept))
        assert ask(ours) == found
        assert sorted(server.asked) == [(1, 1), (2, 1), (3, 1), (4, 1)]


@every
@pytest.mark.parametrize("size", [1, 300, 20_000, 200_000])
def test_what_comes_behind_an_answer_is_not_taken_for_the_next(which: str, size: int) -> None:
    """A mail can hold what looks like an answer; and a server can answer twice."""
    ask, good, found = ASKED[which]
    wrong = reply(b"X" * len(MAIL), "200 OK", *ABOUT)
    behind = (wrong * (size // len(wrong) + 1))[:size] if size > 1 else b"\n"

    def script(connection: int, turn: int) -> bytes:
        return good + behind if (connection, turn) == (1, 1) else good

    with line(script) as (server, ours):
        assert ask(ours) == found
        if size >= 20_000:  # more than the first read has taken along
            until(lambda: not s3http._is_silent(ours._http._kept[0][0]))
        assert get(ours) in {MAIL, None}
        assert size < 20_000 or (1, 2) not in server.asked


def test_an_answer_that_comes_too_late_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3http, "_BUSY_SECONDS", -1)
    monkeypatch.setattr(s3http, "_KEPT_READ_TIMEOUT_SECONDS", 0.2)
    late = threading.Event()
    wrong = reply(b"X" * len(MAIL), "200 OK", *ABOUT)

    def script(connection: int, turn: int) -> bytes:
        if (connection, turn) == (1, 2):
            assert late.wait(20)
            return wrong
        return GOT

    with line(script) as (server, ours):
        assert [get(ours) for _ in range(2)] == [MAIL, MAIL]
        late.set()
        monkeypatch.setattr(s3http, "_KEPT_READ_TIMEOUT_SECONDS", 20)
        assert [get(ours) for _ in range(3)] == [MAIL] * 3
        assert server.asked == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (2, 4)]


def test_what_was_too_long_to_be_read_is_not_left_for_the_next() -> None:
    with line(lambda connection, _turn: reply(b"X" * 50_000, "200 OK", *ABOUT) if connection == 1 else GOT) as (
        server,
        ours,
    ):
        assert [get(ours) for _ in range(2)] == [None, MAIL]
        assert server.asked == [(1, 1), (2, 1)]


@pytest.mark.parametrize(("idle", "asked"), [(9, [(1, 1), (1, 2)]), (11, [(1, 1), (1, 2), (2, 1)])])
def test_a_slow_copy_has_its_time_wherever_the_network_is_known_to_work(
    idle: float, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a connection used lately, and on a new one; the server takes longer than an idle one is given."""
    monkeypatch.setattr(s3http, "_KEPT_READ_TIMEOUT_SECONDS", 0.05)
    slow = threading.Event()

    def script(_connection: int, turn: int) -> bytes:
        if len(server.asked) > 1:
            slow.wait(0.5)
        return COPIED

    now = 1_800_000_000.0
    with line(script) as (server, ours):
        ours._http.clock = lambda: now
        assert copy(ours)
        now += idle
        assert copy(ours)
        assert server.asked == asked


def test_after_a_burst_connections_are_used_again_and_closed_when_they_have_aged() -> None:
    together = threading.Barrier(17)

    def script(_connection: int, turn: int) -> bytes:
        if turn == 1 and not aged:
            together.wait(20)
        return GOT

    now, aged = 1_800_000_000.0, False
    with line(script) as (server, ours):
        ours._http.clock = lambda: now
        with ThreadPoolExecutor(17) as pool:
            assert list(pool.map(lambda _: get(ours), range(17))) == [MAIL] * 17
            assert list(pool.map(lambda _: get(ours), range(200))) == [MAIL] * 200
        assert server.connections == len(ours._http._kept) == 17
        now, aged = now + 241, True
        assert get(ours) == MAIL
        until(lambda: sorted(server.closed) == list(range(1, 18)))
        assert len(ours._http._kept) == 1


def test_threads_that_ask_at_once_get_each_its_own(s3: S3Server) -> None:
    count = 500
    for number in range(count):
        s3.objects[f"pending/{number:03}"] = StoredObject(b"%03d" % number * (number + 1), last_modified=LONG_AGO)
    bucket = bucket_of(s3)
    bucket._make_client = boto3_is_not_asked

    def deliver(listed: ListedObject) -> bytes:
        fetched = bucket.get(listed)
        assert fetched is not None
        assert bucket.copy(listed, f"processed/{listed.key}")
        bucket.remove_version(listed, lambda: True)
        return fetched.body

    listed = listed_in(bucket)
    with ThreadPoolExecutor(17) as pool:
        bodies = list(pool.map(deliver, listed))
    assert bodies == [b"%03d" % number * (number + 1) for number in range(count)]
    assert sorted(s3.objects) == [f"processed/pending/{number:03}" for number in range(count)]
    assert len(bucket._direct._http._kept) <= 17


def test_a_large_body_is_in_memory_once(s3: S3Server) -> None:
    size = 25 * 1024 * 1024
    s3.objects["pending/a"] = StoredObject(b"x" * size, last_modified=LONG_AGO)
    ours = bucket_of(s3)._direct
    assert ours.get("pending/a", size) is not None  # what is imported for the first is not counted
    tracemalloc.start()
    try:
        got = ours.get("pending/a", size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got is not None
    assert len(got.body) == size
    assert peak < size * 1.1
