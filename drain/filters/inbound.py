"""A mail as filters see it: with its header, and with what Cloudflare says of it."""

from dataclasses import dataclass
from functools import cached_property

from drain.filters import edge
from drain.filters.edge import Edge
from drain.header import Header
from drain.mail import Mail


@dataclass(frozen=True)
class Inbound:
    """One mail on its way in.

    ``handed_over_by`` is the address that the object says handed the mail to
    Cloudflare ("" if it says none), ``received`` when, in RFC 3339.
    """

    mail: Mail
    handed_over_by: str = ""
    received: str = ""

    @cached_property
    def header(self) -> Header:
        """The mail's header."""
        return Header.of(self.mail.raw)

    @cached_property
    def edge(self) -> Edge:
        """What Cloudflare found, from its own lines only."""
        return edge.read(self.header)

    @property
    def ip(self) -> str:
        """The address that handed the mail to Cloudflare; "" if that is not known."""
        return self.edge.ip or self.handed_over_by
