"""`python -m rempart.bench.routing`: what a decision costs, and what prefix-aware routing gains (simulated engines).

Decisions: nanoseconds for `group`, `place` and `end` of a board, with 1, 20 and 200 engines that all serve 50 models,
for each policy; prompts of 1 and 16 KiB, of which `prefix` hashes all and the others read nothing.
Hits: engines with caches of bounded size, which forget the block that was used longest ago; groups of prompts that
share a long beginning. The figure is the part of all blocks that stood in the cache of the engine that got the prompt.
"""

from __future__ import annotations

import itertools
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from time import perf_counter_ns
from typing import Final, get_args

import click
import msgspec

from rempart.routing.ask import Ask, Policy, Verdict
from rempart.routing.board import Board, Rule
from rempart.routing.prefixes import blocks
from rempart.wire.job import Target
from rempart.wire.leading import leading_text
from rempart.wire.requests import CHAT, parse

_MODELS: Final = 50
_SEED: Final = 7


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Prompts that share beginnings, and the engines that they go to."""

    engines: int = 4
    groups: int = 64
    """Each with a beginning of its own."""
    shared_bytes: int = 8_192
    own_bytes: int = 1_024
    exchanges: int = 6_000
    running: int = 16
    """At once."""
    cache_blocks: int = 2_048
    """Of one engine: a quarter of what all groups share, for 4 engines about half of it in all."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The median of many."""

    policy: str
    engines: int
    prompt_bytes: int
    p50_ns: int
    p99_ns: int


class Hits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one policy."""

    policy: str
    rate: float


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of the tables.")
@click.option("--decisions", default=3_000, show_default=True, help="How many are measured for each line.")
def main(as_json: bool, decisions: int) -> None:
    """Measure routing without engines and without a server."""
    measured = list(measure(decisions))
    rates = hit_rates(Workload())
    if as_json:
        click.echo(msgspec.json.encode({"decisions": measured, "hits": rates}))
        return
    click.echo(f"{'policy':<18} engines  prompt bytes   p50 ns   p99 ns   ({_MODELS} models on each engine)")
    for one in measured:
        click.echo(f"{one.policy:<18} {one.engines:>7} {one.prompt_bytes:>13} {one.p50_ns:>8} {one.p99_ns:>8}")
    click.echo("\nhits of simulated prefix caches")
    for rate in rates:
        click.echo(f"{rate.policy:<18} {rate.rate:.3f}")


def measure(count: int) -> Iterator[Decision]:
    """Each policy, with few and many engines, short and long prompts."""
    for policy, engines, size in itertools.product(get_args(Policy), (1, 20, 200), (1_024, 16_384)):
        board = _board([f"e{number}" for number in range(engines)], policy, _MODELS)
        asks = [
            _ask(f"m{number % _MODELS}", f"{number % 97} " * (size // 3), str(number % 97)) for number in range(500)
        ]
        took: list[int] = []
        held = []
        for number in range(count):
            ask = asks[number % len(asks)]
            began = perf_counter_ns()
            placed = board.place(board.group(ask, (), 0.0), ask, (), 0.0)
            took.append(perf_counter_ns() - began)
            assert placed is not None
            held.append(placed)
            if len(held) > 2 * engines:  # there is something to compare
                began = perf_counter_ns()
                board.end(held.pop(0), Verdict.SERVED, 0.0)
                took[-1] += perf_counter_ns() - began
        took.sort()
        yield Decision(
            policy=policy,
            engines=engines,
            prompt_bytes=size,
            p50_ns=took[len(took) // 2],
            p99_ns=took[len(took) * 99 // 100],
        )


def hit_rates(load: Workload) -> list[Hits]:
    """Turns, as they were before there were policies, beside each policy."""
    rates = [Hits(policy="round-robin", rate=_simulated(load, None))]
    return rates + [Hits(policy=policy, rate=_simulated(load, policy)) for policy in get_args(Policy)]


def _simulated(load: Workload, policy: Policy | None) -> float:
    chance = random.Random(_SEED)
    names = [f"e{number}" for number in range(load.engines)]
    board = _board(names, policy or "least-outstanding", 1)
    caches = {name: _Cache(load.cache_blocks) for name in names}
    turns = itertools.cycle(names)
    running: list[object] = []
    hits = asked = 0
    for number in range(load.exchanges):
        group = chance.randrange(load.groups)
        text = f"{group:04}" * (load.shared_bytes // 4) + f"{number:08}" * (load.own_bytes // 8)
        ask = _ask("m0", text, str(group))
        if policy is None:
            name = next(turns)
        else:
            placed = board.place(board.group(ask, (), 0.0), ask, (), 0.0)
            assert placed is not None
            name = placed.load.name
            running.append(placed)
            if len(running) > load.running:
                board.end(running.pop(chance.randrange(len(running))), Verdict.SERVED, 0.0)  # type: ignore[arg-type]
        path = blocks(b"", leading_text(ask.call, len(text)))
        hits += caches[name].read(path)
        asked += len(path)
    return hits / asked


class _Cache:
    """Of one engine: blocks, the one that was used longest ago is forgotten first."""

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._blocks: OrderedDict[bytes, None] = OrderedDict()

    def read(self, path: Sequence[bytes]) -> int:
        """How many of the first blocks were there; afterwards all are."""
        known = sum(1 for _ in itertools.takewhile(self._blocks.__contains__, path))
        for block in reversed(path):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._blocks_max:
            self._blocks.popitem(last=False)
        return known


def _board(names: Sequence[str], policy: Policy, models: int) -> Board:
    rules = {f"m{number}": Rule(policy=policy) for number in range(models)}
    board = Board(names, {}, rules, b"bench")
    for name in names:
        board.tell(name, [Target(model=one, served_name=one, digest="", engine=name) for one in rules], None)
    return board


def _ask(model: str, text: str, session: str) -> Ask:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return Ask(call=parse(CHAT, msgspec.json.encode(body)), tenant="bench", session=session)


if __name__ == "__main__":
    main()
