"""boto3's client for S3, set up as R2 wants it, and made from `s3model` in place of the whole of S3."""

import contextlib
import datetime
import email.utils
import functools
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import drain
from drain.setting import Secret

if TYPE_CHECKING:
    import boto3.session
    from mypy_boto3_s3 import S3Client

_CONNECT_TIMEOUT_SECONDS = 10
_READ_TIMEOUT_SECONDS = 60
_ATTEMPTS = 3  # 500, 503 and 429 come and go (R2 errors 10001, 10043, 10058)


def client(*, endpoint_url: str, access_key_id: str, secret_access_key: Secret, connections: int) -> "S3Client":
    """The client, for the operations in `s3model`; no request is made yet.

    Loads boto3: 0.3 s and 20 MB, which who has no use for it must not pay.
    """
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
        # One of its own it would put together again for each request.
        user_agent=f"drain/{drain.__version__}",
    )
    made: S3Client = _session().client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key.reveal(),
        config=options,
    )
    _set_up(made)
    return made


def _set_up(made: Any) -> None:
    """What no option says."""
    made.meta.events.register("before-call.s3.HeadBucket", _in_no_other_region)
    made.meta.events.register_first("needs-retry.s3.DeleteObject", _once)
    # urllib3 reads the file of CA certificates again for each connection, which takes 30 ms
    # of a processor each time. A botocore that keeps its TLS context elsewhere does so still.
    with contextlib.suppress(AttributeError, KeyError):
        context = made._endpoint.http_session._manager.connection_pool_kw["ssl_context"]  # noqa: SLF001 (no other way)
        context.load_verify_locations = functools.cache(context.load_verify_locations)


def _once(response: Any = None, caught_exception: Exception | None = None, **_: Any) -> None:
    """A delete is not made again unasked: by the second time another mail may have the name."""
    if caught_exception is not None:
        raise caught_exception
    http, parsed = response
    if http.status_code >= 300:
        from botocore.exceptions import ClientError  # noqa: PLC0415 (as above)

        raise ClientError(parsed, "DeleteObject")


def _in_no_other_region(**_: Any) -> tuple[Any, dict[str, Any]]:
    """The answer to "in which region is this bucket?", which botocore asks after any redirect, without end."""
    return SimpleNamespace(status_code=200), {"ResponseMetadata": {"HTTPHeaders": {}}}


@functools.cache
def _session() -> "boto3.session.Session":
    import boto3.session  # noqa: PLC0415 (as above)
    import botocore.session  # noqa: PLC0415
    from botocore.loaders import Loader  # noqa: PLC0415

    from drain import s3model  # noqa: PLC0415

    class Models(Loader):
        """Knows our part of S3; anything else that botocore may ask for one day it finds as ever."""

        def load_service_model(self, service_name: str, type_name: str, api_version: str | None = None) -> Any:
            if service_name == "s3" and type_name in s3model.MODELS:
                return s3model.MODELS[type_name]
            return super().load_service_model(service_name, type_name, api_version)

        def load_data_with_path(self, name: str) -> Any:
            if name in s3model.DATA:
                return s3model.DATA[name], self.BUILTIN_DATA_PATH
            return super().load_data_with_path(name)

    # The person's ~/.aws and AWS_PROFILE are about other things than this mailbox.
    variables = {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}
    session = botocore.session.Session(variables)
    session.register_component("data_loader", Models())
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    return boto3.session.Session(botocore_session=session)


def _moment(text: str) -> datetime.datetime:
    """A time as S3 writes it: RFC 3339 in XML, an HTTP date in a header.

    Any other form is left to botocore, which raises `ValueError` where it is none.
    """
    found = None
    with contextlib.suppress(TypeError, ValueError):
        if text.endswith("Z"):
            found = datetime.datetime.fromisoformat(text)
        elif text.endswith("GMT"):
            found = email.utils.parsedate_to_datetime(text)
    if found is None or found.tzinfo is None:
        from botocore.utils import parse_timestamp  # noqa: PLC0415 (as above)

        found = parse_timestamp(text)
    return found
