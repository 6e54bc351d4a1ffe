"""Debian 12 has Python 3.11.2, whose `re` loses its way in some possessive groups: ours must not be among them."""

import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

import drain

# Before 3.11.5: https://github.com/python/cpython/issues/106052
MENDED = (3, 11, 5)
PIECES = [" ", "\t", "\r\n", "\r", "\n", '"', "\\", ":", ",", "}", "a", "F:", "Bcc:", "@", "<", "null", "--", "("]
# The same in both: what each pattern finds in a few thousand odd texts.
LOOK = """
import json, random, re, sys
patterns, pieces = json.load(sys.stdin)
found = {}
for name, (pattern, in_bytes, flags) in patterns.items():
    look = re.compile(pattern.encode("latin-1") if in_bytes else pattern, flags)
    chance = random.Random(1)
    texts = ("".join(chance.choice(pieces) for _ in range(chance.randint(0, 14))) for _ in range(4000))
    found[name] = [
        [one.span() for one in look.finditer(text.encode("latin-1") if in_bytes else text)] for text in texts
    ]
print(json.dumps(found))
"""


def patterns() -> dict[str, tuple[str, bool, int]]:
    """The patterns of the house that have possessive or atomic groups, by name."""
    found: dict[str, tuple[str, bool, int]] = {}
    for module in pkgutil.walk_packages(drain.__path__, "drain."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern):
                text = value.pattern.decode("latin-1") if isinstance(value.pattern, bytes) else value.pattern
                if re.search(r"[*+?}]\+|\(\?>", text):
                    flags = int(value.flags & ~re.UNICODE)
                    found[f"{module.name}.{name}"] = (text, isinstance(value.pattern, bytes), flags)
    return found


def look(python: str, asked: Any) -> Any:
    done = subprocess.run(
        [python, "-c", LOOK], input=json.dumps(asked), capture_output=True, text=True, check=True, timeout=100
    )
    return json.loads(done.stdout)


def old_python() -> str | None:
    for name in ("/usr/bin/python3", "python3.11"):
        if path := shutil.which(name):
            words = "import sys; print(*sys.version_info[:3])"
            said = subprocess.run([path, "-c", words], capture_output=True, text=True, check=True, timeout=20).stdout
            if (3, 11) <= tuple(map(int, said.split())) < MENDED:
                return path
    return None


def test_possessive_patterns_find_the_same_in_an_old_python() -> None:
    old = old_python()
    if old is None or sys.version_info < MENDED:
        pytest.skip("there are not both, a Python 3.11 before 3.11.5 and this one after it")
    asked = patterns()
    assert len(asked) > 5
    asked["wrong"] = (r"(?:[!-9;-~]++:a*+(?:\r\n[ \t]++a++)*+\r\n)*+", True, 0)
    new, before = look(sys.executable, [asked, PIECES]), look(old, [asked, PIECES])
    assert new.pop("wrong") != before.pop("wrong"), "the texts are odd enough to show it"
    assert {name for name in new if new[name] != before[name]} == set()
