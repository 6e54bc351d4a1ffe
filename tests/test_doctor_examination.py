"""`drain doctor`: the checks together, what holds one up, and how it is shown."""

import argparse
import io
import json
from pathlib import Path

import pytest

from drain.commands.doctor import doctor
from drain.doctor import examination
from drain.doctor.finding import Finding, Level
from drain.show import doctor as show
from tests.test_doctor_settings import ENVIRON, without


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {**ENVIRON, "STATE_DIR": str(tmp_path), **more}


def test_every_check_says_unknown_for_what_it_lacks_and_none_is_ok(tmp_path: Path) -> None:
    found = list(
        examination.examine(
            {"DRAIN_ENV_FILE": "/dev/null", "STATE_DIR": str(tmp_path)},
            ["clock", "bucket", "lifecycle", "server", "dns"],
        )
    )
    assert [(finding.check, finding.level) for finding in found] == [
        (name, Level.UNKNOWN) for name in ("clock", "bucket", "lifecycle", "server", "dns")
    ]
    assert "R2_BUCKET" in found[1].words
    assert "INJECT_PASS" in found[3].words
    assert all(finding.next for finding in found)


@pytest.mark.parametrize(
    ("lacking", "check"),
    [
        ("R2_SECRET_ACCESS_KEY", "bucket"),
        ("R2_BUCKET", "lifecycle"),
        ("INJECT_USER", "server"),
        ("MAIL_DOMAIN", "dns"),
    ],
)
def test_a_check_is_held_up_by_its_own_settings_only(tmp_path: Path, lacking: str, check: str) -> None:
    lame = {**without(lacking), "STATE_DIR": str(tmp_path)}
    (finding,) = examination.examine(lame, [check])
    assert finding.level is Level.UNKNOWN
    assert lacking in finding.words
    assert {finding.level for finding in examination.examine(lame, ["lock", "disk", "ledger"])} == {Level.OK}


def test_a_wrong_setting_is_not_replaced_by_its_default_unseen(tmp_path: Path) -> None:
    (finding,) = examination.examine(environ(tmp_path, INJECT_PORT="9125x"), ["server"])
    assert finding.level is Level.UNKNOWN
    assert "INJECT_PORT" in finding.words


def test_a_token_that_is_wrong_is_not_taken_for_none(tmp_path: Path) -> None:
    (finding,) = examination.examine(environ(tmp_path, ORIGIN_TOKEN="a,b,c"), ["keys"])
    assert finding.level is Level.UNKNOWN
    assert "ORIGIN_TOKEN" in finding.words


def test_no_password_is_shown_to_anybody_while_settings_contradict_each_other(tmp_path: Path) -> None:
    lame = environ(tmp_path, INJECT_TLS="none", INJECT_HOST="192.0.2.1")
    found = list(examination.examine(lame, ["server", "bucket", "lifecycle", "filters", "upstream", "imap"]))
    assert len(found) == 6
    assert {finding.level for finding in found} == {Level.UNKNOWN}
    assert all("contradict" in finding.words for finding in found)


def test_what_a_part_says_of_its_settings_is_unknown_and_not_the_end(tmp_path: Path) -> None:
    found = list(examination.examine(environ(tmp_path, MAIL_ALIASES_FILE="/nowhere"), ["server", "lock"]))
    assert [finding.level for finding in found] == [Level.UNKNOWN, Level.OK]
    assert "/nowhere" in found[0].words


def test_a_crash_in_one_check_is_a_finding_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_config: object, _environ: object) -> list[Finding]:
        raise ZeroDivisionError("a\x1b[2J bug")

    broken = examination._Check("dns", crash)
    checks = [broken if check.name == "dns" else check for check in examination._CHECKS]
    monkeypatch.setattr(examination, "_CHECKS", checks)
    crashed, after = examination.examine(environ(tmp_path), ["dns", "lock"])
    assert (crashed.check, crashed.level) == ("dns", Level.UNKNOWN)
    assert "ZeroDivisionError: a [2J bug" in crashed.words
    assert "bug" in crashed.next
    assert after.level is Level.OK


