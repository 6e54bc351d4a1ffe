"""What all providers by HTTP have in common: what an answer, or none, means to a mail and to the queue."""

import datetime
import email.utils
import socket
import threading
import time
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, strategies as st

from drain.request import Response, Service
from drain.setting import Secret
from drain.upstreams import Action, Fate, Shipment, UpstreamDown, UpstreamRefused
from drain.upstreams.api import Api, one_by_one, retry_after, said
from tests.http_fake import Answer, FakeHttp, Request, answer

SERVICE = Service("Postbox", "POSTBOX_URL", "POSTBOX_KEY")
KEY = Secret("k3y-s3cret")
MAIL = Shipment("key-1", "alice@example.org", ("bob@example.net", "carol@example.net"), b"Subject: x\r\n\r\nHello\r\n")


@pytest.fixture
def server() -> Iterator[FakeHttp]:
    with FakeHttp() as fake:
        yield fake


def api(*, seconds: float = 5.0, key: Secret = KEY) -> Api:
    return Api(SERVICE, {"Authorization": f"Bearer {key.reveal()}"}, (key,), seconds)


def sent(url: str, *, by: Api | None = None, body: bytes = b"{}") -> Mapping[str, Fate]:
    return (by or api()).send(MAIL, url + "/send", body, {"Content-Type": "application/json"}, lambda response: None)


def fate(url: str, **more: object) -> Fate:
    """The one fate that all recipients have."""
    fates = sent(url, **more)  # type: ignore[arg-type]  # the same as sent takes
    assert set(fates) == set(MAIL.recipients)
    [one] = set(fates.values())
    return one


def replying(server: FakeHttp, reply: Answer) -> str:
    server.answer = lambda request: reply
    return server.url


# -- what is sent, and whose judgement counts --


def test_it_posts_what_it_is_given_with_the_login(server: FakeHttp) -> None:
    fate(server.url, body=b'{"a": 1}')
    [request] = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/send", b'{"a": 1}')
    assert request.headers["authorization"] == ["Bearer k3y-s3cret"]
    assert request.headers["content-type"] == ["application/json"]
    assert request.headers["accept-encoding"] == ["identity"]


def test_the_providers_own_judgement_comes_first(server: FakeHttp) -> None:
    own = {recipient: Fate(Action.FAILED, "5.7.1", "http; own") for recipient in MAIL.recipients}
    seen: list[Response] = []

    def judged(response: Response) -> Mapping[str, Fate]:
        seen.append(response)
        return own

    url = replying(server, answer({"message": "no"}, status=403, headers={"X-Thing": "1"}))
    assert api().send(MAIL, url, b"", {}, judged) == own
    assert (seen[0].status, seen[0].headers["x-thing"], seen[0].body) == (403, "1", b'{"message": "no"}')


# -- statuses --


@pytest.mark.parametrize(
    ("status", "action", "code"),
    [
        (200, Action.DELAYED, "4.5.0"),
        (202, Action.DELAYED, "4.5.0"),
        (204, Action.DELAYED, "4.5.0"),
        (400, Action.FAILED, "5.6.0"),
        (408, Action.DELAYED, "4.3.0"),
        (409, Action.DELAYED, "4.3.0"),
        (413, Action.FAILED, "5.3.4"),
        (422, Action.FAILED, "5.6.0"),
        (451, Action.FAILED, "5.6.0"),
        (500, Action.DELAYED, "4.3.0"),
        (502, Action.DELAYED, "4.3.0"),
        (504, Action.DELAYED, "4.3.0"),
        (599, Action.DELAYED, "4.3.0"),
    ],
)
def test_a_status_that_is_about_the_mail_is_its_fate(server: FakeHttp, status: int, action: Action, code: str) -> None:
    one = fate(replying(server, Answer(b"words", status)))
    assert (one.action, one.status, one.bad_address) == (action, code, False)
    assert one.diagnostic.startswith(f"http; {status} ")


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 406, 410, 415])
def test_a_status_that_is_about_the_account_blames_no_mail(server: FakeHttp, status: int) -> None:
    with pytest.raises(UpstreamRefused) as caught:
        sent(replying(server, answer({"message": "Key revoked."}, status=status)))
    assert f"Postbox at 127.0.0.1:{server.port}/send answered with {status}: Key revoked." in str(caught.value)
    assert ("POSTBOX_KEY" if status <= 403 else "POSTBOX_URL") in caught.value.hint


@pytest.mark.parametrize("status", [407, 421, 425, 426, 429, 503])
def test_a_status_that_is_about_the_service_is_waited_for(server: FakeHttp, status: int) -> None:
    with pytest.raises(UpstreamDown) as caught:
        sent(replying(server, Answer(b"later", status, headers={"Retry-After": "17"})))
    assert caught.value.retry_after == 17
    assert f"answered with {status}: later." in str(caught.value)


def test_a_redirect_is_not_followed_and_blames_no_mail(server: FakeHttp) -> None:
    with FakeHttp() as elsewhere:
        with pytest.raises(UpstreamDown, match="redirects to"):
            sent(replying(server, Answer(status=307, headers={"Location": elsewhere.url})))
        assert elsewhere.connections == 0


