"""The DNS records of a mail domain, ready to copy into its zone."""

import base64
import ipaddress
from pathlib import Path

from drain.doctor import dkim
from drain.doctor.dns import PROVIDERS, Provider
from drain.doctor.records import txt
from drain.places import is_private
from drain.settings import Config

# https://developers.cloudflare.com/email-service/configuration/domains/: it picks the priorities itself.
_MX = tuple(f"route{number}.mx.cloudflare.net" for number in (1, 2, 3))
_ROUTING = "include:_spf.mx.cloudflare.net"
_ROUTING_SELECTOR = "cf2024-1"


def added_by_cloudflare(domain: str) -> list[str]:
    """What Email Routing adds itself; of the DKIM key only the name is known."""
    return [
        *(f"{domain}. MX 10 {host}." for host in _MX),
        txt(domain, f"v=spf1 {_ROUTING} ~all"),
        f'{_ROUTING_SELECTOR}._domainkey.{domain}. TXT "v=DKIM1; ..."',
    ]


def by_hand(domain: str, config: Config) -> list[str]:
    """What the person adds, or puts in the place of what Cloudflare added.

    Raises:
        ConfigError: DKIM_KEY_FILE cannot be read.
    """
    terms, found = [], []
    provider = _provider(config)
    if provider is None and config.relay_upstream == "smtp":
        terms = [_term(host) for host, _ in config.smarthosts if not is_private(host)]
    # Cloudflare adds its own where the domain is set up for sending.
    if provider is not None and provider.include and provider is not PROVIDERS["cloudflare"]:
        name = _sends_in(domain, provider, config)
        if name == domain:
            terms = [f"include:{provider.include}"]
        else:
            found.append(txt(name, f"v=spf1 include:{provider.include} ~all"))
    if terms:
        found.insert(0, txt(domain, f"v=spf1 {_ROUTING} {' '.join(terms)} ~all"))
    if config.dkim_domain == domain and config.dkim_selector and config.dkim_key_file:
        key = base64.b64encode(dkim.public_key(Path(config.dkim_key_file).expanduser())).decode("ascii")
        found.append(txt(dkim.Dkim(domain, config.dkim_selector).name, f"v=DKIM1; k=rsa; p={key}"))
    return [*found, txt(f"_dmarc.{domain}", f"v=DMARC1; p=none; rua=mailto:dmarc@{domain}")]


def signer(config: Config) -> str:
    """Who signs outgoing mail (DKIM) if it is not drain; "" if nothing is sent, or drain signs."""
    if not config.relay_upstream or config.dkim_domain:
        return ""
    provider = _provider(config)
    return provider.title if provider else "your mail provider"


def _provider(config: Config) -> Provider | None:
    if config.relay_upstream != "smtp":
        return PROVIDERS.get(config.relay_upstream)
    hosts = [host.lower().rstrip(".") for host, _ in config.smarthosts]
    return next((one for one in PROVIDERS.values() for host in hosts if host.endswith(f".{one.hosts}")), None)


def _sends_in(domain: str, provider: Provider, config: Config) -> str:
    """The domain in which the provider has its envelope senders."""
    if provider is PROVIDERS["mailgun"] and config.mailgun_domain:
        return config.mailgun_domain
    return provider.below + domain


def _term(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"a:{host}"
    return f"ip{address.version}:{address}"
