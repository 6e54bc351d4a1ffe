"""DANE: real handshakes over a socket pair, and a resolver that answers as it is told."""

import datetime
import hashlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, strategies as st

from drain.errors import ConfigError
from drain.setting import Secret
from drain.upstreams import Shipment, UpstreamDown, dane
from drain.upstreams.dane import Record, Resolver
from drain.upstreams.smtp import Smtp
from tests.real.nameserver import FakeResolver
from tests.real.smarthost import Certificate, authority

HOST = "smarthost.example.test"
ROOT = authority()
BETWEEN = ROOT.issue("a CA between", authority=True)
LEAF = BETWEEN.issue(HOST)
OTHER_ROOT = authority("another CA")
OTHER = OTHER_ROOT.issue(HOST)
LATE = datetime.timedelta(days=-1)
SIGNED = dns.flags.AD


def record(usage: int, selector: int, matching: int, of: Certificate) -> Record:
    """The TLSA record that a certificate's owner would publish (RFC 6698 2.1)."""
    if selector == 0:
        data = of.certificate.public_bytes(Encoding.DER)
    else:
        data = of.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    data = {0: data, 1: hashlib.sha256(data).digest(), 2: hashlib.sha512(data).digest()}[matching]
    return Record(usage, selector, matching, data)


def verified(tmp_path: Path, chain: tuple[Certificate, ...], *records: Record, host: str = HOST) -> str:
    """What `dane.verify` says after a handshake with a server that sends that chain: "" or why not."""
    leaf, *above = chain
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(leaf.chain_file(tmp_path / "chain.pem", *above))
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_mode = ssl.CERT_NONE
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)

    def serve() -> None:
        with serving.wrap_socket(theirs, server_side=True) as there:
            there.recv(1)

    server = threading.Thread(target=serve)
    server.start()
    with asking.wrap_socket(ours, server_hostname=host) as tls:
        try:
            dane.verify(records, host, tls)
        except ssl.SSLCertVerificationError as error:
            return str(error)
        else:
            return ""
        finally:
            tls.sendall(b".")
            server.join(10)


COMBINATIONS = list(itertools.product((0, 1), (0, 1, 2)))


@pytest.mark.parametrize(("selector", "matching"), COMBINATIONS)
def test_the_servers_own_certificate_or_key_proves_it(tmp_path: Path, selector: int, matching: int) -> None:
    assert not verified(tmp_path, (LEAF, BETWEEN), record(3, selector, matching, LEAF))
    assert "none matches" in verified(tmp_path, (LEAF, BETWEEN), record(3, selector, matching, OTHER))
    # What it may be for a CA, it may not be for the server's own.
    assert "none matches" in verified(tmp_path, (LEAF, BETWEEN), record(3, selector, matching, BETWEEN))


@pytest.mark.parametrize(("selector", "matching"), COMBINATIONS)
@pytest.mark.parametrize("anchor", [ROOT, BETWEEN], ids=["root", "between"])
def test_a_ca_of_the_chain_proves_it(tmp_path: Path, anchor: Certificate, selector: int, matching: int) -> None:
    assert not verified(tmp_path, (LEAF, BETWEEN, ROOT), record(2, selector, matching, anchor))
    assert verified(tmp_path, (LEAF, BETWEEN, ROOT), record(2, selector, matching, OTHER_ROOT))


def test_a_ca_that_is_sent_but_did_not_sign_proves_nothing(tmp_path: Path) -> None:
    """Anybody can send the certificate of the CA that the records name."""
    words = verified(tmp_path, (OTHER, OTHER_ROOT, BETWEEN, ROOT), record(2, 0, 1, BETWEEN), record(2, 1, 1, ROOT))
    assert "does not lead" in words


def test_a_ca_of_the_same_name_and_another_key_proves_nothing(tmp_path: Path) -> None:
    forged = authority().issue(HOST)  # by a root of the same name as ROOT
    assert "does not lead" in verified(tmp_path, (forged, ROOT), record(2, 0, 1, ROOT))


def test_a_servers_certificate_cannot_be_a_ca(tmp_path: Path) -> None:
    """Else who has one certificate of that CA could sign more."""
    theirs = ROOT.issue("somebody.example.test")
    forged = theirs.issue(HOST)
    assert "does not lead" in verified(tmp_path, (forged, theirs, ROOT), record(2, 0, 1, ROOT))