def test_a_redirect_that_says_that_it_was_done_leaves_it_unknown(server: FakeHttp) -> None:
    assert fate(replying(server, Answer(status=303, headers={"Location": "/done"}))).status == "4.4.2"


# -- no answer --


def test_who_is_not_there_is_down_and_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UpstreamDown, match="refuses connections") as caught:
        sent(f"http://127.0.0.1:{port}")
    assert "POSTBOX_URL" in caught.value.hint


@pytest.mark.parametrize("fate_of", ["deaf", "nonsense"])
def test_a_connection_that_never_gets_to_tls_is_down_and_nothing_was_sent(fate_of: str) -> None:
    with FakeHttp(fate=fate_of) as server, pytest.raises(UpstreamDown) as caught:
        sent(server.url.replace("http:", "https:"), by=api(seconds=0.3))
    assert "POSTBOX_URL" in caught.value.hint
    assert "FILTER" not in caught.value.hint


@pytest.mark.parametrize(
    "reply",
    [
        Answer(fate="close"),
        Answer(fate="reset"),
        Answer(fate="nonsense"),
        Answer(b"{}", headers={"Content-Length": "10"}),
        Answer(b"{}", headers={"Content-Encoding": "gzip"}),
        Answer(b"x" * 1000, times=1000),
    ],
    ids=["closed", "reset", "not HTTP", "cut in the answer", "compressed", "too large"],
)
def test_an_answer_that_is_lost_leaves_the_mail_unknown(server: FakeHttp, reply: Answer) -> None:
    one = fate(replying(server, reply))
    assert (one.action, one.status, one.unknown) == (Action.DELAYED, "4.4.2", True)
    assert one.diagnostic.startswith("http; no answer: Postbox at 127.0.0.1")


def test_a_service_that_is_slow_is_waited_for_no_longer_than_told(server: FakeHttp) -> None:
    for reply in (
        Answer(fate="hang"),
        Answer(b"{}", fate="hang after header"),
        Answer(b"x" * 9999, dripping="body", seconds_a_byte=0.02),
        Answer(b"x" * 9999, 500, dripping="body", seconds_a_byte=0.02),
    ):
        begin = time.monotonic()
        assert fate(replying(server, reply), by=api(seconds=0.3)).status == "4.4.2"
        assert time.monotonic() - begin < 3


def test_a_large_mail_has_more_time(server: FakeHttp) -> None:
    """A megabyte has a minute more: the answer that comes after the limit of a small one still counts."""

    def slow(request: Request) -> Answer:
        time.sleep(0.5)
        return Answer(b"bad", 400)

    server.answer = slow
    assert fate(server.url, by=api(seconds=0.1)).status == "4.4.2"
    assert fate(server.url, by=api(seconds=0.1), body=b"x" * 1024 * 1024).status == "5.6.0"


def test_stopping_breaks_off_what_is_in_flight_and_all_that_comes_later(server: FakeHttp) -> None:
    asked = threading.Event()

    def hang(request: Request) -> Answer:
        asked.set()
        return Answer(fate="hang")

    server.answer = hang
    one = api(seconds=30)
    found: list[Fate] = []
    thread = threading.Thread(target=lambda: found.append(fate(server.url, by=one)))
    thread.start()
    assert asked.wait(5)
    begin = time.monotonic()
    one.stop()
    thread.join(5)
    assert time.monotonic() - begin < 2
    assert (found[0].action, found[0].status) == (Action.DELAYED, "4.4.2")
    with pytest.raises(UpstreamDown, match="drain ends"):
        sent(server.url, by=one)
    assert len(server.requests) == 1


# -- words --


def test_what_is_shown_is_clean_short_and_without_the_key(server: FakeHttp) -> None:
    body = b"no such k3y-s3cret\x1b[31m\r\n\x9b\xff" + b"x" * 1000
    one = fate(replying(server, Answer(body, 400)))
    assert one.diagnostic.startswith("http; 400 no such ***")
    assert one.diagnostic.isprintable()
    assert len(one.diagnostic) <= 300
    with pytest.raises(UpstreamRefused) as caught:
        sent(replying(server, Answer(body, 401)))
    assert "k3y-s3cret" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_key_that_cannot_be_sent_is_said_and_not_shown(server: FakeHttp) -> None:
    with pytest.raises(UpstreamDown, match="POSTBOX_KEY has characters") as caught:
        sent(server.url, by=api(key=Secret("pässwort\n")))
    assert "pässwort" not in str(caught.value)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"message": "one"}', "one"),
        (b'{"Message": "one", "ErrorCode": 300}', "one"),
        (b'{"error": "one"}', "one"),
        (b'{"error": {"message": "one"}}', "one"),
        (b'{"errors": [{"message": "one"}, {"message": "two", "code": 2}]}', "one; two"),
        (b'{"errors": ["one"]}', '{"errors": ["one"]}'),
        (b'{"message": 3}', '{"message": 3}'),
        (b"[1]", "[1]"),
        (b" plain \n", "plain"),
        (b"", ""),
    ],
)
def test_the_words_of_an_answer_are_found(body: bytes, words: str) -> None:
    assert said(Response(400, {}, body)) == words


