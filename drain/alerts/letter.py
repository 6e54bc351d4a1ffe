"""Alerts as a mail into the admin mailbox, by the mail server at home.

It takes none of the ways that alerts are about but the last: no bucket, no filters,
no ledger. Its sender is ``<>``, so nothing ever comes back for it.
"""

import contextlib
import datetime
import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8

from drain.alerts.alert import Alert, NotSent
from drain.alerts.message import message
from drain.errors import DrainError
from drain.inject import Reply, Session
from drain.login import Server
from drain.mail import on_the_wire
from drain.text import clean

_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_GO_AHEAD = 354


class Letter:
    """Injects into *mailbox*, a full address, at *server*.

    Args:
        server: the mail server, with our login.
        mailbox: whose mail it is.
        prefix: as of `message`.
        clock: Unix time, for the Date.
    """

    name = "mail"

    def __init__(self, server: Server, mailbox: str, prefix: str, clock: Callable[[], float] = time.time) -> None:
        self._server, self._mailbox, self._prefix, self._clock = server, mailbox, prefix, clock

    def send(self, alert: Alert, stopped: Callable[[], bool]) -> None:
        """As `Outlet.send`.

        Raises:
            NotSent: the mail server did not take it, or not within 30 s. It may have taken it without saying so.
        """
        injection = _Injection(self._server, self._mailbox, self.build(alert))
        # A thread of its own, since each reply may take the time that SMTP allows it.
        threading.Thread(target=injection.run, daemon=True, name="drain-letter").start()
        end = time.monotonic() + _SECONDS
        why = f"The {self._server} did not take the mail within {_SECONDS:g} s."
        while time.monotonic() < end:
            if stopped():
                why = f"The {self._server} was not waited for: drain ends."
                break
            with contextlib.suppress(TimeoutError):
                if problem := injection.problem.result(timeout=_LOOK_SECONDS):
                    raise NotSent(problem)
                return
        injection.break_off()
        raise NotSent(why)

    def build(self, alert: Alert) -> bytes:
        """The mail. Of the same alert it has the same Message-ID: twice the same is once to most programs."""
        domain = self._mailbox.rpartition("@")[2]
        mark = repr((self._prefix, alert.kind, alert.subject, alert.state, alert.at))
        letter = EmailMessage(policy=SMTP if self._mailbox.isascii() else SMTPUTF8)
        local = self._mailbox.rpartition("@")[0]
        letter["From"] = Address(clean(self._prefix), local, domain)
        letter["To"] = Address("", local, domain)
        letter["Subject"] = clean(f"{self._prefix}: {alert.title}")
        letter["Date"] = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        letter["Message-ID"] = f"<{hashlib.sha256(mark.encode()).hexdigest()[:32]}.alert@{domain}>"
        # RFC 3834 5.1: nothing answers it by itself.
        letter["Auto-Submitted"] = "auto-generated"
        words = f"{message(self._prefix, alert)}\n\n`drain status` shows how things are, `drain doctor` what to do.\n"
        letter.set_content(words, cte="quoted-printable")
        return letter.as_bytes()


class _Injection:
    """One transaction; ``problem`` is what became of it, as a sentence, "" for taken."""

    def __init__(self, server: Server, mailbox: str, raw: bytes) -> None:
        self.problem: Future[str] = Future()
        self._server, self._mailbox, self._raw = server, mailbox, raw
        self._session: Session | None = None
        self._over = False

    def run(self) -> None:
        try:
            with contextlib.closing(Session(self._server)) as self._session:
                self.problem.set_result(self._transaction(self._session))
        except (DrainError, OSError) as error:
            self._fail(f"{error}")
        except Exception as error:  # noqa: BLE001  # a bug of ours must not be waited for
            self._fail(f"The alert could not be mailed: {clean(repr(error))}.")

    def break_off(self) -> None:
        """Ends it; may be called from any thread."""
        self._over = True
        if session := self._session:
            session.abort()

    def _fail(self, words: str) -> None:
        if not self.problem.done():
            self.problem.set_result(words)

    def _transaction(self, session: Session) -> str:
        if self._over:  # while it was being connected
            return "Nobody waits for it any more."
        wire = on_the_wire(self._raw)
        smtputf8 = session.offers("smtputf8") and not self._mailbox.isascii()
        reply = session.mail("", len(wire), eight_bit=False, smtputf8=smtputf8)
        if reply.positive:
            reply = session.rcpt(self._mailbox)
        if reply.positive:
            reply = session.data()
        if reply.code == _GO_AHEAD:
            session.send(wire)
            session.send_dot()
            reply = session.final_reply()
        return "" if reply.positive else self._refusal(reply)

    def _refusal(self, reply: Reply) -> str:
        hint = (
            f" Is there a mailbox {clean(self._mailbox)}? MAIL_ADMIN_LOCALPART names it."
            if reply.no_such_mailbox
            else ""
        )
        return f"The {self._server} did not take the mail, at {reply.command}: {reply}.{hint}"
