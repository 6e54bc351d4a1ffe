"""The steps of a mail through the relay, by name: the points at which the crash suite kills the process."""

from enum import StrEnum


class Step(StrEnum):
    """What has just been done."""

    BODY_SYNCED = "body-synced"
    ACCEPTED = "accepted"  # committed; the 250 follows
    LEASED = "leased"
    ANSWERED = "answered"  # by the upstream; nothing is noted yet
    DSN_SYNCED = "dsn-synced"
    SETTLED = "settled"
    CLEARED = "cleared"  # the body is deleted
