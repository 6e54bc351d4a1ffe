"""install.sh as root on a Debian without systemd: cron starts drain there."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from drain.demo.s3 import S3Server
from tests.real.pi import Pi, why_not
from tests.real.pi_home import CHECKOUTS, Home
from tests.smtp_fake import FakeSmtp
from tests.support import until

_WHY_NOT = why_not()
pytestmark = [pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def smtp() -> Iterator[FakeSmtp]:
    with FakeSmtp() as server:
        server.mailboxes |= {"inbox@example.test", "admin@example.test"}
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, smtp: FakeSmtp) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("machine")
    checkouts = folder / "checkouts"
    checkouts.mkdir()
    with S3Server() as s3, Pi(folder, {CHECKOUTS: checkouts}) as pi:
        pi.power_off()
        home = Home(pi, s3, checkouts)
        home.port = smtp.port
        home.checkout("now")
        home.answers("/root/answers", INJECT_USER=smtp.user, INJECT_PASS=smtp.password, DRAIN_MAIL_SERVER="none")
        yield home


def test_it_says_that_there_is_no_systemd_and_names_cron_where_there_is_none(home: Home) -> None:
    said = home.install("--yes", "--answers", "answers", start="cron", fails=True)
    assert "There is no systemd here." in said
    assert "there is neither systemd nor cron to start drain" in said


def test_cron_is_given_a_line_that_delivers(home: Home, smtp: FakeSmtp) -> None:
    home.pi.run("apt-get", "install", "--yes", "--no-install-recommends", "cron", timeout=300)
    home.install("--yes", "--answers", "answers", start="cron")
    (line,) = [line for line in home.file("/etc/cron.d/drain").read_text().splitlines() if not line.startswith("#")]
    assert line.startswith("* * * * * drain "), "it is not drain's every minute"
    home.put()
    # As cron does: with sh, as that user, in an environment of its own (crontab(5)).
    command = f"cd / && env -i HOME=/var/lib/drain PATH=/usr/bin:/bin sh -c {shlex.quote(line.split(maxsplit=6)[6])}"
    done = home.pi.run("runuser", "-u", "drain", "--", "sh", "-c", command)
    assert (done.stdout, done.stderr) == ("", ""), "cron would send a mail with that every minute"
    until(lambda: len(smtp.filed) == 1)
    assert not home.pending()


def test_uninstalling_takes_the_line_away_and_keeps_the_keys(home: Home) -> None:
    home.install("uninstall")
    assert not home.file("/etc/cron.d/drain").exists()
    assert not home.file("/usr/local/bin/drain").exists()
    assert home.file(Path("/etc/drain/drain-key.pem")).exists()
