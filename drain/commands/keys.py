"""``drain keygen`` and ``drain open``: what is done with keys."""

import argparse
import datetime
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from drain import assembly, config as configuration, envfile, keygen as keys, show
from drain.errors import NoInput, NotMail
from drain.settings import Config
from drain.text import clean

# As the log and `drain quarantine list` have it.
_ID = re.compile("[0-9a-f]{8,64}")


def keygen(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """A key pair."""
    config, _ = configuration.load(environ, complete=False)
    env_file = envfile.find(environ) or Path("~/.config/drain/drain.env").expanduser()
    folder = config.private_key_file[0].parent if config.private_key_file else env_file.parent
    place = keys.Place(config.private_key_file, folder, env_file, bool(config.origin_token))
    words = keys.rotate(place, datetime.datetime.now().astimezone().date()) if arguments.rotate else keys.first(place)
    print(words, end="")
    return os.EX_OK


def open_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """The mail in one object, on standard output."""
    config, body, metadata = read(arguments.object, environ)
    opener = assembly.opener(config)
    try:
        # A person in doubt may see what drain would not believe.
        opened = opener.believing_all().open(body, metadata)
    except NotMail as error:
        print(f"drain: {clean(str(error))}", file=sys.stderr)
        return os.EX_DATAERR
    try:
        opener.open(body, metadata)
    except NotMail as error:
        print(f"drain: To be taken with care, and drain would not deliver it: {clean(str(error))}", file=sys.stderr)
    print(show.envelope_in_words(opened), file=sys.stderr)
    show.mail(opened.mail, sys.stdout)
    return os.EX_OK


def read(name: str, environ: Mapping[str, str]) -> tuple[Config, bytes, Mapping[str, str]]:
    """The settings, and the bytes and metadata of a file or, where there is none of that name, of an object.

    A file needs none of the settings that the bucket needs, and has no metadata.

    Raises:
        NoInput: there is neither.
    """
    path = Path(name)
    try:
        is_file = path.is_file()
    except OSError:  # a key can be longer than any file's name
        is_file = False
    config, _ = configuration.load(environ, complete=not is_file)
    return config, *(_from_file(path) if is_file else _from_bucket(name, config))


def _from_file(path: Path) -> tuple[bytes, Mapping[str, str]]:
    """An object's bytes; a file has no metadata."""
    try:
        return path.read_bytes(), {}
    except OSError as error:
        raise NoInput(f"{path} cannot be read: {error}.") from error


def _from_bucket(key: str, config: Config) -> tuple[bytes, Mapping[str, str]]:
    """An object's bytes and its metadata."""
    bucket = assembly.bucket(config)
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        raise NoInput("The name is not UTF-8, and no object's name is anything else.") from None
    listed = bucket.find(key)
    if listed is None and _ID.fullmatch(key):
        moved = (config.quarantine_prefix, config.processed_prefix)
        listed = next((found for prefix in moved if (found := bucket.find(prefix + key)) is not None), None)
    fetched = None if listed is None else bucket.get(listed)
    if fetched is None:
        raise NoInput(f"There is neither a file {key} here nor an object of that name in bucket {config.r2_bucket}.")
    return fetched.body, fetched.metadata
