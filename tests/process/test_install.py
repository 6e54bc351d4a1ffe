"""The words of install.sh that end before anything is installed; CI runs the rest of it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EX_USAGE = 64
EX_UNAVAILABLE = 69


def run(script: Path, *arguments: str, path_first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What *script* says and how it ends; the commands in *path_first* are found before the machine's own."""
    path = os.environ["PATH"] if path_first is None else f"{path_first}:{os.environ['PATH']}"
    return subprocess.run(
        [script, *arguments],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def command(folder: Path, name: str, *lines: str) -> None:
    """Lays an executable shell script of these lines."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(("#!/bin/sh", *lines, "")))
    (folder / name).chmod(0o755)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """install.sh in a folder of its own, so that none of the tests can touch the real .venv/."""
    folder = tmp_path / "a clone"
    (folder / "tests").mkdir(parents=True)
    shutil.copy(ROOT / "tests/environment.sh", folder / "tests")
    return Path(shutil.copy(ROOT / "install.sh", folder))


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """Where a test lays the commands that install.sh is to find first."""
    return tmp_path / "bin"


def test_shellcheck_has_nothing_to_say() -> None:
    """Fails, not skips, without shellcheck."""
    # Files of steps are read by install.sh, and looked at with it.
    scripts = [
        path
        for folder in ("systemd", "termux")
        for path in ROOT.glob(f"{folder}/**/*")
        if path.is_file() and path.read_bytes().startswith(b"#!")
    ]
    assert len(scripts) > 5
    done = subprocess.run(
        ["shellcheck", "-x", "install.sh", ".ci/run", *scripts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("words", [("tset",), ("",), ("install", "drain"), ("--no-such",), ("--yes", "--answers")])
def test_a_wrong_word_gets_the_usage(script: Path, words: tuple[str, ...]) -> None:
    done = run(script, *words)
    assert done.returncode == EX_USAGE
    assert done.stderr.startswith("usage: ./install.sh demo")
    assert done.stdout == ""


@pytest.mark.parametrize("word", ["demo", "test"])
def test_a_python_too_old_is_one_sentence(script: Path, commands: Path, word: str) -> None:
    command(commands, "python3", '[ "$1" = -V ] && echo Python 3.9.2', "exit 1")
    done = run(script, word, path_first=commands)
    assert done.returncode == EX_UNAVAILABLE
    assert done.stderr == "install.sh: drain needs Python 3.11 or newer, and python3 here is Python 3.9.2.\n"
    assert not (script.parent / ".venv").exists()


@pytest.mark.parametrize("word", ["demo", "test"])
def test_who_is_not_root_is_told_the_command(script: Path, commands: Path, word: str) -> None:
    """The venv module is what a fresh Debian leaves out of its Python."""
    command(commands, "id", "echo 1000")
    command(commands, "sudo")
    command(commands, "python3", "case $2 in *venv*) exit 1 ;; esac")
    done = run(script, word, path_first=commands)
    assert done.returncode == EX_UNAVAILABLE
    assert done.stderr == (
        "install.sh: missing here: python3-venv. "
        "Run: sudo sh -c 'apt-get update && apt-get install --no-install-recommends python3-venv'\n"
    )


def test_an_index_out_of_reach_is_one_sentence(script: Path, commands: Path) -> None:
    command(script.parent / "pip", "python", "echo \"WARNING: Retrying after connection broken by 'x'\"", "exit 1")
    command(
        commands,
        "python3",
        'case "$*" in *--clear*) mkdir -p .venv/bin && cp pip/python .venv/bin/ ;; esac',
    )
    done = run(script, "demo", path_first=commands)
    assert done.returncode == EX_UNAVAILABLE
    assert done.stderr.splitlines()[1:] == ["install.sh: pip cannot reach its package index; is this machine online?"]


def test_ci_runs_what_the_readme_says_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ci").mkdir()
    ci = Path(shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci"))
    command(tmp_path, "install.sh", 'printf "%s|" "$0" "$@"', "exit 3")
    monkeypatch.chdir("/")
    done = run(ci)
    assert done.stdout == "./install.sh|test|"
    assert done.returncode == 3
    assert "./install.sh test" in (ROOT / "README.md").read_text(encoding="utf-8")
