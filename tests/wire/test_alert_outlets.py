"""Alerts over the wire: ntfy, webhook, health check, mail."""

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.header import decode_header, make_header
from pathlib import Path
from typing import Any

import pytest

from drain.alerts import letter as letter_module, post as post_module
from drain.alerts.alert import Alert, AlertState, Kind, NotSent, Outlet
from drain.alerts.letter import Letter
from drain.alerts.ntfy import Ntfy
from drain.alerts.ping import Ping
from drain.alerts.webhook import Webhook
from drain.login import Server
from drain.setting import Secret
from tests.http_fake import Answer, FakeHttp
from tests.smtp_fake import DROP, FakeSmtp
from tests.support import free_port, on_verb

WORDS = "12 mails wait, the oldest for 3.5 days."
ALERT = Alert(Kind.BACKLOG_AGE, "", AlertState.ON, WORDS, 12, 302_400.0, 1_800_000_000.0)
TOKEN = Secret("tk_s3cret")
ADMIN = "admin@example.test"
# As they are in a person's settings: the path is what lets one in.
HIDDEN = ("T0pSecretPath", "qu3ry-secret")
PATH = "/T0pSecretPath?auth=qu3ry-secret"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server() -> Iterator[FakeHttp]:
    with FakeHttp() as fake:
        yield fake


@pytest.fixture
def smtp() -> Iterator[FakeSmtp]:
    with FakeSmtp() as fake:
        fake.mailboxes.add(ADMIN)
        yield fake


def alert(**changes: Any) -> Alert:
    return dataclasses.replace(ALERT, **changes)


def never() -> bool:
    return False


def not_sent(send: Callable[[], None]) -> str:
    """Its words: a sentence without a secret, also in what it came from."""
    with pytest.raises(NotSent) as caught:
        send()
    error: BaseException | None = caught.value
    assert str(caught.value).endswith((".", "?"))
    while error is not None:
        assert not [secret for secret in (*HIDDEN, TOKEN.reveal(), "s3cret") if secret in f"{error} {error!r}"]
        error = error.__cause__ or error.__context__
    return str(caught.value)


def by_http(url: str) -> dict[str, Callable[[], None]]:
    """Each outlet that goes by HTTP."""
    return {
        "ntfy": lambda: Ntfy(Secret(url), TOKEN, "drain on pi").send(ALERT, never),
        "webhook": lambda: Webhook(Secret(url), TOKEN, "drain on pi").send(ALERT, never),
        "success": Ping(Secret(url)).success,
        "failure": lambda: Ping(Secret(url)).failure("R2 is away."),
    }


def mailed(smtp: FakeSmtp, told: Alert = ALERT, stopped: Callable[[], bool] = never, **server: object) -> None:
    settings = {"host": "127.0.0.1", "port": smtp.port, "user": smtp.user, "password": Secret(smtp.password)}
    made = Server(**{**settings, "tls": "auto", "ca_file": "", **server})  # type: ignore[arg-type]  # fields of a Server
    Letter(made, ADMIN, "drain on pi").send(told, stopped)


def test_each_is_an_outlet_with_a_name_of_its_own() -> None:
    url = Secret("https://example.test/x")
    there = Server("127.0.0.1", 1, "", Secret(""), "auto", "")
    outlets: list[Outlet] = [Ntfy(url, TOKEN, "d"), Webhook(url, TOKEN, "d"), Letter(there, ADMIN, "d")]
    assert [outlet.name for outlet in outlets] == ["ntfy", "webhook", "mail"]


# -- ntfy --


def test_ntfy_gets_message_title_priority_and_tags(server: FakeHttp) -> None:
    Ntfy(Secret(f"{server.url}/mytopic"), TOKEN, "drain on pi").send(ALERT, never)
    [request] = server.requests
    assert (request.method, request.target) == ("POST", "/mytopic")
    assert request.body.decode() == f"drain on pi: {WORDS}"
    assert request.headers["title"] == ["backlog-age"]
    assert request.headers["priority"] == ["4"]
    assert request.headers["tags"] == ["warning"]
    assert request.headers["authorization"] == ["Bearer tk_s3cret"]
    assert request.headers["content-type"] == ["text/plain; charset=utf-8"]


