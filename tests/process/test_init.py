"""`drain init` as a person at a terminal runs it, as install.sh does, and killed in the middle."""

import contextlib
import os
import pty
import random
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from drain import config, envfile
from drain.cli import main
from drain.keys import read_x25519
from drain.settings import SETTINGS
from tests.real.nameserver import FakeResolver
from tests.support import House
from tests.test_doctor_dns import SOUND, serving

ACCOUNT = "0123456789abcdef0123456789abcdef"
ANSWERS = f"MAIL_DOMAIN=example.org\nR2_ACCOUNT_ID={ACCOUNT}\nR2_ACCESS_KEY_ID=AK\nR2_SECRET_ACCESS_KEY=s3cret-s3cret\n"
RUN = [sys.executable, "-m", "drain", "init"]
# Makes standard input the controlling terminal: getpass asks there.
AT_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


class Terminal:
    """`drain init` at a terminal of 80 columns, and a person who reads before typing."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self._leader, follower = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", AT_TERMINAL, "-m", "drain", "init", *arguments], env=environ, stdin=follower
        )
        os.close(follower)
        self.shown = ""
        self._read_up_to = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._leader)

    def reads(self, words: str, seconds: float = 30.0) -> None:
        """Waits until that is shown, after what was read before."""
        limit = time.monotonic() + seconds
        while words not in self.shown[self._read_up_to :]:
            assert self._more(limit), f"no {words!r} in {self.shown[self._read_up_to :]!r}"
        self._read_up_to = self.shown.index(words, self._read_up_to) + len(words)

    def types(self, text: str) -> None:
        """Types that."""
        os.write(self._leader, text.encode())

    def answers(self, prompt: str, text: str) -> None:
        """Reads a prompt, and types a line."""
        self.reads(prompt)
        self.types(f"{text}\n")

    def ended(self, seconds: float) -> bool:
        """Whether it ends within that time; reads what comes meanwhile."""
        limit = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < limit:
            self._more(time.monotonic() + 0.05)
        return self._process.poll() is not None

    def ends(self) -> int:
        """Reads all that comes; the exit code."""
        limit = time.monotonic() + 60
        while self._more(limit):
            pass
        return self._process.wait(30)

    def _more(self, limit: float) -> bool:
        if not select.select([self._leader], [], [], max(0.0, limit - time.monotonic()))[0]:
            return False
        try:
            chunk = os.read(self._leader, 65536)
        except OSError:  # how Linux says that the other end is closed
            return False
        self.shown += chunk.decode().replace("\r\n", "\n")
        return bool(chunk)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "a home"
    home.mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "COLUMNS": "80"}


@pytest.fixture
def env_file(environ: dict[str, str]) -> Path:
    assert not Path("/etc/drain/drain.env").exists(), "this machine has a drain of its own, which would be found"
    return Path(environ["HOME"]) / ".config/drain/drain.env"


def alone(environ: dict[str, str], *arguments: str, answers: str = ANSWERS) -> "subprocess.CompletedProcess[str]":
    """An unattended run."""
    path = Path(environ["HOME"]).parent / "answers"
    path.write_text(answers)
    path.chmod(0o600)
    return subprocess.run(
        [*RUN, "--yes", "--answers", str(path), *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# -- a person --


def test_a_person_answers_mends_what_was_wrong_and_has_a_drain(environ: dict[str, str], env_file: Path) -> None:
    with Terminal(environ, "--no-doctor") as terminal:
        terminal.answers("MAIL_DOMAIN: ", "")
        terminal.reads("This one is needed.")
        terminal.answers("MAIL_DOMAIN: ", "alice@example.org")
        terminal.reads("MAIL_DOMAIN 'alice@example.org' is not right")
        terminal.answers("MAIL_DOMAIN: ", "example.org")
        terminal.answers("R2_ACCOUNT_ID: ", "12")
        terminal.reads("it wants 32 hex digits")
        terminal.answers("R2_ACCOUNT_ID: ", ACCOUNT)
        terminal.answers("R2_JURISDICTION [default]: ", "eu")
        terminal.answers("R2_BUCKET [mail]: ", "")
        terminal.answers("R2_ACCESS_KEY_ID: ", "AK")
        terminal.answers("R2_SECRET_ACCESS_KEY: ", "s3cret-s3cret")
        terminal.answers("MAIL_ADMIN_LOCALPART [admin]: ", "")
        terminal.answers("NTFY_URL: ", "ntfy/topic-xyz")
        terminal.reads("NTFY_URL is not right")
        terminal.answers("NTFY_URL: ", "https://ntfy.sh/topic-xyz")
        terminal.answers("RELAY_UPSTREAM: ", "smtp")
        terminal.answers("SMARTHOST_HOST: ", "smtp.example.net:465")
        terminal.answers("SMARTHOST_TLS [implicit]: ", "")
        terminal.answers("SMARTHOST_USER: ", "me")
        terminal.answers("SMARTHOST_PASS: ", "hush-hush")
        terminal.answers("ALLOWED_FROM [@example.org]: ", "")
        assert terminal.ends() == 0
    values = envfile.read(env_file)[0]
    for secret in ("s3cret-s3cret", "topic-xyz", "hush-hush", values["INJECT_PASS"]):
        assert secret in env_file.read_text()
        assert secret not in terminal.shown
    assert values["R2_SECRET_ACCESS_KEY"] == "s3cret-s3cret"
    made, _ = config.load({"DRAIN_ENV_FILE": str(env_file)})
    config.check_relay(made)
    assert made.smarthosts == (("smtp.example.net", 465),)
    assert "r2 bucket create mail --jurisdiction eu\n" in terminal.shown
    assert f"DRAIN_PUBLIC_KEY < {shlex.quote(str(env_file.parent / 'drain-key.pub.pem'))}\n" in terminal.shown
    assert "Traceback" not in terminal.shown


def test_what_a_person_does_not_have_yet_is_asked_for_the_next_time_and_nothing_else(
    environ: dict[str, str], env_file: Path
) -> None:
    with Terminal(environ, "--no-doctor") as terminal:
        terminal.answers("MAIL_DOMAIN: ", "example.org")
        terminal.answers("R2_ACCOUNT_ID: ", ACCOUNT)
        for prompt in ("R2_JURISDICTION [", "R2_BUCKET [", "R2_ACCESS_KEY_ID: ", "R2_SECRET_ACCESS_KEY: "):
            terminal.answers(prompt, "")
        for prompt in ("MAIL_ADMIN_LOCALPART [", "NTFY_URL: ", "RELAY_UPSTREAM: "):
            terminal.answers(prompt, "")
        assert terminal.ends() == 0
    assert "Not set yet: R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY." in terminal.shown
    password = envfile.read(env_file)[0]["INJECT_PASS"]
    with Terminal(environ, "--no-doctor") as terminal:
        terminal.answers("R2_ACCESS_KEY_ID: ", "AK")
        terminal.answers("R2_SECRET_ACCESS_KEY: ", "s3cret-s3cret")
        assert terminal.ends() == 0
    assert "MAIL_DOMAIN: " not in terminal.shown
    made, _ = config.load({"DRAIN_ENV_FILE": str(env_file)})
    assert made.r2_secret_access_key.reveal() == "s3cret-s3cret"
    assert made.inject_pass.reveal() == password
    before = env_file.read_bytes()
    with Terminal(environ, "--no-doctor") as terminal:
        assert terminal.ends() == 0
    assert f"Nothing to ask, and nothing to change in {env_file}." in terminal.shown
    assert env_file.read_bytes() == before


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
@pytest.mark.parametrize("prompt", ["R2_ACCOUNT_ID: ", "R2_SECRET_ACCESS_KEY: "])
def test_who_breaks_off_leaves_nothing_behind(environ: dict[str, str], env_file: Path, key: str, prompt: str) -> None:
    with Terminal(environ) as terminal:
        terminal.answers("MAIL_DOMAIN: ", "example.org")
        if prompt == "R2_SECRET_ACCESS_KEY: ":
            for before in ("R2_ACCOUNT_ID: ", "R2_JURISDICTION [", "R2_BUCKET [", "R2_ACCESS_KEY_ID: "):
                terminal.answers(before, "")
        terminal.reads(prompt)
        # Python misses a signal that comes right before it reads; a person presses once more too.
        for _ in range(5):
            terminal.types(key)
            if terminal.ended(5):
                break
        assert terminal.ends() == 75
    assert terminal.shown.endswith("\ndrain: Broken off: nothing was written. Run `drain init` again when you like.\n")
    assert list(Path(environ["HOME"]).iterdir()) == []
    assert not env_file.exists()


def test_with_yes_nobody_is_asked_even_at_a_terminal(environ: dict[str, str], env_file: Path) -> None:
    with Terminal(environ, "--yes", "--no-doctor") as terminal:
        assert terminal.ends() == 0
    assert env_file.exists()
    assert "MAIL_DOMAIN: " not in terminal.shown


# -- nobody --


def test_an_unattended_run_makes_all_and_a_second_one_nothing(environ: dict[str, str], env_file: Path) -> None:
    done = alone(environ, "--no-doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert config.load({"DRAIN_ENV_FILE": str(env_file)})[0].r2_bucket == "mail"
    before = {path: path.read_bytes() for path in env_file.parent.iterdir()}
    assert sorted(path.name for path in before) == ["drain-key.pem", "drain-key.pub.pem", "drain.env", "origin-token"]
    assert "Nothing to ask, and nothing to change" in alone(environ, "--no-doctor").stdout
    assert {path: path.read_bytes() for path in env_file.parent.iterdir()} == before


def test_it_ends_as_doctor_does(house: House, environ: dict[str, str], tmp_path: Path) -> None:
    env_file = tmp_path / "drain.env"
    given = house.environ()
    del given["DRAIN_ENV_FILE"]
    given["INJECT_PASS"] = "another"  # a failure, 2
    with FakeResolver(serving(SOUND)) as resolver:
        given["DNS_RESOLVERS"] = resolver.resolver
        answers = "".join(f"{name}={shlex.quote(text)}\n" for name, text in given.items())
        here = {**environ, "DRAIN_ENV_FILE": str(env_file)}
        done = alone(here, answers=answers)
        doctor = subprocess.run(
            [sys.executable, "-m", "drain", "doctor"],
            env=here,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, doctor.returncode) == (2, 2)
    said = done.stdout.partition("`drain doctor` says:\n\n")[2]
    assert said.splitlines()[-1] == doctor.stdout.splitlines()[-1]
    assert "files: " in said


def test_a_folder_that_may_not_be_written_to_is_a_sentence(environ: dict[str, str], env_file: Path) -> None:
    env_file.parent.parent.mkdir()
    env_file.parent.symlink_to("/proc/self")  # where root too may make nothing
    done = alone(environ, "--no-doctor")
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert "cannot be written" in line
    assert str(env_file.parent) in line


# Runs `drain init` in forks, each in a folder of its own, and kills the nth just before its nth change of a file.
KILLED = """
import os, shutil, signal, sys
from drain import keygen
from drain.cli import main
from drain.commands import init
from drain.relay import bodies
from cryptography.hazmat.primitives.asymmetric import x25519

