"""What the mails of a pass are worked on with."""

from collections.abc import Callable
from dataclasses import dataclass

from drain.filters.policy import Policy
from drain.inject import Session
from drain.mailboxes import Mailboxes
from drain.marks import Marks
from drain.opener import Opener
from drain.routing import Router


@dataclass(frozen=True)
class Tools:
    """Made once, for the first pass that has something to do; ``connect`` logs in to the mail server."""

    opener: Opener
    router: Router
    connect: Callable[[], Session]
    policy: Policy
    marks: Marks
    mailboxes: Mailboxes | None
