"""The status as Prometheus' metrics, in its text format, and written for node_exporter's textfile collector.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details;
names: https://prometheus.io/docs/practices/naming/. Times are Unix times, so that
a rule can ask how long ago something was (``time() - drain_last_good_pass_timestamp_seconds``),
also of a file that nobody has written for hours.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from drain.errors import ConfigError
from drain.status import Ends, Status

# node_exporter reads the file as a user of its own.
MODE = 0o644

_Sample = tuple[Mapping[str, str], float | None]
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def text(status: Status) -> str:
    """All metrics; what is not known is left out."""
    lines: list[str] = []
    for name, words, samples in _families(status):
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge"]
            lines += [f"{name}{_labels(labels)} {value!r}" for labels, value in known]
    return "".join(f"{line}\n" for line in lines)


def write(path: Path, content: str, mode: int | None = None) -> None:
    """Writes a file that others read at any time: they see the old one or the new one, whole.

    Its mode is *mode*; None: as it was, and 0600 at first. Not synced: it is written
    again after the next pass.

    Raises:
        ConfigError: it cannot be written.
    """
    path = path.expanduser()
    unfinished = ""
    try:
        # Through one's own link only: another's could lead to any file that drain may write.
        if path.is_symlink() and path.lstat().st_uid == os.geteuid():
            path = path.resolve()
        there = path.exists() and not path.is_symlink()
        if there and not path.is_file():
            raise ConfigError(f"{path} is not a file.", "Name one that drain may write.")
        if mode is None:
            mode = path.stat().st_mode & 0o777 if there else 0o600
        # The collector takes what ends in .prom only.
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
        Path(unfinished).replace(path)
    except OSError as error:
        if unfinished:
            Path(unfinished).unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}.",
            "Its folder has to be there, and drain's to write to.",
        ) from error


def _families(status: Status) -> Iterator[tuple[str, str, Iterable[_Sample]]]:
    """Name, help and samples of each metric."""
    last, good, relay = status.last_pass, status.last_good_pass, status.relay
    build = {"version": status.version, "python": status.python}
    yield "drain_build_info", "Versions; always 1.", [(build, 1)]
    yield "drain_schema_version", "Version of each file's tables.", _by("file", status.schemas)
    yield "drain_unreadable_files", "Files of drain's that cannot be read.", _one(len(status.troubles))
    yield "drain_status_timestamp_seconds", "When this was read.", _one(status.at)
    yield "drain_last_pass_timestamp_seconds", "End of the last pass.", _one(last.at if last else None)
    yield "drain_last_pass_duration_seconds", "Length of the last pass.", _one(last.seconds if last else None)
    yield (
        "drain_last_pass_success",
        "1 if nothing ended the last pass early.",
        _one(int(not last.trouble) if last else None),
    )
    yield (
        "drain_last_good_pass_timestamp_seconds",
        "End of the last pass that saw all mail.",
        _one(good.at if good else None),
    )
    pending = status.pending
    yield "drain_pending_mails", "Mails in the bucket.", _one(pending.count)
    yield "drain_pending_seen_timestamp_seconds", "When these were counted.", _one(pending.seen_at)
    yield "drain_pending_oldest_timestamp_seconds", "When the oldest of them was written.", _one(pending.oldest_at)
    if status.days:
        yield "drain_today_mails", "Mails since midnight, by what became of them.", _ends(status.today)
        yield "drain_week_mails", "Mails of today and the six days before, the same.", _ends(status.week)
        today = status.days[-1]
        yield "drain_today_delay_median_seconds", "Median from bucket to inbox, today.", _one(today.delay_median)
        yield "drain_today_delay_p95_seconds", "95th percentile of the same.", _one(today.delay_p95)
        deferred = {one.reason: one.count for one in status.deferred}
        yield "drain_deferred_mails", "Mails that wait for another try, by reason.", _by("reason", deferred)
        yield "drain_quarantine_mails", "Mails in quarantine, by reason.", _by("reason", status.quarantine)
        yield "drain_unfinished_mails", "Mails between two steps, by state.", _by("state", status.unfinished)
        yield "drain_missing_mails", "Mails that were gone from the bucket, unfinished.", _one(status.missing)
    if relay is not None:
        open_ = {"waiting": relay.waiting, "sending": relay.sending, "held": relay.held}
        yield "drain_relay_mails", "Outgoing mails in the queue, by state.", _by("state", open_)
        yield "drain_relay_oldest_timestamp_seconds", "When the oldest of them was taken.", _one(relay.oldest_at)
        ended = {"relayed": relay.relayed_week, "failed": relay.failed_week}
        yield "drain_relay_week_mails", "Outgoing mails of seven days, by what became of them.", _by("state", ended)
    if "logbook" in status.schemas:
        since = {(alert.kind, alert.subject): alert.since for alert in status.alerts}
        on = [({"kind": kind, "subject": subject}, at) for (kind, subject), at in since.items()]
        yield "drain_alerts", "Alerts that are on.", _one(len(on))
        yield "drain_alert_since_timestamp_seconds", "Since when each alert is on.", on


def _one(value: float | None) -> Iterable[_Sample]:
    return [({}, value)]


def _by(label: str, values: Mapping[str, float]) -> Iterable[_Sample]:
    return [({label: name}, value) for name, value in values.items()]


def _ends(ends: Ends) -> Iterable[_Sample]:
    return _by("disposition", asdict(ends))


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""
