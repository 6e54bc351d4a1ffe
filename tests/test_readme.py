"""The READMEs: whoever has only these finds every command, setting, check and file, and no dead end."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from drain import config, envfile
from drain.cli import _parser
from drain.doctor import examination
from drain.settings import SETTINGS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
# What a person who sets drain up is sent to.
GUIDES = [README, *(ROOT / folder / "README.md" for folder in ("systemd", "termux", "worker"))]
PAGES = [
    *(ROOT.glob("*.md")),
    *(ROOT / ".github").glob("*.md"),
    *(page for folder in ("bench", "systemd", "termux") for page in (ROOT / folder).rglob("*.md")),
    *(page for folder in ("worker", "worker/bench") for page in (ROOT / folder).glob("*.md")),
]
# A line or a part of one that stands between backquotes; a fenced block is none.
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
TROUBLE = "When something is wrong"


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def section(title: str) -> str:
    """What stands below a heading of README.md, up to the next of its height or higher."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", text(README), re.MULTILINE)
    assert found is not None, f"README.md has no section {title!r}"
    below = text(README)[found.end() :]
    return re.split(rf"^#{{1,{len(found[1])}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def rows(tables: str) -> list[list[str]]:
    """The cells of the tables' rows, without their heads."""
    bodies = re.findall(r"^\|[-|]+\|\n((?:\|.*\n?)+)", tables, re.MULTILINE)
    lines = "".join(bodies).splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def headings(page: Path) -> list[tuple[int, str]]:
    """The height and the words of each heading; comments in code are none."""
    prose = re.sub(r"^ *```.*?^ *```", "", text(page), flags=re.DOTALL | re.MULTILINE)
    return [(len(marks), words) for marks, words in re.findall(r"^(#+) (.+)$", prose, re.MULTILINE)]


def anchor(words: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")


# -- commands --


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser, and those of all commands below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from parsers(sub)


def named(page: str) -> set[str]:
    """The commands that a page names, whole (``drain queue list``) or as what follows one (``, `show` ``)."""
    found = {line.strip() for line in re.findall(r"drain [a-z][a-z -]*[a-z]", page)}
    for whole, others in re.findall(r"`(drain [a-z -]+)[^`\n]*`((?:(?:,| or| and) `[a-z]+[^`\n]*`)+)", page):
        before = whole.strip().rpartition(" ")[0]
        found |= {f"{before} {other}" for other in re.findall(r"`([a-z]+)", others)}
    return found


def test_every_command_is_in_a_readme() -> None:
    in_pages = {name for page in GUIDES for name in named(text(page))}
    commands = {parser.prog for parser in parsers(_parser())}
    assert {"drain relay queue hold", "drain setup maddy"} <= commands
    lacking = {command for command in commands if not any(f"{name} ".startswith(f"{command} ") for name in in_pages)}
    assert lacking == set()


def test_every_option_of_every_command_says_what_it_does() -> None:
    bare = [
        f"{parser.prog} {action.option_strings[0]}"
        for parser in parsers(_parser())
        for action in parser._actions
        if action.option_strings and len(action.help or "") < 5
    ]
    assert bare == []


def test_every_exit_code_of_the_help_is_in_the_readme() -> None:
    codes = re.findall(r"^  (\d+) ", _parser().epilog or "", re.MULTILINE)
    assert len(codes) > 5
    assert [code for code in codes if f"**{code}**" not in section("Commands")] == []


# -- settings --


def test_the_reference_of_settings_is_the_one_that_the_code_makes() -> None:
    """`drain config --reference` between two marks; nothing is explained a second time by hand."""
    found = re.search(r"<!-- settings -->\n(.*?)<!-- /settings -->", text(README), re.DOTALL)
    assert found is not None
    assert found[1] == config.reference()


def test_every_line_for_drain_env_in_the_pages_and_the_examples_can_be_read(tmp_path: Path) -> None:
    places = [*PAGES, *(path for folder in ("termux", "systemd") for path in (ROOT / folder).rglob("*.sh"))]
    lines = {
        found[1]
        for place in places
        for found in re.finditer(r"(?:^#? *|`)([A-Z][A-Z0-9_]+=[^`\n]+)", text(place), re.MULTILINE)
        if found[1].partition("=")[0] in SETTINGS and " drain" not in found[1]
    }
    assert len(lines) > 20
    for line in lines:
        file = tmp_path / "drain.env"
        file.write_text(f"{line}\n")
        file.chmod(0o600)
        envfile.read(file)


# -- when something is wrong --


def test_every_check_of_doctor_has_a_row_where_things_are_wrong() -> None:
    explained = {SPAN.findall(row[0])[0] for row in rows(section("What `drain doctor` says"))}
    assert explained == set(examination.NAMES)


def said() -> str:
    """All that drain and its scripts can say, each string on a line; what is filled in is a blank."""
    strings: list[str] = []
    for path in sorted((ROOT / "drain").rglob("*.py")):
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                strings.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.append(node.value)
    lines = [re.sub(r"\s+", " ", words) for words in strings]
    scripts = [ROOT / "install.sh", *(ROOT / "systemd").glob("*.sh"), *(ROOT / "termux").glob("*.sh")]
    return "\n".join([*lines, *map(text, scripts)])


def pattern(span: str) -> str:
    """What finds the words that a span quotes, with anything for its dots."""
    return ".*".join(re.escape(part.strip()) for part in span.split("…"))


def test_what_a_person_is_told_to_look_for_is_what_drain_says() -> None:
    everything = said()
    for row in rows(section(TROUBLE)):
        for span in SPAN.findall(row[0]):
            # Of a line of the log only the values stand in the code as they are.
            for words in re.findall(r"\w+=([\w-]+)", span) or [span]:
                assert re.search(pattern(words.rstrip("-")), everything), f"`{span}` is said by nothing any more"


def test_every_sentence_that_ends_the_installer_has_its_row() -> None:
    scripts = "".join(text(ROOT / name) for name in ("install.sh", "systemd/steps.sh", "termux/steps.sh"))
    # 64 is wrong use, and its sentences say all there is to say.
    sentences = re.findall(r"\bfail (?!64\b)\d+ \"([^\"]+(?:\"\$[^\"]*\"[^\"]*)*)\"", scripts)
    assert len(sentences) > 30
    spans = [span for row in rows(section("What `install.sh` says")) for span in SPAN.findall(row[0])]
    assert [words for words in sentences if not any(re.search(pattern(span), words) for span in spans)] == []


def test_every_row_where_things_are_wrong_has_a_symptom_a_cause_and_a_cure() -> None:
    table = rows(section(TROUBLE))
    assert len(table) > 40
    assert [row[0] for row in table if len(row) != 3 or not all(row)] == []


# -- the way through the pages --


def test_every_link_leads_somewhere() -> None:
    dead = []
    for page in PAGES:
        prose = re.sub(r"^ *```.*?^ *```", "", text(page), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if target.startswith(("https://", "mailto:")):
                continue
            place, _, part = target.partition("#")
            there = (page.parent / place).resolve() if place else page
            if not there.exists() or (part and part not in {anchor(words) for _, words in headings(there)}):
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert dead == []


def test_the_contents_of_the_readme_are_its_sections_in_their_order() -> None:
    sections = [words for height, words in headings(README) if height == 2 and words != "Contents"]
    listed = re.findall(r"\[([^\]]+)\]\(#([^)]+)\)", section("Contents"))
    assert [anchor(words) for words in sections] == [to for _, to in listed]
    assert all(anchor(words) == to for words, to in listed)


def test_a_heading_that_drain_sends_a_person_to_is_in_the_readme() -> None:
    named_in_code = set(re.findall(r"README(?:\.md)?, \"?([A-Z][\w ]+)", said()))
    assert {"Before you begin", TROUBLE} <= named_in_code
    assert named_in_code - {words for _, words in headings(README)} == set()


@pytest.mark.parametrize("folder", ["systemd", "termux"])
def test_every_unit_and_script_is_named_in_a_readme(folder: str) -> None:
    pages = text(README) + text(ROOT / folder / "README.md")
    files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".md"]
    assert len(files) > 3
    lacking = []
    for path in files:
        place = path.relative_to(ROOT / folder)
        top, _, rest = str(place).partition("/")
        if str(place) not in pages and not (rest and f"{top}/" in pages and f"`{rest}`" in pages):
            lacking.append(str(place))
    assert lacking == []


def test_every_word_and_answer_of_the_installer_is_in_the_readme() -> None:
    script = text(ROOT / "install.sh")
    usage = script.partition("<<'END'\n")[2].partition("\nEND")[0]
    words = set(re.findall(r"--[a-z][a-z-]+", usage)) | set(re.findall(r"install\.sh \[?([a-z]+)", usage))
    answers = set(re.findall(r"\bDRAIN_[A-Z_]+\b", script))
    assert {"upgrade", "uninstall", "demo", "test", "--answers"} <= words
    assert sorted(word for word in words | answers if word not in text(README)) == []
