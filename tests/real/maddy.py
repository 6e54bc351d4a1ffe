"""A private Maddy for tests: the project's own template, filled in and run."""

import contextlib
import imaplib
import os
import secrets
import shutil
import smtplib
import sqlite3
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tests.real.server import (
    HOST,
    HOSTNAME,
    REFUSED_FOR_NOW,
    USERS,
    Rig,
    addresses,
    await_listener,
    end,
    filled,
    keep_log,
    log_end,
    offered_mechanisms,
    self_signed_certificate,
)
from tests.support import free_port

_Result = TypeVar("_Result")

_COMMAND_LIMIT_SECONDS = 30.0
# Maddy waits three minutes for clients to leave before it ends.
_STOP_PATIENCE_SECONDS = 0.5


def maddy_binary() -> str | None:
    """The path of the maddy command, if it is installed."""
    return shutil.which("maddy")


class Maddy(Rig):
    """A Maddy of its own on free ports of 127.0.0.1, from `start` to `stop`; as `Postfix`."""

    def __init__(
        self,
        root: Path,
        *,
        domains: tuple[str, ...] = ("example.test",),
        users: Sequence[str] = USERS,
        tls: bool = False,
    ) -> None:
        """Choose ports and password; nothing is started.

        Args:
            root: where `stop` leaves ``maddy.log``.
            domains: its mail domains.
            users: local parts at the first domain, or whole addresses. A further domain
                has alice.
            tls: offer STARTTLS and demand it before AUTH, over SMTP and IMAP.
        """
        self.host = HOST
        self.port = free_port()
        self.imap_port = free_port()
        self.user = f"drain@{HOSTNAME}"
        self.password = secrets.token_urlsafe(16)
        self.ca_file: Path | None = None
        self.domains = domains
        self.addresses = addresses(domains, users)
        self._logins: set[str] = set()
        self._root = root
        self._tls = tls
        self._home: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the server; returns once it offers AUTH. After `halt` with the mail of before.

        Raises:
            RuntimeError: Maddy is not installed or did not come up; says which.
        """
        binary = _needed_binary()
        try:
            if self._home is None:
                # Not below root: the path of the socket in it may have 107 bytes.
                self._home = Path(tempfile.mkdtemp(prefix="drain-maddy-"))
                self._configure(self._home)
                self._make_users()
            with self._home_log().open("ab") as log:  # for what it says before its own log is open
                self._server = subprocess.Popen(
                    [binary, "--config", str(self._home / "maddy.conf"), "run"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._await_auth(self._server)
        except BaseException:
            self.stop()
            raise

    @property
    def listing(self) -> dict[str, str]:
        """What names this server's own list of mailboxes to drain."""
        return {"MADDY_CONFIG": str(self._running_home() / "maddy.conf")}

    def halt(self) -> None:
        """End the server and keep its mail; `start` brings it back on the same ports."""
        server, self._server = self._server, None
        if server is not None:
            end(server, _STOP_PATIENCE_SECONDS)
            # A killed Maddy leaves its socket, over which the next one would stumble.
            shutil.rmtree(self._running_home() / "run", ignore_errors=True)

    def stop(self) -> None:
        """End the server and remove all that it had, but for its log."""
        self.halt()
        home, self._home = self._home, None
        if home is not None:
            keep_log(home / "maddy.log", self._root / "maddy.log")
            shutil.rmtree(home)
        self._logins.clear()
        self.ca_file = None

    def mailbox(self, address: str) -> list[bytes]:
        """The mails filed for *address*, oldest first, as IMAP shows them (line ends CRLF).

        Raises:
            ValueError: there is no such mailbox.
        """
        if address not in self.addresses:
            message = f"There is no mailbox {address!r}."
            raise ValueError(message)
        return self._in_inbox(address, _bodies)

    def wait_until_filed(self, seconds: float = 30) -> None:
        """Nothing to wait for: Maddy files a mail before it says 250."""

    def clear(self) -> None:
        """Empty all mailboxes."""
        for address in self._addresses_with_mail():
            self._in_inbox(address, _expunge)

    def _configure(self, home: Path) -> None:
        """Write the configuration into *home*."""
        tls = "off"
        if self._tls:
            self.ca_file, key_file = self_signed_certificate(home)
            tls = f"file {self.ca_file} {key_file}"
        values = {
            "STATE_DIR": str(home / "state"),
            "RUNTIME_DIR": str(home / "run"),
            "LOG": str(home / "maddy.log"),
            "HOSTNAME": HOSTNAME,
            "MAIL_DOMAINS": " ".join(self.domains),
            "INJECT_PORT": str(self.port),
            "INJECT_USER": self.user,
            "IMAP_PORT": str(self.imap_port),
            "LMTP_PORT": str(free_port()),
            "TLS": tls,
        }
        # For tests only: the mailboxes that are refused for now.
        refused = "".join(
            f'    destination {name}@{self.domains[0]} {{\n        reject {code} {enhanced} "{words}"\n    }}\n'
            for name, (code, enhanced, words) in (
                (name, reply.split(" ", 2)) for name, reply in REFUSED_FOR_NOW.items()
            )
        )
        before, mark, after = filled("maddy.conf", values).partition("    default_destination {\n")
        if not mark:
            message = "The template maddy.conf has no default_destination to put the refused mailboxes before."
            raise RuntimeError(message)
        (home / "maddy.conf").write_text(before + refused + mark + after)

    def _make_users(self) -> None:
        """Make the user that injects, and the mailboxes."""
        self._make_login(self.user)
        first, *others = self.addresses
        # The first makes the database; the others may then run at once.
        self._make_mailbox(first)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for _made in pool.map(self._make_mailbox, others):
                pass

    def _make_mailbox(self, address: str) -> None:
        self._command("imap-acct", "create", "--no-specialuse", address)

    def _make_login(self, user: str) -> None:
        # Cost 4, the least there is: by default a login takes 50 ms.
        self._command("creds", "create", "--bcrypt-cost", "4", user, stdin=self.password)
        self._logins.add(user)

    def _addresses_with_mail(self) -> list[str]:
        """The mailboxes that are not empty: a look at each over IMAP would take half a second."""
        database = sqlite3.connect(f"file:{self._running_home()}/state/imapsql.db?mode=ro", uri=True)
        with contextlib.closing(database):
            rows = database.execute(
                "SELECT username FROM users JOIN mboxes ON mboxes.uid = users.id WHERE mboxes.msgsCount > 0"
            )
            return [username for (username,) in rows]

    def _command(self, *arguments: str, stdin: str = "") -> None:
        """Run one of maddy's commands; a RuntimeError with its own words where it fails."""
        done = subprocess.run(
            [_needed_binary(), "--config", str(self._running_home() / "maddy.conf"), *arguments],
            input=f"{stdin}\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_LIMIT_SECONDS,
        )
        if done.returncode != 0:
            message = f"maddy {' '.join(arguments)} failed: {done.stderr.strip()}\n{self._log_end()}"
            raise RuntimeError(message)

    def _await_auth(self, server: subprocess.Popen[bytes]) -> None:
        await_listener(server, "Maddy", (self.port, self.imap_port), self._home_log())
        try:
            offered = offered_mechanisms(self.port, self.ca_file)
        except (OSError, smtplib.SMTPException) as error:
            message = f"Maddy came up but does not speak SMTP: {error}\n{self._log_end()}"
            raise RuntimeError(message) from error
        if "PLAIN" not in offered:
            message = f"Maddy offers no AUTH PLAIN.\n{self._log_end()}"
            raise RuntimeError(message)

    def _in_inbox(self, address: str, work: Callable[[imaplib.IMAP4], _Result]) -> _Result:
        """What *work* returns, given an IMAP session with the INBOX of *address* selected."""
        self._running_home()
        if address not in self._logins:  # made when needed: one command each, for a hundred mailboxes
            self._make_login(address)
        with imaplib.IMAP4(HOST, self.imap_port, timeout=_COMMAND_LIMIT_SECONDS) as client:
            if self.ca_file is not None:
                client.starttls(ssl.create_default_context(cafile=str(self.ca_file)))
            client.login(address, self.password)
            _answer(client.select("INBOX"))
            return work(client)

    def _running_home(self) -> Path:
        if self._home is None:
            message = "Maddy is not started."
            raise RuntimeError(message)
        return self._home

    def _home_log(self) -> Path:
        return self._running_home() / "maddy.log"

    def _log_end(self) -> str:
        return log_end(self._home_log())


def _answer(reply: tuple[str, list[Any]]) -> list[Any]:
    """The data of an IMAP reply; an error where it is NO, which imaplib only hands back."""
    status, data = reply
    if status != "OK":
        raise imaplib.IMAP4.error(str(data))
    return data


def _bodies(client: imaplib.IMAP4) -> list[bytes]:
    if _answer(client.search(None, "ALL"))[0] == b"":
        return []
    return [item[1] for item in _answer(client.fetch("1:*", "(BODY.PEEK[])")) if isinstance(item, tuple)]


def _expunge(client: imaplib.IMAP4) -> None:
    if _answer(client.search(None, "ALL"))[0] != b"":
        _answer(client.store("1:*", "+FLAGS.SILENT", r"(\Deleted)"))
        _answer(client.expunge())


def _needed_binary() -> str:
    binary = maddy_binary()
    if binary is None:
        message = "maddy is not here: install Maddy 0.9 (https://maddy.email) and put it on the PATH."
        raise RuntimeError(message)
    return binary
