"""From the configuration to what watches over passes: their service, what follows them, the status."""

import contextlib
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from drain import assembly
from drain.alerts.alert import Kind, Outlet
from drain.alerts.conditions import Conditions, Thresholds
from drain.alerts.outbox import Outbox
from drain.errors import DrainError
from drain.log import Log
from drain.notify import Notifier
from drain.service import Service
from drain.settings import Config
from drain.state import Troubles
from drain.watch import QUIET_SECONDS, Watch

if TYPE_CHECKING:
    from drain.alerts.ping import Ping
    from drain.status import Pending, Status


def service(config: Config, log: Log, environ: Mapping[str, str]) -> Service:
    """What makes them when they are due."""
    passes = assembly.sweep(config, log)
    follows = watch(config, log)
    follows.outbox.stopped = passes.stop.is_set
    passes.on_end = follows.after
    return Service(passes, log, Notifier(environ), config.poll_interval, follows)


def outlets(config: Config) -> list[Outlet]:  # one import a branch: each costs time and memory on a phone
    """The ways out of alerts that are set up; nobody is told anything yet."""
    prefix = config.mail_alert_msg or f"drain on {socket.gethostname()}"
    found: list[Outlet] = []
    if config.mail_alert_cmd:
        from drain.alerts.hook import Hook  # noqa: PLC0415

        found.append(Hook(config.mail_alert_cmd, prefix, config.state_dir / "alerts.out"))
    if config.ntfy_url.reveal():
        from drain.alerts.ntfy import Ntfy  # noqa: PLC0415

        found.append(Ntfy(config.ntfy_url, config.ntfy_token, prefix))
    if config.alert_webhook_url.reveal():
        from drain.alerts.webhook import Webhook  # noqa: PLC0415

        found.append(Webhook(config.alert_webhook_url, config.alert_webhook_token, prefix))
    if config.alert_mail:
        from drain.alerts.letter import Letter  # noqa: PLC0415

        found.append(Letter(assembly.server(config), config.admin_mailbox, prefix))
    return found


def ping(config: Config) -> "Ping | None":
    """What hears of every pass, if anything does."""
    if not config.healthcheck_url.reveal():
        return None
    from drain.alerts.ping import Ping  # noqa: PLC0415 (as above)

    return Ping(config.healthcheck_url)


def watch(config: Config, log: Log) -> Watch:
    """What follows passes."""
    junk = assembly.junk(config)
    hour = 3600.0
    return Watch(
        path=config.logbook_path,
        conditions=Conditions(
            thresholds=Thresholds(
                days=config.alert_days,
                count=config.alert_count,
                growth_passes=config.alert_growth_passes,
                offline_seconds=config.alert_offline_hours * hour,
                server_seconds=config.alert_server_hours * hour,
                quarantine=config.alert_quarantine,
                relay_seconds=config.alert_relay_hours * hour,
                stale_seconds=stale_seconds(config),
            ),
            catch_all=config.catch_all,
            quarantine=config.quarantine_prefix,
            junk=junk,
            fail_open=frozenset(config.filter_fail_open),
        ),
        subjects={Kind.FILTER: set(config.filters), Kind.JUNK: {junk}},
        repeat_seconds=config.alert_repeat * hour,
        outbox=Outbox(outlets(config), log),
        log=log,
        ping=ping(config),
        troubles=partial(_troubles, config.ledger_path),
        outgoing=partial(_outgoing, config.relay_folder),
        publish=partial(_publish, config) if config.metrics_file or config.status_html else lambda now: None,
    )


def _troubles(ledger_path: Path, now: float) -> Troubles | None:
    if not ledger_path.exists():
        return None
    from drain.ledger import Ledger  # noqa: PLC0415 (there is none before the first mail)

    try:
        with contextlib.closing(Ledger(ledger_path)) as ledger:
            return ledger.troubles(now)
    except DrainError:  # a pass says it
        return None


def _outgoing(folder: Path) -> tuple[int, float | None] | None:
    if not folder.exists():
        return None
    from drain.relay.waiting import waiting  # noqa: PLC0415 (as above)

    return waiting(folder)


def status(config: Config, now: float, pending: "Pending | None" = None) -> "Status":
    """What is going on, read from the files; *pending* is what R2 said, where it was asked."""
    from drain.status.gather import gather  # noqa: PLC0415 (as above)

    return gather(
        ledger=config.ledger_path,
        logbook=config.logbook_path,
        queue=config.relay_folder / "queue.db",
        now=now,
        stale_seconds=stale_seconds(config),
        pending=pending,
    )


def stale_seconds(config: Config) -> float:
    """How long no pass may end: at least so long that one that finds nothing is noted; 0 for ever."""
    least = 2 * config.poll_interval + 2 * QUIET_SECONDS
    return max(config.alert_stale_hours * 3600, least) if config.alert_stale_hours else 0.0


def _publish(config: Config, now: float) -> None:
    from drain import metrics, page  # noqa: PLC0415 (as above)

    found = status(config, now)
    if config.metrics_file:
        metrics.write(Path(config.metrics_file), metrics.text(found), metrics.MODE)
    if config.status_html:
        metrics.write(Path(config.status_html), page.page(found))
