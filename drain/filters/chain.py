"""The filters, one after the other, and what their verdicts come to.

They are asked in the person's order until one settles the matter. Each has its
time, kept from outside too: one that hangs is left behind. Where one fails, the
person has said what that means: "fail open", and the mail goes on without its
verdict, or else the mail waits.
"""

import contextlib
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from drain.errors import Stopping
from drain.filters import Filter
from drain.filters.inbound import Inbound
from drain.filters.verdict import Action, FilterFailed, Verdict

_Result = TypeVar("_Result")

# After so many failures in a row that took their time, a service is asked whether it is there
# at all. If not, it is left alone for a while: a long backlog would only wait for time-outs.
_FAILURES_IN_A_ROW = 3
_SLOW_SECONDS = 1.0
_LEFT_ALONE_SECONDS = 30.0
_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Answer:
    """What one filter said: a verdict, or why it has none (and whether that is for the service's sake: ``down``)."""

    filter: str
    settings: str = ""
    verdict: Verdict | None = None
    failure: str = ""
    down: bool = True
    seconds: float = 0.0
    costs: bool = False  # worth keeping


@dataclass(frozen=True)
class Judgement:
    """What all said, and what it comes to.

    ``score`` is None where no filter gives points. ``failed`` names the filter
    for which the mail has to wait, "" if there is none. ``released``: nobody was
    asked, since a person had said that it is to be delivered.
    """

    action: Action = Action.NONE
    score: float | None = None
    answers: tuple[Answer, ...] = ()
    failed: str = ""
    released: bool = False

    @property
    def verdicts(self) -> list[tuple[str, Verdict]]:
        """Those that there are, by filter."""
        return [(answer.filter, answer.verdict) for answer in self.answers if answer.verdict is not None]

    @property
    def in_words(self) -> str:
        """``tag, 7.3 points``; "" where nothing was found and nobody gives points."""
        if self.score is None:
            return self.action.word if self.action else ""
        return f"{self.action.word if self.action else 'deliver'}, {self.score:.1f} points"

    @property
    def worst(self) -> Verdict:
        """The verdict that asked for the most: by its action, then by its points."""
        return max(
            (verdict for _, verdict in self.verdicts),
            key=lambda verdict: (verdict.action, verdict.score or 0.0),
            default=Verdict(),
        )


@dataclass(frozen=True)
class Rules:
    """What verdicts come to.

    From ``tag_score`` points on a mail is spam, which means ``spam_action``; from
    ``quarantine_score`` on it goes to quarantine.
    """

    tag_score: float
    quarantine_score: float
    spam_action: Action = Action.TAG
    allow_discard: bool = False

    def action(self, verdicts: Sequence[Verdict]) -> Action:
        """The disposition."""
        asked = max((verdict.action for verdict in verdicts), default=Action.NONE)
        points = total(verdicts)
        if points is not None and points >= self.quarantine_score:
            asked = max(asked, Action.QUARANTINE)
        elif points is not None and points >= self.tag_score:
            asked = max(asked, self.spam_action)
        if asked is Action.TAG:
            asked = self.spam_action
        return Action.QUARANTINE if asked is Action.DISCARD and not self.allow_discard else asked


def total(verdicts: Sequence[Verdict]) -> float | None:
    """The sum of all points; None if nobody gives any."""
    points = [verdict.score for verdict in verdicts if verdict.score is not None]
    return sum(points) if points else None


