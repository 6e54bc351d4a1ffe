"""Where answers come from, first hit wins: drain.env, the environment, a file of answers, the person, the default."""

import difflib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drain import envfile
from drain.errors import ConfigError, DrainError, NoInput, Unusable
from drain.init.person import judge
from drain.init.questions import QUESTIONS, Empty, Question
from drain.settings import SETTINGS
from drain.text import clean

_PASSWORD_BYTES = 24
_FILE = "_FILE"
# install.sh has answers of its own in the same file.
_OTHERS = "DRAIN_"

Ask = Callable[[Question, str], str]


@dataclass
class Answers:
    """What is known, by the names that stand in a drain.env: a setting's, or ``X_FILE`` for the secret ``X``.

    Attributes:
        before: what drain.env had.
        new: what it does not have yet, and shall.
        elsewhere: settings that systemd hands over as credentials: neither asked for nor written.
        warnings: what is to be said of the files.
    """

    before: Mapping[str, str]
    new: dict[str, str] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    warnings: list[str] = field(default_factory=list)

    @property
    def values(self) -> dict[str, str]:
        """All of it."""
        return {**self.before, **self.new}

    def has(self, name: str) -> bool:
        """Whether that setting has a value, directly or in a file."""
        return name in self.elsewhere or _has(self.values, name)

    def had(self, name: str) -> bool:
        """Whether drain.env had one before."""
        return _has(self.before, name)

    def add(self, more: Mapping[str, str]) -> None:
        """Takes what is not known yet."""
        for name, setting in SETTINGS.items():
            if self.has(name):
                continue
            for key in (name, f"{name}{_FILE}") if setting.secret else (name,):
                if more.get(key):
                    self.new[key] = more[key]
                    break

    def fill(self, ask: Ask | None) -> None:
        """Asks for what is missing, or takes the defaults if there is nobody to *ask*; then what follows from it.

        Raises:
            EOFError, KeyboardInterrupt: the person does not want to go on.
        """
        for question in self._open():
            default = question.default(self.values)
            answer = ask(question, default) if ask else default
            if answer and (ask or answer != SETTINGS[question.name].default):
                self.new[question.name] = answer
        chosen = {"INJECT_USER": "drain", "INJECT_PASS": secrets.token_urlsafe(_PASSWORD_BYTES)}
        if self.values.get("RELAY_UPSTREAM") and not self.had("RELAY_UPSTREAM"):
            chosen["RELAY_ENABLED"] = "true"
        if self.had("R2_BUCKET") and not (self.had("PRIVATE_KEY_FILE") or self.had("ORIGIN_TOKEN")):
            # It ran with another project's Worker: its mail is not sealed for a key that is only made now.
            chosen["REQUIRE_SEALED"] = "false"
        self.add(chosen)

    def missing(self) -> list[str]:
        """The settings that have to be known and are not."""
        needed = (question.name for question in self._open() if question.empty is not Empty.NONE)
        return [name for name in dict.fromkeys(needed) if not SETTINGS[name].default]

    def _open(self) -> Iterator[Question]:
        """The questions without an answer, as they come up."""
        only_sends = self.had("RELAY_UPSTREAM") and not self.had("R2_BUCKET")
        for question in QUESTIONS:
            settled = self.has(question.name) or (question.beside and self.had(question.beside))
            if not settled and not (question.fetching and only_sends) and question.when(self.values):
                yield question


def gather(env_file: Path, environ: Mapping[str, str], answers_file: str) -> Answers:
    """What can be known without asking.

    Raises:
        ConfigError: something in drain.env or in the environment is wrong.
        NoInput: the file of answers (``""`` for none) cannot be read.
        Unusable: something in it is wrong.
    """
    before, warnings = envfile.read(env_file) if env_file.exists() else ({}, [])
    _judge(before, f"In {env_file}", ConfigError)
    folder = environ.get("CREDENTIALS_DIRECTORY")
    elsewhere = {
        name for name, setting in SETTINGS.items() if folder and setting.secret and (Path(folder) / name).is_file()
    }
    answers = Answers(before, elsewhere=frozenset(elsewhere), warnings=warnings)
    _judge(environ, "In the environment", ConfigError)
    answers.add(environ)
    if answers_file:
        given, more = _read(Path(answers_file).expanduser())
        answers.warnings += more
        answers.add(given)
    return answers


def _read(path: Path) -> tuple[dict[str, str], list[str]]:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise NoInput(f"The file of answers {path} is not there, or cannot be read.")
    try:
        given, warnings = envfile.read(path)
    except ConfigError as error:
        raise Unusable(f"The file of answers is not right: {error}") from error
    known = {*SETTINGS, *(f"{name}{_FILE}" for name, setting in SETTINGS.items() if setting.secret)}
    for name in given:
        if name not in known and not name.startswith(_OTHERS):
            near = difflib.get_close_matches(name, known, n=1)
            raise Unusable(
                f"In the file of answers {path}: {clean(name)} is no setting of drain.",
                f"Is it {near[0]}?" if near else "",
            )
    _judge(given, f"In the file of answers {path}", Unusable)
    return given, warnings


def _judge(values: Mapping[str, str], where: str, kind: type[DrainError]) -> None:
    for name in SETTINGS:
        try:
            judge(name, values.get(name, ""))
        except ConfigError as error:
            raise kind(f"{where}: {error}") from error


def _has(values: Mapping[str, str], name: str) -> bool:
    return bool(values.get(name) or (SETTINGS[name].secret and values.get(f"{name}{_FILE}")))
