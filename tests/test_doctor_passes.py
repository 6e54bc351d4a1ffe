"""doctor's look at passes."""

import dataclasses
from pathlib import Path

import pytest

from drain.doctor import passes
from drain.doctor.finding import Level
from drain.logbook import Pass
from drain.status import Status
from tests.test_page import NOW, rich

GOOD = Pass(NOW - 60, 1.0, 0, 0, None, {}, "", "")


def status(**more: object) -> Status:
    return dataclasses.replace(rich(), at=NOW, last_good_pass=GOOD, working_at=None, alerts=(), **more)  # type: ignore[arg-type]


def test_a_pass_a_minute_ago_is_ok() -> None:
    (finding,) = passes.check(status(), 7200.0, {})
    assert finding.level is Level.OK


@pytest.mark.parametrize(("good", "level"), [(None, Level.WARNING), (GOOD, Level.FAILURE)])
def test_none_yet_is_a_warning_and_none_for_long_a_failure(good: Pass | None, level: Level) -> None:
    long_ago = good and dataclasses.replace(good, at=NOW - 7300)
    (finding,) = passes.check(dataclasses.replace(status(), last_good_pass=long_ago), 7200.0, {})
    assert finding.level is level
    assert finding.next


def test_an_alert_that_is_on_is_a_warning_with_its_words() -> None:
    found = dataclasses.replace(status(), alerts=rich().alerts)
    _, finding = passes.check(found, 7200.0, {})
    assert finding.level is Level.WARNING
    assert rich().alerts[0].words in finding.words


def test_a_long_pass_that_gets_on_is_ok() -> None:
    long_ago = dataclasses.replace(GOOD, at=NOW - 90_000)
    found = dataclasses.replace(status(), last_good_pass=long_ago, working_at=NOW - 100)
    assert [finding.level for finding in passes.check(found, 7200.0, {})] == [Level.OK]


def test_a_file_that_cannot_be_written_after_passes_is_a_failure(tmp_path: Path) -> None:
    named = {"METRICS_FILE": str(tmp_path / "there.prom"), "STATUS_HTML": str(tmp_path / "nowhere" / "page.html")}
    _, finding = passes.check(status(), 7200.0, named)
    assert finding.level is Level.FAILURE
    assert "STATUS_HTML" in finding.words
