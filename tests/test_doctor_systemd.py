"""`drain doctor`: systemd, by programs that answer as it does."""

import shlex
from pathlib import Path

import pytest

from drain.doctor import systemd
from drain.doctor.finding import Finding, Level

# As systemctl(1) 252 answers `show` for two units, one of them not there.
NOT_THERE = "Id={}\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n"


def unit(name: str, enabled: str, active: str) -> str:
    return f"Id={name}\nLoadState=loaded\nActiveState={active}\nUnitFileState={enabled}\n"


def both(timer: str, service: str) -> str:
    return f"{timer or NOT_THERE.format('drain.timer')}\n{service or NOT_THERE.format('drain.service')}"


NONE = both("", "")


class Box:
    """A machine with systemd, as far as the check can see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "booted", "journal"):
            (folder / name).mkdir()
        self.environ = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}

    def answers(self, system: str | None = NONE, user: str | None = NONE, linger: str | None = "Linger=yes") -> None:
        cases = {"--user": user, "--no-pager": system}
        body = "".join(
            f"{first}) {'exit 1' if said is None else f'printf %s {shlex.quote(said)}'} ;;\n"
            for first, said in cases.items()
        )
        self._program("systemctl", f'case "$1" in\n{body}esac\n')
        self._program("loginctl", "exit 1\n" if linger is None else f"echo {linger}\n")

    def _program(self, name: str, body: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}")
        path.chmod(0o755)

    def looked(self) -> list[Finding]:
        place = self.folder
        return list(systemd.check(self.environ, booted=place / "booted", journal=place / "journal"))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


TIMER = unit("drain.timer", "enabled", "active")
SERVICE = unit("drain.service", "static", "inactive")


def levels(found: list[Finding]) -> list[Level]:
    return [finding.level for finding in found]


@pytest.mark.parametrize(
    ("timer", "service"),
    [(TIMER, SERVICE), ("", unit("drain.service", "enabled", "active"))],
    ids=["timer", "service"],
)
def test_a_unit_that_is_enabled_and_active_is_ok(box: Box, timer: str, service: str) -> None:
    box.answers(both(timer, service))
    found = box.looked()
    assert levels(found) == [Level.OK, Level.OK]
    assert "enabled and active" in found[0].words


def test_without_systemd_there_is_nothing_to_say(box: Box) -> None:
    box.answers()
    (box.folder / "booted").rmdir()
    assert box.looked() == []


def test_no_unit_at_all_is_a_warning(box: Box) -> None:
    box.answers()
    (finding,) = box.looked()
    assert finding.level is Level.WARNING
    assert "nothing starts drain after a boot" in finding.words


def test_a_timer_that_is_not_enabled_is_a_warning_with_the_command(box: Box) -> None:
    box.answers(both(unit("drain.timer", "disabled", "active"), SERVICE))
    finding = box.looked()[0]
    assert (finding.level, finding.next) == (Level.WARNING, "sudo systemctl enable --now drain.timer")


def test_a_timer_that_is_enabled_and_not_active_is_a_warning(box: Box) -> None:
    box.answers(both(unit("drain.timer", "enabled", "inactive"), SERVICE))
    finding = box.looked()[0]
    assert (finding.level, finding.next) == (Level.WARNING, "sudo systemctl start drain.timer")


def test_a_service_that_failed_is_a_failure(box: Box) -> None:
    box.answers(both(TIMER, unit("drain.service", "static", "failed")))
    found = box.looked()
    assert levels(found) == [Level.FAILURE, Level.OK, Level.OK]
    assert found[0].next == "journalctl -u drain.service -e says why."


def test_a_unit_of_a_user_needs_linger(box: Box) -> None:
    box.answers(user=both(TIMER, SERVICE))
    assert levels(box.looked()) == [Level.OK, Level.OK, Level.OK]
    box.answers(user=both(TIMER, SERVICE), linger="Linger=no")
    finding = box.looked()[1]
    assert (finding.level, finding.next) == (Level.WARNING, "loginctl enable-linger")
    box.answers(user=both(TIMER, SERVICE), linger=None)
    assert box.looked()[1].level is Level.UNKNOWN


def test_a_user_s_systemd_that_does_not_answer_is_as_if_it_had_no_units(box: Box) -> None:
    box.answers(both(TIMER, SERVICE), user=None)
    assert levels(box.looked()) == [Level.OK, Level.OK]


def test_where_neither_has_units_as_far_as_can_be_asked_it_is_unknown(box: Box) -> None:
    box.answers(user=None)
    (finding,) = box.looked()
    assert finding.level is Level.UNKNOWN
    assert "did not answer" in finding.words


def test_a_service_that_crashes_and_is_started_again_is_a_failure(box: Box) -> None:
    crashing = unit("drain.service", "enabled", "activating") + "SubState=auto-restart\n"
    box.answers(both("", crashing))
    found = box.looked()
    assert found[0].level is Level.FAILURE
    assert "started again and again" in found[0].words
    assert Level.OK not in levels(found[:-1])


def test_a_systemd_that_does_not_answer_is_unknown(box: Box) -> None:
    box.answers(system=None)
    (finding,) = box.looked()
    assert finding.level is Level.UNKNOWN


def test_a_journal_in_memory_is_a_warning(box: Box) -> None:
    box.answers(both(TIMER, SERVICE))
    (box.folder / "journal").rmdir()
    finding = box.looked()[-1]
    assert finding.level is Level.WARNING
    assert f"mkdir -p {box.folder / 'journal'}" in finding.next
