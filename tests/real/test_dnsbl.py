"""The filter `dnsbl` against NSD: real zones, real TTLs, TCP."""

import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from drain.filters import FilterFailed, Inbound
from drain.filters.dnsbl import Dnsbl
from drain.mail import Mail
from drain.setting import Secret
from tests.real.nameserver import DBL_TEST_ENTRY, IP_TEST_ENTRY, FakeResolver, Nameserver, forwarded
from tests.real.server import _group_runs

KEY = "abcdefghijklmnopqrstuvwxy2"
MANY = [f"127.0.0.{number}" for number in range(2, 62)]  # more than 512 bytes: cut off over UDP
ZONES: dict[str, dict[str, list[str]]] = {
    "zen.spamhaus.org": {**IP_TEST_ENTRY, "192.0.2.9": ["127.0.0.4", "127.0.0.2"], "2001:db8::9": ["127.0.0.3"]},
    "dbl.spamhaus.org": {**DBL_TEST_ENTRY, "evil.example": ["127.0.1.2"], "*.evil.example": ["127.0.1.2"]},
    f"{KEY}.zen.dq.spamhaus.net": {**IP_TEST_ENTRY, "192.0.2.77": ["127.0.0.9"]},
    "public.example.org": {"*": ["127.255.255.254"]},
    "typo.example.org": {"*": ["127.255.255.252"]},
    "volume.example.org": {"*": ["127.255.255.255"]},
    "dead.example.org": {"192.0.2.9": ["127.0.0.2"]},
    "parked.example.org": {"*": ["203.0.113.80"]},
    "long.example.org": {**IP_TEST_ENTRY, "192.0.2.9": MANY},
    "names.example.org": {"test": ["127.0.0.2"], "evil.example": ["127.0.0.2"]},
}
BROKEN = "broken.example.org"


@pytest.fixture(scope="module")
def nameserver() -> Iterator[Nameserver]:
    with Nameserver(ZONES, servfail=[BROKEN]) as server:
        yield server


def filter_at(resolver: str, **changed: Any) -> Dnsbl:
    settings: dict[str, Any] = {
        "ip_zones": ("zen.spamhaus.org",),
        "domain_zones": (),
        "links": True,
        "resolvers": (resolver,),
        "dqs_key": Secret(""),
        "score": 2.0,
        "timeout_seconds": 5.0,
    }
    return Dnsbl(**{**settings, **changed})


def inbound(ip: str = "192.0.2.9", body: str = "") -> Inbound:
    raw = f"From: a@mine.example\r\n\r\n{body}\r\n".encode()
    return Inbound(Mail(raw, "me@home.example", "a@mine.example"), ip)


@pytest.mark.parametrize(("ip", "score"), [("192.0.2.9", 2.0), ("2001:db8::9", 2.0), ("192.0.2.8", 0.0)])
def test_addresses_are_looked_up(nameserver: Nameserver, ip: str, score: float) -> None:
    assert filter_at(nameserver.resolver).check(inbound(ip)).score == score


def test_names_are_looked_up_in_dbl_and_other_lists(nameserver: Nameserver) -> None:
    both = filter_at(nameserver.resolver, ip_zones=(), domain_zones=("dbl.spamhaus.org", "names.example.org"))
    verdict = both.check(inbound(body="http://evil.example/ http://www.evil.example/ http://good.example/"))
    assert verdict.score == 4.0
    assert "dbl.spamhaus.org www.evil.example: 127.0.1.2" in verdict.evidence
    assert verdict.incomplete == ""


def test_the_data_query_service_is_asked_with_the_key(nameserver: Nameserver) -> None:
    keyed = filter_at(nameserver.resolver, dqs_key=Secret(KEY))
    verdict = keyed.check(inbound("192.0.2.77"))
    assert verdict.evidence == ("zen.spamhaus.org 192.0.2.77: 127.0.0.9",)
    assert KEY not in f"{verdict!r}{keyed!r}{keyed.probe()}"


