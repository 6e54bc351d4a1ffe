"""The mail domains in the DNS: that mail for them comes to Cloudflare, and that mail from them is believed."""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from drain.doctor import dkim as dkim_module, dmarc, spf
from drain.doctor.bounded import bounded
from drain.doctor.dkim import Dkim
from drain.doctor.finding import Finding
from drain.doctor.records import Resolver, State, txt
from drain.doctor.say import Say
from drain.places import is_private
from drain.text import clean

_SAY = Say("dns")
_SECONDS = 120.0
# https://developers.cloudflare.com/email-service/configuration/domains/
MX = tuple(f"route{number}.mx.cloudflare.net" for number in (1, 2, 3))
# Domains that were set up earlier have other names there: amir, isaac, linda.
_MX_DOMAIN = ".mx.cloudflare.net"
ROUTING = "include:_spf.mx.cloudflare.net"


@dataclass(frozen=True)
class Provider:
    """Where a provider's own envelope senders are, below the mail domain, and what must stand in the SPF record there.

    ``include`` is "" where the provider sends in a domain of its own, or sets that record up
    itself. ``hosts`` ends the names of its SMTP servers. ``selector`` is that of its DKIM key,
    if it is the same for everybody.
    """

    title: str
    hosts: str
    include: str = ""
    below: str = ""
    selector: str = ""


PROVIDERS = {
    # https://developers.cloudflare.com/email-service/concepts/email-authentication/
    "cloudflare": Provider(
        "Cloudflare", "mx.cloudflare.net", "_spf.mx.cloudflare.net", below="cf-bounce.", selector="cf-bounce"
    ),
    # https://documentation.mailgun.com/docs/mailgun/user-manual/domains/domains-verify
    "mailgun": Provider("Mailgun", "mailgun.org", "mailgun.org"),
    # Its envelope senders are at pm.mtasv.net, or below the mail domain at a CNAME to that.
    "postmark": Provider("Postmark", "postmarkapp.com"),
    # https://resend.com/docs/dashboard/domains/custom-return-path; the rest as it gives it to registrars:
    # https://github.com/Domain-Connect/Templates/blob/master/resend.com.mail.json
    "resend": Provider("Resend", "resend.com", "amazonses.com", below="send.", selector="resend"),
    # https://support.sendgrid.com/hc/en-us/articles/21415314709147
    "sendgrid": Provider("SendGrid", "sendgrid.net"),
    # https://docs.aws.amazon.com/ses/latest/dg/send-email-authentication-spf.html
    "ses": Provider("Amazon SES", "amazonaws.com"),
}


def check(
    domains: Sequence[str],
    *,
    resolvers: tuple[str, ...],
    smarthosts: Sequence[tuple[str, int]],
    dkim: Dkim | None,
    upstream: str,
    mailgun_domain: str = "",
    seconds: float = _SECONDS,
) -> Iterator[Finding]:
    """What there is to say of the mail domains.

    *resolvers* as ``DNS_RESOLVERS``, *smarthosts* and *upstream* as the settings have them (``""``: nothing
    is sent), *dkim* is None where drain does not sign.
    """
    outgoing = Outgoing(upstream, tuple(smarthosts), mailgun_domain)
    return bounded(_SAY.check, seconds, _check(Resolver(resolvers), domains, outgoing, dkim))


@dataclass(frozen=True)
class Outgoing:
    """How mail leaves: the provider, or else the smarthosts; neither: it does not."""

    upstream: str
    smarthosts: tuple[tuple[str, int], ...]
    mailgun_domain: str

    @property
    def provider(self) -> Provider | None:
        """By its API, or by its SMTP servers."""
        if self.upstream != "smtp":
            return PROVIDERS.get(self.upstream)
        for host, _ in self.smarthosts:
            for provider in PROVIDERS.values():
                if host.lower().rstrip(".").endswith(f".{provider.hosts}"):
                    return provider
        return None


def _check(resolver: Resolver, domains: Sequence[str], outgoing: Outgoing, dkim: Dkim | None) -> Iterator[Finding]:
    for domain in domains:
        yield _mx(resolver, domain)
        yield from _spf(resolver, domain, outgoing)
        yield from dmarc.check(resolver, domain)
    if outgoing.mailgun_domain and outgoing.provider is PROVIDERS["mailgun"]:
        yield _provider_spf(resolver, outgoing.mailgun_domain, PROVIDERS["mailgun"])
    yield from _dkim(resolver, domains, outgoing, dkim)


