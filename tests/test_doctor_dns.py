"""`drain doctor` on the mail domains, against a resolver that answers as it is told; with NSD: tests/real."""

import base64
import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, strategies as st

from drain.doctor import dkim as dkim_module, dns as doctor_dns, spf
from drain.doctor.dkim import Dkim
from drain.doctor.finding import Finding, Level
from drain.doctor.records import Answer, Resolver, State, txt
from drain.errors import ConfigError
from tests.real.nameserver import FakeResolver, Reply

HOME = "example.test"
CLOUDFLARE = [f"{10 * number} route{number}.mx.cloudflare.net." for number in (1, 2, 3)]
GOOD_SPF = "v=spf1 include:_spf.mx.cloudflare.net ip4:203.0.113.25 ~all"
DMARC = "v=DMARC1; p=quarantine; rua=mailto:dmarc@example.test"
SMARTHOST = ("smtp.provider.example", 587)
# Small, since only the one test that says so looks at the size.
KEY = rsa.generate_private_key(65537, 2048)
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
P = base64.b64encode(SPKI).decode()
DKIM = Dkim(HOME, "home", SPKI)

# Name to kind to records; a string in place of the kinds is an RCODE.
Zone = Mapping[str, Mapping[str, Sequence[str]] | str]

SOUND: dict[str, Mapping[str, Sequence[str]] | str] = {
    HOME: {"MX": CLOUDFLARE, "TXT": ["some-verification=1", GOOD_SPF]},
    f"_dmarc.{HOME}": {"TXT": [DMARC]},
    f"home._domainkey.{HOME}": {"TXT": [f"v=DKIM1; k=rsa; p={P}"]},
    "_spf.mx.cloudflare.net": {"TXT": ["v=spf1 ip4:192.0.2.0/24 ~all"]},
    "smtp.provider.example": {"A": ["203.0.113.25"]},
}


