"""`summarise`: the median of several rounds, and how far they lie apart (pure)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One figure over its rounds."""

    median: float
    least: float
    most: float
    rounds: int


def summarise(values: Sequence[float]) -> Summary:
    """At least one value. Raises `ValueError` without any."""
    if not values:
        raise ValueError("a summary needs a value")
    return Summary(median=statistics.median(values), least=min(values), most=max(values), rounds=len(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile, `share` in (0, 1]: a value that was measured, never one between two."""
    if not values:
        raise ValueError("a percentile needs a value")
    if not 0 < share <= 1:
        raise ValueError("a percentile lies in (0, 1]")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def ratio(one: Summary, other: Summary) -> float | None:
    """How many times `other` goes into `one`, by their medians; None when `other` is nothing."""
    return one.median / other.median if other.median else None
