"""The Worker under test in workerd, beside the R2 simulator that it stores into.

Two ways in. `Edge.post` is Miniflare's own route for mail, with the Worker's handler
behind it; it takes neither more than 1 MiB, nor a mail without Message-ID or From, nor an
empty sender. `Edge.call` hands a message of the test's own to the same modules, from a
second Worker (edge_driver.js), with whatever fault is asked for.
"""

import http.client
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real.r2 import R2

_HERE = Path(__file__).resolve().parent
_SOURCE = _HERE.parents[1] / "worker" / "src"
_SECONDS = 60.0

AS_IT_IS = "worker"


def patched(file: str, old: str, new: str) -> dict[str, str]:
    """A file of worker/src with one place in it changed, as a variant for `Edge`.

    Raises ValueError where that place is not there (any more), or more than once.
    """
    text = (_SOURCE / file).read_text("utf-8")
    if text.count(old) != 1:
        raise ValueError(f"worker/src/{file} has {text.count(old)} times what this variant changes: {old!r}")
    return {file: text.replace(old, new)}


@dataclass(frozen=True)
class Route:
    """A Worker behind Miniflare's route for mail: its vars and secrets, and which source it has."""

    settings: Mapping[str, str]
    variant: str = AS_IT_IS


@dataclass(frozen=True)
class Outcome:
    """How a call of the handler ended.

    Attributes:
        outcome: accepted, rejected or thrown.
        words: the reason of a rejection, or the message of what was thrown.
        calls: the methods of the bucket that were called, in order.
        waited: for each promise given to waitUntil: done, pending, or failed and why.
    """

    outcome: str
    words: str
    calls: tuple[str, ...]
    waited: tuple[str, ...]


@dataclass(frozen=True)
class Message:
    """A mail as Cloudflare hands it over.

    Attributes:
        pieces: the lengths of the stream's chunks, over and over; none for one native body.
        scripted: the chunks come from a stream made in JavaScript, which is none of bytes.
        breaks: the stream ends with an error instead of an end.
        size: what rawSize says; the true length where it is None.
    """

    raw: bytes
    to: str = "alice@example.test"
    sender: str = "bob@example.net"
    pieces: Sequence[int] = ()
    scripted: bool = False
    breaks: bool = False
    size: int | None = None


@dataclass(frozen=True)
class Circumstances:
    """Where a call of the handler happens.

    Attributes:
        variant: which source (see `Edge`).
        failing: the methods of the bucket that throw instead of doing anything.
        late_failing: the methods of the bucket that throw when all is done.
        slow_ms: how long each of them takes before it begins.
        later_ms: how far `Date.now` is ahead.
        patience_ms: how long to look at what waitUntil was given.
    """

    variant: str = AS_IT_IS
    failing: Sequence[str] = ()
    late_failing: Sequence[str] = ()
    slow_ms: int = 0
    later_ms: int = 0
    patience_ms: int = 5000


class Edge(R2):
    """Workers in Miniflare, all with the one bucket.

    Given the *routes* by name, for `post`; the *variants* of the source by name, each of
    them the files that differ; and how many *fresh* copies of the source there are. A
    variant is evaluated once, and keeps what it remembers, as an isolate does.
    """

    def __init__(
        self, routes: Mapping[str, Route], variants: Mapping[str, Mapping[str, str]], *, fresh: int = 0
    ) -> None:
        super().__init__()
        self._fresh = [f"fresh-{number}" for number in range(fresh)]
        self._variants = {AS_IT_IS: {}, **variants, **{name: {} for name in self._fresh}}
        self._routes = routes

    def _settings(self) -> dict[str, Any]:
        return {
            **super()._settings(),
            "workers": str(_HERE / "edge.mjs"),
            "variants": self._variants,
            "routes": {
                name: {"variant": route.variant, "vars": route.settings} for name, route in self._routes.items()
            },
        }

    @property
    def s3(self) -> Any:
        """A boto3 client that stays open."""
        return self._s3

    def log(self) -> str:
        """What the Workers, and Miniflare for them, have written so far."""
        assert self._folder is not None
        return Path(self._folder.name, "log").read_text("utf-8", "replace")

    def fresh(self) -> str:
        """A copy of the source that has not been called yet: what an isolate is at its start."""
        return self._fresh.pop()

    def post(self, raw: bytes, to: str, sender: str, route: str) -> int:
        """Hand a mail to a route; 200 it was accepted, 400 rejected, 500 thrown."""
        return self.post_for_words(raw, to, sender, route)[0]

    def post_for_words(self, raw: bytes, to: str, sender: str, route: str) -> tuple[int, str]:
        """As `post`, with what Miniflare says of it."""
        query = urllib.parse.urlencode({"to": to, "from": sender})
        status, body = self._request(f"{route}.test", f"/cdn-cgi/handler/email?{query}", raw)
        return status, body.decode("utf-8", "replace")

    def call(
        self, message: Message, settings: Mapping[str, str], circumstances: Circumstances | None = None
    ) -> Outcome:
        """Hand a mail to the handler itself, with these vars and secrets."""
        where = circumstances or Circumstances()
        answer = self._drive(
            {
                "do": "email",
                "variant": where.variant,
                "to": message.to,
                "from": message.sender,
                "rawSize": message.size,
                "pieces": message.pieces,
                "scripted": message.scripted,
                "breaks": message.breaks,
                "vars": settings,
                "failing": where.failing,
                "lateFailing": where.late_failing,
                "slowMs": where.slow_ms,
                "laterMs": where.later_ms,
                "patienceMs": where.patience_ms,
            },
            message.raw,
        )
        return Outcome(answer["outcome"], answer["words"], tuple(answer["calls"]), tuple(answer["waited"]))

    def seal(
        self,
        plaintext: bytes,
        *,
        public_key: bytes,
        info: bytes,
        ephemeral: tuple[bytes, bytes],
        aad: bytes = b"",
        key_length: int = 32,
        variant: str = AS_IT_IS,
    ) -> tuple[bytes, bytes]:
        """hpke.js alone, under this ephemeral key (private, public): enc and ciphertext."""
        answer = self._drive(
            {
                "do": "seal",
                "variant": variant,
                "publicKey": public_key.hex(),
                "info": info.hex(),
                "keyLength": key_length,
                "aad": aad.hex(),
                "ephemeral": [part.hex() for part in ephemeral],
            },
            plaintext,
        )
        return bytes.fromhex(answer["enc"]), bytes.fromhex(answer["ciphertext"])

    def _drive(self, call: Mapping[str, Any], content: bytes) -> Any:
        about = json.dumps(call).encode()
        status, body = self._request("driver", "/", len(about).to_bytes(4, "big") + about + content)
        if status != 200:
            raise RuntimeError(f"the driver failed: {body.decode('utf-8', 'replace')[:2000]}")
        return json.loads(body)

    def _request(self, host: str, path: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.endpoint_url).netloc, timeout=_SECONDS)
        try:
            connection.request("POST", path, body, {"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
