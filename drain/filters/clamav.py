"""``clamav``: whether clamd finds a virus in a mail.

clamd's protocol (clamd(8), "COMMANDS"): ``zINSTREAM`` and a NUL, then chunks, each
after its length in four bytes, big-endian; a chunk of no bytes ends the stream.
The answer ends in a NUL. clamd takes MIME apart itself, so the mail is sent as it is.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from drain.filters.daemon import Daemon
from drain.filters.inbound import Inbound
from drain.filters.verdict import Action, FilterFailed, Verdict
from drain.text import clean

_SETTINGS = "CLAMD_SOCKET"
_CHUNK_BYTES = 256 * 1024
_ANSWER_LIMIT = 4096
_FOUND = re.compile(r"stream: (.+) FOUND", re.DOTALL)
_TOO_LARGE = "INSTREAM size limit exceeded. ERROR"


@dataclass(frozen=True)
class ClamAv:
    """Asks the clamd at *socket*: the absolute path of its socket, or ``host:port``.

    What is larger than clamd's ``MaxFileSize`` or ``MaxScanSize`` clamd calls clean
    without having looked at all of it, unless its ``AlertExceedsMax`` is on.

    Raises:
        ValueError: *socket* is no place of a daemon.
    """

    socket: str
    timeout_seconds: float
    name: ClassVar[str] = "clamav"

    def __post_init__(self) -> None:
        _ = self._clamd  # a wrong place shows here, and not at the first mail

    def check(self, inbound: Inbound) -> Verdict:
        """Quarantine for what clamd calls a virus; no points either way.

        Raises:
            FilterFailed: clamd is away, has an error, or its answer is none.
        """
        raw = inbound.mail.raw
        answer = self._asked(_stream(raw))
        if answer == "stream: OK":
            return Verdict(evidence=("no virus",))
        if found := _FOUND.fullmatch(answer):
            return Verdict(
                action=Action.QUARANTINE,
                code="virus",
                reason=f"clamd found {found[1][:150]}",
                evidence=(answer[:200],),
            )
        raise self._failure(answer, len(raw))

    def probe(self) -> str:
        """That clamd answers, with its version and its signatures', as a sentence.

        Raises:
            FilterFailed: it does not.
        """
        # Not PING: PONG says less.
        version = self._asked([b"zVERSION\0"])
        if not version.startswith("ClamAV "):
            raise self._clamd.nonsense(version.encode())
        return f"{self._clamd} answers: {clean(version, 200)}."

    @cached_property
    def _clamd(self) -> Daemon:
        return Daemon("clamd", self.socket, _SETTINGS)

    def _asked(self, request: Iterable[bytes]) -> str:
        answer = self._clamd.ask(request, self.timeout_seconds, limit=_ANSWER_LIMIT, end=b"\0")
        return answer.decode("utf-8", "replace")

    def _failure(self, answer: str, size: int) -> FilterFailed:
        if answer == _TOO_LARGE:
            hint = (
                f"Raise StreamMaxLength in the clamd.conf of the clamd that {_SETTINGS} names: a mail can have 26 MB."
            )
            return self._clamd.failed(f"takes no mail of {size:,} bytes.", hint, down=False)
        if answer.endswith(" ERROR"):
            hint = f"clamd's log says why. Which clamd is asked is set by {_SETTINGS}."
            return self._clamd.failed(f"could not check the mail: {clean(answer, 200)}.", hint, down=False)
        return self._clamd.nonsense(answer.encode())


def _stream(raw: bytes) -> Iterator[bytes]:
    yield b"zINSTREAM\0"
    for start in range(0, len(raw), _CHUNK_BYTES):
        chunk = raw[start : start + _CHUNK_BYTES]
        yield struct.pack(">I", len(chunk)) + chunk
    yield struct.pack(">I", 0)
