"""Postmark's API: the documented request, every documented answer, and answers that no documentation has."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from drain.setting import Secret
from drain.text import clean
from drain.upstreams import Action, UpstreamDown, UpstreamRefused
from drain.upstreams.postmark import Postmark
from tests.http_fake import Answer, FakeHttp, Request, answer
from tests.test_parts import HEAD, MANY, SAMPLES, TO, put_together, recipients_of, seen, shipment

TOKEN = Secret("aaaa-bbbb-cccc")
ID = "0a129aee-e1cd-480d-b08d-4f48548ff48d"
TEXTS = {"From", "To", "Cc", "Bcc", "ReplyTo", "Subject", "TextBody", "HtmlBody", "MessageStream"}
FIELDS = {*TEXTS, "TrackOpens", "TrackLinks", "Headers", "Attachments"}
FILE_FIELDS = {"Name", "Content", "ContentType", "ContentID"}
# Postmark's own libraries leave these out.
NO_HEADERS = {
    "return-path",
    "from",
    "reply-to",
    "sender",
    "received",
    "date",
    "content-type",
    "to",
    "cc",
    "bcc",
    "subject",
}
TAIL = "Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression."


class Provider:
    """Takes what is documented and keeps it, but for addresses in ``inactive``; complains of all else."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.said: list[dict[str, Any]] = []
        self.inactive: list[str] = []
        self.reply: Answer | None = None

    def __call__(self, request: Request) -> Answer:
        if request.headers.get("x-postmark-server-token") != [TOKEN.reveal()]:
            return error(401, 10, "No Account or Server API tokens were supplied in the HTTP headers.")
        if request.headers.get("accept") != ["application/json"]:
            return error(415, 0, "Accept")
        if self.reply:
            return self.reply
        if (request.method, request.target) == ("GET", "/server"):
            return answer({"ID": 1, "Name": "Home\x1b", "DeliveryType": "Live"})
        wrong = self.wrong(request)
        if wrong:
            self.complaints.append(wrong)
            return error(422, 403, wrong)
        said = request.json
        everybody = ",".join(said.get(name, "") for name in ("To", "Cc", "Bcc")).lower()
        inactive = [one for one in self.inactive if one in everybody]
        if len(inactive) == everybody.count("@"):
            words = "You tried to send to recipient(s) that have been marked as inactive. Found inactive addresses: "
            return error(422, 406, f"{words}{', '.join(inactive)}. {TAIL}")
        self.said.append(said)
        words = f"Message OK, but will not deliver to these inactive addresses: {', '.join(inactive)}. {TAIL}"
        return accepted(words if inactive else "OK")

    def wrong(self, request: Request) -> str:
        if (request.method, request.target) != ("POST", "/email"):
            return f"{request.method} {request.target}"
        if request.headers.get("content-type") != ["application/json"]:
            return "content type"
        said = request.json
        if set(said) - FIELDS or not {"From", "To", "MessageStream"} <= set(said):
            return f"fields {set(said)}"
        if not all(isinstance(said[name], str) for name in TEXTS & set(said)):
            return "a field is no text"
        if said["TrackOpens"] is not False or said["TrackLinks"] != "None":
            return "it is tracked"
        if not said.get("TextBody") and not said.get("HtmlBody"):
            return "Provide either email TextBody or HtmlBody or both."
        return wrong_lists(said)


def wrong_lists(said: dict[str, Any]) -> str:
    for header in said.get("Headers", []):
        if set(header) != {"Name", "Value"} or header["Name"].lower() in NO_HEADERS:
            return f"header {header}"
    for file in said.get("Attachments", []):
        if set(file) - FILE_FIELDS or not FILE_FIELDS - {"ContentID"} <= set(file):
            return f"attachment {set(file)}"
        if not file.get("ContentID", "cid:").startswith("cid:"):
            return "ContentID"
    return ""


def accepted(words: str) -> Answer:
    return answer(
        {"To": TO, "SubmittedAt": "2014-02-17T07:25:01-05:00", "MessageID": ID, "ErrorCode": 0, "Message": words}
    )


