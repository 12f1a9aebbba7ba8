"""`measure_all`: rounds of every measurement on every contender, side by side, in an order that changes every round."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from rempart.bench.load import generate
from rempart.bench.memory import resident_bytes
from rempart.bench.plan import Load, Outcome
from rempart.bench.results import Collected, Scale
from rempart.bench.servers import DIRECT, Contender
from rempart.bench.stats import percentile

REQUESTS: Final = "non-streaming requests"
STREAMS: Final = "streams of 100 chunks"
CHUNKS: Final = "chunks in these streams"
PACED: Final = "paced streams without a stall"
LATENCY_P50: Final = "latency, p50"
LATENCY_P99: Final = "latency, p99"
ADDED_P50: Final = "added latency, p50"
ADDED_P99: Final = "added latency, p99"
IDLE: Final = "memory, idle"
STEADY: Final = "memory, under load"
AFTER: Final = "memory, after"

_OPEN_CONNECTIONS: Final = 512
_SLOW_WARM_S: Final = 3.0
_SLOW_ANSWERS: Final = 4
"""Fewer answers than so many a connection: begin and end of the measurement weigh too much."""
_BUSY: Final = 0.9
_UNSUSTAINED_MS: Final = 500.0
"""A median beyond it is a queue that grows, not a latency."""
_FIRST_MS: Final = 1000.0
_PACED_WARM_S: Final = 1.3
_AFTER_S: Final = 3.0
_MEBIBYTE: Final = 1 << 20


def measure_all(present: Sequence[Contender], scale: Scale, found: Collected, say: Callable[[str], None]) -> None:
    """All rounds. Raises `load.GeneratorFailed`."""
    steps = {one.name: scale.paced_steps.index(scale.paced_first) for one in present}
    rates: dict[str, int] = {}
    for one in present:
        if one.pid:
            found.add(IDLE, one.name, one.idle_bytes / _MEBIBYTE, "MiB")
    for number in range(scale.rounds):
        shift = number % len(present)
        order = [*present[shift:], *present[:shift]]
        for one in order:
            say(f"round {number + 1} of {scale.rounds}: {one.name}")
            _requests(one, scale, found)
            _streams(one, scale, found)
            rates.setdefault(one.name, _rate(one, scale, found))
        say(f"round {number + 1} of {scale.rounds}: latency")
        _latencies(order, scale, rates, found)
        for one in order:
            say(f"round {number + 1} of {scale.rounds}: paced streams, {one.name}")
            steps[one.name] = _paced(one, scale, steps[one.name], found)
    time.sleep(_AFTER_S)
    for one in present:
        if one.pid:
            found.add(AFTER, one.name, resident_bytes(one.pid) / _MEBIBYTE, "MiB")


def _requests(one: Contender, scale: Scale, found: Collected) -> None:
    sampled: list[int] = []
    sampler = threading.Timer(scale.seconds, lambda: sampled.append(resident_bytes(one.pid)))
    if one.pid:
        sampler.start()
    outcome = _closed(one, "json", scale)
    if one.pid:
        sampler.join()
        found.add(STEADY, one.name, sampled[0] / _MEBIBYTE, "MiB")
    found.add(REQUESTS, one.name, outcome.answers / outcome.seconds, "1/s")
    _judge(outcome, REQUESTS, one, found)


def _streams(one: Contender, scale: Scale, found: Collected) -> None:
    outcome = _closed(one, "stream", scale)
    found.add(STREAMS, one.name, outcome.answers / outcome.seconds, "1/s")
    found.add(CHUNKS, one.name, outcome.events / outcome.seconds, "1/s")
    _judge(outcome, STREAMS, one, found)


def _closed(one: Contender, kind: str, scale: Scale) -> Outcome:
    load = Load(
        target=one.targets[kind],
        loop="closed",
        stream=kind == "stream",
        connections=scale.connections,
        seconds=scale.seconds,
    )
    outcome = generate(load)
    if outcome.answers >= _SLOW_ANSWERS * scale.connections:
        return outcome
    slow = {"seconds": scale.slow_seconds, "warm_s": _SLOW_WARM_S}
    return generate(Load(target=load.target, loop="closed", stream=load.stream, connections=load.connections, **slow))


def _rate(one: Contender, scale: Scale, found: Collected) -> int:
    """The open loop's rate: the common one, or a quarter of what the contender reached in the closed loop.

    Not more: kept-alive connections fall unevenly on several workers, and one of them may get nearly all.
    """
    reached = found.last(REQUESTS, one.name) or 0.0
    return max(min(scale.rate_per_s, int(reached / 4)), 1)


def _latencies(order: Sequence[Contender], scale: Scale, rates: dict[str, int], found: Collected) -> None:
    """Each rate is measured on the upstream itself as well, in the same round."""
    direct = next(one for one in order if one.name == DIRECT)
    base = {rate: _open(direct, rate, scale) for rate in sorted(set(rates.values()))}
    for one in order:
        rate = rates[one.name]
        outcome = base[rate] if one.name == DIRECT else _open(one, rate, scale)
        for measure, share in ((LATENCY_P50, 0.5), (LATENCY_P99, 0.99)):
            if outcome.latencies_ms:
                found.add(measure, one.name, percentile(outcome.latencies_ms, share), "ms")
                found.note(measure, one.name, f"at {rate} requests/s")
                if percentile(outcome.latencies_ms, 0.5) > _UNSUSTAINED_MS:
                    found.note(measure, one.name, "it did not sustain this rate")
        if one.name == DIRECT:
            continue
        for measure, share in ((ADDED_P50, 0.5), (ADDED_P99, 0.99)):
            if outcome.latencies_ms and base[rate].latencies_ms:
                added = percentile(outcome.latencies_ms, share) - percentile(base[rate].latencies_ms, share)
                found.add(measure, one.name, added, "ms")
                found.note(measure, one.name, f"at {rate} requests/s")
            _judge(outcome, measure, one, found)


def _open(one: Contender, rate: int, scale: Scale) -> Outcome:
    return generate(
        Load(
            target=one.targets["json"],
            loop="open",
            stream=False,
            connections=_OPEN_CONNECTIONS,
            seconds=scale.rate_seconds,
            per_s=float(rate),
        )
    )


def _paced(one: Contender, scale: Scale, first: int, found: Collected) -> int:
    """Step up from `first` while all goes well, else down until it does. Returns the step to begin at next time."""
    steps = scale.paced_steps
    at = first
    if _sustains(one, steps[at], scale, found):
        while at + 1 < len(steps) and _sustains(one, steps[at + 1], scale, found):
            at += 1
        if at + 1 == len(steps):
            found.note(PACED, one.name, "no more were tried")
        found.add(PACED, one.name, float(steps[at]), "streams")
        return at
    while at > 0:
        at -= 1
        if _sustains(one, steps[at], scale, found):
            found.add(PACED, one.name, float(steps[at]), "streams")
            return at
    found.add(PACED, one.name, 0.0, "streams")
    return 0


def _sustains(one: Contender, streams: int, scale: Scale, found: Collected) -> bool:
    """Every stream whole, no gap that is a stall, and no one who waits a second for the first delta."""
    outcome = generate(
        Load(
            target=one.targets["paced"],
            loop="paced",
            stream=True,
            connections=streams,
            seconds=scale.seconds,
            warm_s=_PACED_WARM_S,
        )
    )
    if outcome.cpu_share > _BUSY:
        found.note(PACED, one.name, "the load generator was busy")
    return (
        not outcome.broken
        and outcome.answers >= streams
        and outcome.longest_gap_ms <= scale.stall_ms
        and percentile(outcome.first_ms, 0.99) <= _FIRST_MS
    )


def _judge(outcome: Outcome, measure: str, one: Contender, found: Collected) -> None:
    if outcome.broken:
        found.note(measure, one.name, f"{outcome.broken} answers were broken: {outcome.problem}")
    if outcome.cpu_share > _BUSY:
        found.note(measure, one.name, "the load generator was the limit: at least this")
