"""``drain relay user``: who may log in to the relay."""

import argparse
import getpass
import json
import os
import sys
from collections.abc import Mapping

from drain import config as configuration
from drain.errors import NoInput, Unusable
from drain.places import address_patterns
from drain.relay.users import LONGEST_PASSWORD, Users
from drain.text import clean

# Guessing goes through `drain.relay.guard`, slowly; twelve random characters are out of reach.
_SHORT = 12


def add(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Adds ``arguments.name`` with the senders in ``arguments.senders`` ("" for all of ``ALLOWED_FROM``)."""
    users = _users(environ)
    try:
        senders = address_patterns(arguments.senders)
    except ValueError as error:
        raise Unusable(f"{clean(arguments.senders)!r} names no senders.", f"Give {error}.") from None
    password = _password()
    if len(password) < _SHORT:
        raise Unusable(f"A password of fewer than {_SHORT} characters can be guessed in time.", "Make it longer.")
    was_there = users.add(arguments.name, password, senders)
    print(f"{arguments.name} has another password now." if was_there else f"{arguments.name} may log in.")
    return os.EX_OK


def remove(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Removes ``arguments.name``."""
    if not _users(environ).remove(arguments.name):
        raise NoInput(f"There is no user {arguments.name}.", "`drain relay user list` shows all.")
    print(f"{arguments.name} cannot log in any more.")
    return os.EX_OK


def list_(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Every user, with its senders."""
    users = _users(environ)
    names = users.names()
    for name in names:
        senders = users.senders(name)
        if arguments.json:
            print(json.dumps({"user": name, "senders": senders}))
        else:
            print(f"{name}: {', '.join(senders) or 'all of ALLOWED_FROM'}")
    if not names and not arguments.json:
        print("There are no users; `drain relay user add NAME` adds one.")
    return os.EX_OK


def _users(environ: Mapping[str, str]) -> Users:
    config, _ = configuration.load(environ, complete=False)
    return Users(config.relay_users_path)


def _password() -> bytes:
    """From a person, asked twice, or the first line of standard input."""
    if not sys.stdin.isatty():
        line = sys.stdin.buffer.readline(LONGEST_PASSWORD + 3)
        return line.removesuffix(b"\n").removesuffix(b"\r")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise Unusable("The two are not the same; nothing was changed.")
    return password.encode("utf-8")
