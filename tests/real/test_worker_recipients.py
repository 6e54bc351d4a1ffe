"""The Worker in workerd: mail to somebody who is not there, and the list that tells it so."""

import datetime
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from drain.recipients import KEY as LIST, Recipients, document
from drain.setting import Secret
from tests.real.edge import Message, patched
from tests.real.worker import (
    ALICE,
    BOB,
    DAY_MS,
    FAULTS,
    LIMIT,
    PLAIN,
    RAW,
    SEALED,
    SEALED_WITHOUT_TOKEN,
    SENDER,
    TOKEN,
    Worker,
    check_that_a_fault_is_noticed,
)

NAMES = ("alice@example.test", "grüße@example.test", "@example.test", "a+b@example.test", "@second.test")


def listed(
    *names: str, token: str = TOKEN, age: datetime.timedelta = datetime.timedelta(0), salt: str = "00ff", **changed: Any
) -> bytes:
    """The list as home publishes it, with other *names* or with these fields *changed*."""
    content = {
        "published": (datetime.datetime.now(datetime.UTC) - age).isoformat().replace("+00:00", "Z"),
        "salt": salt,
        "delimiters": "+",
        "hashes": [_keyed(token, f"drain recipient v1\n{salt}\n{name}")[:32] for name in names or NAMES],
        **changed,
    }
    return signed(json.dumps({name: value for name, value in content.items() if value is not ...}), token)


def signed(text: str, token: str = TOKEN) -> bytes:
    """Anything at all, signed as the list is."""
    first = "drain recipients v1\n"
    return f"{first}{_keyed(token, first + text)}\n{text}".encode()


def _keyed(token: str, text: str) -> str:
    return hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()


def is_refused(worker: Worker, to: str = "nobody@example.test", **circumstances: Any) -> bool:
    """Whether a mail to this recipient is refused; if not, it has to be stored."""
    worker_keys = worker.edge.keys("pending/")
    outcome = worker.take(Message(RAW, to), **circumstances)
    if outcome.outcome == "rejected":
        assert outcome.words == "5.1.1 There is no such mailbox here"
        assert worker.edge.keys("pending/") == worker_keys
        return True
    assert outcome.outcome == "accepted"
    assert any(opened.mail.recipient == to for opened in worker.stored().values())
    return False


@pytest.fixture
def isolate(worker: Worker) -> Worker:
    return worker.afresh()


@pytest.mark.parametrize(
    ("to", "refused"),
    [
        ("alice@example.test", False),
        ("Alice@EXAMPLE.test", False),
        ("alice+news@example.test", False),
        ("ALICE+News+More@example.test", False),
        ("alice+@example.test", False),
        ("a+b@example.test", False),
        ("a+b+c@example.test", True),  # its base is a
        ("a@example.test", True),
        ("nobody@example.test", True),
        ("NOBODY@Example.Test", True),
        ("nobody+alice@example.test", True),
        ("alice-news@example.test", True),
        ("+alice@example.test", True),
        ("alice@second.test", True),
        ("alice@other.test", False),
        ("nobody@sub.example.test", False),
        ("nobody@example.test.", False),
        ("alice@example.test@second.test", False),
        ('"alice"@example.test', False),
        ('"al\\ice"@example.test', False),
        ("grüße@example.test", False),
        ("nöbody@example.test", False),
        ("nobody@exämple.test", False),
        ("no body@example.test", False),
        ("@example.test", False),
        ("example.test", False),
        ("nobody", False),
        ("", False),
    ],
)
def test_only_a_mailbox_that_is_certainly_not_there_is_refused(isolate: Worker, to: str, refused: bool) -> None:  # noqa: FBT001
    isolate.edge.put(LIST, listed())
    assert is_refused(isolate, to) is refused


def test_every_delimiter_of_the_list_is_one(isolate: Worker) -> None:
    isolate.edge.put(LIST, listed(delimiters="-+"))
    for to in ("alice-news@example.test", "alice+news@example.test", "alice+a-b@example.test"):
        assert not is_refused(isolate, to)
    assert is_refused(isolate, "alice_news@example.test")


def test_without_delimiters_a_plus_address_is_an_address_like_any_other(isolate: Worker) -> None:
    isolate.edge.put(LIST, listed(delimiters=""))
    assert is_refused(isolate, "alice+news@example.test")
    assert not is_refused(isolate, "a+b@example.test")


def check_the_refusal_by_the_real_route(worker: Worker, route: str) -> None:
    worker.edge.put(LIST, listed())
    assert worker.edge.post(RAW, ALICE, SENDER, route) == 200
    status, words = worker.edge.post_for_words(RAW, "nobody@example.test", SENDER, route)
    assert status == 400, "it was accepted"
    assert "There is no such mailbox here" in words
    assert worker.only().mail.recipient == ALICE


def test_the_real_route_says_that_there_is_no_such_mailbox(worker: Worker) -> None:
    check_the_refusal_by_the_real_route(worker, "refusing")


