"""Words from outside, made safe to show.

Addresses, server replies and reasons come from strangers. Before they reach a
terminal, a log, a page or a hook they pass through here.
"""

import re
import unicodedata

# Cc: C0 and C1 controls (terminal escapes, forged log lines). Cf: bidirectional
# overrides and zero-width characters. Zl, Zp: line breaks to some readers.
# Cs: lone surrogates, which no output encoding takes.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
_ADDRESS = re.compile(r"<[^<>\s]*@[^<>\s]*>|[^\s<>\"'(),;:]+@[^\s<>\"'(),;:]+")


def clean(words: str, limit: int = 500) -> str:
    """*words* on one line without control characters, at most *limit* characters."""
    if words.isascii() and words.isprintable():
        safe = words
    else:
        safe = "".join(" " if unicodedata.category(c) in _UNSAFE_CATEGORIES else c for c in words)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def without_addresses(words: str) -> str:
    """*words* with whatever looks like a mail address replaced (``LOG_ADDRESSES=false``)."""
    return _ADDRESS.sub("(address)", words)
