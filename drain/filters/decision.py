"""``decision``: a service of the person's own says what becomes of a mail.

The protocol is ``haraka-webhook.decision.v1``, as nogringo/haraka-webhook defines it
(``docs/DecisionProtocol.md`` there), so that services written for it can be used as
they are. Header names and values, the order of fields and the replacement of bytes
that are no UTF-8 are therefore what that program makes of the same mail.

Where it differs: the mail has been taken long ago, so ``deny`` sets it aside
instead of refusing it, and ``remote.helo`` is empty, since nobody tells drain.
"""

import codecs
import datetime
import io
import json
from dataclasses import dataclass
from typing import Any, ClassVar

from drain.answer import json_object
from drain.filters.inbound import Inbound
from drain.filters.post import Service, encoded, post, where
from drain.filters.verdict import Action, FilterFailed, Verdict
from drain.setting import Secret

PROTOCOL = "haraka-webhook.decision.v1"
MODES = ("minimal", "summary", "full")
SERVICE = Service("the decision service", "WEBHOOK_DECISION_URL", "WEBHOOK_DECISION_TOKEN")
_SHOWN = 200
# What JavaScript's trim() takes away (ECMA-262 22.1.3.32): its WhiteSpace and LineTerminator.
_BLANKS = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_SLICE = 256 * 1024


@dataclass(frozen=True)
class Decision:
    """Asks the service at *url*; *mode* says how much of a mail it is sent (`MODES`)."""

    url: str
    token: Secret
    mode: str
    timeout_seconds: float
    name: ClassVar[str] = "decision"

    def check(self, inbound: Inbound) -> Verdict:
        """What the service decides.

        Raises:
            FilterFailed: it cannot be asked, or its answer is no decision.
        """
        body = request_body(inbound, self.mode)
        answer = post(self.url, self.token, body, self.timeout_seconds, SERVICE)
        try:
            return _verdict(json_object(answer))
        except ValueError as error:
            raise FilterFailed(
                f"The answer of the decision service at {where(self.url)} {error}.",
                'It should be like {"decision": "allow"}; or "deny", or "silent_deny".',
                down=False,
            ) from error


def _verdict(answer: dict[str, Any]) -> Verdict:
    decision = answer.get("decision")
    if decision == "allow":
        return Verdict(evidence=("allow",))
    reason, message = _words(answer.get("reason")), _words(answer.get("message"))
    words = ": ".join(part for part in (reason, message) if part)[:_SHOWN]
    evidence = tuple(f"{name}: {part}" for name, part in (("reason", reason), ("message", message)) if part)
    if decision == "deny":
        return Verdict(
            action=Action.QUARANTINE, code="denied", reason=words or "denied by the decision service", evidence=evidence
        )
    if decision == "silent_deny":
        return Verdict(
            action=Action.DISCARD,
            code="silently-denied",
            reason=words or "silently denied by the decision service",
            evidence=evidence,
        )
    raise ValueError("has no decision that is known")


def _words(value: Any) -> str:
    """A reason or message in at most 200 characters; the protocol's own reader makes text of anything, too."""
    if not value:
        return ""
    return (value if isinstance(value, str) else json.dumps(value))[:_SHOWN]


def request_body(inbound: Inbound, mode: str) -> bytes:
    """What is posted, as JSON."""
    body = encoded(payload(inbound, mode))
    if mode != "full":
        return body
    # The message goes in slice by slice: as one text, with one emoji in it, 25 MiB of mail
    # would be 100 MiB, three times over. It is the last field of the last field.
    whole = io.BytesIO()
    whole.write(body.removesuffix(b"}}"))
    whole.write(b',"rawMime":"')
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    raw = memoryview(inbound.mail.raw)
    for start in range(0, len(raw), _SLICE):
        end = start + _SLICE
        text = decoder.decode(raw[start:end], final=end >= len(raw))
        whole.write(json.dumps(text, ensure_ascii=False)[1:-1].encode())
    whole.write(b'"}}')
    return whole.getvalue()


def payload(inbound: Inbound, mode: str) -> dict[str, Any]:
    """What is posted, all but ``rawMime``."""
    headers = header_pairs(inbound.header.block)
    recipient = inbound.mail.recipient
    message: dict[str, Any] = {
        "id": inbound.mail.identity,
        "createdAt": _created_at(inbound.received),
        "sender": inbound.mail.sender,
        "recipients": [recipient] if recipient else [],
        "from": _first(headers, "from"),
        "subject": _first(headers, "subject"),
        "remote": {"ip": inbound.ip, "host": inbound.edge.host, "helo": ""},
    }
    if mode != "minimal":
        message["headers"] = headers
    return {"protocol": PROTOCOL, "mode": mode, "message": message}


def header_pairs(block: bytes) -> list[tuple[str, str]]:
    """Name and value of each header line, unfolded, as the protocol's own program does it.

    A line without a colon is left out, and what is folded onto it goes to the
    line before; a name keeps the blanks before its colon.
    """
    pairs: list[tuple[str, list[str]]] = []
    for line in block.decode("utf-8", "replace").split("\r\n"):
        if line.startswith((" ", "\t")) and pairs:
            pairs[-1][1].append(line.strip(_BLANKS))
        elif ":" in line:
            name, _, value = line.partition(":")
            pairs.append((name, [value.strip(_BLANKS)]))
    return [(name, " ".join(values)) for name, values in pairs]


def _first(headers: list[tuple[str, str]], name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")


def _created_at(received: str) -> str:
    """*received*, or now, as JavaScript's ``toISOString`` writes it."""
    moment = datetime.datetime.now(datetime.UTC)
    try:
        given = datetime.datetime.fromisoformat(received)
        moment = (given if given.tzinfo else given.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        pass
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
