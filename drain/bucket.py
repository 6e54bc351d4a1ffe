"""The bucket, through the S3 API as R2 speaks it.

Nothing of boto3 leaves this file: objects come out as `ListedObject` and
`FetchedObject`, failures as `BucketRefused` and `BucketUnavailable`.
"""

import contextlib
import datetime
import email.utils
import functools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drain import s3client
from drain.errors import BucketUnavailable
from drain.listing import ListedObject as ListedObject, Listing  # noqa: PLC0414 (who has a bucket has these)
from drain.s3errors import NotFound, PreconditionFailed, translated
from drain.s3http import Http
from drain.setting import Secret

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from drain.direct import Direct, Got

_KEY_LIMIT = 1024  # bytes, R2 and S3 alike
OVERWRITE_UNSEEN_SECONDS = 2
# R2 takes 8,192 bytes of custom metadata, its simulator 2,048.
_METADATA_LIMIT = 2000


@dataclass
class FetchedObject:
    """What a GET answered. Metadata names are in lower case, without ``x-amz-meta-``.

    ``age_seconds`` is how long ago it was written, by the server's own clock and
    rounded down; None if the server sent no date. ``body`` is set to nothing by who
    needs it no longer: it can be large, and the rest lives on.
    """

    version: ListedObject
    body: bytes
    metadata: Mapping[str, str]
    age_seconds: float | None


