import contextlib
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from drain import database as module
from drain.database import Database, Schema, is_busy
from drain.errors import DrainError, LedgerUnavailable
from tests.support import until

SCHEMA = Schema("The file", ("CREATE TABLE pair (block INTEGER, half TEXT, PRIMARY KEY (block, half));\n",), "", "")
THREADS = 16


class File:
    """A database of pairs of rows, what is committed to it, and what others see of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path, SCHEMA)
        self.commits = 0
        self.on_commit: Callable[[], None] = lambda: None
        self.database._sqlite.set_trace_callback(self._trace)

    def _trace(self, statement: str) -> None:
        if statement == "COMMIT":
            self.commits += 1
            self.on_commit()

    def put(self, block: int, within: Callable[[], object] = lambda: None) -> None:
        """Writes a pair; calls *within* between its halves."""
        with self.database.writing() as db:
            db.execute("INSERT INTO pair VALUES (?, 'left')", (block,))
            within()
            db.execute("INSERT INTO pair VALUES (?, 'right')", (block,))

    def seen(self) -> set[int]:
        """The blocks that another connection sees; each must be whole."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as other:
            found = dict(other.execute("SELECT block, count(*) FROM pair GROUP BY block"))
        assert set(found.values()) <= {2}, "half a block"
        return set(found)

    def read(self) -> set[int]:
        """The same, read as drain does."""
        with self.database.reading() as db:
            return {block for (block,) in db.execute("SELECT DISTINCT block FROM pair")}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[File]:
    # So that who commits does not depend on how busy the machine is.
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 300.0)
    made = File(tmp_path / "it.db")
    yield made
    made.database.close()


class Threads:
    """Threads that each do one thing; what they raised, by their number."""

    def __init__(self) -> None:
        self.errors: dict[int, BaseException] = {}
        self._threads: list[threading.Thread] = []

    def start(self, do: Callable[[], object]) -> None:
        number = len(self._threads) + 1

        def run() -> None:
            try:
                do()
            except BaseException as error:  # noqa: BLE001 (the test looks at it)
                self.errors[number] = error

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "it waits for ever"


def in_one_group(file: File, *blocks: Callable[[], object]) -> Threads:
    """Runs them, a thread each, so that they share a transaction in this order: no turn ends before the next waits."""
    threads, left, end_turn = Threads(), list(blocks), file.database._end_turn

    def end_once_the_next_waits() -> object:
        if left:
            threads.start(left.pop(0))
            until(lambda: file.database._waiting == 1, 60)
        return end_turn()

    file.database._end_turn = end_once_the_next_waits  # type: ignore[method-assign, assignment]
    threads.start(left.pop(0))
    threads.join()
    file.database._end_turn = end_turn  # type: ignore[method-assign]
    return threads


def test_those_who_write_at_the_same_time_share_one_commit(file: File) -> None:
    def write(block: int) -> None:
        file.put(block)
        assert block in file.seen(), "it returned before its rows were on the disk"

    for turn in range(20):
        before = file.commits
        threads = in_one_group(file, *(partial(write, turn * THREADS + number) for number in range(THREADS)))
        assert threads.errors == {}
        assert file.commits == before + 1
    assert file.seen() == set(range(20 * THREADS))


def test_one_thread_alone_commits_each_write_and_makes_no_savepoint(file: File) -> None:
    said: list[str] = []
    file.database._sqlite.set_trace_callback(said.append)
    for block in range(3):
        file.put(block)
        assert block in file.seen()
        file.read()
    writes = [words for words in said if not words.startswith(("INSERT", "SELECT"))]
    assert writes == ["BEGIN IMMEDIATE", "COMMIT"] * 3


def test_a_block_that_raises_undoes_what_it_did_and_nothing_else(file: File) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    threads = in_one_group(
        file,
        lambda: file.put(1),
        lambda: file.put(2, fail),
        lambda: file.put(3),
        lambda: file.put(4, fail),
    )
    assert {number: type(error) for number, error in threads.errors.items()} == {
        2: ZeroDivisionError,
        4: ZeroDivisionError,
    }
    assert file.seen() == {1, 3}
    assert file.commits == 1


