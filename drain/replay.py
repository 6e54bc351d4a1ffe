"""Mail out of ``processed/`` once more, because a person wants it.

What lies there is the list. What the ledger knows of it, by the identity in its name,
stands beside it; where it knows nothing, or another program moved the object there,
the object is opened.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, replace

from drain.bucket import IDENTITY, Bucket, FetchedObject
from drain.errors import DrainError, NoInput, NotMail, Unusable
from drain.ledger import Ledger
from drain.listing import ListedObject
from drain.mail import Mail
from drain.opener import OBJECT_LIMIT, Opener
from drain.prefixes import Prefixes
from drain.state import REBUILT, Row, State

# Of a mail, at the beginning of the name that drain gave its object.
_SHORTEST_ID = 4


@dataclass(frozen=True)
class Entry:
    """One object under ``processed/``, and whose mail it holds.

    ``identity`` is "" and ``problem`` says why where it could not be opened.
    ``delivered_at`` are Unix times, of each delivery that is known; else of when the
    object was put there. ``named``: a person asked for this very mail.
    """

    listed: ListedObject
    identity: str
    recipient: str
    sender: str
    row: Row | None
    delivered_at: tuple[float, ...]
    named: bool = False
    problem: str = ""

    @property
    def id(self) -> str:
        """What a person calls it by: the beginning of its identity, or the name of its object."""
        return self.identity[:12] or self.listed.key


@dataclass(frozen=True)
class Replay:
    """The objects under the prefix, and the ledger; for what writes, the lock has to be held."""

    bucket: Bucket
    ledger: Ledger
    opener: Opener
    prefixes: Prefixes

    def find(self, word: str) -> list[Entry]:
        """The mail that a person means: by the beginning of its identity, or an object's name.

        Raises:
            NoInput: there is none, or the word could mean several mails.
        """
        prefix = self.prefixes.processed
        key = word if word.startswith(prefix) else f"{prefix}{word}"
        if len(key) < len(prefix) + _SHORTEST_ID:
            raise NoInput(f"{word!r} is too short; the first {_SHORTEST_ID} letters of the id are the least.")
        listed = next(self.bucket.pages(key), [])
        exact = [one for one in listed if one.key == key]
        found = [self._whole(self._entry(one)) for one in exact or listed]
        if not found:  # perhaps of an object without an identity in its name
            entries = (self._whole(entry) for entry in self._entries() if not IDENTITY.match(self._name(entry.listed)))
            found = [entry for entry in entries if entry.identity.startswith(word)]
        mails = {entry.identity or entry.listed.key: entry for entry in found}
        if not mails:
            hint = "`drain history` shows what there was; what a lifecycle rule removed is gone."
            raise NoInput(f"There is no {word} in {prefix}.", hint)
        if len(mails) > 1:
            raise NoInput(f"{word} could be any of {len(mails)} mails.", "Give more of its id.")
        return [replace(entry, named=True) for entry in mails.values()]

    def search(self, day: datetime.date | None, recipient: str) -> list[Entry]:
        """Those delivered on that day, by local time, and for that recipient; in the order of their delivery."""
        found: dict[str, Entry] = {}
        for entry in self._entries():
            if day is not None and day not in map(_day, entry.delivered_at):
                continue
            whole = self._whole(entry)
            if not recipient or whole.recipient.lower() == recipient.lower():
                found.setdefault(whole.identity or whole.listed.key, whole)
        return sorted(found.values(), key=lambda entry: entry.delivered_at)

    def why_not(self, entry: Entry) -> str:
        """Why it is not replayed now, in words; "" if it can be."""
        if entry.problem:
            return entry.problem
        row = self.ledger.find(entry.identity)
        if row is None or row.state is State.SETTLED:
            return ""
        if row.state is State.QUARANTINED:
            return "in quarantine; `drain quarantine release` delivers it"
        if row.state is State.DISCARDED:
            return "deleted, by a filter or by hand"
        return f"{row.state.value}: a pass is to finish it first"

    def again(self, entry: Entry, now: float) -> None:
        """Notes that a person wants it delivered once more, filters passed over.

        Raises:
            NoInput: it is gone.
            Unusable: it holds no mail, another than its name says, or none to be believed.
            KeyMissing: no key here opens it.
        """
        fetched, mail = self._opened(entry.listed)
        if mail.identity != entry.identity:
            raise Unusable(f"{entry.listed.key} is not what was delivered under that name: somebody else wrote it.")
        row = self.ledger.find(mail.identity)
        if not entry.named and (row is None or row.reason == REBUILT):
            # Nobody here has seen it delivered: who can write to the bucket may have laid it there.
            try:
                self.opener.open(fetched.body, fetched.metadata)
            except NotMail as error:
                raise Unusable(
                    f"{entry.id} is not to be believed: {error}", "After a look at it, replay it by its id."
                ) from None
        self.ledger.replay(fetched.version, mail, now)

    def _entries(self) -> Iterator[Entry]:
        for page in self.bucket.pages(self.prefixes.processed):
            for listed in page:
                yield self._entry(listed)

    def _name(self, listed: ListedObject) -> str:
        return listed.key.removeprefix(self.prefixes.processed)

    def _entry(self, listed: ListedObject) -> Entry:
        """What can be said of it without a request."""
        named = IDENTITY.match(self._name(listed))
        return self._known(Entry(listed, named[1] if named else "", "", "", None, (listed.last_modified.timestamp(),)))

    def _known(self, entry: Entry) -> Entry:
        row = self.ledger.find(entry.identity) if entry.identity else None
        if row is None:
            return entry
        events = [event for event in self.ledger.history.of(entry.identity) if event.what == State.DELIVERED]
        times = tuple(moment for event in events for moment in sorted({event.at, event.last_at}))
        return replace(
            entry, row=row, recipient=row.recipient, sender=row.sender, delivered_at=times or entry.delivered_at
        )

    def _whole(self, entry: Entry) -> Entry:
        """With what is only inside, where the ledger does not say it."""
        if entry.recipient:
            return entry
        try:
            _, mail = self._opened(entry.listed)
        except DrainError as error:
            return replace(entry, problem=str(error))
        known = entry if entry.identity else self._known(replace(entry, identity=mail.identity))
        return replace(known, recipient=mail.recipient, sender=mail.sender)

    def _opened(self, listed: ListedObject) -> tuple[FetchedObject, Mail]:
        if listed.size > OBJECT_LIMIT:
            raise Unusable(f"{listed.key} has {listed.size} bytes; no mail has more than {OBJECT_LIMIT}.")
        fetched = self.bucket.get(listed)
        if fetched is None:
            raise NoInput(f"{listed.key} is not there any more.")
        try:
            return fetched, self.opener.believing_all().open(fetched.body, fetched.metadata).mail
        except NotMail as error:
            raise Unusable(f"{listed.key} holds no mail: {error}", f"`drain open {listed.key}` says more.") from None


def _day(at: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(at).astimezone().date()
