"""A real `drain relay`, a process, between a real smarthost and a real mail server at home; and both as its clients."""

import base64
import contextlib
import json
import os
import re
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drain import config, outbound
from drain.relay.queue import OPEN, Entry
from drain.relay.users import Users
from tests.real.house import Server
from tests.real.maddy import Maddy
from tests.real.postfix import Postfix
from tests.real.server import HOST, Rig, await_listener, end, filled, keep_log, needed, output
from tests.real.smarthost import Filed, Smarthost
from tests.support import free_port, until

DOMAIN = "example.test"
ALICE = f"alice@{DOMAIN}"
BOB = "bob@example.net"
USER, PASSWORD = "phone", "correct horse battery"
_STOP_SECONDS = 10.0
_COMMAND_SECONDS = 30.0


class RealRelay(Rig):
    """The relay, from `start` to `stop`, in *folder*."""

    def __init__(
        self,
        folder: Path,
        smarthost: Smarthost,
        home: Server | None,
        settings: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
    ) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.smarthost = smarthost
        self.home = home
        self.port = port or free_port()
        self.settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        # Cheap hashes: what a password costs is another test's affair.
        self.state_dir.mkdir(parents=True, exist_ok=True)
        Users(self.state_dir / "relay-users", ln=4).add(USER, PASSWORD.encode(), ())

    def environ(self) -> dict[str, str]:
        """The settings, in a process's environment."""
        home = self.home
        return {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")},
            "STATE_DIR": str(self.state_dir),
            "RELAY_KEY_FILE": str(self.folder / "config" / "relay.key"),
            "DRAIN_ENV_FILE": "/dev/null",
            "MAIL_DOMAIN": DOMAIN,
            "INJECT_PORT": str(home.port if home else free_port()),
            "INJECT_USER": home.user if home else "drain",
            "INJECT_PASS": home.password if home else "none",
            "INJECT_RCPT": "inbox",
            "RELAY_PORT": str(self.port),
            "RELAY_UPSTREAM": "smtp",
            "SMARTHOST_HOST": f"{self.smarthost.host}:{self.smarthost.port}",
            "SMARTHOST_USER": self.smarthost.user,
            "SMARTHOST_PASS": self.smarthost.password,
            "SMARTHOST_TLS_CA_FILE": str(self.smarthost.ca_file),
            "ALLOWED_FROM": f"@{DOMAIN}",
            "RATE_LIMIT_PER_MINUTE": "0",
            "RATE_LIMIT_PER_DAY": "0",
            **self.settings,
        }

    def start(self) -> None:
        """Run it; returns once it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "drain", "relay", "--json"],
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            if self.settings.get("RELAY_HOST", HOST) == HOST:
                await_listener(self._process, "drain relay", (self.port,), self._log)
            else:
                process = self._process
                until(lambda: self._listens in self.log or process.poll() is not None, 30, lambda: self.log)
                if self._listens not in self.log:
                    raise RuntimeError(self.log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it; what it has is kept."""
        process, self._process = self._process, None
        if process is not None:
            end(process, _STOP_SECONDS)

    @property
    def _listens(self) -> str:
        return f"listens on port {self.port}"

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None, "the relay is not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return self.folder / "relay.log"

    def wait_for_log(self, words: str, seconds: float = 30.0) -> None:
        """Until *words* are in its log."""
        until(lambda: words in self.log, seconds, lambda: self.log[-3000:])

    def queue(self, *arguments: str) -> list[dict[str, Any]]:
        """``drain relay queue list --json``, as a person asks beside the running relay."""
        return [json.loads(line) for line in self.command("queue", "list", "--json", *arguments).splitlines()]

    def open(self) -> list[Entry]:
        """The same without a process of its own."""
        loaded, _ = config.load(self.environ(), complete=False)
        with contextlib.closing(outbound.queue(loaded)) as queue:
            return queue.entries(*OPEN)

    def command(self, *arguments: str) -> str:
        """What another command of ``drain relay`` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "drain", "relay", *arguments],
            env=self.environ(),
            capture_output=True,
            text=True,
            check=True,
            timeout=_COMMAND_SECONDS,
        )
        return done.stdout

    def wait_until_sent(self, seconds: float = 60.0) -> None:
        """Until nothing is in the queue, reports neither; and the servers have filed it."""
        until(lambda: not self.open(), seconds, lambda: f"{self.open()}\n{self.log[-3000:]}")
        if self.home is not None:
            self.home.wait_until_filed()

    def arrived(self) -> list[Filed]:
        """All that the smarthost has, once nothing is in the queue."""
        self.wait_until_sent()
        return self.smarthost.mails()

    def client(self) -> smtplib.SMTP:
        """A mail program that has logged in."""
        client = smtplib.SMTP(HOST, self.port, "client.test", timeout=60)
        client.login(USER, PASSWORD)
        return client

    def send(self, raw: bytes, to: str | list[str] = BOB, sender: str = ALICE) -> dict[str, tuple[int, bytes]]:
        """One mail; raises what smtplib raises."""
        with self.client() as client:
            return client.sendmail(sender, to, raw)

    def say(self, *lines: bytes, login: bool = True, host: str = HOST) -> list[bytes]:
        """Each line to the relay as it is, all at once, then QUIT; the replies' lines, without the greeting's and EHLO's."""
        plain = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
        first = b"EHLO client.test\r\n" + (b"AUTH PLAIN " + plain + b"\r\n" if login else b"")
        with socket.create_connection((host, self.port), timeout=20) as connection:
            connection.sendall(first + b"".join(lines) + b"QUIT\r\n")
            replies = connection.makefile("rb").read().split(b"\r\n")[:-1]
        end_of_ehlo = next(number for number, reply in enumerate(replies) if reply.startswith(b"250 "))
        return replies[end_of_ehlo + 1 + login :]


