"""Every setting, declared once: name, type, default, help, whether it is secret.

From `Config` come validation, ``drain config`` and the reference in the README;
where a value comes from is in `config`. An empty value counts as not set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from drain.places import (
    IPNetwork,
    address,
    address_patterns,
    domains,
    host,
    host_and_port,
    junk_mailbox,
    local_part,
    networks,
    private_url,
    resolvers,
    secret_url,
    servers,
    url,
    zones,
)
from drain.setting import (
    Secret,
    Setting,
    account_id,
    choice,
    days,
    each,
    hours,
    number,
    path,
    paths,
    port_or_none,
    prefix,
    seconds,
    setting,
    size,
    some_of,
    tag,
    text,
    tokens,
    whole,
    words,
    yes_no,
    yes_no_auto,
)

UPSTREAMS = ("smtp", "cloudflare", "mailgun", "postmark", "resend", "sendgrid", "ses")
FILTERS = ("auth", "dnsbl", "clamav", "spamassassin", "ai", "decision")


# Nobody compares or prints one; what dataclass would write for that takes twice the time of all the rest.
@dataclass(frozen=True, eq=False, repr=False, match_args=False)
class Config:
    """The settings, parsed. Field ``x`` is the setting ``X``."""

    r2_account_id: str = setting(
        account_id, "Cloudflare account id; with it the endpoint is known.", section="The bucket"
    )
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

    private_key_file: tuple[Path, ...] = setting(
        paths,
        "Private key that opens sealed mail, or several with colons; `drain keygen` makes one.",
        section="The keys",
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

    mail_domain: tuple[str, ...] = setting(
        domains,
        "Your mail domain, or several with commas; nothing is ever sent to another.",
        required=True,
        section="The mail server",
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

    mail_admin_localpart: str = setting(
        local_part,
        "Mailbox, at the first domain, for role addresses that have none of their own.",
        default="admin",
        section="Who gets what",
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

    filters: tuple[str, ...] = setting(
        some_of(*FILTERS),
        "Which filters a mail passes, in this order, with commas: auth, dnsbl, clamav, spamassassin, ai, decision; "
        "or `none`.",
        default="auth",
        section="The filters",
    )
    filter_fail_open: tuple[str, ...] = setting(
        some_of(*FILTERS),
        "All filters whose failure lets mail through without their verdict; for the others it waits. `none`: for all.",
        default="dnsbl,ai",
    )
    filter_timeout: Mapping[str, float] = setting(
        each({"dnsbl": "5", "clamav": "60", "spamassassin": "60", "ai": "30", "decision": "15"}, seconds(0.1)),
        "Seconds for one check: one number for all, or `ai=60,dnsbl=2`.",
        default="dnsbl=5,clamav=60,spamassassin=60,ai=30,decision=15",
    )
    auth_fail_action: Mapping[str, str] = setting(
        each({"spf": "none", "dkim": "none", "dmarc": "none"}, choice("none", "tag", "junk", "quarantine")),
        "What becomes of mail that fails at Cloudflare: `none`, `tag`, `junk` or `quarantine`, for all or each, "
        "as in `dmarc=quarantine,spf=tag`.",
        default="none",
    )
    strip_forged: bool = setting(
        yes_no,
        "Lines in the sender's part that have names which drain itself writes (X-Drain-…, X-Spam-…) get "
        "`X-Original-` in front.",
        default="false",
    )
    spam_tag_score: float = setting(number(0.1), "From so many points on a mail is tagged as spam.", default="5")
    spam_quarantine_score: float = setting(
        number(0.1), "From so many on it goes to quarantine; 100000 is never.", default="15"
    )
    spam_subject_tag: str = setting(tag, "What is put in front of the Subject of spam, for instance `[SPAM]`.")
    spam_rcpt: str = setting(
        junk_mailbox,
        "Where spam goes: a mailbox of yours, or `+junk` for `<mailbox>+junk`. Default: to its own mailbox, tagged; but "
        "`junk` in AUTH_FAIL_ACTION means `+junk`.",
    )
    exchange_headers: bool = setting(
        yes_no, "Adds Exchange's headers with the spam confidence level (SCL).", default="false"
    )
    allow_discard: bool = setting(
        yes_no, "A filter's `discard` deletes the mail; otherwise it goes to quarantine.", default="false"
    )
    dnsbl_ip_zones: tuple[str, ...] = setting(
        zones,
        "Lists that are asked about the address that handed the mail to Cloudflare.",
        default="zen.spamhaus.org",
    )
    dnsbl_domain_zones: tuple[str, ...] = setting(
        zones, "Lists that are asked about the sender's domain.", default="dbl.spamhaus.org"
    )
    dnsbl_links: bool = setting(yes_no, "Asks them about the domains of links too.", default="false")
    dnsbl_score: float = setting(number(0), "Points for each list that a mail is on.", default="5")
    dns_resolvers: tuple[str, ...] = setting(
        resolvers,
        "Resolvers for these lists, `192.0.2.1` or `[2001:db8::1]:5353`. Default: the system's. Spamhaus refuses public "
        "ones.",
    )
    spamhaus_dqs_key: Secret = setting(Secret, "Key of Spamhaus' Data Query Service.", secret=True)
    spamd_host: str = setting(host, "Host of spamd, or the path of its Unix socket.", default="127.0.0.1")
    spamd_port: int = setting(whole(1, 65535), "Port of spamd.", default="783")
    spamd_max_size: int = setting(size, "Of a larger mail spamd gets the head and the first part.", default="512K")
    clamd_socket: str = setting(text, "Unix socket of clamd, or `host:port`.", default="/run/clamav/clamd.ctl")
    ai_base_url: str = setting(
        private_url, "Address of an OpenAI-compatible endpoint, up to /v1; http:// in your own network only."
    )
    ai_api_key: Secret = setting(Secret, "Its key, if it wants one.", secret=True)
    ai_model: str = setting(text, "Name of the model.")
    ai_input_scope: str = setting(
        choice("headers", "attachments", "full_email"),
        "What it is shown: `headers`, these and the names of `attachments`, or also the text (`full_email`).",
        default="headers",
    )
    ai_response_format: str = setting(
        choice("json_schema", "json_object", "none"),
        "How it is told to answer in JSON; not every endpoint knows every way.",
        default="json_schema",
    )
    ai_monthly_calls: int = setting(whole(0, 10**9), "Calls a month; then it counts as failed.", default="1000")
    webhook_decision_url: str = setting(
        private_url, "Your policy endpoint (haraka-webhook.decision.v1); http:// in your own network only."
    )
    webhook_decision_token: Secret = setting(Secret, "Bearer token for it.", secret=True)
    webhook_decision_payload_mode: str = setting(
        choice("minimal", "summary", "full"), "What it is told of a mail.", default="minimal"
    )

    relay_enabled: bool = setting(
        yes_no,
        "`drain run` takes outgoing mail too; `drain relay` does so in any case.",
        default="false",
        section="Outgoing mail: who may connect",
    )
    relay_host: str = setting(host, "Address that it listens on.", default="127.0.0.1")
    relay_port: int = setting(whole(1, 65535), "Port that it listens on.", default="2525")
    relay_users_file: str = setting(
        text, "Who may log in; `drain relay user` writes it. Default: relay-users in STATE_DIR."
    )
    relay_allowed_cidrs: tuple[IPNetwork, ...] = setting(
        networks, "Networks that may connect, with commas.", default="127.0.0.0/8,::1/128"
    )
    relay_tls: str = setting(
        choice("starttls", "implicit"),
        "With RELAY_TLS_CERT_FILE: `starttls` is offered, or with `implicit` TLS is spoken from the first byte. Beyond "
        "loopback nothing goes without.",
        default="starttls",
    )
    relay_tls_cert_file: str = setting(text, "Certificate with its chain, PEM.")
    relay_tls_key_file: str = setting(text, "Its private key, PEM.")
    relay_max_size: int = setting(size, "The largest mail taken; less where the upstream takes less.", default="25M")
    relay_max_recipients: int = setting(whole(1, 1000), "The most recipients of one mail.", default="100")

    allowed_from: tuple[str, ...] = setting(
        address_patterns,
        "Senders that may be used, in the envelope and in From: `alice@example.org`, `@example.org` for all of a "
        "domain, `<>` for the empty one; with commas. Empty: nothing is sent.",
        section="Outgoing mail: who may send what",
    )
    relay_from_fallback: str = setting(
        address, "Takes the place of a sender that is empty or has no domain. Default: such mail is refused."
    )
    recipient_allowlist: tuple[str, ...] = setting(
        address_patterns, "If set, mail goes to these only: addresses, or `@example.org`."
    )
    recipient_denylist: tuple[str, ...] = setting(
        address_patterns, "Mail never goes to these, written in the same way."
    )
    rate_limit_per_minute: int = setting(
        whole(0, 10**6), "Recipients a minute for each user; 0: no limit.", default="100"
    )
    rate_limit_per_day: int = setting(whole(0, 10**8), "Recipients a day for each user; 0: no limit.", default="1000")

    relay_key_file: Path = setting(
        path,
        "Key that the queued mails are encrypted with; made when it is first needed. Default: relay.key in "
        "~/.config/drain, which is not where the mails are.",
        section="Outgoing mail: the queue",
    )
    relay_lifetime: float = setting(days, "Days after which a mail that cannot be sent goes back.", default="5")
    relay_connections: int = setting(whole(1, 64), "Mails sent at once.", default="2")

    relay_upstream: str = setting(
        choice("", *UPSTREAMS),
        "Where outgoing mail goes: " + ", ".join(UPSTREAMS[:-1]) + f" or {UPSTREAMS[-1]}.",
        section="Outgoing mail: where it goes",
    )
    smarthost_host: tuple[str, ...] = setting(
        servers, "Host of the smarthost, or several in order, each with its port or without, with commas."
    )
    smarthost_port: int = setting(port_or_none, "Its port. Default: 587, or 465 where SMARTHOST_TLS is `implicit`.")
    smarthost_user: str = setting(text, "User name to log in with.")
    smarthost_pass: Secret = setting(Secret, "Password to log in with.", secret=True)
    smarthost_tls: str = setting(
        choice("starttls", "implicit", "none"), "How TLS begins; `none` is for loopback only.", default="starttls"
    )
    smarthost_tls_ca_file: str = setting(text, "CA file, or the server's own certificate, to verify against.")
    smarthost_dane: bool = setting(
        yes_no,
        "Its certificate is verified by its TLSA records (DANE) where it has any; wants a resolver that validates "
        "DNSSEC, see DNS_RESOLVERS.",
        default="false",
    )
    relay_api_key: Secret = setting(Secret, "Key or token for the provider's API.", secret=True)
    relay_api_url: str = setting(private_url, "Another address of the provider's API.")
    mailgun_domain: str = setting(text, "The domain that is set up at Mailgun.")
    mailgun_base_url: str = setting(
        private_url,
        "`https://api.eu.mailgun.net` for a domain in the EU.",
        default="https://api.mailgun.net",
    )
    ses_region: str = setting(text, "Region of Amazon SES, as in `eu-west-1`.")
    ses_access_key_id: str = setting(text, "Access key id of an IAM user that may `ses:SendRawEmail`.")
    dkim_domain: str = setting(
        text, "Mail from this domain is signed (DKIM), where the smarthost does not sign itself."
    )
    dkim_selector: str = setting(text, "The name that its public key has in the DNS, below _domainkey.")
    dkim_key_file: str = setting(text, "Private RSA key to sign with, PEM.")

    alert_days: float = setting(
        number(0),
        "Days that the oldest mail may wait in the bucket, with fractions; 0: never an alert.",
        default="3",
        section="When there is an alert",
    )
    alert_count: int = setting(whole(0, 10**9), "Mails that may wait there; 0: never an alert.", default="500")
    alert_growth_passes: int = setting(
        whole(0, 10**6), "Passes that may leave more there than the one before; 0: never an alert.", default="10"
    )
    alert_offline_hours: float = setting(
        hours, "Hours that R2 may be out of reach, or refuse; 0: never an alert.", default="24"
    )
    alert_server_hours: float = setting(
        hours,
        "Hours that the mail server may be away or refuse, and that passes may fail; 0: never an alert.",
        default="0.5",
    )
    alert_quarantine: int = setting(
        whole(0, 10**6),
        "Mails in quarantine, beside those that a filter put there, from which on there is an alert; 0: never.",
        default="1",
    )
    alert_relay_hours: float = setting(
        hours, "Hours that outgoing mail may wait in the relay's queue; 0: never an alert.", default="4"
    )
    alert_stale_hours: float = setting(
        hours,
        "Hours that may go by without a finished pass, for `drain status --check`; 0: never an alert.",
        default="2",
    )
    alert_repeat: float = setting(hours, "Hours after which an alert that is on is told again; 0: never.", default="24")

    mail_alert_cmd: str = setting(
        text,
        "Command line that tells the person, run by `sh -c`: MAIL_ALERT_MSG and others in its environment, the message "
        "on its standard input; it has 30 seconds.",
        section="How an alert is told",
    )
    mail_alert_msg: str = setting(text, "Words in front of each message. Default: `drain on <host>`.")
    ntfy_url: Secret = setting(secret_url, "Topic of ntfy that alerts go to: `https://ntfy.sh/<topic>`.", secret=True)
    ntfy_token: Secret = setting(Secret, "Access token for it, if it wants one.", secret=True)
    alert_webhook_url: Secret = setting(secret_url, "Address that alerts are posted to, as JSON.", secret=True)
    alert_webhook_token: Secret = setting(Secret, "Bearer token for it.", secret=True)
    alert_mail: bool = setting(
        yes_no, "Alerts go to the admin mailbox too, by the mail server at home.", default="false"
    )
    healthcheck_url: Secret = setting(
        secret_url,
        "Address that is pinged after passes, with `/fail` behind it after those that failed (Healthchecks).",
        secret=True,
    )

    metrics_file: str = setting(
        text,
        "Prometheus metrics are written there (node_exporter's textfile collector).",
        section="What is written after passes",
    )
    status_html: str = setting(text, "The page of `drain status --html` is written there.")

    verify_imap_host: str = setting(
        host,
        "IMAP server of the mailboxes; mail whose delivery was cut off is looked for there before it is sent again.",
        section="Asking the mailbox",
    )
    verify_imap_port: int = setting(whole(1, 65535), "Port of that server.", default="993")
    verify_imap_tls: str = setting(
        choice("implicit", "starttls", "none"), "How TLS begins; `none` is for loopback only.", default="implicit"
    )
    verify_imap_tls_ca_file: str = setting(text, "CA file, or the server's own certificate, to verify against.")
    verify_imap_logins_file: str = setting(
        text,
        "Logins (mode 0600), one a line: `alice@example.org: user password`; `*: %*master password` for one who may "
        "read all, % being the mailbox.",
    )
    verify_imap_grace: float = setting(
        seconds(0), "Seconds that the mail server may take to file a mail that it has taken.", default="120"
    )

    state_dir: Path = setting(
        path,
        "Folder for the ledger, the lock and the secret behind X-Drain-Id. Default: $STATE_DIRECTORY of a unit, or ~/.local/state/drain.",
        section="The machine",
    )
    ledger_db: str = setting(text, "The ledger. Default: ledger.db in STATE_DIR.")
    lockfile: str = setting(text, "The lock. Default: drain.lock in STATE_DIR.")
    ledger_retention_days: float = setting(
        days,
        "Days for which a delivered mail is remembered. Keep it longer than a mail can lie in the bucket.",
        default="365",
    )

    poll_interval: float = setting(
        seconds(1), "Seconds between two looks into the bucket.", default="60", section="Passes"
    )
    concurrency: int = setting(whole(1, 256), "Mails in flight at once.", default="16")
    inject_connections: int = setting(
        whole(1, 64), "SMTP sessions at once, at the most; fewer for a while after a 453.", default="2"
    )
    memory_budget: int = setting(
        size,
        "Memory for the mails in flight; one needs up to three times its size, and one that needs more than this travels alone.",
        default="64M",
    )
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
        if "@" in address or not self.mail_domain:
            return address
        return f"{address}@{self.mail_domain[0]}"

    @property
    def spam_mailbox(self) -> str:
        """Where spam goes: a full address, ``+junk``, or "" for its own mailbox."""
        if self.spam_rcpt.lower() in ("", "none"):
            return ""
        if self.spam_rcpt.lower() == "+junk":
            return "+junk"
        if "@" in self.spam_rcpt or not self.mail_domain:
            return self.spam_rcpt
        return f"{self.spam_rcpt}@{self.mail_domain[0]}"

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
    def smarthosts(self) -> tuple[tuple[str, int], ...]:
        """Hosts and ports of the smarthost, in order."""
        usual = self.smarthost_port or (465 if self.smarthost_tls == "implicit" else 587)
        split = (host_and_port(place) for place in self.smarthost_host)
        return tuple((host, int(port) if port else usual) for host, port in split)

    @property
    def relay_users_path(self) -> Path:
        """Where the relay's users are."""
        return Path(self.relay_users_file).expanduser() if self.relay_users_file else self.state_dir / "relay-users"

    @property
    def relay_folder(self) -> Path:
        """Where the queue is, and the bodies of its mails."""
        return self.state_dir / "relay"

    @property
    def logbook_path(self) -> Path:
        """Where the logbook is."""
        return self.state_dir / "logbook.db"

    @property
    def lock_path(self) -> Path:
        """Where the lock is."""
        return Path(self.lockfile).expanduser() if self.lockfile else self.state_dir / "drain.lock"


SETTINGS: dict[str, Setting] = {
    f.name.upper(): Setting(name=f.name.upper(), **dict(f.metadata)) for f in fields(Config)
}
