#!/usr/bin/env python3
"""What drain is compared with: a drain as people write it for themselves, of the standard library alone.

One mail after the other, and a new TLS connection for each request: GET, then one
transaction of an SMTP session that lasts for the pass, then COPY and DELETE. A
ledger of the same kind as drain's with the same three commits a mail, and a lock.
Settings come from the environment and have drain's names. Written for the
comparison: it is not meant for anybody's mail.
"""

import contextlib
import datetime
import fcntl
import hashlib
import hmac
import http.client
import os
import smtplib
import sqlite3
import ssl
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

TIMEOUT_SECONDS = 60
_REGION = "auto"
_EMPTY = hashlib.sha256(b"").hexdigest()


class Bucket:
    """S3, one connection a request."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        place = urllib.parse.urlsplit(settings["R2_ENDPOINT_URL"])
        self._host = place.netloc
        self._bucket = settings["R2_BUCKET"]
        self._key_id = settings["R2_ACCESS_KEY_ID"]
        self._secret = settings["R2_SECRET_ACCESS_KEY"]
        # Once, and the machine's own roots, which OpenSSL looks up as it needs them.
        self._tls = ssl.create_default_context()

    def list(self, prefix: str) -> Iterator[str]:
        """The keys under *prefix*, page by page."""
        query = {"list-type": "2", "prefix": prefix}
        while True:
            _, body = self._ask("GET", "", query)
            answer = ET.fromstring(body)  # noqa: S314 (who signs the answer has the keys)
            for found in answer.iterfind("{*}Contents/{*}Key"):
                yield found.text or ""
            token = answer.findtext("{*}NextContinuationToken")
            if not token:
                return
            query["continuation-token"] = token

    def get(self, key: str) -> tuple[Mapping[str, str], bytes]:
        """Headers and body of an object."""
        return self._ask("GET", key)

    def move(self, key: str, to: str) -> None:
        """COPY, then DELETE."""
        source = urllib.parse.quote(f"/{self._bucket}/{key}")
        self._ask("PUT", to, headers={"x-amz-copy-source": source})
        self._ask("DELETE", key)

    def _ask(
        self, method: str, key: str, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[Mapping[str, str], bytes]:
        path = urllib.parse.quote(f"/{self._bucket}/{key}".rstrip("/"))
        words = sorted(
            (urllib.parse.quote(n, safe=""), urllib.parse.quote(v, safe="")) for n, v in (query or {}).items()
        )
        arguments = "&".join(f"{name}={value}" for name, value in words)
        signed = self._signed(method, path, arguments, headers or {})
        connection = http.client.HTTPSConnection(self._host, timeout=TIMEOUT_SECONDS, context=self._tls)
        with contextlib.closing(connection):
            connection.request(method, f"{path}?{arguments}" if arguments else path, headers=signed)
            answer = connection.getresponse()
            body = answer.read()
        if not 200 <= answer.status < 300:
            raise OSError(f"{method} {key}: {answer.status} {body[:200]!r}")
        return {name.lower(): value for name, value in answer.getheaders()}, body

    def _signed(self, method: str, path: str, arguments: str, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers with AWS's signature, version 4."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        told = {**headers, "host": self._host, "x-amz-content-sha256": _EMPTY, "x-amz-date": now}
        names = ";".join(sorted(told))
        lines = [f"{name}:{told[name]}" for name in sorted(told)]
        canonical = "\n".join([method, path, arguments, *lines, "", names, _EMPTY])
        scope = f"{now[:8]}/{_REGION}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self._secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        credential = f"AWS4-HMAC-SHA256 Credential={self._key_id}/{scope}"
        told["authorization"] = f"{credential}, SignedHeaders={names}, Signature={signature}"
        return told


class Ledger:
    """One row a mail; every change is on the disk before the step that it guards."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS mail (id TEXT PRIMARY KEY, state TEXT, mailbox TEXT, at REAL)")

    def state(self, identity: str) -> str:
        """What has become of a mail, "" if nothing has."""
        row = self._db.execute("SELECT state FROM mail WHERE id = ?", (identity,)).fetchone()
        return row[0] if row else ""

    def note(self, identity: str, state: str, mailbox: str) -> None:
        """Commits a state."""
        values = (identity, state, mailbox, time.time())
        self._db.execute("INSERT OR REPLACE INTO mail VALUES (?, ?, ?, ?)", values)


class MailServer:
    """One SMTP session, logged in."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        host, port = settings.get("INJECT_HOST") or "127.0.0.1", int(settings.get("INJECT_PORT") or 9125)
        self._smtp = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
        self._smtp.ehlo()
        self._smtp.login(settings["INJECT_USER"], settings["INJECT_PASS"])

    def give(self, sender: str, mailbox: str, raw: bytes) -> None:
        """MAIL with SIZE, RCPT, DATA."""
        options = [] if raw.isascii() or not self._smtp.has_extn("8bitmime") else ["BODY=8BITMIME"]
        self._smtp.sendmail(sender, [mailbox], raw, options)

    def close(self) -> None:
        """QUIT."""
        self._smtp.quit()


def deliver(bucket: Bucket, ledger: Ledger, server: MailServer, key: str, settings: Mapping[str, str]) -> None:
    """One mail, from its object to where delivered ones lie."""
    headers, raw = bucket.get(key)
    sender, recipient = headers.get("x-amz-meta-from", ""), headers.get("x-amz-meta-to", "").lower()
    mailbox = recipient or f"{settings.get('INJECT_RCPT') or 'inbox'}@{settings['MAIL_DOMAIN']}"
    identity = hashlib.sha256(raw + b"\n" + recipient.encode()).hexdigest()
    if ledger.state(identity) not in {"delivered", "settled"}:
        ledger.note(identity, "injecting", mailbox)
        server.give(sender, mailbox, raw)
        ledger.note(identity, "delivered", mailbox)
    prefix = settings.get("PENDING_PREFIX") or "pending/"
    bucket.move(key, f"{settings.get('PROCESSED_PREFIX') or 'processed/'}{identity}-{key.removeprefix(prefix)}")
    ledger.note(identity, "settled", mailbox)


def sweep(bucket: Bucket, settings: Mapping[str, str]) -> int:
    """One pass; how many mails were not delivered."""
    state = Path(settings["STATE_DIR"])
    failed = 0
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context((state / "drain.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ledger: Ledger | None = None
        server: MailServer | None = None
        for key in bucket.list(settings.get("PENDING_PREFIX") or "pending/"):
            if ledger is None or server is None:
                ledger, server = Ledger(state / "ledger.db"), MailServer(settings)
                stack.callback(server.close)
            try:
                deliver(bucket, ledger, server, key, settings)
            except (OSError, smtplib.SMTPException) as error:
                failed += 1
                print(f"{key}: {error}", file=sys.stderr)
    return failed


def main() -> int:
    """One pass with ``ONESHOT``; without, one after the other."""
    settings = os.environ
    bucket = Bucket(settings)
    while True:
        failed = sweep(bucket, settings)
        if settings.get("ONESHOT", "").lower() in {"1", "true", "yes"}:
            return 75 if failed else 0
        time.sleep(float(settings.get("POLL_INTERVAL") or 60))


if __name__ == "__main__":
    sys.exit(main())
