"""Mailgun's API: the documented request, every documented answer, and answers that no documentation has."""

import base64
import email
import email.policy
from collections.abc import Iterator, Mapping
from email.message import Message

import pytest

from drain.setting import Secret
from drain.upstreams import Action, Fate, Shipment, UpstreamDown, UpstreamRefused
from drain.upstreams.mailgun import Mailgun
from tests.http_fake import Answer, FakeHttp, Request, answer

KEY = Secret("key-3ax6xnjp29jd6fds4gc373sgvjxteol0")
ACCEPTED = {"id": "<20260101.1@mg.example.org>", "message": "Queued. Thank you."}
RAW = b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: \xe9\xff\x00\r\n\r\n--x\r\nHello\r\n.\r\n"


class Provider:
    """Takes what is documented, complains of all else, and of addresses in ``bad`` and ``unauthorized``."""

    def __init__(self) -> None:
        self.taken: list[tuple[list[str], bytes]] = []
        self.complaints: list[str] = []
        self.bad: set[str] = set()
        self.unauthorized: set[str] = set()
        self.reply: Answer | None = None

    def __call__(self, request: Request) -> Answer:
        if request.method != "POST" or request.target != "/v3/mg.example.org/messages.mime":
            return self.complain(404, f"{request.method} {request.target}")
        login = base64.b64encode(b"api:" + KEY.reveal().encode()).decode()
        if request.headers.get("authorization") != [f"Basic {login}"]:
            return self.complain(401, "Invalid private key")
        parts = form(request)
        unknown = {name for name, _, _ in parts} - {"to", "message", "o:testmode"}
        if unknown:
            return self.complain(400, f"unknown {unknown}")
        to = [body.decode() for name, file, body in parts if name == "to" and not file]
        messages = [body for name, file, body in parts if name == "message" and file]
        if not to:
            return answer({"message": "to parameter is missing"}, status=400)
        if len(messages) != 1:
            return self.complain(400, "message parameter is not a file")
        if self.bad & set(to):
            return answer({"message": "'to' parameter is not a valid address. please check documentation"}, status=400)
        if self.unauthorized & set(to):
            words = "Domain mg.example.org is not allowed to send: Sandbox subdomains are for test purposes only. "
            return answer({"message": words + "Please add the address to authorized recipients."}, status=403)
        if self.reply:
            return self.reply
        self.taken.append((to, messages[0]))
        return answer(ACCEPTED)

    def complain(self, status: int, words: str) -> Answer:
        self.complaints.append(words)
        return answer({"message": words}, status=status)


def form(request: Request) -> list[tuple[str, str, bytes]]:
    """Name, file name and content of each part of a form (RFC 7578)."""
    [kind] = request.headers["content-type"]
    typed: Message = email.message_from_string(f"Content-Type: {kind}\n\n")
    assert typed.get_content_type() == "multipart/form-data"
    boundary = b"--" + str(typed.get_param("boundary")).encode()
    assert request.body.endswith(boundary + b"--\r\n")
    found = []
    for part in request.body.removesuffix(boundary + b"--\r\n").split(boundary + b"\r\n")[1:]:
        head, _, body = part.partition(b"\r\n\r\n")
        told = email.message_from_bytes(head)
        name, file = (told.get_param(one, "", "content-disposition") for one in ("name", "filename"))
        found.append((str(name), str(file), body.removesuffix(b"\r\n")))
    return found


@pytest.fixture
def provider() -> Iterator[Provider]:
    one = Provider()
    yield one
    assert not one.complaints, "only what is documented is asked"


@pytest.fixture
def server(provider: Provider) -> Iterator[FakeHttp]:
    with FakeHttp(provider) as fake:
        yield fake


def mailgun(server: FakeHttp, *, key: Secret = KEY, seconds: float = 5.0) -> Mailgun:
    return Mailgun(server.url + "/", "mg.example.org", key, seconds=seconds)


def shipment(*recipients: str, raw: bytes = RAW) -> Shipment:
    return Shipment("key-1", "alice@example.org", recipients or ("bob@example.net",), raw)


def fate(server: FakeHttp, provider: Provider, reply: Answer) -> Fate:
    provider.reply = reply
    return mailgun(server).send(shipment())["bob@example.net"]


def test_a_mail_goes_out_byte_for_byte_to_its_envelope(server: FakeHttp, provider: Provider) -> None:
    everyone = ("bob@example.net", '"a, b"@example.net', "hidden@example.com")
    fates = mailgun(server).send(shipment(*everyone))
    assert provider.taken == [(list(everyone), RAW)]
    assert fates == dict.fromkeys(
        everyone, Fate(Action.RELAYED, "2.0.0", "http; 200 Queued. Thank you.", reference=ACCEPTED["id"])
    )


def test_nothing_is_objected_to(server: FakeHttp) -> None:
    assert mailgun(server).objection(Shipment("k", "", ("bob@example.net",), b"\xff")) == ""