def test_a_ca_wants_the_name_and_the_dates_to_be_right(tmp_path: Path) -> None:
    anchor = record(2, 0, 1, BETWEEN)
    assert "does not lead" in verified(tmp_path, (BETWEEN.issue("other.test"), BETWEEN), anchor)
    assert "does not lead" in verified(tmp_path, (BETWEEN.issue(HOST, ends=LATE), BETWEEN), anchor)


def test_a_record_for_a_ca_does_not_stand_for_the_servers_own(tmp_path: Path) -> None:
    """Else its name and dates would not be looked at."""
    theirs = BETWEEN.issue("other.test")
    assert "none matches" in verified(tmp_path, (theirs, BETWEEN), record(2, 1, 1, theirs))


def test_the_servers_own_certificate_may_have_any_name_and_date(tmp_path: Path) -> None:
    """RFC 7671 5.1: the record itself says whose it is, and until when."""
    theirs = BETWEEN.issue("other.test", ends=LATE)
    assert not verified(tmp_path, (theirs,), record(3, 1, 1, theirs))


def test_a_whole_ca_in_the_dns_need_not_be_sent(tmp_path: Path) -> None:
    assert not verified(tmp_path, (LEAF,), record(2, 0, 0, BETWEEN))
    assert "none matches" in verified(tmp_path, (LEAF,), record(2, 0, 1, BETWEEN))


def test_one_of_several_records_is_enough(tmp_path: Path) -> None:
    """As while a certificate is changed."""
    both = (record(3, 1, 1, OTHER), record(3, 1, 1, LEAF))
    assert not verified(tmp_path, (LEAF,), *both)
    assert not verified(tmp_path, (OTHER,), *both)
    assert not verified(tmp_path, (LEAF, BETWEEN), record(3, 1, 1, OTHER), record(2, 1, 1, BETWEEN))


def test_a_python_that_cannot_show_the_chain_believes_no_ca() -> None:
    class Mute:
        def getpeercert(self, *, binary_form: bool) -> bytes:
            return LEAF.certificate.public_bytes(Encoding.DER)

    with pytest.raises(ssl.SSLCertVerificationError, match="cannot show the chain"):
        dane.verify((record(2, 0, 1, BETWEEN),), HOST, Mute())  # type: ignore[arg-type]
    dane.verify((record(3, 0, 1, LEAF),), HOST, Mute())  # type: ignore[arg-type]


def test_a_certificate_that_cannot_be_read_proves_nothing() -> None:
    class Odd:
        def getpeercert(self, *, binary_form: bool) -> bytes:
            return b"no certificate"

    with pytest.raises(ssl.SSLCertVerificationError, match="cannot be read"):
        dane.verify((record(3, 0, 1, LEAF),), HOST, Odd())  # type: ignore[arg-type]


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=70))
def test_a_record_that_is_usable_can_be_compared(usage: int, selector: int, matching: int, data: bytes) -> None:
    made = Record(usage, selector, matching, data)
    if made.usable:
        assert usage in {2, 3}
        assert not made.matches(LEAF.certificate)
        assert len(data) == {1: 32, 2: 64}.get(matching, len(data))


# -- what the resolver says --


