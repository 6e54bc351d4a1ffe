"""The client that is made of our part of S3 against the one made of all of it; nothing is sent."""

import ast
import copy
import datetime
import io
from collections.abc import Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import botocore.loaders
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ParamValidationError
from botocore.utils import parse_timestamp
from hypothesis import given, strategies as st

import drain
from drain import s3client, s3model
from tests.s3_clients import Clients, clients

ENDPOINT = "https://abc.r2.example.test/below"
MOMENT = datetime.datetime(2026, 11, 21, 9, 8, 7, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def made() -> Iterator[Clients]:
    with clients(ENDPOINT) as both:
        yield both


@pytest.fixture
def both(made: Clients, monkeypatch: pytest.MonkeyPatch) -> Clients:
    # How often a client tries again depends on what it met before.
    monkeypatch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda self, amount: True)
    for sent in made.sent.values():
        sent.clear()
    return made


class Reply:
    """Answers every request without a server."""

    def __init__(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        self.status = status
        self.body = body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        headers: Any = dict(self.headers)
        return AWSResponse(request.url, self.status, headers, _Raw(b"" if request.method == "HEAD" else self.body))


class _Raw(io.BytesIO):
    def stream(self, amount: int = 1024, **_: Any) -> Iterator[bytes]:
        while piece := self.read(amount):
            yield piece


def answers(both: Clients, reply: Reply, operation: str, **parameters: Any) -> tuple[Any, Any]:
    for client in (both.slim, both.full):
        client.meta.events.register_last("before-send.s3", reply, unique_id="reply")
    try:
        return both.answers(operation, **parameters)
    finally:
        for client in (both.slim, both.full):
            client.meta.events.unregister("before-send.s3", unique_id="reply")


# -- the description --


# As it was before any client was asked: botocore takes the bucket out of the paths in its place.
OURS: Any = copy.deepcopy(s3model.MODELS["service-2"])


def _whole() -> Any:
    return botocore.loaders.Loader().load_service_model("s3", "service-2")


_ABOUT_MEMBERS = ("location", "locationName", "flattened", "streaming", "xmlNamespace", "contextParam")


def _differences(ours: Any, theirs: Any, kind: str, other: str, path: str) -> Iterator[str]:
    """Where a shape of ours does not say what S3's own says; members that ours has not are left out."""
    mine, real = ours["shapes"][kind], theirs["shapes"][other]
    for name in ("type", "payload", "flattened", "timestampFormat"):
        if mine.get(name) != real.get(name):
            yield f"{path}: {name} is {mine.get(name)}, in S3 {real.get(name)}"
    for name in ("member", "key", "value"):
        if name in mine:
            yield from _differences(ours, theirs, mine[name]["shape"], real[name]["shape"], f"{path}.{name}")
    for name, member in mine.get("members", {}).items():
        if name not in real["members"]:
            yield f"{path}.{name} is not in S3"
            continue
        counterpart = real["members"][name]
        for about in _ABOUT_MEMBERS:
            if about == "contextParam" and about not in member:
                continue  # for kinds of buckets that R2 has not
            if member.get(about) != counterpart.get(about):
                yield f"{path}.{name}: {about} is {member.get(about)}, in S3 {counterpart.get(about)}"
        yield from _differences(ours, theirs, member["shape"], counterpart["shape"], f"{path}.{name}")


@pytest.mark.parametrize("operation", OURS["operations"])
def test_what_it_says_of_an_operation_is_what_s3_says(operation: str) -> None:
    ours, theirs = OURS, _whole()
    mine, real = ours["operations"][operation], theirs["operations"][operation]
    assert (mine["name"], mine["http"]["method"], mine["http"]["requestUri"]) == (
        operation,
        real["http"]["method"],
        real["http"]["requestUri"],
    )
    found: list[str] = []
    for side in ("input", "output"):
        if side in mine:
            found += _differences(ours, theirs, mine[side]["shape"], real[side]["shape"], operation)
    assert found == []
    assert set(real.get("input", {}) and theirs["shapes"][real["input"]["shape"]].get("required", [])) == set(
        ours["shapes"][mine["input"]["shape"]]["required"]
    )


def test_it_has_every_operation_that_drain_asks_for() -> None:
    """Whatever is called on a client in drain with a bucket's name."""
    asked = {
        node.func.attr
        for path in Path(drain.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and any(keyword.arg == "Bucket" for keyword in node.keywords)
    }
    assert asked
    client = s3client.client(endpoint_url=ENDPOINT, access_key_id="k", secret_access_key=_secret(), connections=1)
    assert {name for name in asked if not hasattr(client, name)} == set()


def _secret() -> Any:
    from drain.setting import Secret

    return Secret("s")


def test_a_name_that_is_empty_never_goes_out(both: Clients) -> None:
    """It would be a request about the bucket: DELETE of an object, DELETE of the bucket."""
    for operation in ("get_object", "head_object", "delete_object"):
        with pytest.raises(ParamValidationError):
            getattr(both.slim, operation)(Bucket="mail", Key="")
    assert both.sent["slim"] == []


# -- what goes out --

KEYS = [
    "pending/0123abcd",
    "pending/a b+c%20&?=#.eml",
    "pending/ü/日本/\U0001f600",
    "pending//two//slashes/../and/./dots",
    "pending/'quotes\"<&>\\",
    "pending/~tilde_under-score.(brackets)*!",
    "pending/line\nend\ttab\x7f",
    "pending/ trailing ",
    "/leading",
    "x" * 1024,
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("get_object", {}),
        ("head_object", {}),
        ("delete_object", {}),
        ("put_object", {"Body": b"\x00\xff\r\n.", "ContentType": "message/rfc822"}),
    ],
)
def test_a_request_about_an_object_is_the_same(both: Clients, operation: str, more: dict[str, Any], key: str) -> None:
    slim, full = answers(
        both, Reply(204 if operation == "delete_object" else 200), operation, Bucket="mail", Key=key, **more
    )
    assert slim == full
    sent, expected = both.requests()
    assert sent == expected
    assert len(sent) == 1
    assert sent[0]["credential"] == "key/auto/s3/aws4_request"
    assert "host" in sent[0]["signed"]


@pytest.mark.parametrize("key", KEYS)
def test_a_copy_is_asked_for_in_the_same_way(both: Clients, key: str) -> None:
    body = (
        b'<?xml version="1.0"?><CopyObjectResult><ETag>&quot;e&quot;</ETag>'
        b"<LastModified>2026-11-21T09:08:07.123Z</LastModified></CopyObjectResult>"
    )
    for more in ({}, {"MetadataDirective": "REPLACE", "Metadata": {"reason": "no-key", "drain-id": "a b"}}):
        slim, full = answers(
            both,
            Reply(body=body),
            "copy_object",
            Bucket="mail",
            Key="processed/1-x",
            CopySource={"Bucket": "mail", "Key": key},
            CopySourceIfUnmodifiedSince=MOMENT,
            **more,
        )
        assert slim == full
        assert slim["CopyObjectResult"] == {"ETag": '"e"', "LastModified": "2026-11-21T09:08:07.123000+00:00"}
    sent, expected = both.requests()
    assert sent == expected
    assert sent[0]["headers"]["x-amz-copy-source-if-unmodified-since"] == "Sat, 21 Nov 2026 09:08:07 GMT"


@pytest.mark.parametrize(
    "place",
    [{}, {"StartAfter": "pending/ü&+ %"}, {"ContinuationToken": "1/ab+c=="}, {"StartAfter": "x" * 1024}],
)
def test_a_list_is_asked_for_and_read_in_the_same_way(both: Clients, place: dict[str, str]) -> None:
    body = b"""<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>mail</Name>
<Prefix>pending%2F</Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>
<IsTruncated>true</IsTruncated><NextContinuationToken>1/ab+c==</NextContinuationToken>
<Contents><Key>pending%2Fa+b%2B%C3%BC%0A</Key><LastModified>2026-11-21T09:08:07.123Z</LastModified>
<ETag>&quot;abc&quot;</ETag><Size>5368709120</Size><StorageClass>STANDARD</StorageClass></Contents>
<Contents><Key>pending%2Fb</Key><LastModified>2026-11-21T09:08:07Z</LastModified><ETag>"d"</ETag><Size>0</Size>
</Contents></ListBucketResult>"""
    slim, full = answers(both, Reply(body=body), "list_objects_v2", Bucket="mail", Prefix="pending/", **place)
    assert slim == full
    assert [entry["Key"] for entry in slim["Contents"]] == ["pending/a b+ü\n", "pending/b"]
    sent, expected = both.requests()
    assert sent == expected


# -- what comes back --


def test_an_object_is_read_in_the_same_way(both: Clients) -> None:
    reply = Reply(
        body=b"From: x\r\n\r\n\x00\xff",
        ETag='"abc-2"',
        Last_Modified="Sat, 21 Nov 2026 09:08:07 GMT",
        Content_Length="13",
        x_amz_meta_to="alice@example.test",
        X_Amz_Meta_From="b\xc3\xb6b@example.test",
        x_amz_meta_empty="",
        Content_Type="message/rfc822",
    )
    for operation in ("get_object", "head_object"):
        slim, full = answers(both, reply, operation, Bucket="mail", Key="k")
        assert slim == full
        assert slim["LastModified"] == "2026-11-21T09:08:07+00:00"
        assert slim["Metadata"]["to"] == "alice@example.test"
        assert len(slim["Metadata"]) == 3


def _error(code: str, message: str = "words") -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, _error("NoSuchKey")),
        (404, _error("NoSuchBucket")),
        (404, _error("NoSuchLifecycleConfiguration")),
        (404, b""),
        (412, _error("PreconditionFailed")),
        (403, _error("SignatureDoesNotMatch", "w&#246;rter &lt;b&gt;")),
        (403, _error("RequestTimeTooSkewed")),
        (401, b"<html>log in</html>"),
        (400, b"\xff\x00 nothing"),
        (429, _error("TooManyRequests")),
        (500, _error("InternalError")),
        (503, _error("SlowDown")),
        (503, b""),
        (200, _error("InternalError")),  # S3 answers a COPY so once it has begun
        (200, b"<html>log in</html>"),
        (200, b"<ListBucketResult><Contents><Key>cut"),
    ],
)
@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("list_objects_v2", {"Prefix": "pending/"}),
        ("get_object", {"Key": "k"}),
        ("head_object", {"Key": "k"}),
        ("copy_object", {"Key": "k", "CopySource": {"Bucket": "mail", "Key": "l"}}),
        ("put_object", {"Key": "k", "Body": b"x", "ContentType": "text/plain"}),
        ("delete_object", {"Key": "k"}),
        ("get_bucket_lifecycle_configuration", {}),
    ],
)
def test_what_goes_wrong_is_the_same_and_tried_as_often(
    both: Clients, operation: str, parameters: dict[str, Any], status: int, body: bytes
) -> None:
    slim, full = answers(both, Reply(status, body), operation, Bucket="mail", **parameters)
    sent, expected = both.requests()
    if operation == "delete_object":  # by the second time another mail may have the name
        assert (type(slim), len(sent)) == (type(full), 1)
        return
    assert slim == full
    # boto3 asks for the bucket's region after HEAD's 400, which has no words.
    assert sent == [
        request for request in expected if (request["method"], request["url"]) != ("HEAD", f"{ENDPOINT}/mail")
    ]


