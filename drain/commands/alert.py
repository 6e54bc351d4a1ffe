"""``drain alert test``."""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from drain import oversight
from drain.alerts.alert import Alert, AlertState, Kind, NotSent
from drain.commands.common import begin
from drain.errors import ConfigError
from drain.text import clean

_WORDS = "This is a test. If you can read it, drain can reach you this way."


def test(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Tells a test alert in every way that is set up, all at once, and says which of them took it."""
    config, _ = begin(arguments, environ)
    alert = Alert(Kind.TEST, "", AlertState.ON, _WORDS, 0, None, time.time())
    ways: dict[str, Callable[[], None]] = {
        outlet.name: lambda outlet=outlet: outlet.send(alert, lambda: False)  # type: ignore[misc]
        for outlet in oversight.outlets(config)
    }
    ping = oversight.ping(config)
    if ping is not None:
        ways["healthcheck"] = ping.success
    if not ways:
        raise ConfigError(
            "Nobody would be told: no way out is set up.",
            "Set MAIL_ALERT_CMD, NTFY_URL, ALERT_WEBHOOK_URL, ALERT_MAIL or HEALTHCHECK_URL.",
        )
    with ThreadPoolExecutor(len(ways)) as pool:
        failures = dict(zip(ways, pool.map(_tried, ways.values()), strict=True))
    for name, failure in failures.items():
        if arguments.json:
            print(json.dumps({"outlet": name, "told": not failure, "message": failure}))
        else:
            print(clean(f"{name}: {f'not told. {failure}' if failure else 'told'}"))
    return os.EX_TEMPFAIL if any(failures.values()) else os.EX_OK


def _tried(tell: Callable[[], None]) -> str:
    """Why it was not told; "" if it was."""
    try:
        tell()
    except NotSent as error:
        return str(error)
    return ""
