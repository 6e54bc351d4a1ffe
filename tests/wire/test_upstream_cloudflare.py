"""Cloudflare's Email Service: the documented request, every documented answer, and answers that no documentation has."""

from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from drain.setting import Secret
from drain.upstreams import Action, Fate, Shipment, UpstreamDown, UpstreamRefused
from drain.upstreams.cloudflare import Cloudflare
from tests.http_fake import Answer, FakeHttp, Request, answer

TOKEN = Secret("Sn3lZJTBX6kkg7OdcBUAxOO963GEIyGQqnFTOFYY")
RAW = (
    "From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: Grüße 🙂\r\nUser-Agent: x\r\n\r\n"
    'Tab\tquote" back\\slash\x00 \u2028 é\r\n.\r\n'
).encode()


def error(status: int, code: int, message: str, **more: object) -> Answer:
    errors = [{"code": code, "message": message}]
    return answer({"success": False, "errors": errors, "messages": [], "result": None}, status=status, **more)


def result(**found: object) -> Answer:
    whole = {"delivered": [], "permanent_bounces": [], "queued": [], **found}
    return answer({"success": True, "errors": [], "messages": [], "result": whole})


class Provider:
    """Takes what is documented, complains of all else, and refuses all where one recipient is in ``suppressed``."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[str], bytes]] = []
        self.complaints: list[str] = []
        self.suppressed: set[str] = set()
        self.reply: Answer | None = None

    def __call__(self, request: Request) -> Answer:
        if request.method != "POST" or request.target != "/client/v4/accounts/0123abcd/email/sending/send_raw":
            return self.complain(error(404, 10000, "email.sending.error.not_found"), request.target)
        if request.headers.get("authorization") != [f"Bearer {TOKEN.reveal()}"]:
            return error(401, 10101, "email.sending.error.authentication.unauthorized")
        if request.headers.get("content-type") != ["application/json"]:
            return self.complain(error(400, 10001, "email.sending.error.invalid_request_schema"), "content type")
        body = request.json
        if body == {}:
            return error(400, 10001, "email.sending.error.invalid_request_schema")
        types = {name: type(value) for name, value in body.items()}
        if types != {"from": str, "recipients": list, "mime_message": str}:
            return self.complain(error(400, 10001, "email.sending.error.invalid_request_schema"), str(types))
        if self.reply:
            return self.reply
        if self.suppressed & set(body["recipients"]):
            return error(400, 10204, "email.sending.error.recipient_suppressed")
        self.taken.append((body["from"], body["recipients"], body["mime_message"].encode()))
        return result(delivered=body["recipients"])

    def complain(self, reply: Answer, words: str) -> Answer:
        self.complaints.append(words)
        return reply


@pytest.fixture
def provider() -> Iterator[Provider]:
    one = Provider()
    yield one
    assert not one.complaints, "only what is documented is asked"


@pytest.fixture
def server(provider: Provider) -> Iterator[FakeHttp]:
    with FakeHttp(provider) as fake:
        yield fake


def cloudflare(server: FakeHttp, *, token: Secret = TOKEN, seconds: float = 5.0) -> Cloudflare:
    return Cloudflare("0123abcd", token, server.url, seconds=seconds)


def shipment(*recipients: str, raw: bytes = RAW, sender: str = "alice@example.org") -> Shipment:
    return Shipment("key-1", sender, recipients or ("bob@example.net",), raw)


def fate(server: FakeHttp, provider: Provider, reply: Answer) -> Fate:
    provider.reply = reply
    return cloudflare(server).send(shipment())["bob@example.net"]


def test_a_mail_goes_out_byte_for_byte_to_its_envelope(server: FakeHttp, provider: Provider) -> None:
    everyone = ("bob@example.net", "hidden@example.com")
    fates = cloudflare(server).send(shipment(*everyone))
    assert provider.taken == [("alice@example.org", list(everyone), RAW)]
    assert {one.action for one in fates.values()} == {Action.RELAYED}
    assert fates["bob@example.net"].diagnostic == "http; 200 delivered"


@given(st.text(max_size=200))
def test_whatever_is_utf8_arrives_as_it_is(words: str) -> None:
    provider = Provider()
    with FakeHttp(provider) as server:
        assert cloudflare(server).send(shipment(raw=words.encode()))["bob@example.net"].action is Action.RELAYED
    assert [raw for _, _, raw in provider.taken] == [words.encode()]


@given(st.binary(max_size=60))
def test_every_mail_is_either_objected_to_or_text(raw: bytes) -> None:
    one = shipment(raw=raw)
    assert Cloudflare("0123abcd", TOKEN).objection(one) or raw.decode().encode() == raw


def test_each_recipient_has_the_fate_that_is_said_of_it(server: FakeHttp, provider: Provider) -> None:
    everyone = ("a@example.net", "b@example.net", "c@Example.NET", "d@example.net", "e@example.net")
    provider.reply = result(
        delivered=["a@example.net", "e@example.net"],
        queued=["B@EXAMPLE.NET"],
        permanent_bounces=["c@example.net", "e@example.net", "stranger@example.net"],
        message_id="<1@example.org>",
    )
    fates = cloudflare(server).send(shipment(*everyone))
    assert {recipient[0]: (one.action, one.status, one.diagnostic) for recipient, one in fates.items()} == {
        "a": (Action.RELAYED, "2.0.0", "http; 200 delivered"),
        "b": (Action.RELAYED, "2.0.0", "http; 200 queued"),
        "c": (Action.FAILED, "5.0.0", "http; 200 permanent bounce"),
        "d": (Action.DELAYED, "4.5.0", "http; 200 it does not say what became of it"),
        "e": (Action.FAILED, "5.0.0", "http; 200 permanent bounce"),
    }
    assert set(fates) == set(everyone)
    assert fates["a@example.net"].reference == "<1@example.org>"


def test_a_suppressed_recipient_fails_itself_alone(server: FakeHttp, provider: Provider) -> None:
    provider.suppressed = {"gone@example.net"}
    fates = cloudflare(server).send(shipment("bob@example.net", "gone@example.net", "carol@example.net"))
    assert [one.action for one in fates.values()] == [Action.RELAYED, Action.FAILED, Action.RELAYED]
    assert fates["gone@example.net"].status == "5.7.1"
    assert [to for _, to, _ in provider.taken] == [["bob@example.net"], ["carol@example.net"]]


@pytest.mark.parametrize(
    ("status", "code", "message", "action", "enhanced"),
    [
        (400, 10001, "email.sending.error.invalid_request_schema", Action.FAILED, "5.6.0"),
        (400, 10200, "email.sending.error.email.too_big", Action.FAILED, "5.3.4"),
        (400, 10201, "email.sending.error.email.no_content_length", Action.FAILED, "5.6.0"),
        (400, 10202, "email.sending.error.email.invalid", Action.FAILED, "5.6.0"),
        (500, 10002, "email.sending.error.internal_server", Action.DELAYED, "4.3.0"),
        (500, 10003, "email.sending.error.not_implemented", Action.DELAYED, "4.3.0"),
    ],
)
def test_a_refusal_of_the_mail_is_its_fate(
    server: FakeHttp, provider: Provider, status: int, code: int, message: str, action: Action, enhanced: str
) -> None:
    one = fate(server, provider, error(status, code, message))
    assert one == Fate(action, enhanced, f"http; {status} {message}")


def test_a_refusal_for_its_content_is_not_asked_for_again(server: FakeHttp, provider: Provider) -> None:
    provider.reply = error(400, 10202, "email.sending.error.email.invalid")
    fates = cloudflare(server).send(shipment("a@example.net", "b@example.net"))
    assert {one.action for one in fates.values()} == {Action.FAILED}
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "message", "hint"),
    [
        (401, 10101, "email.sending.error.authentication.unauthorized", "RELAY_API_KEY"),
        (401, 10103, "email.sending.error.authentication.bad_token_type", "RELAY_API_KEY"),
        (403, 10102, "email.sending.error.authentication.forbidden", "RELAY_API_KEY"),
        (403, 10105, "email.sending.error.authentication.not_entitled", "RELAY_API_KEY"),
        (403, 10203, "email.sending.error.email.sending_disabled", "sender's domain"),
        (404, 10000, "email.sending.error.not_found", "R2_ACCOUNT_ID"),
    ],
)
def test_trouble_with_token_or_account_holds_the_queue(
    server: FakeHttp, provider: Provider, status: int, code: int, message: str, hint: str
) -> None:
    with pytest.raises(UpstreamRefused, match=message) as caught:
        fate(server, provider, error(status, code, message))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (429, 10004, "email.sending.error.throttled"),
        (503, 10100, "email.sending.error.authentication.upstream"),
    ],
)
def test_a_service_that_is_busy_is_waited_for(
    server: FakeHttp, provider: Provider, status: int, code: int, message: str
) -> None:
    with pytest.raises(UpstreamDown, match=message) as caught:
        fate(server, provider, error(status, code, message, headers={"Retry-After": "9"}))
    assert caught.value.retry_after == 9


@pytest.mark.parametrize(
    "reply",
    [
        Answer(b""),
        Answer(b"<html>Welcome</html>", headers={"Content-Type": "text/html"}),
        answer({"success": True, "result": None}),
        answer({"success": True, "result": []}),
        answer({"success": "yes", "result": {"delivered": ["bob@example.net"]}}),
        answer({"success": False, "result": {"delivered": ["bob@example.net"]}}),
        answer({"result": {"delivered": ["bob@example.net"]}}),
        result(),
        result(delivered="bob@example.net"),
        result(delivered=[None, 3, {"a": 1}]),
        result(delivered=["someone@else.example"]),
    ],
    ids=str,
)
def test_an_answer_that_does_not_say_so_is_no_acceptance(server: FakeHttp, provider: Provider, reply: Answer) -> None:
    one = fate(server, provider, reply)
    assert (one.action, one.status) == (Action.DELAYED, "4.5.0")


@pytest.mark.parametrize("cut", ["close", "reset", "hang"])
def test_an_answer_that_is_lost_leaves_the_mail_unknown(server: FakeHttp, provider: Provider, cut: str) -> None:
    provider.reply = Answer(fate=cut)
    assert cloudflare(server, seconds=0.4).send(shipment())["bob@example.net"].status == "4.4.2"


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (shipment(raw="Subject: x\r\n\r\nGrüße\r\n".encode("latin-1")), "UTF-8"),
        (shipment(sender=""), "RELAY_FROM_FALLBACK"),
    ],
    ids=["latin-1", "empty sender"],
)
def test_what_cannot_be_said_in_its_json_is_objected_to_and_never_mangled(
    server: FakeHttp, one: Shipment, words: str
) -> None:
    upstream = cloudflare(server)
    assert words in upstream.objection(one)
    assert upstream.send(one)["bob@example.net"].action is Action.FAILED
    assert server.connections == 0


def test_the_token_is_not_shown(server: FakeHttp, provider: Provider) -> None:
    assert fate(server, provider, error(400, 10202, f"bad {TOKEN.reveal()}")).diagnostic == "http; 400 bad ***"


def test_a_probe_sends_nothing(server: FakeHttp, provider: Provider) -> None:
    assert cloudflare(server).probe().endswith("/email/sending/send_raw takes the token.")
    assert not provider.taken


def test_a_probe_shows_a_wrong_token(server: FakeHttp) -> None:
    with pytest.raises(UpstreamRefused, match="unauthorized"):
        cloudflare(server, token=Secret("other")).probe()


def test_a_stopped_one_sends_no_more(server: FakeHttp, provider: Provider) -> None:
    one = cloudflare(server)
    one.rest()
    one.send(shipment())
    one.stop()
    with pytest.raises(UpstreamDown):
        one.send(shipment())
    assert len(provider.taken) == 1
