"""The parts of the bench: what is measured is worth as much as these are true."""

import asyncio
import contextlib
import email.policy
import hashlib
import itertools
import re
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from bench import sink as sink_module
from bench.endpoint import Endpoint
from bench.link import Link
from bench.sink import Sink
from drain import keys
from drain.sealed import open_sealed
from tests.support import ended, until

MIB = 1024 * 1024
SECONDS = 60.0


class Far:
    """Who is spoken to through a link: answers ``e``, sends so many bytes after ``d``, hashes what comes after ``h``."""

    def __init__(self) -> None:
        self.failures: list[OSError] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with connection, connection.makefile("rb") as stream:
                while word := stream.read(1):
                    if word == b"e":
                        connection.sendall(word)
                    elif word == b"d":
                        connection.sendall(bytes(int.from_bytes(stream.read(4), "big")))
                    else:
                        connection.sendall(hashlib.sha256(stream.read()).digest())
        except OSError as error:
            self.failures.append(error)


@pytest.fixture
def far() -> Iterator[Far]:
    far = Far()
    yield far
    far.close()


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(connection: socket.socket) -> float:
    begun = time.perf_counter()
    connection.sendall(b"e")
    assert connection.recv(1) == b"e"
    return time.perf_counter() - begun


def fastest(measure: Callable[[], float], enough: float) -> float:
    """Of so many times the least, which is what the link takes: what is more, a busy machine does."""
    least = measure()
    for _ in range(40):
        if least < enough:
            break
        least = min(least, measure())
    return least


def asked_for(connection: socket.socket, size: int) -> None:
    connection.sendall(b"d" + size.to_bytes(4, "big"))


def received(connection: socket.socket, size: int) -> None:
    while size > 0:
        block = connection.recv(min(size, MIB))
        assert block
        size -= len(block)


def test_each_exchange_over_a_far_link_takes_a_round_trip_and_the_first_one_more_for_the_connection(far: Far) -> None:
    with Link(far.port, round_trip_seconds=0.1) as link, connected(link.port) as connection:
        assert exchange(connection) >= 0.2
        assert 0.1 <= fastest(lambda: exchange(connection), 0.14) < 0.14


def test_a_client_that_has_to_think_before_its_first_word_pays_for_the_connection_all_the_same(far: Far) -> None:
    def thoughtful() -> float:
        with connected(link.port) as connection:
            time.sleep(0.2)  # as one that loads its roots first
            return exchange(connection)

    with Link(far.port, round_trip_seconds=0.2) as link:
        assert any(thoughtful() >= 0.4 for _ in range(8))


def test_a_server_that_speaks_first_is_heard_after_two_round_trips_and_the_client_then_after_one() -> None:
    def greeted() -> float:
        begun = time.perf_counter()
        with connected(link.port) as connection:
            assert connection.recv(100).startswith(b"220")
            greeting = time.perf_counter() - begun
            answered.append(noop(connection))
            return greeting

    answered: list[float] = []
    with Sink() as sink, Link(sink.port, round_trip_seconds=0.1) as link:
        assert 0.2 <= fastest(greeted, 0.24) < 0.24
        assert 0.1 <= fastest(lambda: (greeted(), answered[-1])[1], 0.14) < 0.14


def noop(connection: socket.socket) -> float:
    begun = time.perf_counter()
    connection.sendall(b"NOOP\r\n")
    assert connection.recv(100).startswith(b"250")
    return time.perf_counter() - begun


@pytest.mark.parametrize("rate", [0.0, 20.0 * MIB])
def test_what_goes_through_a_link_arrives_whole_and_its_end_after_it(far: Far, rate: float) -> None:
    content = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(300_000))
    with Link(far.port, round_trip_seconds=0.02, bytes_per_second=rate) as link, connected(link.port) as connection:
        connection.sendall(b"h" + content)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == hashlib.sha256(content).digest()
        assert connection.recv(100) == b""
    assert not far.failures


def test_a_narrow_link_carries_what_it_is_set_to_neither_less_nor_more(far: Far) -> None:
    rate = 2_500_000  # 20 Mbit/s
    achieved: list[float] = []

    def measured() -> bool:
        with Link(far.port, bytes_per_second=rate) as link, connected(link.port) as connection:
            asked_for(connection, rate + 1)
            received(connection, 1)
            begun = time.perf_counter()
            received(connection, rate)
            achieved.append(rate / (time.perf_counter() - begun) / rate)
        return 0.95 <= achieved[-1] <= 1.02

    assert any(measured() for _ in range(8)), achieved  # a machine that stops for a moment makes one slower


