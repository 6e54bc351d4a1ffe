"""`drain doctor` on the mail domains, against NSD: real zones, over UDP and TCP."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from drain.doctor import dns
from drain.doctor.dkim import Dkim
from drain.doctor.finding import Finding, Level
from drain.doctor.records import txt
from tests.real.nameserver import Nameserver

# More than a datagram of 512 bytes, and more than one string of a TXT record.
KEY = rsa.generate_private_key(65537, 4096).public_key()
SPKI = KEY.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
RECORD = txt("home._domainkey.sound.test", f"v=DKIM1; k=rsa; p={base64.b64encode(SPKI).decode()}")
MX = "@ MX 10 route1.mx.cloudflare.net.\n@ MX 20 route2.mx.cloudflare.net.\n"
ZONES = {
    "sound.test": f'{MX}@ TXT "v=spf1 include:_spf.mx.cloudflare.net a:smtp.provider.test ~all"\n'
    '_dmarc TXT "v=DMARC1; p=reject"\n'
    f"{RECORD}\n",
    "_spf.mx.cloudflare.net": '@ TXT "v=spf1 ip4:192.0.2.0/24 ~all"\n',
    "provider.test": "smtp A 203.0.113.25\nsmtp AAAA 2001:db8::25\n",
    "bare.test": '@ TXT "hello"\n',
    "wrong.test": '@ MX 10 mx.elsewhere.test.\n@ TXT "v=spf1 +all"\n@ TXT "v=spf1 -all"\n_dmarc TXT "v=DMARC1; p=no"\n',
}
BROKEN = "broken.test"


class Zones(Nameserver):
    """A name server with records of any kind."""

    def __init__(self, zones: Mapping[str, str], servfail: tuple[str, ...]) -> None:
        super().__init__({zone: {} for zone in zones}, servfail=servfail)
        self._texts = tuple(zones.values())

    def _lay_out(self, home: Path) -> Path:
        config = super()._lay_out(home)
        for number, text in enumerate(self._texts):
            with (home / f"{number}.zone").open("a") as file:
                file.write(text)
        return config


@pytest.fixture(scope="module")
def nameserver() -> Iterator[Zones]:
    with Zones(ZONES, (BROKEN,)) as server:
        yield server


def check(nameserver: Zones, domain: str) -> list[Finding]:
    found = dns.check(
        [domain],
        resolvers=(nameserver.resolver,),
        smarthosts=[("smtp.provider.test", 587)],
        dkim=Dkim(domain, "home", SPKI),
        upstream="smtp",
    )
    return list(found)


def test_a_sound_domain_is_all_ok(nameserver: Zones) -> None:
    findings = check(nameserver, "sound.test")
    assert [one for one in findings if one.level is not Level.OK] == []
    assert len(findings) == 5


def test_the_records_to_copy_are_what_makes_a_domain_sound(nameserver: Zones) -> None:
    """As a person would do it: each record that is asked for goes into the zone."""
    findings = check(nameserver, "bare.test")
    assert {one.level for one in findings} == {Level.FAILURE, Level.WARNING}
    records = "\n".join(line for one in findings for line in one.next.split("; bare.test."))
    wanted = [line if line.startswith(("bare.", "_", "home")) else f"bare.test.{line}" for line in records.splitlines()]
    mended = {**ZONES, "bare.test": "\n".join(wanted) + "\n"}
    with Zones(mended, ()) as server:
        assert [one for one in check(server, "bare.test") if one.level is not Level.OK] == []


def test_each_wrong_record_is_named(nameserver: Zones) -> None:
    words = "\n".join(one.words for one in check(nameserver, "wrong.test") if one.level is Level.FAILURE)
    for part in ("mx.elsewhere.test", "2 SPF records", "p=no", "no DKIM key home._domainkey.wrong.test"):
        assert part in words


@pytest.mark.parametrize(("domain", "why"), [(BROKEN, "SERVFAIL"), ("elsewhere.invalid", "REFUSED")])
def test_a_domain_that_cannot_be_asked_about_is_unknown(nameserver: Zones, domain: str, why: str) -> None:
    findings = check(nameserver, domain)
    assert {one.level for one in findings} == {Level.UNKNOWN}
    assert all(why in one.words for one in findings)
