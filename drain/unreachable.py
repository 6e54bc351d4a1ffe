"""Why there was no answer by HTTP: requests' chain of exceptions as one sentence, and what can be done."""

import http.client
import socket
import ssl
from collections.abc import Iterator

import requests
import urllib3

from drain.text import clean


def in_words(
    error: BaseException, what: str, url_setting: str, seconds: float, time_setting: str = ""
) -> tuple[str, str]:
    """A sentence and a hint.

    The texts of requests and urllib3 are not shown: they hold the whole address,
    and there may be a secret in its query.

    Args:
        error: as requests, urllib3 or http.client raised it.
        what: what was asked and where: "The AI at 127.0.0.1:8080/v1".
        url_setting: the setting that has its address.
        seconds: how long it was waited for.
        time_setting: the setting that gives it more time, "" for none.
    """
    chain = list(_chain(error))
    if any(isinstance(one, urllib3.exceptions.ProxyError | requests.exceptions.ProxyError) for one in chain):
        return (
            f"{what} cannot be reached through the proxy: {_cause(chain)}.",
            "Check HTTPS_PROXY and HTTP_PROXY in the environment, or name its host in NO_PROXY.",
        )
    for one in reversed(chain):
        if isinstance(one, ssl.SSLCertVerificationError):
            return (
                f"{what} has a certificate that is not believed: {clean(one.verify_message, 200)}.",
                "If its CA is your own, put that CA's file into REQUESTS_CA_BUNDLE, in the environment.",
            )
        if isinstance(one, ssl.SSLError):
            return f"{what} cannot speak TLS with us: {_cause(chain)}.", f"Is {url_setting} right with https?"
        if isinstance(one, socket.gaierror):
            return (
                f"{what} cannot be reached: its name is not found ({clean(one.strerror or str(one), 200)}).",
                f"If this machine is online, check {url_setting}.",
            )
        if isinstance(one, ConnectionRefusedError):
            return f"{what} refuses connections.", f"Is it running, and is {url_setting} right?"
        if isinstance(one, TimeoutError):
            return late(what, url_setting, seconds, time_setting)
    return f"{what} cannot be asked: {_cause(chain)}.", f"Check {url_setting}."


def late(what: str, url_setting: str, seconds: float, time_setting: str = "") -> tuple[str, str]:
    """The same for no answer in time."""
    hint = f"If this machine is online, check {url_setting}."
    if time_setting:
        hint = f"If it is only slow, {time_setting} gives it more; if it is not there, check {url_setting}."
    return f"{what} did not answer within {seconds:g} s.", hint


def _chain(error: BaseException) -> Iterator[BaseException]:
    """*error*, and what it came from, down to the first cause."""
    one: BaseException | None = error
    for _ in range(20):
        if one is None:
            return
        yield one
        one = one.__cause__ or one.__context__


def _cause(chain: list[BaseException]) -> str:
    """The first cause that has words of its own, which are the operating system's, OpenSSL's or http.client's."""
    for one in reversed(chain):
        if isinstance(one, http.client.RemoteDisconnected):  # a ConnectionResetError too
            return "it closed the connection without an answer"
        if isinstance(one, http.client.HTTPException):
            return "its answer is not HTTP, or broke off"
        if isinstance(one, ssl.SSLError):
            return clean((one.reason or one.strerror or "TLS failed").replace("_", " ").lower(), 200)
        if isinstance(one, requests.exceptions.InvalidSchema):
            return "requests has nothing for this kind of proxy (SOCKS needs PySocks)"
        if isinstance(one, requests.RequestException | urllib3.exceptions.HTTPError):
            continue
        if isinstance(one, OSError):
            return clean(one.strerror or str(one), 200)
    if any(isinstance(one, urllib3.exceptions.ProtocolError) for one in chain):
        return "its answer broke off"
    return type(chain[-1]).__name__
