"""Files of a mail server: shown, kept, written, put back."""

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from drain.errors import ConfigError
from drain.setup import changes
from drain.setup.changes import File


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def shown(*files: File) -> str:
    stream = io.StringIO()
    changes.show(files, stream)
    return stream.getvalue()


def write(*files: File) -> None:
    with changes.written(files):
        pass


def test_a_new_file_is_written_with_its_mode_and_its_folders(tmp_path: Path) -> None:
    file = File(tmp_path / "a folder/main.cf", b"new\n", 0o640)
    assert changes.pending([file]) == [file]
    write(file)
    assert (file.path.read_bytes(), mode(file.path)) == (b"new\n", 0o640)
    assert changes.pending([file]) == []
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["main.cf"]


def test_what_was_there_is_kept_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "main.cf"
    path.write_bytes(b"mine\n")
    path.chmod(0o604)
    write(File(path, b"one\n"))
    kept = tmp_path / "main.cf.before-drain"
    assert (kept.read_bytes(), mode(kept), path.read_bytes()) == (b"mine\n", 0o604, b"one\n")


def test_a_persons_work_is_kept_each_time_and_what_is_kept_is_never_lost(tmp_path: Path) -> None:
    path = tmp_path / "main.cf"
    for work in (b"first\n", b"second\n", b"third\n", b"second\n"):
        path.write_bytes(work)
        write(File(path, b"drain's\n"))
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert kept == {
        "main.cf": b"drain's\n",
        "main.cf.before-drain": b"first\n",
        "main.cf.before-drain.2": b"second\n",
        "main.cf.before-drain.3": b"third\n",
    }


def test_lines_that_are_only_added_to_make_no_second_copy(tmp_path: Path) -> None:
    path = tmp_path / "mailboxes"
    path.write_bytes(b"a\n")
    write(File(path, b"a\nb\n"))
    write(File(path, b"a\nb\nc\n"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mailboxes", "mailboxes.before-drain"]


def test_a_mode_alone_is_mended_and_keeps_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(b"key")
    path.chmod(0o644)
    file = File(path, b"key", 0o600, secret=True)
    assert changes.pending([file]) == [file]
    assert changes.overwritten([file]) == []
    assert shown(file) == f"mode or owner: {path} (0600)\n"
    write(file)
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_owner_is_given_and_comes_back_when_the_file_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "sasldb2"
    path.write_bytes(b"old")
    os.chown(path, 65534, 65534)
    file = File(path, b"new", 0o640, (0, 33))
    with contextlib.suppress(ConfigError), changes.written([file]):
        assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (0, 33, 0o640)
        raise ConfigError("no")
    assert (path.stat().st_uid, path.stat().st_gid, path.read_bytes()) == (65534, 65534, b"old")


def test_if_what_is_done_meanwhile_fails_all_is_as_it_was(tmp_path: Path) -> None:
    there, new = File(tmp_path / "main.cf", b"drain's\n", 0o600), File(tmp_path / "new.cf", b"drain's\n")
    there.path.write_bytes(b"mine\n")
    there.path.chmod(0o644)
    with contextlib.suppress(KeyboardInterrupt), changes.written([there, new]):
        assert new.path.exists()
        raise KeyboardInterrupt
    assert (there.path.read_bytes(), mode(there.path)) == (b"mine\n", 0o644)
    assert not new.path.exists()


def test_if_one_cannot_be_written_those_before_it_are_put_back(tmp_path: Path) -> None:
    first = File(tmp_path / "main.cf", b"drain's\n")
    first.path.write_bytes(b"mine\n")
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"master\.cf cannot be written"),
        changes.written([first, File(tmp_path / "file/master.cf", b"")]),
    ):
        pytest.fail("not all of them are written")
    assert first.path.read_bytes() == b"mine\n"


def test_a_difference_is_shown_line_by_line_and_made_safe(tmp_path: Path) -> None:
    path = tmp_path / "main.cf"
    path.write_bytes(b"same\nold \x1b[2J\n")
    text = shown(File(path, b"same\nnew\n"))
    assert "-old" in text
    assert "+new" in text
    assert "\x1b" not in text


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(b"hunter2\n")
    text = shown(File(path, b"hunter3\n", secret=True), File(tmp_path / "new", b"hunter4\n", secret=True))
    assert "hunter" not in text
    assert f"changed: {path} (not shown: it holds a secret)" in text
    assert f"new file {tmp_path}/new (mode 0644)" in text


def test_only_a_persons_work_counts_as_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "master.cf"
    file = File(path, b"drain's", nobodys=b"as packaged")
    assert changes.overwritten([file]) == []
    path.write_bytes(b"as packaged")
    assert changes.overwritten([file]) == []
    path.write_bytes(b"as packaged, and a line of mine")
    assert changes.overwritten([file]) == [file]
    path.write_bytes(b"drain's")
    assert changes.overwritten([file]) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led astray")
class TestDrains:
    """A file in drain's folder, which root writes for it."""

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as name:  # pytest's folders are closed to others
            Path(name).chmod(0o755)
            folder = Path(name) / "drain"
            folder.mkdir(0o700)
            os.chown(folder, 65534, 65534)
            yield folder

    def test_is_written_and_kept_and_put_back_as_drains_user(self, folder: Path) -> None:
        file = File(folder / "mail-server.pem", b"one", drains=True)
        write(file)
        assert file.path.stat().st_uid == 65534
        assert changes.pending([file]) == []
        new = File(file.path, b"two", drains=True)
        with contextlib.suppress(KeyboardInterrupt), changes.written([new]):
            raise KeyboardInterrupt
        assert file.path.read_bytes() == b"one"
        write(new)
        kept = file.path.with_name("mail-server.pem.before-drain")
        assert (file.path.read_bytes(), kept.read_bytes()) == (b"two", b"one")
        assert {path.stat().st_uid for path in folder.iterdir()} == {65534}

    @pytest.mark.parametrize("there", [True, False])
    def test_is_never_a_link_to_a_file_of_roots(self, folder: Path, there: bool) -> None:  # noqa: FBT001
        roots = folder.parent / "roots"
        if there:
            roots.write_bytes(b"root's secret")
            roots.chmod(0o600)
        path = folder / "mail-server.pem"
        path.symlink_to(roots)
        file = File(path, b"pem", drains=True)
        with pytest.raises(ConfigError, match=r"mail-server\.pem is a link, and has to be a file"):
            changes.pending([file])
        with pytest.raises(ConfigError, match="is a link"):
            write(file)
        assert roots.exists() == there
        assert not there or (roots.read_bytes(), mode(roots)) == (b"root's secret", 0o600)

    def test_shows_nothing_that_drains_user_could_not_read(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        roots = folder.parent / "roots"
        roots.write_bytes(b"root's secret")
        roots.chmod(0o640)  # of root's group too
        path = folder / "mail-server.pem"
        path.symlink_to(roots)
        monkeypatch.setattr(Path, "is_symlink", lambda self: False)  # made in the moment after that look
        with pytest.raises(ConfigError, match="cannot be read"):
            shown(File(path, b"pem", drains=True))
