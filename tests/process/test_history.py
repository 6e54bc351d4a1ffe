"""`drain history` and `drain trace`, as a person runs them."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from drain.ledger import Ledger
from tests.support import House

LIMIT_SECONDS = 60


def drain(house: House, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "drain", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(house.state_dir.parent), **house.environ(**settings)},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


def test_where_there_is_no_ledger_there_is_nothing_yet_and_none_is_made(house: House) -> None:
    done = drain(house, "history")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Nothing yet: this drain has seen no mail.\n", "")
    assert drain(house, "history", "--json", "--from", "x").stdout == ""
    assert drain(house, "trace", "abcd").returncode == 66
    assert not house.state_dir.exists()


def test_neither_bucket_nor_mail_server_are_needed(house: House) -> None:
    Ledger(house.state_dir / "ledger.db").close()
    env = {"PATH": os.environ["PATH"], "STATE_DIR": str(house.state_dir), "DRAIN_ENV_FILE": "/dev/null"}
    done = subprocess.run(
        [sys.executable, "-m", "drain", "history"],
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "Nothing yet: this drain has seen no mail.\n")


def test_it_works_while_a_pass_is_under_way(house: House) -> None:
    """A pass that holds the lock, and whose mail waits for the mail server's word."""
    house.put("one")
    at_rcpt, go_on = threading.Event(), threading.Event()

    def answer(verb: str, _argument: str) -> str | None:
        if verb == "DOT":
            at_rcpt.set()
            assert go_on.wait(LIMIT_SECONDS)
        return None

    house.smtp.answer = answer
    sweep = house.sweep()
    thread = threading.Thread(target=sweep.run)
    thread.start()
    try:
        assert at_rcpt.wait(LIMIT_SECONDS)
        done = drain(house, "history")
        assert done.returncode == 0, done.stderr
        assert " injecting " in done.stdout
        identity = done.stdout.splitlines()[1].split()[2]
        assert "next     it is sent again" in drain(house, "trace", identity).stdout
    finally:
        go_on.set()
        thread.join(LIMIT_SECONDS)
    assert "settled" in drain(house, "trace", identity).stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--since", "tomorrow"), "--since tomorrow is not understood. It wants a date (2026-11-21)"),
        (("--until", "2026-13-01"), "--until 2026-13-01 is not understood"),
        (("--limit", "0"), "--limit wants a number of mails"),
        (("--limit", "x"), "invalid int value"),
    ],
)
def test_wrong_use_is_64_and_says_what_would_be_right(house: House, words: tuple[str, ...], told: str) -> None:
    done = drain(house, "history", *words)
    assert (done.returncode, done.stdout) == (64, "")
    assert told in done.stderr


def test_what_is_not_found_is_66_and_more_than_is_shown_is_said(house: House) -> None:
    for number in range(3):
        house.put(f"mail-{number}", b"Subject: %d\r\n\r\nhello" % number)
    house.sweep().run()
    done = drain(house, "history", "--limit", "2")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
    assert "These are the newest 2; --limit shows more." in done.stderr
    assert drain(house, "history", "--limit", "3").stderr == ""
    done = drain(house, "history", "--from", "nobody@", "--json")
    assert (done.returncode, done.stdout) == (66, "")
    assert "No such mail is in the ledger. Mail that you sent is in `drain relay queue list --all`" in done.stderr


def test_looking_does_not_bring_a_ledger_up_to_date(house: House) -> None:
    """A daemon that still runs the old drain could not use it any more."""
    house.state_dir.mkdir(parents=True)
    path = house.state_dir / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript((Path(__file__).parents[1] / "ledgers" / "2.sql").read_text(encoding="utf-8"))
    for arguments in (["history"], ["trace", "5bdd"], ["quarantine", "list"]):
        done = drain(house, *arguments)
        assert done.returncode == 78
        assert "The next pass brings it up to date." in done.stderr
    with contextlib.closing(sqlite3.connect(path)) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (2,)
    assert drain(house, "once").returncode in (0, 75)
    assert drain(house, "history").returncode == 0
