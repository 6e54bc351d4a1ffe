"""Mail from R2's simulator through drain into real Maildirs, byte for byte."""

import json
import re
from pathlib import Path

import pytest

from drain.ledger import Ledger
from drain.mail import Mail
from drain.state import State
from tests.real.house import (
    ALICE,
    BOB,
    REFUSED_BY_MADDY,
    RealHouse,
    as_filed,
    below_our_line,
    corpus,
    corpus_as_filed,
)
from tests.real.maddy import Maddy

INTEROP = Path(__file__).parents[1] / "interop" / "plain"


def test_all_77_mails_of_the_corpus_arrive_byte_for_byte(house: RealHouse) -> None:
    mails = corpus()
    for name, raw in mails.items():
        # Two of the 77 are alike, and to one address they would be one mail.
        house.put(name, raw, to=f"alice+{name}@example.test")
    refused = REFUSED_BY_MADDY if isinstance(house.server, Maddy) else set()
    summary = house.pass_()
    assert summary["delivered"] == 77 - len(refused)
    assert house.filed(ALICE) == corpus_as_filed(house.server)
    # What the server would not take is still there to be looked at.
    assert summary.get("deferred", 0) == len(refused)
    assert len(house.r2.keys("pending/")) == len(refused)
    assert len(house.r2.keys("processed/")) == 77 - len(refused)


def test_the_objects_of_another_projects_worker_arrive(house: RealHouse) -> None:
    """pocket-homeserver's, names and metadata and all."""
    index = json.loads((INTEROP / "index.json").read_text(encoding="utf-8"))
    for entry in index:
        house.r2.put(entry["key"], (INTEROP / entry["file"]).read_bytes(), entry["metadata"])
    assert house.pass_()["delivered"] == len(index) == 5
    assert house.filed(ALICE) == sorted(as_filed((INTEROP / entry["file"]).read_bytes()) for entry in index)


def test_the_envelope_sender_is_the_return_path(house: RealHouse) -> None:
    house.put("mail", b"Subject: 1\r\n\r\n1\r\n", sender="sender@example.net")
    house.put("bounce", b"Subject: 2\r\n\r\n2\r\n", sender="<>")
    assert house.pass_()["delivered"] == 2
    found = {re.search(rb"^Return-Path: (<.*>)", mail, re.MULTILINE)[1] for mail in house.server.mailbox(ALICE)}  # type: ignore[index]
    assert found == {b"<sender@example.net>", b"<>"}


def test_the_same_bytes_for_alice_and_bob_arrive_at_both_under_two_keys(house: RealHouse) -> None:
    raw = b"Subject: both\r\n\r\nof you\r\n"
    house.put("a", raw, to=ALICE)
    house.put("b", raw, to=BOB)
    assert house.pass_()["delivered"] == 2
    assert house.filed(ALICE) == house.filed(BOB) == [as_filed(raw)]


def test_bobs_copy_under_the_very_key_that_alices_had_arrives_too(house: RealHouse) -> None:
    raw = b"Subject: both\r\n\r\nof you\r\n"
    house.put("same", raw, to=ALICE)
    assert house.pass_()["delivered"] == 1
    house.put("same", raw, to=BOB)
    assert house.pass_()["delivered"] == 1
    assert house.filed(ALICE) == house.filed(BOB) == [as_filed(raw)]
    assert len(house.r2.keys("processed/")) == 2


def test_a_delivered_object_put_back_is_moved_and_not_delivered_again(house: RealHouse) -> None:
    raw = b"Subject: once\r\n\r\nonly\r\n"
    house.put("one", raw)
    house.pass_()
    house.put("one", raw)
    summary = house.pass_()
    assert summary["moved"] == 1
    assert "delivered" not in summary
    assert len(house.filed(ALICE)) == 1
    assert house.r2.keys("pending/") == []


@pytest.mark.parametrize(
    ("to", "mailbox"),
    [
        ("alice@second.test", "alice@second.test"),
        ("Alice+shop@example.test", ALICE),
        ("postmaster@second.test", "admin@example.test"),
        ("nobody@example.test", "inbox@example.test"),
        ("victim@elsewhere.test", "inbox@example.test"),
        ("bob@example.test%0d%0aRCPT TO:<victim@elsewhere.test>", "inbox@example.test"),
        ("x" * 1900 + "@example.test", "inbox@example.test"),
        ("", "inbox@example.test"),
    ],
)
def test_routing_asks_the_server_and_reaches_nobody_outside(house: RealHouse, to: str, mailbox: str) -> None:
    raw = b"Subject: routed\r\n\r\nhere\r\n"
    house.put("one", raw, to=to)
    assert house.pass_()["delivered"] == 1
    assert house.filed(mailbox) == [as_filed(raw)]


