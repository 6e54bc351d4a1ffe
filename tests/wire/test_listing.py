"""LIST without boto3, over connections that stay, break, stall and lie."""

import contextlib
import itertools
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Self

import pytest
from hypothesis import given, strategies as st

from drain import s3client, s3http
from drain.bucket import Bucket
from drain.demo.s3 import Fault, S3Server, StoredObject
from drain.errors import BucketUnavailable
from drain.listing import Listing, Page
from drain.s3http import Http
from drain.setting import Secret
from tests.http_fake import tls_server
from tests.support import until
from tests.test_listing import ENTRY, LISTED, answer

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
FOUND = Page([LISTED], more=False)
EMPTY = Page([], more=False)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*_PROXIES, "NO_PROXY", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def reply(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """A whole HTTP answer; *length* is what it says of itself where that is not so."""
    size = len(body) if length is None else length
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {size}", *headers, "", ""]).encode() + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """The same in chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


GOOD = reply(answer(ENTRY))
SILENT = b"silent"  # no answer, and the connection stays open
CLOSE = b"close"  # in place of an answer


class Line:
    """A server that keeps connections open: ``script`` says what the nth request of the nth connection gets.

    After an answer given as ``(answer, "close")`` the server closes the connection.
    """

    def __init__(
        self, script: Callable[[int, int], bytes | tuple[bytes, str]], tls: ssl.SSLContext | None = None
    ) -> None:
        self.script = script
        self.asked: list[tuple[int, int]] = []
        self.heads: list[str] = []
        self.closed: list[int] = []
        self.connections = 0
        self._tls = tls
        self._open: list[socket.socket] = []
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        for number in itertools.count(1):
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections = number
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            with connection.makefile("rb") as file:
                for turn in itertools.count(1):
                    self._answer(connection, number, turn, _head(file))
        except (OSError, ValueError):
            pass
        finally:
            connection.close()
            self.closed.append(number)

    def _answer(self, connection: socket.socket, number: int, turn: int, head: str) -> None:
        self.asked.append((number, turn))
        self.heads.append(head)
        given = self.script(number, turn)
        text, then = given if isinstance(given, tuple) else (given, "")
        if text == SILENT:
            self._over.wait()
        elif text != CLOSE:
            connection.sendall(text)
        if then or text == CLOSE:
            raise ValueError("closed as the script says")


def _head(file: BinaryIO) -> str:
    head = ""
    while not head.endswith("\r\n\r\n"):
        if not (read := file.readline()):
            raise ValueError("the other side has gone")
        head += read.decode("latin-1")
    return head


def listing_of(url: str, bucket: str = "mail") -> Listing:
    return Listing(Http(endpoint_url=url, bucket=bucket, access_key_id="AK", secret_access_key=Secret("SK")))


@contextlib.contextmanager
def line(script: Callable[[int, int], Any], tls: ssl.SSLContext | None = None) -> Iterator[tuple[Line, Listing]]:
    with Line(script, tls) as server:
        yield server, listing_of(server.url)


def bucket_of(s3: S3Server, *, secret: str = "", boto3_alone: bool = False) -> Bucket:
    known: dict[str, Any] = {
        "access_key_id": s3.access_key_id,
        "secret_access_key": Secret(secret or s3.secret_access_key),
    }
    http = Http(endpoint_url="" if boto3_alone else s3.endpoint_url, bucket=s3.bucket, **known)
    client = s3client.client(endpoint_url=s3.endpoint_url, connections=1, **known)
    return Bucket(lambda: client, http, s3.bucket)


@pytest.fixture(scope="module")
def both(s3_server: S3Server) -> tuple[Bucket, Bucket]:
    return bucket_of(s3_server), bucket_of(s3_server, boto3_alone=True)


def boto3_is_not_asked() -> Any:
    raise AssertionError("boto3 was asked")


# -- the same as boto3 --


@given(keys=st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), max_size=8))
def test_any_names_are_listed_as_boto3_lists_them(
    s3_server: S3Server, both: tuple[Bucket, Bucket], keys: set[str]
) -> None:
    s3_server.fault = None
    s3_server.objects.clear()
    for key in keys:
        s3_server.objects[key] = StoredObject(key.encode())
    ours, theirs = both
    s3_server.requests.clear()
    for prefix in ("", min(keys, default="none")[:2]):
        assert list(ours.pages(prefix)) == list(theirs.pages(prefix))
    assert s3_server.requests["ListObjectsV2"] == 4
    assert {listed.key for page in ours.pages("") for listed in page} == keys


