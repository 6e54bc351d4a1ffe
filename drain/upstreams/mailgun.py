"""Mailgun, by HTTP: the mail as it is, to the recipients of the envelope.

From Mailgun's documentation:

- the request, its fields and its answer:
  https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages/post-v3--domain-name--messages-mime.md
- 25 MB, regions, what an address has to be:
  https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages
- statuses: https://documentation.mailgun.com/docs/mailgun/quickstart-guide/responses

No documented field sets the envelope's sender: Mailgun uses one of its own, and
learns of bounces itself. Whether it signs, and whether it counts opens and clicks
(for which it rewrites HTML), is set for the domain there. It knows no idempotency
key: a mail whose answer was lost is sent twice.

It takes a message for all of its recipients or for none. One address that it does not
take would fail the others, so then it is asked for each alone.
"""

import base64
import re
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote

from urllib3.filepost import encode_multipart_formdata

from drain.request import Response, Service, where
from drain.setting import Secret
from drain.upstreams import Action, Fate, Shipment, for_all
from drain.upstreams.api import Api, answered, one_by_one, said

SERVICE = Service("Mailgun", "MAILGUN_BASE_URL and MAILGUN_DOMAIN", "RELAY_API_KEY")
# The documented words for an address that fails the syntax of RFC 5321, 5322 and 6854.
_ADDRESS = re.compile(r"parameter is not a valid address", re.IGNORECASE)
# https://help.mailgun.com/hc/en-us/articles/217531258-Authorized-Recipients: a sandbox domain sends to nobody else.
_AUTHORIZED = re.compile(r"authorized recipients", re.IGNORECASE)


class Mailgun:
    """Sends by *domain* at *base_url* (``https://api.mailgun.net``, or ``https://api.eu.mailgun.net``).

    ``api_key`` may be one that can send only. ``seconds``: as in `Api`.
    """

    name: ClassVar[str] = "mailgun"
    most_recipients: ClassVar[int] = 1000
    most_bytes: ClassVar[int] = 25_000_000 - 64 * 1024  # the form around it, and what drain puts on top

    def __init__(self, base_url: str, domain: str, api_key: Secret, *, seconds: float = 60.0) -> None:
        self._url = f"{base_url.rstrip('/')}/v3/{quote(domain, safe='')}/messages.mime"
        self._domain = domain
        # RFC 7617 2. What is no ASCII is said by `request`, in words, before it is sent.
        login = Secret(base64.b64encode(f"api:{api_key.reveal()}".encode()).decode())
        self._api = Api(SERVICE, {"Authorization": f"Basic {login.reveal()}"}, (api_key, login), seconds)

    def objection(self, shipment: Shipment) -> str:  # noqa: ARG002  # the protocol's
        """None: it takes bytes."""
        return ""

    def send(self, shipment: Shipment) -> Mapping[str, Fate]:
        """Hands it over.

        Raises:
            UpstreamDown, UpstreamRefused: as in `Upstream.send`.
        """
        fields = [("to", recipient) for recipient in shipment.recipients]
        file = ("message", ("message.mime", shipment.raw, "application/octet-stream"))
        body, kind = encode_multipart_formdata([*fields, file])

        def judged(response: Response) -> Mapping[str, Fate] | None:
            if response.status == 200:
                return self._accepted(shipment, response)
            about_address = response.status == 400 and bool(_ADDRESS.search(said(response)))
            if about_address or (response.status in (400, 403) and _AUTHORIZED.search(said(response))):
                if len(shipment.recipients) > 1:
                    return one_by_one(shipment, self.send)
                status = "5.1.3" if about_address else "5.7.1"
                fate = Fate(Action.FAILED, status, self._api.diagnostic(response), bad_address=about_address)
                return for_all(shipment, fate)
            return None

        return self._api.send(shipment, self._url, body, {"Content-Type": kind}, judged)

    def probe(self) -> str:
        """Asks it to send nothing to nobody, which it refuses after it has let us in.

        That shows as much as can be shown: a key that can send only may not look at the domain.

        Raises:
            UpstreamDown, UpstreamRefused: as `send`.
        """
        # "o:testmode": were it taken after all, nothing would be sent.
        body, kind = encode_multipart_formdata([("o:testmode", "yes")])
        self._api.offer(self._url, body, {"Content-Type": kind})
        return f"Mailgun at {where(self._url)} takes the key."

    def rest(self) -> None:
        """Nothing is kept open."""

    def stop(self) -> None:
        """What is in flight is broken off."""
        self._api.stop()

    def _accepted(self, shipment: Shipment, response: Response) -> Mapping[str, Fate] | None:
        answer = answered(response) or {}
        reference, words = answer.get("id"), answer.get("message")
        if not (isinstance(reference, str) and reference and isinstance(words, str)):
            return None
        return for_all(shipment, Fate(Action.RELAYED, "2.0.0", self._api.diagnostic(response), reference=reference))
