"""The runs: drain or the peer as a process of its own, measured, and afterwards every mail accounted for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from bench.endpoint import Endpoint
from bench.sink import Sink

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
DOMAIN = "example.test"
RUN_SECONDS = 240.0
_END_SECONDS = 30.0
_LOOK_SECONDS = 0.005
_QUIET_SECONDS = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")
# What a program needs of the person's environment; proxies, AWS_… and PYTHON… would be measured too.
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PREFIX", "TMPDIR")

DRAIN = (sys.executable, "-m", "drain", "once")
DAEMON = (sys.executable, "-m", "drain", "run")
PEER = (sys.executable, str(ROOT / "bench" / "peer.py"))


class RunFailed(Exception):
    """A run that did not do what it was to do: it has no figure."""


@dataclass(frozen=True)
class Cost:
    """What a process took from its start to its end."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class Measured:
    """A command that runs under `meter.py`; ends, whatever it does, with the context."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str], output: Path) -> None:
        """*output* is the file for what it says.

        Raises:
            RunFailed: it did not start.
        """
        self._output = output
        self.begun = time.monotonic()
        meter = (sys.executable, "-I", "-S", str(ROOT / "bench" / "meter.py"), str(output))
        # Without a buffer: the second line must not be taken with the first.
        self._meter = subprocess.Popen(  # noqa: S603 (ours)
            [*meter, *command], env=environment, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        assert self._meter.stdout is not None
        line = self._meter.stdout.readline()
        if not line:
            self._meter.wait()
            raise RunFailed(f"{' '.join(command)} does not start.")
        self.pid = int(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.killpg(self._meter.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._meter.communicate()

    def wait(self, seconds: float = RUN_SECONDS) -> Cost:
        """What it took, once it has ended by itself.

        Raises:
            RunFailed: it does not end, or not with 0.
        """
        try:
            report, _ = self._meter.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"It did not end within {seconds:.0f} s. {self.words}") from None
        took, cpu, peak, status = report.split()
        if int(status) != 0:
            raise RunFailed(f"It ended with {int(status)}. {self.words}")
        return Cost(float(took), float(cpu), int(peak))

    def stop(self) -> None:
        """SIGTERM, and a while to end in; with which code does not matter."""
        try:
            os.kill(self.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass  # it has ended by itself
        try:
            self._meter.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"It did not end within {_END_SECONDS:.0f} s of SIGTERM. {self.words}") from None

    def wake(self) -> None:
        """SIGUSR1: the daemon looks into the bucket now."""
        os.kill(self.pid, signal.SIGUSR1)

    def until(self, true: Callable[[], bool], what: str, seconds: float = RUN_SECONDS) -> float:
        """Waits for *true*; seconds since the start.

        Raises:
            RunFailed: it ends first, or takes too long.
        """
        limit = time.monotonic() + seconds
        while not true():
            if self._meter.poll() is not None:
                raise RunFailed(f"It ended before {what}. {self.words}")
            if time.monotonic() > limit:
                raise RunFailed(f"{what} did not come within {seconds:.0f} s. {self.words}")
            time.sleep(_LOOK_SECONDS)
        return time.monotonic() - self.begun

    def until_quiet(self) -> None:
        """Waits until it takes no CPU for a moment."""
        before, since = self.cpu_seconds, time.monotonic()

        def quiet() -> bool:
            nonlocal before, since
            if (now := self.cpu_seconds) != before:
                before, since = now, time.monotonic()
            return time.monotonic() - since > _QUIET_SECONDS

        self.until(quiet, "being idle", 60.0)

    @property
    def cpu_seconds(self) -> float:
        """User and system, up to now (proc(5), stat; in hundredths, mostly)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self, name: str) -> int:
        """``VmRSS`` or ``VmHWM``, the peak of it, in bytes (proc(5), status)."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{name}:"))

    @property
    def words(self) -> str:
        """The last line that it said, as a sentence's end."""
        lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines() if self._output.exists() else []
        return f"Its last words: {lines[-1][:300]}" if lines else "It said nothing."


@dataclass
class Stage:
    """The bucket and the mail server between which all runs take place, and the folder of their states."""

    endpoint: Endpoint
    sink: Sink
    folder: Path
    _runs: int = field(default=0, init=False)

    def load(self, mails: int, size: int, sealed_for: Path | None = None) -> None:
        """Exactly so many mails are pending from here on, and none delivered."""
        self.endpoint.empty()
        self.sink.forget()
        if mails:
            self.endpoint.fill(mails, size, sealed_for=sealed_for)

    def state(self) -> Path:
        """An empty folder for one run."""
        self._runs += 1
        state = self.folder / f"run-{self._runs}"
        state.mkdir()
        return state

    @contextmanager
    def started(
        self,
        command: tuple[str, ...],
        port: int = 0,
        state: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[Measured]:
        """A process with the settings of this place; *port* is that of a `Link`, if not the endpoint's own.

        *settings* are those that are not as for all others, "" for one that is not set;
        *state* is its folder, a new one if None.
        """
        state = state or self.state()
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {
            "HOME": str(self.folder),
            "DRAIN_ENV_FILE": os.devnull,
            "STATE_DIR": str(state),
            # Beside the machine's own roots. Not AWS_CA_BUNDLE, which almost nobody sets: a pass that needed boto3,
            # which has roots of its own, would fail here, and show.
            "SSL_CERT_FILE": str(self.endpoint.certificate_file),
            "R2_ENDPOINT_URL": f"https://{HOST}:{port or self.endpoint.port}",
            "R2_BUCKET": self.endpoint.bucket,
            "R2_ACCESS_KEY_ID": self.endpoint.access_key_id,
            "R2_SECRET_ACCESS_KEY": self.endpoint.secret_access_key,
            "MAIL_DOMAIN": DOMAIN,
            "INJECT_HOST": HOST,
            "INJECT_PORT": str(self.sink.port),
            "INJECT_TLS": "none",
            "INJECT_USER": self.sink.user,
            "INJECT_PASS": self.sink.password,
            "ONESHOT": "true",
            **(settings or {}),
        }
        given = {name: value for name, value in environment.items() if value}
        with Measured(command, given, state / "output") as measured:
            yield measured

    def cost(
        self,
        command: tuple[str, ...],
        mails: int,
        port: int = 0,
        state: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Cost:
        """What one pass took that had to deliver exactly so many mails.

        Raises:
            RunFailed: it did not.
        """
        with self.started(command, port, state, settings) as measured:
            cost = measured.wait()
            self.check(mails, measured.words)
        return cost

    def has_taken(self, mails: int) -> bool:
        """Whether the mail server has so many, or more."""
        return self.sink.taken() >= mails

    def check(self, mails: int, words: str) -> None:
        """Every mail is delivered, once, and none is pending.

        Raises:
            RunFailed: it is not so.
        """
        # No two have the same Message-ID.
        taken = [message_id for _, message_id in self.sink.mails()]
        left = self.endpoint.left()
        if (len(taken), len(set(taken)), left) != (mails, mails, 0):
            raise RunFailed(
                f"Of {mails} mails the mail server took {len(set(taken))}, {len(taken) - len(set(taken))} of them more"
                f" than once, and {left} are pending. {words}"
            )
