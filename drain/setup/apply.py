"""What is not yet as it shall be: found, shown, done in order."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from drain import envfile
from drain.disk import replace
from drain.errors import ConfigError, DrainError, Unavailable
from drain.setup import changes
from drain.setup.changes import File
from drain.setup.plan import Plan, as_owner
from drain.setup.wanted import Step, Wanted
from drain.text import clean

_SECRETS = frozenset({"INJECT_PASS"})


@dataclass(frozen=True)
class Work:
    """What is left to do.

    Attributes:
        login, settings: what drain.env lacks, by setting: before all else, and once the check is passed.
        before, files, after: of `Wanted`, those that are not done.
        unfinished: an earlier run was cut off before the server was started with all of it.
    """

    login: Mapping[str, str]
    before: tuple[Step, ...]
    files: tuple[File, ...]
    after: tuple[Step, ...]
    settings: Mapping[str, str]
    unfinished: bool

    def __bool__(self) -> bool:
        return bool(self.login or self.before or self.files or self.after or self.settings or self.unfinished)

    def show(self, plan: Plan, stream: TextIO) -> None:
        """All of it, without a secret."""
        for name, value in {**self.login, **self.settings}.items():
            shown = "***" if name in _SECRETS else shlex.quote(value)
            print(clean(f"{plan.env_file}: {name}={shown}"), file=stream)
        for step in (*self.before, *self.after):
            print(clean(step.words), file=stream)
        changes.show(self.files, stream)


def left(plan: Plan, wanted: Wanted) -> Work:
    """What is not so yet; changes nothing.

    Raises:
        DrainError: that cannot be found out.
    """
    there = envfile.read(plan.env_file)[0] if plan.env_file.exists() else {}
    return Work(
        login=plan.new_login,
        before=tuple(step for step in wanted.before if not step.done()),
        files=tuple(changes.pending(wanted.files)),
        after=tuple(step for step in wanted.after if not step.done()),
        settings={name: value for name, value in wanted.settings.items() if there.get(name, "") != value},
        unfinished=_mark(plan).exists(),
    )


def apply(plan: Plan, wanted: Wanted, work: Work) -> str:
    """Does it, and starts the server; may be cut off anywhere and done again. Says what `Wanted.start` says.

    Raises:
        DrainError: it cannot be done, or the server does not take its files, or does not start with
            them: then these and drain.env are put back, and a server that ran is started again.
        Unavailable: all is done but the start, which is left to the person or not over in time.
    """
    _begin(plan)
    said: str | Unavailable
    with _running(wanted), _env_file_kept(plan):
        _set(plan, work.login)
        for step in work.before:
            step.do()
        with changes.written(work.files):
            for step in work.after:
                step.do()
            wanted.check()
            _set(plan, work.settings)
            try:
                said = wanted.start(True)
            except Unavailable as error:
                said = error
    if isinstance(said, Unavailable):
        raise said
    return said


@contextlib.contextmanager
def _running(wanted: Wanted) -> Iterator[None]:
    """If this fails, a server that runs now and does not any more is started again."""
    ran = wanted.runs()
    try:
        yield
    except BaseException:
        if ran and not wanted.runs():
            with contextlib.suppress(DrainError):  # the first error is the one to be told
                wanted.start(True)
        raise


@contextlib.contextmanager
def _env_file_kept(plan: Plan) -> Iterator[None]:
    """If this fails, drain.env is as it was: drain goes on with the login that the server has."""
    try:
        with as_owner(plan.env_file):
            former = plan.env_file.read_bytes() if plan.env_file.exists() else None
    except OSError as error:
        raise ConfigError(f"{plan.env_file} cannot be read: {error}.") from error
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError), as_owner(plan.env_file):
            if former is not None:
                replace(plan.env_file, former)
            else:
                plan.env_file.unlink(missing_ok=True)
        raise


def finished(plan: Plan) -> None:
    """The server runs with all of it."""
    with contextlib.suppress(OSError):
        _mark(plan).unlink()


def _begin(plan: Plan) -> None:
    mark = _mark(plan)
    try:
        with as_owner(mark):
            mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace(mark, b"`drain setup` began here, and has not come to its end.\n")
    except OSError as error:
        raise ConfigError(f"{mark.parent} cannot be written to: {error}.") from error


def _mark(plan: Plan) -> Path:
    return plan.env_file.with_name("setup.unfinished")


def _set(plan: Plan, values: Mapping[str, str]) -> None:
    if values:
        with as_owner(plan.env_file):
            envfile.change(plan.env_file, values)
