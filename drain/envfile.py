"""``drain.env``: where it is and how it is read."""

import shlex
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

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


def readable_by_others(paths: Iterable[Path]) -> list[str]:
    """A warning for each file with secrets that others than its owner may read."""
    warnings = []
    for path in paths:
        try:
            mode = path.stat().st_mode
        except OSError:
            continue  # whoever needs it will say so
        if stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
            warnings.append(f"{path} can be read by other users; it holds secrets: chmod 600 {shlex.quote(str(path))}")
    return warnings


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
