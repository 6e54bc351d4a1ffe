"""Every setting, declared once: name, type, default, help, whether it is secret.

From `Config` come validation, ``drain config`` and the reference in the README.
A setting is looked for, first hit wins: in the environment (``X``, then
``X_FILE`` if it is secret), in systemd's ``$CREDENTIALS_DIRECTORY/X`` if it is
secret, in ``drain.env`` (``X``, then ``X_FILE``), then the default. An empty
value counts as not set.
"""

import dataclasses
import difflib
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from drain import envfile
from drain.errors import ConfigError
from drain.setting import (
    PEM_BEGIN,
    Secret,
    Setting,
    account_id,
    choice,
    days,
    domain_key,
    domains,
    is_loopback,
    path,
    paths,
    prefix,
    seconds,
    setting,
    size,
    text,
    tokens,
    url,
    whole,
    words,
    yes_no,
    yes_no_auto,
)
from drain.text import clean


@dataclass(frozen=True)
class Config:
    """The settings, parsed. Field ``x`` is the setting ``X``."""

    # the bucket
    r2_account_id: str = setting(account_id, "Cloudflare account id; with it the endpoint is known.")
    r2_access_key_id: str = setting(text, "Access key id of an R2 API token (Object Read & Write).", required=True)
    r2_secret_access_key: Secret = setting(Secret, "Its secret access key.", secret=True, required=True)
    r2_bucket: str = setting(text, "Name of the bucket.", required=True)
    r2_jurisdiction: str = setting(
        choice("default", "eu", "fedramp"), "Jurisdiction that the bucket was made in.", default="default"
    )
    r2_endpoint_url: str = setting(url, "Any other S3 endpoint; then R2_ACCOUNT_ID is not needed.")
    pending_prefix: str = setting(prefix, "Where mail waits.", default="pending/")
    processed_prefix: str = setting(prefix, "Where delivered mail goes.", default="processed/")
    quarantine_prefix: str = setting(
        prefix, "Where mail goes that could not be delivered, for a person to look at.", default="quarantine/"
    )

    # the keys
    private_key_file: tuple[Path, ...] = setting(
        paths, "Private key that opens sealed mail, or several with colons; `drain keygen` makes one."
    )
    origin_token: tuple[Secret, ...] = setting(
        tokens,
        "What the Worker seals into each mail to show that it is from it; two, with a comma, while it is changed.",
        secret=True,
    )
    require_sealed: bool | None = setting(
        yes_no_auto,
        "Mail that is not sealed by this project's Worker goes to quarantine. `auto`: only if ORIGIN_TOKEN is set.",
        default="auto",
    )
    mailbridge_private_key_path: str = setting(text, "Private key that opens what Mailbridge's Worker stored.")

    # the mail server
    mail_domain: tuple[str, ...] = setting(
        domains, "Your mail domain, or several with commas; nothing is ever sent to another.", required=True
    )
    inject_host: str = setting(text, "Host of the mail server.", default="127.0.0.1")
    inject_port: int = setting(whole(1, 65535), "Port of its inject listener.", default="9125")
    inject_user: str = setting(text, "User name to log in with.", required=True)
    inject_pass: Secret = setting(Secret, "Password to log in with.", secret=True, required=True)
    inject_tls: str = setting(
        choice("auto", "starttls", "implicit", "none"),
        "`auto` takes STARTTLS where offered: verified if INJECT_TLS_CA_FILE is set or the host is not loopback. "
        "`starttls` and `implicit` insist on verified TLS; `none` is for loopback only.",
        default="auto",
    )
    inject_tls_ca_file: str = setting(text, "CA file, or the server's own certificate, to verify against.")
    inject_rcpt: str = setting(
        text,
        "Catch-all: mail that no mailbox takes goes there. Default: inbox@ the first domain. "
        "`none`: there is no catch-all, and such mail goes to quarantine.",
    )

    # routing
    mail_admin_localpart: str = setting(
        text, "Mailbox, at the first domain, for role addresses that have none of their own.", default="admin"
    )
    role_addresses: tuple[str, ...] = setting(
        words, "More role addresses, beside postmaster abuse hostmaster webmaster security dmarc root."
    )
    mail_users_file: str = setting(
        text, "Mailboxes, one a line, beside those that Maddy or Postfix list; read by `drain publish-recipients` only."
    )
    maddy_config: str = setting(text, "Maddy's configuration; read by `drain publish-recipients` only.")
    mail_aliases_file: str = setting(
        text, "Aliases, one a line: `sales: alice` or `sales@example.org: bob@example.org`; # begins a comment."
    )

    # the machine
    state_dir: Path = setting(
        path,
        "Folder for the ledger, the lock and the secret behind X-Drain-Id. Default: $STATE_DIRECTORY of a unit, or ~/.local/state/drain.",
    )
    ledger_db: str = setting(text, "The ledger. Default: ledger.db in STATE_DIR.")
    lockfile: str = setting(text, "The lock. Default: drain.lock in STATE_DIR.")
    ledger_retention_days: float = setting(
        days,
        "Days for which a delivered mail is remembered. Keep it longer than a mail can lie in the bucket.",
        default="365",
    )

    # the pass
    poll_interval: float = setting(seconds(1), "Seconds between two looks into the bucket.", default="60")
    concurrency: int = setting(whole(1, 256), "Mails in flight at once.", default="16")
    inject_connections: int = setting(whole(1, 64), "SMTP sessions at once.", default="2")
    memory_budget: int = setting(size, "Bytes of objects in flight at once; a larger one travels alone.", default="32M")
    oneshot: bool = setting(yes_no, "Bare `drain` makes one pass and ends.", default="false")
    log_addresses: bool = setting(yes_no, "`false` keeps mail addresses out of the log.", default="true")

    @property
    def endpoint_url(self) -> str:
        """The S3 endpoint."""
        if self.r2_endpoint_url:
            return self.r2_endpoint_url
        jurisdiction = "" if self.r2_jurisdiction == "default" else f".{self.r2_jurisdiction}"
        return f"https://{self.r2_account_id}{jurisdiction}.r2.cloudflarestorage.com"

    @property
    def catch_all(self) -> str:
        """The catch-all's full address; "" for none."""
        if self.inject_rcpt.strip().lower() == "none":
            return ""
        address = self.inject_rcpt or "inbox"
        return address if "@" in address else f"{address}@{self.mail_domain[0]}"

    @property
    def sealed_only(self) -> bool:
        """Whether mail has to be sealed: who can write to the bucket could walk around a token otherwise."""
        return bool(self.origin_token) if self.require_sealed is None else self.require_sealed

    @property
    def admin_mailbox(self) -> str:
        """The admin mailbox's full address."""
        return f"{self.mail_admin_localpart}@{self.mail_domain[0]}"

    @property
    def ledger_path(self) -> Path:
        """Where the ledger is."""
        return Path(self.ledger_db).expanduser() if self.ledger_db else self.state_dir / "ledger.db"

    @property
    def lock_path(self) -> Path:
        """Where the lock is."""
        return Path(self.lockfile).expanduser() if self.lockfile else self.state_dir / "drain.lock"


