import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from drain.answer import json_object
from drain.filters.decision import Decision, header_pairs, request_body
from drain.filters.inbound import Inbound
from drain.filters.verdict import Action, FilterFailed, Verdict
from drain.mail import Mail
from drain.setting import Secret
from tests.http_fake import Answer, FakeHttp, answer

TOKEN = "p0licy"
RAW = (
    b"Received: from mx.example.net (203.0.113.7)\r\n        by cloudflare-email.net (unknown) id 4Xq\r\n"
    b"X-CF-SpamH-Score: 0\r\n"
    b"From:  Sender\t <sender@example.com> \r\n"
    b"no field\r\n"
    b"\tfolded onto From\r\n"
    b"Subject : not the Subject\r\n"
    b"SUBJECT:\xc2\xa0H\xc3\xa9llo\r\n \t w\xf6rld =?utf-8?q?x?=\r\n"
    b"subject: second\r\n"
    b"\r\n"
    b"B\xf6dy \xf0\x9f\x98\x80 \xed\xa0\x80\r\n"
)
# What haraka-webhook's buildMeta and buildDecisionPayload make of this mail; remote as drain knows it.
PAYLOAD = {
    "protocol": "haraka-webhook.decision.v1",
    "mode": "full",
    "message": {
        "id": Mail(RAW, "user@example.com", "bounce@example.com").identity,
        "createdAt": "2026-06-16T10:00:00.120Z",
        "sender": "bounce@example.com",
        "recipients": ["user@example.com"],
        "from": "Sender\t <sender@example.com> folded onto From",
        "subject": "Héllo w\ufffdrld =?utf-8?q?x?=",
        "remote": {"ip": "203.0.113.7", "host": "mx.example.net", "helo": ""},
        "headers": [
            ["Received", "from mx.example.net (203.0.113.7) by cloudflare-email.net (unknown) id 4Xq"],
            ["X-CF-SpamH-Score", "0"],
            ["From", "Sender\t <sender@example.com> folded onto From"],
            ["Subject ", "not the Subject"],
            ["SUBJECT", "Héllo w\ufffdrld =?utf-8?q?x?="],
            ["subject", "second"],
        ],
        "rawMime": RAW.decode("utf-8", "replace"),
    },
}


def inbound(raw: bytes = RAW, **more: str) -> Inbound:
    return Inbound(Mail(raw, "user@example.com", "bounce@example.com"), **more)


@pytest.fixture
def service() -> Iterator[FakeHttp]:
    with FakeHttp(lambda request: answer({"decision": "allow"})) as fake:
        yield fake


def check(fake: FakeHttp, mode: str = "minimal", seconds: float = 5.0) -> Verdict:
    return Decision(fake.url + "/decide", Secret(TOKEN), mode, seconds).check(inbound())


def decided(fake: FakeHttp, value: object) -> Verdict:
    fake.answer = lambda request: answer(value)
    return check(fake)


def failure(fake: FakeHttp, reply: Answer) -> FilterFailed:
    fake.answer = lambda request: reply
    with pytest.raises(FilterFailed) as caught:
        check(fake)
    assert TOKEN not in str(caught.value)
    return caught.value


# -- the request --


def test_the_whole_request_is_what_the_protocol_says() -> None:
    body = request_body(inbound(received="2026-06-16T12:00:00.1204+02:00"), "full")
    assert json.loads(body) == PAYLOAD
    assert list(json.loads(body)["message"]) == list(PAYLOAD["message"]), "in the same order"


@pytest.mark.parametrize(("mode", "missing"), [("minimal", {"headers", "rawMime"}), ("summary", {"rawMime"})])
def test_the_lesser_modes_leave_things_out(mode: str, missing: set[str]) -> None:
    sent = json.loads(request_body(inbound(received="2026-06-16T10:00:00.12Z"), mode))
    message = {name: value for name, value in PAYLOAD["message"].items() if name not in missing}  # type: ignore[attr-defined]  # a dict
    assert sent == {"protocol": PAYLOAD["protocol"], "mode": mode, "message": message}


def test_it_is_posted_as_the_protocol_says(service: FakeHttp) -> None:
    check(service, "summary")
    [request] = service.requests
    assert (request.method, request.target, request.json["mode"]) == ("POST", "/decide", "summary")
    assert request.headers["authorization"] == [f"Bearer {TOKEN}"]
    assert request.headers["content-type"] == ["application/json"]


@pytest.mark.parametrize(
    ("received", "created"),
    [
        ("2026-06-16T10:00:00Z", "2026-06-16T10:00:00.000Z"),
        ("2026-06-16T10:00:00.987654Z", "2026-06-16T10:00:00.987Z"),
        ("2026-06-16T10:00:00+02:00", "2026-06-16T08:00:00.000Z"),
    ],
)
def test_when_it_was_received_is_written_as_javascript_does(received: str, created: str) -> None:
    assert json.loads(request_body(inbound(received=received), "minimal"))["message"]["createdAt"] == created


@pytest.mark.parametrize("received", ["", "yesterday", "0001-01-01T00:00:00+23:00"])
def test_where_that_is_not_known_it_is_now(received: str) -> None:
    created = json.loads(request_body(inbound(received=received), "minimal"))["message"]["createdAt"]
    assert abs(datetime.fromisoformat(created).timestamp() - datetime.now().astimezone().timestamp()) < 5
    assert len(created) == len("2026-06-16T10:00:00.000Z")


def test_an_envelope_without_addresses_and_with_half_a_letter_can_be_sent() -> None:
    message = json.loads(request_body(Inbound(Mail(b"\r\n", "", "\ud800@x.test")), "full"))["message"]
    assert (message["recipients"], message["sender"], message["from"]) == ([], "\ud800@x.test", "")
    assert message["rawMime"] == "\r\n"


