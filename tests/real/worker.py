"""What the tests of the Worker share: a Worker in workerd, a home to wake, and faults to put into its source."""

import contextlib
import hashlib
import http.server
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from drain.opener import Opened, Opener
from tests import sealing
from tests.real.edge import AS_IT_IS, Circumstances, Edge, Message, Outcome, patched

ALICE = "alice@example.test"
BOB = "bob@example.test"
SENDER = "carol@example.net"
RAW = (
    b"From: carol@example.net\r\nTo: alice@example.test\r\nMessage-ID: <1@example.net>\r\n"
    b"Subject: Minutes of the meeting\r\n\r\nNobody else needs to read this.\r\n"
)
TOKEN = "the token of these tests"
LIMIT = 25 * 1024 * 1024
DAY_MS = 24 * 60 * 60 * 1000


def public_pem(key: Any) -> str:
    """A public key as `openssl pkey -pubout` writes it."""
    encoded: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded.decode()


PEM = public_pem(sealing.KEY.public_key())
SEALED = {"DRAIN_PUBLIC_KEY": PEM, "ORIGIN_TOKEN": TOKEN}
SEALED_WITHOUT_TOKEN = {"DRAIN_PUBLIC_KEY": PEM}
PLAIN = {"ALLOW_PLAINTEXT": "true"}

_BEGIN = "async email(message, env, ctx) {"


def _first(statements: str) -> tuple[str, str, str]:
    """What the handler does before anything else."""
    return "index.js", _BEGIN, f"{_BEGIN} {statements}"


def _if_a_put_fails(action: str) -> tuple[str, str, str]:
    put = f"put: (...values) => bucket.put(...values).catch(() => {action})"
    return _first(f"const bucket = env.MAIL; env = {{ ...env, MAIL: {{ get: (key) => bucket.get(key), {put} }} }};")


_AS_TEXT = "message.raw.pipeThrough(new TextDecoderStream()).pipeThrough(new TextEncoderStream())"

# Faults, each put into the Worker's own source: file, text, and what stands there instead.
FAULTS = {
    "overwrites": ("index.js", 'onlyIf: { etagDoesNotMatch: "*" },', ""),
    "does not wait for setReject": ("index.js", 'await message.setReject("5.1.1', 'message.setReject("5.1.1'),
    "decodes the mail": _first(f"message = {{ ...message, raw: {_AS_TEXT} }};"),
    "shows the recipient": ("sealed.js", "metadata: {} }", "metadata: { to: message.to } }"),
    "shows the recipient in base64": ("sealed.js", "metadata: {} }", "metadata: { x: btoa(message.to) } }"),
    "recipient in lower case": _first("message = { ...message, to: message.to.toLowerCase() };"),
    "names without the token": _first("env = { ...env, ORIGIN_TOKEN: undefined };"),
    "believes any Received line": ("mail.js", r"/\nx-cf-spamh-score:/i", r"/\nsubject:/i"),
    "takes more than 25 MiB": ("index.js", "SIZE_LIMIT = 25 *", "SIZE_LIMIT = 26 *"),
    "says nothing of a failed put": _if_a_put_fails("null"),
    "rejects after a failed put": _if_a_put_fails('message.setReject("4.3.0 Try again later")'),
    "plain whenever there is no key": ("index.js", 'if (env.ALLOW_PLAINTEXT === "true")', "if (true)"),
    "plain for any word": ("index.js", 'env.ALLOW_PLAINTEXT === "true"', "env.ALLOW_PLAINTEXT"),
    "plain in spite of a key": ("index.js", "if (env.DRAIN_PUBLIC_KEY)", "if (!env.ALLOW_PLAINTEXT)"),
    "waits for the wake": ("index.js", "ctx.waitUntil(wake(env.WAKE_URL))", "await wake(env.WAKE_URL)"),
    "wakes too early": _first("if (env.WAKE_URL) { await wake(env.WAKE_URL); }"),
    "lists need no signature": ("recipients.js", 'throw new Error("its signature is wrong");', ""),
    "lists of any size": ("recipients.js", "SIZE_LIMIT = 128 *", "SIZE_LIMIT = 128_000 *"),
    "lists live for ever": ("recipients.js", "LONGEST_AGE_MS = 7 *", "LONGEST_AGE_MS = 7000 *"),
    "lists may come from the future": ("recipients.js", "CLOCKS_DIFFER_MS = 60 *", "CLOCKS_DIFFER_MS = 6000 *"),
    "reads the list for every mail": ("recipients.js", "REREAD_MS = 5 *", "REREAD_MS = 0 *"),
    "reads the list once": ("recipients.js", "REREAD_MS = 5 *", "REREAD_MS = 5000 *"),
    "one buffer for all mails": (
        "mail.js",
        "const mail = new Mail();",
        "const mail = (globalThis.mail ??= new Mail());",
    ),
    "takes what is left of a mail": ("mail.js", "if (mail.raw.length < message.rawSize)", "if (false)"),
    "believes a list that was put back": ("recipients.js", "if (!(Math.abs(", "if (!(0 * Math.abs("),
    "another label": ("hpke.js", '"eae_prk"', '"eae-prk"'),
}
# Not a fault, but ten seconds are long for a test.
IMPATIENT = ("index.js", "WAKE_MS = 10_000", "WAKE_MS = 100")