@pytest.mark.parametrize("status", [301, 302, 307])
@pytest.mark.parametrize("operation", ["get_object", "head_object", "delete_object"])
def test_an_answer_that_points_elsewhere_is_an_error_and_no_search_for_a_region(
    both: Clients, operation: str, status: int
) -> None:
    """With boto3's own model each redirect is answered by a question that is redirected again."""
    reply = Reply(status, Location="https://login.example.test/")
    both.full = both.slim
    slim, _ = answers(both, reply, operation, Bucket="mail", Key="k")
    assert slim[:2] == ("refused", status)
    assert {request["method"] for request in both.sent["slim"]} == {operation.partition("_")[0].upper()}


def test_lifecycle_rules_are_read_in_the_same_way(both: Clients) -> None:
    body = b"""<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Rule><ID>old</ID><Status>Enabled</Status><Prefix>processed/</Prefix><Expiration><Days>7</Days></Expiration></Rule>
<Rule><ID>b</ID><Status>Enabled</Status><Filter><Prefix>pending/</Prefix></Filter>
<Expiration><Date>2026-12-01T00:00:00Z</Date></Expiration></Rule>
<Rule><ID>c</ID><Status>Disabled</Status><Filter><And><Prefix>q/</Prefix></And></Filter></Rule>
</LifecycleConfiguration>"""
    slim, full = answers(both, Reply(body=body), "get_bucket_lifecycle_configuration", Bucket="mail")
    assert slim == full
    assert [rule["ID"] for rule in slim["Rules"]] == ["old", "b", "c"]
    assert slim["Rules"][2]["Filter"]["And"]["Prefix"] == "q/"


