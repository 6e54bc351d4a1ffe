"""``drain.env``: where it is, how it is read, and how a value in it is changed."""

import os
import re
import shlex
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from drain.disk import replace
from drain.errors import ConfigError


def find(environ: Mapping[str, str]) -> Path | None:
    """The ``drain.env`` to read: DRAIN_ENV_FILE, or the first of the usual places that exists."""
    if named := environ.get("DRAIN_ENV_FILE"):
        return Path(named).expanduser()
    places = [Path("/etc/drain/drain.env"), Path("~/.config/drain/drain.env").expanduser()]
    if prefix := environ.get("PREFIX"):  # Termux
        places.append(Path(prefix) / "etc/drain/drain.env")
    for place in places:
        try:
            if place.is_file():
                return place
        except OSError:  # a folder that is not ours to look into
            continue
    return None


def read(path: Path) -> tuple[dict[str, str], list[str]]:
    """The names and values of one ``drain.env``, and warnings.

    Lines are ``NAME=value`` as a shell would read them (quotes, ``#``, an
    ``export`` in front), without expansion of variables.

    Raises:
        ConfigError: it cannot be read, or a line is not of that form.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read: {error}.", "Mend it, or set DRAIN_ENV_FILE."
        ) from error
    warnings = readable_by_others([path])
    values: dict[str, str] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            words = shlex.split(_without_comment(line))
        except ValueError:
            words = ["unbalanced quotes"]
        if words[:1] == ["export"]:
            words = words[1:]
        if not words:
            continue
        name, equals, value = words[0].partition("=")
        if len(words) > 1 or not equals or not name.isidentifier():
            raise ConfigError(
                f"{path}, line {number}, is not NAME=value.", "A value with blanks needs quotes around it."
            )
        values[name] = value
    return values, warnings


def change(path: Path, values: Mapping[str, str]) -> None:
    """Gives settings their values in a ``drain.env`` and leaves all else there as it is.

    The last line that sets a name counts, as in `read`; where there is none, the first comment
    ``#NAME=`` makes room for it, or it is added at the end. A file that is not there is made (0600).

    Raises:
        ConfigError: a value cannot be written in a ``drain.env``, or the file cannot.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for name, value in values.items():
            _change_line(lines, name, f"{name}={quoted(value)}")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace(path, "".join(f"{line}\n" for line in lines).encode())
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"The configuration file {path} cannot be written: {error}.") from error


def quoted(value: str) -> str:
    """A value as it stands in a ``drain.env``, and as a shell would take it.

    Raises:
        ConfigError: it has line ends, which no value can have.
    """
    if len(f"{value}.".splitlines()) > 1:
        raise ConfigError("A value in drain.env is one line.")
    return shlex.quote(value) if value else ""


def _change_line(lines: list[str], name: str, line: str) -> None:
    sets = re.compile(rf"\s*(?:export\s+)?{name}=")
    offers = re.compile(rf"#\s*{name}=")
    there = [number for number, old in enumerate(lines) if sets.match(old)]
    there = there[-1:] or [number for number, old in enumerate(lines) if offers.match(old)][:1]
    if there:
        lines[there[0]] = line
    else:
        lines.append(line)


def readable_by_others(paths: Iterable[Path]) -> list[str]:
    """A warning for each file with secrets that others than its owner may read."""
    warnings = []
    for path in paths:
        try:
            about = path.stat()
        except OSError:
            continue  # whoever needs it will say so
        if stat.S_ISREG(about.st_mode) and open_to_others(about):
            # What is root's stays readable to the group that reads it.
            mode = 640 if about.st_uid == 0 and os.geteuid() != 0 else 600
            warnings.append(
                f"{path} can be read by other users; it holds secrets: chmod {mode} {shlex.quote(str(path))}"
            )
    return warnings


def open_to_others(about: os.stat_result) -> int:
    """The bits of its mode by which others than its owner get at a file or folder.

    What is root's its group may read: in that way a service reads its settings and cannot change them.
    """
    return stat.S_IMODE(about.st_mode) & (0o027 if about.st_uid == 0 else 0o077)


def _without_comment(line: str) -> str:
    """A line up to its comment; as in a shell, only a ``#`` at the beginning of a word begins one."""
    quote = ""
    for place, letter in enumerate(line):
        if letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        elif not quote and letter == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place]
    return line