def error(status: int, code: object, message: str) -> Answer:
    return answer({"ErrorCode": code, "Message": message}, status=status)


def built(said: dict[str, Any]) -> bytes:
    """The message that Postmark would build."""
    return put_together(
        said["From"],
        said["To"],
        said.get("Cc", ""),
        said.get("ReplyTo", ""),
        said["Subject"],
        [(one["Name"], one["Value"]) for one in said.get("Headers", [])],
        said.get("TextBody"),
        said.get("HtmlBody"),
        [
            (
                one["Name"],
                one["ContentType"],
                base64.b64decode(one["Content"]),
                one.get("ContentID", "").removeprefix("cid:"),
            )
            for one in said.get("Attachments", [])
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
def postmark(running: FakeHttp) -> Postmark:
    return Postmark(TOKEN, running.url, seconds=5)


PLAIN = shipment(SAMPLES["plain"])


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"shown in the text"}))
def test_what_postmark_builds_is_the_same_to_a_reader(provider: Provider, postmark: Postmark, name: str) -> None:
    one = shipment(SAMPLES[name], *recipients_of(name))
    assert postmark.objection(one) == ""
    fates = postmark.send(one)
    assert set(fates) == set(one.recipients)
    assert {(fate.action, fate.status, fate.reference) for fate in fates.values()} == {(Action.RELAYED, "2.0.0", ID)}
    assert seen(built(provider.said[0])) == seen(SAMPLES[name])


def test_an_invitation_is_said_with_its_method(provider: Provider, postmark: Postmark) -> None:
    postmark.send(shipment(SAMPLES["invitation"]))
    [file] = provider.said[0]["Attachments"]
    assert (file["Name"], file["ContentType"]) == ("invite.ics", "text/calendar; charset=utf-8; method=REQUEST")


def test_a_picture_is_said_with_its_content_id(provider: Provider, postmark: Postmark) -> None:
    postmark.send(shipment(SAMPLES["picture"]))
    assert [one.get("ContentID") for one in provider.said[0]["Attachments"]] == ["cid:pic@x", None]


def test_what_cannot_be_said_is_refused_before_anything_is_sent(provider: Provider, postmark: Postmark) -> None:
    words = postmark.objection(shipment(SAMPLES["shown in the text"]))
    assert "p.png is to be shown in the text" in words
    assert "smtp.postmarkapp.com (RELAY_UPSTREAM=smtp)" in words
    fate = postmark.send(shipment(SAMPLES["shown in the text"]))[TO]
    assert (fate.action, fate.status) == (Action.FAILED, "5.6.3")
    assert not provider.said


def test_all_recipients_are_in_to_cc_and_bcc(provider: Provider, postmark: Postmark) -> None:
    postmark.send(shipment(SAMPLES["many"], *MANY))
    said = provider.said[0]
    assert said["To"] == f"{TO}, Carol <carol@example.net>"
    assert (said["Cc"], said["Bcc"], said["ReplyTo"]) == (
        "dan@example.net",
        "eve@example.net",
        "a@x.test, B <b@x.test>",
    )


def test_the_stream_is_named(provider: Provider, running: FakeHttp) -> None:
    Postmark(TOKEN, running.url, stream="news").send(PLAIN)
    assert provider.said[0]["MessageStream"] == "news"


BACKSLASHES = (b"\\" * 70 + b"\r\n") * 40_000  # twice as long in JSON


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (
            HEAD
            + b"MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
            + b"--b\r\nContent-Type: text/plain\r\n\r\n%s--b\r\nContent-Type: text/html\r\n\r\n%s--b--\r\n"
            % (BACKSLASHES, BACKSLASHES),
            "Postmark takes 10,000,000",
        ),
        (HEAD + b"\r\n" + (b"x" * 70 + b"\r\n") * 80_000, "larger than the 5,000,000 bytes"),
    ],
)
def test_a_mail_that_is_larger_than_postmark_takes_is_refused(postmark: Postmark, raw: bytes, why: str) -> None:
    assert len(raw) < Postmark.most_bytes
    assert why in postmark.objection(shipment(raw))


