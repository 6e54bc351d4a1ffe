"""What is believed of Cloudflare's lines, what is not, and what the filter `auth` makes of it.

The lines are written here as Cloudflare's server writes them (seen in mail that
it forwarded): each result on a line of its own behind ``;``, CRLF and a tab, the
envelope sender and the HELO name in comments and behind ``smtp.mailfrom=`` and
``smtp.helo=`` as the sender gave them, with nothing escaped.
"""

import itertools
import time
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings, strategies as st

from drain.filters import edge
from drain.filters.auth import METHODS, Auth
from drain.filters.edge import UNKNOWN, Edge
from drain.filters.inbound import Inbound
from drain.filters.verdict import Action
from drain.header import Header
from drain.mail import Mail

IP = "203.0.113.7"
HOST = "mx.sender.test"
BELOW = b"From: Bob <bob@sender.test>\r\nSubject: x\r\n\r\nbody\r\n"
FORGED_RESULTS = b"Authentication-Results: mx.cloudflare.net;\r\n\tdkim=pass;\r\n\tdmarc=pass;\r\n\tspf=pass smtp.mailfrom=a@b.test\r\n"
FORGED_RECEIVED = b"Received: from x.test (192.0.2.66)\r\n        by cloudflare-email.net (cloudflare) id 1\r\n        for <a@b.test>; x\r\n"
MARK = b"X-CF-SpamH-Score: 0\r\n"
KNOWN = ("none", "pass", "fail", "softfail", "neutral", "policy", "temperror", "permerror", "hardfail", "declined")
_SPF_WORDS = {
    "pass": "domain of {} designates {} as permitted sender",
    "fail": "domain of {} does not designate {} as permitted sender",
    "softfail": "domain of {} reports soft fail for {}",
    "neutral": "domain of {} reports neutral for {}",
    "none": "no SPF records found for {}",
    "temperror": "temporary dns error validating {}",
    "permerror": "unable to verify SPF record for {}",
}


@dataclass(frozen=True)
class Block:
    """What Cloudflare's server knows of a mail, and the lines that it writes of it."""

    sender: str = "bob@sender.test"
    helo: str = HOST
    ip: str = IP
    # Result and what stands behind it.
    dkim: tuple[tuple[str, str], ...] = (("pass", "header.d=sender.test header.s=s1 header.b=fVpjUUne"),)
    dmarc: str = "pass"
    author: str = "sender.test"
    spf: str = "pass"
    spf_helo: str = "none"
    between: str = ";\r\n\t"

    @property
    def results(self) -> str:
        def spf(result: str, who: str) -> str:
            return f"spf={result} (mx.cloudflare.net: {_SPF_WORDS[result].format(who, self.ip)})"

        return self.between.join(
            [
                "mx.cloudflare.net",
                *(f"dkim={result} {properties}" for result, properties in self.dkim),
                *([f"dmarc={self.dmarc} header.from={self.author} policy.dmarc=none"] if self.dmarc else []),
                f"{spf(self.spf_helo, f'postmaster@{self.helo}')} smtp.helo={self.helo}",
                f"{spf(self.spf, self.sender)} smtp.mailfrom={self.sender}",
                f"arc=none smtp.remote-ip={self.ip}",
            ]
        )

    @property
    def fields(self) -> dict[str, bytes]:
        words = _SPF_WORDS[self.spf].format(self.sender, self.ip)
        texts = {
            "Received": f"from {self.helo} ({self.ip})\r\n        by cloudflare-email.net (cloudflare) id B1LtRqYDFOMJ\r\n"
            "        for <alice@example.test>; Sat, 21 Nov 2026 04:54:50 +0000",
            "ARC-Seal": "i=1; a=rsa-sha256; s=cf2024-1; d=cloudflare-email.net; cv=none;\r\n\tb=D49ZyPNaRfNz==;",
            "ARC-Message-Signature": "i=1; a=rsa-sha256; s=cf2024-1; d=cloudflare-email.net; c=relaxed/relaxed;\r\n"
            "\th=To:Subject:From:Date; t=1761368092; x=1761972892; bh=uY9s=;\r\n\tb=VIJd==;",
            "ARC-Authentication-Results": f"i=1; {self.results}",
            "Received-SPF": f"{self.spf} (mx.cloudflare.net: {words})\r\n\treceiver=mx.cloudflare.net; "
            f'client-ip={self.ip}; envelope-from="{self.sender}"; helo={self.helo};',
            "Authentication-Results": self.results,
            "X-CF-SpamH-Score": "0",
        }
        return {name: f"{name}: {text}\r\n".encode() for name, text in texts.items()}

    def mail(self, *, without: tuple[str, ...] = (), below: bytes = BELOW) -> bytes:
        return b"".join(line for name, line in self.fields.items() if name not in without) + below


