"""An authenticated SMTP server on loopback that files into Maildirs."""

import asyncio
import logging
import mailbox
import threading
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

# aiosmtpd warns of its own next version there, which tells a person nothing.
logging.getLogger("mail.log").addHandler(logging.NullHandler())

# Mail with this in it is refused after DATA, as a virus scanner would.
REFUSED_WORDS = b"X-Demo-Virus: yes"


class MaildirServer:
    """Takes mail for its mailboxes after AUTH.

    *mailboxes* maps an address to None, or to the reply that RCPT gets instead
    of a 250.
    """

    def __init__(self, folder: Path, mailboxes: dict[str, str | None], user: str, password: str) -> None:
        self.folder = folder
        self._mailboxes = mailboxes
        self._user = user.encode()
        self._password = password.encode()
        self._filing = threading.Lock()
        folder.mkdir(parents=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="smtp", daemon=True)

    def start(self) -> int:
        """Listens; the port."""
        self._thread.start()
        listening = self._loop.create_server(self._protocol, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(timeout=10)
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Ends it."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _protocol(self) -> SMTP:
        return SMTP(
            self,
            loop=self._loop,
            hostname="localhost",
            auth_require_tls=False,  # loopback; the demo makes no certificates. Required all the same: handle_MAIL
            authenticator=self._authenticate,
            data_size_limit=36_700_160,
            enable_SMTPUTF8=True,
        )

    def mails(self, address: str) -> list[bytes]:
        """What was filed for an address."""
        maildir = mailbox.Maildir(self.folder / address, create=True)
        return [maildir.get_bytes(key) for key in maildir.keys()]  # noqa: SIM118 (iterating yields the messages)

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: object
    ) -> AuthResult:
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (self._user, self._password)
        return AuthResult(success=good)

    async def handle_MAIL(  # noqa: N802 (aiosmtpd names it for the verb)
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Lets nobody in who has not logged in."""
        if not session.authenticated:
            return "530 5.7.0 log in first"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Knows its mailboxes."""
        if address.lower() not in self._mailboxes:
            return "550 5.1.1 no such mailbox"
        reply = self._mailboxes[address.lower()]
        if reply is None:
            envelope.rcpt_tos.append(address)
        return reply or "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Files the mail before it says 250."""
        content = envelope.content
        if not isinstance(content, bytes):
            return "451 4.3.0 internal error"
        if REFUSED_WORDS in content:
            return "554 5.7.1 virus found"
        with self._filing:
            for address in envelope.rcpt_tos:
                mailbox.Maildir(self.folder / address.lower(), create=True).add(content)
        return "250 2.0.0 filed"
