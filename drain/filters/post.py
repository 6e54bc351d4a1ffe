"""One POST of JSON to a service of the person's choice, and its answer: bounded in time and in size.

The deadline is for all of it together: name, connection, TLS, request, answer.
Time limits on sockets bound each read alone, so that a server which sends a byte
now and then holds its caller for ever. So the request is made on a thread of its
own, and when time is up its socket is shut down from outside, which ends any wait
on it. (Only a look-up of a name goes on, as long as the resolver lets it.)
"""

import json
import os
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection

from drain.filters.unreachable import in_words, late, was_reached
from drain.filters.verdict import FilterFailed
from drain.places import is_loopback
from drain.setting import Secret
from drain.text import clean

_BLOCK = 8 * 1024
# What is shown of an answer that is an error.
_SHOWN = 300
# Statuses below 500 that are about the service or how it is set up, and come to every mail alike
# (RFC 9110 15.5; RFC 6585 4). 400, 413 and 422 may be about this mail.
_SERVICE = frozenset({401, 402, 403, 404, 405, 406, 407, 408, 410, 415, 421, 426, 429})


@dataclass(frozen=True)
class Service:
    """What is asked, in words ("the AI"), and the names of its settings, for hints."""

    name: str
    url_setting: str
    token_setting: str


class BadStatus(FilterFailed):
    """It answered, and not with 200.

    Attributes:
        status: the HTTP status.
        words: the beginning of the answer's text, cleaned; "" if there was none.
    """

    def __init__(self, message: str, hint: str, *, down: bool, status: int, words: str) -> None:
        super().__init__(message, hint, down=down)
        self.status = status
        self.words = words


def encoded(body: Mapping[str, Any]) -> bytes:
    """*body* as JSON in UTF-8; half a character (a lone surrogate) as JSON's own escape for it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def post(url: str, token: Secret, body: bytes, seconds: float, service: Service, limit: int = 64 * 1024) -> bytes:
    """Posts *body*, which is JSON, and gives the body of the answer, at most *limit* bytes.

    Redirects are not followed: they would take the mail elsewhere. Proxies and
    CAs are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``,
    ``REQUESTS_CA_BUNDLE``), but what is on loopback is asked without a proxy.

    Args:
        url: where, ``http`` or ``https``.
        token: sent as ``Authorization: Bearer`` if it is set (RFC 6750 2.1).
        body: JSON.
        seconds: for everything together.
        service: for the words of errors.
        limit: bytes.

    Raises:
        BadStatus: the answer is not 200.
        FilterFailed: there is no answer, not in time, or it is none of HTTP's, compressed, or larger than *limit*.
    """
    call = _Call(_split(url, service), token, body, seconds, service, limit)
    threading.Thread(target=call.run, daemon=True, name="drain-post").start()
    try:
        return call.result.result(timeout=seconds)
    except TimeoutError:
        call.line.cut()
        raise FilterFailed(*late(call.what, service.url_setting, seconds)) from None


def where(url: str) -> str:
    """Host, port and path of *url*, for a person: without what may be secret (user, password, query)."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return clean(f"{host}:{port}{parts.path}", 200)


def _split(url: str, service: Service) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket without its other half
        usable = False
    if not usable:
        raise FilterFailed(f"The address of {service.name} is none that can be asked.", f"Check {service.url_setting}.")
    if parts.username is not None:
        message = f"The address of {service.name} has a user name in it, which is not sent."
        raise FilterFailed(message, f"Take it out of {service.url_setting}; a token goes into {service.token_setting}.")
    return parts


class _Line:
    """The socket of a request, to be cut from another thread.

    It is held by a descriptor of its own, since TLS takes the socket out of its object.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []
        self._cut = False

    def hold(self, sock: socket.socket) -> None:
        """Takes note of a new connection; ends it if time is up already."""
        with self._lock:
            if self._cut:
                sock.close()
                raise TimeoutError("time is up")
            self._held.append(sock.dup())

    def cut(self) -> None:
        """Ends the connection that there is, and any later one."""
        with self._lock:
            self._cut = True
            for sock in self._held:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:  # closed by the other side
                    pass

    def close(self) -> None:
        """Lets go."""
        with self._lock:
            for sock in self._held:
                sock.close()
            self._held.clear()


class _Adapter(HTTPAdapter):
    """requests' own, but each new connection is made known to *line*."""

    def __init__(self, line: _Line) -> None:
        super().__init__()  # no retries: the default
        self._line = line

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _known_to(self._line, pool.ConnectionCls)
        return pool


