import datetime
import hashlib
import hmac
import json
from collections.abc import Callable

import pytest

from drain import recipients
from drain.directory import Listing
from drain.errors import ConfigError, MailServerUnavailable
from drain.recipients import Recipients
from drain.routing import ROLES, Router
from drain.setting import Secret

NOW = datetime.datetime(2026, 3, 2, 10, 0, 0, tzinfo=datetime.UTC)


def router(catch_all: str = "", **aliases: str) -> Router:
    return Router(("a.test", "b.test"), catch_all, "admin@a.test", aliases=aliases)


def server(*mailboxes: str, delimiters: str = "") -> Callable[[str], bool]:
    """A mail server that has these; `@domain` is all of it."""

    def has(address: str) -> bool:
        local, _, domain = address.rpartition("@")
        bases = {local.split(letter)[0] for letter in delimiters} | {local}
        return f"@{domain}" in mailboxes or any(f"{base}@{domain}" in mailboxes for base in bases)

    return has


def test_a_name_without_a_domain_is_proven_at_each_domain() -> None:
    found = recipients.prove(router(), ["Alice", "bob"], server("alice@a.test", "bob@b.test"))
    assert found.addresses == {"alice@a.test", "bob@b.test"}
    assert found.domains == {"a.test", "b.test"}


def test_a_name_that_no_mailbox_takes_is_not_published() -> None:
    assert recipients.prove(router(), ["gone@a.test"], server("alice@a.test")).addresses == frozenset()


def test_names_elsewhere_or_not_ascii_are_left_out() -> None:
    names = ["x@away.test", "grüß@a.test", "a%b@a.test", "b c@a.test", ""]
    assert recipients.prove(router(), names, server("@a.test", "@away.test")).addresses <= {"@a.test"}


def test_aliases_and_roles_count_where_their_mailbox_exists() -> None:
    found = recipients.prove(router(sales="alice@a.test"), ["sales", *ROLES], server("alice@a.test", "admin@a.test"))
    assert {"sales@a.test", "sales@b.test", "postmaster@a.test", "abuse@b.test"} <= found.addresses
    assert recipients.prove(router(), ROLES, server("alice@a.test")).addresses == frozenset()


def test_a_catch_all_of_drains_means_that_nobody_is_unknown() -> None:
    has = server("alice@a.test", "inbox@a.test")
    found = recipients.prove(router("inbox@a.test"), ["alice@a.test"], has)
    assert found.domains == frozenset()
    assert found.catch_alls == ("inbox@a.test",)
    assert recipients.prove(router("gone@a.test"), ["alice@a.test"], has).domains == {"a.test", "b.test"}


def test_a_catch_all_of_the_mail_server_opens_its_domain_alone() -> None:
    found = recipients.prove(router(), ["alice@a.test"], server("alice@a.test", "@b.test"))
    assert found.domains == {"a.test"}
    assert found.catch_alls == ("@b.test",)


def test_a_mailbox_that_is_full_is_there_and_a_server_that_cannot_say_proves_nothing() -> None:
    has = server("alice@a.test")
    found = recipients.prove(router(), ["full"], lambda address: None if address == "full@a.test" else has(address))
    assert found.addresses == {"full@a.test"}
    with pytest.raises(MailServerUnavailable, match="Nothing was published"):
        recipients.prove(router(), ["alice"], lambda _address: None)


def test_the_mail_servers_delimiters_are_found_by_asking() -> None:
    assert recipients.prove(router(), ["alice"], server("alice@a.test", delimiters="+-")).delimiters == "+-"
    assert recipients.prove(router(), ["alice"], server("alice@a.test")).delimiters == "+"
    assert recipients.prove(router(), [], server()).delimiters == "+"