USUAL = Block()
BAD = Block(dkim=(), dmarc="fail", spf="fail")


def read(raw: bytes) -> Edge:
    return edge.read(Header.of(raw))


def said(raw: bytes) -> tuple[str, str, str]:
    found = read(raw)
    return found.spf, found.dkim, found.dmarc


NOTHING = (UNKNOWN, UNKNOWN, UNKNOWN)


# -- Cloudflare's block --


def test_the_block_is_read_as_cloudflare_writes_it() -> None:
    assert read(USUAL.mail()) == Edge(IP, HOST, "pass", "pass", "pass", "")
    failing = Block(dkim=(("fail", "(verification failed) header.d=a.test"),), dmarc="fail (policy not aligned)")
    assert read(failing.mail()) == Edge(IP, HOST, "pass", "fail", "fail", "")


@pytest.mark.parametrize("end", [b"\n", b"\r"], ids=["LF", "CR"])
def test_the_line_ends_do_not_matter(end: bytes) -> None:
    assert read(USUAL.mail().replace(b"\r\n", end)) == read(USUAL.mail())


def test_upper_and_lower_case_do_not_matter() -> None:
    raw = USUAL.mail()
    for name in USUAL.fields:
        raw = raw.replace(name.encode() + b": ", name.swapcase().encode() + b": ")
    raw = raw.replace(b"mx.cloudflare.net;", b"MX.Cloudflare.NET;").replace(b"dmarc=pass", b"DMARC=Pass")
    assert read(raw) == Edge(IP, HOST, "pass", "pass", "pass", "")


@pytest.mark.parametrize(
    ("written", "ip"),
    [
        ("2607:f8b0:4864:20::112b", "2607:f8b0:4864:20::112b"),
        ("2607:F8B0:4864:0020:0:0:0:112B", "2607:f8b0:4864:20::112b"),
        ("10.0.0.1", "10.0.0.1"),
        ("999.1.1.1", ""),
        ("1.2.3", ""),
        (":::::", ""),
        ("....", ""),
        ("dead.beef", ""),
    ],
)
def test_the_address_is_one_or_none(written: str, ip: str) -> None:
    found = read(Block(ip=written).mail())
    assert (found.ip, found.host, found.dmarc) == (ip, HOST, "pass")


@pytest.mark.parametrize("written", ["unknown", "", "1.2.3.4; x", "[1.2.3.4]", "1.2.3.4%eth0", "1" * 46])
def test_a_received_line_of_another_form_is_not_cloudflares(written: str) -> None:
    found = read(Block(ip=written).mail())
    assert (found.ip, found.in_words) == ("", "spf=unknown dkim=unknown dmarc=unknown")
    assert found.why == "the first Received line is not Cloudflare's"


@pytest.mark.parametrize("result", KNOWN)
def test_every_result_that_there_is_is_taken_as_it_is(result: str) -> None:
    raw = Block(dkim=((result, "header.d=a.test"),), dmarc=result).mail()
    assert said(raw) == ("pass", result, result)


