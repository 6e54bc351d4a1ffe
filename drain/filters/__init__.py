"""The filters: what reaches the inbox.

A filter is a small class in a module of its own, with

- ``name``: as in ``FILTERS``;
- ``timeout_seconds``: how long one check may take; 0 where it asks nobody and
  costs nothing. Then it runs on the caller's thread, and its verdict alone is not
  worth keeping;
- ``check(inbound) -> Verdict``, which changes nothing and may be called from
  several threads. It raises `FilterFailed` where it can say nothing; anything
  else that it raises is taken for that too.

Two things it may have: ``probe() -> str``, which asks the service itself whether it is
there, and raises `FilterFailed` if not; and ``at_once``, how many mails it is asked about
at the same time, if not all.

Its settings are the fields of the class, a frozen dataclass: what ``repr`` shows
of them is what a verdict that was kept is still good for, so caches stay out of it
(``field(repr=False)``).

`chain` asks the filters in the person's order, keeps their time, and adds their
verdicts up. No filter changes a mail or says what becomes of it: what a mail
gets is in `drain.marks`.
"""

from typing import Protocol

from drain.filters.inbound import Inbound
from drain.filters.verdict import Action, FilterFailed, Verdict

__all__ = ["Action", "Filter", "FilterFailed", "Inbound", "Verdict"]


class Filter(Protocol):
    """What the chain asks of a filter."""

    @property
    def name(self) -> str:
        """As in ``FILTERS``."""

    @property
    def timeout_seconds(self) -> float:
        """For one check; 0: quick and local."""

    def check(self, inbound: Inbound) -> Verdict:
        """What it finds in a mail.

        Raises:
            FilterFailed: nothing can be said.
        """
