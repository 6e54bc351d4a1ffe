"""One person for all tests of install.sh: an environment takes half a minute to make, so each version has one."""

from collections.abc import Iterator

import pytest

from tests.install_rig import Person, somebody
from tests.support import House


@pytest.fixture(scope="session")
def _somebody() -> Iterator[Person]:
    with somebody() as person:
        yield person


@pytest.fixture
def newcomer(_somebody: Person, house: House) -> Person:
    """A person with an empty home, and the answers that install.sh wants."""
    _somebody.move(program=False)
    _answer(_somebody, house)
    return _somebody


@pytest.fixture
def person(_somebody: Person, house: House) -> Person:
    """The same, whose home has the environments that are made already, but nothing else."""
    _somebody.move()
    _answer(_somebody, house)
    return _somebody


def _answer(person: Person, house: House) -> None:
    settings = house.environ(DRAIN_MAIL_SERVER="none")
    for name in ("STATE_DIR", "DRAIN_ENV_FILE"):
        del settings[name]
    person.answer(**settings)
