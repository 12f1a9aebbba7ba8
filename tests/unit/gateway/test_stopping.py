"""`rempart.gateway.server`: what a drain does not wait for, and how refusals are told."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from rempart import limits
from rempart.exchange import events as e
from rempart.gateway.server import TurnedAway, _drain


class Exchange:
    """One that runs until it is interrupted."""

    def __init__(self, gateway: Site, engine: str) -> None:
        self.engine = engine
        self.heard = 0.0
        self.ended: e.Cut | None = None
        self._gateway = gateway
        gateway.running.add(self)

    def interrupt(self, cut: e.Cut) -> None:
        self.ended = cut
        self._gateway.running.discard(self)


class Site:
    """A gateway that waits for its exchanges without end."""

    def __init__(self, **engines: str) -> None:
        self.engines = engines
        self.running: set[Exchange] = set()
        self.cuts = 0
        self.asked = 0
        self.parts = SimpleNamespace(router=self)

    def states(self) -> Mapping[str, str]:
        self.asked += 1
        return self.engines

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0)

    async def drain(self) -> None:
        while self.running:
            await asyncio.sleep(0)

    def cut(self) -> None:
        self.cuts += 1
        self.running.clear()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "engine_ask_s", 0.0)
    monkeypatch.setattr(limits, "drain_dead_s", 0.0)


async def drained(site: Any, cut: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        await _drain(site, cut)


async def test_an_exchange_of_a_dead_engine_is_cut_and_the_others_are_waited_for() -> None:
    site = Site(dead="cannot be reached", alive="")
    lost, kept = Exchange(site, "dead"), Exchange(site, "alive")
    draining = asyncio.create_task(drained(site, asyncio.Event()))
    await site.until(lambda: lost.ended is not None and site.asked > 3)
    assert lost.ended is not None
    assert lost.ended.error.code == "engine_unavailable"
    assert "dead is down" in lost.ended.error.message
    assert kept.ended is None
    assert not draining.done()
    site.running.clear()
    await draining


async def test_an_exchange_that_still_hears_something_is_not_cut() -> None:
    site = Site(slow="is silent")
    exchange = Exchange(site, "slow")
    exchange.heard = math.inf
    draining = asyncio.create_task(drained(site, asyncio.Event()))
    await site.until(lambda: site.asked > 3)
    assert exchange.ended is None
    exchange.heard = 0.0
    await draining
    assert exchange.ended is not None


async def test_a_second_signal_cuts_all() -> None:
    site, cut = Site(alive=""), asyncio.Event()
    Exchange(site, "alive")
    draining = asyncio.create_task(drained(site, cut))
    await site.until(lambda: site.asked > 3)
    assert not draining.done()
    cut.set()
    await draining
    assert site.cuts >= 1


async def test_nothing_that_runs_is_nothing_to_wait_for() -> None:
    await drained(Site(), asyncio.Event())


def test_refusals_are_told_at_most_once_a_minute_with_their_count(caplog: pytest.LogCaptureFixture) -> None:
    warning = TurnedAway()
    told: list[object] = []

    def look(count: int, now: float) -> None:
        caplog.clear()
        warning.look({"invalid_api_key": count}, now)
        told.append([(record.levelno, record.__dict__["counts"]) for record in caplog.records])

    for count, now in ((0, 1.0), (2, 2.0), (3, 3.0), (9, 61.0), (9, 62.0), (9, 200.0), (10, 201.0), (11, math.inf)):
        look(count, now)
    one = logging.WARNING
    assert told == [
        [],
        [(one, {"invalid_api_key": 2})],
        [],
        [],
        [(one, {"invalid_api_key": 7})],
        [],
        [(one, {"invalid_api_key": 1})],
        [(one, {"invalid_api_key": 1})],
    ]
