"""`Router.lease`: an engine for an exchange, now or in its turn. Engines are asked every few seconds what they serve.

What is decided stands in `rempart.routing`, and waits for nothing. Here is what has to be awaited: engines that tell
what they serve, each asked by a task of its own, so that one that hangs delays no word of another; and clients, which
wait until an engine has room, no longer than `queue_s`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from rempart import limits
from rempart.engines.port import Engine, Measured
from rempart.errors import EngineError, EngineTimeout, EngineUnavailable, ModelNotFound, Overloaded
from rempart.routing.ask import Ask, Figures, Verdict
from rempart.routing.board import Board, Group, Placed, Rule, Share
from rempart.routing.lines import Lines
from rempart.wire.job import Capacity, Served, Target

_log = logging.getLogger("rempart.engines")
_SECRET_BYTES: Final = 32
_LATE_AGAIN_S: Final = 5


class Lease:
    """An engine has a place for one exchange. `end` it in any case; what comes after the first time changes nothing."""

    __slots__ = ("_placed", "_router", "engine")

    def __init__(self, router: Router, placed: Placed, engine: Engine) -> None:
        self._router = router
        self._placed: Placed = placed
        self.engine = engine

    @property
    def target(self) -> Target:
        return self._placed.target

    @property
    def others(self) -> int:
        """How often the exchange may still be handed to another engine, should this one fail."""
        return self._placed.others

    def heard(self) -> None:
        """The first piece of its answer came."""
        self._placed.load.breaker.heard(self._placed.trial)

    def end(self, verdict: Verdict) -> None:
        self._router._end(self._placed, verdict)


class _Ticket:
    """One exchange in the queue."""

    __slots__ = ("ask", "lease", "tried")

    def __init__(self, ask: Ask, tried: Sequence[str], lease: asyncio.Future[Lease]) -> None:
        self.ask = ask
        self.tried = tried
        self.lease = lease


class Router:
    """Engines in the order of the configuration."""

    def __init__(
        self,
        engines: Sequence[Engine],
        shares: Mapping[str, Share] | None = None,
        rules: Mapping[str, Rule] | None = None,
        *,
        queue_max: int = limits.queue_max,
        queue_s: float = limits.queue_s,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`shares` by engine, `rules` by model; `clock` in steady seconds."""
        self._engines = {engine.name: engine for engine in engines}
        self._board = Board([*self._engines], shares or {}, rules or {}, os.urandom(_SECRET_BYTES))
        self._lines = Lines[_Ticket](queue_max)
        self._queue_s = queue_s
        self._clock = clock
        self._turned_away: Counter[str] = Counter()
        self._running: set[Placed] = set()
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Ask all engines once, then each again every few seconds."""
        await self.refresh()
        self._watching = [
            asyncio.create_task(self._watch(engine), name=f"asks {name}") for name, engine in self._engines.items()
        ]

    async def close(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        for engine in self._engines.values():
            await engine.close()

    # For exchanges.

    def named(self, model: str) -> str:
        """The model that an alias stands for; any other name as it is."""
        return self._board.named(model)

    def check(self, ask: Ask) -> str:
        """Name of the model that would answer. Raises `ModelNotFound`, or `EngineUnavailable` when none is up."""
        return self._board.group(ask, (), self._clock()).model

    def lease(self, ask: Ask, tried: Sequence[str] = ()) -> Lease | Awaitable[Lease]:
        """At once when an engine has room, else in its turn. `tried`: engines that failed this exchange.

        Raises as `check` does, now or later; awaiting it raises `Overloaded` when the queue is full, or was too slow.
        """
        now = self._clock()
        group = self._board.group(ask, tried, now)
        if not self._lines.holds(group.model):
            lease = self._try(group, ask, tried, now)
            if lease is not None:
                return lease
        return self._wait(group, ask, tried)

    def models(self) -> Sequence[Target]:
        """Each under all its names."""
        return self._board.models()

    def states(self) -> Mapping[str, str]:
        """Engine name -> why it is not ready; empty when it is."""
        return self._board.states()

    def figures(self) -> Figures:
        return self._board.figures(len(self._lines), self._turned_away, self._clock())

    def _try(self, group: Group, ask: Ask, tried: Sequence[str], now: float) -> Lease | None:
        placed = self._board.place(group, ask, tried, now)
        if placed is None:
            return None
        self._running.add(placed)
        return Lease(self, placed, self._engines[placed.load.name])

    def _end(self, placed: Placed, verdict: Verdict) -> None:
        if placed not in self._running:
            return
        self._running.discard(placed)
        self._board.end(placed, verdict, self._clock())
        self._serve_lines()

    # The queue.

    async def _wait(self, group: Group, ask: Ask, tried: Sequence[str]) -> Lease:
        ticket = _Ticket(ask, tried, asyncio.get_running_loop().create_future())
        try:
            lost = self._lines.join(group.model, ask.tenant, ticket)
        except Overloaded:
            self._turned_away["full"] += 1
            raise
        if lost is not None and not lost.lease.done():
            self._turned_away["full"] += 1
            why = "Too many exchanges of this key wait for an engine, and another key's turn came."
            lost.lease.set_exception(Overloaded(why, hint="Send fewer at once.", retry_after_s=_LATE_AGAIN_S))
        try:
            async with asyncio.timeout(self._queue_s):
                return await self._granted(group.model, ticket)
        except TimeoutError:
            self._turned_away["late"] += 1
            raise Overloaded(
                f"No engine had room for {ask.call.model!r} within {self._queue_s:g} s.",
                hint="Try again in a moment.",
                retry_after_s=_LATE_AGAIN_S,
            ) from None

    async def _granted(self, model: str, ticket: _Ticket) -> Lease:
        lease: Lease | None = None
        try:
            lease = await ticket.lease
            return lease
        finally:
            self._lines.leave(model, ticket.ask.tenant, ticket)
            if lease is None and ticket.lease.done() and not ticket.lease.cancelled() and not ticket.lease.exception():
                ticket.lease.result().end(Verdict.NOTHING)  # its turn came just as it left

    def _serve_lines(self) -> None:
        """Whoever can have an engine now gets it, models and keys in turn."""
        if not len(self._lines):
            return
        now = self._clock()
        while any(self._serve_one(model, now) for model in self._lines.models()):
            pass

    def _serve_one(self, model: str, now: float) -> bool:
        for key, ticket in self._lines.firsts(model):
            if ticket.lease.done():
                self._lines.leave(model, key, ticket)
                return True
            try:
                group = self._board.group(ticket.ask, ticket.tried, now)
                lease = self._try(group, ticket.ask, ticket.tried, now)
            except (EngineUnavailable, ModelNotFound) as error:  # the last engine that it could wait for is gone
                self._lines.leave(model, key, ticket)
                ticket.lease.set_exception(error)
                return True
            if lease is not None:
                self._lines.take(model, key, ticket)
                ticket.lease.set_result(lease)
                return True
            if not self._board.has_room(group, now):
                return False  # nor for the keys whose turn is later
        return False

    # Engines are asked.

    async def served(self) -> Mapping[str, Served]:
        """Engine -> what it says it served; those that cannot say, or are down, are left out."""
        said = await asyncio.gather(*(self._ask_served(engine) for engine in self._engines.values()))
        return {name: one for name, one in zip(self._engines, said, strict=True) if one is not None}

    async def _ask_served(self, engine: Engine) -> Served | None:
        try:
            async with asyncio.timeout(limits.engine_silent_s):
                return await engine.served()
        except (EngineError, TimeoutError) as error:
            reason = error.message if isinstance(error, EngineError) else "is silent"
            _log.warning("engine does not say what it served", extra={"engine": engine.name, "reason": reason})
            return None

    async def refresh(self) -> None:
        """Ask every engine now. What one says counts at once, whether or not another one answers."""
        await asyncio.gather(*(self._ask(engine) for engine in self._engines.values()))

    async def _watch(self, engine: Engine) -> None:
        while True:
            await asyncio.sleep(limits.engine_ask_s)
            await self._ask(engine)

    async def _ask(self, engine: Engine) -> None:
        try:
            targets, capacity = await _look(engine)
        except EngineError as error:
            if self._board.tell_down(engine.name, error.message):
                _log.warning("engine down", extra={"engine": engine.name, "reason": error.message})
        else:
            if self._board.tell(engine.name, targets, capacity):
                _log.info("engine up", extra={"engine": engine.name})
        self._serve_lines()


async def _look(engine: Engine) -> tuple[Sequence[Target], Capacity | None]:
    """What it serves, and how much room it says it has. Raises `EngineError` and its kin."""
    try:
        async with asyncio.timeout(limits.engine_silent_s):
            targets = await engine.models()
            return targets, await _room(engine) if isinstance(engine, Measured) else None
    except TimeoutError as error:
        raise EngineTimeout(f"The engine {engine.name} is silent.", hint="See the engine's log.") from error


async def _room(engine: Measured) -> Capacity | None:
    """An engine that serves, and does not say how much, serves."""
    try:
        return await engine.capacity()
    except EngineError:
        return None
