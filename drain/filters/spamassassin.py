"""``spamassassin``: what spamd says of a mail, in points.

spamd is asked for ``SYMBOLS``: score, threshold, and the names of the rules. Its
``REPORT`` has each rule's points beside that, but in a text whose form the
person's ``report_template`` decides, and with a piece of the mail in it. Neither
sends the mail back: what is delivered is never what spamd made of it.

aiospamc puts requests together and takes answers apart. The connection is ours
(`daemon`): that of aiospamc 1.2 reads an answer of any size, keeps the socket open
where something fails, and its ``frontend`` loads the system's CAs twice a call.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from drain.filters.daemon import Daemon
from drain.filters.inbound import Inbound
from drain.filters.verdict import FilterFailed, Verdict
from drain.text import clean

if TYPE_CHECKING:
    from aiospamc.responses import Response

_SETTINGS = "SPAMD_HOST and SPAMD_PORT"
# Some two thousand rules' names; a mail hits a dozen.
_ANSWER_LIMIT = 64 * 1024
_RULES_SHOWN = 100
_RULE_LETTERS = 100
_REASON_LETTERS = 150
# RFC 5322 2.1.1: no line has more; a cut need not look further back for a line end.
_LINE_BYTES = 1000
# sysexits.h: EX_USAGE, EX_DATAERR, EX_SOFTWARE, EX_PROTOCOL; and spamd's EX_TIMEOUT: its --timeout-child ended.
# They say something of this mail; the other codes say something of spamd.
_OF_THE_MAIL = frozenset({64, 65, 70, 76, 79})


@dataclass(frozen=True)
class SpamAssassin:
    """Asks the spamd at *server* (`server_of`).

    A mail of more than *max_bytes* is not sent whole: its header and as much of its
    body as fits are, up to the last line end that fits if that is near (and no more
    than *max_bytes* of a header either). The verdict says so in its evidence. SpamAssassin itself looks at the first 50 kB of the text
    (``body_part_scan_size``), so little is lost; a spammer who makes his mail large
    is still looked at.

    Raises:
        ValueError: *server* is no place of a daemon.
    """

    server: str
    max_bytes: int
    timeout_seconds: float
    name: ClassVar[str] = "spamassassin"

    def __post_init__(self) -> None:
        _ = self._spamd  # a wrong place shows here, and not at the first mail

    def check(self, inbound: Inbound) -> Verdict:
        """The score, whether that is spam to it, and its rules.

        Raises:
            FilterFailed: spamd is away, has an error, or its answer is none.
        """
        raw = inbound.mail.raw
        part = _first_part(raw, self.max_bytes)
        response, answer = self._asked("SYMBOLS", part)
        spam = response.headers.spam
        if spam is None or not (math.isfinite(spam.score) and math.isfinite(spam.threshold)):
            raise self._spamd.nonsense(answer)
        score = spam.score + 0.0  # spamd also says -0.0
        evidence = [f"spamd itself calls it spam from {spam.threshold:g} points on"]
        if len(part) < len(raw):
            evidence.append(f"spamd was sent the first {len(part):,} of {len(raw):,} bytes")
        rules = _rules(response.body)
        return Verdict(
            score=score,
            code="spam" if spam.value else "",
            reason=", ".join(rules)[:_REASON_LETTERS],
            evidence=(*evidence, *rules),
        )

    def probe(self) -> str:
        """That spamd answers, as a sentence.

        Raises:
            FilterFailed: it does not.
        """
        response, answer = self._asked("PING", b"")
        if response.message != "PONG":
            raise self._spamd.nonsense(answer)
        return f"{self._spamd} answers."

    @cached_property
    def _spamd(self) -> Daemon:
        return Daemon("spamd", self.server, _SETTINGS)

    def _asked(self, verb: str, part: bytes) -> "tuple[Response, bytes]":
        """What spamd answers, taken apart and as it came."""
        # Slow to load.
        from aiospamc.exceptions import ParseError  # noqa: PLC0415
        from aiospamc.incremental_parser import ResponseParser  # noqa: PLC0415
        from aiospamc.requests import Request  # noqa: PLC0415
        from aiospamc.responses import Response  # noqa: PLC0415

        answer = self._spamd.ask([bytes(Request(verb, body=part))], self.timeout_seconds, limit=_ANSWER_LIMIT)
        try:
            response = Response(**ResponseParser().parse(answer))
        except (ParseError, ValueError) as error:  # ValueError: a header's name that is no ASCII
            raise self._spamd.nonsense(answer) from error
        if response.status_code != 0:
            raise self._refusal(response)
        return response, answer

    def _refusal(self, response: "Response") -> FilterFailed:
        """An error of spamd's as a sentence (SpamAssassin's ``spamd/PROTOCOL``)."""
        code = response.status_code
        name = f"{code.name} ({code:d})" if isinstance(code, IntEnum) else f"error {code}"
        hint = f"spamd's log says why. Which spamd is asked is set by {_SETTINGS}."
        words = f"says {name}: {clean(response.message, 200)}."
        return self._spamd.failed(words, hint, down=isinstance(code, IntEnum) and code not in _OF_THE_MAIL)


def server_of(host: str, port: int) -> str:
    """``SpamAssassin.server`` for SPAMD_HOST and SPAMD_PORT: a host that begins with ``/`` is a socket's path."""
    if host.startswith("/"):
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _first_part(raw: bytes, max_bytes: int) -> bytes:
    if len(raw) <= max_bytes:
        return raw
    line_end = raw.rfind(b"\n", max(0, max_bytes - _LINE_BYTES), max_bytes)
    return raw[: line_end + 1] if line_end >= 0 else raw[:max_bytes]


def _rules(body: bytes) -> list[str]:
    names = (name.strip()[:_RULE_LETTERS] for name in body.decode("ascii", "replace").split(","))
    return [name for name in names if name][:_RULES_SHOWN]
