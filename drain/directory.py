"""The mailboxes that a mail server's own lists name.

Not where mail goes: that the server is asked by RCPT (`drain.routing`). These
are names worth asking about, for `drain.recipients`. A name is an address, or a
local part that may be meant at every mail domain.

Lists: ``MAIL_USERS_FILE`` (one name a line, ``#`` for comments); Maddy's
``imap-acct list``; Postfix's maps of recipients, as ``postconf`` names them and
``postmap -s`` reads them (``MAIL_CONFIG`` in the environment names another
configuration than ``/etc/postfix``).
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drain.errors import ConfigError
from drain.text import clean

_COMMAND_SECONDS = 30
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # where Postfix's commands are, and cron does not look
_RECIPIENT_MAPS = (
    "virtual_mailbox_maps",
    "virtual_alias_maps",
    "local_recipient_maps",
    "relay_recipient_maps",
    "canonical_maps",
    "recipient_canonical_maps",
)
# postmap(1) -s reads these from end to end; others answer questions only.
_LISTABLE = frozenset({"btree", "cdb", "dbm", "hash", "lmdb", "sdbm", "texthash"})
# They name nobody: `static` says yes to all, which RCPT shows, and `fail` is out of order on purpose.
_NAMELESS = frozenset({"static", "fail"})


@dataclass(frozen=True)
class Listing:
    """The names of one list; ``faults`` say in words what of it could not be listed."""

    source: str
    names: frozenset[str]
    faults: tuple[str, ...] = ()


def listings(users_file: str, maddy_config: str, environ: Mapping[str, str]) -> list[Listing]:
    """Every list that there is on this machine.

    Raises:
        ConfigError: MAIL_USERS_FILE cannot be read.
    """
    found = []
    if users_file:
        found.append(_of_file(users_file))
    if maddy := _command("maddy", environ):
        found.append(_of_maddy(maddy, maddy_config, environ))
    if postconf := _command("postconf", environ):
        found.append(_of_postfix(postconf, environ))
    return found


def _of_file(users_file: str) -> Listing:
    path = Path(users_file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"MAIL_USERS_FILE {path} cannot be read: {error}.") from error
    names = (line.partition("#")[0].strip() for line in lines)
    return Listing(users_file, frozenset(name for name in names if name))


def _of_maddy(maddy: str, config: str, environ: Mapping[str, str]) -> Listing:
    command = [maddy, *(["--config", config] if config else []), "imap-acct", "list"]
    source = "`maddy imap-acct list`"
    try:
        lines = _lines(command, environ)
    except _Failed as error:
        return Listing(source, frozenset(), (f"{error} Is MADDY_CONFIG right?",))
    return Listing(source, frozenset(line.strip() for line in lines if "@" in line))


def _of_postfix(postconf: str, environ: Mapping[str, str]) -> Listing:
    source = "the tables of Postfix (MAIL_CONFIG names another configuration)"
    names: set[str] = set()
    faults = []
    try:
        tables = list(dict.fromkeys(_tables(" ".join(_lines([postconf, "-hx", *_RECIPIENT_MAPS], environ)))))
    except _Failed as error:
        return Listing(source, frozenset(), (str(error),))
    for table in tables:
        try:
            names |= _of_table(table, str(Path(postconf).with_name("postmap")), environ)
        except _Failed as error:
            faults.append(str(error))
    # `@domain` stands for all of a domain: RCPT shows that.
    return Listing(source, frozenset(name for name in names if not name.startswith("@")), tuple(faults))


def _of_table(table: str, postmap: str, environ: Mapping[str, str]) -> set[str]:
    kind = table.partition(":")[0]
    if table == "unix:passwd.byname":
        return {user.pw_name for user in pwd.getpwall()}
    if kind in _LISTABLE:
        return {entry.split(None, 1)[0] for entry in _lines([postmap, "-s", table], environ) if entry.strip()}
    if kind in _NAMELESS:
        return set()
    raise _Failed(f"Postfix's table {table} can be asked but not listed.")


def _tables(value: str) -> Iterator[str]:
    """``type:name`` of each table; proxymap(8) stands before another table's name."""
    for word in value.replace(",", " ").split():
        table = word.removeprefix("proxy:")
        if ":" in table:
            yield table


def _command(name: str, environ: Mapping[str, str]) -> str | None:
    return shutil.which(name, path=os.pathsep.join([environ.get("PATH", os.defpath), *_SBIN]))


class _Failed(Exception):
    """A list could not be read; why, in a sentence."""


def _lines(command: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    words = " ".join(command)
    try:
        done = subprocess.run(  # noqa: S603 (our own words, and a path of the person's)
            command,
            env=dict(environ),
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Failed(f"`{words}` could not be run: {error}.") from error
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise _Failed(f"`{words}` failed: {clean(last) or 'it said nothing'}.")
    return done.stdout.decode("utf-8", "replace").splitlines()