folder, answers, given = sys.argv[1:]
os.environ["HOME"] = folder
CHANGES = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.chmod"}
number, status = 0, signal.SIGKILL
while status == signal.SIGKILL:
    number += 1
    home = f"{folder}/{number}"
    os.mkdir(home)
    if given:
        shutil.copy(given, f"{home}/drain.env")
    child = os.fork()
    if not child:
        left = [number]

        def hook(event, arguments):
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if event in CHANGES or writes:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        environ = {"DRAIN_ENV_FILE": f"{home}/drain.env", "STATE_DIR": f"{home}/state"}
        environ["RELAY_KEY_FILE"] = f"{home}/relay.key"
        os.dup2(2, 1)
        os._exit(main(["init", "--yes", "--no-doctor", "--answers", answers], environ))
    status = os.waitpid(child, 0)[1]
assert status == 0, status
print(number)
"""
OLDER = "# my own words\nMAIL_DOMAIN=example.net\nR2_BUCKET=b\n"


@pytest.mark.parametrize("before", ["", OLDER], ids=["a new file", "a file that is there"])
def test_killed_before_any_of_its_steps_it_leaves_whole_files_and_the_next_run_goes_on(
    tmp_path: Path, before: str
) -> None:
    answers, given = tmp_path / "answers", tmp_path / "given"
    answers.write_text(ANSWERS + "RELAY_UPSTREAM=smtp\nSMARTHOST_HOST=relay.lan\n")
    answers.chmod(0o600)
    given.write_text(before)
    given.chmod(0o600)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(answers), str(given) if before else ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    times = int(done.stdout)
    assert times > 10, "else it was not killed in the middle"
    for number in range(1, times):
        home = tmp_path / str(number)
        env_file, key = home / "drain.env", home / "drain-key.pem"
        text = env_file.read_text() if env_file.exists() else before
        assert text.startswith(before)
        assert text == before or all(f"{name}=" in text or f"{name}_FILE=" in text for name in SETTINGS)
        secrets = [path for path in (key, home / "origin-token", home / "relay.key") if path.exists()]
        was = [path.read_bytes() for path in secrets]
        environ = {"DRAIN_ENV_FILE": str(env_file), "STATE_DIR": str(home / "state")}
        environ["RELAY_KEY_FILE"] = str(home / "relay.key")
        assert main(["init", "--yes", "--no-doctor", "--answers", str(answers)], environ) == 0
        made, warnings = config.load({"DRAIN_ENV_FILE": str(env_file)})
        assert not warnings
        config.check_relay(made)
        assert made.mail_domain == (("example.net",) if before else ("example.org",))
        assert made.private_key_file == (key,)
        assert [path.read_bytes() for path in secrets] == was, "perhaps the Worker has them already"
        read_x25519(key)  # raises if it is none
        assert (home / "relay.key").exists()
        assert not (home / "drain.env.new").exists()


def test_killed_at_a_random_moment_it_leaves_a_whole_file_or_none(environ: dict[str, str], env_file: Path) -> None:
    begin = time.monotonic()
    alone(environ, "--no-doctor")
    usual = time.monotonic() - begin
    for _ in range(3):
        for path in env_file.parent.iterdir():
            path.unlink()
        with subprocess.Popen([*RUN, "--yes", "--no-doctor"], env=environ, stdout=subprocess.DEVNULL) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(random.uniform(usual / 2, usual))
            process.kill()
        assert not env_file.exists() or all(
            f"{name}=" in env_file.read_text() or f"{name}_FILE=" in env_file.read_text() for name in SETTINGS
        )
        assert alone(environ, "--no-doctor").returncode == 0
