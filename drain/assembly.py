"""From the configuration to the parts: the one place that hands each part its settings."""

import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from drain import bucket as bucket_module, directory, recipients as recipients_module
from drain.bucket import Bucket
from drain.config import Config
from drain.delivery import Prefixes
from drain.inject import Session
from drain.keys import KeyRing
from drain.log import Log
from drain.login import Server
from drain.notify import Notifier
from drain.opener import Opener
from drain.routing import ROLES, Router, load_aliases
from drain.service import Service
from drain.sessions import Sessions
from drain.sweep import Sweep


def bucket(config: Config) -> Bucket:
    """The bucket; no request is made yet."""
    return bucket_module.connect(
        endpoint_url=config.endpoint_url,
        bucket=config.r2_bucket,
        access_key_id=config.r2_access_key_id,
        secret_access_key=config.r2_secret_access_key,
        connections=config.concurrency + 1,  # one for the LIST
    )


def router(config: Config) -> Router:
    """The routing rules; reads the alias file."""
    aliases = {}
    if config.mail_aliases_file:
        aliases = load_aliases(Path(config.mail_aliases_file).expanduser(), config.mail_domain)
    return Router(
        domains=config.mail_domain,
        catch_all=config.catch_all,
        admin_mailbox=config.admin_mailbox,
        more_roles=frozenset(config.role_addresses),
        aliases=aliases,
    )


def opener(config: Config) -> Opener:
    """What opens objects; no key is read yet."""
    mailbridge = config.mailbridge_private_key_path
    return Opener(
        keys=KeyRing(config.private_key_file, Path(mailbridge).expanduser() if mailbridge else None),
        tokens=config.origin_token,
        sealed_only=config.sealed_only,
    )


def server(config: Config) -> Server:
    """The mail server; nothing is connected yet."""
    return Server(
        host=config.inject_host,
        port=config.inject_port,
        user=config.inject_user,
        password=config.inject_pass,
        tls=config.inject_tls,
        ca_file=config.inject_tls_ca_file,
    )


def sweep(config: Config, log: Log) -> Sweep:
    """What makes passes."""
    return Sweep(
        bucket=bucket(config),
        prefixes=Prefixes(config.pending_prefix, config.processed_prefix, config.quarantine_prefix),
        opener=opener(config),
        router=router(config),
        connect=partial(Session, server(config)),
        state_dir=config.state_dir,
        ledger_path=config.ledger_path,
        lock_path=config.lock_path,
        log=log,
        concurrency=config.concurrency,
        inject_connections=config.inject_connections,
        memory_budget=config.memory_budget,
        retention_seconds=config.ledger_retention_days * 86400,
        step=lambda step, name: log.debug("step", step=step.value, of=name),
    )


def recipients(
    config: Config, seen: Iterable[str], environ: Mapping[str, str]
) -> tuple[recipients_module.Recipients, list[str]]:
    """The mailboxes that exist, asked for at the mail server; and warnings.

    *seen* are addresses that mail was delivered for: asked for too, whatever a list forgets.
    """
    rules = router(config)
    lists = directory.listings(config.mail_users_file, config.maddy_config, environ)
    with contextlib.closing(Sessions(partial(Session, server(config)), 1)) as sessions:
        ask = recipients_module.asker(sessions)
        used, warnings = recipients_module.in_use(lists, rules, ask, vouched=bool(config.mail_users_file))
        names = {name for listing in used for name in listing.names}
        # The catch-all's usual name too: it is a mailbox still where it is not the catch-all.
        names |= {*seen, *rules.aliases, *ROLES, *rules.more_roles, rules.admin_mailbox, "inbox"}
        found = recipients_module.prove(rules, sorted(names), ask)
    if config.mail_users_file:
        vouched = {name for listing in lists if listing.source == config.mail_users_file for name in listing.names}
        warnings += [
            f"MAIL_USERS_FILE names {name}, which the mail server does not have; its mail would be refused."
            for name in recipients_module.unproven(rules, vouched, found)
        ]
    return found, warnings


def service(config: Config, log: Log, environ: Mapping[str, str]) -> Service:
    """What makes them when they are due."""
    return Service(sweep(config, log), log, Notifier(environ), config.poll_interval)
