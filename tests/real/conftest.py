from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.real.house import RealHouse
from tests.real.maddy import Maddy, maddy_binary
from tests.real.postfix import Postfix
from tests.real.r2 import R2

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
