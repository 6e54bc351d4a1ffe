"""The bucket: the clock against its own, what the token may do, and which lifecycle rules there are."""

import email.utils
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from drain import request
from drain.bucket import Bucket
from drain.doctor.finding import Finding, Level
from drain.doctor.say import Say
from drain.errors import BucketRefused, DrainError
from drain.listing import ListedObject
from drain.prefixes import Prefixes

_CLOCK, _BUCKET, _LIFECYCLE = Say("clock"), Say("bucket"), Say("lifecycle")
_CLOCK_SECONDS = 15.0
_CLOCK_WARNING_SECONDS = 60.0
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, RequestTimeTooSkewed; R2 has the same.
_CLOCK_LIMIT_SECONDS = 900.0
_SET_CLOCK = "Set the clock: timedatectl set-ntp true; on Android, automatic date and time."
_PROBE = b"drain doctor was here. This can be deleted.\n"
_NEEDS = "The token needs Object Read & Write on this bucket."
# Between the first alert and the end of a mail that nobody has brought home.
_MARGIN_DAYS = 7.0
_DASHBOARD = "In Cloudflare's dashboard: R2, the bucket, Settings, Object lifecycle rules."


def clock(endpoint_url: str, *, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """This machine's clock against the Date of an answer; nothing is signed for it, so that it shows in any case."""
    service = request.Service("R2", "R2_ACCOUNT_ID or R2_ENDPOINT_URL", "")
    before = now()
    try:
        answer = request.get(endpoint_url, headers={}, secrets=(), seconds=_CLOCK_SECONDS, service=service)
    except request.NoResponse as error:
        hint = error.hint
        if "certificate" in error.message:
            hint = f"A clock that is far off makes certificates look wrong: look at `date` first. {hint}"
        yield _CLOCK.unknown(error.message, hint)
        return
    after = now()
    try:
        theirs = email.utils.parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        yield _CLOCK.unknown("R2's answer has no date.", "Look at `date` yourself.")
        return
    # Their second may be any part of it, and the answer took a while.
    off = max(0.0, before - theirs - 1, theirs - after)
    way = "ahead of" if before > theirs else "behind"
    words = f"The clock of this machine is {_span(off)} {way} R2's."
    if off > _CLOCK_LIMIT_SECONDS:
        yield _CLOCK.failure(f"{words} Beyond 15 minutes R2 refuses every request.", _SET_CLOCK)
    elif off > _CLOCK_WARNING_SECONDS:
        yield _CLOCK.warning(words, _SET_CLOCK)
    else:
        yield _CLOCK.ok(f"The clock of this machine agrees with R2's to {off:.0f} s.")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"


# -- what the token may do --


def rights(bucket: Bucket, prefixes: Sequence[str]) -> Iterator[Finding]:
    """Each thing that a pass does in the bucket, done; what is written is a probe, and is removed.

    A probe's name has no slash in it, so that it lies under no prefix that a pass looks at.
    """
    for prefix in prefixes:
        try:
            next(bucket.pages(prefix), None)
        except DrainError as error:
            yield _failed(f"Listing {prefix}", error)
            yield _BUCKET.unknown("Putting, getting, copying and deleting were not tried for that.")
            return
    yield _BUCKET.ok(f"{', '.join(prefixes)} can be listed.")
    name = f"probe-doctor-{secrets.token_hex(8)}"
    names = [name, f"{name}-copy"]
    left: DrainError | None = None
    try:
        findings = list(_tried(bucket, *names))
    finally:
        for one in names:
            try:
                bucket.remove(one)
            except DrainError as error:
                left = error
    yield from findings
    if left is not None:
        yield _failed("Deleting (DeleteObject)", left)
        words = f"{names[0]} and {names[1]} may have been left in the bucket."
        yield _BUCKET.warning(words, "Delete them in Cloudflare's dashboard.")
    elif findings[-1].level is Level.OK:
        yield from _gone(bucket, names)


def _tried(bucket: Bucket, name: str, copy: str) -> Iterator[Finding]:
    try:
        bucket.put(name, _PROBE, "text/plain")
    except DrainError as error:
        yield _failed("Writing (PutObject)", error)
        yield _BUCKET.unknown("Getting and copying were not tried for that.")
        return
    version = None
    try:
        version = bucket.look(name)
        fetched = bucket.get(version) if version else None
    except DrainError as error:
        yield _failed("Reading (GetObject)", error)
        fetched = None
    else:
        if fetched is None or fetched.body != _PROBE:
            words = "Reading gave something else than was written a moment before."
            yield _BUCKET.failure(words, "Does another program, or a rule, touch this bucket?")
    if version is None or fetched is None:
        yield _BUCKET.unknown("Copying was not tried for that.")
        return
    yield from _copied(bucket, version, copy)


def _copied(bucket: Bucket, version: ListedObject, to: str) -> Iterator[Finding]:
    try:
        done = bucket.copy(version, to, {"probe": "doctor"})
    except DrainError as error:
        yield _failed("Copying (CopyObject)", error)
        return
    if done:
        yield _BUCKET.ok("A probe could be put, got and copied.")
    else:
        yield _BUCKET.failure("Copying found the probe changed or gone.", _NEEDS)


def _gone(bucket: Bucket, names: Sequence[str]) -> Iterator[Finding]:
    try:
        there = [name for name in names if bucket.exists(name)]
    except DrainError as error:
        yield _failed("Looking for what was deleted", error)
        return
    if there:
        words = f"Deleted, and still there: {', '.join(there)}."
        yield _BUCKET.failure(words, "Look for a bucket lock rule: drain has to move mail away.")
    else:
        yield _BUCKET.ok("It could be deleted. (A bucket lock on a prefix alone does not show here.)")


def _failed(what: str, error: DrainError) -> Finding:
    hint = error.hint or (_NEEDS if isinstance(error, BucketRefused) else "Try again later.")
    return _BUCKET.failure(f"{what} failed. {error.args[0]}", hint)


# -- lifecycle rules --


def lifecycle(bucket: Bucket, prefixes: Prefixes, *, alert_days: float) -> Iterator[Finding]:
    """What deletes objects by itself: a rule under ``pending/`` is the one place where mail can be lost."""
    try:
        rules = bucket.lifecycle_rules()
    except BucketRefused as error:
        if "AccessDenied" not in error.args[0]:
            yield _LIFECYCLE.unknown(error.args[0], error.hint)
            return
        words = "The lifecycle rules are not for this token to read, which is as it should be: only an admin token may."
        look = f"{_DASHBOARD} {prefixes.pending} is better without one, or with one of 30 days; {prefixes.processed} "
        yield _LIFECYCLE.unknown(words, f"{look}with one of 7 days.")
        return
    except DrainError as error:
        yield _LIFECYCLE.unknown(f"The lifecycle rules could not be read. {error.args[0]}", _DASHBOARD)
        return
    deleting = [rule for rule in rules if rule.get("Status") == "Enabled" and rule.get("Expiration")]
    yield from _of_pending(
        [rule for rule in deleting if _touches(rule, prefixes.pending)], prefixes.pending, alert_days
    )
    days = [_days(rule) for rule in deleting if prefixes.processed.startswith(_prefix(rule))]
    if days:
        yield _LIFECYCLE.ok(f"{prefixes.processed} is emptied after {_in_days(min(days))}.")
    else:
        words = f"No rule empties {prefixes.processed}, so that it grows for ever."
        yield _LIFECYCLE.warning(words, f"Make one of 7 days. {_DASHBOARD}")
    if any(_touches(rule, prefixes.quarantine) for rule in deleting):
        words = f"A rule deletes mail under {prefixes.quarantine}, perhaps before anybody has looked at it."
        yield _LIFECYCLE.warning(words, f"Take it away. {_DASHBOARD}")


def _of_pending(rules: Sequence[Mapping[str, Any]], pending: str, alert_days: float) -> Iterator[Finding]:
    if not rules:
        yield _LIFECYCLE.ok(f"No rule deletes what waits under {pending}.")
        return
    days = min(_days(rule) for rule in rules)
    words = f"A rule deletes mail under {pending} after {_in_days(days)}, also what was never brought home."
    longer = f"Take it away, or make it 30 days. {_DASHBOARD}"
    if days <= alert_days:
        words = f"{words} That is before the alert of ALERT_DAYS={alert_days:g}."
        yield _LIFECYCLE.failure(words, longer)
    elif not alert_days:
        yield _LIFECYCLE.warning(f"{words} ALERT_DAYS=0: nobody is told before.", "Set ALERT_DAYS=3.")
    elif days < alert_days + _MARGIN_DAYS:
        words = f"{words} The alert of ALERT_DAYS={alert_days:g} leaves {_in_days(days - alert_days)} to act."
        yield _LIFECYCLE.warning(words, longer)
    else:
        yield _LIFECYCLE.ok(f"{words} There is an alert after {_in_days(alert_days)}.")


def _prefix(rule: Mapping[str, Any]) -> str:
    """S3 has it in one of three places; "" is the whole bucket."""
    where = rule.get("Filter") or {}
    return str((where.get("And") or {}).get("Prefix") or where.get("Prefix") or rule.get("Prefix") or "")


def _touches(rule: Mapping[str, Any], prefix: str) -> bool:
    return prefix.startswith(_prefix(rule)) or _prefix(rule).startswith(prefix)


def _days(rule: Mapping[str, Any]) -> float:
    """After how many days; a rule with a date deletes everything on that day: 0."""
    return float(rule["Expiration"].get("Days", 0))


def _in_days(days: float) -> str:
    return f"{days:g} day{'s' * (days != 1)}" if days else "a fixed date"
