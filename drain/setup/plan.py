"""What a mail server needs to know, from drain.env and the words of the command."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drain import assembly, config as configuration, envfile
from drain.errors import ConfigError, WrongUse
from drain.places import address, domain_key
from drain.setting import Secret
from drain.settings import Config
from drain.text import clean

# RFC 8375: names in a home; nobody else has it, and no mail domain can be the same.
HOSTNAME = "mail.home.arpa"
# Where the mail server listens; of IPv6 it has nothing.
_HERE = ("127.0.0.1", "localhost")
_USER = "drain"
_PASSWORD_BYTES = 24


@dataclass(frozen=True)
class Relay:
    """Outgoing mail goes to drain's relay on 127.0.0.1: ``users_file`` is where its logins are."""

    port: int
    users_file: Path
    enabled: bool


@dataclass(frozen=True)
class Smarthost:
    """Outgoing mail goes straight to a smarthost: hosts and ports in order; no ``user``: no login.

    ``tls`` is as SMARTHOST_TLS, ``ca_file`` as SMARTHOST_TLS_CA_FILE ("": the system's).
    """

    places: tuple[tuple[str, int], ...]
    user: str
    password: Secret
    tls: str
    ca_file: str


@dataclass(frozen=True)
class Plan:
    """What both servers are set up from.

    Attributes:
        env_file: drain.env, which need not be there yet.
        hostname: the server's name in its banner, in Received, and as the realm of logins.
        domains: the mail domains, in the form of `drain.places.domain_key`.
        mailboxes: full addresses that have to be there: the admin mailbox, the catch-all, that for
            spam, targets of aliases, and those of ``--mailbox``; each once.
        admin: the first of them.
        junk_folder: whether spam goes to ``alice+junk@`` (SPAM_RCPT=+junk).
        port: of the inject listener on 127.0.0.1.
        user, password: the login there.
        new_login: what of it drain.env does not have yet, by setting; written before all else.
        outbound: where outgoing mail goes; None: nowhere.
        pinned: the public copy of its certificate, for INJECT_TLS_CA_FILE.
    """

    env_file: Path
    hostname: str
    domains: tuple[str, ...]
    mailboxes: tuple[str, ...]
    admin: str
    junk_folder: bool
    port: int
    user: str
    password: Secret
    new_login: Mapping[str, str]
    tls: str
    outbound: Relay | Smarthost | None

    @property
    def pinned(self) -> Path:
        """The public copy of its certificate, beside drain.env."""
        return self.env_file.parent / "mail-server.pem"

    @property
    def settings(self) -> dict[str, str]:
        """What drain.env has to say of the certificate."""
        # With STARTTLS only: the listener has no other TLS.
        tls = {} if self.tls in ("auto", "starttls") else {"INJECT_TLS": "auto"}
        return {**tls, "INJECT_TLS_CA_FILE": str(self.pinned)}


def make(environ: Mapping[str, str], mailboxes: Sequence[str] = (), outbound: str | None = None) -> Plan:
    """The plan; *mailboxes* and *outbound* are ``--mailbox`` and ``--outbound``. Changes nothing.

    Raises:
        ConfigError: a setting is missing or wrong.
        WrongUse: a mailbox is no address in MAIL_DOMAIN.
    """
    path = env_file(environ)
    # As drain's user, who says in drain.env which other files are read.
    with as_owner(path):
        config, _ = configuration.load(
            {**environ, "DRAIN_ENV_FILE": str(path if path.exists() else "/dev/null")}, complete=False
        )
    if not config.mail_domain:
        raise ConfigError("MAIL_DOMAIN is not set.", f"Put your mail domain into {path}, or run `drain init`.")
    if config.inject_host not in _HERE:
        raise ConfigError(
            f"INJECT_HOST is {clean(config.inject_host)}: `drain setup` sets up the mail server of this machine, "
            "on 127.0.0.1.",
            "Leave INJECT_HOST out.",
        )
    if config.inject_user.startswith("-") or not config.inject_user.isprintable():
        raise ConfigError(f"INJECT_USER {clean(config.inject_user)!r} can be no login.", "Choose another name.")
    with as_owner(path):
        addresses = _mailboxes(config, mailboxes)
    made = {
        **({} if config.inject_user else {"INJECT_USER": _USER}),
        **({} if config.inject_pass else {"INJECT_PASS": secrets.token_urlsafe(_PASSWORD_BYTES)}),
    }
    return Plan(
        env_file=path,
        hostname=HOSTNAME,
        domains=config.mail_domain,
        mailboxes=addresses,
        admin=config.admin_mailbox,
        junk_folder=config.spam_mailbox == "+junk",
        port=config.inject_port,
        user=config.inject_user or _USER,
        password=config.inject_pass or Secret(made["INJECT_PASS"]),
        new_login=made,
        tls=config.inject_tls,
        outbound=_outbound(config, outbound),
    )


