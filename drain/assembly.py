"""From the configuration to the parts: the one place that hands each part its settings.

Each function imports what it makes: most are for a pass that has something to do, and an
idle one is over in less time than they take to load.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from drain import bucket as bucket_module
from drain.bucket import Bucket
from drain.errors import ConfigError
from drain.log import Log
from drain.prefixes import Prefixes
from drain.setting import Secret
from drain.settings import Config
from drain.sweep import Sweep

if TYPE_CHECKING:
    from drain.filters import Filter
    from drain.filters.policy import Policy
    from drain.inject import Session
    from drain.login import Server
    from drain.mailboxes import Mailboxes
    from drain.marks import Marks
    from drain.opener import Opener
    from drain.recipients import Recipients
    from drain.routing import Router
    from drain.tools import Tools


def bucket(config: Config, *, lazy: bool = False) -> Bucket:
    """The bucket; no request is made yet. With *lazy* boto3 is not loaded either, until there is one that needs it."""
    made = bucket_module.connect(
        endpoint_url=config.endpoint_url,
        bucket=config.r2_bucket,
        access_key_id=config.r2_access_key_id,
        secret_access_key=config.r2_secret_access_key,
        connections=2 * config.concurrency + 1,  # what is at work, what is removed, and one for the LIST
    )
    if not lazy:
        made.load()
    return made


def router(config: Config) -> "Router":
    """The routing rules; reads the alias file."""
    from drain.routing import Router, load_aliases  # noqa: PLC0415 (as above)

    aliases = {}
    if config.mail_aliases_file:
        aliases = load_aliases(Path(config.mail_aliases_file).expanduser(), config.mail_domain)
    return Router(
        domains=config.mail_domain,
        catch_all=config.catch_all,
        admin_mailbox=config.admin_mailbox,
        more_roles=frozenset(config.role_addresses),
        aliases=aliases,
        junk=junk(config),
    )


def junk(config: Config) -> str:
    """The mailbox for junk; "" for ``<mailbox>+junk``, or where there is none."""
    return "" if config.spam_mailbox == "+junk" else config.spam_mailbox


def opener(config: Config) -> "Opener":
    """What opens objects; no key is read yet."""
    from drain.keys import KeyRing  # noqa: PLC0415 (as above)
    from drain.opener import Opener  # noqa: PLC0415

    mailbridge = config.mailbridge_private_key_path
    return Opener(
        keys=KeyRing(config.private_key_file, Path(mailbridge).expanduser() if mailbridge else None),
        tokens=config.origin_token,
        sealed_only=config.sealed_only,
    )


def policy(config: Config) -> "Policy":
    """Which filters run and what they may do; nobody is asked yet."""
    from drain.filters import Action  # noqa: PLC0415 (as above)
    from drain.filters.chain import Rules  # noqa: PLC0415
    from drain.filters.policy import Policy  # noqa: PLC0415

    return Policy(
        filters=tuple(filter_named(name, config) for name in config.filters),
        rules=Rules(
            tag_score=config.spam_tag_score,
            quarantine_score=config.spam_quarantine_score,
            spam_action=Action.JUNK if config.spam_mailbox else Action.TAG,
            allow_discard=config.allow_discard,
        ),
        fail_open=frozenset(config.filter_fail_open),
        budgets={"ai": config.ai_monthly_calls},
    )


def filter_named(name: str, config: Config) -> "Filter":  # one import a branch: each costs time and memory on a phone
    """One filter of `settings.FILTERS`, with its settings."""
    seconds = config.filter_timeout.get(name, 0.0)
    if name == "dnsbl":
        from drain.filters.dnsbl import Dnsbl  # noqa: PLC0415 (as above)

        return Dnsbl(
            ip_zones=config.dnsbl_ip_zones,
            domain_zones=config.dnsbl_domain_zones,
            links=config.dnsbl_links,
            resolvers=config.dns_resolvers,
            dqs_key=config.spamhaus_dqs_key,
            score=config.dnsbl_score,
            timeout_seconds=seconds,
        )
    if name == "spamassassin":
        from drain.filters.spamassassin import SpamAssassin, server_of  # noqa: PLC0415 (as above)

        with _said_of("SPAMD_HOST"):
            return SpamAssassin(server_of(config.spamd_host, config.spamd_port), config.spamd_max_size, seconds)
    if name == "clamav":
        from drain.filters.clamav import ClamAv  # noqa: PLC0415 (as above)

        with _said_of("CLAMD_SOCKET"):
            return ClamAv(config.clamd_socket, seconds)
    if name == "ai":
        from drain.filters.ai import Ai  # noqa: PLC0415 (as above)

        return Ai(
            base_url=config.ai_base_url,
            api_key=config.ai_api_key,
            model=config.ai_model,
            scope=config.ai_input_scope,
            response_format=config.ai_response_format,
            timeout_seconds=seconds,
        )
    if name == "decision":
        from drain.filters.decision import Decision  # noqa: PLC0415 (as above)

        return Decision(
            url=config.webhook_decision_url,
            token=config.webhook_decision_token,
            mode=config.webhook_decision_payload_mode,
            timeout_seconds=seconds,
        )
    from drain.filters import Action  # noqa: PLC0415 (as above)
    from drain.filters.auth import Auth  # noqa: PLC0415

    return Auth({method: Action[word.upper()] for method, word in config.auth_fail_action.items()})


@contextlib.contextmanager
def _said_of(name: str) -> Iterator[None]:
    """A setting that only its filter can judge."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{name} is not right: it wants {error}.") from error


