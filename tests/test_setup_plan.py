"""What a mail server is set up from."""

import contextlib
import os
import tempfile
from pathlib import Path

import pytest

from drain import envfile
from drain.errors import ConfigError, WrongUse
from drain.setup import plan as planning
from drain.setup.plan import Plan, Relay, Smarthost


def plan(folder: Path, *mailboxes: str, outbound: str | None = None, **settings: str) -> Plan:
    path = folder / "drain.env"
    envfile.change(path, {"MAIL_DOMAIN": "example.test,second.test", "STATE_DIR": str(folder), **settings})
    return planning.make({"DRAIN_ENV_FILE": str(path)}, mailboxes, outbound)


def test_the_fallbacks_are_full_addresses_with_the_admins_first_and_each_once(tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text("info: bob\n")
    made = plan(
        tmp_path, "ALICE", "carol@second.test", "Inbox", SPAM_RCPT="spam", MAIL_ALIASES_FILE=str(tmp_path / "aliases")
    )
    assert made.mailboxes == (
        "admin@example.test",
        "inbox@example.test",
        "spam@example.test",
        "bob@example.test",
        "ALICE@example.test",
        "carol@second.test",
    )
    assert made.admin == "admin@example.test"


def test_without_a_catch_all_there_is_none_among_them(tmp_path: Path) -> None:
    made = plan(tmp_path, INJECT_RCPT="none", SPAM_RCPT="+junk")
    assert made.mailboxes == ("admin@example.test",)
    assert made.junk_folder


@pytest.mark.parametrize(
    "word", ["bob@elsewhere.test", "two words", "@example.test", "b<b@example.test", "-x", "-x@example.test"]
)
def test_a_mailbox_that_cannot_be_one_is_wrong_use(tmp_path: Path, word: str) -> None:
    with pytest.raises(WrongUse, match="is no mailbox in MAIL_DOMAIN"):
        plan(tmp_path, word)


def test_a_login_is_made_once_and_only_where_there_is_none(tmp_path: Path) -> None:
    made, again = plan(tmp_path), plan(tmp_path)
    assert made.new_login["INJECT_USER"] == made.user == "drain"
    assert len(made.password.reveal()) >= 32
    assert made.password.reveal() != again.password.reveal()
    assert made.password.reveal() not in repr(made.password)
    kept = plan(tmp_path, INJECT_USER="me", INJECT_PASS="mine")
    assert (kept.user, kept.password.reveal(), dict(kept.new_login)) == ("me", "mine", {})


def test_outgoing_mail_goes_as_drain_env_says_or_as_the_person_says(tmp_path: Path) -> None:
    assert plan(tmp_path).outbound is None
    smarthost = plan(tmp_path, SMARTHOST_HOST="smtp.example.net", SMARTHOST_USER="u", SMARTHOST_PASS="p").outbound
    assert isinstance(smarthost, Smarthost)
    assert smarthost.places == (("smtp.example.net", 587),)
    relay = plan(tmp_path, RELAY_ENABLED="true", RELAY_PORT="2626").outbound
    assert relay == Relay(2626, tmp_path / "relay-users", enabled=True)
    assert isinstance(plan(tmp_path, outbound="smarthost").outbound, Smarthost)
    assert plan(tmp_path, outbound="none").outbound is None
    assert plan(tmp_path, outbound="relay", RELAY_ENABLED="false").outbound == Relay(
        2626, tmp_path / "relay-users", enabled=False
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"MAIL_DOMAIN": ""}, "MAIL_DOMAIN is not set"),
        ({"INJECT_HOST": "192.0.2.1"}, "sets up the mail server of this machine"),
        ({"INJECT_HOST": "::1"}, r"on 127\.0\.0\.1\. Leave INJECT_HOST out"),
        ({"INJECT_USER": "-d"}, "INJECT_USER '-d' can be no login"),
        ({"MAIL_ADMIN_LOCALPART": "-x"}, "'-x@example.test' can be no mailbox"),
        ({"RELAY_ENABLED": "true", "RELAY_HOST": "::1"}, "would log in to it on 127.0.0.1"),
        ({"RELAY_ENABLED": "true", "RELAY_HOST": "192.0.2.1"}, "would log in to it on 127.0.0.1"),
        ({"SMARTHOST_HOST": "192.0.2.1", "SMARTHOST_USER": "u"}, "SMARTHOST_USER and SMARTHOST_PASS go together"),
        ({"SMARTHOST_HOST": "192.0.2.1", "SMARTHOST_TLS": "none"}, "SMARTHOST_TLS=none is for loopback only"),
    ],
)
def test_settings_that_do_not_fit_are_said(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan(tmp_path, **settings)


def test_straight_to_a_smarthost_wants_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SMARTHOST_HOST is not set"):
        plan(tmp_path, outbound="smarthost")


def test_drain_env_has_to_be_a_file_since_it_is_written(tmp_path: Path) -> None:
    for place in ("/dev/null", str(tmp_path)):
        with pytest.raises(ConfigError, match="is no file"):
            planning.make({"DRAIN_ENV_FILE": place, "MAIL_DOMAIN": "example.test"})


def test_a_drain_env_that_is_not_there_yet_is_made_room_for(tmp_path: Path) -> None:
    path = tmp_path / "new folder/drain.env"
    made = planning.make({"DRAIN_ENV_FILE": str(path), "MAIL_DOMAIN": "example.test"})
    assert made.env_file == path
    assert made.pinned == tmp_path / "new folder/mail-server.pem"
    assert not path.parent.exists()


def test_tls_that_the_listener_does_not_speak_is_changed(tmp_path: Path) -> None:
    pinned = str(tmp_path / "mail-server.pem")
    assert plan(tmp_path).settings == {"INJECT_TLS_CA_FILE": pinned}
    assert plan(tmp_path, INJECT_TLS="implicit").settings == {"INJECT_TLS": "auto", "INJECT_TLS_CA_FILE": pinned}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")
def test_what_root_writes_beside_a_users_files_is_the_users() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's folders are closed to others
        Path(name).chmod(0o755)
        folder = Path(name) / "drain"
        folder.mkdir(0o700)
        os.chown(folder, 65534, 65534)
        with planning.as_owner(folder / "deep/file"):
            (folder / "file").touch()
        assert (folder / "file").stat().st_uid == 65534
        assert os.geteuid() == 0
        with contextlib.suppress(KeyboardInterrupt), planning.as_owner(folder):
            raise KeyboardInterrupt
        assert (os.geteuid(), os.getegid()) == (0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led astray")
def test_drain_env_does_not_make_root_read_what_drains_user_could_not() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "drain"
        secret = Path(name) / "secret"
        secret.write_text("root's")
        secret.chmod(0o640)
        folder.mkdir(0o700)
        os.chown(folder, 65534, 65534)
        with planning.as_owner(folder):
            envfile.change(folder / "drain.env", {"MAIL_DOMAIN": "example.test", "INJECT_PASS_FILE": str(secret)})
        with pytest.raises(ConfigError, match="INJECT_PASS"):
            planning.make({"DRAIN_ENV_FILE": str(folder / "drain.env")})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")
def test_a_link_belongs_to_who_made_it(tmp_path: Path) -> None:
    link = tmp_path / "drain.env"
    link.symlink_to("/etc/hostname")
    os.lchown(link, 65534, 65534)
    assert planning.owner(link) == (65534, 65534)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")
def test_whom_root_becomes_is_in_none_of_roots_groups(tmp_path: Path) -> None:
    groups = os.getgroups()
    os.setgroups([0, 4])
    try:
        os.chown(tmp_path, 65534, 65534)
        with planning.as_owner(tmp_path):
            assert os.getgroups() == [65534]
        assert sorted(os.getgroups()) == [0, 4]
    finally:
        os.setgroups(groups)