def env_file(environ: Mapping[str, str]) -> Path:
    """The drain.env that is there, or the place for one.

    Raises:
        ConfigError: it is no file that could be written.
    """
    usual = "/etc/drain/drain.env" if os.geteuid() == 0 else "~/.config/drain/drain.env"
    path = (envfile.find(environ) or Path(usual).expanduser()).absolute()
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file, and `drain setup` writes into drain.env.", "Set DRAIN_ENV_FILE.")
    return path


def owner(path: Path) -> tuple[int, int]:
    """User and group of *path*, or of the nearest folder above it that is there; of a link, whoever made it."""
    about = next(place for place in (path, *path.parents) if os.path.lexists(place)).lstat()
    return about.st_uid, about.st_gid


@contextlib.contextmanager
def as_owner(path: Path) -> Iterator[None]:
    """As whoever owns *path*, or the nearest folder above it that is there; nothing but for root.

    What is drain's stays drain's in this way, and drain's own checks of owners hold.
    """
    if os.geteuid() != 0:
        yield
        return
    user, group = owner(path)
    groups = os.getgroups()
    os.setgroups([group])
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _mailboxes(config: Config, more: Sequence[str]) -> tuple[str, ...]:
    spam = "" if config.spam_mailbox == "+junk" else config.spam_mailbox
    aliases = assembly.router(config).aliases.values()
    named = [_mailbox(word, config.mail_domain) for word in more]
    wanted = [config.admin_mailbox, config.catch_all, spam, *aliases, *named]
    once: dict[str, str] = {}
    for word in filter(None, wanted):
        if word.startswith("-"):
            raise ConfigError(f"{clean(word)!r} can be no mailbox: it begins with a hyphen.", "Choose another name.")
        once.setdefault(word.lower(), word)
    return tuple(once.values())


def _mailbox(word: str, domains: tuple[str, ...]) -> str:
    local, at, domain = word.rpartition("@")
    whole = f"{local}@{domain_key(domain)}" if at else f"{word}@{domains[0]}"
    with contextlib.suppress(ValueError):
        if whole.rpartition("@")[2] in domains and address(whole) and not whole.startswith("-"):
            return whole
    raise WrongUse(f"--mailbox {clean(word)!r} is no mailbox in MAIL_DOMAIN.", f"Give one at {', '.join(domains)}.")


def _outbound(config: Config, way: str | None) -> Relay | Smarthost | None:
    if way is None:
        way = "relay" if config.relay_enabled else "smarthost" if config.smarthost_host else "none"
    if way == "relay":
        if config.relay_host not in _HERE:
            raise ConfigError(
                f"RELAY_HOST is {clean(config.relay_host)}, and the mail server would log in to it on 127.0.0.1.",
                "Say --outbound smarthost or none.",
            )
        return Relay(config.relay_port, config.relay_users_path, config.relay_enabled)
    if way == "smarthost":
        if not config.smarthost_host:
            raise ConfigError("SMARTHOST_HOST is not set.", "Without a smarthost, say --outbound none.")
        configuration.check_smarthost(config)
        return Smarthost(
            config.smarthosts,
            config.smarthost_user,
            config.smarthost_pass,
            config.smarthost_tls,
            config.smarthost_tls_ca_file,
        )
    return None
