"""The filter `dnsbl` against a resolver that answers as it is told; with a real name server: tests/real/test_dnsbl.py."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from drain.errors import ConfigError
from drain.filters import FilterFailed, Inbound, lookups
from drain.filters.dnsbl import Dnsbl
from drain.filters.lookups import Cache
from drain.mail import Mail
from drain.setting import Secret
from tests.real.nameserver import DBL_TEST_ENTRY, IP_TEST_ENTRY, FakeResolver, from_zones

ZEN, DBL, OTHER, NAMES = "zen.spamhaus.org", "dbl.spamhaus.org", "bl.other.example", "names.other.example"
KEY = "abcdefghijklmnopqrstuvwxy2"
ENTRIES = {
    ZEN: {
        **IP_TEST_ENTRY,
        "192.0.2.9": ["127.0.0.4", "127.0.0.2"],
        "192.0.2.30": ["127.0.0.30"],
        "2001:db8::9": ["127.0.0.3"],
        "192.0.2.99": ["127.0.0.99"],
    },
    DBL: {**DBL_TEST_ENTRY, "evil.example": ["127.0.1.2"], "phish.example": ["127.0.1.4"]},
    OTHER: {**IP_TEST_ENTRY, "192.0.2.9": ["127.0.0.77"], "192.0.2.1": ["127.0.0.1"]},
    NAMES: {"test": ["127.0.0.2"], "evil.example": ["127.0.3.1"]},
}
MINE = "x@mine.example"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def fake() -> Iterator[FakeResolver]:
    with FakeResolver(from_zones(ENTRIES)) as resolver:
        yield resolver


@pytest.fixture
def clock() -> Clock:
    return Clock()


def filter_at(fake: FakeResolver, clock: Callable[[], float] = time.monotonic, **changed: Any) -> Dnsbl:
    settings: dict[str, Any] = {
        "ip_zones": (ZEN,),
        "domain_zones": (),
        "links": True,
        "resolvers": (fake.resolver,),
        "dqs_key": Secret(""),
        "score": 3.0,
        "timeout_seconds": 5.0,
    }
    return Dnsbl(**{**settings, **changed}, cache=Cache(clock))


def inbound(
    ip: str = "192.0.2.9", body: str = "", *, sender: str = MINE, header: str = "From: x@mine.example"
) -> Inbound:
    raw = f"{header}\r\n\r\n{body}\r\n".encode()
    return Inbound(Mail(raw, "me@home.example", sender), ip)


# -- who is listed --


def test_a_listed_address_gets_the_score_once_and_its_codes_are_the_evidence(fake: FakeResolver) -> None:
    verdict = filter_at(fake).check(inbound())
    assert verdict.score == 3.0
    assert verdict.code == "listed"
    assert verdict.reason == "192.0.2.9 is listed by zen.spamhaus.org"
    assert verdict.evidence == ("zen.spamhaus.org 192.0.2.9: 127.0.0.2, 127.0.0.4",)
    assert verdict.incomplete == ""


def test_an_address_that_is_not_listed_gets_no_score(fake: FakeResolver) -> None:
    verdict = filter_at(fake).check(inbound("198.51.100.7"))
    assert (verdict.score, verdict.code, verdict.reason, verdict.incomplete) == (0.0, "", "", "")
    assert "7.100.51.198.zen.spamhaus.org" in fake.names


def test_an_ipv6_address_is_asked_about_in_nibbles(fake: FakeResolver) -> None:
    assert filter_at(fake).check(inbound("2001:db8::9")).score == 3.0
    nibbles = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
    assert f"{nibbles}.zen.spamhaus.org" in fake.names


def test_an_ipv4_address_in_ipv6_clothes_is_asked_about_as_ipv4(fake: FakeResolver) -> None:
    assert filter_at(fake).check(inbound("::ffff:192.0.2.9")).score == 3.0


@pytest.mark.parametrize(
    "ip",
    [
        *("", "10.1.2.3", "192.168.1.1", "172.16.0.1", "127.0.0.2", "::1", "fe80::1", "fd00::1", "100.64.0.1"),
        *(
            "169.254.1.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "::ffff:10.0.0.1",
            "nonsense",
            "8.8.8.8.8",
        ),
    ],
)
def test_addresses_that_are_none_on_the_internet_are_never_asked_about(fake: FakeResolver, ip: str) -> None:
    verdict = filter_at(fake).check(inbound(ip))
    assert fake.names == []
    assert verdict.score == 0.0
    assert verdict.evidence[0].startswith("no list of addresses was asked: ")


def test_only_who_handed_the_mail_over_is_asked_about_and_no_deeper_received_line(fake: FakeResolver) -> None:
    header = "Received: from evil (evil [192.0.2.9])\r\n by somewhere; today\r\nFrom: x@mine.example"
    assert filter_at(fake).check(inbound("198.51.100.7", header=header)).score == 0.0
    assert fake.asked("9.2.0.192") == 0


def test_each_zone_counts_once_however_many_names_it_lists(fake: FakeResolver) -> None:
    both = filter_at(fake, ip_zones=(ZEN, OTHER), domain_zones=(DBL,), score=1.5)
    verdict = both.check(inbound(body="http://evil.example/ https://phish.example/x"))
    assert verdict.score == 4.5
    assert "evil.example and 1 more is listed by dbl.spamhaus.org" in verdict.reason
    assert "dbl.spamhaus.org phish.example: 127.0.1.4" in verdict.evidence
    assert "bl.other.example 192.0.2.9: 127.0.0.77" in verdict.evidence


def test_sender_and_from_are_asked_about_and_links_only_if_wanted(fake: FakeResolver) -> None:
    of_names = filter_at(fake, ip_zones=(), domain_zones=(NAMES,), links=False)
    mail = inbound(
        body="http://evil.example/", sender="a@first.example", header='From: "b@no.example" <a@second.example>'
    )
    assert of_names.check(mail).score == 0.0
    asked = {name.removesuffix(f".{NAMES}") for name in fake.names} - {"test", "2.0.0.127", "invalid"}
    assert asked == {"first.example", "second.example"}
    assert filter_at(fake, ip_zones=(), domain_zones=(NAMES,)).check(mail).score == 3.0


def test_a_list_of_names_is_never_asked_about_addresses(fake: FakeResolver) -> None:
    verdict = filter_at(fake, ip_zones=(), domain_zones=(DBL,)).check(
        inbound(body="http://192.0.2.9/ http://[2001:db8::9]/ http://3221225993/ http://0xc0.0.2.9/", sender="")
    )
    assert verdict.evidence == ("dbl.spamhaus.org does not list mine.example",)
    assert {name.removesuffix(f".{DBL}") for name in fake.names} == {"dbltest.com", "invalid", "mine.example"}


def test_a_mail_that_names_nobody_is_asked_nothing_about(fake: FakeResolver) -> None:
    verdict = filter_at(fake, ip_zones=(), domain_zones=(DBL,)).check(inbound(sender="", header="Subject: hello"))
    assert verdict.score == 0.0
    assert fake.names == []


# -- answers that are no listing --


@pytest.mark.parametrize(
    ("code", "words", "setting"),
    [
        ("127.255.255.250", "DQS key is disabled", "SPAMHAUS_DQS_KEY"),
        ("127.255.255.251", "does not accept the DQS key", "SPAMHAUS_DQS_KEY"),
        ("127.255.255.252", "mistyped", "DNSBL_IP_ZONES"),
        ("127.255.255.254", "refuses public resolvers", "DNS_RESOLVERS"),
        ("127.255.255.255", "too many questions", "DNS_RESOLVERS"),
        ("127.255.255.7", "answers with an error", "DNS_RESOLVERS"),
        ("127.0.1.255", "lists only names", "DNSBL_DOMAIN_ZONES"),
        ("127.0.0.1", "refused", "DNS_RESOLVERS"),
        ("203.0.113.80", "no answer of a block list", "DNS_RESOLVERS"),
        ("0.0.0.0", "no answer of a block list", "DNS_RESOLVERS"),
    ],
)
@pytest.mark.parametrize("zone", [ZEN, OTHER])
def test_an_error_is_never_a_listing(fake: FakeResolver, zone: str, code: str, words: str, setting: str) -> None:
    # Beside a listing, too: an answer with an error in it is no answer.
    fake.reply = from_zones({zone: {**IP_TEST_ENTRY, "192.0.2.9": [code, "127.0.0.2"]}})
    with pytest.raises(FilterFailed) as failure:
        filter_at(fake, ip_zones=(zone,)).check(inbound())
    assert words in str(failure.value)
    assert setting in failure.value.hint
    assert f"{zone}, asked by way of {fake.resolver}," in str(failure.value)
    # The test entry is well: it may be this mail alone.
    assert not failure.value.down


@pytest.mark.parametrize("code", ["127.255.255.252", "127.255.255.254", "127.255.255.255", "203.0.113.80"])
def test_a_zone_that_answers_an_error_to_everything_is_down(fake: FakeResolver, code: str) -> None:
    entries = {name: [code] for name in ("127.0.0.2", "127.0.0.1", "192.0.2.9")}
    fake.reply = from_zones({ZEN: entries})
    with pytest.raises(FilterFailed) as failure:
        filter_at(fake).check(inbound())
    assert failure.value.down
    assert fake.asked("9.2.0.192") == 0


def test_a_code_that_spamhaus_does_not_have_is_no_listing(fake: FakeResolver) -> None:
    zen = filter_at(fake)
    assert zen.check(inbound("192.0.2.30")).score == 3.0
    with pytest.raises(FilterFailed, match=r"127\.0\.0\.99 is none of its codes"):
        zen.check(inbound("192.0.2.99"))


@pytest.mark.parametrize("last", [2, 4, 5, 6, 102, 106, 254])
def test_all_of_dbls_codes_are_listings(fake: FakeResolver, last: int) -> None:
    fake.reply = from_zones({DBL: {**DBL_TEST_ENTRY, "evil.example": [f"127.0.1.{last}"]}})
    verdict = filter_at(fake, ip_zones=(), domain_zones=(DBL,)).check(inbound(sender="a@evil.example"))
    assert verdict.evidence[0] == f"dbl.spamhaus.org evil.example: 127.0.1.{last}"


# -- the test entries --


def test_a_zone_that_does_not_list_its_test_entry_is_down_and_asked_nothing(fake: FakeResolver, clock: Clock) -> None:
    fake.reply = from_zones({ZEN: {"192.0.2.9": ["127.0.0.2"]}})
    zen = filter_at(fake, clock)
    sentences = set()
    for _ in range(3):
        with pytest.raises(FilterFailed) as failure:
            zen.check(inbound())
        sentences.add(str(failure.value))
        clock.now += 50
    assert len(sentences) == 1
    assert "does not list its own test entry" in sentences.pop()
    assert failure.value.down
    assert (fake.asked("2.0.0.127"), fake.asked("9.2.0.192")) == (1, 0)
    # Minutes later it is well, and that is seen.
    fake.reply = from_zones(ENTRIES)
    clock.now += 50
    assert zen.check(inbound()).score == 3.0


def test_a_zone_that_lists_everything_is_not_believed(fake: FakeResolver) -> None:
    fake.reply = from_zones({OTHER: {name: ["127.0.0.2"] for name in ("127.0.0.2", "127.0.0.1", "192.0.2.9")}})
    with pytest.raises(FilterFailed, match=r"it lists 127\.0\.0\.1 too"):
        filter_at(fake, ip_zones=(OTHER,)).check(inbound())
    assert fake.asked("9.2.0.192") == 0


def test_test_entries_are_asked_for_once_an_hour(fake: FakeResolver, clock: Clock) -> None:
    both = filter_at(fake, clock, domain_zones=(DBL, NAMES))
    for _ in range(4):
        both.check(inbound())
        clock.now += 1000
    for entry in ("2.0.0.127.zen", "1.0.0.127.zen", "dbltest.com", "invalid.dbl", "test.names", "2.0.0.127.names"):
        assert fake.asked(entry) == 1
    both.check(inbound())
    assert fake.asked("2.0.0.127.zen") == 2


def test_after_a_failure_the_test_entry_is_asked_for_again_but_not_within_minutes(
    fake: FakeResolver, clock: Clock
) -> None:
    zen = filter_at(fake, clock)
    zen.check(inbound("198.51.100.7"))
    fake.reply = from_zones({ZEN: {**IP_TEST_ENTRY, **{f"192.0.2.{n}": ["127.255.255.254"] for n in range(3)}}})
    for number, tests in ((0, 1), (1, 1), (2, 2)):
        with pytest.raises(FilterFailed):
            zen.check(inbound(f"192.0.2.{number}"))
        clock.now += 100
        assert fake.asked("2.0.0.127") == tests


def test_sixteen_threads_at_once_ask_for_the_test_entry_once(fake: FakeResolver) -> None:
    answer = from_zones(ENTRIES)

    def slowly(query: dns.message.Message) -> Any:
        time.sleep(0.02)
        return answer(query)

    fake.reply = slowly
    zen = filter_at(fake)
    with ThreadPoolExecutor(16) as threads:
        verdicts = list(threads.map(lambda _: zen.check(inbound()), range(16)))
    assert {verdict.score for verdict in verdicts} == {3.0}
    assert sorted(fake.names) == [f"{name}.{ZEN}" for name in ("1.0.0.127", "2.0.0.127", "9.2.0.192")]


def test_who_gives_up_waiting_takes_nothing_from_the_others(fake: FakeResolver) -> None:
    answer = from_zones(ENTRIES)
    fake.reply = lambda query: (time.sleep(0.6), answer(query))[1]  # type: ignore[func-returns-value]  # a pause
    zen = filter_at(fake)
    hasty = filter_at(fake, timeout_seconds=0.05)
    object.__setattr__(hasty, "cache", zen.cache)
    with ThreadPoolExecutor(2) as threads:
        patient = threads.submit(zen.check, inbound())
        time.sleep(0.02)
        with pytest.raises(FilterFailed, match="no answer in time"):
            hasty.check(inbound())
        assert patient.result().score == 3.0


def test_probe_says_how_each_zone_answers_just_now(fake: FakeResolver) -> None:
    both = filter_at(fake, ip_zones=(ZEN, "gone.example.org"), domain_zones=(NAMES,))
    both.check(inbound())
    before = fake.asked("2.0.0.127.zen")
    words = both.probe()
    assert fake.asked("2.0.0.127.zen") == before + 1
    assert f"{ZEN} answers by way of {fake.resolver}: it lists its test entry 127.0.0.2 (127.0.0.2, 127" in words
    assert f"{NAMES} answers by way of {fake.resolver}: it lists its test entry test (127.0.0.2)." in words
    assert "gone.example.org, asked by way of" in words
    fake.reply = from_zones({})
    with pytest.raises(FilterFailed, match=ZEN) as failure:
        both.probe()
    assert failure.value.down


# -- a resolver with faults --


def rcode(code: dns.rcode.Rcode) -> Callable[[dns.message.Message], dns.message.Message]:
    def reply(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(code)
        return response

    return reply


def truncated(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC  # and nobody listens on TCP
    return response


def silent(query: dns.message.Message) -> None:
    return None


def cut_off(query: dns.message.Message) -> bytes:
    return query.to_wire()[:5]


def garbage(query: dns.message.Message) -> bytes:
    return query.to_wire()[:2] + b"\x81\x80" + bytes(range(200, 240))


def of_another_name(query: dns.message.Message) -> Any:
    other = dns.message.make_query("other.example", "A", id=query.id)
    return from_zones({"example": {"other": ["127.0.0.2"]}})(other)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (rcode(dns.rcode.SERVFAIL), "SERVFAIL"),
        (rcode(dns.rcode.REFUSED), "REFUSED"),
        (rcode(dns.rcode.FORMERR), "FORMERR"),
        (rcode(dns.rcode.YXDOMAIN), "no DNS message that makes sense"),
        (truncated, "Connection refused, a truncated answer"),
        (silent, "no answer in time"),
        (cut_off, "no answer in time"),
        (garbage, "no answer in time"),
        (of_another_name, "no answer in time"),
    ],
)
def test_what_is_no_answer_is_an_error_and_within_the_time(fake: FakeResolver, reply: Any, words: str) -> None:
    fake.reply = reply
    zen = filter_at(fake, timeout_seconds=0.4)
    started = time.monotonic()
    with pytest.raises(FilterFailed, match=f"(?i){words}") as failure:
        zen.check(inbound())
    assert time.monotonic() - started < 3
    assert failure.value.down
    assert failure.value.hint == "Check DNS_RESOLVERS."


def test_a_lost_datagram_is_sent_again(fake: FakeResolver) -> None:
    answer = from_zones(ENTRIES)
    fake.reply = lambda query: answer(query) if len(fake.names) > 2 else None
    assert filter_at(fake, timeout_seconds=1.5).check(inbound()).score == 3.0


def test_a_second_resolver_is_asked_where_the_first_is_silent(fake: FakeResolver) -> None:
    with FakeResolver(lambda query: None) as silent:
        zen = filter_at(fake, resolvers=(silent.resolver, fake.resolver), timeout_seconds=1.5)
        assert zen.check(inbound()).score == 3.0


def test_one_zone_of_two_that_errs_leaves_the_others_verdict(fake: FakeResolver) -> None:
    refuses, answers = rcode(dns.rcode.REFUSED), from_zones(ENTRIES)
    fake.reply = lambda query: (refuses if "other" in str(query.question[0].name) else answers)(query)
    verdict = filter_at(fake, ip_zones=(OTHER, ZEN)).check(inbound())
    assert verdict.score == 3.0
    assert verdict.incomplete == (
        f"bl.other.example, asked by way of {fake.resolver}, cannot be relied on: REFUSED. Check DNS_RESOLVERS."
    )


def test_one_name_of_several_without_an_answer_leaves_the_others(fake: FakeResolver) -> None:
    answers = from_zones(ENTRIES)
    fake.reply = lambda query: None if "mine" in str(query.question[0].name) else answers(query)
    mail = inbound(body="http://evil.example/")
    verdict = filter_at(fake, ip_zones=(), domain_zones=(DBL,), timeout_seconds=0.6).check(mail)
    assert verdict.score == 3.0
    assert "no answer in time" in verdict.incomplete


def test_questions_go_out_at_once(fake: FakeResolver) -> None:
    of_names = filter_at(fake, ip_zones=(), domain_zones=(DBL,), timeout_seconds=6)
    of_names.check(inbound())
    answers = from_zones(ENTRIES)
    seen: list[float] = []

    def late(query: dns.message.Message) -> Any:
        seen.append(time.monotonic())
        if len(seen) == 15:  # all of them are here before the first is answered
            fake.reply = answers
        return None

    fake.reply = late
    body = " ".join(f"http://a{number}.example{number}.com" for number in range(15))
    assert of_names.check(inbound(body=body)).incomplete == ""
    assert len(seen) == 15  # each once: none waited for another


# -- how long an answer is kept --


def is_kept(dnsbl: Dnsbl, fake: FakeResolver, clock: Clock, ip: str, name: str, seconds: int) -> bool:
    """Whether an answer is kept for so many seconds and no longer."""
    asked = []
    for later in (0, seconds - 1, 2):
        clock.now += later
        dnsbl.check(inbound(ip))
        asked.append(fake.asked(name))
    return asked == [1, 1, 2]


@pytest.mark.parametrize(("ttl", "seconds"), [(1, 60), (300, 300), (86400, 3600)])
def test_a_listing_is_kept_for_its_ttl_within_bounds(fake: FakeResolver, clock: Clock, ttl: int, seconds: int) -> None:
    fake.reply = from_zones(ENTRIES, ttl=ttl)
    assert is_kept(filter_at(fake, clock), fake, clock, "192.0.2.9", "9.2.0.192", seconds)


@pytest.mark.parametrize(("negative_ttl", "seconds"), [(1, 60), (120, 120), (86400, 3600), (None, 60)])
def test_no_listing_is_kept_for_the_soas_minimum_within_bounds(
    fake: FakeResolver, clock: Clock, negative_ttl: int | None, seconds: int
) -> None:
    fake.reply = from_zones(ENTRIES, negative_ttl=negative_ttl)
    assert is_kept(filter_at(fake, clock), fake, clock, "198.51.100.7", "7.100.51.198", seconds)


def test_an_error_is_kept_for_half_a_minute_only(fake: FakeResolver, clock: Clock) -> None:
    answers, fails = from_zones(ENTRIES), rcode(dns.rcode.SERVFAIL)
    fake.reply = lambda query: (fails if "192" in str(query.question[0].name) else answers)(query)
    zen = filter_at(fake, clock)
    for _ in range(2):
        with pytest.raises(FilterFailed, match="SERVFAIL"):
            zen.check(inbound())
    assert fake.asked("9.2.0.192") == 1
    fake.reply = answers
    clock.now += 31
    assert zen.check(inbound()).score == 3.0


def test_the_cache_is_bounded_and_keeps_the_test_entries(fake: FakeResolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "_MOST_KEPT", 10)
    zen = filter_at(fake)
    for number in range(30):
        zen.check(inbound(f"198.51.100.{number}"))
    assert len(zen.cache) == 10
    assert fake.asked("2.0.0.127") == 1


# -- the key --


def test_with_a_key_spamhaus_zones_are_asked_below_it_and_nobody_reads_it(fake: FakeResolver) -> None:
    fake.reply = from_zones(
        {
            f"{KEY}.zen.dq.spamhaus.net": {**IP_TEST_ENTRY, "192.0.2.9": ["127.0.0.2"]},
            f"{KEY}.dbl.dq.spamhaus.net": {**DBL_TEST_ENTRY, "evil.example": ["127.0.1.2"]},
            OTHER: IP_TEST_ENTRY,
        }
    )
    keyed = filter_at(fake, ip_zones=(ZEN, OTHER), domain_zones=(DBL,), dqs_key=Secret(KEY))
    verdict = keyed.check(inbound(sender="a@evil.example"))
    assert verdict.score == 6.0
    assert "zen.spamhaus.org 192.0.2.9: 127.0.0.2" in verdict.evidence
    assert f"9.2.0.192.{OTHER}" in fake.names
    assert KEY not in f"{verdict!r} {keyed!r} {keyed._zones!r} {keyed.probe()}"


@pytest.mark.parametrize(
    "reply",
    [rcode(dns.rcode.SERVFAIL), silent, truncated, from_zones({}), garbage],
    ids=["SERVFAIL", "silent", "truncated", "not listed", "garbage"],
)
def test_the_key_is_in_no_error(fake: FakeResolver, reply: Any, caplog: pytest.LogCaptureFixture) -> None:
    fake.reply = reply
    with pytest.raises(FilterFailed) as failure:
        filter_at(fake, dqs_key=Secret(KEY), timeout_seconds=0.1).check(inbound())
    error: BaseException | None = failure.value
    while error is not None:
        assert KEY not in f"{error!r} {error} {error.__dict__}"
        error = error.__cause__ or error.__context__
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ip_zones": (f"{KEY}.zen.dq.spamhaus.net",)}, "SPAMHAUS_DQS_KEY"),
        ({"dqs_key": Secret("not.a.key")}, "SPAMHAUS_DQS_KEY"),
        ({"dqs_key": Secret("sch\u00f6n")}, "SPAMHAUS_DQS_KEY"),
        ({"ip_zones": ("zen..spamhaus.org",)}, "no zone"),
        ({"domain_zones": ("dbl",)}, "no zone"),
        ({"resolvers": ("localhost",)}, "DNS_RESOLVERS"),
        ({"resolvers": ("127.0.0.1:0",)}, "DNS_RESOLVERS"),
        ({"resolvers": ("[::1]:99999",)}, "DNS_RESOLVERS"),
    ],
)
def test_settings_that_cannot_be_are_said_at_once_without_the_key(
    fake: FakeResolver, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as failure:
        filter_at(fake, **changed)
    assert KEY not in str(failure.value)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_a_resolver_is_an_address_with_or_without_a_port(text: str, parsed: tuple[str, int]) -> None:
    assert lookups.address(text) == parsed


def test_a_system_without_a_resolver_is_said_so(fake: FakeResolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dns.resolver.BaseResolver.read_resolv_conf", _nothing)
    with pytest.raises(FilterFailed, match=r"names no resolver.*DNS_RESOLVERS"):
        filter_at(fake, resolvers=()).check(inbound())


def _nothing(self: Any, f: Any) -> None:
    raise FileNotFoundError(f)
