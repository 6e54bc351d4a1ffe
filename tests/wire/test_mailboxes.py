"""Asking a mailbox over the wire: what is believed, what is not, and that no answer is waited for too long."""

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drain.imap import _Alarm
from drain.ledger import Ledger
from drain.listing import ListedObject
from drain.login import Server
from drain.mail import Mail
from drain.mailboxes import Login, Mailboxes, Presence
from drain.setting import Secret
from drain.stamp import load
from drain.state import Row, State
from drain.sweep import Sweep
from tests.http_fake import tls_server
from tests.imap_fake import DRIP, DROP, HANG, FakeImap
from tests.smtp_fake import DROP as DROP_REPLY
from tests.support import MAIL, House, free_port, on_verb

ALICE = "alice@example.test"
VALUE = "ab" * 32
STAMPED = b"X-Drain-Id: " + VALUE.encode() + b"\r\n"
IMPATIENT_SECONDS = 0.4
GRACE_SECONDS = 120


@pytest.fixture
def imap() -> Iterator[FakeImap]:
    with FakeImap() as server:
        yield server


def mailboxes(imap: FakeImap, *, tls: str = "none", ca_file: str = "", seconds: float = 5.0) -> Mailboxes:
    server = Server("127.0.0.1", imap.port, "", Secret(""), tls, ca_file, name="IMAP server", settings="VERIFY_IMAP")
    return Mailboxes(server, {ALICE: Login("alice", Secret("pw"))}, GRACE_SECONDS, seconds)


def presence(imap: FakeImap) -> Presence:
    return mailboxes(imap).ask(ALICE, VALUE).presence


def only(verb: str, said: bytes) -> Callable[[str, bytes], bytes | None]:
    return lambda asked, argument: said if asked == verb else None


# -- what is believed --


def test_a_mail_is_found_by_its_mark_and_nothing_is_changed_there(imap: FakeImap) -> None:
    imap.folders = {b'"INBOX"': [b"X-Drain-Id: " + b"cd" * 32 + b"\r\n", STAMPED]}
    answer = mailboxes(imap).ask(ALICE, VALUE)
    assert (answer.presence, answer.words) == (Presence.THERE, "Found in INBOX.")
    verbs = {line.split()[1] for line in imap.commands}
    assert verbs == {b"CAPABILITY", b"AUTHENTICATE", b"LIST", b"EXAMINE", b"UID", b"LOGOUT"}
    assert imap.said(b"UID")[0] == b"SEARCH HEADER X-Drain-Id " + VALUE.encode()
    assert b"BODY.PEEK[" in imap.said(b"UID")[1]


@pytest.mark.parametrize(
    "header",
    [
        b"X-Drain-Id: " + VALUE.encode() + b"00\r\n",
        b"X-Drain-Id: 00\r\nX-Drain-Id: " + VALUE.encode() + b"\r\n",  # below another: the sender's
        b"X-Drain-Id: re " + VALUE.encode() + b"\r\n",
    ],
)
def test_a_value_that_only_holds_the_one_looked_for_is_another(imap: FakeImap, header: bytes) -> None:
    imap.folders = {b'"INBOX"': [header]}
    assert presence(imap) is Presence.ABSENT
    assert len(imap.said(b"UID")) == 2, "it was looked at"


def test_all_folders_are_looked_into_the_likely_first_and_the_inbox_again_last(imap: FakeImap) -> None:
    imap.listed = (
        b'* LIST (\\HasNoChildren) "." "Archive"\r\n'
        b'* LIST (\\Noselect) "." "Parent"\r\n'
        b'* LIST (\\NonExistent \\HasChildren) "." "Gone"\r\n'
        b'* LIST (\\Junk) "." "Unwanted"\r\n'
        b'* LIST () "." Parent.Spam\r\n'
        b"* LIST () NIL inbox\r\n"
        b'* LIST () "\\\\" {9}\r\nEnd "q" \\\r\n'
        b'* LIST () "/" "Entw&APw-rfe \\"a\\\\b"\r\n'
    )
    assert presence(imap) is Presence.ABSENT
    assert imap.said(b"EXAMINE") == [
        b'"inbox"',
        b'"Unwanted"',
        b'"Parent.Spam"',
        b'"Archive"',
        b'"End \\"q\\" \\\\"',
        b'"Entw&APw-rfe \\"a\\\\b"',
        b'"inbox"',
    ]


