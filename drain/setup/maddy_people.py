"""Who is known to Maddy: drain's login, the mailboxes, and the logins of mail programs."""

import getpass
import smtplib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drain.errors import ConfigError, DrainError
from drain.login import Server, connect, log_in
from drain.setting import Secret
from drain.setup.maddy_program import TRIES, Maddy
from drain.setup.plan import Plan
from drain.setup.wanted import Step

# bcrypt (golang.org/x/crypto/bcrypt) takes no more bytes.
LONGEST_PASSWORD = 72
_SHORTEST_PASSWORD = 12


@dataclass(frozen=True)
class People:
    """Those of *plan*, in the databases in the folder *state* (as Maddy sees it).

    *ask*: there may be somebody at the terminal who knows passwords.
    """

    plan: Plan
    maddy: Maddy
    state: Path
    ask: bool

    def steps(self) -> Iterator[Step]:
        """What makes them."""
        plan = self.plan
        yield Step(
            f"Maddy's login {plan.user} gets the password that is in drain.env",
            lambda: self._has_login(plan.user) and _lets_in(plan),
            lambda: self._set_login(plan.user, plan.password, cheap=True),
        )
        for address in plan.mailboxes:
            done = partial(self._has_mailbox, address)
            yield Step(f"the mailbox {address} is made", done, partial(self._make_mailbox, address))
        for address in self._without_login() if self._asks else ():
            words = f"a login for mail programs, {address}: you are asked for its password"
            yield Step(words, partial(self._has_login, address), partial(self._ask_for_login, address))

    def without_login(self) -> list[str]:
        """The mailboxes that no mail program can log in to, and about which nobody is asked."""
        return [] if self._asks else self._without_login()

    def _set_login(self, user: str, password: Secret, *, cheap: bool = False) -> None:
        # Not `creds password`, which has the slow hash only.
        if self._has_login(user):
            _repeat(partial(self.maddy.remove_login, user), lambda: not self._has_login(user), f"The login {user}")
        add = partial(self.maddy.add_login, user, password, cheap=cheap)
        _repeat(add, partial(self._has_login, user), f"The login {user}")

    def _make_mailbox(self, address: str) -> None:
        there = partial(self._has_mailbox, address)
        if not there():
            _repeat(partial(self.maddy.add_mailbox, address), there, f"The mailbox {address}")

    def _ask_for_login(self, address: str) -> None:
        while password := getpass.getpass(f"Password for mail programs of {address} (empty: no login for now): "):
            if not _SHORTEST_PASSWORD <= len(password.encode()) <= LONGEST_PASSWORD:
                print(f"It has to have {_SHORTEST_PASSWORD} to {LONGEST_PASSWORD} bytes.")
            elif getpass.getpass("Once more: ") != password:
                print("The two are not the same.")
            else:
                self._set_login(address, Secret(password))
                return

    @property
    def _asks(self) -> bool:
        return self.ask and sys.stdin.isatty()

    def _has_login(self, user: str) -> bool:
        return user.lower() in self.maddy.logins(self.state)

    def _has_mailbox(self, address: str) -> bool:
        return address.lower() in self.maddy.mailboxes(self.state)

    def _without_login(self) -> list[str]:
        there = self.maddy.logins(self.state)
        return [address for address in self.plan.mailboxes if address.lower() not in there]


def _lets_in(plan: Plan) -> bool:
    """Whether the server that runs takes drain's login. Where none runs nobody knows, and the password is set again."""
    if not plan.pinned.is_file():  # then it could be anybody's port
        return False
    server = Server("127.0.0.1", plan.port, plan.user, plan.password, "starttls", str(plan.pinned))
    try:
        smtp = connect(server)
    except (OSError, smtplib.SMTPException, DrainError):
        return False
    try:
        log_in(smtp, server)
    except DrainError:
        return False
    finally:
        smtp.close()
    return True


def _repeat(change: Callable[[], None], done: Callable[[], bool], what: str) -> None:
    """Makes a change until it is made; see `Maddy.run`."""
    failure = ConfigError(f"{what} is not changed, and Maddy says nothing against it.", "Look into its log.")
    for _ in range(TRIES):
        try:
            change()
        except ConfigError as error:
            failure = error
        if done():
            return
    raise failure
