"""What Postfix's files say; with a Postfix: tests/real."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from drain import envfile
from drain.errors import ConfigError
from drain.setup import plan as planning, postfix
from drain.setup.plan import Plan
from drain.setup.postfix_place import Place, check_maildirs, owner_of_mail


def plan(folder: Path, *mailboxes: str, **settings: str) -> Plan:
    envfile.change(folder / "drain.env", {"MAIL_DOMAIN": "example.test", **settings})
    return planning.make({"DRAIN_ENV_FILE": str(folder / "drain.env")}, mailboxes)


def test_the_usual_place_is_etc_postfix_and_another_brings_its_own_folders() -> None:
    usual = Place.of({})
    assert (usual.etc, usual.queue, usual.data) == tuple(
        map(Path, ("/etc/postfix", "/var/spool/postfix", "/var/lib/postfix"))
    )
    other = Place.of({"MAIL_CONFIG": "/srv/etc/postfix-drain"})
    assert (other.queue, other.maildirs) == (Path("/srv/var/spool/postfix-drain"), Path("/srv/var/mail/vhosts"))
    assert not other.units


@pytest.mark.parametrize("place", ["/srv/postfix", "etc/postfix"])
def test_a_folder_that_is_in_no_etc_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="is not a folder within an etc/"):
        Place.of({"MAIL_CONFIG": place})


def test_the_mail_belongs_to_nobody_who_is_root() -> None:
    assert all(number > 0 for number in owner_of_mail())


def test_the_persons_lines_stay_and_only_what_is_missing_is_added(tmp_path: Path) -> None:
    file = tmp_path / "mailboxes"
    file.write_bytes(b"# mine \xff\nADMIN@example.test elsewhere/\n  \nbob@example.test b/")
    made = postfix.mailboxes(file, plan(tmp_path, "BOB", "carol"))
    assert made == (
        b"# mine \xff\nADMIN@example.test elsewhere/\n  \nbob@example.test b/\n"
        b"inbox@example.test example.test/inbox/\ncarol@example.test example.test/carol/\n"
    )
    file.write_bytes(made)
    assert postfix.mailboxes(file, plan(tmp_path, "bob", "carol")) == made


def test_spam_has_its_folder_within_the_mailbox(tmp_path: Path) -> None:
    made = postfix.mailboxes(tmp_path / "mailboxes", plan(tmp_path, SPAM_RCPT="+junk", INJECT_RCPT="none"))
    assert made == b"admin@example.test example.test/admin/\nadmin+junk@example.test example.test/admin/.Junk/\n"


@pytest.mark.parametrize("local", ["a/b", "..", "#x", "a}b", "a{b", "a$b", "$myhostname", "a=b", "a..b"])
def test_a_name_that_is_no_folders_is_refused(tmp_path: Path, local: str) -> None:
    settings = {"MAIL_ADMIN_LOCALPART": f"'{local}'" if local == "'" else local}
    with pytest.raises(ConfigError, match="cannot be a mailbox of Postfix"):
        postfix.mailboxes(tmp_path / "mailboxes", plan(tmp_path, **settings))


def test_of_a_parameter_in_both_parts_the_later_line_alone_is_left() -> None:
    main = "# why\nrelayhost = a\n# kept\nmyhostname = m\n"
    part = "relayhost = b\ncanonical_maps = inline:{ @$myhostname=x }\n"
    assert postfix.merged(main, part) == "# why\n# kept\nmyhostname = m\n\n" + part


@pytest.mark.parametrize("local", ["a.b", "o'neil", "b\u00fccher", "a+b", "a_b-c"])
def test_a_usual_name_is_a_mailbox(tmp_path: Path, local: str) -> None:
    made = postfix.mailboxes(tmp_path / "mailboxes", plan(tmp_path, local))
    assert f"\n{local}@example.test example.test/{local}/\n".encode() in made


@pytest.mark.parametrize(
    ("user", "password", "name"),
    [
        ("u", "p\n[other]:25 u:p", "SMARTHOST_PASS"),
        ("u", "p ", "SMARTHOST_PASS"),
        (" u", "p", "SMARTHOST_USER"),
        ("u:v", "p", "SMARTHOST_USER"),
    ],
)
def test_a_login_that_postfix_would_read_otherwise_is_refused(user: str, password: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} has") as caught:
        postfix._login(user, password)
    assert password not in str(caught.value)
    assert postfix._login("u@x.test", "p:q r") == "u@x.test:p:q r"


def test_maildirs_of_another_user_are_not_taken_over(tmp_path: Path) -> None:
    place = Place(tmp_path, "postfix")
    mail = place.maildirs / "example.net/bob/new"
    mail.mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"belongs to user {os.geteuid()}, and is not empty"):
        check_maildirs(place, owner_of_mail()[0])
    shutil.rmtree(place.maildirs / "example.net")
    check_maildirs(place, owner_of_mail()[0])


def test_a_port_that_another_program_has_is_said_before_anything_is_done(tmp_path: Path) -> None:
    place = Place(tmp_path, "postfix")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"Another program has port {port} .*Choose another INJECT_PORT"):
            place.check_port(port, {})
    place.check_port(port, {})
