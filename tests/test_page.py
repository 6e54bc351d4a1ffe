"""The page: whole, safe, and legible whatever is in it."""

import datetime
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from drain.logbook import Pass
from drain.page import page, plots
from drain.page.style import BADGES, CSS, DARK, LIGHT
from drain.status import Backlog, Day, Deferred, Ends, Health, On, Outgoing, Pending, Status

NOW = 1_800_000_000.0
HOSTILE = "</style><script>alert(1)</script><img src=//evil.test onerror='x'>\"'&\x1b[31m\u202e"
EMPTY = Status(
    at=NOW,
    health=Health.CRITICAL,
    concerns=("no pass has come to its end yet",),
    version="0.1.0",
    python="3.11.2",
    schemas={},
    pending=Pending(),
    last_pass=None,
    last_good_pass=None,
    working_at=None,
    deferred=(),
    quarantine={},
    unfinished={},
    missing=0,
    relay=None,
    alerts=(),
    days=(),
    backlog=(),
    troubles=(),
)


def days(*ends: Ends, **more: float) -> tuple[Day, ...]:
    """Thirty days, the last of which are given."""
    today = datetime.datetime.fromtimestamp(NOW).astimezone().date()
    dates = [(today - datetime.timedelta(days=back)).isoformat() for back in range(29, -1, -1)]
    given = (*[Ends()] * (30 - len(ends)), *ends)
    return tuple(
        Day(date, one, **(more if one.delivered else {}))  # type: ignore[arg-type]
        for date, one in zip(dates, given, strict=True)
    )


def rich() -> Status:
    """One with something of everything."""
    ends = [Ends(20 + 7 * (n * n % 11), n % 4, int(n % 9 == 3)) for n in range(30)]
    ends[17] = Ends()
    delays = [
        replace(
            day, delay_median=4.0 + n % 5, delay_p95=30.0 * (1 + n % 7) * (60 if n == 12 else 1), most_pending=n % 6
        )
        if day.ends.delivered
        else day
        for n, day in enumerate(days(*ends))
    ]
    backlog = [
        Backlog(NOW - 30 * 86400 + n * 3600 + 60, 40 * max(0, 12 - abs(n - 290)) + n % 3)
        for n in range(720)
        if not 400 < n < 450
    ]
    last = Pass(NOW - 42, 1.3, 5, 3, NOW - 900, {"delivered": 2, "deferred": 3}, "", "")
    return replace(
        EMPTY,
        health=Health.WARNING,
        concerns=("filter ai: The model at api.example.org does not answer. Mail goes on without it.",),
        schemas={"logbook": 1, "ledger": 3, "relay": 1},
        pending=Pending(3, NOW - 900, NOW - 42),
        last_pass=last,
        last_good_pass=last,
        deferred=(
            Deferred("greylisted", 2, NOW + 300, "451 4.7.1 Greylisted, come back in five minutes"),
            Deferred("clamav", 1, None, "clamd at /run/clamav/clamd.ctl cannot be reached."),
        ),
        quarantine={"spam": 11, "virus": 2, "no-mailbox": 1},
        unfinished={"injecting": 1},
        missing=1,
        relay=Outgoing(2, 1, 1, NOW - 7200, "smtp; 421 4.3.2 <bob@example.org> try again later", 61, 2),
        alerts=(
            On(
                "filter",
                "ai",
                "The model at api.example.org does not answer. Mail goes on without it.",
                0,
                None,
                NOW - 9000,
                NOW - 7200,
            ),
        ),
        days=tuple(delays),
        backlog=tuple(backlog),
    )