SETTINGS: dict[str, Setting] = {
    f.name.upper(): Setting(name=f.name.upper(), **dict(f.metadata)) for f in fields(Config)
}

# Names that pocket-homeserver's users have in their file and that mean nothing
# here; not a word about them, since that file is meant to be dropped in.
_POCKET_HOMESERVER_NAMES = frozenset(
    {
        "INBOX_USER",  # its mailbox, which is none of drain's business
        "INBOX_PASS",
        "INJECT_MAIL_FROM",  # drain keeps the original sender
        "MADDY_DIR",  # drain asks by RCPT, which needs no proot
        "PROOT_DISTRO",
        "ALERT_DAYS",
        "MAIL_ALERT_CMD",
        "DATA_DIR",
        "POCKET_STATE_DIR",
        "USER_AGENT",
    }
)
_ELSEWHERE = frozenset({"DRAIN_ENV_FILE"})


def _unknown_names(path: Path, names: Mapping[str, str]) -> list[str]:
    known = set(SETTINGS) | {f"{name}_FILE" for name, s in SETTINGS.items() if s.secret}
    warnings = []
    for name in names:
        if name in known | _POCKET_HOMESERVER_NAMES | _ELSEWHERE:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        warnings.append(f"{path}: {clean(name)} is no setting of drain." + (f" Is it {near[0]}?" if near else ""))
    return warnings


def _from_file(setting: Setting, path: str, said_by: str) -> str:
    try:
        content = Path(path).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{said_by} names {path}, which cannot be read: {error}.", f"Put the value of {setting.name} there."
        ) from error
    if not content:
        # Taken for "not set" it would turn off what the secret protects.
        raise ConfigError(f"{said_by} names {path}, which is empty.", f"Put the value of {setting.name} there.")
    return content


def _find(setting: Setting, environ: Mapping[str, str], file_values: Mapping[str, str]) -> str:
    """The text of one setting from the first place that has it, or ""."""
    for values in (environ, file_values):
        if text := values.get(setting.name):
            return text
        if setting.secret and (path := values.get(f"{setting.name}_FILE")):
            return _from_file(setting, path, f"{setting.name}_FILE")
        folder = environ.get("CREDENTIALS_DIRECTORY")
        if values is environ and setting.secret and folder and (Path(folder) / setting.name).is_file():
            return _from_file(setting, str(Path(folder) / setting.name), "CREDENTIALS_DIRECTORY")
    return ""


def _default_state_dir(environ: Mapping[str, str]) -> str:
    if unit := environ.get("STATE_DIRECTORY"):  # systemd's StateDirectory=
        return unit.split(":", 1)[0]
    base = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return f"{base}/drain"


