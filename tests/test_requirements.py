"""requirements.txt: what install.sh installs is what the tests ran with, it is all, and each file has its checksum."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.txt").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKED = re.compile(r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)
BUILDS, NEEDED, COMPILED = re.split(r"^# (?:needed|compiled)\b.*\n", LOCK, flags=re.MULTILINE)
# What an environment is asked for by what install.sh may find: Termux says Android or Linux.
MACHINES = [
    {
        "python_version": version,
        "python_full_version": f"{version}.0",
        "platform_system": system,
        "sys_platform": system.lower(),
    }
    for version in ("3.11", "3.12", "3.13", "3.14")
    for system in ("Linux", "Android")
]


def versions(text: str) -> dict[str, str]:
    """Packages and their versions."""
    return {name: version for name, version, _ in LOCKED.findall(text)}


def needs(name: str) -> set[str]:
    """What a package that is installed here says it needs, on any of the machines."""
    wanted = [Requirement(words) for words in importlib.metadata.requires(name) or []]
    return {
        canonicalize_name(one.name)
        for one in wanted
        if one.marker is None or any(one.marker.evaluate({"extra": "", **machine}) for machine in MACHINES)
    }


def test_every_line_is_a_package_with_checksums() -> None:
    rest = LOCKED.sub("", LOCK)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert len(versions(LOCK)) == LOCK.count("==")


def test_what_is_installed_is_what_the_tests_ran_with() -> None:
    pinned = dict(re.findall(r"^([^#=\s]+)==(\S+)$", (ROOT / "tests/constraints.txt").read_text(), re.MULTILINE))
    tested = {str(canonicalize_name(name)): version for name, version in pinned.items()}
    locked = versions(LOCK)
    # It builds one package, and is not among what the tests have.
    locked.pop("setuptools")
    assert {name: tested.get(name) for name in locked} == locked


def test_nothing_that_drain_needs_is_missing_and_nothing_is_there_for_nothing() -> None:
    """That all is there to build with, tests/process/test_install_own.py shows."""
    found: set[str] = set()
    new = {str(canonicalize_name(Requirement(words).name)) for words in PROJECT["project"]["dependencies"]}
    while new:
        found |= new
        new = {below for name in new for below in needs(name)} - found
    assert found <= set(versions(LOCK))
    assert set(versions(NEEDED)) | set(versions(COMPILED)) <= found


def test_what_the_project_is_built_with_comes_first() -> None:
    builders = {canonicalize_name(Requirement(words).name) for words in PROJECT["build-system"]["requires"]}
    assert builders < set(versions(BUILDS))


@pytest.mark.parametrize("name", sorted(versions(NEEDED)))
def test_what_pip_installs_in_termux_is_pure(name: str) -> None:
    if name == "charset-normalizer":
        return  # has wheels for this and that machine, and one for all others
    assert "Root-Is-Purelib: true" in (importlib.metadata.distribution(name).read_text("WHEEL") or "")


def test_what_is_compiled_is_what_the_package_of_termux_brings() -> None:
    assert set(versions(COMPILED)) == {"cryptography", *needs("cryptography"), *needs("cffi")}
