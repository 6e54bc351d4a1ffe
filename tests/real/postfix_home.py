"""A machine's own Postfix in a folder: `drain setup postfix` as a person calls it, with MAIL_CONFIG."""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from drain import assembly, config, envfile
from drain.inject import Session
from tests.real.postfix import _QUEUES_OF_UNFILED_MAIL, _has_file
from tests.real.server import HOST, Rig, keep_log, needed
from tests.support import ended, free_port, until

DOMAINS = ("example.test", "second.test")
_SECONDS = 90.0
# Ends the process, as a power cut would: right before its nth change of a file or start of a
# program, or before it starts a program with that word.
_CUT_OFF = """
import os, runpy, signal, sys
where = sys.argv.pop(1)
left = int(where) if where.isdecimal() else -1
def hook(event, arguments):
    global left
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event == "subprocess.Popen" and where in arguments[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    if event in ("os.rename", "os.chown", "os.mkdir", "subprocess.Popen") or writes:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.dont_write_bytecode = True
sys.addaudithook(hook)
sys.argv[0] = "drain"
runpy.run_module("drain", run_name="__main__")
"""


class PostfixHome(Rig):
    """Nothing is there but a drain.env; `setup` sets it up, `stop` ends what was started and removes all."""

    def __init__(self, log: Path, **settings: str) -> None:
        """*log* gets Postfix's; *settings* stand in drain.env."""
        self.host, self.port = HOST, free_port()
        self._log = log
        self.said = ""
        self.root = Path(tempfile.mkdtemp(prefix="drain-setup-"))  # pytest's folders are not for other users
        self.root.chmod(0o755)
        self.etc = self.root / "etc/postfix"
        self.env_file = self.root / "config of drain/drain.env"
        envfile.change(
            self.env_file,
            {
                "MAIL_DOMAIN": ",".join(DOMAINS),
                "INJECT_PORT": str(self.port),
                "STATE_DIR": str(self.root / "state"),
                **settings,
            },
        )

    def start(self) -> None:
        """Postfix is there, as a package leaves it."""
        needed("postfix", "postfix"), needed("saslpasswd2", "sasl2-bin")

    def stop(self) -> None:
        """Ends it, and removes all that it had, but for its log."""
        self.halt()
        keep_log(self.root / "var/log/postfix.log", self._log)
        shutil.rmtree(self.root)

    def halt(self) -> None:
        """Ends Postfix."""
        pid = self.master
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            until(lambda: ended(pid))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    @property
    def master(self) -> int:
        """The process of Postfix that runs; 0 for none."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((self.root / "var/spool/postfix/pid/master.pid").read_text())
            return 0 if ended(pid) else pid
        return 0

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a command."""
        named = {"MAIL_CONFIG": str(self.etc), "DRAIN_ENV_FILE": str(self.env_file)}
        return {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")},
            **named,
            **more,
        }

    def settings(self) -> dict[str, str]:
        """What drain.env says."""
        return envfile.read(self.env_file)[0]

    def drain(self, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """A command of drain's, with nobody at the terminal."""
        return self._run([sys.executable, "-m", "drain", *words], self.environ(**more))

    def setup(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """``drain setup postfix``, with nobody at the terminal."""
        return self.drain("setup", "postfix", *words)

    def cut_off(self, change: int | str, *words: str) -> int:
        """The same, killed right before its nth change, or a program with that word; its exit code, -9 if it came to that."""
        command = [sys.executable, "-c", _CUT_OFF, str(change), "setup", "postfix", *words]
        return self._run(command, self.environ()).returncode

    def asked(self, answer: str, *words: str) -> tuple[int, str]:
        """The same with a person who answers; the exit code, and all that was shown."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "drain", "setup", "postfix", *words],
            env=self.environ(),
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            os.write(master, f"{answer}\n".encode())
            shown, _ = process.communicate(timeout=_SECONDS)
        finally:
            process.kill()
            os.close(master)
            os.close(slave)
        return process.returncode, shown.decode()

    def session(self) -> Session:
        """Drain's own session with it, by drain.env; raises what drain would tell."""
        loaded, _ = config.load(self.environ(), complete=False)
        return Session(assembly.server(loaded))

    def inject(self, raw: bytes, to: str) -> None:
        """One mail, line ends CRLF, as drain does it."""
        with contextlib.closing(self.session()) as session:
            replies = [session.mail("a@x.test", len(raw), eight_bit=True, smtputf8=False), session.rcpt(to)]
            replies.append(session.data())
            session.send(raw)
            session.send_dot()
            assert all(reply.code < 400 for reply in [*replies, session.final_reply()])

    def takes(self, address: str) -> bool:
        """Whether it has that mailbox."""
        with contextlib.closing(self.session()) as session:
            assert session.mail("", 0, eight_bit=False, smtputf8=False).positive
            return session.rcpt(address).positive

    def mailbox(self, address: str) -> list[bytes]:
        """All mails filed for an address, once nothing is on its way."""
        queue = self.root / "var/spool/postfix"
        until(lambda: not any(_has_file(queue / name) for name in _QUEUES_OF_UNFILED_MAIL), 60)
        local, _, domain = address.partition("@")
        return [file.read_bytes() for file in (self.root / f"var/mail/vhosts/{domain}/{local}/new").glob("*")]

    def sendmail(self, raw: bytes, to: str) -> None:
        """By the command that cron calls, as root."""
        command = [needed("sendmail", "postfix"), "-C", str(self.etc), "-i", "--", to]
        subprocess.run(command, input=raw, check=True, capture_output=True, timeout=_SECONDS)

    def until_logged(self, words: str) -> None:
        """Until *words* are in Postfix's log."""
        until(lambda: words in self.log, 30, lambda: self.log[-3000:])

    @property
    def log(self) -> str:
        """All that Postfix has logged."""
        return (self.root / "var/log/postfix.log").read_text()

    def files(self) -> dict[str, bytes]:
        """Each file of its configuration."""
        return {str(path.relative_to(self.etc)): path.read_bytes() for path in self.etc.rglob("*") if path.is_file()}

    def _run(self, command: list[str], environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
