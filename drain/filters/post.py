"""One POST of JSON to a service that judges mail: `drain.request`, and what its failures are to a filter."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from drain import request
from drain.filters.verdict import FilterFailed
from drain.request import NoResponse, Response, Service, where, without
from drain.setting import Secret
from drain.text import clean

# What is shown of an answer that is an error.
_SHOWN = 300
# Statuses below 500 that are about the service or how it is set up, and come to every mail alike
# (RFC 9110 15.5; RFC 6585 4). 400, 413 and 422 may be about this mail.
_SERVICE = frozenset({401, 402, 403, 404, 405, 406, 407, 408, 410, 415, 421, 426, 429})

__all__ = ["BadStatus", "Service", "encoded", "post", "where"]


class BadStatus(FilterFailed):
    """It answered, and not with 200.

    Attributes:
        status: the HTTP status.
        words: the beginning of the answer's text, cleaned; "" if there was none.
    """

    def __init__(self, message: str, hint: str, *, down: bool, status: int, words: str) -> None:
        super().__init__(message, hint, down=down)
        self.status = status
        self.words = words


def encoded(body: Mapping[str, Any]) -> bytes:
    """*body* as JSON in UTF-8; half a character (a lone surrogate) as JSON's own escape for it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def post(url: str, token: Secret, body: bytes, seconds: float, service: Service, limit: int = 64 * 1024) -> bytes:
    """Posts *body*, which is JSON, and gives the body of the answer, at most *limit* bytes.

    Args:
        url: where, ``http`` or ``https``.
        token: sent as ``Authorization: Bearer`` if it is set (RFC 6750 2.1).
        body: JSON.
        seconds: for everything together.
        service: for the words of errors.
        limit: bytes.

    Raises:
        BadStatus: the answer is not 200.
        FilterFailed: there is no answer that can be used (`request.NoResponse`).
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token.reveal()}"
    try:
        response = request.post(
            url,
            body,
            headers=headers,
            secrets=(token,),
            seconds=seconds,
            service=dataclasses.replace(service, time_setting="FILTER_TIMEOUT"),
            limit=limit,
        )
    except NoResponse as error:
        raise FilterFailed(error.message, error.hint, down=error.down, asked=error.asked) from None
    if response.status != 200:
        raise _bad_status(response, url, token, service)
    return response.body


def _bad_status(response: Response, url: str, token: Secret, service: Service) -> BadStatus:
    status = response.status
    words = clean(without((token,), response.body.decode("utf-8", "replace")), _SHOWN).strip()
    hint = ""
    if status in (401, 403):
        hint = f"Check {service.token_setting}."
    elif status in (404, 405):
        hint = f"Check {service.url_setting}."
    elif status == 407:
        hint = "Check HTTPS_PROXY and HTTP_PROXY in the environment."
    elif status == 429:
        hint = "It is asked too often, or the account has no credit left."
    name = f"{service.name[:1].upper()}{service.name[1:]}"
    message = f"{name} at {where(url)} answered with {status}" + (f": {words}" if words else "") + "."
    return BadStatus(message, hint, down=status >= 500 or status in _SERVICE, status=status, words=words)
