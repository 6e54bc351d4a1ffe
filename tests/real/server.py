"""What the fixtures for Postfix and for Maddy share: who has mail, templates, ports, processes."""

import contextlib
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


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
