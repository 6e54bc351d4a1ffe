"""SIGKILL with the real servers on both sides: the crash suite's promise, without its fakes."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from drain.ledger import Ledger
from drain.mail import Mail
from tests.real.house import ALICE, SENDER, RealHouse, as_filed
from tests.real.postfix import Postfix
from tests.real.r2 import R2

MAILS = 150
KILLS = 12


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost_and_duplicates_have_their_reason(
    r2: R2, postfix: Postfix, tmp_path: Path
) -> None:
    postfix.clear()
    house = RealHouse(r2, postfix, tmp_path / "state")
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    mails = [Mail(b"Subject: %d\r\n\r\nbody %d\r\n" % (number, number), ALICE, SENDER) for number in range(MAILS)]
    for number, mail in enumerate(mails):
        house.put(f"{number:03}", mail.raw)
    kills = 0
    while kills < KILLS and house.r2.keys("pending/"):
        with subprocess.Popen(
            [sys.executable, "-m", "drain", "once"], env=house.environ(CONCURRENCY="4"), stderr=subprocess.DEVNULL
        ) as process:
            # Starting takes about half a second of it.
            time.sleep(chance.uniform(0.4, 0.9))
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            kills += process.wait(10) == -signal.SIGKILL
    while house.r2.keys("pending/"):
        assert "failed" not in house.pass_()
    postfix.wait_until_filed()
    filed = Counter(house.filed(ALICE))
    ledger = Ledger(house.state_dir / "ledger.db")
    twice = 0
    for mail in mails:
        row = ledger.find(mail.identity)
        assert row is not None
        assert 1 <= filed[as_filed(mail.raw)] <= 1 + row.reinjections, f"seed {seed}: {row}"
        twice += filed[as_filed(mail.raw)] > 1
    ledger.close()
    assert len(filed) == MAILS
    assert kills >= KILLS // 2
    print(f"\nseed {seed}: mails {MAILS}, kills {kills}, lost 0, twice {twice}")
