import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest

from drain import assembly
from drain.bucket import Bucket
from drain.demo.s3 import S3Server
from drain.settings import Config
from tests.smtp_fake import FakeSmtp
from tests.support import House

# No deadline: a busy machine is no fault of the code's. A test that wants more examples says so.
hypothesis.settings.register_profile("house", max_examples=30, deadline=None)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def _boto_does_not_sleep_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> S3Server:
    s3_server.fault = None
    s3_server.objects.clear()
    s3_server.requests.clear()
    return s3_server


@pytest.fixture
def house(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(assembly, "bucket", _bucket_made_once)
    with FakeSmtp() as smtp:
        yield House(s3, smtp, tmp_path / "state")


_made: dict[tuple[str, ...], Bucket] = {}


def _bucket_made_once(config: Config, *, lazy: bool = False) -> Bucket:
    """Making a boto3 client costs as much as all the rest of a test; one for each set of settings is enough."""
    secret = config.r2_secret_access_key.reveal()
    key = (config.endpoint_url, config.r2_bucket, config.r2_access_key_id, secret, str(config.concurrency))
    if key not in _made:
        _made[key] = _make_bucket(config, lazy=lazy)
    return _made[key]


_make_bucket = assembly.bucket
