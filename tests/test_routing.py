from pathlib import Path

import pytest

from drain.errors import ConfigError
from drain.places import domain_key, domains
from drain.routing import Router, is_sendable, load_aliases

ROUTER = Router(
    domains=("example.test", "second.test", "xn--bcher-kva.test"),
    catch_all="inbox@example.test",
    admin_mailbox="admin@example.test",
    more_roles=frozenset({"billing"}),
    aliases={"sales": "alice@example.test", "info@second.test": "bob@example.test"},
)
CATCH_ALL = ("inbox@example.test", "catch-all")


def route(recipient: str) -> list[tuple[str, str]]:
    return [(candidate.address, candidate.why) for candidate in ROUTER.candidates(recipient)]


@pytest.mark.parametrize(
    ("recipient", "candidates"),
    [
        ("alice@example.test", [("alice@example.test", "itself"), CATCH_ALL]),
        ("Alice@Example.TEST", [("Alice@example.test", "itself"), CATCH_ALL]),
        ("bob@second.test", [("bob@second.test", "itself"), CATCH_ALL]),
        ("a@bücher.test", [("a@xn--bcher-kva.test", "itself"), CATCH_ALL]),
        ("sales@example.test", [("alice@example.test", "alias"), ("sales@example.test", "itself"), CATCH_ALL]),
        ("info@second.test", [("bob@example.test", "alias"), ("info@second.test", "itself"), CATCH_ALL]),
        ("info@example.test", [("info@example.test", "itself"), CATCH_ALL]),
        ("al+x+y@example.test", [("al+x+y@example.test", "itself"), ("al@example.test", "plus"), CATCH_ALL]),
        ("sales+x@example.test", [("sales+x@example.test", "itself"), ("alice@example.test", "plus"), CATCH_ALL]),
        ("+x@example.test", [("+x@example.test", "itself"), CATCH_ALL]),
        ("abuse@second.test", [("abuse@second.test", "itself"), ("admin@example.test", "role"), CATCH_ALL]),
        ("Billing@example.test", [("Billing@example.test", "itself"), ("admin@example.test", "role"), CATCH_ALL]),
        ("inbox@example.test", [("inbox@example.test", "itself")]),
        ("", [CATCH_ALL]),
    ],
)
def test_candidates_come_in_the_order_of_the_contract(recipient: str, candidates: list[tuple[str, str]]) -> None:
    assert route(recipient) == candidates


@pytest.mark.parametrize(
    "recipient",
    [
        "victim@elsewhere.test",
        "alice@example.test.evil.test",
        "alice@sub.example.test",
        "victim@elsewhere.test@elsewhere.test",
        "@elsewhere.test:alice@elsewhere.test",
        "bob@example.test\r\nRCPT TO:<victim@elsewhere.test>",
        "bob\x00@example.test",
        "b ob@example.test",
        "bob\u00a0@example.test",
        "<bob@example.test",
        "bob>@example.test",
        "b" * 2000 + "@example.test",
        "victim%away.test@example.test",
        "away.test!victim@example.test",
        "victim@away.test@example.test",
        '"victim@away.test"@example.test',
        '"victim"@example.test',
        "victim%away.test+x@example.test",
        "alice",
        "@example.test",
    ],
)
def test_nobody_outside_is_reached_and_nothing_odd_is_said(recipient: str) -> None:
    assert route(recipient) == [CATCH_ALL]


def test_a_domain_of_sharp_s_is_not_the_one_that_pythons_codec_makes_of_it() -> None:
    """`stra\u00dfe` and `strasse` belong to two people since IDNA 2008."""
    assert domain_key("stra\u00dfe.de") != "strasse.de"
    with pytest.raises(ValueError, match="xn--"):
        domains("stra\u00dfe.de")


def test_254_octets_are_the_limit() -> None:
    assert is_sendable("a" * (254 - 13) + "@example.test")
    assert not is_sendable("a" * (255 - 13) + "@example.test")


def test_an_alias_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "aliases"
    file.write_text("# ours\nSales: alice\ninfo@Second.test: bob@second.test # shop\n\n")
    aliases = load_aliases(file, ("example.test", "second.test"))
    assert aliases == {"sales": "alice@example.test", "info@second.test": "bob@second.test"}


@pytest.mark.parametrize("line", ["sales alice", "sales:", ": alice", "sales: a@elsewhere.test", "sales: a, b"])
def test_a_wrong_alias_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "aliases"
    file.write_text(f"ok: alice\n{line}\n")
    with pytest.raises(ConfigError, match="line 2"):
        load_aliases(file, ("example.test",))


def test_an_alias_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MAIL_ALIASES_FILE"):
        load_aliases(tmp_path / "none", ("example.test",))
