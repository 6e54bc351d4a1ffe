"""The keys are made, then drain.env is written: a crash in between leaves keys that the next run finds."""

from collections.abc import Mapping
from pathlib import Path

from drain import config as configuration, envfile, keygen
from drain.disk import replace
from drain.doctor import dkim
from drain.doctor.settings import sends_only
from drain.errors import ConfigError
from drain.init import sample
from drain.init.answers import Answers
from drain.relay import bodies
from drain.settings import Config

_FOR_ITS_OWNER = 0o600


def place(environ: Mapping[str, str]) -> Path:
    """Where drain.env is, or is to be: absolute, since the keys beside it are named in it.

    Raises:
        ConfigError: something else than a file is there, or a link into a folder that is not, or it cannot be looked at.
    """
    path = (envfile.find(environ) or Path("~/.config/drain/drain.env").expanduser()).absolute()
    try:
        other = path.exists() and not path.is_file()
        astray = path.is_symlink() and not path.resolve().parent.is_dir()
    except OSError as error:
        raise ConfigError(f"{path} cannot be looked at: {error.strerror}.", "Run this as who owns it.") from error
    if other:
        raise ConfigError(f"{path} is not a file, and drain.env has to be one.", "Let DRAIN_ENV_FILE name a file.")
    if astray:
        raise ConfigError(
            f"{path} is a link to {path.resolve()}, and that folder is not there.",
            "Make the folder, or remove the link.",
        )
    return path


def loaded(answers: Answers, environ: Mapping[str, str]) -> Config:
    """The settings as they are with these answers.

    Raises:
        ConfigError: a file that one of them names cannot be read.
    """
    return configuration.load({**environ, **answers.values, "DRAIN_ENV_FILE": "/dev/null"}, complete=False)[0]


def write(env_file: Path, answers: Answers, environ: Mapping[str, str]) -> bool:
    """Makes the keys that are missing and writes drain.env; whether anything had to be written there.

    Raises:
        ConfigError: a setting is wrong, or a file cannot be written.
    """
    config = loaded(answers, environ)
    if config.dkim_key_file:
        dkim.public_key(Path(config.dkim_key_file).expanduser())  # the steps show it, and a wrong one is said before
    if not sends_only(config) and not any(path.exists() for path in config.private_key_file):
        folder = config.private_key_file[0].parent if config.private_key_file else env_file.parent
        wanted = keygen.Place(config.private_key_file, folder, env_file, bool(config.origin_token))
        answers.add(keygen.make_first(wanted).settings)
    try:
        if (config.relay_upstream or answers.has("RELAY_KEY_FILE")) and not config.relay_key_file.exists():
            # A unit may not be let to write there later. And who makes a folder's parents gives them another mode.
            config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            bodies.opened(config.relay_folder, config.relay_key_file, make_key=True)
        return _put(env_file, answers.new)
    except OSError as error:
        raise ConfigError(f"{error.filename or env_file} cannot be written: {error.strerror}.") from error


def _put(env_file: Path, values: Mapping[str, str]) -> bool:
    content = env_file.read_bytes() if env_file.exists() else b""
    if not content.strip():
        text = sample.whole(values)
        env_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace(env_file, text.encode())
        return True
    lacking = sample.lacking(content.decode())
    if not lacking and not values:
        return False
    if envfile.open_to_others(env_file.stat()):
        env_file.chmod(_FOR_ITS_OWNER)  # before there are more secrets in it
    if lacking:
        replace(env_file, content + (b"" if content.endswith(b"\n") else b"\n") + lacking.encode())
    if values:
        envfile.change(env_file, values)
    return True
