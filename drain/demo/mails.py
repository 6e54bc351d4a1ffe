"""The mails of the demo: what a mailbox meets in a month, and what must not get in."""

from dataclasses import dataclass

from drain.demo.smtp import REFUSED_WORDS


@dataclass(frozen=True)
class DemoMail:
    """An object to lay under ``pending/``."""

    what: str
    recipient: str
    raw: bytes
    sender: str = "friend@example.net"


def _mail(subject: str, *lines: bytes, charset: str = "us-ascii") -> bytes:
    head = (
        f"From: A Friend <friend@example.net>\r\nTo: you\r\nSubject: {subject}\r\n"
        f"Message-ID: <{subject.replace(' ', '.')}@example.net>\r\n"
        f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    return head.encode("ascii") + b"\r\n".join(lines) + b"\r\n"


_NEWSLETTER = _mail("newsletter", b"The same bytes go to two people. That is two mails.")

MAILS = (
    DemoMail("an ordinary mail", "alice@my.test", _mail("hello", b"Hello Alice,", b"..two dots and all.")),
    DemoMail("8-bit Latin-1", "alice@my.test", _mail("latin one", b"Gr\xfc\xdfe aus K\xf6ln", charset="iso-8859-1")),
    DemoMail(
        "8-bit UTF-8, bare LF",
        "alice@my.test",
        _mail("utf eight", "Grüße".encode(), charset="utf-8").replace(b"\r\n", b"\n"),
    ),
    DemoMail("a bounce, sender <>", "alice@my.test", _mail("undelivered", b"Your mail came back."), sender=""),
    DemoMail("a plus address", "alice+shop@my.test", _mail("your order", b"It is on its way.")),
    DemoMail("a newsletter", "alice@my.test", _NEWSLETTER),
    DemoMail("the same, to bob", "bob@my.test", _NEWSLETTER),
    DemoMail("an unknown mailbox", "who@my.test", _mail("guess", b"Is anybody called Who?")),
    DemoMail("a role address", "postmaster@my.test", _mail("report", b"To whom it may concern.")),
    DemoMail("a foreign domain", "victim@away.test", _mail("relay", b"Somebody wrote this into the bucket.")),
    DemoMail("a full mailbox", "full@my.test", _mail("more", b"One more mail.")),
    DemoMail("one that the server refuses", "bob@my.test", REFUSED_WORDS + b"\r\n" + _mail("invoice", b"Click here.")),
    DemoMail("no mail at all", "", b"\x00\x01\x02 what is this?"),
)
