"""`drain selftest` between R2's simulator and a real mail server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.real.dovecot import MASTER, Dovecot
from tests.real.house import ALICE, RealHouse
from tests.real.postfix import _MAIL_UID, Postfix
from tests.real.r2 import R2
from tests.sealing import KEY, key_files


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return {"PRIVATE_KEY_FILE": str(key_files(tmp_path, KEY)[0]), "ORIGIN_TOKEN": "shared by both ends"}


def drain(house: RealHouse, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "drain", *arguments],
        env=house.environ(**settings),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_probe_lands_in_a_real_mailbox_and_can_be_traced_from_there(house: RealHouse, keys: dict[str, str]) -> None:
    done = drain(house, "selftest", "--to", ALICE, "--json", **keys)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, told["state"], told["mailbox"]) == (0, "settled", ALICE), done.stderr
    house.server.wait_until_filed()
    (filed,) = house.server.mailbox(ALICE)
    lines = filed.replace(b"\r\n", b"\n").decode("ascii").splitlines()
    (value,) = [line.partition(": ")[2] for line in lines if line.startswith("X-Drain-Id: ")]
    assert any(line.startswith("Subject: drain selftest ") for line in lines)
    # Written as the Worker writes, and where all delivered mail is.
    (key,) = house.r2.keys()
    assert key.startswith(f"processed/{told['identity']}-")
    assert house.r2.get(key)[0].startswith(b"DRN1")
    traced = drain(house, "trace", value, **keys)
    assert (traced.returncode, traced.stdout.split()[1]) == (0, told["identity"])
    assert "delivered" in traced.stdout


def test_a_mailbox_that_does_not_take_it_now_is_named_with_the_servers_words(
    house: RealHouse, keys: dict[str, str]
) -> None:
    done = drain(house, "selftest", "--to", "full@example.test", "--timeout", "1", **keys)
    assert done.returncode == 75
    assert ": deferred. recipient-refused: RCPT: 452" in done.stdout, done.stdout
    assert len(house.r2.keys("pending/")) == 1


def test_a_probe_is_found_over_imap_by_a_master_user(
    r2: R2, postfix: Postfix, keys: dict[str, str], tmp_path: Path
) -> None:
    house = RealHouse(r2, postfix, tmp_path / "state")
    with Dovecot(tmp_path, postfix._running_home() / "mail", _MAIL_UID, postfix.addresses) as dovecot:
        logins = tmp_path / "logins"
        logins.write_text(f"*: %*{MASTER} {dovecot.master_password}\n")
        logins.chmod(0o600)
        imap = {
            "VERIFY_IMAP_HOST": "127.0.0.1",
            "VERIFY_IMAP_PORT": str(dovecot.tls_port),
            "VERIFY_IMAP_TLS_CA_FILE": str(dovecot.ca_file),
            "VERIFY_IMAP_LOGINS_FILE": str(logins),
        }
        done = drain(house, "selftest", "--to", ALICE, **keys, **imap)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"arrived in {ALICE}. Found in INBOX." in done.stdout
        assert "found in the mailbox" in done.stdout
        logins.write_text(f"{ALICE}: {ALICE} wrong\n")
        done = drain(house, "selftest", "--to", ALICE, "--timeout", "5", **keys, **imap)
        assert done.returncode == 75
        assert f"took it for {ALICE}, and it was not found there. " in done.stdout
        assert "comes when it can" not in done.stdout
        assert "IMAP server" in done.stdout
