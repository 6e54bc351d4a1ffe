"""A private Postfix for tests: the project's own templates, filled in and run as root."""

import contextlib
import grp
import os
import pwd
import secrets
import shutil
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    needed,
    offered_mechanisms,
    output,
    self_signed_certificate,
)
from tests.support import free_port

_POLL_SECONDS = 0.02
_MAIL_UID = 5000  # any number but root's; it needs no entry in /etc/passwd
# The queue that "postfix start" would make: name, mode, group (postfix-files(5)).
_QUEUE_FOLDERS = (
    *((name, 0o700) for name in ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming")),
    *((name, 0o700) for name in ("private", "saved", "trace")),
    ("maildrop", 0o730),
    ("public", 0o710),
)
# In the order in which a mail passes through them, so that none slips past a look.
_QUEUES_OF_UNFILED_MAIL = ("maildrop", "incoming", "active", "deferred", "incoming", "active")


class Postfix(Rig):
    """A Postfix of its own on a free port of 127.0.0.1, from `start` to `stop`.

    Mail for a mailbox lands in a Maildir, mail for ``defer@`` and ``full@`` at the first
    domain gets a 4xx at RCPT, any other recipient a 550.
    """

    def __init__(
        self,
        root: Path,
        *,
        domains: tuple[str, ...] = ("example.test",),
        users: Sequence[str] = USERS,
        tls: bool = False,
    ) -> None:
        """Choose port and password; nothing is started.

        Args:
            root: where `stop` leaves ``postfix.log``. The server itself lives elsewhere,
                since its users must be able to walk there and pytest's folders are 0700.
            domains: its mail domains.
            users: local parts at the first domain, or whole addresses. A further domain
                has alice.
            tls: offer STARTTLS and demand it before AUTH.
        """
        self.host = HOST
        self.port = free_port()
        self.user = f"drain@{HOSTNAME}"
        self.password = secrets.token_urlsafe(16)
        self.ca_file: Path | None = None
        self.domains = domains
        self.addresses = addresses(domains, users)
        self._root = root
        self._tls = tls
        self._home: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the server; returns once it offers AUTH. After `halt` with the mail of before.

        Raises:
            RuntimeError: Postfix or a part of it is not installed, the caller is not
                root, or the server did not come up; says which.
        """
        postconf, saslpasswd2 = needed("postconf", "postfix"), needed("saslpasswd2", "sasl2-bin")
        if os.geteuid() != 0:
            message = "A private Postfix must be started by root: its parts change to several users."
            raise RuntimeError(message)
        try:
            if self._home is None:
                self._home = _world_readable_folder("drain-postfix-")
                umask = os.umask(0o022)  # the user postfix must be able to read
                try:
                    self._lay_out(self._home, saslpasswd2)
                finally:
                    os.umask(umask)
            daemons = output([postconf, "-d", "-h", "daemon_directory"]).strip()
            # master itself rather than "postfix start": no shell, no syslog, no half
            # second of checks, and a child of ours, whose end we see.
            with self._home_log().open("ab") as log:  # for what it says before its own log is open
                self._master = subprocess.Popen(
                    [f"{daemons}/master", "-c", str(self._home / "etc")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._await_auth(self._master)
        except BaseException:
            self.stop()
            raise

    @property
    def listing(self) -> dict[str, str]:
        """What names this server's own list of mailboxes to drain."""
        return {"MAIL_CONFIG": str(self._running_home() / "etc"), "PATH": "/usr/bin:/bin"}

    def halt(self) -> None:
        """End the server and keep its mail; `start` brings it back on the same port."""
        master, self._master = self._master, None
        if master is not None:
            end(master)

    def stop(self) -> None:
        """End the server and remove all that it had, but for its log."""
        self.halt()
        home, self._home = self._home, None
        if home is not None:
            keep_log(home / "log" / "mail.log", self._root / "postfix.log")
            shutil.rmtree(home)
        self.ca_file = None

    def mailbox(self, address: str) -> list[bytes]:
        """The mails filed for *address*, oldest first, as they lie in the Maildir (line ends LF).

        Raises:
            ValueError: there is no such mailbox.
        """
        if address not in self.addresses:
            message = f"There is no mailbox {address!r}."
            raise ValueError(message)
        files: list[tuple[int, str, bytes]] = []
        for file in self._maildir_files(address):
            with contextlib.suppress(FileNotFoundError):  # cleared meanwhile
                files.append((file.stat().st_mtime_ns, file.name, file.read_bytes()))
        return [body for _time, _name, body in sorted(files)]

    def wait_until_filed(self, seconds: float = 30) -> None:
        """Wait until the queue is empty: Postfix says 250 before it files.

        Raises:
            RuntimeError: there is still mail in the queue after *seconds*.
        """
        queue = self._running_home() / "queue"
        deadline = time.monotonic() + seconds
        while any(_has_file(queue / name) for name in _QUEUES_OF_UNFILED_MAIL):
            if time.monotonic() > deadline:
                message = f"Mail is still in Postfix's queue after {seconds} s.\n{self._log_end()}"
                raise RuntimeError(message)
            time.sleep(_POLL_SECONDS)

    def clear(self) -> None:
        """Empty all Maildirs."""
        for address in self.addresses:
            for file in self._maildir_files(address):
                file.unlink(missing_ok=True)

    def _lay_out(self, home: Path, saslpasswd2: str) -> None:
        """Make folders, configuration and the user that injects."""
        postfix_uid = pwd.getpwnam("postfix").pw_uid
        postdrop_gid = grp.getgrnam("postdrop").gr_gid
        etc, queue = home / "etc", home / "queue"
        for folder in (etc / "sasl", queue / "pid", home / "log", home / "data", home / "mail"):
            folder.mkdir(parents=True)
        os.chown(home / "data", postfix_uid, -1)
        os.chown(home / "mail", _MAIL_UID, _MAIL_UID)
        for name, mode in _QUEUE_FOLDERS:
            folder = queue / name
            folder.mkdir()
            os.chown(folder, postfix_uid, postdrop_gid if mode != 0o700 else -1)
            folder.chmod(mode)  # not with mkdir, which the umask narrows
        certificate, key = "", ""
        if self._tls:
            self.ca_file, key_file = self_signed_certificate(etc)
            certificate, key = str(self.ca_file), str(key_file)
        values = {
            "CONFIG_DIR": str(etc),
            "QUEUE_DIR": str(queue),
            "DATA_DIR": str(home / "data"),
            "LOG_FILE": str(home / "log" / "mail.log"),
            "HOSTNAME": HOSTNAME,
            "MAIL_DOMAINS": " ".join(self.domains),
            "MAILDIR_BASE": str(home / "mail"),
            "MAIL_UID": str(_MAIL_UID),
            "MAIL_GID": str(_MAIL_UID),
            "TLS_LEVEL": "encrypt" if self._tls else "none",
            "TLS_CERT": certificate,
            "TLS_KEY": key,
            "INJECT_PORT": str(self.port),
        }
        # For tests only: the mailboxes that are refused for now.
        refused = f"smtpd_recipient_restrictions = check_recipient_access texthash:{etc}/refused\n"
        (etc / "main.cf").write_text(filled("postfix-main.cf", values) + refused)
        (etc / "master.cf").write_text(filled("postfix-master.cf", values))
        (etc / "refused").write_text(
            "".join(f"{name}@{self.domains[0]} {reply}\n" for name, reply in REFUSED_FOR_NOW.items())
        )
        (etc / "mailboxes").write_text("".join(f"{address} {_maildir(address)}/\n" for address in self.addresses))
        (etc / "sasl" / "smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\n"
            f"sasldb_path: {etc}/sasl/sasldb2\n"
        )
        # Postfix re-reads a file younger than two seconds until it is older, lest it has half of it.
        past = time.time() - 60
        for file in ("main.cf", "refused", "mailboxes"):
            os.utime(etc / file, (past, past))
        name, realm = self.user.split("@")
        database = etc / "sasl" / "sasldb2"
        output([saslpasswd2, "-p", "-c", "-f", str(database), "-u", realm, name], stdin=self.password)
        os.chown(database, 0, pwd.getpwnam("postfix").pw_gid)
        database.chmod(0o640)

    def _await_auth(self, master: subprocess.Popen[bytes]) -> None:
        """Wait until the server offers AUTH PLAIN, which only a working SASL does."""
        await_listener(master, "Postfix", (self.port,), self._home_log())
        try:
            offered = offered_mechanisms(self.port, self.ca_file)
        except (OSError, smtplib.SMTPException) as error:
            message = f"Postfix came up but does not speak SMTP: {error}\n{self._log_end()}"
            raise RuntimeError(message) from error
        if "PLAIN" not in offered:
            message = (
                "Postfix offers no AUTH PLAIN: the Debian package libsasl2-modules may be missing "
                f"(apt-get install libsasl2-modules).\n{self._log_end()}"
            )
            raise RuntimeError(message)

    def _maildir_files(self, address: str) -> Iterator[Path]:
        for folder in ("new", "cur"):
            # Postfix makes a Maildir with its first mail.
            with contextlib.suppress(FileNotFoundError):
                yield from (self._running_home() / "mail" / _maildir(address) / folder).iterdir()

    def _running_home(self) -> Path:
        if self._home is None:
            message = "Postfix is not started."
            raise RuntimeError(message)
        return self._home

    def _home_log(self) -> Path:
        return self._running_home() / "log" / "mail.log"

    def _log_end(self) -> str:
        return log_end(self._home_log())


def _world_readable_folder(prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    return folder


def _maildir(address: str) -> str:
    local_part, _, domain = address.rpartition("@")
    return f"{domain}/{local_part}"


def _has_file(folder: Path) -> bool:
    return any(files for _folder, _folders, files in os.walk(folder))
