"""GET, COPY and DELETE as an ordinary pass asks for them, spoken without boto3 (`s3http` says why).

None, or False, in place of an answer means: ask boto3. That is for an object that
is gone or has changed, for every refusal, for names that would have to be encoded,
and for whatever else is not the plain good answer.
"""

import datetime
import email.utils
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drain.s3http import Http, tree, whole

if TYPE_CHECKING:
    from http.client import HTTPResponse

_META = "x-amz-meta-"
_ABOUT = {"content-encoding", "date", "etag", "last-modified"}
# Nothing to encode in a path or a header, and no segment that a server on the way may take for a direction.
_PLAIN_KEY = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)
_XML_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class Got:
    """What a GET answered. Metadata names are without ``x-amz-meta-``; ``date`` is the server's, if it sent one."""

    etag: str
    last_modified: datetime.datetime
    body: bytes
    metadata: Mapping[str, str]
    date: str | None


class Direct:
    """The everyday requests about objects of one bucket. Calls may come from several threads."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def get(self, key: str, most: int) -> Got | None:
        """The object, if it has at most so many bytes."""

        def take(response: "HTTPResponse") -> Got:
            _require(response, 200)
            size = response.length
            if size is None or size > most:
                raise ValueError("of another size")
            headers = [(name.lower(), value) for name, value in response.getheaders()]
            headers = [(name, value) for name, value in headers if name in _ABOUT or name.startswith(_META)]
            about = dict(headers)
            if len(about) < len(headers) or any("\n" in value for value in about.values()):
                raise ValueError("a header that is there twice, or folded")
            if about.get("content-encoding", "identity") != "identity":
                raise ValueError("other bytes than those that are stored, perhaps")
            metadata = {name.removeprefix(_META): value for name, value in about.items() if name.startswith(_META)}
            # With its length it is read into its place, and no second time into another.
            body = response.read(size)
            moment = email.utils.parsedate_to_datetime(about.get("last-modified", ""))
            if len(body) != size:
                raise ConnectionError("cut")
            if moment.tzinfo is None or not about.get("etag"):
                raise ValueError("not a whole answer")
            return Got(about["etag"], moment, body, metadata, about.get("date"))

        return self._http.ask("GET", take, key=key) if _PLAIN_KEY.fullmatch(key) else None

    def copy(self, key: str, to: str, unmodified_since: datetime.datetime) -> bool:
        """Copies an object with its metadata, unless it was changed at that time or later."""

        def take(response: "HTTPResponse") -> bool:
            _require(response, 200)
            found = tree(whole(response, _XML_LIMIT))
            # S3 may say 200 and fail all the same.
            return _local(found.tag) == "CopyObjectResult" and any(
                _local(one.tag) == "ETag" and one.text for one in found
            )

        if not (_PLAIN_KEY.fullmatch(key) and _PLAIN_KEY.fullmatch(to)):
            return False
        headers = {
            "x-amz-copy-source": f"{self._http.bucket}/{key}",
            "x-amz-copy-source-if-unmodified-since": email.utils.format_datetime(
                unmodified_since.astimezone(datetime.UTC), usegmt=True
            ),
        }
        return bool(self._http.ask("PUT", take, key=to, headers=headers))

    def remove(self, key: str, still: Callable[[], bool]) -> bool:
        """Deletes an object, if *still* says that it may be; whether it is gone.

        Asked for once: by the second time another may have its name.
        """
        if not _PLAIN_KEY.fullmatch(key):
            return False
        return bool(self._http.ask("DELETE", _no_content, key=key, again=False, still=still))


def _no_content(response: "HTTPResponse") -> bool:
    _require(response, 204)
    return not response.read()


def _require(response: "HTTPResponse", status: int) -> None:
    if response.status != status:
        raise ValueError(response.status)


def _local(tag: str) -> str:
    """Without the namespace, which R2 and S3 write and others do not."""
    return tag.rpartition("}")[2]
