"""What holds for the house as a whole: its layers, its dependencies, its words."""

import ast
import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import drain

HOUSE = Path(drain.__file__).parent
ROOT = HOUSE.parent
# Upper rooms first. A module may import from rows below its own, and leaves of
# the same row nothing of each other.
LAYERS = [
    ["cli"],
    ["commands"],
    ["demo", "init", "setup"],
    ["doctor", "selftest"],
    ["outbound", "oversight"],
    ["assembly", "keygen", "show"],
    ["backup", "quarantine", "replay", "service"],
    ["sweep", "watch"],
    ["feeding", "metrics", "page"],
    ["delivery", "crew", "rebuild", "recipients", "status", "tools"],
    ["handover", "relay"],
    ["alerts", "ends"],
    ["directory", "ledger", "opener", "routing", "sessions", "notify", "lock"],
    ["history", "logbook", "mailboxes", "notes", "prefixes", "tables", "upstreams", "verdicts"],
    ["bucket", "inject", "imap", "log", "mailbridge", "marks", "summary"],
    ["config", "database", "filters", "login", "outcome", "s3errors", "sealed", "state"],
    ["direct", "header", "listing", "request", "s3client", "settings", "stamp"],
    ["places"],
    ["answer", "envfile", "fields", "keys", "mail", "s3http", "unreachable"],
    ["s3model", "setting"],
    ["backoff", "disk", "errors", "text"],
]
RANK = {name: row for row, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """The modules of the house that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "drain":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found & set(RANK)


@pytest.mark.parametrize(
    "path",
    sorted(
        [
            *HOUSE.glob("*.py"),
            *HOUSE.glob("alerts/*.py"),
            *HOUSE.glob("backup/*.py"),
            *HOUSE.glob("commands/*.py"),
            *HOUSE.glob("doctor/*.py"),
            *HOUSE.glob("filters/*.py"),
            *HOUSE.glob("init/*.py"),
            *HOUSE.glob("page/*.py"),
            *HOUSE.glob("relay/*.py"),
            *HOUSE.glob("setup/*.py"),
            *HOUSE.glob("show/*.py"),
            *HOUSE.glob("status/*.py"),
            *HOUSE.glob("upstreams/*.py"),
        ]
    ),
    ids=lambda path: f"{path.parent.name}.{path.stem}",
)
def test_dependencies_point_downwards_only(path: Path) -> None:
    if path.stem in {"__init__", "__main__"} and path.parent == HOUSE:
        return
    room = path.stem if path.parent == HOUSE else path.parent.name
    assert room in RANK, "a new room needs its place in LAYERS, and a line in the map"
    upwards = {name for name in imports(path) - {path.parent.name} if RANK[name] <= RANK[room]}
    assert not upwards


def test_every_room_is_on_the_map() -> None:
    rooms = {path.stem for path in HOUSE.glob("*.py")} | {
        "alerts",
        "backup",
        "commands",
        "demo",
        "doctor",
        "filters",
        "init",
        "page",
        "relay",
        "setup",
        "show",
        "status",
        "templates",
        "upstreams",
    }
    assert drain.__doc__ is not None
    listed = set(re.findall(r"^(\w+) +\w", drain.__doc__.split("The rooms")[1], re.MULTILINE))
    assert rooms - {"__init__", "__main__"} <= listed


def test_every_state_and_no_other_is_on_the_map() -> None:
    from drain.state import State

    assert drain.__doc__ is not None
    table = drain.__doc__.split("The states")[1].split("After the final dot")[0]
    assert set(re.findall(r"^``(\w+)``", table, re.MULTILINE)) == {state.value for state in State}


def test_every_room_and_state_of_the_relay_is_on_its_map() -> None:
    import drain.relay
    from drain.relay.queue import State

    assert drain.relay.__doc__ is not None
    table = set(re.findall(r"^(\w+) +\w", drain.relay.__doc__.split("========== =", 1)[1], re.MULTILINE))
    assert table == {path.stem for path in HOUSE.glob("relay/*.py")} - {"__init__"}
    assert set(re.findall(r"^``(\w+)``  ", drain.relay.__doc__, re.MULTILINE)) == {state.value for state in State}


@pytest.mark.parametrize("package", ["alerts", "backup", "doctor", "init", "setup"])
def test_every_room_of_a_package_is_on_its_map(package: str) -> None:
    found = importlib.import_module(f"drain.{package}").__doc__
    assert found is not None
    listed = set(
        re.findall(r"^(\w+) +\w", found.rpartition("=========\n")[0].rpartition("=========\n")[2], re.MULTILINE)
    )
    assert listed == {path.stem for path in HOUSE.glob(f"{package}/*.py")} - {"__init__"}


def test_every_dependency_is_pure_python() -> None:
    """Termux packages cryptography itself and would compile anything else on the phone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [re.split(r"[<>=\[ ;]", requirement)[0] for requirement in project["dependencies"]]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen or name == "cryptography":
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        files = {str(file) for file in distribution.files or []}
        # What is compiled from a .py beside it only makes that faster (charset_normalizer).
        compiled = [
            file for file in files if file.endswith((".so", ".pyd")) and f"{file.partition('.')[0]}.py" not in files
        ]
        assert not compiled, f"{name} brings {compiled[0]}"
        needed = [Requirement(requirement) for requirement in distribution.requires or []]
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert "botocore" in seen
