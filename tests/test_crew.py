"""The threads of a pass, and what they may have in hand."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from drain import config
from drain.crew import Crew
from tests.support import environment, until

MIB = 1024 * 1024
S3 = SimpleNamespace(endpoint_url="http://127.0.0.1:1", access_key_id="id", secret_access_key="secret", bucket="mail")
SMTP = SimpleNamespace(port=1, user="drain", password="s3cret")
DEFAULT = config.load(environment(S3, SMTP, Path("/nowhere")))[0]


class Hands:
    """What a crew has in hand; each piece of work is its size, and is held until it is let go."""

    def __init__(self, size: int, memory_budget: int) -> None:
        self.held: list[int] = []
        self.most = 0
        self.let_go = threading.Event()
        self._lock = threading.Lock()
        self.crew = Crew[int](size, memory_budget, self._hold, lambda: False)

    def submit(self, *sizes: int) -> threading.Thread:
        """Hands them over, on a thread of its own since that can wait."""

        def work() -> None:
            for size in sizes:
                assert self.crew.submit(size, size)
            self.crew.finish()

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def _hold(self, size: int) -> None:
        with self._lock:
            self.held.append(size)
            self.most = max(self.most, sum(self.held))
        assert self.let_go.wait(60)
        with self._lock:
            self.held.remove(size)


def test_with_the_defaults_sixteen_mails_of_a_megabyte_are_in_hand_at_once() -> None:
    hands = Hands(DEFAULT.concurrency, DEFAULT.memory_budget)
    feeder = hands.submit(*[MIB + 4096] * 20)
    until(lambda: len(hands.held) == 16)
    hands.let_go.set()
    feeder.join(60)
    assert hands.crew.wait(seconds=60)


def test_two_of_25_mib_are_never_in_hand_at_once_with_the_defaults() -> None:
    hands = Hands(DEFAULT.concurrency, DEFAULT.memory_budget)
    feeder = hands.submit(*[25 * MIB] * 3, MIB, 25 * MIB)
    until(lambda: hands.held)
    hands.let_go.set()
    feeder.join(60)
    assert hands.crew.wait(seconds=60)
    assert hands.most == 25 * MIB


@pytest.mark.parametrize("sizes", [[7, 1, 9, 3, 3, 3, 10, 2, 4, 1, 1, 8], [10] * 5, [1] * 40, [5, 6] * 6])
def test_what_is_in_hand_takes_no_more_than_the_budget_three_times_over(sizes: list[int]) -> None:
    """A sealed mail is there three times while it is opened; one beyond the budget is alone."""
    hands = Hands(8, 30 * MIB)
    hands.let_go.set()
    feeder = hands.submit(*[size * MIB for size in sizes])
    feeder.join(60)
    assert hands.crew.wait(seconds=60)
    assert hands.most <= 10 * MIB


def test_one_that_is_larger_than_the_budget_is_taken_when_nothing_else_is_in_hand() -> None:
    hands = Hands(4, MIB)
    feeder = hands.submit(1000, 5 * MIB, 1000)
    until(lambda: hands.held == [1000])
    hands.let_go.set()
    feeder.join(60)
    assert hands.crew.wait(seconds=60)
    assert hands.most == 5 * MIB