def test_ntfy_without_a_token_says_nothing_of_one(server: FakeHttp) -> None:
    Ntfy(Secret(f"{server.url}/mytopic"), Secret(""), "d").send(ALERT, never)
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("changes", "priority", "tag"),
    [
        ({"state": AlertState.AGAIN}, "4", "warning"),
        ({"state": AlertState.OVER}, "2", "white_check_mark"),
        ({"kind": Kind.QUARANTINE}, "3", "warning"),
        ({"kind": Kind.FILTER, "state": AlertState.OVER}, "2", "white_check_mark"),
        ({"kind": Kind.MISSING}, "4", "warning"),
    ],
)
def test_ntfy_rings_as_loud_as_it_is_urgent(server: FakeHttp, changes: dict[str, Any], priority: str, tag: str) -> None:
    Ntfy(Secret(server.url), TOKEN, "d").send(alert(**changes), never)
    headers = server.requests[0].headers
    assert (headers["priority"], headers["tags"]) == ([priority], [tag])


def test_ntfy_gets_words_that_are_not_ascii_whole(server: FakeHttp) -> None:
    told = alert(subject="größe\r\nX-Evil: 1", words="Zürich schweigt…")
    Ntfy(Secret(server.url), TOKEN, "drain für alle").send(told, never)
    [request] = server.requests
    assert request.body.decode() == "drain für alle: Zürich schweigt…"
    [title] = request.headers["title"]
    assert title.isascii()
    assert str(make_header(decode_header(title))) == "backlog-age größe  X-Evil: 1"
    assert "x-evil" not in request.headers


# -- webhook --


def test_a_webhook_gets_the_alert_as_json_and_as_text(server: FakeHttp) -> None:
    Webhook(Secret(server.url + PATH), TOKEN, "drain on pi").send(ALERT, never)
    [request] = server.requests
    assert (request.method, request.target) == ("POST", PATH)
    assert request.headers["content-type"] == ["application/json"]
    assert request.headers["authorization"] == ["Bearer tk_s3cret"]
    body = request.json
    assert {name: body[name] for name in ALERT.as_json} == dict(ALERT.as_json)
    assert body["host"] == socket.gethostname()
    assert body["text"] == body["content"] == f"drain on pi: {WORDS}"


def test_words_from_outside_call_nobody_in_a_chat(server: FakeHttp) -> None:
    words = "<!channel> & @everyone <https://evil.test|click>"
    Webhook(Secret(server.url), TOKEN, "d").send(alert(words=words), never)
    body = server.requests[0].json
    assert body["text"] == "d: &lt;!channel&gt; &amp; @everyone &lt;https://evil.test|click&gt;"
    assert body["content"] == f"d: {words}"
    assert body["message"] == words
    assert body["allowed_mentions"] == {"parse": []}


def test_what_discord_takes_is_not_exceeded(server: FakeHttp) -> None:
    Webhook(Secret(server.url), TOKEN, "d" * 3000).send(alert(words="w" * 5000), never)
    assert len(server.requests[0].json["content"]) <= 2000


def test_204_is_as_good_as_200(server: FakeHttp) -> None:
    server.answer = lambda request: Answer(status=204)
    Webhook(Secret(server.url), TOKEN, "d").send(ALERT, never)
    assert len(server.requests) == 1


# -- the health check --


@pytest.mark.parametrize(
    ("path", "failing"),
    [
        ("/uuid", "/uuid/fail"),
        ("/key/slug?create=1", "/key/slug/fail?create=1"),
        ("/uuid/?a=b/c", "/uuid/fail?a=b/c"),
    ],
)
def test_a_ping_says_well_or_not_well(server: FakeHttp, path: str, failing: str) -> None:
    ping = Ping(Secret(server.url + path))
    ping.success()
    ping.failure("R2 is away.\nSince noon: Zürich")
    well, bad = server.requests
    assert (well.method, well.target, well.body) == ("GET", path, b"")
    assert (bad.method, bad.target) == ("POST", failing)
    assert bad.body.decode() == "R2 is away. Since noon: Zürich"
    assert not {"authorization"} & (set(well.headers) | set(bad.headers))


# -- what goes wrong with any of them --


