"""Each filter's real part killed or hung in the middle of a pass: no mail lost, none let through unless it may be."""

import contextlib
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.filters import PARTS, Judged, Part, decision_part, from_the_edge, verdict_of
from tests.real.house import ALICE, RealHouse, as_filed
from tests.real.postfix import Postfix
from tests.real.r2 import R2

MAILS = 30
BACKLOG = 60
# When so many are delivered, the part is struck.
STRUCK_AFTER = 6
# Seconds for a check on a busy machine, and no more.
PATIENCE = 2
# Few at once, so that most of the mails have not been judged when it happens.
CONCURRENCY = 2
KILLED, HUNG = "killed", "hung"
NAMES = list(PARTS)


def mail(number: int) -> bytes:
    """One of many; each from another domain and address, so that no answer about it is known from before."""
    head = b"From: carol@x%d.test\r\nTo: alice@example.test\r\nSubject: %d\r\nMessage-ID: <%d@x.test>\r\n\r\n"
    return from_the_edge(head % (number, number, number) + b"body %d\r\n" % number, ip=f"198.51.100.{number + 1}")


@pytest.fixture
def judged(r2: R2, postfix: Postfix, tmp_path: Path) -> Judged:
    postfix.clear()
    return Judged(RealHouse(r2, postfix, tmp_path / "state"), {"CONCURRENCY": str(CONCURRENCY)})


@pytest.fixture
def policy(judged: Judged, tmp_path: Path) -> Iterator[Part]:
    """A filter that is asked first and stays well: what it said need not be asked again."""
    with decision_part(tmp_path) as part:
        judged.settings |= part.settings
        yield part


