"""Whoever has another project's Worker points drain at that bucket, and loses nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.house import ALICE, RealHouse, as_filed

INTEROP = Path(__file__).parents[1] / "interop"
MAILBRIDGE = {
    "PENDING_PREFIX": "inbound/",
    "MAILBRIDGE_PRIVATE_KEY_PATH": str(INTEROP / "mailbridge/test-private-key.pkcs8.der"),
}


def put_mailbridges(house: RealHouse) -> None:
    for entry in json.loads((INTEROP / "mailbridge/index.json").read_text()):
        house.r2.put(entry["key"], (INTEROP / "mailbridge" / entry["file"]).read_bytes(), entry["metadata"])


def test_pocket_homeservers_mail_arrives_with_its_own_settings(house: RealHouse, tmp_path: Path) -> None:
    """Its names for the settings, in its form."""
    index = json.loads((INTEROP / "plain/index.json").read_text())
    for entry in index:
        house.r2.put(entry["key"], (INTEROP / "plain" / entry["file"]).read_bytes(), entry["metadata"])
    ours = {"LEDGER_DB": str(tmp_path / "ledger.db"), "LOCKFILE": str(tmp_path / "lock"), "MAIL_USERS_FILE": "/nowhere"}
    assert house.pass_(**ours, INJECT_MAIL_FROM="ingest@example.test", ALERT_DAYS="3")["delivered"] == len(index) == 5
    assert house.filed(ALICE) == sorted(as_filed((INTEROP / "plain" / entry["file"]).read_bytes()) for entry in index)
    assert len(house.r2.keys("processed/")) == 5


def test_mailbridges_mail_arrives_as_far_as_its_worker_kept_it(house: RealHouse) -> None:
    put_mailbridges(house)
    assert house.pass_(**MAILBRIDGE)["delivered"] == 5
    # It read the mail as UTF-8: in latin1.eml each other byte is U+FFFD since.
    kept = [path.read_bytes().decode("utf-8", "replace").encode() for path in (INTEROP / "raw").glob("*.eml")]
    assert house.filed(ALICE) == sorted(map(as_filed, kept))
    assert len(house.r2.keys("processed/")) == 5
    assert house.r2.keys("inbound/") == []


def test_without_its_key_mailbridges_mail_waits(house: RealHouse) -> None:
    put_mailbridges(house)
    summary = house.once("--json", PENDING_PREFIX="inbound/")
    assert summary.returncode == 78
    assert "MAILBRIDGE_PRIVATE_KEY_PATH is not set" in summary.stdout
    assert len(house.r2.keys("inbound/")) == 5


def test_objects_that_another_implementation_sealed_arrive(house: RealHouse) -> None:
    index = json.loads((INTEROP / "sealed/index.json").read_text())["objects"]
    for made in index:
        house.r2.put(made["name"], (INTEROP / "sealed" / made["file"]).read_bytes())
    summary = house.pass_(PRIVATE_KEY_FILE=str(INTEROP / "sealed/test-private-key.pkcs8.der"))
    assert summary["delivered"] == len(index) == 4
    filed = house.filed(ALICE) + house.filed("bob@example.test")
    assert sorted(filed) == sorted(as_filed((INTEROP / made["raw"]).read_bytes()) for made in index)


@pytest.mark.parametrize("catch_all", ["none", "inbox"])
def test_the_mailboxes_of_the_real_server_are_found_and_published(house: RealHouse, catch_all: str) -> None:
    settings = {**house.server.listing, "ORIGIN_TOKEN": "token", "INJECT_RCPT": catch_all}
    done = subprocess.run(
        [sys.executable, "-m", "drain", "publish-recipients"],
        env=house.environ(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shown = set(done.stdout.splitlines())
    mailboxes = {f"{name}@example.test" for name in ("alice", "bob", "admin", "inbox", "defer", "full", "postmaster")}
    assert mailboxes | {"alice@second.test", "postmaster@second.test"} <= shown
    assert "bob@second.test" not in shown
    assert ("Anybody else at example.test, second.test is refused" in done.stdout) is (catch_all == "none")
    body, _ = house.r2.get("config/recipients")
    assert body.startswith(b"drain recipients v1\n")
    assert b"alice" not in body
