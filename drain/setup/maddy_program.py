"""Maddy's own program: where it is, its users and its mailboxes, and how it is asked to change them.

On this machine, or in a distribution of Termux' proot-distro: then a path within is
another one outside, and a command goes through `proot-distro login`.
"""

import contextlib
import os
import pwd
import re
import sqlite3
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drain.errors import ConfigError, Unavailable, WrongUse
from drain.setting import Secret
from drain.setup import command
from drain.text import clean

# What Maddy's own unit (dist/systemd/maddy.service) runs it as.
_USER = "maddy"
_CONFIG = Path("/etc/maddy/maddy.conf")
_STATE = Path("/var/lib/maddy")
_RUNTIME = Path("/run/maddy")
# A proot starts slowly on a phone.
_SECONDS = 120.0
# Maddy ends with 0 all the same, and says this on standard error.
_FAILED = "app.Run failed"
_FINE = "No errors detected"
# How often something is tried; see `Maddy.run`.
TRIES = 5
_WORDS = 400
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# proot-distro since 5.0, and before (https://github.com/termux/proot-distro, "Storage layout").
_ROOTS = ("var/lib/proot-distro/containers/{}/rootfs", "var/lib/proot-distro/installed-rootfs/{}")


@dataclass(frozen=True)
class Maddy:
    """Where Maddy is.

    Attributes:
        config: its configuration, as this process sees it.
        root: what is / to it.
        proot: the distribution that it is in, or "".
        owner: numeric user and group that it runs as; None: as whoever runs this.
        environ: for its commands.
    """

    config: Path
    root: Path
    proot: str
    owner: tuple[int, int] | None
    environ: Mapping[str, str]

    @property
    def usual(self) -> bool:
        """Whether its configuration is where it looks for it by itself."""
        return self.config == self.outside(_CONFIG)

    @property
    def state(self) -> Path:
        """The folder of databases and messages, as Maddy sees it, where nothing else is said."""
        return _STATE if self.usual else self.config.parent / "state"

    @property
    def runtime(self) -> Path:
        """The folder of its socket, in the same way."""
        return _RUNTIME if self.usual else self.config.parent / "run"

    def outside(self, path: Path) -> Path:
        """A path of Maddy's, as this process sees it."""
        return self.root / path.relative_to("/")

    def inside(self, path: Path) -> Path:
        """A path of this process', as Maddy sees it."""
        return Path("/") / path.relative_to(self.root)

    def words(self, *words: str) -> list[str]:
        """A command of Maddy's as a person may type it."""
        config = [] if self.usual else ["--config", str(self.inside(self.config))]
        return [*self._before, "maddy", *config, *words]

    def run(self, *words: str, stdin: bytes = b"") -> str:
        """Runs one of Maddy's commands; all that it says. *stdin* is for a password.

        That nothing is raised does not mean that it has done its work: under proot 5.1.0 it now
        and then ended in the middle, with 0 and without a word.

        Raises:
            ConfigError: it is not there, or fails.
            Unavailable: it does not end in time.
        """
        shown = clean(" ".join(self.words(*words)))
        whole = [*self._before, "maddy", "--config", str(self.inside(self.config)), *words]
        program = command.find(whole[0], self.environ)
        if program is None:
            raise ConfigError(f"{whole[0]} is not on this machine.")
        try:
            # Not command.run: how a command of Maddy's went stands on standard error alone.
            done = subprocess.run(  # noqa: S603 (no shell; the words are ours)
                [program, *whole[1:]],
                env=dict(self.environ),
                input=stdin,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except OSError as error:
            raise ConfigError(f"`{shown}` could not be run: {error}.") from error
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"`{shown}` did not end in {_SECONDS:g} s.") from error
        said = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode or _FAILED in said:
            last = clean(said.rpartition("\n")[2], _WORDS)
            raise ConfigError(f"`{shown}` failed: {last or f'exit code {done.returncode}'}.")
        return f"{done.stdout.decode('utf-8', 'replace')}\n{said}"

    def verify(self) -> None:
        """Whether its configuration can be used.

        Raises:
            ConfigError, Unavailable: it cannot, or as of `run`.
        """
        if not any(_FINE in self.run("verify-config") for _ in range(TRIES)):
            raise ConfigError(f"`{clean(' '.join(self.words('verify-config')))}` says nothing of {self.config}.")

    def add_login(self, user: str, password: Secret, *, cheap: bool = False) -> None:
        """Makes a login. *cheap*: with the fastest hash, for a password that is long, random and asked for often.

        Raises:
            ConfigError, Unavailable: as of `run`.
        """
        cost = ["--bcrypt-cost", "4"] if cheap else []
        self.run("creds", "create", *cost, user, stdin=f"{password.reveal()}\n".encode())

    def remove_login(self, user: str) -> None:
        """Removes a login.

        Raises:
            ConfigError, Unavailable: as of `run`.
        """
        self.run("creds", "remove", "--yes", user)

    def add_mailbox(self, address: str) -> None:
        """Makes a mailbox.

        Raises:
            ConfigError, Unavailable: as of `run`.
        """
        self.run("imap-acct", "create", address)

    def logins(self, state: Path) -> frozenset[str]:
        """The names of all logins, in lower case; *state* is the folder of its databases, as Maddy sees it.

        Raises:
            ConfigError, Unavailable: as of `run`.
        """
        return self._names(state / "credentials.db", "SELECT key FROM passwords", "creds")

    def mailboxes(self, state: Path) -> frozenset[str]:
        """The addresses of all mailboxes, likewise."""
        return self._names(state / "imapsql.db", "SELECT username FROM users", "imap-acct")

    def _names(self, database: Path, query: str, command: str) -> frozenset[str]:
        path = self.outside(database)
        if not path.exists():
            return frozenset()
        try:
            # Maddy's own `list` wants a configuration, and in a proot it takes a second.
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
                names = [str(name) for (name,) in connection.execute(query)]
        except sqlite3.Error:  # its tables are not as in 0.9
            names = self.run(command, "list").split()
        return frozenset(name.lower() for name in names)

    @property
    def _before(self) -> list[str]:
        if self.proot:
            return ["proot-distro", "login", self.proot, "--"]
        # What it makes has to be that user's own.
        return ["runuser", "-u", _USER, "--"] if self.owner else []


