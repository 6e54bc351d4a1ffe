import stat
from pathlib import Path

import pytest

from drain import stamp
from drain.errors import ConfigError

IDENTITY = "ab" * 32


def test_the_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    value = stamp.load(folder).value(IDENTITY)
    assert stamp.load(folder).value(IDENTITY) == value
    assert stat.S_IMODE((folder / "stamp.key").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["stamp.key"]


def test_another_machine_makes_another_mark(tmp_path: Path) -> None:
    assert stamp.load(tmp_path / "a").value(IDENTITY) != stamp.load(tmp_path / "b").value(IDENTITY)


def test_the_line_is_a_header_field(tmp_path: Path) -> None:
    made = stamp.load(tmp_path)
    assert made.header(IDENTITY) == f"X-Drain-Id: {made.value(IDENTITY)}\r\n".encode()
    assert len(made.header(IDENTITY)) <= 78 + len(b"\r\n")


def test_a_damaged_secret_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "stamp.key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes"):
        stamp.load(tmp_path)