def serving(zone: Zone) -> Reply:
    """A resolver that knows this and no more; a name above one that is there is there too (RFC 8020)."""
    there = {name for one in zone for name in [one, *(one.split(".", n)[n] for n in range(1, one.count(".") + 1))]}

    def reply(query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        response = dns.message.make_response(query)
        found = zone.get(name, {})
        if isinstance(found, str):
            response.set_rcode(dns.rcode.from_text(found))
        elif values := found.get(dns.rdatatype.to_text(question.rdtype)):
            texts = [_strings(value) if question.rdtype == dns.rdatatype.TXT else value for value in values]
            response.answer.append(dns.rrset.from_text(question.name, 300, "IN", question.rdtype, *texts))
        elif name not in there:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response

    return reply


def _strings(value: str) -> str:
    return " ".join(f'"{value[start : start + 255]}"' for start in range(0, len(value), 255)) or '""'


@pytest.fixture
def fake() -> Iterator[FakeResolver]:
    with FakeResolver(serving(SOUND)) as resolver:
        yield resolver


Check = Callable[..., list[Finding]]


@pytest.fixture
def check(fake: FakeResolver) -> Check:
    """The findings for `HOME` in `SOUND` with some names changed; by default with a smarthost and DKIM."""

    def run(changed: Zone = {}, domain: str = HOME, **settings: object) -> list[Finding]:  # noqa: B006 (not changed)
        fake.reply = serving({**SOUND, **changed})
        arguments: dict[str, object] = {"smarthosts": [SMARTHOST], "dkim": DKIM, "upstream": "smtp", **settings}
        return list(doctor_dns.check([domain], resolvers=(fake.resolver,), **arguments))  # type: ignore[arg-type]

    return run


def bad(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level is not Level.OK]


def the_one(findings: list[Finding]) -> Finding:
    """The only one that is not ok."""
    (found,) = bad(findings)
    assert found.next, "a person is told what to do"
    assert found.check == "dns"
    return found


def test_a_sound_domain_is_all_ok(check: Check) -> None:
    findings = check()
    assert [finding.words for finding in bad(findings)] == []
    words = "\n".join(finding.words for finding in findings)
    for part in (
        "goes to Cloudflare",
        "SPF record",
        "lets smtp.provider.example send",
        "DMARC",
        "belongs to DKIM_KEY_FILE",
    ):
        assert part in words


def test_a_domain_that_sends_nothing_needs_no_dkim_and_no_smarthost(check: Check) -> None:
    findings = check({f"home._domainkey.{HOME}": "NXDOMAIN"}, upstream="", smarthosts=[], dkim=None)
    assert bad(findings) == []
    assert not any("DKIM" in finding.words for finding in findings)


# -- MX --


def test_no_mx_record_is_a_failure_with_the_records_to_copy(check: Check) -> None:
    found = the_one(check({HOME: {"TXT": [GOOD_SPF]}}))
    assert found.level is Level.FAILURE
    assert "no MX record" in found.words
    assert f"{HOME}. MX 10 route1.mx.cloudflare.net." in found.next


def test_a_domain_that_does_not_exist_is_told_from_one_without_mx(check: Check) -> None:
    findings = bad(check(domain="gone.invalid", dkim=None, upstream="", smarthosts=[]))
    assert (findings[0].level, "does not exist" in findings[0].words) == (Level.FAILURE, True)
    assert "MAIL_DOMAIN" in findings[0].next


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
def test_a_resolver_that_fails_makes_it_unknown_and_never_ok(check: Check, rcode: str) -> None:
    findings = check({HOME: rcode}, upstream="", smarthosts=[], dkim=None)
    mx = findings[0]
    assert (mx.level, rcode in mx.words) == (Level.UNKNOWN, True)
    assert [finding.level for finding in findings[1:2]] == [Level.UNKNOWN]


def test_mail_that_goes_elsewhere_is_a_failure(check: Check) -> None:
    found = the_one(check({HOME: {"MX": ["10 mx.elsewhere.test."], "TXT": [GOOD_SPF]}}))
    assert (found.level, "mx.elsewhere.test" in found.words) == (Level.FAILURE, True)


def test_a_null_mx_is_a_failure(check: Check) -> None:
    found = the_one(check({HOME: {"MX": ["0 ."], "TXT": [GOOD_SPF]}}))
    assert found.level is Level.FAILURE


@pytest.mark.parametrize(("preference", "level"), [(5, Level.FAILURE), (10, Level.FAILURE), (99, Level.WARNING)])
def test_a_second_place_beside_cloudflare_is_named_and_as_bad_as_it_is_preferred(
    check: Check, preference: int, level: Level
) -> None:
    found = the_one(check({HOME: {"MX": [*CLOUDFLARE, f"{preference} old.example.test."], "TXT": [GOOD_SPF]}}))
    assert found.level is level
    assert f"{HOME}. MX {preference} old.example.test." in found.next


def test_the_names_that_cloudflare_had_earlier_are_good_too(check: Check) -> None:
    old = ["13 amir.mx.cloudflare.net.", "86 linda.mx.cloudflare.net.", "24 isaac.mx.cloudflare.net."]
    assert bad(check({HOME: {"MX": old, "TXT": [GOOD_SPF]}})) == []


def test_a_name_that_only_looks_like_cloudflares_is_not(check: Check) -> None:
    found = the_one(check({HOME: {"MX": ["10 mx.cloudflare.net.evil.test."], "TXT": [GOOD_SPF]}}))
    assert found.level is Level.FAILURE


# -- SPF --


def with_spf(*records: str) -> Zone:
    return {HOME: {"MX": CLOUDFLARE, "TXT": list(records) or ["nothing"]}}


def test_no_spf_record_is_a_warning_with_one_to_copy(check: Check) -> None:
    found = the_one(check(with_spf("v=spf10 all")))
    assert found.level is Level.WARNING
    assert found.next == (f'{HOME}. TXT "v=spf1 include:_spf.mx.cloudflare.net a:smtp.provider.example ~all"')


def test_two_spf_records_are_a_failure_with_one_made_of_both(check: Check) -> None:
    found = the_one(check(with_spf("v=spf1 ip4:192.0.2.1 -all", "v=spf1 include:x.test ~all")))
    assert (found.level, "2 SPF records" in found.words) == (Level.FAILURE, True)
    assert f'{HOME}. TXT "v=spf1 include:x.test ip4:192.0.2.1 ~all"' in found.next


@pytest.mark.parametrize("end", ["+all", "all", "?all", ""])
def test_a_record_that_lets_anybody_send_or_says_nothing_is_a_warning(check: Check, end: str) -> None:
    findings = bad(check(with_spf(f"v=spf1 ip4:203.0.113.25 {end}".strip())))
    assert [finding.level for finding in findings] == [Level.WARNING]
    assert findings[0].next == f'{HOME}. TXT "v=spf1 ip4:203.0.113.25 ~all"'


def test_a_record_that_includes_one_for_anybody_lets_anybody_send(check: Check) -> None:
    findings = bad(check({**with_spf("v=spf1 include:open.test ~all"), "open.test": {"TXT": ["v=spf1 +all"]}}))
    assert any("anybody" in finding.words for finding in findings)


def test_more_than_ten_lookups_are_a_failure(check: Check) -> None:
    leaves = {f"s{number}.test": {"TXT": ["v=spf1 ip4:192.0.2.1 ~all"]} for number in range(11)}
    eleven = "v=spf1 " + " ".join(f"include:s{number}.test" for number in range(11)) + " ip4:203.0.113.25 ~all"
    found = the_one(check({**with_spf(eleven), **leaves}))
    assert (found.level, "10 DNS lookups" in found.words) == (Level.FAILURE, True)
    ten = eleven.replace(" include:s10.test", "")
    findings = check({**with_spf(ten), **leaves})
    assert bad(findings) == []
    assert any("10 of 10 DNS lookups" in finding.words for finding in findings)


def test_lookups_of_included_records_count_too(check: Check) -> None:
    deep = {
        "deep.test": {
            "TXT": ["v=spf1 a mx ptr exists:x.test a:1.test a:2.test a:3.test a:4.test a:5.test a:6.test ~all"]
        }
    }
    found = the_one(check({**with_spf("v=spf1 ip4:203.0.113.25 include:deep.test ~all"), **deep}))
    assert "a:6.test" in found.words


def test_records_that_include_each_other_end(check: Check) -> None:
    loop = {"loop.test": {"TXT": [f"v=spf1 include:{HOME} ~all"]}}
    findings = bad(check({**with_spf("v=spf1 include:loop.test ~all"), **loop}))
    assert "10 DNS lookups" in findings[0].words


def test_an_include_without_a_record_is_an_error_and_named(check: Check) -> None:
    found = the_one(check(with_spf("v=spf1 include:gone.test ip4:203.0.113.25 ~all")))
    assert (found.level, "include:gone.test" in found.words) == (Level.FAILURE, True)


@pytest.mark.parametrize(
    "term", ["ip4:300.1.1.1", "ipv4:192.0.2.1", "include:", "a:x/99/", "nonsense", "ip4=192.0.2.1 ip6:x"]
)
def test_a_term_that_is_no_spf_is_an_error_and_named(check: Check, term: str) -> None:
    findings = bad(check(with_spf(f"v=spf1 {term} ~all")))
    assert any(finding.level is Level.FAILURE and "permerror" in finding.words for finding in findings)


def test_an_include_that_does_not_answer_makes_it_unknown(check: Check) -> None:
    findings = bad(check({**with_spf("v=spf1 include:slow.test ~all"), "slow.test": "SERVFAIL"}))
    assert {finding.level for finding in findings} == {Level.UNKNOWN}


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 ip4:203.0.113.0/24 -all",
        "v=spf1 a:smtp.provider.example -all",
        "v=spf1 a:other.test/24 -all",
        "v=spf1 mx:provider.example -all",
        "v=spf1 include:nested.test -all",
        "v=spf1 redirect=nested.test",
        "V=SPF1 IP4:203.0.113.25 -ALL",
        "v=spf1 exists:there.test -all",
        "v=spf1 a:gone1.test a:gone2.test ip4:203.0.113.25 -all",
        "v=spf1 exp=why.%{d} ip4:203.0.113.25 -all",
    ],
)
def test_each_way_to_name_the_smarthost_is_understood(check: Check, record: str) -> None:
    more: Zone = {
        "other.test": {"A": ["203.0.113.99"]},
        "provider.example": {"MX": ["10 smtp.provider.example."]},
        "nested.test": {"TXT": ["v=spf1 a:smtp.provider.example ~all"]},
        "there.test": {"A": ["127.0.0.2"]},
    }
    assert bad(check({**with_spf(record), **more})) == []


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 ip4:198.51.100.0/24 -all", "fail"),
        ("v=spf1 include:nested.test ~all", "softfail"),
        ("v=spf1 -ip4:203.0.113.25 ip4:203.0.113.0/24 -all", "fail"),
        ("v=spf1 a:other.test/32 ~all", "softfail"),
    ],
)
def test_a_smarthost_that_may_not_send_is_a_warning_with_the_record_that_lets_it(
    check: Check, record: str, result: str
) -> None:
    more: Zone = {"nested.test": {"TXT": ["v=spf1 -all"]}, "other.test": {"A": ["203.0.113.99"]}}
    found = the_one(check({**with_spf(record), **more}))
    assert (found.level, f"send: {result}." in found.words) == (Level.WARNING, True)
    mended = spf.with_term(record, "a:smtp.provider.example")
    assert f'{HOME}. TXT "{mended}"' in found.next
    if "-ip4" not in record:
        assert bad(check({**with_spf(mended), **more})) == []