def test_4xx_of_one_mailbox_defers_its_mail_and_the_others_go_on(house: RealHouse) -> None:
    house.put("d", b"Subject: d\r\n\r\nd\r\n", to="defer@example.test")
    house.put("f", b"Subject: f\r\n\r\nf\r\n", to="full@example.test")
    house.put("a", b"Subject: a\r\n\r\na\r\n")
    summary = house.pass_()
    assert (summary["deferred"], summary["delivered"], summary["exit"]) == (2, 1, 75)
    assert house.filed("inbox@example.test") == [], "a deferral is no reason for another mailbox"
    assert len(house.r2.keys("pending/")) == 2
    assert house.pass_()["waiting"] == 2


def test_100_received_lines_are_refused_by_the_server_and_set_aside(house: RealHouse) -> None:
    loop = b"".join(b"Received: from a by b; Mon, 1 Jan 2026 00:00:%02d +0000\r\n" % (n % 60) for n in range(100))
    house.put("loop", loop + b"Subject: round\r\n\r\nand round\r\n")
    house.put("fine", b"Subject: fine\r\n\r\n\r\n")
    summary = house.pass_()
    assert (summary["quarantined"], summary["delivered"], summary["exit"]) == (1, 1, 0)
    (key,) = house.r2.keys("quarantine/")
    _, metadata = house.r2.get(key)
    assert metadata["drain-reason"] == "mail-refused"
    assert metadata["to"] == ALICE


def test_a_30_mib_mail_and_an_empty_object(house: RealHouse) -> None:
    big = b"Subject: big\r\n\r\n" + b"y" * 76 * 400_000 + b"\r\n"
    assert len(big) > 28 * 1024 * 1024
    lines = b"Subject: big\r\n\r\n" + (b"y" * 76 + b"\r\n") * 400_000
    house.put("big", lines)
    house.put("empty", b"")
    summary = house.pass_()
    assert (summary["delivered"], summary["quarantined"]) == (1, 1)
    assert house.filed(ALICE) == [as_filed(lines)]


def test_a_mail_that_begins_with_a_from_line_keeps_its_header_a_header(house: RealHouse) -> None:
    house.put("mbox", b"From somebody Mon Jan  1 00:00:00 2026\nSubject: kept\n\nbody\n")
    if isinstance(house.server, Maddy):
        # It takes no mail whose first line is no header field, and says 554 5.0.0.
        assert house.pass_()["deferred"] == 1
        assert house.r2.keys() == ["pending/mbox"]
        return
    assert house.pass_()["delivered"] == 1
    (filed,) = house.server.mailbox(ALICE)
    header, _, body = filed.partition(b"\n\n")
    assert b"\nSubject: kept" in header
    assert body == b"body\n"


def test_a_dot_and_a_bare_line_feed_smuggle_nothing(house: RealHouse) -> None:
    raw = b"Subject: s\r\n\r\none\n.\r\nMAIL FROM:<evil@x.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\ntwo\r\n.\r\n"
    house.put("smuggle", raw)
    assert house.pass_()["delivered"] == 1
    assert house.filed(ALICE) == [as_filed(raw)]
    assert house.filed(BOB) == []


def test_a_lost_ledger_is_read_back_from_processed(house: RealHouse) -> None:
    """Ours by the name, another program's by opening it; nothing comes twice after that."""
    import subprocess
    import sys

    ours, theirs = b"Subject: ours\r\n\r\n\r\n", b"Subject: theirs\r\n\r\n\r\n"
    house.put("ours", ours)
    house.pass_()
    house.r2.put("processed/" + "0" * 64 + ".eml", theirs, {"to": ALICE, "from": "x@y.test"})
    for leftover in house.state_dir.glob("ledger.db*"):
        leftover.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "drain", "ledger", "rebuild"],
        env=house.environ(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "2 mails taken over" in done.stdout
    house.put("ours-again", ours)
    house.put("theirs-again", theirs)
    assert house.pass_()["moved"] == 2
    assert len(house.filed(ALICE)) == 1
    ledger = Ledger(house.state_dir / "ledger.db")
    row = ledger.find(Mail(theirs, ALICE, "").identity)
    ledger.close()
    assert row is not None
    assert row.state is State.SETTLED


def test_the_line_of_ours_is_the_same_for_the_same_mail_and_tells_nothing(house: RealHouse) -> None:
    house.put("one", b"Subject: 1\r\n\r\n\r\n")
    house.pass_()
    (filed,) = house.server.mailbox(ALICE)
    stamp = re.search(rb"^X-Drain-Id: ([0-9a-f]{64})\r?$", filed, re.MULTILINE)
    assert stamp is not None
    assert stamp[1].decode() != Mail(b"Subject: 1\r\n\r\n\r\n", ALICE, "").identity
    assert below_our_line(filed) == b"Subject: 1\n\n\n"
