"""Alerts as JSON to an address of the person's choice.

Beside the fields of the alert there are ``text``, which Slack and Mattermost show,
and ``content``, which Discord shows: each takes no notice of the other fields.
"""

import json
from collections.abc import Callable

from drain.alerts.alert import Alert
from drain.alerts.message import host, message
from drain.alerts.post import ask
from drain.request import Service
from drain.setting import Secret

SERVICE = Service("the webhook", "ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_TOKEN")


class Webhook:
    """Posts to *url*; *prefix* as of `message`."""

    name = "webhook"

    def __init__(self, url: Secret, token: Secret, prefix: str) -> None:
        self._url, self._token, self._prefix = url, token, prefix

    def send(self, alert: Alert, stopped: Callable[[], bool]) -> None:
        """As `Outlet.send`.

        Raises:
            NotSent: it was not taken.
        """
        told = message(self._prefix, alert)
        body = {
            **alert.as_json,
            "host": host(),
            "text": _escaped(told),
            "content": told,
            # Discord's: words from outside, with "@everyone" in them, call nobody.
            "allowed_mentions": {"parse": []},
        }
        headers = {"Content-Type": "application/json"}
        ask(self._url, self._token, json.dumps(body).encode("ascii"), headers, SERVICE, stopped)


def _escaped(words: str) -> str:
    """As Slack wants it (docs.slack.dev, formatting message text): ``<!channel>`` would call all, ``<url|text>`` is a link."""
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
