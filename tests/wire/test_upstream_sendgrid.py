"""SendGrid's API: the documented request, every documented answer, and answers that no documentation has."""

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest

from drain.setting import Secret
from drain.upstreams import Action, UpstreamDown, UpstreamRefused
from drain.upstreams.sendgrid import SendGrid
from tests.http_fake import Answer, FakeHttp, Request, answer
from tests.test_parts import HEAD, MANY, SAMPLES, TO, put_together, recipients_of, seen, shipment, taken

KEY = Secret("SG.123.456")
ID = "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0"
FIELDS = {
    *("personalizations", "from", "reply_to", "reply_to_list", "subject", "content", "attachments", "headers"),
    *("tracking_settings", "mail_settings"),
}
FILE_FIELDS = {"content", "type", "filename", "disposition", "content_id"}
RESERVED = {
    *("x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"),
    *("to", "from", "subject", "reply-to", "cc", "bcc"),
}


class Provider:
    """Takes what is documented and keeps it; complains of all else."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.said: list[dict[str, Any]] = []
        self.scopes = ["mail.send", "alerts.read"]
        self.reply: Answer | None = None

    def __call__(self, request: Request) -> Answer:
        if request.headers.get("authorization") != [f"Bearer {KEY.reveal()}"]:
            return errors(401, "The provided authorization grant is invalid, expired, or revoked")
        if self.reply:
            return self.reply
        if (request.method, request.target) == ("GET", "/v3/scopes"):
            return answer({"scopes": self.scopes})
        wrong = self.wrong(request)
        if wrong:
            self.complaints.append(wrong)
            return errors(400, wrong)
        self.said.append(request.json)
        return Answer(b"", status=202, headers={"X-Message-Id": ID})

    def wrong(self, request: Request) -> str:
        if (request.method, request.target) != ("POST", "/v3/mail/send"):
            return f"{request.method} {request.target}"
        if request.headers.get("content-type") != ["application/json"]:
            return "content type"
        said = request.json
        if set(said) - FIELDS or not {"personalizations", "from", "subject", "content"} <= set(said):
            return f"fields {set(said)}"
        return wrong_addresses(said) or wrong_content(said) or wrong_settings(said)


def wrong_addresses(said: dict[str, Any]) -> str:
    [one] = said["personalizations"]
    if set(one) - {"to", "cc", "bcc"} or not one.get("to") or not all(one.values()):
        return "personalizations"
    everybody = [who for group in one.values() for who in group]
    if len({who["email"].lower() for who in everybody}) < len(everybody) or len(everybody) > 1000:
        return "Each email address in the personalization block should be unique between to, cc, and bcc."
    answered = said.get("reply_to_list", [])
    if "reply_to" in said:
        if answered:
            return "reply_to is mutually exclusive with reply_to_list"
        answered = [said["reply_to"]]
    if not said["from"].get("name", "").isascii():
        return "Unicode encoding is not supported for the from field."
    for who in (*everybody, *answered, said["from"]):
        if set(who) - {"email", "name"} or set(who.get("name", "")) & set(",;"):
            return f"address {who}"
    return ""


def wrong_content(said: dict[str, Any]) -> str:
    kinds = [one["type"] for one in said["content"]]
    if kinds not in (["text/plain"], ["text/html"], ["text/plain", "text/html"]):
        return f"content {kinds}"
    if not said["subject"] or not all(one["value"] for one in said["content"]):
        return "The content value must be a string at least one character in length."
    for file in said.get("attachments", []):
        if set(file) - FILE_FIELDS or not {"content", "filename"} <= set(file) or not file["content"]:
            return f"attachment {set(file)}"
        if set(file["type"] + file["filename"]) & set(";,\r\n"):
            return "The type cannot contain ';', or CRLF characters."
        if file["disposition"] not in ("inline", "attachment"):
            return "disposition"
    headers = said.get("headers", {"x": "y"})
    if not headers or {name.lower() for name in headers} & RESERVED or not "".join(headers.values()).isascii():
        return f"headers {headers}"
    return ""


def wrong_settings(said: dict[str, Any]) -> str:
    tracking, mail = said.get("tracking_settings", {}), said.get("mail_settings", {})
    known = {"click_tracking", "open_tracking", "subscription_tracking", "ganalytics"}
    on = [name for name in known if tracking.get(name, {}).get("enable") is not False]
    if (
        set(tracking) != known
        or on
        or tracking["click_tracking"]["enable_text"]
        or mail != {"footer": {"enable": False}}
    ):
        return "it is tracked"
    return ""


def errors(status: int, message: str, **headers: str) -> Answer:
    more = {header.replace("_", "-"): value for header, value in headers.items()}
    return answer({"errors": [{"message": message, "field": None, "help": None}]}, status=status, headers=more)


def built(said: dict[str, Any]) -> bytes:
    """The message that SendGrid would build."""

    def line(people: list[dict[str, str]]) -> str:
        return ", ".join(f'"{one["name"]}" <{one["email"]}>' if "name" in one else one["email"] for one in people)

    [one] = said["personalizations"]
    texts = {content["type"]: content["value"] for content in said["content"]}
    return put_together(
        line([said["from"]]),
        line(one["to"]),
        line(one.get("cc", [])),
        line([said["reply_to"]] if "reply_to" in said else said.get("reply_to_list", [])),
        said["subject"],
        list(said.get("headers", {}).items()),
        texts.get("text/plain"),
        texts.get("text/html"),
        [
            (file["filename"], file["type"], base64.b64decode(file["content"]), file.get("content_id", ""))
            for file in said.get("attachments", [])
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
def sendgrid(running: FakeHttp) -> SendGrid:
    return SendGrid(KEY, running.url, seconds=5)


PLAIN = shipment(SAMPLES["plain"])
UNSAYABLE = {
    "invitation": "an invitation (text/calendar)",
    "no subject": "no Subject",
    "author": "no ASCII",
    "comma": "a comma or a semicolon",
    "attached text with a charset": "an attachment says more of its type",
}


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - set(UNSAYABLE)))
def test_what_sendgrid_builds_is_the_same_to_a_reader(provider: Provider, sendgrid: SendGrid, name: str) -> None:
    one = shipment(SAMPLES[name], *recipients_of(name))
    assert sendgrid.objection(one) == ""
    fates = sendgrid.send(one)
    assert set(fates) == set(one.recipients)
    assert {(fate.action, fate.status, fate.reference) for fate in fates.values()} == {(Action.RELAYED, "2.0.0", ID)}
    assert seen(built(provider.said[0])) == seen(SAMPLES[name])


@pytest.mark.parametrize("name", UNSAYABLE)
def test_what_cannot_be_said_is_refused_before_anything_is_sent(
    provider: Provider, sendgrid: SendGrid, name: str
) -> None:
    words = sendgrid.objection(shipment(SAMPLES[name]))
    assert UNSAYABLE[name] in words
    assert "smtp.sendgrid.net (RELAY_UPSTREAM=smtp)" in words
    fate = sendgrid.send(shipment(SAMPLES[name]))[TO]
    assert (fate.action, fate.status) == (Action.FAILED, "5.6.3")
    assert not provider.said


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (HEAD + b"X-SG-ID: 1\r\n\r\nx", "keeps for itself (X-SG-ID)"),
        (SAMPLES["picture"].replace(b'filename="pic.png"', b'filename="a,b.png"'), "the name of an attachment"),
        (SAMPLES["picture"].replace(b'filename="pic.png"', b'filename="a;b.png"'), "the name of an attachment"),
    ],
)
def test_what_sendgrid_does_not_take_is_refused_beforehand(sendgrid: SendGrid, raw: bytes, why: str) -> None:
    assert why in sendgrid.objection(shipment(raw))


def test_an_attached_text_that_is_ascii_needs_no_charset(provider: Provider, sendgrid: SendGrid) -> None:
    raw = SAMPLES["attached text with a charset"].replace(b"K\xf6ln", b"Koeln")
    assert dict(taken(raw).attachments[0].parameters) == {"charset": "iso-8859-1"}
    assert sendgrid.send(shipment(raw))[TO].action is Action.RELAYED
    assert provider.said[0]["attachments"][0]["type"] == "text/plain"


def test_all_recipients_are_in_to_cc_and_bcc(provider: Provider, sendgrid: SendGrid) -> None:
    sendgrid.send(shipment(SAMPLES["many"], *MANY, "EVE@example.net"))
    said = provider.said[0]
    assert said["personalizations"] == [
        {
            "to": [{"email": TO}, {"email": "carol@example.net", "name": "Carol"}],
            "cc": [{"email": "dan@example.net"}],
            "bcc": [{"email": "EVE@example.net"}],  # once, however it is written
        }
    ]
    assert said["reply_to_list"] == [{"email": "a@x.test"}, {"email": "b@x.test", "name": "B"}]


def test_the_date_is_the_authors(provider: Provider, sendgrid: SendGrid) -> None:
    sendgrid.send(PLAIN)
    assert provider.said[0]["headers"]["Date"] == "Sat, 21 Nov 2026 13:00:00 +0000"


def test_one_reply_to_is_no_list(provider: Provider, sendgrid: SendGrid) -> None:
    sendgrid.send(shipment(b"Reply-To: a@x.test\r\n" + SAMPLES["plain"]))
    assert provider.said[0]["reply_to"] == {"email": "a@x.test"}


def test_a_mail_that_is_larger_in_json_than_sendgrid_takes_is_refused(sendgrid: SendGrid) -> None:
    raw = HEAD + b"\r\n" + (b"\\" * 70 + b"\r\n") * 250_000
    assert len(raw) < SendGrid.most_bytes
    assert "SendGrid takes 30,000,000" in sendgrid.objection(shipment(raw))


@pytest.mark.parametrize(
    ("status", "message", "action", "code"),
    [
        (400, "Does not contain a valid address.", Action.FAILED, "5.6.0"),
        (403, "The from address does not match a verified Sender Identity.", Action.FAILED, "5.7.1"),
        (408, "slow", Action.DELAYED, "4.3.0"),
        (413, "The JSON payload is too large", Action.FAILED, "5.3.4"),
        (500, "server error", Action.DELAYED, "4.3.0"),
    ],
)
def test_an_answer_about_this_mail_is_its_fate(
    provider: Provider, sendgrid: SendGrid, status: int, message: str, action: Action, code: str
) -> None:
    provider.reply = errors(status, f"{message}\x1b {KEY.reveal()}")
    fate = sendgrid.send(PLAIN)[TO]
    assert (fate.action, fate.status, fate.bad_address) == (action, code, False)
    assert fate.diagnostic == f"http; {status} {message}  ***"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "The provided authorization grant is invalid, expired, or revoked"),
        (401, "Authenticated user is not authorized to send mail"),
        *((403, "access forbidden"), (404, "not found"), (405, "method not allowed"), (406, "no Accept")),
        (415, "Content-Type should be application/json."),
    ],
)
def test_an_answer_about_the_key_or_the_address_blames_no_mail(
    provider: Provider, sendgrid: SendGrid, status: int, message: str
) -> None:
    provider.reply = errors(status, message)
    with pytest.raises(UpstreamRefused, match=f"SendGrid at 127.*answered with {status}: {message}"):
        sendgrid.send(PLAIN)


def test_what_sendgrid_asks_us_to_wait_for_is_waited_for(provider: Provider, sendgrid: SendGrid) -> None:
    provider.reply = errors(429, "too many requests", X_RateLimit_Reset=str(int(time.time()) + 30))
    with pytest.raises(UpstreamDown, match="too many requests") as caught:
        sendgrid.send(PLAIN)
    assert caught.value.retry_after == pytest.approx(30, abs=5)
    provider.reply = errors(503, "not available")
    with pytest.raises(UpstreamDown, match="not available") as caught:
        sendgrid.send(PLAIN)
    assert caught.value.retry_after is None


def test_credits_that_are_used_up_are_waited_for(provider: Provider, sendgrid: SendGrid) -> None:
    provider.reply = errors(401, "Maximum credits exceeded")
    with pytest.raises(UpstreamDown, match="credits of the account"):
        sendgrid.send(PLAIN)


@pytest.mark.parametrize(
    "reply",
    [
        *(Answer(b""), Answer(b"<html>Welcome to the hotel"), Answer(b"{}"), Answer(b"", status=204)),
        *(Answer(fate="close"), Answer(fate="reset"), Answer(fate="nonsense"), Answer(b"{}", times=100_000)),
    ],
)
def test_no_answer_of_sendgrids_is_not_known_to_be_sent(provider: Provider, sendgrid: SendGrid, reply: Answer) -> None:
    provider.reply = reply
    fate = sendgrid.send(PLAIN)[TO]
    assert fate.action is Action.DELAYED
    assert fate.status in ("4.4.2", "4.5.0")


def test_an_answer_without_an_id_is_one(provider: Provider, sendgrid: SendGrid) -> None:
    provider.reply = Answer(b"", status=202)
    fate = sendgrid.send(PLAIN)[TO]
    assert (fate.action, fate.reference, fate.diagnostic) == (Action.RELAYED, "", "http; 202 accepted")


def test_an_answer_that_does_not_come_in_time_is_not_known_to_be_sent(provider: Provider, running: FakeHttp) -> None:
    provider.reply = Answer(b"{}", seconds_a_byte=0.1)
    fate = SendGrid(KEY, running.url, seconds=0.3).send(PLAIN)[TO]
    assert (fate.action, fate.status) == (Action.DELAYED, "4.4.2")


def test_where_nobody_listens_nothing_was_sent() -> None:
    with FakeHttp() as gone:
        url = gone.url
    with pytest.raises(UpstreamDown):
        SendGrid(KEY, url, seconds=5).send(PLAIN)


def test_the_probe_looks_for_the_permission_to_send(provider: Provider, sendgrid: SendGrid) -> None:
    assert sendgrid.probe() == "SendGrid takes the key, which may send."
    sendgrid.rest()
    provider.scopes = ["alerts.read"]
    with pytest.raises(UpstreamRefused, match="permission Mail Send"):
        sendgrid.probe()


def test_the_probe_tells_of_a_wrong_key_and_of_a_wrong_server(
    provider: Provider, sendgrid: SendGrid, running: FakeHttp
) -> None:
    with pytest.raises(UpstreamRefused, match="RELAY_API_KEY"):
        SendGrid(Secret("SG.wrong"), running.url).probe()
    provider.reply = Answer(b"<html>")
    with pytest.raises(UpstreamDown, match="RELAY_API_URL"):
        sendgrid.probe()


def test_after_stop_nothing_is_sent(provider: Provider, sendgrid: SendGrid) -> None:
    sendgrid.stop()
    with pytest.raises(UpstreamDown, match="drain ends"):
        sendgrid.send(PLAIN)
    assert not provider.said
