"""What the stages on a Raspberry Pi share: a bucket, checkouts of drain, the mail that was sent."""

import shutil
from collections import Counter
from pathlib import Path

from drain import envfile
from drain.demo.s3 import S3Server, StoredObject
from drain.keys import read_x25519
from drain.sealed import seal
from tests.real.house import as_filed, below_our_line
from tests.real.pi import Pi
from tests.support import free_port, until

INBOX = "inbox@example.test"
SENDER = "a@x.test"
# Where the machine sees the checkouts: with a blank.
CHECKOUTS = "/srv/drain checkouts"
ENV_FILE = "/etc/drain/drain.env"
_TREE = Path(__file__).parents[2]
_INSTALL_LIMIT_SECONDS = 400


class Home:
    """What the stages share.

    Attributes:
        sent: every mail that was put into the bucket for the inbox, each another.
        key_folder: where drain's key and token are.
        login, certificate: the way into the mail server: settings, and what INJECT_TLS_CA_FILE holds.
    """

    def __init__(self, pi: Pi, s3: S3Server, checkouts: Path) -> None:
        self.pi = pi
        self.s3 = s3
        self.checkouts = checkouts
        self.port = free_port()
        self.key_folder = Path("/etc/drain")
        self.sent: list[bytes] = []
        self.login: dict[str, str] = {}
        self.certificate = b""

    def checkout(self, name: str, version: str = "") -> Path:
        """Another checkout of this tree, where another version is wanted with its number."""
        folder = self.checkouts / name
        heavy = shutil.ignore_patterns(".git", ".*", "node_modules", "__pycache__", "corpus", "bench")
        shutil.copytree(_TREE, folder, ignore=heavy)
        if version:
            replace_line(folder / "drain/__init__.py", "__version__ = ", f'__version__ = "{version}"')
        return folder

    def answers(self, path: str, **more: str) -> None:
        """A file of answers on the machine."""
        settings = {
            "R2_ENDPOINT_URL": self.s3.endpoint_url,
            "R2_ACCESS_KEY_ID": self.s3.access_key_id,
            "R2_SECRET_ACCESS_KEY": self.s3.secret_access_key,
            "R2_BUCKET": self.s3.bucket,
            "MAIL_DOMAIN": "example.test",
            "INJECT_PORT": str(self.port),
            "POLL_INTERVAL": "1",
            **more,
        }
        self.file(path).touch(mode=0o600)
        self.file(path).write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def install(
        self,
        *words: str,
        checkout: str = "now",
        user: str = "root",
        start: str = "service",
        typed: str = "",
        fails: bool = False,
    ) -> str:
        """install.sh with these words; what it says."""
        command = ["env", f"DRAIN_START={start}", f"{CHECKOUTS}/{checkout}/install.sh", *words]
        done = self.pi.run(*command, user=user, stdin=typed, check=False, timeout=_INSTALL_LIMIT_SECONDS)
        assert (done.returncode != 0) == fails, f"{words} ended with {done.returncode}.\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def file(self, path: str | Path) -> Path:
        """A file of the machine, as it is reached from here."""
        return self.pi.root / str(path).lstrip("/")

    def put(self) -> None:
        """A new mail comes."""
        number = len(self.sent)
        self.sent.append(b"From: a@x.test\r\nSubject: mail %d\r\n\r\nThis is mail %d.\r\n" % (number, number))
        self.put_again(number)

    def put_again(self, number: int) -> None:
        """The mail of that number comes, for the first time or not: the Worker seals it and lays it into the bucket."""
        raw = self.sent[number]
        header = {"to": INBOX, "from": SENDER, "received": "2026-11-21T10:00:00Z", "ip": "192.0.2.7"}
        token = self.file(self.key_folder / "origin-token").read_text().strip()
        sealed = seal({**header, "token": token}, raw, read_x25519(self.file(self.key_folder / "drain-key.pem")))
        self.s3.objects[f"pending/{number:03}"] = StoredObject(sealed)

    def filed(self) -> list[bytes]:
        """What lies in the inbox, below the lines that were added on the way."""
        return [below_our_line(path.read_bytes()) for path in self.file(self.maildir).glob("new/*")]

    @property
    def maildir(self) -> Path:
        """The inbox, as Postfix is set up to file it."""
        base = self.pi.words("postconf", "-h", "virtual_mailbox_base")
        where = self.pi.words("postmap", "-q", INBOX, self.pi.words("postconf", "-h", "virtual_mailbox_maps"))
        assert base, where
        return Path(base) / where

    def pending(self) -> list[str]:
        """What waits in the bucket."""
        return [key for key in self.s3.objects if key.startswith("pending/")]

    def all_filed(self, seconds: float = 30) -> None:
        """Every mail that was sent comes to lie in the inbox, and none twice."""
        wanted, maildir = Counter(map(as_filed, self.sent)), self.file(self.maildir)
        until(lambda: not self.pending() and len(list(maildir.glob("new/*"))) >= len(self.sent), seconds, self._why_not)
        filed = Counter(self.filed())
        assert filed == wanted, f"too many: {filed - wanted}; missing: {wanted - filed}"

    def _why_not(self) -> str:
        return f"{self.pending()}\n{self.pi.words('journalctl', '--no-pager', '-n', '40')}"

    def set(self, **values: str) -> None:
        """Settings in drain.env, as a person's editor leaves them; "" for not set."""
        envfile.change(self.file(ENV_FILE), values)
        self.pi.run("chown", "drain:", ENV_FILE)

    def unit(self, name: str, asked: str) -> str:
        """A property of a unit (systemctl(1), show)."""
        return self.pi.words("systemctl", "show", "--value", f"--property={asked}", name)

    def drop_in(self, unit: str, content: str) -> None:
        """A change to a unit, as `systemctl edit` makes it."""
        path = self.file(f"/etc/systemd/system/{unit}.d/override.conf")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        self.pi.run("systemctl", "daemon-reload")

    def restarted(self, before: str) -> bool:
        """Whether the daemon runs again, as another process than before."""
        return self.unit("drain.service", "ActiveState") == "active" and self.unit("drain.service", "MainPID") != before

    def tree_of_files(self, *folders: str) -> dict[str, tuple[bytes, int, int]]:
        """Contents, modes and owners of files."""
        paths = [path for folder in folders for path in self.file(folder).rglob("*") if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mode, path.stat().st_uid) for path in paths}


def replace_line(path: Path, beginning: str, line: str) -> None:
    """Gives the one line of a file that begins so another text."""
    lines = path.read_text().splitlines()
    (found,) = [number for number, old in enumerate(lines) if old.startswith(beginning)]
    lines[found] = line
    path.write_text("".join(f"{old}\n" for old in lines))
