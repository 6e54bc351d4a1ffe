"""The checks, in order."""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from drain import assembly, config as configuration, outbound, oversight
from drain.doctor import bucket, dkim, dns, files, machine, passes, seal, server, services, settings, systemd, termux
from drain.doctor.bounded import bounded
from drain.doctor.finding import Finding
from drain.doctor.say import Say
from drain.doctor.settings import Settings, sends_only
from drain.errors import ConfigError, DrainError
from drain.logbook import LOGBOOK
from drain.relay.tables import QUEUE
from drain.settings import Config
from drain.tables import LEDGER

# What Cloudflare takes, and the lines that drain puts on top.
_LARGEST_MAIL = 25 * 1024 * 1024 + 8 * 1024
# For what waits for a disk alone.
_LOCAL_SECONDS = 90.0
_BUCKET = ("R2_", "PENDING_PREFIX", "PROCESSED_PREFIX", "QUARANTINE_PREFIX")
_STATE = ("STATE_DIR", "LEDGER_DB", "LOCKFILE")


@dataclass(frozen=True)
class _Check:
    """One check.

    ``reads`` are the beginnings of the names of the settings without which it means
    nothing. ``login``: it shows a password to somebody.
    """

    name: str
    run: Callable[[Config, Mapping[str, str]], Iterable[Finding]]
    reads: tuple[str, ...] = ()
    login: bool = False


def examine(environ: Mapping[str, str], only: Collection[str] = ()) -> Iterator[Finding]:
    """What the checks find, as they find it: all of them, or *only* those of these names.

    What lacks a setting is `Level.UNKNOWN`. Nothing is raised.
    """
    read = settings.read(environ)
    if not only or settings.NAME in only:
        yield from read.findings
    for check in _CHECKS:
        if not only or check.name in only:
            yield from _guarded(check, read, environ)


