"""`drain setup maddy --proot` and Termux' service: Maddy in a distribution of proot-distro, kept by a real runsv.

In proot-distro's place is a script that makes another root in a namespace of its own, and
takes as little notice of SIGTERM as proot does. What that cannot show is proot itself, and
Android: what it does to processes in the background.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drain import envfile
from tests.real.maddy import maddy_binary
from tests.real.maddy_home import DOMAIN, Home, home
from tests.real.server import end
from tests.support import ended, until

TERMUX = Path(__file__).parents[2] / "termux"
PROOT_DISTRO = """\
#!/bin/sh
# login NAME [--bind A:B] -- WORD...
[ "$1 $2" = "login debian" ] || { echo "no distribution $2" >&2; exit 1; }
shift 2
from= to=
if [ "$1" = --bind ]; then from=${2%:*} to=${2##*:}; shift 2; fi
[ "$1" = -- ] || exit 1
shift
line=
for word in "$@"; do line="$line '$word'"; done
export root="@ROOT@" from to line
trap : TERM
exec 3<&0
unshare --mount sh -c '
    for folder in usr bin lib lib64 dev proc; do
        [ ! -e "/$folder" ] || { mkdir -p "$root/$folder"; mount --rbind "/$folder" "$root/$folder"; }
    done
    [ -z "$from" ] || { mkdir -p "$root$to"; mount --bind "$from" "$root$to"; }
    exec chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root sh -c "$line"
' <&3 3<&- &
while wait $!; code=$?; kill -0 $! 2>/dev/null; do :; done
exit $code
"""
pytestmark = [
    pytest.mark.maddy,
    pytest.mark.skipif(maddy_binary() is None, reason="no maddy on PATH"),
    pytest.mark.skipif(os.geteuid() != 0, reason="another root wants root"),
    *(
        pytest.mark.skipif(shutil.which(program) is None, reason=f"no {program} on PATH")
        for program in ("unshare", "runsv", "pkill")
    ),
]


class Phone(Home):
    """A home with Termux' folders, in a path with a blank."""

    def lay_out(self, place: str) -> None:
        """The distribution at *place* below PREFIX, proot-distro, and the service."""
        prefix = self.folder / "files usr"
        root = prefix / place
        for name in ("etc", "var/lib", "run", "tmp", "root"):
            (root / name).mkdir(parents=True)
        self.config = root / "etc/maddy/maddy.conf"
        self.service = prefix / "var/service/maddy"
        (self.service / "control").mkdir(parents=True)
        (prefix / "bin").mkdir()
        program = prefix / "bin/proot-distro"
        program.write_text(PROOT_DISTRO.replace("@ROOT@", str(root)))
        program.chmod(0o755)
        for name in ("run", "control/t"):
            text = (TERMUX / "maddy" / name).read_text()
            (self.service / name).write_text(text.replace("#!/data/data/com.termux/files/usr/bin/sh", "#!/bin/sh", 1))
            (self.service / name).chmod(0o755)
        (self.service / "down").touch()  # until it is set up
        self.environ |= {"PREFIX": str(prefix), "PATH": f"{prefix}/bin:{os.environ['PATH']}"}

    @contextlib.contextmanager
    def runit(self) -> Iterator[None]:
        """What termux-services keeps running."""
        with (self.folder / "runit.log").open("ab") as log:
            keeper = subprocess.Popen(
                ["runsv", str(self.service)], env=self.environ, stdout=log, stderr=log, start_new_session=True
            )
        try:
            until((self.service / "supervise/ok").exists)
            yield
        finally:
            self.sv("-w", "20", "exit")
            end(keeper)
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
                os.kill(int((self.service / "state/pid").read_text()), signal.SIGKILL)

    def sv(self, *words: str) -> int:
        """Tells runit about the service; 0 if it has come to that."""
        command = ["sv", *words, str(self.service)]
        return subprocess.run(command, env=self.environ, check=False, timeout=60, stdout=subprocess.DEVNULL).returncode

    def pid(self) -> int:
        """Of Maddy itself."""
        return int((self.service / "state/pid").read_text())


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    with home(monkeypatch, Phone) as made:
        yield made


@pytest.mark.parametrize(
    "place", ["var/lib/proot-distro/installed-rootfs/debian", "var/lib/proot-distro/containers/debian/rootfs"]
)
def test_in_a_proot_it_is_set_up_started_by_runit_and_proven_at_once(
    phone: Phone, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    phone.lay_out(place)
    with phone.runit():
        assert phone.setup("--proot", "debian") == os.EX_OK, (phone.folder / "runit.log").read_text()
        said = capsys.readouterr().out
        assert f"proot-distro login debian -- maddy creds create admin@{DOMAIN}" in said
        assert phone.setting("MADDY_CONFIG") == str(phone.config)
        assert phone.setting("INJECT_TLS_CA_FILE") == str(phone.env_file.parent / "mail-server.pem")
        text = phone.config.read_text()
        assert "state_dir /var/lib/maddy\n" in text
        assert str(phone.folder) not in text, "Maddy sees other paths"
        assert phone.inject(b"Subject: s\r\n\r\nhello\r\n", f"inbox@{DOMAIN}").positive
        maddy = phone.pid()
        assert phone.setup("--proot", "debian") == os.EX_OK
        assert "as it should be" in capsys.readouterr().out
        assert phone.pid() == maddy, "and nothing was started again"


def test_the_service_goes_down_when_it_is_told_to_and_comes_back_after_its_proot_was_killed(phone: Phone) -> None:
    phone.lay_out("var/lib/proot-distro/installed-rootfs/debian")
    with phone.runit():
        assert phone.setup("--proot", "debian") == os.EX_OK
        first = phone.pid()
        # The tracer goes, and what it traced stays, of no use to anybody.
        proot = int((phone.service / "supervise/pid").read_text())
        os.kill(proot, signal.SIGKILL)
        until(lambda: ended(first), 30)
        until(lambda: (phone.service / "state/pid").exists() and phone.pid() != first, 30)
        assert phone.setup("--proot", "debian") == os.EX_OK

        second = phone.pid()
        began = time.monotonic()
        assert phone.sv("-w", "20", "down") == 0
        until(lambda: ended(second), 5)
        assert time.monotonic() - began < 15


def test_where_nothing_keeps_it_running_the_person_is_told_how(
    phone: Phone, capsys: pytest.CaptureFixture[str]
) -> None:
    phone.lay_out("var/lib/proot-distro/installed-rootfs/debian")
    shutil.rmtree(phone.service)
    assert phone.setup("--proot", "debian") == os.EX_TEMPFAIL
    assert "Start it: `proot-distro login debian -- maddy run`" in capsys.readouterr().err


def test_a_distribution_that_is_not_there_or_no_name_is_said_so(
    phone: Phone, capsys: pytest.CaptureFixture[str]
) -> None:
    phone.lay_out("var/lib/proot-distro/installed-rootfs/debian")
    assert phone.setup("--proot", "ubuntu") == os.EX_CONFIG
    assert "no distribution ubuntu" in capsys.readouterr().err
    assert phone.setup("--proot", "../debian") == os.EX_USAGE
    del phone.environ["PREFIX"]
    assert phone.setup("--proot", "debian") == os.EX_CONFIG
    assert "outside the proot" in capsys.readouterr().err
    assert "INJECT_PASS" not in envfile.read(phone.env_file)[0]
