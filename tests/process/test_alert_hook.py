"""Hooks as processes: MAIL_ALERT_CMD with every fault, and the examples that come with drain."""

import contextlib
import ctypes
import dataclasses
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from drain.alerts import hook as hook_module
from drain.alerts.alert import Alert, AlertState, Kind, NotSent
from drain.alerts.hook import Hook
from tests.support import ended, until

ROOT = Path(__file__).parents[2]
TERMUX, SYSTEMD = ROOT / "termux" / "alert.sh", ROOT / "systemd" / "alert.sh"
UNIT = ROOT / "systemd" / "system" / "drain-failed@.service"
ALERT = Alert(Kind.BACKLOG_AGE, "", AlertState.ON, "12 mails wait.", 12, 3600.0, 1_800_000_000.0)
MEGABYTE = 1024 * 1024
# As long as a hook may take in these tests, beside the grace after SIGTERM.
LIMIT, GRACE = 0.6, 0.4


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_module, "_SECONDS", LIMIT)
    monkeypatch.setattr(hook_module, "_GRACE_SECONDS", GRACE)


class Folder:
    """Where a test's hooks run and what they leave."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.output = path / "state" / "alerts.out"

    def run(
        self, command: str, told: Alert = ALERT, stopped: Callable[[], bool] = lambda: False, prefix: str = "drain"
    ) -> None:
        Hook(f"cd '{self.path}'\n{command}", prefix, self.output).send(told, stopped)

    def failure(self, command: str, **more: Any) -> str:
        with pytest.raises(NotSent) as caught:
            self.run(command, **more)
        assert str(caught.value).startswith("MAIL_ALERT_CMD ")
        assert str(caught.value).endswith(".")
        return str(caught.value)

    def left(self, name: str) -> str:
        return (self.path / name).read_text()

    def dead(self, name: str) -> bool:
        """Whether the process whose id is in that file has ended; SIGKILL takes a moment."""
        with contextlib.suppress(AssertionError):
            until(lambda: ended(int(self.left(name))), 5)
        return ended(int(self.left(name)))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def clock() -> Callable[[], float]:
    begin = time.monotonic()
    return lambda: time.monotonic() - begin


Clock = Callable[[], float]


# -- what it is told --


def test_it_is_told_on_standard_input_and_in_its_environment(folder: Folder) -> None:
    folder.run("cat > stdin; env > env", prefix="drain on pi")
    assert folder.left("stdin") == "drain on pi: 12 mails wait.\n"
    environment = dict(line.split("=", 1) for line in folder.left("env").splitlines() if line.startswith("MAIL_"))
    assert environment == {
        "MAIL_ALERT_MSG": "drain on pi: 12 mails wait.",
        "MAIL_ALERT_KIND": "backlog-age",
        "MAIL_ALERT_SUBJECT": "",
        "MAIL_ALERT_STATE": "on",
        "MAIL_ALERT_COUNT": "12",
        "MAIL_ALERT_OLDEST_SECONDS": "3600",
    }


def test_words_from_outside_are_no_commands(folder: Folder) -> None:
    words = "$(touch evil); `touch evil` '\"; touch evil #"
    folder.run("cat > stdin", dataclasses.replace(ALERT, words=words, subject=words))
    assert folder.left("stdin") == f"drain: {words}\n"
    assert not (folder.path / "evil").exists()


def test_it_sees_no_secret_of_drains(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INJECT_PASS", "s3cret-1")
    monkeypatch.setenv("NTFY_TOKEN_FILE", "s3cret-2")
    monkeypatch.setenv("NOTIFY_SOCKET", "s3cret-3")
    monkeypatch.setenv("R2_BUCKET", "mail")
    folder.run("env > env; tr '\\0' '\\n' < /proc/$$/environ > first")
    assert "s3cret" not in folder.left("env") + folder.left("first")
    assert "R2_BUCKET=mail" in folder.left("env")


def test_it_leads_a_session_of_its_own(folder: Folder) -> None:
    folder.run("echo $$ > pid; cut -d' ' -f5,6 /proc/$$/stat > ids")
    pid = folder.left("pid").strip()
    assert folder.left("ids").split() == [pid, pid]


def test_it_inherits_no_file_of_drains(folder: Folder) -> None:
    with (folder.path / "of drain").open("w") as file:
        os.set_inheritable(file.fileno(), False)  # as Python opens all
        folder.run("ls -l /proc/self/fd > fds")
    assert "of drain" not in folder.left("fds")
    assert "pipe:" in folder.left("fds"), "its standard input"


# -- what it does not have to do --


def test_a_hook_that_reads_nothing_is_not_waited_for(folder: Folder, clock: Clock) -> None:
    folder.run("exit 0", dataclasses.replace(ALERT, words="\N{OK HAND SIGN}" * 5000))
    assert clock() < LIMIT


def test_a_hook_may_close_its_input_and_its_output(folder: Folder) -> None:
    folder.run("exec <&- >&- 2>&-; touch done")
    assert (folder.path / "done").exists()


# -- how it fails --


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo first; echo 'no phone here\x1b[2J' >&2; echo; exit 3", "ended with exit code 3: no phone here [2J."),
        ("exit 1", "ended with exit code 1."),
        ("kill -9 $$", "was killed by SIGKILL."),
        ("kill -TERM $$", "was killed by SIGTERM."),
        ("kill -40 $$", "was killed by signal 40."),
        ("no-such-command --at all", "names a command that is not there: "),
        ("touch plain; ./plain", "names a file that cannot be executed: "),
        ("if then", "ended with exit code 2: "),
    ],
)
def test_a_hook_that_fails_is_named_with_its_last_words(folder: Folder, command: str, words: str) -> None:
    assert words in folder.failure(command)


def test_a_shell_that_is_not_there_is_not_sent(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder.path))
    monkeypatch.setenv("PREFIX", str(folder.path / "usr"))
    assert folder.failure("exit 0") == "MAIL_ALERT_CMD cannot be run: No such file or directory."


def test_the_shell_is_found_where_termux_has_it(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.path / "usr" / "bin").mkdir(parents=True)
    (folder.path / "usr" / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("PREFIX", str(folder.path / "usr"))
    folder.run("echo yes > ran")
    assert folder.left("ran") == "yes\n"


# -- how long it may take --


def test_a_hook_that_hangs_is_ended_in_time(folder: Folder, clock: Clock) -> None:
    words = folder.failure("echo $$ > pid; echo calling home; sleep 60")
    assert words == f"MAIL_ALERT_CMD did not end within {LIMIT} s, and was killed: calling home."
    assert LIMIT < clock() < LIMIT + GRACE
    assert folder.dead("pid")


def test_a_hook_that_ignores_sigterm_is_killed(folder: Folder, clock: Clock) -> None:
    assert "was killed" in folder.failure("trap '' TERM; echo $$ > pid; while :; do sleep 0.1; done")
    assert LIMIT + GRACE < clock() < LIMIT + GRACE + 1
    assert folder.dead("pid")


def test_a_hook_that_is_stopped_is_killed(folder: Folder, clock: Clock) -> None:
    assert "was killed" in folder.failure("echo $$ > pid; kill -STOP $$")
    assert clock() < LIMIT + GRACE + 1
    assert folder.dead("pid")


@pytest.mark.parametrize("shell", ["", "trap '' TERM; "])
def test_what_it_leaves_running_is_ended_with_it(folder: Folder, clock: Clock, shell: str) -> None:
    words = folder.failure(f"({shell}exec sh -c 'echo $$ > pid; while :; do sleep 0.1; done') & exit 0")
    assert f"ended, but what it left running did not within {LIMIT} s" in words
    assert LIMIT < clock() < LIMIT + GRACE + 1
    assert folder.dead("pid")


def test_what_it_leaves_running_for_a_moment_is_waited_for(folder: Folder) -> None:
    folder.run("(sleep 0.3; echo told > told) & exit 0")
    assert folder.left("told") == "told\n"


def test_what_it_leaves_in_a_group_of_its_own_is_ended_too(folder: Folder) -> None:
    """GNU timeout makes a group of its own; it is no way around the limit."""
    folder.failure("timeout 60 sh -c 'echo $$ > pid; sleep 60' & exit 0")
    assert folder.dead("pid")


def test_a_zombie_that_nobody_collects_is_not_waited_for(folder: Folder, clock: Clock) -> None:
    """As in a container where drain, or something as careless, is the first process."""
    subreaper = 36  # PR_SET_CHILD_SUBREAPER of prctl(2): orphans are ours then
    ctypes.CDLL(None).prctl(subreaper, 1, 0, 0, 0)
    try:
        folder.run("sleep 0.2 & echo $! > pid; exit 0")
        assert clock() > 0.2, "the process was waited for"
        assert os.waitpid(int(folder.left("pid")), os.WNOHANG)[0], "the zombie was still there"
    finally:
        ctypes.CDLL(None).prctl(subreaper, 0, 0, 0, 0)


def test_nothing_else_is_killed(folder: Folder) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        folder.failure("sleep 60 & exit 0")
        assert other.poll() is None
        other.kill()


def test_told_to_end_it_is_killed_within_a_second(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with the limits that a person has
    told = threading.Event()
    for command in ("sleep 60", "trap '' TERM; while :; do sleep 0.1; done", "(trap '' TERM; exec sleep 60) & exit 0"):
        told.clear()
        timer = threading.Timer(0.3, told.set)
        timer.start()
        begin = time.monotonic()
        assert "was broken off: drain ends" in folder.failure(f"echo $$ > pid; {command}", stopped=told.is_set)
        assert 0.2 < time.monotonic() - begin < 1.3, command
        assert folder.dead("pid")
        timer.join()


def test_once_drain_ends_none_is_begun(folder: Folder) -> None:
    assert "was not run: drain ends" in folder.failure("touch ran", stopped=lambda: True)
    assert not (folder.path / "ran").exists()


# -- what it prints --


def test_what_it_prints_is_kept_in_a_file_for_its_owner(folder: Folder) -> None:
    folder.run("echo one; echo two >&2")
    folder.failure("printf three; exit 4")
    lines = folder.output.read_text().splitlines()
    assert [line.partition(" ")[2] if "Z " in line else line for line in lines] == [
        "backlog-age on: done",
        "one",
        "two",
        "backlog-age on: ended with exit code 4",
        "three",
    ]
    assert stat.S_IMODE(folder.output.stat().st_mode) == 0o600


def test_a_hook_that_prints_megabytes_leaves_the_end_of_them(folder: Folder) -> None:
    folder.failure("head -c 40000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1")
    kept = folder.output.read_bytes()
    assert kept.endswith(b"the end\n")
    assert len(kept) < 10_000
    assert "the end" in folder.failure("head -c 40000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1")


def test_what_is_cut_off_while_it_runs_leaves_its_end(folder: Folder) -> None:
    assert ": the end." in folder.failure(
        "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo the end; sleep 0.3; exit 1"
    )


def test_a_hook_that_prints_on_and_on_fills_no_disk(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_module, "_SECONDS", 10)
    sizes = [0]

    def look() -> bool:
        sizes.append(_open_bytes())
        return False

    folder.run(
        "echo begin; sleep 0.1; for i in $(seq 30); do head -c 1000000 /dev/zero; sleep 0.03; done", stopped=look
    )
    assert 0 < max(sizes) < 10 * MEGABYTE, "of 30 MB, what is printed between two looks"
    assert folder.output.stat().st_size < 10_000


def test_a_hook_that_prints_for_ever_is_ended_in_time(folder: Folder, clock: Clock) -> None:
    assert f"did not end within {LIMIT} s, and was killed: y" in folder.failure("yes")
    assert clock() < LIMIT + GRACE + 1
    assert folder.output.stat().st_size < 10_000


def _open_bytes() -> int:
    """The size of the largest file without a name that this process has open."""
    sizes = [0]
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            about = descriptor.stat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 0:
            sizes.append(about.st_size)
    return max(sizes)


def test_the_file_keeps_its_last_part(folder: Folder) -> None:
    for number in range(12):
        folder.run(f"echo run {number}; head -c 20000 /dev/zero | tr '\\0' x; echo")
    assert folder.output.stat().st_size == 64 * 1024
    assert "backlog-age on: done" in folder.output.read_text()
    assert list(folder.output.parent.iterdir()) == [folder.output], "nothing else is left"


def test_several_at_once_do_not_mix_what_they_print(folder: Folder) -> None:
    hook = Hook("for i in 1 2 3; do echo $MAIL_ALERT_SUBJECT; sleep 0.05; done", "drain", folder.output)
    alerts = [dataclasses.replace(ALERT, subject=f"filter-{number}") for number in range(6)]
    begin = time.monotonic()
    with ThreadPoolExecutor(6) as crew:
        list(crew.map(lambda told: hook.send(told, lambda: False), alerts))
    assert time.monotonic() - begin < 6 * 0.15, "none waits for another"
    lines = [line for line in folder.output.read_text().splitlines() if not line.endswith(": done")]
    assert len(lines) == 18
    assert all(len(set(lines[place : place + 3])) == 1 for place in range(0, 18, 3))


def test_where_no_file_can_be_written_it_is_run_all_the_same(folder: Folder) -> None:
    (folder.path / "state").write_text("not a folder")
    folder.run("echo words; touch ran")
    assert (folder.path / "ran").exists()
    assert folder.failure("echo words; exit 3") == "MAIL_ALERT_CMD ended with exit code 3."


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_on_a_full_disk_it_is_run_all_the_same(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file can be made there, and nothing can be written to it."""
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: open("/dev/full", "r+b", buffering=0))  # noqa: A006, SIM115
    folder.run("echo words; touch ran")
    assert (folder.path / "ran").exists()


