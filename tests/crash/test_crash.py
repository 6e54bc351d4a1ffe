import random
from collections import Counter
from pathlib import Path

import pytest

from drain.outcome import Step
from tests.crash.rig import Rig, random_policy_fault, random_s3_fault, random_smtp_fault, rig
from tests.smtp_fake import DROP
from tests.support import on_verb

KILLS = 200
MAILS = 1000
SIGKILLED = -9


def lay_one_of_each(rig: Rig) -> None:
    """Mails that between them go through every step: delivered, deferred once, refused for good, denied, discarded."""
    for number in range(8):
        rig.lay(number, refused=number == 4, decision={2: "silent_deny", 3: "deny"}.get(number, "allow"))
    rig.smtp.answer = on_verb("RCPT", "450 4.2.1 later")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("step", list(Step))
def test_killed_at_any_step_nothing_is_lost(tmp_path: Path, step: Step, count: int) -> None:
    """At the first time that the step is reached, and in the middle of other mails."""
    with rig(tmp_path) as crashing:
        lay_one_of_each(crashing)
        once = step in {
            Step.LISTED, Step.LOCKED, Step.CONNECTED, Step.DEFERRED, Step.SETTING_ASIDE, Step.QUARANTINED,
            Step.DISCARDING, Step.DISCARDED,
        }  # fmt: skip
        code = crashing.pass_(kill_at=step.value, kill_count=1 if once else count)
        assert code == SIGKILLED, f"the pass did not reach {step}"
        assert crashing.last_step() == step
        crashing.finish()
        counts = crashing.check()
        assert counts["twice"] <= 2, "one for each SMTP session"


@pytest.mark.parametrize("step", [Step.DOT, Step.ACCEPTED])
def test_killed_between_dot_and_commit_the_mail_comes_twice_and_the_ledger_says_why(tmp_path: Path, step: Step) -> None:
    """The one window that there is; were it zero here, the rig would not see duplicates at all."""
    with rig(tmp_path) as crashing:
        crashing.lay(1)
        crashing.pass_(kill_at=step.value)
        crashing.finish()
        counts = crashing.check()
        assert counts == Counter(mails=1, twice=1, reinjections=1)


def test_a_reply_cut_off_after_the_final_dot_is_a_duplicate_with_a_reason(tmp_path: Path) -> None:
    with rig(tmp_path) as crashing:
        crashing.lay(1)
        crashing.smtp.answer = on_verb("FILED", DROP)
        crashing.finish()
        assert crashing.check() == Counter(mails=1, twice=1, reinjections=1)


@pytest.mark.parametrize(
    ("sabotage", "step", "words"),
    [
        ("no-injecting-commit", Step.ACCEPTED, "without a reason"),
        ("injecting-is-done", Step.INJECTING, "lost"),
        ("moved-first", Step.ROUTED, "lost"),
    ],
)
def test_the_check_catches_the_faults_that_it_is_for(tmp_path: Path, sabotage: str, step: Step, words: str) -> None:
    """With a guard taken out of the code, a kill at the right step must show."""
    with rig(tmp_path, sabotage) as crashing:
        crashing.lay(1)
        assert crashing.pass_(kill_at=step.value) == SIGKILLED
        crashing.finish()
        with pytest.raises(AssertionError, match=words):
            crashing.check()


@pytest.mark.slow
def test_killed_at_200_random_moments_over_1000_mails_with_faults_between(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"\nseed {seed}")  # to be able to look at a failure again
    killed_at: Counter[str] = Counter()
    with rig(tmp_path) as crashing:
        crashing.s3.fault = lambda operation, key: random_s3_fault(chance, operation)
        crashing.smtp.answer = lambda verb, argument: random_smtp_fault(chance, verb)
        crashing.policy.answer = lambda request: random_policy_fault(chance, request)
        kills = laid = 0
        while kills < KILLS:
            # Always something to do: mails come in while drains die.
            while laid < min(MAILS, (kills + 1) * MAILS // KILLS + 10):
                decision = {17: "deny", 27: "silent_deny"}.get(laid % 50, "allow")
                crashing.lay(laid, refused=laid % 50 == 7, decision=decision)
                laid += 1
            if crashing.kill_after(chance.uniform(0.0, 0.25)) == SIGKILLED:
                kills += 1
                killed_at[crashing.last_step()] += 1
        crashing.finish(passes=60)  # many of which a fault ends at once
        counts = crashing.check()
    assert counts["mails"] == laid == MAILS
    print(f"mails {laid}, kills {kills}, lost 0, twice {counts['twice']}, reinjections {counts['reinjections']}")
    print(f"killed after: {dict(killed_at.most_common())}")
    # Kills that all fall before the work began would show nothing.
    assert len(killed_at) >= 8
