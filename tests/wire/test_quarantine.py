"""`drain quarantine` and `drain filter` as a person calls them."""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from drain import cli
from drain.demo.s3 import StoredObject
from drain.ledger import Ledger
from drain.lock import held
from drain.mail import Mail
from drain.state import State
from tests.http_fake import Answer, FakeHttp, Request, answer
from tests.support import LONG_AGO, MAIL, House, on_verb

ALICE = "alice@example.test"
BOB = "bob@example.test"


def _decision(request: Request) -> Answer:
    """By what stands in the Subject."""
    return answer(
        {"decision": request.json["message"]["subject"].partition(" ")[0], "reason": "the-rule", "message": "x"}
    )


@pytest.fixture
def policy() -> Iterator[FakeHttp]:
    with FakeHttp(_decision) as server:
        yield server


Drain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def drain(house: House, policy: FakeHttp, capsys: pytest.CaptureFixture[str]) -> Drain:
    def call(*words: str, **settings: str) -> tuple[int, str, str]:
        more = {"FILTERS": "auth,decision", "WEBHOOK_DECISION_URL": policy.url, **settings}
        code = cli.main(list(words), house.environ(**more))
        return (code, *capsys.readouterr())

    return call


def mail(decision: str, number: int = 0) -> bytes:
    return b"From: Eve <eve@x.test>\r\nSubject: %s %d\r\n\r\nhello\r\n" % (decision.encode(), number)


@pytest.fixture
def three(house: House, drain: Drain) -> list[str]:
    """Three in quarantine: two denied, one that no mailbox takes; their ids."""
    house.put("one", mail("deny", 1))
    house.put("two", mail("deny", 2), to=BOB)
    house.put("three", mail("allow", 3))
    house.smtp.refuse = b"allow 3"
    assert drain("once")[0] == 0
    house.smtp.refuse = None
    wanted = [Mail(mail("deny", 1), ALICE, ""), Mail(mail("deny", 2), BOB, ""), Mail(mail("allow", 3), ALICE, "")]
    assert len(house.keys("quarantine/")) == 3
    return [one.identity[:12] for one in wanted]


