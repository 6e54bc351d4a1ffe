"""What can go wrong, told apart by what the person can do about it.

Raise below, log once above: a leaf raises one of these with what was tried, on
what, and a hint; `drain.cli` turns it into one line and an exit code.
"""

import os


class DrainError(Exception):
    """A failure that has a sentence for the person.

    Attributes:
        hint: what the person can do about it, or "".
        exit_code: the process's exit status (sysexits.h) if it ends for this.
    """

    exit_code: int = os.EX_SOFTWARE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} {self.hint}" if self.hint else message


class ConfigError(DrainError):
    """A setting, a file that it names, or a key is missing or wrong: exit 78."""

    exit_code = os.EX_CONFIG


class Refused(DrainError):
    """Credentials refused, by R2 or the mail server: exit 77."""

    exit_code = os.EX_NOPERM


class Unavailable(DrainError):
    """Away for now; trying again later is right: exit 75."""

    exit_code = os.EX_TEMPFAIL


class WrongUse(DrainError):
    """A command was given words that do not fit: exit 64."""

    exit_code = os.EX_USAGE


class NoInput(DrainError):
    """What a command was given to work on is not there: exit 66."""

    exit_code = os.EX_NOINPUT


class Unusable(DrainError):
    """What a command was given to work on is not what it is for: exit 65."""

    exit_code = os.EX_DATAERR


class BucketRefused(Refused):
    """R2 does not let us in, or the bucket does not exist."""


class BucketUnavailable(Unavailable):
    """R2 cannot be reached, or answers with something else than S3."""


class MailServerRefused(Refused):
    """The mail server did not take our login."""


class MailServerUnavailable(Unavailable):
    """The mail server cannot be reached or asks us to come back later."""


class LedgerUnavailable(Unavailable):
    """The ledger cannot be written just now: disk full, or locked by another program."""


class LockHeld(Unavailable):
    """Another drain is at work."""


class Stopping(Unavailable):
    """drain was asked to stop; the mail stays where it is."""


class KeyMissing(ConfigError):
    """The object is sealed, and no key here opens it: it waits where it is.

    Attributes:
        suspect: the name of a key that may be the wrong one, if damage would look the same.
    """

    def __init__(self, message: str, hint: str = "", *, suspect: str = "") -> None:
        super().__init__(message, hint)
        self.suspect = suspect


class NotMail(Exception):
    """The object is no mail, or not one to be believed: it goes to quarantine.

    ``reason`` is a short code, the message says it in words.
    """

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason
