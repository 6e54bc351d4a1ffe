"""Much of everything: 100,000 objects that wait, and a ledger of a million mails."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import ledgers
from bench.figures import AT_MOST, Figure, Goal, Turn, Work, mib
from bench.runs import DRAIN, RunFailed, Stage

_PAGE = 1000
_SMALL = 20_000
_SMALLEST = 2_000


def backlog(stage: Stage, turn: Turn) -> Mapping[str, float]:
    """The first delivery with one page pending and with a hundred; in the first round, what five pages do to the memory."""
    one, _ = _begun(stage, turn.of(_PAGE, 50), ())
    pages = (turn.of(_PAGE, 50), turn.of(5 * _PAGE, 100)) if turn.number == 1 else ()
    many, peaks = _begun(stage, turn.of(100 * _PAGE, 400), pages)
    found = {
        "first delivery, 100,000 ÷ 1,000": many / one,
        "first delivery, 1,000": one,
        "first delivery, 100,000": many,
    }
    if peaks:
        found |= {"peak, 5 pages ÷ 1 page": peaks[1] / peaks[0], "peak, 1 page": peaks[0], "peak, 5 pages": peaks[1]}
    return found


def _begun(stage: Stage, mails: int, peaks_after: Sequence[int]) -> tuple[float, list[float]]:
    """A pass that is begun and then stopped: when the first mail was delivered, and its peak (MiB) after so many."""
    peaks = []
    stage.load(mails, _SMALLEST)
    with stage.started(DRAIN) as drain:
        first = drain.until(functools.partial(stage.has_taken, 1), "the first mail")
        for delivered in peaks_after:
            drain.until(functools.partial(stage.has_taken, delivered), f"mail {delivered}")
            peaks.append(mib(drain.memory("VmHWM")))
        drain.stop()
    taken, left = stage.sink.taken(), stage.endpoint.left()
    if taken + left < mails:
        raise RunFailed(f"Of {mails} mails the mail server took {taken}, and only {left} are pending.")
    return first, peaks


def ledger(stage: Stage, turn: Turn) -> Mapping[str, float]:
    """The same pass with a young ledger and with an old one; in the first round, also with a day of it to forget."""
    mails = turn.of(200, 10)
    young, old = _ledger(stage, turn.of(1000, 10)), _ledger(stage, turn.of(1_000_000, 2000))
    runs: dict[str, tuple[Path, dict[str, str]]] = {"young": (young, {}), "old": (old, {})}
    if turn.number == 1:
        runs["forgets"] = (old, {"LEDGER_RETENTION_DAYS": "199"})
    seconds, peaks = {}, {}
    for name, (source, settings) in runs.items():
        state = stage.state()
        ledgers.copy(source, state / "ledger.db")
        stage.load(mails, _SMALL)
        cost = stage.cost(DRAIN, mails, state=state, settings=settings)
        seconds[name], peaks[name] = cost.seconds, cost.peak_bytes
        (state / "ledger.db").unlink()
    found = {
        "time, 1,000,000 ÷ 1,000 rows": seconds["old"] / seconds["young"],
        "time, 1,000 rows": seconds["young"],
        "time, 1,000,000 rows": seconds["old"],
        "peak, 1,000,000 rows": mib(peaks["old"]),
    }
    if "forgets" in seconds:
        found["the same, forgetting a day ÷ 1,000 rows"] = seconds["forgets"] / seconds["young"]
    return found


def _ledger(stage: Stage, mails: int) -> Path:
    path = stage.folder / f"{mails}.db"
    if not path.exists():
        ledgers.make(path, mails)
    return path


_FIRST_ROUND = "Measured in the first round only."
_FORGETS = f"LEDGER_RETENTION_DAYS=199, so that a 200th of the rows is due. {_FIRST_ROUND}"
_FLAT = f"The process's peak when 5,000 mails are delivered, by that when 1,000 are; then it is stopped. {_FIRST_ROUND}"

WORKS = (
    Work(
        "backlog",
        "100,000 objects of 2 KB pending",
        backlog,
        (
            Figure("first delivery, 100,000 ÷ 1,000", Goal(AT_MOST, 1.2)),
            Figure("peak, 5 pages ÷ 1 page", Goal(AT_MOST, 1.1), note=_FLAT),
            Figure("first delivery, 1,000", unit="s"),
            Figure("first delivery, 100,000", unit="s"),
            Figure("peak, 1 page", unit="MiB", note=_FLAT),
            Figure("peak, 5 pages", unit="MiB", note=_FLAT),
        ),
    ),
    Work(
        "ledger",
        "200 mails, ledger of 1,000,000 rows",
        ledger,
        (
            Figure("time, 1,000,000 ÷ 1,000 rows", Goal(AT_MOST, 1.2)),
            Figure("the same, forgetting a day ÷ 1,000 rows", note=_FORGETS),
            Figure("time, 1,000 rows", unit="s"),
            Figure("time, 1,000,000 rows", unit="s"),
            Figure("peak, 1,000,000 rows", unit="MiB"),
        ),
    ),
)
