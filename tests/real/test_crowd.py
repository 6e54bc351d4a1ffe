"""Many injections at once into Maddy, whose mailboxes are one SQLite database."""

from pathlib import Path

import pytest

from tests.real.house import ALICE, BOB, RealHouse
from tests.real.maddy import Maddy
from tests.real.r2 import R2

MAILS = 200


@pytest.mark.maddy
def test_eight_sessions_deliver_two_hundred_mails_to_maddy_in_one_pass_once_each(
    r2: R2, maddy: Maddy, tmp_path: Path
) -> None:
    maddy.clear()
    house = RealHouse(r2, maddy, tmp_path / "state")
    raws = {
        to: [b"Subject: %d\n\n" % number + b"hello\n" * 3000 for number in range(MAILS // 2)] for to in (ALICE, BOB)
    }
    for to, mails in raws.items():
        for number, raw in enumerate(mails):
            house.put(f"{to[:3]}-{number}", raw, to)
    ended = house.pass_(INJECT_CONNECTIONS="8")
    crowded = [line for line in maddy._home_log().read_text().splitlines() if "453" in line and "error" in line]
    print(f"Maddy said 453 {len(crowded)} times")
    assert ended["exit"] == 0
    assert ended["delivered"] == MAILS
    for to, mails in raws.items():
        assert house.filed(to) == sorted(mails)
    assert house.r2.keys("pending/") == []
