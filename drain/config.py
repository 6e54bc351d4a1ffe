"""Where the settings' values come from, and what is wrong with them.

A setting is looked for, first hit wins: in the environment (``X``, then
``X_FILE`` if it is secret), in systemd's ``$CREDENTIALS_DIRECTORY/X`` if it is
secret, in ``drain.env`` (``X``, then ``X_FILE``), then the default.
"""

import dataclasses
import urllib.parse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from drain import envfile
from drain.errors import ConfigError
from drain.places import domain_key, is_loopback, matches
from drain.setting import PEM_BEGIN, Setting
from drain.settings import SETTINGS, Config
from drain.text import clean

# Names that pocket-homeserver's users have in their file and that mean nothing
# here; not a word about them, since that file is meant to be dropped in.
_POCKET_HOMESERVER_NAMES = frozenset(
    {
        "INBOX_USER",  # its mailbox, which is none of drain's business
        "INBOX_PASS",
        "INJECT_MAIL_FROM",  # drain keeps the original sender
        "MADDY_DIR",  # drain asks by RCPT, which needs no proot
        "PROOT_DISTRO",
        "DATA_DIR",
        "POCKET_STATE_DIR",
        "USER_AGENT",
    }
)
_NEEDED_BY_UPSTREAM = {
    "smtp": ("SMARTHOST_HOST",),
    "cloudflare": ("RELAY_API_KEY", "R2_ACCOUNT_ID"),
    "mailgun": ("RELAY_API_KEY", "MAILGUN_DOMAIN"),
    "postmark": ("RELAY_API_KEY",),
    "resend": ("RELAY_API_KEY",),
    "sendgrid": ("RELAY_API_KEY",),
    "ses": ("SES_REGION",),
}
_DKIM = ("DKIM_DOMAIN", "DKIM_KEY_FILE", "DKIM_SELECTOR")
_ELSEWHERE = frozenset({"DRAIN_ENV_FILE"})


def _unknown_names(path: Path, names: Mapping[str, str]) -> list[str]:
    known = set(SETTINGS) | {f"{name}_FILE" for name, s in SETTINGS.items() if s.secret}
    unknown = [name for name in names if name not in known | _POCKET_HOMESERVER_NAMES | _ELSEWHERE]
    if not unknown:
        return []
    import difflib  # noqa: PLC0415 (for who made a mistake)

    warnings = []
    for name in unknown:
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


def _default_key_file(environ: Mapping[str, str]) -> str:
    base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return f"{base}/drain/relay.key"


def _value(setting: Setting, environ: Mapping[str, str], file_values: Mapping[str, str], where: str) -> Any:
    text = _find(setting, environ, file_values)
    if setting.name == "STATE_DIR" and not text:
        text = _default_state_dir(environ)
    if setting.name == "RELAY_KEY_FILE" and not text:
        text = _default_key_file(environ)
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
    secret_files += [config.relay_key_file]
    if config.verify_imap_logins_file:
        secret_files.append(Path(config.verify_imap_logins_file).expanduser())
    secret_files += [Path(name).expanduser() for name in (config.dkim_key_file, config.relay_tls_key_file) if name]
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
    check_filters(config)
    if config.verify_imap_host:
        _check_imap(config)
    if config.inject_tls == "none" and not is_loopback(config.inject_host):
        raise ConfigError(
            f"INJECT_TLS=none is for loopback only, and INJECT_HOST is {clean(config.inject_host)!r}.",
            "Set INJECT_TLS=starttls or implicit.",
        )


def _check_imap(config: Config) -> None:
    if not config.verify_imap_logins_file:
        raise ConfigError("VERIFY_IMAP_HOST is set, and VERIFY_IMAP_LOGINS_FILE is not.")
    if config.verify_imap_tls == "none" and not is_loopback(config.verify_imap_host):
        raise ConfigError(
            f"VERIFY_IMAP_TLS=none is for loopback only, and VERIFY_IMAP_HOST is {clean(config.verify_imap_host)!r}.",
            "Set VERIFY_IMAP_TLS=implicit or starttls.",
        )


def check_filters(config: Config) -> None:
    """Whether each filter has what it needs.

    Raises:
        ConfigError: one does not, or the thresholds do not fit together.
    """
    needed = {
        "ai": (("AI_BASE_URL", config.ai_base_url), ("AI_MODEL", config.ai_model)),
        "decision": (("WEBHOOK_DECISION_URL", config.webhook_decision_url),),
        "clamav": (("CLAMD_SOCKET", config.clamd_socket),),
        "dnsbl": (("DNSBL_IP_ZONES and DNSBL_DOMAIN_ZONES", config.dnsbl_ip_zones + config.dnsbl_domain_zones),),
    }
    for name in config.filters:
        for setting, value in needed.get(name, ()):
            if not value:
                raise ConfigError(f"FILTERS names {name}, and {setting} is not set.")
    if config.spam_quarantine_score < config.spam_tag_score:
        raise ConfigError("SPAM_QUARANTINE_SCORE is less than SPAM_TAG_SCORE.", "Nothing would ever be tagged.")
    mailbox = config.spam_mailbox
    if mailbox and mailbox != "+junk" and domain_key(mailbox.rpartition("@")[2]) not in config.mail_domain:
        raise ConfigError(
            f"SPAM_RCPT {clean(config.spam_rcpt)!r} is not in MAIL_DOMAIN.",
            "It has to be a mailbox of your own, or +junk.",
        )


