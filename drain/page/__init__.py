"""The status as one page: no script, nothing from elsewhere, and safe with whatever strangers wrote.

Words from outside are `clean` when they come here, and escaped here (`_h`). The
Content-Security-Policy lets nothing but the page's own style in.
"""

import datetime
import re
from collections.abc import Iterable, Sequence
from html import escape

from drain.page import plots
from drain.page.style import CSS
from drain.status import Health, Status, span
from drain.text import clean

_REFRESH_SECONDS = 300
_CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_DAYS = 30
_LIMIT = 1000
_SPAN = re.compile(r"(\d) (s|min|h|d)\b")
_HEALTH = {
    Health.OK: "All is well",
    Health.WARNING: "Something wants a look",
    Health.CRITICAL: "Mail stays away",
    Health.UNKNOWN: "Not all is known",
}


def page(status: Status) -> str:
    """The page, as HTML; times are local."""
    body = "\n".join(
        part
        for part in (_head(status), _concerns(status), _tiles(status), _plots(status), _tables(status), _by_day(status))
        if part
    )
    files = ", ".join(f"{_h(name)} {version}" for name, version in status.schemas.items())
    versions = f"drain {_h(status.version)}, Python {_h(status.python)}" + (f"; tables: {files}" if files else "")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_CSP}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<title>drain: {_HEALTH[status.health].lower()}</title>