def _unusable() -> dict[str, bytes]:
    good = listed()
    first, mac, text = good.split(b"\n")
    return {
        "empty": b"",
        "garbage": os.urandom(500),
        "words": b"no such list\n",
        "one line": first,
        "two lines": first + b"\n" + mac,
        "cut off": good[:-1],
        "cut off in the signature": good[:50],
        "one byte more": good + b"\n",
        "CRLF": good.replace(b"\n", b"\r\n"),
        "no signature": first + b"\n\n" + text,
        "a signature of zeros": first + b"\n" + b"0" * 64 + b"\n" + text,
        "a signature that is not hex": first + b"\n" + b"z" * 64 + b"\n" + text,
        "another token's": listed(token="another"),
        "without the first line in the signature": first + b"\n" + _keyed(TOKEN, text.decode()).encode() + b"\n" + text,
        "larger than 4 MiB": signed(text.decode() + " " * 4 * 1024 * 1024),
        "no JSON": signed("{"),
        "null": signed("null"),
        "a number": signed("5"),
        "an array": signed("[]"),
        "an empty object": signed("{}"),
        "hashes are a string": listed(hashes="abc"),
        "hashes are a number": listed(hashes=5),
        "hashes are an object": listed(hashes={"a": 1}),
        "hashes are null": listed(hashes=None),
        "hashes are missing": listed(hashes=...),
        "hashes are numbers": listed(hashes=[1, 2]),
        "delimiters are a number": listed(delimiters=5),
        "delimiters are null": listed(delimiters=None),
        "delimiters are missing": listed(delimiters=...),
        "the salt is another": _resalted("ff00"),
        "the salt is missing": _resalted(...),
        "published is missing": listed(published=...),
        "published is null": listed(published=None),
        "published is a number": listed(published=5),
        "published is no date": listed(published="yesterday"),
        "published two hours before it was put there": listed(age=datetime.timedelta(hours=2)),
        "published tomorrow": listed(age=-datetime.timedelta(days=1)),
    }


def _resalted(salt: Any) -> bytes:
    """Hashes that were made with another salt."""
    content = json.loads(listed().split(b"\n")[2])
    content["salt"] = salt
    return signed(json.dumps({name: value for name, value in content.items() if value is not ...}))


UNUSABLE = _unusable()


@pytest.mark.parametrize("name", UNUSABLE)
def test_with_a_list_that_cannot_be_believed_everybody_is_let_in(isolate: Worker, name: str) -> None:
    isolate.edge.put(LIST, UNUSABLE[name])
    assert not is_refused(isolate)


# Each of these wants an isolate that has not been called yet: a variant of its own does as well.


def check_that_the_list_is_signed(worker: Worker) -> None:
    worker.edge.put(LIST, UNUSABLE["a signature of zeros"])
    assert not is_refused(worker), "it was refused"


def check_that_a_huge_list_is_no_list(worker: Worker) -> None:
    worker.edge.put(LIST, UNUSABLE["larger than 4 MiB"])
    assert not is_refused(worker), "it was refused"


def check_that_an_old_list_is_no_list(worker: Worker) -> None:
    worker.edge.put(LIST, listed())
    assert not is_refused(worker, later_ms=7 * DAY_MS + 60_000), "it was refused"


def test_a_list_that_is_more_than_seven_days_old_is_none(isolate: Worker) -> None:
    check_that_an_old_list_is_no_list(isolate)


def check_that_a_list_that_was_put_back_is_no_list(worker: Worker) -> None:
    """Who can write to the bucket could bring back the list of a day before the newest mailbox."""
    worker.edge.put(LIST, UNUSABLE["published two hours before it was put there"])
    assert not is_refused(worker), "it was refused"


def check_that_a_list_from_the_future_is_no_list(worker: Worker) -> None:
    worker.edge.put(LIST, UNUSABLE["published tomorrow"])
    assert not is_refused(worker), "it was refused"


def test_a_list_is_believed_for_almost_seven_days_and_from_a_clock_that_is_a_little_ahead(worker: Worker) -> None:
    worker.edge.put(LIST, listed())
    assert is_refused(worker.afresh(), later_ms=7 * DAY_MS - 3_600_000)
    for minutes in (-30, 30):
        worker.edge.put(LIST, listed(age=datetime.timedelta(minutes=minutes)))
        assert is_refused(worker.afresh())


def test_the_list_that_drain_publishes_is_the_list_that_the_worker_reads(isolate: Worker) -> None:
    mailboxes = Recipients(
        addresses=frozenset({"alice@example.test", "carol@second.test"}),
        domains=frozenset({"example.test"}),
        delimiters="+-",
        catch_alls=(),
    )
    isolate.edge.put(LIST, document(mailboxes, Secret(TOKEN), datetime.datetime.now(datetime.UTC)))
    for to in ("alice@example.test", "Alice+x@example.test", "alice-x@example.test", "dave@second.test"):
        assert not is_refused(isolate, to)
    assert is_refused(isolate, "dave@example.test")


def test_without_a_list_everybody_is_let_in(isolate: Worker) -> None:
    assert not is_refused(isolate)