def test_connections_share_a_narrow_link_a_turn_each(far: Far) -> None:
    size, share = 8 * MIB, MIB // 2
    with Link(far.port, bytes_per_second=MIB) as link, connected(link.port) as big, connected(link.port) as small:
        asked_for(big, size)
        received(big, 1)  # the whole of it waits at the link by now, or as much as that takes
        asked_for(small, share)
        received(small, 1)
        meanwhile = _arrived(big, lambda: received(small, share - 1))
    assert 0.5 < meanwhile / share < 2


def _arrived(connection: socket.socket, during: Callable[[], None]) -> int:
    """How many bytes arrive on a connection while something else goes on."""
    counted, done = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += len(connection.recv(4096))

    counting = threading.Thread(target=count)
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while connection.recv(65536):  # what came before
            pass
    connection.settimeout(SECONDS)
    counting.start()
    during()
    done.set()
    counting.join(SECONDS)
    return counted


def test_a_link_that_loses_connections_resets_them_at_both_ends(far: Far) -> None:
    with Link(far.port, lost=0.999) as link:
        for number in range(1, 6):
            with connected(link.port) as connection, pytest.raises(ConnectionResetError):
                connection.recv(1)  # for which nobody asked
            assert link.broken() == number
    until(lambda: far.failures)  # not of all: one can break before it is through
    assert {type(failure) for failure in far.failures} == {ConnectionResetError}


def test_a_link_to_nobody_resets_and_one_that_would_lose_every_connection_is_none(far: Far) -> None:
    far.close()
    with Link(far.port) as link, connected(link.port) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    with pytest.raises(ValueError, match="leaves none"):
        Link(far.port, lost=1)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with Endpoint(tmp_path_factory.mktemp("endpoint")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def s3(started: Endpoint) -> Iterator[Any]:
    with Link(started.port) as link, contextlib.closing(client_of(started, link.port)) as client:
        yield client


@pytest.fixture
def endpoint(started: Endpoint) -> Endpoint:
    started.empty()
    return started


def client_of(endpoint: Endpoint, port: int, secret: str = "") -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"https://127.0.0.1:{port}",
        region_name="auto",
        aws_access_key_id=endpoint.access_key_id,
        aws_secret_access_key=secret or endpoint.secret_access_key,
        verify=str(endpoint.ca_file),
        config=Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1},
            proxies={},
        ),
    )


def pages(s3: Any, endpoint: Endpoint, **more: Any) -> Iterator[Any]:
    yield from s3.get_paginator("list_objects_v2").paginate(Bucket=endpoint.bucket, **more)


def body(s3: Any, endpoint: Endpoint, key: str) -> bytes:
    with contextlib.closing(s3.get_object(Bucket=endpoint.bucket, Key=key)["Body"]) as stream:
        content: bytes = stream.read()
    return content


def test_boto3_does_through_a_link_all_that_drain_does_and_each_request_is_counted(s3: Any, endpoint: Endpoint) -> None:
    endpoint.fill(3, 20_000)
    bucket = {"Bucket": endpoint.bucket}
    (page,) = pages(s3, endpoint, Prefix="pending/")
    one, two, _ = (entry["Key"] for entry in page["Contents"])
    written = page["Contents"][0]["LastModified"]
    assert timedelta(minutes=59) < datetime.now(UTC) - written < timedelta(minutes=70)
    answer = s3.get_object(**bucket, Key=one)
    content = answer["Body"].read()
    assert answer["Metadata"]["to"] == "alice@example.test"
    assert {answer["ETag"], s3.head_object(**bucket, Key=one)["ETag"]} == {page["Contents"][0]["ETag"]}
    source = {"Bucket": endpoint.bucket, "Key": one}
    s3.copy_object(
        **bucket, Key="processed/one", CopySource=source, CopySourceIfUnmodifiedSince=written + timedelta(seconds=1)
    )
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.copy_object(**bucket, Key="processed/two", CopySource=source, CopySourceIfUnmodifiedSince=written)
    s3.delete_object(**bucket, Key=one)
    s3.delete_objects(**bucket, Delete={"Objects": [{"Key": two}]})
    s3.put_object(**bucket, Key="pending/own", Body=b"own bytes")
    assert body(s3, endpoint, "processed/one") == content
    assert body(s3, endpoint, "pending/own") == b"own bytes"
    assert (endpoint.left(), endpoint.left("processed/")) == (2, 1)
    with pytest.raises(ClientError, match="NoSuchKey"):
        body(s3, endpoint, two)
    assert endpoint.requests() == {
        "ListObjectsV2": 1,
        "GetObject": 4,
        "HeadObject": 1,
        "CopyObject": 2,
        "DeleteObject": 1,
        "DeleteObjects": 1,
        "PutObject": 1,
    }
    endpoint.empty()
    assert (endpoint.left(), endpoint.requests(), endpoint.connections()) == (0, {}, 0)


