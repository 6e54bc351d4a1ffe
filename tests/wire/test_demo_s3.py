"""The embedded S3 server, asked by boto3 as drain asks it."""

import contextlib
import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ResponseStreamingError,
)

from drain.demo.s3 import Fault, S3Server, StoredObject

WHEN = datetime(2026, 3, 1, 12, 0, 0, 486000, tzinfo=UTC)


def client_of(server: S3Server, secret: str = "", **config: Any) -> Any:
    settings: dict[str, Any] = {
        "s3": {"addressing_style": "path"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "retries": {"total_max_attempts": 1},
        "proxies": {},
    }
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name="auto",
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=secret or server.secret_access_key,
        config=Config(**(settings | config)),
    )


@pytest.fixture(scope="module")
def started() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def s3(started: S3Server) -> Iterator[Any]:
    # One for all: boto3 takes longer to make a client than the server to answer it.
    with contextlib.closing(client_of(started)) as client:
        yield client


@pytest.fixture(autouse=True)
def server(started: S3Server) -> S3Server:
    started.objects.clear()
    started.requests.clear()
    started.fault = None
    return started


@contextlib.contextmanager
def refused(code: str, status: int) -> Iterator[pytest.ExceptionInfo[ClientError]]:
    with pytest.raises(ClientError) as caught:
        yield caught
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)


def copy(s3: Any, **more: Any) -> Any:
    return s3.copy_object(Bucket="mail", Key="processed/a", CopySource={"Bucket": "mail", "Key": "pending/a"}, **more)


def listed(answer: Any) -> list[str]:
    return [item["Key"] for item in answer.get("Contents", [])]


def test_list_shows_size_etag_and_milliseconds_in_key_order(server: S3Server, s3: Any) -> None:
    """An entry has what drain decides by, and entries come in the order of their keys."""
    server.objects["pending/b"] = StoredObject(b"two")
    server.objects["pending/a"] = StoredObject(b"one", last_modified=WHEN)
    answer = s3.list_objects_v2(Bucket="mail", Prefix="pending/")
    assert listed(answer) == ["pending/a", "pending/b"]
    first = answer["Contents"][0]
    assert (first["Size"], first["ETag"], first["LastModified"]) == (3, '"f97c5d29941bfb1b2fdab0874906ab82"', WHEN)
    assert (answer["Name"], answer["KeyCount"], answer["IsTruncated"]) == ("mail", 2, False)


def test_list_shows_only_its_prefix(server: S3Server, s3: Any) -> None:
    """Keys that sort before, after or right beside the prefix stay out."""
    for key in ("a", "pending", "pending/x", "pending0", "z"):
        server.objects[key] = StoredObject(b"")
    assert listed(s3.list_objects_v2(Bucket="mail", Prefix="pending/")) == ["pending/x"]


def test_list_of_nothing_has_no_contents(s3: Any) -> None:
    """An empty bucket is an answer with KeyCount 0 and no Contents at all."""
    answer = s3.list_objects_v2(Bucket="mail", Prefix="pending/")
    assert (answer["KeyCount"], answer["IsTruncated"], "Contents" in answer) == (0, False, False)


def test_list_goes_on_where_the_token_says(server: S3Server, s3: Any) -> None:
    """Pages chain to every key once, also when keys before the token went away meanwhile."""
    for number in range(7):
        server.objects[f"pending/{number}"] = StoredObject(b"")
    first = s3.list_objects_v2(Bucket="mail", MaxKeys=3)
    for key in listed(first):
        del server.objects[key]
    second = s3.list_objects_v2(Bucket="mail", MaxKeys=3, ContinuationToken=first["NextContinuationToken"])
    third = s3.list_objects_v2(Bucket="mail", MaxKeys=3, ContinuationToken=second["NextContinuationToken"])
    assert listed(first) + listed(second) + listed(third) == [f"pending/{number}" for number in range(7)]
    assert [page["IsTruncated"] for page in (first, second, third)] == [True, True, False]


