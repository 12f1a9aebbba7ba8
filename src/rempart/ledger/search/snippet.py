"""`snippet`: the place in a text where words that were searched for stand (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rempart.ledger.search.query import Query
from rempart.ledger.search.words import words

_RUN: Final = re.compile(r"\S+")
_BEFORE: Final = 40
_CUT: Final = "…"


def snippet(texts: Sequence[str], query: Query, chars: int) -> str:
    """About `chars` characters around the first of the query's words, on one line; empty when none of them is there."""
    wanted = set(query.all_words)
    for text in texts if wanted else ():
        for run in _RUN.finditer(text):
            if not wanted.isdisjoint(words(run[0])):
                return _around(text, run.start(), chars)
    return ""


def _around(text: str, at: int, chars: int) -> str:
    begin, end = max(at - _BEFORE, 0), max(at - _BEFORE, 0) + chars
    shown = " ".join(text[begin:end].split())
    return f"{_CUT if begin else ''}{shown}{_CUT if end < len(text) else ''}"
