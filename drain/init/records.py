"""The DNS records of a mail domain, ready to copy into its zone."""

import base64
from pathlib import Path

from drain.doctor import dkim
from drain.doctor.dns import MX, PROVIDERS, ROUTING, Outgoing, Provider, spf_term
from drain.doctor.records import txt
from drain.places import is_private
from drain.settings import Config

_ROUTING_SELECTOR = "cf2024-1"


def added_by_cloudflare(domain: str) -> list[str]:
    """What Email Routing adds itself; of the DKIM key only the name is known."""
    return [
        *(f"{domain}. MX 10 {host}." for host in MX),
        txt(domain, f"v=spf1 {ROUTING} ~all"),
        f'{_ROUTING_SELECTOR}._domainkey.{domain}. TXT "v=DKIM1; ..."',
    ]


def by_hand(domain: str, config: Config) -> list[str]:
    """What the person adds, or puts in the place of what Cloudflare added.

    Raises:
        ConfigError: DKIM_KEY_FILE cannot be read.
    """
    terms, found = [], []
    provider = _outgoing(config).provider
    if provider is None and config.relay_upstream == "smtp":
        terms = [spf_term(host) for host, _ in config.smarthosts if not is_private(host)]
    # Cloudflare adds its own where the domain is set up for sending.
    if provider is not None and provider.include and provider is not PROVIDERS["cloudflare"]:
        name = _sends_in(domain, provider, config)
        if name == domain:
            terms = [f"include:{provider.include}"]
        else:
            found.append(txt(name, f"v=spf1 include:{provider.include} ~all"))
    if terms:
        found.insert(0, txt(domain, f"v=spf1 {ROUTING} {' '.join(terms)} ~all"))
    if config.dkim_domain == domain and config.dkim_selector and config.dkim_key_file:
        key = base64.b64encode(dkim.public_key(Path(config.dkim_key_file).expanduser())).decode("ascii")
        found.append(txt(dkim.Dkim(domain, config.dkim_selector).name, f"v=DKIM1; k=rsa; p={key}"))
    return [*found, txt(f"_dmarc.{domain}", f"v=DMARC1; p=none; rua=mailto:dmarc@{domain}")]


def signer(config: Config) -> str:
    """Who signs outgoing mail (DKIM) if it is not drain; "" if nothing is sent, or drain signs."""
    if not config.relay_upstream or config.dkim_domain:
        return ""
    provider = _outgoing(config).provider
    return provider.title if provider else "your mail provider"


def _outgoing(config: Config) -> Outgoing:
    return Outgoing(config.relay_upstream, config.smarthosts, config.mailgun_domain)


def _sends_in(domain: str, provider: Provider, config: Config) -> str:
    """The domain in which the provider has its envelope senders."""
    if provider is PROVIDERS["mailgun"] and config.mailgun_domain:
        return config.mailgun_domain
    return provider.below + domain