# -- times --


@given(st.datetimes(MOMENT.replace(tzinfo=None, year=1971), MOMENT.replace(tzinfo=None, year=2100)))
def test_times_are_read_as_boto3_reads_them(naive: datetime.datetime) -> None:
    moment = naive.replace(tzinfo=datetime.UTC)
    milliseconds = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    for text in (
        milliseconds.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        moment.isoformat(timespec="seconds").replace("+00:00", "Z"),
        format_datetime(moment, usegmt=True),
    ):
        read = s3client._moment(text)
        assert read == parse_timestamp(text)
        assert read.utcoffset() == datetime.timedelta(0)


@pytest.mark.parametrize("text", ["2026-11-21T09:08:07+01:00", "Sat, 21 Nov 2026 09:08:07 +0100", "1795252087"])
def test_a_time_in_another_form_is_left_to_boto3(text: str) -> None:
    assert s3client._moment(text) == parse_timestamp(text)


@pytest.mark.parametrize("text", ["", "Z", "GMT", "soon", "Sat, 99 Nov 2026 09:08:07 GMT", "2026-13-01T00:00:00Z"])
def test_what_is_no_time_fails_as_at_boto3(text: str) -> None:
    with pytest.raises(ValueError, match="timestamp"):
        parse_timestamp(text)
    with pytest.raises(ValueError, match="timestamp"):
        s3client._moment(text)
