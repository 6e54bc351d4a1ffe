"""Amazon SES, by its API v2: the mail as it is (``Raw``), to the recipients of the envelope.

botocore finds the credentials and signs (SigV4); the request itself is drain's own,
so that it has one deadline and can be broken off.

From Amazon's documentation:

- the request and its errors: https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html
- errors of all services: https://docs.aws.amazon.com/ses/latest/APIReference-V2/CommonErrors.html
- 50 recipients, 40 MB after base64: https://docs.aws.amazon.com/ses/latest/dg/quotas.html
- header fields: https://docs.aws.amazon.com/ses/latest/dg/header-fields.html
- no SMTPUTF8: https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_Destination.html

``Destination`` has all recipients of the envelope, so those who are in no header field
get it too. SES writes Date and Message-ID itself, which breaks a DKIM signature over
them: where SES sends, SES signs. It refuses a message that has one of many fields
twice. It knows no idempotency key.

The envelope's sender is where SES sends bounces to (``FeedbackForwardingEmailAddress``);
in the envelope that the world sees, SES has one of its own, or of the MAIL FROM domain.
``FromEmailAddress`` is left out: with it SES writes the From field anew, and the name in
it is lost (https://github.com/laravel/framework/pull/37881,
https://github.com/aws/aws-sdk-rails/issues/97).

It takes a message for all of its recipients or for none, and while the account is in
the sandbox refuses all for one whose address is not verified. So then it is asked for
each alone.
"""

import base64
import json
import re
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from drain.request import Breaker, Response, Service, where
from drain.setting import Secret
from drain.text import clean
from drain.upstreams import Action, Fate, Shipment, UpstreamDown, UpstreamRefused, for_all
from drain.upstreams.api import Api, answered, one_by_one, said

if TYPE_CHECKING:
    from botocore.credentials import Credentials, ReadOnlyCredentials

SERVICE = Service("Amazon SES", "SES_REGION", "SES_ACCESS_KEY_ID and RELAY_API_KEY")
_WAIT = frozenset({"TooManyRequestsException", "LimitExceededException", "ThrottlingException", "Throttling"})
_ACCOUNT = frozenset({"AccountSuspendedException", "SendingPausedException"})
# Some services say these with 400, some with 403.
_LOGIN = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_CLOCK = re.compile(r"signature (expired|not yet current)|RequestExpired", re.IGNORECASE)
# Which words it has for an address that it does not take is not documented.
_ADDRESS = re.compile(r"address|domain|recipient|destination", re.IGNORECASE)
_NOT_VERIFIED = re.compile(r"not verified", re.IGNORECASE)
_NO_UTF8 = "Amazon SES takes no address with other than ASCII characters (no SMTPUTF8); write its domain as xn--...."


