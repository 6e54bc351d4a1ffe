"""How `drain setup maddy` has Maddy started, with a systemctl that only writes down what it is told."""

import os
import shlex
import socket
from pathlib import Path

import pytest

from drain.errors import ConfigError, Unavailable
from drain.setup.maddy_program import Maddy
from drain.setup.maddy_service import Service, older
from tests.support import free_port

USUAL = Path("/etc/maddy/maddy.conf")
RESTARTED = ["cat maddy.service", "enable maddy.service", "restart maddy.service"]


class Machine:
    """One on which systemd runs, with a unit of Maddy's or without."""

    def __init__(self, folder: Path, exit_code: int = 0) -> None:
        self.folder = folder
        self.port = free_port()
        self._calls = folder / "calls"
        program = folder / "systemctl"
        program.write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(self._calls))}\nexit {exit_code}\n')
        program.chmod(0o755)

    def start(self, *, config: Path = USUAL, changed: bool = False, stale: bool = False) -> str:
        """What `Service.start` says."""
        maddy = Maddy(config, Path("/"), "", None, {"PATH": str(self.folder)})
        return Service(maddy, self.port, stale, systemd=self.folder).start(changed)

    @property
    def calls(self) -> list[str]:
        """What systemctl was told."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []


def test_maddys_own_unit_is_enabled_and_started(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.start() == "Maddy was started."
    assert machine.calls == RESTARTED


def test_one_that_runs_is_started_again_only_if_something_changed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with socket.create_server(("127.0.0.1", machine.port)):
        assert machine.start() == ""
        assert machine.calls == RESTARTED[:1]
        assert machine.start(changed=True) == "Maddy was started again."
    assert machine.calls[1:] == RESTARTED


@pytest.mark.parametrize("config", [USUAL, Path("/srv/maddy.conf")], ids=["no unit", "a unit that reads another"])
def test_without_a_unit_for_it_the_person_starts_it(tmp_path: Path, config: Path) -> None:
    machine = Machine(tmp_path, exit_code=1 if config == USUAL else 0)
    with pytest.raises(Unavailable, match=r"not proven.* Start it: `maddy "):
        machine.start(config=config, changed=True, stale=True)
    with socket.create_server(("127.0.0.1", machine.port)):
        with pytest.raises(Unavailable, match="End the one that runs, and start it"):
            machine.start(config=config, changed=True, stale=True)
        assert machine.start(config=config, changed=True) == "", "mailboxes it finds without that"
    assert not [call for call in machine.calls if call.startswith(("enable", "restart"))]


def test_whether_it_runs_is_asked_at_its_port(tmp_path: Path) -> None:
    service = Service(Maddy(USUAL, Path("/"), "", None, {}), free_port(), stale=False)
    assert not service.runs()
    with socket.create_server(("127.0.0.1", service.port)):
        assert service.runs()


def test_a_unit_that_does_not_start_is_said_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "systemctl").write_text(
        '#!/bin/sh\n[ "$1" != restart ] || { echo "Job failed: \\033[1mlook\\033[0m" >&2; exit 1; }\n'
    )
    with pytest.raises(ConfigError, match=r"restart maddy\.service` failed: Job failed"):
        machine.start()


def test_a_maddy_that_was_started_before_its_files_were_written_is_older(tmp_path: Path) -> None:
    config, missing, runtime = tmp_path / "maddy.conf", tmp_path / "not-there", tmp_path / "run"
    config.touch()
    os.utime(config, ns=(2000, 2000))
    assert older(runtime, [config, missing]), "without its socket nobody knows"
    runtime.mkdir()
    for name, at, expected in (("a", 1000, True), ("b", 3000, False)):
        socket_ = runtime / f"sql-{name}.sock"
        socket_.touch()
        os.utime(socket_, ns=(at, at))
        assert older(runtime, [config, missing]) is expected
