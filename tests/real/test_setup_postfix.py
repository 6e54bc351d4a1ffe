"""`drain setup postfix` with a real Postfix, as a person calls it; and Dovecot beside it, by its template."""

import datetime
import imaplib
import os
import random
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from drain import envfile
from drain.errors import DrainError
from drain.relay.users import Users
from drain.setup import certificate
from drain.setup.template import filled
from tests.real.house import SENDER, as_filed, below_our_line
from tests.real.postfix_home import PostfixHome
from tests.real.r2 import R2
from tests.real.relay import RealRelay
from tests.real.server import HOST, await_listener, end, needed, output
from tests.real.smarthost import NAME, Smarthost, authority
from tests.smtp_fake import FakeSmtp
from tests.support import free_port, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="Postfix is set up by root")
ADMIN, INBOX = "admin@example.test", "inbox@example.test"
LARGEST = 25 * 1024 * 1024
CRON = b"From: root\nTo: bob@example.net\nSubject: from cron\n\nhello\n"
Make = Callable[..., PostfixHome]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    homes: list[PostfixHome] = []

    def one(**settings: str) -> PostfixHome:
        homes.append(PostfixHome(tmp_path / f"postfix-{len(homes)}.log", **settings))
        homes[-1].start()
        return homes[-1]

    yield one
    for home in homes:
        home.stop()


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostfixHome]:
    """One that was set up, for tests that do not change it."""
    with PostfixHome(tmp_path_factory.mktemp("setup") / "postfix.log", SPAM_RCPT="spam") as home:
        done = home.setup("--mailbox", "bob@second.test")
        assert done.returncode == 0, done.stdout + done.stderr
        home.said = done.stdout
        yield home


@pytest.fixture(scope="module")
def smarthost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smarthost]:
    with Smarthost(tmp_path_factory.mktemp("smarthost")) as running:
        yield running


def test_a_fresh_postfix_is_set_up_and_proven_without_a_question(ready: PostfixHome) -> None:
    for proven in (
        "It takes no mail from who has not logged in.",
        "It takes the login of drain.",
        "It takes mails of 36,700,160 bytes",
        f"It takes mail for {INBOX}, {ADMIN}, spam@example.test.",
    ):
        assert proven in ready.said
    settings = ready.settings()
    assert settings["INJECT_PASS"] not in ready.said
    assert settings["INJECT_TLS_CA_FILE"] == str(ready.env_file.parent / "mail-server.pem")
    assert ready.env_file.stat().st_mode & 0o777 == 0o600
    assert (ready.etc / "drain-key.pem").stat().st_mode & 0o777 == 0o600
    assert (ready.etc / "sasl/sasldb2").stat().st_mode & 0o777 == 0o640


def test_it_listens_on_loopback_only(ready: PostfixHome) -> None:
    lines = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    places = [line.split()[1] for line in lines[1:] if line.split()[0].endswith(":") and line.split()[3] == "0A"]
    assert [place for place in places if place.endswith(f":{ready.port:04X}")] == [f"0100007F:{ready.port:04X}"]


def test_a_second_run_finds_all_as_it_should_be_and_restarts_nothing(ready: PostfixHome) -> None:
    master, files = ready.master, ready.files()
    done = ready.setup()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Postfix is set up as it should be.\n")
    assert "start" not in done.stdout.partition("ok")[0]
    assert (ready.master, ready.files()) == (master, files)