def test_what_a_person_moves_to_the_inbox_meanwhile_is_found(imap: FakeImap) -> None:
    imap.folders = {b'"INBOX"': [], b'"Junk"': [STAMPED]}

    def moved(verb: str, argument: bytes) -> None:
        if verb == "EXAMINE" and argument == b'"Junk"':
            imap.folders = {b'"INBOX"': [STAMPED], b'"Junk"': []}

    imap.answer = moved
    assert mailboxes(imap).ask(ALICE, VALUE).words == "Found in INBOX."


def test_the_folder_is_named_as_the_person_knows_it_and_safe_to_show(imap: FakeImap) -> None:
    imap.folders = {b'"Entw&APw-rfe &- \x1b[2J"': [STAMPED]}
    assert mailboxes(imap).ask(ALICE, VALUE).words == "Found in Entwürfe &  [2J."


# -- what is not known is not "absent" --


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("CONNECT", b"* BYE too many"),
        ("CONNECT", b"* PREAUTH welcome"),
        ("CONNECT", b"220 mail.example.test ESMTP"),
        ("CONNECT", DROP),
        ("CAPABILITY", b"* CAPABILITY IMAP4rev1 LOGINDISABLED\r\nOK done"),
        ("CAPABILITY", b"* CAPABILITY IMAP4rev1 \xff\r\nOK done"),
        ("AUTHENTICATE", b"NO [AUTHENTICATIONFAILED] no"),
        ("AUTHENTICATE", b"NO [UNAVAILABLE] later"),
        ("AUTHENTICATE", DROP),
        ("LIST", b"NO not now"),
        ("LIST", b"BAD what"),
        ("LIST", b"* LIST () NIL {99999999999999}\r\nOK"),
        ("LIST", b'* LIST () "/" "B\xfcro"\r\nOK done'),
        ("EXAMINE", b"NO [SERVERBUG] Internal error"),
        ("EXAMINE", DROP),
        ("EXAMINE", b"* BYE shutting down\r\nOK"),
        ("UID", b"NO [UNAVAILABLE] index is locked"),
        ("UID", b"BAD what"),
        ("UID", DROP),
        ("UID", b"* SEARCH 1\r\n* 1 FETCH (UID 1 BODY[] {500}\r\nX-Dr\r\n" + DROP),
    ],
)
def test_a_mailbox_that_cannot_be_asked_is_unknown_and_the_words_say_who_it_was(
    imap: FakeImap, verb: str, said: bytes
) -> None:
    imap.folders = {b'"INBOX"': [b"X-Drain-Id: 0\r\n"]}
    imap.answer = only(verb, said)
    answer = mailboxes(imap).ask(ALICE, VALUE)
    assert answer.presence is Presence.UNKNOWN
    assert f"127.0.0.1:{imap.port}" in answer.words
    assert "pw" not in answer.words


def test_a_search_without_an_answer_is_unknown(imap: FakeImap) -> None:
    imap.folders = {b'"INBOX"': [STAMPED]}
    imap.answer = only("UID", b"OK done")
    assert presence(imap) is Presence.UNKNOWN


def test_a_mail_that_is_found_and_cannot_be_fetched_is_not_taken_for_absent(imap: FakeImap) -> None:
    imap.folders = {b'"INBOX"': [], b'"Junk"': [STAMPED]}
    imap.answer = lambda verb, argument: b"NO [SERVERBUG]" if argument.startswith(b"FETCH") else None
    assert presence(imap) is Presence.UNKNOWN


def test_a_folder_that_cannot_be_opened_makes_it_unknown_but_not_where_another_has_the_mail(imap: FakeImap) -> None:
    imap.folders = {b'"INBOX"': [], b'"Shared"': []}
    imap.answer = lambda verb, argument: b"NO broken" if argument == b'"Shared"' else None
    answer = mailboxes(imap).ask(ALICE, VALUE)
    assert answer.presence is Presence.UNKNOWN
    assert "'Shared'" in answer.words
    imap.folders[b'"Z"'] = [STAMPED]
    assert presence(imap) is Presence.THERE


@pytest.mark.parametrize("code", [b"[NONEXISTENT]", b"[NOPERM]"])
def test_a_folder_that_is_gone_meanwhile_or_somebody_elses_is_passed_over(imap: FakeImap, code: bytes) -> None:
    imap.folders = {b'"INBOX"': [], b'"Shared"': []}
    imap.answer = lambda verb, argument: b"NO " + code + b" not yours" if argument == b'"Shared"' else None
    assert presence(imap) is Presence.ABSENT


