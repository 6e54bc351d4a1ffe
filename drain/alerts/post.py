"""One request to a service that takes alerts: `drain.request`, with an address that is itself a secret.

Who knows the topic at ntfy, the address of a webhook or that of a ping can use it.
So no more than host and port of it is ever shown, also of what a service answers.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote, urlsplit

from drain import request
from drain.alerts.alert import NotSent
from drain.request import Breaker, NoResponse, Response, Service, where, without
from drain.setting import Secret
from drain.text import clean

_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_SHOWN = 300
# Shorter parts of an address keep nothing secret, and are found in any sentence.
_SHORTEST_SECRET = 4


def ask(
    url: Secret,
    token: Secret,
    body: bytes | None,
    headers: Mapping[str, str],
    service: Service,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Posts *body*, or asks with GET where it is None, and wants an answer of 2xx within 10 s.

    Args:
        url: where.
        token: sent as ``Authorization: Bearer`` if it is set (RFC 6750 2.1).
        body: as it goes out.
        headers: beside the token; ASCII.
        service: for the words of errors.
        stopped: as of `Outlet.send`.

    Raises:
        NotSent: there is no such answer.
    """
    try:
        place = where(url.reveal())
    except ValueError:  # a port that is none, half a bracket
        place = ""
    if not place:
        raise NotSent(f"The address of {service.name} is none that can be asked. Check {service.url_setting}.")
    host = place.partition("/")[0]
    bearer = {"Authorization": f"Bearer {token.reveal()}"} if token else {}
    try:
        with _broken_off_when(stopped) as breaker:
            response = _asked(url.reveal(), token, body, {**headers, **bearer}, service, breaker)
    except NoResponse as error:
        if stopped():  # its words depend on which thread was first
            words = f"{_named(service, host)} was not waited for: drain ends."
        else:
            before, _, after = error.message.partition(place)
            told = before + host + _hidden(after, url, token) if after else before
            words = f"{told} {error.hint}".rstrip()
    else:
        if 200 <= response.status < 300:
            return
        words = _refusal(response.status, _hidden(response.body.decode("utf-8", "replace"), url, token), host, service)
    # Not inside "except": that one's words have the whole address.
    raise NotSent(words)


def _asked(
    url: str, token: Secret, body: bytes | None, headers: Mapping[str, str], service: Service, breaker: Breaker
) -> Response:
    if body is None:
        return request.get(url, headers=headers, secrets=(token,), seconds=_SECONDS, service=service, breaker=breaker)
    return request.post(
        url, body, headers=headers, secrets=(token,), seconds=_SECONDS, service=service, breaker=breaker
    )


@contextlib.contextmanager
def _broken_off_when(stopped: Callable[[], bool]) -> Iterator[Breaker]:
    """What breaks a request off as soon as *stopped* says so."""
    breaker, over = Breaker(), threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_SECONDS):
            if stopped():
                breaker.cut()
                return

    threading.Thread(target=watch, daemon=True, name="drain-alert-watch").start()
    try:
        yield breaker
    finally:
        over.set()


def _refusal(status: int, said: str, host: str, service: Service) -> str:
    hint = ""
    if status in (401, 403):
        hint = f" Check {' and '.join(dict.fromkeys((service.url_setting, service.token_setting)))}."
    elif status in (400, 404, 405, 410):
        hint = f" Check {service.url_setting}."
    elif status == 429:
        hint = " It is asked too often."
    shown = clean(said, _SHOWN).strip()
    return f"{_named(service, host)} answered with {status}" + (f": {shown}" if shown else "") + f".{hint}"


def _named(service: Service, host: str) -> str:
    return f"{service.name[:1].upper()}{service.name[1:]} at {host}"


def _hidden(words: str, url: Secret, token: Secret) -> str:
    """*words* with ``***`` for the token, and for what the address has behind its host."""
    parts = urlsplit(url.reveal())
    values = [value for pair in parts.query.split("&") for value in (pair, pair.partition("=")[2])]
    secrets = {parts.path, parts.query, *parts.path.split("/"), *values}
    secrets |= {unquote(secret) for secret in secrets}
    found = sorted((one for one in secrets if len(one) >= _SHORTEST_SECRET), key=len, reverse=True)
    return without((token, *map(Secret, found)), words)
