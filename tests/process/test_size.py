"""A long backlog, drained by a process whose memory is looked at."""

import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drain.demo import s3 as demo_s3
from drain.demo.s3 import Fault
from tests.support import House

_MAILS = 1500
_PAGE = 100
# Threads, their connections and caches are there by then.
_WARM_PAGE = 5
_BODY = b"x" * 6000
# SQLite's cache has its 2,000 KiB after some 2,300 mails. Were the bodies kept, it would be 5 MiB more.
_GROWTH_KIB = 3000


@dataclass
class Sample:
    """How it was when the process asked for a page."""

    delivered: int
    kib: int


@dataclass
class Samples:
    """One for each LIST."""

    house: House
    pid: int = 0
    started: threading.Event = field(default_factory=threading.Event)
    taken: list[Sample] = field(default_factory=list)

    def __call__(self, operation: str, _key: str) -> Fault | None:
        if operation == "ListObjectsV2":
            self.started.wait(30)
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
            (kib,) = re.findall(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
            self.taken.append(Sample(len(self.house.smtp.filed), int(kib)))
        return None


@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is looked up in /proc")
def test_a_long_backlog_is_begun_at_once_and_worked_off_in_the_same_memory(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_s3, "_PAGE_KEYS", _PAGE)
    for number in range(_MAILS):
        house.put(f"{number:05}", b"Subject: %d\r\n\r\n" % number + _BODY)
    samples = house.s3.fault = Samples(house)
    environ = {"PATH": os.environ["PATH"], "HOME": str(house.state_dir.parent), **house.environ()}
    child = subprocess.Popen([sys.executable, "-m", "drain", "once", "--quiet"], env=environ)
    samples.pid = child.pid
    samples.started.set()
    try:
        assert child.wait(timeout=250) == 0
    finally:
        child.kill()
    assert len(house.smtp.filed) == _MAILS
    taken = samples.taken
    assert len(taken) == _MAILS / _PAGE, "a page at a time, and none twice"
    assert taken[0].delivered == 0
    # All of a page but what is in the hands of the threads, or waits for one.
    assert all(sample.delivered >= (place - 1) * _PAGE + 1 for place, sample in enumerate(taken[1:], 1))
    assert taken[-1].kib - taken[_WARM_PAGE].kib < _GROWTH_KIB, [sample.kib for sample in taken]
