"""What a person at a terminal sees: of a pass its progress and how it ended, and of a mail what is in it."""

from typing import TYPE_CHECKING, TextIO

from drain.mail import Mail
from drain.opener import Opened
from drain.outcome import Outcome, Result
from drain.recipients import Recipients
from drain.sweep import Summary
from drain.text import clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_WORTH_A_BAR = 20

_WORDS = {
    Outcome.DELIVERED: "delivered",
    Outcome.MOVED: "delivered before and only moved",
    Outcome.QUARANTINED: "set aside in quarantine",
    Outcome.DEFERRED: "deferred",
    Outcome.UNKNOWN: "without a reply from the mail server",
    Outcome.WAITING: "waiting for their next attempt",
    Outcome.GONE: "taken by another drain",
    Outcome.NO_KEY: "without a key that opens them",
    Outcome.FAILED: "failed and left as they are",
}


class Bar:
    """A progress bar on standard error that appears when there is much to do."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._done = 0

    def listed(self, count: int) -> None:
        """So many objects are known of by now."""
        if self._progress is None and count >= _WORTH_A_BAR:
            from rich.console import Console  # noqa: PLC0415 (60 ms that only a person has to pay)
            from rich.progress import Progress  # noqa: PLC0415

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task("Bringing mail home", total=count, completed=self._done)
            self._progress.start()
        elif self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=count)

    def done(self, _result: Result) -> None:
        """One more is done."""
        self._done += 1
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done)

    def close(self) -> None:
        """Takes it away."""
        if self._progress is not None:
            self._progress.stop()


def summary_in_words(summary: Summary) -> str:
    """One sentence on how a pass ended; "" if its error says it all."""
    parts = [f"{summary.outcomes[outcome]} {words}" for outcome, words in _WORDS.items() if summary.outcomes[outcome]]
    if not parts:
        return "No mail is waiting." if summary.error is None else ""
    return f"{summary.listed} in the bucket: {', '.join(parts)}; {summary.seconds:.1f} s."


def envelope_in_words(opened: Opened) -> str:
    """What stands beside a mail, or was sealed with it; never in its header."""
    mail = opened.mail
    parts = [f"kind: {opened.kind}", f"to: {mail.recipient or '(nobody)'}", f"from: <{mail.sender}>"]
    parts += [f"{name}: {value}" for name, value in (("received", opened.received), ("ip", opened.ip)) if value]
    return clean("  ".join([*parts, f"size: {len(mail.raw)}"]))


def mail(shown: Mail, stream: TextIO) -> None:
    """Writes a mail: its bytes as they are, but on a terminal nothing that would move the terminal."""
    if not stream.isatty():
        stream.buffer.write(shown.raw)
        stream.buffer.flush()
        return
    for line in shown.raw.decode("utf-8", "replace").expandtabs(4).splitlines():
        # Not every terminal has all letters.
        shown_line = clean(line, limit=len(line)).encode(stream.encoding, "replace")
        stream.buffer.write(shown_line + b"\n")


def recipients_in_words(found: Recipients) -> str:
    """The list that the Worker gets."""
    lines = [clean(address) for address in sorted(found.addresses)]
    lines += [f"{clean(address)} takes whatever is sent." for address in found.catch_alls]
    if found.domains:
        letters = " ".join(found.delimiters)
        lines.append(f"These, also with anything after {letters} in the name.")
        lines.append(f"Anybody else at {', '.join(sorted(found.domains))} is refused.")
    else:
        lines.append("Nobody is refused, because every address exists. INJECT_RCPT=none takes drain's catch-all away.")
    return "\n".join(lines)