def _guarded(check: _Check, read: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    say = Say(check.name)
    lacking = sorted(name for name in read.lacking if name.startswith(check.reads))
    if lacking and check.reads:
        yield say.unknown(f"It could not run: not right or not set: {', '.join(lacking)}.", "Mend the configuration.")
        return
    if check.login and not read.consistent:
        yield say.unknown("It was not run: settings contradict each other.", "Mend the configuration.")
        return
    try:
        yield from check.run(read.config, environ)
    except DrainError as error:
        yield say.unknown(f"It could not run: {error.args[0]}", error.hint or "Mend that, and try again.")
    except Exception as error:  # noqa: BLE001 - a bug in one check must not end the others
        yield say.unknown(
            f"It broke off: {type(error).__name__}: {error}", "This is a bug of drain's; please report it."
        )


# -- from the settings to each check --


def _files(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    folders = [config.state_dir, config.relay_folder]
    user = os.geteuid()
    return files.modes(files.with_secrets(config, environ), files.kept(config), folders, user=user)


def _ledger(config: Config, _environ: Mapping[str, str]) -> Iterator[Finding]:
    databases = [(config.ledger_path, LEDGER), (config.logbook_path, LOGBOOK)]
    if config.relay_enabled or config.relay_upstream:
        databases.append((config.relay_folder / "queue.db", QUEUE))
    found = chain.from_iterable(files.database(path, schema) for path, schema in databases)
    return bounded("ledger", _LOCAL_SECONDS * len(databases), found)


def _clock(config: Config, _environ: Mapping[str, str]) -> Iterable[Finding]:
    return () if sends_only(config) else bucket.clock(config.endpoint_url)


def _bucket(config: Config, _environ: Mapping[str, str]) -> Iterable[Finding]:
    prefixes = (config.pending_prefix, config.processed_prefix, config.quarantine_prefix)
    return () if sends_only(config) else bucket.rights(assembly.bucket(config), prefixes)


def _lifecycle(config: Config, _environ: Mapping[str, str]) -> Iterable[Finding]:
    if sends_only(config):
        return ()
    return bucket.lifecycle(assembly.bucket(config), assembly.prefixes(config), alert_days=config.alert_days)


def _keys(config: Config, _environ: Mapping[str, str]) -> Iterable[Finding]:
    if sends_only(config):
        return ()
    mailbridge = config.mailbridge_private_key_path
    found = seal.check(
        config.private_key_file, Path(mailbridge).expanduser() if mailbridge else None, assembly.opener(config)
    )
    return bounded("keys", _LOCAL_SECONDS, found)


def _server(config: Config, _environ: Mapping[str, str]) -> Iterator[Finding]:
    return server.check(assembly.server(config), assembly.router(config), largest=_LARGEST_MAIL)


def _dns(config: Config, _environ: Mapping[str, str]) -> Iterator[Finding]:
    signs = None
    if config.dkim_domain and config.dkim_selector:
        key = dkim.public_key(Path(config.dkim_key_file).expanduser()) if config.dkim_key_file else None
        signs = dkim.Dkim(config.dkim_domain, config.dkim_selector, key)
    return dns.check(
        config.mail_domain,
        resolvers=config.dns_resolvers,
        smarthosts=config.smarthosts,
        dkim=signs,
        upstream=config.relay_upstream,
        mailgun_domain=config.mailgun_domain,
    )


def _filters(config: Config, _environ: Mapping[str, str]) -> Iterator[Finding]:
    return services.filters(assembly.policy(config).filters)


def _upstream(config: Config, _environ: Mapping[str, str]) -> Iterable[Finding]:
    if not config.relay_upstream:
        return ()
    configuration.check_relay(config)
    return services.upstream(outbound.upstream(config))


def _relay(config: Config, _environ: Mapping[str, str]) -> Iterable[Finding]:
    if not config.relay_enabled:
        return ()
    certificate = bool(config.relay_tls_cert_file)
    return services.relay(config.relay_host, config.relay_port, tls=config.relay_tls, certificate=certificate)


def _imap(config: Config, _environ: Mapping[str, str]) -> Iterable[Finding]:
    try:
        asked = assembly.mailboxes(config)
    except ConfigError as error:
        return [Say("imap").failure(error.args[0], error.hint or "Check VERIFY_IMAP_LOGINS_FILE.")]
    return services.imap(asked, config.admin_mailbox) if asked else ()


def _alerts(config: Config, _environ: Mapping[str, str]) -> Iterator[Finding]:
    urls = {
        "NTFY_URL": config.ntfy_url,
        "ALERT_WEBHOOK_URL": config.alert_webhook_url,
        "HEALTHCHECK_URL": config.healthcheck_url,
    }
    return services.outlets(config.mail_alert_cmd, urls, mail=config.alert_mail)


def _passes(config: Config, _environ: Mapping[str, str]) -> Iterator[Finding]:
    found = oversight.status(config, time.time())
    named = {"METRICS_FILE": config.metrics_file, "STATUS_HTML": config.status_html}
    stale = oversight.stale_seconds(config)
    return passes.check(found, stale, {name: place for name, place in named.items() if place})


_CHECKS = (
    _Check("files", _files, _STATE),
    _Check("ledger", _ledger, _STATE),
    _Check("clock", _clock, ("R2_ACCOUNT_ID", "R2_ENDPOINT_URL", "R2_JURISDICTION")),
    _Check("bucket", _bucket, _BUCKET, login=True),
    _Check("lifecycle", _lifecycle, (*_BUCKET, "ALERT_DAYS"), login=True),
    _Check("keys", _keys, ("PRIVATE_KEY_FILE", "ORIGIN_TOKEN", "REQUIRE_SEALED", "MAILBRIDGE_")),
    _Check(
        "server",
        _server,
        ("INJECT_", "MAIL_DOMAIN", "MAIL_ADMIN_LOCALPART", "MAIL_ALIASES_FILE", "ROLE_ADDRESSES", "SPAM_RCPT"),
        login=True,
    ),
    _Check("dns", _dns, ("MAIL_DOMAIN", "DNS_RESOLVERS", "SMARTHOST_", "DKIM_", "RELAY_UPSTREAM")),
    _Check(
        "filters",
        _filters,
        ("FILTER", "AUTH_", "DNSBL_", "DNS_RESOLVERS", "SPAM", "CLAMD_", "AI_", "WEBHOOK_"),
        login=True,
    ),
    _Check("upstream", _upstream, ("MAIL_DOMAIN", "SMARTHOST_", "RELAY_", "MAILGUN_", "SES_"), login=True),
    _Check("relay", _relay, ("RELAY_",)),
    _Check("imap", _imap, ("VERIFY_IMAP_", "MAIL_DOMAIN", "MAIL_ADMIN_LOCALPART"), login=True),
    _Check("alerts", _alerts, ("MAIL_ALERT_", "NTFY_", "ALERT_WEBHOOK_", "HEALTHCHECK_", "ALERT_MAIL")),
    _Check("disk", lambda config, _environ: bounded("disk", _LOCAL_SECONDS, machine.disk(config.state_dir)), _STATE),
    _Check("lock", lambda config, _environ: bounded("lock", _LOCAL_SECONDS, machine.lock(config.lock_path)), _STATE),
    _Check("passes", _passes, (*_STATE, "ALERT_STALE_HOURS", "POLL_INTERVAL", "METRICS_FILE", "STATUS_HTML")),
    _Check("termux", lambda config, environ: termux.check(environ, config.state_dir), _STATE),
    _Check("systemd", lambda config, environ: systemd.check(environ)),
)
NAMES = (settings.NAME, *(check.name for check in _CHECKS))
