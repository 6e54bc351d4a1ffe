import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from drain.filters.post import BadStatus, Service, post, where
from drain.filters.verdict import FilterFailed
from drain.setting import Secret
from tests.http_fake import Answer, FakeHttp, Request, tls_server

SERVICE = Service("the judge", "JUDGE_URL", "JUDGE_TOKEN")
TOKEN = Secret("t0p-s3cret")
MEGABYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def server() -> Iterator[FakeHttp]:
    with FakeHttp() as fake:
        yield fake


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, Path]:
    return tls_server(tmp_path_factory.mktemp("tls"))


def ask(url: str, *, seconds: float = 5.0, token: Secret = TOKEN, body: bytes = b"{}") -> bytes:
    return post(url, token, body, seconds, SERVICE)


def failure(url: str, **more: float | Secret | bytes) -> FilterFailed:
    """How it fails: in a sentence, and with the token in no exception of the chain."""
    with pytest.raises(FilterFailed) as caught:
        ask(url, **more)  # type: ignore[arg-type]  # the same as ask takes
    error: BaseException | None = caught.value
    assert str(caught.value).endswith((".", "?")), "a sentence for a person"
    while error is not None:
        assert TOKEN.reveal() not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__
    return caught.value


def failing(server: FakeHttp, reply: Answer) -> FilterFailed:
    server.answer = lambda request: reply
    return failure(server.url)


# -- what is sent --


def test_it_posts_json_with_the_token_and_gives_the_answer(server: FakeHttp) -> None:
    server.answer = lambda request: Answer(b'{"a": 1}')
    assert ask(server.url + "/x?y=z", body=b'{"q": 1}') == b'{"a": 1}'
    [request] = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/x?y=z", b'{"q": 1}')
    assert request.headers["authorization"] == ["Bearer t0p-s3cret"]
    assert request.headers["content-type"] == ["application/json"]
    assert request.headers["accept-encoding"] == ["identity"]


