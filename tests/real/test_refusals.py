"""Wrong keys, wrong passwords, servers away: what the real ones say, and what a person reads then."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.house import ALICE, RealHouse, as_filed
from tests.real.postfix import Postfix
from tests.real.r2 import R2

RAW = b"Subject: s\r\n\r\nhello\r\n"


@pytest.fixture
def house(r2: R2, postfix: Postfix, tmp_path: Path) -> RealHouse:
    postfix.clear()
    return RealHouse(r2, postfix, tmp_path / "state")


@pytest.fixture(scope="module")
def tls_postfix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postfix]:
    with Postfix(tmp_path_factory.mktemp("tls"), users=("alice", "inbox"), tls=True) as server:
        yield server


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"R2_SECRET_ACCESS_KEY": "0" * 64}, 77, "Check R2_SECRET_ACCESS_KEY"),
        ({"R2_ACCESS_KEY_ID": "0" * 32}, 77, "Check R2_ACCESS_KEY_ID"),
        ({"R2_BUCKET": "elsewhere"}, 77, "Check R2_BUCKET"),
        ({"R2_ENDPOINT_URL": "http://127.0.0.1:1"}, 75, "could not be reached"),
        ({"INJECT_PASS": "wrong"}, 77, "Check INJECT_USER and INJECT_PASS"),
        ({"INJECT_PORT": "1"}, 75, "INJECT_PORT"),
        ({"INJECT_TLS": "starttls"}, 75, "STARTTLS"),
        ({"MAIL_DOMAIN": "not a domain"}, 78, "MAIL_DOMAIN"),
    ],
)
def test_each_refusal_has_its_exit_code_and_its_sentence(
    house: RealHouse, settings: dict[str, str], code: int, words: str
) -> None:
    house.put("one", RAW)
    done = house.once(**settings)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    for secret in (house.r2.secret_access_key, house.server.password, "0" * 64):
        assert secret not in done.stderr + done.stdout
    assert house.r2.keys() == ["pending/one"]


def test_a_clock_an_hour_off_is_a_reason_to_wait_and_is_said(house: RealHouse) -> None:
    """The clock is moved inside the process; the refusal is R2's own."""
    house.put("one", RAW)
    code = (
        "import datetime, sys, time, botocore.auth as auth, botocore.compat as compat\n"
        "right = time.time\n"
        "time.time = lambda: right() - 3600\n"
        "now = compat.get_current_datetime\n"
        "auth.get_current_datetime = lambda *a, **k: now(*a, **k) - datetime.timedelta(hours=1)\n"
        "from drain.cli import main\n"
        "sys.exit(main(['once']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=house.environ(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 75, done.stderr
    assert "clock" in done.stderr


def test_a_mail_server_that_was_down_gets_the_mail_when_it_is_up(house: RealHouse, postfix: Postfix) -> None:
    house.put("one", RAW)
    postfix.halt()
    try:
        assert house.once().returncode == 75
        assert house.r2.keys() == ["pending/one"]
    finally:
        postfix.start()
    assert house.pass_()["delivered"] == 1
    assert house.filed(ALICE) == [as_filed(RAW)]


@pytest.mark.parametrize("tls", ["auto", "starttls"])
def test_tls_is_verified_against_a_pinned_certificate(r2: R2, tls_postfix: Postfix, tmp_path: Path, tls: str) -> None:
    tls_postfix.clear()
    house = RealHouse(r2, tls_postfix, tmp_path / "state")
    house.put("one", RAW)
    assert house.pass_(INJECT_TLS=tls, INJECT_TLS_CA_FILE=str(tls_postfix.ca_file))["delivered"] == 1
    assert house.filed(ALICE) == [as_filed(RAW)]


def test_auto_on_loopback_without_a_pin_still_takes_starttls(r2: R2, tls_postfix: Postfix, tmp_path: Path) -> None:
    """This server offers AUTH only after STARTTLS."""
    tls_postfix.clear()
    house = RealHouse(r2, tls_postfix, tmp_path / "state")
    house.put("one", RAW)
    assert house.pass_()["delivered"] == 1


def test_a_stranger_on_the_port_gets_no_password(
    r2: R2, postfix: Postfix, tls_postfix: Postfix, tmp_path: Path
) -> None:
    """With a pin, neither another certificate nor no TLS at all is good enough."""
    from tests.real.server import self_signed_certificate

    other, _ = self_signed_certificate(tmp_path)
    house = RealHouse(r2, tls_postfix, tmp_path / "state")
    house.put("one", RAW)
    assert house.once(INJECT_TLS_CA_FILE=str(other)).returncode == 75
    plain = RealHouse(r2, postfix, tmp_path / "state")
    assert plain.once(INJECT_TLS_CA_FILE=str(tls_postfix.ca_file)).returncode == 75
    assert r2.keys() == ["pending/one"]
