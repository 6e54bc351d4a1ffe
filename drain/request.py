"""One HTTP request to a service of the person's choice, and its answer: bounded in time and in size.

The deadline is for all of it together: name, connection, TLS, request, answer.
Time limits on sockets bound each read alone, so that a server which sends a byte
now and then holds its caller for ever. So the request is made on a thread of its
own, and when time is up its socket is shut down from outside, which ends any wait
on it. (Only a look-up of a name goes on, as long as the resolver lets it.)
"""

import os
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection

from drain.places import is_loopback
from drain.setting import Secret
from drain.text import clean
from drain.unreachable import in_words, late

_BLOCK = 8 * 1024
_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Service:
    """What is asked, in words ("the AI"), and the names of its settings, for hints.

    ``time_setting`` is the one that gives it more time, "" for none.
    """

    name: str
    url_setting: str
    token_setting: str
    time_setting: str = ""


@dataclass(frozen=True)
class Response:
    """What was answered, whatever its status: header names in lower case; of an error the body's beginning."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoResponse(Exception):
    """There is no answer, or none that can be used.

    Attributes:
        message: a sentence with what was asked, without secrets.
        hint: what the person can do about it, or "".
        asked: whether the service may have done what it was asked for.
        down: whether it is the service, and not what it was sent.
    """

    def __init__(self, message: str, hint: str = "", *, asked: bool, down: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.asked = asked
        self.down = down


class Breaker:
    """Breaks off the requests that it was given to, at once and from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[_Call] = set()
        self._broken = False

    def cut(self) -> None:
        """Ends the requests that there are, and any later one."""
        with self._lock:
            self._broken = True
            calls = tuple(self._calls)
        for call in calls:
            call.break_off()

    def _add(self, call: "_Call") -> None:
        with self._lock:
            self._calls.add(call)
            broken = self._broken
        if broken:
            call.break_off()

    def _remove(self, call: "_Call") -> None:
        with self._lock:
            self._calls.discard(call)


def post(
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    secrets: tuple[Secret, ...],
    seconds: float,
    service: Service,
    limit: int = _LIMIT,
    breaker: Breaker | None = None,
) -> Response:
    """Posts *body* and gives the answer, whatever its status, with a body of at most *limit* bytes.

    Redirects are not followed: they would take the mail elsewhere. Proxies and
    CAs are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``,
    ``REQUESTS_CA_BUNDLE``), but what is on loopback is asked without a proxy.

    Args:
        url: where, ``http`` or ``https``.
        body: as it goes out.
        headers: ``Content-Type``, ``Authorization`` and the like.
        secrets: what is in *headers* or *url* and must not be shown; all that is shown is free of it.
        seconds: for everything together.
        service: for the words of errors.
        limit: bytes.
        breaker: what can break it off.

    Raises:
        NoResponse: there is no answer, not in time, or it is none of HTTP's, a redirect, compressed, or too large.
    """
    return _answer("POST", url, body, headers, secrets, seconds, service, limit, breaker)


def get(
    url: str,
    *,
    headers: Mapping[str, str],
    secrets: tuple[Secret, ...],
    seconds: float,
    service: Service,
    limit: int = _LIMIT,
    breaker: Breaker | None = None,
) -> Response:
    """The same with GET, which sends nothing.

    Raises:
        NoResponse: as `post`.
    """
    return _answer("GET", url, None, headers, secrets, seconds, service, limit, breaker)


def where(url: str) -> str:
    """Host, port and path of *url*, for a person: without what may be secret (user, password, query)."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return clean(f"{host}:{port}{parts.path}", 200)


def without(secrets: tuple[Secret, ...], words: str) -> str:
    """*words* with ``***`` for each of *secrets*: services quote what they were sent."""
    for secret in secrets:
        if secret:
            words = words.replace(secret.reveal(), "***")
    return words


def _answer(
    method: str,
    url: str,
    body: bytes | None,
    headers: Mapping[str, str],
    secrets: tuple[Secret, ...],
    seconds: float,
    service: Service,
    limit: int,
    breaker: Breaker | None,
) -> Response:
    call = _Call(method, _split(url, service), body, headers, secrets, seconds, service, limit)
    if breaker:
        breaker._add(call)  # noqa: SLF001  # of this file
    threading.Thread(target=call.run, daemon=True, name="drain-request").start()
    try:
        return call.result.result(timeout=seconds)
    except TimeoutError:
        call.line.cut()
        message, hint = late(call.what, service.url_setting, seconds, service.time_setting)
        raise NoResponse(message, hint, asked=call.line.connected) from None
    finally:
        if breaker:
            breaker._remove(call)  # noqa: SLF001


def _split(url: str, service: Service) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket without its other half
        usable = False
    if not usable:
        message = f"The address of {service.name} is none that can be asked."
        raise NoResponse(message, f"Check {service.url_setting}.", asked=False)
    if parts.username is not None:
        message = f"The address of {service.name} has a user name in it, which is not sent."
        hint = f"Take it out of {service.url_setting}; a token goes into {service.token_setting}."
        raise NoResponse(message, hint, asked=False)
    return parts


class _Line:
    """The socket of a request, to be cut from another thread.

    It is held by a descriptor of its own, since TLS takes the socket out of its object.
    ``connected``: it was ready for the request, TLS and proxy included; before that nothing of it is sent.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []
        self._cut = False
        self.connected = False

    def hold(self, sock: socket.socket) -> None:
        """Takes note of a new connection; ends it if time is up already."""
        with self._lock:
            if self._cut:
                sock.close()
                raise TimeoutError("time is up")
            self._held.append(sock.dup())

    def ready(self) -> None:
        """Takes note that the request goes out now, unless time is up already."""
        with self._lock:
            if self._cut:
                raise TimeoutError("time is up")
            self.connected = True

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

        def connect(self) -> None:
            super().connect()
            line.ready()

    return Known


