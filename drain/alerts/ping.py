"""Healthchecks (healthchecks.io, or one of one's own): an address that is pinged after passes.

It tells the person when the pings stay away, so it speaks also where drain cannot.
"""

from drain.alerts.message import MOST_CHARACTERS
from drain.alerts.post import ask
from drain.request import Service
from drain.setting import Secret
from drain.text import clean

SERVICE = Service("the health check", "HEALTHCHECK_URL", "HEALTHCHECK_URL")


class Ping:
    """Pings *url*; each call takes about 10 s at most."""

    def __init__(self, url: Secret) -> None:
        self._url = url

    def success(self) -> None:
        """A pass came to its end.

        Raises:
            NotSent: nobody took it.
        """
        # GET, since other services of this kind know nothing else.
        ask(self._url, Secret(""), None, {}, SERVICE)

    def failure(self, words: str) -> None:
        """One did not, at ``<url>/fail``; *words* say why.

        Raises:
            NotSent: nobody took it.
        """
        body = clean(words, MOST_CHARACTERS).encode()
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        ask(_failing(self._url), Secret(""), body, headers, SERVICE)


def _failing(url: Secret) -> Secret:
    """With ``/fail`` behind the path: a slug may have ``?create=1`` behind it."""
    address, mark, query = url.reveal().partition("?")
    return Secret(f"{address.rstrip('/')}/fail{mark}{query}")
