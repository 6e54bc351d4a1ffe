"""What is left to do for a mail server: found, shown, done in order, put back."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from drain import envfile
from drain.errors import ConfigError, Unavailable
from drain.setup import plan as planning
from drain.setup.apply import apply, finished, left
from drain.setup.changes import File
from drain.setup.plan import Plan
from drain.setup.wanted import Step, Wanted


class Machine:
    """A server that is one file and two steps; ``told`` has what was done, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.check: Callable[[], None] = lambda: self.tell("check")
        self.runs = False
        self.start: Callable[[], str] = lambda: ""
        envfile.change(folder / "drain.env", {"MAIL_DOMAIN": "example.test"})

    def tell(self, word: str) -> None:
        there = "with" if (self.folder / "main.cf").exists() else "without"
        self.told.append(f"{word} {there} main.cf")

    def plan(self) -> Plan:
        return planning.make({"DRAIN_ENV_FILE": str(self.folder / "drain.env")})

    def wanted(self, plan: Plan) -> Wanted:
        def step(word: str) -> Step:
            done = any(told.startswith(word) for told in self.told)
            return Step(f"{word} is made", lambda: done, lambda: self.tell(word))

        return Wanted(
            before=(step("user"),),
            files=(File(self.folder / "main.cf", b"drain's\n"),),
            after=(step("login"),),
            check=self.check,
            settings=plan.settings,
            start=lambda changed: self.start(),
            runs=lambda: self.runs,
        )

    def run(self) -> bool:
        """Whether there was something to do."""
        plan = self.plan()
        work = left(plan, self.wanted(plan))
        if work:
            apply(plan, self.wanted(plan), work)
        return bool(work)

    @property
    def settings(self) -> dict[str, str]:
        return envfile.read(self.folder / "drain.env")[0]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_everything_is_done_in_its_order_and_then_nothing_is_left(machine: Machine) -> None:
    assert machine.run()
    assert machine.told == ["user without main.cf", "login with main.cf", "check with main.cf"]
    assert machine.settings["INJECT_TLS_CA_FILE"] == str(machine.folder / "mail-server.pem")
    finished(machine.plan())
    assert not machine.run()


def test_until_the_server_was_started_a_run_is_not_finished(machine: Machine) -> None:
    machine.run()
    work = left(machine.plan(), machine.wanted(machine.plan()))
    assert work.unfinished
    assert not work.files


def test_if_the_server_does_not_take_its_files_they_are_put_back_and_drain_goes_on_as_before(
    machine: Machine,
) -> None:
    (machine.folder / "main.cf").write_bytes(b"mine\n")

    def refuse() -> None:
        assert (machine.folder / "main.cf").read_bytes() == b"drain's\n"
        raise ConfigError("no")

    machine.check = refuse
    with pytest.raises(ConfigError, match="no"):
        machine.run()
    assert (machine.folder / "main.cf").read_bytes() == b"mine\n"
    assert "INJECT_TLS_CA_FILE" not in machine.settings


def test_the_password_is_in_drain_env_before_the_server_has_it(machine: Machine) -> None:
    seen: list[dict[str, str]] = []
    machine.tell = lambda word: seen.append(machine.settings)  # type: ignore[method-assign]
    machine.run()
    assert len(seen) == 3
    assert all(settings["INJECT_USER"] == "drain" and settings["INJECT_PASS"] for settings in seen)
    assert all("INJECT_TLS_CA_FILE" not in settings for settings in seen)
    assert machine.settings["INJECT_PASS"] == seen[0]["INJECT_PASS"]


def test_what_is_shown_has_no_password_and_changes_nothing(machine: Machine) -> None:
    plan = machine.plan()
    stream = io.StringIO()
    left(plan, machine.wanted(plan)).show(plan, stream)
    text = stream.getvalue()
    assert plan.password.reveal() not in text
    assert f"{plan.env_file}: INJECT_PASS=***\n" in text
    assert "user is made\nlogin is made\nnew file" in text
    assert [path.name for path in machine.folder.iterdir()] == ["drain.env"]


def test_if_the_server_does_not_take_its_files_drain_env_is_byte_for_byte_as_it_was(machine: Machine) -> None:
    before = (machine.folder / "drain.env").read_bytes()

    def refuse() -> None:
        assert machine.settings["INJECT_PASS"]
        raise ConfigError("no")

    machine.check = refuse
    with pytest.raises(ConfigError, match="no"):
        machine.run()
    assert (machine.folder / "drain.env").read_bytes() == before


def test_a_drain_env_that_was_not_there_is_away_again_after_a_failure(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.check = lambda: (_ for _ in ()).throw(ConfigError("no"))
    plan = planning.make({"DRAIN_ENV_FILE": str(tmp_path / "new/drain.env"), "MAIL_DOMAIN": "example.test"})
    with pytest.raises(ConfigError, match="no"):
        apply(plan, machine.wanted(plan), left(plan, machine.wanted(plan)))
    assert not plan.env_file.exists()


def test_if_the_server_does_not_start_all_is_put_back_and_one_that_ran_runs_again(machine: Machine) -> None:
    (machine.folder / "main.cf").write_bytes(b"mine\n")
    before = (machine.folder / "drain.env").read_bytes()
    started: list[bytes] = []
    machine.runs = True

    def start() -> str:
        started.append((machine.folder / "main.cf").read_bytes())
        machine.runs = False
        if started[-1] != b"mine\n":
            raise ConfigError("port taken")
        return ""

    machine.start = start
    with pytest.raises(ConfigError, match="port taken"):
        machine.run()
    assert started == [b"drain's\n", b"mine\n"]
    assert (machine.folder / "drain.env").read_bytes() == before


def test_a_server_that_did_not_run_is_not_started_with_what_is_put_back(machine: Machine) -> None:
    started: list[bool] = []

    def start() -> str:
        started.append((machine.folder / "main.cf").exists())
        raise ConfigError("no")

    machine.start = start
    with pytest.raises(ConfigError, match="no"):
        machine.run()
    assert started == [True]
    assert not (machine.folder / "main.cf").exists()


def test_if_the_start_is_the_persons_all_that_was_done_stays(machine: Machine) -> None:
    machine.start = lambda: (_ for _ in ()).throw(Unavailable("start it"))
    with pytest.raises(Unavailable, match="start it"):
        machine.run()
    assert (machine.folder / "main.cf").read_bytes() == b"drain's\n"
    assert machine.settings["INJECT_PASS"]
    assert left(machine.plan(), machine.wanted(machine.plan())).unfinished
