"""drain.env with every setting: grouped, each with its help as a comment."""

import re
import textwrap
from collections.abc import Iterable, Mapping

from drain.envfile import quoted
from drain.setting import Setting
from drain.settings import SETTINGS

_WIDTH = 100
_HEAD = """\
# The settings of drain. `drain config` shows what they are, `drain doctor` whether they are right.
# Each one that is not set has a # in front, and its default behind the =. Who can read this file
# can read your mail: keep it to yourself (mode 0600).
"""
_NEWER = """
# ==== What this file did not have yet ====
"""


def whole(values: Mapping[str, str]) -> str:
    """A new drain.env; *values* by the names in it, ``X_FILE`` for a secret ``X`` among them.

    Raises:
        ConfigError: a value cannot be written there.
    """
    return _HEAD + _rendered(SETTINGS.values(), values)


def lacking(text: str) -> str:
    """What a drain.env has no line for, as comments to append to it; "" if there is nothing."""
    there = set(re.findall(r"^\s*#?\s*(?:export\s+)?(\w+)=", text, re.MULTILINE))
    absent = [s for s in SETTINGS.values() if not there & {s.name, *([f"{s.name}_FILE"] if s.secret else [])}]
    return _NEWER + _rendered(absent, {}) if absent else ""


def _rendered(settings: Iterable[Setting], values: Mapping[str, str]) -> str:
    wanted = {one.name for one in settings}
    parts, section = [], ""
    for one in SETTINGS.values():
        section = one.section or section
        if one.name in wanted:
            if section:
                parts.append(f"\n# ---- {section} ----\n")
                section = ""
            parts.append(_entry(one, values))
    return "".join(parts)


def _entry(setting: Setting, values: Mapping[str, str]) -> str:
    words = setting.help + (f" Secret; {setting.name}_FILE may name a file with it instead." if setting.secret else "")
    # A word is not broken: one that begins a line could be taken for the setting itself.
    lines = textwrap.wrap(
        words, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )
    names = (setting.name, f"{setting.name}_FILE") if setting.secret else (setting.name,)
    set_ = [f"{name}={quoted(values[name])}" for name in names if values.get(name)]
    lines += set_ or [f"#{setting.name}={quoted(setting.default)}"]
    return "\n" + "\n".join(lines) + "\n"