def test_more_folders_than_are_looked_into_are_not_taken_for_empty(imap: FakeImap) -> None:
    imap.listed = b"".join(b'* LIST () "/" f%d\r\n' % number for number in range(1001))
    assert presence(imap) is Presence.UNKNOWN
    assert len(imap.said(b"EXAMINE")) == 1001, "1000, and the first again"


@pytest.mark.parametrize("silence", [HANG, DRIP])
@pytest.mark.parametrize("verb", ["CONNECT", "AUTHENTICATE", "LIST", "EXAMINE", "UID", "LOGOUT"])
def test_no_server_holds_drain_longer_than_its_time(imap: FakeImap, verb: str, silence: bytes) -> None:
    imap.folders = {b'"INBOX"': [STAMPED]}
    imap.answer = only(verb, silence)
    begun = time.monotonic()
    answer = mailboxes(imap, seconds=IMPATIENT_SECONDS).ask(ALICE, VALUE)
    assert time.monotonic() - begun < IMPATIENT_SECONDS + 1
    if verb == "LOGOUT":
        assert answer.presence is Presence.THERE, "it was known before"
    else:
        assert answer.presence is Presence.UNKNOWN
        assert "did not answer within 0.4 s" in answer.words


def test_a_handshake_that_never_ends_is_broken_off(imap: FakeImap) -> None:
    imap.answer = only("CONNECT", HANG)  # no TLS there: it waits for a first word
    begun = time.monotonic()
    answer = mailboxes(imap, tls="implicit", seconds=IMPATIENT_SECONDS).ask(ALICE, VALUE)
    assert time.monotonic() - begun < IMPATIENT_SECONDS + 1
    assert answer.presence is Presence.UNKNOWN


def test_a_connection_that_comes_when_the_time_is_up_is_not_used(imap: FakeImap) -> None:
    """A name that is found late: there was nothing to shut down yet."""
    alarm = _Alarm(0.0)
    alarm._timer.join(5)
    connection = socket.create_connection(("127.0.0.1", imap.port), 5)
    with pytest.raises(TimeoutError):
        alarm.watch(connection)
    assert connection.fileno() == -1


def test_nobody_there_is_unknown() -> None:
    answer = mailboxes(FakeImap(port=free_port())).ask(ALICE, VALUE)
    assert answer.presence is Presence.UNKNOWN
    assert "refuses connections" in answer.words
    assert "VERIFY_IMAP_PORT" in answer.words


# -- TLS --


def test_the_certificate_is_pinned(tmp_path: Path) -> None:
    ours, stranger = tmp_path / "ours", tmp_path / "stranger"
    ours.mkdir()
    stranger.mkdir()
    context, certificate = tls_server(ours)
    _, other = tls_server(stranger)
    with FakeImap({b'"INBOX"': [STAMPED]}, tls=context) as imap:
        pinned = mailboxes(imap, tls="implicit", ca_file=str(certificate))
        assert pinned.ask(ALICE, VALUE).presence is Presence.THERE
        for ca_file in (str(other), ""):
            answer = mailboxes(imap, tls="implicit", ca_file=ca_file).ask(ALICE, VALUE)
            assert answer.presence is Presence.UNKNOWN
            assert "VERIFY_IMAP_TLS_CA_FILE" in answer.words
        assert len(imap.said(b"AUTHENTICATE")) == 1, "a stranger gets no password"
        unreadable = mailboxes(imap, tls="implicit", ca_file=str(tmp_path / "none")).ask(ALICE, VALUE)
        assert unreadable.presence is Presence.UNKNOWN
        assert "cannot be read" in unreadable.words


def test_no_password_is_said_where_starttls_is_due_and_not_offered(imap: FakeImap) -> None:
    assert mailboxes(imap, tls="starttls").ask(ALICE, VALUE).presence is Presence.UNKNOWN
    assert not imap.said(b"AUTHENTICATE")


# -- the probe --


def test_the_probe_says_which_login_fails(imap: FakeImap) -> None:
    logins = {ALICE: Login("alice", Secret("pw")), "*": Login("%*master", Secret("mpw"))}
    several = Mailboxes(mailboxes(imap).server, logins, 0)
    assert several.probe("bob@example.test") == {ALICE: "", "bob@example.test": ""}
    imap.answer = only("AUTHENTICATE", b"NO wrong")
    failed = several.probe("bob@example.test")
    assert "refused the login of alice: wrong" in failed[ALICE]
    assert "refused the login of bob@example.test*master: wrong" in failed["bob@example.test"]
    assert "pw" not in str(failed)


# -- a pass that finds a mail injecting --