def test_many_pages_are_the_same_pages(s3: S3Server, both: tuple[Bucket, Bucket]) -> None:
    for number in range(2000):
        s3.objects[f"pending/{number:04} ü+%"] = StoredObject(b"%d" % number)
    ours, theirs = both
    pages = list(ours.pages("pending/"))
    assert s3.requests["ListObjectsV2"] == 2
    assert [len(page) for page in pages] == [1000, 1000]
    assert pages == list(theirs.pages("pending/"))


def test_boto3_goes_on_where_this_has_no_answer(s3: S3Server, both: tuple[Bucket, Bucket]) -> None:
    """Each object comes once, whichever of the two lists its page."""
    for number in range(2500):
        s3.objects[f"pending/{number:04}"] = StoredObject(b"")
    turns = itertools.count(1)
    s3.fault = lambda _operation, _key: Fault(status=503) if next(turns) == 2 else None
    keys = [listed.key for page in both[0].pages("pending/") for listed in page]
    assert keys == [f"pending/{number:04}" for number in range(2500)]
    assert s3.requests["ListObjectsV2"] == 4


def test_wrong_keys_are_no_answer(s3: S3Server) -> None:
    s3.objects["pending/a"] = StoredObject(b"")
    known: dict[str, Any] = {"endpoint_url": s3.endpoint_url, "bucket": s3.bucket, "access_key_id": s3.access_key_id}
    assert Listing(Http(**known, secret_access_key=Secret("0" * 64))).page("pending/", "") is None
    right = Listing(Http(**known, secret_access_key=Secret(s3.secret_access_key))).page("pending/", "")
    assert right is not None
    assert [listed.key for listed in right.objects] == ["pending/a"]


def test_a_secret_that_cannot_be_sent_is_no_answer_and_no_error() -> None:
    with Line(lambda _connection, _turn: GOOD) as server:
        for access_key_id in ("two\r\nlines", "ü\N{SNOWMAN}"):
            http = Http(
                endpoint_url=server.url, bucket="mail", access_key_id=access_key_id, secret_access_key=Secret("s")
            )
            told = Listing(http)
            assert told.page("pending/", "") is None
        assert server.asked == []


# -- one connection --


def test_passes_on_different_threads_share_one_connection() -> None:
    with line(lambda _connection, _turn: GOOD) as (server, listing):
        pages: list[Page | None] = []
        for _ in range(5):
            thread = threading.Thread(target=lambda: pages.append(listing.page("pending/", "")))
            thread.start()
            thread.join(20)
        assert pages == [FOUND] * 5
        assert server.asked == [(1, turn) for turn in range(1, 6)]


def test_threads_that_ask_at_once_get_each_its_own_answer(s3: S3Server, both: tuple[Bucket, Bucket]) -> None:
    for number in range(8):
        s3.objects[f"{number}/a"] = StoredObject(b"")

    def keys(turn: int) -> set[str]:
        return {listed.key for page in both[0].pages(f"{turn % 8}/") for listed in page}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(keys, range(200))) == [{f"{turn % 8}/a"} for turn in range(200)]


def test_a_connection_that_the_server_closes_meanwhile_is_replaced() -> None:
    with line(lambda _connection, _turn: (GOOD, "close")) as (server, listing):
        for number in range(1, 4):
            assert listing.page("pending/", "") == FOUND
            until(lambda number=number: number in server.closed)  # type: ignore[misc]
        assert server.asked == [(1, 1), (2, 1), (3, 1)]