def test_of_several_recipients_those_that_are_inactive_fail_and_the_others_do_not(
    provider: Provider, postmark: Postmark
) -> None:
    provider.inactive = ["carol@example.net", "eve@example.net"]
    recipients = (TO, "Carol@example.net", "dan@example.net", "eve@example.net")
    fates = postmark.send(shipment(SAMPLES["many"], *recipients))
    assert {one: (fate.action, fate.status, fate.bad_address) for one, fate in fates.items()} == {
        TO: (Action.RELAYED, "2.0.0", False),
        "Carol@example.net": (Action.FAILED, "5.2.1", True),
        "dan@example.net": (Action.RELAYED, "2.0.0", False),
        "eve@example.net": (Action.FAILED, "5.2.1", True),
    }
    assert "inactive addresses" in fates["eve@example.net"].diagnostic


def test_where_all_are_inactive_all_fail(provider: Provider, postmark: Postmark) -> None:
    provider.inactive = [one.lower() for one in MANY]
    fates = postmark.send(shipment(SAMPLES["many"], *MANY))
    assert {(fate.action, fate.status, fate.bad_address) for fate in fates.values()} == {(Action.FAILED, "5.2.1", True)}


@pytest.mark.parametrize(
    ("words", "bad"),
    [
        (f"Found inactive addresses: carol@example.net. {TAIL}", {"carol@example.net"}),
        ("will not deliver to these inactive addresses: carol@example.net,dan@example.net", MANY[1:3]),
        ("will not deliver to these inactive addresses: carol@example.net.", {"carol@example.net"}),
        (f"Found inactive addresses: mallory@x.test. {TAIL}", set()),
        ("no address", set()),
    ],
)
def test_who_is_not_named_as_inactive_is_no_bad_address(
    provider: Provider, postmark: Postmark, words: str, bad: set[str]
) -> None:
    provider.reply = error(422, 406, words)
    fates = postmark.send(shipment(SAMPLES["many"], *MANY))
    assert {fate.action for fate in fates.values()} == {Action.FAILED}
    assert {one for one, fate in fates.items() if fate.bad_address} == set(bad)


def test_a_single_recipient_is_the_inactive_one_however_it_is_said(provider: Provider, postmark: Postmark) -> None:
    provider.reply = error(422, 406, "inactive")
    assert postmark.send(PLAIN)[TO].bad_address


@pytest.mark.parametrize(
    ("status", "code", "action", "said"),
    [
        *((422, 300, Action.FAILED, "5.6.0"), (422, 400, Action.FAILED, "5.7.1"), (422, 401, Action.FAILED, "5.7.1")),
        *((422, 402, Action.FAILED, "5.6.0"), (422, 403, Action.FAILED, "5.6.0"), (422, 409, Action.FAILED, "5.6.0")),
        *((422, 411, Action.FAILED, "5.6.0"), (422, 412, Action.FAILED, "5.7.1"), (413, 0, Action.FAILED, "5.3.4")),
        *((422, None, Action.FAILED, "5.6.0"), (422, [406], Action.FAILED, "5.6.0")),
        *((500, 0, Action.DELAYED, "4.3.0"), (502, 0, Action.DELAYED, "4.3.0")),
    ],
)
def test_an_answer_about_this_mail_is_its_fate(
    provider: Provider, postmark: Postmark, status: int, code: object, action: Action, said: str
) -> None:
    provider.reply = error(status, code, f"words\x1b {TOKEN.reveal()}")
    fate = postmark.send(PLAIN)[TO]
    assert (fate.action, fate.status, fate.bad_address) == (action, said, False)
    assert fate.diagnostic == f"http; {status} words  ***"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((401, 10), (404, 0), (415, 0), (422, 405), (422, 413), (422, 422), (422, 1235), (422, 1236), (422, 1480)),
    ],
)
def test_an_answer_about_the_token_or_the_account_blames_no_mail(
    provider: Provider, postmark: Postmark, status: int, code: int
) -> None:
    provider.reply = error(status, code, "no")
    with pytest.raises(UpstreamRefused, match=f"Postmark at 127.*answered with {status}: no"):
        postmark.send(PLAIN)