class Resumed:
    """A drain that may look into alice's mailbox, and was cut off after the final dot."""

    def __init__(self, house: House, imap: FakeImap, raw: bytes = MAIL) -> None:
        self.house, self.imap = house, imap
        self.mail = Mail(raw, ALICE, "a@x.test")
        self.path = house.state_dir / "ledger.db"
        logins = house.state_dir / "logins"
        house.put("one", raw)
        house.smtp.answer = on_verb("FILED", DROP_REPLY)
        house.sweep().run()
        logins.write_text(f"{ALICE}: alice pw\n")
        logins.chmod(0o600)
        self.settings = {
            "VERIFY_IMAP_HOST": "127.0.0.1",
            "VERIFY_IMAP_PORT": str(imap.port),
            "VERIFY_IMAP_TLS": "none",
            "VERIFY_IMAP_LOGINS_FILE": str(logins),
            "VERIFY_IMAP_GRACE": str(GRACE_SECONDS),
        }
        # A process that died there writes no more than this.
        self.change("next_attempt_at = NULL, reason = NULL, words = NULL, attempts = 0")
        assert self.row.state is State.INJECTING

    @property
    def sweep(self) -> Sweep:
        return self.house.sweep(**self.settings)

    @property
    def row(self) -> Row:
        ledger = Ledger(self.path)
        row = ledger.find(self.mail.identity)
        ledger.close()
        assert row is not None
        return row

    @property
    def history(self) -> list[tuple[str, str]]:
        ledger = Ledger(self.path)
        events = ledger.history.of(self.mail.identity)
        ledger.close()
        return [(event.what, event.words) for event in events]

    def change(self, values: str) -> None:
        with sqlite3.connect(self.path) as database:
            database.execute(f"UPDATE mail SET {values}")
        database.close()

    def pass_after(self, seconds: float) -> str:
        """The next pass; how the mail stands after it."""
        self.house.now += seconds
        summary = self.sweep.run()
        assert summary.error is None
        return self.row.state.value

    def file(self) -> None:
        stamp = load(self.house.state_dir).header(self.mail.identity)
        self.imap.folders = {b'"INBOX"': [], b'"Junk"': [stamp]}

    @property
    def copies(self) -> int:
        return len(self.house.smtp.filed)


@pytest.fixture
def resumed(house: House, imap: FakeImap) -> Resumed:
    return Resumed(house, imap)


def test_a_mail_that_is_found_is_not_sent_again(resumed: Resumed) -> None:
    resumed.file()
    assert resumed.pass_after(1) == "settled"
    assert resumed.copies == 1
    assert resumed.row.reinjections == 0
    assert len(resumed.house.keys("processed/")) == 1
    assert ("delivered", "Found in Junk.") in resumed.history
    (said,) = [event for event in resumed.house.events("mail") if event["state"] == "delivered"]
    assert (said["why"], said["mailbox"], said["reply"]) == ("found", ALICE, "Found in Junk.")


def test_a_mail_not_found_is_sent_again_after_the_grace_and_not_before(resumed: Resumed) -> None:
    # However long ago it was sent: who sent it may have died just now.
    assert resumed.pass_after(86400) == "injecting"
    assert resumed.pass_after(GRACE_SECONDS - 1) == "injecting"
    assert (resumed.copies, resumed.imap.connections) == (1, 1), "asked once, and then when it is due"
    assert (resumed.row.reason, resumed.row.attempts) == ("looked-for", 0)
    assert resumed.pass_after(1) == "settled"
    assert (resumed.copies, resumed.row.reinjections) == (2, 1)
    (said,) = resumed.house.events("again")
    assert "in no folder of its mailbox. It is sent again." in said["message"]


def test_a_mail_that_is_filed_within_the_grace_is_found(resumed: Resumed) -> None:
    assert resumed.pass_after(1) == "injecting"
    resumed.file()
    assert resumed.pass_after(GRACE_SECONDS) == "settled"
    assert resumed.copies == 1


def test_a_mailbox_that_cannot_be_asked_holds_a_mail_back_for_an_hour_at_most(resumed: Resumed) -> None:
    resumed.imap.answer = only("AUTHENTICATE", b"NO [UNAVAILABLE] later")
    looks = []
    for second in range(0, 3600, 60):
        before = resumed.imap.connections
        assert resumed.pass_after(60) == "injecting", second
        looks += [second] * (resumed.imap.connections - before)
    assert looks == [0, 60, 120, 240, 480, 960, 1920]
    assert resumed.copies == 1
    assert resumed.pass_after(60) == "settled"
    assert (resumed.copies, resumed.row.reinjections) == (2, 1)
    (said,) = resumed.house.events("again")
    assert "[UNAVAILABLE] later" in said["message"]
    assert said["message"].endswith("This mail may come twice.")