@pytest.mark.parametrize(
    "broken", [CLOSE, GOOD[:5], GOOD[:-1], reply(answer(ENTRY), length=5000), chunked(answer(), end=b"")]
)
def test_a_kept_connection_that_breaks_in_use_is_replaced_once(broken: bytes) -> None:
    with line(lambda _connection, turn: GOOD if turn == 1 else (broken, "close")) as (server, listing):
        assert [listing.page("pending/", "") for _ in range(2)] == [FOUND, FOUND]
        assert server.asked == [(1, 1), (1, 2), (2, 1)]


def test_a_new_connection_that_breaks_is_not_tried_again() -> None:
    script = {(1, 1): GOOD}
    with line(lambda connection, turn: script.get((connection, turn), CLOSE)) as (server, listing):
        assert [listing.page("pending/", "") for _ in range(3)] == [FOUND, None, None]
        assert server.asked == [(1, 1), (1, 2), (2, 1), (3, 1)]


def test_a_connection_that_the_network_has_forgotten_costs_a_short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3http, "_KEPT_READ_TIMEOUT_SECONDS", 0.05)
    with line(lambda _connection, turn: GOOD if turn == 1 else SILENT) as (server, listing):
        assert [listing.page("pending/", "") for _ in range(2)] == [FOUND, FOUND]
        assert server.asked == [(1, 1), (1, 2), (2, 1)]


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3http, "_READ_TIMEOUT_SECONDS", 0.05)
    with line(lambda _connection, _turn: SILENT) as (server, listing):
        assert listing.page("pending/", "") is None
        assert server.asked == [(1, 1)]


@pytest.mark.parametrize(("later", "connections"), [(0, 1), (60, 1), (239, 1), (241, 2), (40_000, 2), (-5, 2)])
def test_a_connection_that_was_idle_for_minutes_is_not_asked(later: float, connections: int) -> None:
    """A clock that was set back says nothing about how long it was."""
    with line(lambda _connection, _turn: GOOD) as (server, listing):
        now = 1_800_000_000.0
        listing._http.clock = lambda: now
        assert listing.page("pending/", "") == FOUND
        now += later
        assert listing.page("pending/", "") == FOUND
        assert server.connections == connections
        if connections == 2:
            until(lambda: server.closed == [1])


def test_what_is_let_go_closes_its_connection() -> None:
    with Line(lambda _connection, _turn: GOOD) as server:
        assert listing_of(server.url).page("pending/", "") == FOUND
        until(lambda: server.closed == [1])


def test_a_server_that_closes_each_time_is_believed() -> None:
    with line(lambda _connection, _turn: (reply(answer(), "200 OK", "Connection: close"), "close")) as (
        server,
        listing,
    ):
        assert [listing.page("pending/", "") for _ in range(2)] == [EMPTY, EMPTY]
        assert server.asked == [(1, 1), (2, 1)]


# -- answers that are none --


def test_an_answer_in_chunks_is_read() -> None:
    body = answer(ENTRY)
    with line(lambda _connection, _turn: chunked(body[:7], body[7:])) as (server, listing):
        assert [listing.page("pending/", "") for _ in range(2)] == [FOUND, FOUND]
        assert server.connections == 1


_NEW_LINE = reply(answer(ENTRY) + b"\n")


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        *itertools.product([GOOD, chunked(answer(ENTRY))], [0, 1, 16, 40, -100, -6, -5]),
        # All of the XML is there, but not all of the answer.
        (_NEW_LINE, -1),
    ],
)
def test_an_answer_cut_in_the_middle_is_none(text: bytes, cut: int) -> None:
    with line(lambda _connection, _turn: (text[:cut], "close")) as (_, listing):
        assert listing.page("pending/", "") is None
    with line(lambda _connection, _turn: text) as (_, listing):
        assert listing.page("pending/", "") == FOUND