def test_every_address_of_the_smarthost_is_asked_about(check: Check) -> None:
    both = {"smtp.provider.example": {"A": ["203.0.113.25"], "AAAA": ["2001:db8::25"]}}
    found = the_one(check(both))
    assert "2001:db8::25" in found.words
    six = with_spf("v=spf1 ip4:203.0.113.25 ip6:2001:db8::/32 ~all")
    assert bad(check({**both, **six})) == []


def test_two_names_that_lead_nowhere_are_forgiven_and_three_are_an_error(check: Check) -> None:
    """RFC 7208 4.6.4: "void lookups"; how many there are depends on who sends."""
    assert bad(check(with_spf("v=spf1 a:gone1.test a:gone2.test ip4:203.0.113.25 -all"))) == []
    found = the_one(check(with_spf("v=spf1 a:gone1.test a:gone2.test a:gone3.test ip4:203.0.113.25 -all")))
    assert (found.level, "permerror" in found.words) == (Level.FAILURE, True)


def test_an_mx_term_that_leads_to_more_than_ten_hosts_is_an_error(check: Check) -> None:
    def many(number: int) -> list[Finding]:
        hosts = [f"{one} h{one}.test." for one in range(number)]
        there: Zone = {f"h{one}.test": {"A": ["198.51.100.1"]} for one in range(number)}
        record = with_spf("v=spf1 mx:many.test ip4:203.0.113.25 -all")
        return bad(check({**record, "many.test": {"MX": hosts}, **there}))

    assert many(10) == []
    assert [one.level for one in many(11)] == [Level.FAILURE]


