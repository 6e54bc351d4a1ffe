"""LIST, which is all that an idle pass asks for.

Spoken without boto3, on a connection that stays open between passes.
What is asked for, and what comes of an answer, is what boto3 would ask and give.
"""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus

from drain.s3http import Http, tree, whole

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from xml.etree.ElementTree import Element

# A thousand names of 1,024 bytes, each byte as %XX, and 1 KiB about each.
_BODY_LIMIT = 4 * 1024 * 1024
_ROOT = re.compile(r"(?P<namespace>(\{[^}]*\})?)ListBucketResult")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)


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
    """Asks for pages. Calls may come from several threads."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def page(self, prefix: str, after: str) -> Page | None:
        """The objects under *prefix* whose names follow *after* ("": from the first on).

        None, whatever the reason is, where this has no answer: then boto3 asks once
        more. None too for an answer that was cut before the first object, from which
        only a token goes on.
        """
        return self._http.ask("GET", _page, query=canonical_query(prefix, after))


def _page(response: "HTTPResponse") -> Page:
    if response.status != 200:
        raise ValueError(response.status)
    return parsed(whole(response, _BODY_LIMIT))


def canonical_query(prefix: str, after: str) -> str:
    """The query in canonical form: sorted by name, and all but AWS's unreserved characters encoded."""
    asked = {"encoding-type": "url", "list-type": "2", "prefix": prefix}
    if after:
        asked["start-after"] = after
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in asked.items())


def parsed(body: bytes) -> Page:
    """A body as a page, its objects as boto3 gives them.

    More is asked of it than boto3 asks: what is not the plain answer to what was
    asked is boto3's to judge.

    Raises:
        ValueError: it is not the answer to LIST, or not one that can be gone on from.
        SyntaxError: it is no XML.
    """
    root = tree(body)
    form = _ROOT.fullmatch(root.tag)
    if form is None:
        raise ValueError("not an answer to LIST")
    space = form["namespace"]
    _only(root, f"{space}Name")
    encoded = [mark.text for mark in root.findall(f"{space}EncodingType")] == ["url"]
    # "+" is a space then, as it is to boto3: a plus sign is %2B.
    name: Callable[[str], str] = unquote_plus if encoded else str
    objects = [_listed(entry, space, name) for entry in root.findall(f"{space}Contents")]
    truncated = _only(root, f"{space}IsTruncated")
    if truncated not in {"true", "false"} or int(_only(root, f"{space}KeyCount")) != len(objects):
        raise ValueError("not a whole answer")
    if truncated == "true" and not objects:
        raise ValueError("cut before the first object")
    return Page(objects, truncated == "true")


def _listed(entry: "Element", space: str, name: Callable[[str], str]) -> ListedObject:
    moment = _only(entry, f"{space}LastModified")
    if not _MOMENT.fullmatch(moment):
        raise ValueError("a date of another form")
    return ListedObject(
        name(_only(entry, f"{space}Key")),
        _only(entry, f"{space}ETag"),
        datetime.datetime.fromisoformat(moment),
        int(_only(entry, f"{space}Size")),
    )


def _only(parent: "Element", tag: str) -> str:
    (found,) = parent.findall(tag)  # ValueError for none and for several
    return found.text or ""