<style>{CSS}</style>
</head>
<body>
<main>
{body}
</main>
<footer>{versions}</footer>
</body>
</html>
"""


def _head(status: Status) -> str:
    return (
        f'<header><h1>drain</h1><span class="badge {status.health}">{_HEALTH[status.health]}</span>'
        f'<span class="muted">Written {_minute(status.at)}. If that is long ago, no pass has ended since.</span></header>'
    )


def _concerns(status: Status) -> str:
    if not status.concerns:
        return ""
    since = {f"{alert.kind} {alert.subject}".strip(): alert.since for alert in status.alerts}
    lines = []
    for words in status.concerns:
        at = since.get(words.partition(": ")[0])
        lines.append(_h(words) + (f' <span class="muted">(since {_minute(at)})</span>' if at else ""))
    return _section("What is wrong", _list(lines))


def _tiles(status: Status) -> str:
    tiles = [_pending(status), _passes(status)]
    if status.days:
        today, week, day = status.today, status.week, status.days[-1]
        delay = f"; today half of it within {span(day.delay_median)}" if day.delay_median is not None else ""
        discarded = f"; discarded: {today.discarded}, {week.discarded} in 7 days" if week.discarded else ""
        there = f"; {sum(status.quarantine.values())} there now"
        tiles += [
            ("Delivered today", str(today.delivered), f"{week.delivered} in 7 days{delay}"),
            ("Quarantined today", str(today.quarantined), f"{week.quarantined} in 7 days{there}{discarded}"),
            ("Deferred", str(sum(one.count for one in status.deferred)), "to be tried again"),
        ]
        if status.missing:
            tiles.append(("Missing", str(status.missing), "gone from the bucket, unfinished"))
    if status.relay is not None:
        relay = status.relay
        oldest = f", the oldest for {span(status.at - relay.oldest_at)}" if relay.oldest_at else ""
        tiles.append(("Outgoing", str(relay.waiting + relay.sending), f"{relay.held} held{oldest}"))
    return '<div class="tiles">' + "".join(_tile(*tile) for tile in tiles) + "</div>"


def _pending(status: Status) -> tuple[str, str, str]:
    seen = status.pending
    if seen.count is None or seen.seen_at is None:
        return "In the bucket", "?", seen.trouble or "not known"
    words = f"the oldest for {span(status.at - seen.oldest_at)}; " if seen.count and seen.oldest_at else ""
    return "In the bucket", str(seen.count), f"{words}seen {_ago(status.at - seen.seen_at)}"


def _passes(status: Status) -> tuple[str, str, str]:
    last, good = status.last_pass, status.last_good_pass
    if last is None:
        return "Last pass", "never", ""
    words = last.trouble
    if good is not None and good.at != last.at:
        words += f" The last good one ended {_ago(status.at - good.at)}."
    return "Last pass", _ago(status.at - last.at), words or f"took {span(last.seconds)}"


def _plots(status: Status) -> str:
    parts = []
    if status.days:
        bars = [("delivered", "delivered"), ("quarantined", "quarantined"), ("discarded", "discarded")]
        parts.append(_plot("Mails a day", bars, *plots.mails(status.days)))
        lines = [("median", "median"), ("p95", "95th percentile")]
        parts.append(_plot("From bucket to inbox", lines, *plots.delays(status.days)))
    waiting = [("backlog", "mails, the most in each hour")]
    parts.append(_plot("In the bucket", waiting, *plots.backlog(status.backlog, status.at, _DAYS)))
    return _row(parts)


def _plot(heading: str, legend: Iterable[tuple[str, str]], svg: str, words: str) -> str:
    keys = "".join(f'<li><span class="key {name}"></span>{_h(meaning)}</li>' for name, meaning in legend)
    return (
        f'<section class="card"><h2>{_h(heading)}</h2><figure><ul class="legend">{keys}</ul>{svg}'
        f"<figcaption>{_tight(words)}</figcaption></figure></section>"
    )


def _tables(status: Status) -> str:
    parts = []
    if status.deferred:
        rows = [
            [
                str(one.count),
                one.reason,
                _next(one.next_attempt_at, status.at),
                one.words,
            ]
            for one in status.deferred
        ]
        parts.append(
            _section("Deferred", _table(("mails", "reason", "next try", "what was said last"), rows, numbers=1))
        )
    small = []
    if status.quarantine:
        rows = [[str(many), reason or "none is known"] for reason, many in status.quarantine.items()]
        small.append(_section("In quarantine", _table(("mails", "reason"), rows, numbers=1)))
    if status.unfinished:
        rows = [[str(many), state] for state, many in status.unfinished.items()]
        small.append(_section("Between two steps", _table(("mails", "state"), rows, numbers=1)))
    if status.relay is not None:
        relay = status.relay
        lines = [
            f"{relay.waiting} waiting, {relay.sending} being sent, {relay.held} held.",
            f"In 7 days {relay.relayed_week} were relayed, and {relay.failed_week} failed.",
        ]
        lines += [f"Said last: {_h(relay.diagnostic)}"] if relay.diagnostic else []
        small.append(_section("Outgoing", _list(lines)))
    if small:
        parts.append(_row(small))
    return "\n".join(parts)


def _by_day(status: Status) -> str:
    """All that is drawn, as a table."""
    if not status.days:
        return ""
    rows = [
        [
            day.date[5:],
            *(str(number) for number in (day.ends.delivered, day.ends.quarantined, day.ends.discarded)),
            *("" if delay is None else span(delay) for delay in (day.delay_median, day.delay_p95)),
            "" if day.most_pending is None else str(day.most_pending),
        ]
        for day in reversed(status.days)
    ]
    headings = ("day", "deliv.", "quar.", "disc.", "50%", "95%", "left")
    return (
        '<details class="card"><summary>Day by day</summary><p class="muted">Mails delivered, quarantined and discarded;'
        " the time in which half of them, and 95%, came from bucket to inbox; the most that was left in the bucket.</p>"
        f"{_table(headings, rows, numbers=6, first=1)}</details>"
    )


def _row(cards: Iterable[str]) -> str:
    """Side by side, where there is room."""
    return '<div class="row">' + "".join(cards) + "</div>"


def _tile(name: str, figure: str, words: str) -> str:
    note = f'<dd class="muted">{_tight(words)}</dd>' if words else ""
    return f'<dl class="tile"><dt>{_h(name)}</dt><dd class="figure">{_h(figure)}</dd>{note}</dl>'


def _section(heading: str, inside: str) -> str:
    return f'<section class="card"><h2>{_h(heading)}</h2>{inside}</section>'


def _list(lines: Iterable[str]) -> str:
    """Lines that are HTML already."""
    return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int, first: int = 0) -> str:
    """A table; *numbers* columns from *first* on hold numbers."""
    classes = [' class="number"' if first <= column < first + numbers else "" for column in range(len(headings))]
    head = "".join(f'<th scope="col"{kind}>{_h(cell)}</th>' for kind, cell in zip(classes, headings, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{_h(cell)}</td>" for kind, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    wide = ' class="days"' if first else ""
    return f'<div class="scroll"><table{wide}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _h(words: str) -> str:
    return escape(clean(words, _LIMIT))


def _minute(at: float | None) -> str:
    return "" if at is None else datetime.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def _ago(seconds: float) -> str:
    return "just now" if seconds < 1 else f"{span(seconds)} ago"


def _next(at: float | None, now: float) -> str:
    return "due" if at is None or at <= now else f"in {span(at - now)}"


def _tight(words: str) -> str:
    """Escaped, and numbers with their units on one line."""
    return _SPAN.sub("\\1&nbsp;\\2", _h(words))
