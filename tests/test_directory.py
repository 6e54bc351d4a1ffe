import stat
from pathlib import Path

import pytest

from drain import directory
from drain.directory import Listing
from drain.errors import ConfigError


def command(folder: Path, name: str, script: str) -> None:
    """A program of that name on the PATH `folder`."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture(autouse=True)
def _no_real_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_SBIN", ())


def lists(folder: Path, users_file: str = "", maddy_config: str = "") -> list[Listing]:
    return directory.listings(users_file, maddy_config, {"PATH": str(folder)})


def test_where_there_is_no_list_there_is_none(tmp_path: Path) -> None:
    assert lists(tmp_path) == []


def test_a_file_has_a_name_a_line(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("alice\n\n# a comment\n bob@a.test  # another\n")
    assert lists(tmp_path, str(path)) == [Listing(str(path), frozenset({"alice", "bob@a.test"}))]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MAIL_USERS_FILE .*gone cannot be read"):
        lists(tmp_path, str(tmp_path / "gone"))


def test_maddy_is_asked_with_its_configuration(tmp_path: Path) -> None:
    command(tmp_path, "maddy", 'echo "$*" >&2; test "$2" = "/my conf" && echo alice@a.test && echo "No accounts"')
    (listing,) = lists(tmp_path, maddy_config="/my conf")
    assert listing == Listing("`maddy imap-acct list`", frozenset({"alice@a.test"}))


def test_a_command_that_fails_is_a_fault_of_its_list(tmp_path: Path) -> None:
    command(tmp_path, "maddy", "echo first >&2; echo 'no such file' >&2; exit 2")
    command(tmp_path, "postconf", "echo 'fatal: bad' >&2; exit 1")
    maddy, postfix = lists(tmp_path)
    assert maddy.names == postfix.names == frozenset()
    assert "failed: no such file. Is MADDY_CONFIG right?" in maddy.faults[0]
    assert "failed: fatal: bad." in postfix.faults[0]


def test_a_command_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_COMMAND_SECONDS", 0.1)
    command(tmp_path, "maddy", "exec /bin/sleep 60")
    assert "timed out" in lists(tmp_path)[0].faults[0]


def test_postfixs_tables_are_read_where_they_can_be_and_named_where_not(tmp_path: Path) -> None:
    tables = (
        "proxy:texthash:/a, static:all proxy:unix:passwd.byname $\n\npcre:/b, inline:{ {x@a.test = y} }\nhash:/gone"
    )
    command(tmp_path, "postconf", f"cat <<'END'\n{tables}\nEND".replace("cat", "/bin/cat"))
    command(
        tmp_path,
        "postmap",
        'test "$2" = texthash:/a || { echo "fatal: open /gone.db" >&2; exit 1; }\n'
        "printf 'alice@a.test\\tx/\\n@b.test\\tcatch\\n\\n'",
    )
    (listing,) = lists(tmp_path)
    assert {"alice@a.test", "root"} <= listing.names
    assert "@b.test" not in listing.names
    assert ["pcre:/b" in listing.faults[0], "inline:" in listing.faults[1], "/gone.db" in listing.faults[2]] == [
        True
    ] * 3