@pytest.fixture
def start(judged: Judged, tmp_path: Path) -> Iterator[Callable[[str], Part]]:
    """Starts what one filter asks, and has drain ask it; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def started(name: str) -> Part:
            part = stack.enter_context(PARTS[name](tmp_path))
            first = "auth" if name == "decision" else "auth,decision"
            judged.settings |= {"FILTERS": f"{first},{name}", "FILTER_FAIL_OPEN": "none", **part.settings}
            judged.settings["FILTER_TIMEOUT"] = f"{name}={PATIENCE}"
            return part

        yield started


def put(judged: Judged, count: int) -> None:
    for number in range(count):
        judged.put(f"{number:03}", mail(number), sender=f"carol@x{number}.test")


def filed(judged: Judged) -> Counter[bytes]:
    """What lies in the mailbox, each with how often."""
    return Counter(judged.house.filed(ALICE))


def every_mail_once(count: int) -> Counter[bytes]:
    return Counter(as_filed(mail(number)) for number in range(count))


def without_verdict(judged: Judged, name: str) -> list[bytes]:
    """The filed mails in which nothing is said of that filter, or that it failed."""
    mails = judged.house.server.mailbox(ALICE)
    return [one for one in mails if verdict_of(one, name) in ("", "failed")]


@pytest.mark.parametrize("fate", [KILLED, HUNG])
@pytest.mark.parametrize("name", NAMES)
def test_mail_waits_for_a_filter_that_goes_in_the_middle_of_a_pass_and_is_delivered_once_when_it_is_back(
    judged: Judged, policy: Part, start: Callable[[str], Part], name: str, fate: str
) -> None:
    part = start(name)
    put(judged, MAILS)
    broken = judged.watched(part.kill if fate == KILLED else part.freeze, STRUCK_AFTER)
    delivered = len(broken("mail", state="delivered"))
    assert STRUCK_AFTER <= delivered < MAILS - 5
    deferred = broken("mail", state="deferred", why=f"filter-{name}")
    assert (len(deferred), broken.code) == (MAILS - delivered, 75)
    assert sum(filed(judged).values()) == delivered
    assert not without_verdict(judged, name)
    assert len(judged.house.r2.keys("pending/")) == MAILS - delivered
    assert len(judged.house.r2.keys("processed/")) == delivered
    (alert,) = broken("alert")
    assert (alert["kind"], alert["subject"], alert["state"]) == ("filter", name, "begins")
    assert alert["message"].endswith("Mail waits for it.")

    if fate == HUNG:
        part.thaw()
    else:
        start(name)
    judged.all_are_due()
    # What comes back first does what was asked of it before.
    mended = judged.watched(FILTER_TIMEOUT=f"{name}=60")
    assert (len(mended("mail", state="delivered")), mended.code) == (MAILS - delivered, 0)
    assert filed(judged) == every_mail_once(MAILS)
    assert not without_verdict(judged, name)
    assert [event["message"] for event in mended("alert")] == [f"{name}: It works again."]
    assert judged.house.r2.keys("pending/") == []
    assert len(judged.house.r2.keys("processed/")) == MAILS
    if name != "decision":
        assert policy.http is not None
        assert len(policy.http.requests) == MAILS, "what was said before is not asked for again"


@pytest.mark.parametrize(
    ("name", "fate"), [*((name, KILLED) for name in NAMES), ("spamassassin", HUNG), ("decision", HUNG)]
)
def test_mail_goes_on_without_a_filter_that_fails_open_and_says_so(
    judged: Judged, policy: Part, start: Callable[[str], Part], name: str, fate: str
) -> None:
    part = start(name)
    put(judged, MAILS)
    broken = judged.watched(part.kill if fate == KILLED else part.freeze, STRUCK_AFTER, FILTER_FAIL_OPEN=name)
    assert (len(broken("mail", state="delivered")), broken.code) == (MAILS, 0)
    assert filed(judged) == every_mail_once(MAILS)
    said = Counter(verdict_of(one, name) == "failed" for one in judged.house.server.mailbox(ALICE))
    assert STRUCK_AFTER <= said[False] < MAILS - 5
    assert said[True] == MAILS - said[False]
    (alert,) = broken("alert")
    assert (alert["kind"], alert["subject"], alert["state"]) == ("filter", name, "begins")
    assert alert["message"].endswith("Mail goes on without it.")


def test_only_the_filter_that_is_named_fails_open(judged: Judged, policy: Part, start: Callable[[str], Part]) -> None:
    start("clamav").kill()
    put(judged, 3)
    broken = judged.watched(FILTER_FAIL_OPEN="dnsbl,spamassassin,ai,decision")
    assert (len(broken("mail", state="deferred", why="filter-clamav")), broken.code) == (3, 75)
    assert judged.house.server.mailbox(ALICE) == []


def test_a_series_of_passes_without_a_filter_has_one_alert(
    judged: Judged, policy: Part, start: Callable[[str], Part]
) -> None:
    part = start("clamav")
    put(judged, MAILS)
    broken = judged.watched(part.kill, STRUCK_AFTER)
    alerts = broken("alert")
    left = MAILS - len(broken("mail", state="delivered"))
    assert judged.pass_()["waiting"] == left - 1, "not due, and one of them is tried"
    for _ in range(2):
        judged.all_are_due()
        again = judged.watched()
        assert len(again("mail", state="deferred")) == left
        alerts += again("alert")
    assert len(alerts) == 1
    start("clamav")
    judged.all_are_due()
    assert len(judged.watched()("alert", message="clamav: It works again.")) == 1
    assert filed(judged) == every_mail_once(MAILS)


def test_drain_killed_while_it_waits_for_a_filter_has_lost_nothing(
    judged: Judged, policy: Part, start: Callable[[str], Part]
) -> None:
    part = start("spamassassin")
    put(judged, 6)
    part.freeze()
    judged.settings["FILTER_TIMEOUT"] = "60"
    assert policy.http is not None
    with subprocess.Popen(
        [sys.executable, "-m", "drain", "once"], env=judged.house.environ(**judged.settings)
    ) as drain:
        deadline = time.monotonic() + 30
        while len(policy.http.requests) < CONCURRENCY:
            assert time.monotonic() < deadline, "it never asked"
            time.sleep(0.05)
        drain.send_signal(signal.SIGKILL)
    part.thaw()
    assert judged.house.server.mailbox(ALICE) == []
    assert judged.pass_()["delivered"] == 6
    assert filed(judged) == every_mail_once(6)


@pytest.mark.parametrize("name", ["dnsbl", "spamassassin", "decision"])
def test_a_long_backlog_does_not_wait_for_a_hung_filter_mail_by_mail(
    judged: Judged, policy: Part, start: Callable[[str], Part], name: str
) -> None:
    """After three failures in a row it is not asked again: all of them, two at once, would take a minute."""
    part = start(name)
    put(judged, BACKLOG)
    struck = 0.0

    def strike() -> None:
        nonlocal struck
        part.freeze()
        struck = time.monotonic()

    broken = judged.watched(strike, STRUCK_AFTER)
    took = time.monotonic() - struck
    delivered = len(broken("mail", state="delivered"))
    print(f"{BACKLOG - delivered} mails, {name} hung, {PATIENCE} s a check: {took:.1f} s")
    assert took < (BACKLOG - STRUCK_AFTER) * PATIENCE / CONCURRENCY / 2
    assert (len(broken("mail", state="deferred")), broken.code) == (BACKLOG - delivered, 75)
    assert sum(filed(judged).values()) == delivered
    assert not without_verdict(judged, name)
    assert len(judged.house.r2.keys("pending/")) == BACKLOG - delivered
    if part.http is not None:
        # One that is asked at the same moment as the third can still be on its way.
        assert 3 <= part.http.connections - delivered <= 3 + CONCURRENCY
