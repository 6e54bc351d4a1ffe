"""The bench's arithmetic: what becomes of measured values on their way into the table."""

import contextlib
import math
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import ledgers, works
from bench.figures import AT_LEAST, AT_MOST, Figure, Goal, Row, Turn, Work, mib, scaled, table
from bench.runs import RunFailed
from drain.history import Search
from drain.ledger import Ledger
from drain.state import State

STAGE: Any = None


def row(*values: float, goal: Goal | None = None, error: str = "") -> Row:
    return Row("work", Figure("figure", goal), values, error)


def work(*rounds: Mapping[str, float] | Exception) -> Work:
    """Work that gives these, round by round."""

    def measure(_stage: Any, turn: Turn) -> Mapping[str, float]:
        found = rounds[turn.number - 1]
        if isinstance(found, Exception):
            raise found
        return found

    return Work("name", "what", measure, (Figure("often"), Figure("once")))


def test_a_value_is_the_median_so_that_one_bad_round_says_nothing() -> None:
    assert row(1.0, 90.0, 2.0).value == 2.0
    assert row(1.0, 2.0).value == 1.5


@pytest.mark.parametrize(
    ("sign", "value", "met"),
    [(AT_LEAST, 49.9, False), (AT_LEAST, 50.0, True), (AT_MOST, 50.0, True), (AT_MOST, 50.1, False)],
)
def test_a_goal_is_met_by_the_median_up_to_the_very_value(sign: str, value: float, *, met: bool) -> None:
    assert row(0.0, value, 1000.0, goal=Goal(sign, 50.0)).met is met


def test_without_a_goal_nothing_is_met_or_missed() -> None:
    assert row(1.0).met is None


def test_an_error_meets_no_goal_and_has_no_value() -> None:
    failed = row(60.0, goal=Goal(AT_LEAST, 50.0), error="A mail is lost.")
    assert failed.value is None
    assert failed.met is False
    assert failed.as_json()["error"] == "A mail is lost."


def test_what_a_few_mails_took_is_scaled_without_counting_the_start_again() -> None:
    start, each = 0.3, 0.95
    assert math.isclose(scaled(start + 20 * each, start + 40 * each, 20, 40, 500), start + 500 * each)


def test_a_mib_is_no_mb() -> None:
    assert mib(160 * 1024 * 1024) == 160.0


def test_the_table_says_what_was_measured_what_was_wanted_and_how_it_spread() -> None:
    figure = Figure("CPU, drain ÷ peer", Goal(AT_MOST, 1.0), note="Of user and system.")
    shown = table([Row("500 mails", figure, (0.5, 0.75, 1.5)), Row("500 mails", Figure("time", unit="s"), (1234.5,))])
    assert shown[0].split() == ["work", "figure", "goal", "median", "min-max", "met"]
    assert shown[1].split() == ["500", "mails", "CPU,", "drain", "÷", "peer", "[1]", "≤", "1", "0.75", "0.5-1.5", "yes"]
    assert shown[2].split() == ["500", "mails", "time", "1,234", "s"]
    assert shown[3:] == ["", "[1] Of user and system."]


def test_the_table_shows_a_missed_goal_and_an_error_apart() -> None:
    missed, failed = row(2.0, goal=Goal(AT_MOST, 1.0)), row(goal=Goal(AT_MOST, 1.0), error="A mail is lost.")
    shown = table([missed, failed])
    assert shown[1].split()[-1] == "NO"
    assert shown[2].split()[-1] == "error"
    assert shown[-1] == "[1] error: A mail is lost."


def test_each_round_gives_one_value_and_what_only_the_first_measures_has_one() -> None:
    often, once = works.measured(work({"often": 1.0, "once": 7.0}, {"often": 2.0}), STAGE, 2, quick=False)
    assert often.values == (1.0, 2.0)
    assert once.values == (7.0,)


@pytest.mark.parametrize("error", [RunFailed("A mail is lost."), RuntimeError("A mail is lost.")])
def test_a_round_that_fails_makes_errors_of_all_figures_of_its_work(error: Exception) -> None:
    rows = works.measured(work({"often": 1.0, "once": 7.0}, error), STAGE, 3, quick=False)
    assert [(row.error, row.value) for row in rows] == [("A mail is lost.", None)] * 2


def test_a_figure_that_nobody_measured_is_an_error() -> None:
    _, once = works.measured(work({"often": 1.0}), STAGE, 1, quick=False)
    assert once.error == "It was not measured."


def test_a_ledger_made_for_the_bench_is_like_one_that_drain_has_filled(tmp_path: Path) -> None:
    ledgers.make(tmp_path / "made.db", 20)
    with contextlib.closing(Ledger(tmp_path / "made.db")) as ledger, contextlib.closing(Ledger(tmp_path / "new.db")):
        assert ledger.counts() == {State.SETTLED: 20}
        (found,) = ledger.history.search(Search(), 1)
        events = [(event.what, event.words) for event in ledger.history.of(found.row.identity)]
        assert events == [("injecting", found.row.mailbox), ("delivered", found.row.words), ("settled", "")]
    assert schema(tmp_path / "made.db") == schema(tmp_path / "new.db")


def schema(path: Path) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return sorted(db.execute("SELECT name, coalesce(sql, '') FROM sqlite_master"))


def test_no_two_works_or_figures_have_one_name() -> None:
    names = [(work.what, figure.name) for work in works.WORKS.values() for figure in work.figures]
    assert len(names) == len(set(names)) > 11
