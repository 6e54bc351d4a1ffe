"""Whether a mail is in its mailbox already, asked over IMAP by its ``X-Drain-Id``."""

from dataclasses import dataclass
from enum import StrEnum


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
