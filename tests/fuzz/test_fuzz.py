"""A million inputs for the opener, by atheris (libFuzzer), which looks for ones that reach new code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="no atheris for this Python or machine")

ROOT = Path(__file__).parents[2]
PROCESSES = 2
INPUTS = 1_000_000


def fuzzing(folder: Path, seed: int, inputs: int, *more: str) -> "subprocess.Popen[str]":
    """A fuzzer at work; what it found lies in *folder*."""
    folder.mkdir()
    options = [f"-runs={inputs}", f"-seed={seed}", f"-artifact_prefix={folder}/", "-max_total_time=400"]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.opener", *more, str(folder), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_million_inputs_bring_out_nothing_but_the_openers_own_errors(tmp_path: Path) -> None:
    fuzzers = [fuzzing(tmp_path / str(seed), seed, INPUTS // PROCESSES) for seed in range(1, PROCESSES + 1)]
    done = 0
    for fuzzer in fuzzers:
        words, _ = fuzzer.communicate(timeout=480)
        assert fuzzer.returncode == 0, words[-3000:]
        ended = re.search(r"^Done (\d+) runs in (\d+) second", words, re.MULTILINE)
        assert ended is not None, words[-3000:]
        print(ended.group(0))
        done += int(ended.group(1))
    assert done >= INPUTS


def test_the_fuzzer_finds_a_fault_that_is_put_there(tmp_path: Path) -> None:
    fuzzer = fuzzing(tmp_path / "found", 1, 100_000, "--sabotage")
    words, _ = fuzzer.communicate(timeout=100)
    assert fuzzer.returncode != 0
    assert "AttributeError" in words
    assert "Done" not in words
