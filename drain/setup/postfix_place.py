"""Where a Postfix is on this machine, and how it is checked and started."""

import contextlib
import grp
import os
import pwd
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drain.errors import ConfigError
from drain.setup.command import find, run
from drain.setup.wanted import Step
from drain.text import clean

_USUAL = Path("/etc/postfix")
_MAIL_USER = "vmail"
# As in Postfix' VIRTUAL_README; the next one that is free, where somebody has it.
_MAIL_ID = 5000
_FAULT = re.compile(r"fatal:|error:|warning:|panic:")
_STATUS_SECONDS = 30.0
# Where mail waits; qshape(1) has them.
_QUEUES = ("maildrop", "hold", "incoming", "active", "deferred")
_BOOTED = Path("/run/systemd/system")  # sd_booted(3)


@dataclass(frozen=True)
class Place:
    """The folders of one Postfix: ``<root>/etc/<name>`` and, as postmulti(1) has them, what goes with it."""

    root: Path
    name: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Place":
        """The usual one, or that of MAIL_CONFIG.

        Raises:
            ConfigError: MAIL_CONFIG is no ``…/etc/<name>``.
        """
        etc = Path(environ.get("MAIL_CONFIG") or _USUAL)
        if not etc.is_absolute() or etc.parent.name != "etc":
            raise ConfigError(f"MAIL_CONFIG {etc} is not a folder within an etc/.", "As in /etc/postfix-drain.")
        return cls(etc.parent.parent, etc.name)

    @property
    def etc(self) -> Path:
        """The configuration."""
        return self.root / "etc" / self.name

    @property
    def queue(self) -> Path:
        """The queue."""
        return self.root / "var/spool" / self.name

    @property
    def data(self) -> Path:
        """Postfix's caches."""
        return self.root / "var/lib" / self.name

    @property
    def maildirs(self) -> Path:
        """The folder of the Maildirs."""
        return self.root / "var/mail/vhosts"

    @property
    def units(self) -> bool:
        """Whether systemd starts it."""
        return self.etc == _USUAL and _BOOTED.is_dir()

    @property
    def log(self) -> str:
        """Its log file; "" where the journal takes it, which does not grow for ever."""
        return "" if self.units else str(self.root / f"var/log/{self.name}.log")

    def check(self, environ: Mapping[str, str]) -> None:
        """What Postfix says of its files.

        Raises:
            ConfigError: it does not take them.
        """
        # The second speaks where the first writes into the log.
        for command in (["postfix", "-c", str(self.etc), "check"], ["postconf", "-c", str(self.etc), "-n"]):
            self._run(command, environ)

    def start(self, environ: Mapping[str, str], changed: bool) -> str:  # noqa: FBT001 (as `Wanted.start` has it)
        """Starts it, or again if something *changed*: a reload would not do for new folders and addresses.

        Raises:
            ConfigError: it does not start; Unavailable: not in time.
        """
        runs = self.runs(environ)
        if runs and not changed:
            return ""
        words = "Postfix is started again." if runs else "Postfix is started."
        if self.units:
            run(["systemctl", "enable", "postfix"], environ)
            run(["systemctl", "restart", "postfix"], environ)
            return words
        for command in (["stop"] if runs else []) + ["start"]:
            self._run(["postfix", "-c", str(self.etc), command], environ)
        return words

    def _run(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Runs it; what it has to say goes into its log alone where it is no person who asks."""
        log = Path(self.log or os.devnull)
        size = log.stat().st_size if log.exists() else 0
        try:
            run(command, _without_config(environ))
        except ConfigError as error:
            said = log.read_bytes()[size:].decode("utf-8", "replace").splitlines() if log.is_file() else []
            faults = [line.partition("]: ")[2] or line for line in said if _FAULT.search(line)]
            why = clean(" ".join(faults[:3])) or ("" if self.log else "`journalctl -t postfix/postfix-script -n 20`")
            raise ConfigError(str(error.args[0]), why) from error

    def waiting(self, environ: Mapping[str, str]) -> tuple[Path, int]:
        """The queue of the configuration that is there, and how many mails are in it."""
        queue = self.queue
        with contextlib.suppress(ConfigError):  # there is none, or none that Postfix could run with
            queue = Path(self._postconf(environ, "-h", "queue_directory").strip())
        return queue, sum(len(files) for name in _QUEUES for _folder, _folders, files in os.walk(queue / name))

    def check_port(self, port: int, environ: Mapping[str, str]) -> None:
        """Whether Postfix can listen on *port* of 127.0.0.1.

        Raises:
            ConfigError: another program has it.
        """
        if self.runs(environ) and port in self._ports(environ):
            return
        with socket.socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                own.bind(("127.0.0.1", port))
            except OSError as error:
                raise ConfigError(
                    f"Another program has port {port} of 127.0.0.1: {error}.", "Choose another INJECT_PORT."
                ) from error

    def _ports(self, environ: Mapping[str, str]) -> set[int]:
        """Those of its master.cf."""
        services = ""
        with contextlib.suppress(ConfigError):
            services = self._postconf(environ, "-M")
        names = [line.split()[0].rpartition(":")[2] for line in services.splitlines() if line.split()[1:2] == ["inet"]]
        found = set()
        for name in names:
            with contextlib.suppress(OSError):
                found.add(int(name) if name.isdecimal() else socket.getservbyname(name, "tcp"))
        return found

    def _postconf(self, environ: Mapping[str, str], *words: str) -> str:
        return run(["postconf", "-c", str(self.etc), *words], _without_config(environ))

    def runs(self, environ: Mapping[str, str]) -> bool:
        """Whether it runs, with the configuration that is there or with that of before."""
        program = find("postfix", environ) or "postfix"
        command = [program, "-c", str(self.etc), "status"]
        try:
            done = subprocess.run(  # noqa: S603 (our own words)
                command, env=_without_config(environ), capture_output=True, timeout=_STATUS_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0 or self._has_master()

    def _has_master(self) -> bool:
        """Whether there is a process with that queue: somebody may have changed main.cf while it ran."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.queue / "pid/master.pid").read_text())
            return Path(f"/proc/{pid}/comm").read_text() == "master\n"
        return False


def steps(place: Place, environ: Mapping[str, str]) -> tuple[Step, ...]:
    """The user whose the mail is, where the system has a Postfix of its own, and the folders.

    Raises:
        ConfigError: the folder of the Maildirs is in use by another user.
    """
    uid, gid = owner_of_mail()
    check_maildirs(place, uid)
    postfix = pwd.getpwnam("postfix").pw_uid
    folders = (
        _folder(place.queue, 0o755, 0, 0),
        _folder(place.data, 0o700, postfix, 0),
        _folder(place.maildirs, 0o700, uid, gid),
        *([_folder(Path(place.log).parent, 0o755, 0, 0)] if place.log else []),
    )
    return (*([_user(uid, gid, environ)] if place.root == Path("/") else []), *folders)


def check_maildirs(place: Place, uid: int) -> None:
    """Whether the folder of the Maildirs can be user *uid*'s.

    Raises:
        ConfigError: it is in use, and another's.
    """
    maildirs = place.maildirs
    if maildirs.is_dir() and maildirs.stat().st_uid != uid and any(maildirs.iterdir()):
        raise ConfigError(
            f"The folder {maildirs} belongs to user {maildirs.stat().st_uid}, and is not empty: "
            f"drain's mailboxes are to be there, of user {uid}.",
            "Move it away, or give all of it to that user (chown -R).",
        )


def owner_of_mail() -> tuple[int, int]:
    """User and group vmail by number, or those that they are going to have."""
    gid = next((group.gr_gid for group in grp.getgrall() if group.gr_name == _MAIL_USER), None)
    uid = next((user.pw_uid for user in pwd.getpwall() if user.pw_name == _MAIL_USER), None)
    taken = {user.pw_uid for user in pwd.getpwall()} | {group.gr_gid for group in grp.getgrall()}
    free = next(number for number in range(_MAIL_ID, 65000) if number not in taken)
    return free if uid is None else uid, free if gid is None else gid


def postfix_group() -> int:
    """The group of the user that Postfix runs as.

    Raises:
        ConfigError: there is none.
    """
    try:
        return pwd.getpwnam("postfix").pw_gid
    except KeyError:
        raise ConfigError("There is no user postfix.", "apt install --reinstall postfix") from None


def _user(uid: int, gid: int, environ: Mapping[str, str]) -> Step:
    nobody = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]

    def has_user() -> bool:
        return any(user.pw_name == _MAIL_USER for user in pwd.getpwall())

    def do() -> None:
        # One after the other: by itself useradd would choose another number for the group.
        if all(group.gr_name != _MAIL_USER for group in grp.getgrall()):
            run(["groupadd", "--system", "--gid", str(gid), _MAIL_USER], environ)
        run(["useradd", "--system", "--uid", str(uid), "--gid", str(gid), *nobody, _MAIL_USER], environ)

    return Step(f"the system user {_MAIL_USER} ({uid}) is made, who owns the mail", has_user, do)


def _folder(path: Path, mode: int, uid: int, gid: int) -> Step:
    def do() -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, uid, gid)
            path.chmod(mode)
        except OSError as error:
            raise ConfigError(f"The folder {path} cannot be made: {error}.") from error

    def done() -> bool:
        return path.is_dir() and path.stat().st_uid == uid

    return Step(f"the folder {path} is made", done, do)


def _without_config(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name != "MAIL_CONFIG"}
