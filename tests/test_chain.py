import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from drain.errors import Stopping
from drain.filters import Action, FilterFailed, Inbound, Verdict, chain as chain_module
from drain.filters.chain import Chain, Judgement, Rules, fingerprint
from drain.mail import Mail
from drain.setting import Secret

INBOUND = Inbound(Mail(b"From: a@x.test\r\n\r\nhello\r\n", "alice@example.test", "a@x.test"))
RULES = Rules(tag_score=5.0, quarantine_score=15.0)


@dataclass(frozen=True)
class Says:
    """A filter that says what it is told to, and counts how often it is asked."""

    name: str
    does: Callable[[], Verdict] = field(repr=False)
    timeout_seconds: float = 5.0
    asked: list[str] = field(default_factory=list, repr=False)

    def check(self, inbound: Inbound) -> Verdict:
        self.asked.append(threading.current_thread().name)
        assert inbound is INBOUND
        return self.does()


def says(name: str, verdict: Verdict, timeout_seconds: float = 5.0) -> Says:
    return Says(name, lambda: verdict, timeout_seconds)


def fails(name: str, error: Exception, timeout_seconds: float = 5.0) -> Says:
    def does() -> Verdict:
        raise error

    return Says(name, does, timeout_seconds)


def judged(*filters: Says, rules: Rules = RULES, fail_open: tuple[str, ...] = ()) -> Judgement:
    return Chain(filters, rules, frozenset(fail_open)).judge(INBOUND, {})


def test_filters_are_asked_in_order_and_their_points_add_up() -> None:
    order: list[str] = []

    def told(name: str, score: float | None) -> Says:
        def does() -> Verdict:
            order.append(name)
            return Verdict(score)

        return Says(name, does)

    found = judged(told("one", 3.0), told("two", None), told("three", 2.5))
    assert order == ["one", "two", "three"]
    assert (found.action, found.score) == (Action.TAG, 5.5)
    assert [answer.filter for answer in found.answers] == order


@pytest.mark.parametrize(
    ("scores", "action"),
    [
        ([], Action.NONE),
        ([None], Action.NONE),
        ([4.9], Action.NONE),
        ([5.0], Action.TAG),
        ([14.9], Action.TAG),
        ([15.0], Action.QUARANTINE),
        ([10.0, -6.0], Action.NONE),
        ([3.0, 3.0], Action.TAG),
        ([1000.0], Action.QUARANTINE),
    ],
)
def test_points_come_to_a_disposition(scores: list[float | None], action: Action) -> None:
    assert RULES.action([Verdict(score) for score in scores]) is action


def test_nobody_who_gives_points_is_no_score_and_not_a_score_of_nothing() -> None:
    assert judged(says("auth", Verdict())).score is None
    assert judged(says("dnsbl", Verdict(0.0))).score == 0.0


@pytest.mark.parametrize("action", [Action.QUARANTINE, Action.DISCARD])
def test_a_verdict_that_settles_the_matter_ends_the_chain(action: Action) -> None:
    later = says("later", Verdict(1.0))
    found = judged(says("first", Verdict(action=action)), later, rules=Rules(5.0, 15.0, allow_discard=True))
    assert found.action is action
    assert later.asked == []


def test_enough_points_settle_the_matter_too() -> None:
    later = says("later", Verdict(-100.0))
    assert judged(says("first", Verdict(15.0)), later).action is Action.QUARANTINE
    assert later.asked == []


def test_a_discard_is_a_quarantine_unless_the_person_says_otherwise() -> None:
    silent = says("decision", Verdict(action=Action.DISCARD))
    assert judged(silent).action is Action.QUARANTINE
    assert judged(silent, rules=Rules(5.0, 15.0, allow_discard=True)).action is Action.DISCARD


def test_no_number_of_points_discards() -> None:
    model = says("ai", Verdict(1e9))
    assert judged(model, rules=Rules(5.0, 15.0, allow_discard=True)).action is Action.QUARANTINE


def test_spam_goes_where_the_person_wants_spam() -> None:
    junk = Rules(5.0, 15.0, spam_action=Action.JUNK)
    assert judged(says("a", Verdict(6.0)), rules=junk).action is Action.JUNK
    assert judged(says("a", Verdict(action=Action.TAG)), rules=junk).action is Action.JUNK
    assert judged(says("a", Verdict(action=Action.JUNK))).action is Action.JUNK
    assert judged(says("a", Verdict(1.0)), rules=junk).action is Action.NONE


