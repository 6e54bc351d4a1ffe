"""Alerts by mail, through real mail servers: what lies in the admin mailbox then."""

import email.policy
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drain.alerts.alert import Alert, AlertState, Kind, NotSent
from drain.alerts.letter import Letter
from drain.login import Server
from drain.setting import Secret
from tests.real.postfix import Postfix

if TYPE_CHECKING:
    from tests.real.conftest import Server as Running

ADMIN = "admin@example.test"
NOW = 1_800_000_000.0
ALERT = Alert(Kind.FILTER, "größe", AlertState.ON, "Zürich schweigt.\n.\nSeit gestern.", 12, None, NOW)


def letter(server: "Running", mailbox: str = ADMIN, password: str = "") -> Letter:
    login = Server(server.host, server.port, server.user, Secret(password or server.password), "auto", "")
    return Letter(login, mailbox, "drain für pi", lambda: NOW)


def never() -> bool:
    return False


def test_an_alert_lies_in_the_admin_mailbox(server: "Running") -> None:
    letter(server).send(ALERT, never)
    server.wait_until_filed()
    [filed] = server.mailbox(ADMIN)
    read = message_from_bytes(filed, policy=email.policy.default)
    assert not read.defects
    assert read["Return-Path"] == "<>"
    assert read["Subject"] == "drain für pi: filter größe"
    assert read["To"] == ADMIN
    assert read["Date"] == "Fri, 15 Jan 2027 08:00:00 +0000"
    assert read["Auto-Submitted"] == "auto-generated"
    assert read["Message-ID"].endswith(".alert@example.test>")
    assert "drain für pi: Zürich schweigt. . Seit gestern." in read.get_content()


def test_a_mailbox_that_is_not_there_is_named(server: "Running") -> None:
    with pytest.raises(NotSent, match=r"Is there a mailbox nobody@example\.test\? MAIL_ADMIN_LOCALPART"):
        letter(server, "nobody@example.test").send(ALERT, never)


def test_a_mailbox_that_is_full_is_tried_later(server: "Running") -> None:
    with pytest.raises(NotSent, match="at RCPT: 45"):
        letter(server, "full@example.test").send(ALERT, never)


def test_a_login_that_is_refused_is_said_without_the_password(server: "Running") -> None:
    with pytest.raises(NotSent, match="INJECT_PASS") as caught:
        letter(server, password="wr0ng").send(ALERT, never)
    assert "wr0ng" not in str(caught.value)
    assert server.mailbox(ADMIN) == []


def test_a_server_that_was_away_gets_it_when_it_is_back(postfix: Postfix, tmp_path: Path) -> None:
    postfix.clear()
    postfix.halt()
    try:
        with pytest.raises(NotSent, match="cannot be used"):
            letter(postfix).send(ALERT, never)
    finally:
        postfix.start()
    letter(postfix).send(ALERT, never)
    postfix.wait_until_filed()
    assert len(postfix.mailbox(ADMIN)) == 1