def test_a_macro_makes_it_unclear_and_not_a_refusal(check: Check) -> None:
    found = the_one(check(with_spf("v=spf1 exists:%{i}.list.test -all")))
    assert (found.level, "exists:%{i}.list.test" in found.words) == (Level.UNKNOWN, True)


def test_a_smarthost_in_ones_own_network_is_unknown(check: Check) -> None:
    found = the_one(check(smarthosts=[("192.168.1.5", 25)]))
    assert (found.level, "own network" in found.words) == (Level.UNKNOWN, True)


def test_a_smarthost_without_an_address_is_a_failure(check: Check) -> None:
    found = the_one(check(smarthosts=[("gone.provider.example", 25)]))
    assert (found.level, "SMARTHOST_HOST" in found.next) == (Level.FAILURE, True)


def test_a_smarthost_named_by_its_address_is_looked_for_in_the_record(check: Check) -> None:
    named = with_spf("v=spf1 ip4:9.9.9.25 ~all")  # public ones, which nobody connects to here
    assert bad(check(named, smarthosts=[("9.9.9.25", 25)])) == []
    assert "ip4:9.9.9.26" in the_one(check(named, smarthosts=[("9.9.9.26", 25)])).next


@pytest.mark.parametrize(
    ("provider", "name", "include"),
    [
        ("cloudflare", f"cf-bounce.{HOME}", "_spf.mx.cloudflare.net"),
        ("resend", f"send.{HOME}", "amazonses.com"),
        ("mailgun", HOME, "mailgun.org"),
    ],
)
def test_a_providers_include_is_looked_for_where_it_sends(check: Check, provider: str, name: str, include: str) -> None:
    def run(record: str) -> list[Finding]:
        zone = {name: {**SOUND.get(name, {}), "TXT": [record]}, include: {"TXT": ["v=spf1 ip4:192.0.2.0/24 ~all"]}}  # type: ignore[dict-item]
        return check(zone, upstream=provider, smarthosts=[])

    assert bad(run(f"v=spf1 include:{include} ~all")) == []
    found = the_one(run("v=spf1 ip4:192.0.2.7 ~all"))
    assert (found.level, found.next) == (
        Level.WARNING,
        f'{name}. TXT "v=spf1 ip4:192.0.2.7 include:{include} ~all"',
    )


