"""``drain keygen``: a key pair, and in words what to do with it."""

import datetime
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from drain.errors import ConfigError
from drain.keys import key_id, make, read_x25519, write_new

_NAME = "drain-key.pem"
_TOKEN_NAME = "origin-token"  # noqa: S105 (a file's name)
_TOKEN_BYTES = 32
# As the README of the Worker sets the lifecycle rule of pending/, and a day for R2 to follow it.
_LONGEST_IN_PENDING = datetime.timedelta(days=31)


@dataclass(frozen=True)
class Place:
    """Where keys belong: what PRIVATE_KEY_FILE names, the folder if it names nothing, the settings' file."""

    files: tuple[Path, ...]
    folder: Path
    env_file: Path
    has_token: bool


def first(place: Place) -> str:
    """Makes the first key pair, and a token if there is none; what to do now.

    Raises:
        ConfigError: there is a key already, or a file cannot be written.
    """
    if any(path.exists() for path in place.files):
        raise ConfigError(
            f"There is a key already: PRIVATE_KEY_FILE is {_joined(place.files)}.",
            "`drain keygen --rotate` makes another to take its place.",
        )
    if len(place.files) > 1:
        raise ConfigError(f"PRIVATE_KEY_FILE names {len(place.files)} files, and none is there.", "Name one.")
    path = place.files[0] if place.files else place.folder / _NAME
    token = place.folder / _TOKEN_NAME
    made = _made(path)
    settings, commands = [f"PRIVATE_KEY_FILE={shlex.quote(str(path))}"], [_secret("DRAIN_PUBLIC_KEY", made.public)]
    if not place.has_token:
        # One that is there is from an earlier time, and perhaps the Worker has it.
        if not token.exists():
            write_new(token, secrets.token_hex(_TOKEN_BYTES).encode() + b"\n", 0o600)
        settings.append(f"ORIGIN_TOKEN_FILE={shlex.quote(str(token))}")
        commands.append(_secret("ORIGIN_TOKEN", token))
    return f"""\
{made.words}
1. Give the Worker its secrets, in worker/:
{_indented(commands)}
2. Put into {place.env_file}:
{_indented(settings)}
   The user that runs drain has to be able to read these files, and nobody else.
   With ORIGIN_TOKEN set, mail that is not sealed goes to quarantine: if some lies in
   the bucket still, let drain fetch it first.
"""


def rotate(place: Place, today: datetime.date) -> str:
    """Makes another key pair beside the one in use; what to do now, and when the old key may go.

    Raises:
        ConfigError: there is no key yet, or a file cannot be written.
    """
    if not place.files:
        raise ConfigError("There is no key to rotate: PRIVATE_KEY_FILE is not set.", "`drain keygen` makes the first.")
    olds = [f"{key_id(read_x25519(path)).hex()} ({path})" for path in place.files]
    path = _free(place.files[0])
    made = _made(path)
    return f"""\
{made.words}
1. Put into {place.env_file}, and restart drain:
     PRIVATE_KEY_FILE={shlex.quote(_joined((path, *place.files)))}
2. Only then give the Worker the new public key, in worker/:
{_indented([_secret("DRAIN_PUBLIC_KEY", made.public)])}
3. Keep {" and ".join(olds)} as long as mail is sealed with it: what waits under pending/
   is gone by {today + _LONGEST_IN_PENDING} if the Worker has its new key today and the lifecycle
   rules are those of worker/README.md. What lies under quarantine/ and processed/ by
   then can be opened with the old key alone.
"""


@dataclass(frozen=True)
class _Made:
    public: Path
    words: str


def _made(path: Path) -> _Made:
    key, public = make(path)
    return _Made(
        public,
        f"""\
Private key  {path}   (key id {key_id(key).hex()})
Public key   {public}

Keep a copy of the private key where this machine's end would not be its end: without
it nobody can open what the Worker sealed.
""",
    )


def _free(first: Path) -> Path:
    number = 2
    while (path := first.with_name(f"drain-key-{number}.pem")).exists():
        number += 1
    return path


def _joined(paths: tuple[Path, ...]) -> str:
    return ":".join(map(str, paths))


def _secret(name: str, path: Path) -> str:
    return f"npx wrangler@4 secret put {name} < {shlex.quote(str(path))}"


def _indented(lines: list[str]) -> str:
    return "\n".join(f"     {line}" for line in lines)
