"""`Load` and `Outcome`: what a load generator is told to do, and what it saw (values only)."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["json", "stream", "paced"]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where one kind of answer is to be had."""

    port: int
    path: str
    model: str
    key: str = ""
    """Bearer token; empty: none is sent."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """closed: each connection asks again once it has its answer. open: requests leave at their times, whatever comes
    back. paced: closed, but the connections begin one after the other, and gaps between arrivals are measured."""

    target: Target
    loop: Literal["closed", "open", "paced"]
    stream: bool
    connections: int
    """open: the most there may be."""
    seconds: float
    warm_s: float = 0.5
    """Time before anything counts."""
    per_s: float = 0.0
    """open: requests a second."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of what ended within the measured time."""

    seconds: float
    answers: int
    """Whole ones."""
    broken: int
    problem: str
    """The first one's; empty when none is broken."""
    events: int
    """Events of whole streams, [DONE] not counted."""
    cpu_share: float
    """Of one core, used by the generator itself: near 1 it is the generator that was measured."""
    latencies_ms: list[float]
    """From sending to the last byte; open loops alone."""
    first_ms: list[float]
    """From sending to the first byte of the body; paced loops alone."""
    longest_gap_ms: float
    """Between two arrivals within a stream; paced loops alone."""
