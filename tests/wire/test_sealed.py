"""Passes over a bucket in which mail is sealed."""

import datetime
import os
from pathlib import Path

import pytest

from drain.demo.s3 import StoredObject
from drain.keys import key_id
from drain.outcome import Outcome
from tests.sealing import KEY, OTHER_KEY, RAW, bridge, key_files, other_rsa_key, pem, rsa_key, seal
from tests.support import LONG_AGO, House

ALICE = "alice@example.test"
INSIDE = {"from": "bob@y.test", "to": ALICE, "senderIp": None, "raw": RAW.decode(), "receivedAt": "t"}


@pytest.fixture
def keys(house: House, tmp_path: Path) -> dict[str, str]:
    """Settings that name both keys."""
    house.smtp.mailboxes.add(ALICE)
    sealed, mailbridge = key_files(tmp_path, KEY, rsa_key())
    return {"PRIVATE_KEY_FILE": str(sealed), "MAILBRIDGE_PRIVATE_KEY_PATH": str(mailbridge)}


def put(house: House, name: str, body: bytes) -> str:
    return house.put(name, body, metadata={})


def test_sealed_mail_is_delivered_to_whom_the_seal_says(house: House, keys: dict[str, str]) -> None:
    body = seal()
    put(house, "x", body)
    put(house, "y", bridge({**INSIDE, "raw": "A: b\r\n\r\n"}))
    assert house.sweep(**keys).run().outcomes == {Outcome.DELIVERED: 2}
    assert sorted(mail.split(b"\r\n", 2)[2] for mail in house.smtp.mailbox(ALICE)) == [b"A: b\r\n\r\n", RAW]
    assert body in house.bodies("processed/"), "it rests there as it was, sealed"


def test_sealed_mail_is_opened_at_once(house: House, keys: dict[str, str]) -> None:
    """Its name is never given to another mail, so there is no need to wait until the name is safe."""
    house.s3.objects["pending/fresh"] = StoredObject(seal(), {})
    assert house.sweep(**keys).run().outcomes == {Outcome.DELIVERED: 1}
    assert house.slept == []


def test_the_same_mail_sealed_twice_is_delivered_once(house: House, keys: dict[str, str]) -> None:
    """Two seals of one mail have not a byte of ciphertext in common."""
    put(house, "x", seal())
    put(house, "y", seal())
    assert house.sweep(CONCURRENCY="1", **keys).run().outcomes == {Outcome.DELIVERED: 1, Outcome.MOVED: 1}


def test_damage_goes_to_quarantine_with_its_reason_and_the_pass_goes_on(house: House, keys: dict[str, str]) -> None:
    body = seal()
    put(house, "cut", body[:-1])
    put(house, "bent", body[:50] + bytes([body[50] ^ 1]) + body[51:])
    put(house, "later", b"DRN2" + body[4:])
    put(house, "good", body)
    summary = house.sweep(**keys).run()
    assert summary.outcomes == {Outcome.QUARANTINED: 3, Outcome.DELIVERED: 1}
    assert summary.asided == {"damaged": 2, "unknown-version": 1}
    reasons = {house.s3.objects[key].metadata["drain-reason"] for key in house.keys("quarantine/")}
    assert reasons == {"damaged", "unknown-version"}
    words = [event["reply"] for event in house.events("mail") if event["state"] == "quarantined"]
    assert all(word.startswith("It is sealed") for word in words)
    assert not house.events("bug")


def test_a_mail_without_our_token_goes_to_quarantine(house: House, keys: dict[str, str]) -> None:
    put(house, "forged", seal(header={"token": "guess"}))
    put(house, "ours", seal(header={"token": "secret"}))
    house.put("plain")
    summary = house.sweep(ORIGIN_TOKEN="new, secret", **keys).run()
    assert summary.outcomes == {Outcome.QUARANTINED: 2, Outcome.DELIVERED: 1}
    assert summary.asided == {"wrong-token": 1, "not-sealed": 1}


def test_plain_mail_is_taken_beside_a_token_where_the_person_says_so(house: House, keys: dict[str, str]) -> None:
    house.put("plain")
    assert house.sweep(ORIGIN_TOKEN="t", REQUIRE_SEALED="false", **keys).run().outcomes == {Outcome.DELIVERED: 1}


# -- keys that are missing --


def test_a_thousand_mails_without_a_key_are_one_alert(house: House, keys: dict[str, str]) -> None:
    for number in range(40):
        put(house, f"{number}", seal(b"A: %d\n" % number, key=OTHER_KEY))
    house.put("plain")
    sweep = house.sweep(**keys)
    summary = sweep.run()
    assert summary.outcomes == {Outcome.NO_KEY: 40, Outcome.DELIVERED: 1}
    (alert,) = house.alerts("no-key")
    assert alert["mails"] == 40
    assert key_id(OTHER_KEY).hex() in alert["message"]
    assert len(house.keys("pending/")) == 40
    assert not house.keys("quarantine/")
    fetched = house.s3.requests["GetObject"]
    assert sweep.run().no_key == 40
    assert house.s3.requests["GetObject"] == fetched, "what has no key is not fetched again"
    assert len(house.alerts("no-key")) == 1