@dataclass
class Chain:
    """The filters of one pass; `judge` may be called from several threads.

    *spend* takes one call of a filter's budget, and says whether there was one;
    *refund* gives it back.
    """

    filters: Sequence[Filter]
    rules: Rules
    fail_open: frozenset[str] = frozenset()
    spend: Callable[[str], bool] = lambda name: True
    refund: Callable[[str], None] = lambda name: None
    stopping: Callable[[], bool] = lambda: False
    # Of this pass: the words of each filter's first failure, who gave an answer, and whose last one was a failure.
    troubles: dict[str, str] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    _left_alone_until: dict[str, float] = field(default_factory=dict)
    _in_a_row: dict[str, int] = field(default_factory=dict)
    _places: dict[str, threading.Semaphore] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def asks(self) -> bool:
        """Whether any filter asks somebody, so that its verdicts are kept."""
        return any(asked.timeout_seconds for asked in self.filters)

    def judge(self, inbound: Inbound, kept: Mapping[str, tuple[str, Verdict]]) -> Judgement:
        """Asks the filters; *kept* has earlier verdicts on this mail, with the settings that they were given under.

        Raises:
            Stopping: drain is to stop.
        """
        answers: list[Answer] = []
        action = Action.NONE
        verdicts: list[Verdict] = []
        failed = ""
        for asked in self.filters:
            answer = self._ask(asked, inbound, kept.get(asked.name))
            answers.append(answer)
            if answer.verdict is not None:
                verdicts.append(answer.verdict)
                action = self.rules.action(verdicts)
            if answer.failure and asked.name not in self.fail_open:
                failed = asked.name
            if failed or action.settles:
                break
        # A filter that is closed and has nothing to say holds the mail, but what the others found stands.
        return Judgement(action, total(verdicts), tuple(answers), "" if action.settles else failed)

    def _ask(self, asked: Filter, inbound: Inbound, kept: tuple[str, Verdict] | None) -> Answer:
        settings = fingerprint(asked)
        if kept is not None and kept[0] == settings:
            return Answer(asked.name, settings, kept[1])
        begun = time.monotonic()
        verdict, failure, down = None, "", True
        try:
            verdict = self._checked(asked, inbound)
            failure = verdict.incomplete
        except FilterFailed as error:
            failure, down = str(error), error.down
        except Stopping:
            raise
        except Exception as error:  # noqa: BLE001 (a bug of a filter's must not lose or hold up a mail in another way)
            failure, down = f"{asked.name} has a bug: {type(error).__name__}. Please report it.", False
        seconds = time.monotonic() - begun
        self._note(asked, failure, slow=seconds >= _SLOW_SECONDS)
        costs = asked.timeout_seconds > 0 and verdict is not None and not failure
        return Answer(asked.name, settings, verdict, failure, down, seconds, costs)

    def _note(self, asked: Filter, failure: str, *, slow: bool) -> None:
        with self._lock:
            if failure:
                self.troubles.setdefault(asked.name, failure)
                self.failing.add(asked.name)
            else:
                self.answered.add(asked.name)
                self.failing.discard(asked.name)
            # Who fails at once can be asked again and costs nothing.
            in_a_row = self._in_a_row.get(asked.name, 0) + 1 if failure and slow else 0
            self._in_a_row[asked.name] = in_a_row % _FAILURES_IN_A_ROW
        # Outside the lock, since it takes time again. Only mails can make a healthy service slow.
        if in_a_row == _FAILURES_IN_A_ROW and not self._is_there(asked):
            self._left_alone_until[asked.name] = time.monotonic() + _LEFT_ALONE_SECONDS

    def _is_there(self, asked: Filter) -> bool:
        """Whether a service answers at all, where there is a way to find out."""
        probe = getattr(asked, "probe", None)
        if probe is None or not self.spend(asked.name):
            return False
        try:
            self._in_time(asked, probe)
        except Stopping:
            raise
        except Exception:  # noqa: BLE001 (a failure, or a bug: nothing that says that it is there)
            return False
        return True

    def _checked(self, asked: Filter, inbound: Inbound) -> Verdict:
        if not asked.timeout_seconds:
            return asked.check(inbound)
        with self._place(asked):
            if time.monotonic() < self._left_alone_until.get(asked.name, 0.0):
                raise FilterFailed(self.troubles[asked.name])
            if not self.spend(asked.name):
                words = f"{asked.name} has used up its calls of this month; it is asked again on the first of the next."
                raise FilterFailed(words, "AI_MONTHLY_CALLS gives it more.")
            try:
                return self._in_time(asked, lambda: asked.check(inbound))
            except FilterFailed as error:
                if not error.asked:
                    self.refund(asked.name)
                raise

    @contextlib.contextmanager
    def _place(self, asked: Filter) -> Iterator[None]:
        """One of the few that the filter has, which is not waited for in its time."""
        most = getattr(asked, "at_once", 0)
        if not most:
            yield
            return
        with self._lock:
            places = self._places.setdefault(asked.name, threading.Semaphore(most))
        while not places.acquire(timeout=_TICK_SECONDS):
            if self.stopping():
                raise Stopping("drain is stopping.")
        try:
            yield
        finally:
            places.release()

    def _in_time(self, asked: Filter, do: Callable[[], _Result]) -> _Result:
        """*do* on a thread of its own, which is left behind when the filter's time is over."""
        answers: queue.SimpleQueue[_Result | Exception] = queue.SimpleQueue()

        def check() -> None:
            try:
                answers.put(do())
            except Exception as error:  # noqa: BLE001 (raised again below)
                answers.put(error)

        threading.Thread(target=check, name=f"filter-{asked.name}", daemon=True).start()
        # A little more than the filter takes for itself, whose own words say more.
        until = time.monotonic() + asked.timeout_seconds + 1.0
        while True:
            try:
                answer = answers.get(timeout=max(min(_TICK_SECONDS, until - time.monotonic()), 0.001))
            except queue.Empty:
                if self.stopping():
                    raise Stopping("drain is stopping.") from None
                if time.monotonic() >= until:
                    words = f"{asked.name} did not answer within {asked.timeout_seconds:g} s."
                    raise FilterFailed(words, "FILTER_TIMEOUT gives it more.") from None
                continue
            if isinstance(answer, Exception):
                raise answer
            return answer


def fingerprint(asked: Filter) -> str:
    """A digest of a filter's settings."""
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]
