"""What a mail gets on its way in: lines on top, and where asked for a tag in its Subject.

All on bytes. The message itself stays as it was sent, but for two things that the
person can ask for: a tag in the Subject of spam, and ``X-Original-`` before names
in the sender's part that are drain's own to write.

=================================== ==========================================
``X-Drain-Id``                      always (`stamp`), and lowest: below it is what
                                    was sent
``X-Drain-Verdict``                 where a filter was asked: what it came to,
                                    the points, and what each filter said
``X-Spam-Flag``, ``X-Spam-Score``,  where a filter gives points, or the mail is
``X-Spam-Status``                   tagged; in SpamAssassin's form, which mail
                                    programs and Sieve scripts know
``X-MS-Exchange-Organization-SCL``, with ``EXCHANGE_HEADERS``
``X-Forefront-Antispam-Report``
=================================== ==========================================
"""

import base64
import re
from dataclasses import dataclass
from itertools import islice

from drain.filters.chain import Judgement
from drain.filters.mime import words_of
from drain.filters.verdict import Action
from drain.header import LIMIT, Field, Header, split
from drain.mail import Wire, cut_at, normalised

WRITTEN = (
    "X-Drain-Id",
    "X-Drain-Verdict",
    "X-Spam-Flag",
    "X-Spam-Score",
    "X-Spam-Status",
)
EXCHANGE = ("X-MS-Exchange-Organization-SCL", "X-Forefront-Antispam-Report")
# Exchange's spam confidence level: 1 is not spam, from 5 on it is.
_SCL = {False: 1, True: 6}
# RFC 5322 2.1.1: at most 998 octets without CRLF, and better no more than 78.
_LONGEST_LINE = 998
_USUAL_LINE = 78
_LONGEST_COMMENT = 200
_LONGEST_NAME = 60
# A mail has one; no mail program shows the last of more than these.
_MOST_SUBJECTS = 10
# Where a tag stands further back, a sender may have put it where nobody sees it.
_REPLIES = re.compile(r"\A\s*(?:(?:re|fwd?|aw|wg|sv|vs|rv|tr)\s*:\s*){0,5}", re.IGNORECASE)
# What a comment (RFC 5322 3.2.2) or a test's name cannot hold; and where an encoded word would begin.
_NOT_IN_COMMENT = re.compile(r"[^ -'*-\[\]-~]|(?<==)\?")
_NOT_IN_TEST = re.compile(r"[^A-Za-z0-9_]")


def _names(*names: str) -> re.Pattern[bytes]:
    return re.compile(rb"^(?=(?:" + "|".join(names).encode() + rb")[ \t]*:)", re.MULTILINE | re.IGNORECASE)


_WRITTEN = _names(*WRITTEN)
_WRITTEN_FOR_EXCHANGE = _names(*WRITTEN, *EXCHANGE)


@dataclass(frozen=True)
class Marks:
    """Which marks the person wants. ``subject_tag`` is "" for none; ``tag_score`` is said in X-Spam-Status."""

    tag_score: float = 5.0
    subject_tag: str = ""
    exchange: bool = False
    strip_forged: bool = False

    def on_the_wire(self, raw: bytes, stamp: bytes, judgement: Judgement) -> Wire:
        """The message as DATA carries it, with its marks. *stamp* is the line with its CRLF.

        Where the first line is no header field nothing can be put above it; then
        the marks in the header are made all the same.
        """
        spam = judgement.action >= Action.TAG
        tag = self.subject_tag if spam else ""
        added = self.lines(judgement)
        head, start = b"", 0
        if self.strip_forged or tag:
            # As much as `split` looks at: the body is none of its business.
            start = cut_at(raw, LIMIT + 4)
            head, rest = split(normalised(raw[:start]), LIMIT)
            if self.strip_forged:
                head = without_forged(head, exchange=self.exchange)
            if tag:
                head, subject = tagged(head, tag)
                added += subject
            head += rest
        # The stamp is the lowest: what is below it is the sender's.
        return Wire(raw, added + stamp, head=head, start=start)

    def lines(self, judgement: Judgement) -> bytes:
        """The lines on top that say what the filters came to, each with its CRLF."""
        spam = judgement.action >= Action.TAG
        if judgement.released:
            # Or the sender's own, below, were the only one.
            return b"X-Drain-Verdict: deliver; released by hand\r\n"
        if not judgement.answers:
            return b""
        lines = [_folded("X-Drain-Verdict: ", _verdict(judgement), "; ")]
        if spam or judgement.score is not None:
            points = _points(judgement.score or 0.0)
            tests = ",".join(_tests(judgement)) or "none"
            status = f"{'Yes' if spam else 'No'}, score={points} required={_points(self.tag_score)} tests="
            lines += [f"X-Spam-Flag: {'YES' if spam else 'NO'}", f"X-Spam-Score: {points}"]
            lines += [_folded(f"X-Spam-Status: {status}", tests, ",")]
        if self.exchange:
            report = f"SCL:{_SCL[spam]};SFV:{'SPM' if spam else 'NSPM'}"
            lines += [f"X-MS-Exchange-Organization-SCL: {_SCL[spam]}", f"X-Forefront-Antispam-Report: {report}"]
        return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def without_forged(head: bytes, *, exchange: bool = False) -> bytes:
    """The header with ``X-Original-`` before every name that drain writes, and nothing else changed."""
    return (_WRITTEN_FOR_EXCHANGE if exchange else _WRITTEN).sub(b"X-Original-", head)


