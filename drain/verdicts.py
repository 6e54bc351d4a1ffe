"""The verdicts of filters, kept so that a retry does not ask, or pay, again and a person can see why."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drain.database import Database
from drain.text import clean

if TYPE_CHECKING:
    from drain.filters.verdict import Verdict

_LONGEST_EVIDENCE = 100


@dataclass(frozen=True)
class Kept:
    """A filter's verdict, and a digest of the settings that it was given under."""

    filter: str
    settings: str
    verdict: "Verdict"


class Verdicts:
    """Verdicts by mail and filter; raises what `Database` raises."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def of(self, identity: str) -> dict[str, Kept]:
        """What is kept of a mail, by filter, in the order in which they were asked."""
        with self._db.reading() as db:
            rows = db.execute(
                "SELECT filter, settings, score, action, code, reason, evidence FROM verdict"
                " WHERE identity = ? ORDER BY at, filter",
                (identity,),
            ).fetchall()
        from drain.filters.verdict import Action, Verdict  # noqa: PLC0415 (the ledger is opened where no filter runs)

        kept = {}
        for name, settings, score, action, code, reason, evidence in rows:
            try:
                verdict = Verdict(score, Action[action.upper()], code, reason, tuple(json.loads(evidence)))
            except (KeyError, ValueError):  # damaged, or a newer drain's: as if it were not kept
                continue
            kept[name] = Kept(name, settings, verdict)
        return kept

    def keep(self, identity: str, given: list[Kept], now: float) -> None:
        """Writes them down, in the place of earlier ones of the same filters."""
        with self._db.writing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO verdict VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        identity,
                        kept.filter,
                        kept.settings,
                        kept.verdict.score,
                        kept.verdict.action.word,
                        clean(kept.verdict.code),
                        clean(kept.verdict.reason),
                        json.dumps([clean(line) for line in kept.verdict.evidence[:_LONGEST_EVIDENCE]]),
                        now + place / 1e6,  # the order, for whoever reads them
                    )
                    for place, kept in enumerate(given)
                ],
            )