@pytest.mark.parametrize("outlet", ["ntfy", "webhook", "success", "failure"])
def test_no_failure_shows_more_of_an_address_than_its_host(server: FakeHttp, outlet: str) -> None:
    quoting = f"no such {' '.join(HIDDEN)} \x1b[2J".encode()
    place = f"127.0.0.1:{server.port}"
    for reply in (
        *(Answer(quoting, status) for status in (400, 401, 403, 404, 410, 413, 429, 500, 503)),
        Answer(status=301, headers={"Location": f"https://127.0.0.1{PATH}"}),
        Answer(status=301, headers={"Location": "/T0pSecretPath/"}),
        Answer(b"x" * 10, headers={"Content-Encoding": "gzip"}),
        Answer(b"x" * 100_000),
        Answer(fate="close"),
        Answer(fate="reset"),
        Answer(fate="nonsense"),
    ):
        server.answer = lambda request, reply=reply: reply  # type: ignore[misc]  # bound now
        words = not_sent(by_http(server.url + PATH)[outlet])
        assert place in words, reply
        assert "\x1b" not in words
        if reply.status >= 400:
            assert f"answered with {reply.status}: no such *** ***" in words
    assert len(server.requests) == 16, "each was asked once, and no redirect was followed"


@pytest.mark.parametrize("outlet", ["ntfy", "webhook", "success", "failure"])
def test_who_is_not_there_is_named_without_the_address(outlet: str) -> None:
    port = free_port()
    words = not_sent(by_http(f"http://127.0.0.1:{port}{PATH}")[outlet])
    assert f"127.0.0.1:{port} refuses connections" in words
    assert "_URL" in words


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/T0pSecretPath", "http://[::1/T0pSecretPath", "T0pSecretPath"])
def test_an_address_that_is_none_is_not_shown(url: str) -> None:
    for send in by_http(url).values():
        assert "Check " in not_sent(send)


@pytest.mark.parametrize(
    ("status", "hint"),
    [(403, "Check NTFY_URL and NTFY_TOKEN."), (404, "Check NTFY_URL."), (429, "asked too often."), (500, "with 500.")],
)
def test_a_refusal_says_what_to_look_at(server: FakeHttp, status: int, hint: str) -> None:
    server.answer = lambda request: Answer(status=status)
    assert not_sent(by_http(server.url)["ntfy"]).endswith(hint)


def test_a_secret_is_not_shown_by_halves_where_an_answer_is_cut(server: FakeHttp) -> None:
    server.answer = lambda request: Answer(b"x" * 295 + b"T0pSecretPath" * 5, 400)
    assert "T0p" not in not_sent(by_http(server.url + PATH)["webhook"])


def test_a_token_that_a_service_quotes_is_not_shown(server: FakeHttp) -> None:
    server.answer = lambda request: Answer(f"bad token {TOKEN.reveal()}".encode(), 401)
    for outlet in ("ntfy", "webhook"):
        assert "bad token ***." in not_sent(by_http(server.url)[outlet])


def test_a_token_that_cannot_be_sent_is_not_shown(server: FakeHttp) -> None:
    words = not_sent(lambda: Ntfy(Secret(server.url), Secret("s3cret\nX: 1"), "d").send(ALERT, never))
    assert "NTFY_TOKEN" in words
    assert not server.requests


@pytest.mark.parametrize("outlet", ["ntfy", "webhook", "success", "failure"])
def test_a_service_that_hangs_is_given_up_in_time(outlet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_module, "_SECONDS", 0.3)
    with FakeHttp(fate="deaf") as server:
        begin = time.monotonic()
        assert "within 0.3 s" in not_sent(by_http(server.url + PATH)[outlet])
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize("name", ["ntfy", "webhook", "mail"])
def test_an_outlet_that_is_told_to_end_does_so_within_a_second(name: str) -> None:
    told = threading.Event()
    with FakeHttp(fate="deaf") as server, _silent() as port:
        url = Secret(server.url)
        outlets: dict[str, Outlet] = {
            "ntfy": Ntfy(url, TOKEN, "d"),
            "webhook": Webhook(url, TOKEN, "d"),
            "mail": Letter(Server("127.0.0.1", port, "drain", TOKEN, "auto", ""), ADMIN, "d"),
        }
        timer = threading.Timer(0.3, told.set)
        timer.start()
        begin = time.monotonic()
        assert "drain ends" in not_sent(lambda: outlets[name].send(ALERT, told.is_set))
        assert 0.2 < time.monotonic() - begin < 1.3
        timer.join()