class PostfixThatSends(Postfix):
    """The Postfix at home, which also hands its outgoing mail to the relay: the template added."""

    def __init__(self, root: Path, relay_port: int, **more: Any) -> None:
        super().__init__(root, **more)
        self.relay_port = relay_port

    def sendmail(self, raw: bytes, *to: str, sender: str = "") -> None:
        """By the command that cron calls."""
        command = [needed("sendmail", "postfix"), "-C", str(self._running_home() / "etc"), "-i"]
        options = ["-f", sender] if sender else []
        subprocess.run([*command, *options, "--", *to], input=raw, check=True, capture_output=True, timeout=30)

    def flush(self) -> None:
        """Tries now what waits."""
        output([needed("postqueue", "postfix"), "-c", str(self._running_home() / "etc"), "-f"])

    def _lay_out(self, home: Path, saslpasswd2: str) -> None:
        super()._lay_out(home, saslpasswd2)
        etc = home / "etc"
        values = {
            "CONFIG_DIR": str(etc),
            "RELAY_PORT": str(self.relay_port),
            "SUBMIT_USERS": "root",
            "OWN_ADDRESS": ALICE,
        }
        for template, file in (("postfix-relay.cf", "main.cf"), ("postfix-relay-master.cf", "master.cf")):
            with (etc / file).open("a") as added:
                added.write("\n" + filled(template, values))
        password = etc / "relay-password"
        password.touch(0o600)
        password.write_text(f"[{HOST}]:{self.relay_port} {USER}:{PASSWORD}\n")
        past = time.time() - 60
        for changed in ("main.cf", "relay-password"):
            os.utime(etc / changed, (past, past))
        # What a person is told to ask.
        output([needed("postconf", "postfix"), "-c", str(etc), "relayhost"])


class MaddyThatSends(Maddy):
    """The Maddy at home, which also hands outgoing mail to the relay: the template added."""

    def __init__(self, root: Path, relay_port: int, **more: Any) -> None:
        super().__init__(root, **more)
        self.relay_port = relay_port
        self.submission_port = free_port()

    def start(self) -> None:
        """As Maddy's, with a login for alice."""
        super().start()
        if ALICE not in self._logins:
            self._make_login(ALICE)

    def _configure(self, home: Path) -> None:
        super()._configure(home)
        configuration = home / "maddy.conf"
        first = configuration.read_text()
        lmtp = re.search(r"^lmtp tcp://[0-9.]+:(\d+)", first, re.MULTILINE)
        assert lmtp
        values = {
            "MAIL_DOMAINS": " ".join(self.domains),
            "LMTP_PORT": lmtp[1],
            "INJECT_USER": self.user,
            "INJECT_PASS": self.password,
            "SUBMISSION_PORT": str(self.submission_port),
            "RELAY_PORT": str(self.relay_port),
            "RELAY_USER": USER,
            "RELAY_PASS": f'"{PASSWORD}"',
        }
        configuration.write_text(first + "\n" + filled("maddy-relay.conf", values))


def added_around(arrived: bytes, mail: bytes) -> list[bytes]:
    """The names of the fields that were added to *mail*, above its header or below, in their order.

    All else must be as it was, byte for byte; line ends are LF.
    """
    if arrived.endswith(mail):
        added = arrived[: len(arrived) - len(mail)]
    else:
        head, _, body = arrived.partition(b"\n\n")
        head_before, _, body_before = mail.partition(b"\n\n")
        assert body == body_before, (body[-500:], body_before[-500:])
        above, found, below = (head + b"\n").partition(head_before + b"\n")
        assert found, (head[:1500], head_before[:1500])
        added = above + below
    lines = [line for line in added.split(b"\n") if line and not line.startswith((b" ", b"\t"))]
    return [line.partition(b":")[0] for line in lines]


@contextlib.contextmanager
def kept_log(relay: RealRelay, destination: Path) -> Iterator[RealRelay]:
    """Runs the relay; its log is left at *destination*."""
    try:
        with relay:
            yield relay
    finally:
        keep_log(relay.folder / "relay.log", destination)
