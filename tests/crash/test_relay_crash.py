import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from drain.relay.step import Step
from tests.crash.relay_rig import (
    FINE,
    LATER,
    NEVER,
    REFUSED,
    RelayRig,
    random_home_fault,
    random_smarthost_fault,
    relay_rig,
    zygote,
)
from tests.smtp_fake import DROP
from tests.support import on_verb

KILLS = 200
MAILS = 1000
SIGKILLED = -9
# A machine that does other work too leaves most of the mails to the relay that nobody kills.
BUSY_SECONDS = 240.0
MIXED = [(FINE, FINE, FINE), (FINE, REFUSED, FINE), (LATER, FINE, LATER), (REFUSED, LATER, FINE)]
# Those of a user's mail, and those that a DSN goes through on its own way home.
STEPS = [*(step.value for step in Step), *(f"dsn:{step}" for step in ("leased", "answered", "settled", "cleared"))]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    with zygote(tmp_path_factory.mktemp("zygote")) as process:
        yield process


@pytest.fixture
def rig(tmp_path: Path, forks: "subprocess.Popen[str]") -> Iterator[RelayRig]:
    with relay_rig(tmp_path, forks) as crashing:
        yield crashing


def submit_some_of_each(rig: RelayRig) -> None:
    """Mails that between them go through every step, three times and more."""
    for number in range(8):
        rig.submit(number, *MIXED[number % len(MIXED)])


def killed_then_finished(rig: RelayRig) -> Counter[str]:
    """The end of a relay that something kills, and what the next makes of what it left; the counts."""
    assert rig.end() == SIGKILLED, f"nothing killed it: {rig.steps()}"
    rig.look()
    rig.finish()
    return rig.check()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_no_mail_is_lost(rig: RelayRig, step: str, count: int) -> None:
    """At the first time that the step is reached, and in the middle of other mails."""
    submit_some_of_each(rig)
    rig.start(kill_at=step, kill_count=count)
    counts = killed_then_finished(rig)
    assert rig.steps()[step] >= count
    assert counts["mails"] == 8
    assert counts["reported twice"] <= 1, "one report is on its way at a time"


@pytest.mark.parametrize("verb", ["CONNECT", "MAIL", "RCPT", "DATA", "BODY", "DOT", "FILED"])
@pytest.mark.parametrize("server", ["smarthost", "home"])
def test_killed_in_the_middle_of_a_transaction_no_mail_is_lost(rig: RelayRig, server: str, verb: str) -> None:
    """In ``FILED`` the server has the mail, and nobody has its 250."""
    getattr(rig, server).answer = rig.kill_on(verb)
    submit_some_of_each(rig)
    rig.start()
    counts = killed_then_finished(rig)
    assert counts["mails"] == 8


