"""What boto3 raises and R2 answers when something is wrong, each turned into a sentence of ours."""

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from drain.errors import BucketRefused, BucketUnavailable

if TYPE_CHECKING:
    from botocore.exceptions import ClientError


class NotFound(Exception):
    """404 for a key."""


class PreconditionFailed(Exception):
    """412."""


_ABOUT_KEYS = frozenset({"SignatureDoesNotMatch", "InvalidAccessKeyId", "Unauthorized", "InvalidArgument"})
_REFUSALS = {
    # code of S3 or R2: what it means, what to do, whether waiting can mend it
    "SignatureDoesNotMatch": ("the secret access key is wrong", "Check R2_SECRET_ACCESS_KEY."),
    "InvalidAccessKeyId": ("the access key id is unknown", "Check R2_ACCESS_KEY_ID."),
    "Unauthorized": ("the access key id is unknown", "Check R2_ACCESS_KEY_ID, and R2_ACCOUNT_ID with it."),
    "InvalidArgument": ("the request was not understood", "Check R2_ACCESS_KEY_ID: it has 32 hex digits."),
    "AccessDenied": ("the token may not do this", "It needs Object Read & Write on this bucket."),
    "NoSuchBucket": ("there is no such bucket", "Check R2_BUCKET, and R2_JURISDICTION if it was made in one."),
}


@contextlib.contextmanager
def translated(what: str, *, listing: bool = False) -> Iterator[None]:
    """Turns boto3's failures into ours, each with a sentence."""
    from botocore.exceptions import (  # noqa: PLC0415 (who asks has loaded it)
        BotoCoreError,
        ClientError,
        ConnectionError as BotoConnectionError,
        HTTPClientError,
    )

    try:
        yield
    except ClientError as error:
        raise _from_answer(error, what, listing=listing) from error
    except (BotoConnectionError, HTTPClientError) as error:
        raise BucketUnavailable(
            f"R2 could not be reached while {what}: {_in_words(error)}.",
            "If this machine is online, check R2_ACCOUNT_ID or R2_ENDPOINT_URL.",
        ) from error
    except BotoCoreError as error:
        raise BucketUnavailable(f"R2's answer could not be read while {what}: {error}.") from error


def _in_words(error: Exception) -> str:
    """Without the address, which has the account in it and says nothing to a person."""
    words = re.sub(r"\s*(?:on|to the)? ?endpoint URL: \"[^\"]*\"", "", str(error)).strip()
    return words[:1].lower() + words[1:].rstrip(".:")


def _from_answer(error: "ClientError", what: str, *, listing: bool) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    words = str(error.response.get("Error", {}).get("Message", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "RequestTimeTooSkewed":
        message = f"R2 refused {what}: the clock of this machine is wrong by more than 15 minutes."
        return BucketUnavailable(message, "Set the clock (timedatectl set-ntp true; on Android, automatic time).")
    if code in _ABOUT_KEYS and not listing:
        # LIST was signed with the same keys: it is the object's name.
        return BucketUnavailable(
            f"R2 refused {what}: {code}.", "If it is this object alone, its name is one that the S3 API cannot handle."
        )
    if code in _REFUSALS:
        meaning, hint = _REFUSALS[code]
        return BucketRefused(f"R2 refused {what}: {meaning} ({code}).", hint)
    if status == 404:
        return NotFound()
    if status == 412:
        return PreconditionFailed()
    if status in (401, 403):
        return BucketRefused(f"R2 refused {what}: {status} {code} {words}.", "Check the R2_… settings.")
    return BucketUnavailable(f"R2 failed {what}: {status} {code} {words}.")
