"""What providers that are spoken to by HTTP have in common: one request, and what its answer means.

A provider has an `Api`, and looks at an answer first. What it has nothing to say of is judged here:

===========================  ===========================================================
no answer, nothing sent      `UpstreamDown`
no answer, perhaps sent      delayed, 4.4.2: the mail may be on its way
401 402 403                  `UpstreamRefused`: key or account
404 405 406 410 415          `UpstreamRefused`: not the address of this API; all mail alike
407 421 425 426 429 503      `UpstreamDown`, with what ``Retry-After`` says
408 409, any other 5xx       delayed: a mail that fells the service must not hold up the rest
413                          failed, 5.3.4: too large
any other 4xx                failed, 5.6.0
2xx, and not understood      delayed, 4.5.0: not known to be the provider's word
===========================  ===========================================================

The statuses are those of RFC 9110 15 and RFC 6585 4.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from drain import request
from drain.answer import json_object
from drain.request import Breaker, NoResponse, Response, Service, where, without
from drain.setting import Secret
from drain.text import clean
from drain.upstreams import Action, Fate, Shipment, UpstreamDown, UpstreamRefused, for_all

# The slowest link that a mail is sent over, bytes a second.
_SLOWEST = 16 * 1024
_LONGEST_WAIT = 3600.0
_SHOWN = 300
_REFUSED = frozenset({401, 402, 403, 404, 405, 406, 410, 415})
_DOWN = frozenset({407, 421, 425, 426, 429, 503})
_IN_THE_WAY = frozenset({408, 409})
# Above this, a reset is a moment and no length of time: SendGrid says seconds since 1970.
_MOMENT = 10**9


class Api:
    """One provider's API. Calls may come from several threads.

    Args:
        service: for the words of errors; ``name`` is that of the provider ("Mailgun").
        login: the headers that log in.
        secrets: all that is secret in them, in each form in which it is there.
        seconds: how long an answer may take, beside the time that the mail itself takes.
        breaker: what `stop` cuts, where it is shared with others.
    """

    def __init__(
        self,
        service: Service,
        login: Mapping[str, str],
        secrets: tuple[Secret, ...],
        seconds: float = 60.0,
        breaker: Breaker | None = None,
    ) -> None:
        self._service, self._login, self._secrets, self._seconds = service, login, secrets, seconds
        self._breaker = breaker or Breaker()

    def send(
        self,
        shipment: Shipment,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        judged: Callable[[Response], Mapping[str, Fate] | None],
    ) -> Mapping[str, Fate]:
        """Posts *body*; the fate of each recipient.

        Args:
            shipment: whose recipients they are.
            url: where.
            body: as it goes out.
            headers: beside the login; ``Content-Type`` is one.
            judged: what the provider makes of an answer, of any status; None if it is to be judged as above. It
                may raise what this raises.

        Raises:
            UpstreamDown, UpstreamRefused: as in `Upstream.send`.
        """
        try:
            response = self._post(url, body, headers)
        except NoResponse as error:
            if not error.asked:
                raise UpstreamDown(error.message, error.hint) from None
            words = clean(f"http; no answer: {error.message}", _SHOWN)
            return for_all(shipment, Fate(Action.DELAYED, "4.4.2", words, unknown=True))
        fates = judged(response)
        return for_all(shipment, self.fate(response, url)) if fates is None else fates

    def get(self, url: str, also: frozenset[int] = frozenset()) -> Response:
        """An answer of 2xx, or of a status in *also*, to a question that sends nothing: for `Upstream.probe`.

        Raises:
            UpstreamDown, UpstreamRefused: there is none.
        """
        try:
            response = request.get(
                url,
                headers={"Accept": "application/json", **self._login},
                secrets=self._secrets,
                seconds=self._seconds,
                service=self._service,
                breaker=self._breaker,
            )
        except NoResponse as error:
            raise UpstreamDown(error.message, error.hint) from None
        return self._expected(response, url, response.status < 300 or response.status in also)

    def offer(self, url: str, body: bytes, headers: Mapping[str, str]) -> Response:
        """The 400 that a request gets which lacks what it needs: for `Upstream.probe`, where there is nothing to get.

        Raises:
            UpstreamDown, UpstreamRefused: it gets another answer, or none.
        """
        try:
            response = self._post(url, body, headers)
        except NoResponse as error:
            raise UpstreamDown(error.message, error.hint) from None
        return self._expected(response, url, response.status == 400)

    def fate(self, response: Response, url: str) -> Fate:
        """What an answer means where the provider has nothing of its own to say of it (the table above).

        Raises:
            UpstreamDown, UpstreamRefused: it concerns all mail.
        """
        status = response.status
        if status in _REFUSED:
            setting = self._service.token_setting if status in (401, 402, 403) else self._service.url_setting
            raise UpstreamRefused(self._said(response, url), f"Check {setting}, and the account.")
        if status in _DOWN:
            hint = "Check HTTPS_PROXY and HTTP_PROXY in the environment." if status == 407 else ""
            raise UpstreamDown(self._said(response, url), hint, retry_after=retry_after(response))
        if status < 300:
            words = self.diagnostic(response, "an answer that is not understood")
            return Fate(Action.DELAYED, "4.5.0", words, unknown=True)
        if status >= 500 or status in _IN_THE_WAY:
            # A gateway's 502 and 504 say nothing of what is behind it (RFC 9110 15.6).
            return Fate(Action.DELAYED, "4.3.0", self.diagnostic(response), unknown=status in (502, 504))
        return Fate(Action.FAILED, "5.3.4" if status == 413 else "5.6.0", self.diagnostic(response))

    def refused(self, response: Response, url: str, hint: str) -> UpstreamRefused:
        """What to raise where an answer, by the provider's own words, is about the account; *hint* is for the person."""
        return UpstreamRefused(self._said(response, url), hint)

    def down(self, response: Response, url: str, hint: str = "") -> UpstreamDown:
        """The same where it is to be waited for."""
        return UpstreamDown(self._said(response, url), hint, retry_after=retry_after(response))

    def diagnostic(self, response: Response, words: str = "") -> str:
        """``http; 422 ...``, for `Fate.diagnostic`: with *words*, or with those of the answer."""
        shown = without(self._secrets, words or said(response))
        return clean(f"http; {response.status} {shown}".strip(), _SHOWN)

    def stop(self) -> None:
        """What is in flight is broken off, and nothing is asked any more."""
        self._breaker.cut()

    def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Response:
        return request.post(
            url,
            body,
            headers={"Accept": "application/json", **headers, **self._login},
            secrets=self._secrets,
            seconds=self._seconds + len(body) / _SLOWEST,
            service=self._service,
            breaker=self._breaker,
        )

    def _expected(self, response: Response, url: str, expected: bool) -> Response:  # noqa: FBT001
        if not expected:
            self.fate(response, url)  # says the usual refusals
            raise UpstreamDown(self._said(response, url))
        return response

    def _said(self, response: Response, url: str) -> str:
        words = clean(without(self._secrets, said(response)), _SHOWN).strip().rstrip(".")
        return f"{self._service.name} at {where(url)} answered with {response.status}{': ' if words else ''}{words}."