class _Call:
    """One request, on a thread of its own."""

    def __init__(
        self,
        method: str,
        url: SplitResult,
        body: bytes | None,
        headers: Mapping[str, str],
        secrets: tuple[Secret, ...],
        seconds: float,
        service: Service,
        limit: int,
    ) -> None:
        self.result: Future[Response] = Future()
        self.line = _Line()
        self.what = f"{service.name[:1].upper()}{service.name[1:]} at {where(url.geturl())}"
        self._method, self._url, self._body, self._headers, self._secrets = method, url, body, headers, secrets
        self._seconds, self._service, self._limit = seconds, service, limit
        self._proxies = {} if is_loopback(url.hostname or "") else dict(get_environ_proxies(url.geturl()))

    def run(self) -> None:
        try:
            response = self._response()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is for the thread that waits
            self._end(error)
        else:
            self._end(response)
        finally:
            self.line.close()

    def break_off(self) -> None:
        self.line.cut()
        self._end(NoResponse(f"{self.what} was not waited for: drain ends.", asked=self.line.connected))

    def _end(self, end: Response | Exception) -> None:
        try:
            if isinstance(end, Response):
                self.result.set_result(end)
            else:
                self.result.set_exception(end)
        except InvalidStateError:  # it was broken off at this moment
            pass

    def _response(self) -> Response:
        for secret in self._secrets:
            if not (secret.reveal().isascii() and secret.reveal().isprintable()):
                # Sent it would fail, in http.client's words, which show it.
                message = f"{self._service.token_setting} has characters that no token has."
                raise NoResponse(message, "It is printable ASCII on one line.", asked=False)
        try:
            with self._session() as session, self._sent(session) as response:
                return self._read(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            message, hint = in_words(
                error, self.what, self._service.url_setting, self._seconds, self._service.time_setting
            )
        # Not "from error", and not inside: the texts of those hold the whole address, and its query may be secret.
        raise NoResponse(without(self._secrets, message), hint, asked=self.line.connected)

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # what is wanted of it is asked for by name: proxies and CAs, no netrc
        for scheme in ("https://", "http://"):
            session.mount(scheme, _Adapter(self.line))
        return session

    def _sent(self, session: requests.Session) -> requests.Response:
        return session.request(
            self._method,
            self._url.geturl(),
            data=self._body,
            # Compressed, an answer within the limit could be any size.
            headers={**self._headers, "Accept-Encoding": "identity", "User-Agent": "drain"},
            timeout=self._seconds,
            allow_redirects=False,
            proxies=self._proxies,
            verify=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True,
            stream=True,
        )

    def _read(self, response: requests.Response) -> Response:
        status = response.status_code
        if response.is_redirect or 300 <= status < 400:
            target = clean(without(self._secrets, response.headers.get("Location", "nowhere").partition("?")[0]), 200)
            message = f"{self.what} redirects to {target}, which is not followed: the mail would go elsewhere."
            hint = f"If that is its right address, put it into {self._service.url_setting}."
            # 303 says that it was done (RFC 9110 15.4.4), any other that it was not.
            raise NoResponse(message, hint, asked=status == 303)
        body = self._body_of(response)
        compressed = response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")
        if status < 300:
            if compressed:
                raise NoResponse(f"{self.what} answered compressed, which was not asked for.", asked=True, down=False)
            if len(body) > self._limit:
                message = f"{self.what} answered with more than {self._limit // 1024} KiB."
                raise NoResponse(message, asked=True, down=False)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Response(status, headers, b"" if compressed else body[: self._limit])

    def _body_of(self, response: requests.Response) -> bytes:
        """The body as it is on the wire, at most a byte more than the limit."""
        body = bytearray()
        while len(body) <= self._limit:
            block = response.raw.read(min(_BLOCK, self._limit + 1 - len(body)), decode_content=False)
            if not block:
                break
            body += block
        return bytes(body)
