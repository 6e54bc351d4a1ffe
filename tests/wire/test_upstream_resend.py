"""Resend's API: the documented request, every documented answer, and answers that no documentation has."""

import base64
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drain.setting import Secret
from drain.text import clean
from drain.upstreams import Action, Shipment, UpstreamDown, UpstreamRefused
from drain.upstreams.resend import Resend
from tests.http_fake import Answer, FakeHttp, Request, answer
from tests.test_parts import MANY, SAMPLES, TO, put_together, recipients_of, seen, shipment

KEY = Secret("re_123456789")
ID = "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"
FIELDS = {"from": str, "to": list, "cc": list, "bcc": list, "reply_to": list, "subject": str, "text": str, "html": str}
FILE_FIELDS = {"filename", "content", "content_type", "content_id"}


class Provider:
    """Takes what is documented and builds the mail of it; complains of all else."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.said: list[dict[str, Any]] = []
        self.keys: dict[str, bytes] = {}
        self.reply: Answer | None = None

    def __call__(self, request: Request) -> Answer:
        if request.headers.get("authorization") != [f"Bearer {KEY.reveal()}"]:
            return error(403, "invalid_api_key", "API key is invalid.")
        if self.reply:
            return self.reply
        if (request.method, request.target) == ("GET", "/domains"):
            domains = [{"name": "example.org", "status": "verified"}, {"name": "new.test", "status": "pending"}]
            return answer({"object": "list", "data": domains})
        wrong = self.wrong(request)
        if wrong:
            self.complaints.append(wrong)
            return error(422, "validation_error", wrong)
        [key] = request.headers["idempotency-key"]
        if self.keys.setdefault(key, request.body) != request.body:
            return error(409, "invalid_idempotent_request", "Same idempotency key, different payload.")
        self.said.append(request.json)
        return answer({"id": ID})

    def wrong(self, request: Request) -> str:
        if (request.method, request.target) != ("POST", "/emails"):
            return f"{request.method} {request.target}"
        if request.headers.get("content-type") != ["application/json"]:
            return "content type"
        if not 1 <= len(request.headers.get("idempotency-key", [""])[0]) <= 256:
            return "idempotency key"
        said = request.json
        for name, value in said.items():
            if name in FIELDS:
                if type(value) is not FIELDS[name] or (
                    type(value) is list and not all(isinstance(v, str) for v in value)
                ):
                    return f"{name} is of another type"
            elif name == "headers":
                if "Date" in value or not "".join(map("".join, value.items())).isascii():
                    return "headers"
            elif name != "attachments" or any(set(file) > FILE_FIELDS for file in value):
                return f"unknown field {name}"
        return "" if {"from", "to", "subject", "text"} <= set(said) and len(said["to"]) <= 50 else "a field is missing"


def error(status: int, name: str, message: str, **headers: str) -> Answer:
    more = {header.replace("_", "-"): value for header, value in headers.items()}
    return answer({"statusCode": status, "name": name, "message": message}, status=status, headers=more)


def built(said: dict[str, Any]) -> bytes:
    """The message that Resend would build; its attachments with a ``content_id`` are shown in the HTML."""
    return put_together(
        said["from"],
        ", ".join(said["to"]),
        ", ".join(said.get("cc", [])),
        ", ".join(said.get("reply_to", [])),
        said["subject"],
        list(said.get("headers", {}).items()),
        said["text"] or None,
        said.get("html"),
        [
            (one["filename"], one["content_type"], base64.b64decode(one["content"]), one.get("content_id", ""))
            for one in said.get("attachments", [])
        ],
    )


@pytest.fixture(scope="module")
def running() -> Iterator[FakeHttp]:
    with FakeHttp() as server:
        yield server


@pytest.fixture
def provider(running: FakeHttp) -> Iterator[Provider]:
    one = Provider()
    running.answer = one
    yield one
    assert not one.complaints


@pytest.fixture
def resend(running: FakeHttp) -> Resend:
    return Resend(KEY, running.url, seconds=5)


PLAIN = shipment(SAMPLES["plain"])


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"invitation", "no subject", "shown in the text"}))
def test_what_resend_builds_is_the_same_to_a_reader(provider: Provider, resend: Resend, name: str) -> None:
    one = shipment(SAMPLES[name], *recipients_of(name))
    assert resend.objection(one) == ""
    fates = resend.send(one)
    assert set(fates) == set(one.recipients)
    assert {(fate.action, fate.status, fate.reference) for fate in fates.values()} == {(Action.RELAYED, "2.0.0", ID)}
    assert seen(built(provider.said[0])) == seen(SAMPLES[name])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("invitation", "an invitation (text/calendar)"),
        ("no subject", "no Subject"),
        ("shown in the text", "p.png is to be shown in the text"),
    ],
)
def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    provider: Provider, resend: Resend, name: str, why: str
) -> None:
    words = resend.objection(shipment(SAMPLES[name]))
    assert why in words
    assert "smtp.resend.com (RELAY_UPSTREAM=smtp)" in words
    fate = resend.send(shipment(SAMPLES[name]))[TO]
    assert (fate.action, fate.status) == (Action.FAILED, "5.6.3")
    assert why in fate.diagnostic
    assert not provider.said


def test_all_recipients_are_in_to_cc_and_bcc(provider: Provider, resend: Resend) -> None:
    resend.send(shipment(SAMPLES["many"], *MANY))
    said = provider.said[0]
    assert said["to"] == [TO, "Carol <carol@example.net>"]
    assert (said["cc"], said["bcc"]) == (["dan@example.net"], ["eve@example.net"])
    assert said["reply_to"] == ["a@x.test", "B <b@x.test>"]


def test_a_mail_without_a_text_says_so_or_one_would_be_made_of_its_html(provider: Provider, resend: Resend) -> None:
    resend.send(shipment(SAMPLES["html"]))
    assert provider.said[0]["text"] == ""


def test_sent_again_it_has_the_same_key_and_the_same_payload(
    provider: Provider, resend: Resend, running: FakeHttp
) -> None:
    running.requests.clear()
    for _ in range(2):
        assert resend.send(shipment(SAMPLES["picture"]))[TO].action is Action.RELAYED
    assert provider.keys == {"key-1": running.requests[0].body}


def test_a_mail_that_is_larger_in_json_than_resend_takes_is_refused(resend: Resend) -> None:
    # A backslash is two bytes in JSON.
    head = SAMPLES["plain"].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    raw = head + (b"\\" * 70 + b"\r\n") * 300_000
    assert len(raw) < Resend.most_bytes
    assert "Resend takes 40,000,000" in resend.objection(shipment(raw))


@pytest.mark.parametrize(
    ("status", "name", "action", "code"),
    [
        (400, "invalid_idempotency_key", Action.FAILED, "5.6.0"),
        (400, "validation_error", Action.FAILED, "5.6.0"),
        (403, "validation_error", Action.FAILED, "5.7.1"),
        (409, "invalid_idempotent_request", Action.FAILED, "5.3.0"),
        (409, "concurrent_idempotent_requests", Action.DELAYED, "4.3.0"),
        (413, "payload_too_large", Action.FAILED, "5.3.4"),
        (422, "invalid_attachment", Action.FAILED, "5.6.0"),
        (422, "invalid_from_address", Action.FAILED, "5.7.1"),
        (422, "invalid_parameter", Action.FAILED, "5.6.0"),
        (422, "missing_required_field", Action.FAILED, "5.6.0"),
        (422, "validation_error", Action.FAILED, "5.6.0"),
        (451, "security_error", Action.FAILED, "5.7.1"),
        (500, "application_error", Action.DELAYED, "4.3.0"),
        (500, "internal_server_error", Action.DELAYED, "4.3.0"),
        (502, "", Action.DELAYED, "4.3.0"),
    ],
)
def test_an_answer_about_this_mail_is_its_fate(
    provider: Provider, resend: Resend, status: int, name: str, action: Action, code: str
) -> None:
    provider.reply = error(status, name, f"The \x1b[1m words, {KEY.reveal()}")
    fate = resend.send(PLAIN)[TO]
    assert (fate.action, fate.status, fate.bad_address) == (action, code, False)
    assert fate.diagnostic == f"http; {status} The  [1m words, ***"


@pytest.mark.parametrize(
    ("status", "name"),
    [
        *((401, "missing_api_key"), (401, "restricted_api_key"), (403, "invalid_api_key"), (404, "not_found")),
        (405, "method_not_allowed"),
    ],
)
def test_an_answer_about_the_key_or_the_address_blames_no_mail(
    provider: Provider, resend: Resend, status: int, name: str
) -> None:
    provider.reply = error(status, name, "no")
    with pytest.raises(UpstreamRefused, match=f"Resend at 127.*answered with {status}: no"):
        resend.send(PLAIN)


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (error(429, "rate_limit_exceeded", "slow", retry_after="2", ratelimit_reset="9"), 2),
        (error(429, "rate_limit_exceeded", "slow", ratelimit_reset="9"), 9),
        (error(429, "daily_quota_exceeded", "slow"), None),
        (error(429, "monthly_quota_exceeded", "slow", retry_after="60"), 60),
        (error(503, "", "slow"), None),
    ],
)
def test_what_resend_asks_us_to_wait_for_is_waited_for(
    provider: Provider, resend: Resend, reply: Answer, seconds: float | None
) -> None:
    provider.reply = reply
    with pytest.raises(UpstreamDown, match="slow") as caught:
        resend.send(PLAIN)
    assert caught.value.retry_after == seconds
    assert ("quota" in caught.value.hint) is (b"quota" in reply.body)


@pytest.mark.parametrize(
    "reply",
    [
        *(
            Answer(b""),
            Answer(b"<html>Welcome to the hotel"),
            Answer(b"{}"),
            Answer(b'{"id": ""}'),
            Answer(b'{"id": 7}'),
        ),
        *(Answer(b'["id"]'), Answer(b'{"id": "x"}', status=201), Answer(b"", status=204)),
        *(Answer(fate="close"), Answer(fate="reset"), Answer(fate="nonsense"), Answer(b"{}", times=100_000)),
    ],
)
def test_no_answer_of_resends_is_not_known_to_be_sent(provider: Provider, resend: Resend, reply: Answer) -> None:
    provider.reply = reply
    fate = resend.send(PLAIN)[TO]
    assert fate.action is Action.DELAYED
    assert fate.status in ("4.4.2", "4.5.0")


def test_an_answer_that_does_not_come_in_time_is_not_known_to_be_sent(provider: Provider, running: FakeHttp) -> None:
    provider.reply = Answer(fate="hang")
    fate = Resend(KEY, running.url, seconds=0.3).send(PLAIN)[TO]
    assert (fate.action, fate.status) == (Action.DELAYED, "4.4.2")


def test_where_nobody_listens_nothing_was_sent() -> None:
    with FakeHttp() as gone:
        url = gone.url
    with pytest.raises(UpstreamDown):
        Resend(KEY, url, seconds=5).send(PLAIN)


def test_stop_breaks_off_what_is_in_flight(provider: Provider, resend: Resend) -> None:
    provider.reply = Answer(fate="hang")
    threading.Timer(0.2, resend.stop).start()
    assert resend.send(PLAIN)[TO].status == "4.4.2"


def test_the_probe_names_the_verified_domains(provider: Provider, resend: Resend) -> None:
    assert resend.probe() == "Resend takes the key; verified domains: example.org."
    resend.rest()


def test_a_key_that_may_only_send_is_a_good_one(provider: Provider, resend: Resend) -> None:
    provider.reply = error(401, "restricted_api_key", "This API key is restricted to only send emails")
    assert resend.probe() == "Resend takes the key, which may send and no more."


def test_the_probe_tells_of_a_wrong_key_and_of_a_wrong_server(
    provider: Provider, resend: Resend, running: FakeHttp
) -> None:
    with pytest.raises(UpstreamRefused, match="RELAY_API_KEY"):
        Resend(Secret("re_wrong"), running.url).probe()
    provider.reply = error(401, "missing_api_key", "none")
    with pytest.raises(UpstreamRefused, match="RELAY_API_KEY"):
        resend.probe()
    provider.reply = Answer(b"<html>")
    with pytest.raises(UpstreamDown, match="RELAY_API_URL"):
        resend.probe()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-500, 500) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "name", "x"]), inner, max_size=2)
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(["id", "name", "message", "error"]), JSON, max_size=3),
    st.sampled_from([200, 403, 409, 422, 429, 451]),
)
def test_whatever_is_answered_comes_to_a_fate_or_to_a_sentence(
    provider: Provider, resend: Resend, value: dict[str, Any], status: int
) -> None:
    provider.reply = answer(value, status=status)
    try:
        fate = resend.send(PLAIN)[TO]
    except (UpstreamDown, UpstreamRefused) as refusal:
        said = str(refusal)
    else:
        said = fate.diagnostic
        assert (fate.action is Action.RELAYED) <= (status == 200 and isinstance(value.get("id"), str))
    assert said == clean(said)


def test_a_shipment_is_named_by_its_key(provider: Provider, resend: Resend) -> None:
    resend.send(Shipment("k" * 64, "", (TO,), SAMPLES["plain"]))
    assert list(provider.keys) == ["k" * 64]
