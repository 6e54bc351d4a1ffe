"""What a mail server shall be: files, what is no file, its check, its start."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from drain.setup.changes import File


@dataclass(frozen=True)
class Step:
    """Something that has to be so and is no file: a user, a login.

    Attributes:
        words: what is done, for the person: ``the system user vmail is made``. Never a secret.
        done: whether it is so already; changes nothing.
        do: makes it so; may be cut off anywhere and done again. Raises DrainError.
    """

    words: str
    done: Callable[[], bool]
    do: Callable[[], None]


@dataclass(frozen=True)
class Wanted:
    """All that a mail server needs, in the order in which it is done.

    Attributes:
        before: users and folders, made before the files.
        files: its configuration.
        after: logins and mailboxes, once the files are there.
        check: whether it can start with them; raises DrainError, and then the files of before are put back.
        settings: what drain.env has to say, once that is passed.
        start: starts it if it does not run, and starts it again if it is told that something
            changed; says which in a sentence, or "" for neither. Raises DrainError.
        runs: whether it runs now; one that cannot say so is not started again after a failure.
        listeners: its ports on 127.0.0.1 but the one for injection, by protocol (``imap``, ``lmtp``, ``submission``).
        opening: sentences for the beginning, of what the person has to know before any of it is done.
        closing: sentences for the end, of what the person may want to do next.
    """

    before: tuple[Step, ...]
    files: tuple[File, ...]
    after: tuple[Step, ...]
    check: Callable[[], None]
    settings: Mapping[str, str]
    start: Callable[[bool], str]
    closing: tuple[str, ...] = field(default=())
    opening: tuple[str, ...] = field(default=())
    listeners: Mapping[str, int] = field(default_factory=dict)
    runs: Callable[[], bool] = field(default=lambda: False)
