"""What a person at a terminal sees: of a pass its progress and how it ended, and of a mail what is in it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from drain.filters.chain import Judgement
from drain.filters.mime import words_of
from drain.header import Header
from drain.mail import Mail
from drain.opener import Opened
from drain.outcome import Outcome, Result
from drain.quarantine import Entry
from drain.recipients import Recipients
from drain.show.table import minute, table
from drain.summary import Summary
from drain.text import clean
from drain.verdicts import Kept

if TYPE_CHECKING:
    # Loaded by those who have some to show: it brings `cryptography`.
    from rich.progress import Progress, TaskID

    from drain.relay.queue import Entry as Outgoing
    from drain.relay.suppressed import Suppression

_WORTH_A_BAR = 20
# So much of an id is shown, and enough to name it.
SHORT = 12

_WORDS = {
    Outcome.DELIVERED: "delivered",
    Outcome.MOVED: "delivered before and only moved",
    Outcome.QUARANTINED: "set aside in quarantine",
    Outcome.DISCARDED: "discarded",
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
    if not parts and summary.stopped:
        return "Stopped." if summary.error is None else ""
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


_SHOWN_FIELDS = ("From", "To", "Cc", "Subject", "Date", "Message-ID")


def quarantine(entries: Sequence[Entry], stream: TextIO) -> None:
    """The table of what is in quarantine."""
    if not entries:
        stream.write("Nothing is in quarantine.\n")
        return
    rows = []
    for entry in entries:
        row = entry.row
        cells = (
            entry.id,
            minute(entry.set_aside_at),
            row.from_whom if row else "",
            row.recipient if row else "",
            "" if entry.score is None else f"{entry.score:.1f}",
            entry.why if row else "(not in the ledger)",
        )
        rows.append(cells)
    table(("id", "since", "from", "to", "score", "reason"), rows, stream)


def outgoing(entries: "Sequence[Outgoing]", stream: TextIO) -> None:
    """The table of what is in the relay's queue."""
    if not entries:
        stream.write("Nothing is in the queue.\n")
        return
    rows = [
        (
            entry.id[:SHORT],
            entry.state.value,
            minute(entry.mail.received_at),
            entry.mail.sender or "<>",
            entry.recipients[0] + (f" and {len(entry.recipients) - 1} more" if len(entry.recipients) > 1 else ""),
            str(entry.attempts),
            minute(entry.next_attempt_at) if entry.state == "waiting" else "",
            entry.diagnostic,
        )
        for entry in entries
    ]
    table(("id", "state", "since", "from", "to", "tries", "next", "what was said"), rows, stream)


def outgoing_in_words(entry: "Outgoing") -> str:
    """All that is known of one of them."""
    mail = entry.mail
    lines = [
        f"id        {entry.id}",
        f"mail      {mail.id} ({mail.size} bytes)",
        f"state     {entry.state.value}, since {minute(entry.updated_at)}",
        f"taken     {minute(mail.received_at)} from {mail.user or 'drain itself: a report of mail that failed'}",
        f"from      {mail.sender or '<>'}",
        *(f"to        {recipient}" for recipient in entry.recipients),
        f"tries     {entry.attempts}" + (f", {entry.unknown} of which the end is not known" if entry.unknown else ""),
    ]
    if entry.state == "waiting":
        lines.append(f"next      {minute(entry.next_attempt_at)}")
    if mail.message_id:
        lines.append(f"Message-ID {mail.message_id}")
    if entry.diagnostic:
        lines.append(f"said      {entry.status} {entry.diagnostic}".replace("  ", " "))
    if entry.reference:
        lines.append(f"reference {entry.reference}")
    return "".join(f"{clean(line)}\n" for line in lines)


def suppressions(found: "Sequence[Suppression]", stream: TextIO) -> None:
    """The table of addresses that bounced."""
    if not found:
        stream.write("No address is suppressed.\n")
        return
    rows = [(one.address, minute(one.at), one.status, one.diagnostic) for one in found]
    table(("address", "since", "status", "what was said"), rows, stream)


def quarantined(entry: Entry, verdicts: Sequence[Kept], header: Mapping[str, str], problem: str) -> str:
    """All that is known of one of them."""
    row = entry.row
    lines = [f"id       {entry.identity or entry.id}", f"object   {entry.listed.key} ({entry.listed.size} bytes)"]
    lines.append(f"since    {minute(entry.set_aside_at)}")
    if row is not None:
        lines += [
            f"from     <{row.sender}>",
            f"to       {row.recipient}",
            f"reason   {entry.why}",
        ]
    else:
        lines.append("reason   not known: the ledger has no row of it")
    for kept in verdicts:
        verdict = kept.verdict
        points = "" if verdict.score is None else f" {verdict.score:.1f} points"
        lines.append(
            f"{kept.filter}:{points} {verdict.action.word if verdict.action else ''} {verdict.reason}".rstrip()
        )
        lines += [f"    {line}" for line in verdict.evidence]
    lines += [f"{name}: {value}" for name, value in header.items()]
    lines += [problem] if problem else [f"The whole mail: drain open {entry.listed.key}"]
    return "\n".join(clean(line, limit=1000) for line in lines) + "\n"


def header(opened: Opened) -> dict[str, str]:
    """The fields of a mail that a person knows it by, decoded for reading."""
    fields = Header.of(opened.mail.raw)
    return {name: clean(words_of(text)) for name in _SHOWN_FIELDS if (text := fields.get(name))}


def judgement(judged: Judgement, lines: bytes) -> str:
    """What each filter said of a mail, in what time, and what it comes to."""
    shown = []
    for answer in judged.answers:
        verdict = answer.verdict
        said = [verdict.action.word] if verdict is not None and verdict.action else []
        if verdict is not None and verdict.score is not None:
            said.append(f"{verdict.score:.1f} points")
        if verdict is None:
            said.append("FAILED")
        reason = f": {verdict.reason}" if verdict is not None and verdict.reason else ""
        answered = f"{', '.join(said)}{reason}" if said else "asks for nothing"
        shown.append(f"{answer.filter}  {answered}  ({answer.seconds * 1000:.1f} ms)")
        shown += [f"    {line}" for line in (verdict.evidence if verdict is not None else ())]
        shown += [f"    {answer.failure}"] if answer.failure else []
    becomes = judged.in_words or "deliver"
    if judged.failed:
        becomes = f"it waits for {judged.failed}, which FILTER_FAIL_OPEN does not name"
    elif judged.worst.action > judged.action:
        becomes += " (nothing is discarded without ALLOW_DISCARD=true)"
    shown.append(f"=> {becomes}")
    if not judged.failed and not judged.action.settles:
        shown += lines.decode("ascii").splitlines()
    return "\n".join(clean(line, limit=1000) for line in shown)
