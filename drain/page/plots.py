"""The plots of the page: SVG, with a title, and a description that says the same in words."""

import datetime
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise

from drain.status import Backlog, Day, span

_WIDTH, _HEIGHT = 320.0, 185.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 5.0, 8.0, 24.0
_FLOOR = _HEIGHT - _BOTTOM
_DAY_SECONDS = 86400.0
# Passes further apart have a gap between them: what was in the bucket meanwhile is not known.
_GAP_SECONDS = 1.1 * _DAY_SECONDS
_MOST_TICKS = 4
_DATES_EVERY = 7
_DELAYS = (
    0.1,
    1.0,
    10.0,
    60.0,
    600.0,
    3600.0,
    6 * 3600.0,
    _DAY_SECONDS,
    7 * _DAY_SECONDS,
    30 * _DAY_SECONDS,
    365 * _DAY_SECONDS,
)
_DISPOSITIONS = ("delivered", "quarantined", "discarded")


def mails(days: Sequence[Day]) -> tuple[str, str]:
    """Bars, one a day; and what they say in words."""
    most = max((sum(_ends(day)) for day in days), default=0)
    sums = [sum(column) for column in zip(*(_ends(day) for day in days), strict=True)]
    if most:
        peak = max(days, key=lambda day: sum(_ends(day)))
        parts = ", ".join(f"{number} {name}" for number, name in zip(sums, _DISPOSITIONS, strict=True))
        words = f"{parts} in {len(days)} days; the most on {_date(peak.date)}: {most}."
    else:
        words = "No mail was delivered, quarantined or discarded in these days."
    top, ticks = _whole(most)
    drawn = [*_grid((_short(tick), _y(tick / top)) for tick in ticks), *_dates(days)]
    for number, day in enumerate(days):
        drawn.append(_bar(day, number, len(days), top))
    return _svg("mails", "Mails a day", words, drawn), words


def delays(days: Sequence[Day]) -> tuple[str, str]:
    """Two lines on a logarithmic scale; and what they say in words."""
    known = [day for day in days if day.delay_median is not None and day.delay_p95 is not None]
    if not known:
        return _svg("delays", "Delay", "Nothing was delivered.", _dates(days)), "Nothing was delivered in these days."
    last = known[-1]
    slowest = max(known, key=_p95)
    words = (
        f"On {_date(last.date)} half of the mail was in the inbox within {span(_median(last))}, and 95% within"
        f" {span(_p95(last))}. The slowest day was {_date(slowest.date)}: {span(_p95(slowest))}."
    )
    ticks = _delay_ticks(min(map(_median, known)), max(map(_p95, known)))
    low, high = math.log(ticks[0]), math.log(ticks[-1])

    def place(seconds: float) -> float:
        return _y((math.log(min(max(seconds, ticks[0]), ticks[-1])) - low) / (high - low))

    drawn = [*_grid((span(tick), place(tick)) for tick in ticks), *_dates(days)]
    for name, value in (("p95", _p95), ("median", _median)):
        drawn += _day_line(name, days, lambda day, value=value: place(value(day)))  # type: ignore[misc]
    return _svg("delays", "Delay from bucket to inbox", words, drawn), words


