"""Which filters run and what they may do, as the person set it up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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

    def chain(self, spend: Callable[[str, int], bool], stopping: Callable[[], bool] = lambda: False) -> Chain:
        """The chain for one pass; *spend* takes one call out of a month's budget of so many."""
        return Chain(
            self.filters,
            self.rules,
            self.fail_open,
            lambda name: name not in self.budgets or spend(name, self.budgets[name]),
            stopping,
        )