def test_a_finding_has_the_name_by_which_its_check_is_chosen(tmp_path: Path) -> None:
    for name in ("configuration", "files", "ledger", "keys", "disk", "lock", "filters", "alerts"):
        assert {finding.check for finding in examination.examine(environ(tmp_path), [name])} == {name}


def test_a_drain_that_only_sends_is_not_asked_for_its_bucket() -> None:
    sends = {name: text for name, text in ENVIRON.items() if not name.startswith("R2_")}
    sends |= {"RELAY_UPSTREAM": "resend", "RELAY_API_KEY": "k"}
    assert not list(examination.examine(sends, ["clock", "bucket", "lifecycle", "keys"]))


def test_what_is_not_set_up_has_no_finding(tmp_path: Path) -> None:
    assert not list(examination.examine(environ(tmp_path), ["upstream", "relay", "imap", "termux"]))


def test_an_alert_that_nobody_would_be_told_of_is_a_warning(tmp_path: Path) -> None:
    (finding,) = examination.examine(environ(tmp_path), ["alerts"])
    assert finding.level is Level.WARNING
    assert "NTFY_URL" in finding.next


# -- the command --


def run(environ_: dict[str, str], only: str, *, as_json: bool = False) -> int:
    return doctor(argparse.Namespace(only=only, json=as_json), environ_)


def test_the_exit_code_is_that_of_the_worst(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(environ(tmp_path), "lock") == 0
    assert run(environ(tmp_path), "lock,alerts") == 1
    assert run(environ(tmp_path, INJECT_PORT="x"), "lock,server") == 1
    assert run(environ(tmp_path), "alerts,keys") == 2
    assert capsys.readouterr().out.endswith("0 ok, 1 warning, 1 failure, 0 unknown.\n")


def test_json_is_an_object_a_finding_and_the_totals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(environ(tmp_path), "lock,keys", as_json=True) == 2
    *findings, totals = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["check"], one["level"]) for one in findings] == [("keys", "failure"), ("lock", "ok")]
    assert set(findings[0]) == {"check", "level", "words", "next"}
    assert totals == {"ok": 1, "warning": 0, "failure": 1, "unknown": 0, "exit": 2}


@pytest.mark.parametrize("only", ["nonsense", "lock,nonsense", ",", "Lock"])
def test_a_check_that_there_is_none_of_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], only: str
) -> None:
    assert run(environ(tmp_path), only) == 64
    told = capsys.readouterr()
    assert not told.out
    assert all(name in told.err for name in examination.NAMES)


def test_the_checks_are_those_of_the_issue_and_in_its_order() -> None:
    names = [name for name in examination.NAMES if name not in ("ledger", "relay", "imap", "alerts", "passes")]
    order = "configuration files clock bucket lifecycle keys server dns filters upstream disk lock termux systemd"
    assert names == order.split()


def shown(*findings: Finding) -> str:
    stream = io.StringIO()
    for one in findings:
        show.finding(one.check, one.level, one.words, one.next, stream)
    return stream.getvalue()


def test_each_level_has_a_sign_and_a_word_and_the_next_step_below() -> None:
    lines = shown(
        Finding("disk", Level.OK, "fine"),
        Finding("disk", Level.WARNING, "little", "make room"),
        Finding("disk", Level.FAILURE, "none", "make [bold]room"),
        Finding("disk", Level.UNKNOWN, "who knows", "look"),
    ).splitlines()
    assert lines == [
        "+ ok      disk: fine",
        "! warning disk: little",
        "          -> make room",
        "x failure disk: none",
        "          -> make [bold]room",
        "? unknown disk: who knows",
        "          -> look",
    ]


def test_what_a_stranger_says_is_made_safe_and_a_command_is_not_broken() -> None:
    command = "chmod 600 " + "x" * 300
    told = shown(Finding("server", Level.FAILURE, "it said \x1b[2J", command))
    assert "\x1b" not in told
    assert f"-> {command}\n" in told


def test_it_can_be_shown_where_there_is_only_ascii() -> None:
    shown(Finding("disk", Level.FAILURE, "fine", "next")).encode("ascii")
