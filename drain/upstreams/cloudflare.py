"""Cloudflare's Email Service, by its REST API: the mail as it is, to the recipients of the envelope.

From Cloudflare's documentation:

- the request: https://developers.cloudflare.com/api/resources/email_sending/methods/send_raw
- its answer, statuses and codes: https://developers.cloudflare.com/email-service/api/send-emails/rest-api/
- 50 recipients, 5 MiB: https://developers.cloudflare.com/email-service/platform/limits/
- who is suppressed there: https://developers.cloudflare.com/email-service/concepts/suppressions/
- which header fields it takes: https://developers.cloudflare.com/email-service/reference/headers/

The message travels as JSON text, so it must be UTF-8; what is UTF-8 arrives byte for
byte. Nothing is encoded anew here: that would break a signature, and Cloudflare's
SMTP smarthost takes such a mail as it is.

Cloudflare writes Date, Message-ID, Return-Path and its own DKIM signature. Its list
of allowed fields is documented for fields that are given apart from a message, and
said to hold for a whole message too; whether another field is then refused or lost is
not said. So nothing is objected to for its fields: what is refused comes back with
Cloudflare's words. It knows no idempotency key.

One recipient whom it suppresses makes it refuse all, so then it is asked for each alone.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from drain.request import Response, Service, where
from drain.setting import Secret
from drain.upstreams import Action, Fate, Shipment, for_all
from drain.upstreams.api import Api, answered, one_by_one, said

SERVICE = Service("Cloudflare", "R2_ACCOUNT_ID and RELAY_API_URL", "RELAY_API_KEY")
BASE_URL = "https://api.cloudflare.com"
_TOO_BIG, _NO_LENGTH, _INVALID, _DISABLED = 10200, 10201, 10202, 10203
_ABOUT_CONTENT = frozenset({_TOO_BIG, _NO_LENGTH, _INVALID})
_NOT_UTF8 = (
    "Cloudflare's API takes a mail as UTF-8 text, and this one has bytes that are none. "
    "Let the mail program encode it (quoted-printable or base64), or use Cloudflare's SMTP smarthost."
)
_NO_SENDER = "Cloudflare's API takes no mail with an empty sender; RELAY_FROM_FALLBACK can give it one."


class Cloudflare:
    """Sends from the domains of *account_id*; *api_token* has the permission Email Sending: Edit."""

    name: ClassVar[str] = "cloudflare"
    most_recipients: ClassVar[int] = 50
    most_bytes: ClassVar[int] = 5 * 1024 * 1024 - 16 * 1024  # what drain puts on top

    def __init__(self, account_id: str, api_token: Secret, base_url: str = "", *, seconds: float = 60.0) -> None:
        base = (base_url or BASE_URL).rstrip("/")
        self._url = f"{base}/client/v4/accounts/{quote(account_id, safe='')}/email/sending/send_raw"
        self._api = Api(SERVICE, {"Authorization": f"Bearer {api_token.reveal()}"}, (api_token,), seconds)

    def objection(self, shipment: Shipment) -> str:
        """That it is not UTF-8, or has an empty sender."""
        if not shipment.sender:
            return _NO_SENDER
        try:
            shipment.raw.decode("utf-8")
        except UnicodeDecodeError:
            return _NOT_UTF8
        return ""

    def send(self, shipment: Shipment) -> Mapping[str, Fate]:
        """Hands it over. What there is an objection to, fails with that.

        Raises:
            UpstreamDown, UpstreamRefused: as in `Upstream.send`.
        """
        if objection := self.objection(shipment):
            return for_all(shipment, Fate(Action.FAILED, "5.6.0", f"x-drain; {objection}"))
        body = {
            "from": shipment.sender,
            "recipients": list(shipment.recipients),
            "mime_message": shipment.raw.decode("utf-8"),
        }

        def judged(response: Response) -> Mapping[str, Fate] | None:
            if response.status == 200:
                return self._accepted(shipment, response)
            code = _code(response)
            if response.status == 403 and code == _DISABLED:
                hint = "Is the sender's domain set up for Email Sending at Cloudflare, and the account in order?"
                raise self._api.refused(response, self._url, hint)
            if response.status != 400:
                return None
            if code not in _ABOUT_CONTENT and len(shipment.recipients) > 1:
                return one_by_one(shipment, self.send)
            status = "5.3.4" if code == _TOO_BIG else "5.7.1" if "suppress" in said(response) else "5.6.0"
            return for_all(shipment, Fate(Action.FAILED, status, self._api.diagnostic(response)))

        encoded = json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")
        return self._api.send(shipment, self._url, encoded, {"Content-Type": "application/json"}, judged)

    def probe(self) -> str:
        """Asks it to send nothing to nobody, which it refuses after it has let us in: no request is documented that \
shows whether a token may send.

        Raises:
            UpstreamDown, UpstreamRefused: as `send`.
        """
        self._api.offer(self._url, b"{}", {"Content-Type": "application/json"})
        return f"Cloudflare at {where(self._url)} takes the token."

    def rest(self) -> None:
        """Nothing is kept open."""

    def stop(self) -> None:
        """What is in flight is broken off."""
        self._api.stop()

    def _accepted(self, shipment: Shipment, response: Response) -> Mapping[str, Fate] | None:
        answer = answered(response) or {}
        result = answer.get("result")
        if answer.get("success") is not True or not isinstance(result, dict):
            return None
        message_id = result.get("message_id")
        reference = message_id if isinstance(message_id, str) else ""
        found: dict[str, Fate] = {}
        # The worst is believed where it says two things of one. Why it bounced is not said, so it may not be the address.
        for name, action, status in (
            ("queued", Action.RELAYED, "2.0.0"),
            ("delivered", Action.RELAYED, "2.0.0"),
            ("permanent_bounces", Action.FAILED, "5.0.0"),
        ):
            words = self._api.diagnostic(response, name.replace("_", " ").removesuffix("s"))
            fate = Fate(action, status, words, reference=reference)
            found.update((address.lower(), fate) for address in _addresses(result.get(name)))
        words = self._api.diagnostic(response, "it does not say what became of it")
        unsaid = Fate(Action.DELAYED, "4.5.0", words, unknown=True)
        return {recipient: found.get(recipient.lower(), unsaid) for recipient in shipment.recipients}


def _addresses(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _code(response: Response) -> int:
    """The first of Cloudflare's error codes; 0 for none."""
    errors = (answered(response) or {}).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    code = first.get("code") if isinstance(first, dict) else None
    return code if isinstance(code, int) else 0
