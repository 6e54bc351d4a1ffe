"""Delay and lock-out after wrong passwords."""

from hypothesis import given, strategies as st

from drain.relay import guard as module
from drain.relay.guard import (
    ADDRESS_FAILURES,
    FAILURES,
    LOCKED_SECONDS,
    LONGEST_DELAY_SECONDS,
    LOOK_SECONDS,
    WINDOW_SECONDS,
    Guard,
)

AWAY, NEAR = "192.0.2.7", "127.0.0.1"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def locked(address: str) -> tuple[Guard, Clock]:
    """A guard that has seen so many wrong passwords for alice there."""
    clock = Clock()
    guard = Guard(clock)
    for _ in range(FAILURES):
        assert guard.admits("alice", address)
        guard.failed("alice", address)
    return guard, clock


def test_each_wrong_password_is_answered_later_up_to_a_few_seconds() -> None:
    guard = Guard(Clock())
    delays = [guard.failed("alice", AWAY) for _ in range(8)]
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[4:] == [LONGEST_DELAY_SECONDS] * 4


def test_many_wrong_passwords_lock_a_user_out_for_a_while() -> None:
    guard, clock = locked(AWAY)
    assert not guard.admits("alice", AWAY)
    clock.now += LOCKED_SECONDS - 1
    assert not guard.admits("alice", AWAY)
    clock.now += 1
    assert guard.admits("alice", AWAY)


def test_a_stranger_at_another_address_locks_nobody_out() -> None:
    guard, _ = locked(AWAY)
    assert guard.admits("alice", "192.0.2.8")
    assert guard.admits("alice", NEAR)
    assert guard.admits("bob", AWAY)


def test_wrong_passwords_far_apart_lock_nobody_out() -> None:
    clock = Clock()
    guard = Guard(clock)
    for _ in range(5 * FAILURES):
        guard.failed("alice", AWAY)
        assert guard.admits("alice", AWAY)
        clock.now += WINDOW_SECONDS / (FAILURES - 2)


def test_a_success_forgets() -> None:
    guard = Guard(Clock())
    for _ in range(4):
        for _ in range(FAILURES - 1):
            guard.failed("alice", AWAY)
        guard.succeeded("alice", AWAY)
    assert guard.admits("alice", AWAY)
    assert guard.failed("alice", AWAY) == 0.5


def test_who_tries_many_names_is_found_by_the_address_and_a_login_of_its_own_does_not_help() -> None:
    guard = Guard(Clock())
    for number in range(ADDRESS_FAILURES):
        assert guard.admits(f"u{number}", AWAY)
        guard.failed(f"u{number}", AWAY)
        guard.succeeded("mallory", AWAY)
    assert not guard.admits("one-more", AWAY)
    assert guard.admits("one-more", "192.0.2.8")


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    guard = Guard(Clock())
    for number in range(FAILURES):
        guard.failed("alice", f"2001:db8::{number}")
    assert not guard.admits("alice", "2001:db8::ffff")
    assert guard.admits("alice", "2001:db8:1::1")


def test_on_loopback_one_password_is_looked_at_now_and_then() -> None:
    guard, clock = locked(NEAR)
    seen = 0
    for _ in range(100):
        clock.now += 1
        seen += guard.admits("alice", NEAR)
    assert seen == 100 / LOOK_SECONDS
    guard.succeeded("alice", NEAR)
    assert guard.admits("alice", NEAR)


@given(st.lists(st.tuples(st.text(max_size=300), st.text(max_size=60)), max_size=30))
def test_no_name_and_no_address_breaks_it(pairs: list[tuple[str, str]]) -> None:
    guard = Guard(Clock())
    for user, address in pairs:
        guard.admits(user, address)
        assert 0 < guard.failed(user, address) <= LONGEST_DELAY_SECONDS


def test_memory_is_bounded_and_the_address_stays_known() -> None:
    guard = Guard(Clock())
    for number in range(3 * module._MOST_COUNTED):
        guard.failed(f"{number}-{'x' * 1000}", AWAY)
    assert len(guard._counts) == module._MOST_COUNTED
    assert max(len(user) for user, _ in guard._counts) <= 64
    assert max(len(count.failures) for count in guard._counts.values()) <= ADDRESS_FAILURES + 1
    assert not guard.admits("alice", AWAY)
