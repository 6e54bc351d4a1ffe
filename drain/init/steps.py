"""What is left to do at Cloudflare and in the DNS, with the person's own names in it; and where everything is.

The commands are those of worker/README.md.
"""

import shlex
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from drain.doctor.settings import sends_only
from drain.init import records
from drain.keygen import secret_command
from drain.settings import Config

_WIDTH = 78
# Stands for a domain that is not known yet (RFC 2606).
_SOME_DOMAIN = "example.org"
_PENDING_DAYS, _PROCESSED_DAYS = 30, 7


@dataclass(frozen=True)
class Files:
    """Where everything is. ``token`` is None where ORIGIN_TOKEN is written out, or where there is none."""

    env_file: Path
    keys: tuple[Path, ...]
    token: Path | None

    @property
    def public(self) -> Path:
        """The public half of the newest key, for the Worker."""
        return self.keys[0].with_suffix(".pub.pem")


def files(env_file: Path, config: Config, values: Mapping[str, str]) -> Files:
    """Where everything is; *values* as a drain.env has them."""
    token = values.get("ORIGIN_TOKEN_FILE", "")
    keys = config.private_key_file or (env_file.parent / "drain-key.pem",)
    return Files(env_file, keys, Path(token).expanduser() if token and not values.get("ORIGIN_TOKEN") else None)


def places(there: Files, config: Config) -> str:
    """Where everything is, and what of it to keep a copy of."""
    rows, kept = [("settings", there.env_file)], ""
    if not sends_only(config):
        rows += [*(("private key", key) for key in there.keys), ("public key", there.public)]
        rows += [("token", there.token)] if there.token else []
        kept = "Keep a copy of the private key" + (" and of the token" if there.token else "") + " somewhere else. "
        kept += "If this machine breaks and there is no copy, nobody can read what the Worker sealed."
    rows += [("relay's key", config.relay_key_file)] if config.relay_upstream else []
    rows += [("state", config.state_dir)]
    return _heading("Where everything is") + "".join(f"  {name:<12} {path}\n" for name, path in rows) + _prose(kept)


def shown(there: Files, config: Config) -> str:
    """All the steps.

    Raises:
        ConfigError: DKIM_KEY_FILE cannot be read.
    """
    domains = config.mail_domain or (_SOME_DOMAIN,)
    text = "" if sends_only(config) else _cloudflare(there, config, domains) + _dashboard(config)
    if not config.mail_domain:
        text = _prose(f"MAIL_DOMAIN is not set: {_SOME_DOMAIN} stands for it below.") + text
    return text + _dns(config, domains)


def _cloudflare(there: Files, config: Config, domains: Iterable[str]) -> str:
    bucket = config.r2_bucket or "mail"
    quoted, where = shlex.quote(bucket), _jurisdiction(config)
    rule = f"npx wrangler@4 r2 bucket lifecycle add {quoted}"
    rules = [
        f"{rule} {prefix.rstrip('/')} {shlex.quote(prefix)} --expire-days {days} --force{where}"
        for prefix, days in ((config.pending_prefix, _PENDING_DAYS), (config.processed_prefix, _PROCESSED_DAYS))
    ]
    token = secret_command("ORIGIN_TOKEN", there.token) if there.token else "npx wrangler@4 secret put ORIGIN_TOKEN"
    asks = "" if there.token else " The last command asks for the value: it is that of ORIGIN_TOKEN in drain.env."
    return "".join(
        [
            _heading("At Cloudflare"),
            _prose(
                "On any computer with Node 22 or newer, in the folder worker/ of drain (without Node: see below). R2 "
                "wants a payment method once, also for what is free."
            ),
            _step(1, "Log in.", "npx wrangler@4 login"),
            _step(
                2,
                f"Make the bucket. Mail that is never fetched goes after {_PENDING_DAYS} days, delivered mail after "
                f"{_PROCESSED_DAYS}.",
                f"npx wrangler@4 r2 bucket create {quoted}{where}",
                *rules,
            ),
            _step(
                3,
                f"Deploy the Worker.{_edits(config, bucket)}",
                "npx wrangler@4 deploy",
            ),
            _step(
                4,
                "Give it its secrets. On another computer: copy the two files there first, and delete the copies "
                f"afterwards.{asks}",
                secret_command("DRAIN_PUBLIC_KEY", there.public),
                token,
            ),
            *_let_mail_come(config, domains, bucket),
        ]
    )