def test_mail_of_25_mib_that_drain_injects_lies_in_the_mailbox_byte_for_byte(ready: PostfixHome, r2: R2) -> None:
    body = random.Random(7).randbytes(25 * 1024 * 1024 // 2).hex().encode()
    raw = b"From: a@x.test\r\nSubject: large\r\n\r\n\xff\x00 8-bit\r\n"
    raw += b"\r\n".join(body[at : at + 74] for at in range(0, len(body), 76))
    raw = raw[: LARGEST - 2].rstrip(b"\r\n") + b"\r\n"
    assert LARGEST - 5 < len(raw) <= LARGEST
    r2.put("pending/large", raw, {"to": "bob@second.test", "from": SENDER})
    done = ready.drain("once", **bucket(r2))
    assert done.returncode == 0, done.stdout + done.stderr
    (filed,) = ready.mailbox("bob@second.test")
    assert below_our_line(filed) == as_filed(raw)


def bucket(r2: R2) -> dict[str, str]:
    return {
        "R2_ENDPOINT_URL": r2.endpoint_url,
        "R2_ACCESS_KEY_ID": r2.access_key_id,
        "R2_SECRET_ACCESS_KEY": r2.secret_access_key,
        "R2_BUCKET": r2.bucket,
        "ALERT_DAYS": "0",
    }


def test_dovecot_by_its_template_shows_what_drain_injected_and_lets_nobody_in_without_tls(
    ready: PostfixHome,
) -> None:
    ready.inject(b"Subject: to be read\r\n\r\nhello\r\n", ADMIN)
    (raw,) = ready.mailbox(ADMIN)
    with Dovecot(ready) as dovecot:
        context = ssl.create_default_context(cafile=str(ready.env_file.parent / "mail-server.pem"))
        with imaplib.IMAP4_SSL(HOST, dovecot.port, ssl_context=context, timeout=20) as client:
            client.login("Admin@example.test", "a password")
            assert client.select() == ("OK", [b"1"])
            fetched: Any = client.fetch("1", "BODY.PEEK[]")[1][0]
            assert fetched[1].replace(b"\r\n", b"\n") == raw
            folders = str(client.list()[1])
            assert all(name in folders for name in ("Junk", "Sent", "Trash", "Drafts"))
        with pytest.raises(TimeoutError):  # it waits for TLS, and greets nobody without
            imaplib.IMAP4(HOST, dovecot.port, timeout=0.5)
        listens = output([needed("doveconf", "dovecot-core"), "-c", str(dovecot.file), "-h", "listen"])
        assert listens.strip() == HOST


class TestWhatIsThere:
    FOREIGN = b"# mine\nmyhostname = mine.example.test\n"

    @pytest.fixture
    def home(self, make: Make) -> PostfixHome:
        home = make()
        home.etc.mkdir(parents=True)
        (home.etc / "main.cf").write_bytes(self.FOREIGN)
        (home.etc / "master.cf").write_bytes(Path("/usr/share/postfix/master.cf.dist").read_bytes())
        return home

    def test_is_not_touched_where_nobody_can_be_asked(self, home: PostfixHome) -> None:
        before, env = home.files(), home.env_file.read_bytes()
        done = home.setup()
        assert done.returncode == 64
        assert "-myhostname = mine.example.test" in done.stdout
        assert "+inet_interfaces = 127.0.0.1" in done.stdout
        assert "there is nobody to ask. --yes says that it should be." in done.stderr
        assert (home.files(), home.env_file.read_bytes()) == (before, env)
        assert not home.master

    def test_is_not_touched_if_the_person_says_no(self, home: PostfixHome) -> None:
        before = home.files()
        code, shown = home.asked("n")
        assert code == 0
        assert "Postfix's configuration was left as it is." in shown
        assert shown.index("-myhostname = mine.example.test") < shown.index("Change it like this?")
        assert home.files() == before
        assert not home.master

    def test_is_kept_each_time_if_the_person_says_yes(self, home: PostfixHome) -> None:
        code, shown = home.asked("y")
        assert code == 0, shown
        assert (home.etc / "main.cf.before-drain").read_bytes() == self.FOREIGN
        assert home.takes(ADMIN)
        (home.etc / "main.cf").write_bytes(b"# another\n")
        assert home.setup("--yes").returncode == 0
        assert (home.etc / "main.cf.before-drain").read_bytes() == self.FOREIGN
        assert (home.etc / "main.cf.before-drain.2").read_bytes() == b"# another\n"
        assert home.takes(ADMIN)

    def test_is_not_touched_by_a_dry_run(self, home: PostfixHome) -> None:
        before, env = home.files(), home.env_file.read_bytes()
        done = home.setup("--dry-run", "--yes")
        assert done.returncode == 0
        assert "+inet_interfaces = 127.0.0.1" in done.stdout
        assert f"{home.env_file}: INJECT_PASS=***" in done.stdout
        assert (home.files(), home.env_file.read_bytes()) == (before, env)
        assert sorted(path.name for path in home.root.iterdir()) == ["config of drain", "etc"]


def test_lines_of_the_persons_among_the_mailboxes_stay_and_new_ones_are_taken_at_once(make: Make) -> None:
    home = make(SPAM_RCPT="+junk")
    assert home.setup().returncode == 0
    mailboxes = home.etc / "mailboxes"
    own = b"# whom I know\nALICE@example.test elsewhere/alice/\n"
    mailboxes.write_bytes(own + mailboxes.read_bytes())
    assert not home.takes("alice@second.test")
    done = home.setup("--yes", "--mailbox", "alice@second.test", "--mailbox", "alice")
    assert done.returncode == 0, done.stderr
    assert "+alice@second.test second.test/alice/" in done.stdout
    text = mailboxes.read_bytes()
    assert text.startswith(own)
    assert b"\nalice@example.test " not in text
    assert b"admin+junk@example.test example.test/admin/.Junk/\n" in text
    assert all(home.takes(address) for address in ("alice@example.test", "alice@second.test", ADMIN))


def test_a_password_that_was_changed_in_drain_env_is_the_servers_after_another_run(make: Make) -> None:
    home = make(INJECT_USER="inject@realm.test", INJECT_PASS="first word")
    assert home.setup().returncode == 0
    text = home.env_file.read_text()
    home.env_file.write_text(text.replace("first word", "first"))  # a part of the old one
    with pytest.raises(DrainError, match="refused the login"):
        home.session()
    done = home.setup("--yes")
    assert done.returncode == 0, done.stderr
    assert "(not shown: it holds a secret)" in done.stdout
    home.session().close()


def test_a_certificate_that_ends_soon_is_renewed_and_pinned_anew(make: Make) -> None:
    home = make()
    assert home.setup().returncode == 0
    old = certificate.made("mail.home.arpa", datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3640))
    for path, content in (
        (home.etc / "drain-cert.pem", old.certificate),
        (home.etc / "drain-key.pem", old.key),
        (home.env_file.parent / "mail-server.pem", old.certificate),
    ):
        path.write_bytes(content)
    done = home.setup("--yes")
    assert done.returncode == 0, done.stderr
    assert (home.etc / "drain-cert.pem").read_bytes() != old.certificate
    home.session().close()


