"""``drain relay``: the relay itself, its queue, the addresses that bounced."""

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from types import FrameType

from drain import config as configuration, outbound, show
from drain.commands.ask import ask_to_delete
from drain.commands.common import begin, tell
from drain.errors import LockHeld, NoInput, Unusable
from drain.log import Log
from drain.notify import Notifier
from drain.places import is_loopback
from drain.relay.queue import OPEN, Entry, Queue, State
from drain.relay.relay import Runner
from drain.settings import Config
from drain.text import clean

_BECAME = {State.WAITING: "is due now", State.HELD: "held", State.REMOVED: "removed"}


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Takes outgoing mail until told to stop."""
    config, log = begin(arguments, environ, complete=False)
    runner = runner_for(config, log, threading.Event())

    def stop(_signal: int, _frame: FrameType | None) -> None:
        runner.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, lambda _signal, _frame: runner.look())
    try:
        runner.run(Notifier(environ))
    except LockHeld as error:
        log.notice("relay", message=str(error))
    return os.EX_OK


def runner_for(config: Config, log: Log, stop: threading.Event) -> Runner:
    """What keeps the relay running.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    configuration.check_relay(config)
    if not config.allowed_from:
        log.warning("configuration", message="ALLOWED_FROM is empty: the relay sends nothing.")
    if (
        config.relay_upstream == "smtp"
        and not config.smarthost_user
        and not all(map(is_loopback, dict(config.smarthosts)))
    ):
        message = "SMARTHOST_USER is not set. Most smarthosts refuse mail for good from who does not log in."
        log.warning("configuration", message=message)
    if config.dkim_domain and config.relay_upstream in ("postmark", "resend", "sendgrid"):
        message = f"DKIM_DOMAIN is of no use with RELAY_UPSTREAM={config.relay_upstream}, which signs by itself."
        log.warning("configuration", message=message)
    made = partial(outbound.relay, config, log, step=lambda step, name: log.debug("step", step=step.value, of=name))
    return Runner(made, log, stop)


def queue_list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """What is in the queue."""
    with _queue(arguments, environ) as queue:
        entries = queue.entries(*(State if arguments.all else OPEN))
    if arguments.json:
        for entry in entries:
            print(json.dumps(_as_json(entry)))
    else:
        show.outgoing(entries, sys.stdout)
    return os.EX_OK


def queue_show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """One mail, and all that is known of it."""
    with _queue(arguments, environ) as queue:
        entries = _found(queue, arguments.id)
    for number, entry in enumerate(entries):
        if arguments.json:
            print(json.dumps(_as_json(entry)))
        else:
            print(("\n" if number else "") + show.outgoing_in_words(entry), end="")
    return os.EX_OK


def queue_retry(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Tries now what waits or is held; a relay that runs sees it within seconds."""
    return _change(arguments, environ, State.WAITING)


def queue_hold(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Keeps mail in the queue until it is retried."""
    return _change(arguments, environ, State.HELD)


def queue_remove(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Deletes mail for good."""
    return _change(arguments, environ, State.REMOVED)


def suppressed_list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """The addresses that bounced."""
    with _queue(arguments, environ) as queue:
        found = queue.suppressed.all()
    if arguments.json:
        for one in found:
            print(
                json.dumps({"address": one.address, "status": one.status, "diagnostic": one.diagnostic, "at": one.at})
            )
    else:
        show.suppressions(found, sys.stdout)
    return os.EX_OK


def suppressed_remove(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Lets mail go there again."""
    worst = os.EX_OK
    with _queue(arguments, environ) as queue:
        for address in arguments.address:
            if queue.suppressed.remove(address):
                print(f"Mail may go to {clean(address)} again.")
            else:
                print(f"drain: {clean(address)} is not suppressed.", file=sys.stderr)
                worst = NoInput.exit_code
    return worst


def _change(arguments: argparse.Namespace, environ: Mapping[str, str], to: State) -> int:
    worst = os.EX_OK
    with _queue(arguments, environ) as queue:
        if arguments.all:
            entries = queue.entries(*OPEN)
        else:
            entries = [entry for word in arguments.id for entry in _found(queue, word)]
        if to is State.REMOVED:
            refused = ask_to_delete(arguments, partial(show.outgoing, entries), len(entries))
            if refused is not None:
                return refused
        for entry in entries:
            if queue.change(entry, to, time.time()):
                tell(arguments, {"id": entry.id[: show.SHORT], "state": _BECAME[to]}, sys.stdout)
            else:
                now = queue.entry(entry.id)
                words = (
                    "it is being sent, or was when the relay ended"
                    if now.state is State.SENDING
                    else f"it was {now.state.value} before"
                )
                tell(arguments, {"id": entry.id[: show.SHORT], "state": "left as it is", "words": words}, sys.stderr)
                worst = Unusable.exit_code
    return worst


@contextlib.contextmanager
def _queue(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Iterator[Queue]:
    """The queue, also while the relay runs: each change is one commit."""
    config, _ = begin(arguments, environ, complete=False)
    with contextlib.closing(outbound.queue(config)) as queue:
        yield queue


def _found(queue: Queue, beginning: str) -> list[Entry]:
    """The entries that *beginning* means: of one mail.

    Raises:
        NoInput: there is none.
        Unusable: it fits several mails.
    """
    entries = queue.find(beginning) if beginning else []
    if not entries:
        raise NoInput(f"Nothing in the queue has an id that begins with {clean(beginning)!r}.")
    if len({entry.mail.id for entry in entries}) > 1:
        raise Unusable(f"Several mails have an id that begins with {clean(beginning)!r}.", "Give more of it.")
    return entries


def _as_json(entry: Entry) -> dict[str, object]:
    mail = entry.mail
    return {
        "id": entry.id,
        "mail": mail.id,
        "state": entry.state.value,
        "dsn": mail.inbound,
        "user": mail.user,
        "from": mail.sender,
        "to": list(entry.recipients),
        "message_id": mail.message_id,
        "size": mail.size,
        "received_at": mail.received_at,
        "attempts": entry.attempts,
        "unknown": entry.unknown,
        "next_attempt_at": entry.next_attempt_at if entry.state is State.WAITING else None,
        "status": entry.status,
        "diagnostic": entry.diagnostic,
        "reference": entry.reference,
        "updated_at": entry.updated_at,
    }
