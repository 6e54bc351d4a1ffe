"""drain's S3 client beside boto3's own, at R2's simulator: signatures are checked, names and metadata are R2's."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.real.r2 import R2
from tests.s3_clients import Clients, clients

BODY = b"From: x\r\n\r\n\x00\xff.\r\n"
METADATA = {"to": "alice@example.test", "From": "", "blanks": "a  b", "long": "x" * 1000}
KEYS = [
    "pending/0123abcd",
    "pending/a b+c%20&=#?.eml",
    "pending/ü/\u65e5\u672c/\U0001f600",
    "pending/'quotes\"<&>",
    "pending//double//",
    "pending/~tilde_(brackets)*!",
    "pending/" + "x" * 900,
]


def of(r2: R2, secret: str = "") -> Clients:
    return clients(r2.endpoint_url, r2.access_key_id, secret or r2.secret_access_key)


def same(both: Clients, operation: str, **parameters: Any) -> Any:
    slim, full = both.answers(operation, Bucket="mail", **parameters)
    assert slim == full
    return slim


def test_objects_of_all_names_are_written_listed_read_and_deleted_in_the_same_way(r2: R2) -> None:
    with of(r2) as both:
        for key in KEYS:
            same(both, "put_object", Key=key, Body=BODY, ContentType="message/rfc822", Metadata=METADATA)
            got = same(both, "get_object", Key=key)
            assert got["Body"] == BODY
            assert {name.lower(): value for name, value in got["Metadata"].items()} == {
                name.lower(): value for name, value in METADATA.items()
            }
            assert same(both, "head_object", Key=key)["ContentLength"] == len(BODY)
        listed = same(both, "list_objects_v2", Prefix="pending/")
        assert {entry["Key"] for entry in listed["Contents"]} == set(KEYS)
        assert [
            entry["Key"] for entry in same(both, "list_objects_v2", Prefix="pending/", StartAfter=KEYS[1])["Contents"]
        ] == sorted(key for key in KEYS if key > KEYS[1])
        for key in (KEYS[0], *KEYS):
            same(both, "delete_object", Key=key)
        assert "Contents" not in same(both, "list_objects_v2", Prefix="pending/")
        assert same(both, "get_object", Key=KEYS[0])[:3] == ("refused", 404, "NoSuchKey")
        sent, expected = both.requests()
        assert sent == expected


@pytest.mark.parametrize("key", KEYS)
def test_a_copy_is_made_of_the_version_asked_for_and_of_no_other(r2: R2, key: str) -> None:
    r2.put(key, BODY, {"to": "bob@example.test"})
    with of(r2) as both:
        (listed,) = both.slim.list_objects_v2(Bucket="mail", Prefix=key[:900])["Contents"]
        for name, client in (("slim", both.slim), ("full", both.full)):
            result = client.copy_object(
                Bucket="mail",
                Key=f"processed/{name}",
                CopySource={"Bucket": "mail", "Key": key},
                CopySourceIfUnmodifiedSince=listed["LastModified"] + timedelta(seconds=1),
            )["CopyObjectResult"]
            assert result["ETag"] == listed["ETag"]
            assert r2.get(f"processed/{name}") == (BODY, {"to": "bob@example.test"})
        parameters = {"Key": "processed/x", "CopySource": {"Bucket": "mail", "Key": key}}
        earlier = listed["LastModified"] - timedelta(hours=1)
        refused = same(both, "copy_object", CopySourceIfUnmodifiedSince=earlier, **parameters)
        assert refused[:2] == ("refused", 412)
    assert "processed/x" not in r2.keys()  # noqa: SIM118 (a method of R2's, no mapping's)


def test_what_r2_refuses_is_refused_in_the_same_words(r2: R2) -> None:
    with of(r2) as both:
        same(both, "get_bucket_lifecycle_configuration")
        same(both, "head_object", Key="pending/none")
        same(both, "copy_object", Key="processed/x", CopySource={"Bucket": "mail", "Key": "pending/none"})
        same(both, "put_object", Key="pending/x", Body=b"", Metadata={"words": "w\u00f6rter"})
        same(both, "put_object", Key="pending/x", Body=b"", Metadata={"long": "x" * 9000})
        same(both, "get_object", Key="x" * 1100)
        slim, full = both.answers("list_objects_v2", Bucket="another", Prefix="pending/")
        assert slim == full
        assert slim[:2] == ("refused", 404)
    with of(r2, "wrong") as both:
        assert same(both, "list_objects_v2", Prefix="pending/")[:3] == ("refused", 403, "SignatureDoesNotMatch")
        assert same(both, "head_object", Key="k")[:2] == ("refused", 403)


def test_a_time_is_the_one_that_r2_wrote(r2: R2) -> None:
    r2.put("pending/a", b"x")
    with of(r2) as both:
        (slim,) = same(both, "list_objects_v2", Prefix="pending/")["Contents"]
        head = same(both, "head_object", Key="pending/a")
    assert datetime.fromisoformat(head["LastModified"]) == datetime.fromisoformat(slim["LastModified"]).replace(
        microsecond=0
    )