@pytest.mark.parametrize("word", ["passed", "xpass", "pass/1", "p", "=pass", "unknown", "", "pässe"])
def test_a_word_that_is_no_result_is_unknown(word: str) -> None:
    assert said(Block(dkim=((word, "header.d=a.test"),), dmarc=word or " ").mail()) == ("pass", UNKNOWN, UNKNOWN)


# -- several results --


@pytest.mark.parametrize(
    ("results", "counts"),
    [(("fail", "pass"), "pass"), (("pass", "fail"), "pass"), (("fail", "neutral"), "fail"), (("none", "fail"), "none")],
)
def test_of_several_signatures_any_that_passes_counts(results: tuple[str, ...], counts: str) -> None:
    raw = Block(dkim=tuple((result, f"header.d={result}.test") for result in results)).mail()
    assert read(raw).dkim == counts


def test_spf_is_that_of_the_envelope_sender_not_of_the_helo_name() -> None:
    assert read(Block(spf="fail", spf_helo="pass").mail()).spf == "fail"
    assert read(Block(spf="pass", spf_helo="fail").mail()).spf == "pass"


def test_a_mail_without_signature_or_policy_has_no_result_of_them() -> None:
    assert said(Block(dkim=(), dmarc="").mail()) == ("pass", UNKNOWN, UNKNOWN)


# -- where Authentication-Results is missing --


def test_without_results_those_of_the_arc_copy_are_taken() -> None:
    raw = Block(dmarc="fail", spf="softfail").mail(without=("Authentication-Results",))
    assert said(raw) == ("softfail", "pass", "fail")


def test_without_either_spf_alone_is_known() -> None:
    found = read(Block(spf="softfail").mail(without=("Authentication-Results", "ARC-Authentication-Results")))
    assert (found.ip, found.spf, found.dkim, found.dmarc) == (IP, "softfail", UNKNOWN, UNKNOWN)
    assert found.why == "Cloudflare's block has no Authentication-Results"


def test_without_any_of_them_nothing_but_the_address_is_known() -> None:
    raw = USUAL.mail(without=("Authentication-Results", "ARC-Authentication-Results", "Received-SPF"))
    assert read(raw) == Edge(IP, HOST, why="Cloudflare's block has no Authentication-Results")


@pytest.mark.parametrize("without", list(itertools.combinations(list(USUAL.fields)[1:-1], 3)))
def test_what_the_sender_writes_in_their_place_is_not_taken(without: tuple[str, ...]) -> None:
    lines = Block(dkim=(("pass", "header.d=evil.test"),), ip="192.0.2.66").fields
    forged = b"".join(lines[name] for name in without) + MARK + BELOW
    assert read(BAD.mail(without=without, below=forged)) == read(BAD.mail(without=without))


@pytest.mark.parametrize(
    "authserv", ["mx.google.com", "mx.cloudflare.net.evil.test", "x mx.cloudflare.net", "", '"', "()"]
)
def test_results_of_another_server_are_not_cloudflares(authserv: str) -> None:
    raw = USUAL.mail(without=("ARC-Authentication-Results", "Received-SPF"))
    assert said(raw.replace(b"mx.cloudflare.net;", authserv.encode() + b";")) == NOTHING


# -- what is no block --


@pytest.mark.parametrize("forged", [FORGED_RESULTS, FORGED_RECEIVED + FORGED_RESULTS + MARK, FORGED_RESULTS + MARK])
def test_nothing_below_the_mark_is_believed(forged: bytes) -> None:
    assert read(BAD.mail(below=forged + BELOW)) == Edge(IP, HOST, "fail", UNKNOWN, "fail", "")


def test_without_the_mark_nothing_is_believed() -> None:
    raw = USUAL.mail(without=("X-CF-SpamH-Score",))
    assert read(raw) == Edge(why="From stands within Cloudflare's lines")
    assert read(USUAL.mail(without=("X-CF-SpamH-Score",), below=b"\r\n")) == Edge(
        why="there is no X-CF-SpamH-Score line"
    )


