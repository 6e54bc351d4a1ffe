"""Whether a mail is in its mailbox already, asked over IMAP by its ``X-Drain-Id``.

Asked of mail whose delivery was cut off, before it is sent again. It is looked for
in all folders: a rule or a person may have moved it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from drain.errors import ConfigError, DrainError
from drain.login import Server
from drain.places import domain_key
from drain.setting import Secret

ANY = "*"
# A mailbox that cannot be asked: so long a mail is held back at the most, and looked for in between.
_LONGEST_SECONDS = 3600.0
_FIRST_PAUSE_SECONDS = 60.0


class Presence(StrEnum):
    """What was found."""

    THERE = "there"
    ABSENT = "absent"
    UNKNOWN = "unknown"  # the mailbox could not be asked just now
    NO_LOGIN = "no-login"  # drain has no login for that mailbox


@dataclass(frozen=True)
class Answer:
    """What was found, and the same in words."""

    presence: Presence
    words: str


@dataclass(frozen=True)
class Login:
    """A user and its password. In the one for `ANY` mailbox, ``%`` in the user is the mailbox."""

    user: str
    password: Secret


@dataclass(frozen=True)
class Mailboxes:
    """The mailboxes that drain may look into.

    ``server`` says where they are, its user and password aside; ``logins`` is as
    `load_logins` makes it. ``grace_seconds`` is how long the mail server may take to
    file a mail that it has taken: "absent" means nothing before. ``seconds`` is for
    one question, from the connection to the answer.
    """

    server: Server
    logins: Mapping[str, Login]
    grace_seconds: float
    seconds: float = 60.0

    def ask(self, mailbox: str, value: str) -> Answer:
        """Whether a mail with that value of ``X-Drain-Id`` is in the *mailbox*, an address that the server took.

        Calls may come from several threads. Nothing is raised: what fails is `Presence.UNKNOWN`.
        """
        server = self._server(mailbox)
        if server is None:
            return Answer(Presence.NO_LOGIN, "There is no login for its mailbox.")
        from drain import imap  # noqa: PLC0415 (seldom needed: on a phone it costs time and memory)

        try:
            folder = imap.find(server, value, self.seconds)
        except DrainError as error:
            return Answer(Presence.UNKNOWN, str(error))
        if folder is None:
            return Answer(Presence.ABSENT, "It is in no folder of its mailbox.")
        return Answer(Presence.THERE, f"Found in {folder}.")

    def look_again_at(self, presence: Presence, since: float, now: float) -> float | None:
        """When to look again for a mail that was not found; None: it is to be sent again.

        Args:
            presence: what was found.
            since: when it was first looked for. Not when it was sent: the drain that
                sent it may have died just before, and the server files from then on.
            now: Unix time, as *since*.
        """
        if presence is Presence.ABSENT:
            pause, end = self.grace_seconds, since + self.grace_seconds
        elif presence is Presence.UNKNOWN:
            # As long again as it has been, so that a short outage is a short wait.
            pause, end = max(_FIRST_PAUSE_SECONDS, now - since), since + _LONGEST_SECONDS
        else:
            return None
        return min(now + pause, end) if now < end else None

    def probe(self, any_mailbox: str) -> dict[str, str]:
        """Logs in to each mailbox that has a line, and to *any_mailbox* where there is a line for `ANY`.

        Returns:
            The mailbox to what failed there, "" where nothing did.
        """
        from drain import imap  # noqa: PLC0415 (as above)

        failures = {}
        for name in self.logins:
            mailbox = any_mailbox if name == ANY else name
            server = self._server(mailbox)
            assert server is not None, "it has a line"
            try:
                imap.try_login(server, self.seconds)
                failures[mailbox] = ""
            except DrainError as error:
                failures[mailbox] = str(error)
        return failures

    def _server(self, mailbox: str) -> Server | None:
        """The server with the login of a mailbox, which is that of its plain address too."""
        key = _key(mailbox)
        local, _, domain = key.rpartition("@")
        base = f"{local.partition('+')[0] or local}@{domain}"
        login = self.logins.get(key) or self.logins.get(base)
        if login is None and ANY in self.logins:
            login = self.logins[ANY]
            login = Login(login.user.replace("%", base), login.password)
        return None if login is None else dataclasses.replace(self.server, user=login.user, password=login.password)


def load_logins(path: Path) -> dict[str, Login]:
    """The logins of a file, by mailbox in the form in which they are compared, or by `ANY`.

    One a line: ``mailbox: user password``. A line that begins with ``#`` is a comment;
    elsewhere it may be of a password.

    Raises:
        ConfigError: the file cannot be read, or a line is not like that. The line is
            not shown: there is a password in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"VERIFY_IMAP_LOGINS_FILE {path} cannot be read: {reason}.") from error
    logins: dict[str, Login] = {}
    for number, line in enumerate(lines, start=1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        mailbox, _, login = content.partition(":")
        name = _key(mailbox.strip())
        user, password = [*login.split(maxsplit=1), "", ""][:2]
        if name in logins or not password or not (name == ANY or _is_address(name)):
            what = "names a mailbox for the second time" if name in logins else "is not right"
            raise ConfigError(
                f"VERIFY_IMAP_LOGINS_FILE {path}, line {number} {what}.",
                "It wants `alice@example.org: user password`, or `*: %*master password`.",
            )
        logins[name] = Login(user, Secret(password))
    return logins


def _key(mailbox: str) -> str:
    """The one form in which mailboxes are compared."""
    local, at, domain = mailbox.rpartition("@")
    return f"{local.lower()}@{domain_key(domain)}" if at else mailbox


def _is_address(name: str) -> bool:
    local, _, domain = name.rpartition("@")
    return bool(local and domain) and not any(letter.isspace() for letter in name)