def tlsa(*records: Record, flags: int = SIGNED, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Callable[..., object]:
    def reply(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA | flags
        response.set_rcode(rcode)
        if records:
            texts = [f"{one.usage} {one.selector} {one.matching} {one.data.hex()}" for one in records]
            response.answer.append(dns.rrset.from_text(query.question[0].name, 300, "IN", "TLSA", *texts))
        return response

    return reply


@pytest.fixture
def dns_server() -> Iterator[FakeResolver]:
    with FakeResolver(tlsa()) as fake:  # type: ignore[arg-type]
        yield fake


def asked(fake: FakeResolver, reply: Callable[..., object], host: str = HOST) -> tuple[Record, ...]:
    fake.reply = reply  # type: ignore[assignment]
    return Resolver((fake.resolver,), 0.5).records(host, 587)


MINE = record(3, 1, 1, LEAF)


def test_signed_records_are_believed(dns_server: FakeResolver) -> None:
    assert set(asked(dns_server, tlsa(MINE, record(2, 0, 2, ROOT)))) == {MINE, record(2, 0, 2, ROOT)}
    assert dns_server.names == [f"_587._tcp.{HOST}"]


def test_the_question_asks_for_proof(dns_server: FakeResolver) -> None:
    seen: list[dns.message.Message] = []

    def reply(query: dns.message.Message) -> object:
        seen.append(query)
        return tlsa(MINE)(query)

    asked(dns_server, reply)
    assert seen[0].flags & dns.flags.AD
    assert seen[0].ednsflags & dns.flags.DO


def test_what_is_not_signed_is_not_believed(dns_server: FakeResolver) -> None:
    assert asked(dns_server, tlsa(MINE, flags=0)) == ()


def test_no_records_are_no_records(dns_server: FakeResolver) -> None:
    assert asked(dns_server, tlsa()) == ()
    assert asked(dns_server, tlsa(rcode=dns.rcode.NXDOMAIN)) == ()
    assert asked(dns_server, tlsa(MINE), host="192.0.2.1") == ()


@pytest.mark.parametrize(
    "useless",
    [record(0, 0, 1, ROOT), record(1, 1, 1, LEAF), Record(3, 2, 1, bytes(32)), Record(3, 1, 3, b"x")],
)
def test_records_that_can_say_nothing_are_passed_over(dns_server: FakeResolver, useless: Record) -> None:
    assert asked(dns_server, tlsa(useless)) == ()
    assert asked(dns_server, tlsa(useless, MINE)) == (MINE,)


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_bogus_answer_is_no_leave_to_go_without(dns_server: FakeResolver, rcode: dns.rcode.Rcode) -> None:
    with pytest.raises(UpstreamDown, match="is not known"):
        asked(dns_server, tlsa(rcode=rcode))


def test_no_answer_and_no_sense_are_no_leave_either(dns_server: FakeResolver) -> None:
    for reply in (lambda _query: None, lambda _query: b"no DNS message"):
        with pytest.raises(UpstreamDown, match="is not known"):
            asked(dns_server, reply)


def test_a_resolver_far_away_is_not_asked() -> None:
    for far in ("9.9.9.9", ["192.168.1.1", "[2620:fe::fe]:53"][1]):
        with pytest.raises(ConfigError, match="from afar"):
            Resolver((far,))
    Resolver(("127.0.0.1", "192.168.1.1:5353", "[fd00::1]:53"))


def test_the_systems_resolver_far_away_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: dns.resolver.Resolver, _file: object) -> None:
        self.nameservers = ["127.0.0.53", "9.9.9.9"]

    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", read)
    with pytest.raises(UpstreamDown, match=r"9\.9\.9\.9 is far away.*set DNS_RESOLVERS"):
        Resolver().records(HOST, 587)


# -- in the upstream --


@pytest.mark.parametrize(
    ("records", "words"),
    [((MINE,), "cannot be used"), ((record(3, 1, 1, OTHER),), "none matches its certificate"), ((), "certificate")],
    ids=["matching", "of another", "none"],
)
def test_the_upstream_uses_a_host_only_if_its_records_match(
    dns_server: FakeResolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: tuple[Record, ...], words: str
) -> None:
    """The server here closes after the handshake: what is said in between shows whether it was believed."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(LEAF.chain_file(tmp_path / "chain.pem", BETWEEN))
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(10)
        try:
            with serving.wrap_socket(connection, server_side=True) as tls:
                tls.sendall(b"220 here\r\n")
                heard.append(tls.recv(100))
        except OSError:
            connection.close()

    server = threading.Thread(target=serve)
    server.start()
    ask = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: ask("127.0.0.1", *more, **options))
    dns_server.reply = tlsa(*records)  # type: ignore[assignment]
    hosts = ((HOST, listener.getsockname()[1]),)
    smtp = Smtp(hosts, "u", Secret("p"), tls="implicit", resolver=Resolver((dns_server.resolver,)))
    with pytest.raises(UpstreamDown, match=words):
        smtp.send(Shipment("k", "a@x.test", ("b@x.test",), b"a: b\r\n\r\n"))
    server.join(10)
    listener.close()
    assert (b"".join(heard) != b"") == (records == (MINE,))
