"""drain.env, changed in place."""

import shlex
import stat
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from drain import envfile
from drain.errors import ConfigError

NAMES = st.sampled_from(["R2_BUCKET", "INJECT_PASS", "MAIL_ALERT_CMD", "R2_BUCKET_X"])
# Without lone surrogates: no file in UTF-8 has them.
TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: len(f"{text}.".splitlines()) == 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "etc/drain.env"


def test_a_file_that_is_not_there_is_made_for_its_owner_only(path: Path) -> None:
    envfile.change(path, {"R2_BUCKET": "mail"})
    assert path.read_text() == "R2_BUCKET=mail\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_only_the_line_that_counts_is_changed(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("# mine\nR2_BUCKET=a\n\n  export R2_BUCKET='b c' # why\nR2_BUCKETS=x\n#R2_BUCKET=d\nlast=1")
    envfile.change(path, {"R2_BUCKET": "new one"})
    assert path.read_text() == ("# mine\nR2_BUCKET=a\n\nR2_BUCKET='new one'\nR2_BUCKETS=x\n#R2_BUCKET=d\nlast=1\n")
    assert envfile.read(path)[0]["R2_BUCKET"] == "new one"


def test_the_first_comment_that_offers_a_setting_makes_room_for_it(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("# The bucket's name.\n#R2_BUCKET=\n# R2_BUCKET=mail\n#XR2_BUCKET=\n")
    envfile.change(path, {"R2_BUCKET": "mail"})
    assert path.read_text() == "# The bucket's name.\nR2_BUCKET=mail\n# R2_BUCKET=mail\n#XR2_BUCKET=\n"


def test_a_setting_without_a_line_goes_to_the_end(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("A=1")
    envfile.change(path, {"R2_BUCKET": "mail", "INJECT_PASS": ""})
    assert path.read_text() == "A=1\nR2_BUCKET=mail\nINJECT_PASS=\n"


def test_mode_and_link_stay_as_they_are(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    real = tmp_path / "real.env"
    real.write_text("A=1\n")
    real.chmod(0o640)
    path.symlink_to(real)
    envfile.change(path, {"A": "2"})
    assert path.is_symlink()
    assert real.read_text() == "A=2\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_value_of_several_lines_is_refused_and_nothing_changes(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("A=1\n")
    for value in ("a\nb", "a\n", "a\r", "\x0b\x0b", "a\x85", "a\u2028", "\x0c"):
        with pytest.raises(ConfigError, match="one line"):
            envfile.change(path, {"A": "2", "B": value})
    assert path.read_text() == "A=1\n"


def test_a_value_that_is_not_utf_8_is_refused_and_nothing_changes(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("A=1\n")
    with pytest.raises(ConfigError, match="cannot be written"):
        envfile.change(path, {"A": "\udcff"})
    assert path.read_text() == "A=1\n"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        envfile.change(tmp_path / "file/drain.env", {"A": "1"})


@given(st.dictionaries(NAMES, TEXTS, min_size=1), st.sampled_from(["", "#R2_BUCKET=\n", "R2_BUCKET=x\n", "X=1 # c"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_value_of_one_line_is_read_back_as_it_was_written(
    tmp_path: Path, values: dict[str, str], content: str
) -> None:
    path = tmp_path / "drain.env"
    path.write_text(content)
    before = envfile.read(path)[0]
    envfile.change(path, values)
    assert envfile.read(path)[0] == {**before, **values}


@given(TEXTS)
def test_a_shell_takes_a_value_as_drain_does(value: str) -> None:
    assert shlex.split(f"X={envfile.quoted(value)}") == [f"X={value}"]