class Parsed(HTMLParser):
    """The page's elements, and whether each is closed where it should be."""

    _VOID = frozenset({"meta", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def of(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def examples() -> Iterator[tuple[str, Status]]:
    yield "bare", EMPTY
    yield "empty", replace(EMPTY, days=days())
    yield "rich", rich()
    yield "one-day", replace(rich(), days=days(Ends(1), delay_median=0.0, delay_p95=0.0), backlog=(Backlog(NOW, 0),))
    spike = days(Ends(1), Ends(10**9, 1, 10**9), Ends(0, 0, 1), delay_median=0.01, delay_p95=10.0**9)
    yield "spike", replace(rich(), days=spike, backlog=(Backlog(NOW - 10**6, 10**9), Backlog(NOW, 1)))
    yield "clock-set-back", replace(rich(), at=NOW - 10**6)


@pytest.mark.parametrize(("name", "status"), list(examples()), ids=[name for name, _ in examples()])
def test_the_page_is_well_formed_and_draws_within_its_plots(name: str, status: Status) -> None:
    parsed = Parsed(page(status))
    assert "nan" not in page(status).lower().replace("nang", "")
    for box in parsed.of("rect"):
        x, y, width, height = (float(box[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + width <= 320
        assert 0 <= y <= y + height <= 185
        assert height >= 1.5
    for dot in parsed.of("circle"):
        assert 0 <= float(dot["cx"]) <= 320
        assert 0 <= float(dot["cy"]) <= 185
    for path in parsed.of("path"):
        assert all(-0.1 <= float(number) <= 320 for number in re.findall(r"-?[\d.]+", path["d"]))
    assert len(parsed.of("svg")) == (3 if status.days else 1)


def test_the_page_needs_nothing_from_elsewhere_and_says_so_to_the_browser() -> None:
    html = page(rich())
    parsed = Parsed(html)
    assert parsed.of("script", "img", "iframe", "object", "base", "form") == []
    (policy,) = [meta["content"] for meta in parsed.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert parsed.of("link") == [{"rel": "icon", "href": "data:,"}]
    assert "url(" not in html
    assert "@import" not in html


def hostile_everywhere() -> Status:
    status = rich()
    assert status.relay is not None
    assert status.last_pass is not None
    return replace(
        status,
        concerns=(HOSTILE,),
        pending=replace(status.pending, count=None, trouble=HOSTILE),
        last_pass=replace(status.last_pass, trouble=HOSTILE),
        deferred=(Deferred(HOSTILE, 1, None, HOSTILE),),
        quarantine={HOSTILE: 1},
        unfinished={HOSTILE: 1},
        schemas={HOSTILE: 1},
        relay=replace(status.relay, diagnostic=HOSTILE),
        version=HOSTILE,
        python=HOSTILE,
    )


def test_words_of_strangers_are_escaped_wherever_they_stand() -> None:
    html = page(hostile_everywhere())
    parsed = Parsed(html)
    assert parsed.of("script", "img") == []
    assert parsed.words.count("alert(1)") == 11
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_each_plot_says_in_words_what_it_draws() -> None:
    one_day = days(Ends(4, 2, 1), delay_median=2.0, delay_p95=90.0)
    assert "4 delivered, 2 quarantined, 1 discarded in 30 days" in plots.mails(one_day)[1]
    assert "within 2 s, and 95% within 2 min" in plots.delays(one_day)[1]
    drawn, words = plots.backlog([Backlog(NOW - 7200, 9), Backlog(NOW, 2)], NOW, 30)
    assert words.startswith("2 at last; at most 9, on ")
    assert f'desc">{words}</desc>' in drawn


def test_each_plot_has_a_title_and_a_description_that_are_its_label() -> None:
    parsed = Parsed(page(rich()))
    ids = {attributes["id"] for _, attributes in parsed.elements if "id" in attributes}
    for svg in parsed.of("svg"):
        assert svg["role"] == "img"
        labels = svg["aria-labelledby"].split()
        assert len(labels) == 2
        assert set(labels) <= ids


def test_a_line_is_broken_where_nothing_is_known() -> None:
    known = days(*[Ends(1)] * 5, delay_median=1.0, delay_p95=1.0)
    gap = [replace(day, delay_median=None, delay_p95=None) if n == 27 else day for n, day in enumerate(known)]
    (whole,) = re.findall(r'class="line median" d="([^"]*)"', plots.delays(known)[0])
    (broken,) = re.findall(r'class="line median" d="([^"]*)"', plots.delays(gap)[0])
    assert (whole.count("M"), broken.count("M")) == (1, 2)
    passes = [Backlog(NOW - 86400 * day, 1) for day in (9, 8, 3, 2)]
    assert plots.backlog(passes, NOW, 30)[0].count('class="line backlog"') == 2


def test_a_day_with_more_mail_has_the_higher_bar() -> None:
    drawn = plots.mails(days(Ends(10), Ends(20), Ends(40)))[0]
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"/>', drawn)]
    assert heights[0] * 2 == pytest.approx(heights[1], abs=0.2)
    assert heights[1] * 2 == pytest.approx(heights[2], abs=0.2)


@pytest.mark.parametrize(
    ("most", "top"),
    [(0, "1"), (1, "1"), (5, "6"), (87, "100"), (9999, "10k"), (423_458, "600k"), (123_456_789_000, "150G")],
)
def test_a_scale_ends_at_a_round_number_above_the_highest_bar(most: int, top: str) -> None:
    labels = re.findall(r'text-anchor="end">([^<]*)<', plots.mails(days(Ends(most)))[0])
    assert labels[0] == "0"
    assert labels[-1] == top
    assert len(labels) <= 5


def test_delays_lie_on_a_logarithmic_scale() -> None:
    drawn = plots.delays(days(Ends(1), delay_median=1.0, delay_p95=600.0))[0]
    p95, median = (float(y) for y in re.findall(r'cy="([\d.]+)"', drawn))
    labels = {words: float(y) - 4 for y, words in re.findall(r'y="([\d.]+)" text-anchor="end">([^<]*)<', drawn)}
    assert labels["1 s"] == pytest.approx(median, abs=0.1)
    assert labels["10 min"] == pytest.approx(p95, abs=0.1)
    assert labels["10 s"] == pytest.approx(median - (median - p95) / 2.778, abs=0.2)


# -- colours, as WCAG 2.2 reckons them: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio --


def channels(colour: str) -> list[float]:
    """The linear parts of an sRGB colour."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def luminance(colour: str) -> float:
    red, green, blue = channels(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_words_and_plots_have_the_contrast_of_level_aa(colours: dict[str, str]) -> None:
    for ground in ("ground", "card"):
        for words in ("ink", "muted"):
            assert contrast(colours[words], colours[ground]) >= 4.5
    for drawn in ("delivered", "quarantined", "discarded", "median", "p95", "backlog"):
        assert contrast(colours[drawn], colours["card"]) >= 3
    for badge in BADGES.values():
        assert contrast(badge, "#ffffff") >= 4.5


# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
BLINDNESS = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}


def lab(linear: list[float]) -> tuple[float, float, float]:
    """CIELAB of linear sRGB (IEC 61966-2-1, D65)."""
    red, green, blue = (min(max(part, 0.0), 1.0) for part in linear)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_what_stands_side_by_side_is_told_apart_by_the_colour_blind(colours: dict[str, str], kind: str) -> None:
    def seen(name: str) -> tuple[float, float, float]:
        linear = channels(colours[name])
        return lab([sum(w * part for w, part in zip(row, linear, strict=True)) for row in BLINDNESS[kind]])

    for one, other in (
        ("delivered", "quarantined"),
        ("quarantined", "discarded"),
        ("delivered", "discarded"),
        ("median", "p95"),
    ):
        difference = sum((a - b) ** 2 for a, b in zip(seen(one), seen(other), strict=True)) ** 0.5
        assert difference > 15, (one, other)


def test_the_style_has_both_themes() -> None:
    assert "prefers-color-scheme:dark" in CSS
    assert LIGHT.keys() == DARK.keys()
    used = set(re.findall(r"var\(--(\w+)\)", CSS))
    assert used == LIGHT.keys()