def test_list_starts_after_a_key(server: S3Server, s3: Any) -> None:
    """StartAfter leaves that key out, whether it exists or not."""
    for key in ("p/1", "p/2", "p/3"):
        server.objects[key] = StoredObject(b"")
    assert listed(s3.list_objects_v2(Bucket="mail", StartAfter="p/2")) == ["p/3"]
    assert listed(s3.list_objects_v2(Bucket="mail", StartAfter="p/1x")) == ["p/2", "p/3"]


def test_list_returns_a_thousand_at_most(server: S3Server, s3: Any) -> None:
    """A page ends at 1,000 keys, also where more are asked for."""
    for number in range(1001):
        server.objects[f"{number:04}"] = StoredObject(b"")
    answer = s3.list_objects_v2(Bucket="mail", MaxKeys=5000)
    assert (answer["KeyCount"], answer["IsTruncated"]) == (1000, True)


@pytest.mark.parametrize("key", ["a b+c%20&d", "<&>\"'", "ü💌", "~!*()", "a?b#c", "a//b", "k" * 1024])
def test_odd_keys_work_in_every_operation(server: S3Server, s3: Any, key: str) -> None:
    """A key comes back as it was put, and can be copied and deleted."""
    s3.put_object(Bucket="mail", Key=key, Body=b"odd")
    assert listed(s3.list_objects_v2(Bucket="mail")) == [key]
    assert s3.get_object(Bucket="mail", Key=key)["Body"].read() == b"odd"
    s3.copy_object(Bucket="mail", Key="copy", CopySource={"Bucket": "mail", "Key": key})
    s3.delete_objects(Bucket="mail", Delete={"Objects": [{"Key": key}]})
    assert list(server.objects) == ["copy"]


def test_get_returns_the_bytes_and_what_stands_beside_them(server: S3Server, s3: Any) -> None:
    """The body is untouched; Last-Modified has whole seconds, unlike in a listing."""
    server.objects["a"] = StoredObject(b"\0\xff\r\n", {"to": "x@y"}, WHEN)
    answer = s3.get_object(Bucket="mail", Key="a")
    assert answer["Body"].read() == b"\0\xff\r\n"
    assert answer["Metadata"] == {"to": "x@y"}
    assert answer["ETag"] == server.objects["a"].etag
    assert answer["LastModified"] == WHEN.replace(microsecond=0)


def test_head_says_the_same_as_get(server: S3Server, s3: Any) -> None:
    """HEAD has the length and the metadata, and counts as its own operation."""
    server.objects["a"] = StoredObject(b"four", {"to": "x@y"})
    answer = s3.head_object(Bucket="mail", Key="a")
    assert (answer["ContentLength"], answer["Metadata"], answer["ETag"]) == (4, {"to": "x@y"}, server.objects["a"].etag)
    assert server.requests == {"HeadObject": 1}


def test_a_missing_key_is_refused(s3: Any) -> None:
    """GET and COPY say NoSuchKey; HEAD, having no body, only 404."""
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket="mail", Key="pending/a")
    with refused("NoSuchKey", 404):
        copy(s3)
    with refused("404", 404):
        s3.head_object(Bucket="mail", Key="pending/a")


def test_get_honours_if_match(server: S3Server, s3: Any) -> None:
    """An object that is another by now is not handed out."""
    server.objects["a"] = StoredObject(b"one")
    assert s3.get_object(Bucket="mail", Key="a", IfMatch=server.objects["a"].etag)["Body"].read() == b"one"
    with refused("PreconditionFailed", 412):
        s3.get_object(Bucket="mail", Key="a", IfMatch='"other"')


def test_put_stores_body_and_metadata(server: S3Server, s3: Any) -> None:
    """Names of metadata come back in lower case."""
    answer = s3.put_object(Bucket="mail", Key="a", Body=b"one", Metadata={"To": "x@y"})
    stored = server.objects["a"]
    assert (stored.body, stored.metadata, stored.etag) == (b"one", {"to": "x@y"}, answer["ETag"])


