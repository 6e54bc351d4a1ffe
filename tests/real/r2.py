"""Cloudflare's own R2 simulator, run for a test.

It speaks the S3 API with signatures checked, so what passes here passes at R2.
Needs `npm ci` in ``worker/``, which brings the simulator and its Node 22; without
them the tests fail rather than skip.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Any, Self

import boto3
from botocore.config import Config
from botocore.handlers import add_expect_header

_HERE = Path(__file__).resolve().parent
_MODULES = _HERE.parents[1] / "worker" / "node_modules"
_NODE = _MODULES / ".bin" / "node"
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0


class R2:
    """One bucket in R2's simulator, on a free loopback port, empty at every start.

    Attributes:
        endpoint_url: where the S3 API answers; "" until `start`.
        bucket: the only bucket that exists there.
        access_key_id: made up for this object, 32 characters as at R2.
        secret_access_key: likewise, 64 characters.
    """

    def __init__(self, bucket: str = "mail") -> None:
        self.bucket = bucket
        self.endpoint_url = ""
        self.access_key_id = secrets.token_hex(16)
        self.secret_access_key = secrets.token_hex(32)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._s3: Any = None

    def start(self) -> None:
        """Start the simulator and wait until it answers.

        Raises RuntimeError, naming what to do, if it is not installed or does not start.
        """
        for needed in (_NODE, _MODULES / "miniflare"):
            if not needed.exists():
                raise RuntimeError(f"{needed} is missing: run `npm ci` in worker/ first")
        self._folder = tempfile.TemporaryDirectory(prefix="drain-r2-", ignore_cleanup_errors=True)
        try:
            self._launch(Path(self._folder.name))
            self._s3 = self.client()
        except BaseException:
            self.stop()
            raise

    def _launch(self, folder: Path) -> None:
        settings = folder / "settings.json"  # not on the command line, which takes only 128 KiB of it
        settings.write_text(json.dumps({**self._settings(), "folder": str(folder)}), "utf-8")
        log = folder / "log"
        with log.open("wb") as errors:
            self._process = process = subprocess.Popen(
                [_NODE, _HERE / "r2.mjs", settings],
                # Held open for as long as we live: its end is the simulator's end,
                # also where this process is killed and cannot call stop().
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                # The simulator makes a folder of its own there, and a kill leaves it.
                env={**os.environ, "TMPDIR": str(folder)},
                start_new_session=True,
            )
        assert process.stdout is not None
        self.endpoint_url = _line(process.stdout, _START_SECONDS)
        if not self.endpoint_url:
            words = log.read_text("utf-8", "replace").strip()[-2000:]
            raise RuntimeError(
                f"R2's simulator did not start (limit {_START_SECONDS:.0f} s): "
                f"does `npm ci` in worker/ succeed? It said: {words or 'nothing'}"
            )

    def _settings(self) -> dict[str, Any]:
        """What r2.mjs is told, beside the folder to work in."""
        return {
            "bucket": self.bucket,
            "accessKeyId": self.access_key_id,
            "secretAccessKey": self.secret_access_key,
        }

    def stop(self) -> None:
        """End the simulator with all its processes and files; safe to call again."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            # Also after a clean end: what it started shares its group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()
        self.endpoint_url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def client(self) -> Any:
        """A boto3 S3 client that tries once, for the test's own use."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="auto",
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # Node closes a connection that was idle for five seconds, perhaps just as it is used again.
                retries={"mode": "standard", "total_max_attempts": 3},
                proxies={},  # not None: a proxy from the environment does not reach loopback
            ),
        )
        # The simulator never says "100 Continue", for which botocore waits a second a PUT.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client

    def put(self, key: str, body: bytes, metadata: dict[str, str] | None = None) -> None:
        """Store *body* under *key* with custom *metadata*."""
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=metadata or {})

    def keys(self, prefix: str = "") -> list[str]:
        """Every key that begins with *prefix*, sorted."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def get(self, key: str) -> tuple[bytes, dict[str, str]]:
        """The body and the custom metadata under *key*."""
        answer = self._s3.get_object(Bucket=self.bucket, Key=key)
        return answer["Body"].read(), answer["Metadata"]

    def clear(self) -> None:
        """Delete every object."""
        keys = self.keys()
        for first in range(0, len(keys), 1000):  # as many as one request may name
            chunk = [{"Key": key} for key in keys[first : first + 1000]]
            self._s3.delete_objects(Bucket=self.bucket, Delete={"Objects": chunk, "Quiet": True})


def _line(stream: IO[bytes], seconds: float) -> str:
    """The first line of *stream*, or "" where none comes within *seconds*."""
    due = time.monotonic() + seconds
    line = b""
    while not line.endswith(b"\n"):
        left = max(0.0, due - time.monotonic())
        if not select.select([stream], [], [], left)[0]:
            return ""
        # Not readline(): it would wait for the rest of a line without a limit.
        piece = os.read(stream.fileno(), 1024)
        if not piece:
            return ""
        line += piece
    return line.decode().strip()
