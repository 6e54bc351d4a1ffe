"""`drain doctor`: systemd, by programs that answer as it does."""

import shlex
from pathlib import Path

import pytest

from drain.doctor import systemd
from drain.doctor.finding import Finding, Level

# As systemctl(1) 252 answers `show`, also for a unit that is not there.
NOT_THERE = "Id={}\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n"
UNITS = ("drain.service", "drain.timer", "drain-once.service", "drain-relay.service")


def unit(name: str, enabled: str, active: str, **more: str) -> str:
    also = "".join(f"{key}={value}\n" for key, value in more.items())
    return f"Id={name}\nLoadState=loaded\nActiveState={active}\nUnitFileState={enabled}\n{also}"


def all_of(*there: str) -> str:
    """What is said of these, and of drain's other units, which are not there."""
    named = {answer.partition("\n")[0].removeprefix("Id="): answer for answer in there}
    return "\n".join(named.get(name, NOT_THERE.format(name)) for name in UNITS)


NONE = all_of()


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
        self._program("systemctl", f'echo "$*" >>{shlex.quote(str(self.folder / "asked"))}\ncase "$1" in\n{body}esac\n')
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


SERVICE = unit("drain.service", "enabled", "active")
TIMER = unit("drain.timer", "enabled", "active")
ONCE = unit("drain-once.service", "static", "inactive")
OFF = (unit("drain.service", "disabled", "inactive"), unit("drain.timer", "disabled", "inactive"), ONCE)


def levels(found: list[Finding]) -> list[Level]:
    return [finding.level for finding in found]


@pytest.mark.parametrize("units", [(TIMER, OFF[0], ONCE), (SERVICE, OFF[1], ONCE)], ids=["timer", "service"])
def test_a_unit_that_is_enabled_and_active_is_ok(box: Box, units: tuple[str, ...]) -> None:
    box.answers(all_of(*units))
    found = box.looked()
    assert levels(found) == [Level.OK, Level.OK]
    assert "enabled and active" in found[0].words


def test_all_units_that_run_drain_are_asked_about(box: Box) -> None:
    box.answers(all_of(TIMER))
    box.looked()
    asked = (box.folder / "asked").read_text().splitlines()
    assert len(asked) == 2
    assert all(set(UNITS) <= set(line.split()) for line in asked)


def test_without_systemd_there_is_nothing_to_say(box: Box) -> None:
    box.answers()
    (box.folder / "booted").rmdir()
    assert box.looked() == []


@pytest.mark.parametrize("units", [(), (unit("drain-relay.service", "enabled", "active"),)], ids=["none", "relay"])
def test_where_no_unit_looks_for_mail_it_is_a_warning(box: Box, units: tuple[str, ...]) -> None:
    box.answers(all_of(*units))
    (finding,) = box.looked()
    assert finding.level is Level.WARNING
    assert "nothing starts drain after a boot" in finding.words


def test_units_that_are_not_enabled_are_a_warning_with_the_command(box: Box) -> None:
    box.answers(all_of(*OFF))
    finding = box.looked()[0]
    assert (finding.level, finding.next) == (Level.WARNING, "sudo systemctl enable --now drain.service")


def test_a_timer_that_is_enabled_and_not_active_is_a_warning(box: Box) -> None:
    box.answers(all_of(OFF[0], unit("drain.timer", "enabled", "inactive"), ONCE))
    finding = box.looked()[0]
    assert (finding.level, finding.next) == (Level.WARNING, "sudo systemctl start drain.timer")


@pytest.mark.parametrize("name", ["drain-once.service", "drain-relay.service"])
def test_a_service_that_failed_beside_a_timer_is_a_failure(box: Box, name: str) -> None:
    box.answers(all_of(TIMER, unit(name, "static", "failed", ExecMainStatus="70")))
    found = box.looked()
    assert levels(found) == [Level.FAILURE, Level.OK, Level.OK]
    assert found[0].words == f"{name} has failed."
    assert found[0].next == (
        f"sudo journalctl -u {name} -e says why. Then: "
        f"sudo systemctl reset-failed {name}; sudo systemctl restart {name}"
    )


@pytest.mark.parametrize(("code", "meaning"), [("77", "refused the credentials"), ("78", "configuration is wrong")])
def test_a_service_that_is_not_started_again_says_what_to_mend(box: Box, code: str, meaning: str) -> None:
    box.answers(user=all_of(unit("drain.service", "enabled", "failed", ExecMainStatus=code)))
    found = box.looked()
    assert levels(found) == [Level.FAILURE, Level.OK, Level.OK]  # linger, and the journal
    assert meaning in found[0].words
    assert f"(exit code {code}). It stays down until you start it." in found[0].words
    assert found[0].next.startswith("journalctl --user -u drain.service -e says which. Mend it, then: ")
    assert found[0].next.endswith("systemctl --user restart drain.service")


def test_a_unit_of_a_user_needs_linger(box: Box) -> None:
    box.answers(user=all_of(TIMER, ONCE))
    assert levels(box.looked()) == [Level.OK, Level.OK, Level.OK]
    box.answers(user=all_of(TIMER, ONCE), linger="Linger=no")
    finding = box.looked()[1]
    assert (finding.level, finding.next) == (Level.WARNING, "loginctl enable-linger")
    box.answers(user=all_of(TIMER, ONCE), linger=None)
    assert box.looked()[1].level is Level.UNKNOWN


def test_a_user_s_systemd_that_does_not_answer_is_as_if_it_had_no_units(box: Box) -> None:
    box.answers(all_of(TIMER, ONCE), user=None)
    assert levels(box.looked()) == [Level.OK, Level.OK]


def test_where_neither_has_units_as_far_as_can_be_asked_it_is_unknown(box: Box) -> None:
    box.answers(user=None)
    (finding,) = box.looked()
    assert finding.level is Level.UNKNOWN
    assert "did not answer" in finding.words


def test_a_service_that_crashes_and_is_started_again_is_a_failure(box: Box) -> None:
    box.answers(all_of(unit("drain.service", "enabled", "activating", SubState="auto-restart")))
    found = box.looked()
    assert found[0].level is Level.FAILURE
    assert "started again and again" in found[0].words
    assert Level.OK not in levels(found[:-1])


def test_a_systemd_that_does_not_answer_is_unknown(box: Box) -> None:
    box.answers(system=None)
    (finding,) = box.looked()
    assert finding.level is Level.UNKNOWN


def test_a_journal_in_memory_is_a_warning(box: Box) -> None:
    box.answers(all_of(TIMER, ONCE))
    (box.folder / "journal").rmdir()
    finding = box.looked()[-1]
    assert finding.level is Level.WARNING
    assert f"mkdir -p {box.folder / 'journal'}" in finding.next
