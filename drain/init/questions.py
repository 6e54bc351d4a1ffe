"""What `drain init` asks, in order."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from drain.settings import UPSTREAMS

Values = Mapping[str, str]

_NTFY = "https://ntfy.sh/"
_TOPIC_BYTES = 9


class Empty(Enum):
    """What Enter alone means where there is no default."""

    AGAIN = "it is needed: asked again"
    LATER = "not there yet: it stays unset, and the next run asks for it"
    NONE = "there is none"


def _always(_values: Values) -> bool:
    return True


@dataclass(frozen=True)
class Question:
    """One question. *Values* are all answers so far, those in drain.env among them.

    Attributes:
        name: the setting that the answer is for; its parser judges the answer.
        words: why it is asked, and where the answer is to be found.
        default: what Enter alone gives; "" for nothing.
        empty: what Enter alone means then.
        when: whether it has to be asked.
        fetching: it is not asked for a drain that only sends.
        beside: it is asked together with this setting only: not if drain.env had that before.
        tidy: what is made of an answer before it is judged.
    """

    name: str
    words: str
    default: Callable[[Values], str] = lambda values: ""
    empty: Empty = Empty.AGAIN
    when: Callable[[Values], bool] = _always
    fetching: bool = False
    beside: str = ""
    tidy: Callable[[str], str] = str.strip


def _at_cloudflare(values: Values) -> bool:
    return not values.get("R2_ENDPOINT_URL")


def _upstream(*names: str) -> Callable[[Values], bool]:
    return lambda values: values.get("RELAY_UPSTREAM", "").strip().lower() in names


def _whole_domains(values: Values) -> str:
    domains = [domain.strip() for domain in values.get("MAIL_DOMAIN", "").split(",") if domain.strip()]
    return ",".join(f"@{domain}" for domain in domains)


def _usual_tls(values: Values) -> str:
    return "implicit" if values.get("SMARTHOST_HOST", "").rstrip().endswith(":465") else "starttls"


def _topic(answer: str) -> str:
    answer = answer.strip()
    return _NTFY + "drain-" + secrets.token_urlsafe(_TOPIC_BYTES) if answer.lower() == "new" else answer


def _without_none(answer: str) -> str:
    return "" if answer.strip().lower() == "none" else answer.strip()


_NOT_YET = (
    "Press Enter if you do not have it yet: the steps below say where it comes from, and `drain init` asks again."
)

QUESTIONS = (
    Question(
        "MAIL_DOMAIN",
        "Your mail domain: what stands behind the @ in your addresses, as in example.org. Several with commas. "
        "Its name servers have to be Cloudflare's.",
    ),
    Question(
        "R2_ACCOUNT_ID",
        "The id of your Cloudflare account: 32 letters and digits. They stand in the dashboard's address, "
        f"dash.cloudflare.com/<account id>, once you are logged in. {_NOT_YET}",
        empty=Empty.LATER,
        when=_at_cloudflare,
        fetching=True,
    ),
    Question(
        "R2_JURISDICTION",
        "Where the bucket is to be: `default`, or `eu` to keep it in the European Union (`fedramp` is for agencies of "
        "the United States). It cannot be changed later.",
        default=lambda values: "default",
        when=_at_cloudflare,
        fetching=True,
        beside="R2_BUCKET",
    ),
    Question(
        "R2_BUCKET",
        "The name of the bucket in which mail waits for this machine. It need not be there yet.",
        default=lambda values: "mail",
        fetching=True,
    ),
    Question(
        "R2_ACCESS_KEY_ID",
        f"The access key id of an R2 API token for that bucket (Object Read & Write). {_NOT_YET}",
        empty=Empty.LATER,
        fetching=True,
    ),
    Question(
        "R2_SECRET_ACCESS_KEY",
        f"The secret access key of that token; it is not shown while you type. {_NOT_YET}",
        empty=Empty.LATER,
        fetching=True,
    ),
    Question(
        "MAIL_ADMIN_LOCALPART",
        "The mailbox that gets mail for postmaster, abuse and the like; only what stands before the @.",
        default=lambda values: "admin",
        beside="MAIL_DOMAIN",
        tidy=lambda answer: answer.strip().partition("@")[0],
    ),
    Question(
        "NTFY_URL",
        "How to tell you that mail is stuck: drain can send alerts to your phone by way of ntfy. `new` makes a topic "
        "at ntfy.sh with a name that nobody guesses (subscribe to what stands behind NTFY_URL in drain.env then); or "
        "give the address of your own topic. It is not shown while you type. Enter: no alerts this way.",
        empty=Empty.NONE,
        beside="MAIL_DOMAIN",
        tidy=_topic,
    ),
    Question(
        "RELAY_UPSTREAM",
        "Outgoing mail: through which service does it go? `smtp` is any mail provider's SMTP server (a smarthost) with "
        f"your login there; {', '.join(UPSTREAMS[1:-1])} and {UPSTREAMS[-1]} are services with a key. "
        "Enter: drain sends nothing.",
        empty=Empty.NONE,
        beside="MAIL_DOMAIN",
        tidy=_without_none,
    ),
    Question(
        "SMARTHOST_HOST",
        "The name of that SMTP server, as in smtp.example.net, or smtp.example.net:465 if it wants that port.",
        when=_upstream("smtp"),
    ),
    Question(
        "SMARTHOST_TLS",
        "How TLS begins there: `starttls` (port 587), or `implicit` (port 465).",
        default=_usual_tls,
        when=_upstream("smtp"),
        beside="SMARTHOST_HOST",
    ),
    Question(
        "SMARTHOST_USER",
        "Your user name there. Enter: it wants no login.",
        empty=Empty.NONE,
        when=_upstream("smtp"),
        beside="SMARTHOST_HOST",
    ),
    Question(
        "SMARTHOST_PASS",
        "Your password there; it is not shown while you type. Press Enter if you do not have it yet: `drain init` asks "
        "again.",
        empty=Empty.LATER,
        when=lambda values: _upstream("smtp")(values) and bool(values.get("SMARTHOST_USER")),
    ),
    Question(
        "RELAY_API_KEY",
        "The key or token for the service's API (of ses: the secret access key); it is not shown while you type. "
        "Press Enter if you do not have it yet: `drain init` asks again.",
        empty=Empty.LATER,
        when=_upstream(*UPSTREAMS[1:]),
    ),
    Question(
        "R2_ACCOUNT_ID",
        "The id of your Cloudflare account, which sending by Cloudflare needs. Press Enter if you do not have it yet.",
        empty=Empty.LATER,
        when=_upstream("cloudflare"),
    ),
    Question("MAILGUN_DOMAIN", "The domain that you set up at Mailgun.", when=_upstream("mailgun")),
    Question(
        "MAILGUN_BASE_URL",
        "Mailgun's API: https://api.eu.mailgun.net for a domain in the EU.",
        default=lambda values: "https://api.mailgun.net",
        when=_upstream("mailgun"),
        beside="MAILGUN_DOMAIN",
    ),
    Question("SES_REGION", "The region of Amazon SES, as in eu-west-1.", when=_upstream("ses")),
    Question(
        "SES_ACCESS_KEY_ID",
        "The access key id of an IAM user that may ses:SendRawEmail. Press Enter if you do not have it yet.",
        empty=Empty.LATER,
        when=_upstream("ses"),
    ),
    Question(
        "ALLOWED_FROM",
        "Who may be the sender of outgoing mail: `@example.org` is everybody at a domain; addresses and domains with "
        "commas.",
        default=_whole_domains,
        when=_upstream(*UPSTREAMS),
    ),
)
