"""The loop's decisions; the loop as a process is in ``tests/process``."""

import socket
import threading
import time
from pathlib import Path

import pytest

from drain import service as service_module
from drain.demo.s3 import Fault
from drain.errors import BucketUnavailable, LockHeld
from drain.notify import Notifier
from drain.service import Service
from drain.summary import Summary
from tests.support import House


class TestNotifier:
    def test_without_systemd_it_is_silent(self) -> None:
        Notifier({}).ready("x")

    def test_a_socket_that_is_gone_is_no_error(self, tmp_path: Path) -> None:
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready("x")

    def test_an_abstract_socket_is_understood(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind("\0drain-test")
            systemd.settimeout(5)
            Notifier({"NOTIFY_SOCKET": "@drain-test"}).status("hello")
            assert systemd.recv(100) == b"STATUS=hello"

    @pytest.mark.parametrize(
        ("environ", "seconds"),
        [
            ({"WATCHDOG_USEC": "3000000"}, 3.0),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({}, None),
        ],
    )
    def test_the_watchdog_is_fed_only_where_asked(self, environ: dict[str, str], seconds: float | None) -> None:
        assert Notifier(environ).watchdog_seconds == seconds


def test_a_status_cannot_carry_a_message_of_its_own(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).status("x\nWATCHDOG=trigger\nMAINPID=1")
        assert systemd.recv(1000) == b"STATUS=x WATCHDOG=trigger MAINPID=1"


def test_a_refusal_after_a_good_pass_is_waited_out(house: House) -> None:
    """R2's bad day must not end a service that systemd does not start again."""
    service = Service(house.sweep(), house.events.log, Notifier({}), poll_interval_seconds=0.01, watch=house.watch())
    refusals = iter([None, Fault(status=403, code="AccessDenied"), Fault(status=403, code="AccessDenied")])

    def answer(operation: str, key: str) -> Fault | None:
        if house.s3.requests["ListObjectsV2"] > 4:
            service.sweep.stop.set()
        return next(refusals, None)

    house.s3.fault = answer
    assert service.run().error is None
    assert house.s3.requests["ListObjectsV2"] > 4


class TestDelay:
    @pytest.fixture
    def service(self, house: House, monkeypatch: pytest.MonkeyPatch) -> Service:
        monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
        return Service(house.sweep(), house.events.log, Notifier({}), poll_interval_seconds=60.0, watch=house.watch())

    def test_an_empty_pass_waits_the_interval(self, service: Service) -> None:
        assert service._delay_seconds(Summary()) == 60.0

    def test_a_lock_held_is_no_reason_to_back_off(self, service: Service) -> None:
        service._failures = 5
        assert service._delay_seconds(Summary(error=LockHeld("x"))) == 60.0

    def test_a_link_that_is_down_is_asked_less_and_less_up_to_a_quarter_of_an_hour(self, service: Service) -> None:
        waits = []
        for failures in range(1, 8):
            service._failures = failures
            waits.append(service._delay_seconds(Summary(error=BucketUnavailable("x"))))
        assert waits == [60.0, 120.0, 240.0, 480.0, 900.0, 900.0, 900.0]

    def test_jitter_is_a_tenth(self, house: House) -> None:
        service = Service(
            house.sweep(), house.events.log, Notifier({}), poll_interval_seconds=100.0, watch=house.watch()
        )
        waits = [service._delay_seconds(Summary()) for _ in range(200)]
        assert 90 <= min(waits) < 95
        assert 105 < max(waits) <= 110


def test_a_pass_that_hangs_starves_the_watchdog(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog is fed for progress, not for being alive."""
    fed: list[float] = []
    never = threading.Event()
    monkeypatch.setattr(service_module, "_LONGEST_SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(service_module, "_TICK_SECONDS", 0.05)

    class Feeding(Notifier):
        def alive(self) -> None:
            fed.append(time.monotonic())

    def slow(operation: str, key: str) -> Fault | None:
        never.wait(0.6)
        return None

    house.s3.fault = slow
    service = Service(house.sweep(), house.events.log, Feeding({}), poll_interval_seconds=60.0, watch=house.watch())
    begun = time.monotonic()
    service._pass()
    assert fed
    assert max(fed) - begun < 0.4
    assert time.monotonic() - begun > 0.5