def test_without_a_token_the_list_is_not_even_asked_for(isolate: Worker) -> None:
    isolate.edge.put(LIST, listed())
    for settings in (SEALED_WITHOUT_TOKEN, PLAIN):
        outcome = isolate.take(Message(RAW, "nobody@example.test"), settings)
        assert (outcome.outcome, outcome.calls) == ("accepted", ("put",))


def test_another_token_of_the_worker_makes_the_list_unknown(isolate: Worker) -> None:
    """A token can be changed while an isolate lives."""
    isolate.edge.put(LIST, listed())
    assert is_refused(isolate)
    message = Message(RAW, "nobody@example.test")
    outcome = isolate.take(message, {**SEALED, "ORIGIN_TOKEN": "another"})
    assert (outcome.outcome, outcome.calls) == ("accepted", ("get", "put"))
    isolate.edge.put(LIST, listed(token="another"))
    assert isolate.take(message, {**SEALED, "ORIGIN_TOKEN": "another"}, later_ms=301_000).outcome == "rejected"


def test_the_list_is_not_asked_where_plain_mail_is_too_large_but_is_for_plain_mail(isolate: Worker) -> None:
    isolate.edge.put(LIST, listed())
    settings = {**PLAIN, "ORIGIN_TOKEN": TOKEN}
    assert isolate.take(Message(bytes(LIMIT + 1), "nobody@example.test"), settings).calls == ()
    assert isolate.take(Message(RAW, "nobody@example.test"), settings).outcome == "rejected"
    assert isolate.take(Message(RAW), settings).outcome == "accepted"


def test_a_bucket_that_does_not_give_the_list_is_not_asked_again_for_every_mail(isolate: Worker) -> None:
    isolate.edge.put(LIST, listed())
    assert not is_refused(isolate, failing=["get"])
    assert isolate.take(Message(RAW)).calls == ("put",)
    assert not is_refused(isolate, "nobody-else@example.test")
    assert is_refused(isolate, later_ms=301_000)


def check_that_the_list_is_read_once(worker: Worker) -> None:
    worker.edge.put(LIST, listed())
    calls = [
        call
        for number in range(20)
        for call in worker.take(Message(RAW + b"%d" % number), later_ms=number * 15_000).calls
    ]
    assert calls.count("put") == 20
    assert calls.count("get") == 1, "it was not read once"
    assert set(calls) == {"get", "put"}


def test_within_five_minutes_the_list_is_read_once(isolate: Worker) -> None:
    check_that_the_list_is_read_once(isolate)


def check_that_the_list_is_read_again(worker: Worker) -> None:
    worker.edge.put(LIST, listed("@example.test"))
    assert is_refused(worker, ALICE)
    worker.edge.put(LIST, listed())
    assert is_refused(worker, ALICE, later_ms=290_000)
    assert not is_refused(worker, ALICE, later_ms=301_000), "it was not read again"
    assert is_refused(worker, BOB, later_ms=302_000)


def test_after_five_minutes_a_new_list_counts(isolate: Worker) -> None:
    check_that_the_list_is_read_again(isolate)


def test_after_five_minutes_a_list_that_was_removed_counts_no_more(isolate: Worker) -> None:
    isolate.edge.put(LIST, listed())
    assert is_refused(isolate)
    isolate.edge.clear()
    assert not is_refused(isolate, later_ms=301_000)


def test_a_list_grows_old_in_an_isolate_that_has_it(isolate: Worker) -> None:
    isolate.edge.put(LIST, listed())
    for before_ms in (120_000, 60_000):
        assert is_refused(isolate, later_ms=7 * DAY_MS - before_ms)
    assert not is_refused(isolate, later_ms=7 * DAY_MS + 60_000)


def test_a_list_that_was_read_once_is_given_up_where_it_cannot_be_read_again(isolate: Worker) -> None:
    isolate.edge.put(LIST, listed())
    assert is_refused(isolate)
    assert not is_refused(isolate, failing=["get"], later_ms=301_000)


# -- that all this would be noticed --


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("lists need no signature", check_that_the_list_is_signed, "it was refused"),
        ("believes a list that was put back", check_that_a_list_that_was_put_back_is_no_list, "it was refused"),
        ("lists of any size", check_that_a_huge_list_is_no_list, "it was refused"),
        ("lists live for ever", check_that_an_old_list_is_no_list, "it was refused"),
        ("lists may come from the future", check_that_a_list_from_the_future_is_no_list, "it was refused"),
        ("reads the list for every mail", check_that_the_list_is_read_once, "it was not read once"),
        ("reads the list once", check_that_the_list_is_read_again, "it was not read again"),
    ],
)
def test_a_worker_with_this_fault_is_noticed(
    worker: Worker, fault: str, check: Callable[[Worker], None], words: str
) -> None:
    check_that_a_fault_is_noticed(worker, fault, check, words)


def test_a_worker_that_does_not_wait_for_its_rejection_is_noticed(worker: Worker) -> None:
    patched(*FAULTS["does not wait for setReject"])
    with pytest.raises(AssertionError, match="it was accepted"):
        check_the_refusal_by_the_real_route(worker, "hasty")