def test_put_if_none_match_never_overwrites(server: S3Server, s3: Any) -> None:
    """Of many writers at once exactly one wins."""

    def put(body: bytes) -> bool:
        with contextlib.suppress(s3.exceptions.from_code("PreconditionFailed")):
            s3.put_object(Bucket="mail", Key="a", Body=body, IfNoneMatch="*")
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(put, [b"%d" % number for number in range(8)]))
    assert won.count(True) == 1
    assert server.objects["a"].body == b"%d" % won.index(True)


def test_a_chunked_upload_is_refused(server: S3Server, s3: Any) -> None:
    """A client with boto3's own checksums on is told so rather than stored with its frames."""
    with refused("NotImplemented", 501):
        s3.put_object(Bucket="mail", Key="a", Body=b"one", ContentEncoding="aws-chunked")
    assert not server.objects


def test_copy_keeps_metadata_unless_it_is_replaced(server: S3Server, s3: Any) -> None:
    """COPY takes the source's metadata, REPLACE the request's; the body and ETag stay."""
    server.objects["pending/a"] = source = StoredObject(b"one", {"to": "x@y"}, WHEN)
    copy(s3)
    assert server.objects["processed/a"].metadata == {"to": "x@y"}
    answer = copy(s3, MetadataDirective="REPLACE", Metadata={"reason": "odd"})
    assert server.objects["processed/a"].metadata == {"reason": "odd"}
    assert answer["CopyObjectResult"]["ETag"] == source.etag == server.objects["processed/a"].etag
    assert server.objects["processed/a"].last_modified > WHEN


def test_copy_if_match_refuses_another_body(server: S3Server, s3: Any) -> None:
    """An object that was overwritten since is not copied; an equal one is."""
    server.objects["pending/a"] = opened = StoredObject(b"one")
    copy(s3, CopySourceIfMatch=opened.etag)
    server.objects["pending/a"] = StoredObject(b"two")
    with refused("PreconditionFailed", 412):
        copy(s3, CopySourceIfMatch=opened.etag)


def test_copy_if_unmodified_since_wants_a_later_second(server: S3Server, s3: Any) -> None:
    """R2 copies only what is older than the second given; its own second does not pass."""
    server.objects["pending/a"] = StoredObject(b"one", last_modified=WHEN)
    copy(s3, CopySourceIfUnmodifiedSince=WHEN + timedelta(seconds=1))
    with refused("PreconditionFailed", 412):
        copy(s3, CopySourceIfUnmodifiedSince=WHEN)


def test_a_match_outweighs_the_date(server: S3Server, s3: Any) -> None:
    """With both conditions the ETag alone decides."""
    server.objects["pending/a"] = StoredObject(b"one", last_modified=WHEN)
    early, late = WHEN - timedelta(hours=1), WHEN + timedelta(hours=1)
    copy(s3, CopySourceIfMatch=server.objects["pending/a"].etag, CopySourceIfUnmodifiedSince=early)
    with refused("PreconditionFailed", 412):
        copy(s3, CopySourceIfMatch='"other"', CopySourceIfUnmodifiedSince=late)


def test_delete_takes_an_object_away_or_does_nothing(server: S3Server, s3: Any) -> None:
    """Deleting what is not there is no error."""
    server.objects["a"] = StoredObject(b"")
    s3.delete_object(Bucket="mail", Key="a")
    s3.delete_object(Bucket="mail", Key="a")
    assert not server.objects


def test_delete_objects_takes_many_away(server: S3Server, s3: Any) -> None:
    """Each key is reported, whether it was there or not."""
    server.objects["a"] = server.objects["b"] = server.objects["c"] = StoredObject(b"")
    answer = s3.delete_objects(Bucket="mail", Delete={"Objects": [{"Key": key} for key in ("a", "c", "none")]})
    assert [item["Key"] for item in answer["Deleted"]] == ["a", "c", "none"]
    assert list(server.objects) == ["b"]