def test_who_takes_the_port_while_postfix_is_away_gets_neither_password_nor_mail(make: Make) -> None:
    home, other = make(), make()
    assert home.setup().returncode == 0
    home.halt()
    other.env_file.write_text(other.env_file.read_text().replace(str(other.port), str(home.port)))
    assert other.setup().returncode == 0
    other.session().close()
    # How a session ends that got no further than STARTTLS: Postfix counts the commands, and would count an AUTH.
    before_auth = "ehlo=1 starttls=0/1 commands=1/2"
    assert before_auth not in other.log
    with pytest.raises(DrainError, match="certificate"):
        home.session()
    other.until_logged(before_auth)


def test_a_port_that_is_taken_is_no_proof_and_who_has_it_gets_no_password(make: Make) -> None:
    home = make()
    with FakeSmtp(port=home.port) as stranger:
        env = home.env_file.read_bytes()
        done = home.setup()
        assert (done.returncode, done.stdout) == (78, "")
        assert f"Another program has port {home.port} of 127.0.0.1" in done.stderr
        assert home.env_file.read_bytes() == env
        assert not home.etc.exists()
        assert not [command for command in stranger.commands if command.startswith("AUTH")]
    assert home.setup().returncode == 0


class TestWaiting:
    """Mail in the queue has been taken from its sender: it must not be lost."""

    def test_of_a_postfix_that_was_there_is_said_and_stays(self, make: Make) -> None:
        home = make()
        assert home.setup().returncode == 0
        # One that sends, to a place where nobody listens.
        main = home.etc / "main.cf"
        theirs = [line for line in main.read_text().splitlines() if not line.startswith(("default_t", "authorized_"))]
        main.write_text("\n".join([*theirs, "default_transport = smtp", f"relayhost = [{HOST}]:{free_port()}", ""]))
        (home.etc / "master.cf").write_text((home.etc / "master.cf").read_text() + "smtp unix - - n - - smtp\n")
        home.halt()
        output(["postfix", "-c", str(home.etc), "start"])
        home.sendmail(CRON, "bob@example.net")
        home.until_logged("status=deferred")
        done = home.setup("--yes")
        assert done.returncode == 0, done.stderr
        assert f"1 mail waits in Postfix's queue {home.root}/var/spool/postfix." in done.stdout
        assert "for other domains than example.test, second.test will not leave, and stays there." in done.stdout
        self.stays(home)

    def test_for_a_domain_that_is_taken_out_stays(self, make: Make) -> None:
        home = make()
        assert home.setup("--mailbox", "bob@second.test").returncode == 0
        (home.root / "var/mail/vhosts/second.test").write_text("no folder")
        home.inject(b"Subject: waits\r\n\r\nhello\r\n", "bob@second.test")
        home.until_logged("status=deferred")
        envfile.change(home.env_file, {"MAIL_DOMAIN": "example.test"})
        done = home.setup("--yes")
        assert done.returncode == 0, done.stderr
        assert not home.takes("bob@second.test")
        assert "1 mail waits in Postfix's queue" in done.stdout
        self.stays(home)

    def stays(self, home: PostfixHome) -> None:
        output(["postqueue", "-c", str(home.etc), "-f"])
        home.until_logged("nothing is sent on from here")
        assert "dsn=4.7.1, status=SOFTBOUNCE" in home.log
        assert "status=bounced" not in home.log
        until(lambda: "(nothing is sent on from here)" in output(["postqueue", "-c", str(home.etc), "-p"]), 20)