def _value(setting: Setting, environ: Mapping[str, str], file_values: Mapping[str, str], where: str) -> Any:
    text = _find(setting, environ, file_values)
    if setting.name == "STATE_DIR" and not text:
        text = _default_state_dir(environ)
    if not text:
        if setting.required:
            raise ConfigError(f"{setting.name} is not set.", f"{setting.help} {where}")
        # Without a default the parser gives the empty value of its type.
        text = setting.default
    try:
        return setting.parse(text)
    except ValueError as error:
        shown = "" if setting.secret or PEM_BEGIN in text else f" {clean(text)!r}"
        raise ConfigError(f"{setting.name}{shown} is not right: it wants {error}.") from error


def load(environ: Mapping[str, str], *, complete: bool = True) -> tuple[Config, list[str]]:
    """The configuration and the warnings about it.

    Not *complete*: for commands that need neither the bucket nor the mail server.
    Then required settings may be missing, and have the empty value of their type.

    Raises:
        ConfigError: a setting is missing or wrong; the first one found is named.
    """
    path = envfile.find(environ)
    file_values: dict[str, str] = {}
    warnings: list[str] = []
    where = f"It is neither in the environment nor in {path}." if path else "No drain.env was found."
    if path is not None:
        file_values, warnings = envfile.read(path)
        warnings += _unknown_names(path, file_values)
    values = {}
    for f in fields(Config):
        setting = SETTINGS[f.name.upper()]
        if not complete:
            setting = dataclasses.replace(setting, required=False)
        values[f.name] = _value(setting, environ, file_values, where)
    config = Config(**values)
    if complete:
        _check_together(config)
    secret_files = [
        Path(named).expanduser()
        for name, setting in SETTINGS.items()
        if setting.secret and (named := environ.get(f"{name}_FILE") or file_values.get(f"{name}_FILE"))
    ]
    if config.mailbridge_private_key_path:
        secret_files.append(Path(config.mailbridge_private_key_path).expanduser())
    return config, warnings + envfile.readable_by_others([*secret_files, *config.private_key_file])


def _check_together(config: Config) -> None:
    """What no setting can say alone."""
    if not config.r2_account_id and not config.r2_endpoint_url:
        raise ConfigError("R2_ACCOUNT_ID is not set.", "It stands in the dashboard under R2, or set R2_ENDPOINT_URL.")
    endpoint = urllib.parse.urlsplit(config.endpoint_url)
    if endpoint.scheme == "http" and not is_loopback(endpoint.hostname or ""):
        raise ConfigError(
            f"R2_ENDPOINT_URL {clean(config.r2_endpoint_url)!r} would send mail in the clear.",
            "Use https://; http:// is for loopback.",
        )
    prefixes = [config.pending_prefix, config.processed_prefix, config.quarantine_prefix]
    if any("config/".startswith(prefix) or prefix.startswith("config/") for prefix in prefixes):
        raise ConfigError("PENDING_PREFIX, PROCESSED_PREFIX and QUARANTINE_PREFIX must leave config/ alone.")
    if any(a is not b and b.startswith(a) for a in prefixes for b in prefixes):
        raise ConfigError("PENDING_PREFIX, PROCESSED_PREFIX and QUARANTINE_PREFIX must not lie within each other.")
    if config.catch_all and domain_key(config.catch_all.rpartition("@")[2]) not in config.mail_domain:
        raise ConfigError(
            f"INJECT_RCPT {clean(config.catch_all)!r} is not in MAIL_DOMAIN.",
            "The catch-all has to be a mailbox of your own.",
        )
    if config.inject_tls == "none" and not is_loopback(config.inject_host):
        raise ConfigError(
            f"INJECT_TLS=none is for loopback only, and INJECT_HOST is {clean(config.inject_host)!r}.",
            "Set INJECT_TLS=starttls or implicit.",
        )


def shown(config: Config) -> dict[str, str]:
    """Each setting with its value as text, secrets as ``***``, for ``drain config``."""
    result = {}
    resolved = {
        "r2_endpoint_url": config.endpoint_url,
        "inject_rcpt": config.catch_all or "none",
        "require_sealed": config.sealed_only,
        "ledger_db": config.ledger_path,
        "lockfile": config.lock_path,
    }
    for f in dataclasses.fields(config):
        value = resolved.get(f.name, getattr(config, f.name))
        separator = ":" if f.name == "private_key_file" else ","
        result[f.name.upper()] = separator.join(map(str, value)) if isinstance(value, tuple) else str(value)
    return result


def reference() -> str:
    """The table of all settings in Markdown, as the README has it."""
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for s in SETTINGS.values():
        default = "**required**" if s.required else f"`{s.default}`" if s.default else ""
        rows.append(f"| `{s.name}` | {default} | {s.help}{' Secret.' if s.secret else ''} |")
    return "\n".join(rows) + "\n"
