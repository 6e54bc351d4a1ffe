"""The status, read from the files that drain keeps. Nothing is asked, made or changed.

So it works while a pass runs, while none runs, and for who has no lock; and none of
the files need be there. One that cannot be read is a sentence in ``troubles``.
"""

import datetime
import platform
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import drain
from drain.bucket import Bucket
from drain.database import Schema
from drain.errors import DrainError
from drain.logbook import LOGBOOK
from drain.relay.tables import QUEUE
from drain.status import Backlog, Day, Ends, Health, Pending, Status, queries, span
from drain.status.queries import Mails, Noted
from drain.tables import LEDGER
from drain.text import clean

T = TypeVar("T")

_DAYS = 30
_WEEK = 7
_BUSY_TIMEOUT_SECONDS = 5.0
# Alerts that mean that mail stays away; by the values of `alerts.alert.Kind`.
_CRITICAL = frozenset({"bucket", "mail-server", "pass", "missing", "backlog-age", "no-key", "stale"})


def ask(bucket: Bucket, prefix: str, now: float) -> Pending:
    """What is in the bucket at this moment, from R2."""
    count, oldest_at = 0, None
    try:
        for page in bucket.pages(prefix):
            count += len(page)
            oldest = min(listed.last_modified.timestamp() for listed in page)
            oldest_at = oldest if oldest_at is None else min(oldest, oldest_at)
    except DrainError as error:
        return Pending(seen_at=now, live=True, trouble=clean(str(error)))
    return Pending(count, oldest_at, now, live=True)


def gather(
    *,
    ledger: Path,
    logbook: Path,
    queue: Path,
    now: float,
    stale_seconds: float,
    pending: Pending | None = None,
    zone: datetime.tzinfo | None = None,
) -> Status:
    """Reads the three files; they need not be there.

    *stale_seconds* may go by without a good pass; 0: any time may. *pending* is what
    `ask` said, in place of what the last pass noted. *zone* is where midnight is; None:
    here.
    """
    midnights = _midnights(now, zone)
    files = _Files()
    noted = files.read("logbook", logbook, LOGBOOK, lambda db: queries.noted(db, midnights[0], now), Noted())
    mails = files.read("ledger", ledger, LEDGER, lambda db: queries.mails(db, midnights), Mails())
    outgoing = files.read("relay", queue, QUEUE, lambda db: queries.outgoing(db, midnights[-1 - _WEEK]), None)
    health, concerns = _judged(noted, files.troubles, pending, stale_seconds, now)
    noted = noted or Noted()
    days = () if mails is None else _days(mails, noted, midnights, zone)
    mails = mails or Mails()
    return Status(
        at=now,
        health=health,
        concerns=concerns,
        version=drain.__version__,
        python=platform.python_version(),
        schemas=files.versions,
        pending=pending or noted.pending,
        last_pass=noted.last,
        last_good_pass=noted.last_good,
        working_at=noted.working_at,
        deferred=mails.deferred,
        quarantine=mails.quarantine,
        unfinished=mails.unfinished,
        missing=mails.missing,
        relay=outgoing,
        alerts=noted.alerts,
        days=days,
        backlog=noted.backlog,
        troubles=tuple(files.troubles),
    )


class _Files:
    """What the files say, and what is wrong with them."""

    def __init__(self) -> None:
        self.troubles: list[str] = []
        self.versions: dict[str, int] = {}

    def read(
        self, name: str, path: Path, schema: Schema, look: Callable[[sqlite3.Connection], T], nothing: T
    ) -> T | None:
        """What *look* finds; *nothing* if the file is not there, None if it cannot be read."""
        try:
            if not path.exists():
                return nothing
            version, found = _read(path, schema, look)
        except (OSError, ValueError, sqlite3.Error) as error:
            damaged = not isinstance(error, OSError | sqlite3.OperationalError)
            how = f"is damaged: {error}. {schema.if_damaged}" if damaged else f"cannot be read just now: {error}."
            self.troubles.append(clean(f"{schema.name} {path} {how}"))
            return None
        self.versions[name] = version
        return found