def test_maildirs_of_another_user_are_not_taken_over(make: Make) -> None:
    home = make()
    (home.root / "var/mail/vhosts/example.net").mkdir(parents=True)
    done = home.setup("--yes")
    assert (done.returncode, done.stdout) == (78, "")
    assert "belongs to user 0, and is not empty" in done.stderr
    assert not home.etc.exists()


def test_of_logins_the_server_has_its_own_alone_and_makes_one_that_was_deleted_anew(make: Make) -> None:
    home = make()
    assert home.setup().returncode == 0
    file = str(home.etc / "sasl/sasldb2")
    before = Path(file).read_bytes()
    subprocess.run(["saslpasswd2", "-p", "-c", "-f", file, "-u", NAME, "mallory"], input=b"x", check=True)
    assert home.setup("--yes").returncode == 0
    assert output(["sasldblistusers2", "-f", file]) == "drain@mail.home.arpa: userPassword\n"
    output(["saslpasswd2", "-d", "-f", file, "-u", "mail.home.arpa", "drain"])
    assert home.settings()["INJECT_PASS"].encode() in before
    done = home.setup("--yes")
    assert done.returncode == 0, done.stderr
    home.session().close()


def test_root_follows_no_link_that_drains_user_made(make: Make, tmp_path: Path) -> None:
    home = make()
    folder = home.env_file.parent
    for path in (folder, home.env_file):
        os.chown(path, 65534, 65534)
    link, roots = folder / "mail-server.pem", tmp_path / "roots"
    link.symlink_to(roots)
    os.lchown(link, 65534, 65534)
    for words in (("--yes",), ("--dry-run",)):
        done = home.setup(*words)
        assert (done.returncode, done.stdout) == (78, "")
        assert f"{link} is a link, and has to be a file. Remove it." in done.stderr
        assert not roots.exists()
    link.unlink()
    assert home.setup("--yes").returncode == 0
    assert (link.stat().st_uid, link.stat().st_mode & 0o777) == (65534, 0o644)


