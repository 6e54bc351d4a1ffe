"""The files of a fresh Termux, made once by debootstrap and kept: its layout, its commands, its packages."""

import fcntl
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

PREFIX = "/data/data/com.termux/files/usr"
HOME = "/data/data/com.termux/files/home"
# Android's users of apps begin at 10000 (android_filesystem_config.h: AID_APP_START).
APP = 10_123
MAKE_LIMIT_SECONDS = 600
_RELEASE = "bookworm"
_DEBIAN = "python3,python3-venv,runit,ca-certificates"
_COMMANDS = {
    "pkg": """\
shift
for package; do
    case $package in
    -* | Dpkg::*) continue ;;
    esac
    if ! [ -d "$PREFIX/share/packages/$package" ]; then
        echo "E: Unable to locate package $package" >&2
        exit 100
    fi
    cp -a "$PREFIX/share/packages/$package/." "$PREFIX/"
    echo "$package" >>"$PREFIX/var/log/pkg"
done
""",
    "termux-wake-lock": 'echo held >>"$PREFIX/var/log/wake-lock"\n',
}
# As they do without the app Termux:API.
_API = {
    "termux-notification": 'echo "$*" >>"$PREFIX/var/log/notifications"; exec sleep 1000\n',
    "termux-battery-status": "exec sleep 1000\n",
}
# What is in the package termux-services, in words of our own; see its repository for what each does.
_SERVICES = {
    "bin/service-daemon": """\
pid=$PREFIX/var/run/service-daemon.pid
mkdir -p "${pid%/*}"
case $1 in
start) start-stop-daemon --start --background --make-pidfile --pidfile "$pid" --exec "$PREFIX/bin/runsvdir" \\
    --chdir "$PREFIX" -- "$SVDIR" ;;
*) exit 64 ;;
esac
""",
    "bin/sv-enable": 'rm -f "${SVDIR:?}/$1/down"; sv up "$1"\n',
    "bin/sv-disable": 'touch "${SVDIR:?}/$1/down"; sv down "$1"\n',
    "share/termux-services/svlogger": """\
service=${PWD%/*} service=${service##*/}
mkdir -p "$LOGDIR/sv/$service"
exec svlogd -tt "$LOGDIR/sv/$service"
""",
    "etc/profile.d/start-services.sh": """\
export SVDIR="$PREFIX/var/service" LOGDIR="$PREFIX/var/log"
(service-daemon start >/dev/null 2>&1 &)
""",
}


def made() -> Path:
    """The files of a fresh phone; made now if they are not there yet."""
    kept = Path(tempfile.gettempdir()) / "drain-test-machines"
    kept.mkdir(mode=0o700, exist_ok=True)
    assert kept.stat().st_uid == 0, f"{kept} is not root's."
    recipe = Path(__file__).read_bytes()
    root = kept / f"termux-{zlib.crc32(recipe):08x}"
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            part = kept / "part-termux"
            shutil.rmtree(part, ignore_errors=True)
            _make(part, _debian(kept))
            part.rename(root)
    return root


def _debian(kept: Path) -> Path:
    """A Debian to take programs from; apart from the rest, since it is what takes time."""
    debian = kept / f"{_RELEASE}-{zlib.crc32(_DEBIAN.encode()):08x}"
    if not debian.exists():
        part = kept / "part-debian"
        shutil.rmtree(part, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={_DEBIAN}", _RELEASE, str(part)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_LIMIT_SECONDS, check=False)
        assert done.returncode == 0, f"debootstrap failed: {done.stdout[-2000:]}{done.stderr}"
        part.rename(debian)
    return debian


def _make(root: Path, debian: Path) -> None:
    prefix = root / PREFIX[1:]
    prefix.parent.mkdir(parents=True)
    subprocess.run(["cp", "-a", debian / "usr", prefix], check=True, timeout=MAKE_LIMIT_SECONDS)
    for place in ("share/doc", "share/man", "share/locale"):
        shutil.rmtree(prefix / place)
    for program in (prefix / "sbin").iterdir():
        if not (prefix / "bin" / program.name).exists():
            (prefix / "bin" / program.name).symlink_to(f"../sbin/{program.name}")
    for place in ("tmp", "var/service", "var/log", "var/run", "etc/profile.d", "opt"):
        (prefix / place).mkdir(parents=True, exist_ok=True)
    for name, body in _COMMANDS.items():
        _program(prefix / "bin" / name, body)
    _make_system(root)
    _make_packages(prefix)
    subprocess.run(["chown", "-R", f"{APP}:{APP}", root / "data/data/com.termux"], check=True, timeout=60)


def _make_system(root: Path) -> None:
    """What is Android's, and what glibc wants in places that Termux does not have."""
    for place in ("system/bin", "system/etc", "proc", "dev", "sys", "usr/share", HOME[1:]):
        (root / place).mkdir(parents=True)
    links = {
        "bin": "/system/bin",
        "etc": "/system/etc",
        "system/bin/sh": f"{PREFIX}/bin/sh",
        # For glibc's loader, and for the venv of Debian's Python.
        "lib": f"{PREFIX}/lib",
        "lib64": f"{PREFIX}/lib64",
        "usr/share/python-wheels": f"{PREFIX}/share/python-wheels",
    }
    for link, target in links.items():
        (root / link).symlink_to(target)
    (root / "system/etc/passwd").write_text(f"u0_a123:x:{APP}:{APP}::{HOME}:{PREFIX}/bin/sh\n")
    (root / "system/etc/group").write_text(f"u0_a123:x:{APP}:\n")
    (root / "system/etc/hosts").write_text("127.0.0.1 localhost\n::1 ip6-localhost\n")
    # As this machine reaches its package indexes, so does that one.
    for name in ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
        if (Path("/") / name).exists():
            copy = root / "system" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path("/") / name, copy)


def _make_packages(prefix: Path) -> None:
    """What ``pkg install`` copies into place."""
    packages = prefix / "share/packages"
    for name in ("python", "termux-api", "python-ensurepip-wheels"):
        (packages / name / "bin").mkdir(parents=True)
    (packages / "python-ensurepip-wheels/share").mkdir()
    (prefix / "share/python-wheels").rename(packages / "python-ensurepip-wheels/share/python-wheels")
    for program in (prefix / "bin").glob("python3*"):
        program.rename(packages / "python/bin" / program.name)
    (packages / "python/bin/python").symlink_to("python3")
    for name, body in _API.items():
        _program(packages / "termux-api/bin" / name, body)
    for name, body in _SERVICES.items():
        _program(packages / "termux-services" / name, body)
    for name in ("sv", "svlogd", "runsv", "runsvdir"):
        (prefix / "bin" / name).rename(packages / "termux-services/bin" / name)
    # Compiled for the Python of that root, by the pip of this one.
    target = packages / "python-cryptography/lib/python3/dist-packages"
    version = next((prefix / "lib").glob("python3.*")).name.removeprefix("python")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(target)]
    wheels = ["--only-binary=:all:", "--python-version", version, "--implementation", "cp"]
    subprocess.run([*command, *wheels, "cryptography>=47"], check=True, timeout=MAKE_LIMIT_SECONDS)


def _program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{PREFIX}/bin/sh\n{body}")
    path.chmod(0o755)
