"""What happened, for whoever reads it.

An event has a name, a level and fields. On a terminal it is a line for a
person; elsewhere it is ``key=value``, with journald's priority in front where
systemd captures it and with the time where nothing else adds it; with
``--json`` it is one JSON object a line, on standard output.

No secret, subject or body is ever a field. Everything passes `text.clean`;
with ``LOG_ADDRESSES=false`` whatever looks like an address is replaced too.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import TextIO

from drain.text import clean, without_addresses

Field = str | int | float | bool | None


class Level(IntEnum):
    """Syslog's severities (RFC 5424 6.2.1), as ``sd-daemon(3)`` writes them."""

    ALERT = 1
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


_ADDRESS_FIELDS = frozenset({"to", "mailbox", "sender"})


class Log:
    """A sink for events; calls may come from several threads.

    The stream is asked for at each event: a progress display puts its own in
    the place of ``sys.stderr`` while it is shown.
    """

    def __init__(
        self,
        stream: Callable[[], TextIO | None],
        form: Callable[[Level, str, Mapping[str, str | int | float | bool]], str],
        *,
        addresses: bool = True,
        threshold: Level = Level.INFO,
    ) -> None:
        self._stream = stream
        self._form = form
        self._addresses = addresses
        self._threshold = threshold
        self._lock = threading.Lock()

    def event(self, level: Level, name: str, **fields: Field) -> None:
        """Writes one event; fields that are None are left out. A broken stream is not an error."""
        if level > self._threshold:
            return
        safe = {key: self._safe(key, value) for key, value in fields.items() if value is not None}
        line = self._form(level, name, safe)
        with self._lock:
            try:
                stream = self._stream()
                if stream is None:  # closed before Python began (`drain >&-`)
                    return
                stream.write(line + "\n")
                stream.flush()
            except (OSError, ValueError):  # a closed pipe must not stop mail
                pass

    def _safe(self, key: str, value: str | float | bool) -> str | int | float | bool:  # noqa: FBT001 (a value)
        if not isinstance(value, str):
            return value
        if self._addresses:
            return clean(value)
        # An address can look like anything; where one stands is known.
        return "(address)" if key in _ADDRESS_FIELDS and value else without_addresses(clean(value))

    def debug(self, name: str, **fields: Field) -> None:
        """A step, for finding faults."""
        self.event(Level.DEBUG, name, **fields)

    def info(self, name: str, **fields: Field) -> None:
        """All is well."""
        self.event(Level.INFO, name, **fields)

    def notice(self, name: str, **fields: Field) -> None:
        """Well, but worth a look."""
        self.event(Level.NOTICE, name, **fields)

    def warning(self, name: str, **fields: Field) -> None:
        """Something waits or was odd."""
        self.event(Level.WARNING, name, **fields)

    def error(self, name: str, **fields: Field) -> None:
        """Something failed."""
        self.event(Level.ERROR, name, **fields)

    def alert(self, name: str, **fields: Field) -> None:
        """A person has to act, or mail stays away."""
        self.event(Level.ALERT, name, **fields)


def _quoted(value: str | float | bool) -> str:  # noqa: FBT001 (a value, not a switch)
    if isinstance(value, bool):
        return "true" if value else "false"
    words = str(value)
    if words and not any(c in ' "=\\' for c in words):
        return words
    return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'


def key_value(_level: Level, name: str, fields: Mapping[str, str | int | float | bool]) -> str:
    """``mail state=delivered to=…``."""
    return " ".join([name, *(f"{key}={_quoted(value)}" for key, value in fields.items())])


def journald(level: Level, name: str, fields: Mapping[str, str | int | float | bool]) -> str:
    """The same behind ``<priority>`` (``sd-daemon(3)``)."""
    return f"<{int(level)}>{key_value(level, name, fields)}"


def timed(level: Level, name: str, fields: Mapping[str, str | int | float | bool]) -> str:
    """The same behind the time (UTC) and the level, where nothing else adds them."""
    return f"{_now()} {level.name.lower()} {key_value(level, name, fields)}"


def json_lines(level: Level, name: str, fields: Mapping[str, str | int | float | bool]) -> str:
    """One JSON object: ``time``, ``level``, ``event`` and the fields."""
    return json.dumps({"time": _now(), "level": level.name.lower(), "event": name, **fields}, ensure_ascii=False)


def for_a_person(level: Level, name: str, fields: Mapping[str, str | int | float | bool]) -> str:
    """A line on a terminal: the message if there is one, else what happened to which mail."""
    if name == "mail" and "message" not in fields:
        parts = [f"{fields.get('state')}: {fields.get('object')}"]
        parts += [f"to {fields['to']}"] if fields.get("to") else []
        parts += [f"({fields['reply']})"] if fields.get("reply") else []
        return " ".join(parts)
    words = str(fields["message"]) if "message" in fields else key_value(level, name, fields)
    return words if level > Level.WARNING else f"{level.name.lower()}: {words}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def for_environment(environ: Mapping[str, str], *, as_json: bool, addresses: bool, quiet: bool = False) -> Log:
    """The log that fits where the process runs; *quiet*: warnings and errors alone."""
    threshold = Level.DEBUG if environ.get("DRAIN_DEBUG") else Level.WARNING if quiet else Level.INFO
    if as_json:
        return Log(lambda: sys.stdout, json_lines, addresses=addresses, threshold=threshold)
    if _captured_by_journald(environ):
        return Log(lambda: sys.stderr, journald, addresses=addresses, threshold=threshold)
    if sys.stderr.isatty():
        threshold = Level.NOTICE if threshold is Level.INFO else threshold
        return Log(lambda: sys.stderr, for_a_person, addresses=addresses, threshold=threshold)
    return Log(lambda: sys.stderr, timed, addresses=addresses, threshold=threshold)


def _captured_by_journald(environ: Mapping[str, str]) -> bool:
    # systemd.exec(5): JOURNAL_STREAM names device and inode of the stream that
    # the journal reads; it is inherited, so it counts only if it is still ours.
    stream = environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
