"""Alerts to a topic of ntfy, at ntfy.sh or a server of one's own.

The message is the body of a POST to the topic, and what belongs to it is in
headers (docs.ntfy.sh/publish); a title that is not ASCII is an encoded word of
RFC 2047, which ntfy decodes.
"""

import base64
from collections.abc import Callable

from drain.alerts.alert import Alert, AlertState, Kind
from drain.alerts.message import message
from drain.alerts.post import ask
from drain.request import Service
from drain.setting import Secret

SERVICE = Service("the ntfy server", "NTFY_URL", "NTFY_TOKEN")
_LONGEST_TITLE = 100
# ntfy's priorities: from 4 on a phone rings longer, below 3 it keeps silent.
_HIGH, _DEFAULT, _LOW = "4", "3", "2"
# No mail waits because of these.
_QUIET = frozenset({Kind.QUARANTINE, Kind.FILTER, Kind.JUNK, Kind.TEST})


class Ntfy:
    """Publishes to the topic at *url*; *prefix* as of `message`."""

    name = "ntfy"

    def __init__(self, url: Secret, token: Secret, prefix: str) -> None:
        self._url, self._token, self._prefix = url, token, prefix

    def send(self, alert: Alert, stopped: Callable[[], bool]) -> None:
        """As `Outlet.send`.

        Raises:
            NotSent: ntfy did not take it.
        """
        over = alert.state is AlertState.OVER
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Title": _encoded(alert.title[:_LONGEST_TITLE]),
            "Priority": _LOW if over else _DEFAULT if alert.kind in _QUIET else _HIGH,
            "Tags": "white_check_mark" if over else "warning",
        }
        ask(self._url, self._token, message(self._prefix, alert).encode(), headers, SERVICE, stopped)


def _encoded(title: str) -> str:
    if title.isascii():
        return title
    return f"=?UTF-8?B?{base64.b64encode(title.encode()).decode('ascii')}?="
