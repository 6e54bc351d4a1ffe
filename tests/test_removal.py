import itertools
import threading
from collections.abc import Callable, Sequence

import pytest

from drain.removal import Removal
from tests.support import until


class Calls:
    """What was removed, call by call; each call waits for its go."""

    def __init__(self, *, free: bool = False) -> None:
        self.made: list[list[int]] = []
        self.go = threading.Semaphore(1_000_000 if free else 0)

    def __call__(self, batch: Sequence[int]) -> None:
        self.made.append(list(batch))
        assert self.go.acquire(timeout=20)


def removal(remove: Callable[[Sequence[int]], None], halted: Callable[[], bool] = lambda: False) -> Removal[int]:
    return Removal(remove, halted)


def test_what_comes_during_a_call_goes_with_the_next() -> None:
    calls = Calls()
    thread = removal(calls)
    assert thread.put(0)
    until(lambda: calls.made)
    for number in range(1, 6):
        assert thread.put(number)
    calls.go.release(2)
    assert thread.finish(seconds=20)
    assert calls.made == [[0], [1, 2, 3, 4, 5]]


def test_the_first_does_not_wait_for_others() -> None:
    calls = Calls()
    removal(calls).put(7)
    until(lambda: calls.made == [[7]])
    calls.go.release()


def test_a_call_has_a_hundred_at_most_and_who_brings_more_waits() -> None:
    calls = Calls()
    thread = removal(calls)
    thread.put(0)
    until(lambda: calls.made)
    for number in range(1, 101):
        thread.put(number)
    late = threading.Thread(target=thread.put, args=(101,), daemon=True)
    late.start()
    late.join(0.5)
    assert late.is_alive()
    calls.go.release(3)
    late.join(20)
    assert thread.finish(seconds=20)
    assert sorted(itertools.chain(*calls.made)) == list(range(102))
    assert max(map(len, calls.made)) == 100


def test_who_waits_for_room_in_a_halted_pass_is_let_go() -> None:
    calls, halted = Calls(), threading.Event()
    thread = removal(calls, halted.is_set)
    thread.put(0)
    until(lambda: calls.made)
    for number in range(1, 101):
        thread.put(number)
    halted.set()
    assert not thread.put(101)
    calls.go.release(3)
    assert thread.finish(seconds=20)


def test_nothing_to_remove_needs_no_thread() -> None:
    before = threading.active_count()
    assert removal(Calls()).finish(seconds=0)
    assert threading.active_count() == before


def test_an_error_is_kept_and_the_next_are_removed_all_the_same() -> None:
    done: list[int] = []

    def remove(batch: Sequence[int]) -> None:
        if 0 in batch:
            raise ValueError("no")
        done.extend(batch)

    thread = removal(remove)
    thread.put(0)
    until(lambda: thread.error)
    thread.put(1)
    assert thread.finish(seconds=20)
    assert (done, str(thread.error)) == ([1], "no")


def test_a_call_that_hangs_is_waited_for_only_so_long() -> None:
    calls, stop = Calls(), threading.Event()
    thread = removal(calls)
    thread.put(0)
    assert not thread.finish(seconds=0.3)
    stop.set()
    assert not thread.finish(until=stop)
    calls.go.release()
    assert thread.finish(seconds=20)


@pytest.mark.parametrize("writers", [16])
def test_from_many_threads_each_is_removed_once(writers: int) -> None:
    calls = Calls(free=True)
    thread = removal(calls)
    putting = [
        threading.Thread(target=lambda first=first: [thread.put(first * 100 + n) for n in range(100)])
        for first in range(writers)
    ]
    for one in putting:
        one.start()
    for one in putting:
        one.join(20)
    assert thread.finish(seconds=20)
    assert sorted(itertools.chain(*calls.made)) == list(range(writers * 100))
