"""What a person does with mail that was set aside: look, release, delete.

What lies under ``quarantine/`` is the list; what the ledger knows of it, by the
identity in its name, stands beside it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from drain.bucket import IDENTITY, Bucket, FetchedObject
from drain.errors import NoInput, NotMail, Unusable
from drain.filters.chain import total
from drain.ledger import Ledger
from drain.listing import ListedObject
from drain.mail import Mail
from drain.opener import OBJECT_LIMIT, Opened, Opener, envelope_of
from drain.prefixes import Prefixes
from drain.state import Row, State
from drain.verdicts import Kept

_SHORTEST_ID = 4
# Whoever releases all means false alarms, not these; each can be released by its id, or by its reason.
DANGEROUS = frozenset({"virus", "wrong-token", "not-sealed"})
# Nothing in these can be delivered.
NO_MAIL = frozenset({"damaged", "empty", "not-mail", "unknown-version"})


@dataclass(frozen=True)
class Entry:
    """One object in quarantine. ``identity`` is "" and ``row`` None where the ledger does not know it."""

    listed: ListedObject
    identity: str
    row: Row | None
    score: float | None

    @property
    def id(self) -> str:
        """What a person calls it by: the beginning of its identity, or the whole name of its object."""
        return self.identity[:12] or self.listed.key

    @property
    def reason(self) -> str:
        """The code; "" where the ledger does not know it."""
        return (self.row.reason or "") if self.row else ""

    @property
    def why(self) -> str:
        """The code, and the words if there are any."""
        return ": ".join(filter(None, (self.row.reason, self.row.words))) if self.row else ""

    @property
    def set_aside_at(self) -> float:
        """Unix time."""
        return self.row.updated_at if self.row else self.listed.last_modified.timestamp()


@dataclass(frozen=True)
class Quarantine:
    """The objects under the prefix, and the ledger; for what writes, the lock has to be held."""

    bucket: Bucket
    ledger: Ledger
    opener: Opener
    prefixes: Prefixes

    def entries(self) -> list[Entry]:
        """All of them, oldest first."""
        found = [self._entry(listed) for page in self.bucket.pages(self.prefixes.quarantine) for listed in page]
        return sorted(found, key=lambda entry: entry.set_aside_at)

    def find(self, word: str) -> list[Entry]:
        """The objects of the mail that a person means: by the beginning of its identity, or an object's name.

        Raises:
            NoInput: there is none, or the word could mean several mails.
        """
        key = word if word.startswith(self.prefixes.quarantine) else f"{self.prefixes.quarantine}{word}"
        if len(key) < len(self.prefixes.quarantine) + _SHORTEST_ID:
            raise NoInput(f"{word!r} is too short; the first {_SHORTEST_ID} letters of the id are the least.")
        found = [self._entry(listed) for listed in next(self.bucket.pages(key), [])]
        exact = [entry for entry in found if entry.listed.key == key]
        if not found:
            raise NoInput(f"There is no {word} in quarantine.", "`drain quarantine list` shows what there is.")
        if not exact and len({entry.identity or entry.listed.key for entry in found}) > 1:
            raise NoInput(f"{word} could be any of {len(found)} mails.", "Give more of its id.")
        return exact or found

    def because_of(self, reason: str) -> list[Entry]:
        """Those set aside for a reason.

        Raises:
            NoInput: there is none.
        """
        entries = self.entries()
        found = [entry for entry in entries if entry.reason == reason]
        if not found:
            there = _counted(entries) or "nothing"
            raise NoInput(f"Nothing is in quarantine for the reason {reason}.", f"There is: {there}.")
        return found

    def gone(self, entries: Iterable[Entry]) -> list[str]:
        """Identities of mails that the ledger has here, and that are not among all *entries*: somebody deleted their objects."""
        here = {entry.identity for entry in entries}
        return [identity for identity in self.ledger.quarantined_identities() if identity not in here]

    def verdicts(self, entry: Entry) -> list[Kept]:
        """What the filters said of it."""
        return list(self.ledger.verdicts.of(entry.identity).values())

    def open(self, entry: Entry) -> Opened:
        """The mail in it, believed or not.

        Raises:
            Unusable: it holds no mail, or another than its name says.
            NoInput: it is gone.
            KeyMissing: no key here opens it.
        """
        if entry.listed.size > OBJECT_LIMIT:
            raise Unusable(f"{entry.id} has {entry.listed.size} bytes; no mail has more than {OBJECT_LIMIT}.")
        fetched = self.bucket.get(entry.listed)
        if fetched is None:
            raise NoInput(f"{entry.id} is not in quarantine any more.")
        try:
            opened = self.opener.believing_all().open(fetched.body, fetched.metadata)
        except NotMail as error:
            raise Unusable(
                f"{entry.id} holds no mail: {error}", f"`drain open {entry.listed.key}` says more."
            ) from None
        if entry.identity and entry.identity not in self._identities(fetched, opened.mail, entry):
            raise Unusable(
                f"{entry.listed.key} is not what was set aside under that name: somebody else wrote it.",
                "Delete it by its whole name.",
            )
        return opened

    def _identities(self, fetched: FetchedObject, mail: Mail, entry: Entry) -> set[str]:
        """What the mail in an object could have been set aside as: itself, or what was not believed."""
        reasons = {entry.reason}
        try:
            self.opener.open(fetched.body, fetched.metadata)
        except NotMail as error:
            reasons.add(error.reason)
        envelope = envelope_of(fetched.metadata)
        return {mail.identity} | {Mail(fetched.body, *envelope, aside=reason).identity for reason in reasons if reason}

    def release(self, entry: Entry, now: float) -> tuple[str, bool]:
        """Notes that a person wants it delivered, filters passed over. What `open` raises.

        Returns:
            Its identity, and whether it was delivered before, and is only moved.
        """
        opened = self.open(entry)
        row = self.ledger.find(opened.mail.identity)
        self.ledger.release(entry.listed, opened.mail, entry.identity or opened.mail.identity, now)
        return opened.mail.identity, row is not None and row.state in (State.SETTLED, State.DELIVERED)

    def delete(self, entry: Entry, now: float) -> None:
        """Deletes the object for good."""
        self.bucket.remove(entry.listed.key)
        row = self.ledger.find(entry.identity)  # as it is now: a pass may have delivered it since it was listed
        if row is not None and row.state not in (State.DELIVERED, State.SETTLED):
            self.ledger.deleted(entry.identity, now)

    def _entry(self, listed: ListedObject) -> Entry:
        named = IDENTITY.match(listed.key.removeprefix(self.prefixes.quarantine))
        identity = named[1] if named else ""
        row = self.ledger.find(identity) if identity else None
        kept = self.ledger.verdicts.of(identity).values() if row else ()
        return Entry(listed, identity, row, total([one.verdict for one in kept]))


def _counted(entries: list[Entry]) -> str:
    """How many for which reason; "" for none."""
    return ", ".join(f"{number} {code or 'unknown'}" for code, number in Counter(e.reason for e in entries).items())


def left_by_all(entries: list[Entry]) -> tuple[list[Entry], str]:
    """What releasing all releases, and what it leaves, in words ("" for nothing)."""
    chosen = [entry for entry in entries if entry.reason and entry.reason not in DANGEROUS | NO_MAIL]
    return chosen, _counted([entry for entry in entries if entry not in chosen])
