"""What every way out says of an alert."""

import socket

from drain.alerts.alert import Alert
from drain.text import clean

# Discord takes 2000 characters, ntfy 4096 bytes, a pipe 4096 bytes at once (PIPE_BUF): UTF-8 has up to 4 a character.
MOST_CHARACTERS = 1000
_LONGEST_PREFIX = 200


def host() -> str:
    """The name of this machine."""
    return clean(socket.gethostname(), 100)


def message(prefix: str, alert: Alert) -> str:
    """One line: *prefix* (MAIL_ALERT_MSG), a colon, and the words of the alert; at most `MOST_CHARACTERS`."""
    return clean(f"{clean(prefix, _LONGEST_PREFIX)}: {alert.words}", MOST_CHARACTERS)
