"""systemd/drain.sh, the command of the whole machine: with programs in the place of drain, id, runuser and chown."""

import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support import until

SCRIPT = Path(__file__).parents[2] / "systemd" / "drain.sh"


class Machine:
    """A folder in the place of /."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("bin", "etc/drain", "etc/credstore", "var/lib/drain", "opt/drain/current/bin", "run"):
            (root / name).mkdir(parents=True)
        text = SCRIPT.read_text()
        for name in ("/opt/drain/current", "/etc/drain", "/var/lib/drain", "/etc/credstore", "/run/drain."):
            assert name in text
            text = text.replace(name, f"{root}{name}")
        self.script = root / "drain.sh"
        self.script.write_text(text)
        self.log = root / "log"
        self.program("bin/chown", f'echo "chown $*" >>"{self.log}"')
        self.program("bin/runuser", f'echo "runuser $1 $2 $3" >>"{self.log}"; shift 3; exec "$@"')
        self.drain("exit 3")

    def program(self, name: str, *lines: str) -> None:
        path = self.root / name
        path.write_text("\n".join(("#!/bin/sh", *lines, "")))
        path.chmod(0o755)

    def drain(self, *lines: str) -> None:
        """What stands in for drain notes how it was called, and goes on like this."""
        words = f'echo "drain $* DRAIN_ENV_FILE=${{DRAIN_ENV_FILE-}} HOME=$HOME" >>"{self.log}"'
        self.program("opt/drain/current/bin/drain", words, *lines)

    def start(self, user: str, *words: str, **environ: str) -> "subprocess.Popen[str]":
        self.program("bin/id", f"echo {user}")
        return subprocess.Popen(
            ["sh", self.script, *words],
            env={"PATH": f"{self.root}/bin:{os.environ['PATH']}", "HOME": "/root", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, user: str, *words: str, **environ: str) -> tuple[int, str]:
        """The exit code, and what it said on standard error."""
        process = self.start(user, *words, **environ)
        _, said = process.communicate(timeout=20)
        return process.returncode, said

    def noted(self) -> list[str]:
        return self.log.read_text().replace(str(self.root), "").splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_shellcheck_has_nothing_to_say() -> None:
    assert shutil.which("shellcheck"), "shellcheck is not here: Debian's package shellcheck has it."
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0)


def test_root_becomes_the_user_drain(machine: Machine) -> None:
    assert machine.run("root", "--json", "open", "a mail.eml") == (3, "")
    assert machine.noted() == [
        "runuser -u drain --",
        "drain --json open a mail.eml DRAIN_ENV_FILE=/etc/drain/drain.env HOME=/var/lib/drain",
    ]


@pytest.mark.parametrize("word", ["init", "setup", "keygen", "restore"])
def test_what_writes_where_only_root_may_stays_root_and_leaves_drain_what_it_needs(machine: Machine, word: str) -> None:
    """Settings it may read and not change, or who has got hold of it would have root write where he likes."""
    machine.program("bin/stat", "echo drain")
    assert machine.run("root", "--json", word, "/root/x.tar") == (3, "")
    drain, *rest = machine.noted()
    assert drain == f"drain --json {word} /root/x.tar DRAIN_ENV_FILE=/etc/drain/drain.env HOME=/root"
    assert [line for line in rest if line.startswith("chown")] == [
        "chown -Rh root:drain /etc/drain",
        "chown -Rh drain: /var/lib/drain/.",
    ]
    assert stat.S_IMODE((machine.root / "etc/drain").stat().st_mode) == 0o750


def test_a_backup_is_root_s_and_changes_nothing(machine: Machine) -> None:
    assert machine.run("root", "backup", "/root/x.tar") == (3, "")
    assert machine.noted() == ["drain backup /root/x.tar DRAIN_ENV_FILE=/etc/drain/drain.env HOME=/root"]


def test_a_word_that_is_no_command_makes_nobody_root(machine: Machine) -> None:
    machine.run("root", "status", "backup")
    assert machine.noted()[0] == "runuser -u drain --"


def test_the_user_drain_is_as_it_is(machine: Machine) -> None:
    assert machine.run("drain", "status") == (3, "")
    assert machine.noted() == ["drain status DRAIN_ENV_FILE= HOME=/root"]


def test_anybody_else_is_told_to_be_root(machine: Machine) -> None:
    code, said = machine.run("alice", "status", "--check")
    assert code == os.EX_NOPERM
    assert said == "drain: only root and the user drain may read its settings. Run: sudo drain status --check\n"
    assert machine.noted() == []


def test_anybody_may_have_settings_of_their_own_and_ask_for_the_version(machine: Machine) -> None:
    assert machine.run("alice", "status", DRAIN_ENV_FILE="/home/alice/my.env") == (3, "")
    assert machine.run("alice", "--version") == (3, "")
    assert machine.noted() == [
        "drain status DRAIN_ENV_FILE=/home/alice/my.env HOME=/root",
        "drain --version DRAIN_ENV_FILE= HOME=/root",
    ]


@pytest.mark.parametrize("word", ["doctor", "setup"])
def test_secrets_of_the_units_are_there_while_it_runs_and_not_after(machine: Machine, word: str) -> None:
    (machine.root / "etc/credstore/drain.INJECT_PASS").write_text("s3cret\n")
    (machine.root / "etc/credstore/another.SECRET").write_text("no\n")
    seen = machine.root / "seen"
    machine.drain(f'cd "$CREDENTIALS_DIRECTORY" && {{ pwd; ls; cat INJECT_PASS; stat -c %a .; }} >"{seen}"')
    assert machine.run("root", word) == (0, "")
    folder, *rest = seen.read_text().splitlines()
    assert rest == ["INJECT_PASS", "s3cret", "700"]
    assert not Path(folder).exists()
    assert f"chown -R drain: {folder}".replace(str(machine.root), "") in machine.noted()


def test_secrets_are_gone_after_sigterm_too(machine: Machine) -> None:
    (machine.root / "etc/credstore/drain.INJECT_PASS").write_text("s3cret\n")
    machine.drain("sleep 1")
    process = machine.start("root", "once")
    until(lambda: any(line.startswith("drain once") for line in machine.noted()))
    assert len(list((machine.root / "run").iterdir())) == 1
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 1
    assert list((machine.root / "run").iterdir()) == []


def test_on_root_s_terminal_the_user_drain_gets_one_of_its_own(machine: Machine) -> None:
    """It could type for root there (TIOCSTI). What goes into a file keeps its line ends."""
    machine.program("bin/runuser", f'echo "runuser $*" >>"{machine.log}"')
    machine.program("bin/id", "echo root")
    leader, follower = os.openpty()
    environ = {"PATH": f"{machine.root}/bin:{os.environ['PATH']}", "HOME": "/root"}
    for output in (follower, subprocess.DEVNULL):
        subprocess.run(
            ["sh", machine.script, "status"],
            env=environ,
            stdin=follower,
            stdout=output,
            stderr=follower,
            check=True,
            timeout=20,
        )
    os.close(leader)
    os.close(follower)
    first, second = machine.noted()
    assert first.startswith("runuser --pty -u drain -- env ")
    assert second.startswith("runuser -u drain -- env ")


def test_what_goes_into_a_pipe_has_no_controlling_terminal(machine: Machine) -> None:
    machine.program("bin/runuser", f'cut -d " " -f 1,6 /proc/$$/stat >>"{machine.log}"')
    machine.program("bin/id", "echo root")
    leader, follower = os.openpty()
    environ = {"PATH": f"{machine.root}/bin:{os.environ['PATH']}", "HOME": "/root"}
    subprocess.run(
        ["sh", machine.script, "status"], env=environ, stdin=follower, capture_output=True, check=True, timeout=20
    )
    os.close(leader)
    os.close(follower)
    (line,) = machine.noted()
    process, session = line.split()
    assert process == session, "a session of its own"
