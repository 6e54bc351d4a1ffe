"""Requests to one bucket, signed, over connections that stay open: without boto3.

boto3 takes two thirds of the processor's time of a pass, 20 MB, and 0.3 s to load.
So what an ordinary pass asks for is asked here (`listing`, `direct`), and whatever
has not the plain good answer that is expected is asked again through boto3, which
knows about retries and can say what is wrong.
"""

import contextlib
import functools
import hashlib
import hmac
import os
import re
import select
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from drain.setting import Secret

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPConnection, HTTPResponse
    from xml.etree.ElementTree import Element

Answer = TypeVar("Answer")

# As boto3's, in s3client; each read has its own.
_CONNECT_TIMEOUT_SECONDS = 10
_READ_TIMEOUT_SECONDS = 60
# Cloudflare closes a connection that was idle for 400 s (its page "Connection
# limits"), and some mobile networks forget one after five minutes without telling
# either side. To ask in vain costs a phone seconds with its radio on, a new
# connection some round trips: past four minutes the new one is the better bet.
_KEPT_SECONDS = 240
# One that was used so lately is not forgotten.
_BUSY_SECONDS = 10
# A network that forgets sooner shows as silence. Then the new connection has the
# time that a slow answer needs.
_KEPT_READ_TIMEOUT_SECONDS = 10

# Any other that boto3 takes is left to it: what it makes of a user name, a zone, an encoded path.
_ENDPOINT = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(/[a-z0-9_-][a-z0-9._-]*)*)/?",
    re.ASCII | re.IGNORECASE,
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{0,254}", re.ASCII | re.IGNORECASE)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# A thousand objects with 30 elements each: what is built of a body stays small.
_TAGS_LIMIT = 60_000
_NO_BODY = hashlib.sha256(b"").hexdigest()


class Http:
    """The way to one bucket. Calls may come from several threads; each has a connection to itself while it asks."""

    def __init__(self, *, endpoint_url: str, bucket: str, access_key_id: str, secret_access_key: Secret) -> None:
        self.bucket = bucket
        self._address = address(endpoint_url, bucket)
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._tls: ssl.SSLContext | None = None
        # Those that nobody uses just now, each with the time of its last answer; the last used comes last.
        self._kept: list[tuple[HTTPConnection, float]] = []
        self._keeping = threading.Lock()
        # Not __del__, before which the garbage collector may have come to the sockets.
        weakref.finalize(self, _close_all, self._kept)
        # Not the monotonic clock: that stands still while a phone sleeps, and its connections age.
        self.clock: Callable[[], float] = time.time

    def ask(
        self,
        method: str,
        take: "Callable[[HTTPResponse], Answer]",
        *,
        key: str = "",
        query: str = "",
        headers: Mapping[str, str] | None = None,
        again: bool = True,
        still: Callable[[], bool] = lambda: True,
    ) -> Answer | None:
        """What *take* makes of the answer, which it reads to its end; None, whatever the reason is, if there is none.

        Where a kept connection fails it is asked *again* on a new one: nobody knows
        whether the first was heard. Once there is a connection, it is only asked if *still*
        says that it is wanted. *take* raises `ValueError` for an answer that
        is not the one it is there for. *key* and *query* are in canonical form.
        """
        if self._address is None or _proxied():
            return None
        import http.client  # noqa: PLC0415 (15 ms that who has no bucket to ask need not pay)

        lost = (OSError, http.client.HTTPException)

        def exchange(connection: "HTTPConnection", at: Address) -> Answer:
            with contextlib.ExitStack() as unless_good:
                unless_good.callback(connection.close)
                own = signed(
                    at, method, query, self._access_key_id, self._secret_access_key, self.clock(), key, headers
                )
                path = f"{at.path}/{key}" if key else at.path
                target = f"{path}?{query}" if query else path
                if not still():
                    raise ValueError("too late")
                connection.request(method, target, headers={**own, "User-Agent": "drain"})
                with connection.getresponse() as response:
                    _require_one_end(response)
                    answer = take(response)
                    if not response.isclosed():
                        raise ValueError("there is more")
                if not response.will_close:
                    unless_good.pop_all()
                    with self._keeping:
                        self._kept.append((connection, self.clock()))
            return answer

        try:
            if kept := self._still_kept():
                try:
                    return exchange(kept, self._address)
                except lost:
                    if not again:
                        return None
            return exchange(self._connected(self._address), self._address)
        except (*lost, ValueError, OverflowError, SyntaxError):
            # OverflowError: a port past 65535; SyntaxError: what is no XML.
            return None

    def _still_kept(self) -> "HTTPConnection | None":
        """The connection last used that can be asked once more; those that cannot are closed."""
        now = self.clock()
        with self._keeping:
            aged = [one for one in self._kept if not 0 <= now - one[1] <= _KEPT_SECONDS]
            self._kept[:] = [one for one in self._kept if one not in aged]
        for old, _ in aged:
            old.close()
        while True:
            with self._keeping:
                kept, used_at = self._kept.pop() if self._kept else (None, now)
            if kept is None:
                return None
            if _is_silent(kept):
                idle = now - used_at > _BUSY_SECONDS
                kept.sock.settimeout(_KEPT_READ_TIMEOUT_SECONDS if idle else _READ_TIMEOUT_SECONDS)
                return kept
            kept.close()

    def _connected(self, at: "Address") -> "HTTPConnection":
        from http.client import HTTPConnection, HTTPSConnection  # noqa: PLC0415 (as above)

        connection: HTTPConnection
        if at.tls:
            self._tls = self._tls or _trust()
            connection = HTTPSConnection(at.host, at.port, timeout=_CONNECT_TIMEOUT_SECONDS, context=self._tls)
        else:
            connection = HTTPConnection(at.host, at.port, timeout=_CONNECT_TIMEOUT_SECONDS)
        connection.connect()
        connection.sock.settimeout(_READ_TIMEOUT_SECONDS)
        return connection