def test_a_delimiter_is_not_missed_where_a_mailbox_has_the_letter_in_its_name() -> None:
    """Postfix cuts `a-team-x` at the first hyphen, and there is no mailbox `a`."""
    has = server("a-team@a.test", "zed@a.test", delimiters="-")
    assert "-" in recipients.prove(router(), ["a-team", "zed"], has).delimiters
    assert "/" in recipients.prove(router(), ["zed"], server("zed@a.test", delimiters="/")).delimiters
    all_of_them = recipients.prove(router(), ["a-team@a.test"], lambda address: address == "a-team@a.test").delimiters
    assert set("-_./=#") <= set(all_of_them), "with no name to try it at, any may be one"


def test_a_plus_address_stands_for_its_base() -> None:
    names = ["alice", *(f"alice+{number}@a.test" for number in range(50)), "hidden+shop@b.test"]
    found = recipients.prove(router(), names, server("alice@a.test", "hidden@b.test"))
    assert found.addresses == {"alice@a.test", "hidden@b.test"}
    odd = recipients.prove(router(), ["bob+x@a.test"], server("bob+x@a.test"))
    assert odd.addresses == {"bob+x@a.test"}


def test_more_mailboxes_than_the_worker_can_know_are_not_published() -> None:
    names = [f"user{number}@a.test" for number in range(recipients.MOST_NAMES + 1)]
    with pytest.raises(ConfigError, match="2001 mailboxes"):
        recipients.prove(router(), names, server(*names))


# -- which lists --


def test_a_list_of_another_mail_server_is_not_used() -> None:
    ours, theirs = Listing("ours", frozenset({"alice"})), Listing("theirs", frozenset({"www-data", "x y"}), ("gap",))
    used, warnings = recipients.in_use([ours, theirs], router(), server("alice@a.test"), vouched=False)
    assert used == [ours]
    assert warnings == ["Not used: theirs. gap Mailboxes that only it names would be refused."]


def test_without_any_list_of_this_server_nothing_is_published() -> None:
    for lists in ([], [Listing("theirs", frozenset({"root"}))]):
        with pytest.raises(ConfigError, match="MAIL_USERS_FILE"):
            recipients.in_use(lists, router(), server("alice@a.test"), vouched=False)


def test_a_list_with_gaps_needs_the_persons_word() -> None:
    """Whoever stands in the gap would be refused for ever."""
    gappy = Listing("Postfix's maps", frozenset({"alice"}), ("pcre:/x cannot be listed.",))
    has = server("alice@a.test")
    with pytest.raises(ConfigError, match="pcre:/x cannot be listed"):
        recipients.in_use([gappy], router(), has, vouched=False)
    assert recipients.in_use([gappy], router(), has, vouched=True) == ([gappy], ["pcre:/x cannot be listed."])


def test_names_that_lead_nowhere_are_told() -> None:
    found = recipients.prove(router(), ["alice", "gone", "alice+x@a.test"], server("alice@a.test"))
    names = ["alice", "gone", "alice+x@a.test", "who@away.test"]
    assert recipients.unproven(router(), names, found) == ["gone", "who@away.test"]


# -- the document --


def test_the_document_is_signed_salted_and_names_nobody() -> None:
    found = Recipients(frozenset({"alice@a.test"}), frozenset({"a.test"}), "+-", ())
    body = recipients.document(found, Secret("tökén"), NOW).decode()
    first, mac, content = body.split("\n")
    assert first == "drain recipients v1"
    key = "tökén".encode()
    assert mac == hmac.new(key, f"{first}\n{content}".encode(), hashlib.sha256).hexdigest()
    values = json.loads(content)
    assert values["published"] == "2026-03-02T10:00:00Z"
    assert values["delimiters"] == "+-"
    salted = [f"drain recipient v1\n{values['salt']}\n{name}".encode() for name in ("alice@a.test", "@a.test")]
    assert values["hashes"] == sorted(hmac.new(key, text, hashlib.sha256).hexdigest()[:32] for text in salted)
    assert "alice" not in body
    assert "a.test" not in body
    assert json.loads(recipients.document(found, Secret("x"), NOW).decode().split("\n")[2])["salt"] != values["salt"]
