"""A lost ledger, read back from ``processed/``.

What lies there was delivered. Its identity stands in its name, or, where
another program moved it, is found by opening it.
"""

from dataclasses import dataclass

from drain.bucket import IDENTITY, Bucket
from drain.errors import KeyMissing, NotMail
from drain.ledger import Ledger
from drain.listing import ListedObject
from drain.opener import OBJECT_LIMIT, Opener


@dataclass
class Rebuilt:
    """How many mails were taken over, were known already, or could not be opened (some of these for want of a key)."""

    adopted: int = 0
    known: int = 0
    unreadable: int = 0
    keyless: int = 0


def rebuild(bucket: Bucket, opener: Opener, processed_prefix: str, ledger: Ledger, now: float) -> Rebuilt:
    """Enters every mail under *processed_prefix* into the ledger as settled; rows there stay as they are."""
    result = Rebuilt()
    for page in bucket.pages(processed_prefix):
        found: list[tuple[ListedObject, str, str]] = []
        for listed in page:
            try:
                identity, recipient = _identify(bucket, opener, processed_prefix, listed)
            except KeyMissing:
                identity, recipient = None, ""
                result.keyless += 1
            if identity is None:
                result.unreadable += 1
            else:
                found.append((listed, identity, recipient))
        # A commit each would be minutes on an SD card.
        with ledger.together():
            for listed, identity, recipient in found:
                written_at = listed.last_modified.timestamp()
                adopted = ledger.adopt(identity, recipient, listed.size, written_at, now)
                result.adopted += adopted
                result.known += not adopted
    return result


def _identify(bucket: Bucket, opener: Opener, prefix: str, listed: ListedObject) -> tuple[str | None, str]:
    if named := IDENTITY.match(listed.key.removeprefix(prefix)):
        return named.group(1), ""
    fetched = bucket.get(listed) if listed.size <= OBJECT_LIMIT else None
    if fetched is None:
        return None, ""
    try:
        mail = opener.open(fetched.body, fetched.metadata).mail
    except NotMail:
        return None, ""
    return mail.identity, mail.recipient
