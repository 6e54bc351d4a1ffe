"""`drain replay` as a person calls it."""

import datetime
import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from drain import cli
from drain.demo.s3 import StoredObject
from drain.ledger import Ledger
from drain.lock import held
from drain.mail import Mail
from drain.state import State
from tests.support import LONG_AGO, House, on_verb

ALICE = "alice@example.test"
BOB = "bob@example.test"
TODAY = datetime.datetime.now().astimezone().date().isoformat()

Drain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def drain(house: House, capsys: pytest.CaptureFixture[str]) -> Drain:
    def call(*words: str, **settings: str) -> tuple[int, str, str]:
        code = cli.main(list(words), house.environ(**settings))
        return (code, *capsys.readouterr())

    return call


def mail(number: int) -> bytes:
    return b"From: Eve <eve@x.test>\r\nSubject: %d\r\n\r\nhello %d\r\n" % (number, number)


def identity(number: int, to: str = ALICE) -> str:
    return Mail(mail(number), to, "").identity


@pytest.fixture
def three(house: House, drain: Drain) -> list[str]:
    """Three delivered: one and three for Alice, two for Bob; their ids."""
    for number, to in ((1, ALICE), (2, BOB), (3, ALICE)):
        house.put(str(number), mail(number), to=to)
    assert drain("once")[0] == 0
    assert len(house.smtp.filed) == 3
    house.smtp.filed.clear()
    return [identity(1)[:12], identity(2, BOB)[:12], identity(3)[:12]]


def filed(house: House) -> list[int]:
    """Which mails came, by number."""
    return sorted(int(one.content.rpartition(b" ")[2]) for one in house.smtp.filed)


def row_of(house: House, which: str) -> Any:
    ledger = Ledger(house.state_dir / "ledger.db")
    try:
        return ledger.find(which)
    finally:
        ledger.close()


def lose_the_ledger(house: House) -> None:
    for file in house.state_dir.glob("ledger.db*"):
        file.unlink()


def test_one_mail_comes_once_more_and_stays_where_it_is(house: House, drain: Drain, three: list[str]) -> None:
    before = house.keys()
    code, output, _ = drain("replay", "--yes", three[0])
    assert (code, output) == (0, f"{three[0]} delivered: {ALICE}\n")
    assert filed(house) == [1]
    assert house.keys() == before
    assert row_of(house, identity(1)).state is State.SETTLED
    assert drain("once")[0] == 0
    assert filed(house) == [1]


def test_a_mail_can_be_replayed_again_and_again(house: House, drain: Drain, three: list[str]) -> None:
    for _ in range(2):
        assert drain("replay", "--yes", three[0])[0] == 0
    assert filed(house) == [1, 1]


def test_what_is_for_one_recipient_can_be_chosen(house: House, drain: Drain, three: list[str]) -> None:
    assert three
    assert drain("replay", "--yes", "--to", "ALICE@example.test")[0] == 0
    assert filed(house) == [1, 3]
    assert {one.mailbox for one in house.smtp.filed} == {ALICE}


def test_what_came_on_a_day_can_be_chosen_and_of_that_what_is_for_one(
    house: House, drain: Drain, three: list[str]
) -> None:
    assert three
    code, output, errors = drain("replay", "--yes", "--day", "2026-01-01")
    assert (code, output) == (66, "")
    assert "No such mail" in errors
    assert drain("replay", "--yes", "--day", TODAY, "--to", BOB)[0] == 0
    assert filed(house) == [2]
    assert drain("replay", "--yes", "--day", TODAY)[0] == 0
    assert filed(house) == [1, 2, 2, 3]


def test_mail_that_the_ledger_has_forgotten_is_opened_to_know_whose_it_is(
    house: House, drain: Drain, three: list[str]
) -> None:
    assert three
    lose_the_ledger(house)
    assert drain("replay", "--yes", "--to", BOB)[0] == 0
    assert filed(house) == [2]
    assert drain("replay", "--yes", three[0])[0] == 0
    assert filed(house) == [1, 2]


def test_the_day_of_what_the_ledger_has_forgotten_is_when_it_was_put_there(
    house: House, drain: Drain, three: list[str]
) -> None:
    assert three
    for key in house.keys("processed/"):
        stored = house.s3.objects[key]
        long_ago = LONG_AGO + datetime.timedelta(hours=12)
        house.s3.objects[key] = StoredObject(stored.body, stored.metadata, last_modified=long_ago)
    assert drain("replay", "--yes", "--day", "2026-01-01")[0] == 66
    assert drain("replay", "--yes", "--day", TODAY, "--to", BOB)[0] == 0
    house.smtp.filed.clear()
    lose_the_ledger(house)
    assert drain("replay", "--yes", "--day", TODAY)[0] == 66
    assert drain("replay", "--yes", "--day", "2026-01-01")[0] == 0
    assert filed(house) == [1, 2, 3]


