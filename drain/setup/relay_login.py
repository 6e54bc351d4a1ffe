"""The login of a mail server at drain's relay."""

import contextlib
import secrets

from drain.errors import ConfigError
from drain.relay.users import Users
from drain.setting import Secret
from drain.setup.plan import Relay, as_owner
from drain.setup.wanted import Step

_PASSWORD_BYTES = 24


def password(relay: Relay, user: str, kept: str) -> tuple[Secret, Step]:
    """Its password, and the step that adds the user.

    *kept* is the password that the server's configuration has, or "": if the relay takes
    it, it stays. The relay's file is written by whoever owns it, so that drain can still read it.

    Raises:
        ConfigError: the relay's users cannot be read.
    """
    users = Users(relay.users_file)

    def fits(word: str) -> bool:
        with as_owner(relay.users_file):
            return bool(word) and user in users.names() and users.check(user, word.encode())

    word = kept if fits(kept) else secrets.token_urlsafe(_PASSWORD_BYTES)

    def add() -> None:
        with as_owner(relay.users_file):
            senders: tuple[str, ...] = ()
            with contextlib.suppress(ConfigError):  # it is new
                senders = users.senders(user)
            users.add(user, word.encode(), senders)

    return Secret(word), Step(f"the relay's user {user} is made, with a random password", lambda: fits(word), add)