@pytest.mark.parametrize(
    "below",
    [
        FORGED_RESULTS + MARK,  # a second Authentication-Results
        FORGED_RECEIVED + FORGED_RESULTS + MARK,
        b"From: a@b.test\r\n" + MARK,
        b"no field\r\n" + MARK,
        b"\r\n" + MARK,
    ],
)
def test_a_mark_that_the_sender_wrote_makes_no_block(below: bytes) -> None:
    raw = USUAL.mail(without=("X-CF-SpamH-Score",), below=below + BELOW)
    assert (read(raw).ip, said(raw)) == ("", NOTHING)


def test_the_mark_alone_is_no_block() -> None:
    assert read(MARK + FORGED_RECEIVED + FORGED_RESULTS + MARK + BELOW) == Edge(
        why="there is no Received line of Cloudflare's on top"
    )


@pytest.mark.parametrize(
    "above",
    [
        b"X-Other: 1\r\n",
        b"Received: from a.test (192.0.2.1) by mx.other.test id 1\r\n",
        b"no field\r\n",
        b" folded\r\n",
        b"\r\n",
        b"From a@b.test Mon\r\n",
        b"\xef\xbb\xbf",
        b"\x00",
    ],
)
def test_a_block_that_is_not_on_top_is_none(above: bytes) -> None:
    found = read(above + USUAL.mail())
    assert (found.ip, found.host, found.spf, found.dkim, found.dmarc) == ("", "", *NOTHING)
    assert found.why


@pytest.mark.parametrize(
    "stranger", [b"X-Other: 1\r\n", b"no field\r\n", b"DKIM-Signature: v=1\r\n", b"\r\n", b": x\r\n"]
)
def test_a_stranger_between_makes_it_no_block(stranger: bytes) -> None:
    lines = list(USUAL.fields.values())
    for place in range(1, len(lines)):
        raw = b"".join([*lines[:place], stranger, *lines[place:], BELOW])
        assert (read(raw).ip, said(raw)) == ("", NOTHING)


@pytest.mark.parametrize("name", [name for name in USUAL.fields if name != "X-CF-SpamH-Score"])
def test_a_name_that_stands_there_twice_makes_it_no_block(name: str) -> None:
    raw = b"".join(line * 2 if key == name else line for key, line in USUAL.fields.items()) + BELOW
    assert (read(raw).ip, said(raw)) == ("", NOTHING)


def test_another_order_makes_it_no_block() -> None:
    *lines, mark = USUAL.fields.values()
    usual, *others = itertools.permutations(lines)
    assert read(b"".join(usual) + mark + BELOW) == read(USUAL.mail())
    for order in others:
        raw = b"".join(order) + mark + BELOW
        assert (read(raw).ip, said(raw)) == ("", NOTHING)


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"\x00", BELOW, FORGED_RESULTS + BELOW, b"no header at all"])
def test_a_mail_without_a_block_is_unknown_not_passed(raw: bytes) -> None:
    found = read(raw)
    assert (found.ip, found.in_words) == ("", "spf=unknown dkim=unknown dmarc=unknown")
    assert found.why


@given(st.binary(max_size=300))
def test_no_mail_of_a_sender_says_anything_without_cloudflares_lines(raw: bytes) -> None:
    assert (read(raw).ip, said(raw)) == ("", NOTHING)


# -- comments and quoted strings (RFC 8601 2.2) --