def find(config: str, environ: Mapping[str, str], proot: str = "") -> Maddy:
    """The Maddy of this machine, or of the distribution *proot*; *config* is MADDY_CONFIG.

    Raises:
        ConfigError: it is not there.
        Unavailable: it does not answer.
        WrongUse: *proot* can be no distribution.
    """
    if proot:
        return _in_proot(environ, proot)
    if command.find("maddy", environ) is None:
        raise ConfigError(
            "Maddy is not on this machine.",
            "Put the program of its release 0.9 (https://maddy.email) into /usr/local/bin, and run this again.",
        )
    path = Path(config).expanduser().absolute() if config else _CONFIG
    return Maddy(path, Path("/"), "", _owner(), environ)


def _in_proot(environ: Mapping[str, str], name: str) -> Maddy:
    if not _NAME.fullmatch(name):
        raise WrongUse(
            f"--proot {clean(name)!r} is no distribution of proot-distro.", "`proot-distro list` shows them."
        )
    prefix = environ.get("PREFIX")
    if not prefix:
        raise ConfigError("--proot is for Termux, and PREFIX is not set here.", "Run it in Termux, outside the proot.")
    # This first: it may move the distribution to where a newer proot-distro has it.
    try:
        command.run(["proot-distro", "login", name, "--", "maddy", "version"], environ, seconds=_SECONDS)
    except ConfigError as error:
        raise ConfigError(
            f"Maddy cannot be run in {name}. {error}",
            f"`proot-distro install {name}` makes the distribution; the program of Maddy's release 0.9 "
            "(https://maddy.email) belongs into its /usr/local/bin.",
        ) from error
    for place in _ROOTS:
        root = Path(prefix) / place.format(name)
        if root.is_dir():
            return Maddy(root / _CONFIG.relative_to("/"), root, name, None, environ)
    raise ConfigError(f"The files of {name} are in none of proot-distro's usual places below {prefix}.")


def _owner() -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(_USER)
    except KeyError:
        return None
    return user.pw_uid, user.pw_gid
