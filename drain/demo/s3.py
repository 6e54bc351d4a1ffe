"""An S3 server in memory, on loopback: R2 for ``drain demo`` and for tests of faults and load.

It speaks what drain uses of the S3 API, path style, in R2's words, and verifies the SigV4
signature of every request, so wrong keys fail here as they do there. Not here: multipart
uploads, ranges, delimiters, signatures in the query.
"""

import base64
import hashlib
import hmac
import re
import secrets
import sys
import threading
from bisect import bisect_left, bisect_right, insort
from collections import Counter, UserDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import cached_property, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

_PAGE_KEYS = 1000  # the most that one LIST returns, whatever max-keys says
_CLOCK_SKEW = timedelta(minutes=15)
_META = "x-amz-meta-"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<scope>\d{8}/[^/]+/s3/aws4_request), *"
    r"SignedHeaders=(?P<headers>[^,]*\bhost\b[^,]*), *Signature=(?P<signature>[0-9a-f]{64})"
)
_REFUSALS = {
    "InvalidArgument": (400, "Authorization"),
    "Unauthorized": (401, "Unauthorized"),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the server's time is too large."),
    "SignatureDoesNotMatch": (403, "The request signature we calculated does not match the one you provided."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold."),
    "NotImplemented": (501, "This is not among what drain uses."),
}


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


@dataclass(frozen=True)
class StoredObject:
    """One object: ``metadata`` with names in lower case, ``last_modified`` in UTC to the ms."""

    body: bytes
    metadata: dict[str, str] = field(default_factory=dict)
    last_modified: datetime = field(default_factory=_now)

    @cached_property
    def etag(self) -> str:
        """The MD5 of the body in hex, in quotes."""
        return f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"'


class Objects(UserDict[str, StoredObject]):
    """The bucket: a dict that keeps its keys sorted, so that a LIST of 100,000 stays cheap."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._ordered: list[str] = []
        super().__init__()

    def __setitem__(self, key: str, item: StoredObject) -> None:
        with self.lock:
            if key not in self.data:
                insort(self._ordered, key)
            self.data[key] = item

    def __delitem__(self, key: str) -> None:
        with self.lock:
            del self.data[key]
            del self._ordered[bisect_left(self._ordered, key)]

    def discard(self, key: str) -> None:
        """Take *key* away where it is there."""
        with self.lock:
            self.pop(key, None)

    def page(self, prefix: str, after: str, limit: int) -> tuple[list[tuple[str, StoredObject]], bool]:
        """At most *limit* objects under *prefix* past the key *after*, and whether more follow."""
        with self.lock:
            first = max(bisect_left(self._ordered, prefix), bisect_right(self._ordered, after))
            keys = self._ordered[first : first + limit + 1]
            page = [(key, self.data[key]) for key in keys if key.startswith(prefix)]
        return page[:limit], len(page) > limit


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request: one of the first four, and perhaps ``after``.

    Attributes:
        status: answered, with ``code`` and ``message``, as an S3 error: 503 SlowDown, 403 …
        body: answered as it is, with 200.
        cut_after: the true answer, the connection closed after so many bytes of its body.
        drop: the connection is closed without an answer.
        after: the operation is carried out first, and only its reply is lost
            (with ``cut_after`` it always is).
    """

    status: int = 0
    code: str = "InternalError"
    message: str = "An injected fault."
    body: bytes | None = None
    cut_after: int | None = None
    drop: bool = False
    after: bool = False


@dataclass(frozen=True)
class _Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class _Refusal(Exception):
    """Carries a key of `_REFUSALS` out of an operation."""


class _Request:
    """One request; ``path`` stays as it was sent, since the signature covers it so."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.path, _, query = target.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.headers = headers
        self.body = body
        self.bucket, _, self.key = unquote(self.path[1:]).partition("/")
        self.operation = self._operation()

    def _operation(self) -> str:
        """The operation's name in the S3 API, or the method where it is none of ours."""
        if not self.key:
            lists = self.method == "GET" and self.query.get("list-type") == "2"
            deletes = self.method == "POST" and "delete" in self.query
            return "ListObjectsV2" if lists else "DeleteObjects" if deletes else self.method
        if self.method == "PUT":
            return "CopyObject" if "x-amz-copy-source" in self.headers else "PutObject"
        return {"GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}.get(self.method, self.method)

    @property
    def metadata(self) -> dict[str, str]:
        return {name.removeprefix(_META): value for name, value in self.headers.items() if name.startswith(_META)}

    def signature(self, secret: str, scope: str, names: str) -> str:
        """The SigV4 signature under *secret* in *scope*, over the headers in *names*."""
        query = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in self.query.items())
        canonical = (
            self.method,
            self.path,
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{' '.join(self.headers.get(name, '').split())}" for name in names.split(";")),
            "",
            names,
            self.headers.get("x-amz-content-sha256", ""),
        )
        digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
        key = f"AWS4{secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = "\n".join(("AWS4-HMAC-SHA256", self.headers["x-amz-date"], scope, digest))
        return hmac.digest(key, text.encode(), "sha256").hex()


class S3Server:
    """One bucket behind an S3 endpoint. A stopped server keeps its objects and its port.

    Attributes:
        endpoint_url: ``http://127.0.0.1:PORT``; "" until `start`.
        objects: what the bucket holds; a test may change it at any time.
        requests: how often each operation was asked for.
        fault: asked before every request, with the operation and the key ("" for LIST and
            DeleteObjects), what is to go wrong; runs in that request's thread, so it may wait.
    """

    def __init__(self, bucket: str = "mail", access_key_id: str = "", secret_access_key: str = "") -> None:
        self.bucket = bucket
        # Made up where not given: any program on the machine can reach loopback.
        self.access_key_id = access_key_id or secrets.token_hex(16)
        self.secret_access_key = secret_access_key or secrets.token_hex(32)
        self.endpoint_url = ""
        self.objects = Objects()
        self.requests: Counter[str] = Counter()
        self.fault: Callable[[str, str], Fault | None] | None = None
        self._listener: _Listener | None = None
        self._port = 0
        self._operations: dict[str, Callable[[_Request], _Reply]] = {
            "ListObjectsV2": self._list_objects,
            "GetObject": self._get_object,
            "HeadObject": self._get_object,  # the handler leaves the body out
            "PutObject": self._put_object,
            "CopyObject": self._copy_object,
            "DeleteObject": self._delete_object,
            "DeleteObjects": self._delete_objects,
        }

    def start(self) -> None:
        """Listen, on a free port the first time."""
        self._listener = _Listener(("127.0.0.1", self._port), partial(_Handler, self))
        self._port = self._listener.server_port
        self.endpoint_url = f"http://127.0.0.1:{self._port}"
        # The interval is how long stop() waits for the loop to notice.
        threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close the port; nothing is answered any more. Safe to call again."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown()
            listener.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answer(self, request: _Request) -> tuple[_Reply | None, int | None]:
        """The reply to *request*, or None for none, and where to cut its body if anywhere."""
        if self._listener is None:
            return None, None  # a connection that was open when we were stopped
        with self.objects.lock:
            self.requests[request.operation] += 1
        fault = self.fault(request.operation, request.key) if self.fault else None
        if fault is None:
            return self._carry_out(request), None
        if fault.cut_after is not None:
            return self._carry_out(request), fault.cut_after
        if fault.after:
            self._carry_out(request)
        if fault.drop:
            return None, None
        if fault.body is not None:
            return _Reply(200, fault.body), None
        return _error(fault.status, fault.code, fault.message), None

    def _carry_out(self, request: _Request) -> _Reply:
        try:
            self._authenticate(request)
            if request.operation not in self._operations:
                raise _Refusal("NotImplemented")
            return self._operations[request.operation](request)
        except _Refusal as refusal:
            code = str(refusal)
            status, message = _REFUSALS[code]
            return _error(status, code, message)

    def _authenticate(self, request: _Request) -> None:
        # In R2's order: of several things wrong, the first is what the client is told.
        if request.bucket != self.bucket:
            raise _Refusal("NoSuchBucket")
        given = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        date = request.headers.get("x-amz-date", "")
        if given is None or re.fullmatch(r"\d{8}T\d{6}Z", date) is None:
            raise _Refusal("InvalidArgument")
        if abs(datetime.now(UTC) - datetime.strptime(date, "%Y%m%dT%H%M%S%z")) > _CLOCK_SKEW:
            raise _Refusal("RequestTimeTooSkewed")
        if given["id"] != self.access_key_id:
            raise _Refusal("Unauthorized")
        ours = request.signature(self.secret_access_key, given["scope"], given["headers"])
        if not hmac.compare_digest(ours, given["signature"]):
            raise _Refusal("SignatureDoesNotMatch")

    def _stored(self, key: str) -> StoredObject:
        stored = self.objects.get(key)
        if stored is None:
            raise _Refusal("NoSuchKey")
        return stored

    def _list_objects(self, request: _Request) -> _Reply:
        query = request.query
        prefix, start_after = query.get("prefix", ""), query.get("start-after", "")
        token = query.get("continuation-token", "")
        after = max(start_after, base64.urlsafe_b64decode(token).decode())
        limit = int(query.get("max-keys", _PAGE_KEYS))
        page, more = self.objects.page(prefix, after, min(limit, _PAGE_KEYS))
        encoding = query.get("encoding-type", "")
        encoded: Callable[[str], str] = quote if encoding == "url" else str
        about = {
            "Name": self.bucket,
            "IsTruncated": str(more).lower(),
            "Prefix": encoded(prefix),
            "MaxKeys": limit,
            "KeyCount": len(page),
            "EncodingType": encoding,
            "StartAfter": encoded(start_after),
            "ContinuationToken": token,
            "NextContinuationToken": base64.urlsafe_b64encode(page[-1][0].encode()).decode() if more and page else "",
        }
        contents = []
        for key, stored in page:
            modified = _timestamp(stored.last_modified)
            item = _tags(Key=encoded(key), Size=len(stored.body), LastModified=modified, ETag=stored.etag)
            contents.append(f"<Contents>{item}<StorageClass>STANDARD</StorageClass></Contents>")
        # R2 leaves out what there is none of, but for the prefix.
        told = {name: value for name, value in about.items() if value != "" or name == "Prefix"}
        return _xml("ListBucketResult", _tags(**told) + "".join(contents))

    def _get_object(self, request: _Request) -> _Reply:
        stored = self._stored(request.key)
        _require_unchanged(stored, request.headers, "")
        headers = {
            "ETag": stored.etag,
            "Last-Modified": format_datetime(stored.last_modified, usegmt=True),
            "Content-Type": "application/octet-stream",
        }
        metadata = {f"{_META}{name}": value for name, value in stored.metadata.items()}
        return _Reply(200, stored.body, headers | metadata)

    def _put_object(self, request: _Request) -> _Reply:
        if "aws-chunked" in request.headers.get("content-encoding", ""):
            raise _Refusal("NotImplemented")  # or the frames would be stored as the mail
        stored = StoredObject(request.body, request.metadata)
        with self.objects.lock:
            if request.headers.get("if-none-match") == "*" and request.key in self.objects:
                raise _Refusal("PreconditionFailed")
            self.objects[request.key] = stored
        return _Reply(200, b"", {"ETag": stored.etag})

    def _copy_object(self, request: _Request) -> _Reply:
        headers = request.headers
        bucket, _, key = unquote(headers["x-amz-copy-source"]).removeprefix("/").partition("/")
        if bucket != self.bucket:
            raise _Refusal("NoSuchBucket")
        with self.objects.lock:
            source = self._stored(key)
            _require_unchanged(source, headers, "x-amz-copy-source-")
            replaces = headers.get("x-amz-metadata-directive") == "REPLACE"
            stored = StoredObject(source.body, request.metadata if replaces else source.metadata)
            self.objects[request.key] = stored
        return _xml("CopyObjectResult", _tags(ETag=stored.etag, LastModified=_timestamp(stored.last_modified)))

    def _delete_object(self, request: _Request) -> _Reply:
        self.objects.discard(request.key)
        return _Reply(204)

    def _delete_objects(self, request: _Request) -> _Reply:
        named = ElementTree.fromstring(request.body).iterfind(".//{*}Key")  # noqa: S314 - whoever signs it has the keys
        keys = [element.text or "" for element in named]
        for key in keys:
            self.objects.discard(key)
        return _xml("DeleteResult", "".join(f"<Deleted>{_tags(Key=key)}</Deleted>" for key in keys))


def _require_unchanged(stored: StoredObject, headers: dict[str, str], prefix: str) -> None:
    """If-Match alone decides where it is given (RFC 9110 13.2.2), else If-Unmodified-Since."""
    match = headers.get(f"{prefix}if-match")
    since = headers.get(f"{prefix}if-unmodified-since")
    unchanged = True
    if match is not None:
        unchanged = match in ("*", stored.etag)
    elif since is not None:
        # R2 compares whole seconds and refuses the equal one too, unlike RFC 9110 13.1.4.
        unchanged = stored.last_modified.replace(microsecond=0) < parsedate_to_datetime(since)
    if not unchanged:
        raise _Refusal("PreconditionFailed")


def _timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def _tags(**values: object) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in values.items())


def _xml(root: str, content: str, status: int = 200) -> _Reply:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{root}>{content}</{root}>'
    return _Reply(status, text.encode(), {"Content-Type": "application/xml"})


def _error(status: int, code: str, message: str) -> _Reply:
    return _xml("Error", _tags(Code=code, Message=message), status)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body waits 40 ms for the headers' acknowledgement

    def __init__(self, s3: S3Server, *args: Any) -> None:
        self._s3 = s3
        super().__init__(*args)

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        reply, cut_after = self._s3.answer(_Request(self.command, self.path, headers, body))
        self.close_connection |= reply is None or cut_after is not None
        if reply is None:
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[:cut_after])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the base's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Nothing: the test or the demo says itself what it does."""


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128  # with the default of 5, many connections at once wait a second

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # not HTTPServer's, which asks DNS for the host's name
        self.server_port = self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client went away
            super().handle_error(request, client_address)
