"""What the Maddy that is there has, and would have no longer: logins, mailboxes and waiting mail."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from drain.errors import ConfigError
from drain.text import clean

# A directive, and what comes after it on its line but for a comment.
_PLACES = re.compile(r"^\s*(driver|dsn|table_name|msg_store)\s+([^\n#]+)", re.MULTILINE)
_LOCATION = re.compile(r'^\s*location\s+"?([^"\n#]+)', re.MULTILINE)


def check_databases(there: str, wanted: str, state: Path) -> None:
    """Whether both configurations keep logins, mailboxes and mails in the same places; no *there*: there is none.

    Raises:
        ConfigError: they do not, and what is in the old ones would look gone.
    """
    others = sorted(_places(there, state) - _places(wanted, state))
    if others:
        lines = ", ".join(f"`{name} {value}`" for name, value in others)
        raise ConfigError(
            f"maddy.conf has {clean(lines, 400)}, and drain's has not: "
            "the logins or mailboxes that are there now would look gone.",
            "Rename the databases and these lines so that they are as in drain/templates/maddy.conf; "
            "or change maddy.conf by hand, after that file.",
        )


def check_queues(there: str, state: Path, kept: Path | None) -> None:
    """Whether mail waits in a queue that nobody will empty; *kept* is the folder of the one that there will be.

    *there* is what Maddy's files have now, *state* its folder of databases as this process sees it.

    Raises:
        ConfigError: so it is.
    """
    waiting = [(folder, count) for folder in _queues(there, state) if folder != kept and (count := _mails(folder))]
    if waiting:
        raise ConfigError(
            f"Mail waits in Maddy's queue, and would wait there for ever: "
            f"{', '.join(f'{count} in {clean(str(folder))}' for folder, count in waiting)}.",
            "Let Maddy send it first, or move it out of there; then run this again.",
        )


def _places(text: str, state: Path) -> set[tuple[str, str]]:
    found = ((name, value.replace('"', "").strip().removeprefix(f"{state}/")) for name, value in _PLACES.findall(text))
    return {(name, value) for name, value in found}


def _queues(there: str, state: Path) -> Iterator[Path]:
    """Folders that may be a target.queue's: one below *state* with its name, or its ``location``."""
    named: Sequence[Path] = [state / location.strip() for location in _LOCATION.findall(there)]
    below = (path for path in state.glob("*") if path.is_dir())
    yield from sorted({*named, *below})


def _mails(folder: Path) -> int:
    """Each has a file .meta there (Maddy's internal/target/queue)."""
    return sum(1 for _ in folder.glob("*.meta"))