@pytest.mark.parametrize(
    "error", [FilterFailed("It is away."), FilterFailed("Nonsense.", down=False), ZeroDivisionError(), OSError("x")]
)
@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_a_failure_holds_the_mail_unless_the_person_lets_it_pass(error: Exception, seconds: float) -> None:
    later = says("later", Verdict(1.0))
    found = judged(fails("broken", error, timeout_seconds=seconds), later)
    assert found.failed == "broken"
    assert later.asked == []
    assert found.answers[-1].failure
    opened = judged(fails("broken", error, timeout_seconds=seconds), later, fail_open=("broken",))
    assert (opened.failed, opened.action, opened.score) == ("", Action.NONE, 1.0)
    assert len(later.asked) == 1


def test_what_others_settled_stands_before_a_failure_is_met() -> None:
    broken = fails("broken", FilterFailed("away"))
    assert judged(says("first", Verdict(action=Action.QUARANTINE)), broken).failed == ""
    assert broken.asked == []


def test_half_a_verdict_counts_as_a_failure_that_says_something() -> None:
    half = says("dnsbl", Verdict(5.0, incomplete="One list does not answer."))
    assert judged(half).failed == "dnsbl"
    opened = judged(half, fail_open=("dnsbl",))
    assert (opened.action, opened.failed) == (Action.TAG, "")
    assert opened.answers[0].failure == "One list does not answer."
    assert not opened.answers[0].costs, "it is not kept: next time it may be whole"


def test_a_filter_that_hangs_is_left_behind_in_its_time() -> None:
    released = threading.Event()

    def hangs() -> Verdict:
        released.wait(20)
        return Verdict(100.0)

    begun = time.monotonic()
    found = judged(Says("slow", hangs, timeout_seconds=0.1))
    took = time.monotonic() - begun
    released.set()
    assert found.failed == "slow"
    assert "did not answer within 0.1 s" in found.answers[0].failure
    assert took < 10


def test_a_hanging_filter_does_not_hold_up_the_end_of_drain() -> None:
    released = threading.Event()

    def hangs() -> Verdict:
        released.wait(20)
        return Verdict()

    chain = Chain([Says("slow", hangs, timeout_seconds=20)], RULES, stopping=lambda: True)
    begun = time.monotonic()
    with pytest.raises(Stopping):
        chain.judge(INBOUND, {})
    released.set()
    assert time.monotonic() - begun < 10


def test_a_local_filter_runs_on_the_callers_thread_and_is_not_kept() -> None:
    local, remote = says("auth", Verdict(), timeout_seconds=0.0), says("spamassassin", Verdict(1.0))
    found = judged(local, remote)
    assert local.asked == [threading.current_thread().name]
    assert remote.asked != [threading.current_thread().name]
    assert [answer.costs for answer in found.answers] == [False, True]


# -- a service that is down, and a long backlog --


@dataclass(frozen=True)
class Probed(Says):
    """One that can be asked whether it is there."""

    there: bool = True
    probed: list[str] = field(default_factory=list, repr=False)

    def probe(self) -> str:
        self.probed.append("")
        if not self.there:
            raise FilterFailed("It is not there.")
        return "It is there."


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a hundredth of a second is slow."""
    monkeypatch.setattr(chain_module, "_SLOW_SECONDS", 0.01)


def slow(half: bool = False) -> Verdict:  # noqa: FBT001, FBT002 (a case)
    time.sleep(0.015)
    if half:
        return Verdict(1.0, incomplete="One list does not answer.")
    raise FilterFailed("spamd is away.", "Start it.", down=False)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("half", [True, False])
def test_who_takes_his_time_to_say_nothing_and_is_not_there_is_not_asked_for_every_mail(
    half: bool,  # noqa: FBT001 (a case)
) -> None:
    hung = Probed("spamassassin", lambda: slow(half), there=False)
    chain = Chain([hung], RULES)
    answers = [chain.judge(INBOUND, {}).answers[0] for _ in range(50)]
    assert (len(hung.asked), len(hung.probed)) == (3, 1)
    assert all(answer.failure for answer in answers)
    assert chain.troubles["spamassassin"] == answers[-1].failure


@pytest.mark.usefixtures("quick")
def test_mails_that_only_make_a_healthy_service_slow_do_not_switch_it_off() -> None:
    """Or three mails of a sender's would let all others pass unseen, where it fails open."""
    healthy = Probed("ai", slow)
    chain = Chain([healthy], RULES, frozenset({"ai"}))
    for _ in range(12):
        chain.judge(INBOUND, {})
    assert (len(healthy.asked), len(healthy.probed)) == (12, 4)


