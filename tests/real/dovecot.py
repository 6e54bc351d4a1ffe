"""A private Dovecot for tests, which serves Maildirs that a Postfix files into; run as root."""

import contextlib
import imaplib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.real.server import (
    HOST,
    Rig,
    await_listener,
    end,
    keep_log,
    needed,
    output,
    self_signed_certificate,
)
from tests.support import free_port

MASTER = "master"
_CONFIGURATION = """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/dovecot.log
listen = {host}
protocols = imap
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = plain
auth_failure_delay = 0
auth_master_user_separator = *
first_valid_uid = {uid}
first_valid_gid = {uid}
mail_location = maildir:{mail}/%d/%n
passdb {{
  driver = passwd-file
  master = yes
  args = {home}/masters
  result_success = continue
}}
passdb {{
  driver = passwd-file
  args = {home}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={home}/home/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Junk {{
    auto = create
    special_use = \\Junk
  }}
}}
service imap-login {{
  service_count = 0
  process_min_avail = 1
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
service imap {{
  service_count = 200
}}
# Otherwise a wrong password makes the next login wait.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


class Dovecot(Rig):
    """A Dovecot on free ports of 127.0.0.1, from `start` to `stop`: ``port`` with STARTTLS, ``tls_port`` with TLS.

    A user's name is the mailbox's address, and its password is ``passwords[address]``.
    """

    def __init__(self, root: Path, mail: Path, uid: int, addresses: tuple[str, ...]) -> None:
        """Nothing is started.

        Args:
            root: where `stop` leaves ``dovecot.log``.
            mail: the folder of the Maildirs, ``<domain>/<local part>`` each.
            uid: whose they are.
            addresses: the mailboxes.
        """
        self.host = HOST
        self.port, self.tls_port = free_port(), free_port()
        self.passwords = {address: secrets.token_urlsafe(12) for address in addresses}
        self.master_password = secrets.token_urlsafe(12)
        self.ca_file = Path()
        self._root = root
        self._mail = mail
        self._uid = uid
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it; returns once it listens. After `halt` with the mail of before."""
        dovecot = needed("dovecot", "dovecot-core")
        modules = Path("/usr/lib/dovecot/imap")
        if not modules.exists():
            message = (
                "Dovecot speaks no IMAP: install the Debian package dovecot-imapd (apt-get install dovecot-imapd)."
            )
            raise RuntimeError(message)
        try:
            if self._home is None:
                self._home = Path(tempfile.mkdtemp(prefix="drain-dovecot-"))
                self._home.chmod(0o755)
                self._lay_out(self._home)
            with (self._home / "out.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [dovecot, "-F", "-c", str(self._home / "dovecot.conf")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            await_listener(self._process, "Dovecot", (self.port, self.tls_port), self._home / "dovecot.log")
        except BaseException:
            self.stop()
            raise

    def halt(self) -> None:
        """End it; `start` brings it back on the same ports."""
        process, self._process = self._process, None
        if process is not None:
            end(process)

    def stop(self) -> None:
        """End it, and remove all that it had, but for the Maildirs and its log."""
        self.halt()
        home, self._home = self._home, None
        if home is not None:
            keep_log(home / "dovecot.log", self._root / "dovecot.log")
            shutil.rmtree(home)

    @contextlib.contextmanager
    def client(self, address: str) -> Iterator[imaplib.IMAP4]:
        """The mail program of that mailbox's owner."""
        with imaplib.IMAP4(HOST, self.port, timeout=10) as client:
            client.login(address, self.passwords[address])
            yield client

    def move(self, address: str, folder: str, source: str = "INBOX") -> None:
        """Moves all mail of one folder to another, made if it is not there; names as IMAP has them, unquoted."""
        with self.client(address) as client:
            client.create(f'"{folder}"')
            _, (count,) = client.select(f'"{source}"')
            if count != b"0":
                assert client.xatom("MOVE", "1:*", f'"{folder}"')[0] == "OK"

    def clear(self) -> None:
        """Remove all mail and all folders."""
        for address in self.passwords:
            shutil.rmtree(self._maildir(address), ignore_errors=True)

    def files(self, address: str) -> list[bytes]:
        """The mails in all folders of a mailbox, as they lie in the Maildirs (line ends LF)."""
        found = self._maildir(address).rglob("*")
        return [file.read_bytes() for file in found if file.parent.name in {"new", "cur"} and file.is_file()]

    def _maildir(self, address: str) -> Path:
        local_part, _, domain = address.rpartition("@")
        return self._mail / domain / local_part

    def _lay_out(self, home: Path) -> None:
        certificate, key = self_signed_certificate(home)
        self.ca_file = certificate
        (home / "home").mkdir()
        os.chown(home / "home", self._uid, self._uid)
        (home / "masters").write_text(f"{MASTER}:{{PLAIN}}{self.master_password}\n")
        (home / "users").write_text(
            "".join(f"{address}:{{PLAIN}}{password}\n" for address, password in self.passwords.items())
        )
        (home / "dovecot.conf").write_text(
            _CONFIGURATION.format(
                home=home,
                host=HOST,
                certificate=certificate,
                key=key,
                uid=self._uid,
                mail=self._mail,
                port=self.port,
                tls_port=self.tls_port,
            )
        )
        output([needed("doveconf", "dovecot-core"), "-c", str(home / "dovecot.conf"), "-n"])
