"""What a filter says of a mail, and how it says that it cannot."""

from dataclasses import dataclass
from enum import IntEnum

from drain.errors import Unavailable


class Action(IntEnum):
    """What a verdict asks for; of several, the greatest is done."""

    NONE = 0
    TAG = 1  # deliver, tagged as spam
    JUNK = 2  # the same, to the junk mailbox
    QUARANTINE = 3
    DISCARD = 4

    @property
    def word(self) -> str:
        """As it is written in settings, headers and tables."""
        return self.name.lower()

    @property
    def settles(self) -> bool:
        """Whether no later filter could matter any more."""
        return self >= Action.QUARANTINE


@dataclass(frozen=True)
class Verdict:
    """One filter's opinion of one mail.

    ``score``, None for none, is in SpamAssassin's points and adds up with the other filters'.
    ``action`` is what is asked for whatever the points come to. ``reason`` is
    short and for a person ("listed by zen.spamhaus.org"), ``code`` shorter and for
    a table (letters, digits, ``-``), ``evidence`` what it was found by, a line each:
    rules, answers, addresses. All of these can hold words from outside: they are
    cleaned where they are shown or stored. ``incomplete`` says what could not be
    asked, where the rest is still worth something.
    """

    score: float | None = None
    action: Action = Action.NONE
    code: str = ""
    reason: str = ""
    evidence: tuple[str, ...] = ()
    incomplete: str = ""


class FilterFailed(Unavailable):
    """A filter could not say anything of a mail: the message says what was tried and what to do.

    ``down`` says that it is the service and not this mail: then the next mails
    of a pass need not be tried. ``asked`` is False where it was not even reached, so
    that nothing can have been charged.
    """

    def __init__(self, message: str, hint: str = "", *, down: bool = True, asked: bool = True) -> None:
        super().__init__(message, hint)
        self.down = down
        self.asked = asked
