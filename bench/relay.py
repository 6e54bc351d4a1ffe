#!/usr/bin/env python3
"""What the relay costs beside Postfix: the same mails, by the same clients, to the same sink.

Run as root from anywhere with the Python that has the project and its test group; README.md
beside this file says how to read the figures.
"""

import argparse
import base64
import contextlib
import dataclasses
import os
import platform
import random
import re
import secrets
import smtplib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the rigs, which are no part of the package

from drain.relay.users import Users  # noqa: E402 (needs the line above)
from tests.real.server import HOST, await_listener, end, needed  # noqa: E402
from tests.real.smarthost import Smarthost  # noqa: E402
from tests.support import free_port  # noqa: E402

DOMAIN = "example.test"
LOADS = {"10 KB": (500, 10_000), "1 MB": (20, 1_000_000)}
CONNECTIONS = 4
LOOK_SECONDS = 0.1
# For one load at one relay; past it, something hangs.
PATIENCE_SECONDS = 60.0


class Sink:
    """Postfix's smtp-sink: takes whatever comes, keeps nothing, counts."""

    def __init__(self) -> None:
        self.port = free_port()
        self._count = 0
        self._news = threading.Condition()

    @contextlib.contextmanager
    def running(self, folder: Path) -> Iterator["Sink"]:
        """From here on it listens."""
        command = [needed("smtp-sink", "postfix"), "-c", "-u", "postfix", f"{HOST}:{self.port}", "100"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:  # noqa: S603 (ours)
            try:
                await_listener(process, "smtp-sink", [self.port], folder / "sink.log")
                assert process.stdout is not None
                descriptor = process.stdout.fileno()
                threading.Thread(target=self._read, args=(descriptor,), daemon=True).start()
                yield self
            finally:
                end(process)

    def _read(self, descriptor: int) -> None:
        while piece := os.read(descriptor, 65536):
            if found := re.findall(rb"mesg=(\d+)", piece):
                with self._news:
                    self._count = int(found[-1])
                    self._news.notify_all()

    def more(self, mails: int) -> Callable[[], float]:
        """Asked now: what waits until so many more mails are there, and says when that was."""
        with self._news:
            wanted = self._count + mails

        def wait() -> float:
            with self._news:
                there = self._news.wait_for(lambda: self._count >= wanted, PATIENCE_SECONDS)
            assert there, f"{wanted - self._count} of {mails} mails did not reach the sink"
            return time.perf_counter()

        return wait


class Postfix(Smarthost):
    """Postfix as a relay: AUTH, its queue on the disk, all mail to the sink; without TLS, as drain has none here."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        super().__init__(folder)
        self._sink = sink

    def _lay_out(self, home: Path, saslpasswd2: str) -> None:
        super()._lay_out(home, saslpasswd2)
        main, master = home / "etc" / "main.cf", home / "etc" / "master.cf"
        text = main.read_text()
        for there, here in (
            ("smtpd_tls_auth_only = yes", "smtpd_tls_auth_only = no"),
            ("default_transport = virtual:", f"default_transport = smtp:[{HOST}]:{self._sink.port}"),
            ("virtual_mailbox_maps = static:all/", "virtual_mailbox_maps ="),
        ):
            assert there in text, there
            text = text.replace(there, here)
        main.write_text(text)
        master.write_text(f"{master.read_text()}smtp unix - - n - - smtp\n")
        past = time.time() - 60  # Postfix waits until a file is two seconds old
        os.utime(main, (past, past))

    def group(self) -> int:
        """The process group of all its parts."""
        assert self._master is not None
        return self._master.pid


@dataclasses.dataclass
class Relay:
    """One that runs: where, for whom, and the process group that it is."""

    name: str
    port: int
    user: str
    password: str
    group: int
    idle: int = 0
    taken: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    relayed: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    peak: dict[str, int] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def _postfix(folder: Path, sink: Sink) -> Iterator[Relay]:
    with Postfix(folder, sink) as postfix:
        yield Relay("Postfix", postfix.port, postfix.user, postfix.password, postfix.group())


@contextlib.contextmanager
def _drain(folder: Path, sink: Sink, connections: int) -> Iterator[Relay]:
    password, port = secrets.token_urlsafe(16), free_port()
    folder.mkdir()
    Users(folder / "users").add("bench", password.encode())
    settings = {
        "DRAIN_ENV_FILE": "/dev/null",
        "STATE_DIR": str(folder),
        "RELAY_USERS_FILE": str(folder / "users"),
        "RELAY_KEY_FILE": str(folder / "relay.key"),
        "MAIL_DOMAIN": DOMAIN,
        "ALLOWED_FROM": f"@{DOMAIN}",
        "RATE_LIMIT_PER_MINUTE": "0",
        "RATE_LIMIT_PER_DAY": "0",
        "INJECT_USER": "nobody",
        "INJECT_PASS": "none",
        "RELAY_PORT": str(port),
        "RELAY_CONNECTIONS": str(connections),
        "RELAY_UPSTREAM": "smtp",
        "SMARTHOST_HOST": f"{HOST}:{sink.port}",
        "SMARTHOST_TLS": "none",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "drain", "relay"],
            env={**os.environ, **settings},
            cwd=ROOT,
            stderr=log,
            start_new_session=True,
        )
        try:
            await_listener(process, "drain relay", [port], folder / "log")
            yield Relay(f"drain, {connections} at once", port, "bench", password, process.pid)
        finally:
            end(process)


def main() -> int:
    """The table, on standard output."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all loads (default: 3)")
    parser.add_argument("--seconds", type=float, default=75, help="begin no round after so many (default: 75)")
    parser.add_argument("--share", type=int, default=1, help="send one in so many of the mails (default: all)")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.share < 1:
        parser.error("--rounds and --share want one or more")
    busy, until = os.getloadavg()[0], time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        sink = stack.enter_context(Sink().running(folder))
        relays = [
            stack.enter_context(_postfix(folder, sink)),
            stack.enter_context(_drain(folder / "2", sink, 2)),
            stack.enter_context(_drain(folder / "8", sink, 8)),
        ]
        for relay in relays:
            relay.idle = _memory(relay.group)
        rounds = 0
        while rounds < arguments.rounds and (not rounds or time.monotonic() < until):
            rounds += 1
            for load, (mails, size) in LOADS.items():
                for relay in relays:
                    _measure(relay, load, max(CONNECTIONS, mails // arguments.share), size, sink)
        machine = f"{os.cpu_count()} CPUs ({platform.machine()}), load {busy:.1f} at the start"
        print(f"{machine}; Python {platform.python_version()}; {CONNECTIONS} clients; median of {rounds}")
        print(f"one fsync of 10 KB: {_fsync(folder):.2f} ms\n")
    for line in _table(relays):
        print(line)
    return 0


def _measure(relay: Relay, load: str, mails: int, size: int, sink: Sink) -> None:
    """Sends, and notes mails a second and the peak of the memory."""
    raw = _mail(size)
    with ThreadPoolExecutor(CONNECTIONS) as threads, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client) for client in threads.map(_client, [relay] * CONNECTIONS)]
        peak = stack.enter_context(_peak(relay.group))
        arrived = sink.more(mails)
        begun = time.perf_counter()
        shares = [mails // CONNECTIONS + (number < mails % CONNECTIONS) for number in range(CONNECTIONS)]
        list(threads.map(_send, clients, shares, [raw] * CONNECTIONS))
        taken = time.perf_counter()
        relay.relayed.setdefault(load, []).append(mails / (arrived() - begun))
        relay.taken.setdefault(load, []).append(mails / (taken - begun))
    relay.peak[load] = max(relay.peak.get(load, 0), *peak)


def _mail(size: int) -> bytes:
    head = (
        f"From: Alice <alice@{DOMAIN}>\r\nTo: bob@example.net\r\nSubject: a mail of {size} bytes\r\n"
        f"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{secrets.token_hex(8)}@{DOMAIN}>\r\n\r\n"
    )
    body = base64.encodebytes(random.Random(1).randbytes(size * 3 // 4))  # noqa: S311 (an attachment, the same in every run)
    return (head.encode() + body.replace(b"\n", b"\r\n"))[:size] + b"\r\n"


def _client(relay: Relay) -> smtplib.SMTP:
    client = smtplib.SMTP(HOST, relay.port, "client.test", timeout=PATIENCE_SECONDS)
    client.login(relay.user, relay.password)
    return client


def _send(client: smtplib.SMTP, mails: int, raw: bytes) -> None:
    for _ in range(mails):
        client.sendmail(f"alice@{DOMAIN}", ["bob@example.net"], raw)


@contextlib.contextmanager
def _peak(group: int) -> Iterator[list[int]]:
    """What the group has in memory, looked at again and again while the block runs."""
    seen, over = [_memory(group)], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            seen.append(_memory(group))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _memory(group: int) -> int:
    """Kilobytes of a process group: what several processes share is counted once (PSS, proc_pid_smaps_rollup(5))."""
    total = 0
    for folder in Path("/proc").iterdir():
        # A process may end while it is looked at.
        with contextlib.suppress(OSError, IndexError, ValueError):
            if folder.name.isdecimal() and os.getpgid(int(folder.name)) == group:
                total += int(re.findall(r"^Pss: +(\d+) kB", (folder / "smaps_rollup").read_text(), re.MULTILINE)[0])
    return total


def _fsync(folder: Path) -> float:
    times = []
    for number in range(30):
        with (folder / f"fsync-{number}").open("wb") as file:
            file.write(bytes(10_000))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def _table(relays: Sequence[Relay]) -> Iterator[str]:
    width = max(len(relay.name) for relay in relays)
    postfix = relays[0]
    for load in LOADS:
        titles = ("taken/s", "/ Postfix", "relayed/s", "/ Postfix", "peak, MB", "idle, MB")
        yield " ".join([f"{load:<{width}}", *(f"{title:>10}" for title in titles)])
        for relay in relays:
            cells = []
            for ours, theirs in ((relay.taken, postfix.taken), (relay.relayed, postfix.relayed)):
                rate = statistics.median(ours[load])
                cells += [f"{rate:>10.1f}", f"{rate / statistics.median(theirs[load]):>10.2f}"]
            memory = [f"{kilobytes / 1024:>10.1f}" for kilobytes in (relay.peak[load], relay.idle)]
            yield " ".join([f"{relay.name:<{width}}", *cells, *memory])
        yield ""


if __name__ == "__main__":
    sys.exit(main())
