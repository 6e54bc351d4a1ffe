"""boto3's client for S3, set up as R2 wants it."""

import functools
import os
from typing import TYPE_CHECKING

from drain.setting import Secret

if TYPE_CHECKING:
    import boto3.session
    from mypy_boto3_s3 import S3Client

_CONNECT_TIMEOUT_SECONDS = 10
_READ_TIMEOUT_SECONDS = 60
_ATTEMPTS = 3  # 500, 503 and 429 come and go (R2 errors 10001, 10043, 10058)


def client(*, endpoint_url: str, access_key_id: str, secret_access_key: Secret, connections: int) -> "S3Client":
    """The client; no request is made yet. Loads boto3: 0.3 s and 20 MB, which who has no use for it must not pay."""
    from botocore.config import Config as BotoConfig  # noqa: PLC0415 (as above)

    # R2 has broken on the checksums that boto3 sends unasked since 1.36, with
    # answers that look like wrong keys.
    options = BotoConfig(
        region_name="auto",
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        read_timeout=_READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        max_pool_connections=connections,
    )
    made: S3Client = _session().client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key.reveal(),
        config=options,
    )
    return made


@functools.cache
def _session() -> "boto3.session.Session":
    import boto3.session  # noqa: PLC0415 (as above)
    import botocore.session  # noqa: PLC0415

    # The person's ~/.aws and AWS_PROFILE are about other things than this mailbox.
    variables = {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}
    return boto3.session.Session(botocore_session=botocore.session.Session(variables))
