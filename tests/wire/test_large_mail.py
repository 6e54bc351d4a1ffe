"""Large mails on their way: fetched into one place, sent in blocks, and let go when something breaks."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from drain import handover
from drain.demo.s3 import Fault
from drain.handover import Parcel
from drain.inject import Session
from drain.login import Server
from drain.mail import Wire
from drain.outcome import Outcome
from drain.setting import Secret
from tests.sealing import KEY, key_files, seal
from tests.smtp_fake import DROP, FakeSmtp
from tests.support import MAIL, House, on_verb

ALICE = "alice@example.test"
# Longer than a block, with lines of every kind at its border.
LARGE = MAIL + b"".join(
    b"x" * (number % 7) + end for number in range(99_000) for end in (b"\n.", b"\r\n", b"\r", b"\n")
)


def test_a_mail_of_many_blocks_arrives_as_it_was_sent(house: House) -> None:
    house.put("one", LARGE)
    assert house.sweep().run().outcomes == {Outcome.DELIVERED: 1}
    (filed,) = house.smtp.mailbox(ALICE)
    _, _, rest = filed.split(b"\r\n", 2)
    assert rest == LARGE.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def test_its_size_is_told_before_it_is_made(house: House) -> None:
    house.put("one", LARGE)
    house.sweep().run()
    (filed,) = house.smtp.mailbox(ALICE)
    (said,) = [command for command in house.smtp.commands if command.startswith("MAIL")]
    stuffed = filed.count(b"\r\n.") + filed.startswith(b".")
    assert f" SIZE={len(filed) + stuffed}" in said


@pytest.mark.parametrize("cut_after", [0, 1, 300_000])
def test_a_get_that_ends_early_is_no_mail(house: House, cut_after: int) -> None:
    house.put("one", LARGE)
    house.s3.fault = lambda operation, _: Fault(cut_after=cut_after) if operation == "GetObject" else None
    assert house.sweep().run().outcomes == {Outcome.FAILED: 1}
    assert house.smtp.filed == []
    (event,) = house.events("mail")
    assert str(cut_after) in event["message"]
    assert str(len(LARGE)) in event["message"]
    assert house.keys() == ["pending/one"]


def test_an_object_of_no_bytes_is_fetched_too(house: House) -> None:
    house.put("empty", b"")
    house.put("one")
    assert house.sweep(CONCURRENCY="1").run().outcomes == {Outcome.QUARANTINED: 1, Outcome.DELIVERED: 1}


def test_what_is_sealed_is_let_go_once_it_is_open(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(key_files(house.state_dir.parent, KEY)[0])
    house.put("one", seal(), metadata={})
    bodies = []
    give = handover.Handover.give

    def looked_at(self: handover.Handover, parcel: Parcel) -> object:
        bodies.append(parcel.fetched.body)
        return give(self, parcel)

    monkeypatch.setattr(handover.Handover, "give", looked_at)
    assert house.sweep(PRIVATE_KEY_FILE=key).run().outcomes == {Outcome.DELIVERED: 1}
    assert bodies == [b""]


def test_a_lost_session_does_not_hold_on_to_the_mail(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that its own call keeps is a circle, and 25 MiB lie there until the collector comes."""
    house.put("one")
    house.smtp.answer = on_verb("DATA", DROP, DROP)
    parcels = []
    give = handover.Handover.give

    def looked_at(self: handover.Handover, parcel: Parcel) -> object:
        parcels.append(weakref.ref(parcel))
        return give(self, parcel)

    monkeypatch.setattr(handover.Handover, "give", looked_at)
    gc.collect()
    gc.disable()
    try:
        assert house.sweep().run().outcomes == {Outcome.DEFERRED: 1}
        assert [parcel() for parcel in parcels] == [None]
    finally:
        gc.enable()


class Breaking(Wire):
    """A bug, or no memory, in the middle of a mail."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"Subject: half\r\n"
        raise MemoryError


def test_a_session_in_which_half_a_mail_was_sent_is_used_for_nothing_else() -> None:
    """RSET would be a line of that mail, and the next mail's dot its end."""
    with FakeSmtp() as smtp:
        session = Session(Server("127.0.0.1", smtp.port, smtp.user, Secret(smtp.password), "none", ""))
        session.mail("", 10, eight_bit=False, smtputf8=False)
        session.rcpt(ALICE)
        assert session.data().code == 354
        with pytest.raises(MemoryError):
            session.send(Breaking(MAIL))
        assert session.broken
        assert smtp.filed == []
