"""`Router.route`: which engine serves which model, now. Engines are asked every few seconds what they serve."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from rempart import limits
from rempart.engines.port import Engine
from rempart.errors import EngineError, EngineUnavailable, ModelNotFound
from rempart.wire.job import Served, Target

_log = logging.getLogger("rempart.engines")
_UNASKED: Final = "not asked yet"


class Router:
    """Engines in the order of the configuration; several that serve one model take turns."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = tuple(engines)
        self._down = {engine.name: _UNASKED for engine in engines}
        self._unseen = {engine.name for engine in engines}
        """Engines that have never told what they serve."""
        self._served: dict[str, list[tuple[Target, Engine]]] = {}
        self._turns = itertools.count()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask all engines once, then again every few seconds."""
        await self.refresh()
        self._watching = asyncio.create_task(self._watch(), name="engines")

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for engine in self._engines:
            await engine.close()

    def route(self, model: str) -> tuple[Target, Engine]:
        """Raises `ModelNotFound`, or `EngineUnavailable` when none that serves it is up."""
        served = self._served.get(model)
        if not served and self._unseen:
            raise EngineUnavailable(
                f"No engine that is up serves {model!r}, and {', '.join(sorted(self._unseen))} has not come up yet.",
                hint="Try again in a moment; see /readyz.",
                retry_after_s=2,
            )
        if not served:
            raise ModelNotFound(
                f"There is no model {model!r} here.", hint="List the models with GET /v1/models.", param="model"
            )
        ready = [one for one in served if one[1].name not in self._down]
        if not ready:
            raise EngineUnavailable(
                f"The engine that serves {model!r} is not ready.",
                hint="Try again in a moment; see /readyz.",
                retry_after_s=2,
            )
        return ready[0] if len(ready) == 1 else ready[next(self._turns) % len(ready)]

    def models(self) -> Sequence[Target]:
        return [served[0][0] for served in self._served.values()]

    def states(self) -> Mapping[str, str]:
        """Engine name -> why it is not ready; empty when it is."""
        return {engine.name: self._down.get(engine.name, "") for engine in self._engines}

    async def served(self) -> Mapping[str, Served]:
        """Engine -> what it says it served; those that cannot say, or are down, are left out."""
        said = await asyncio.gather(*(self._ask_served(engine) for engine in self._engines))
        return {engine.name: one for engine, one in zip(self._engines, said, strict=True) if one is not None}

    async def _ask_served(self, engine: Engine) -> Served | None:
        try:
            return await engine.served()
        except EngineError as error:
            _log.warning("engine does not say what it served", extra={"engine": engine.name, "reason": error.message})
            return None

    async def refresh(self) -> None:
        """Ask every engine now."""
        listed = await asyncio.gather(*(self._ask(engine) for engine in self._engines))
        served: dict[str, list[tuple[Target, Engine]]] = {}
        for engine, targets in zip(self._engines, listed, strict=True):
            for target in targets:
                served.setdefault(target.model, []).append((target, engine))
        self._served = served

    async def _ask(self, engine: Engine) -> Sequence[Target]:
        """What it serves; when it is down, what it served last: its models do not vanish with it."""
        try:
            targets = await engine.models()
        except EngineError as error:
            if self._down.get(engine.name, _UNASKED) == _UNASKED:
                _log.warning("engine down", extra={"engine": engine.name, "reason": error.message})
            self._down[engine.name] = error.message
            return [target for served in self._served.values() for target, owner in served if owner is engine]
        self._unseen.discard(engine.name)
        if self._down.pop(engine.name, _UNASKED) != _UNASKED:
            _log.info("engine up", extra={"engine": engine.name})
        return targets

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(limits.engine_ask_s)
            await self.refresh()
