"""How many SMTP sessions are in use at once, with a server that says 453 when it is crowded."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from drain.errors import Stopping
from drain.inject import Session
from drain.ledger import Ledger
from drain.login import Server
from drain.mail import Mail
from drain.outcome import Outcome, Step
from drain.sessions import _CALM_TRANSACTIONS, Sessions
from drain.setting import Secret
from drain.state import State
from tests.smtp_fake import FakeSmtp
from tests.support import MAIL, House, on_verb, until

ALICE = "alice@example.test"


class Crowd:
    """An ``answer`` for `FakeSmtp`: 453 to *verb* whenever two transactions are open at once.

    The first transaction waits in that verb for a second one: there is a crowd at least once.
    """

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.refused = 0
        self.most = 0
        self._open: set[int] = set()  # each connection has a thread of its own
        self._lock = threading.Lock()
        self._met = threading.Event()

    def __call__(self, verb: str, _argument: str) -> str | None:
        me = threading.get_ident()
        with self._lock:
            if verb == "MAIL":
                self._open.add(me)
                self.most = max(self.most, len(self._open))
                if len(self._open) == 2:
                    self._met.set()
            elif verb in {"RSET", "QUIT", "FILED"}:
                self._open.discard(me)
        if verb != self.verb:
            return None
        assert self._met.wait(60), "there were never two at once"
        with self._lock:
            if len(self._open) == 1:
                return None
            self._open.discard(me)
            self.refused += 1
            return "453 4.3.2 Storage access serialization problem, try again later"


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
def test_a_server_that_takes_one_at_a_time_gets_all_mail_in_one_pass_once_each(house: House, verb: str) -> None:
    crowd = Crowd(verb)
    house.smtp.answer = crowd
    for number in range(50):
        house.put(f"{number:02}", MAIL + b"%d" % number)
    summary = house.sweep(INJECT_CONNECTIONS="4").run()
    assert summary.outcomes == {Outcome.DELIVERED: 50}
    assert len(house.smtp.count()) == 50
    assert set(house.smtp.count().values()) == {1}
    assert crowd.refused >= 1
    # Each session in use met the crowd at most once at each width: four, three, two.
    assert crowd.refused <= 4 + 3 + 2
    with contextlib.closing(Ledger(house.state_dir / "ledger.db")) as ledger:
        assert ledger.counts() == {State.SETTLED: 50}
    assert house.keys("pending/") == []


def test_a_server_that_is_always_crowded_defers_all_and_the_pass_ends(house: House) -> None:
    house.smtp.answer = lambda verb, argument: "453 4.3.2 busy" if verb == "RCPT" else None
    for number in range(200):
        house.put(f"{number:03}", MAIL + b"%d" % number)
    summary = house.sweep(INJECT_CONNECTIONS="4").run()
    assert summary.outcomes == {Outcome.DEFERRED: 200}
    assert house.smtp.filed == []
    tries = sum(command.startswith("MAIL") for command in house.smtp.commands)
    assert 200 <= tries <= 200 + 4 + 3 + 2


def test_a_mail_alone_that_meets_453_is_deferred(house: House) -> None:
    house.smtp.answer = on_verb("RCPT", "453 4.3.2 busy")
    house.put("one")
    assert house.sweep(INJECT_CONNECTIONS="8").run().outcomes == {Outcome.DEFERRED: 1}


@pytest.mark.parametrize("verb", ["RCPT", "DOT"])
def test_a_crash_before_the_second_try_is_not_taken_for_an_unknown_end(house: House, verb: str) -> None:
    """What was heard is committed before it: the row says ``deferred``, and is due."""
    house.smtp.answer = Crowd(verb)
    for number in range(2):
        house.put(str(number), MAIL + b"%d" % number)
    cut_off: list[str] = []

    def cut(step: Step, name: str) -> None:
        if step is Step.DEFERRED:
            cut_off.append(name)
            raise ZeroDivisionError

    sweep = house.sweep(INJECT_CONNECTIONS="2")
    sweep.step = cut
    sweep.run()
    assert cut_off
    with contextlib.closing(Ledger(house.state_dir / "ledger.db")) as ledger:
        rows = [ledger.find(identity) for identity in cut_off]
        assert {row.state for row in rows if row is not None} == {State.DEFERRED}
    house.smtp.answer = lambda verb, argument: None
    summary = house.sweep().run()
    assert summary.outcomes == {Outcome.DELIVERED: len(cut_off)}
    assert set(house.smtp.count().values()) == {1}
    with contextlib.closing(Ledger(house.state_dir / "ledger.db")) as ledger:
        for number in range(2):
            row = ledger.find(Mail(MAIL + b"%d" % number, ALICE, "").identity)
            assert row is not None
            assert (row.state, row.reinjections) == (State.SETTLED, 0)


# -- the sessions by themselves --


@pytest.fixture
def smtp() -> Iterator[FakeSmtp]:
    with FakeSmtp() as smtp:
        yield smtp


@pytest.fixture
def lend(smtp: FakeSmtp) -> Iterator[Callable[[int], Sessions]]:
    server = Server("127.0.0.1", smtp.port, smtp.user, Secret(smtp.password), "none", "")
    with contextlib.ExitStack() as stack:
        yield lambda size: stack.enter_context(contextlib.closing(Sessions(partial(Session, server), size)))


class Borrower:
    """A thread that borrows a session and keeps it until it is told to let go."""

    def __init__(self, sessions: Sessions) -> None:
        self.has = threading.Event()
        self.error: Exception | None = None
        self._go = threading.Event()
        self._sessions = sessions
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._sessions.borrow() as self.session:
                self.has.set()
                assert self._go.wait(120)
        except Stopping as error:
            self.error = error

    def let_go(self) -> None:
        self._go.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def borrowed(sessions: Sessions, number: int) -> list[Borrower]:
    borrowers = [Borrower(sessions) for _ in range(number)]
    assert all(borrower.has.wait(60) for borrower in borrowers)
    return borrowers


def waiting(sessions: Sessions) -> int:
    """How many wait for one."""
    return len(sessions._freed._waiters)  # type: ignore[attr-defined]


def room(sessions: Sessions) -> int:
    """How many can be borrowed at once; then no more can."""
    borrowers = [Borrower(sessions) for _ in range(10)]
    until(lambda: sum(one.has.is_set() for one in borrowers) + waiting(sessions) == len(borrowers), 60)
    found = sum(one.has.is_set() for one in borrowers)
    sessions.abort()
    for borrower in borrowers:
        borrower.let_go()
    return found


def test_one_crowd_makes_one_fewer_however_many_met_in_it(lend: Callable[[int], Sessions]) -> None:
    sessions = lend(4)
    borrowers = borrowed(sessions, 4)
    assert [sessions.narrow(borrower.session) for borrower in borrowers] == [True] * 4
    for borrower in borrowers:
        borrower.let_go()
    assert room(sessions) == 3


def test_a_crowd_of_fewer_than_may_be_in_use_makes_one_fewer_than_it_was(lend: Callable[[int], Sessions]) -> None:
    sessions = lend(8)
    first, second = borrowed(sessions, 2)
    second.let_go()
    assert sessions.narrow(first.session), "the other was there for a part of the time"
    first.let_go()
    assert room(sessions) == 1


def test_one_alone_is_never_made_fewer(lend: Callable[[int], Sessions]) -> None:
    sessions = lend(2)
    for _ in range(3):
        with sessions.borrow() as session:
            assert not sessions.narrow(session)
    assert room(sessions) == 2


def test_after_a_while_without_a_crowd_there_is_one_more_up_to_what_is_set(lend: Callable[[int], Sessions]) -> None:
    sessions = lend(2)
    first, second = borrowed(sessions, 2)
    assert sessions.narrow(first.session)
    first.let_go()
    second.let_go()
    assert sessions._width == 1
    for _ in range(_CALM_TRANSACTIONS):
        with sessions.borrow():
            pass
    assert sessions._width == 2
    for _ in range(2 * _CALM_TRANSACTIONS):
        with sessions.borrow():
            pass
    assert room(sessions) == 2


def test_sessions_that_are_too_many_now_are_ended_politely(smtp: FakeSmtp, lend: Callable[[int], Sessions]) -> None:
    sessions = lend(3)
    borrowers = borrowed(sessions, 3)
    sessions.narrow(borrowers[0].session)
    for borrower in borrowers:
        borrower.let_go()
    assert smtp.commands.count("quit") == 1
    sessions.close()
    until(lambda: smtp.commands.count("quit") == 3)
    assert smtp.connections == 3


def test_who_waits_for_a_session_hears_at_once_that_drain_stops(lend: Callable[[int], Sessions]) -> None:
    sessions = lend(1)
    (first,) = borrowed(sessions, 1)
    second = Borrower(sessions)
    until(lambda: waiting(sessions) == 1)
    sessions.abort()
    until(lambda: second.error is not None)
    first.let_go()
    second.let_go()
