"""Somebody without root and without systemd, who has a clone of drain, and a home to install it into."""

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
LIMIT_SECONDS = 170
# Nobody's: what belongs to it is reached by no name and no group.
UID = 54_321
_CLONED = ("drain", "systemd", "termux", "install.sh", "requirements.txt", "pyproject.toml", "README.md", "LICENSE")
_CRONTAB = """\
#!/bin/sh
# As crontab(1): -l shows, - takes.
case $1 in
-l) cat '{table}' 2>/dev/null || { echo 'no crontab for you' >&2; exit 1; } ;;
-) cat >'{table}.new' && mv '{table}.new' '{table}' ;;
*) exit 1 ;;
esac
"""


@dataclass(frozen=True)
class Ended:
    """How a run of install.sh ended, and what it said."""

    code: int
    said: str
    failed: str  # standard error

    @property
    def sentence(self) -> str:
        """The one line that it ended with: nothing else was said of the failure."""
        assert self.failed.startswith("install.sh: "), self.failed
        assert self.failed.count("\n") == 1, self.failed
        return self.failed.removeprefix("install.sh: ").rstrip("\n")


class Person:
    """A person, below a folder that belongs to them.

    Attributes:
        folder: has no blank in its path, as pip wants it for PIP_FIND_LINKS.
        home: HOME; has a blank.
        commands: where a test lays what is to be found first on PATH.
        crontab: what ``crontab`` keeps.
        wheels: what pip finds.
    """

    def __init__(self, folder: Path, within: tuple[str, ...] = (), root: Path = Path("/")) -> None:
        """*within* is a command in front of each of theirs, to another mount namespace; its *root* as seen from here."""
        self.folder = folder
        self.home = root / folder.relative_to("/") / "a home"
        self.commands = folder / "bin"
        self.crontab = folder / "crontab"
        self.wheels = folder / "wheels"
        self._seeds = folder / "seeds"
        self._within = within
        self._root = root

    @property
    def program(self) -> Path:
        """Where drain is installed."""
        return self.home / ".local/share/drain"

    @property
    def state(self) -> Path:
        """Where it keeps its ledger."""
        return self.home / ".local/state/drain"

    @property
    def config(self) -> Path:
        """Where its settings and keys are."""
        return self.home / ".config/drain"

    @property
    def drain(self) -> Path:
        """The command."""
        return self.home / ".local/bin/drain"

    def clone(self, name: str, version: str = "") -> Path:
        """A clone of drain of its own, where another version is wanted with its number. It is not the person's to write."""
        folder = self.folder / name
        folder.mkdir()
        for one in _CLONED:
            if (ROOT / one).is_dir():
                shutil.copytree(ROOT / one, folder / one, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / one, folder / one)
        if version:
            path = folder / "drain/__init__.py"
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            lines[-1] = f'__version__ = "{version}"\n'
            path.write_text("".join(lines), encoding="utf-8")
        return folder

    def command(self, name: str, *lines: str) -> None:
        """Lays an executable shell script."""
        self.commands.mkdir(exist_ok=True)
        (self.commands / name).write_text("\n".join(("#!/bin/sh", *lines, "")))
        (self.commands / name).chmod(0o755)

    def answer(self, **answers: str) -> None:
        """Writes the file of answers, ``answers``."""
        path = self.folder / "answers"
        path.write_text("".join(f"{name}={value}\n" for name, value in answers.items()))
        path.chmod(0o600)
        self.own(path)

    def install(self, *words: str, clone: str = "a clone", **environ: str) -> Ended:
        """Runs install.sh unattended."""
        return self.run(*self.installing(*words, clone=clone), **environ)

    def installing(self, *words: str, clone: str = "a clone") -> tuple[str, ...]:
        """The command for that."""
        return (str(self.folder / clone / "install.sh"), *words, "--yes", "--answers", str(self.folder / "answers"))

    def start(
        self, command: str | Path, *words: str | Path, stdin: IO[str] | int = subprocess.DEVNULL, **environ: str
    ) -> "subprocess.Popen[str]":
        """Starts a command of the person's, in a process group of its own."""
        whose = UID if os.getuid() == 0 and not self._within else None
        return subprocess.Popen(
            [*self._within, *[self._there(word) for word in (command, *words)]],
            env={**self._environ(), **environ},
            cwd="/",
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            umask=0o022,
            user=whose,
            group=whose,
            extra_groups=None if whose is None else [],
        )

    def run(self, command: str | Path, *words: str | Path, typed: str = "", **environ: str) -> Ended:
        """Runs a command of the person's to its end."""
        process = self.start(command, *words, stdin=subprocess.PIPE, **environ)
        try:
            said, failed = process.communicate(typed, timeout=LIMIT_SECONDS)
        finally:
            kill(process)
        return Ended(process.returncode, said, failed)

    def _there(self, path: str | Path) -> str:
        """A path as the person sees it."""
        return str(path) if self._root == Path("/") else str(path).replace(str(self._root), "", 1)

    def _environ(self) -> Mapping[str, str]:
        return {
            "HOME": self._there(self.home),
            "PATH": f"{self.commands}:{_path()}",
            "LANG": "C.UTF-8",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_NO_COMPILE": "1",  # half the time
        }

    def own(self, path: Path) -> None:
        """Makes a file, or a folder with all that is in it, the person's."""
        if os.getuid() == 0:
            for one in (path, *path.rglob("*")):
                os.chown(one, UID, UID, follow_symlinks=False)

    def keep(self) -> None:
        """Keeps the versions of drain that are installed whole: the next home has them from the beginning."""
        for complete in self.program.glob("versions/*/complete"):
            if not (self._seeds / complete.parent.name).exists():
                _link_tree(complete.parent, self._seeds / complete.parent.name)

    def move(self, *, program: bool = True) -> None:
        """To a new home at the old address; with the environments of the versions kept, none of which is in use."""
        ready = self.folder / "ready"
        for seed in self._seeds.glob("*"):
            if not (ready / seed.name).exists():
                ready.mkdir(exist_ok=True)
                there = self.program / "versions" / seed.name
                if (there / "complete").exists():
                    there.rename(ready / seed.name)
                else:
                    _link_tree(seed, ready / seed.name)
        self.crontab.unlink(missing_ok=True)
        for folder in (self.commands, self.home):
            shutil.rmtree(folder, ignore_errors=True)
        self.home.mkdir()
        if program and ready.exists():
            (self.program / "versions").mkdir(parents=True)
        self.own(self.home)
        if program and ready.exists():
            for one in ready.iterdir():
                one.rename(self.program / "versions" / one.name)
        self.command("crontab", *_CRONTAB.replace("{table}", str(self.crontab)).splitlines()[1:])
        # Who runs the tests may have a systemd of their own.
        self.command("systemctl", "echo 'Failed to connect to bus' >&2", "exit 1")
        self.command("loginctl", "exit 1")

    def picture(self) -> dict[str, tuple[object, ...]]:
        """Every file of the home and the crontab: owner, mode, time of its last change, and content.

        Not the caches that Python and pip make, nor locks, which are files without content.
        """
        paths = [path for path in self.home.rglob("*") if not {"__pycache__", ".cache"} & set(path.parts)]
        return {
            str(path.relative_to(self.folder)): _seen(path)
            for path in (*paths, *[one for one in [self.crontab] if one.exists()])
            if not path.is_dir() and not path.name.endswith("lock")
        }


