"""How long to wait before another try."""

import random


def seconds(attempts: int, first: float, last: float) -> float:
    """Doubles with each of *attempts* from *first* to *last*, give or take a quarter so that mails do not march in step."""
    base = min(first * 2.0 ** min(attempts, 16), last)
    return base * random.uniform(0.75, 1.25)  # noqa: S311 (jitter, not cryptography)