def tagged(head: bytes, tag: str) -> tuple[bytes, bytes]:
    """The header with *tag* at the beginning of each Subject that does not have it; and a Subject, if it has none.

    The tag goes in front of what is there, encoded words and folding and all,
    which stay as they are.
    """
    subjects = list(islice(Header(head).all("Subject"), _MOST_SUBJECTS))
    if not subjects:
        return head, b"Subject: " + _as_word(tag, glued=False) + b"\r\n"
    pieces, place = [], 0
    for subject in subjects:
        if _REPLIES.sub("", words_of(subject.text)).lower().startswith(tag.strip().lower()):
            continue
        pieces += [head[place : subject.colon], _in_front(subject, tag)]
        place = subject.colon
    return b"".join([*pieces, head[place:]]), b""


def _in_front(subject: Field, tag: str) -> bytes:
    value = subject.value
    # RFC 2047 6.2: the blank between two encoded words is not shown.
    word = b" " + _as_word(tag, glued=value.lstrip(b" \t\r\n").startswith(b"=?"))
    first_line = value.partition(b"\r\n")[0]
    starts_blank = value[:1] in (b" ", b"\t", b"\r") or not value
    if len("Subject:") + len(word) + len(first_line) + 1 > _LONGEST_LINE:
        return word + b"\r\n" + (b"" if starts_blank else b" ")
    return word + (b"" if starts_blank else b" ")


def _as_word(tag: str, *, glued: bool) -> bytes:
    """The tag as it stands in a header: as it is, or as encoded words if it is not ASCII."""
    if tag.isascii():
        return tag.encode("ascii")
    text = f"{tag} " if glued else tag
    # RFC 2047 2: at most 75 letters a word; ten of a tag's letters are at most 40 bytes, and 56 in base64.
    pieces = [text[place : place + 10].encode("utf-8") for place in range(0, len(text), 10)]
    return b" ".join(b"=?utf-8?b?" + base64.b64encode(piece) + b"?=" for piece in pieces)


def _verdict(judgement: Judgement) -> str:
    parts = [judgement.action.word if judgement.action else "deliver"]
    if judgement.score is not None:
        parts[0] += f", score={_points(judgement.score)}"
    for answer in judgement.answers:
        if answer.verdict is None:
            parts.append(f"{answer.filter}=failed")
            continue
        verdict = answer.verdict
        said = [verdict.action.word] if verdict.action else []
        said += [_points(verdict.score)] if verdict.score is not None else []
        answered = f"{answer.filter}={' '.join(said)}" if said else answer.filter
        words = verdict.reason or (verdict.evidence[0] if verdict.evidence else "")
        comment = f" ({_NOT_IN_COMMENT.sub('_', words[:_LONGEST_COMMENT])})" if words else ""
        parts.append(f"{answered}{', incomplete' if answer.failure else ''}{comment}")
    return "; ".join(parts)


def _tests(judgement: Judgement) -> list[str]:
    """Names as SpamAssassin has them: its own rules, and one for each other filter that said something."""
    names = []
    for name, verdict in judgement.verdicts:
        if name == "spamassassin":
            rules = [rule[:_LONGEST_NAME] for rule in verdict.evidence]
            names += [rule for rule in rules if rule and not _NOT_IN_TEST.search(rule)]
        elif verdict.score or verdict.action:
            code = verdict.code if verdict.code.startswith(name) else f"{name}_{verdict.code}"
            names.append(_NOT_IN_TEST.sub("_", f"DRAIN_{code}".upper()[:_LONGEST_NAME]))
    return names


def _points(score: float) -> str:
    return f"{score:.1f}"


def _folded(begin: str, text: str, between: str) -> str:
    """*begin* and *text*, folded behind *between* where lines would grow long."""
    lines = []
    first, *others = text.split(between)
    line = f"{begin}{first}"
    for part in others:
        line += between.rstrip()
        longer = f"{line}{between.removeprefix(between.rstrip())}{part}"
        if len(longer) < _USUAL_LINE:
            line = longer
        else:
            lines.append(line)
            line = f"\t{part.lstrip()}"
    return "\r\n".join([*lines, line])