def _seen(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return (status.st_uid, path.readlink())
    return (status.st_uid, oct(status.st_mode), status.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())


def _link_tree(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-al", source, target], check=True, timeout=60)


def _path() -> str:
    """Where the machine's commands are. The Python of root's own PATH may be nobody else's to run."""
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" if os.getuid() == 0 else os.environ["PATH"]


def kill(process: "subprocess.Popen[str]") -> None:
    """Ends a process and all that it started in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def kill_after(seconds: float, process: "subprocess.Popen[str]") -> None:
    """Kills it then, wherever it is; not if it has ended."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)


def fetch(person: Person) -> None:
    """Fills the person's folder of wheels: what requirements.txt names, for the Python that they have."""
    environ = {**os.environ, "PATH": _path()}
    with tempfile.TemporaryDirectory() as folder:
        what = ["--dest", str(person.wheels), "--requirement", str(ROOT / "requirements.txt")]
        for command in (
            ["python3", "-m", "venv", folder],
            [f"{folder}/bin/pip", "download", "--quiet", "--no-deps", "--require-hashes", *what],
        ):
            subprocess.run(command, env=environ, check=True, timeout=LIMIT_SECONDS, capture_output=True)


@contextmanager
def somebody() -> Iterator[Person]:
    """A person who has just made a clone, ``a clone``, in a folder that is gone afterwards."""
    # pytest's folders are for root's eyes only.
    with tempfile.TemporaryDirectory(prefix="drain-install-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        person = Person(Path(folder))
        person.folder.chmod(0o755)
        person.own(person.folder)
        person.move()
        person.clone("a clone")
        fetch(person)
        yield person
