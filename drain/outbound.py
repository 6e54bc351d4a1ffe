"""From the configuration to the parts of the relay: what `assembly` is for incoming mail."""

import contextlib
import datetime
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from drain import assembly, lock
from drain.errors import ConfigError
from drain.inject import Session
from drain.log import Log
from drain.relay import dsn
from drain.relay.bodies import BodyLost
from drain.relay.dispatch import Dispatch
from drain.relay.guard import Guard
from drain.relay.intake import Intake
from drain.relay.listener import Listener, tls_context
from drain.relay.policy import Policy
from drain.relay.queue import Entry, Message, Parcel, Queue, new_id
from drain.relay.relay import Relay
from drain.relay.returns import Returns
from drain.relay.signing import Signer
from drain.relay.step import Step
from drain.relay.users import Users
from drain.settings import Config
from drain.upstreams import Fate, Upstream

_DAY_SECONDS = 86400.0
# https://docs.aws.amazon.com/ses/latest/dg/send-email-authentication-dkim-manual.html
_REWRITTEN_BY_SES = frozenset({"Message-ID", "Date"})


def queue(
    config: Config, step: Callable[[Step, str], None] = lambda step, name: None, *, make_key: bool = False
) -> Queue:
    """The queue, opened; only who takes mail makes a key for it."""
    return Queue(
        config.relay_folder,
        config.relay_key_file,
        per_minute=config.rate_limit_per_minute,
        per_day=config.rate_limit_per_day,
        make_key=make_key,
        step=step,
    )


def upstream(config: Config) -> Upstream:  # one import a branch: each costs time and memory on a phone
    """Where outgoing mail goes; nobody is asked yet."""
    name, key, url = config.relay_upstream, config.relay_api_key, config.relay_api_url
    if name == "cloudflare":
        from drain.upstreams.cloudflare import Cloudflare  # noqa: PLC0415 (as above)

        return Cloudflare(config.r2_account_id, key, url)
    if name == "mailgun":
        from drain.upstreams.mailgun import Mailgun  # noqa: PLC0415 (as above)

        return Mailgun(url or config.mailgun_base_url, config.mailgun_domain, key)
    if name == "postmark":
        from drain.upstreams.postmark import URL, Postmark  # noqa: PLC0415 (as above)

        return Postmark(key, url or URL)
    if name == "resend":
        from drain.upstreams.resend import URL, Resend  # noqa: PLC0415 (as above)

        return Resend(key, url or URL)
    if name == "sendgrid":
        from drain.upstreams.sendgrid import URL, SendGrid  # noqa: PLC0415 (as above)

        return SendGrid(key, url or URL)
    if name == "ses":
        from drain.upstreams.ses import Ses  # noqa: PLC0415 (as above)

        return Ses(config.ses_region, config.ses_access_key_id, key, url)
    from drain.upstreams import dane  # noqa: PLC0415 (as above)
    from drain.upstreams.smtp import Smtp  # noqa: PLC0415 (as above)

    return Smtp(
        config.smarthosts,
        config.smarthost_user,
        config.smarthost_pass,
        tls=config.smarthost_tls,
        ca_file=config.smarthost_tls_ca_file,
        resolver=dane.Resolver(config.dns_resolvers) if config.smarthost_dane else None,
        ehlo=config.mail_domain[0],
    )


@contextlib.contextmanager
def relay(
    config: Config,
    log: Log,
    *,
    step: Callable[[Step, str], None] = lambda step, name: None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Relay]:
    """The relay, not started; while the block runs the queue is nobody else's.

    Raises:
        LockHeld: another drain has it.
        ConfigError: a file that a setting names is not right.
    """
    to = upstream(config)
    hostname = config.mail_domain[0]
    users = Users(config.relay_users_path)
    signer = _signer(config)
    tls = _tls(config)
    with (
        lock.held(config.relay_folder / "relay.lock", log),
        contextlib.closing(queue(config, step, make_key=True)) as opened,
    ):
        returns = Dispatch(
            opened,
            Returns(partial(Session, assembly.server(config)), assembly.router(config)),
            log,
            inbound=True,
            workers=1,
            lifetime_seconds=config.relay_lifetime * _DAY_SECONDS,
            dsn=lambda entry, fates, now: None,
            step=step,
            clock=clock,
        )
        outgoing = Dispatch(
            opened,
            to,
            log,
            inbound=False,
            workers=config.relay_connections,
            lifetime_seconds=config.relay_lifetime * _DAY_SECONDS,
            dsn=partial(_report, opened, hostname),
            reported=returns.wake,
            step=step,
            clock=clock,
        )
        intake = Intake(
            queue=opened,
            policy=Policy(
                allowed_from=config.allowed_from,
                allowlist=config.recipient_allowlist,
                denylist=config.recipient_denylist,
                fallback=config.relay_from_fallback,
            ),
            own_senders=users.senders,
            upstream=to,
            signer=signer,
            hostname=hostname,
            log=log,
            news=outgoing.wake,
            clock=clock,
        )
        listener = Listener(
            intake,
            users,
            Guard(),
            host=config.relay_host,
            port=config.relay_port,
            networks=config.relay_allowed_cidrs,
            tls_context=tls,
            tls=config.relay_tls,
            max_size=min(config.relay_max_size, to.most_bytes),
            max_recipients=config.relay_max_recipients,
            memory_budget=config.memory_budget,
            log=log,
        )
        yield Relay(opened, listener, outgoing, returns, log, clock, _words(config, users, log))


def _words(config: Config, users: Users, log: Log) -> str:
    """Where mail goes and how many may log in, behind "listens"; nobody at all is told."""
    try:
        number = len(users.names())
        if not number:
            log.warning("relay", message="Nobody can log in to the relay. `drain relay user add NAME` adds a user.")
    except ConfigError as error:
        number = 0
        log.alert("relay", message=str(error))
    places = ", ".join(f"{host}:{port}" for host, port in config.smarthosts) if config.relay_upstream == "smtp" else ""
    return f" of {config.relay_host}, {number} user{'s' * (number != 1)}, to {places or config.relay_upstream}"


def _report(queue: Queue, hostname: str, entry: Entry, fates: Mapping[str, Fate], now: float) -> Parcel | None:
    """The DSN for those recipients of an entry that failed; None where nobody wants to hear of it."""
    mail = entry.mail
    if not mail.return_path:
        return None
    try:
        original = queue.body(entry)
    except BodyLost:
        original = b""
    raw = dsn.build(
        sender=mail.return_path,
        fates=fates,
        header=original,
        arrived=_time(mail.received_at),
        now=_time(now),
        attempted=_time(entry.updated_at),
        hostname=hostname,
        queue_id=entry.id[:16],
    )
    message = Message(
        id=new_id(),
        inbound=True,
        user="",
        sender="",
        return_path="",
        message_id="",
        size=len(raw),
        received_at=now,
    )
    return Parcel(message, [(mail.return_path,)], raw)


def _time(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)


def _signer(config: Config) -> Signer | None:
    if not config.dkim_domain:
        return None
    unsigned = _REWRITTEN_BY_SES if config.relay_upstream == "ses" else frozenset()
    return Signer(config.dkim_domain, config.dkim_selector, Path(config.dkim_key_file).expanduser(), unsigned=unsigned)


def _tls(config: Config) -> ssl.SSLContext | None:
    if not config.relay_tls_cert_file:
        return None
    return tls_context(Path(config.relay_tls_cert_file).expanduser(), Path(config.relay_tls_key_file).expanduser())