def test_no_descriptor_is_left(folder: Folder) -> None:
    folder.run("exit 0")
    before = _descriptors()
    for failing in ("exit 3", "sleep 60 & exit 0", "no-such-command"):
        folder.failure(failing)
    assert _descriptors() == before


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# -- the examples --


def command(folder: Folder, name: str, *lines: str) -> None:
    """Lays a stub that is found before the machine's own."""
    (folder.path / "bin").mkdir(exist_ok=True)
    path = folder.path / "bin" / name
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


def example(folder: Folder, script: Path, told: Alert = ALERT, path: str | None = None) -> None:
    """Runs it as drain would."""
    folder.run(f"PATH='{path or f'{folder.path}/bin:' + os.environ['PATH']}'\nsh '{script}'", told)


def shown(folder: Folder) -> dict[str, tuple[str, ...]]:
    """What the stub of Android has on its screen: the last by id, as (title, priority, content)."""
    found = {}
    for line in folder.left("shown").splitlines():
        name, *rest = line.split("|")
        found[name] = tuple(rest)
    return found


PHONE = (
    "while [ $# -gt 0 ]; do",
    '  case "$1" in',
    "    --id) id=$2 ;; --title) title=$2 ;; --priority) priority=$2 ;; --group) : ;;",
    '    *) echo "what is $1?"; exit 1 ;;',
    "  esac",
    "  shift 2",
    "done",
    'echo "$id|$title|$priority|$(cat)" >> shown',
)


