"""`drain doctor` on the mail server, against Postfix and Maddy as their templates make them."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from drain.doctor import server as doctor_server
from drain.doctor.finding import Finding, Level
from drain.login import Server
from drain.routing import Router
from drain.setting import Secret
from tests.real.maddy import Maddy, maddy_binary
from tests.real.postfix import Postfix

DOMAIN = "example.test"
LARGEST = 25 * 1024 * 1024 + 8 * 1024
Running: TypeAlias = Postfix | Maddy
KINDS = ["postfix", pytest.param("maddy", marks=pytest.mark.maddy)]


@contextlib.contextmanager
def started(kind: str, folder: Path, *, tls: bool) -> Iterator[Running]:
    if kind == "maddy" and maddy_binary() is None:
        pytest.skip("no maddy on PATH")
    make: Callable[..., Running] = Postfix if kind == "postfix" else Maddy
    users = ("alice", "admin", "inbox", "defer")
    with make(folder, domains=(DOMAIN,), users=users, tls=tls) as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def over_tls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(request.param, tmp_path_factory.mktemp("doctor"), tls=True) as running:
        yield running


def check(running: Running, router: Router, **changed: str) -> list[Finding]:
    settings = {"password": running.password, "ca_file": str(running.ca_file or ""), **changed}
    server = Server(running.host, running.port, running.user, Secret(settings["password"]), "auto", settings["ca_file"])
    found = list(doctor_server.check(server, router, largest=LARGEST))
    assert not any(running.mailbox(address) for address in running.addresses), "no mail is sent"
    return found


def rules(catch_all: str = "inbox", admin: str = "admin", **aliases: str) -> Router:
    targets = {name: f"{local}@{DOMAIN}" for name, local in aliases.items()}
    return Router((DOMAIN,), f"{catch_all}@{DOMAIN}", f"{admin}@{DOMAIN}", aliases=targets)


def bad(findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if one.level is not Level.OK]


def test_a_server_as_the_template_makes_it_is_all_ok(over_tls: Running) -> None:
    findings = check(over_tls, rules(sales="alice"))
    assert bad(findings) == []
    words = "\n".join(one.words for one in findings)
    for part in ("not logged in", "takes the login", "TLSv1.3", "8BITMIME", "SMTPUTF8", f"alice@{DOMAIN}"):
        assert part in words


def test_mailboxes_that_are_missing_are_each_a_failure(over_tls: Running) -> None:
    findings = bad(check(over_tls, rules("nobody", "noadmin", sales="gone")))
    assert [one.level for one in findings] == [Level.FAILURE] * 3
    assert all("has no mailbox" in one.words for one in findings)


def test_a_wrong_password_is_a_failure(over_tls: Running) -> None:
    (found,) = bad(check(over_tls, rules(), password="wrong"))
    assert (found.level, "INJECT_PASS" in found.next) == (Level.FAILURE, True)


def test_another_certificate_than_the_pinned_one_is_a_failure(over_tls: Running, tmp_path: Path) -> None:
    from tests.real.smarthost import authority

    other = tmp_path / "other.pem"
    other.write_bytes(authority().pem)
    (found,) = bad(check(over_tls, rules(), ca_file=str(other)))
    assert (found.level, "not believed" in found.words) == (Level.FAILURE, True)


@pytest.mark.parametrize("kind", KINDS)
def test_without_tls_there_is_one_warning(kind: str, tmp_path: Path) -> None:
    with started(kind, tmp_path, tls=False) as running:
        (found,) = bad(check(running, rules()))
    assert (found.level, "INJECT_TLS_CA_FILE" in found.next) == (Level.WARNING, True)


def test_a_mailbox_that_is_busy_is_unknown(tmp_path: Path) -> None:
    with started("postfix", tmp_path, tls=True) as running:
        (found,) = bad(check(running, rules("defer")))
    assert (found.level, f"defer@{DOMAIN}" in found.words) == (Level.UNKNOWN, True)


CARELESS = {
    "smtpd_client_restrictions": "",
    "smtpd_relay_restrictions": "permit_mynetworks, reject",
    "mynetworks": "127.0.0.1",
    "message_size_limit": "10240000",
}


class Careless(Postfix):
    """A Postfix as many are: no AUTH asked for, and small mails."""

    def _lay_out(self, home: Path, saslpasswd2: str) -> None:
        super()._lay_out(home, saslpasswd2)
        main = home / "etc" / "main.cf"
        text = main.read_text()
        for (
            name,
            value,
        ) in CARELESS.items():  # in place: of a line that is there twice Postfix warns, before it has a log
            text, times = re.subn(rf"^{name} =.*$", f"{name} = {value}", text, flags=re.MULTILINE)
            assert times == 1, name
        main.write_text(text)
        past = time.time() - 60  # as `Postfix` itself has it
        os.utime(main, (past, past))


def test_a_postfix_with_an_open_door_and_small_mails_is_found_out(tmp_path: Path) -> None:
    with Careless(tmp_path, domains=(DOMAIN,), users=("admin", "inbox"), tls=True) as running:
        findings = bad(check(running, rules()))
    assert [one.level for one in findings] == [Level.FAILURE, Level.FAILURE]
    door, size = (one.words for one in findings)
    assert "without a login" in door
    assert "10,240,000" in size


def test_a_server_that_is_down_is_one_failure(tmp_path: Path) -> None:
    with started("postfix", tmp_path, tls=False) as running:
        running.halt()
        findings = check(running, rules())
    assert [one.level for one in findings] == [Level.FAILURE]
    assert "Start the mail server" in findings[0].next