@dataclass(frozen=True)
class Address:
    """Where a bucket is asked. ``authority`` is for the Host header: without the scheme's own port."""

    tls: bool
    host: str
    port: int
    authority: str
    path: str


def address(endpoint_url: str, bucket: str) -> Address | None:
    """Where boto3 asks for *bucket* in path style; None for an endpoint that is left to it."""
    parts = _ENDPOINT.fullmatch(endpoint_url)
    if parts is None or not _BUCKET.fullmatch(bucket):
        return None
    tls = parts["scheme"].lower() == "https"
    usual = 443 if tls else 80
    port = int(parts["port"] or usual)
    host = parts["host"].lower()
    authority = host if port == usual else f"{host}:{port}"
    return Address(tls, host.strip("[]"), port, authority, f"{parts['path']}/{bucket}")


def signed(
    at: Address,
    method: str,
    query: str,
    access_key_id: str,
    secret_access_key: Secret,
    now: float,
    key: str = "",
    more: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The headers of a request, those in *more* (names in lower case) among them, signed as AWS Signature Version 4 has it.

    The source is "Create a signed AWS API request" in AWS's manual for IAM; region
    ``auto`` and the hash of the empty body are what boto3 sends.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    headers = {**(more or {}), "host": at.authority, "x-amz-content-sha256": _NO_BODY, "x-amz-date": moment}
    headers = dict(sorted(headers.items()))
    names = ";".join(headers)
    lines = [f"{name}:{value}" for name, value in headers.items()]
    path = f"{at.path}/{key}" if key else at.path
    request = "\n".join([method, path, query, *lines, "", names, _NO_BODY])
    scope = [moment[:8], "auto", "s3", "aws4_request"]
    secret = _signing_key(secret_access_key, *scope)
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", moment, "/".join(scope), digest])
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    credential = "/".join([access_key_id, *scope])
    authorization = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": authorization}


@functools.lru_cache(maxsize=2)  # it is the same all day long
def _signing_key(secret_access_key: Secret, *scope: str) -> bytes:
    key = f"AWS4{secret_access_key.reveal()}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def whole(response: "HTTPResponse", limit: int) -> bytes:
    """The body of an answer.

    Raises:
        ValueError: it has more than *limit* bytes.
        ConnectionError: it was cut off.
    """
    body = response.read(limit + 1)
    if len(body) > limit:
        raise ValueError("too long")
    if response.length:
        raise ConnectionError("cut")
    return body


def tree(body: bytes) -> "Element":
    """XML that somebody else wrote.

    Raises:
        ValueError: it is not what an S3 server writes.
        SyntaxError: it is no XML.
    """
    from xml.etree import ElementTree  # noqa: PLC0415 (as above)

    # Entities are declared in a DOCTYPE and nowhere else; in UTF-16, which would hide it, ASCII has NULs.
    if b"<!DOCTYPE" in body or b"\0" in body or body.count(b"<") > _TAGS_LIMIT:
        raise ValueError("not a plain answer")
    return ElementTree.fromstring(body, ElementTree.XMLParser(encoding="utf-8"))  # noqa: S314 (as checked)


def _require_one_end(response: "HTTPResponse") -> None:
    """Only an answer that says plainly where it ends: what another program takes for its rest would be the next answer.

    Raises:
        ValueError: it says so twice, or in a way that http.client passes over.
    """
    lengths = response.headers.get_all("content-length", [])
    codings = response.headers.get_all("transfer-encoding", [])
    odd = [length for length in lengths if length != str(response.length)]
    if odd or len(lengths) + len(codings) > 1 or (codings and not response.chunked):
        raise ValueError("an unclear length")


def _close_all(kept: "list[tuple[HTTPConnection, float]]") -> None:
    for connection, _ in kept:
        connection.close()


def _is_silent(connection: "HTTPConnection") -> bool:
    """Whether nothing has come since the last answer: not its end, nor what would be taken for the next answer."""
    came = select.poll()
    came.register(connection.sock, select.POLLIN)
    # What TLS has decrypted already, the socket does not show.
    return not came.poll(0) and not getattr(connection.sock, "pending", int)()


def _proxied() -> bool:
    """Whether there is talk of a proxy. boto3 knows which hosts go past it; here it is enough to stand back."""
    return any(os.environ.get(name) for name in _PROXIES)


def _trust() -> "ssl.SSLContext":
    """TLS with the CAs that boto3 would use, but for its own copy of them the machine's, which are read as needed."""
    import ssl  # noqa: PLC0415 (as above)

    bundle = os.environ.get("AWS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE"))
    if bundle == "":  # which boto3 refuses, and create_default_context takes for none
        raise ValueError("no CA bundle")
    return ssl.create_default_context(cafile=bundle)
