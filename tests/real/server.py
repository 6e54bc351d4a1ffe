"""What the rigs of real servers share: how they begin and end, who has mail, templates, ports, processes."""

import contextlib
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import drain

HOST = "127.0.0.1"
HOSTNAME = "mx.example.test"
USERS = ("alice", "bob", "admin", "catch", "inbox", *(f"u{number:03d}" for number in range(100)))
# Local parts at the first domain that are refused for now: what RCPT answers.
REFUSED_FOR_NOW = {"defer": "450 4.2.1 Try again later", "full": "452 4.2.2 The mailbox is full"}
START_LIMIT_SECONDS = 20.0

_TEMPLATES = Path(drain.__file__).parent / "templates"
_STOP_LIMIT_SECONDS = 5.0
_POLL_SECONDS = 0.02
_LOG_LINES_SHOWN = 15
# Debian keeps the daemons' commands here, which a plain user's PATH leaves out.
_SBIN = ("/usr/sbin", "/sbin")


class Rig:
    """A server of a test's own, from `start` to `stop`."""

    def start(self) -> None:
        """Run it; returns once it is ready. Raises RuntimeError where it is not installed or does not come up."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it, and remove all that it had."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Daemon(Rig):
    """One that is asked by the request, in a folder that its own user can walk to, and keeps a log.

    pytest's folders are 0700; *root* is where `stop` leaves the log.
    """

    def __init__(self, name: str, root: Path) -> None:
        self._name = name
        self._root = root
        self._home = Path(tempfile.mkdtemp(prefix=f"drain-{name}-"))
        self._home.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it; returns once it answers."""
        try:
            command = self._command()
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self._await_pong(self._process)
        except BaseException:
            self.stop()
            raise

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to it and to each of its children."""
        assert self._process is not None, f"{self._name} is not started"
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """End it, frozen or not, and remove all that it had, but for its log."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            end(process)
        keep_log(self._log, self._root / f"{self._name}.log")
        shutil.rmtree(self._home, ignore_errors=process is None)

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return self._home / f"{self._name}.log"

    def _command(self) -> list[str]:
        """What runs it in the foreground, with its configuration laid out."""
        raise NotImplementedError

    def _pong(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def _await_pong(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not self._pong():
            status = process.poll()
            if status is not None or time.monotonic() > deadline:
                what = "does not answer" if status is None else f"ended with status {status}"
                message = f"{self._name} {what}.\n{log_end(self._log)}"
                raise RuntimeError(message)
            time.sleep(_POLL_SECONDS)


def addresses(domains: Sequence[str], users: Sequence[str]) -> tuple[str, ...]:
    """All mailboxes: *users*, a bare one at the first domain, and alice at each further domain."""
    first, *others = domains
    return (
        *(user if "@" in user else f"{user}@{first}" for user in users),
        *(f"alice@{domain}" for domain in others),
    )


def filled(template: str, values: Mapping[str, str]) -> str:
    """One of the project's templates with each ``@NAME@`` replaced.

    Raises:
        KeyError: the template has a placeholder that *values* lacks.
    """
    text = (_TEMPLATES / template).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z][A-Z_]*)@", lambda match: values[match[1]], text)


def listening(port: int) -> bool:
    """Whether somebody listens on *port* of 127.0.0.1."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def await_listener(server: subprocess.Popen[bytes], name: str, ports: Sequence[int], log: Path) -> None:
    """Wait until *server* listens on all *ports*; a RuntimeError with the end of its log where it does not."""
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while True:
        up = all(listening(port) for port in ports)
        status = server.poll()
        if status is not None:
            message = f"{name} ended with status {status} instead of listening on {ports}.\n{log_end(log)}"
            raise RuntimeError(message)
        if up:
            return
        if time.monotonic() > deadline:
            message = f"{name} does not listen on {ports} after {START_LIMIT_SECONDS} s.\n{log_end(log)}"
            raise RuntimeError(message)
        time.sleep(_POLL_SECONDS)


def offered_mechanisms(port: int, ca_file: Path | None) -> list[str]:
    """The AUTH mechanisms that the server on *port* offers, after STARTTLS where it has a certificate."""
    # The name is given since smtplib would look for one in the DNS, for seconds.
    with smtplib.SMTP(HOST, port, local_hostname="localhost", timeout=START_LIMIT_SECONDS) as client:
        if ca_file is not None:
            client.starttls(context=ssl.create_default_context(cafile=str(ca_file)))
        client.ehlo()
        return client.esmtp_features.get("auth", "").upper().split()


def self_signed_certificate(folder: Path) -> tuple[Path, Path]:
    """Certificate (which is its own CA) and key, as PEM files in *folder*, for a server on loopback."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    output(
        [
            *(needed("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "30", "-subj", f"/CN={HOSTNAME}"),
            *("-addext", f"subjectAltName=DNS:{HOSTNAME},DNS:localhost,IP:{HOST}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ]
    )
    return certificate, key


def end(leader: subprocess.Popen[bytes], patience_seconds: float = _STOP_LIMIT_SECONDS) -> None:
    """End a server that leads a session of its own, and whatever it started there.

    It is asked, and killed if it is still there after *patience_seconds*.
    """
    leader.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        leader.wait(patience_seconds)
    # A child may still be on its way out, with files in use. Zombies do not count:
    # a container without a proper init can keep them for long.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait(_STOP_LIMIT_SECONDS)
    deadline = time.monotonic() + _STOP_LIMIT_SECONDS
    while _group_runs(leader.pid):
        if time.monotonic() > deadline:
            message = f"Process group {leader.pid} outlived SIGKILL."
            raise RuntimeError(message)
        time.sleep(_POLL_SECONDS)


def keep_log(log: Path, destination: Path) -> None:
    """Copy a server's log to where the test's own files lie, if both are there."""
    if log.exists() and destination.parent.is_dir():
        shutil.copyfile(log, destination)


def log_end(log: Path) -> str:
    """The last lines of a server's log."""
    if not log.exists() or log.stat().st_size == 0:
        return "(It wrote no log. Postfix tells syslog alone of a port that is taken.)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:])


def needed(command: str, package: str) -> str:
    """The path of a command; a RuntimeError that names its Debian package where it is missing."""
    path = shutil.which(command, path=os.pathsep.join((os.environ.get("PATH", ""), *_SBIN)))
    if path is None:
        message = f"{command} is not here: install the Debian package {package} (apt-get install {package})."
        raise RuntimeError(message)
    return path


def output(command: Sequence[str], stdin: str = "") -> str:
    """What *command* prints; a RuntimeError with its own words where it fails."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=START_LIMIT_SECONDS
    )
    if done.returncode != 0:
        message = f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}"
        raise RuntimeError(message)
    return done.stdout


def _group_runs(group: int) -> bool:
    """Whether a process of the process group is alive and no zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            # After the name, which may hold anything: state, parent, process group (proc(5)).
            state, _parent, its_group, *_ = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(its_group) == group and state != "Z":
                return True
    return False
