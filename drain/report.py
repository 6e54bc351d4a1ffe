"""What of a pass a person has to be told, and how often."""

from collections.abc import Callable
from dataclasses import dataclass

from drain.filters.chain import Chain
from drain.log import Log
from drain.notes import Notes
from drain.routing import Router
from drain.summary import Summary

# What comes and goes is not to be heard of more often.
_ALARM_SECONDS = 3600.0


@dataclass(frozen=True)
class Report:
    """Tells it by the log, and remembers it in the notes. *quarantine* is that prefix."""

    log: Log
    notes: Notes
    router: Router
    quarantine: str
    clock: Callable[[], float]

    def tell(self, summary: Summary, chain: Chain) -> None:
        """Says it."""
        if summary.asided:
            reasons = ", ".join(f"{number} {reason}" for reason, number in summary.asided.items())
            self.log.alert(
                "quarantine",
                message=f"Mail was set aside under {self.quarantine}: {reasons}.{_hint(summary, self.router.catch_all)}",
            )
        if summary.keyless:
            (words, _), *others = summary.keyless.most_common()
            more = f" And {len(others)} other reason{'s' * (len(others) > 1)} like it." if others else ""
            waits = "Such mail waits in the bucket."
            self.log.alert("no-key", mails=summary.keyless.total(), message=f"{words}{more} {waits}")
        for name in chain.answered - chain.failing:
            self._once("filter", name, "")
        for name in chain.failing:
            words = chain.troubles[name]
            means = "Mail goes on without it." if name in chain.fail_open else "Mail waits for it."
            self._once("filter", name, f"{words} {means}")
        if summary.no_junk_mailbox is not None:
            words = "The mail server has no such mailbox; spam goes to its own, tagged."
            self._once("junk", self.router.junk, words if summary.no_junk_mailbox else "")

    def _once(self, event: str, name: str, words: str) -> None:
        """Once until it is over, however the words change, and once when it is (""); an alarm once an hour at most."""
        told, at = self.notes.told(f"{event} {name}")
        if bool(told) is not bool(words):
            alarming = bool(words) and not 0 <= self.clock() - at < _ALARM_SECONDS
            self.notes.tell(f"{event} {name}", words, self.clock() if alarming else at)
            say = self.log.alert if alarming else self.log.notice
            say(event, message=words or "It works again.", **{event: name})


def _hint(summary: Summary, catch_all: str) -> str:
    """Refusals at RCPT, catch-all included, are seldom the mail's fault."""
    if not {"no-mailbox", "recipient-refused"} & set(summary.asided):
        return ""
    if not catch_all:
        return " There is no catch-all (INJECT_RCPT=none). Does the mail server have the domains in MAIL_DOMAIN?"
    return " Does the mail server have the domains in MAIL_DOMAIN, and the mailbox in INJECT_RCPT?"