class TestOutbound:
    @pytest.fixture(autouse=True)
    def emptied(self, smarthost: Smarthost) -> None:
        smarthost.clear()

    def settings(self, smarthost: Smarthost, port: int, **more: str) -> dict[str, str]:
        login = {"SMARTHOST_USER": smarthost.user, "SMARTHOST_PASS": smarthost.password}
        ca = {"SMARTHOST_TLS_CA_FILE": str(smarthost.ca_file)}
        return {"SMARTHOST_HOST": f"localhost:{port}", **login, **ca, **more}

    @pytest.mark.parametrize("tls", ["starttls", "implicit"])
    def test_straight_to_the_smarthost_really_sends(self, make: Make, smarthost: Smarthost, tls: str) -> None:
        port = smarthost.tls_port if tls == "implicit" else smarthost.port
        home = make(**self.settings(smarthost, port, SMARTHOST_TLS=tls))
        done = home.setup()
        assert done.returncode == 0, done.stderr
        assert smarthost.password not in done.stdout
        assert (home.etc / "smarthost-password").stat().st_mode & 0o777 == 0o600
        home.sendmail(CRON, "bob@example.net")
        home.until_logged("status=sent")
        (mail,) = smarthost.mails()
        assert (mail.recipient, mail.sender) == ("bob@example.net", ADMIN)
        assert b"Subject: from cron" in mail.raw
        assert "overriding earlier entry" not in output(["postconf", "-c", str(home.etc), "-n"])
        assert home.setup().stdout.startswith("Postfix is set up as it should be.")

    def test_a_smarthost_whose_certificate_is_for_another_name_gets_nothing(self, make: Make, tmp_path: Path) -> None:
        ca = authority()
        with Smarthost(tmp_path, ca.issue(NAME)) as stranger:
            trusted = tmp_path / "ca.pem"
            trusted.write_bytes(ca.pem)
            home = make(**self.settings(stranger, stranger.port, SMARTHOST_TLS_CA_FILE=str(trusted)))
            assert home.setup().returncode == 0
            home.sendmail(CRON, "bob@example.net")
            home.until_logged("Server certificate not verified")
            assert not stranger.mails()

    def test_through_the_relay_really_sends_and_the_relays_users_stay_drains(
        self, make: Make, smarthost: Smarthost, tmp_path: Path
    ) -> None:
        port = free_port()
        home = make(RELAY_ENABLED="true", RELAY_PORT=str(port))
        state = home.root / "state"
        state.mkdir(0o700)
        os.chown(state, 65534, 65534)
        done = home.setup()
        assert done.returncode == 0, done.stderr
        users = state / "relay-users"
        assert (users.stat().st_uid, users.stat().st_mode & 0o777) == (65534, 0o600)
        os.chown(users, 0, 0)  # the relay of this test runs as root
        relay = RealRelay(home.root, smarthost, None, {"RELAY_PORT": str(port)}, port=port)
        with relay:
            home.sendmail(CRON, "bob@example.net")
            home.until_logged("status=sent")
            (mail,) = relay.arrived()
        assert (mail.recipient, mail.sender) == ("bob@example.net", ADMIN)
        done = home.setup()
        assert done.stdout.startswith("Postfix is set up as it should be."), done.stdout
        Users(users).remove("postfix")
        done = home.setup("--yes")
        assert done.returncode == 0, done.stderr
        assert Users(users).names() == ("phone", "postfix")

    def test_a_way_out_that_is_not_set_up_is_said_before_anything_is_done(self, make: Make) -> None:
        home = make()
        done = home.setup("--outbound", "smarthost")
        assert (done.returncode, done.stdout) == (78, "")
        assert "SMARTHOST_HOST is not set." in done.stderr
        assert not home.etc.exists()


class TestKilled:
    def test_at_any_change_it_goes_on_with_the_next_run(self, make: Make) -> None:
        home = make()
        for change in range(3, 60, 8):
            home.cut_off(change, "--yes", "--mailbox", "alice")
            for path, text in home.files().items():
                assert text or path.endswith(".new"), f"{path} is empty"
        done = home.setup("--yes", "--mailbox", "alice")
        assert done.returncode == 0, done.stdout + done.stderr
        assert home.takes("alice@example.test")
        assert not [path for path in home.root.rglob("*.new") if "spool" not in path.parts]
        assert not list(home.root.rglob("setup.unfinished"))

    def test_after_the_files_the_next_run_starts_the_server_with_them(self, make: Make) -> None:
        home = make()
        assert home.setup().returncode == 0
        assert home.cut_off("check", "--yes", "--mailbox", "bob") == -9
        assert b"bob@" in home.files()["mailboxes"]
        assert not home.takes("bob@example.test")
        done = home.setup()
        assert done.returncode == 0, done.stderr
        assert "Postfix is started again." in done.stdout
        assert home.takes("bob@example.test")


class Dovecot:
    """By drain's template, on free ports, in a folder of its own."""

    def __init__(self, home: PostfixHome) -> None:
        self.port = free_port()
        self._home = home
        self._folder = home.root / "dovecot"
        self.file = self._folder / "dovecot.conf"

    def __enter__(self) -> Self:
        self._folder.mkdir()
        users = self._folder / "users"
        users.write_text(
            f"{ADMIN}:{output([needed('doveadm', 'dovecot-core'), 'pw', '-s', 'ARGON2ID', '-p', 'a password'])}"
        )
        owner = (self._home.root / "var/mail/vhosts").stat()
        values = {
            "MAILDIR_BASE": str(self._home.root / "var/mail/vhosts"),
            "MAIL_UID": str(owner.st_uid),
            "MAIL_GID": str(owner.st_gid),
            "TLS_CERT": str(self._home.etc / "drain-cert.pem"),
            "TLS_KEY": str(self._home.etc / "drain-key.pem"),
            "USERS_FILE": str(users),
            "IMAPS_PORT": str(self.port),
        }
        own = "".join(f"{name}_dir = {self._folder}/{name}\n" for name in ("base", "state"))
        log = self._folder / "log"
        self.file.write_text(filled("dovecot.conf", values) + own + f"log_path = {log}\n")
        command = [needed("dovecot", "dovecot-core"), "-F", "-c", str(self.file)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        await_listener(self._process, "Dovecot", (self.port,), log)
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
