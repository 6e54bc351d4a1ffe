"""Whether the mail server works, and lets nobody else in: as `drain doctor --only server` asks it."""

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TextIO

from drain import assembly, config as configuration
from drain.doctor import examination
from drain.doctor.bounded import bounded
from drain.doctor.finding import Finding, Level
from drain.errors import ConfigError, DrainError, Unavailable
from drain.setup import listeners as listening
from drain.show import doctor as show

_HOST = "127.0.0.1"
_WAIT_SECONDS = 30.0
_PAUSE_SECONDS = 0.2
_CONNECT_SECONDS = 5.0
_LISTENERS_SECONDS = 180.0
_NO_OTHERS: Mapping[str, int] = MappingProxyType({})


def prove(
    environ: Mapping[str, str],
    port: int,
    stream: TextIO,
    *,
    mailboxes: Sequence[str] = (),
    listeners: Mapping[str, int] = _NO_OTHERS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Waits until it listens, half a minute at most, then asks it; a line for each thing that is proven.

    Only if all is well it is proven: AUTH, a stranger refused, sizes, *mailboxes* (addresses
    that it has to have), its other *listeners* (ports on 127.0.0.1 by protocol), and that it
    is on loopback alone.

    Raises:
        Unavailable: it does not listen, or something could not be found out.
        ConfigError: something is not as it has to be.
    """
    _await(port, clock, sleep)
    _judge(examination.examine(environ, ("server",)), stream)
    if mailboxes:
        server = assembly.server(configuration.load(environ, complete=False)[0])
        _judge(bounded("server", _LISTENERS_SECONDS, listening.check(server, mailboxes, listeners)), stream)


def _judge(findings: Iterable[Finding], stream: TextIO) -> None:
    failed: DrainError | None = None
    for finding in findings:
        show.finding(finding.check, finding.level, finding.words, finding.next, stream)
        if finding.level is Level.OK:
            continue
        kind = Unavailable if finding.level is Level.UNKNOWN else ConfigError
        if failed is None or (kind is ConfigError and isinstance(failed, Unavailable)):
            failed = kind(f"The mail server is set up, and not as it has to be: {finding.words}", finding.next)
    if failed is not None:
        raise failed


def _await(port: int, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    limit = clock() + _WAIT_SECONDS
    while True:
        try:
            socket.create_connection((_HOST, port), _CONNECT_SECONDS).close()
        except OSError as error:
            if clock() > limit:
                words = f"Nothing listens on {_HOST}:{port} after {_WAIT_SECONDS:g} s."
                raise Unavailable(words, "The mail server's log says why.") from error
        else:
            return
        sleep(_PAUSE_SECONDS)