def test_a_wrong_secret_is_refused(server: S3Server) -> None:
    """The signature is checked, not only sent."""
    with contextlib.closing(client_of(server, "wrong")) as s3, refused("SignatureDoesNotMatch", 403):
        s3.list_objects_v2(Bucket="mail")


def test_a_wrong_access_key_id_is_refused(server: S3Server) -> None:
    """R2 says 401 Unauthorized where S3 says InvalidAccessKeyId."""
    with contextlib.closing(client_of(server)) as s3:
        server.access_key_id, known = "0" * 32, server.access_key_id
        with refused("Unauthorized", 401):
            s3.list_objects_v2(Bucket="mail")
        server.access_key_id = known


def test_an_unsigned_request_is_refused(server: S3Server) -> None:
    """Nothing is answered without keys."""
    with contextlib.closing(client_of(server, signature_version=UNSIGNED)) as s3, refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket="mail")


@pytest.mark.parametrize("header", ["X-Amz-Copy-Source", "X-Amz-Copy-Source-If-Match"])
def test_a_request_changed_on_its_way_is_refused(server: S3Server, header: str) -> None:
    """The signature covers the headers that say what is done."""

    def change(request: Any, **_: Any) -> None:
        request.headers[header] = "mail/other"

    with contextlib.closing(client_of(server)) as s3:
        s3.meta.events.register("before-send.s3.CopyObject", change)
        with refused("SignatureDoesNotMatch", 403):
            copy(s3, CopySourceIfMatch='"x"')


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_an_hour_off_is_refused(server: S3Server, hours: int) -> None:
    """The words name the clock, since new keys would not help."""

    def shift(request: Any, **_: Any) -> None:
        moment = datetime.now(UTC) + timedelta(hours=hours)
        request.headers["X-Amz-Date"] = moment.strftime("%Y%m%dT%H%M%SZ")

    with contextlib.closing(client_of(server)) as s3:
        s3.meta.events.register("before-send.s3", shift)
        with refused("RequestTimeTooSkewed", 403):
            s3.list_objects_v2(Bucket="mail")


def test_a_missing_bucket_is_refused(s3: Any) -> None:
    """Another bucket does not exist, as a place or as the source of a copy."""
    with refused("NoSuchBucket", 404):
        s3.list_objects_v2(Bucket="other")
    with refused("NoSuchBucket", 404):
        s3.copy_object(Bucket="mail", Key="a", CopySource={"Bucket": "other", "Key": "a"})


def test_what_drain_does_not_use_is_refused(s3: Any) -> None:
    """An operation that is not there says so rather than something else."""
    with refused("NotImplemented", 501):
        s3.list_objects(Bucket="mail")
    with refused("NotImplemented", 501):
        s3.create_multipart_upload(Bucket="mail", Key="a")


def test_requests_are_counted_by_operation(server: S3Server, s3: Any) -> None:
    """The count tells what a poll costs, failures included."""
    s3.put_object(Bucket="mail", Key="pending/a", Body=b"")
    copy(s3)
    s3.list_objects_v2(Bucket="mail")
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket="mail", Key="none")
    assert server.requests == {"PutObject": 1, "CopyObject": 1, "ListObjectsV2": 1, "GetObject": 1}


def test_a_fault_is_asked_for_with_operation_and_key(server: S3Server, s3: Any) -> None:
    """The seam sees every request and lets those through that it returns None for."""
    seen: list[tuple[str, str]] = []
    server.fault = lambda operation, key: seen.append((operation, key))
    s3.put_object(Bucket="mail", Key="pending/a", Body=b"")
    copy(s3)
    s3.list_objects_v2(Bucket="mail")
    assert seen == [("PutObject", "pending/a"), ("CopyObject", "processed/a"), ("ListObjectsV2", "")]


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (429, "TooManyRequests"), (500, "InternalError"), (403, "AccessDenied")]
)
def test_a_status_fault_answers_an_error_and_does_nothing(server: S3Server, s3: Any, status: int, code: str) -> None:
    """The error has its code and words; the operation is not carried out."""
    server.fault = lambda _operation, _key: Fault(status=status, code=code, message="go <away>")
    with refused(code, status) as caught:
        s3.put_object(Bucket="mail", Key="a", Body=b"")
    assert "go <away>" in str(caught.value)
    assert not server.objects