def _let_mail_come(config: Config, domains: Iterable[str], bucket: str) -> list[str]:
    """What there is no command for."""
    endpoint = "" if config.r2_account_id or config.r2_endpoint_url else "The account id stands in the endpoint. "
    return [
        _step(
            5,
            f"Let mail come in. In the dashboard: Compute -> Email Service -> Email Routing -> Onboard Domain: "
            f"{', '.join(domains)} -> Add records and onboard. Then Routing Rules -> Catch-all rule -> action: Send to "
            "a Worker, destination: drain -> Active, Save. If there are MX records of another provider, mail stops "
            "going there in this moment.",
        ),
        _step(
            6,
            "Make a token for drain. In the dashboard: R2 -> Manage API tokens -> Create: Object Read & Write, for "
            f"the bucket {bucket} alone. The page shows the access key id and the secret once. {endpoint}"
            "`drain init` asks for what is not set yet; or put it into drain.env.",
        ),
        _step(7, "Send yourself a mail from anywhere else, and fetch it.", "drain once"),
    ]


def _dashboard(config: Config) -> str:
    bucket = config.r2_bucket or "mail"
    place = "" if config.r2_jurisdiction == "default" else f", jurisdiction {config.r2_jurisdiction}"
    return (
        _heading("Without Node: steps 1 to 4 in the dashboard")
        + _item(
            f"R2 -> Create bucket: {bucket}{place}. In its Settings, Object lifecycle rules -> Add rule, twice: "
            f"delete objects under {config.pending_prefix} after {_PENDING_DAYS} days, under "
            f"{config.processed_prefix} after {_PROCESSED_DAYS}."
        )
        + _item(
            "Workers & Pages -> Create -> import a Git repository: a copy of drain's in your own account there; root "
            f"directory worker, name drain.{_edits(config, bucket)} Cloudflare builds and deploys it."
        )
        + _item(
            "That Worker -> Settings -> Variables and Secrets -> Add, type Secret: DRAIN_PUBLIC_KEY with the content "
            "of the public key's file, ORIGIN_TOKEN with that of the token's."
        )
    )


def _edits(config: Config, bucket: str) -> str:
    """What has to be changed in the Worker's configuration."""
    lines = [f'bucket_name = "{bucket}"'] if bucket != "mail" else []
    if config.r2_jurisdiction != "default":
        lines.append(f'jurisdiction = "{config.r2_jurisdiction}"')
    return f" First, in wrangler.toml: {' and '.join(lines)}, without a # in front." if lines else ""


def _jurisdiction(config: Config) -> str:
    return "" if config.r2_jurisdiction == "default" else f" --jurisdiction {config.r2_jurisdiction}"


def _dns(config: Config, domains: Iterable[str]) -> str:
    text = ""
    for domain in domains:
        text += _heading(f"The DNS of {domain}")
        if not sends_only(config):
            text += _prose("Email Routing adds these itself, with priorities and a key of its own:")
            text += _lines(records.added_by_cloudflare(domain))
        mine = records.by_hand(domain, config)
        spf = any(record.startswith(f"{domain}. ") for record in mine)
        text += _prose("Yours to add" + ("; a name has one SPF record, so this one takes its place:" if spf else ":"))
        text += _lines(mine)
    if signer := records.signer(config):
        text += _prose(
            f"Outgoing mail is signed (DKIM) by {signer}, which shows the records for that when the domain is set up "
            "there."
        )
    if config.relay_enabled:
        text += _prose("Whoever sends by drain needs a login there; this adds one:")
        text += _lines(["drain relay user add NAME"])
    return text + _prose("What is there already, and what is wrong, `drain doctor --only dns` says.")


def _heading(words: str) -> str:
    return f"\n{words}\n{'-' * len(words)}\n"


def _prose(words: str) -> str:
    return _wrapped(words, "", "") if words else ""


def _item(words: str) -> str:
    return _wrapped(words, "- ", "  ")


def _step(number: int, words: str, *commands: str) -> str:
    return _wrapped(words, f"{number}. ", "   ") + _lines(commands)


def _lines(lines: Iterable[str]) -> str:
    """What is to be copied: a line of it stays one."""
    return "".join(f"     {line}\n" for line in lines)


def _wrapped(words: str, first: str, others: str) -> str:
    lines = textwrap.TextWrapper(_WIDTH, first, others, break_long_words=False, break_on_hyphens=False)
    return lines.fill(words) + "\n"