@pytest.mark.parametrize(
    "text",
    [
        reply(b"<!doctype html><title>Log in</title>"),
        reply(b"<html xmlns='http://www.w3.org/1999/xhtml'><body>Log in</body></html>"),
        reply(b"<?xml version='1.0'?><WISPAccessGatewayParam/>"),
        reply(b"", "302 Found", "Location: http://192.0.2.1/login"),
        reply(answer(ENTRY), "302 Found", "Location: http://192.0.2.1/login"),
        reply(answer(ENTRY), "203 Non-Authoritative Information"),
        reply(answer(ENTRY), "206 Partial Content"),
        reply(b"", "204 No Content"),
        reply(b"<Error><Code>SlowDown</Code></Error>", "503 Slow Down"),
        reply(answer(ENTRY), "500 Internal Server Error"),
        reply(answer(ENTRY), "511 Network Authentication Required"),
        reply(b"\x1f\x8b\x08\x00", "200 OK", "Content-Encoding: gzip"),
        reply(answer(IsTruncated="true")),
        b"220 mail.example.test ESMTP\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ],
    ids=range(18),
)
def test_the_answer_of_something_else_is_none_and_its_connection_is_not_kept(text: bytes) -> None:
    with line(lambda _connection, _turn: (text, "close")) as (server, listing):
        assert [listing.page("pending/", "") for _ in range(2)] == [None, None]
        assert server.asked == [(1, 1), (2, 1)]


def test_a_log_in_page_is_put_into_words_by_boto3(s3: S3Server, both: tuple[Bucket, Bucket]) -> None:
    s3.fault = lambda _operation, _key: Fault(body=b"<html><body>Log in to this network</body></html>")
    with pytest.raises(BucketUnavailable, match="not S3"):
        list(both[0].pages("pending/"))


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 99999999999\r\n", b""])
def test_an_answer_without_an_end_is_not_read_to_its_end(head: bytes) -> None:
    sent = 0
    piece = b" " * 65536
    if b"chunked" in head:
        piece = b"%x\r\n%s\r\n" % (len(piece), piece)

    def serve() -> None:
        nonlocal sent
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
            while sent < 1000 * len(piece):
                connection.sendall(piece)
                sent += len(piece)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        assert listing_of(f"http://127.0.0.1:{server.getsockname()[1]}").page("pending/", "") is None
        thread.join(60)
    # 4 MiB, and what the kernel holds of a connection.
    assert sent < 500 * len(piece)


def test_more_than_a_page_can_be_is_none() -> None:
    body = answer(ENTRY)
    most, more = (chunked(body, b" " * blanks) for blanks in (4 * 1024 * 1024 - len(body), 4 * 1024 * 1024))
    with line(lambda _connection, turn: most if turn == 1 else more) as (server, listing):
        assert [listing.page("pending/", "") for _ in range(2)] == [FOUND, None]
        assert server.connections == 1


def test_no_server_is_no_answer() -> None:
    with Line(lambda _connection, _turn: GOOD) as server:
        url = server.url
    assert listing_of(url).page("pending/", "") is None
    assert listing_of("http://127.0.0.1:65536").page("pending/", "") is None
    assert listing_of("http://nowhere.invalid").page("pending/", "") is None


# -- where it is asked --


@pytest.mark.parametrize(
    ("url", "to", "host"),
    [
        ("http://[::1]:9000", ("::1", 9000), "[::1]:9000"),
        ("http://[::1]", ("::1", 80), "[::1]"),
        ("http://S3.test:80/", ("s3.test", 80), "s3.test"),
        ("http://s3.test:8333/a", ("s3.test", 8333), "s3.test:8333"),
    ],
)
def test_names_ports_and_ipv6_are_connected_to_as_written(
    url: str, to: tuple[str, int], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.create_connection
    asked, made = [], []
    with Line(lambda _connection, _turn: GOOD) as server:

        def redirected(address: tuple[str, int], *rest: Any, **more: Any) -> socket.socket:
            asked.append(address)
            made.append(connect(("127.0.0.1", server.port), *rest, **more))
            return made[0]

        monkeypatch.setattr(socket, "create_connection", redirected)
        listing = listing_of(url)
        assert listing.page("pending/", "") == FOUND
        # Or the server's delayed acknowledgement could hold a request up.
        assert made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert asked == [to]
    (head,) = server.heads
    assert re.findall("^host: (.*)\r$", head, re.IGNORECASE | re.MULTILINE) == [host]


@pytest.mark.parametrize("name", [*_PROXIES, *(name.lower() for name in _PROXIES)])
def test_a_proxy_is_left_to_boto3(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with line(lambda _connection, _turn: GOOD) as (server, listing):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert listing.page("pending/", "") is None
        assert server.connections == 0
        monkeypatch.setenv(name, "")
        assert listing.page("pending/", "") == FOUND


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    return tls_server(tmp_path)


@pytest.mark.parametrize(
    ("bundles", "page"),
    [
        ({"AWS_CA_BUNDLE": "own"}, FOUND),
        ({"REQUESTS_CA_BUNDLE": "own"}, FOUND),
        ({"AWS_CA_BUNDLE": "own", "REQUESTS_CA_BUNDLE": "missing"}, FOUND),
        ({"AWS_CA_BUNDLE": "missing", "REQUESTS_CA_BUNDLE": "own"}, None),
        ({"AWS_CA_BUNDLE": "other"}, None),
        ({"AWS_CA_BUNDLE": ""}, None),
        ({"AWS_CA_BUNDLE": "", "REQUESTS_CA_BUNDLE": "own"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_the_ca_bundle_is_the_one_that_boto3_takes(
    bundles: dict[str, str],
    page: Page | None,
    tls: tuple[ssl.SSLContext, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context, own = tls
    (tmp_path / "other").mkdir()
    paths = {"own": own, "other": tls_server(tmp_path / "other")[1], "missing": tmp_path / "missing", "": ""}
    for name, which in bundles.items():
        monkeypatch.setenv(name, str(paths[which]))
    with line(lambda _connection, _turn: GOOD, context) as (server, listing):
        assert listing.page("pending/", "") == page
        assert listing.page("pending/", "") == page
        assert len(server.asked) == (2 if page else 0)
        known: dict[str, Any] = {"access_key_id": "AK", "secret_access_key": Secret("SK"), "connections": 1}
        bucket = Bucket(lambda: s3client.client(endpoint_url=server.url, **known), listing_of("")._http, "mail")
        with contextlib.nullcontext() if page else pytest.raises(Exception):  # noqa: PT011 (whatever it says)
            assert next(bucket.pages("pending/")) == [LISTED]


def test_without_a_bundle_the_roots_are_the_machines_own(
    tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL's variable says where those are. A bundle without a name is not none: boto3 refuses it."""
    context, own = tls
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    with line(lambda _connection, _turn: GOOD, context) as (_, listing):
        assert listing.page("pending/", "") == FOUND
    monkeypatch.setenv("AWS_CA_BUNDLE", "")
    with line(lambda _connection, _turn: GOOD, context) as (_, listing):
        assert listing.page("pending/", "") is None


def test_a_certificate_for_another_name_is_refused(
    tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, own = tls
    monkeypatch.setenv("AWS_CA_BUNDLE", str(own))
    with Line(lambda _connection, _turn: GOOD, context) as server:
        assert listing_of(server.url.replace("127.0.0.1", "localhost")).page("pending/", "") is None
        assert listing_of(server.url).page("pending/", "") == FOUND
        assert len(server.asked) == 1


def test_one_tls_connection_serves_until_it_breaks(
    tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, own = tls
    monkeypatch.setenv("AWS_CA_BUNDLE", str(own))
    with line(lambda connection, turn: CLOSE if (connection, turn) == (1, 3) else GOOD, context) as (server, listing):
        assert [listing.page("pending/", "") for _ in range(4)] == [FOUND] * 4
        assert server.asked == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]


def test_a_tls_handshake_without_an_answer_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3http, "_CONNECT_TIMEOUT_SECONDS", 0.05)
    with Line(lambda _connection, _turn: GOOD) as server:
        assert listing_of(server.url.replace("http:", "https:")).page("pending/", "") is None
        assert server.connections == 1


def test_an_idle_look_asks_once_and_never_loads_boto3(s3: S3Server) -> None:
    known: dict[str, Any] = {"access_key_id": s3.access_key_id, "secret_access_key": Secret(s3.secret_access_key)}
    http = Http(endpoint_url=s3.endpoint_url, bucket=s3.bucket, **known)
    bucket = Bucket(boto3_is_not_asked, http, s3.bucket)
    assert list(bucket.pages("pending/")) == []
    assert dict(s3.requests) == {"ListObjectsV2": 1}