@pytest.mark.parametrize("size", [2000, 20_000, MIB])
def test_the_mails_are_mail_of_their_size_and_no_two_are_alike(s3: Any, endpoint: Endpoint, size: int) -> None:
    endpoint.fill(2, size)
    endpoint.fill(1, size)
    (page,) = pages(s3, endpoint)
    contents = [body(s3, endpoint, entry["Key"]) for entry in page["Contents"]]
    assert [entry["Size"] for entry in page["Contents"]] == [size] * 3
    parsed = [email.message_from_bytes(content, policy=email.policy.default) for content in contents]
    assert len({mail["Message-ID"] for mail in parsed}) == 3
    assert len({mail.get_content() for mail in parsed}) == 3
    for content, mail in zip(contents, parsed, strict=True):
        assert len(content) == size
        assert content.endswith(b"\r\n")
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
        assert (len(mail), mail.defects) == (12, [])


def test_the_objects_of_sealed_mails_open_and_are_as_long_as_a_list_says(
    s3: Any, endpoint: Endpoint, tmp_path: Path
) -> None:
    key, _ = keys.make(tmp_path / "key.pem")
    endpoint.fill(1, 20_000, sealed_for=tmp_path / "key.pem")
    endpoint.fill(1, 25 * MIB, sealed_for=tmp_path / "key.pem")
    (page,) = pages(s3, endpoint)
    lengths = set()
    for entry in page["Contents"]:
        content = body(s3, endpoint, entry["Key"])
        assert len(content) == entry["Size"]
        opened = open_sealed(content, {keys.key_id(key): key})
        assert opened.recipient == "alice@example.test"
        lengths.add(len(opened.raw))
    assert lengths == {20_000, 25 * MIB}


def test_the_endpoint_lets_in_no_other_key_and_is_known_by_its_own_certificate_alone(endpoint: Endpoint) -> None:
    with (
        contextlib.closing(client_of(endpoint, endpoint.port, secret="wrong")) as stranger,
        pytest.raises(ClientError, match="SignatureDoesNotMatch"),
    ):
        stranger.list_objects_v2(Bucket=endpoint.bucket)
    assert endpoint.connections() == 1
    for context, met in (
        (ssl.create_default_context(cafile=endpoint.certificate_file), contextlib.nullcontext()),
        (ssl.create_default_context(), pytest.raises(ssl.SSLCertVerificationError)),
    ):
        with met, connected(endpoint.port) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
            assert tls.version() == "TLSv1.3"


def test_a_hundred_thousand_objects_are_listed_a_thousand_at_a_time(s3: Any, endpoint: Endpoint) -> None:
    endpoint.fill(100_000, 2000)
    assert endpoint.left() == 100_000
    first, second = itertools.islice(pages(s3, endpoint, Prefix="pending/"), 2)
    names = [entry["Key"] for entry in first["Contents"] + second["Contents"]]
    assert len(set(names)) == 2000
    assert names == sorted(names)
    # Their names are hexadecimal digests, alike often everywhere.
    (last,) = pages(s3, endpoint, StartAfter="pending/ff0", EncodingType="url")
    assert 200 < len(last["Contents"]) < 600
    (few,) = itertools.islice(pages(s3, endpoint, StartAfter=names[4], MaxKeys=3), 1)
    assert [entry["Key"] for entry in few["Contents"]] == names[5:8]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_mails_of_25_mib_are_sent_without_being_held(s3: Any, tmp_path: Path) -> None:
    with Endpoint(tmp_path) as endpoint, contextlib.closing(client_of(endpoint, endpoint.port)) as client:
        endpoint.fill(4, 25 * MIB)
        before = _peak_bytes(endpoint.pid)
        (page,) = pages(client, endpoint)
        names = [entry["Key"] for entry in page["Contents"]]
        with ThreadPoolExecutor(4) as threads:
            lengths = list(threads.map(lambda name: len(body(client, endpoint, name)), names))
        assert lengths == [25 * MIB] * 4
        assert _peak_bytes(endpoint.pid) - before < 25 * MIB


