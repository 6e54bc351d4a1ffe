"""What large mails cost in memory: whole passes, measured from outside."""

import hashlib
import io
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

import pytest

from drain.demo.s3 import Fault, S3Server, StoredObject
from drain.mail import on_the_wire
from tests.sealing import KEY, key_files, seal
from tests.smtp_fake import FakeSmtp
from tests.support import LONG_AGO, House, until

MIB = 1024 * 1024
SMALL = 4096
# Of a child the system also counts what its parent was when it began (ru_maxrss stays over
# execve); so a small process stands between.
MEASURED = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "drain", "once"], stderr=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss)
"""
HEADER = b"From: a@x.test\r\nSubject: large\r\n\r\n"
LINES = (b"a line as lines are, and not a short one\r\n", b"a line of Unix\n", b"a line of old\r..\n\xff")


@cache
def kind(number: int, size: int) -> "tuple[bytes, hashlib._Hash]":
    """A mail of so many bytes but for its last line, and the digest of that on the wire: of CRLF, of LF, or with lone CR and dots."""
    line = LINES[number]
    raw = HEADER + line * ((size - len(HEADER)) // len(line)) + b"\r\n"
    return raw, hashlib.sha256(on_the_wire(raw))


def raw_of(number: int, size: int) -> tuple[bytes, str]:
    """A mail like no other, and its digest on the wire."""
    raw, begun = kind(number % len(LINES), size)
    end, digest = b"%05d\r\n" % number, begun.copy()
    digest.update(end)
    return raw + end, digest.hexdigest()


@dataclass
class Sink(FakeSmtp):
    """Keeps of a mail only the digest of its form on the wire, without the stamp above it and the dot below."""

    digests: Counter[str] = field(default_factory=Counter)

    def _take(self, lines: BinaryIO, sender: str, recipients: list[str]) -> str:
        del sender, recipients
        while (line := lines.readline()) and not line.startswith(b"X-Drain-Id: "):
            pass
        assert isinstance(lines, io.BufferedReader)
        digest, rest = hashlib.sha256(), b""
        while rest != b"\r\n.\r\n":
            block = lines.read1(MIB)
            if not block:
                raise EOFError
            block = rest + block
            digest.update(block[:-5])
            rest = block[-5:]
        digest.update(b"\r\n")
        with self._lock:
            self.digests[digest.hexdigest()] += 1
        return "250 2.0.0 taken"


@dataclass
class Backlog:
    """Mails under pending/ that are made when they are fetched, and are nothing again when they are moved."""

    s3: S3Server
    sealed: bool
    sizes: list[int] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.s3.fault = self._come_and_go

    def lay(self, *sizes: int) -> None:
        """More of them."""
        # As LIST shows them, which is one object for all of a size.
        shown = {size: StoredObject(bytes(size + SMALL), last_modified=LONG_AGO) for size in set(sizes)}
        for size in sizes:
            self.s3.objects[f"pending/{len(self.sizes):05}"] = shown[size]
            self.sizes.append(size)

    def is_delivered(self, smtp: Sink) -> bool:
        """Whether each was taken, once and byte for byte, and nothing is left."""
        left = self.s3.objects.page("pending/", "", 1)[0]
        return not left and len(self.digests) == len(self.sizes) and smtp.digests == Counter(self.digests.values())

    def _come_and_go(self, operation: str, key: str) -> Fault | None:
        if operation == "GetObject":
            number = int(key.removeprefix("pending/"))
            raw, self.digests[key] = raw_of(number, self.sizes[number])
            metadata = {} if self.sealed else {"to": "alice@example.test", "from": "a@x.test"}
            stored = StoredObject(seal(raw) if self.sealed else raw, metadata, last_modified=LONG_AGO)
            vars(stored)["etag"] = f'"{number:032x}"'
            self.s3.objects[key] = stored
        for moved in [key for key in list(self.s3.objects) if not key.startswith("pending/")]:
            self.s3.objects[moved] = StoredObject(b"")
        return None


def environ(s3: S3Server, smtp: Sink, folder: Path, **settings: str) -> dict[str, str]:
    """The environment of a child with the defaults, and the test's key."""
    (key,) = key_files(folder, KEY)
    return {**os.environ, **House(s3, smtp, folder / "state").environ(PRIVATE_KEY_FILE=str(key), **settings)}


@pytest.mark.timeout(280)  # half a gigabyte takes 12 s, and a busy machine its time
@pytest.mark.parametrize(
    ("sizes", "sealed"),
    [
        pytest.param([25 * MIB] * 20, True, id="sealed"),
        pytest.param([25 * MIB] * 20, False, id="plain"),
        pytest.param([25 * MIB, *[MIB] * 25, 12 * MIB, 12 * MIB, *[MIB] * 25, 25 * MIB], True, id="mixed"),
    ],
)
def test_large_mails_take_no_more_than_160_mib(
    tmp_path: Path,
    sizes: list[int],
    sealed: bool,  # noqa: FBT001 (a parameter)
) -> None:
    """All told, with Python and boto3, and with the defaults."""
    with S3Server() as s3, Sink() as smtp:
        backlog = Backlog(s3, sealed)
        backlog.lay(*sizes)
        command = [sys.executable, "-c", MEASURED]
        done = subprocess.run(
            command, env=environ(s3, smtp, tmp_path), capture_output=True, text=True, timeout=240, check=True
        )
        assert backlog.is_delivered(smtp)
    code, kib = map(int, done.stdout.split())
    assert code == 0
    assert kib <= 160 * 1024, f"it took {kib / 1024:.0f} MiB"


@pytest.mark.timeout(280)
def test_a_daemon_gives_the_memory_of_large_mails_back(tmp_path: Path) -> None:
    def resident_mib() -> float:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        assert found
        return int(found[1]) / 1024

    with S3Server() as s3, Sink() as smtp:
        backlog = Backlog(s3, sealed=True)
        backlog.lay(SMALL)
        command = [sys.executable, "-m", "drain", "run"]
        with subprocess.Popen(
            command, env=environ(s3, smtp, tmp_path, POLL_INTERVAL="1"), stderr=subprocess.DEVNULL
        ) as process:
            try:
                until(lambda: backlog.is_delivered(smtp), 60)
                before = resident_mib()
                backlog.lay(*[25 * MIB] * 4)
                until(lambda: backlog.is_delivered(smtp), 120)
                lists = s3.requests["ListObjectsV2"]
                until(lambda: s3.requests["ListObjectsV2"] > lists + 1, 60)  # it is idle again
                until(lambda: resident_mib() < before + 10, 60, lambda: f"{before} MiB before, {resident_mib()} after")
            finally:
                process.kill()
