"""``postmark``: Postmark's API, which takes JSON and builds the message anew (`parts`).

- https://postmarkapp.com/developer/user-guide/send-email-with-api: the fields, 50 recipients
- https://postmarkapp.com/developer/api/overview: statuses and error codes
- https://postmarkapp.com/support/article/1056-what-are-the-attachment-and-email-size-limits
- https://postmarkapp.com/support/article/1101-how-do-i-send-calendar-invites-with-postmark

It has no idempotency key: a mail whose answer was lost goes out again.

Addresses that bounced or complained are *inactive* to Postmark: they get nothing, and its
words name them; the others get the mail. Where all are, that is an error, 406.

Not said to it: ``Date``, which it writes itself, as its own libraries leave it out. An
invitation goes as an attachment, as Postmark has it, its type with the method.
Opens and links are not tracked; a server that is set to track opens does so all the same.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from drain.request import Response, Service
from drain.setting import Secret
from drain.text import clean
from drain.upstreams import Action, Fate, Shipment, for_all
from drain.upstreams.api import Api, answered
from drain.upstreams.json_api import JsonApi
from drain.upstreams.parts import Attachment, Parts, Unsayable

URL = "https://api.postmarkapp.com"
_SERVICE = Service("Postmark", "RELAY_API_URL", "RELAY_API_KEY")
_TEXT_BYTES = 5_000_000
_NOT_SAID = frozenset({"date"})
# Error codes. The account, its server or stream, this machine's address: all mail alike.
_OF_THE_ACCOUNT = frozenset({10, 405, 413, 422, 1235, 1236, 1480})
# The sender has no signature, or while the account is pending the recipient is not of its domain.
_NOT_ALLOWED = frozenset({400, 401, 412})
_INACTIVE = 406
_ADDRESSES = re.compile(r"inactive addresses: (.+?)(?:\.? Inactive |\.?\s*\Z)", re.DOTALL)


class Postmark(JsonApi):
    """Sends by Postmark's API at *base_url*, with a server's token, to its *stream*."""

    name: ClassVar[str] = "postmark"
    title: ClassVar[str] = "Postmark"
    smtp: ClassVar[str] = "smtp.postmarkapp.com"
    path: ClassVar[str] = "/email"
    most_recipients: ClassVar[int] = 50
    most_bytes: ClassVar[int] = 10_000_000

    def __init__(
        self, server_token: Secret, base_url: str = URL, stream: str = "outbound", seconds: float = 60.0
    ) -> None:
        self._stream = stream
        super().__init__(
            base_url, Api(_SERVICE, {"X-Postmark-Server-Token": server_token.reveal()}, (server_token,), seconds)
        )

    def probe(self) -> str:
        """Asks for the server that the token is of.

        Raises:
            UpstreamDown, UpstreamRefused: as `Upstream.probe`.
        """
        url = f"{self._base}/server"
        response = self._api.get(url)
        server = (answered(response) or {}).get("Name")
        if not isinstance(server, str):
            raise self._api.down(response, url, "That is no answer of Postmark's: check RELAY_API_URL.")
        return f"Postmark takes the token, which is of the server {clean(server, 100)}."

    def _said(self, parts: Parts) -> dict[str, Any]:
        if max(len(parts.text.encode()), len(parts.html.encode())) > _TEXT_BYTES:
            raise Unsayable(f"its text is larger than the {_TEXT_BYTES:,} bytes that Postmark takes")
        return {**_said(parts), "MessageStream": self._stream}

    def _judged(self, shipment: Shipment, url: str, response: Response) -> Mapping[str, Fate] | None:
        answer = answered(response) or {}
        code, message, reference = answer.get("ErrorCode"), str(answer.get("Message", "")), answer.get("MessageID")
        if type(code) is not int:  # by type, not isinstance: false is an int in Python
            return None
        if response.status == 200 and code == 0 and isinstance(reference, str) and reference:
            said = self._api.diagnostic(response, f"accepted as {reference}")
            relayed = Fate(Action.RELAYED, "2.0.0", said, reference=clean(reference, 100))
            return {**for_all(shipment, relayed), **self._inactive(shipment, response, message)}
        if response.status != 422:
            return None
        if code in _OF_THE_ACCOUNT:
            raise self._api.refused(response, url, f"Postmark's error code is {code}: the account wants looking after.")
        if code == _INACTIVE:
            failed = Fate(Action.FAILED, "5.3.0", self._api.diagnostic(response))
            found = self._inactive(shipment, response, message)
            if not found and len(shipment.recipients) == 1:
                found = self._inactive(shipment, response, f"inactive addresses: {shipment.recipients[0]}")
            return {**for_all(shipment, failed), **found}
        if code in _NOT_ALLOWED:
            return for_all(shipment, Fate(Action.FAILED, "5.7.1", self._api.diagnostic(response)))
        return None

    def _inactive(self, shipment: Shipment, response: Response, message: str) -> dict[str, Fate]:
        """The recipients that *message* calls inactive; Postmark writes them in lower case."""
        found = _ADDRESSES.search(message)
        named = {one.strip().lower() for one in found[1].split(",")} if found else set()
        fate = Fate(Action.FAILED, "5.2.1", self._api.diagnostic(response), bad_address=True)
        return {one: fate for one in shipment.recipients if one.lower() in named}


def _said(parts: Parts) -> dict[str, Any]:
    said: dict[str, Any] = {
        "From": str(parts.author),
        "To": ", ".join(map(str, parts.to)),
        "Subject": parts.subject,
        "TrackOpens": False,
        "TrackLinks": "None",
    }
    if parts.cc:
        said["Cc"] = ", ".join(map(str, parts.cc))
    if parts.bcc:
        said["Bcc"] = ", ".join(parts.bcc)
    if parts.reply_to:
        said["ReplyTo"] = ", ".join(map(str, parts.reply_to))
    if parts.text.strip():
        said["TextBody"] = parts.text
    if parts.html.strip():
        said["HtmlBody"] = parts.html
    if headers := [{"Name": name, "Value": value} for name, value in parts.headers if name.lower() not in _NOT_SAID]:
        said["Headers"] = headers
    files = [_attached(one) for one in parts.attachments]
    if parts.calendar:
        files.insert(0, _attached(parts.calendar))
    if files:
        said["Attachments"] = files
    return said


def _attached(one: Attachment) -> dict[str, str]:
    if one.inline and not one.content_id:
        raise Unsayable(f"{one.name} is to be shown in the text and has no Content-ID")
    said = {
        "Name": one.name,
        "Content": base64.b64encode(one.content).decode("ascii"),
        "ContentType": one.content_type,
    }
    return {**said, "ContentID": f"cid:{one.content_id}"} if one.content_id else said
