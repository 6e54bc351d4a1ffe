"""The file of logins, whose login is taken for which mailbox, and when a mail is looked for again."""

from pathlib import Path

import pytest

from drain.errors import ConfigError
from drain.login import Server
from drain.mailboxes import ANY, Login, Mailboxes, Presence, load_logins
from drain.setting import Secret

SERVER = Server("127.0.0.1", 1, "", Secret(""), "none", "", name="IMAP server", settings="VERIFY_IMAP")


def logins(tmp_path: Path, text: str) -> dict[str, Login]:
    file = tmp_path / "logins"
    file.write_text(text, encoding="utf-8")
    return load_logins(file)


def test_a_file_of_logins_is_read(tmp_path: Path) -> None:
    found = logins(
        tmp_path,
        "# ours\n\nalice@example.org: alice pa ss#word: 1\n Bob@BÜCHER.example :bob\tp\u00e4ss  \n*: %*master m\n",
    )
    assert {name: (login.user, login.password.reveal()) for name, login in found.items()} == {
        "alice@example.org": ("alice", "pa ss#word: 1"),
        "bob@xn--bcher-kva.example": ("bob", "p\u00e4ss"),
        ANY: ("%*master", "m"),
    }
    assert "pa ss" not in repr(found)


@pytest.mark.parametrize(
    "line",
    [
        "alice: alice sekret",
        "alice@example.org alice sekret",
        "alice@example.org: sekret",
        ": alice sekret",
        "@example.org: alice sekret",
        "alice@: alice sekret",
        "alice bob@example.org: alice sekret",
        "**: alice sekret",
        "BOB@example.ORG: bob sekret",
    ],
)
def test_a_bad_line_is_named_by_its_number_and_never_shown(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"VERIFY_IMAP_LOGINS_FILE .*line 2 ") as caught:
        logins(tmp_path, f"bob@example.org: bob other\n{line}\n")
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"alice@example.org: alice p\xe4ss"])
def test_a_file_that_cannot_be_read_is_named_without_what_is_in_it(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "logins"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"VERIFY_IMAP_LOGINS_FILE .* cannot be read") as caught:
        load_logins(file)
    assert "xe4" not in str(caught.value)


@pytest.mark.parametrize(
    ("mailbox", "user"),
    [
        ("alice@example.org", "alice"),
        ("Alice@EXAMPLE.org", "alice"),
        ("alice+shop@example.org", "alice"),
        ("alice+junk@example.org", "junk"),
        ("alice@other.example", None),
        ("malice@example.org", None),
    ],
)
def test_the_login_is_that_of_the_address_or_else_of_the_address_without_its_plus(
    mailbox: str, user: str | None
) -> None:
    lines = {
        "alice@example.org": Login("alice", Secret("p")),
        "alice+junk@example.org": Login("junk", Secret("p")),
    }
    server = Mailboxes(SERVER, lines, 0)._server(mailbox)
    assert (server.user if server else None) == user


def test_one_who_may_read_all_logs_in_as_each_and_only_where_there_is_no_other_login() -> None:
    lines = {ANY: Login("%*master", Secret("m%")), "alice@example.org": Login("100%", Secret("p"))}
    mailboxes = Mailboxes(SERVER, lines, 0)
    alice, bob = mailboxes._server("alice@example.org"), mailboxes._server("Bob+x@Example.org")
    assert alice is not None
    assert bob is not None
    assert (alice.user, alice.password.reveal()) == ("100%", "p")
    assert (bob.user, bob.password.reveal()) == ("bob@example.org*master", "m%")


@pytest.mark.parametrize(
    ("presence", "waited", "pause"),
    [
        (Presence.ABSENT, 0, 120),
        (Presence.ABSENT, 90, 30),
        (Presence.ABSENT, 120, None),
        (Presence.ABSENT, 9000, None),
        (Presence.UNKNOWN, 0, 60),
        (Presence.UNKNOWN, 300, 300),
        (Presence.UNKNOWN, 3500, 100),
        (Presence.UNKNOWN, 3600, None),
        (Presence.NO_LOGIN, 0, None),
    ],
)
def test_a_mail_not_found_is_looked_for_again_within_bounds(
    presence: Presence, waited: float, pause: float | None
) -> None:
    now = 1_800_000_000.0
    until = Mailboxes(SERVER, {}, 120).look_again_at(presence, now - waited, now)
    assert (None if until is None else until - now) == pause


def test_without_a_grace_what_is_not_there_is_sent_again_at_once() -> None:
    assert Mailboxes(SERVER, {}, 0).look_again_at(Presence.ABSENT, 5.0, 5.0) is None
