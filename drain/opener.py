"""From an object to the mail in it: which kind is it, and what does it hold.

Three kinds can lie under ``pending/``. They are told apart by their bytes, never
by their name:

=========== ============================================ =====================
kind        begins with                                  envelope
=========== ============================================ =====================
sealed      ``DRN`` and a digit (`drain.sealed`)         inside
mailbridge  ``{``, and names the algorithm of that       inside
            project (`drain.mailbridge`)
plain       a header field or ``From ``, or anything at  ``x-amz-meta-to`` and
            all where ``x-amz-meta-to`` says that it is  ``x-amz-meta-from``
            a mail
=========== ============================================ =====================

What cannot be opened for want of a key is `KeyMissing`, and waits: it is the
configuration that is wrong, and a thousand mails would be in quarantine for it.
Everything else that is no mail, or none to be believed, is `NotMail`.
"""

import base64
import binascii
import hmac
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from drain.errors import KeyMissing, NotMail
from drain.keys import KeyRing, State
from drain.mail import Mail, begins_like_a_mail
from drain.mailbridge import fingerprint, is_mailbridge, open_mailbridge
from drain.sealed import is_sealed, names_key, open_sealed
from drain.setting import Secret

# Cloudflare accepts 25 MiB; twice that, and some, is still a mail to somebody.
OBJECT_LIMIT = 64 * 1024 * 1024
# One of Mailbridge's at a time: JSON in base64 in JSON takes four times its size to open, and eight with a letter
# in it that makes four bytes of each in Python, where a sealed one takes three (see `crew`).
_BRIDGE = threading.Lock()
_RFC_2047_WORD = re.compile(r"=\?utf-8\?b\?([A-Za-z0-9+/=]*)\?=", re.IGNORECASE)


class Kind(StrEnum):
    """What an object is, by its bytes."""

    SEALED = "sealed"
    MAILBRIDGE = "mailbridge"
    PLAIN = "plain"


@dataclass(frozen=True)
class Opened:
    """A mail, with what the Worker knew of it ("" where it says nothing).

    ``received`` is RFC 3339, ``ip`` the address that handed it to Cloudflare,
    ``key`` the name of a key that is proven by this (see `KeyMissing.suspect`).
    """

    mail: Mail
    kind: Kind
    received: str = ""
    ip: str = ""
    key: str = ""


def kind_of(body: bytes) -> Kind:
    """Which kind an object is; plain is whatever is not one of the others."""
    if is_sealed(body):
        return Kind.SEALED
    return Kind.MAILBRIDGE if is_mailbridge(body) else Kind.PLAIN


@dataclass(frozen=True)
class Opener:
    """Opens objects; may be called from several threads.

    With *tokens*, a sealed object has to hold one of them: who can write to the
    bucket and knows the public key can seal, but not forge. *sealed_only* keeps
    such a person from walking around that with an object of another kind.
    """

    keys: KeyRing
    tokens: tuple[Secret, ...] = ()
    sealed_only: bool = False

    @property
    def state(self) -> State:
        """Changes when a key file does: what could not be opened may be opened now."""
        return self.keys.state

    def believing_all(self) -> "Opener":
        """The same for a person who wants to see, or has released, what would not be believed."""
        return replace(self, tokens=(), sealed_only=False)

    def open(self, body: bytes, metadata: Mapping[str, str]) -> Opened:
        """The mail in an object.

        Raises:
            NotMail: it holds none, or none to be believed.
            KeyMissing: there is no key for it here.
        """
        kind = kind_of(body)
        if kind is Kind.SEALED:
            return self._open_sealed(body)
        if kind is Kind.PLAIN and names_key(body, self.keys.sealed):
            raise NotMail("damaged", "It is sealed, but its first bytes were changed.")
        if self.sealed_only:
            words = "It is not sealed, and REQUIRE_SEALED wants every mail sealed by this project's Worker."
            raise NotMail("not-sealed", words)
        return self._open_mailbridge(body) if kind is Kind.MAILBRIDGE else _open_plain(body, metadata)

    def _open_sealed(self, body: bytes) -> Opened:
        try:
            sealed = open_sealed(body, self.keys.sealed)
        except KeyMissing as error:
            raise KeyMissing(str(error), self.keys.why_not_sealed()) from error
        if self.tokens and not self._is_ours(sealed.token):
            words = "It has another ORIGIN_TOKEN than drain" if sealed.token else "It has no ORIGIN_TOKEN in it"
            raise NotMail("wrong-token", f"{words}: it may be from somebody else than your Worker.")
        mail = _mail(sealed.raw, sealed.recipient, sealed.sender)
        return Opened(mail, Kind.SEALED, sealed.received, sealed.ip)

    def _is_ours(self, token: str) -> bool:
        # All of them, whichever it is: the time must not tell.
        return any([hmac.compare_digest(token.encode(), own.reveal().encode()) for own in self.tokens])  # noqa: C419

    def _open_mailbridge(self, body: bytes) -> Opened:
        key = self.keys.mailbridge
        if key is None:
            raise KeyMissing("It was stored by Mailbridge's Worker.", self.keys.why_not_mailbridge())
        with _BRIDGE:
            inside = open_mailbridge(body, key)
        mail = _mail(inside.raw, inside.recipient, inside.sender)
        return Opened(mail, Kind.MAILBRIDGE, inside.received, inside.ip, fingerprint(key))


def envelope_of(metadata: Mapping[str, str]) -> tuple[str, str]:
    """Recipient and sender of a plain object, "" where there is none."""
    return _address(metadata.get("to", "")), _address(metadata.get("from", ""))


def _open_plain(body: bytes, metadata: Mapping[str, str]) -> Opened:
    recipient, sender = envelope_of(metadata)
    mail = _mail(body, recipient, sender)
    # Without this a damaged seal would be mailed to the catch-all.
    if not (recipient or begins_like_a_mail(body)):
        raise NotMail("not-mail", "The object does not begin like a mail, and nothing beside it says that it is one.")
    return Opened(mail, Kind.PLAIN)


def _mail(raw: bytes, recipient: str, sender: str) -> Mail:
    if not raw:
        raise NotMail("empty", "The mail is empty.")
    return Mail(raw, recipient, sender)


def _address(value: str) -> str:
    if word := _RFC_2047_WORD.fullmatch(value):
        # As S3 and this project's Worker write what is not ASCII.
        try:
            value = base64.b64decode(word.group(1), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            return ""
    else:
        # HTTP headers arrive as Latin-1; who writes an address that is not ASCII there writes UTF-8.
        try:
            value = value.encode("latin-1").decode("utf-8")
        except UnicodeError:
            pass
    value = value.strip(" \t")
    return value[1:-1] if value.startswith("<") and value.endswith(">") else value