def test_many_unknown_keys_are_one_alert_and_are_forgotten_with_their_mail(house: House, keys: dict[str, str]) -> None:
    """Who can write to the bucket can name as many keys as he likes."""
    body = seal(key=OTHER_KEY)
    for number in range(30):
        put(house, f"{number}", body[:4] + number.to_bytes(8, "big") + body[12:])
    sweep = house.sweep(**keys)
    assert sweep.run().no_key == 30
    (alert,) = house.alerts("no-key")
    assert alert["mails"] == 30
    assert "And 29 other reasons like it." in alert["message"]
    assert len(sweep._no_key) == 30
    for key in house.keys("pending/")[1:]:
        del house.s3.objects[key]
    assert sweep.run().no_key == 1
    assert len(sweep._no_key) == 1


def test_a_plain_twin_takes_nothing_from_the_sealed_mail(house: House, keys: dict[str, str]) -> None:
    """What is not believed is set aside under an identity of its own."""
    settings = {**keys, "ORIGIN_TOKEN": "secret"}
    house.put("twin", RAW)
    assert house.sweep(**settings).run().outcomes == {Outcome.QUARANTINED: 1}
    put(house, "ours", seal(header={"token": "secret"}))
    assert house.sweep(**settings).run().outcomes == {Outcome.DELIVERED: 1}
    house.put("again", RAW + b"x")
    assert house.sweep(**settings).run().outcomes == {Outcome.QUARANTINED: 1}
    house.put("again", RAW + b"x")
    assert house.sweep(**settings, REQUIRE_SEALED="false").run().outcomes == {Outcome.DELIVERED: 1}


def test_a_key_that_is_put_right_is_used_without_a_restart(house: House, tmp_path: Path) -> None:
    """Also where neither its size nor its date changes: `cp -p`, or a `chown` that lets drain read it."""
    (path,) = key_files(tmp_path, KEY)
    content, before = path.read_bytes(), path.stat()
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    put(house, "x", seal())
    sweep = house.sweep(PRIVATE_KEY_FILE=str(path))
    assert sweep.run().no_key == 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sweep.run().outcomes == {Outcome.DELIVERED: 1}


def test_a_key_that_comes_while_a_mail_is_opened_is_not_missed(house: House, tmp_path: Path) -> None:
    path = tmp_path / "late.pem"
    put(house, "x", seal())
    sweep = house.sweep(PRIVATE_KEY_FILE=str(path))
    keys = sweep.tools().opener.keys
    look = keys.why_not_sealed

    def comes_now() -> str:
        words = look()
        path.write_bytes(pem(KEY))
        return words

    keys.why_not_sealed = comes_now  # type: ignore[method-assign]
    assert sweep.run().no_key == 1
    assert sweep.run().outcomes == {Outcome.DELIVERED: 1}


def test_mail_comes_without_a_restart_once_its_key_is_in_place(house: House, tmp_path: Path) -> None:
    put(house, "x", seal(key=OTHER_KEY))
    path = tmp_path / "late.pem"
    sweep = house.sweep(PRIVATE_KEY_FILE=str(path))
    assert sweep.run().no_key == 1
    assert "late.pem cannot be read" in house.alerts("no-key")[0]["message"]
    path.write_bytes(pem(OTHER_KEY))
    assert sweep.run().outcomes == {Outcome.DELIVERED: 1}


def test_a_wrong_key_of_mailbridges_is_no_damage(house: House, keys: dict[str, str]) -> None:
    put(house, "x", bridge(INSIDE, key=other_rsa_key()))
    assert house.sweep(**keys).run().outcomes == {Outcome.NO_KEY: 1}
    assert "does not open it" in house.alerts("no-key")[0]["message"]


def test_mail_for_a_newer_key_of_mailbridges_waits_though_the_old_key_has_opened_others(
    house: House, keys: dict[str, str]
) -> None:
    put(house, "old", bridge(INSIDE))
    assert house.sweep(**keys).run().outcomes == {Outcome.DELIVERED: 1}
    newer = bridge({**INSIDE, "raw": "A: b"}, key=other_rsa_key())
    later = LONG_AGO + datetime.timedelta(days=1)
    house.s3.objects["pending/new"] = StoredObject(newer, {}, last_modified=later)
    assert house.sweep(**keys).run().outcomes == {Outcome.NO_KEY: 1}
    assert house.keys("pending/") == ["pending/new"]


def test_what_mailbridges_key_does_not_open_is_damage_once_it_has_opened_anything(
    house: House, keys: dict[str, str]
) -> None:
    body = bridge(INSIDE)
    at = body.index(b'"wrappedKey": "') + 30
    put(house, "bent", body[:at] + (b"A" if body[at : at + 1] != b"A" else b"B") + body[at + 1 :])
    sweep = house.sweep(**keys)
    assert sweep.run().outcomes == {Outcome.NO_KEY: 1}
    put(house, "good", body)
    sweep.run()
    assert sweep.run().no_key == 0
    assert house.keys("pending/") == []
    assert [house.s3.objects[key].metadata["drain-reason"] for key in house.keys("quarantine/")] == ["damaged"]
    # Another process remembers it.
    put(house, "bent", body[:at] + b"%c" % (body[at] ^ 1) + body[at + 1 :])
    assert house.sweep(**keys).run().outcomes == {Outcome.QUARANTINED: 1}