def test_mailguns_own_domain_is_asked_about_if_it_is_another(check: Check) -> None:
    zone = {"mg.example.test": {"TXT": ["v=spf1 ~all"]}}
    found = the_one(check(zone, upstream="mailgun", smarthosts=[], mailgun_domain="mg.example.test"))
    assert 'mg.example.test. TXT "v=spf1 include:mailgun.org ~all"' in found.next


def test_a_provider_by_smtp_is_known_by_its_host(check: Check) -> None:
    found = the_one(check(smarthosts=[("smtp.mx.cloudflare.net", 465)]))
    assert f"cf-bounce.{HOME}" in found.words


@pytest.mark.parametrize("provider", ["postmark", "sendgrid", "ses"])
def test_providers_that_send_in_a_domain_of_their_own_need_no_include(check: Check, provider: str) -> None:
    assert bad(check(upstream=provider, smarthosts=[])) == []


@given(
    st.text(st.sampled_from("vspf1=:/+-~?%{} amxinclude4redirt.test"), max_size=60),
    st.sampled_from(["192.0.2.1", "2001:db8::1"]),
)
def test_any_record_comes_to_some_result(record: str, client: str) -> None:
    class Only:
        def ask(self, name: str, kind: str) -> Answer:
            if kind == "TXT" and name == HOME:
                return Answer(State.FOUND, (f"v=spf1 {record}",))
            return Answer(State.NO_NAME)

    for ip in (None, ipaddress.ip_address(client)):
        assert spf.evaluate(Only(), HOME, ip).lookups <= spf.MOST_LOOKUPS + 1


# -- DKIM --


def with_key(record: str | None) -> Zone:
    return {DKIM.name: {"TXT": [record]} if record is not None else "NXDOMAIN"}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (None, "There is no DKIM key"),
        ("v=DKIM1; k=rsa; p=", "revoked"),
        ("v=DKIM1; k=rsa; p=AAAA", "damaged"),
        ("v=DKIM1; k=rsa; p=!", "damaged"),
        ("v=DKIM2; p=AAAA", "no DKIM key"),
        ("hello", "no DKIM key"),
        (f"v=DKIM1; k=ed25519; p={P}", "another kind"),
        (f"v=DKIM1; s=tlsrpt; p={P}", "not for mail"),
    ],
)
def test_a_key_that_is_not_there_or_not_right_is_a_failure_with_the_record_to_copy(
    check: Check, record: str | None, words: str
) -> None:
    found = the_one(check(with_key(record)))
    assert (found.level, words in found.words) == (Level.FAILURE, True)
    assert found.next == txt(DKIM.name, f"v=DKIM1; k=rsa; p={P}")
    assert found.next.replace('" "', "").endswith(f'p={P}"')


def test_another_key_than_the_private_one_is_a_failure(check: Check) -> None:
    other = rsa.generate_private_key(65537, 2048).public_key()
    der = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    found = the_one(check(with_key(f"v=DKIM1; p={base64.b64encode(der).decode()}")))
    assert (found.level, "another than that of DKIM_KEY_FILE" in found.words) == (Level.FAILURE, True)
    # A provider's key is not ours to compare.
    assert bad(check(with_key(f"v=DKIM1; p={base64.b64encode(der).decode()}"), dkim=Dkim(HOME, "home"))) == []


def test_two_keys_under_one_name_are_a_failure(check: Check) -> None:
    found = the_one(check({DKIM.name: {"TXT": [f"v=DKIM1; p={P}", "v=DKIM1; p="]}}))
    assert "2 TXT records" in found.words


def test_a_key_with_blanks_or_without_its_version_is_good(check: Check) -> None:
    assert bad(check(with_key(f"k=rsa;p={P[:40]} {P[40:]} ;"))) == []


def test_the_older_form_of_the_same_key_is_good(check: Check) -> None:
    pkcs1 = base64.b64encode(KEY.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)).decode()
    assert bad(check(with_key(f"v=DKIM1; p={pkcs1}"))) == []


def test_a_key_marked_as_a_test_or_a_short_one_is_a_warning(check: Check) -> None:
    assert "t=y" in the_one(check(with_key(f"v=DKIM1; t=s:y; p={P}"))).words
    short = rsa.generate_private_key(65537, 1024).public_key()
    der = short.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    found = the_one(check(with_key(f"p={base64.b64encode(der).decode()}"), dkim=Dkim(HOME, "home", der)))
    assert (found.level, "1024 bits" in found.words) == (Level.WARNING, True)