# -- the rig --


@dataclass(frozen=True)
class Wake:
    """A request that came to WAKE_URL, and what was in the bucket at that moment."""

    method: str
    body: bytes
    stored: list[str]


class Home:
    """The HTTP server behind WAKE_URL.

    Attributes:
        url: where it is.
        status: what it answers.
        wakes: the requests that came.
        look: what tells it the keys in the bucket.
    """

    def __init__(self) -> None:
        self.status = 200
        self.wakes: queue.Queue[Wake] = queue.Queue()
        self.look: Callable[[], list[str]] = list
        self._go_on = threading.Event()
        home = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                home.wakes.put(Wake(self.command, body, home.look()))
                home._go_on.wait(3)
                with contextlib.suppress(ConnectionError):  # the Worker may have gone
                    self.send_response(home.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            do_GET = do_PUT = do_POST  # noqa: N815 (http.server's names)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}/wake"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def reset(self) -> None:
        """Forget what came, and answer at once again."""
        self.status = 200
        self.wakes = queue.Queue()
        self._go_on.set()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """For this long, requests are read and not answered (for three seconds at most)."""
        self._go_on.clear()
        try:
            yield
        finally:
            self._go_on.set()


@dataclass(frozen=True)
class Worker:
    """One variant of the Worker, the bucket that it stores into, and the drain that opens what is there."""

    edge: Edge
    opener: Opener
    home: Home
    variant: str = AS_IT_IS

    def take(self, message: Message, settings: Mapping[str, str] = SEALED, **circumstances: Any) -> Outcome:
        """Call the handler."""
        return self.edge.call(message, settings, Circumstances(self.variant, **circumstances))

    def stored(self) -> dict[str, Opened]:
        """Everything under pending/, opened."""
        return {key: self.opener.open(*self.edge.get(key)) for key in self.edge.keys("pending/")}

    def stored_by_recipient(self) -> dict[str, str]:
        """The digest of the mail that each recipient has under pending/."""
        return digests({opened.mail.recipient: opened.mail.raw for opened in self.stored().values()})

    def only(self) -> Opened:
        """The one object there is, opened."""
        (opened,) = self.stored().values()
        return opened

    def state(self) -> list[tuple[str, str, Any]]:
        """What tells whether an object was written again."""
        listing = self.edge.s3.list_objects_v2(Bucket=self.edge.bucket)
        return [(item["Key"], item["ETag"], item["LastModified"]) for item in listing.get("Contents", [])]

    def afresh(self) -> "Worker":
        """The same in an isolate that has just begun."""
        return replace(self, variant=self.edge.fresh())


def digests(mails: Mapping[str, bytes]) -> dict[str, str]:
    """What stands for many mails in a comparison: pytest takes minutes to show how long ones differ."""
    return {recipient: hashlib.sha256(raw).hexdigest() for recipient, raw in mails.items()}


def believing_all(worker: Worker) -> Worker:
    """With a drain that has no token, as one for plain mail."""
    return replace(worker, opener=Opener(worker.opener.keys))


def check_that_a_fault_is_noticed(worker: Worker, fault: str, check: Callable[[Worker], None], words: str) -> None:
    """Whether a check fails, with these words, for a Worker that has this fault."""
    patched(*FAULTS[fault])  # says so where the fault has lost its place in the source
    with pytest.raises(AssertionError, match=words):
        check(replace(worker, variant=fault))