class Bucket:
    """One bucket. Calls may come from several threads."""

    def __init__(self, client: "Callable[[], S3Client]", http: Http, name: str) -> None:
        self._make_client = client
        self._client: S3Client | None = None
        self._making = threading.Lock()
        self._listing = Listing(http)
        self._http = http
        self._name = name

    def load(self) -> "S3Client":
        """boto3's client, which is made when the first asks for it."""
        with self._making:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    @functools.cached_property
    def _direct(self) -> "Direct":
        from drain.direct import Direct  # noqa: PLC0415 (an idle pass asks for no object)

        return Direct(self._http)

    @property
    def _s3(self) -> "S3Client":
        return self._client or self.load()

    def pages(self, prefix: str) -> Iterator[list[ListedObject]]:
        """The objects under *prefix*, a page (at most 1,000) at a time, asked for as they are taken.

        Each page begins after the last name of the one before, not at a
        continuation token: working off a page can take hours.
        """
        after = ""
        while (listed := self._listing.page(prefix, after)) is not None:
            if listed.objects:
                yield listed.objects
                after = listed.objects[-1].key
            if not listed.more:
                return
        yield from self._pages_by_boto3(prefix, after)

    def _pages_by_boto3(self, prefix: str, after: str) -> Iterator[list[ListedObject]]:
        place: dict[str, Any] = {"StartAfter": after} if after else {}
        while True:
            with translated(f"listing {prefix} in bucket {self._name}", listing=True):
                answer = self._s3.list_objects_v2(Bucket=self._name, Prefix=prefix, **place)
            _require(answer, {"IsTruncated", "KeyCount", "Name"}, f"Listing {prefix} in bucket {self._name}")
            page = [_listed(entry) for entry in answer.get("Contents", [])]
            if page:
                yield page
            if not answer["IsTruncated"]:
                return
            # S3 may cut a list before it has found anything; then only a token goes on.
            place = {"StartAfter": page[-1].key} if page else {"ContinuationToken": answer["NextContinuationToken"]}

    def get(self, listed: ListedObject) -> FetchedObject | None:
        """The object as it is now, or None if it is gone or has grown since it was listed.

        ``version`` in the answer is the one fetched, which can be newer than the one listed.
        """
        got = self._direct.get(listed.key, listed.size) or self._got_by_boto3(listed)
        if got is None:
            return None
        version = ListedObject(listed.key, got.etag, got.last_modified, len(got.body))
        if version.etag == listed.etag and version.size != listed.size:
            raise BucketUnavailable(
                f"Fetching {listed.key} gave {version.size} bytes, and listing it {listed.size} for the same version.",
                "Something between this machine and R2 may have changed or cut it. It is asked for again.",
            )
        if version.etag == listed.etag and version.last_modified == _whole_second(listed.last_modified):
            version = listed
        metadata = {name.lower(): value for name, value in got.metadata.items()}
        return FetchedObject(version, got.body, metadata, _age(got, f"Fetching {listed.key}"))

    def _got_by_boto3(self, listed: ListedObject) -> "Got | None":
        from drain.direct import Got  # noqa: PLC0415 (as above)

        try:
            with translated(f"fetching {listed.key}"):
                answer = self._s3.get_object(Bucket=self._name, Key=listed.key)
                # closing(), not the body's own `with`: that hands out the bare stream,
                # whose failures botocore does not translate.
                with contextlib.closing(answer["Body"]) as stream:
                    _require(answer, {"ETag", "LastModified", "ContentLength"}, f"Fetching {listed.key}")
                    if answer["ContentLength"] > listed.size:
                        # Another version than was listed; how much memory it needs was not reckoned with.
                        return None
                    # With its length, it is read into its place; without, newer Pythons join pieces.
                    body = stream.read(answer["ContentLength"])
        except NotFound:
            return None
        if len(body) != answer["ContentLength"]:
            raise BucketUnavailable(
                f"Fetching {listed.key} ended after {len(body)} of {answer['ContentLength']} bytes."
            )
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return Got(answer["ETag"], answer["LastModified"], body, answer["Metadata"], date)

    def find(self, key: str) -> ListedObject | None:
        """The object of that name as a LIST shows it, or the only one whose name begins so."""
        page = next(self.pages(key), [])
        exact = next((listed for listed in page if listed.key == key), None)
        return exact or (page[0] if len(page) == 1 else None)

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Writes an object, over what was there."""
        with translated(f"writing {key}"):
            self._s3.put_object(Bucket=self._name, Key=key, Body=body, ContentType=content_type)

    def lifecycle_rules(self) -> list[Mapping[str, Any]]:
        """The lifecycle rules, in S3's shape; none is fine. At R2 only an admin token may read them."""
        try:
            with translated("reading the lifecycle rules", listing=True):
                answer = self._s3.get_bucket_lifecycle_configuration(Bucket=self._name)
        except NotFound:  # NoSuchLifecycleConfiguration
            return []
        return [dict(rule) for rule in answer.get("Rules", [])]

    def exists(self, key: str) -> bool:
        """Whether there is an object of that name."""
        return self.look(key) is not None

    def look(self, key: str) -> ListedObject | None:
        """The object of that name as HEAD shows it, which is with whole seconds; None if there is none."""
        try:
            with translated(f"looking for {key}"):
                answer = self._s3.head_object(Bucket=self._name, Key=key)
        except NotFound:
            return None
        except PreconditionFailed as error:  # none was made
            raise _not_s3(f"Looking for {key}") from error
        _require(answer, {"ETag", "LastModified", "ContentLength"}, f"Looking for {key}")
        return ListedObject(key, answer["ETag"], answer["LastModified"], answer["ContentLength"])

    def is_unchanged(self, version: ListedObject) -> bool:
        """Whether what lies there now is still that version, to the second."""
        now = self.look(version.key)
        return now is not None and (now.etag, now.last_modified) == (version.etag, _whole_second(version.last_modified))

    def copy(self, version: ListedObject, to: str, metadata: Mapping[str, str] | None = None) -> bool:
        """Copies one version of an object; with *metadata*, in place of its own where that can be stored.

        Whether it is still that version is asked by its date alone: the same mail
        to another recipient has the same ETag, and S3 lets a matching ETag
        overrule the date. HTTP dates have whole seconds, and servers differ in how
        they round: the question is sound for a version that was
        `OVERWRITE_UNSEEN_SECONDS` old when it was fetched, since what is written
        later has a later date.

        Returns:
            False if that version is not there any more (gone, or overwritten by
            another mail, which then stays).
        """
        unmodified_since = _whole_second(version.last_modified) + datetime.timedelta(seconds=1)
        if metadata is None and self._direct.copy(version.key, to, unmodified_since):
            return True
        directive: dict[str, Any] = {}
        if metadata is not None and _storable(metadata):
            directive = {"MetadataDirective": "REPLACE", "Metadata": dict(metadata)}
        try:
            with translated(f"copying {version.key} to {to}"):
                answer = self._s3.copy_object(
                    Bucket=self._name,
                    Key=to,
                    CopySource={"Bucket": self._name, "Key": version.key},
                    CopySourceIfUnmodifiedSince=unmodified_since,
                    **directive,
                )
        except (NotFound, PreconditionFailed):
            return False
        # What is asked for next is to delete the original.
        _require(answer.get("CopyObjectResult", {}), {"ETag"}, f"Copying {version.key}")
        return True

    def remove(self, key: str) -> None:
        """Deletes an object; none of that name is fine too."""
        with _deleting(f"Removing {key}"), translated(f"removing {key}"):
            answer = self._s3.delete_object(Bucket=self._name, Key=key)
        # boto3 takes any page for the answer. S3's is 204, No Content; what is like S3 may say it with 200.
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        is_empty = answer["ResponseMetadata"]["HTTPHeaders"].get("content-length") == "0"
        if status != 204 and not (status == 200 and is_empty):
            raise _not_s3(f"Removing {key}")

    def remove_version(self, version: ListedObject, is_fresh: Callable[[], bool]) -> None:
        """Deletes an object that was copied, at once while it *is_fresh*, else if it is still that version."""
        if self._direct.remove(version.key, is_fresh):
            return
        # Too late, or it is not known whether that was heard: another mail may have the name by now.
        if self.is_unchanged(version):
            self.remove(version.key)