@pytest.mark.parametrize(("status", "code"), [(429, 429), (503, 100)])
def test_what_postmark_asks_us_to_wait_for_is_waited_for(
    provider: Provider, postmark: Postmark, status: int, code: int
) -> None:
    provider.reply = error(status, code, "later")
    with pytest.raises(UpstreamDown, match=f"answered with {status}: later"):
        postmark.send(PLAIN)


@pytest.mark.parametrize(
    "reply",
    [
        *(Answer(b""), Answer(b"<html>Welcome to the hotel"), Answer(b"{}"), Answer(b"", status=204)),
        *(error(200, 0, "OK"), error(200, 300, "no"), answer({"ErrorCode": False, "MessageID": ID})),
        answer({"ErrorCode": 0, "MessageID": 7}),
        *(Answer(fate="close"), Answer(fate="reset"), Answer(fate="nonsense"), Answer(b"{}", times=100_000)),
    ],
)
def test_no_answer_of_postmarks_is_not_known_to_be_sent(provider: Provider, postmark: Postmark, reply: Answer) -> None:
    provider.reply = reply
    fate = postmark.send(PLAIN)[TO]
    assert fate.action is Action.DELAYED
    assert fate.status in ("4.4.2", "4.5.0")


def test_an_answer_that_does_not_come_in_time_is_not_known_to_be_sent(provider: Provider, running: FakeHttp) -> None:
    provider.reply = Answer(b"{}", fate="hang after header")
    fate = Postmark(TOKEN, running.url, seconds=0.3).send(PLAIN)[TO]
    assert (fate.action, fate.status) == (Action.DELAYED, "4.4.2")


def test_where_nobody_listens_nothing_was_sent() -> None:
    with FakeHttp() as gone:
        url = gone.url
    with pytest.raises(UpstreamDown):
        Postmark(TOKEN, url, seconds=5).send(PLAIN)


def test_the_probe_names_the_server(provider: Provider, postmark: Postmark) -> None:
    assert postmark.probe() == "Postmark takes the token, which is of the server Home ."
    postmark.rest()


def test_the_probe_tells_of_a_wrong_token_and_of_a_wrong_server(
    provider: Provider, postmark: Postmark, running: FakeHttp
) -> None:
    with pytest.raises(UpstreamRefused, match="RELAY_API_KEY"):
        Postmark(Secret("wrong"), running.url).probe()
    provider.reply = Answer(b"<html>")
    with pytest.raises(UpstreamDown, match="RELAY_API_URL"):
        postmark.probe()


def test_after_stop_nothing_is_sent(provider: Provider, postmark: Postmark) -> None:
    postmark.stop()
    with pytest.raises(UpstreamDown, match="drain ends"):
        postmark.send(PLAIN)
    assert not provider.said


JSON = st.none() | st.booleans() | st.integers(0, 1500) | st.text(max_size=8) | st.lists(st.integers(), max_size=1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(["ErrorCode", "Message", "MessageID"]), JSON, max_size=3),
    st.sampled_from([200, 401, 422, 429, 503]),
)
def test_whatever_is_answered_comes_to_a_fate_or_to_a_sentence(
    provider: Provider, postmark: Postmark, value: dict[str, Any], status: int
) -> None:
    provider.reply = answer(value, status=status)
    try:
        fate = postmark.send(PLAIN)[TO]
    except (UpstreamDown, UpstreamRefused) as refusal:
        said = str(refusal)
    else:
        said = fate.diagnostic
        assert (fate.action is Action.RELAYED) <= (status == 200 and value.get("ErrorCode") == 0)
    assert said == clean(said)
