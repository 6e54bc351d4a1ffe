"""GET, COPY and DELETE without boto3 at R2's simulator, whose endpoint has a path and whose signatures are checked."""

import dataclasses
import datetime
import time
from typing import Any

from drain.bucket import Bucket, ListedObject
from tests.real.r2 import R2
from tests.real.test_listing import bucket_of

PLAIN = ["a", "a-b_c.eml", "2026/01/a", "-", "_", "x" * 900]
ODD = ["a b", "a+b", "%41", "ü", "&<>", "a//b", ".a", "~*'()!"]


def listed_in(bucket: Bucket, prefix: str = "pending/") -> list[ListedObject]:
    return [listed for page in bucket.pages(prefix) for listed in page]


def fill(r2: R2, names: list[str]) -> None:
    r2.clear()
    for name in names:
        r2.put(f"pending/{name}", name.encode() * 3, {"to": "a@x.test", "From": "=?UTF-8?Q?=C3=BC?=", "empty": ""})


def done(r2: R2, ours: Bucket, names: list[str]) -> tuple[Any, Any]:
    """What a pass asks for of each object, and what is left of all of them."""
    fill(r2, names)
    said: list[Any] = []
    for listed in listed_in(ours):
        fetched = ours.get(listed)
        assert fetched is not None
        assert fetched.version == listed
        said.append((listed.key, fetched.body, fetched.metadata, ours.copy(listed, f"processed/{listed.key}")))
    there = listed_in(ours)
    assert {one.key for one in there} == {f"pending/{name}" for name in names}
    # One that is gone already, or never was, is fine too.
    for one in [there[0], *there, dataclasses.replace(there[0], key="pending/never-there")]:
        ours.remove_version(one, lambda: True)
    left = r2.keys()
    return said, {key: r2.get(key) for key in left}


def test_plain_names_are_done_without_boto3_and_as_by_boto3(r2: R2) -> None:
    said, left = done(r2, bucket_of(r2, boto3_alone=False), PLAIN)
    assert (said, left) == done(r2, bucket_of(r2, boto3_alone=True), PLAIN)
    assert sorted(left) == sorted(f"processed/pending/{name}" for name in PLAIN)
    assert {copied for *_, copied in said} == {True}


def test_odd_names_are_left_to_boto3(r2: R2) -> None:
    theirs = bucket_of(r2, boto3_alone=True)
    mixed = bucket_of(r2, boto3_alone=False)
    mixed._make_client = theirs._make_client
    said, left = done(r2, mixed, [*ODD, *PLAIN])
    assert (said, left) == done(r2, theirs, [*ODD, *PLAIN])
    assert len(left) == len(ODD) + len(PLAIN)


def test_bodies_of_all_sizes_are_whole(r2: R2) -> None:
    ours = bucket_of(r2, boto3_alone=False)
    bodies = {
        f"pending/{size}": bytes(range(256)) * (size // 256) + b"x" * (size % 256) for size in (0, 1, 8192, 999_999)
    }
    for key, body in bodies.items():
        r2.put(key, body)
    found = {listed.key: ours.get(listed) for listed in listed_in(ours)}
    assert {key: one and one.body for key, one in found.items()} == bodies


def test_another_mail_under_the_name_is_not_copied(r2: R2) -> None:
    theirs = bucket_of(r2, boto3_alone=True)
    ours = bucket_of(r2, boto3_alone=False)
    ours._make_client = theirs._make_client
    r2.put("pending/a", b"one")
    (listed,) = listed_in(ours)
    # The question has whole seconds: only what is written later than the next is another.
    while time.time() < listed.last_modified.timestamp() + 2:
        time.sleep(0.05)
    r2.put("pending/a", b"two")
    for bucket in (ours, theirs):
        assert bucket.copy(listed, "processed/a") is False
        assert (
            bucket.copy(ListedObject("pending/b", "", datetime.datetime.now(datetime.UTC), 0), "processed/b") is False
        )
    assert r2.keys() == ["pending/a"]
    assert r2.get("pending/a")[0] == b"two"


def test_what_is_named_is_deleted_and_nothing_else(r2: R2) -> None:
    ours = bucket_of(r2, boto3_alone=False)
    for name in ("a", "a/b", "ab", "stays"):
        r2.put(f"pending/{name}", b"")
    listed = {one.key: one for one in listed_in(ours)}
    ours.remove_version(listed["pending/a"], lambda: True)
    assert r2.keys() == ["pending/a/b", "pending/ab", "pending/stays"]
    ours.remove_version(listed["pending/a/b"], lambda: True)
    assert r2.keys() == ["pending/ab", "pending/stays"]


def test_another_mail_under_the_name_is_not_deleted_where_boto3_is_asked(r2: R2) -> None:
    theirs = bucket_of(r2, boto3_alone=True)
    r2.put("pending/a", b"one")
    (listed,) = listed_in(theirs)
    r2.put("pending/a", b"two")
    theirs.remove_version(listed, lambda: True)
    assert r2.get("pending/a")[0] == b"two"
    (listed,) = listed_in(theirs)
    theirs.remove_version(listed, lambda: True)
    assert r2.keys() == []