def test_a_mailbox_that_can_be_asked_again_is(resumed: Resumed) -> None:
    resumed.imap.answer = only("CONNECT", DROP)
    assert resumed.pass_after(1) == "injecting"
    resumed.imap.answer = lambda verb, argument: None
    resumed.file()
    assert resumed.pass_after(60) == "settled"
    assert resumed.copies == 1


def test_a_lost_reply_is_looked_for_when_its_wait_is_over_and_no_grace_is_added(house: House, imap: FakeImap) -> None:
    resumed = Resumed(house, imap)
    resumed.change(f"next_attempt_at = {house.now + 300}, reason = 'no-reply'")
    assert resumed.pass_after(299) == "injecting"
    assert imap.connections == 0
    assert resumed.pass_after(1) == "settled"
    assert (resumed.copies, imap.connections) == (2, 1)


@pytest.mark.parametrize("said", [None, b"NO later"])
def test_a_clock_that_is_set_back_does_not_hold_a_mail_for_ever(resumed: Resumed, said: bytes | None) -> None:
    resumed.imap.answer = lambda verb, argument: said if verb == "AUTHENTICATE" else None
    assert resumed.pass_after(1) == "injecting"
    assert resumed.pass_after(-10 * 365 * 86400) == "injecting"
    assert resumed.pass_after(3600) == "settled"
    assert resumed.copies == 2


def test_a_mailbox_without_a_login_is_not_asked(resumed: Resumed) -> None:
    Path(resumed.settings["VERIFY_IMAP_LOGINS_FILE"]).write_text("bob@example.test: bob pw\n")
    assert resumed.pass_after(1) == "settled"
    assert (resumed.copies, resumed.imap.connections) == (2, 0)
    (said,) = resumed.house.events("again")
    assert "no login" in said["message"]


def test_a_mail_that_has_no_mark_is_not_looked_for(house: House, imap: FakeImap) -> None:
    resumed = Resumed(house, imap, b"From a@x.test Mon Jan  1 00:00:00 2026\r\nSubject: s\r\n\r\nhello\r\n")
    assert resumed.pass_after(1) == "settled"
    assert (resumed.copies, imap.connections) == (2, 0)


def test_a_mail_that_lies_there_twice_is_asked_for_once(resumed: Resumed) -> None:
    resumed.house.put("two")
    assert resumed.pass_after(1) == "injecting"
    assert resumed.imap.connections == 1
    resumed.file()
    assert resumed.pass_after(GRACE_SECONDS) == "settled"
    resumed.pass_after(1)
    assert (resumed.copies, resumed.imap.connections) == (1, 2)
    assert resumed.house.keys("pending/") == []


def test_a_replay_that_was_cut_off_is_not_taken_for_there_because_of_the_old_copy(resumed: Resumed) -> None:
    resumed.file()
    assert resumed.pass_after(1) == "settled"
    house = resumed.house
    (key,) = house.keys("processed/")
    stored = house.s3.objects[key]
    ledger = Ledger(resumed.path)
    ledger.replay(ListedObject(key, stored.etag, stored.last_modified, len(stored.body)), resumed.mail, house.now)
    ledger.close()
    house.smtp.answer = on_verb("DOT", DROP_REPLY)
    house.sweep(**resumed.settings).run()
    assert resumed.row.state is State.INJECTING
    asked, copies = resumed.imap.connections, resumed.copies
    assert resumed.pass_after(3600) == "settled"
    assert (resumed.imap.connections, resumed.copies) == (asked, copies + 1)
    assert "It was delivered before" in house.events("again")[-1]["message"]


def test_a_released_mail_that_was_cut_off_is_looked_for_and_moved_from_quarantine(resumed: Resumed) -> None:
    house = resumed.house
    (key,) = house.keys("pending/")
    place = f"quarantine/{resumed.mail.identity}-one"
    house.s3.objects[place] = house.s3.objects.pop(key)
    resumed.change("released = 1")
    with sqlite3.connect(resumed.path) as database:
        database.execute("UPDATE object SET key = ?", (place,))
    database.close()
    resumed.file()
    assert resumed.pass_after(1) == "settled"
    assert resumed.copies == 1
    assert house.keys("quarantine/") == []
    assert len(house.keys("processed/")) == 1
