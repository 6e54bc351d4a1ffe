"""A Postfix as a smarthost: AUTH over STARTTLS and over implicit TLS, whatever recipient, all of it kept.

Its certificate is for `NAME` and loopback, from a CA of its own. Local parts that begin
with one of `REFUSED` get that answer at RCPT.
"""

import contextlib
import datetime
import grp
import ipaddress
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.real.postfix import _MAIL_UID, _QUEUE_FOLDERS, _QUEUES_OF_UNFILED_MAIL, _has_file
from tests.real.server import HOST, Rig, await_listener, end, keep_log, log_end, needed, output
from tests.support import free_port

NAME = "smarthost.example.test"
REFUSED = {
    "unknown": "550 5.1.1 no such user",
    "later": "450 4.2.1 try again later",
    "policy": "550 5.7.1 not to this one",
}
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Filed:
    """One mail for one recipient, as it lies in the Maildir: line ends LF, ``raw`` below what Postfix put on top."""

    recipient: str
    sender: str
    raw: bytes


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        *names: str,
        ends: datetime.timedelta = datetime.timedelta(days=7),
        authority: bool = False,
    ) -> "Certificate":
        """One for a server with these names or addresses; or for an *authority* below this one."""
        return _issued(names, self, ends, authority=authority)

    def chain_file(self, path: Path, *more: "Certificate") -> Path:
        """Key, certificate and more certificates in one PEM file."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(key + self.pem + b"".join(one.pem for one in more))
        return path


def authority(name: str = "a CA of the test's own") -> Certificate:
    """A root."""
    return _issued((name,), None, datetime.timedelta(days=30), authority=True)


def _issued(
    names: tuple[str, ...], by: Certificate | None, ends: datetime.timedelta, *, authority: bool
) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    issuer = by.certificate.subject if by else subject
    signer = by.key if by else key
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=authority,
                crl_sign=authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    return Certificate(builder.sign(signer, SHA256()), key)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Smarthost(Rig):
    """The server, from `start` to `stop`, on free ports of 127.0.0.1; wants root, as Postfix does.

    ``port`` is for STARTTLS, ``tls_port`` for implicit TLS. *root* gets its log. *certificate*
    and those above it take the place of the usual one.
    """

    def __init__(self, root: Path, certificate: Certificate | None = None, *above: Certificate) -> None:
        self.host = HOST
        self.name = NAME
        self.port = free_port()
        self.tls_port = free_port()
        self.user = f"relay@{NAME}"
        self.password = secrets.token_urlsafe(16)
        self._root = root
        self._authority = authority()
        self._certificate = certificate or self._authority.issue(NAME, "localhost", HOST)
        self._above = above
        self._home: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None

    @property
    def ca_file(self) -> Path:
        """What its certificate is verified by."""
        return self._running_home() / "etc" / "ca.pem"

    def start(self) -> None:
        """Run it; RuntimeError where Postfix is not here, or the caller is not root."""
        postconf, saslpasswd2 = needed("postconf", "postfix"), needed("saslpasswd2", "sasl2-bin")
        if os.geteuid() != 0:
            message = "A private Postfix must be started by root: its parts change to several users."
            raise RuntimeError(message)
        try:
            if self._home is None:
                self._home = Path(tempfile.mkdtemp(prefix="drain-smarthost-"))
                self._home.chmod(0o755)
                umask = os.umask(0o022)
                try:
                    self._lay_out(self._home, saslpasswd2)
                finally:
                    os.umask(umask)
            daemons = output([postconf, "-d", "-h", "daemon_directory"]).strip()
            with self._log().open("ab") as log:
                self._master = subprocess.Popen(
                    [f"{daemons}/master", "-c", str(self._home / "etc")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            await_listener(self._master, "The smarthost", (self.port, self.tls_port), self._log())
        except BaseException:
            self.stop()
            raise

    def halt(self) -> None:
        """End the server and keep its mail; `start` brings it back on the same ports."""
        master, self._master = self._master, None
        if master is not None:
            end(master)

    def stop(self) -> None:
        """End the server and remove all that it had, but for its log."""
        self.halt()
        home, self._home = self._home, None
        if home is not None:
            keep_log(home / "log" / "mail.log", self._root / "smarthost.log")
            shutil.rmtree(home)

    def mails(self, seconds: float = 30) -> list[Filed]:
        """All that it took, once none is on its way: one for each recipient, oldest first.

        Raises:
            RuntimeError: there is still mail in its queue after *seconds*.
        """
        queue = self._running_home() / "queue"
        deadline = time.monotonic() + seconds
        while any(_has_file(queue / name) for name in _QUEUES_OF_UNFILED_MAIL):
            if time.monotonic() > deadline:
                message = f"Mail is still in the smarthost's queue after {seconds} s.\n{log_end(self._log())}"
                raise RuntimeError(message)
            time.sleep(_POLL_SECONDS)
        files = sorted(self._files(), key=lambda file: (file.stat().st_mtime_ns, file.name))
        return [_filed(file.read_bytes()) for file in files]

    def clear(self) -> None:
        """Forget all mails."""
        for file in self._files():
            file.unlink()

    def _files(self) -> list[Path]:
        return list((self._running_home() / "mail" / "all" / "new").glob("*"))

    def _lay_out(self, home: Path, saslpasswd2: str) -> None:
        postfix = pwd.getpwnam("postfix")
        postdrop_gid = grp.getgrnam("postdrop").gr_gid
        etc, queue = home / "etc", home / "queue"
        for folder in (etc / "sasl", queue / "pid", home / "log", home / "data", home / "mail"):
            folder.mkdir(parents=True)
        os.chown(home / "data", postfix.pw_uid, -1)
        os.chown(home / "mail", _MAIL_UID, _MAIL_UID)
        for name, mode in _QUEUE_FOLDERS:
            folder = queue / name
            folder.mkdir()
            os.chown(folder, postfix.pw_uid, postdrop_gid if mode != 0o700 else -1)
            folder.chmod(mode)
        (etc / "ca.pem").write_bytes(self._authority.pem)
        chain = self._certificate.chain_file(etc / "chain.pem", *self._above)
        chain.chmod(0o600)
        (etc / "main.cf").write_text(_MAIN.format(home=home, name=NAME, chain=chain, uid=_MAIL_UID))
        (etc / "master.cf").write_text(_MASTER.format(host=HOST, port=self.port, tls_port=self.tls_port))
        (etc / "recipients").write_text("".join(f"/^{name}/ {reply}\n" for name, reply in REFUSED.items()))
        (etc / "sasl" / "smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\n"
            f"sasldb_path: {etc}/sasl/sasldb2\n"
        )
        user, realm = self.user.split("@")
        database = etc / "sasl" / "sasldb2"
        output([saslpasswd2, "-p", "-c", "-f", str(database), "-u", realm, user], stdin=self.password)
        os.chown(database, 0, postfix.pw_gid)
        database.chmod(0o640)
        past = time.time() - 60  # Postfix waits until a file is two seconds old
        for file in ("main.cf", "recipients"):
            os.utime(etc / file, (past, past))

    def _running_home(self) -> Path:
        if self._home is None:
            message = "The smarthost is not started."
            raise RuntimeError(message)
        return self._home

    def _log(self) -> Path:
        return self._running_home() / "log" / "mail.log"


@contextlib.contextmanager
def smarthost(folder: Path) -> Iterator[Smarthost]:
    """One that runs; its log is left in *folder*."""
    with Smarthost(folder) as running:
        yield running


def _filed(stored: bytes) -> Filed:
    """Takes off what virtual(8) and smtpd(8) put on top: Return-Path, X-Original-To, Delivered-To, Received."""
    lines = stored.split(b"\n")
    values: dict[bytes, str] = {}
    while lines and (name := lines[0].partition(b":")[0]) in {b"Return-Path", b"X-Original-To", b"Delivered-To"}:
        values.setdefault(name, lines.pop(0).partition(b":")[2].strip().decode())
    assert lines[0].startswith(b"Received: "), stored[:500]
    del lines[0]
    while lines[0].startswith((b" ", b"\t")):
        del lines[0]
    return Filed(values[b"X-Original-To"], values[b"Return-Path"].strip("<>"), b"\n".join(lines))


_MAIN = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/log/mail.log
maillog_file_prefixes = /var, {home}/log
myhostname = {name}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
smtpd_peername_lookup = no
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = {home}/etc/sasl
smtpd_sasl_local_domain = $myhostname
smtpd_sasl_security_options = noanonymous
smtpd_tls_auth_only = yes
smtpd_tls_security_level = may
smtpd_tls_chain_files = {chain}
smtpd_recipient_restrictions = check_recipient_access regexp:{home}/etc/recipients, permit_sasl_authenticated, reject
smtpd_relay_restrictions = permit_sasl_authenticated, reject
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
# Whoever it is for: one Maildir, and one file for each recipient.
default_transport = virtual:
virtual_mailbox_maps = static:all/
virtual_mailbox_base = {home}/mail
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
virtual_destination_recipient_limit = 1
recipient_delimiter =
append_dot_mydomain = no
# The mail stays as it came.
local_header_rewrite_clients =
message_drop_headers =
header_size_limit = 52428800
message_size_limit = 36700160
virtual_mailbox_limit = 0
disable_mime_input_processing = yes
smtpd_forbid_bare_newline = normalize
smtputf8_enable = yes
allow_percent_hack = no
swap_bangpath = no
in_flow_delay = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
notify_classes =
"""
_MASTER = """\
{host}:{port}     inet n - n - 20 smtpd
{host}:{tls_port} inet n - n - 20 smtpd
    -o smtpd_tls_wrappermode=yes
cleanup     unix n - n - 0 cleanup
qmgr        unix n - n 300 1 qmgr
rewrite     unix - - n - - trivial-rewrite
tlsmgr      unix - - n 1000? 1 tlsmgr
anvil       unix - - n - 1 anvil
virtual     unix - n n - - virtual
bounce      unix - - n - 0 bounce
defer       unix - - n - 0 bounce
trace       unix - - n - 0 bounce
error       unix - - n - - error
retry       unix - - n - - error
pickup      unix n - n 60 1 pickup
showq       unix n - n - - showq
postlog     unix-dgram n - n - 1 postlogd
"""