@pytest.mark.parametrize(
    "written",
    [
        "dmarc=fail (a; dmarc=pass) header.from=x.test",
        "dmarc=fail (a (nested; dmarc=pass) b; dmarc=pass) header.from=x.test",
        "dmarc=fail (a \\) ; dmarc=pass) header.from=x.test",
        "dmarc=fail (a \\\\) header.from=x.test",
        'dmarc=fail header.from="a; dmarc=pass; b"',
        'dmarc=fail header.from="a \\"; dmarc=pass; b"',
        "dmarc=fail (unbalanced; dmarc=pass",
        "dmarc=fail header.from=x.test) ; x=pass",
        "dmarc=fail;\r\n\t(dmarc=pass;) x=y",
    ],
)
def test_a_semicolon_in_a_comment_or_in_quotes_parts_nothing(written: str) -> None:
    line = f"Authentication-Results: mx.cloudflare.net;\r\n\t{written}\r\n".encode()
    raw = USUAL.fields["Received"] + line + MARK + BELOW
    assert read(raw).dmarc == "fail"


# -- what a spammer can write into Cloudflare's own lines --

SENDERS = [
    "a;dkim=pass;dmarc=pass@evil.test",
    '"a; dkim=pass; dmarc=pass"@evil.test',
    '"a; dkim=pass; dmarc=pass; spf=pass smtp.mailfrom=x"@evil.test',
    '"a); dkim=pass; dmarc=pass; spf=pass smtp.mailfrom=x; ("@evil.test',
    "a);dkim=pass;dmarc=pass;spf=pass;(@evil.test",
    '"a) smtp.mailfrom=x; spf=pass smtp.mailfrom=x ("@evil.test',
    '"a\\); dkim=pass; dmarc=pass; x=("@evil.test',
    '"a\\"; dkim=pass; dmarc=pass; \\"b"@evil.test',
    '"("@evil.test',
    '")"@evil.test',
    "a(@evil.test",
    'a"@evil.test',
    '"\\\\"@evil.test',
    "a\\@evil.test",
    "=?utf-8?q?=3Bdmarc=3Dpass?=@evil.test",
    "a\u2028;dmarc=pass@evil.test",
    "a\x0b;\x0c\tdmarc=pass@evil.test",
]


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("dmarc", ["fail", ""])
def test_no_envelope_sender_speaks_for_cloudflare(sender: str, dmarc: str) -> None:
    """Cloudflare copies it into a comment and behind ``smtp.mailfrom=`` as it is: a bracket ends the comment."""
    found = read(replace(BAD, sender=sender, dmarc=dmarc).mail())
    assert (found.ip, found.spf, found.dkim, found.dmarc) == (IP, "fail", UNKNOWN, dmarc or UNKNOWN)
    found = read(replace(BAD, sender=sender, dmarc=dmarc).mail(without=("Authentication-Results",)))
    assert (found.ip, found.spf, found.dkim, found.dmarc) == (IP, "fail", UNKNOWN, dmarc or UNKNOWN)


@pytest.mark.parametrize(
    "helo",
    [
        "smtp.mailfrom.evil.test",
        "smtp.mailfrom=bank.test",
        "x);spf=pass;dmarc=pass;dkim=pass;(",
        "x;spf=pass;dmarc=pass;dkim=pass",
        "(",
        ")",
        '"',
        "[192.0.2.66]",
        "(192.0.2.66)",
    ],
)
def test_no_helo_name_speaks_for_cloudflare(helo: str) -> None:
    """``smtp.mailfrom.evil.test`` is a good host name, and its owner can let it pass SPF."""
    found = read(replace(BAD, helo=helo, spf_helo="pass").mail())
    assert (found.ip, found.spf, found.dkim, found.dmarc) == (IP, "fail", UNKNOWN, "fail")


@pytest.mark.parametrize(
    "helo", ["x (192.0.2.66) by cloudflare-email.net", "x (192.0.2.66)", "x (192.0.2.66)\tby cloudflare-email.net"]
)
def test_no_helo_name_with_blanks_is_taken_for_an_address(helo: str) -> None:
    """Cloudflare's own ``by`` stands on the next line."""
    assert read(replace(BAD, helo=helo).mail()).ip in {"", IP}


