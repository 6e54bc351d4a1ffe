"""The private keys, each against a probe that is sealed for it, and the token in it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drain.doctor.finding import Finding
from drain.doctor.say import Say
from drain.errors import ConfigError, KeyMissing, NotMail
from drain.keys import key_id, public_pem, read_rsa, read_x25519
from drain.opener import Opener
from drain.sealed import seal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_SAY = Say("keys")
_BUG = "This is a bug of drain's; please report it."
_RAW = b"From: doctor@drain.invalid\r\nSubject: probe\r\n\r\nprobe\r\n"
_RECIPIENT = "probe@drain.invalid"


def check(files: Sequence[Path], mailbridge: Path | None, opener: Opener) -> Iterator[Finding]:
    """Whether each key opens what is sealed for it, as a pass would open it, and whether there is a token."""
    if not files and mailbridge is None:
        words = "There is no private key: PRIVATE_KEY_FILE is not set, and sealed mail cannot be opened."
        yield _SAY.failure(words, "`drain keygen` makes one, and says what to do with it.")
        return
    for path in files:
        yield from _one(path, opener)
    if mailbridge is not None:
        try:
            read_rsa(mailbridge)
        except ConfigError as error:
            yield _SAY.failure(error.args[0], error.hint or "Check MAILBRIDGE_PRIVATE_KEY_PATH.")
        else:
            yield _SAY.ok(f"{mailbridge} holds a key for Mailbridge's mail.")
    if files:
        yield from _token(opener)


def _one(path: Path, opener: Opener) -> Iterator[Finding]:
    try:
        key = read_x25519(path)
    except ConfigError as error:
        yield _SAY.failure(error.args[0], error.hint or "Put the private key of your Worker's key pair there.")
        return
    name = key_id(key).hex()
    token = opener.tokens[0].reveal() if opener.tokens else ""
    try:
        opener.open(_sealed(key, token), {})
    except (KeyMissing, NotMail) as error:
        yield _SAY.failure(f"{path} (key id {name}) did not open a probe sealed for it: {error}", _BUG)
        return
    yield _SAY.ok(f"{path} opens what is sealed for the key id {name}.")
    public = path.with_suffix(".pub.pem")
    try:
        differs = public.read_bytes() != public_pem(key)
    except OSError:
        return  # it is the Worker that needs it, not drain
    if differs:
        words = f"{public} is not the public half of {path}; if the Worker has it, mail is sealed for another key."
        yield _SAY.warning(words, f"openssl pkey -in {path} -pubout writes the right one.")


def _token(opener: Opener) -> Iterator[Finding]:
    if not opener.tokens:
        words = "ORIGIN_TOKEN is not set: who can write to the bucket and knows the public key can forge mail."
        yield _SAY.warning(words, "Set it here and at the Worker; `drain keygen` makes one.")
    elif not opener.sealed_only:
        words = "ORIGIN_TOKEN is set, and REQUIRE_SEALED=false lets mail that is not sealed walk around it."
        yield _SAY.warning(words, "Take REQUIRE_SEALED away once no such mail comes any more.")
    else:
        yield _SAY.ok("ORIGIN_TOKEN is set; mail without it goes to quarantine.")


def _sealed(key: "X25519PrivateKey", token: str) -> bytes:
    """A probe in the Worker's format (``worker/FORMAT.md``)."""
    header = {"to": _RECIPIENT, "from": "", "received": "2026-01-01T00:00:00Z", "ip": None}
    return seal({**header, "token": token} if token else header, _RAW, key)