def test_without_a_token_nothing_is_said_of_one(server: FakeHttp) -> None:
    ask(server.url, token=Secret(""))
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("token", [TOKEN, Secret("")])
def test_netrc_neither_adds_nor_replaces_a_login(
    server: FakeHttp, token: Secret, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login root password hunter2\ndefault login root password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    ask(server.url, token=token)
    assert server.requests[0].headers.get("authorization", []) == ([f"Bearer {token.reveal()}"] if token else [])


@pytest.mark.parametrize("token", ["a\nb", "pässwort", "a\r\nX-Injected: 1"])
def test_a_token_that_cannot_be_sent_is_said_and_not_shown(server: FakeHttp, token: str) -> None:
    error = failure(server.url, token=Secret(token))
    assert "JUDGE_TOKEN" in str(error)
    assert token not in str(error)
    assert not server.requests


# -- proxies --


def test_a_proxy_of_the_environment_is_used(server: FakeHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    ask("http://judge.invalid/v1")
    assert server.requests[0].target == "http://judge.invalid/v1"


def test_loopback_is_asked_without_a_proxy(server: FakeHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHttp() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        ask(server.url)
        ask(f"http://localhost:{server.port}")
        assert (len(server.requests), proxy.connections) == (2, 0)


def test_a_proxy_that_refuses_is_named_as_that(server: FakeHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = lambda request: Answer(status=407)
    monkeypatch.setenv("HTTPS_PROXY", server.url.replace("//", "//me:hunter2@"))
    error = failure("https://judge.invalid/v1")
    assert "through the proxy" in str(error)
    assert "407" in str(error)
    assert "HTTPS_PROXY" in error.hint
    assert "hunter2" not in str(error)
    assert "authorization" not in server.requests[0].headers, "the proxy is told no token"


def test_a_proxy_that_is_not_there_is_named_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    assert "through the proxy" in str(failure("http://judge.invalid/v1"))


# -- TLS --


def test_tls_is_verified(tls: tuple[object, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = tls
    with FakeHttp(tls=context) as server:  # type: ignore[arg-type]  # an SSLContext
        error = failure(server.url)
        assert "certificate that is not believed" in str(error)
        assert error.down
        assert not server.requests, "nothing is said to it"
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert ask(server.url) == b"{}"


def test_a_server_without_tls_where_it_is_due_is_named() -> None:
    with FakeHttp(fate="nonsense") as server:
        error = failure(server.url.replace("http:", "https:"))
    assert "TLS" in str(error)
    assert error.down


# -- time --

SLOW: dict[str, FakeHttp] = {
    "hangs": FakeHttp(lambda request: Answer(fate="hang")),
    "hangs after the header": FakeHttp(lambda request: Answer(b"{}", fate="hang after header")),
    "drips its header": FakeHttp(lambda request: Answer(b"x" * 10_000, headers={"X": "x" * 5000}, seconds_a_byte=0.02)),
    "drips its body": FakeHttp(lambda request: Answer(b"x" * 10_000, dripping="body", seconds_a_byte=0.02)),
    "drips an error": FakeHttp(lambda request: Answer(b"x" * 10_000, 500, dripping="body", seconds_a_byte=0.02)),
    "drips chunks": FakeHttp(
        lambda request: Answer(
            b"1\r\nx\r\n" * 5000, headers={"Transfer-Encoding": "chunked"}, dripping="body", seconds_a_byte=0.02
        )
    ),
    "says 100 for ever": FakeHttp(lambda request: Answer(b"HTTP/1.1 100 X\r\n\r\n" * 900, 100, seconds_a_byte=0.02)),
    "takes nothing": FakeHttp(fate="deaf"),
}


def test_no_server_can_hold_its_caller_longer_than_told() -> None:
    """All at once, since each takes as long as it is let."""
    patience = 0.4
    slow = {name: (fake, "http") for name, fake in SLOW.items()}
    slow["hangs in the TLS handshake"] = (FakeHttp(fate="deaf"), "https")
    slow["drips in the TLS handshake"] = (FakeHttp(fate="drip tls"), "https")
    body = b"x" * (8 * MEGABYTE)  # more than the buffers on the way hold

    def held(name: str) -> tuple[float, FilterFailed]:
        fake, scheme = slow[name]
        begin = time.monotonic()
        error = failure(f"{scheme}://127.0.0.1:{fake.port}", seconds=patience, body=body)
        return time.monotonic() - begin, error

    with contextlib.ExitStack() as servers, ThreadPoolExecutor(len(slow)) as crew:
        for fake, _ in slow.values():
            servers.enter_context(fake)
        for name, (seconds, error) in zip(slow, crew.map(held, slow), strict=True):
            assert seconds < patience + 3, name
            assert "within 0.4 s" in str(error), name
            assert error.down, name
        assert_no_thread_is_left()


def test_a_tls_server_that_hangs_holds_its_caller_no_longer(
    tls: tuple[object, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = tls
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    dripping = Answer(b"x" * 10_000, dripping="body", seconds_a_byte=0.02)
    with FakeHttp(lambda request: dripping, tls=context) as server:  # type: ignore[arg-type]  # an SSLContext
        assert "within 1 s" in str(failure(server.url, seconds=1.0))
        assert server.requests, "it was TLS, and it was spoken"
        assert_no_thread_is_left()


def test_a_name_that_is_looked_up_for_long_holds_its_caller_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def slow(*_: object, **__: object) -> object:
        answered.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    begin = time.monotonic()
    assert "within 0.1 s" in str(failure("http://judge.invalid", seconds=0.1))
    assert time.monotonic() - begin < 3
    answered.set()
    assert_no_thread_is_left()


def assert_no_thread_is_left() -> None:
    for thread in threading.enumerate():
        if thread.name == "drain-request":
            thread.join(0.5)
            assert not thread.is_alive(), "the connection was cut: nothing can be waiting on it"


# -- what comes back --


def test_an_answer_is_read_no_further_than_its_limit(server: FakeHttp) -> None:
    error = failing(server, Answer(b"x" * MEGABYTE, times=100_000))
    assert "more than 64 KiB" in str(error)
    assert not error.down
    server.answer = lambda request: Answer(b"x" * 64 * 1024)
    assert len(ask(server.url)) == 64 * 1024


def test_so_is_one_that_comes_in_chunks_or_with_an_error(server: FakeHttp) -> None:
    chunk = Answer(b"10000\r\n" + b"x" * 65536 + b"\r\n", headers={"Transfer-Encoding": "chunked"}, times=1_600_000)
    assert "more than 64 KiB" in str(failing(server, chunk))
    assert len(str(failing(server, Answer(b"x" * MEGABYTE, 500, times=100_000)))) < 500


def test_what_is_compressed_unasked_is_not_unpacked(server: FakeHttp) -> None:
    bomb = gzip.compress(b" " * (5 * MEGABYTE))
    error = failing(server, Answer(bomb, headers={"Content-Encoding": "gzip"}))
    assert "compressed" in str(error)
    assert not error.down


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(server: FakeHttp, status: int) -> None:
    with FakeHttp() as elsewhere:
        error = failing(server, Answer(status=status, headers={"Location": elsewhere.url + "/x?t0p-s3cret"}))
        assert "redirects to" in str(error)
        assert elsewhere.url + "/x" in str(error)
        assert "JUDGE_URL" in error.hint
        assert (elsewhere.connections, len(server.requests)) == (0, 1)


@pytest.mark.parametrize(
    ("status", "down", "hint"),
    [
        (201, False, ""),
        (204, False, ""),
        (400, False, ""),
        (401, True, "JUDGE_TOKEN"),
        (403, True, "JUDGE_TOKEN"),
        (404, True, "JUDGE_URL"),
        (413, False, ""),
        (422, False, ""),
        (429, True, "too often"),
        (500, True, ""),
        (503, True, ""),
    ],
)
def test_a_status_says_whether_it_is_the_service_or_the_mail(
    server: FakeHttp,
    status: int,
    down: bool,  # noqa: FBT001  # of a table
    hint: str,
) -> None:
    error = failing(server, Answer(status=status))
    assert isinstance(error, BadStatus)
    assert (error.down, error.status) == (down, status)
    assert f"answered with {status}" in str(error)
    assert hint in error.hint


def test_the_words_of_an_error_are_shown_shortened_cleaned_and_without_the_token(server: FakeHttp) -> None:
    error = failing(server, Answer(b"Bad key t0p-s3cret\x1b[31m\r\n\x9b\xff" + b"x" * 1000, 401))
    assert "Bad key *** [31m" in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 450


@pytest.mark.parametrize(
    ("fate", "words"), [("close", "closed the connection"), ("reset", "reset"), ("nonsense", "not HTTP")]
)
def test_a_connection_that_breaks_is_a_sentence(server: FakeHttp, fate: str, words: str) -> None:
    error = failing(server, Answer(fate=fate))
    assert words in str(error)
    assert f"The judge at 127.0.0.1:{server.port}" in str(error)


def test_an_answer_that_is_cut_off_is_none(server: FakeHttp) -> None:
    assert "broke off" in str(failing(server, Answer(b"{}", headers={"Content-Length": "10"})))


def test_who_is_not_there_is_named_with_what_can_be_done() -> None:
    port = unused_port()
    error = failure(f"http://127.0.0.1:{port}/v1?key=t0p-s3cret")
    assert str(error).startswith(f"The judge at 127.0.0.1:{port}/v1 refuses connections.")
    assert "JUDGE_URL" in error.hint
    assert error.down


def test_a_name_that_is_not_found_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure("http://judge.invalid/")
    assert "its name is not found (Name or service not known)" in str(error)
    assert error.down


def test_whether_anything_was_asked_is_known(server: FakeHttp) -> None:
    """It is what decides whether a call was paid for."""
    assert not failure(f"http://127.0.0.1:{unused_port()}").asked
    with FakeHttp(fate="deaf") as deaf:
        assert not failure(deaf.url.replace("http:", "https:"), seconds=0.2).asked
    for reply in (Answer(fate="hang"), Answer(fate="close")):
        server.answer = lambda request, reply=reply: reply  # type: ignore[misc]  # bound now
        assert failure(server.url, seconds=0.2).asked


def test_a_filter_that_is_slow_can_have_more_time(server: FakeHttp) -> None:
    server.answer = lambda request: Answer(fate="hang")
    assert failure(server.url, seconds=0.1).hint == (
        "If it is only slow, FILTER_TIMEOUT gives it more; if it is not there, check JUDGE_URL."
    )


@pytest.mark.parametrize("url", ["", "ftp://x/", "http://", "http://x:y/", "http://[::1/", "http://u:p@x/"])
def test_an_address_that_cannot_be_asked_is_said_without_what_is_in_it(url: str) -> None:
    error = failure(url)
    assert "JUDGE_URL" in error.hint
    assert "u:p" not in str(error)


def test_an_address_is_shown_without_what_may_be_secret() -> None:
    assert where("https://u:p@judge.test/v1?key=x#y") == "judge.test:443/v1"
    assert where("http://[::1]:8080/v1") == "[::1]:8080/v1"


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_the_fake_records_what_came(server: FakeHttp) -> None:
    ask(server.url)
    assert server.requests == [Request("POST", "/", server.requests[0].headers, b"{}")]