def test_shellcheck_has_nothing_to_say_of_the_examples() -> None:
    done = subprocess.run(
        ["shellcheck", "-s", "sh", TERMUX, SYSTEMD], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_examples_are_executable() -> None:
    assert all(os.access(script, os.X_OK) for script in (TERMUX, SYSTEMD))


def test_a_notification_is_shown_and_replaced_when_it_is_over(folder: Folder) -> None:
    command(folder, "termux-notification", *PHONE)
    example(folder, TERMUX)
    assert shown(folder) == {"drain-backlog-age": ("drain: backlog-age", "high", "drain: 12 mails wait.")}
    example(folder, TERMUX, dataclasses.replace(ALERT, state=AlertState.AGAIN))
    assert shown(folder)["drain-backlog-age"][:2] == ("drain: backlog-age: still so", "default")
    example(folder, TERMUX, dataclasses.replace(ALERT, state=AlertState.OVER, words="All is well."))
    assert shown(folder) == {"drain-backlog-age": ("drain: backlog-age: over", "low", "drain: All is well.")}


def test_notifications_of_several_things_stand_side_by_side(folder: Folder) -> None:
    command(folder, "termux-notification", *PHONE)
    for subject in ("dnsbl", "$(touch evil) '|'"):
        example(folder, TERMUX, dataclasses.replace(ALERT, kind=Kind.FILTER, subject=subject))
    assert set(shown(folder)) == {"drain-filter-dnsbl", "drain-filter---touch-evil-----"}
    assert not (folder.path / "evil").exists()


def test_termux_notification_that_hangs_is_given_up_with_a_reason(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does without the app; its child, which does the waiting, ends too."""
    monkeypatch.setattr(hook_module, "_SECONDS", 10)
    command(folder, "termux-notification", "cd ..", "echo $$ > pid", "sleep 60 & echo $! > child", "wait")
    command(folder, "timeout", 'shift 3; exec /usr/bin/timeout -k 2 0.5 "$@"')
    words = folder.failure(f"cd bin; PATH='{folder.path}/bin:{os.environ['PATH']}' sh '{TERMUX}'")
    assert "exit code 124: termux-notification did not answer: is the app Termux:API installed" in words
    assert folder.dead("pid")
    assert folder.dead("child")


def test_termux_notification_that_is_missing_is_named(folder: Folder) -> None:
    (folder.path / "bin").mkdir()
    for tool in ("sh", "tr", "timeout", "cat"):
        (folder.path / "bin" / tool).symlink_to(shutil.which(tool) or "")
    words = folder.failure(f"PATH='{folder.path}/bin'\nsh '{TERMUX}'")
    assert "termux-notification is not here: pkg install termux-api" in words


def test_termux_notification_that_fails_is_a_failure(folder: Folder) -> None:
    command(folder, "termux-notification", "echo 'Termux:API is too old' >&2; exit 1")
    words = folder.failure(f"PATH='{folder.path}/bin:{os.environ['PATH']}'\nsh '{TERMUX}'")
    assert words == "MAIL_ALERT_CMD ended with exit code 1: Termux:API is too old."


def test_the_journal_gets_each_alert_with_its_priority(folder: Folder) -> None:
    command(folder, "systemd-cat", 'echo "$*|$(cat)" >> journal')
    command(folder, "wall", "cat > wall; exit 1")  # nobody is logged in
    example(folder, SYSTEMD)
    example(folder, SYSTEMD, dataclasses.replace(ALERT, state=AlertState.OVER, words="All is well."))
    assert folder.left("journal").splitlines() == [
        "-t drain-alert -p err|drain: 12 mails wait.",
        "-t drain-alert -p notice|drain: All is well.",
    ]
    assert folder.left("wall") == "drain: All is well.\n"


def test_a_terminal_that_blocks_keeps_no_alert_from_the_journal(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_module, "_SECONDS", 10)
    command(folder, "systemd-cat", "cat > journal")
    command(folder, "wall", "sleep 60")
    command(folder, "timeout", '[ "$4" = wall ] && set -- -k 1 0.3 wall; exec /usr/bin/timeout "$@"')
    example(folder, SYSTEMD)
    assert folder.left("journal") == "drain: 12 mails wait.\n"


def test_a_journal_that_is_not_there_is_a_failure(folder: Folder) -> None:
    command(folder, "systemd-cat", "echo 'Failed to create stream fd: No such file or directory' >&2; exit 1")
    command(folder, "wall", "cat > /dev/null")
    words = folder.failure(f"PATH='{folder.path}/bin:{os.environ['PATH']}'\nsh '{SYSTEMD}'")
    assert "Failed to create stream fd" in words


def test_the_unit_sets_what_a_hook_is_told_by() -> None:
    told = hook_module.environment({}, ALERT, "words")
    text = UNIT.read_text()
    assert all(f"{name}=" in text for name in told)