def _peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.fixture(scope="module")
def running_sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def sink(running_sink: Sink) -> Sink:
    running_sink.forget()
    return running_sink


def session(sink: Sink) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", sink.port, "localhost", timeout=SECONDS)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_the_sink_takes_mail_after_login_and_knows_what_it_was(sink: Sink, mechanism: str) -> None:
    letter = b"Message-ID: <1@x.test>\r\n\r\n..two dots\r\n.one\r\n8-bit \xfc\r\nMessage-ID: <not@me>\r\n"
    nothing = b"Subject: no id\r\n\r\n"
    with session(sink) as smtp:
        smtp.ehlo()
        assert smtp.esmtp_features["size"] == "33554432"
        assert {"8bitmime", "enhancedstatuscodes"} <= smtp.esmtp_features.keys()
        smtp.esmtp_features["auth"] = mechanism
        smtp.login(sink.user, sink.password)
        smtp.sendmail("a@x.test", ["b@x.test", "c@x.test"], letter, ["BODY=8BITMIME"])
        smtp.rset()
        smtp.sendmail("", ["b@x.test"], nothing)
    assert sink.taken() == 2
    digests = [hashlib.sha256(content).hexdigest() for content in (letter, nothing)]
    assert sink.mails() == list(zip(digests, ["<1@x.test>", ""], strict=True))
    sink.forget()
    assert (sink.taken(), sink.mails()) == (0, [])


def test_the_sink_takes_nothing_before_login_nor_with_a_wrong_password(sink: Sink) -> None:
    with session(sink) as smtp:
        smtp.ehlo()
        assert smtp.mail("a@x.test")[0] == 530
        for user, password in ((sink.user, "wrong"), ("x", sink.password)):
            with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                smtp.login(user, password)
            assert refused.value.smtp_code == 535
        assert smtp.mail("a@x.test")[0] == 530
        assert smtp.docmd("DATA")[0] == 530
    assert sink.taken() == 0


def test_the_sink_takes_a_mail_of_25_mib(sink: Sink) -> None:
    letter = b"Message-ID: <big@x.test>\r\n\r\n" + b"a line of text\r\n" * (25 * MIB // 16)
    with session(sink) as smtp:
        smtp.login(sink.user, sink.password)
        smtp.sendmail("a@x.test", ["b@x.test"], letter)
    assert sink.mails() == [(hashlib.sha256(letter).hexdigest(), "<big@x.test>")]


@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
def test_the_sink_finds_the_end_of_a_mail_wherever_packets_are_cut(piece: int) -> None:
    said: list[bytes] = []
    kept: list[tuple[str, str]] = []

    class Wire(asyncio.Transport):
        def write(self, data: Any) -> None:
            said.append(bytes(data))

    transport = Wire({"socket": SimpleNamespace(setsockopt=lambda *_: None)})
    one = sink_module._Session(SimpleNamespace(login=("u", "p"), kept=kept))  # type: ignore[arg-type]
    one.connection_made(transport)
    talk = b"EHLO x\r\nAUTH PLAIN AHUAcA==\r\n" + b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n%sNOOP\r\n" * 3
    mails = (b"Message-ID: <1>\r\n\r\n..\r\n.x\r\n.\r\n", b".\r\n", b"..\r\n..\r\n\r\n.\r\n")
    stream = talk % mails
    for at in range(0, len(stream), piece):
        one.data_received(stream[at : at + piece])
    assert [message_id for _, message_id in kept] == ["<1>", "", ""]
    contents = (b"Message-ID: <1>\r\n\r\n.\r\nx\r\n", b"", b".\r\n.\r\n\r\n")
    assert [digest for digest, _ in kept] == [hashlib.sha256(content).hexdigest() for content in contents]
    assert [reply[:3] for reply in said] == [b"220", b"250", b"235", *[b"250", b"250", b"354", b"250", b"250"] * 3]


def test_a_part_ends_with_whoever_started_it_however_that_ends() -> None:
    code = "from bench.sink import Sink\nwith Sink() as sink:\n    print(sink.pid, flush=True)\n    input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not ended(pid)
        parent.kill()
    until(lambda: ended(pid))


def test_a_part_that_has_ended_is_said_to_have(sink: Sink) -> None:
    with Link(sink.port) as link:
        pass
    with pytest.raises(RuntimeError, match="not running"):
        link.broken()
    assert ended(link.pid)
