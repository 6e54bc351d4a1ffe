"""Amazon SES: the documented request, its signature, every documented error, and answers that no documentation has."""

import base64
import datetime
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config as BotoConfig

from drain.setting import Secret
from drain.upstreams import Action, Fate, Shipment, UpstreamDown, UpstreamRefused
from drain.upstreams.ses import Ses
from tests.http_fake import Answer, FakeHttp, Request, answer

KEY_ID, SECRET = "AKIDEXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
RAW = b"From: alice@example.org\r\nSubject: \xe9\xff\x00\r\n\r\nHello\r\n.\r\n"
SEND, ACCOUNT = ("POST", "/v2/email/outbound-emails"), ("GET", "/v2/email/account")


def error(status: int, name: str, message: str = "", **more: object) -> Answer:
    headers = {"x-amzn-ErrorType": f"{name}:http://internal.amazon.com/coral/com.amazonaws.services/"}
    return answer({"message": message}, status=status, headers=headers, **more)


class Provider:
    """Takes what is documented and rightly signed, complains of all else, and refuses all for one in ``unverified``."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[str], bytes]] = []
        self.complaints: list[str] = []
        self.unverified: set[str] = set()
        self.account: dict[str, object] = {"SendingEnabled": True, "ProductionAccessEnabled": True}
        self.reply: Answer | None = None

    def __call__(self, request: Request) -> Answer:
        if request.headers["authorization"] != [authorization(request)]:
            return error(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        if self.reply:
            return self.reply
        if (request.method, request.target) == ACCOUNT:
            return answer(self.account)
        if (request.method, request.target) != SEND:
            return self.complain(request.target)
        body = request.json
        if not {"Destination", "Content"} <= set(body) <= {"FeedbackForwardingEmailAddress", "Destination", "Content"}:
            return self.complain(str(set(body)))
        if set(body["Destination"]) != {"ToAddresses"} or set(body["Content"]) != {"Raw"}:
            return self.complain(str(body))
        if set(body["Content"]["Raw"]) != {"Data"}:
            return self.complain(str(body["Content"]))
        to = body["Destination"]["ToAddresses"]
        if bad := self.unverified & set(to):
            words = "Email address is not verified. The following identities failed the check in region EU-WEST-1: "
            return error(400, "MessageRejected", words + ", ".join(bad))
        raw = base64.b64decode(body["Content"]["Raw"]["Data"], validate=True)
        self.taken.append((body.get("FeedbackForwardingEmailAddress", ""), to, raw))
        return answer({"MessageId": "0102-000000"})

    def complain(self, words: str) -> Answer:
        self.complaints.append(words)
        return error(400, "BadRequestException", words)


def authorization(request: Request) -> str:
    """The header that is due, computed anew: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html."""
    [given] = request.headers["authorization"]
    [moment] = request.headers["x-amz-date"]
    then = datetime.datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    assert abs((datetime.datetime.now(datetime.UTC) - then).total_seconds()) < 60
    names = given.partition("SignedHeaders=")[2].partition(",")[0]
    assert {"host", "x-amz-date"} <= set(names.split(";"))
    canonical = "\n".join(
        [
            request.method,
            request.target,
            "",
            *(f"{name}:{','.join(request.headers[name])}" for name in names.split(";")),
            "",
            names,
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    scope = f"{moment[:8]}/eu-west-1/ses/aws4_request"
    key = b"AWS4" + SECRET.reveal().encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={names}, Signature={signature}"


@pytest.fixture(autouse=True)
def _no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def provider() -> Iterator[Provider]:
    one = Provider()
    yield one
    assert not one.complaints, "only what is documented is asked"


@pytest.fixture
def server(provider: Provider) -> Iterator[FakeHttp]:
    with FakeHttp(provider) as fake:
        yield fake


def ses(server: FakeHttp, *, key_id: str = KEY_ID, secret: Secret = SECRET, seconds: float = 5.0) -> Ses:
    return Ses("eu-west-1", key_id, secret, server.url, seconds=seconds)


def shipment(*recipients: str, sender: str = "alice@example.org") -> Shipment:
    return Shipment("key-1", sender, recipients or ("bob@example.net",), RAW)


def fate(server: FakeHttp, provider: Provider, reply: Answer) -> Fate:
    provider.reply = reply
    return ses(server).send(shipment())["bob@example.net"]


# -- what is sent --


def test_a_mail_goes_out_byte_for_byte_to_its_envelope(server: FakeHttp, provider: Provider) -> None:
    everyone = ("bob@example.net", "hidden@example.com")
    fates = ses(server).send(shipment(*everyone))
    assert provider.taken == [("alice@example.org", list(everyone), RAW)]
    assert fates == dict.fromkeys(
        everyone, Fate(Action.RELAYED, "2.0.0", "http; 200 accepted", reference="0102-000000")
    )


def test_the_from_field_is_left_to_the_mail(server: FakeHttp, provider: Provider) -> None:
    ses(server).send(shipment())
    assert "FromEmailAddress" not in server.requests[0].json


def test_an_empty_sender_is_left_out(server: FakeHttp, provider: Provider) -> None:
    ses(server).send(shipment(sender=""))
    assert provider.taken == [("", ["bob@example.net"], RAW)]


def test_the_request_is_what_amazons_own_client_sends(server: FakeHttp, provider: Provider) -> None:
    ses(server).send(shipment())
    boto3.client(
        "sesv2",
        region_name="eu-west-1",
        endpoint_url=server.url,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET.reveal(),
        config=BotoConfig(retries={"total_max_attempts": 1}),
    ).send_email(
        FeedbackForwardingEmailAddress="alice@example.org",
        Destination={"ToAddresses": ["bob@example.net"]},
        Content={"Raw": {"Data": RAW}},
    )
    ours, theirs = server.requests
    assert (ours.method, ours.target, ours.json) == (theirs.method, theirs.target, theirs.json)
    assert ours.headers["content-type"] == theirs.headers["content-type"]


def test_without_a_key_credentials_are_found_where_amazons_tools_find_them(
    server: FakeHttp, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET.reveal())
    monkeypatch.setenv("AWS_SESSION_TOKEN", "s3ss10n-t0ken")
    one = ses(server, key_id="", secret=Secret(""))
    assert one.send(shipment())["bob@example.net"].action is Action.RELAYED
    assert server.requests[0].headers["x-amz-security-token"] == ["s3ss10n-t0ken"]
    provider.reply = error(400, "MessageRejected", "the canonical string was x-amz-security-token:s3ss10n-t0ken")
    assert "s3ss10n" not in one.send(shipment())["bob@example.net"].diagnostic


def test_without_any_credentials_a_person_must_act(server: FakeHttp) -> None:
    with pytest.raises(UpstreamRefused, match="no credentials") as caught:
        ses(server, key_id="", secret=Secret("")).send(shipment())
    assert "SES_ACCESS_KEY_ID" in caught.value.hint
    assert server.connections == 0


def test_a_region_names_the_endpoint() -> None:
    assert Ses("eu-west-1", KEY_ID, SECRET)._base == "https://email.eu-west-1.amazonaws.com"
    assert Ses("cn-north-1", KEY_ID, SECRET)._base == "https://email.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize(
    "one", [shipment("jörg@example.net"), shipment("bob@bücher.example"), shipment(sender="jörg@example.org")], ids=str
)
def test_an_address_beyond_ascii_is_objected_to(server: FakeHttp, one: Shipment) -> None:
    assert "SMTPUTF8" in ses(server).objection(one)
    assert {each.action for each in ses(server).send(one).values()} == {Action.FAILED}
    assert server.connections == 0


# -- errors --


def test_a_recipient_who_is_not_verified_fails_alone(server: FakeHttp, provider: Provider) -> None:
    provider.unverified = {"bob@example.net"}
    fates = ses(server).send(shipment("ann@example.net", "bob@example.net"))
    assert [(one.action, one.status) for one in fates.values()] == [(Action.RELAYED, "2.0.0"), (Action.FAILED, "5.7.1")]
    assert "MessageRejected: Email address is not verified" in fates["bob@example.net"].diagnostic


@pytest.mark.parametrize(
    ("name", "message", "status"),
    [
        ("MessageRejected", "The message contains a virus.", "5.6.0"),
        ("MessageRejected", "Email address is not verified.", "5.7.1"),
        ("MailFromDomainNotVerifiedException", "The sending domain is not verified.", "5.7.1"),
        ("BadRequestException", "Duplicate header 'Subject'.", "5.6.0"),
        ("BadRequestException", "Illegal address", "5.1.0"),
    ],
)
def test_a_refusal_of_the_mail_is_its_fate(
    server: FakeHttp, provider: Provider, name: str, message: str, status: str
) -> None:
    assert fate(server, provider, error(400, name, message)) == Fate(
        Action.FAILED, status, f"http; 400 {name}: {message}"
    )


def test_a_refusal_of_the_mail_is_not_asked_for_again(server: FakeHttp, provider: Provider) -> None:
    provider.reply = error(400, "MessageRejected", "The message contains a virus.")
    fates = ses(server).send(shipment("ann@example.net", "bob@example.net"))
    assert {one.action for one in fates.values()} == {Action.FAILED}
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (429, "TooManyRequestsException"),
        (400, "LimitExceededException"),
        (400, "ThrottlingException"),
        (400, "Throttling"),
        (503, "ServiceUnavailable"),
    ],
)
def test_too_much_at_once_is_waited_for(server: FakeHttp, provider: Provider, status: int, name: str) -> None:
    with pytest.raises(UpstreamDown, match=f"answered with {status}: Daily message quota exceeded"):
        fate(server, provider, error(status, name, "Daily message quota exceeded"))


@pytest.mark.parametrize(
    ("status", "name", "message"),
    [
        (400, "RequestExpired", "Request has expired."),
        (403, "InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than"),
        (403, "SignatureDoesNotMatch", "Signature not yet current: 20260101T000000Z is still later than"),
    ],
)
def test_a_clock_that_is_wrong_is_said(
    server: FakeHttp, provider: Provider, status: int, name: str, message: str
) -> None:
    with pytest.raises(UpstreamDown) as caught:
        fate(server, provider, error(status, name, message))
    assert "Set the clock" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "AccountSuspendedException"),
        (400, "SendingPausedException"),
        (400, "AccessDeniedException"),
        (403, "AccessDeniedException"),
        (400, "IncompleteSignature"),
        (403, "InvalidClientTokenId"),
        (403, "UnrecognizedClientException"),
        (403, "ExpiredTokenException"),
        (400, "NotAuthorized"),
        (403, "OptInRequired"),
        (403, "SomethingNewException"),
        (404, "NotFoundException"),
    ],
)
def test_trouble_with_key_or_account_holds_the_queue(
    server: FakeHttp, provider: Provider, status: int, name: str
) -> None:
    with pytest.raises(UpstreamRefused, match=f"Amazon SES at .* answered with {status}: No"):
        fate(server, provider, error(status, name, "No."))


def test_a_wrong_secret_holds_the_queue(server: FakeHttp) -> None:
    with pytest.raises(UpstreamRefused, match="signature we calculated") as caught:
        ses(server, secret=Secret("other")).send(shipment())
    assert "RELAY_API_KEY" in caught.value.hint


@pytest.mark.parametrize("name", ["InternalFailure", "InternalServiceErrorException", ""])
def test_a_service_that_falls_over_a_mail_delays_it(server: FakeHttp, provider: Provider, name: str) -> None:
    assert fate(server, provider, error(500, name, "Oops")) == Fate(Action.DELAYED, "4.3.0", "http; 500 Oops")


def test_the_name_of_an_error_is_found_in_its_body_too(server: FakeHttp, provider: Provider) -> None:
    reply = answer({"__type": "com.amazonaws.ses#SendingPausedException", "message": "Paused."}, status=400)
    with pytest.raises(UpstreamRefused, match="Paused"):
        fate(server, provider, reply)


@pytest.mark.parametrize("body", [b"", b"<html/>", b"[]", b"{}", b'{"MessageId": ""}', b'{"MessageId": 3}'])
def test_an_answer_without_an_id_is_no_acceptance(server: FakeHttp, provider: Provider, body: bytes) -> None:
    one = fate(server, provider, Answer(body))
    assert (one.action, one.status) == (Action.DELAYED, "4.5.0")


@pytest.mark.parametrize("cut", ["close", "reset", "hang"])
def test_an_answer_that_is_lost_leaves_the_mail_unknown_and_is_not_asked_for_again(
    server: FakeHttp, provider: Provider, cut: str
) -> None:
    provider.reply = Answer(fate=cut)
    assert ses(server, seconds=0.4).send(shipment())["bob@example.net"].status == "4.4.2"
    assert len(server.requests) == 1


# -- probe --


def test_a_probe_sends_nothing(server: FakeHttp, provider: Provider) -> None:
    assert ses(server).probe() == f"Amazon SES at 127.0.0.1:{server.port} takes the key."
    provider.account = {"SendingEnabled": True, "ProductionAccessEnabled": False}
    assert "sandbox" in ses(server).probe()
    assert not provider.taken


def test_a_probe_shows_what_is_wrong(server: FakeHttp, provider: Provider) -> None:
    with pytest.raises(UpstreamRefused, match="signature"):
        ses(server, secret=Secret("other")).probe()
    provider.account = {"SendingEnabled": False}
    with pytest.raises(UpstreamRefused, match="may not send"):
        ses(server).probe()
    for status, name, trouble in (
        (400, "ThrottlingException", UpstreamDown),
        (429, "TooManyRequestsException", UpstreamDown),
        (403, "UnrecognizedClientException", UpstreamRefused),
        (400, "BadRequestException", UpstreamDown),
        (500, "InternalFailure", UpstreamDown),
    ):
        provider.reply = error(status, name, "No.")
        with pytest.raises(trouble, match="No"):
            ses(server).probe()


def test_a_key_that_may_only_send_passes_the_probe(server: FakeHttp, provider: Provider) -> None:
    provider.reply = error(403, "AccessDeniedException", "not authorized to perform: ses:GetAccount")
    assert "no more is known" in ses(server).probe()


def test_a_stopped_one_sends_no_more(server: FakeHttp, provider: Provider) -> None:
    one = ses(server)
    one.rest()
    one.send(shipment())
    one.stop()
    with pytest.raises(UpstreamDown):
        one.send(shipment())
    assert len(provider.taken) == 1