def test_a_key_that_cannot_be_asked_for_is_unknown(check: Check) -> None:
    found = the_one(check({DKIM.name: "SERVFAIL"}))
    assert (found.level, "SERVFAIL" in found.words) == (Level.UNKNOWN, True)


def test_a_signing_domain_that_is_none_of_ours_is_a_warning(check: Check) -> None:
    other = Dkim("other.test", "home", SPKI)
    found = the_one(check({other.name: {"TXT": [f"p={P}"]}}, dkim=other))
    assert (found.level, "DKIM_DOMAIN other.test" in found.words) == (Level.WARNING, True)


def test_where_somebody_else_signs_it_is_unknown_how(check: Check) -> None:
    found = the_one(check(dkim=None))
    assert (found.level, "Authentication-Results" in found.next) == (Level.UNKNOWN, True)


@pytest.mark.parametrize(
    ("provider", "below", "include", "selector"),
    [
        ("cloudflare", "cf-bounce", "_spf.mx.cloudflare.net", "cf-bounce"),
        ("resend", "send", "amazonses.com", "resend"),
    ],
)
def test_a_provider_whose_selector_is_the_same_for_all_is_looked_up(
    check: Check, provider: str, below: str, include: str, selector: str
) -> None:
    spf_record: Zone = {
        f"{below}.{HOME}": {"TXT": [f"v=spf1 include:{include} ~all"]},
        include: {"TXT": ["v=spf1 ip4:192.0.2.0/24 ~all"]},
    }
    settings: dict[str, object] = {"upstream": provider, "smarthosts": [], "dkim": None}
    found = the_one(check(spf_record, **settings))
    assert (found.level, f"{selector}._domainkey.{HOME}" in found.words) == (Level.FAILURE, True)
    key: Zone = {f"{selector}._domainkey.{HOME}": {"TXT": [f"p={P}"]}}
    assert bad(check({**spf_record, **key}, **settings)) == []


def test_the_public_key_is_read_from_the_private_ones_file(tmp_path: Path) -> None:
    path = tmp_path / "dkim.pem"
    with pytest.raises(ConfigError, match="cannot be read"):
        dkim_module.public_key(path)
    path.write_text("no key")
    with pytest.raises(ConfigError, match="no private key"):
        dkim_module.public_key(path)
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert dkim_module.public_key(path) == SPKI
    path.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    assert dkim_module.public_key(path) != SPKI


# -- DMARC --


def with_dmarc(*records: str) -> Zone:
    return {f"_dmarc.{HOME}": {"TXT": list(records)} if records else "NXDOMAIN"}


@pytest.mark.parametrize(
    ("records", "level", "words"),
    [
        ((), Level.WARNING, "no DMARC record"),
        (("v=DMARC10; p=none",), Level.WARNING, "begins otherwise"),
        (("p=none; v=DMARC1",), Level.WARNING, "begins otherwise"),
        ((DMARC, DMARC.replace("quarantine", "none")), Level.FAILURE, "2 DMARC records"),
        (("v=DMARC1; p=stern",), Level.FAILURE, "p=stern"),
        (("v=DMARC1; p=none; p=reject",), Level.FAILURE, "cannot be read"),
    ],
)
def test_a_dmarc_record_that_is_missing_or_wrong_is_named_with_one_to_copy(
    check: Check, records: tuple[str, ...], level: Level, words: str
) -> None:
    found = the_one(check(with_dmarc(*records)))
    assert (found.level, words in found.words) == (level, True)
    assert f'_dmarc.{HOME}. TXT "v=DMARC1; p=none; rua=mailto:dmarc@{HOME}"' in found.next


@pytest.mark.parametrize("record", ["v=DMARC1;p=reject", "v = DMARC1 ; p=None;", "v=DMARC1; rua=mailto:x@example.test"])
def test_odd_but_good_dmarc_records_are_ok(check: Check, record: str) -> None:
    assert bad(check(with_dmarc(record))) == []


def test_a_dmarc_record_that_cannot_be_asked_for_is_unknown(check: Check) -> None:
    assert the_one(check({f"_dmarc.{HOME}": "SERVFAIL"})).level is Level.UNKNOWN


