import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from drain.keys import KeyRing
from drain.opener import Opener
from drain.setting import Secret
from tests import sealing
from tests.real.edge import Edge, Route, patched
from tests.real.house import RealHouse
from tests.real.maddy import Maddy, maddy_binary
from tests.real.postfix import Postfix
from tests.real.r2 import R2
from tests.real.worker import FAULTS, IMPATIENT, SEALED, TOKEN, Home, Worker

Server: TypeAlias = Postfix | Maddy

DOMAINS = ("example.test", "second.test")
USERS = ("alice", "bob", "admin", "inbox", "defer", "full")


@pytest.fixture(scope="session")
def running_r2() -> Iterator[R2]:
    with R2() as r2:
        yield r2


@pytest.fixture(scope="session")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postfix]:
    with Postfix(tmp_path_factory.mktemp("postfix"), domains=DOMAINS, users=USERS) as server:
        yield server


@pytest.fixture(scope="session")
def maddy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maddy]:
    if maddy_binary() is None:
        pytest.skip("no maddy on PATH")
    with Maddy(tmp_path_factory.mktemp("maddy"), domains=DOMAINS, users=USERS) as server:
        yield server


@pytest.fixture
def r2(running_r2: R2) -> R2:
    running_r2.clear()
    return running_r2


@pytest.fixture(params=["postfix", pytest.param("maddy", marks=pytest.mark.maddy)])
def server(request: pytest.FixtureRequest) -> Server:
    running: Server = request.getfixturevalue(request.param)
    running.clear()
    return running


@pytest.fixture
def house(r2: R2, server: Server, tmp_path: Path) -> RealHouse:
    return RealHouse(r2, server, tmp_path / "state")


@pytest.fixture(scope="session")
def woken_home() -> Iterator[Home]:
    with Home() as home:
        yield home


@pytest.fixture(scope="session")
def running_worker(woken_home: Home) -> Iterator[Edge]:
    variants = {"impatient": patched(*IMPATIENT)}
    for name, fault in FAULTS.items():
        # That a fault has lost its place in the source is for its own test to say.
        with contextlib.suppress(ValueError):
            variants[name] = patched(*fault)
    routes = {
        "sealed": Route(SEALED),
        "refusing": Route(SEALED),
        "hasty": Route(SEALED, "does not wait for setReject"),
        "waking": Route({**SEALED, "WAKE_URL": woken_home.url}),
        "keyless": Route({}),
    }
    with Edge(routes, variants, fresh=100) as edge:
        yield edge


@pytest.fixture(scope="session")
def worker_opener(tmp_path_factory: pytest.TempPathFactory) -> Opener:
    # As drain is set up with a token: what is not sealed is not believed.
    files = sealing.key_files(tmp_path_factory.mktemp("keys"), sealing.KEY)
    return Opener(KeyRing(files, None), (Secret(TOKEN),), sealed_only=True)


@pytest.fixture
def worker(running_worker: Edge, worker_opener: Opener, woken_home: Home) -> Worker:
    running_worker.clear()
    woken_home.reset()
    woken_home.look = lambda: running_worker.keys("pending/")
    return Worker(running_worker, worker_opener, woken_home)