@contextlib.contextmanager
def _silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# -- mail --


def test_a_letter_is_injected_into_the_admin_mailbox_with_no_sender(smtp: FakeSmtp) -> None:
    mailed(smtp)
    [filed] = smtp.filed
    assert (filed.sender, filed.mailbox) == ("", ADMIN)
    assert b"Subject: drain on pi: backlog-age\r\n" in filed.content
    assert WORDS.encode() in filed.content
    assert "quit" in _until_said(smtp, "quit"), "it takes its leave"


def _until_said(smtp: FakeSmtp, command: str) -> list[str]:
    deadline = time.monotonic() + 5
    while command not in smtp.commands and time.monotonic() < deadline:
        time.sleep(0.01)
    return smtp.commands


def test_a_dot_at_the_beginning_of_a_line_ends_nothing_and_stays(smtp: FakeSmtp) -> None:
    server = Server("127.0.0.1", smtp.port, smtp.user, Secret(smtp.password), "auto", "")
    Letter(server, ADMIN, ".hidden").send(ALERT, never)
    assert b"\r\n\r\n.hidden: 12 mails wait" in smtp.filed[0].content


@pytest.mark.parametrize(
    ("verb", "reply", "words"),
    [
        ("MAIL", "451 4.3.0 later", "MAIL: 451 4.3.0 later."),
        ("RCPT", "550 5.1.1 no such user", "MAIL_ADMIN_LOCALPART"),
        ("RCPT", "452 4.2.2 full", "RCPT: 452 4.2.2 full."),
        ("DATA", "554 5.7.1 no", "DATA: 554 5.7.1 no."),
        ("DOT", "554 5.6.0 no\x1b[2J", "the final dot: 554 5.6.0 no [2J."),
        ("DOT", DROP, "broke off at the final dot"),
        ("BODY", DROP, "broke off at"),
        ("CONNECT", "421 4.3.2 shutting down", "cannot be used"),
    ],
)
def test_a_letter_that_is_refused_is_not_sent(smtp: FakeSmtp, verb: str, reply: str, words: str) -> None:
    smtp.answer = on_verb(verb, reply)
    assert words in not_sent(lambda: mailed(smtp))


def test_a_letter_to_a_mail_server_that_is_wrongly_set_up_or_away_is_not_sent(smtp: FakeSmtp, tmp_path: Path) -> None:
    assert "refused the login" in not_sent(lambda: mailed(smtp, password=Secret("wr0ng")))
    assert "STARTTLS" in not_sent(lambda: mailed(smtp, tls="starttls"))
    assert "INJECT_PORT" in not_sent(lambda: mailed(smtp, port=free_port()))
    assert not smtp.filed


def test_a_mail_server_that_hangs_is_given_up_in_time(smtp: FakeSmtp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_module, "_SECONDS", 0.3)
    let_go = threading.Event()

    def hang(verb: str, argument: str) -> None:
        if verb == "DOT":
            let_go.wait(10)

    smtp.answer = hang
    assert "within 0.3 s" in not_sent(lambda: mailed(smtp))
    let_go.set()


def test_a_letter_that_was_given_up_while_it_was_connected_is_not_sent_later(
    smtp: FakeSmtp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again anyway: sent later, it would come twice."""
    monkeypatch.setattr(letter_module, "_SECONDS", 0.3)
    let_go = threading.Event()

    def hang(verb: str, argument: str) -> None:
        if verb == "AUTH":
            let_go.wait(10)

    smtp.answer = hang
    not_sent(lambda: mailed(smtp))
    let_go.set()
    _until_no_thread()
    assert "DATA" not in smtp.commands
    assert not smtp.filed


def _until_no_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "drain-letter":
            thread.join(8)
            assert not thread.is_alive()


def test_it_is_json_that_any_program_reads(server: FakeHttp) -> None:
    Webhook(Secret(server.url), TOKEN, "dräin").send(alert(words="Zürich \N{OK HAND SIGN}", oldest_seconds=None), never)
    body = json.loads(server.requests[0].body)
    assert body["content"] == "dräin: Zürich \N{OK HAND SIGN}"
    assert body["oldest_seconds"] is None