# How the names begin that `moved_name` gives.
IDENTITY = re.compile("^([0-9a-f]{64})-")


def moved_name(prefix: str, identity: str, key: str, from_prefix: str) -> str:
    """``<prefix><identity>-<name>``: a name of its own for each mail, within S3's 1,024 bytes.

    A name too long is cut at its front, which keeps the end (often an extension).
    """
    name = key.removeprefix(from_prefix)
    room = _KEY_LIMIT - len(prefix.encode()) - len(identity) - 1
    return f"{prefix}{identity}-{name.encode()[-room:].decode('utf-8', 'ignore')}"


def connect(
    *, endpoint_url: str, bucket: str, access_key_id: str, secret_access_key: Secret, connections: int
) -> Bucket:
    """The bucket at an endpoint. No request is made yet, and boto3 is loaded when there is one that needs it."""
    client = functools.partial(
        s3client.client,
        endpoint_url=endpoint_url,
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
        connections=connections,
    )
    http = Http(
        endpoint_url=endpoint_url, bucket=bucket, access_key_id=access_key_id, secret_access_key=secret_access_key
    )
    return Bucket(client, http, bucket)


def _require(answer: Mapping[str, Any], names: set[str], what: str) -> None:
    """A captive portal or a wrong address can answer 200 with XML of its own, which parses as an empty answer."""
    if not names <= answer.keys():
        raise _not_s3(what)


def _not_s3(what: str) -> BucketUnavailable:
    return BucketUnavailable(
        f"{what} was answered by something that is not S3.",
        "Check R2_ENDPOINT_URL, and whether this network wants a log-in page.",
    )


@contextlib.contextmanager
def _deleting(what: str) -> Iterator[None]:
    """S3 says that nothing of a name was there as if it had deleted it, and asks no precondition."""
    try:
        yield
    except (NotFound, PreconditionFailed) as error:
        raise _not_s3(what) from error


def _age(got: "Got", what: str) -> float | None:
    if not got.date:
        return None
    try:
        now = email.utils.parsedate_to_datetime(got.date)
        return float((now - got.last_modified).total_seconds())
    except (ValueError, OverflowError, TypeError) as error:  # TypeError: a date without a zone
        raise _not_s3(what) from error


def _listed(entry: Any) -> ListedObject:
    return ListedObject(entry["Key"], entry["ETag"], entry["LastModified"], entry["Size"])


def _whole_second(moment: datetime.datetime) -> datetime.datetime:
    """*moment* as an HTTP date has it: LIST gives milliseconds, GET does not."""
    return moment.replace(microsecond=0)


def _storable(metadata: Mapping[str, str]) -> bool:
    size = sum(len(name) + len(value) for name, value in metadata.items())
    return size <= _METADATA_LIMIT and all(value.isascii() and value.isprintable() for value in metadata.values())
