"""SMTP: connections, TLS, AUTH, limits. What a mail is and who may send it, the `Desk` knows.

The protocol (RFC 5321, 6409) is aiosmtpd's: its connections, its loop of commands, its
STARTTLS. Ours are the commands that decide something, where it is more lenient than a
relay may be, or holds too much in memory; each says why.

Beyond loopback nothing goes without TLS; on loopback a password may come in the clear.
"""

import asyncio
import base64
import binascii
import collections
import concurrent.futures
import contextlib
import errno
import functools
import ipaddress
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aiosmtpd.smtp import SMTP, TLSSetupException

from drain.errors import ConfigError, DrainError, Unavailable
from drain.log import Log
from drain.places import IPNetwork, is_loopback
from drain.relay.guard import LONGEST_DELAY_SECONDS, Guard
from drain.relay.refusal import Refusal
from drain.relay.users import Users
from drain.text import clean

# RFC 5321 4.5.3.1.4 has 512 octets, the extensions add to it; AUTH PLAIN with the longest name and password is 1,550.
_COMMAND_BYTES = 2048
# RFC 5321 4.5.3.1.1 to 4.5.3.1.3.
_LOCAL_OCTETS, _DOMAIN_OCTETS, _PATH_OCTETS = 64, 255, 256
# Past this many times the largest mail, what still comes is no mistake of a mail program's.
_OVERSIZE = 4
_DATA_SECONDS = 1800.0
_HANDSHAKE_SECONDS = 20.0
_CLOSING_SECONDS = 1.0
_START_SECONDS = 15.0
# Two passwords at a time: each takes 32 MiB and a core. Four mails at a time on their way to the disk.
_LOGIN_THREADS, _DESK_THREADS = 2, 4
_REPLY_LETTERS = 400

_CODE = re.compile(r"([245]\d\d) (?!\d\.\d{1,3}\.\d{1,3} )")
# RFC 2034 wants one with every reply; for those of the library that have none (RFC 3463).
_STATUS = {
    "250": "2.0.0",
    "221": "2.0.0",
    "454": "4.7.0",
    "500": "5.5.2",
    "501": "5.5.4",
    "502": "5.5.1",
    "503": "5.5.1",
}
_NULL = "<>"
# Dots anywhere: some carriers have addresses such as a..b.@docomo.ne.jp, and their own server may judge them.
_ATOMS = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\U0010ffff-]+"
_QUOTED = r'"(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*"'
_LOCAL = re.compile(f"{_ATOMS}|{_QUOTED}")
_PATH = re.compile(rf"<((?:{_QUOTED}|[^<>\"\s])*)>(?: +(.*))?", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9_\x80-\U0010ffff](?:[A-Za-z0-9_\x80-\U0010ffff-]{0,61}[A-Za-z0-9_\x80-\U0010ffff])?")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\U0010ffff]+))?")
_SIZE = re.compile(r"\d{1,20}")

# Clients' words, on their way to wherever Python's loggers lead; ours are said by `Log`.
logging.getLogger("mail.log").propagate = False
logging.getLogger("mail.log").addHandler(logging.NullHandler())


class Desk(Protocol):
    """Who knows what a mail is. Called from several threads; each call may wait for the disk.

    All raise `Refusal`, which is what the client is told. Anything else that is raised
    is 451 4.3.0 to the client, and logged.
    """

    def sender(self, user: str, address: str) -> None:
        """MAIL: *address* is "" for ``<>``, and may have no domain."""

    def recipient(self, address: str) -> None:
        """RCPT."""

    def take(self, user: str, sender: str, recipients: Sequence[str], raw: bytes, *, protocol: str) -> str:
        """DATA: the mail, as it was sent, without the dots that were stuffed; its id, once it is safe on the disk.

        *protocol* is for the Received line (RFC 3848, RFC 6531 4.3): ``ESMTPSA`` with TLS, ``ESMTPA``
        without, and the same behind ``UTF8SMTP``.
        """


