"""``auth``: what Cloudflare found of SPF, DKIM and DMARC, and what the person wants done where one fails.

A failure is the result ``fail`` and no other: ``none`` and ``softfail`` are what
honest mail has every day (a forwarder fails SPF, a domain without DMARC has none),
and ``unknown`` says nothing either way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from drain.filters.inbound import Inbound
from drain.filters.verdict import Action, Verdict

METHODS = ("spf", "dkim", "dmarc")


@dataclass(frozen=True)
class Auth:
    """Reads Cloudflare's findings; *on_failure* has an action for each of `METHODS`."""

    on_failure: Mapping[str, Action]
    name: ClassVar[str] = "auth"
    timeout_seconds: ClassVar[float] = 0.0

    def check(self, inbound: Inbound) -> Verdict:
        """What Cloudflare found; asks for something only where a method failed that the person named."""
        edge = inbound.edge
        results = {"spf": edge.spf, "dkim": edge.dkim, "dmarc": edge.dmarc}
        failed = [method for method in METHODS if results[method] == "fail"]
        action = max((self.on_failure[method] for method in failed), default=Action.NONE)
        evidence = (edge.in_words, *([edge.why] if edge.why else []))
        if action is Action.NONE:
            return Verdict(evidence=evidence)
        names = ", ".join(method.upper() for method in failed if self.on_failure[method] is action)
        return Verdict(action=action, code="auth-failed", reason=f"{names} failed at Cloudflare", evidence=evidence)