def marks(config: Config) -> "Marks":
    """What a mail gets on its way in."""
    from drain.marks import Marks  # noqa: PLC0415 (as above)

    return Marks(
        tag_score=config.spam_tag_score,
        subject_tag=config.spam_subject_tag,
        exchange=config.exchange_headers,
        strip_forged=config.strip_forged,
    )


def server(config: Config) -> "Server":
    """The mail server; nothing is connected yet."""
    from drain.login import Server  # noqa: PLC0415 (as above)

    return Server(
        host=config.inject_host,
        port=config.inject_port,
        user=config.inject_user,
        password=config.inject_pass,
        tls=config.inject_tls,
        ca_file=config.inject_tls_ca_file,
    )


def session(config: Config) -> "Session":
    """A session with the mail server, logged in."""
    from drain.inject import Session  # noqa: PLC0415 (as above)

    return Session(server(config))


def mailboxes(config: Config) -> "Mailboxes | None":
    """Where mail is looked for whose delivery was cut off; reads the file of logins, and asks nobody yet."""
    if not config.verify_imap_host:
        return None
    from drain.login import Server  # noqa: PLC0415 (as above)
    from drain.mailboxes import Mailboxes, load_logins  # noqa: PLC0415

    return Mailboxes(
        server=Server(
            host=config.verify_imap_host,
            port=config.verify_imap_port,
            user="",
            password=Secret(""),
            tls=config.verify_imap_tls,
            ca_file=config.verify_imap_tls_ca_file,
            name="IMAP server",
            settings="VERIFY_IMAP",
        ),
        logins=load_logins(Path(config.verify_imap_logins_file).expanduser()),
        grace_seconds=config.verify_imap_grace,
    )


def _mailboxes_or_none(config: Config, log: Log) -> "Mailboxes | None":
    """What is asked to spare a second copy must not stop the first."""
    try:
        return mailboxes(config)
    except ConfigError as error:
        log.warning("configuration", message=f"{error} No mailbox is asked.")
        return None


def prefixes(config: Config) -> Prefixes:
    """Where mail lies in the bucket."""
    return Prefixes(config.pending_prefix, config.processed_prefix, config.quarantine_prefix)


def sweep(config: Config, log: Log) -> Sweep:
    """What makes passes; reads the files that settings name, if any, and asks nobody yet."""
    made = cache(partial(tools, config, log))
    if config.mail_aliases_file or config.verify_imap_host or set(config.filters) - {"auth"}:
        made()  # a mistake in these is said at once, not with the first mail
    return Sweep(
        bucket=bucket(config, lazy=True),  # an idle pass needs LIST alone
        prefixes=prefixes(config),
        tools=made,
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


def tools(config: Config, log: Log) -> "Tools":
    """What mails are worked on with; reads the alias file and the logins of mailboxes."""
    from drain.tools import Tools  # noqa: PLC0415 (as above)

    return Tools(
        opener=opener(config),
        router=router(config),
        connect=partial(session, config),
        policy=policy(config),
        marks=marks(config),
        mailboxes=_mailboxes_or_none(config, log),
    )


def recipients(config: Config, seen: Iterable[str], environ: Mapping[str, str]) -> "tuple[Recipients, list[str]]":
    """The mailboxes that exist, asked for at the mail server; and warnings.

    *seen* are addresses that mail was delivered for: asked for too, whatever a list forgets.
    """
    from drain import directory, recipients as asked  # noqa: PLC0415 (as above)
    from drain.routing import ROLES  # noqa: PLC0415
    from drain.sessions import Sessions  # noqa: PLC0415

    rules = router(config)
    lists = directory.listings(config.mail_users_file, config.maddy_config, environ)
    with contextlib.closing(Sessions(partial(session, config), 1)) as sessions:
        ask = asked.asker(sessions)
        used, warnings = asked.in_use(lists, rules, ask, vouched=bool(config.mail_users_file))
        names = {name for listing in used for name in listing.names}
        # The catch-all's usual name too: it is a mailbox still where it is not the catch-all.
        names |= {*seen, *rules.aliases, *ROLES, *rules.more_roles, rules.admin_mailbox, "inbox"}
        found = asked.prove(rules, sorted(names), ask)
    if config.mail_users_file:
        vouched = {name for listing in lists if listing.source == config.mail_users_file for name in listing.names}
        warnings += [
            f"MAIL_USERS_FILE names {name}, which the mail server does not have; its mail would be refused."
            for name in asked.unproven(rules, vouched, found)
        ]
    return found, warnings