def test_killed_while_a_client_is_in_its_data_there_is_nothing(rig: RelayRig) -> None:
    rig.start()
    mail = rig.submission(0, (FINE,))
    with rig.client(wait=True) as client:
        client.mail(mail.sender)
        client.rcpt(mail.recipients[0])
        client.docmd("DATA")
        client.send(mail.raw[: len(mail.raw) // 2])
        rig.kill()
        assert killed_then_finished(rig) == Counter()
        client.close()
    assert rig.smarthost.filed == []


def test_killed_before_the_client_has_its_250_a_mail_may_be_there_and_comes_again(rig: RelayRig) -> None:
    """Were there none without a 250 here, the rig would not see that window at all."""
    rig.submit(1, FINE)
    rig.start(kill_at=Step.ACCEPTED.value)
    counts = killed_then_finished(rig)
    assert (counts["mails"], counts["without a 250, yet there"], counts["there"]) == (1, 1, 2)


def test_killed_between_the_answer_and_its_commit_the_mail_comes_twice_and_the_queue_says_why(rig: RelayRig) -> None:
    """Were it zero here, the rig would not see duplicates at all."""
    rig.submit(1, FINE, FINE)
    rig.start(kill_at=Step.ANSWERED.value)
    counts = killed_then_finished(rig)
    assert (counts["mails"], counts["there"], counts["twice"], counts["unknown"]) == (1, 2, 2, 1)


def test_a_report_that_was_filed_before_it_was_noted_comes_twice_and_the_queue_says_why(rig: RelayRig) -> None:
    rig.submit(1, REFUSED)
    rig.start(kill_at="dsn:answered")
    counts = killed_then_finished(rig)
    assert (counts["reported"], counts["reported twice"], counts["there"]) == (1, 1, 0)


@pytest.mark.parametrize("server", ["smarthost", "home"])
def test_a_connection_cut_off_at_the_final_dot_loses_nothing(rig: RelayRig, server: str) -> None:
    """Nobody knows, and the server has not got it."""
    getattr(rig, server).answer = on_verb("DOT", DROP)
    rig.submit(1, FINE)
    if server == "home":
        rig.smarthost.answer = on_verb("DATA", "554 5.7.1 not from you")
    rig.finish()
    counts = rig.check()
    assert (counts["there"], counts["reported"]) == ((1, 0) if server == "smarthost" else (0, 1))
    assert (counts["twice"], counts["reported twice"]) == (0, 0)


@pytest.mark.parametrize("server", ["smarthost", "home"])
def test_a_reply_cut_off_after_the_final_dot_is_a_duplicate_with_a_reason(rig: RelayRig, server: str) -> None:
    getattr(rig, server).answer = on_verb("FILED", DROP)
    rig.submit(1, FINE)
    if server == "home":
        rig.smarthost.answer = on_verb("DATA", "554 5.7.1 not from you")
    rig.finish()
    counts = rig.check()
    assert (counts["twice"], counts["reported twice"]) == ((1, 0) if server == "smarthost" else (0, 1))


def test_a_reply_cut_off_is_counted_also_where_the_first_recipient_has_to_wait_anyway(rig: RelayRig) -> None:
    """Both are delayed, in one entry: one by a 450, the other since nobody knows."""
    left = [DROP]
    rig.smarthost.answer = lambda verb, argument: left.pop() if verb == "FILED" and left else rig.usual(verb, argument)
    rig.submit(1, LATER, FINE)
    rig.finish()
    counts = rig.check()
    assert (counts["there"], counts["twice"], counts["unknown"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("sabotage", "step", "words"),
    [
        ("answered-first", "body-synced", "lost: "),
        ("row-first", "body-synced", "a body is lost"),
        ("sending-is-done", "leased", "lost: "),
        ("unknown-not-counted", "answered", "there without a reason"),
        ("unknown-not-counted", "dsn:answered", "reported without a reason"),
        ("bodies-deleted-first", "leased", "left in the queue: .*cannot be read"),
        ("report-later", "settled", "lost: "),
        ("report-first", "dsn-synced", "reported without a reason"),
    ],
)
def test_the_check_catches_the_faults_that_it_is_for(
    tmp_path: Path, forks: "subprocess.Popen[str]", sabotage: str, step: str, words: str
) -> None:
    """With a guard taken out of the code, a kill at the right step must show."""
    with relay_rig(tmp_path, forks, sabotage) as crashing:
        crashing.submit(1, FINE, REFUSED)
        crashing.start(kill_at=step)
        with pytest.raises(AssertionError, match=words):
            killed_then_finished(crashing)


@pytest.mark.slow
def test_killed_at_200_random_moments_over_1000_mails_with_faults_between(rig: RelayRig) -> None:
    """The seed makes the same kills and faults; which thread meets which of them, the machine decides."""
    seed = random.randrange(2**32)
    print(f"\nseed {seed}")  # to be able to look at a failure again
    moments, here, there = (random.Random(seed + number) for number in range(3))
    rig.smarthost.answer = lambda verb, argument: random_smarthost_fault(there, verb) or rig.usual(verb, argument)
    rig.home.answer = lambda verb, argument: random_home_fault(here, verb)
    killed_at: Counter[str] = Counter()
    submitted = 0
    for kill in range(KILLS):
        # Always something to do: mails come in while relays die.
        while submitted < min(MAILS, (kill + 1) * MAILS // KILLS + 10):
            kinds = (FINE, NEVER) if submitted % 50 == 13 else MIXED[submitted % 20 % len(MIXED)]
            rig.submit(submitted, *kinds)
            submitted += 1
        rig.start()
        time.sleep(moments.uniform(0.0, 0.3))
        rig.kill()
        assert rig.end() == SIGKILLED
        killed_at[rig.last_step()] += 1
        rig.look()
    rig.smarthost.answer, rig.home.answer = rig.usual, lambda verb, argument: None
    rig.let_all_be_sent(BUSY_SECONDS)
    rig.finish(BUSY_SECONDS, days=6)
    counts = rig.check()
    print(f"kills {KILLS}, lost 0, {dict(counts)}")
    print(f"killed after: {dict(killed_at.most_common())}")
    assert counts["mails"] == submitted == MAILS
    # Kills that all fall before the work began would show nothing.
    assert len(killed_at) >= 8
