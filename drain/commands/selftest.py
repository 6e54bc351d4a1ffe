"""``drain selftest``."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from drain import assembly
from drain.commands.common import begin
from drain.errors import ConfigError, WrongUse
from drain.keys import KeyRing
from drain.routing import is_sendable
from drain.selftest import Report, Selftest, make
from drain.settings import Config
from drain.show.history import duration
from drain.show.table import table
from drain.state import State
from drain.text import clean

_LONGEST_SECONDS = 86400


def selftest(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Sends a probe mail the whole way, and times each leg."""
    config, log = begin(arguments, environ)
    if not 0 < arguments.timeout <= _LONGEST_SECONDS:
        raise WrongUse(f"--timeout wants seconds, more than 0 and at most {_LONGEST_SECONDS}.")
    key = next(
        iter(KeyRing(config.private_key_file, None).sealed.values()), None
    )  # `keygen --rotate`: the newest is first
    if key is None:
        _need_none(config, arguments.to)
    recipient = _recipient(config, arguments.to)
    token = config.origin_token[0] if config.origin_token else None
    boxes = assembly.mailboxes(config)
    # One question takes a minute at most, and may be all the time that there is.
    ask = replace(boxes, seconds=min(boxes.seconds, arguments.timeout)).ask if boxes is not None else None
    test = Selftest(assembly.sweep(config, log), ask)
    report = test.run(partial(make, recipient, config.admin_mailbox, key, token), arguments.timeout)
    if arguments.json:
        print(json.dumps(_as_json(report)))
    else:
        print(clean(_in_words(report), limit=1000))
        rows = [(leg.name, duration(leg.seconds)) for leg in report.legs]
        table(("leg", "time"), [*rows, ("together", duration(report.seconds))], sys.stdout)
    return report.exit_code


def _need_none(config: Config, to: str) -> None:
    """Without a private key the probe is plain."""
    if config.private_key_file or config.sealed_only:
        raise ConfigError(
            "There is no private key here, so no probe can be sealed.",
            KeyRing(config.private_key_file, None).why_not_sealed(),
        )
    if to:
        raise WrongUse("--to needs a private key: a probe that is not sealed goes to the catch-all.")


def _recipient(config: Config, to: str) -> str:
    """The whole address; a name alone is at the first domain."""
    recipient = to or config.admin_mailbox
    if "@" not in recipient:
        recipient = f"{recipient}@{config.mail_domain[0]}"
    if not is_sendable(recipient):
        raise WrongUse(f"--to {to} is no address.")
    return recipient


def _in_words(report: Report) -> str:
    kind = "" if report.probe.sealed else " (not sealed: there is no private key)"
    said = [f"{report.probe.mail.identity[:12]} for {report.probe.mail.recipient or 'the catch-all'}{kind}:"]
    if report.exit_code == os.EX_OK:
        found = report.answer.words if report.answer is not None else "The mailbox was not asked: see VERIFY_IMAP_HOST."
        said.append(f"arrived in {report.mailbox}. {found}")
    elif report.state == State.SETTLED:
        said.append(f"the mail server took it for {report.mailbox}, and it was not found there. {report.words}")
    else:
        said.append(f"{report.state}. {_sentence(report.words)}".rstrip())
    if report.verdict:
        said.append(f"The filters: {report.verdict}.")
    if report.others:
        said.append(f"{report.others} other mail{'s' * (report.others > 1)} came with it.")
    if report.exit_code == os.EX_TEMPFAIL and report.state != State.SETTLED:
        said.append("It is left where it is, and comes when it can.")
    return " ".join(said)


def _sentence(words: str) -> str:
    return words if not words or words.endswith((".", "!", "?")) else f"{words}."


def _as_json(report: Report) -> dict[str, object]:
    return {
        "event": "selftest",
        "id": report.probe.mail.identity[:12],
        "identity": report.probe.mail.identity,
        "to": report.probe.mail.recipient,
        "sealed": report.probe.sealed,
        "ok": report.exit_code == os.EX_OK,
        "state": report.state,
        "mailbox": report.mailbox or None,
        "verdict": report.verdict or None,
        "words": report.words or None,
        "presence": report.answer.presence.value if report.answer is not None else None,
        "others": report.others,
        "seconds": round(report.seconds, 3),
        "legs": [{"leg": leg.name, "seconds": round(leg.seconds, 3)} for leg in report.legs],
    }