@given(st.binary(max_size=200))
def test_any_answer_has_words(body: bytes) -> None:
    assert len(api().diagnostic(Response(400, {}, body))) <= 300


# -- how long to wait --


def moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)


def test_how_long_to_wait_is_read_in_each_form() -> None:
    in_90, ago_90 = (email.utils.format_datetime(moment(seconds), usegmt=True) for seconds in (90, -90))
    for headers, least, most in (
        ({"retry-after": "120"}, 120, 120),
        ({"retry-after": "0"}, 0, 0),
        ({"retry-after": "99999"}, 3600, 3600),
        ({"retry-after": in_90}, 80, 90),
        ({"retry-after": ago_90}, 0, 0),
        ({"ratelimit-reset": "3"}, 3, 3),
        ({"retry-after": "7", "ratelimit-reset": "3"}, 7, 7),
        ({"retry-after": "soon", "ratelimit-reset": "3"}, 3, 3),
        ({"x-ratelimit-reset": str(int(moment(60).timestamp()))}, 50, 60),
    ):
        found = retry_after(Response(429, headers, b""))
        assert found is not None, headers
        assert least <= found <= most, headers


@pytest.mark.parametrize("headers", [{}, {"retry-after": ""}, {"retry-after": "soon"}, {"retry-after": "-1"}])
def test_who_names_no_time_has_named_none(headers: dict[str, str]) -> None:
    assert retry_after(Response(429, headers, b"")) is None


@given(st.text(max_size=40) | st.from_regex(r"\A[0-9]{1,40}\Z") | st.datetimes().map(email.utils.format_datetime))
def test_no_wait_is_longer_than_an_hour(value: str) -> None:
    found = retry_after(Response(503, {"retry-after": value}, b""))
    assert found is None or 0 <= found <= 3600


# -- one by one --


def test_each_recipient_alone_has_a_fate_of_its_own() -> None:
    asked: list[tuple[str, ...]] = []

    def send(shipment: Shipment) -> Mapping[str, Fate]:
        asked.append(shipment.recipients)
        assert (shipment.raw, shipment.key, shipment.sender) == (MAIL.raw, MAIL.key, MAIL.sender)
        return {shipment.recipients[0]: Fate(Action.RELAYED, "2.0.0", shipment.recipients[0])}

    fates = one_by_one(MAIL, send)
    assert asked == [("bob@example.net",), ("carol@example.net",)]
    assert {recipient: one.diagnostic for recipient, one in fates.items()} == dict(
        zip(MAIL.recipients, MAIL.recipients, strict=True)
    )


@pytest.mark.parametrize("trouble", [UpstreamDown, UpstreamRefused])
def test_what_was_sent_before_trouble_is_not_forgotten(trouble: type[Exception]) -> None:
    done = Fate(Action.RELAYED, "2.0.0", "done")

    def send(shipment: Shipment) -> Mapping[str, Fate]:
        if shipment.recipients == ("carol@example.net",):
            raise trouble("Too often.")
        return {shipment.recipients[0]: done}

    fates = one_by_one(MAIL, send)
    assert fates["bob@example.net"] == done
    assert (fates["carol@example.net"].action, fates["carol@example.net"].diagnostic) == (
        Action.DELAYED,
        "http; Too often.",
    )


def test_trouble_at_the_first_is_trouble_for_all() -> None:
    def send(shipment: Shipment) -> Mapping[str, Fate]:
        raise UpstreamDown("Too often.", retry_after=5)

    with pytest.raises(UpstreamDown) as caught:
        one_by_one(MAIL, send)
    assert caught.value.retry_after == 5


# -- probes --


def test_a_question_that_sends_nothing_is_answered_or_is_trouble(server: FakeHttp) -> None:
    assert api().get(replying(server, answer({"a": 1}))).body == b'{"a": 1}'
    assert [(request.method, request.body) for request in server.requests] == [("GET", b"")]
    for status, trouble in ((401, UpstreamRefused), (404, UpstreamRefused), (429, UpstreamDown), (500, UpstreamDown)):
        with pytest.raises(trouble):
            api().get(replying(server, Answer(status=status)))
    with pytest.raises(UpstreamDown, match="closed the connection"):
        api().get(replying(server, Answer(fate="close")))


def test_an_offer_that_lacks_everything_is_refused_as_it_should_be_or_is_trouble(server: FakeHttp) -> None:
    assert api().offer(replying(server, Answer(b"to is missing", 400)), b"", {}).status == 400
    for status, trouble in ((200, UpstreamDown), (401, UpstreamRefused), (422, UpstreamDown), (503, UpstreamDown)):
        with pytest.raises(trouble):
            api().offer(replying(server, Answer(status=status)), b"", {})
