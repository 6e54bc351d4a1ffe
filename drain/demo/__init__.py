"""The main job, shown: a bucket, a mail server, a dozen mails, one pass. No account, no settings."""

import datetime
import os
import secrets
import tempfile
from pathlib import Path

from drain import assembly, config, stamp
from drain.demo.mails import MAILS, DemoMail
from drain.demo.s3 import S3Server, StoredObject
from drain.demo.smtp import MaildirServer
from drain.log import Level, Log, key_value
from drain.mail import on_the_wire
from drain.outcome import Outcome, Result
from drain.summary import Summary

_USER = "drain"
_MAILBOXES: dict[str, str | None] = {
    "alice@my.test": None,
    "bob@my.test": None,
    "admin@my.test": None,
    "inbox@my.test": None,
    "full@my.test": "452 4.2.2 mailbox full",
}


def run() -> int:
    """Makes everything below one temporary folder, makes a pass, prints what became of each mail; the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="drain-demo-"))
    password = secrets.token_urlsafe(16)
    bucket = S3Server()
    server = MaildirServer(folder / "Maildir", _MAILBOXES, _USER, password)
    bucket.start()
    port = server.start()
    try:
        _fill(bucket)
        settings, _ = config.load(
            {
                "R2_ENDPOINT_URL": bucket.endpoint_url,
                "R2_ACCESS_KEY_ID": bucket.access_key_id,
                "R2_SECRET_ACCESS_KEY": bucket.secret_access_key,
                "R2_BUCKET": bucket.bucket,
                "MAIL_DOMAIN": "my.test",
                "INJECT_PORT": str(port),
                "INJECT_USER": _USER,
                "INJECT_PASS": password,
                "STATE_DIR": str(folder / "state"),
                "DRAIN_ENV_FILE": os.devnull,
            }
        )
        results: dict[str, Result] = {}
        with (folder / "drain.log").open("w", encoding="utf-8") as file:
            sweep = assembly.sweep(settings, Log(lambda: file, key_value, threshold=Level.INFO))
            sweep.on_result = lambda result: results.__setitem__(result.key, result)
            summary = sweep.run()
    finally:
        bucket.stop()
        server.stop()
    _print(folder, results, summary, _unchanged(server))
    return os.EX_OK if summary.error is None and not summary.bugs else os.EX_SOFTWARE


def _key(number: int) -> str:
    return f"pending/demo-{number:02}"


def _fill(bucket: S3Server) -> None:
    """Lays the mails under ``pending/``, as if a minute lay between them."""
    now = datetime.datetime.now(datetime.UTC)
    for number, mail in enumerate(MAILS, start=1):
        metadata = {"to": mail.recipient, "from": mail.sender} if mail.recipient else {}
        written = now - datetime.timedelta(minutes=len(MAILS) + 1 - number)
        bucket.objects[_key(number)] = StoredObject(mail.raw, metadata, last_modified=written)


def _unchanged(server: MaildirServer) -> int:
    """How many of the filed mails are, below the added lines, what was laid into the bucket, byte for byte."""
    originals = {on_the_wire(mail.raw) for mail in MAILS}
    filed = [mail for address in _MAILBOXES for mail in server.mails(address)]
    return sum(on_the_wire(_below_the_stamp(mail)) in originals for mail in filed)


def _below_the_stamp(mail: bytes) -> bytes:
    return mail.partition(f"{stamp.HEADER}: ".encode())[2].partition(b"\n")[2]


def _print(folder: Path, results: dict[str, Result], summary: Summary, unchanged: int) -> None:
    from rich.console import Console  # noqa: PLC0415 (only for a person)
    from rich.table import Table  # noqa: PLC0415

    table = Table(title="Where each mail went, and why", title_justify="left")
    for heading in ("mail", "to", "became", "and why"):
        table.add_column(heading, overflow="fold")
    for number, mail in enumerate(MAILS, start=1):
        table.add_row(*_cells(mail, results.get(_key(number))))
    console = Console()
    console.print(table)
    outcomes = summary.outcomes
    lost = len(MAILS) - len(results)
    console.print(
        f"{outcomes[Outcome.DELIVERED]} delivered ({unchanged} of them byte for byte as they were sent), "
        f"{outcomes[Outcome.QUARANTINED]} in quarantine, {outcomes[Outcome.DEFERRED]} to be tried again, {lost} lost. "
        f"{summary.seconds:.1f} s."
    )
    if summary.error is not None:
        console.print(f"The pass ended early: {summary.error}")
    console.print(f"Everything is below {folder}: the mail in Maildir/, the ledger in state/, the log in drain.log.")
    console.print("Delete that folder when you have looked. Next: README.md, Before you begin.")


_WHY = {
    "itself": "",
    "plus": ", less the plus",
    "role": ", for a role",
    "catch-all": ", catch-all",
}


def _cells(mail: DemoMail, result: Result | None) -> tuple[str, str, str, str]:
    to = mail.recipient or "(nobody)"
    if result is None:
        return mail.what, to, "not looked at", ""
    if result.outcome is Outcome.DELIVERED:
        return mail.what, to, "delivered", f"in {result.mailbox.partition('@')[0]}{_WHY[result.why]}"
    return mail.what, to, result.outcome.value, result.words
