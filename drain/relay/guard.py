"""Delay and lock-out after wrong passwords.

A wrong password is answered late, later each time. `FAILURES` of them for one user
from one address within `WINDOW_SECONDS` lock that user out there for
`LOCKED_SECONDS`, `ADDRESS_FAILURES` the whole address: passwords are not looked at.
Nothing is counted by name alone, so that a stranger elsewhere locks nobody out.

On loopback every app has the same address, and one that guesses would stop the
outgoing mail of all. By the address the guesser and the person's own mail program
cannot be told apart, by the password they can. So on loopback a lock-out has two
gaps, and is a brake on guessing rather than an end of it:

- what this process has found to be right before (`Users.remembers`) passes. Who guesses
  through this gap and does not wait for the answer made 20 million tries a day where it
  was measured; so `drain relay user add` takes no password of fewer than twelve
  characters, and twelve random letters are 10^17;
- one password is looked at every `LOOK_SECONDS`, so that after a restart, with nothing
  remembered, the right one comes through: soon if nobody else asks, and while somebody
  guesses as one of the many that ask.

A success forgets the user's failures there. It does not forget the address's: who has a
login of its own could guess for ever at another's.
"""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

FAILURES = 10
ADDRESS_FAILURES = 50
WINDOW_SECONDS = 600.0
LOCKED_SECONDS = 600.0
LOOK_SECONDS = 10.0
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 4.0

# Who comes with ever new names or addresses makes us forget the oldest of them, and is found by its address.
_MOST_COUNTED = 2048
_LONGEST_NAME = 64

_Key = tuple[str, str]


@dataclass
class _Count:
    """Of one user at one address, or ("" for the user) of one address. Times are the clock's."""

    failures: list[float] = field(default_factory=list)
    locked_until: float = 0.0
    next_look: float = 0.0


class Guard:
    """Counts wrong passwords; calls may come from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: OrderedDict[_Key, _Count] = OrderedDict()

    def admits(self, user: str, address: str) -> bool:
        """Whether a password for *user* from *address* may be looked at now."""
        now = self._clock()
        with self._lock:
            counts = (self._counts.get(key) for key in _keys(user, address))
            locked = [count for count in counts if count is not None and now < count.locked_until]
            if not locked:
                return True
            if not _is_loopback(address) or any(now < count.next_look for count in locked):
                return False
            for count in locked:
                count.next_look = now + LOOK_SECONDS
            return True

    def failed(self, user: str, address: str) -> float:
        """Counts a wrong password; the seconds after which it is to be answered."""
        now = self._clock()
        with self._lock:
            by_user, by_address = _keys(user, address)
            self._count(by_address, ADDRESS_FAILURES, now)
            failures = self._count(by_user, FAILURES, now)
        return float(min(FIRST_DELAY_SECONDS * 2 ** (failures - 1), LONGEST_DELAY_SECONDS))

    def succeeded(self, user: str, address: str) -> None:
        """Forgets the wrong ones of *user* at *address*."""
        with self._lock:
            self._counts.pop(_keys(user, address)[0], None)

    def _count(self, key: _Key, limit: int, now: float) -> int:
        """One more; how many there are now."""
        count = self._counts.setdefault(key, _Count())
        self._counts.move_to_end(key)
        count.failures = [when for when in count.failures if now - when < WINDOW_SECONDS][-limit:]
        count.failures.append(now)
        if len(count.failures) >= limit and now >= count.locked_until:
            count.locked_until = now + LOCKED_SECONDS
            count.next_look = now + LOOK_SECONDS
        while len(self._counts) > _MOST_COUNTED:
            self._counts.popitem(last=False)
        return len(count.failures)


def _keys(user: str, address: str) -> tuple[_Key, _Key]:
    place = _place(address)
    return (user[:_LONGEST_NAME] or "-", place), ("", place)


def _place(address: str) -> str:
    """What counts as one address: an IPv6 host has a /64 to choose from (RFC 4291 2.5.1)."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:_LONGEST_NAME]
    if isinstance(ip, ipaddress.IPv6Address) and not ip.is_loopback:
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
