"""Programs that are run for a setup."""

import os
import time

import pytest

from drain.errors import ConfigError, Unavailable
from drain.setup.command import find, run

ENVIRON = {"PATH": os.environ["PATH"]}


def test_what_it_says_is_returned_and_what_must_not_be_seen_goes_in_by_its_input() -> None:
    assert run(["cat"], ENVIRON, stdin=b"hunter2") == "hunter2"


def test_its_own_words_are_shown_where_it_fails() -> None:
    with pytest.raises(ConfigError, match=r"`sh -c .*` failed: no [ -~\ufffd]+ room\."):
        run(["sh", "-c", "printf 'no \\033 room' >&2; exit 3"], ENVIRON)
    with pytest.raises(ConfigError, match="failed: exit code 3"):
        run(["sh", "-c", "exit 3"], ENVIRON)


def test_one_that_does_not_end_is_given_up() -> None:
    begun = time.monotonic()
    with pytest.raises(Unavailable, match=r"`sleep 60` did not end in 0.05 s"):
        run(["sleep", "60"], ENVIRON, seconds=0.05)
    assert time.monotonic() - begun < 4


def test_one_that_is_not_there_is_said() -> None:
    assert find("no-such-program", ENVIRON) is None
    with pytest.raises(ConfigError, match="no-such-program is not on this machine"):
        run(["no-such-program"], ENVIRON)


def test_what_it_runs_in_has_no_more_than_it_is_given() -> None:
    assert run(["env"], {**ENVIRON, "ONE": "1"}).splitlines().count("ONE=1") == 1
    assert "HOME=" not in run(["env"], ENVIRON)
