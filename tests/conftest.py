import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from drain.demo.s3 import S3Server
from tests.smtp_fake import FakeSmtp
from tests.support import House


@pytest.fixture(autouse=True)
def _boto_does_not_sleep_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with S3Server() as s3, FakeSmtp() as smtp:
        yield House(s3, smtp, tmp_path / "state")