def test_an_empty_mail_can_be_sent() -> None:
    assert json.loads(request_body(Inbound(Mail(b"", "a@b.c", "")), "full"))["message"]["rawMime"] == ""


def test_letters_that_cross_a_slice_stay_whole() -> None:
    for lead in range(4):
        text = "x" * lead + "😀ä" * 50_000
        assert json.loads(request_body(inbound(text.encode()), "full"))["message"]["rawMime"] == text


@pytest.mark.parametrize(
    ("block", "pairs"),
    [
        (b" x: y\r\n z\r\n", [(" x", "y z")]),
        (b"\tx\r\na: b\r\n", [("a", "b")]),
        (b": x\r\n", [("", "x")]),
        (b"a:\x1cb\x1c\x85\r\n", [("a", "\x1cb\x1c\ufffd")]),
        (b"a: \xef\xbb\xbfb\xe2\x80\xa8\xe1\x9a\x80\r\n", [("a", "b")]),
        (b"a: b\r\n \r\n c\r\n", [("a", "b  c")]),
        (b"a: b\r\n \x1cc\x1f\xef\xbb\xbf\r\n", [("a", "b \x1cc\x1f")]),
    ],
)
def test_odd_header_lines_are_read_as_javascript_does(block: bytes, pairs: list[tuple[str, str]]) -> None:
    assert header_pairs(block) == pairs


def test_a_megabyte_of_folds_takes_no_time() -> None:
    [(_, value)] = header_pairs(b"a: b\r\n" + b" c\r\n" * 100_000)
    assert len(value) == 1 + 2 * 100_000


# -- the answer --


def test_allow_says_nothing(service: FakeHttp) -> None:
    assert check(service) == Verdict(evidence=("allow",))
    assert decided(service, {"decision": "allow", "reason": None, "message": None, "further": [1]}) == check(service)


def test_deny_sets_aside_in_the_service_s_words(service: FakeHttp) -> None:
    verdict = decided(service, {"decision": "deny", "reason": "blocked_sender", "message": "Not here"})
    assert (verdict.action, verdict.code, verdict.score) == (Action.QUARANTINE, "denied", Verdict().score)
    assert verdict.reason == "blocked_sender: Not here"
    assert verdict.evidence == ("reason: blocked_sender", "message: Not here")
    assert decided(service, {"decision": "deny"}).reason == "denied by the decision service"


def test_silent_deny_asks_for_discarding(service: FakeHttp) -> None:
    verdict = decided(service, {"decision": "silent_deny", "reason": "shadow_block"})
    assert (verdict.action, verdict.code) == (Action.DISCARD, "silently-denied")
    assert verdict.reason == "shadow_block"


def test_words_are_shortened_and_may_be_no_text(service: FakeHttp) -> None:
    for decision in ("deny", "silent_deny"):
        verdict = decided(service, {"decision": decision, "reason": "x" * 5000, "message": [1, 2]})
        assert len(verdict.reason) <= 200
        assert verdict.evidence[1] == "message: [1, 2]"
        assert all(len(line) <= 220 for line in verdict.evidence)


NO_DECISION = {
    "unknown": b'{"decision": "maybe"}',
    "in capitals": b'{"decision": "Deny"}',
    "true": b'{"decision": true}',
    "a list of it": b'{"decision": ["deny"]}',
    "an object": b'{"decision": {"deny": 1}}',
    "missing": b"{}",
    "an array": b'[{"decision": "allow"}]',
    "a word": b'"allow"',
    "twice": b'{"decision": "deny", "decision": "allow"}',
    "no JSON": b"allow",
    "nothing": b"",
    "no UTF-8": b'{"decision": "allow", "reason": "\xff"}',
    "text behind": b'{"decision": "allow"} ok',
    "too deep": b'{"decision": "allow", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "too large": b'{"decision": "allow"}' + b" " * 70_000,
}


@pytest.mark.parametrize("body", NO_DECISION.values(), ids=NO_DECISION)
def test_what_is_no_decision_is_a_failure_at_this_mail(service: FakeHttp, body: bytes) -> None:
    error = failure(service, Answer(body))
    assert not error.down
    assert f"127.0.0.1:{service.port}/decide" in str(error)


def test_json_is_not_parsed_where_it_is_deep() -> None:
    assert json_object('{"a": "' + "[" * 100 + '"}') == {"a": "[" * 100}
    with pytest.raises(ValueError, match="is nested too deeply"):
        json_object('{"a": ' + "[" * 40 + "]" * 40 + "}")


def test_what_is_not_200_decides_nothing(service: FakeHttp) -> None:
    allow = b'{"decision": "allow"}'
    for status in (201, 204, 301, 400, 401, 404, 500, 503):
        assert f"{status}" in str(failure(service, Answer(allow, status, {"Location": service.url}))) or status == 301
    assert "WEBHOOK_DECISION_TOKEN" in failure(service, Answer(allow, 401)).hint
    assert "WEBHOOK_DECISION_URL" in failure(service, Answer(allow, 302, {"Location": service.url})).hint


def test_who_says_nothing_in_time_names_the_setting(service: FakeHttp) -> None:
    service.answer = lambda request: Answer(fate="hang")
    with pytest.raises(FilterFailed, match="FILTER_TIMEOUT"):
        check(service, seconds=0.1)


def test_its_settings_do_not_show_the_token() -> None:
    settings: Any = Decision("http://x.test", Secret(TOKEN), "full", 1.0)
    assert TOKEN not in repr(settings)