def test_an_object_that_another_program_moved_there_is_found_by_its_mail_and_by_its_name(
    house: House, drain: Drain
) -> None:
    about = {"to": BOB, "from": "a@x.test"}
    house.s3.objects["processed/theirs"] = StoredObject(mail(7), about, last_modified=LONG_AGO)
    for words in ([identity(7, BOB)[:12]], ["processed/theirs"], ["--to", BOB]):
        assert drain("replay", "--yes", *words)[0] == 0
    assert filed(house) == [7, 7, 7]
    assert house.keys() == ["processed/theirs"]


def test_it_shows_what_would_come_and_asks(
    house: House, drain: Drain, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    code, output, _ = drain("replay", three[0], three[1])
    assert code == 0
    assert three[0] in output
    assert BOB in output
    assert "Deliver 2 mails once more? [y/N] Nothing was replayed." in output
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal: nobody to ask
    code, _, errors = drain("replay", three[0])
    assert code == 64
    assert "Nothing was replayed" in errors
    assert house.smtp.filed == []
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert drain("replay", three[0])[0] == 0
    assert filed(house) == [1]


def test_nothing_waits_for_an_answer_with_the_lock_in_its_hand(
    house: House, drain: Drain, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, _size: int | None = -1, /) -> str:  # type: ignore[override] # typeshed's bases disagree
            with held(house.state_dir / "drain.lock", house.events.log):
                return "y\n"

    monkeypatch.setattr(sys, "stdin", Person())
    assert drain("replay", three[0])[0] == 0
    assert filed(house) == [1]


@pytest.mark.parametrize(
    "words",
    [[], ["0123456789ab", "--to", BOB], ["0123456789ab", "--day", TODAY], ["--day", "yesterday"], ["--day", "\x1b[2J"]],
)
def test_wrong_use_is_64_and_asks_nobody(house: House, drain: Drain, words: list[str]) -> None:
    code, output, errors = drain("replay", "--yes", *words)
    assert (code, output) == (64, "")
    assert "\x1b" not in errors
    assert not house.s3.requests


@pytest.mark.parametrize("word", ["0000", "zz", "processed/nothing"])
def test_an_id_that_means_nothing_is_66(drain: Drain, three: list[str], word: str) -> None:
    assert three
    code, _, errors = drain("replay", "--yes", word)
    assert code == 66
    assert errors.startswith("drain: ")


def test_the_filters_are_not_asked(house: House, drain: Drain, three: list[str]) -> None:
    policy = {"FILTERS": "decision", "WEBHOOK_DECISION_URL": "http://127.0.0.1:9/"}
    assert drain("replay", "--yes", three[0], **policy)[0] == 0
    assert filed(house) == [1]


def test_one_that_is_on_its_way_or_set_aside_is_named_and_left(
    house: House, drain: Drain, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drain("replay", "--yes", three[0], INJECT_PORT="9")[0] == 75
    code, output, errors = drain("replay", "--yes", *three)
    assert code == 65
    assert f"{three[0]} left as it is: deferred" in errors
    assert output.count("delivered") == 2
    monkeypatch.undo()
    house.put("1", mail(9))
    house.smtp.refuse = b"hello 9"
    drain("once")
    house.smtp.refuse = None
    (aside,) = house.keys("quarantine/")
    house.s3.objects[aside.replace("quarantine/", "processed/")] = house.s3.objects[aside]
    code, output, errors = drain("replay", "--yes", identity(9))
    assert (code, output) == (65, "")
    assert "in quarantine; `drain quarantine release`" in errors


def test_while_the_mail_server_is_away_it_waits_and_the_next_pass_delivers_it(
    house: House, drain: Drain, three: list[str]
) -> None:
    code, output, errors = drain("replay", "--yes", three[0], INJECT_PORT="9")
    assert code == 75
    assert output == f"{three[0]} replayed, and waiting for the next pass\n"
    assert "What was replayed is delivered by the next pass" in errors
    assert filed(house) == []
    assert drain("once")[0] == 0
    assert drain("once")[0] == 0
    assert filed(house) == [1]


def test_one_that_is_refused_stays_and_can_be_tried_again(house: House, drain: Drain, three: list[str]) -> None:
    before = house.keys()
    house.smtp.answer = on_verb("DOT", "554 5.6.0 no")
    code, output, _ = drain("replay", "--yes", three[0])
    assert code == 0
    assert "refused, and left where it is: mail-refused: the final dot: 554 5.6.0 no" in output
    assert house.keys() == before
    assert drain("replay", "--yes", three[0])[0] == 0
    assert filed(house) == [1]


def test_what_was_released_though_not_believed_is_believed_again(house: House, drain: Drain) -> None:
    house.put("plain", mail(1))
    drain("once", REQUIRE_SEALED="true")
    (row,) = [json.loads(line) for line in drain("quarantine", "list", "--json")[1].splitlines()]
    assert drain("quarantine", "release", row["id"], REQUIRE_SEALED="true")[0] == 0
    assert drain("replay", "--yes", "--to", ALICE, REQUIRE_SEALED="true")[0] == 0
    assert filed(house) == [1, 1]


def test_what_somebody_laid_there_is_not_believed_because_of_its_day_or_recipient(house: House, drain: Drain) -> None:
    """Who can write to the bucket could walk around the token; also past a ledger that was rebuilt from names."""
    about = {"to": ALICE, "from": "a@x.test"}
    house.s3.objects[f"processed/{identity(1)}-x"] = StoredObject(mail(1), about)
    for _ in range(2):
        code, _, errors = drain("replay", "--yes", "--to", ALICE, REQUIRE_SEALED="true")
        assert code == 65
        assert "not to be believed" in errors
        assert filed(house) == []
        drain("ledger", "rebuild", REQUIRE_SEALED="true")
    assert drain("replay", "--yes", identity(1), REQUIRE_SEALED="true")[0] == 0
    assert filed(house) == [1]


def test_what_somebody_put_under_the_name_of_another_mail_is_not_delivered(
    house: House, drain: Drain, three: list[str]
) -> None:
    (key,) = house.keys(f"processed/{three[0]}")
    house.s3.objects[key] = StoredObject(mail(66), house.s3.objects[key].metadata, last_modified=LONG_AGO)
    code, _, errors = drain("replay", "--yes", three[0])
    assert code == 65
    assert "somebody else wrote it" in errors
    assert filed(house) == []


def test_what_cannot_be_opened_is_named_and_the_others_come(house: House, drain: Drain, three: list[str]) -> None:
    assert three
    house.s3.objects["processed/junk"] = StoredObject(b"{}", {})
    code, _, errors = drain("replay", "--yes", "--day", TODAY)
    assert code == 65
    assert "processed/junk left as it is: processed/junk holds no mail" in errors
    assert filed(house) == [1, 2, 3]


def test_another_drain_at_work_is_75_and_nothing_is_noted(
    house: House, drain: Drain, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from drain.commands import common

    monkeypatch.setattr(common, "LOCK_WAIT_SECONDS", 0.1)
    with held(house.state_dir / "drain.lock", house.events.log):
        assert drain("replay", "--yes", three[0])[0] == 75
    assert row_of(house, identity(1)).state is State.SETTLED
    assert drain("once")[0] == 0
    assert filed(house) == []


def test_killed_after_it_was_noted_the_next_pass_delivers_it_once(
    house: House, drain: Drain, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from drain.sweep import Sweep

    def killed(self: Sweep, seconds: float) -> None:
        del self, seconds
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Sweep, "deliver_released", killed)
        with pytest.raises(KeyboardInterrupt):
            drain("replay", "--yes", three[0])
    assert filed(house) == []
    for _ in range(2):
        assert drain("once")[0] == 0
    assert filed(house) == [1]


def test_as_json_it_is_one_object_a_mail(drain: Drain, three: list[str]) -> None:
    _, output, _ = drain("replay", "--yes", "--json", three[0])
    assert json.loads(output.splitlines()[-1]) == {"id": three[0], "state": "delivered", "words": ALICE}


def test_nothing_in_a_mail_reaches_the_terminal_as_it_is(
    house: House, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    house.put("one", mail(1), metadata={"to": ALICE, "from": "\x1b[31m[red]a@x.test"})
    drain("once")
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    output = drain("replay", "--to", ALICE)[1]
    assert "[red]a@x.test" in output
    assert not [letter for letter in output if letter != "\n" and not letter.isprintable()]
