"""``drain publish-recipients``."""

import argparse
import datetime
import os
from collections.abc import Mapping

from drain import assembly, recipients, show
from drain.commands.common import begin, locked_ledger
from drain.errors import ConfigError


def publish(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Tells the Worker which mailboxes exist."""
    config, log = begin(arguments, environ)
    bucket = assembly.bucket(config)
    if arguments.remove:
        bucket.remove(recipients.KEY)
        print(f"{recipients.KEY} is gone from bucket {config.r2_bucket}; within five minutes nobody is refused.")
        return os.EX_OK
    if not config.origin_token:
        raise ConfigError("ORIGIN_TOKEN is not set; the list is signed with it.", "`drain keygen` makes one.")
    with locked_ledger(config, log) as ledger:
        seen = ledger.recipients()
    found, warnings = assembly.recipients(config, seen, environ)
    for warning in warnings:
        log.warning("recipients", message=warning)
    print(show.recipients_in_words(found))
    if not arguments.dry_run:
        now = datetime.datetime.now(datetime.UTC)
        body = recipients.document(found, config.origin_token[0], now)
        bucket.put(recipients.KEY, body, "text/plain")
        print(f"Published as {recipients.KEY} in bucket {config.r2_bucket}; the Worker believes it for 7 days.")
    return os.EX_OK