def of_subdomain(check: Check, *records: str, above: Zone = {}) -> Finding:  # noqa: B006 (not changed)
    name = f"a.mail.{HOME}"
    zone = {name: SOUND[HOME], **with_dmarc(*records), **above}
    (found,) = (one for one in check(zone, name, dkim=Dkim(HOME, "home", SPKI)) if "DMARC" in one.words)
    return found


def test_for_a_subdomain_the_record_above_counts_and_its_sp(check: Check) -> None:
    found = of_subdomain(check, "v=DMARC1; p=none; sp=reject")
    assert (found.level, found.words) == (Level.OK, f"a.mail.{HOME} has the DMARC record of {HOME}: sp=reject.")
    nearer = {f"_dmarc.mail.{HOME}": {"TXT": ["v=DMARC1; p=quarantine"]}}
    assert f"of mail.{HOME}: p=quarantine" in of_subdomain(check, DMARC, above=nearer).words


def test_a_registrys_record_is_not_ones_own(check: Check, fake: FakeResolver) -> None:
    found = of_subdomain(check, "v=DMARC1; p=reject; psd=y")
    assert (found.level, "no DMARC record" in found.words) == (Level.WARNING, True)
    assert "_dmarc.test" not in fake.names


def test_of_a_long_name_the_last_seven_labels_are_gone_on_with(check: Check, fake: FakeResolver) -> None:
    check({}, f"a.b.c.d.e.f.g.h.{HOME}", dkim=None, upstream="", smarthosts=[])
    asked = [name for name in fake.names if name.startswith("_dmarc.")]
    assert asked[:2] == [f"_dmarc.a.b.c.d.e.f.g.h.{HOME}", f"_dmarc.d.e.f.g.h.{HOME}"]
    assert asked[-1] == f"_dmarc.{HOME}"


def test_a_place_for_reports_elsewhere_that_has_not_agreed_is_a_note_at_most(check: Check) -> None:
    record = "v=DMARC1; p=none; rua=mailto:a@reports.example, mailto:b@example.test"
    findings = check(with_dmarc(record))
    assert bad(findings) == []
    assert any("reports.example has not said" in finding.words for finding in findings)
    agreed = {f"{HOME}._report._dmarc.reports.example": {"TXT": ["v=DMARC1"]}}
    assert not any("has not said" in finding.words for finding in check({**with_dmarc(record), **agreed}))


# -- the resolver --


def test_the_four_ways_to_have_nothing_are_told_apart(fake: FakeResolver) -> None:
    resolver = Resolver((fake.resolver,), question_seconds=0.3)
    assert resolver.ask(HOME, "MX").state is State.FOUND
    assert resolver.ask("gone.test", "MX").state is State.NO_NAME
    assert resolver.ask(f"_dmarc.{HOME}", "MX").state is State.NO_RECORD
    fake.reply = lambda query: None
    silent = resolver.ask("silent.test", "MX")
    assert (silent.state, "within" in silent.why) == (State.NO_ANSWER, True)


def test_each_question_is_asked_once(fake: FakeResolver) -> None:
    resolver = Resolver((fake.resolver,))
    for name in (HOME, HOME.upper(), f"{HOME}."):
        assert resolver.ask(name, "MX").records == tuple(CLOUDFLARE)
    assert fake.asked(HOME) == 1


def test_all_questions_together_have_a_time_limit(fake: FakeResolver) -> None:
    answer = Resolver((fake.resolver,), all_seconds=0.0).ask(HOME, "MX")
    assert (answer.state, fake.names) == (State.NO_ANSWER, [])
    assert "not asked any more" in answer.why


def test_a_record_of_several_strings_is_one_text(fake: FakeResolver) -> None:
    long = "v=spf1 " + " ".join(f"ip4:192.0.2.{number}" for number in range(60)) + " ~all"
    fake.reply = serving({HOME: {"TXT": [long]}})
    assert Resolver((fake.resolver,)).ask(HOME, "TXT").records == (long,)


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test", "\x00\ud800"])
def test_a_name_that_is_none_is_no_answer(fake: FakeResolver, name: str) -> None:
    assert Resolver((fake.resolver,)).ask(name, "TXT").state is State.NO_ANSWER


def test_what_strangers_write_into_the_dns_is_safe_to_show(check: Check) -> None:
    evil = "v=DMARC1; p=\\027[31mred"
    findings = check({**with_dmarc(evil), **with_key("\\027[2Jp=1")})
    assert all(part.isprintable() for finding in findings for part in (finding.words, finding.next))
    assert len(bad(findings)) == 2