def backlog(points: Sequence[Backlog], now: float, days: int) -> tuple[str, str]:
    """The mails in the bucket over time; and what that says in words."""
    begin = now - days * _DAY_SECONDS
    points = [point for point in points if begin <= point.at <= now + _DAY_SECONDS]
    most = max((point.pending for point in points), default=0)
    if not points:
        words = "No pass has noted what is in the bucket."
    elif most:
        peak = max(points, key=lambda point: point.pending)
        words = f"{points[-1].pending} at last; at most {most}, on {_date(_iso(peak.at))}."
    else:
        words = "Nothing was left waiting after any pass."
    top, ticks = _whole(most)

    def x(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min((at - begin) / (now - begin), 1.0)

    drawn = list(_grid((_short(tick), _y(tick / top)) for tick in ticks))
    for back in range(_DATES_EVERY // 2, days, _DATES_EVERY):
        at = now - back * _DAY_SECONDS
        drawn.append(_label(x(at), _HEIGHT - 6, _date(_iso(at)), "middle"))
    for run in _runs(points):
        drawn += _steps([(x(point.at), _y(point.pending / top)) for point in run])
    return _svg("backlog", "Mails in the bucket", words, drawn), words


def _bar(day: Day, number: int, count: int, top: float) -> str:
    slot = (_WIDTH - _LEFT - _RIGHT) / count
    x, floor, rects = _LEFT + number * slot + slot * 0.1, _FLOOR, []
    for name, many in zip(_DISPOSITIONS, _ends(day), strict=True):
        if many:
            # A single mail is seen beside thousands.
            height = max(_FLOOR - _y(many / top), 1.5)
            floor -= height
            rects.append(
                f'<rect class="{name}" x="{x:.1f}" y="{floor:.1f}" width="{slot * 0.8:.1f}" height="{height:.1f}"/>'
            )
    if not rects:
        return ""
    parts = ", ".join(f"{many} {name}" for name, many in zip(_DISPOSITIONS, _ends(day), strict=True))
    return f"<g><title>{_date(day.date)}: {parts}</title>{''.join(rects)}</g>"


def _day_line(name: str, days: Sequence[Day], y: Callable[[Day], float]) -> Iterator[str]:
    """A line with a dot a day; it is broken where a day has no delay."""
    slot = (_WIDTH - _LEFT - _RIGHT) / len(days)
    places = [
        (_LEFT + (number + 0.5) * slot, y(day)) if day.delay_median is not None else None
        for number, day in enumerate(days)
    ]
    segments = [
        f"M{one[0]:.1f} {one[1]:.1f}L{other[0]:.1f} {other[1]:.1f}" for one, other in pairwise(places) if one and other
    ]
    yield f'<path class="line {name}" d="{_joined(segments)}"/>'
    for day, place in zip(days, places, strict=True):
        if place:
            words = f"{_date(day.date)}: median {span(_median(day))}, 95% within {span(_p95(day))}"
            yield f'<circle class="dot {name}" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="2.5"><title>{words}</title></circle>'


def _joined(segments: Sequence[str]) -> str:
    """One path of segments; what goes on where the one before ended is not begun anew, so that dashes run through."""
    path, end = "", ""
    for segment in segments:
        begin, _, to = segment[1:].partition("L")
        path += f"L{to}" if begin == end else segment
        end = to
    return path


def _runs(points: Sequence[Backlog]) -> Iterator[list[Backlog]]:
    """The points, apart where there is a gap."""
    run: list[Backlog] = []
    for point in points:
        if run and point.at - run[-1].at > _GAP_SECONDS:
            yield run
            run = []
        run.append(point)
    if run:
        yield run


def _steps(places: Sequence[tuple[float, float]]) -> Iterator[str]:
    """An area below steps, and a dot at its end: what is in the bucket stays there until the next pass."""
    first, last = places[0], places[-1]
    path = f"M{first[0]:.1f} {first[1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in places[1:])
    yield f'<path class="area" d="{path}V{_FLOOR:.1f}H{first[0]:.1f}Z"/>'
    yield f'<path class="line backlog" d="{path}"/>'
    yield f'<circle class="dot backlog" cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="2.5"/>'


def _svg(name: str, title: str, words: str, drawn: Iterable[str]) -> str:
    floor = f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_FLOOR}" y2="{_FLOOR}"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(words)}</desc>'
        f"{''.join(drawn)}{floor}</svg>"
    )


def _grid(ticks: Iterable[tuple[str, float]]) -> Iterator[str]:
    for words, y in ticks:
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _label(_LEFT - 5, y + 4, words, "end")


def _dates(days: Sequence[Day]) -> Iterator[str]:
    """Some dates below the days."""
    slot = (_WIDTH - _LEFT - _RIGHT) / max(len(days), 1)
    for number in range(len(days) - 1 - _DATES_EVERY // 2, -1, -_DATES_EVERY):
        yield _label(_LEFT + (number + 0.5) * slot, _HEIGHT - 6, _date(days[number].date), "middle")


def _label(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _y(share: float) -> float:
    return _FLOOR - share * (_FLOOR - _TOP)


def _whole(most: int) -> tuple[int, Sequence[int]]:
    """The top of a scale from 0, and its ticks: whole numbers, as round as may be."""
    step = 1
    while step * _MOST_TICKS < most:
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    top = max(math.ceil(most / step), 1) * step
    return top, range(0, top + 1, step)


def _delay_ticks(least: float, most: float) -> Sequence[float]:
    """Those of `_DELAYS` that hold both; two at least."""
    low = max((tick for tick in _DELAYS if tick <= least), default=_DELAYS[0])
    high = min((tick for tick in _DELAYS if tick >= most and tick > low), default=_DELAYS[-1])
    low = min(low, _DELAYS[-2])
    return [tick for tick in _DELAYS if low <= tick <= high]


def _short(number: int) -> str:
    """As it fits beside an axis."""
    for letter, size in (("G", 10**9), ("M", 10**6), ("k", 1000)):
        if number >= max(size, 10_000):
            return f"{number / size:g}{letter}"
    return str(number)


def _date(iso: str) -> str:
    date = datetime.date.fromisoformat(iso)
    return f"{date.day} {date:%b}"


def _iso(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).astimezone().date().isoformat()


def _ends(day: Day) -> tuple[int, int, int]:
    return day.ends.delivered, day.ends.quarantined, day.ends.discarded


def _median(day: Day) -> float:
    return day.delay_median or 0.0


def _p95(day: Day) -> float:
    return day.delay_p95 or 0.0
