"""Which filters run and what they may do, as the person set it up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from drain.filters import Filter
from drain.filters.chain import Chain, Rules


@dataclass(frozen=True)
class Policy:
    """The filters in the person's order, what verdicts come to, and what a failure means.

    ``budgets`` has the calls a month of the filters that have such a limit.
    """

    filters: Sequence[Filter] = ()
    rules: Rules = field(default_factory=lambda: Rules(5.0, 15.0))
    fail_open: frozenset[str] = frozenset()
    budgets: Mapping[str, int] = field(default_factory=dict)

    def chain(self, purse: "Purse", stopping: Callable[[], bool] = lambda: False) -> Chain:
        """The chain for one pass."""

        def spend(name: str) -> bool:
            return name not in self.budgets or purse.spend(name, self.budgets[name])

        def refund(name: str) -> None:
            if name in self.budgets:
                purse.refund(name)

        return Chain(self.filters, self.rules, self.fail_open, spend, refund, stopping)


class Purse(Protocol):
    """Who keeps the budgets."""

    def spend(self, name: str, most: int) -> bool:
        """Takes one of *most* calls of this month; False if none is left."""

    def refund(self, name: str) -> None:
        """Gives one back."""