def test_a_thousand_recipients_go_in_one_request(server: FakeHttp, provider: Provider) -> None:
    everyone = tuple(f"user{number}@example.net" for number in range(Mailgun.most_recipients))
    fates = mailgun(server).send(shipment(*everyone))
    assert [to for to, _ in provider.taken] == [list(everyone)]
    assert set(fates) == set(everyone)


def test_an_invalid_address_fails_itself_alone(server: FakeHttp, provider: Provider) -> None:
    provider.bad = {"bad@@example.net"}
    fates = mailgun(server).send(shipment("bob@example.net", "bad@@example.net", "carol@example.net"))
    assert {recipient: one.action for recipient, one in fates.items()} == {
        "bob@example.net": Action.RELAYED,
        "bad@@example.net": Action.FAILED,
        "carol@example.net": Action.RELAYED,
    }
    assert (fates["bad@@example.net"].status, fates["bad@@example.net"].bad_address) == ("5.1.3", True)
    assert [to for to, _ in provider.taken] == [["bob@example.net"], ["carol@example.net"]]


def test_a_sandbox_domain_fails_only_who_is_not_authorized_there(server: FakeHttp, provider: Provider) -> None:
    provider.unauthorized = {"bob@example.net"}
    fates = mailgun(server).send(shipment("bob@example.net", "me@example.org"))
    assert {recipient: (one.action, one.status, one.bad_address) for recipient, one in fates.items()} == {
        "bob@example.net": (Action.FAILED, "5.7.1", False),
        "me@example.org": (Action.RELAYED, "2.0.0", False),
    }


@pytest.mark.parametrize(
    ("status", "action", "code"),
    [
        (400, Action.FAILED, "5.6.0"),
        (413, Action.FAILED, "5.3.4"),
        (500, Action.DELAYED, "4.3.0"),
        (502, Action.DELAYED, "4.3.0"),
    ],
)
def test_a_refusal_of_the_mail_is_its_fate(
    server: FakeHttp, provider: Provider, status: int, action: Action, code: str
) -> None:
    one = fate(server, provider, answer({"message": "Something is wrong"}, status=status))
    assert one == Fate(action, code, f"http; {status} Something is wrong", unknown=status == 502)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_domain_holds_the_queue(server: FakeHttp, provider: Provider, status: int) -> None:
    with pytest.raises(UpstreamRefused, match=f"Mailgun at .* answered with {status}: Forbidden"):
        fate(server, provider, answer({"message": "Forbidden"}, status=status))


def test_too_many_requests_are_waited_for(server: FakeHttp, provider: Provider) -> None:
    with pytest.raises(UpstreamDown) as caught:
        fate(server, provider, answer({"message": "Slow down"}, status=429, headers={"Retry-After": "60"}))
    assert caught.value.retry_after == 60


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Welcome</html>", b"[]", b"{}", b'{"id": ""}', b'{"id": 1, "message": "Queued"}', b'{"id": "<1@x>"}'],
)
def test_an_answer_that_is_not_mailguns_is_no_acceptance(server: FakeHttp, provider: Provider, body: bytes) -> None:
    one = fate(server, provider, Answer(body))
    assert (one.action, one.status) == (Action.DELAYED, "4.5.0")


@pytest.mark.parametrize("cut", ["close", "reset", "hang"])
def test_an_answer_that_is_lost_leaves_the_mail_unknown(server: FakeHttp, provider: Provider, cut: str) -> None:
    provider.reply = Answer(fate=cut)
    fates: Mapping[str, Fate] = mailgun(server, seconds=0.4).send(shipment())
    assert fates["bob@example.net"].status == "4.4.2"


def test_neither_form_of_the_key_is_shown(server: FakeHttp, provider: Provider) -> None:
    login = base64.b64encode(b"api:" + KEY.reveal().encode()).decode()
    one = fate(server, provider, answer({"message": f"bad {login} of {KEY.reveal()}"}, status=400))
    assert one.diagnostic == "http; 400 bad *** of ***"


def test_a_key_that_is_no_key_is_never_sent(server: FakeHttp) -> None:
    with pytest.raises(UpstreamDown, match="RELAY_API_KEY has characters"):
        mailgun(server, key=Secret("schlüssel")).send(shipment())
    assert server.connections == 0


def test_a_probe_sends_nothing(server: FakeHttp, provider: Provider) -> None:
    assert (
        mailgun(server).probe() == f"Mailgun at 127.0.0.1:{server.port}/v3/mg.example.org/messages.mime takes the key."
    )
    assert not provider.taken


def test_a_probe_shows_a_wrong_key(server: FakeHttp, provider: Provider) -> None:
    with pytest.raises(UpstreamRefused, match="Invalid private key"):
        mailgun(server, key=Secret("key-other")).probe()
    assert provider.complaints.pop() == "Invalid private key"


def test_a_stopped_one_sends_no_more(server: FakeHttp, provider: Provider) -> None:
    one = mailgun(server)
    one.rest()
    one.send(shipment())
    one.stop()
    with pytest.raises(UpstreamDown):
        one.send(shipment())
    assert len(provider.taken) == 1
