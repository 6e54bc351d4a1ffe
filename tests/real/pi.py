"""A Raspberry Pi to install drain on: Debian with a real systemd as its first process, in systemd-nspawn.

Its files are made once by debootstrap, which takes a minute, and kept; every machine begins with a copy of them.
It has the network of the machine that it runs on, so a bucket on loopback here is on loopback there.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.real.server import Rig, log_end, output
from tests.support import until

# What Raspberry Pi OS Lite has of what matters here; drain's own needs are for install.sh to find.
_PACKAGES = "systemd,systemd-sysv,libpam-systemd,dbus,polkitd,sudo,python3,ca-certificates"
_RELEASE = "bookworm"
# They would take apt's lock at a time of their own.
_MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "dpkg-db-backup.timer")
_MAKE_LIMIT_SECONDS = 600
_BOOT_LIMIT_SECONDS = 60
_STOP_LIMIT_SECONDS = 30
# systemd-nspawn ends with it when the machine asks for a reboot (its exit code where it keeps its unit).
_REBOOT = 133
# PID 1 of a container powers off when it gets this (systemd(1), SIGRTMIN+3).
_POWER_OFF = signal.SIGRTMIN + 3
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT = """\
group=$1
shift
for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    if [ -e "$tree/$group/cgroup.procs" ]; then echo $$ >"$tree/$group/cgroup.procs"; fi
done
# nspawn keeps a folder there that it cannot tidy up where /run is on a disk.
mkdir -p /run/systemd
mount -t tmpfs -o mode=755 tmpfs /run/systemd
exec "$@"
"""


def why_not() -> str:
    """Why there can be no such machine here; "" where there can."""
    if os.geteuid() != 0:
        return "systemd-nspawn is for root only"
    missing = [
        name
        for name in ("debootstrap", "systemd-nspawn", "nsenter", "unshare", "setpriv")
        if shutil.which(name) is None
    ]
    if missing:
        return f"not here: {', '.join(missing)} (Debian packages debootstrap, systemd-container, util-linux)"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, timeout=10, check=False).returncode != 0:
        return "no mount namespaces can be made here"
    try:
        trees = _cgroup_trees()
        with _cgroups(trees, f"drain-can-{os.getpid()}"):
            return "" if trees else "there are no control groups for systemd here"
    except OSError:
        return "no control groups can be made here"


class Pi(Rig):
    """One machine, from the first start of a fresh system on.

    Args:
        folder: for its files, and ``console.log``.
        binds: folders of this machine that it sees, by their paths there; it cannot write to them.
    """

    def __init__(self, folder: Path, binds: Mapping[str, Path]) -> None:
        self.root = folder / "root"
        self._console = folder / "console.log"
        self._binds = binds
        self._name = f"drain-pi-{os.getpid()}-{secrets.token_hex(2)}"
        self._held = contextlib.ExitStack()
        self._nspawn: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Its files are laid out, and it boots."""
        subprocess.run(["cp", "-a", "--reflink=auto", _made(), self.root], check=True, timeout=_MAKE_LIMIT_SECONDS)
        self._held.enter_context(_cgroups(_cgroup_trees(), self._name))
        self.power_on()

    def stop(self) -> None:
        """It is switched off, and its files are removed."""
        try:
            self.power_off()
        finally:
            self._held.close()
            shutil.rmtree(self.root, ignore_errors=True)

    def power_on(self) -> None:
        """It boots; returns when systemd has started all that it has to."""
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                self._container("--boot", "--console=pipe", f"--kill-signal={int(_POWER_OFF)}"),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        until(self._is_up, _BOOT_LIMIT_SECONDS, lambda: log_end(self._console))

    def power_off(self) -> None:
        """It is shut down in order, and by force where that takes too long. Safe to call again."""
        process, self._nspawn = self._nspawn, None
        if process is None:
            return
        if (leader := _leader(process)) is not None:
            os.kill(leader, _POWER_OFF)
        try:
            process.wait(_STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # and with it, by its own doing, the machine's first process
            process.wait(_STOP_LIMIT_SECONDS)

    def reboot(self) -> None:
        """It is restarted in order, by its own command."""
        assert self._nspawn is not None
        self.run("systemctl", "reboot", check=False)
        code = self._nspawn.wait(_STOP_LIMIT_SECONDS)
        assert code == _REBOOT, f"systemd-nspawn ended with {code}.\n{log_end(self._console)}"
        self.power_on()

    def run(
        self, *command: str, user: str = "root", check: bool = True, stdin: str = "", timeout: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """A command as that user would run it who has just logged in, to its end, and the login with it.

        While it is off, root's commands run all the same, as on a Debian without systemd.

        Raises:
            AssertionError: it failed, and *check* asks that it does not.
        """
        where = self._login(user) if self._nspawn else self._container("--pipe")
        home = "/root" if user == "root" else f"/home/{user}"
        environment = (f"HOME={home}", f"PATH={_PATH}", "LANG=C.UTF-8")
        done = subprocess.run(
            [*where, *(f"--setenv={value}" for value in environment), "--", "env", f"--chdir={home}", *command],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command} ended with {done.returncode}.\n{done.stdout}{done.stderr}"
        return done

    def words(self, *command: str, user: str = "root") -> str:
        """What a command prints, whatever its exit code."""
        return self.run(*command, user=user, check=False).stdout.strip()

    def _container(self, *words: str) -> list[str]:
        binds = [f"--bind-ro={_escaped(source)}:{_escaped(target)}" for target, source in self._binds.items()]
        return [
            # If the tests are killed, it is asked to power off.
            *("setpriv", "--pdeathsig", "TERM", "unshare", "-m", "--propagation", "slave"),
            *("sh", "-euc", _BOOT, "boot", self._name),
            *("systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self._name}"),
            *("--hostname=raspberrypi", "--register=no", "--keep-unit", "--link-journal=no", *binds, *words),
        ]

    def _login(self, user: str) -> list[str]:
        # A login of root's would start a manager of root's own each time.
        session = [] if user == "root" else ["--property=PAMName=login"]
        return [
            *self._inside(),
            *(
                "systemd-run",
                "--quiet",
                "--pipe",
                "--wait",
                "--collect",
                "--service-type=exec",
                *session,
                f"--uid={user}",
            ),
        ]

    def _inside(self) -> list[str]:
        leader = _leader(self._nspawn) if self._nspawn else None
        assert leader is not None, f"The machine is off.\n{log_end(self._console)}"
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
        return ["nsenter", f"--target={leader}", *spaces, "env", "-i", f"PATH={_PATH}"]

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, f"The machine did not boot.\n{log_end(self._console)}"
        if _leader(self._nspawn) is None:
            return False
        asked = [*self._inside(), "systemctl", "is-system-running"]
        state = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
        return state in ("running", "degraded")


def _made() -> Path:
    """The files of a fresh system; made now if they are not there yet."""
    kept = Path(tempfile.gettempdir()) / "drain-test-machines"
    kept.mkdir(mode=0o700, exist_ok=True)
    assert kept.stat().st_uid == 0, f"{kept} is not root's."
    root = kept / f"{_RELEASE}-{zlib.crc32(_PACKAGES.encode()):08x}"
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            part = kept / "part"
            shutil.rmtree(part, ignore_errors=True)
            _make(part)
            part.rename(root)
    return root


def _make(root: Path) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _RELEASE, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_MAKE_LIMIT_SECONDS, check=False)
    assert done.returncode == 0, f"debootstrap failed: {done.stdout[-2000:]}{done.stderr}"
    (root / "etc/hostname").write_text("raspberrypi\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost raspberrypi\n::1 localhost\n")
    shutil.rmtree(root / "var/cache/apt/archives")
    # As this machine reaches its package indexes, so does that one.
    for name in ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
        if (Path("/") / name).exists():
            (root / name).unlink(missing_ok=True)
            shutil.copyfile(Path("/") / name, root / name)
    within = ["chroot", str(root)]
    output([*within, "useradd", "--create-home", "--shell=/bin/bash", "pi"])
    (root / "etc/sudoers.d/010_pi-nopasswd").write_text("pi ALL=(ALL) NOPASSWD: ALL\n")
    output([*within, "systemctl", "mask", *_MASKED])


def _leader(nspawn: subprocess.Popen[bytes]) -> int | None:
    """The first process of the machine, as it is numbered here; None while there is none."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return None


def _cgroup_trees() -> list[Path]:
    """Where systemd keeps its control groups, by cgroups(7): one place, or in the hybrid layout two."""
    top = Path("/sys/fs/cgroup")
    return [tree for tree in (top, top / "systemd", top / "unified") if (tree / "cgroup.procs").exists()]


@contextlib.contextmanager
def _cgroups(trees: list[Path], name: str) -> Iterator[None]:
    """A control group of that name in each tree, and none of it afterwards."""
    try:
        for tree in trees:
            (tree / name).mkdir(exist_ok=True)
        yield
    finally:
        for tree in trees:
            # From the deepest up; the files in there are the kernel's.
            for folder, _, _ in os.walk(tree / name, topdown=False):
                Path(folder).rmdir()


def _escaped(path: str | Path) -> str:
    """A path as --bind-ro takes it (systemd-nspawn(1))."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")