def _known_to(line: _Line, kind: type[Any]) -> type[HTTPConnection]:
    class Known(kind):  # type: ignore[misc]  # plain, TLS or SOCKS, as the pool has it
        def _new_conn(self) -> socket.socket:
            # What urllib3's own SOCKS connections override, too: TCP is there, TLS is not.
            sock: socket.socket = super()._new_conn()
            line.hold(sock)
            return sock

    return Known


class _Bearer(AuthBase):
    """Also without a token: where requests is given no `auth`, it takes one out of ``~/.netrc``."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        return request


class _Call:
    """One request, on a thread of its own."""

    def __init__(
        self, url: SplitResult, token: Secret, body: bytes, seconds: float, service: Service, limit: int
    ) -> None:
        self.result: Future[bytes] = Future()
        self.line = _Line()
        self.what = f"{service.name[:1].upper()}{service.name[1:]} at {where(url.geturl())}"
        self._url, self._token, self._body = url, token, body
        self._seconds, self._service, self._limit = seconds, service, limit
        self._proxies = {} if is_loopback(url.hostname or "") else dict(get_environ_proxies(url.geturl()))

    def run(self) -> None:
        try:
            self.result.set_result(self._answer())
        except Exception as error:  # noqa: BLE001  # whatever it is, it is for the thread that waits
            self.result.set_exception(error)
        finally:
            self.line.close()

    def _answer(self) -> bytes:
        token = self._token.reveal()
        if not (token.isascii() and token.isprintable()):
            # Sent it would fail, in http.client's words, which show it.
            message = f"{self._service.token_setting} has characters that no token has."
            raise FilterFailed(message, "It is printable ASCII on one line.")
        try:
            with self._session() as session, self._posted(session) as response:
                return self._read(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            message, hint = in_words(error, self.what, self._service.url_setting, self._seconds)
            asked = was_reached(error)
        # Not "from error", and not inside: the texts of those hold the whole address, and its query may be secret.
        raise FilterFailed(self._without_token(message), hint, asked=asked)

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # what is wanted of it is asked for by name: proxies and CAs, no netrc
        for scheme in ("https://", "http://"):
            session.mount(scheme, _Adapter(self.line))
        return session

    def _posted(self, session: requests.Session) -> requests.Response:
        return session.post(
            self._url.geturl(),
            data=self._body,
            # Compressed, an answer within the limit could be any size.
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "drain",
            },
            auth=_Bearer(self._token),
            timeout=self._seconds,
            allow_redirects=False,
            proxies=self._proxies,
            verify=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True,
            stream=True,
        )

    def _read(self, response: requests.Response) -> bytes:
        if response.is_redirect or 300 <= response.status_code < 400:
            target = clean(self._without_token(response.headers.get("Location", "nowhere").partition("?")[0]), 200)
            message = f"{self.what} redirects to {target}, which is not followed: the mail would go elsewhere."
            hint = f"If that is its right address, put it into {self._service.url_setting}."
            raise BadStatus(message, hint, down=True, status=response.status_code, words="")
        body = self._body_of(response)
        if response.status_code != 200:
            raise self._bad_status(response.status_code, body)
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise FilterFailed(f"{self.what} answered compressed, which was not asked for.", down=False)
        if len(body) > self._limit:
            raise FilterFailed(f"{self.what} answered with more than {self._limit // 1024} KiB.", down=False)
        return body

    def _body_of(self, response: requests.Response) -> bytes:
        """The body as it is on the wire, at most a byte more than the limit."""
        body = bytearray()
        while len(body) <= self._limit:
            block = response.raw.read(min(_BLOCK, self._limit + 1 - len(body)), decode_content=False)
            if not block:
                break
            body += block
        return bytes(body)

    def _bad_status(self, status: int, body: bytes) -> BadStatus:
        words = clean(self._without_token(body.decode("utf-8", "replace")), _SHOWN).strip()
        hint = ""
        if status in (401, 403):
            hint = f"Check {self._service.token_setting}."
        elif status in (404, 405):
            hint = f"Check {self._service.url_setting}."
        elif status == 407:
            hint = "Check HTTPS_PROXY and HTTP_PROXY in the environment."
        elif status == 429:
            hint = "It is asked too often, or the account has no credit left."
        message = f"{self.what} answered with {status}" + (f": {words}" if words else "") + "."
        return BadStatus(message, hint, down=status >= 500 or status in _SERVICE, status=status, words=words)

    def _without_token(self, words: str) -> str:
        """Services quote what they were sent."""
        token = self._token.reveal()
        return words.replace(token, "***") if token else words