def _mx(resolver: Resolver, domain: str) -> Finding:
    answer = resolver.ask(domain, "MX")
    wanted = "; ".join(f"{domain}. MX 10 {host}." for host in MX)
    if answer.state is State.NO_ANSWER:
        return _SAY.unknown(f"Where mail for {domain} goes (MX) is not known: {answer.why}.")
    if answer.state is State.NO_NAME:
        return _SAY.failure(
            f"{domain} does not exist in the DNS.", f"Is MAIL_DOMAIN right, and the domain paid for? {wanted}"
        )
    if not answer.records:
        return _SAY.failure(f"{domain} has no MX record: no mail comes.", wanted)
    found = sorted((int(preference), host.rstrip(".").lower()) for preference, host in map(str.split, answer.records))
    ours = [preference for preference, host in found if host.endswith(_MX_DOMAIN)]
    others = [(preference, host) for preference, host in found if not host.endswith(_MX_DOMAIN)]
    shown = clean(", ".join(host or "." for _, host in others), 200)
    if not ours:
        return _SAY.failure(
            f"Mail for {domain} does not go to Cloudflare, but to {shown}.", f"Instead of that: {wanted}"
        )
    if others:
        words = f"Mail for {domain} goes to Cloudflare and also to {shown}; what goes there never gets here."
        remove = "Remove " + "; ".join(f"{domain}. MX {preference} {clean(host, 100)}." for preference, host in others)
        worse = min(preference for preference, _ in others) <= min(ours)
        return _SAY.failure(words, remove) if worse else _SAY.warning(words, remove)
    return _SAY.ok(f"Mail for {domain} goes to Cloudflare ({len(ours)} MX records).")


def _spf(resolver: Resolver, domain: str, outgoing: Outgoing) -> Iterator[Finding]:
    provider = outgoing.provider
    answer = resolver.ask(domain, "TXT")
    if answer.state is State.NO_ANSWER:
        yield _SAY.unknown(f"The SPF record of {domain} is not known: {answer.why}.")
        return
    found = spf.records(answer)
    if len(found) > 1:
        yield _SAY.failure(
            f"{domain} has {len(found)} SPF records, which counts as an error.",
            f"Make one of them: {_merged(domain, found)}",
        )
        return
    if not found:
        first = _terms(outgoing)
        yield _SAY.warning(
            f"{domain} has no SPF record: anybody can send in its name.", txt(domain, f"v=spf1 {first} ~all")
        )
    else:
        yield _whole_spf(resolver, domain, found[0])
        if outgoing.upstream == "smtp" and provider is None:
            for host, _ in outgoing.smarthosts:
                yield from _smarthost_spf(resolver, domain, found[0], host)
    if provider is None:
        return
    if not provider.include:
        yield _SAY.ok(
            f"{provider.title} sends in a domain of its own or sets SPF up itself; {domain} needs nothing for it."
        )
    elif provider is not PROVIDERS["mailgun"] or not outgoing.mailgun_domain:
        yield _provider_spf(resolver, provider.below + domain, provider)


def _terms(outgoing: Outgoing) -> str:
    """What a first SPF record should have."""
    provider = outgoing.provider
    if provider is not None or outgoing.upstream != "smtp":
        return ROUTING
    return " ".join([ROUTING, *(spf_term(host) for host, _ in outgoing.smarthosts if not is_private(host))])


