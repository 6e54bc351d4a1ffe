"""What the files say, in SQL; each query is bounded by an index, or by what is open."""

import dataclasses
import json
import math
import sqlite3
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from drain.logbook import Pass
from drain.status import Backlog, Deferred, Ends, On, Outgoing, Pending
from drain.text import clean

_HOUR_SECONDS = 3600.0
# A pass that is noted further ahead was noted by a clock that was wrong.
_AHEAD_SECONDS = 60.0
# A delay is looked up mail by mail: of a day with more mails, so many of them stand for all.
_MOST_DELAYS = 500
# As the tables' indexes have it, to the letter, or SQLite does not use them.
_ENDED = "what IN ('delivered', 'quarantined', 'discarded')"
_UNFINISHED = "state NOT IN ('settled', 'quarantined', 'discarded')"


@dataclass(frozen=True)
class Noted:
    """What the logbook says."""

    last: Pass | None = None
    last_good: Pass | None = None
    working_at: float | None = None
    pending: Pending = Pending()
    alerts: tuple[On, ...] = ()
    backlog: tuple[Backlog, ...] = ()


@dataclass(frozen=True)
class Mails:
    """What the ledger says; ``days`` have their ends, and median and 95th percentile of the delay."""

    deferred: tuple[Deferred, ...] = ()
    quarantine: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unfinished: Mapping[str, int] = dataclasses.field(default_factory=dict)
    missing: int = 0
    days: Sequence[tuple[Ends, float | None, float | None]] = ()


def noted(db: sqlite3.Connection, since: float, now: float) -> Noted:
    """What the logbook says; the backlog since then."""

    def last(clause: str) -> Pass | None:
        columns = ", ".join(Pass.__dataclass_fields__)
        query = f"SELECT {columns} FROM pass WHERE at <= ? {clause} ORDER BY at DESC LIMIT 1"
        row = db.execute(query, (now + _AHEAD_SECONDS,)).fetchone()
        if row is None:
            return None
        found = Pass(*row)
        return dataclasses.replace(found, outcomes=json.loads(row[5]), trouble=clean(found.trouble))

    working = db.execute("SELECT value FROM note WHERE name = 'working_at'").fetchone()
    working_at = float(working[0]) if working else None
    seen = last("AND pending IS NOT NULL")
    alerts = db.execute(
        "SELECT kind, subject, words, count, oldest_at, since, told_at FROM alert"
        # What is clear again is not "over" for the person yet, but it is for who looks.
        " WHERE over_at IS NULL AND told_at IS NOT NULL AND clear_since IS NULL ORDER BY since, kind, subject"
    ).fetchall()
    backlog = db.execute(
        "SELECT max(at), max(pending) FROM pass WHERE at BETWEEN ? AND ? AND pending IS NOT NULL"
        f" GROUP BY CAST(at / {_HOUR_SECONDS} AS INTEGER) ORDER BY at",
        (since, now + _AHEAD_SECONDS),
    ).fetchall()
    return Noted(
        last=last(""),
        # Who found another drain at work, which may hang, has noted a pass without trouble too.
        last_good=last("AND trouble = '' AND pending IS NOT NULL"),
        working_at=None if working_at is None or working_at > now + _AHEAD_SECONDS else working_at,
        pending=Pending(seen.pending, seen.oldest_at, seen.at) if seen else Pending(),
        alerts=tuple(On(clean(kind), clean(subject), clean(words), *rest) for kind, subject, words, *rest in alerts),
        backlog=tuple(Backlog(*row) for row in backlog),
    )


def mails(db: sqlite3.Connection, midnights: Sequence[float]) -> Mails:
    """What the ledger says; *midnights* are where its days begin, and where the last ends."""
    # Of the columns that are in no aggregate SQLite takes those of the row that has the max().
    deferred = db.execute(
        "SELECT coalesce(reason, ''), count(*), min(next_attempt_at), coalesce(words, ''), max(updated_at) FROM mail"
        f" WHERE {_UNFINISHED} AND state = 'deferred' AND missing_at IS NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    unfinished = db.execute(
        f"SELECT state, count(*) FROM mail WHERE {_UNFINISHED} AND state != 'deferred' AND missing_at IS NULL"
        " GROUP BY state"
    )
    quarantine = db.execute(
        "SELECT coalesce(reason, ''), count(*) FROM mail WHERE state = 'quarantined' GROUP BY reason ORDER BY 2 DESC, 1"
    )
    (missing,) = db.execute("SELECT count(*) FROM mail WHERE missing_at IS NOT NULL").fetchone()
    return Mails(
        deferred=tuple(Deferred(clean(reason), many, at, clean(words)) for reason, many, at, words, _ in deferred),
        quarantine={clean(reason): many for reason, many in quarantine},
        unfinished=dict(unfinished.fetchall()),
        missing=missing,
        days=[_day(db, *bounds) for bounds in pairwise(midnights)],
    )


def _day(db: sqlite3.Connection, begin: float, end: float) -> tuple[Ends, float | None, float | None]:
    query = f"SELECT what, count(*) FROM event WHERE {_ENDED} AND at >= ? AND at < ? GROUP BY what"
    ends = Counter(dict(db.execute(query, (begin, end)).fetchall()))
    stride = math.ceil(ends["delivered"] / _MOST_DELAYS) or 1
    delays = sorted(
        max(delay, 0.0)  # the edge's clock and ours may differ
        for (delay,) in db.execute(
            f"SELECT event.at - stored_at FROM event CROSS JOIN mail USING (identity) WHERE {_ENDED}"
            " AND at >= ? AND at < ? AND what = 'delivered' AND event.rowid % ? = 0 AND stored_at IS NOT NULL"
            " AND NOT released",
            (begin, end, stride),
        )
    )
    if not delays:
        return Ends(**ends), None, None
    # The nearest rank: a delay that a mail had.
    return Ends(**ends), statistics.median(delays), delays[math.ceil(0.95 * len(delays)) - 1]


def outgoing(db: sqlite3.Connection, since: float) -> Outgoing:
    """What the relay's queue says; *since* then, of what ended."""
    open_ = "entry.state IN ('waiting', 'sending', 'held')"
    now = Counter(dict(db.execute(f"SELECT state, count(*) FROM entry WHERE {open_} GROUP BY state").fetchall()))
    oldest = f"SELECT min(received_at) FROM entry JOIN mail ON mail.id = entry.mail WHERE {open_}"
    said = db.execute(
        f"SELECT diagnostic FROM entry WHERE {open_} AND diagnostic != '' ORDER BY updated_at DESC LIMIT 1"
    ).fetchone()
    ended = db.execute(
        "SELECT state, count(*) FROM entry WHERE state IN ('relayed', 'failed', 'removed') AND updated_at >= ?"
        " GROUP BY state",
        (since,),
    )
    past = Counter(dict(ended.fetchall()))
    return Outgoing(
        waiting=now["waiting"],
        sending=now["sending"],
        held=now["held"],
        oldest_at=db.execute(oldest).fetchone()[0],
        diagnostic=clean(said[0]) if said else "",
        relayed_week=past["relayed"],
        failed_week=past["failed"],
    )