@pytest.mark.usefixtures("quick")
def test_one_that_cannot_be_asked_whether_it_is_there_is_left_alone_too() -> None:
    hung = Says("decision", slow)
    chain = Chain([hung], RULES)
    for _ in range(50):
        chain.judge(INBOUND, {})
    assert len(hung.asked) == 3


@pytest.mark.usefixtures("quick")
def test_after_a_while_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "_LEFT_ALONE_SECONDS", 0.05)
    answers: list[Callable[[], Verdict]] = [slow, slow, slow]
    flaky = Says("decision", lambda: answers.pop(0)() if answers else Verdict(1.0))
    chain = Chain([flaky], RULES)
    assert [chain.judge(INBOUND, {}).failed for _ in range(5)] == ["decision"] * 5
    time.sleep(0.06)
    assert [chain.judge(INBOUND, {}).failed for _ in range(5)] == [""] * 5
    assert len(flaky.asked) == 8


def test_who_refuses_at_once_costs_nothing_and_is_asked_for_every_mail() -> None:
    """A service that is started again a moment later has let no mail pass that it could have seen."""
    down = fails("spamassassin", FilterFailed("spamd is away.", "Start it."))
    chain = Chain([down], RULES)
    failures = [chain.judge(INBOUND, {}).answers[0].failure for _ in range(20)]
    assert len(down.asked) == 20
    assert set(failures) == {"spamd is away. Start it."}
    assert chain.troubles == {"spamassassin": "spamd is away. Start it."}


@pytest.mark.usefixtures("quick")
def test_failures_have_to_come_in_a_row() -> None:
    answers: list[Callable[[], Verdict]] = [slow, slow, lambda: Verdict(1.0)] * 10
    flaky = Says("spamassassin", lambda: answers.pop(0)())  # noqa: PLW0108 (each time another)
    chain = Chain([flaky], RULES)
    for _ in range(30):
        chain.judge(INBOUND, {})
    assert len(flaky.asked) == 30
    assert chain.answered == {"spamassassin"}


def test_a_filter_that_takes_a_few_at_once_is_not_asked_for_more_and_the_wait_is_not_its_time() -> None:
    most = [0]
    now = [0]
    lock = threading.Lock()

    def busy() -> Verdict:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return Verdict(1.0)

    @dataclass(frozen=True)
    class Few(Says):
        at_once: int = 2

    chain = Chain([Few("ai", busy, timeout_seconds=0.2)], RULES)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: chain.judge(INBOUND, {}), range(16)))
    assert most == [2]
    assert [judgement.failed for judgement in found] == [""] * 16


def test_a_kept_verdict_is_not_asked_for_again_unless_the_settings_changed() -> None:
    asked = says("spamassassin", Verdict(1.0))
    kept = {"spamassassin": (fingerprint(asked), Verdict(7.0, reason="earlier"))}
    found = Chain([asked], RULES).judge(INBOUND, kept)
    assert (found.score, asked.asked) == (7.0, [])
    assert not found.answers[0].costs
    other = {"spamassassin": ("another", Verdict(7.0))}
    assert Chain([asked], RULES).judge(INBOUND, other).score == 1.0


def test_the_fingerprint_changes_with_a_setting_and_holds_no_secret() -> None:
    from drain.filters.ai import Ai

    def made(**more: str) -> Ai:
        settings = {"base_url": "https://ai.test/v1", "model": "m", "scope": "headers", "response_format": "none"}
        return Ai(api_key=Secret("hush"), timeout_seconds=1.0, **{**settings, **more})

    assert fingerprint(made()) == fingerprint(made())
    assert len({fingerprint(made()), fingerprint(made(model="n")), fingerprint(made(scope="full_email"))}) == 3
    assert "hush" not in repr(made())


def test_a_budget_is_asked_before_the_filter_and_its_end_is_a_failure() -> None:
    model = says("ai", Verdict(1.0))
    left = [True, True, False, False]
    chain = Chain([model], RULES, frozenset({"ai"}), spend=lambda name: left.pop(0))
    scores = [chain.judge(INBOUND, {}).score for _ in range(4)]
    assert scores == [1.0, 1.0, None, None]
    assert len(model.asked) == 2
    assert "used up its calls" in chain.troubles["ai"]


def test_the_worst_verdict_is_the_one_that_is_named() -> None:
    found = judged(
        says("auth", Verdict(action=Action.TAG, code="auth-failed")),
        says("spamassassin", Verdict(20.0, code="spam")),
        rules=Rules(5.0, 100.0),
    )
    assert found.worst.code == "auth-failed"
    assert judged().worst == Verdict()
    assert found.in_words == "tag, 20.0 points"