class Ses:
    """Sends in *region* with an access key; without one, with what botocore finds (environment, files, instance).

    ``endpoint_url`` is for another address than Amazon's own. ``seconds``: as in `Api`.
    """

    name: ClassVar[str] = "ses"
    most_recipients: ClassVar[int] = 50
    most_bytes: ClassVar[int] = 40_000_000 // 4 * 3 - 64 * 1024  # what drain puts on top

    def __init__(
        self, region: str, access_key_id: str, secret: Secret, endpoint_url: str = "", *, seconds: float = 60.0
    ) -> None:
        self._region, self._key_id, self._secret, self._seconds = region, access_key_id, secret, seconds
        # https://docs.aws.amazon.com/general/latest/gr/ses.html; China has a domain of its own.
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        self._base = (endpoint_url or f"https://email.{region}.{suffix}").rstrip("/")
        self._breaker = Breaker()
        self._lock = Lock()
        self._found: Credentials | None = None

    def objection(self, shipment: Shipment) -> str:
        """That it has an address that is not ASCII."""
        return "" if all(one.isascii() for one in (shipment.sender, *shipment.recipients)) else _NO_UTF8

    def send(self, shipment: Shipment) -> Mapping[str, Fate]:
        """Hands it over. What there is an objection to, fails with that.

        Raises:
            UpstreamDown, UpstreamRefused: as in `Upstream.send`.
        """
        if objection := self.objection(shipment):
            return for_all(shipment, Fate(Action.FAILED, "5.6.7", f"x-drain; {objection}"))
        url = f"{self._base}/v2/email/outbound-emails"
        body = {
            **({"FeedbackForwardingEmailAddress": shipment.sender} if shipment.sender else {}),
            "Destination": {"ToAddresses": list(shipment.recipients)},
            "Content": {"Raw": {"Data": base64.b64encode(shipment.raw).decode()}},
        }
        encoded = json.dumps(body).encode()
        api = self._signed("POST", url, encoded)

        def judged(response: Response) -> Mapping[str, Fate] | None:
            if response.status == 200:
                return _accepted(shipment, response, api)
            return self._refusal(shipment, response, api, url)

        return api.send(shipment, url, encoded, {"Content-Type": "application/json"}, judged)

    def probe(self) -> str:
        """Asks for the account: https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_GetAccount.html.

        Raises:
            UpstreamDown, UpstreamRefused: as `send`; also if it says that it does not send.
        """
        url = f"{self._base}/v2/email/account"
        api = self._signed("GET", url, b"")
        response = api.get(url, also=frozenset({400, 403}))
        at = f"Amazon SES at {where(self._base)}"
        if response.status >= 300:
            if _name(response) != "AccessDeniedException":
                self._refuse(response, api, url)
                raise api.down(response, url)
            return f"{at} takes the key, which may not look at the account (ses:GetAccount); no more is known."
        account = answered(response) or {}
        if account.get("SendingEnabled") is False:
            raise UpstreamRefused(f"{at} takes the key, but the account may not send.", "See the SES console.")
        sandbox = account.get("ProductionAccessEnabled") is False
        return f"{at} takes the key" + (
            "; the account is in the sandbox: it sends to verified addresses only." if sandbox else "."
        )

    def rest(self) -> None:
        """Nothing is kept open."""

    def stop(self) -> None:
        """What is in flight is broken off."""
        self._breaker.cut()

    def _refusal(self, shipment: Shipment, response: Response, api: Api, url: str) -> Mapping[str, Fate] | None:
        if response.status >= 500:
            return None
        name, words = _name(response), said(response)
        if name == "MailFromDomainNotVerifiedException":
            return for_all(shipment, Fate(Action.FAILED, "5.7.1", api.diagnostic(response, f"{name}: {words}")))
        if name not in {"MessageRejected", "BadRequestException"}:
            self._refuse(response, api, url)
            return None
        status = "5.7.1" if _NOT_VERIFIED.search(words) else "5.1.0" if _ADDRESS.search(words) else "5.6.0"
        if status != "5.6.0" and len(shipment.recipients) > 1:
            return one_by_one(shipment, self.send)
        return for_all(shipment, Fate(Action.FAILED, status, api.diagnostic(response, f"{name}: {words}")))

    def _refuse(self, response: Response, api: Api, url: str) -> None:
        """Raises what concerns all mail, by the name of the error."""
        name = _name(response)
        if name == "RequestExpired" or _CLOCK.search(said(response)):
            hint = "Set the clock (timedatectl set-ntp true; on Android, automatic time)."
            raise api.down(response, url, hint)
        if name in _WAIT:
            raise api.down(response, url)
        if name in _ACCOUNT:
            raise api.refused(response, url, f"{name}: see the SES console.")
        if name in _LOGIN or response.status in (401, 403):
            raise api.refused(response, url, f"{name}: check SES_ACCESS_KEY_ID, RELAY_API_KEY and what the key may do.")

    def _signed(self, method: str, url: str, body: bytes) -> Api:
        """The API for one request, with the signature for it."""
        from botocore.auth import SigV4Auth  # noqa: PLC0415  # a tenth of a second
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        credentials = self._credentials()
        headers = {"Content-Type": "application/json"} if body else {}
        signed = AWSRequest(method=method, url=url, data=body, headers={**headers, "Host": urlsplit(url).netloc})
        SigV4Auth(credentials, "ses", self._region).add_auth(signed)
        login = {
            name: signed.headers[name]
            for name in ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
            if name in signed.headers
        }
        secrets = tuple(Secret(one) for one in (credentials.secret_key, credentials.token) if one)
        return Api(SERVICE, login, secrets, self._seconds, self._breaker)

    def _credentials(self) -> "ReadOnlyCredentials":
        from botocore.credentials import Credentials  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
        from botocore.session import get_session  # noqa: PLC0415

        if self._key_id:
            return Credentials(self._key_id, self._secret.reveal()).get_frozen_credentials()
        try:
            with self._lock:
                if self._found is None:
                    self._found = get_session().get_credentials()
                found = self._found.get_frozen_credentials() if self._found else None
        except BotoCoreError as error:
            message = f"Credentials for Amazon SES cannot be had: {clean(str(error), 200)}"
            raise UpstreamDown(message, "SES_ACCESS_KEY_ID and RELAY_API_KEY need no other.") from error
        if found is None:
            message = "There are no credentials for Amazon SES."
            raise UpstreamRefused(message, "Set SES_ACCESS_KEY_ID and RELAY_API_KEY.")
        return found


def _accepted(shipment: Shipment, response: Response, api: Api) -> Mapping[str, Fate] | None:
    reference = (answered(response) or {}).get("MessageId")
    if not (isinstance(reference, str) and reference):
        return None
    return for_all(shipment, Fate(Action.RELAYED, "2.0.0", api.diagnostic(response, "accepted"), reference=reference))


def _name(response: Response) -> str:
    """The error's name, as botocore reads it too: ``MessageRejected`` of ``MessageRejected:http://...``."""
    told = response.headers.get("x-amzn-errortype") or (answered(response) or {}).get("__type") or ""
    return str(told).partition(":")[0].rpartition("#")[2].strip()
