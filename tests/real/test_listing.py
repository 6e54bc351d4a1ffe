"""LIST without boto3 at R2's simulator, whose endpoint has a path and whose signatures are checked."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drain import s3client
from drain.bucket import Bucket
from drain.listing import Listing
from drain.s3http import Http
from drain.setting import Secret
from tests.real.r2 import R2


def bucket_of(r2: R2, *, boto3_alone: bool) -> Bucket:
    known: dict[str, Any] = {
        "access_key_id": r2.access_key_id,
        "secret_access_key": Secret(r2.secret_access_key),
    }

    def client() -> Any:
        assert boto3_alone, "boto3 was asked"
        return s3client.client(endpoint_url=r2.endpoint_url, connections=1, **known)

    http = Http(endpoint_url="" if boto3_alone else r2.endpoint_url, bucket=r2.bucket, **known)
    return Bucket(client, http, r2.bucket)


def test_names_of_all_sorts_are_listed_as_boto3_lists_them(r2: R2) -> None:
    names = [
        "a b",
        "a+b",
        "a%2Bb",
        "%",
        "ü",
        "🂡",
        "&<>\"'",
        "=&?#",
        "~*'()!",
        "\\",
        "a//b",
        "x" * 900,
        "é\u0301",
    ]
    for name in names:
        r2.put(f"pending/{name}", name.encode())
    ours, theirs = (list(bucket_of(r2, boto3_alone=alone).pages("pending/")) for alone in (False, True))
    assert ours == theirs
    assert {listed.key for page in ours for listed in page} == {f"pending/{name}" for name in names}


@given(name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_is_a_prefix_and_a_place_to_go_on_from(running_r2: R2, name: str) -> None:
    running_r2.clear()
    for end in ("", "1", "2"):
        running_r2.put(f"pending/{name}{end}", b"")
    ours, theirs = (bucket_of(running_r2, boto3_alone=alone) for alone in (False, True))
    prefix = f"pending/{name}"
    assert list(ours.pages(prefix)) == list(theirs.pages(prefix))
    page = ours._listing.page("pending/", f"{prefix}1")
    assert page is not None
    assert [listed.key for listed in page.objects] == [f"{prefix}2"]


def test_wrong_keys_are_no_answer(r2: R2) -> None:
    known: dict[str, Any] = {"endpoint_url": r2.endpoint_url, "bucket": r2.bucket}
    for key, secret in ((r2.access_key_id, "0" * 64), ("0" * 32, r2.secret_access_key)):
        listing = Listing(Http(**known, access_key_id=key, secret_access_key=Secret(secret)))
        assert listing.page("pending/", "") is None


@pytest.mark.slow
def test_many_pages_are_the_same_pages(r2: R2) -> None:
    for number in range(1100):
        r2.put(f"pending/{number:04}", b"")
    ours, theirs = (list(bucket_of(r2, boto3_alone=alone).pages("pending/")) for alone in (False, True))
    assert [len(page) for page in ours] == [1000, 100]
    assert ours == theirs
