"""A phone to install drain on: Termux's folders, commands and user, under a real proot.

What is real: the layout below /data/data/com.termux/files and nothing else to write to, a user
who is not root, no systemd and no cron, runit (runsvdir, runsv, sv, svlogd), dash, Python, pip.
Its files are made once by debootstrap, which takes a minute, and kept; every phone begins with
a copy of them. Python, cryptography and termux-services are not there until ``pkg install``
"installs" them, which here copies them into place.

What this cannot show of a real phone:

- Bionic, Android's C library, and its processors: here it is glibc, so pip finds wheels that it
  would not find there, Python is Debian's, and names are looked up by resolv.conf.
- Android's hand in it: Doze, battery optimisation, the phantom process killer, low memory. The
  test kills all processes at once, as Android does; when Android does so is not seen here.
- The rest of what SELinux and seccomp forbid there; hard links are forbidden here too (`sandbox`).
- The apps Termux:Boot and Termux:API: what they would do is done by `Phone.boot` and by stubs;
  ``termux-notification`` hangs as it does without its app. ``termux-wake-lock`` only notes that
  it was called.
- The packages of Termux themselves, whether they fit each other, and how long an install takes.
"""

import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.real import sandbox
from tests.real.server import Rig
from tests.real.termux import APP, HOME, MAKE_LIMIT_SECONDS, PREFIX, made
from tests.support import until

_SANDBOX = (sys.executable, sandbox.__file__, str(APP))


def why_not() -> str:
    """Why there can be no such phone here; "" where there can."""
    if os.geteuid() != 0:
        return "debootstrap is for root only"
    if platform.machine() not in sandbox.MACHINES:
        return f"what Android forbids is not known for {platform.machine()}"
    missing = [name for name in ("debootstrap", "proot") if shutil.which(name) is None]
    return f"not here: {', '.join(missing)} (Debian packages of these names)" if missing else ""


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, and what it wrote on both outputs."""

    code: int
    words: str


class Phone(Rig):
    """One phone, with a fresh Termux.

    Args:
        like: begin with a copy of what another has, in place of a fresh Termux.
    """

    root: Path
    _folder: Path

    def __init__(self, like: "Phone | None" = None) -> None:
        self._like = like
        self._proots: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Its files are laid out."""
        source = self._like.root if self._like else made()
        # Not one of pytest's folders, which the app's user could not walk to.
        self._folder = Path(tempfile.mkdtemp(prefix="drain-phone-"))
        self._folder.chmod(0o711)
        self.root = self._folder / "root"
        copy = ["cp", "-a", "--reflink=auto", str(source), str(self.root)]
        subprocess.run(copy, check=True, timeout=MAKE_LIMIT_SECONDS)

    def stop(self) -> None:
        """All that runs in it is killed, and its files are removed."""
        self.kill_all()
        shutil.rmtree(self._folder)

    def path(self, place: str) -> Path:
        """Where a file of the phone is on this machine: *place* is below PREFIX, or begins with ``~/``."""
        inside = f"{HOME}/{place[2:]}" if place.startswith("~/") else f"{PREFIX}/{place}"
        return self.root / inside[1:]

    def text(self, place: str) -> str:
        """What a file says; "" where there is none."""
        path = self.path(place)
        return path.read_text("utf-8", "replace") if path.is_file() else ""

    def write(self, place: str, text: str) -> None:
        """A file of the person's, for nobody else."""
        path = self.path(place)
        path.write_text(text)
        path.chmod(0o600)
        shutil.chown(path, APP, APP)

    def run(self, script: str, *, check: bool = True, seconds: float = 60, **environ: str) -> Done:
        """A script in a shell of its own, as in a new session of Termux without its profile; what it starts stays.

        Raises:
            AssertionError: it failed, and *check* asks that it does not; or it took longer.
        """
        name = secrets.token_hex(4)
        output, code = self._folder / f"{name}.out", self.path(f"tmp/{name}.code")
        # Whatever it leaves running keeps its proot, so the end of that says nothing.
        noting = (
            f'"$PREFIX/bin/sh" -c "$1"; echo $? >"$TMPDIR/{name}.new"; mv "$TMPDIR/{name}.new" "$TMPDIR/{name}.code"'
        )
        with output.open("wb") as file:
            proot = subprocess.Popen(
                [*_SANDBOX, *self._inside(environ), f"{PREFIX}/bin/sh", "-c", noting, "sh", script],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "PROOT_TMP_DIR": str(self.path("tmp"))},
                start_new_session=True,
            )
        self._proots.append(proot)
        until(
            lambda: code.exists() or proot.poll() is not None,
            seconds,
            lambda: f"{script}\n{output.read_text(errors='replace')[-3000:]}",
        )
        assert code.exists(), f"proot ended with {proot.poll()}: {output.read_text(errors='replace')[-3000:]}"
        done = Done(int(code.read_text()), output.read_text(errors="replace"))
        assert done.code == 0 or not check, f"{script}\nended with {done.code}:\n{done.words[-5000:]}"
        return done

    def boot(self) -> None:
        """What Termux:Boot does: every script there, in order, each as a process of its own."""
        for script in sorted(self.path("~/.termux/boot").iterdir()):
            self.run(f'"$HOME/.termux/boot/{script.name}"')

    def processes(self) -> set[int]:
        """All that runs in it: what our proots trace."""
        ours = {proot.pid for proot in self._proots}
        found = set()
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            except OSError:
                continue
            if int(fields.get("TracerPid", "0")) in ours:
                found.add(int(fields["Pid"]))
        return found

    def kill_all(self) -> None:
        """Every process at once, as Android does with an app."""
        limit = time.monotonic() + 20
        while (running := self.processes()) and time.monotonic() < limit:
            for pid in running:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        assert not running, f"still there: {running}"
        for proot in self._proots:
            proot.kill()
            proot.wait(10)
        self._proots.clear()

    def _inside(self, environ: Mapping[str, str]) -> list[str]:
        # As Termux sets it; SVDIR and LOGDIR are its profile's. Python's choice of encoding is by its own rules.
        variables = {
            "HOME": HOME,
            "PREFIX": PREFIX,
            "PATH": f"{PREFIX}/bin",
            "TMPDIR": f"{PREFIX}/tmp",
            "SHELL": f"{PREFIX}/bin/sh",
            "LANG": "en_US.UTF-8",
            "ANDROID_ROOT": "/system",
            "TERMUX_VERSION": "0.118.3",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environ,
        }
        return [
            *("proot", "-r", str(self.root), "-w", HOME),
            *("-b", "/proc", "-b", "/dev", "-b", "/sys"),
            *(f"{PREFIX}/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items())),
        ]
