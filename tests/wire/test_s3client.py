"""drain's S3 client beside boto3's own, against a server: answers, faults, and what a connection costs."""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import SSLError

from drain import s3client
from drain.demo.s3 import Fault, S3Server
from drain.setting import Secret
from drain.setup import certificate
from tests.s3_clients import Clients, clients

FAULTS = [
    Fault(503, "SlowDown"),
    Fault(500, "InternalError", after=True),
    Fault(429, "TooManyRequests"),
    Fault(403, "AccessDenied"),
    Fault(403, "RequestTimeTooSkewed"),
    Fault(body=b"<html>log in</html>"),
    Fault(body=b""),
    Fault(cut_after=0),
    Fault(cut_after=3),
    Fault(drop=True),
]
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("list_objects_v2", {"Prefix": "pending/"}),
    ("get_object", {"Key": "pending/a"}),
    ("head_object", {"Key": "pending/a"}),
    ("copy_object", {"Key": "processed/a", "CopySource": {"Bucket": "mail", "Key": "pending/a"}}),
    ("delete_object", {"Key": "pending/a"}),
    ("put_object", {"Key": "pending/b", "Body": b"x"}),
]


@pytest.fixture(scope="module")
def made(s3_server: S3Server) -> Iterator[Clients]:
    # One for all: boto3 takes longer to make a client than the server to answer it.
    with clients(s3_server.endpoint_url, s3_server.access_key_id, s3_server.secret_access_key) as both:
        yield both


@pytest.fixture
def both(made: Clients, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Clients:
    # How often a client tries again depends on what it met before.
    monkeypatch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda self, amount: True)
    for sent in made.sent.values():
        sent.clear()
    return made


def test_objects_come_and_go_in_the_same_way(both: Clients, s3: S3Server) -> None:
    keys = ["pending/a b+c%20", "pending/ü/\u65e5", "pending/'<&>", "pending//double", "pending/" + "x" * 1000]
    for key in keys:
        slim, full = both.answers("put_object", Bucket="mail", Key=key, Body=b"\x00\xff\r\n.", ContentType="x/y")
        assert slim == full
        slim, full = both.answers("get_object", Bucket="mail", Key=key)
        assert slim == full
        assert slim["Body"] == b"\x00\xff\r\n."
    slim, full = both.answers("list_objects_v2", Bucket="mail", Prefix="pending/")
    assert slim == full
    assert {entry["Key"] for entry in slim["Contents"]} == set(keys)
    for key in keys:
        for after in (-1, 3600):  # refused, since it was written later; and not
            slim, full = both.answers(
                "copy_object",
                Bucket="mail",
                Key=f"processed/{key}"[:1024],
                CopySource={"Bucket": "mail", "Key": key},
                CopySourceIfUnmodifiedSince=s3.objects[key].last_modified + timedelta(hours=after),
                MetadataDirective="REPLACE",
                Metadata={"reason": "no-key", "Words": "a  b"},
            )
            assert [answer if isinstance(answer, tuple) else set(answer) for answer in (slim, full)] == (
                [("refused", 412, *slim[2:])] * 2 if after < 0 else [{"CopyObjectResult"}] * 2
            )
    for key in [*keys, "pending/none"]:
        for operation in ("head_object", "delete_object", "get_object"):
            slim, full = both.answers(operation, Bucket="mail", Key=key)
            assert slim == full
    sent, expected = both.requests()
    assert sent == expected


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize(("operation", "parameters"), CALLS, ids=[name for name, _ in CALLS])
def test_a_fault_is_the_same_and_tried_as_often(
    both: Clients, s3: S3Server, operation: str, parameters: dict[str, Any], fault: Fault
) -> None:
    both.slim.put_object(Bucket="mail", Key="pending/a", Body=b"From: a@example.test\r\n\r\nwords")
    both.sent["slim"].clear()
    s3.fault = lambda operation, key: fault
    slim, full = both.answers(operation, Bucket="mail", **parameters)
    sent, expected = both.requests()
    if operation == "delete_object":  # by the second time another mail may have the name
        assert (type(slim), len(sent)) == (type(full), 1)
        return
    assert slim == full
    assert [one["headers"]["amz-sdk-request"] for one in sent] == [
        one["headers"]["amz-sdk-request"] for one in expected
    ]


def test_a_wrong_key_and_a_wrong_bucket_are_refused_in_the_same_words(s3: S3Server) -> None:
    with clients(s3.endpoint_url, s3.access_key_id, "wrong") as wrong:
        slim, full = wrong.answers("list_objects_v2", Bucket="mail", Prefix="pending/")
        assert slim == full
        assert slim[:3] == ("refused", 403, "SignatureDoesNotMatch")
    with clients(s3.endpoint_url, s3.access_key_id, s3.secret_access_key) as right:
        slim, full = right.answers("list_objects_v2", Bucket="another", Prefix="pending/")
        assert slim == full
        assert slim[:3] == ("refused", 404, "NoSuchBucket")


class _OneAnswerAConnection(BaseHTTPRequestHandler):
    """HTTP/1.0: whoever asks again connects again."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 09:08:07 GMT")
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def tls_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    made = certificate.made("localhost", datetime.now(UTC))
    (tmp_path / "cert.pem").write_bytes(made.certificate)
    (tmp_path / "key.pem").write_bytes(made.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _OneAnswerAConnection)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "cert.pem"))
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()


def _client(port: int) -> Any:
    return s3client.client(
        endpoint_url=f"https://127.0.0.1:{port}", access_key_id="k", secret_access_key=Secret("s"), connections=4
    )


def test_ca_certificates_are_read_once_for_all_connections(tls_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading of the usual roots costs 30 ms of a processor."""
    read: list[object] = []
    really = ssl.SSLContext.load_verify_locations

    def load(self: ssl.SSLContext, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        read.append(cafile)
        really(self, cafile, capath, cadata)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    with contextlib.closing(_client(tls_port)) as client:
        for _ in range(4):
            assert client.get_object(Bucket="mail", Key="k")["Body"].read() == b"ok"
    assert len(read) == 1


def test_a_server_that_no_ca_certificate_vouches_for_is_still_refused(
    tls_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with contextlib.closing(_client(tls_port)) as client:
        for _ in range(2):
            with pytest.raises(SSLError, match="certificate verify failed"):
                client.get_object(Bucket="mail", Key="k")
