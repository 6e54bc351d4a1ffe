"""A home with drain.env and a Maddy that `drain setup maddy` sets up; and the same in a distribution of proot-distro."""

import contextlib
import imaplib
import io
import os
import shutil
import smtplib
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from drain import cli, envfile
from drain.inject import Reply, Session
from drain.login import Server
from drain.mail import on_the_wire
from drain.setting import Secret
from drain.setup import maddy, maddy_program, maddy_service
from tests.real.server import HOST, await_listener, end, log_end
from tests.support import free_port

DOMAIN = "example.test"
_SECONDS = 60.0
HomeT = TypeVar("HomeT", bound="Home")


class Terminal(io.StringIO):
    """A person at a terminal, who has typed this already."""

    def isatty(self) -> bool:
        """That it is one."""
        return True


class Home:
    """The files of one person, and their Maddy if it was started."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.env_file = folder / "drain" / "drain.env"
        self.config = folder / "maddy" / "maddy.conf"
        self.port, self.imap_port, self.submission_port = (free_port() for _ in range(3))
        self.environ = {"PATH": os.environ["PATH"], "DRAIN_ENV_FILE": str(self.env_file)}
        self._server: subprocess.Popen[bytes] | None = None
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(maddy, "IMAP_PORT", self.imap_port)
        monkeypatch.setattr(maddy, "LMTP_PORT", free_port())
        monkeypatch.setattr(maddy, "SUBMISSION_PORT", self.submission_port)
        # A systemd that runs here has nothing to do with this home.
        monkeypatch.setattr(maddy_service, "_SYSTEMD", folder / "no-systemd")
        # Nor has a user that is there for another Maddy.
        monkeypatch.setattr(maddy_program, "_USER", "no-such-user")
        self.user: str | None = None
        self.env_file.parent.mkdir(mode=0o700)
        self.set(MAIL_DOMAIN=DOMAIN, INJECT_PORT=str(self.port), MADDY_CONFIG=str(self.config))

    def set(self, **settings: str) -> None:
        """Settings in drain.env."""
        envfile.change(self.env_file, settings)

    def setting(self, name: str) -> str:
        """One of them."""
        return envfile.read(self.env_file)[0][name]

    def setup(self, *words: str, typed: str | None = None) -> int:
        """``drain setup maddy``, by nobody at a terminal, or by a person who has *typed* something; the exit code."""
        with self._monkeypatch.context() as patched:
            patched.setattr("sys.stdin", io.StringIO() if typed is None else Terminal(typed))
            umask = os.umask(0o077)
            try:
                return cli.main(["setup", "maddy", *words], self.environ)
            finally:
                os.umask(umask)

    def start(self) -> None:
        """Runs Maddy, as the command says that a person may."""
        log = self.folder / "maddy.log"
        with log.open("ab") as stream:
            become = ["runuser", "-u", self.user, "--"] if self.user else []
            self._server = subprocess.Popen(
                [*become, "maddy", "--config", str(self.config), "run"],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        await_listener(self._server, "Maddy", (self.port, self.imap_port), log)

    def stop(self) -> None:
        """Ends it."""
        server, self._server = self._server, None
        if server is not None:
            end(server, 0.5)
            # Left by one that was killed, it would keep the next from starting.
            for left in (self.config.parent / "run").glob("*"):
                left.unlink()

    def restart(self) -> None:
        """Ends it and runs it again."""
        self.stop()
        self.start()

    def proven(self, *words: str) -> None:
        """Set up without a question, started, and proven."""
        assert self.setup("--yes", *words) == os.EX_TEMPFAIL
        self.restart()
        assert self.setup(*words) == os.EX_OK, log_end(self.folder / "maddy.log")

    def tree(self) -> dict[str, tuple[int, int, bytes]]:
        """What lies in drain's folder and in Maddy's, databases left out: mode, time of change, content."""
        files = [*self.env_file.parent.iterdir(), *(file for file in self.config.parent.iterdir() if file.is_file())]
        return {file.name: (file.stat().st_mode, file.stat().st_mtime_ns, file.read_bytes()) for file in files}

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """An SMTP session of drain's own, with what is in drain.env."""
        values = envfile.read(self.env_file)[0]
        password = Secret(values["INJECT_PASS"])
        session = Session(
            Server(HOST, self.port, values["INJECT_USER"], password, "auto", values["INJECT_TLS_CA_FILE"])
        )
        try:
            yield session
        finally:
            session.close()

    def inject(self, raw: bytes, to: str, sender: str = "stranger@example.net") -> Reply:
        """One mail by that session; the last reply."""
        wire = on_the_wire(raw)
        with self.session() as session:
            for reply in (session.mail(sender, len(wire), eight_bit=True, smtputf8=False), session.rcpt(to)):
                if not reply.positive:
                    return reply
            session.data()
            session.send(wire)
            session.send_dot()
            return session.final_reply()

    def mails(self, address: str, password: str) -> list[bytes]:
        """What lies in the INBOX of a mailbox, by IMAP with STARTTLS and the certificate that is pinned."""
        with imaplib.IMAP4(HOST, self.imap_port, timeout=_SECONDS) as client:
            client.starttls(self._pinned())
            client.login(address, password)
            client.select("INBOX", readonly=True)
            (found,) = client.search(None, "ALL")[1]
            parts = client.fetch("1:*", "(BODY.PEEK[])")[1] if found else []
            return [part[1] for part in parts if isinstance(part, tuple)]

    def submit(self, raw: bytes, sender: str, password: str, to: str) -> None:
        """A mail program sends; raises what smtplib raises."""
        with smtplib.SMTP(HOST, self.submission_port, "client.test", timeout=_SECONDS) as client:
            client.starttls(context=self._pinned())
            client.login(sender, password)
            client.sendmail(sender, to, raw)

    def login(self, address: str, password: str) -> None:
        """Makes a login with the command that the closing words name."""
        self.command("creds", "create", address, stdin=password)

    def command(self, *words: str, stdin: str = "") -> str:
        """What a command of Maddy's prints."""
        command = ["maddy", "--config", str(self.config), *words]
        done = subprocess.run(command, input=f"{stdin}\n", capture_output=True, text=True, timeout=_SECONDS, check=True)
        assert "app.Run failed" not in done.stderr, done.stderr
        return done.stdout

    def _pinned(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.setting("INJECT_TLS_CA_FILE"))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


@contextlib.contextmanager
def home(monkeypatch: pytest.MonkeyPatch, kind: type[HomeT]) -> Iterator[HomeT]:
    """One, in a folder whose path is short: that of Maddy's socket may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="drain-"))
    folder.chmod(0o755)
    made = kind(folder, monkeypatch)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)
