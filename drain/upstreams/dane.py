"""DANE: a smarthost's certificate proven by its TLSA records (RFC 6698, 7671, 7672).

The records are believed only where DNSSEC vouches for them. That is the resolver's work
(the AD bit, RFC 6840 5.8), and its word is as good as the way to it: it must be on
this machine or in one's own network, and each resolver named must validate.

=============================  =====================================================
signed records that are usable  one of them must match; nothing else counts
none, or none that is signed    the usual verification, by CA and name, and it must hold
the answer is bogus, or none    the host is not used: that is what an attacker would bring about
=============================  =====================================================

Usable (RFC 7672 3.1): usage 3 (DANE-EE), the server's own certificate, whose name and
dates say nothing then (RFC 7671 5.1); usage 2 (DANE-TA), a CA's in the chain that the
server sends, to which the rest must lead, name and dates included. Usages 0 and 1 are
not for SMTP (RFC 7672 3.1.3): where there is nothing else, it is the usual verification.
"""

import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.flags
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from drain.errors import ConfigError
from drain.places import host_and_port, is_private
from drain.text import clean
from drain.upstreams import UpstreamDown

_TIMEOUT_SECONDS = 10.0
_PORT = 53
# As much as goes through nearly every network in one datagram (DNS flag day 2020).
_UDP_BYTES = 1232
_HINT = "DANE wants a resolver that validates DNSSEC, on this machine or in your own network: set DNS_RESOLVERS."

TRUST_ANCHOR, END_ENTITY = 2, 3
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}


@dataclass(frozen=True)
class Record:
    """One TLSA record, as RFC 6698 2.1 names its fields."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching}"

    @property
    def usable(self) -> bool:
        """Whether it can say anything here; a digest of the wrong length cannot (RFC 7671 4.1)."""
        digest = _DIGESTS.get(self.matching)
        fits = bool(self.data) and (
            self.matching == 0 or (digest is not None and len(self.data) == digest().digest_size)
        )
        return self.usage in {TRUST_ANCHOR, END_ENTITY} and self.selector in {0, 1} and fits

    def matches(self, certificate: x509.Certificate) -> bool:
        """Whether it means this certificate (selector 0) or its public key (1)."""
        if self.selector == 0:
            selected = certificate.public_bytes(Encoding.DER)
        else:
            selected = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = _DIGESTS.get(self.matching)
        return (selected if digest is None else digest(selected).digest()) == self.data


class Resolver:
    """Who is asked for TLSA records.

    Given its addresses as ``DNS_RESOLVERS`` has them; none: the system's.

    Raises:
        ConfigError: one of them is on the public net.
    """

    def __init__(self, resolvers: tuple[str, ...] = (), timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._places = [host_and_port(place) for place in resolvers]
        self._timeout_seconds = timeout_seconds
        if far := _public(host for host, _ in self._places):
            raise ConfigError(f"DNS_RESOLVERS names {far}, and SMARTHOST_DANE cannot believe it from afar.", _HINT)

    def records(self, host: str, port: int) -> tuple[Record, ...]:
        """The usable records for a service over TCP, () if no signed ones are there.

        Raises:
            UpstreamDown: nothing is known, or what came is bogus: the host must not be used.
        """
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return ()  # addresses have no TLSA records
        question = f"_{port}._tcp.{host}"
        try:
            name = dns.name.from_text(question)
            answer = self._resolver().resolve(name, "TLSA", search=False, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return ()
        except (dns.exception.DNSException, OSError) as error:
            raise UpstreamDown(
                f"Whether {host} has TLSA records is not known: {clean(str(error))}.",
                "Is the resolver there, and is the DNSSEC of that domain in order? SERVFAIL may mean that it is not.",
            ) from error
        if answer.rrset is None or not answer.response.flags & dns.flags.AD:
            return ()
        found = (Record(rdata.usage, rdata.selector, rdata.mtype, rdata.cert) for rdata in answer.rrset)
        return tuple(record for record in found if record.usable)

    def _resolver(self) -> dns.resolver.Resolver:
        if self._places:
            resolver = dns.resolver.Resolver(configure=False)
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(host, int(port or _PORT)) for host, port in self._places
            ]
        else:
            # Anew each time: what the system says changes with its network.
            resolver = dns.resolver.Resolver()
            if far := _public(map(str, resolver.nameservers)):
                raise UpstreamDown(f"The system's resolver {far} is far away: its word on DNSSEC is not proven.", _HINT)
        resolver.lifetime = self._timeout_seconds
        # Both ask for the AD bit (RFC 6840 5.7); not every resolver heeds the first.
        resolver.set_flags(dns.flags.RD | dns.flags.AD)
        resolver.use_edns(0, dns.flags.DO, _UDP_BYTES)
        return resolver


def verify(records: tuple[Record, ...], host: str, tls: ssl.SSLSocket) -> None:
    """Right after a handshake without verification: whether one of *records*, all usable, proves the server.

    Raises:
        ssl.SSLCertVerificationError: none does; or the chain that it would take cannot be had from this Python.
    """
    try:
        why = _doubt(records, host, tls)
    except (ValueError, UnsupportedAlgorithm) as error:
        why = f"its certificates cannot be read: {clean(str(error))}"
    if why:
        raise ssl.SSLCertVerificationError(f"it has TLSA records ({', '.join(map(str, records))}), and {why}")


def _doubt(records: tuple[Record, ...], host: str, tls: ssl.SSLSocket) -> str:
    """Why the server is not proven; "" if it is."""
    leaf = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    if any(record.usage == END_ENTITY and record.matches(leaf) for record in records):
        return ""
    authorities = [record for record in records if record.usage == TRUST_ANCHOR]
    sent = [x509.load_der_x509_certificate(der) for der in _chain(tls)[1:]] if authorities else []
    # A whole certificate in the DNS need not be sent (RFC 7671 5.2.2).
    published = [_certificate(record) for record in authorities if (record.selector, record.matching) == (0, 0)]
    known = sent + [certificate for certificate in published if certificate is not None]
    anchors = [certificate for certificate in known if any(record.matches(certificate) for record in authorities)]
    if not anchors:
        return "none matches its certificate"
    try:
        verifier = PolicyBuilder().store(Store(anchors)).build_server_verifier(x509.DNSName(host.rstrip(".")))
        verifier.verify(leaf, sent)
    except VerificationError as error:
        return f"the chain does not lead to the CA that they name: {clean(str(error))}"
    return ""


def _certificate(record: Record) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(record.data)
    except ValueError:
        return None


def _chain(tls: ssl.SSLSocket) -> list[bytes]:
    """What the server sent, its own certificate first, as DER."""
    public = getattr(tls, "get_unverified_chain", None)  # from Python 3.13 on
    if public is not None:
        return list(public())
    inner: Any = getattr(tls, "_sslobj", None)
    if not hasattr(inner, "get_unverified_chain"):
        raise ssl.SSLCertVerificationError("its TLSA records name a CA, and this Python cannot show the chain")
    pem = (certificate.public_bytes() for certificate in inner.get_unverified_chain() or ())
    return [ssl.PEM_cert_to_DER_cert(text) for text in pem]


def _public(hosts: Any) -> str:
    return next((host for host in hosts if not is_private(host)), "")
