"""The mails of the bench: as many as it takes, no two alike, none of them held.

A mail is known by its number and its size, and is made from these whenever it is asked for.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from drain.sealed import seal

RECIPIENT = "alice@example.test"
_SENDER = "carol@sender.test"
_LINE_BYTES = 78  # with CRLF; RFC 5322 2.1.1 would have no more than 80
_LINES = 4096
_WORDS = [
    "the",
    "of",
    "and",
    "mail",
    "letter",
    "about",
    "Monday",
    "house",
    "train",
    "river",
    "please",
    "thanks",
    "invoice",
    "order",
    "meeting",
    "winter",
    "tea",
]
# As Cloudflare hands it on, with its own lines on top; every field has the same length in each mail.
_HEAD = """\
Received: from mx{number:09}.sender.test (192.0.2.25) by cloudflare-email.net (cloudflare) id {digest:.24} \
for <alice@example.test>; Sat, 21 Nov 2026 10:00:00 +0000
Received-SPF: pass (mx.cloudflare.net: domain of carol@sender.test designates 192.0.2.25 as permitted sender) \
client-ip=192.0.2.25;
Authentication-Results: mx.cloudflare.net; dkim=pass header.d=sender.test; dmarc=pass; spf=pass
X-CF-SpamH-Score: 1
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=sender.test; s=s1; h=from:to:subject:date; bh={digest}; \
b={digest}{digest}{digest}{digest}
From: Carol <carol@sender.test>
To: Alice <alice@example.test>
Subject: Letter number {number:09}
Date: Sat, 21 Nov 2026 10:00:00 +0000
Message-ID: <{number:09}.{digest:.16}@sender.test>
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

""".replace("\n", "\r\n")


@dataclass(frozen=True)
class BenchMail:
    """One mail (RFC 5322, CRLF) of *size* bytes, or a little more where that has no room for its header.

    With *key*, its object is sealed for that: each time as many bytes, and never the same
    ones. Without, it is the mail itself.
    """

    number: int
    size: int
    key: X25519PrivateKey | None = None

    @property
    def metadata(self) -> Mapping[str, str]:
        """The object's: a plain mail's envelope."""
        return {} if self.key else {"to": RECIPIENT, "from": _SENDER}

    def object_bytes(self) -> int:
        """How long the object is: the same for every number."""
        raw = max(self.size, len(self._head()) + 2)
        return raw if self.key is None else raw + len(seal(self._envelope(), b"", self.key))

    def blocks(self) -> Iterator[bytes | memoryview]:
        """The object, in blocks of some 100 KB for a plain one."""
        if self.key is None:
            yield from self._raw()
        else:
            yield seal(self._envelope(), b"".join(self._raw()), self.key)

    def _raw(self) -> Iterator[bytes | memoryview]:
        head = self._head()
        yield head
        text = max(self.size - len(head), 2)
        lines, rest = divmod(text - 2, _LINE_BYTES)
        # Each mail begins at another line of the text.
        begin = self.number * 37 % _LINES
        while lines > 0:
            run = min(lines, _LINES - begin)
            yield _TEXT[begin * _LINE_BYTES : (begin + run) * _LINE_BYTES]
            lines, begin = lines - run, 0
        yield b"x" * rest + b"\r\n"

    def _head(self) -> bytes:
        digest = hashlib.sha256(str(self.number).encode()).hexdigest()
        return _HEAD.format(number=self.number, digest=digest).encode("ascii")

    def _envelope(self) -> Mapping[str, str | None]:
        return {"to": RECIPIENT, "from": _SENDER, "received": "2026-11-21T10:00:00Z", "ip": "192.0.2.25"}


def _text() -> memoryview:
    chance = random.Random(1)  # noqa: S311 (the same text in every run)
    words = iter(lambda: chance.choice(_WORDS), None)
    lines = (" ".join(itertools.islice(words, 20))[: _LINE_BYTES - 2] + "\r\n" for _ in range(_LINES))
    return memoryview("".join(lines).encode("ascii"))


_TEXT = _text()