@dataclass(frozen=True)
class Limits:
    """What one client, and all together, may use.

    ``errors``: refused commands until the connection is closed; a refused recipient is none
    of them, since a mail to many would never go. ``idle_seconds``: RFC 5321 4.5.3.2.7.
    ``login_seconds``: from the first byte to the login.
    """

    connections: int = 50
    strangers: int = 20
    errors: int = 10
    idle_seconds: float = 300.0
    login_seconds: float = 60.0


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or later with this chain and key (PEM).

    Raises:
        ConfigError: one of them cannot be read, or is not what it should be.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for setting, path in (("RELAY_TLS_CERT_FILE", certificate), ("RELAY_TLS_KEY_FILE", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{setting} names {path}, which cannot be read: {error.strerror}.") from error
    try:
        # A passphrase: OpenSSL would ask for it on the terminal, if there is one.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"{certificate} and {key} are no certificate with its private key: {error}.",
            "Both are PEM, the key has no passphrase, and it is the certificate's.",
        ) from error
    return context


class Listener:
    """The relay's server: an event loop on a thread of its own, from `start` to `stop`.

    ``networks`` may connect. ``tls_context`` None: no TLS, which only loopback may do
    without. ``max_size`` and ``memory_budget`` are bytes: of one mail, and of all that
    are being received or stored; a larger one is taken when it is alone.
    """

    def __init__(
        self,
        desk: Desk,
        users: Users,
        guard: Guard,
        *,
        host: str,
        port: int,
        networks: Sequence[IPNetwork],
        tls_context: ssl.SSLContext | None,
        tls: str,
        max_size: int,
        max_recipients: int,
        memory_budget: int,
        log: Log,
        limits: Limits | None = None,
    ) -> None:
        """*tls* is ``starttls`` or ``implicit``; *port* 0 is any that is free."""
        self.desk = desk
        self.max_size = max_size
        self.max_recipients = max_recipients
        self.tls_context = tls_context
        self.implicit = tls_context is not None and tls == "implicit"
        self.limits = limits or Limits()
        self.memory = _Memory(memory_budget)
        self.log = log
        self.plaintext = False  # until it is known to be loopback
        self.stopping = False
        self.login_threads = concurrent.futures.ThreadPoolExecutor(_LOGIN_THREADS, "relay-login")
        self.desk_threads = concurrent.futures.ThreadPoolExecutor(_DESK_THREADS, "relay-desk")
        self._users = users
        self._guard = guard
        self._host = host
        self._port = port
        self._networks = networks
        self._clients: dict[_Client, None] = {}  # a set that knows who is the oldest
        self._thread: threading.Thread | None = None
        self._bound: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._stop: Callable[[float], object] | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._bound.result(0)

    def start(self) -> None:
        """Listens.

        Raises:
            Unavailable: the port is taken.
            ConfigError: it cannot listen there, or may not without TLS.
        """
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()
        try:
            self._bound.result(_START_SECONDS)
        except TimeoutError as error:
            raise Unavailable(f"The relay did not come to listen on {self._place} in time.", "Try again.") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                hint = "Is another drain running? Else set RELAY_PORT to a free one."
                raise Unavailable(f"Port {self._place} is taken by another program.", hint) from error
            raise ConfigError(
                f"The relay cannot listen on {self._place}: {error.strerror or error}.",
                "RELAY_HOST is to be an address of this machine, and RELAY_PORT above 1023.",
            ) from error

    def stop(self, seconds: float) -> None:
        """Ends: nobody new is let in; mails on their way are given *seconds*."""
        if (stop := self._stop) is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):  # its loop has just ended by itself
                stop(seconds)
            self._thread.join(seconds + _START_SECONDS)
            self._stop = None
        for threads in (self.login_threads, self.desk_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _place(self) -> str:
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 (`start` raises it, or it is logged)
            if self._bound.done():
                self.log.alert("relay", message=f"The relay's listener ended: {error!r}", hint="Start it again.")
            else:
                self._bound.set_exception(error)
        finally:
            self._stop = None

    @property
    def alive(self) -> bool:
        """Whether it still listens; from `start` to `stop` it should."""
        return self._stop is not None

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        # Broken handshakes and the like are clients' affairs.
        loop.set_exception_handler(lambda _, context: self.log.debug("relay", message=str(context.get("message"))))
        server = await loop.create_server(lambda: _Client(self, loop), self._host, self._port)
        self.plaintext = all(is_loopback(str(sock.getsockname()[0])) for sock in server.sockets)
        if not self.plaintext and self.tls_context is None:
            server.close()
            raise ConfigError(
                f"The relay would listen on {self._place}, beyond this machine, without TLS.",
                "Set RELAY_TLS_CERT_FILE and RELAY_TLS_KEY_FILE, or RELAY_HOST to 127.0.0.1.",
            )
        stop: asyncio.Future[float] = loop.create_future()

        def ask(seconds: float) -> None:
            if not stop.done():
                stop.set_result(seconds)

        self._stop = lambda seconds: loop.call_soon_threadsafe(ask, seconds)
        self._bound.set_result(int(server.sockets[0].getsockname()[1]))
        seconds = await stop
        server.close()  # without `wait_closed`, which from 3.12 on waits for the clients
        self.stopping = True
        deadline = loop.time() + seconds
        for client in list(self._clients):
            if not client.busy:
                client.dismiss("421 4.3.2 The relay is stopping; try again later")
        while self._clients and loop.time() < deadline:  # noqa: ASYNC110 (nobody counts on the end of the last)
            await asyncio.sleep(0.02)
        for client in list(self._clients):
            client.dismiss("421 4.3.2 The relay is stopping; try again later")
        await asyncio.sleep(0)

    def admit(self, client: "_Client", address: str) -> str:
        """Counts a client that connects; "" or the reply with which it is sent away."""
        if not self._may_connect(address):
            self.log.notice("relay-refused", peer=address, code=554, message=f"{address} is not in RELAY_ALLOWED_CIDRS")
            return "554 5.7.1 This address may not use this relay"
        if self.stopping:
            return "421 4.3.2 The relay is stopping; try again later"
        strangers = [one for one in self._clients if not one.user]
        if len(strangers) >= self.limits.strangers:
            # A program that opens connections and says nothing must not keep out one that does.
            strangers[0].dismiss("421 4.7.0 Too many connections without a login; try again later")
        if len(self._clients) >= self.limits.connections:
            return "421 4.7.0 Too many connections; try again later"
        self._clients[client] = None
        return ""

    def leave(self, client: "_Client") -> None:
        """The client is gone, or as good as."""
        self._clients.pop(client, None)

    def _may_connect(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)

    def verify(self, user: str, password: bytes, address: str) -> tuple[str, float]:
        """The reply to this login ("" where it is good), and the seconds after which it is given. Takes as long as scrypt does."""
        try:
            admitted = self._guard.admits(user, address)
            # Why only there: see `guard`.
            if not admitted and not (is_loopback(address) and self._users.remembers(user, password)):
                self._say_login(user, address, 454, "locked out after wrong passwords")
                return "454 4.7.0 Too many wrong passwords; try again later", LONGEST_DELAY_SECONDS
            right = self._users.check(user, password)
        except DrainError as error:
            self.log.alert("relay-login", user=user, peer=address, code=454, message=str(error))
            return "454 4.7.0 Nobody can log in at the moment; the relay's log says why", 0
        if right:
            self._guard.succeeded(user, address)
            return "", 0
        self._say_login(user, address, 535, "wrong name or password")
        return "535 5.7.8 The name or the password is wrong", self._guard.failed(user, address)

    def _say_login(self, user: str, address: str, code: int, why: str) -> None:
        self.log.warning("relay-login", user=user, peer=address, code=code, message=f"{user} at {address}: {why}")

    def ask(self, question: Callable[[], object], user: str, address: str) -> str:
        """What the desk says: "" or a refusal."""
        try:
            question()
        except Refusal as refusal:
            self.log.notice("relay-refused", user=user, peer=address, code=refusal.code, reason=refusal.words)
            return _reply(refusal)
        except Exception as error:  # noqa: BLE001 (a client's mail must not end the listener)
            return self.broken(error)
        return ""

    def take(self, take: Callable[[], str], user: str, address: str, sender: str, size: int) -> str:
        """Hands a mail to the desk; the reply."""
        taken: list[str] = []
        refused = self.ask(lambda: taken.append(take()), user, address)
        if refused:
            return refused
        self.log.info("relay-accepted", id=taken[0], user=user, peer=address, sender=sender, bytes=size, code=250)
        return f"250 2.0.0 Ok: queued as {taken[0]}"

    def broken(self, error: BaseException) -> str:
        """Logs what should not happen; the reply, which does not tell of it."""
        self.log.error("relay", message=f"The relay could not answer a command: {error!r}")
        return "451 4.3.0 Something went wrong here; try again later"


class _Memory:
    """The bytes of mails in our hands, of all clients together; used by the loop's thread alone."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._used = 0

    def grow(self, mine: int, more: int) -> bool:
        """Whether there is room for *more* bytes of a mail that has *mine*; alone it has all the room."""
        if self._used > mine and self._used + more > self._budget:
            return False
        self._used += more
        return True

    def free(self, mine: int) -> None:
        self._used -= mine


class _Client(SMTP):
    """One connection."""

    # None to the library before a connection is made, and never in a command.
    session: Any
    envelope: Any
    transport: Any
    _handler_coroutine: Any
    _original_transport: Any

    # What the reader holds for a line, of commands as of a mail: longer lines of a mail are put together from pieces.
    line_length_limit = _COMMAND_BYTES
    command_size_limit = _COMMAND_BYTES
    # The library's own falls back to 512, and EHLO adds to it for all connections of the process.
    command_size_limits = collections.defaultdict(lambda: _COMMAND_BYTES)  # noqa: RUF012 (as the library has it)

    def __init__(self, house: Listener, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            object(),
            data_size_limit=house.max_size,
            enable_SMTPUTF8=True,
            hostname=_hostname(),
            ident="ESMTP",
            tls_context=house.tls_context,
            timeout=house.limits.idle_seconds,
            loop=loop,
        )
        self._house = house
        self._deadline = loop.time() + house.limits.login_seconds
        self._errors = 0
        self._quiet = False
        self._declared = 0
        self._refused_at_once = ""
        self.address = ""
        self.user = ""
        self.busy = False

    # connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of TCP, and once more of TLS: then nobody is logged in any more (RFC 3207 4.2)."""
        self.user = ""
        first = self._original_transport is None
        if first:
            self.address = _address(transport.get_extra_info("peername"))
            self._refused_at_once = self._house.admit(self, self.address)
        super().connection_made(transport)
        if first:
            self._handler_coroutine.add_done_callback(lambda _: self._house.leave(self))

    async def _handle_client(self) -> None:
        """Before the library greets: who may not be here, and TLS that begins with the first byte."""
        if self._refused_at_once:
            self.dismiss(self._refused_at_once)
            return
        if self._house.implicit:
            self._quiet = True
            try:
                await self.smtp_STARTTLS("")
            except TLSSetupException:
                self._hang_up()
                return
            self._quiet = False
        await super()._handle_client()

    def dismiss(self, reply: str) -> None:
        """Says goodbye and closes; who does not take it is cut off."""
        self._house.leave(self)
        transport = self.transport
        if transport is None or (self._tls_protocol is not None and self.session.ssl is None):
            self._hang_up()  # in the middle of a handshake there is no word to say
            return
        if not transport.is_closing():
            transport.write(reply.encode("ascii", "replace") + b"\r\n")
            transport.close()
        self.loop.call_later(_CLOSING_SECONDS, self._hang_up)
        self._handler_coroutine.cancel()

    def _hang_up(self) -> None:
        for transport in (self.transport, self._original_transport):
            if transport is not None:
                transport.abort()
        self._house.leave(self)
        self._handler_coroutine.cancel()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Who has not logged in has a minute for all of it, whatever it says meanwhile."""
        if not self.user:
            duration = max(0.001, min(self._house.limits.idle_seconds, self._deadline - self.loop.time()))
        super()._reset_timeout(duration)

    def _timeout_cb(self) -> None:
        """The library closes without a word, and waits for one that takes nothing."""
        self.dismiss("421 4.4.2 Nothing was said for too long")

    # replies

    async def push(self, status: str | bytes) -> None:
        """Every reply but those that `_say` writes: made safe, with an enhanced code, and counted."""
        if self._quiet:
            return
        reply = clean(status if isinstance(status, str) else status.decode("ascii", "replace"), _REPLY_LETTERS)
        if code := _CODE.match(reply):
            reply = f"{code[1]} {_STATUS.get(code[1], code[1][0] + '.0.0')} {reply[4:]}"
        if reply.startswith(("5", "454 ")):
            self._errors += 1
        await self._say(reply)
        if self._errors >= self._house.limits.errors:
            self.dismiss("421 4.7.0 Too many errors")
            await asyncio.sleep(0)  # where the cancellation arrives: what else was sent is not looked at

    async def _say(self, line: str) -> None:
        await super().push(line.encode("ascii", "replace"))

    async def handle_exception(self, error: Exception) -> str:
        """The library would show the client the exception. A `Refusal` is meant for it."""
        if isinstance(error, TLSSetupException):
            message = f"{self.address} ended the TLS handshake: perhaps it does not trust RELAY_TLS_CERT_FILE."
            self._house.log.notice("relay", peer=self.address, message=message)
            return "454 4.7.0 There was no TLS handshake"
        return _reply(error) if isinstance(error, Refusal) else self._house.broken(error)

    # commands

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802 (as the library has it)
        """No enhanced code belongs into this reply (RFC 2034 3)."""
        self._greeted_by(hostname, "HELO")
        self.session.extended_smtp = False
        await self._say(f"250 {self.hostname}")

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802 (as the library has it)
        """Says what there is; the library's has HELP, and not what it does of itself."""
        self._greeted_by(hostname, "EHLO")
        self.session.extended_smtp = True
        words = [self.hostname, "PIPELINING", f"SIZE {self._house.max_size}", "8BITMIME", "SMTPUTF8"]
        words.append("ENHANCEDSTATUSCODES")
        if self._house.tls_context is not None and not self._encrypted:
            words.append("STARTTLS")
        if self._encrypted or self._house.plaintext:
            words.append("AUTH PLAIN LOGIN")
        for word in words[:-1]:
            await self._say(f"250-{word}")
        await self._say(f"250 {words[-1]}")

    def _greeted_by(self, hostname: str, command: str) -> None:
        if not hostname:
            raise Refusal(501, "5.5.4", f"Syntax: {command} hostname")
        self._set_rset_state()  # type: ignore[no-untyped-call]
        self.session.host_name = hostname

    @property
    def _encrypted(self) -> bool:
        return self.session.ssl is not None

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802 (as the library has it)
        """The library takes a connection that ended in the handshake for one that is encrypted."""
        if self._tls_protocol is not None:
            raise Refusal(503, "5.5.1", "TLS is spoken already")
        if self._house.tls_context is None:
            raise Refusal(502, "5.5.1", "There is no TLS here")
        await super().smtp_STARTTLS(arg)
        if self._tls_protocol is not None and self.session.ssl is None:
            raise TLSSetupException

    async def smtp_HELP(self, _: str) -> None:  # noqa: N802 (as the library has it)
        """Says nothing of what there is."""
        raise Refusal(502, "5.5.1", "No help here")

    async def smtp_EXPN(self, _: str) -> None:  # noqa: N802 (as the library has it)
        """There are no lists."""
        raise Refusal(502, "5.5.1", "Not here")

    async def smtp_VRFY(self, _: str) -> None:  # noqa: N802 (as the library has it)
        """The library repeats what it was asked, to anybody."""
        self._must_be_logged_in()
        await self.push("252 2.0.0 Cannot say; send it and see")

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802 (as the library has it)
        """The library's would run scrypt on the event loop, and knows its mechanisms in capitals only."""
        if not self.session.extended_smtp:
            raise Refusal(503, "5.5.1", "Send EHLO first")
        if not (self._encrypted or self._house.plaintext):
            raise Refusal(538, "5.7.11", "A password goes through TLS only: STARTTLS first")
        if self.user:
            raise Refusal(503, "5.5.1", "You are logged in already")
        mechanism, *initial = (arg or "").split() or [""]
        if len(initial) > 1:
            raise Refusal(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
        if mechanism.upper() == "PLAIN":
            fields = (await self._response(initial, b"")).split(b"\0")
            if len(fields) != 3:
                raise Refusal(501, "5.5.2", "That is not a PLAIN response (RFC 4616)")
            behalf, name, password = fields
            if behalf not in (b"", name):
                raise Refusal(535, "5.7.8", "Nobody acts for another here")
        elif mechanism.upper() == "LOGIN":
            name = await self._response(initial, b"Username:")
            password = await self._response([], b"Password:")
        else:
            raise Refusal(504, "5.5.4", "Only PLAIN and LOGIN are known here")
        await self._log_in(name.decode("utf-8", "replace"), password)

    async def _log_in(self, name: str, password: bytes) -> None:
        verify = functools.partial(self._house.verify, name, password, self.address)
        reply, seconds = await self.loop.run_in_executor(self._house.login_threads, verify)
        if reply:
            await asyncio.sleep(seconds)
            await self.push(reply)
            return
        self.user = name
        self._errors = 0
        self._reset_timeout()
        await self.push("235 2.7.0 Welcome")

    async def _response(self, initial: list[str], challenge: bytes) -> bytes:
        """What the client answers to a challenge, decoded (RFC 4954 4)."""
        if initial:
            line = b"" if initial[0] == "=" else initial[0].encode("utf-8", "surrogateescape")
        else:
            await self._say(f"334 {base64.b64encode(challenge).decode('ascii')}")
            line = await self._response_line()
        if line == b"*":
            raise Refusal(501, "5.7.0", "Cancelled, as you wish")
        try:
            return base64.b64decode(line, validate=True)
        except binascii.Error:
            raise Refusal(501, "5.5.2", "That is not base64") from None

    async def _response_line(self) -> bytes:
        whole = True
        while True:
            try:
                line: bytes = await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as error:
                whole = False
                await self._reader.read(error.consumed)
            else:
                break
        if not whole:
            raise Refusal(500, "5.5.6", "That response is too long (RFC 4954 4)")
        return line.rstrip(b"\r\n")

    def _must_be_logged_in(self) -> None:
        if not self.session.host_name:
            raise Refusal(503, "5.5.1", "Send EHLO first")
        if not (self._encrypted or self._house.plaintext):
            raise Refusal(530, "5.7.0", "Must issue a STARTTLS command first")
        if not self.user:
            raise Refusal(530, "5.7.0", "Authentication required")

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 (as the library has it)
        """The library parses leniently, source routes too, and refuses ``AUTH=<>``, which Postfix sends (RFC 4954 5)."""
        self._must_be_logged_in()
        if self.envelope.mail_from is not None:
            raise Refusal(503, "5.5.1", "One mail after the other")
        path, words = _path(arg, "FROM:", "5.1.7")
        parameters = _parameters(words)
        body = parameters.pop("BODY", "7BIT")
        if body is None or body.upper() not in ("7BIT", "8BITMIME"):
            raise Refusal(501, "5.5.4", "BODY is 7BIT or 8BITMIME")
        utf8 = "SMTPUTF8" in parameters
        if parameters.pop("SMTPUTF8", None) is not None:
            raise Refusal(501, "5.5.4", "SMTPUTF8 has no value")
        size = parameters.pop("SIZE", "0")
        if size is None or not _SIZE.fullmatch(size):
            raise Refusal(501, "5.5.4", "SIZE is a number")
        if int(size) > self._house.max_size:
            raise self._too_large()
        if parameters.pop("AUTH", "<>") is None:
            raise Refusal(501, "5.5.4", "AUTH has a value here")
        if parameters:
            raise Refusal(555, "5.5.4", "A parameter that is not known here")
        sender = "" if path == _NULL else _mailbox(path, "5.1.7", utf8=utf8, bare=True)
        await self._ask(functools.partial(self._house.desk.sender, self.user, sender), errors=True)
        self.envelope.mail_from = sender
        self.envelope.smtp_utf8 = utf8
        self._declared = int(size)
        await self.push("250 2.1.0 Ok")

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 (as the library has it)
        """As `smtp_MAIL`."""
        self._must_be_logged_in()
        if self.envelope.mail_from is None:
            raise Refusal(503, "5.5.1", "MAIL comes first")
        path, words = _path(arg, "TO:", "5.1.3")
        if _parameters(words):
            raise Refusal(555, "5.5.4", "A parameter that is not known here")
        recipient = _mailbox(path, "5.1.3", utf8=self.envelope.smtp_utf8)
        if len(self.envelope.rcpt_tos) >= self._house.max_recipients:
            await self.push(f"452 4.5.3 A mail goes to {self._house.max_recipients} recipients at most")
            return
        if await self._ask(functools.partial(self._house.desk.recipient, recipient), errors=False):
            self.envelope.rcpt_tos.append(recipient)
            await self.push("250 2.1.5 Ok")

    async def _ask(self, question: Callable[[], object], *, errors: bool) -> bool:
        """Asks the desk, and passes on its refusal; whether there was none."""
        ask = functools.partial(self._house.ask, question, self.user, self.address)
        reply = await self.loop.run_in_executor(self._house.desk_threads, ask)
        if reply:
            if errors:
                code, status, words = reply.split(" ", 2)
                raise Refusal(int(code), status, words)
            await self._say(reply)
        return not reply

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802 (as the library has it)
        """The library refuses long lines, reads for 300 s at most, and knows no bound for all mails together."""
        self._must_be_logged_in()
        if arg:
            raise Refusal(501, "5.5.4", "Syntax: DATA")
        if self.envelope.mail_from is None:
            raise Refusal(503, "5.5.1", "MAIL comes first")
        if not self.envelope.rcpt_tos:
            raise Refusal(554, "5.5.1", "There are no recipients")
        if not self._house.memory.grow(0, self._declared):
            raise _no_room()
        self.busy = True
        try:
            reply = await self._receive(self._declared)
        finally:
            self.busy = False
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        if reply.startswith("2"):
            self._errors = 0
        await self.push(reply)
        if self._house.stopping:
            self.dismiss("421 4.3.2 The relay is stopping; try again later")

    async def _receive(self, held: int) -> str:
        """Reads the mail and hands it over; the reply. *held* bytes of room are there for it already."""
        content = _Content(self._house, held)
        try:
            await self._say("354 End data with <CR><LF>.<CR><LF>")
            await self._read_into(content)
            if content.refusal is not None:
                return _reply(content.refusal)
            raw = bytes(content.buffer)
            content.buffer = bytearray()
            letters = "UTF8SMTP" if self.envelope.smtp_utf8 else "ESMTP"
            take = functools.partial(
                self._house.desk.take,
                self.user,
                self.envelope.mail_from,
                tuple(self.envelope.rcpt_tos),
                raw,
                protocol=f"{letters}{'S' if self._encrypted else ''}A",
            )
            job = functools.partial(self._house.take, take, self.user, self.address, self.envelope.mail_from, len(raw))
            taken = self.loop.run_in_executor(self._house.desk_threads, job)
        except BaseException:
            content.free()
            raise
        # The thread has the mail, also when the client is gone: its room is free when the thread is done.
        taken.add_done_callback(lambda _: content.free())
        return await asyncio.shield(taken)

    async def _read_into(self, content: "_Content") -> None:
        """Up to CRLF.CRLF and nothing else that looks like it (RFC 5321 4.1.1.4)."""
        until = time.monotonic() + _DATA_SECONDS
        at_start = True
        read = 0
        while True:
            try:
                piece: bytes = await self._reader.readuntil(b"\r\n")
                ends = True
            except asyncio.LimitOverrunError as error:
                # The reader keeps back what could be half of a CRLF.
                piece, ends = await self._reader.read(error.consumed), False
            if at_start and piece == b".\r\n":
                break
            content.add(piece[1:] if at_start and piece.startswith(b".") else piece)
            at_start = ends
            if (read + len(piece)) >> 16 > read >> 16:
                self._reset_timeout()
            read += len(piece)
            if read > _OVERSIZE * self._house.max_size + 65536 or time.monotonic() > until:
                self.dismiss("421 4.7.0 This takes too long")
                await asyncio.sleep(0)
        self._reset_timeout()

    def _too_large(self) -> Refusal:
        return _too_large(self._house.max_size)


class _Content:
    """A mail as it comes in; once it is refused nothing of it is kept."""

    def __init__(self, house: Listener, held: int) -> None:
        self._house = house
        self._held = held
        self.buffer = bytearray()
        self.refusal: Refusal | None = None

    def add(self, piece: bytes) -> None:
        if self.refusal is not None:
            return
        size = len(self.buffer) + len(piece)
        if size > self._house.max_size:
            self._refuse(_too_large(self._house.max_size))
        elif size > self._held and not self._house.memory.grow(self._held, more := max(65536, size - self._held)):
            self._refuse(_no_room())
        else:
            if size > self._held:
                self._held += more
            self.buffer += piece

    def free(self) -> None:
        """Gives its room back."""
        self._house.memory.free(self._held)
        self._held = 0

    def _refuse(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self.buffer = bytearray()
        self.free()


def _too_large(most: int) -> Refusal:
    return Refusal(552, "5.3.4", f"The mail is larger than {most} bytes")


def _no_room() -> Refusal:
    return Refusal(452, "4.3.1", "Too much mail at once; try again later")


def _reply(refusal: Refusal) -> str:
    return clean(f"{refusal.code} {refusal.status} {refusal.words}", _REPLY_LETTERS)


def _path(arg: str | None, keyword: str, status: str) -> tuple[str, str]:
    """What is in the angle brackets, ``<>`` if nothing is, and the parameters behind them (RFC 5321 4.1.2)."""
    words = arg or ""
    if words[: len(keyword)].upper() != keyword:
        raise Refusal(501, "5.5.4", f"Syntax: {keyword}<address>")
    # A blank behind the colon is wrong and usual.
    rest = words[len(keyword) :].removeprefix(" ")
    if any(letter < " " or letter == "\x7f" or "\ud800" <= letter <= "\udfff" for letter in rest):
        raise Refusal(501, status, "Control characters, or bytes that are not UTF-8")
    found = _PATH.fullmatch(rest)
    if found is None:
        raise Refusal(501, status, "An address stands in one pair of angle brackets")
    return found[1] or _NULL, found[2] or ""


def _mailbox(path: str, status: str, *, utf8: bool, bare: bool = False) -> str:
    """The address in a path; with *bare* it may have no domain."""
    if path.startswith("@"):
        raise Refusal(553, status, "No source routes here")
    if len(path.encode()) > _PATH_OCTETS - 2:
        raise Refusal(501, status, "The address is too long")
    local, at, domain = path.rpartition("@")
    if not at:
        local, domain = path, ""
        if not bare or path == _NULL:
            raise Refusal(553, status, "The address has no domain")
    if not path.isascii() and not utf8:
        raise Refusal(553, "5.6.7", "An address with such letters needs SMTPUTF8")
    if len(local.encode()) > _LOCAL_OCTETS or len(domain.encode()) > _DOMAIN_OCTETS:
        raise Refusal(501, status, "The address is too long")
    if not _LOCAL.fullmatch(local) or (at and not _is_domain(domain)) or clean(path, 1000) != path:
        raise Refusal(553, status, "That is not an address")
    return path


def _is_domain(domain: str) -> bool:
    if domain.startswith("[") and domain.endswith("]"):
        try:
            ipaddress.ip_address(domain[1:-1].removeprefix("IPv6:"))
        except ValueError:
            return False
        return "%" not in domain
    return all(_LABEL.fullmatch(label) for label in domain.split("."))


def _parameters(words: str) -> dict[str, str | None]:
    """ESMTP parameters (RFC 5321 4.1.2), the names in capitals; None for one without a value."""
    parameters: dict[str, str | None] = {}
    for word in words.split():
        found = _PARAMETER.fullmatch(word)
        if found is None or found[1].upper() in parameters:
            raise Refusal(501, "5.5.4", "What stands behind the address are no parameters")
        parameters[found[1].upper()] = found[2]
    return parameters


def _address(peer: Any) -> str:
    """The client's IP address; that of an IPv4 client at an IPv6 socket is its IPv4 address."""
    try:
        ip = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except (TypeError, IndexError, ValueError):
        return ""  # gone before it was looked at
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def _hostname() -> str:
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9.-]{1,255}", name) else "localhost"