def test_a_first_block_that_raises_leaves_the_others_a_transaction_of_their_own(file: File) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    threads = in_one_group(file, lambda: file.put(1, fail), lambda: file.put(2), lambda: file.put(3))
    assert list(threads.errors) == [1]
    assert file.seen() == {2, 3}


@contextlib.contextmanager
def full_disk_at_the_next_commit(file: File) -> Iterator[None]:
    """No file can grow from then on: what COMMIT writes to the WAL is refused by the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    wal = file.path.with_name(f"{file.path.name}-wal")

    def fill() -> None:
        file.on_commit = lambda: None
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size, hard))

    file.on_commit = fill
    try:
        yield
    finally:
        file.on_commit = lambda: None
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_commit_that_fails_fails_for_all_of_the_group_and_the_next_one_works(file: File) -> None:
    file.put(0)
    with full_disk_at_the_next_commit(file):
        threads = in_one_group(file, *(partial(file.put, number) for number in range(1, 9)))
    assert len(threads.errors) == 8, "somebody was told that it is on the disk"
    assert {type(error) for error in threads.errors.values()} == {LedgerUnavailable}
    assert "disk" in str(threads.errors[1])
    assert file.seen() == {0}
    for block in range(1, 9):
        file.put(block)
    assert file.seen() == set(range(9))


def test_a_commit_that_fails_for_one_alone_is_undone(file: File) -> None:
    with full_disk_at_the_next_commit(file), pytest.raises(LedgerUnavailable, match="disk"):
        file.put(1)
    assert file.read() == file.seen() == set()
    file.put(1)
    assert file.seen() == {1}


def test_where_sqlite_undoes_the_whole_transaction_nobody_is_told_that_it_is_there(file: File) -> None:
    file.put(0)

    def all_undone() -> None:
        with file.database.writing() as db:
            db.execute("INSERT INTO pair VALUES (7, 'left')")
            db.execute("INSERT OR ROLLBACK INTO pair VALUES (0, 'left')")

    threads = in_one_group(file, lambda: file.put(1), lambda: file.put(2), all_undone, lambda: file.put(3))
    assert sorted(threads.errors) == [1, 2, 3]
    assert isinstance(threads.errors[1], LedgerUnavailable)
    assert file.seen() == {0, 3}, "who came after it has a transaction of its own"


def test_who_reads_what_is_not_committed_yet_waits_for_it(file: File) -> None:
    found: set[int] = set()

    def read() -> None:
        found.update(file.read())
        assert found <= file.seen()

    threads = in_one_group(file, lambda: file.put(1), read, lambda: file.put(2))
    assert threads.errors == {}
    assert found == {1}
    assert file.commits == 1


def test_who_reads_what_is_never_committed_is_told(file: File) -> None:
    """Else it would act upon rows that are not there: delete a body, say."""
    acted: list[set[int]] = []
    with full_disk_at_the_next_commit(file):
        threads = in_one_group(file, lambda: file.put(1), lambda: acted.append(file.read()), lambda: file.put(2))
    assert acted == []
    assert {type(error) for error in threads.errors.values()} == {LedgerUnavailable}
    assert len(threads.errors) == 3


def test_a_reader_who_comes_last_commits_for_those_who_wrote(file: File) -> None:
    threads = in_one_group(file, lambda: file.put(1), lambda: file.put(2), file.read)
    assert threads.errors == {}
    assert file.seen() == {1, 2}


def test_nested_blocks_are_one_and_only_the_thread_within_is_in_it(file: File) -> None:
    def nested() -> None:
        assert file.database.in_transaction
        with file.database.writing() as db:
            db.execute("INSERT INTO pair VALUES (2, 'left')")
            db.execute("INSERT INTO pair VALUES (2, 'right')")
        assert file.read() == {1, 2}
        assert file.seen() == set(), "a nested block is committed with the outer one"
        elsewhere: list[bool] = []
        other = threading.Thread(target=lambda: elsewhere.append(file.database.in_transaction))
        other.start()
        other.join(60)
        assert elsewhere == [False]

    file.put(1, nested)
    assert file.seen() == {1, 2}
    assert not file.database.in_transaction
    with pytest.raises(ZeroDivisionError), file.database.writing():
        file.put(3, lambda: 1 // 0)
    assert file.seen() == {1, 2}


def test_who_waits_in_a_group_is_not_in_a_transaction(file: File) -> None:
    """The first has ended its block, and waits for the second."""
    open_elsewhere: list[bool] = []

    def look() -> None:
        open_elsewhere.append(file.database._open)

    with_others = in_one_group(file, lambda: file.put(1), lambda: file.put(2, look), lambda: file.put(3))
    assert with_others.errors == {}
    assert open_elsewhere == [True]


def test_a_member_whose_successor_does_not_come_commits_by_itself(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.01)
    file.database._waiting += 1  # one that was counted, and died
    file.put(1)
    assert file.seen() == {1}


def test_closing_commits_what_waits_for_another(file: File) -> None:
    file.database._waiting += 1
    threads = Threads()
    threads.start(lambda: file.put(1))
    until(lambda: file.database._group is not None, 60)
    file.database.close()
    file.database.close()
    threads.join()
    assert threads.errors == {}
    assert file.seen() == {1}


def test_a_file_that_another_process_writes_to_is_busy_and_says_so(tmp_path: Path) -> None:
    file = File(tmp_path / "it.db")
    impatient = Database(file.path, SCHEMA, busy_timeout_seconds=0.0)
    with file.database.writing(), pytest.raises(LedgerUnavailable, match="locked") as caught, impatient.writing():
        pytest.fail("two write at once")
    assert is_busy(caught.value)
    with impatient.writing() as db:
        db.execute("INSERT INTO pair VALUES (1, 'left'), (1, 'right')")
    assert file.seen() == {1}
    impatient.close()
    file.database.close()


def test_a_process_that_is_killed_leaves_nothing_of_a_group_and_had_told_nobody(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tests.test_database import File, Threads, in_one_group
file = File(Path({str(tmp_path / "it.db")!r}))
file.put(0)
def first():
    file.put(1)
    print("told", flush=True)
def killed():
    print("first, uncommitted:", len(file.database._sqlite.execute("SELECT 1 FROM pair WHERE block = 1").fetchall()))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
in_one_group(file, first, lambda: file.put(2, killed))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "first, uncommitted: 2\n"
    file = File(tmp_path / "it.db")
    assert file.seen() == {0}
    file.database.close()


def test_a_thousand_blocks_of_many_threads_end_as_if_they_had_run_one_after_the_other(tmp_path: Path) -> None:
    """Written, nested, raised, read, at random; each is checked from outside as it returns."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    file = File(tmp_path / "it.db")
    model: set[int] = set()  # what must be there: only ever added to, after a block's end

    def work(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        for turn in range(125):
            block = number * 1000 + turn * 4
            kind = chance.choice(["write", "write", "nested", "raise", "raise within", "read"])
            known = set(model)
            if kind == "write":
                file.put(block)
                mine = {block}
            elif kind == "nested":
                file.put(block, partial(file.put, block + 1))
                mine = {block, block + 1}
            elif kind == "read":
                mine = file.read()
                assert known <= mine
            else:
                with contextlib.suppress(ZeroDivisionError):
                    if kind == "raise":
                        file.put(block, lambda: 1 // 0)
                    else:
                        file.put(block, partial(file.put, block + 1, lambda: 1 // 0))
                mine = set()
            assert known | mine <= file.seen(), kind
            if kind != "read":
                model.update(mine)

    threads = Threads()
    for number in range(8):
        threads.start(partial(work, number))
    threads.join()
    assert threads.errors == {}
    assert file.seen() == file.read() == model
    print(f"{len(model)} blocks, {file.commits} commits")
    file.database.close()


def test_errors_of_a_group_are_the_sentences_that_one_alone_would_get(file: File) -> None:
    with full_disk_at_the_next_commit(file):
        threads = in_one_group(file, lambda: file.put(1), lambda: file.put(2))
    words = {str(error) for error in threads.errors.values() if isinstance(error, DrainError)}
    assert len(threads.errors) == 2
    assert len(words) == 1
    assert "Check the disk's free space" in words.pop()
