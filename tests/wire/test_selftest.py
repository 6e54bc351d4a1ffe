"""`drain selftest`, and `drain history` and `drain trace` after passes, as a person calls them."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from drain import assembly, cli, stamp
from drain.demo.s3 import Fault
from drain.lock import held
from drain.mailboxes import Answer as Found, Presence
from drain.opener import Kind
from tests.sealing import KEY, OTHER_KEY, key_files, opener
from tests.support import House, on_verb

ADMIN = "admin@example.test"
TOKEN = "correct horse"
Drain = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _patient_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drain.selftest._POLL_SECONDS", 0.05)


@pytest.fixture
def drain(house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Drain:
    (key,) = key_files(tmp_path, KEY)

    def call(*words: str, **settings: str) -> tuple[int, str, str]:
        more = {"PRIVATE_KEY_FILE": str(key), "ORIGIN_TOKEN": TOKEN, **settings}
        code = cli.main(list(words), house.environ(**{name: value for name, value in more.items() if value}))
        return (code, *capsys.readouterr())

    return call


def last(output: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told


def legs(told: dict[str, Any]) -> list[str]:
    return [leg["leg"] for leg in told["legs"]]


ALL_LEGS = [
    "sealed",
    "put into the bucket",
    "listed",
    "logged in to the mail server",
    "fetched",
    "opened",
    "judged by the filters",
    "taken up, and a mailbox found",
    "handed over",
    "moved to processed/",
]


# -- selftest --


def test_a_probe_goes_the_whole_way_and_each_leg_is_timed(house: House, drain: Drain) -> None:
    code, output, _ = drain("selftest", "--json")
    told = last(output)
    assert (code, told["ok"], told["state"], told["mailbox"]) == (0, True, "settled", ADMIN)
    assert legs(told) == ALL_LEGS
    assert all(leg["seconds"] >= 0 for leg in told["legs"])
    assert told["seconds"] == pytest.approx(sum(leg["seconds"] for leg in told["legs"]), abs=0.01)
    assert [one.mailbox for one in house.smtp.filed] == [ADMIN]
    assert house.keys("pending/") == []
    (moved,) = house.keys("processed/")
    assert moved.startswith(f"processed/{told['identity']}-")


def test_a_probe_is_an_honest_mail_that_says_what_it_is(house: House, drain: Drain) -> None:
    assert drain("selftest", "--to", "alice+x@example.test")[0] == 0
    (filed,) = house.smtp.filed
    assert (filed.mailbox, filed.sender) == ("alice@example.test", ADMIN)
    mail = message_from_bytes(filed.content, policy=policy.default)
    assert mail["Subject"].startswith("drain selftest ")
    assert mail["From"].addresses[0].addr_spec == ADMIN
    assert mail["To"].addresses[0].addr_spec == "alice+x@example.test"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@example.test>")
    assert mail["Date"].datetime is not None
    assert not mail.defects
    assert "probe mail" in mail.get_content()


def test_the_object_is_what_the_worker_would_have_written(house: House, drain: Drain, tmp_path: Path) -> None:
    """Its bytes open as sealed mail with the token inside; its name is made as the format says."""
    drain("selftest", "--to", "alice@example.test")
    (key,) = house.keys("processed/")
    opened = opener(tmp_path, TOKEN, sealed_only=True).open(house.s3.objects[key].body, {})
    assert (opened.kind, opened.mail.recipient, opened.mail.sender) == (Kind.SEALED, "alice@example.test", ADMIN)
    assert opened.received.endswith("Z")
    name = hmac.new(TOKEN.encode(), b"alice@example.test\n" + opened.mail.raw, hashlib.sha256).hexdigest()
    assert key == f"processed/{opened.mail.identity}-{name}"
    assert house.s3.objects[key].metadata == {}


def test_two_probes_are_two_mails(house: House, drain: Drain) -> None:
    assert drain("selftest")[0] == drain("selftest")[0] == 0
    assert len(house.smtp.filed) == 2


def test_it_is_sealed_for_the_newest_key_and_the_first_token(house: House, drain: Drain, tmp_path: Path) -> None:
    """`drain keygen --rotate` says to put the new key in front."""
    folder = tmp_path / "two"
    folder.mkdir()
    new, old = key_files(folder, OTHER_KEY, KEY)
    assert drain("selftest", PRIVATE_KEY_FILE=f"{new}:{old}", ORIGIN_TOKEN="new,old")[0] == 0
    (key,) = house.keys("processed/")
    only_new = opener(tmp_path, "new")
    with pytest.raises(Exception, match="which is not here"):
        only_new.open(house.s3.objects[key].body, {})


def test_a_person_is_told_in_words_and_a_table(drain: Drain) -> None:
    code, output, _ = drain("selftest")
    assert code == 0
    assert f"arrived in {ADMIN}." in output
    assert "VERIFY_IMAP_HOST" in output
    for leg in [*ALL_LEGS, "together"]:
        assert leg in output


def test_other_mail_that_waits_is_delivered_with_it_and_that_is_said(house: House, drain: Drain) -> None:
    house.put("one")
    house.put("two", to="admin@example.test")
    code, output, _ = drain("selftest", REQUIRE_SEALED="false")
    assert code == 0
    assert len(house.smtp.filed) == 3
    assert "2 other mails came with it." in output


def test_what_the_filters_make_of_it_is_said(house: House, drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    from drain.filters.auth import Auth
    from drain.filters.verdict import Action, Verdict

    verdict = Verdict(None, Action.TAG, "spam", "looks like a robot")
    monkeypatch.setattr(Auth, "check", lambda *_: verdict)
    told = last(drain("selftest", "--json")[1])
    assert (told["ok"], told["verdict"].partition(";")[0][:3]) == (True, "tag")
    monkeypatch.setattr(Auth, "check", lambda *_: Verdict(None, Action.QUARANTINE, "robot", "looks like a robot"))
    code, output, _ = drain("selftest", "--json")
    told = last(output)
    assert (code, told["ok"], told["state"], told["words"]) == (78, False, "quarantined", "robot: looks like a robot")


def test_a_probe_that_no_mailbox_takes_is_set_aside_and_the_server_is_quoted(house: House, drain: Drain) -> None:
    house.smtp.mailboxes.clear()
    code, output, _ = drain("selftest")
    assert code == 78
    assert "quarantined. no-mailbox: RCPT: 550" in output
    assert len(house.keys("quarantine/")) == 1


def test_a_mail_server_that_is_away_ends_it_at_once_with_its_words(house: House, drain: Drain) -> None:
    house.smtp.__exit__()
    code, output, _ = drain("selftest", "--timeout", "60", "--json")
    told = last(output)
    assert (code, told["ok"], told["state"]) == (75, False, "pending")
    assert "mail server" in told["words"]
    assert legs(told) == ["sealed", "put into the bucket", "listed"]
    assert len(house.keys("pending/")) == 1, "it is left for the next pass"


def test_a_login_that_is_refused_is_77(drain: Drain) -> None:
    code, output, _ = drain("selftest", INJECT_PASS="wrong")
    assert code == 77
    assert ": pending. " in output


def test_a_probe_that_is_deferred_is_waited_for_until_the_time_is_over(house: House, drain: Drain) -> None:
    house.smtp.answer = on_verb("RCPT", *["452 4.2.2 full"] * 50)
    code, output, _ = drain("selftest", "--timeout", "0.4", "--json")
    told = last(output)
    assert (code, told["state"]) == (75, "deferred")
    assert "452 4.2.2 full" in told["words"]
    assert len(house.keys("pending/")) == 1


def test_a_bucket_that_does_not_take_it_is_an_error_like_any_other(house: House, drain: Drain) -> None:
    house.s3.fault = lambda operation, key: Fault(503, "SlowDown") if operation == "PutObject" else None
    code, output, errors = drain("selftest")
    assert (code, output) == (75, "")
    assert "writing pending/" in errors


def test_a_drain_that_is_at_work_does_it_instead(house: House, drain: Drain, tmp_path: Path) -> None:
    """Under a lock of another name, so that it surely is the other one."""
    other = house.sweep(PRIVATE_KEY_FILE=str(tmp_path / "key-0.pem"), ORIGIN_TOKEN=TOKEN)
    other.clock = time.time
    is_put = threading.Event()

    def listed(operation: str, key: str) -> None:
        if house.s3.requests["ListObjectsV2"] > 1:  # the first of our own looks comes after the PUT
            is_put.set()

    def work() -> None:
        assert is_put.wait(20)
        other.run()

    house.s3.fault = listed
    thread = threading.Thread(target=work)
    with held(tmp_path / "held.lock", house.events.log):
        thread.start()
        code, output, _ = drain("selftest", "--timeout", "20", "--json", LOCKFILE=str(tmp_path / "held.lock"))
    thread.join(20)
    told = last(output)
    assert (code, told["state"], told["others"]) == (0, "settled", 0)
    assert len(house.smtp.filed) == 1
    # What is known of the other's work are the events in the ledger.
    assert legs(told) == [*ALL_LEGS[:2], *ALL_LEGS[-3:]]
    assert all(leg["seconds"] >= 0 for leg in told["legs"])


def test_a_lock_that_is_never_free_is_said_when_the_time_is_over(house: House, drain: Drain) -> None:
    house.state_dir.mkdir(parents=True)
    with held(house.state_dir / "drain.lock", house.events.log):
        code, output, _ = drain("selftest", "--timeout", "0.3")
    assert code == 75
    assert ": pending. Another drain is at work" in output
    assert drain("once")[0] == 0
    assert len(house.smtp.filed) == 1, "it comes when it can"


def test_a_probe_that_another_ledger_has_taken_is_gone(house: House, drain: Drain) -> None:
    def took(operation: str, key: str) -> None:
        if operation == "ListObjectsV2":
            house.s3.objects.clear()

    house.s3.fault = took
    code, output, _ = drain("selftest", "--timeout", "0.3")
    assert code == 75
    assert ": gone. It is not in pending/ any more, and this ledger does not know it" in output


@dataclass
class Boxes:
    """In place of `Mailboxes`: answers in turn, the last one for ever."""

    answers: list[Presence]
    asked: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 60.0

    def ask(self, mailbox: str, value: str) -> Found:
        self.asked.append((mailbox, value))
        assert self.seconds <= 20
        presence = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Found(presence, f"It is {presence.value}.")


def with_boxes(monkeypatch: pytest.MonkeyPatch, *answers: Presence) -> Boxes:
    boxes = Boxes(list(answers))
    monkeypatch.setattr(assembly, "mailboxes", lambda config: boxes)
    return boxes


def test_the_mailbox_is_asked_until_it_has_the_probe(
    house: House, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = with_boxes(monkeypatch, Presence.ABSENT, Presence.UNKNOWN, Presence.THERE)
    code, output, _ = drain("selftest", "--timeout", "20", "--json")
    told = last(output)
    assert (code, told["presence"], legs(told)[-1]) == (0, "there", "found in the mailbox")
    assert boxes.asked == [(ADMIN, stamp.load(house.state_dir).value(told["identity"]))] * 3


@pytest.mark.parametrize(("presence", "code"), [(Presence.ABSENT, 75), (Presence.UNKNOWN, 75), (Presence.NO_LOGIN, 0)])
def test_a_probe_that_is_not_found_is_late_but_a_mailbox_without_login_proves_nothing(
    drain: Drain, monkeypatch: pytest.MonkeyPatch, presence: Presence, code: int
) -> None:
    with_boxes(monkeypatch, presence)
    done, output, _ = drain("selftest", "--timeout", "0.5", "--json")
    told = last(output)
    assert (done, told["state"], told["presence"]) == (code, "settled", presence.value)
    assert told["words"] == f"It is {presence.value}."
    assert "found in the mailbox" not in legs(told)


def test_without_a_key_the_probe_is_plain_and_goes_to_the_catch_all(
    house: House, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drain.delivery.OVERWRITE_UNSEEN_SECONDS", 0)
    code, output, _ = drain("selftest", PRIVATE_KEY_FILE="", ORIGIN_TOKEN="")
    assert code == 0
    assert "not sealed: there is no private key" in output
    assert [one.mailbox for one in house.smtp.filed] == ["inbox@example.test"]


def test_without_a_key_where_only_sealed_mail_is_believed_there_is_no_probe(house: House, drain: Drain) -> None:
    code, _, errors = drain("selftest", PRIVATE_KEY_FILE="")
    assert code == 78
    assert "PRIVATE_KEY_FILE is not set" in errors
    code, _, errors = drain("selftest", PRIVATE_KEY_FILE="/nowhere", ORIGIN_TOKEN="")
    assert code == 78
    assert "/nowhere" in errors
    assert house.keys() == []


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "a b@example.test"),
        ("--to", "a@example.test\r\nBcc: x@y.test"),
        ("--timeout", "0"),
        ("--timeout", "-1"),
        ("--timeout", "nan"),
    ],
)
def test_wrong_use_is_64_and_puts_nothing_into_the_bucket(house: House, drain: Drain, words: tuple[str, str]) -> None:
    code, _, errors = drain("selftest", *words)
    assert code == 64
    assert words[0] in errors
    assert house.keys() == []


def test_to_without_a_key_is_wrong_use(drain: Drain) -> None:
    assert drain("selftest", "--to", "alice", PRIVATE_KEY_FILE="", ORIGIN_TOKEN="")[0] == 64


def test_a_name_alone_is_at_the_first_domain(house: House, drain: Drain) -> None:
    assert drain("selftest", "--to", "alice")[0] == 0
    assert house.smtp.filed[0].mailbox == "alice@example.test"


def test_the_steps_of_its_pass_are_logged_as_those_of_any_other(drain: Drain) -> None:
    output = drain("selftest", "--json", DRAIN_DEBUG="1")[1]
    assert [json.loads(line) for line in output.splitlines() if '"step"' in line and '"settled"' in line]


# -- what the history says of them --


def test_history_and_trace_tell_of_a_probe_and_of_its_judges(house: House, drain: Drain) -> None:
    identity = last(drain("selftest", "--json")[1])["identity"]
    code, output, _ = drain("history", "--to", "admin", "--json")
    told = last(output)
    assert (code, told["identity"], told["state"], told["mailbox"]) == (0, identity, "settled", ADMIN)
    assert [event["what"] for event in told["events"]] == ["injecting", "delivered", "settled"]
    code, output, _ = drain("trace", identity[:6], "--json")
    told = last(output)
    assert code == 0
    assert [step["what"] for step in told["steps"]] == ["stored", "first seen", "injecting", "delivered", "settled"]
    assert told["object"].startswith(f"processed/{identity}-")
    assert told["next"] is None


def test_trace_knows_a_mail_by_what_a_person_has_in_hand(house: House, drain: Drain) -> None:
    drain("selftest")
    house.put("one")
    assert drain("once", REQUIRE_SEALED="false")[0] == 0
    probe = message_from_bytes(house.smtp.filed[0].content)
    identity = last(drain("history", "--to", "admin", "--json")[1])["identity"]
    words = [probe["X-Drain-Id"], f"X-Drain-Id: {probe['X-Drain-Id']}", probe["Message-ID"], probe["Message-ID"][1:-1]]
    for word in [*words, identity, f" {identity[:4].upper()} "]:
        code, output, _ = drain("trace", word)
        assert (code, output.split()[1]) == (0, identity), word
    code, _, errors = drain("trace", "0" * 64)
    assert code == 66
    assert "relay queue list" in errors


def test_trace_of_what_could_be_several_mails_names_them(house: House, drain: Drain) -> None:
    raw = b"Message-ID: <twins@x.test>\r\n\r\nhello"
    house.put("one", raw)
    house.put("two", raw, to="bob@example.test")
    assert drain("once", REQUIRE_SEALED="false")[0] == 0
    code, _, errors = drain("trace", "<twins@x.test>")
    assert code == 66
    assert "could be any of 2 mails" in errors
    assert "(to alice@example.test)" in errors
    assert "(to bob@example.test)" in errors


def test_trace_shows_what_the_filters_said(house: House, drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    from drain.filters.auth import Auth
    from drain.filters.verdict import Action, Verdict

    verdict = Verdict(3.5, Action.QUARANTINE, "robot", "looks like \x1b[2J a robot", ("a line",))
    monkeypatch.setattr(Auth, "check", lambda *_: verdict)
    identity = last(drain("selftest", "--json")[1])["identity"]
    code, output, _ = drain("trace", identity)
    assert code == 0
    assert "filter   auth: 3.5 points quarantine looks like" in output
    assert "\x1b" not in output
    assert f"object   quarantine/{identity}-" in output
    assert f"drain quarantine show, release or delete {identity[:12]}" in output
    (kept,) = last(drain("trace", identity, "--json")[1])["verdicts"]
    assert (kept["filter"], kept["action"], kept["evidence"]) == ("auth", "quarantine", ["a line"])


def test_addresses_are_shown_to_the_person_who_asks_also_where_the_log_has_none(drain: Drain) -> None:
    drain("selftest")
    assert ADMIN in drain("history", LOG_ADDRESSES="false")[1]
