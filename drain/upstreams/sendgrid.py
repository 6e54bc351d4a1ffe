"""``sendgrid``: SendGrid's API, which takes JSON and builds the message anew (`parts`).

- https://www.twilio.com/docs/sendgrid/api-reference/mail-send: the fields
- https://docs.sendgrid.com/api-reference/mail-send/limitations: 30 MB, 1,000 recipients, names
- https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors: what each field may not have
- https://support.sendgrid.com/hc/en-us/articles/18322114821403: 401 and 403
- https://twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/rate-limits

It has no idempotency key: a mail whose answer was lost goes out again.

Tracking is turned off, since it changes links and adds pictures; so are the footer and
the unsubscribing of the account. Not taken: parameters of a type (so no invitation and no
attached text in a charset of its own), a name of the author that is no ASCII, a subject
or a text that is empty.
"""

import base64
from collections.abc import Mapping
from typing import Any, ClassVar

from drain.request import Response, Service
from drain.setting import Secret
from drain.text import clean
from drain.upstreams import Action, Fate, Shipment, for_all
from drain.upstreams.api import Api, answered, said as words_of
from drain.upstreams.json_api import JsonApi
from drain.upstreams.parts import Attachment, Mailbox, Parts, Unsayable

URL = "https://api.sendgrid.com"
_SERVICE = Service("SendGrid", "RELAY_API_URL", "RELAY_API_KEY")
_RESERVED = frozenset({"x-sg-id", "x-sg-eid"})  # and those that `parts` leaves out or has fields for
_OFF = {"enable": False}


class SendGrid(JsonApi):
    """Sends by SendGrid's API at *base_url* (``https://api.eu.sendgrid.com`` for a subuser in the EU)."""

    name: ClassVar[str] = "sendgrid"
    title: ClassVar[str] = "SendGrid"
    smtp: ClassVar[str] = "smtp.sendgrid.net"
    path: ClassVar[str] = "/v3/mail/send"
    most_recipients: ClassVar[int] = 1000
    most_bytes: ClassVar[int] = 30_000_000

    def __init__(self, api_key: Secret, base_url: str = URL, seconds: float = 60.0) -> None:
        super().__init__(base_url, Api(_SERVICE, {"Authorization": f"Bearer {api_key.reveal()}"}, (api_key,), seconds))

    def probe(self) -> str:
        """Asks what the key may do.

        Raises:
            UpstreamDown, UpstreamRefused: as `Upstream.probe`.
        """
        url = f"{self._base}/v3/scopes"
        response = self._api.get(url)
        scopes = (answered(response) or {}).get("scopes")
        if not isinstance(scopes, list):
            raise self._api.down(response, url, "That is no answer of SendGrid's: check RELAY_API_URL.")
        if "mail.send" not in scopes:
            hint = "Give the key the permission Mail Send, or put another into RELAY_API_KEY."
            raise self._api.refused(response, url, hint)
        return "SendGrid takes the key, which may send."

    def _said(self, parts: Parts) -> dict[str, Any]:
        return _said(parts)

    def _judged(self, shipment: Shipment, url: str, response: Response) -> Mapping[str, Fate] | None:
        if response.status == 202:
            reference = clean(response.headers.get("x-message-id", ""), 100)
            said = self._api.diagnostic(response, f"accepted as {reference}" if reference else "accepted")
            return for_all(shipment, Fate(Action.RELAYED, "2.0.0", said, reference=reference))
        words = words_of(response).lower()
        if response.status == 401 and "credits exceeded" in words:
            raise self._api.down(response, url, "The credits of the account are used up; a larger plan has more.")
        if response.status == 403 and "from address" in words:
            return for_all(shipment, Fate(Action.FAILED, "5.7.1", self._api.diagnostic(response)))
        return None


def _check(parts: Parts) -> None:
    if parts.calendar:
        raise Unsayable("one of its alternatives is an invitation (text/calendar)")
    if not parts.subject:
        raise Unsayable("it has no Subject")
    if not parts.author.name.isascii():
        raise Unsayable("the name of its author is no ASCII")
    for name, _ in parts.headers:
        if name.lower() in _RESERVED:
            raise Unsayable(f"it has a line that SendGrid keeps for itself ({name})")


def _said(parts: Parts) -> dict[str, Any]:
    _check(parts)
    recipients: dict[str, Any] = {"to": [_mailbox(one) for one in parts.to]}
    if parts.cc:
        recipients["cc"] = [_mailbox(one) for one in parts.cc]
    if parts.bcc:
        recipients["bcc"] = [{"email": one} for one in parts.bcc]
    texts = (("text/plain", parts.text), ("text/html", parts.html))
    said: dict[str, Any] = {
        "personalizations": [recipients],
        "from": _mailbox(parts.author),
        "subject": parts.subject,
        "content": [{"type": kind, "value": text} for kind, text in texts if text.strip()],
        "tracking_settings": {
            "click_tracking": {"enable": False, "enable_text": False},
            "open_tracking": _OFF,
            "subscription_tracking": _OFF,
            "ganalytics": _OFF,
        },
        "mail_settings": {"footer": _OFF},
    }
    if len(parts.reply_to) == 1:
        said["reply_to"] = _mailbox(parts.reply_to[0])
    elif parts.reply_to:
        said["reply_to_list"] = [_mailbox(one) for one in parts.reply_to]
    if parts.headers:
        said["headers"] = dict(parts.headers)
    if parts.attachments:
        said["attachments"] = [_attached(one) for one in parts.attachments]
    return said


def _mailbox(one: Mailbox) -> dict[str, str]:
    if set(one.name) & set(",;"):
        raise Unsayable("a name in it has a comma or a semicolon")
    return {"email": one.address, "name": one.name} if one.name else {"email": one.address}


def _attached(one: Attachment) -> dict[str, str]:
    if set(one.name) & set(",;"):
        raise Unsayable("the name of an attachment has a comma or a semicolon")
    parameters = dict(one.parameters)
    # ASCII reads the same in every charset that says so of itself.
    if one.content.isascii() and parameters.get("charset", "").lower() in ("us-ascii", "utf-8", "iso-8859-1"):
        del parameters["charset"]
    if parameters:
        raise Unsayable(f"an attachment says more of its type than its name ({one.type}; {', '.join(parameters)})")
    said = {
        "content": base64.b64encode(one.content).decode("ascii"),
        "type": one.type,
        "filename": one.name,
        "disposition": "inline" if one.inline else "attachment",
    }
    return {**said, "content_id": one.content_id} if one.content_id else said
