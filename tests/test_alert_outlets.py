"""What the ways out say of an alert."""

import dataclasses
import email.policy
from collections.abc import Mapping
from email import message_from_bytes
from email.message import EmailMessage
from typing import Any

import pytest

from drain.alerts.alert import Alert, AlertState, Kind
from drain.alerts.hook import environment
from drain.alerts.letter import Letter
from drain.alerts.message import MOST_CHARACTERS, message
from drain.login import Server
from drain.setting import Secret
from drain.settings import SETTINGS

WORDS = "12 mails wait, the oldest for 3.5 days."
ALERT = Alert(Kind.BACKLOG_AGE, "", AlertState.ON, WORDS, 12, 302_400.4, 1_800_000_000.0)
SERVER = Server("127.0.0.1", 1, "drain", Secret("s3cret"), "auto", "")
ADMIN = "admin@example.test"


def alert(**changes: Any) -> Alert:
    return dataclasses.replace(ALERT, **changes)


def letter(told: Alert = ALERT, mailbox: str = ADMIN, prefix: str = "drain on pi") -> EmailMessage:
    raw = Letter(SERVER, mailbox, prefix, lambda: 1_800_000_100.0).build(told)
    read = message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(read, EmailMessage)
    assert not read.defects
    return read


def environ(told: Alert = ALERT, ours: Mapping[str, str] | None = None) -> dict[str, str]:
    return environment(ours or {}, told, message("drain on pi", told))


# -- the message --


def test_the_message_is_the_prefix_and_the_words() -> None:
    assert message("drain on pi", ALERT) == f"drain on pi: {WORDS}"


def test_the_message_is_one_line_without_control_characters() -> None:
    assert message("a\nb", alert(words="c\r\nd\x1b[2J\u202ee\x00\ud800")) == "a b: c  d [2J e  "


def test_a_long_message_is_cut_and_a_long_prefix_leaves_room_for_the_words() -> None:
    assert len(message("p" * 5000, alert(words="\N{OK HAND SIGN}" * 5000))) == MOST_CHARACTERS
    assert len(message("drain", alert(words="\N{OK HAND SIGN}" * 5000)).encode()) < 4096, "a pipe takes it at once"
    assert WORDS in message("p" * 5000, ALERT)


# -- the environment of a hook --


def test_a_hook_is_told_by_its_environment() -> None:
    told = environ(alert(subject="dnsbl", state=AlertState.AGAIN))
    assert told == {
        "MAIL_ALERT_MSG": f"drain on pi: {WORDS}",
        "MAIL_ALERT_KIND": "backlog-age",
        "MAIL_ALERT_SUBJECT": "dnsbl",
        "MAIL_ALERT_STATE": "again",
        "MAIL_ALERT_COUNT": "12",
        "MAIL_ALERT_OLDEST_SECONDS": "302400",
    }


def test_what_is_not_known_is_empty() -> None:
    assert environ(alert(oldest_seconds=None))["MAIL_ALERT_OLDEST_SECONDS"] == ""


def test_no_value_can_break_a_line_or_end_a_string() -> None:
    told = environ(alert(subject="a\0b\nc", words="d\0e\nf"))
    assert not any(set(value) & set("\0\n") for value in told.values())


def test_a_hook_gets_no_secret_of_drains() -> None:
    secret = {name for name, setting in SETTINGS.items() if setting.secret}
    assert {"R2_SECRET_ACCESS_KEY", "INJECT_PASS", "ORIGIN_TOKEN", "NTFY_URL", "HEALTHCHECK_URL"} <= secret
    ours = dict.fromkeys([*secret, *(f"{name}_FILE" for name in secret)], "s3cret")
    systemd = ("CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
    ours |= dict.fromkeys(systemd, "s3cret")
    kept = {"PATH": "/bin", "HOME": "/root", "R2_BUCKET": "mail", "MY_LISTEN_HOST": "x", "LANG": "C.UTF-8"}
    assert environ(ours={**ours, **kept}) == {**environ(), **kept}


def test_what_the_alert_says_stands_over_what_was_there() -> None:
    assert environ(ours={"MAIL_ALERT_MSG": "the prefix", "MAIL_ALERT_KIND": "x"}) == environ()


# -- the letter --


def test_a_letter_says_what_it_is_about() -> None:
    read = letter()
    assert read["From"] == "drain on pi <admin@example.test>"
    assert read["To"] == "admin@example.test"
    assert read["Subject"] == "drain on pi: backlog-age"
    assert read["Date"] == "Fri, 15 Jan 2027 08:01:40 +0000"
    assert read["Auto-Submitted"] == "auto-generated"
    assert f"drain on pi: {WORDS}" in read.get_content()
    assert "drain status" in read.get_content()


@pytest.mark.parametrize(("state", "ending"), [(AlertState.AGAIN, ": still so"), (AlertState.OVER, ": over")])
def test_a_letters_subject_has_the_state(state: AlertState, ending: str) -> None:
    told = alert(kind=Kind.FILTER, subject="dnsbl", state=state)
    assert letter(told)["Subject"] == f"drain on pi: filter dnsbl{ending}"


def test_the_same_alert_has_the_same_message_id_and_another_has_another() -> None:
    assert letter()["Message-ID"] == letter()["Message-ID"]
    others = [alert(kind=Kind.BUCKET), alert(subject="x"), alert(state=AlertState.OVER), alert(at=1_800_000_001.0)]
    ids = {letter(told)["Message-ID"] for told in [ALERT, *others]} | {letter(prefix="drain on attic")["Message-ID"]}
    assert len(ids) == 6
    assert all(one.endswith("@example.test>") for one in ids)


def test_a_letter_is_ascii_whatever_it_says() -> None:
    words = "Zürich: „kein Schlüssel“ " * 20
    raw = Letter(SERVER, ADMIN, "drain für Jürgen", lambda: 0.0).build(alert(words=words, subject="größe"))
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) < 100
    read = letter(alert(words=words, subject="größe"), prefix="drain für Jürgen")
    assert read["Subject"] == "drain für Jürgen: backlog-age größe"
    assert read["From"].addresses[0].display_name == "drain für Jürgen"
    assert words.strip() in read.get_content().replace("\n", " ")


def test_a_letter_to_a_mailbox_that_is_not_ascii_names_it_as_it_is() -> None:
    raw = Letter(SERVER, "bär@example.test", "drain", lambda: 0.0).build(ALERT)
    assert "To: bär@example.test\r\n".encode() in raw


def test_no_words_can_add_a_header_to_a_letter() -> None:
    read = letter(alert(subject="x\r\nBcc: eve@example.net", words="y\r\n\r\n.\r\nRSET"), prefix="z\r\nX-Evil: 1")
    assert read["Bcc"] is None
    assert read["X-Evil"] is None