def spf_term(host: str) -> str:
    """What an SPF record says of a host, by name or address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"a:{host}"
    return f"ip{address.version}:{address}"


def _merged(domain: str, found: list[str]) -> str:
    terms = [term for record in found for term in record.split()[1:]]
    kept = [term for term in dict.fromkeys(terms) if term.lstrip("+-~?").lower() != "all"]
    return txt(domain, " ".join(["v=spf1", *kept, "~all"]))


def _whole_spf(resolver: Resolver, domain: str, record: str) -> Finding:
    """What the record comes to for anybody."""
    verdict = spf.evaluate(resolver, domain, None)
    said = f"The SPF record of {domain}"
    softly = txt(domain, " ".join([*_without_end(record), "~all"]))
    if verdict.result is spf.Result.TEMPERROR:
        return _SAY.unknown(f"{said} could not be followed to its end: {verdict.why}.")
    if verdict.result is spf.Result.PERMERROR:
        return _SAY.failure(
            f"{said} is in error (permerror), and counts for nothing: {verdict.why}.", "Mend that term, or take it out."
        )
    if verdict.result is spf.Result.PASS:
        return _SAY.warning(f"{said} lets anybody send in its name (+all).", softly)
    if verdict.result is spf.Result.NEUTRAL:
        return _SAY.warning(f"{said} says nothing of those whom it does not name (?all, or no all).", softly)
    return _SAY.ok(f"{said} is in order: {verdict.lookups} of {spf.MOST_LOOKUPS} DNS lookups.")


def _without_end(record: str) -> list[str]:
    return [term for term in record.split() if term.lstrip("+-~?").lower() != "all"]


def _smarthost_spf(resolver: Resolver, domain: str, record: str, host: str) -> Iterator[Finding]:
    if is_private(host):
        yield _SAY.unknown(
            f"Whether SPF lets {host} send for {domain} is not known: it is in your own network, "
            "and the world sees another address.",
            f"That address belongs into the record: {txt(domain, spf.with_term(record, 'ip4:<address>'))}",
        )
        return
    addresses: list[spf.IPAddress] = []
    try:
        addresses = [ipaddress.ip_address(host)]
    except ValueError:
        for kind in ("A", "AAAA"):
            answer = resolver.ask(host, kind)
            if answer.state is State.NO_ANSWER:
                yield _SAY.unknown(
                    f"Whether SPF lets {host} send for {domain} is not known: {kind} of it: {answer.why}."
                )
                return
            addresses += [ipaddress.ip_address(one) for one in answer.records]
    if not addresses:
        yield _SAY.failure(f"The smarthost {host} has no address in the DNS.", "Is SMARTHOST_HOST right?")
        return
    verdicts = {address: spf.evaluate(resolver, domain, address) for address in addresses}
    bad = {address: verdict for address, verdict in verdicts.items() if verdict.result is not spf.Result.PASS}
    if not bad:
        yield _SAY.ok(f"SPF of {domain} lets {host} send.")
        return
    address, verdict = next(iter(bad.items()))
    if verdict.result in {spf.Result.TEMPERROR, spf.Result.UNCLEAR}:
        yield _SAY.unknown(f"Whether SPF lets {host} ({address}) send for {domain} is not known: {verdict.why}.")
    elif verdict.result is not spf.Result.PERMERROR:
        yield _SAY.warning(
            f"SPF of {domain} does not let {host} ({address}) send: {verdict.result.value}.",
            f"{txt(domain, spf.with_term(record, spf_term(host)))} - or the include: that its provider names, "
            "if it sends from other addresses.",
        )
    elif spf.evaluate(resolver, domain, None).result is not spf.Result.PERMERROR:  # else it was said already
        yield _SAY.failure(
            f"SPF of {domain} is in error (permerror) for {host} ({address}): {verdict.why}.",
            "Mend that term, or take it out.",
        )


def _provider_spf(resolver: Resolver, name: str, provider: Provider) -> Finding:
    answer = resolver.ask(name, "TXT")
    said = f"SPF of {name}"
    if answer.state is State.NO_ANSWER:
        return _SAY.unknown(f"{said} is not known: {answer.why}.")
    found = spf.records(answer)
    if not found:
        return _SAY.warning(
            f"{said}, in which {provider.title} sends, is not there.",
            f"{txt(name, f'v=spf1 include:{provider.include} ~all')} (or what {provider.title} shows for this domain)",
        )
    if len(found) > 1:
        return _SAY.failure(
            f"{name} has {len(found)} SPF records, which counts as an error.",
            f"Make one of them: {_merged(name, found)}",
        )
    verdict = spf.evaluate(resolver, name, None)
    if provider.include in verdict.includes:
        return _SAY.ok(f"{said} includes {provider.title}.")
    if verdict.result is spf.Result.TEMPERROR:
        return _SAY.unknown(f"{said} could not be followed to its end: {verdict.why}.")
    return _SAY.warning(
        f"{said} does not include {provider.title}.", txt(name, spf.with_term(found[0], f"include:{provider.include}"))
    )


def _dkim(resolver: Resolver, domains: Sequence[str], outgoing: Outgoing, dkim: Dkim | None) -> Iterator[Finding]:
    if dkim is not None:
        yield from dkim_module.check(resolver, dkim)
        if not any(domain == dkim.domain or domain.endswith(f".{dkim.domain}") for domain in domains):
            yield _SAY.warning(
                f"DKIM_DOMAIN {dkim.domain} is none of your mail domains: it proves nothing for them.", "Is it right?"
            )
        return
    if not outgoing.upstream:
        return
    provider = outgoing.provider
    if provider is not None and provider.selector:
        for domain in domains:
            yield from dkim_module.check(resolver, Dkim(domain, provider.selector))
        return
    signer = provider.title if provider is not None else "the smarthost"
    yield _SAY.unknown(
        f"Whether mail is signed (DKIM) is not known: {signer} would do it, under a name that only it knows.",
        "Send a mail to a mailbox elsewhere, and look for dkim=pass in its Authentication-Results.",
    )