def rows(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_the_list_says_who_wrote_to_whom_and_why_it_is_there(drain: Drain, three: list[str]) -> None:
    code, output, _ = drain("quarantine", "list")
    assert code == 0
    for name in three:
        assert name in output
    assert output.count("denied: the-rule: x") == 2
    assert "mail-refused: " in output
    assert "a@x.test" in output
    assert ALICE in output


def test_the_list_as_json_is_one_object_a_mail(drain: Drain, three: list[str]) -> None:
    code, output, _ = drain("quarantine", "list", "--json")
    found = {row["id"]: row for row in rows(output)}
    assert code == 0
    assert set(found) == set(three)
    one = found[three[0]]
    assert (one["reason"], one["from"], one["to"], one["score"]) == ("denied", "a@x.test", ALICE, None)
    assert one["object"] == f"quarantine/{one['identity']}-one"


def test_an_empty_quarantine_says_so(drain: Drain) -> None:
    assert drain("quarantine", "list") == (0, "Nothing is in quarantine.\n", "")
    code, _, errors = drain("quarantine", "list", "--reason", "denied")
    assert code == 66
    assert "There is: nothing." in errors


def test_the_list_can_be_of_one_reason(drain: Drain, three: list[str]) -> None:
    found = rows(drain("quarantine", "list", "--json", "--reason", "mail-refused")[1])
    assert [row["id"] for row in found] == [three[2]]
    for command in ("list", "release", "delete"):
        code, _, errors = drain("quarantine", command, "--reason", "denyed")
        assert code == 66
        assert "2 denied, 1 mail-refused" in errors or "1 mail-refused, 2 denied" in errors


def test_what_is_shown_of_one_says_what_each_filter_found(drain: Drain, three: list[str]) -> None:
    code, output, _ = drain("quarantine", "show", three[0])
    assert code == 0
    assert "decision: quarantine the-rule: x" in output
    assert "    reason: the-rule" in output
    assert "    spf=unknown dkim=unknown dmarc=unknown" in output
    assert "From: Eve <eve@x.test>" in output
    assert f"drain open quarantine/{three[0]}" in output
    assert "hello" not in output
    (told,) = rows(drain("quarantine", "show", "--json", three[0])[1])
    assert [verdict["filter"] for verdict in told["verdicts"]] == ["auth", "decision"]
    assert told["header"]["Subject"] == "deny 1"


def test_nothing_in_a_mail_reaches_the_terminal_as_it_is(house: House, drain: Drain) -> None:
    evil = b"From: \x1b[2J\x9b31m\r\nSubject: deny =?utf-8?b?G1syShtdMDt4Bw==?= \xe2\x80\xae\r\n\r\nx"
    house.put("one", evil, metadata={"to": ALICE, "from": "\x1b[31m[red]a@x.test"})
    drain("once")
    for words in (("list",), ("show", Mail(evil, ALICE, "").identity[:12])):
        output = drain("quarantine", *words)[1]
        assert "denied" in output or "Subject: deny" in output
        assert not [letter for letter in output if letter != "\n" and not letter.isprintable()]


def test_release_delivers_and_asks_no_filter(house: House, drain: Drain, three: list[str], policy: FakeHttp) -> None:
    asked = len(policy.requests)
    code, output, _ = drain("quarantine", "release", three[0])
    assert (code, output) == (0, f"{three[0]} delivered: {ALICE}\n")
    assert len(policy.requests) == asked
    assert [filed.content.endswith(mail("deny", 1)) for filed in house.smtp.filed] == [True]
    assert len(house.keys("quarantine/")) == 2
    assert len(house.keys("processed/")) == 1


def test_release_takes_several_or_all_or_those_of_one_reason(house: House, drain: Drain, three: list[str]) -> None:
    assert drain("quarantine", "release", "--reason", "denied")[0] == 0
    assert sorted(filed.mailbox for filed in house.smtp.filed) == [ALICE, BOB]
    assert drain("quarantine", "release", "--all")[0] == 0
    assert house.keys("quarantine/") == []
    assert len(house.smtp.filed) == 3
    assert len(three) == 3


def test_release_of_all_leaves_what_is_dangerous_or_no_mail(house: House, drain: Drain, three: list[str]) -> None:
    house.put("plain", mail("deny", 7))
    drain("once", REQUIRE_SEALED="true")
    house.put("junk", b"{}", metadata={})
    drain("once")
    code, output, errors = drain("quarantine", "release", "--all")
    assert code == 0
    assert output.count("delivered") == len(three)
    assert "1 not-sealed" in errors
    assert "1 not-mail" in errors
    assert len(house.keys("quarantine/")) == 2
    assert drain("quarantine", "release", "--reason", "not-sealed")[0] == 0
    assert len(house.keys("quarantine/")) == 1


def test_release_while_the_mail_server_is_away_waits_and_says_so(house: House, drain: Drain, three: list[str]) -> None:
    code, output, errors = drain("quarantine", "release", three[0], INJECT_PORT="9")
    assert code == 75
    assert output == f"{three[0]} released, and waiting for the next pass\n"
    assert "delivered by the next pass" in errors
    waiting = next(row for row in rows(drain("quarantine", "list", "--json")[1]) if row["id"] == three[0])
    assert waiting["reason"] == "released"
    house.put("later", mail("allow", 9))
    assert drain("once")[0] == 0
    assert sorted(filed.content.endswith(mail("deny", 1)) for filed in house.smtp.filed) == [False, True]


def test_release_that_is_refused_again_says_so(house: House, drain: Drain, three: list[str]) -> None:
    house.smtp.answer = on_verb("DOT", "554 5.6.0 no")
    code, output, _ = drain("quarantine", "release", three[0])
    assert code == 0
    assert "refused again, and in quarantine: the final dot: 554 5.6.0 no" in output
    assert len(house.keys("quarantine/")) == 3


def test_release_of_what_holds_no_mail_says_why_and_leaves_it(house: House, drain: Drain) -> None:
    house.put("junk", b"{}", metadata={})
    drain("once")
    (key,) = house.keys("quarantine/")
    code, _, errors = drain("quarantine", "release", key)
    assert code == 65
    assert "holds no mail" in errors
    assert house.keys() == [key]


def test_a_mail_that_was_not_believed_can_be_released_and_its_row_becomes_another(house: House, drain: Drain) -> None:
    """Set aside for being plain where only sealed mail is believed: it had no identity of a mail."""
    house.put("plain", mail("deny", 1))
    drain("once", REQUIRE_SEALED="true")
    (key,) = house.keys("quarantine/")
    (row,) = rows(drain("quarantine", "list", "--json")[1])
    assert row["reason"] == "not-sealed"
    code, output, _ = drain("quarantine", "release", row["id"], REQUIRE_SEALED="true")
    assert code == 0
    assert "delivered" in output
    identity = Mail(mail("deny", 1), ALICE, "").identity
    assert house.keys() == [f"processed/{identity}-plain"]
    assert identity not in key


def test_delete_asks_unless_it_is_told_not_to(
    house: House, drain: Drain, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    code, output, _ = drain("quarantine", "delete", three[0])
    assert code == 0
    assert "Delete 1 mail for good? [y/N] Nothing was deleted." in output
    assert three[0] in output
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal: nobody to ask
    code, _, errors = drain("quarantine", "delete", three[0])
    assert code == 64
    assert "Nothing was deleted" in errors
    assert len(house.keys("quarantine/")) == 3
    code, output, _ = drain("quarantine", "delete", "--yes", three[0])
    assert (code, output) == (0, f"{three[0]} deleted\n")
    assert len(house.keys("quarantine/")) == 2
    assert house.keys("processed/") == []


def test_what_was_delivered_while_the_person_thought_stays_delivered(
    house: House, drain: Drain, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, _size: int | None = -1, /) -> str:  # type: ignore[override] # typeshed's bases disagree
            drain("quarantine", "release", three[0])
            return "y\n"

    monkeypatch.setattr(sys, "stdin", Slow())
    assert drain("quarantine", "delete", three[0])[0] == 0
    with contextlib.closing(Ledger(house.state_dir / "ledger.db")) as ledger:
        row = ledger.find(Mail(mail("deny", 1), ALICE, "").identity)
    assert row is not None
    assert row.state is State.SETTLED
    assert len(house.keys("processed/")) == 1


def test_a_deleted_mail_that_comes_again_is_set_aside_again_and_not_sent(house: House, drain: Drain) -> None:
    house.put("one", mail("deny"))
    drain("once")
    drain("quarantine", "delete", "--yes", "--all")
    house.put("one", mail("deny"))
    drain("once", FILTERS="none")
    assert house.smtp.filed == []
    assert len(house.keys("quarantine/")) == 1


@pytest.mark.parametrize("word", ["0000", "zz", "quarantine/nothing", ""])
@pytest.mark.parametrize("command", ["show", "release"])
def test_an_id_that_means_nothing_is_said_to(drain: Drain, three: list[str], command: str, word: str) -> None:
    assert three
    code, _, errors = drain("quarantine", command, word)
    assert code == 66
    assert errors.startswith("drain: ")


def test_an_object_that_the_ledger_does_not_know_is_listed_and_can_be_released(house: House, drain: Drain) -> None:
    """After a lost ledger."""
    house.put("one", mail("deny"))
    drain("once")
    for file in house.state_dir.glob("ledger.db*"):
        file.unlink()
    (row,) = rows(drain("quarantine", "list", "--json")[1])
    assert (row["reason"], row["to"]) == (None, None)
    assert drain("quarantine", "release", row["id"])[0] == 0
    assert len(house.smtp.filed) == 1
    assert house.keys("quarantine/") == []


def test_what_somebody_else_put_under_the_name_of_a_mail_is_not_released(house: House, drain: Drain) -> None:
    """Identities can be read in the bucket; who can write there could borrow a friend's name for his own mail."""
    house.put("one", mail("deny"))
    drain("once")
    (key,) = house.keys("quarantine/")
    forged = f"{key.rpartition('-')[0]}-zz"
    about = house.s3.objects[key].metadata
    house.s3.objects[forged] = StoredObject(mail("allow", 666), about, last_modified=LONG_AGO)
    code, output, errors = drain("quarantine", "release", "--reason", "denied")
    assert code == 65
    assert output.count("delivered") == 1
    assert "somebody else wrote it" in errors
    assert [filed.content.endswith(mail("deny")) for filed in house.smtp.filed] == [True]
    assert house.keys("quarantine/") == [forged]
    assert "somebody else wrote it" in drain("quarantine", "show", forged)[1]


def test_a_mail_that_was_delivered_meanwhile_is_moved_and_not_sent_again(house: House, drain: Drain) -> None:
    house.put("one", mail("allow"))
    drain("once", REQUIRE_SEALED="true")
    house.put("two", mail("allow"))
    drain("once")
    (row,) = rows(drain("quarantine", "list", "--json")[1])
    code, output, _ = drain("quarantine", "release", row["id"])
    assert code == 0
    assert "delivered before" in output
    assert house.keys("quarantine/") == []
    assert len(house.smtp.filed) == 1


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
    assert drain("quarantine", "delete", three[0])[0] == 0


def test_a_release_that_meets_another_drain_at_work_is_75(
    house: House, drain: Drain, three: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from drain.commands import again
    from drain.errors import LockHeld
    from drain.summary import Summary
    from drain.sweep import Sweep

    monkeypatch.setattr(again, "LOCK_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(Sweep, "deliver_released", lambda self, seconds: Summary(error=LockHeld("At work.")))
    code, output, _ = drain("quarantine", "release", three[0])
    assert code == 75
    assert "waiting for the next pass" in output


@pytest.mark.parametrize(
    "sender", ['"\\[/b]"@evil.test', '"\\[link=http://evil.test]x"@evil.test', "[bold]@evil.test", ":warning:@x.test"]
)
def test_no_sender_can_break_or_paint_the_list(house: House, drain: Drain, sender: str) -> None:
    house.put("one", mail("deny"), metadata={"to": ALICE, "from": sender})
    drain("once")
    code, output, _ = drain("quarantine", "list")
    assert code == 0
    assert sender in output


# -- drain filter --


def test_a_mail_from_disk_is_judged_and_nothing_else_happens(
    house: House, drain: Drain, tmp_path: Any, policy: FakeHttp
) -> None:
    file = tmp_path / "mail.eml"
    file.write_bytes(mail("deny"))
    code, output, _ = drain("filter", str(file), "--to", ALICE, "--from", "eve@x.test", "--ip", "192.0.2.7")
    assert code == 0
    assert "auth  asks for nothing" in output
    assert "decision  quarantine: the-rule: x  (" in output
    assert " ms)" in output
    assert "=> quarantine" in output
    (request,) = policy.requests
    assert request.json["message"]["recipients"] == [ALICE]
    assert request.json["message"]["sender"] == "eve@x.test"
    assert request.json["message"]["remote"]["ip"] == "192.0.2.7"
    assert house.keys() == []
    assert house.smtp.commands == []


def test_the_same_as_json_and_with_other_filters(drain: Drain, tmp_path: Any) -> None:
    file = tmp_path / "mail.eml"
    file.write_bytes(mail("deny"))
    (told,) = rows(drain("filter", "--json", str(file))[1])
    assert told["disposition"] == "quarantine"
    assert [one["filter"] for one in told["filters"]] == ["auth", "decision"]
    assert all(one["seconds"] >= 0 for one in told["filters"])
    (told,) = rows(drain("filter", "--json", "--filters", "auth", str(file))[1])
    assert told["disposition"] == "deliver"
    assert told["header"] == ["X-Drain-Verdict: deliver; auth (spf=unknown dkim=unknown dmarc=unknown)"]


def test_a_filter_that_is_out_of_order_is_75(drain: Drain, tmp_path: Any, policy: FakeHttp) -> None:
    policy.answer = lambda request: Answer(status=503)
    file = tmp_path / "mail.eml"
    file.write_bytes(mail("deny"))
    code, output, _ = drain("filter", str(file))
    assert code == 75
    assert "decision  FAILED" in output
    assert "answered with 503" in output
    assert "=> it waits for decision" in output
    assert "X-Drain-Verdict" not in output


def test_a_mail_saved_from_the_mailbox_is_judged_by_what_was_sent(house: House, drain: Drain, tmp_path: Any) -> None:
    """The mail server's own lines stand above Cloudflare's there."""
    block = b"Received: from mx.x.test (192.0.2.9)\r\n by cloudflare-email.net (cloudflare) id a\r\n"
    block += b"Authentication-Results: mx.cloudflare.net; dmarc=fail\r\nX-CF-SpamH-Score: 0\r\n"
    house.put("one", block + mail("allow"))
    drain("once")
    (filed,) = house.smtp.mailbox(ALICE)
    file = tmp_path / "mail.eml"
    file.write_bytes(b"Return-Path: <a@x.test>\r\nDelivered-To: alice\r\n" + filed)
    (told,) = rows(drain("filter", "--json", str(file), "--filters", "auth", AUTH_FAIL_ACTION="junk")[1])
    assert told["disposition"] == "junk"
    (key,) = house.keys("processed/")
    for name in (key, key.removeprefix("processed/")[:12]):
        (told,) = rows(drain("filter", "--json", name, "--filters", "auth", AUTH_FAIL_ACTION="junk")[1])
        assert told["disposition"] == "junk"


@pytest.mark.parametrize(("content", "code"), [(b"\x00\x01 no mail", 65), (None, 66)])
def test_what_is_no_mail_is_said_to(drain: Drain, tmp_path: Any, content: bytes | None, code: int) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    assert drain("filter", str(file))[0] == code


def test_a_filter_that_wants_a_setting_names_it(drain: Drain, tmp_path: Any) -> None:
    file = tmp_path / "mail.eml"
    file.write_bytes(MAIL)
    code, _, errors = drain("filter", str(file), "--filters", "ai")
    assert code == 78
    assert "AI_BASE_URL" in errors
    code, _, errors = drain("filter", str(file), "--filters", "auth,sieve")
    assert code == 78
    assert "FILTERS" in errors


def test_every_command_is_there() -> None:
    """They are loaded by name when they are called."""
    import importlib

    places = {action.default for action in _actions(cli._parser()) if action.dest == "command"}
    parsers = _parsers(cli._parser())
    commands = {parser.get_default("command").__qualname__ for parser in parsers} | {place for place in places if place}
    assert len(commands) > 10
    for place in commands:
        module, _, name = place.partition(".")
        assert callable(getattr(importlib.import_module(f"drain.commands.{module}"), name))


def _actions(parser: Any) -> list[Any]:
    return list(parser._actions)


def _parsers(parser: Any) -> list[Any]:
    found = [parser]
    for action in parser._actions:
        if hasattr(action, "choices") and isinstance(action.choices, dict):
            for child in action.choices.values():
                found += _parsers(child)
    return found


def test_what_somebody_else_deleted_is_said_and_can_be_forgotten(house: House, drain: Drain, three: list[str]) -> None:
    for key in house.keys("quarantine/")[:2]:
        del house.s3.objects[key]
    code, output, errors = drain("quarantine", "list")
    assert (code, sum(name in output for name in three)) == (0, 1)
    assert "2 more are in the ledger only" in errors
    code, output, _ = drain("quarantine", "delete", "--gone")
    assert (code, output.count("forgotten")) == (0, 2)
    assert "more" not in drain("quarantine", "list")[2]
    with contextlib.closing(Ledger(house.state_dir / "ledger.db")) as ledger:
        assert len(ledger.quarantined_identities()) == 1