def test_a_body_fault_answers_garbage_with_200(server: S3Server, s3: Any) -> None:
    """What a captive portal says instead of S3 reaches the client as it is."""
    server.fault = lambda _operation, _key: Fault(body=b"<html>Log in, please</html>")
    answer = s3.list_objects_v2(Bucket="mail")
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], "Name" in answer) == (200, False)
    assert s3.get_object(Bucket="mail", Key="none")["Body"].read() == b"<html>Log in, please</html>"


def test_a_cut_breaks_off_within_the_body(server: S3Server, s3: Any) -> None:
    """The headers promise the whole body; the connection ends before it does."""
    server.objects["a"] = StoredObject(b"x" * 1000)
    server.fault = lambda _operation, _key: Fault(cut_after=10)
    answer = s3.get_object(Bucket="mail", Key="a")
    assert answer["ContentLength"] == 1000
    with pytest.raises(ResponseStreamingError, match="10 bytes read, 990 more expected"):
        answer["Body"].read()


def test_a_drop_closes_without_an_answer(server: S3Server, s3: Any) -> None:
    """The client sees a closed connection, and nothing was done."""
    server.objects["a"] = StoredObject(b"")
    server.fault = lambda _operation, _key: Fault(drop=True)
    with pytest.raises(ConnectionClosedError):
        s3.delete_object(Bucket="mail", Key="a")
    assert "a" in server.objects


def test_a_fault_after_loses_only_the_reply(server: S3Server, s3: Any) -> None:
    """COPY and DELETE are done although the client is told, or left to think, otherwise."""
    server.objects["pending/a"] = StoredObject(b"one")
    server.fault = lambda _operation, _key: Fault(status=500, after=True)
    with refused("InternalError", 500):
        copy(s3)
    assert server.objects["processed/a"].body == b"one"
    server.fault = lambda _operation, _key: Fault(drop=True, after=True)
    with pytest.raises(ConnectionClosedError):
        s3.delete_object(Bucket="mail", Key="pending/a")
    assert list(server.objects) == ["processed/a"]


def test_one_connection_serves_many_requests(server: S3Server) -> None:
    """Keep-alive holds, after an error and after a HEAD too."""
    connection = http.client.HTTPConnection(server.endpoint_url.removeprefix("http://"))
    with contextlib.closing(connection):
        connection.connect()
        socket = connection.sock
        for method in ("HEAD", "PUT", "GET"):
            connection.request(method, "/mail/a", body=b"12345")
            assert connection.getresponse().read() == b"" or method != "HEAD"
            assert connection.sock is socket


def test_many_threads_leave_every_object_in_place(s3: Any) -> None:
    """Writers and deleters at once do not disturb the order that LIST relies on."""

    def work(number: int) -> None:
        s3.put_object(Bucket="mail", Key=f"{number}", Body=b"")
        if number % 2:
            s3.delete_object(Bucket="mail", Key=f"{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert listed(s3.list_objects_v2(Bucket="mail")) == sorted(str(number) for number in range(0, 24, 2))


def test_a_stopped_server_answers_nothing_and_comes_back() -> None:
    """An open connection gets no answer either; a restart has the same port and objects."""
    server = S3Server(bucket="other")
    server.start()
    server.objects["a"] = StoredObject(b"")
    with contextlib.closing(client_of(server)) as s3:
        assert listed(s3.list_objects_v2(Bucket="other")) == ["a"]
        server.stop()
        server.stop()
        with pytest.raises((ConnectionClosedError, EndpointConnectionError)):
            s3.list_objects_v2(Bucket="other")
        with pytest.raises(EndpointConnectionError):
            s3.list_objects_v2(Bucket="other")
        server.start()
        assert listed(s3.list_objects_v2(Bucket="other")) == ["a"]
    server.stop()
