"""``drain keygen``: a key pair, and in words what to do with it."""

import datetime
import secrets
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from drain.errors import ConfigError
from drain.keys import key_id, make, pair_at, read_x25519, write_new

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


@dataclass(frozen=True)
class Made:
    """A key pair, and the token that is made with the first.

    ``words`` say where the pair is; ``token`` is None where there was one before.
    """

    private: Path
    public: Path
    words: str
    token: Path | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What drain.env has to have for them."""
        return {
            "PRIVATE_KEY_FILE": str(self.private),
            **({"ORIGIN_TOKEN_FILE": str(self.token)} if self.token else {}),
        }


def make_first(place: Place) -> Made:
    """Makes the first key pair, and a token if there is none; what is there already is left as it is.

    Raises:
        ConfigError: a key is in use already, or a file cannot be written.
    """
    if any(path.exists() for path in place.files):
        raise ConfigError(
            f"There is a key already: PRIVATE_KEY_FILE is {_joined(place.files)}.",
            "`drain keygen --rotate` makes another to take its place.",
        )
    if len(place.files) > 1:
        raise ConfigError(f"PRIVATE_KEY_FILE names {len(place.files)} files, and none is there.", "Name one.")
    made = _made(place.files[0] if place.files else place.folder / _NAME)
    if place.has_token:
        return made
    token = place.folder / _TOKEN_NAME
    # One that is there is from an earlier time, and perhaps the Worker has it.
    if not token.exists():
        write_new(token, secrets.token_hex(_TOKEN_BYTES).encode() + b"\n", 0o600)
    return replace(made, token=token)


def first(place: Place) -> str:
    """Makes the first key pair as `make_first` does; what to do now, also where it was there already."""
    made = make_first(place)
    settings = [f"{name}={shlex.quote(value)}" for name, value in made.settings.items()]
    commands = [secret_command("DRAIN_PUBLIC_KEY", made.public)]
    kept = "the private key"
    if made.token:
        commands.append(secret_command("ORIGIN_TOKEN", made.token))
        kept += " and of origin-token"
    return f"""\
{made.words}
Keep a copy of {kept} somewhere else. If this machine breaks and there
is no copy, nobody can read what the Worker sealed.

1. Put into {place.env_file}:
{_indented(settings)}
   Only the user that runs drain should be able to read these files. From then on mail
   that this project's Worker did not seal (plain, or Mailbridge's) goes to quarantine: if
   there still is such mail in the bucket, run `drain once` before you add the second line.
2. After `npx wrangler@4 deploy`, in worker/, give the Worker its secrets. On another
   computer: copy the files there first, and delete the copies afterwards.
{_indented(commands)}
"""


def secret_command(name: str, path: Path) -> str:
    """The command that gives the Worker a secret out of a file."""
    return f"npx wrangler@4 secret put {name} < {shlex.quote(str(path))}"


def rotate(place: Place, today: datetime.date) -> str:
    """Makes another key pair beside the one in use; what to do now, and when the old key may go.

    One that was made before and is not in use yet is taken: then only the words come again.

    Raises:
        ConfigError: there is no key yet, or a file cannot be written.
    """
    if not place.files:
        raise ConfigError(
            "There is no key to rotate: PRIVATE_KEY_FILE is not set.",
            "`drain keygen` makes the first, and says again what to do with one that is there.",
        )
    olds = [f"{key_id(read_x25519(path)).hex()} ({path})" for path in place.files]
    path = _next(place.files)
    made = _made(path)
    gone = today + _LONGEST_IN_PENDING
    return f"""\
{made.words}
Keep a copy of the new private key somewhere else, as of the old one.

1. Put into {place.env_file}, and restart drain:
     PRIVATE_KEY_FILE={shlex.quote(_joined((path, *place.files)))}
2. Only then give the Worker the new public key, in worker/:
{_indented([secret_command("DRAIN_PUBLIC_KEY", made.public)])}
3. Keep the old key, {" and ".join(olds)}, until {gone}.
   By then no mail under pending/ is sealed for it, if the Worker has the new key today and
   the lifecycle rules are those of worker/README.md. Then take it out of PRIVATE_KEY_FILE.
   Older mail under quarantine/ and processed/ still needs it.
"""


def _made(path: Path) -> Made:
    """A new pair, or the one that is there."""
    there = path.exists()
    key, public = pair_at(path) if there else make(path)
    words = f"""\
Private key  {path}   (key id {key_id(key).hex()}{", there already" if there else ""})
Public key   {public}
"""
    return Made(path, public, words)


def _next(in_use: tuple[Path, ...]) -> Path:
    number = 2
    while (path := in_use[0].with_name(f"drain-key-{number}.pem")) in in_use:
        number += 1
    return path


def _joined(paths: tuple[Path, ...]) -> str:
    return ":".join(map(str, paths))


def _indented(lines: list[str]) -> str:
    return "\n".join(f"     {line}" for line in lines)
