"""What a pass costs when there is much: in the ledger, and of R2's bill."""

import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from drain.demo import s3 as demo_s3
from drain.ledger import Ledger
from drain.listing import ListedObject
from drain.mail import Mail
from drain.outcome import Outcome
from tests.http_fake import Answer, FakeHttp, Request, answer
from tests.smtp_fake import DROP
from tests.support import LONG_AGO, MAIL, House, on_verb

ALICE = "alice@example.test"
_DAY = 86400.0
_DML = ("SELECT", "INSERT", "UPDATE", "DELETE")
_TABLE = re.compile("SCAN (mail|event|object|verdict|pass)(?: USING(?: COVERING)? INDEX (.+))?")
# These hold what is open or was set aside, not all that ever was.
_SHORT = ("mail_unfinished", "mail_quarantined", "mail_missing")


class Recorder:
    """The statements that SQLite really carries out, each with the file that it is about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._connect = sqlite3.connect
        self._statements: dict[str, set[str]] = {}
        monkeypatch.setattr(sqlite3, "connect", self._recorded)

    def _recorded(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = self._connect(*arguments, **options)
        file = made.execute("PRAGMA database_list").fetchone()[2]
        made.set_trace_callback(self._statements.setdefault(file, set()).add)
        return made

    @property
    def shapes(self) -> set[str]:
        """The statements, without their values."""
        of_all = set().union(*self._statements.values())
        return {re.sub(r"'[^']*'|\b[0-9.e+]+\b|NULL", "?", one) for one in of_all if one.startswith(_DML)}

    def scans(self) -> set[str]:
        """Those that read a whole table, each with the step of SQLite's plan that does."""
        found = set()
        for file, statements in self._statements.items():
            db = self._connect(f"file:{file}?mode=ro", uri=True)
            for statement in sorted(statements):
                if not statement.startswith(_DML):
                    continue
                for *_, step in db.execute(f"EXPLAIN QUERY PLAN {statement}"):
                    scan = _TABLE.match(step)
                    if scan is not None and scan[2] not in _SHORT:
                        found.add(f"{step}: {statement}")
            db.close()
        return found


@pytest.fixture
def policy() -> Iterator[FakeHttp]:
    """A filter that can be made to fail, and denies what says so."""

    def decided(request: Request) -> Answer:
        if policy.failing:  # type: ignore[attr-defined]
            return Answer(status=500)
        denied = "deny" in request.json["message"]["subject"]
        return answer({"decision": "deny" if denied else "allow", "reason": "the-rule", "message": "x"})

    with FakeHttp(decided) as policy:
        policy.failing = False  # type: ignore[attr-defined]
        yield policy


def test_no_statement_of_a_pass_reads_a_whole_table(
    house: House, policy: FakeHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    settings = {
        "FILTERS": "decision",
        "WEBHOOK_DECISION_URL": policy.url,
        "METRICS_FILE": str(house.state_dir / "drain.prom"),
        "STATUS_HTML": str(house.state_dir / "status.html"),
    }

    def swept() -> set[Outcome]:
        house.now += 600.0
        return {outcome for outcome, number in house.sweep(**settings).run().outcomes.items() if number}

    for name in ("one", "two", "three"):
        house.put(name, b"Subject: %s\r\n\r\nx\r\n" % name.encode())
    policy.failing = True  # type: ignore[attr-defined]
    assert swept() == {Outcome.DEFERRED}
    house.now -= 590.0  # before they are due: of those that wait for the filter one is tried
    policy.failing = False  # type: ignore[attr-defined]
    assert Outcome.DELIVERED in swept()
    house.put("denied", b"Subject: deny\r\n\r\nx\r\n")
    assert swept() == {Outcome.QUARANTINED}
    house.smtp.answer = on_verb("RCPT", "450 4.2.1 later")
    gone = house.put("gone", b"Subject: gone\r\n\r\nx\r\n")
    assert swept() == {Outcome.DEFERRED}
    del house.s3.objects[gone]
    house.smtp.answer = on_verb("DOT", DROP)
    house.put("unknown", b"Subject: unknown\r\n\r\nx\r\n")
    assert swept() == {Outcome.UNKNOWN}
    house.now += 400 * _DAY
    assert swept() == {Outcome.DELIVERED}
    for done in ("reinjections >= ", "SET missing_at = ", "AND reason = ? AND identity = ?", "DELETE FROM verdict"):
        assert any(done in shape for shape in recorder.shapes), done
    assert recorder.scans() == set()


def test_a_mail_costs_one_get_one_copy_and_at_most_one_delete_and_a_page_one_list(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_s3, "_PAGE_KEYS", 100)
    for number in range(250):
        house.put(f"{number:03}", MAIL + b"%d" % number)
    assert house.sweep().run().outcomes[Outcome.DELIVERED] == 250
    spent = dict(house.s3.requests)
    deletes = spent.pop("DeleteObject", 0) + spent.pop("DeleteObjects", 0)
    assert spent == {"ListObjectsV2": 3, "GetObject": 250, "CopyObject": 250}
    assert deletes <= 250


def test_mail_that_is_not_due_costs_one_list_and_nothing_else(house: House) -> None:
    ledger = Ledger(house.state_dir / "ledger.db")
    with ledger.together():
        for number in range(1000):
            raw = MAIL + b"%d" % number
            key = house.put(f"{number:04}", raw)
            listed = ListedObject(key, house.s3.objects[key].etag, LONG_AGO, len(raw))
            ledger.deferred(listed, Mail(raw, ALICE, "a@x.test"), "busy", "later", house.now + 60, house.now)
    ledger.close()
    assert house.sweep().run().outcomes == {Outcome.WAITING: 1000}
    assert house.s3.requests == {"ListObjectsV2": 1}
    assert house.smtp.connections == 0