@pytest.mark.parametrize(
    "signed",
    [
        "header.d=a;dmarc=pass;.evil.test header.s=s1",
        "header.d=evil.test header.s=s;dmarc=pass;dkim=pass header.b=x",
        "header.i=a;dmarc=pass;dkim=pass;spf=pass@evil.test header.s=s1",
        "header.i=a; dmarc=pass; dkim=pass; spf=pass smtp.mailfrom=x; @evil.test header.s=s1",
        "header.d=a(.evil.test header.s=s1",
        "header.d=a).evil.test header.s=s1",
        'header.d=a".evil.test header.s=s1',
        "header.d=evil.test header.s=smtp.mailfrom=x",
    ],
)
def test_nothing_in_a_signature_speaks_for_cloudflare(signed: str) -> None:
    """Neither makes it a pass of anything, nor unknown of a failure: that would let the mail through as well."""
    bad = replace(BAD, dkim=(("neutral", f"(body hash did not verify) {signed}"),), sender='"x"@evil.test')
    found = read(bad.mail())
    assert (found.ip, found.spf, found.dkim, found.dmarc) == (IP, "fail", "neutral", "fail")


@pytest.mark.parametrize(
    "author", ["evil.test;dmarc=pass", "evil.test);dkim=pass;(", "(", '"', "evil.test; spf=pass smtp.mailfrom=x"]
)
def test_no_author_s_domain_speaks_for_cloudflare(author: str) -> None:
    found = read(replace(BAD, author=author).mail())
    assert (found.ip, found.spf, found.dkim, found.dmarc) == (IP, "fail", UNKNOWN, "fail")


def test_dmarc_passes_only_if_every_result_of_it_does() -> None:
    """Cloudflare writes one; where there are two, one of them is not Cloudflare's."""
    for lines in ("dmarc=fail;\r\n\tdmarc=pass", "dmarc=pass;\r\n\tdmarc=fail"):
        line = f"Authentication-Results: mx.cloudflare.net;\r\n\t{lines}\r\n".encode()
        assert read(USUAL.fields["Received"] + line + MARK + BELOW).dmarc != "pass"


# What can be in a name or address: all that is on one line. Pieces of the grammar, so that attacks come together.
_GRAMMAR = ["(", ")", ";", "; ", '"', "\\", "=", " ", "\t", "@", ",", "<", ">", "a", "é", "i=1", "smtp.mailfrom=x"]
_RESULTS = ["dkim=pass", "dmarc=pass", "spf=pass", "smtp.helo=", "mx.cloudflare.net"]
_WORDS = st.lists(st.sampled_from([*_GRAMMAR, *_RESULTS]), max_size=12).map("".join)


@settings(max_examples=80, deadline=None)
@given(sender=_WORDS, helo=_WORDS.map(lambda word: "".join(word.split()) or "x"), signed=_WORDS, author=_WORDS)
def test_no_words_of_a_sender_change_what_cloudflare_says(sender: str, helo: str, signed: str, author: str) -> None:
    dkim = (("neutral", f"(body hash did not verify) header.d={signed} header.s=s"),)
    bad = replace(BAD, sender=f"{sender}@evil.test", helo=helo, dkim=dkim, author=author)
    found = read(bad.mail(below=FORGED_RESULTS + MARK + BELOW))
    assert (found.ip, found.spf, found.dkim, found.dmarc) == (IP, "fail", "neutral", "fail")