def _days(mails: Mails, noted: Noted, midnights: Sequence[float], zone: datetime.tzinfo | None) -> tuple[Day, ...]:
    ends = mails.days or [(Ends(), None, None)] * _DAYS
    dates = [datetime.datetime.fromtimestamp(midnight, zone).date().isoformat() for midnight in midnights[:-1]]
    together = zip(dates, ends, _most(noted.backlog, midnights), strict=True)
    return tuple(Day(date, ended, median, p95, most) for date, (ended, median, p95), most in together)


def _midnights(now: float, zone: datetime.tzinfo | None) -> list[float]:
    """The beginnings of the last days, and of tomorrow; Unix times. Not all days have 24 hours."""
    tomorrow = datetime.datetime.fromtimestamp(now, zone).date() + datetime.timedelta(days=1)
    dates = [tomorrow - datetime.timedelta(days=back) for back in range(_DAYS, -1, -1)]
    return [datetime.datetime.combine(date, datetime.time.min, zone).timestamp() for date in dates]


def _judged(
    noted: Noted | None, troubles: Sequence[str], pending: Pending | None, stale_seconds: float, now: float
) -> tuple[Health, tuple[str, ...]]:
    """How it is, and why; what is critical comes first."""
    critical: list[str] = []
    warnings: list[str] = []
    if noted is not None:
        # With a large backlog one pass can take hours.
        seen = (noted.last_good.at if noted.last_good else None, noted.working_at)
        at = max((at for at in seen if at is not None), default=None)
        if stale_seconds and at is None:
            critical.append("no pass has come to its end yet")
        elif stale_seconds and at is not None and now - at > stale_seconds:
            critical.append(f"no pass has come to its end for {span(now - at)}")
        if noted.last and noted.last.trouble:
            warnings.append(f"the last pass failed: {noted.last.trouble}")
        for alert in noted.alerts:
            name = f"{alert.kind} {alert.subject}".strip()
            (critical if alert.kind in _CRITICAL else warnings).append(f"{name}: {alert.words}")
    if pending is not None and pending.trouble:
        warnings.append(pending.trouble)
    health = Health.CRITICAL if critical else Health.UNKNOWN if troubles else Health.WARNING if warnings else Health.OK
    return health, (*critical, *troubles, *warnings)


def _most(backlog: Iterable[Backlog], midnights: Sequence[float]) -> list[int | None]:
    """The largest backlog of each day."""
    most: list[int | None] = [None] * _DAYS
    for point in backlog:
        day = bisect_right(midnights, point.at) - 1
        if 0 <= day < _DAYS:
            most[day] = max(point.pending, most[day] or 0)
    return most


def _read(path: Path, schema: Schema, look: Callable[[sqlite3.Connection], T]) -> tuple[int, T]:
    """The version of what is in a file, and what is found there."""
    log = Path(f"{path}-wal")
    # Without this log nobody has the file open, and it is read as it lies: SQLite would
    # make a log and leave it there (https://www.sqlite.org/wal.html#readonly).
    idle = not log.exists()
    try:
        return _looked(path, "immutable=1" if idle else "mode=ro", schema, look)
    except sqlite3.DatabaseError:
        if not idle or not log.exists():
            raise
    return _looked(path, "mode=ro", schema, look)  # somebody opened it meanwhile


def _looked(path: Path, mode: str, schema: Schema, look: Callable[[sqlite3.Connection], T]) -> tuple[int, T]:
    uri = f"{path.absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None)) as db:
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        db.execute("BEGIN")  # all that is read is of one moment
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > schema.version:
            raise sqlite3.OperationalError(f"a newer drain wrote it (schema {version}). {schema.if_newer}".rstrip("."))
        if version < schema.version:
            words = f"an older drain wrote it (schema {version}), and the next pass brings it up to date"
            raise sqlite3.OperationalError(words)
        return version, look(db)