def test_an_answer_that_is_cut_off_is_asked_for_over_tcp(nameserver: Nameserver) -> None:
    verdict = filter_at(nameserver.resolver, ip_zones=("long.example.org",)).check(inbound())
    assert verdict.score == 2.0
    assert verdict.evidence == (f"long.example.org 192.0.2.9: {', '.join(MANY[:8])}",)


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("public.example.org", r"refuses public resolvers \(127\.255\.255\.254\)"),
        ("typo.example.org", r"mistyped \(127\.255\.255\.252\)"),
        ("volume.example.org", r"too many questions from this resolver \(127\.255\.255\.255\)"),
        ("dead.example.org", "does not list its own test entry"),
        ("parked.example.org", r"203\.0\.113\.80 is no answer of a block list"),
        (BROKEN, "SERVFAIL"),
        ("elsewhere.example.net", "REFUSED"),
    ],
)
def test_a_zone_that_cannot_be_relied_on_is_said_and_the_other_one_counts(
    nameserver: Nameserver, zone: str, words: str
) -> None:
    with pytest.raises(FilterFailed, match=words) as failure:
        filter_at(nameserver.resolver, ip_zones=(zone,)).check(inbound())
    assert failure.value.down
    verdict = filter_at(nameserver.resolver, ip_zones=(zone, "zen.spamhaus.org")).check(inbound())
    assert verdict.score == 2.0
    assert verdict.incomplete == str(failure.value)


def test_a_repeated_question_is_answered_without_the_name_server(nameserver: Nameserver) -> None:
    with FakeResolver(forwarded(nameserver.port)) as counting:
        zen = filter_at(counting.resolver)
        for _ in range(3):
            assert zen.check(inbound()).score == 2.0
            assert zen.check(inbound("192.0.2.8")).score == 0.0
        assert len(counting.names) == 4  # two test entries, two addresses


def test_a_name_server_that_goes_away_is_said_in_time() -> None:
    with Nameserver({"zen.spamhaus.org": ZONES["zen.spamhaus.org"]}) as own:
        resolver = own.resolver
        zen = filter_at(resolver, timeout_seconds=0.3)
        assert zen.check(inbound()).score == 2.0
    started = time.monotonic()
    with pytest.raises(FilterFailed, match="no answer in time"):
        zen.check(inbound("192.0.2.8"))
    assert time.monotonic() - started < 1
    assert zen.check(inbound()).score == 2.0  # known from before


def test_a_name_server_leaves_nothing_behind() -> None:
    with Nameserver({"zen.spamhaus.org": IP_TEST_ENTRY}) as server:
        process, home = server._server, server._home
        assert process is not None
        assert home is not None
        group = process.pid
        assert _group_runs(group)
    assert not _group_runs(group)
    assert not home.exists()


def test_a_check_takes_milliseconds(nameserver: Nameserver, capsys: pytest.CaptureFixture[str]) -> None:
    body = " ".join(f"http://host{number}.example{number}.com/" for number in range(40))
    took: dict[str, list[float]] = {"first": [], "new names": [], "known": []}
    for number in range(20):
        both = filter_at(nameserver.resolver, domain_zones=("dbl.spamhaus.org",))
        for kind, mail in (
            ("first", inbound(body=body)),
            ("new names", inbound(f"198.51.100.{number}", body.replace("host", "other"))),
            ("known", inbound(body=body)),
        ):
            started = time.perf_counter()
            assert both.check(mail).incomplete == ""
            took[kind].append((time.perf_counter() - started) * 1000)
    medians = {kind: statistics.median(values) for kind, values in took.items()}
    with capsys.disabled():
        print("\ndnsbl, one check of an address and 20 names, median: ", end="")
        print(", ".join(f"{kind} {median:.1f} ms" for kind, median in medians.items()), f"({os.cpu_count()} cores)")
    assert medians["known"] < 50
    assert medians["first"] < 500
