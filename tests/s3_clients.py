"""drain's S3 client and the one that boto3 makes of all of S3, side by side."""

import contextlib
import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.handlers import add_expect_header

from drain import s3client
from drain.setting import Secret

# What differs from one request to the next, or names who asks.
_OWN_HEADERS = frozenset({"authorization", "x-amz-date", "amz-sdk-invocation-id", "user-agent"})
# What drain reads; the whole of S3 has more.
_FIELDS = frozenset(
    {
        *("IsTruncated", "Contents", "Name", "Prefix", "KeyCount", "NextContinuationToken", "Key", "LastModified"),
        *("ETag", "Size", "ContentLength", "Metadata", "Body", "CopyObjectResult"),
        *("Rules", "ID", "Status", "Filter", "And", "Expiration", "Days", "Date"),
    }
)


@dataclass
class Clients:
    """Both, asked the same; each request as it goes out is kept."""

    slim: Any
    full: Any
    sent: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        for name, client in self._both():
            client.meta.events.register("before-send.s3", _Ear(self.sent.setdefault(name, [])))
            # R2's simulator never says "100 Continue", for which botocore waits a second a PUT.
            client.meta.events.unregister("before-call.s3", add_expect_header)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, client in self._both():
            client.close()

    def _both(self) -> Iterator[tuple[str, Any]]:
        yield "slim", self.slim
        yield "full", self.full

    def answers(self, operation: str, **parameters: Any) -> tuple[Any, Any]:
        """What each gives for one call: the fields that drain reads, or the error."""
        slim, full = (_answer(client, operation, parameters) for _, client in self._both())
        return slim, full

    def requests(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What each has sent."""
        return self.sent["slim"], self.sent["full"]


def clients(endpoint_url: str, access_key_id: str = "key", secret_access_key: str = "secret") -> Clients:
    """Both for one endpoint, with the same options."""
    full = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        config=Config(
            region_name="auto",
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 3},
            proxies={},  # not None: a proxy from the environment does not reach loopback
        ),
    )
    slim = s3client.client(
        endpoint_url=endpoint_url,
        access_key_id=access_key_id,
        secret_access_key=Secret(secret_access_key),
        connections=2,
    )
    return Clients(slim, full)


class _Ear:
    def __init__(self, heard: list[dict[str, Any]]) -> None:
        self._heard = heard

    def __call__(self, request: Any, **_: Any) -> None:
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        # Until when it may take, in seconds of the clock.
        headers["amz-sdk-request"] = re.sub(r"ttl=[^;]*; ", "", headers["amz-sdk-request"])
        # AWS4-HMAC-SHA256 Credential=key/day/region/service/aws4_request, SignedHeaders=…, Signature=…
        credential, signed = re.findall(r"(?:Credential|SignedHeaders)=([^,]*)", headers["authorization"])
        body = request.body.read() if hasattr(request.body, "read") else request.body
        if hasattr(request.body, "seek"):
            request.body.seek(0)
        self._heard.append(
            {
                "method": request.method,
                "url": request.url,
                "body": bytes(body or b""),
                "headers": {name: value for name, value in headers.items() if name not in _OWN_HEADERS},
                "signed": signed,
                "credential": re.sub(r"/\d{8}/", "/", credential),
            }
        )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _answer(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
    try:
        answer = getattr(client, operation)(**parameters)
        body = answer.get("Body")
        if body is not None:
            with contextlib.closing(body):
                answer["Body"] = body.read()
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return "refused", status, error.response["Error"].get("Code"), error.response["Error"].get("Message")
    except BotoCoreError as error:
        # Its fields hold the address, which one quotes and the other does too.
        return type(error).__name__, str(error)
    return _read_by_drain(answer)


def _read_by_drain(answer: Any) -> Any:
    if isinstance(answer, datetime.datetime):
        assert answer.utcoffset() == datetime.timedelta(0)
        return answer.isoformat()
    if isinstance(answer, list):
        return [_read_by_drain(item) for item in answer]
    if isinstance(answer, dict):
        return {
            name: dict(value) if name == "Metadata" else _read_by_drain(value)
            for name, value in answer.items()
            if name in _FIELDS
        }
    return answer
