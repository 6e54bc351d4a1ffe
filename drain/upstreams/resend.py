"""``resend``: Resend's API, which takes JSON and builds the message anew (`parts`).

- https://resend.com/docs/api-reference/emails/send-email: the fields, 40 MB, 50 recipients
- https://resend.com/docs/dashboard/emails/idempotency-keys: 24 hours, 256 characters
- https://resend.com/docs/dashboard/emails/embed-inline-images: ``content_id``
- https://resend.com/docs/api-reference/errors, https://resend.com/docs/api-reference/rate-limit

A mail that is sent again within 24 hours has the same key and, since `parts` makes the
same of the same, the same payload: it goes out once. After that time Resend has
forgotten the key, and a mail whose answer was lost then goes out twice.

Not said to it: ``Date``. Resend writes its own; nowhere does it say that it takes ours,
and two of them would be wrong. An invitation as an alternative cannot be said, nor a
part that is shown where the text is and has no Content-ID.
"""

import base64
from collections.abc import Mapping
from typing import Any, ClassVar

from drain.request import Response, Service
from drain.setting import Secret
from drain.text import clean
from drain.upstreams import Action, Fate, Shipment, for_all
from drain.upstreams.api import Api, answered
from drain.upstreams.json_api import JsonApi
from drain.upstreams.parts import Parts, Unsayable

URL = "https://api.resend.com"
_SERVICE = Service("Resend", "RELAY_API_URL", "RELAY_API_KEY")
_NOT_SAID = frozenset({"date"})
# What is about the sender or the account's rules, and not about how the mail is written.
_NOT_ALLOWED = frozenset({(403, "validation_error"), (422, "invalid_from_address"), (451, "security_error")})
_QUOTAS = frozenset({"daily_quota_exceeded", "monthly_quota_exceeded"})


class Resend(JsonApi):
    """Sends by Resend's API at *base_url* with *api_key*; an answer may take *seconds*, beside the mail's own time."""

    name: ClassVar[str] = "resend"
    title: ClassVar[str] = "Resend"
    smtp: ClassVar[str] = "smtp.resend.com"
    path: ClassVar[str] = "/emails"
    # Documented for `to`; whether cc and bcc count is not said, so that all together are no more.
    most_recipients: ClassVar[int] = 50
    most_bytes: ClassVar[int] = 40_000_000

    def __init__(self, api_key: Secret, base_url: str = URL, seconds: float = 60.0) -> None:
        super().__init__(base_url, Api(_SERVICE, {"Authorization": f"Bearer {api_key.reveal()}"}, (api_key,), seconds))

    def probe(self) -> str:
        """Asks for the domains, which a key that may only send is refused by its name.

        Raises:
            UpstreamDown, UpstreamRefused: as `Upstream.probe`.
        """
        url = f"{self._base}/domains"
        response = self._api.get(url, also=frozenset({401}))
        found = answered(response) or {}
        if response.status == 401:
            if found.get("name") != "restricted_api_key":
                raise self._api.refused(response, url, "Check RELAY_API_KEY.")
            return "Resend takes the key, which may send and no more."
        domains = found.get("data")
        if not isinstance(domains, list):
            raise self._api.down(response, url, "That is no answer of Resend's: check RELAY_API_URL.")
        verified = [
            str(one.get("name")) for one in domains if isinstance(one, dict) and one.get("status") == "verified"
        ]
        return f"Resend takes the key; verified domains: {clean(', '.join(verified) or 'none', 200)}."

    def _headers(self, shipment: Shipment) -> Mapping[str, str]:
        return {"Idempotency-Key": shipment.key}

    def _said(self, parts: Parts) -> dict[str, Any]:
        return _said(parts)

    def _judged(self, shipment: Shipment, url: str, response: Response) -> Mapping[str, Fate] | None:
        answer = answered(response) or {}
        name = str(answer.get("name"))
        if response.status == 200 and isinstance(reference := answer.get("id"), str) and reference:
            said = self._api.diagnostic(response, f"accepted as {reference}")
            return for_all(shipment, Fate(Action.RELAYED, "2.0.0", said, reference=clean(reference, 100)))
        if response.status == 429 and name in _QUOTAS:
            raise self._api.down(response, url, "The quota of the account is used up; a larger plan has more.")
        if response.status == 409 and name == "invalid_idempotent_request":
            # Sent before with this key, and written otherwise: trying again is of no use, and it may have gone out.
            return for_all(shipment, Fate(Action.FAILED, "5.3.0", self._api.diagnostic(response)))
        if (response.status, name) in _NOT_ALLOWED:
            return for_all(shipment, Fate(Action.FAILED, "5.7.1", self._api.diagnostic(response)))
        return None


def _said(parts: Parts) -> dict[str, Any]:
    if parts.calendar:
        raise Unsayable("one of its alternatives is an invitation (text/calendar)")
    if not parts.subject:
        raise Unsayable("it has no Subject")
    said: dict[str, Any] = {
        "from": str(parts.author),
        "to": [str(one) for one in parts.to],
        "subject": parts.subject,
        # Without it, Resend would make a text of the HTML.
        "text": parts.text,
    }
    if parts.html:
        said["html"] = parts.html
    if parts.cc:
        said["cc"] = [str(one) for one in parts.cc]
    if parts.bcc:
        said["bcc"] = list(parts.bcc)
    if parts.reply_to:
        said["reply_to"] = [str(one) for one in parts.reply_to]
    if headers := {name: value for name, value in parts.headers if name.lower() not in _NOT_SAID}:
        said["headers"] = headers
    if parts.attachments:
        said["attachments"] = [_attached(parts, place) for place in range(len(parts.attachments))]
    return said


def _attached(parts: Parts, place: int) -> dict[str, str]:
    one = parts.attachments[place]
    if one.inline and not one.content_id:
        raise Unsayable(f"{one.name} is to be shown in the text and has no Content-ID")
    said = {
        "filename": one.name,
        "content": base64.b64encode(one.content).decode("ascii"),
        "content_type": one.content_type,
    }
    return {**said, "content_id": one.content_id} if one.content_id else said
