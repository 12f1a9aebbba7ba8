"""`choose`: which of the engines that could answer does (pure).

`least-outstanding`: the engine with the fewest exchanges under way for its weight; where several have as few, they take
turns by weight (stride scheduling, Waldspurger and Weihl 1995).
`session`: the engine that weighted rendezvous hashing gives the session (Thaler and Ravishankar 1998). It needs no
memory, so all workers agree, and an engine that comes or goes moves no session but its own.
`prefix`: the engine that has seen the longest part of this prompt, unless that is too little of it, or the engine has
too much to do beside the least loaded one: more by an absolute *and* a relative measure, as SMG's `cache_aware` has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from rempart import limits
from rempart.routing.breaker import Breaker
from rempart.routing.prefixes import PrefixTree
from rempart.wire.job import Target

_64_BITS: Final = 2**64 - 1


class Load:
    """One engine as it stands: the same object in all models that it serves."""

    __slots__ = (
        *("breaker", "bit", "down", "index", "max_concurrent", "name", "outstanding", "seed", "tokens_free"),
        "weight",
    )

    def __init__(self, index: int, name: str, *, weight: float = 1.0, max_concurrent: int = 0) -> None:
        self.index = index
        """Its place in the configuration."""
        self.name = name
        self.weight = weight
        self.max_concurrent = max_concurrent
        """0: no bound."""
        self.outstanding = 0
        self.tokens_free: int | None = None
        """Of its KV cache, less what was sent since it told so; None: it does not tell."""
        self.down = ""
        """Why it is not ready; empty when it is."""
        self.breaker = Breaker()
        self.bit = 0
        """What it is in prefix trees; another one when its cache is lost."""
        self.seed = int.from_bytes(blake2b(name.encode(), digest_size=8).digest())

    def has_room(self, tokens: int) -> bool:
        """An idle engine takes anything: what it cannot hold at all it refuses itself."""
        if not self.outstanding:
            return True
        if self.max_concurrent and self.outstanding >= self.max_concurrent:
            return False
        return self.tokens_free is None or tokens <= self.tokens_free


class Seat:
    """One model on one engine."""

    __slots__ = ("load", "passed", "target")

    def __init__(self, target: Target, load: Load) -> None:
        self.target = target
        self.load = load
        self.passed = 0.0
        """Stride scheduling: turns it had, each divided by its weight."""


class Choice(NamedTuple):
    """An engine, and why."""

    seat: Seat
    why: str
    """`least`, `session`, `prefix` or `overloaded`."""
    matched: int = 0
    """Blocks of the prompt that it has seen."""


def choose(seats: Sequence[Seat], session: int | None, path: Sequence[bytes], tree: PrefixTree | None) -> Choice:
    """Of `seats`, which all could take it; there is one at least.

    `session`: 64 bits that stand for tenant and session, None without one. `path`: the prompt's blocks, for `tree`.
    """
    if session is not None:
        return Choice(min(seats, key=lambda seat: _distance(session, seat.load)), "session")
    if tree is not None and path:
        return _by_prefix(seats, path, tree)
    return Choice(least(seats), "least")


def least(seats: Sequence[Seat]) -> Seat:
    """The least loaded, among equals the one whose turn it is."""
    best = seats[0]
    lowest = best.load.outstanding / best.load.weight
    for seat in seats[1:]:
        load = seat.load.outstanding / seat.load.weight
        if load < lowest or (load == lowest and seat.passed < best.passed):
            best, lowest = seat, load
    return best


def pass_on(seat: Seat, floor: float) -> float:
    """It had its turn. `floor` is where turns stand: who was away has saved none up. The new floor."""
    began = max(seat.passed, floor)
    seat.passed = began + 1.0 / seat.load.weight
    return began


def session_of(tenant: str, session: str) -> int:
    """64 bits for a session of that tenant."""
    return int.from_bytes(blake2b(f"{tenant}\0{session}".encode(), digest_size=8).digest())


def _by_prefix(seats: Sequence[Seat], path: Sequence[bytes], tree: PrefixTree) -> Choice:
    among = 0
    for seat in seats:
        among |= seat.load.bit
    depth, holders = tree.match(path, among)
    free = least(seats)
    if depth < limits.prefix_match_min * len(path):
        return Choice(free, "least")
    best = least([seat for seat in seats if seat.load.bit & holders])
    high, low = best.load.outstanding / best.load.weight, free.load.outstanding / free.load.weight
    if high - low > limits.prefix_balance_exchanges and high > limits.prefix_balance_ratio * low:
        return Choice(free, "overloaded")
    return Choice(best, "prefix", depth)


def _distance(session: int, load: Load) -> float:
    """Exponentially distributed with the engine's weight as its rate: the nearest engine is it in that proportion."""
    # Both are hashes already: two rounds of SplitMix64's finalizer (Steele et al. 2014) mix them well enough.
    mixed = ((session ^ load.seed) * 0xBF58476D1CE4E5B9) & _64_BITS
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return -math.log((mixed + 1) / (_64_BITS + 2)) / load.weight