def one_by_one(shipment: Shipment, send: Callable[[Shipment], Mapping[str, Fate]]) -> dict[str, Fate]:
    """Sends to each recipient alone, after a refusal of the whole for one of them.

    Raises:
        UpstreamDown, UpstreamRefused: at the first of them; at a later one, those that are left are delayed.
    """
    fates: dict[str, Fate] = {}
    for recipient in shipment.recipients:
        try:
            fates.update(send(dataclasses.replace(shipment, recipients=(recipient,))))
        except (UpstreamDown, UpstreamRefused) as error:
            if not fates:
                raise
            left = Fate(Action.DELAYED, "4.4.1", clean(f"http; {error}", _SHOWN))
            return {**dict.fromkeys(shipment.recipients, left), **fates}
    return fates


def answered(response: Response) -> dict[str, object] | None:
    """The JSON object that an answer is, None if it is none."""
    try:
        return json_object(response.body)
    except ValueError:
        return None


def said(response: Response) -> str:
    """The words of an answer: what JSON calls message or error, all of them, else its text; not cleaned."""
    found = list(_messages(answered(response) or {}))
    return "; ".join(found) if found else response.body[: 4 * _SHOWN].decode("utf-8", "replace").strip()


def _messages(value: object) -> list[str]:
    if isinstance(value, list):
        return [words for one in value for words in _messages(one)]
    if not isinstance(value, dict):
        return []
    found = []
    for name, inner in value.items():
        if name.lower() in ("message", "error", "detail") and isinstance(inner, str) and inner:
            found.append(inner)
        elif name.lower() in ("error", "errors"):
            found += _messages(inner)
    return found


def retry_after(
    response: Response, names: tuple[str, ...] = ("retry-after", "ratelimit-reset", "x-ratelimit-reset")
) -> float | None:
    """Seconds that the service asks us to wait, at most an hour; None if it does not say.

    ``Retry-After`` is seconds or a date (RFC 9110 10.2.3). ``RateLimit-Reset`` is seconds
    (draft-ietf-httpapi-ratelimit-headers), ``X-RateLimit-Reset`` seconds or seconds since 1970.
    """
    for name in names:
        value = response.headers.get(name, "").strip()
        seconds: float | None = None
        if value.isascii() and value.isdigit() and len(value) <= 12:
            seconds = float(value) - (time.time() if int(value) > _MOMENT else 0)
        elif value:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if seconds is not None:
            return min(max(seconds, 0.0), _LONGEST_WAIT)
    return None