def check_relay(config: Config) -> None:
    """Whether the relay has what it needs.

    Raises:
        ConfigError: it does not, or settings of it do not fit together.
    """
    reports = "Mail that cannot be sent comes back through the mail server at home."
    for name in ("MAIL_DOMAIN", "INJECT_USER", "INJECT_PASS"):
        if not getattr(config, name.lower()):
            raise ConfigError(f"The relay needs {name}, which is not set.", reports)
    if not config.relay_upstream:
        raise ConfigError("RELAY_UPSTREAM is not set.", SETTINGS["RELAY_UPSTREAM"].help)
    for name in _NEEDED_BY_UPSTREAM[config.relay_upstream]:
        if not getattr(config, name.lower()):
            raise ConfigError(f"RELAY_UPSTREAM is {config.relay_upstream}, and {name} is not set.")
    unset = [name for name in _DKIM if not getattr(config, name.lower())]
    if 0 < len(unset) < len(_DKIM):
        raise ConfigError(f"Not set: {', '.join(unset)}.", f"Signing wants {', '.join(_DKIM)}, or none of them.")
    if config.relay_from_fallback and not matches(config.relay_from_fallback, config.allowed_from):
        raise ConfigError("RELAY_FROM_FALLBACK is not in ALLOWED_FROM.", "Its mail would be refused.")
    if config.relay_upstream == "smtp":
        check_smarthost(config)
    _check_listener(config)


def _check_listener(config: Config) -> None:
    if bool(config.relay_tls_cert_file) != bool(config.relay_tls_key_file):
        raise ConfigError("RELAY_TLS_CERT_FILE and RELAY_TLS_KEY_FILE go together.")
    if not config.relay_tls_cert_file and (config.relay_tls == "implicit" or not is_loopback(config.relay_host)):
        raise ConfigError(
            f"RELAY_HOST {clean(config.relay_host)!r} with RELAY_TLS={config.relay_tls} needs RELAY_TLS_CERT_FILE.",
            "Beyond loopback nothing goes without TLS.",
        )
    if is_loopback(config.inject_host) and is_loopback(config.relay_host) and config.inject_port == config.relay_port:
        raise ConfigError("RELAY_PORT is INJECT_PORT.", "The relay and the mail server cannot share a port.")


def check_smarthost(config: Config) -> None:
    """Whether a smarthost can be used as the settings say.

    Raises:
        ConfigError: it cannot.
    """
    if bool(config.smarthost_user) != bool(config.smarthost_pass):
        raise ConfigError(
            "SMARTHOST_USER and SMARTHOST_PASS go together.", "A smarthost that wants no login has neither."
        )
    if config.smarthost_tls_ca_file and not Path(config.smarthost_tls_ca_file).is_file():
        raise ConfigError(f"SMARTHOST_TLS_CA_FILE {config.smarthost_tls_ca_file} is not there.")
    for host, port in config.smarthosts:
        if config.smarthost_tls == "none" and not is_loopback(host):
            raise ConfigError(
                f"SMARTHOST_TLS=none is for loopback only, and SMARTHOST_HOST has {clean(host)!r}.",
                "Set SMARTHOST_TLS=starttls or implicit.",
            )
        if is_loopback(host) and is_loopback(config.relay_host) and port == config.relay_port:
            raise ConfigError("SMARTHOST_HOST is the relay itself.", "Mail would go in a circle.")


def parsed(name: str, text: str) -> Any:
    """The value that *text* is for a setting, as from the environment.

    Raises:
        ConfigError: it is none.
    """
    return _value(SETTINGS[name], {name: text}, {}, "")


def shown(config: Config) -> dict[str, str]:
    """Each setting with its value as text, secrets as ``***``, for ``drain config``."""
    result = {}
    resolved = {
        "r2_endpoint_url": config.endpoint_url,
        "inject_rcpt": config.catch_all or "none",
        "require_sealed": config.sealed_only,
        "spam_rcpt": config.spam_mailbox,
        "filters": config.filters or ("none",),
        "filter_fail_open": config.filter_fail_open or ("none",),
        "ledger_db": config.ledger_path,
        "lockfile": config.lock_path,
        "relay_users_file": config.relay_users_path,
    }
    for name in ("ai_base_url", "webhook_decision_url", "relay_api_url", "mailgun_base_url"):
        address, query, _ = getattr(config, name).partition("?")
        resolved[name] = f"{address}?***" if query else address  # people put tokens there
    for f in dataclasses.fields(config):
        value = resolved.get(f.name, getattr(config, f.name))
        separator = ":" if f.name == "private_key_file" else ","
        if isinstance(value, Mapping):
            value = tuple(
                f"{name}={one:g}" if isinstance(one, float) else f"{name}={one}" for name, one in value.items()
            )
        result[f.name.upper()] = separator.join(map(str, value)) if isinstance(value, tuple) else str(value)
    return result


def reference() -> str:
    """The table of all settings in Markdown, as the README has it."""
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for s in SETTINGS.values():
        default = "**required**" if s.required else f"`{s.default}`" if s.default else ""
        rows.append(f"| `{s.name}` | {default} | {s.help}{' Secret.' if s.secret else ''} |")
    return "\n".join(rows) + "\n"
