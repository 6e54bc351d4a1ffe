"""The status for a person at a terminal, and the line that a monitoring plugin prints."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from drain.show.table import minute
from drain.status import Ends, Health, Status, span
from drain.text import clean

if TYPE_CHECKING:
    from rich.table import Table

_WIDE = 160
_LINE_LIMIT = 1000
# https://www.monitoring-plugins.org/doc/guidelines.html#AEN78
EXIT_CODES = {Health.OK: 0, Health.WARNING: 1, Health.CRITICAL: 2, Health.UNKNOWN: 3}
_STYLES = {Health.OK: "green", Health.WARNING: "yellow", Health.CRITICAL: "bold red", Health.UNKNOWN: "magenta"}


def table(status: Status, stream: TextIO) -> None:
    """Writes it as a table."""
    from rich.console import Console  # noqa: PLC0415 (60 ms that only a person has to pay)

    console = Console(file=stream, width=None if stream.isatty() else _WIDE, highlight=False)
    console.print(renderable(status))


def renderable(status: Status) -> "Table":
    """The table, for rich."""
    from rich.table import Table  # noqa: PLC0415 (as above)
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for number, (name, words) in enumerate(rows(status)):
        # As text: in a string rich would take what a sender writes for markup.
        made.add_row(name, Text(clean(words, _LINE_LIMIT), style="" if number else _STYLES[status.health]))
    return made


def rows(status: Status) -> Iterator[tuple[str, str]]:
    """Names and words; a name is "" where the one above goes on."""
    now = status.at
    yield "health", status.health.value
    yield from _under("", status.concerns)
    last, good = status.last_pass, status.last_good_pass
    yield "last pass", last_pass(status)
    if last is not None and (good is None or good.at != last.at):
        yield "last good", "never" if good is None else f"{minute(good.at)}, {span(now - good.at)} ago"
    if status.working_at is not None and (last is None or status.working_at > last.at):
        yield "at work", f"a pass, seen to get on {span(now - status.working_at)} ago"
    yield "waiting", pending(status)
    if status.days:
        yield "today", _ends(status.today) + _delay(status)
        yield "7 days", _ends(status.week)
        yield "deferred", f"{sum(one.count for one in status.deferred)}"
        for one in status.deferred:
            due = "due" if one.next_attempt_at is None or one.next_attempt_at <= now else minute(one.next_attempt_at)
            yield "", f"{one.count} {one.reason}, next try: {due}. {one.words}"
        reasons = ", ".join(f"{many} {reason or 'for no reason'}" for reason, many in status.quarantine.items())
        yield "quarantine", reasons or "empty"
        if status.unfinished:
            yield "unfinished", ", ".join(f"{many} {state}" for state, many in status.unfinished.items())
        if status.missing:
            yield "missing", f"{status.missing}, gone from the bucket before drain was done with them"
    yield from _relay(status)
    yield "versions", versions(status)


def last_pass(status: Status) -> str:
    """When it ended, what it came to, and what ended it."""
    last = status.last_pass
    if last is None:
        return "never"
    came_to = ", ".join(f"{many} {outcome}" for outcome, many in last.outcomes.items() if many)
    came_to = came_to or ("failed" if last.trouble else "nothing to do")
    words = f"{minute(last.at)}, {span(status.at - last.at)} ago, {span(last.seconds)}: {came_to}"
    return f"{words}. {last.trouble}" if last.trouble else words


def pending(status: Status) -> str:
    """What is in the bucket."""
    seen = status.pending
    if seen.trouble:
        return f"not known. {seen.trouble}"
    if seen.count is None or seen.seen_at is None:
        return "not known"
    oldest = f", the oldest for {span(status.at - seen.oldest_at)}" if seen.count and seen.oldest_at else ""
    return f"{seen.count} in the bucket{oldest}" + ("" if seen.live else f"; seen {span(status.at - seen.seen_at)} ago")


def versions(status: Status) -> str:
    """Of drain, of Python, and of the files."""
    files = [f"{name} {version}" for name, version in status.schemas.items()]
    return ", ".join([f"drain {status.version}", f"Python {status.python}", *files])


def check(status: Status) -> str:
    """One line as the monitoring plugins' guidelines have it; `EXIT_CODES` go with it.

    Text, a bar, and performance data: ages in seconds, counts in mails.
    https://www.monitoring-plugins.org/doc/guidelines.html#PLUGOUTPUT
    """
    good, seen = status.last_good_pass, status.pending
    words = "; ".join(status.concerns)
    if not words:
        last = "no pass yet" if good is None else f"last pass {span(status.at - good.at)} ago"
        words = f"{last}, {pending(status)}"
    figures = {
        "last_good_pass": None if good is None else f"{max(status.at - good.at, 0):.0f}s",
        "pending": seen.count,
        "oldest": None if seen.oldest_at is None else f"{max(status.at - seen.oldest_at, 0):.0f}s",
        "quarantined": sum(status.quarantine.values()) if status.days else None,
        "deferred": sum(one.count for one in status.deferred) if status.days else None,
        "relay": status.relay.waiting if status.relay else None,
    }
    data = " ".join(f"{label}={value};;;0" for label, value in figures.items() if value is not None)
    return f"DRAIN {status.health.upper()} - {clean(words, _LINE_LIMIT).replace('|', '/')}" + (
        f"|{data}" if data else ""
    )


def _relay(status: Status) -> Iterator[tuple[str, str]]:
    relay = status.relay
    if relay is None:
        return
    oldest = f", the oldest for {span(status.at - relay.oldest_at)}" if relay.oldest_at else ""
    past = f"in 7 days {relay.relayed_week} relayed, {relay.failed_week} failed"
    yield "relay", f"{relay.waiting} waiting, {relay.sending} sending, {relay.held} held{oldest}; {past}"
    if relay.diagnostic:
        yield "", relay.diagnostic


def _under(name: str, lines: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines):
        yield "" if number else name, line


def _ends(ends: Ends) -> str:
    return f"{ends.delivered} delivered, {ends.quarantined} quarantined, {ends.discarded} discarded"


def _delay(status: Status) -> str:
    day = status.days[-1]
    if day.delay_median is None or day.delay_p95 is None:
        return ""
    return f"; from bucket to inbox {span(day.delay_median)} (median), {span(day.delay_p95)} (95th percentile)"