@pytest.mark.parametrize(
    "piece", ["(", ")", '\\"', '"', ";", "a", "a=", "dkim=pass;", '"\\', " ", "\r\n\t", ";\r\n\tdkim=x"], ids=repr
)
def test_nonsense_of_any_size_takes_no_time(piece: str) -> None:
    """A mail that did not come through Cloudflare can have what it likes on top."""
    size = 1_000_000
    line = b'Authentication-Results: mx.cloudflare.net; "' + (piece * (size // len(piece))).encode() + b"\r\n"
    # Small first: what takes long there would take hours with all of it.
    for part in (line[:20_000] + b"\r\n", line):
        begun = time.process_time()
        read(USUAL.fields["Received"] + part + MARK + BELOW)
        taken = time.process_time() - begun
        assert taken < (1 if len(part) < 30_000 else 5)


# -- the mail as filters see it --


def inbound(raw: bytes, handed_over_by: str = "") -> Inbound:
    return Inbound(Mail(raw, "alice@example.test", "bob@sender.test"), handed_over_by)


def test_the_address_is_cloudflares_before_that_which_the_object_says() -> None:
    assert inbound(USUAL.mail(), "192.0.2.1").ip == IP
    assert inbound(BELOW, "192.0.2.1").ip == "192.0.2.1"
    assert inbound(BELOW).ip == ""


# -- auth --


def actions(**actions_: Action) -> dict[str, Action]:
    return {method: actions_.get(method, Action.NONE) for method in METHODS}


def failing(*methods: str) -> bytes:
    return Block(
        dkim=(("fail" if "dkim" in methods else "pass", "header.d=a.test"),),
        dmarc="fail" if "dmarc" in methods else "pass",
        spf="fail" if "spf" in methods else "pass",
    ).mail()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("action", [Action.TAG, Action.JUNK, Action.QUARANTINE])
def test_a_failure_does_what_the_person_said(method: str, action: Action) -> None:
    verdict = Auth(actions(**{method: action})).check(inbound(failing(method)))
    assert (verdict.action, verdict.code, verdict.score) == (action, "auth-failed", None)
    assert verdict.reason == f"{method.upper()} failed at Cloudflare"
    assert verdict.evidence == (read(failing(method)).in_words,)
    others = [other for other in METHODS if other != method]
    assert Auth(actions(**{method: action})).check(inbound(failing(*others))).action is Action.NONE


def test_by_default_it_only_reads() -> None:
    verdict = Auth(actions()).check(inbound(failing(*METHODS)))
    assert (verdict.action, verdict.score, verdict.reason) == (Action.NONE, None, "")
    assert verdict.evidence == ("spf=fail dkim=fail dmarc=fail",)


def test_of_several_failures_the_greatest_action_is_done_and_named() -> None:
    auth = Auth(actions(spf=Action.TAG, dkim=Action.QUARANTINE, dmarc=Action.JUNK))
    verdict = auth.check(inbound(failing(*METHODS)))
    assert (verdict.action, verdict.reason) == (Action.QUARANTINE, "DKIM failed at Cloudflare")
    assert auth.check(inbound(failing("spf", "dmarc"))).action is Action.JUNK
    both = Auth(actions(spf=Action.TAG, dmarc=Action.TAG)).check(inbound(failing(*METHODS)))
    assert both.reason == "SPF, DMARC failed at Cloudflare"


@pytest.mark.parametrize("word", [word for word in (*KNOWN, UNKNOWN, "nonsense", "failed") if word != "fail"])
def test_nothing_but_a_failure_does_anything(word: str) -> None:
    spf = word if word in _SPF_WORDS else "none"
    raw = Block(dkim=((word, "header.d=a.test"),), dmarc=word, spf=spf).mail()
    everything = dict.fromkeys(METHODS, Action.QUARANTINE)
    assert Auth(everything).check(inbound(raw)).action is Action.NONE


def test_what_is_not_known_is_no_failure_and_its_reason_is_said() -> None:
    everything = dict.fromkeys(METHODS, Action.QUARANTINE)
    verdict = Auth(everything).check(inbound(FORGED_RESULTS.replace(b"pass", b"fail") + BELOW))
    assert verdict.action is Action.NONE
    words = "there is no Received line of Cloudflare's on top"
    assert verdict.evidence == ("spf=unknown dkim=unknown dmarc=unknown", words)


def test_it_asks_nobody() -> None:
    assert Auth(actions()).timeout_seconds == 0
