"""A private name server for tests (NSD), and resolvers with faults that it does not have.

NSD is authoritative only, so as a resolver it knows its zones and answers REFUSED to
anything else. Block lists can have their real names here: nothing leaves loopback.
"""

import contextlib
import ipaddress
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset

from tests.real.server import HOST, START_LIMIT_SECONDS, Rig, await_listener, end, log_end, needed

# Zone to name in it to its A records. A name can be an address, which stands there reversed.
Zones: TypeAlias = Mapping[str, Mapping[str, Sequence[str]]]
# What a fake resolver makes of a query; nothing at all for None.
Reply: TypeAlias = Callable[[dns.message.Message], dns.message.Message | bytes | None]

IP_TEST_ENTRY = {"127.0.0.2": ["127.0.0.2", "127.0.0.4", "127.0.0.10"]}
DBL_TEST_ENTRY = {"dbltest.com": ["127.0.1.2"]}

_POLL_SECONDS = 0.02
_TRIES_FOR_A_PORT = 3


class Nameserver(Rig):
    """An NSD of its own on a free port of 127.0.0.1, UDP and TCP, from `start` to `stop`.

    No root is needed.
    """

    def __init__(self, zones: Zones, *, ttl: int = 300, negative_ttl: int = 120, servfail: Sequence[str] = ()) -> None:
        """Say what it serves; nothing is started.

        Args:
            zones: the entries of each zone; `IP_TEST_ENTRY` and `DBL_TEST_ENTRY` are not there unless given.
            ttl: of each record.
            negative_ttl: of "no such name" (RFC 2308).
            servfail: zones to which it answers SERVFAIL.
        """
        self.port = 0
        self._zones = zones
        self._ttl = ttl
        self._negative_ttl = negative_ttl
        self._servfail = tuple(servfail)
        self._home: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def resolver(self) -> str:
        """As ``DNS_RESOLVERS`` has it."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Run the server; returns once it answers for its zones.

        Raises:
            RuntimeError: NSD is not installed or did not come up; says which.
        """
        nsd = needed("nsd", "nsd")
        for tries_left in reversed(range(_TRIES_FOR_A_PORT)):
            try:
                self._start(nsd)
            except BaseException as error:
                self.stop()
                # Another program can have taken the port meanwhile.
                if not isinstance(error, RuntimeError) or not tries_left:
                    raise
            else:
                return

    def stop(self) -> None:
        """End the server and remove all that it had."""
        server, self._server = self._server, None
        if server is not None:
            end(server)
        home, self._home = self._home, None
        if home is not None:
            shutil.rmtree(home)

    def _start(self, nsd: str) -> None:
        self.port = _free_port()
        self._home = Path(tempfile.mkdtemp(prefix="drain-nsd-"))
        config = self._lay_out(self._home)
        log = self._home / "nsd.log"
        with log.open("ab") as words:
            # -d: no daemon, so that it is a child of ours, which leads a process group of its own.
            self._server = subprocess.Popen(
                [nsd, "-d", "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )
        await_listener(self._server, "NSD", (self.port,), log)
        deadline = time.monotonic() + START_LIMIT_SECONDS
        for zone in self._zones:
            while not self._serves(zone):
                if time.monotonic() > deadline:
                    message = f"NSD does not serve {zone}.\n{log_end(log)}"
                    raise RuntimeError(message)
                time.sleep(_POLL_SECONDS)

    def _serves(self, zone: str) -> bool:
        query = dns.message.make_query(zone, "SOA")
        with contextlib.suppress(dns.exception.DNSException, OSError):
            return bool(dns.query.udp(query, HOST, port=self.port, timeout=1).answer)
        return False

    def _lay_out(self, home: Path) -> Path:
        lines = [
            *("server:", f"ip-address: {HOST}@{self.port}", "server-count: 1", 'username: ""', 'pidfile: ""'),
            *(f'zonesdir: "{home}"', 'database: ""', f'zonelistfile: "{home}/zone.list"'),
            *(f'xfrdfile: "{home}/xfrd.state"', f'xfrdir: "{home}"', "rrl-ratelimit: 0", "round-robin: no"),
            *("remote-control:", "control-enable: no"),
        ]
        for number, (zone, entries) in enumerate(self._zones.items()):
            file = home / f"{number}.zone"
            file.write_text(_zone_file(zone, entries, self._ttl, self._negative_ttl))
            lines += ["zone:", f"name: {zone}", f'zonefile: "{file}"']
        for zone in self._servfail:  # it knows of the zone and has nothing of it
            lines += ["zone:", f"name: {zone}", f'zonefile: "{home}/missing.zone"']
        config = home / "nsd.conf"
        config.write_text("\n".join(lines) + "\n")
        return config


class FakeResolver:
    """A UDP resolver that answers what *reply* makes of a query, and keeps the names it was asked for in ``names``."""

    def __init__(self, reply: Reply) -> None:
        self.names: list[str] = []
        self.reply = reply
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def resolver(self) -> str:
        """As ``DNS_RESOLVERS`` has it."""
        return f"{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not by closing: a thread that waits in recvfrom does not notice that.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (HOST, self.port))
        self._thread.join()
        self._socket.close()

    def asked(self, part: str) -> int:
        """How often a name with *part* in it was asked for."""
        return sum(part in name for name in self.names)

    def _serve(self) -> None:
        while True:
            wire, client = self._socket.recvfrom(65535)
            if not wire:
                return
            query = dns.message.from_wire(wire)
            self.names.append(query.question[0].name.to_text(omit_final_dot=True))
            answer = self.reply(query)
            if answer is not None:
                self._socket.sendto(answer if isinstance(answer, bytes) else answer.to_wire(), client)


def forwarded(port: int) -> Reply:
    """What the name server on *port* answers: for a fake that only counts."""
    return lambda query: dns.query.udp(query, HOST, port=port, timeout=5)


def from_zones(zones: Zones, *, ttl: int = 300, negative_ttl: int | None = 120) -> Reply:
    """What a name server with these zones would answer, for tests that cannot wait for one.

    No *negative_ttl*: no SOA with what does not exist.
    """
    records = {f"{_owner(name)}.{zone}": values for zone, entries in zones.items() for name, values in entries.items()}

    def reply(query: dns.message.Message) -> dns.message.Message:
        name = query.question[0].name
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if values := records.get(name.to_text(omit_final_dot=True).lower()):
            response.answer.append(dns.rrset.from_text(name, ttl, "IN", "A", *values))
            return response
        response.set_rcode(dns.rcode.NXDOMAIN)
        if negative_ttl is not None:
            soa = f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {negative_ttl}"
            response.authority.append(dns.rrset.from_text(name.parent(), 3600, "IN", "SOA", soa))
        return response

    return reply


def _zone_file(zone: str, entries: Mapping[str, Sequence[str]], ttl: int, negative_ttl: int) -> str:
    lines = [f"$ORIGIN {zone}.", f"$TTL {ttl}"]
    # RFC 2308 3: the SOA's own TTL bounds a negative answer's, too.
    lines.append(f"@ {negative_ttl} IN SOA ns hostmaster 1 3600 600 86400 {negative_ttl}")
    lines += ["@ IN NS ns", f"ns IN A {HOST}"]
    lines += [f"{_owner(name)} IN A {value}" for name, values in entries.items() for value in values]
    return "\n".join(lines) + "\n"


def _owner(name: str) -> str:
    try:
        pointer = ipaddress.ip_address(name).reverse_pointer
    except ValueError:
        return name
    return pointer.rsplit(".", 2)[0]


def _free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at the moment, over UDP or TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            port = int(tcp.getsockname()[1])
            with contextlib.suppress(OSError):
                udp.bind((HOST, port))
                return port
