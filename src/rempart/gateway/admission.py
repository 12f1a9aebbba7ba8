"""`Admission`: may this caller have this answered now, and by which engine; and the account of it afterwards."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from rempart.errors import ModelNotFound, Overloaded
from rempart.gateway.ports import Accounts, Lease, Router
from rempart.identity.caller import Caller
from rempart.identity.quota import Reservation, Wanted
from rempart.routing.ask import Ask, Verdict
from rempart.wire.requests import Call

Wait: TypeAlias = Callable[[Awaitable[Lease]], Awaitable[Lease]]
"""How its turn in the queue is awaited: there the exchange can be interrupted, and what it raises then is passed on."""


class Capacity(Protocol):
    """How full the gateway is."""

    def full(self) -> bool: ...


class Admission:
    """The decision for one exchange. `admit` at most once, `again` after it, then `settle` exactly once; `end` as soon
    as an engine is done with it."""

    __slots__ = ("_caller", "_capacity", "_lease", "_meter", "_reservation", "_router", "_tried", "model", "session")

    def __init__(self, caller: Caller, meter: Accounts, router: Router, capacity: Capacity) -> None:
        self._caller = caller
        self._meter = meter
        self._router = router
        self._capacity = capacity
        self._reservation: Reservation | None = None
        self._lease: Lease | None = None
        self._tried: list[str] = []
        """Engines that failed it."""
        self.model = ""
        """Name of the model once it is known to be one of this site's: safe as a label of metrics."""
        self.session = ""
        """What the client says it belongs to, beside what the request says itself."""

    async def admit(self, call: Call, wait: Wait) -> Lease:
        """Raises `Overloaded`, `ModelNotFound`, `EngineUnavailable`, `RateLimited` or `QuotaExceeded`."""
        if self._capacity.full():
            raise Overloaded("Too many exchanges are running.", hint="Try again in a moment.", retry_after_s=1)
        if not (self._caller.may_use(call.model) or self._caller.may_use(self._router.named(call.model))):
            raise ModelNotFound(
                f"There is no model {call.model!r} for this key.",
                hint="List what it may use with GET /v1/models.",
                param="model",
            )
        ask = self._ask(call)
        self.model = self._router.check(ask)  # an engine that is down costs no request of the quota
        wanted = Wanted(prompt=call.tokens_prompt, completion=call.tokens_asked, choices=call.choices)
        reserved = self._meter.admit(self._caller, wanted, time.time(), time.monotonic())
        self._reservation = reserved if isinstance(reserved, Reservation) else await reserved
        return await self._take(ask, wait)

    async def again(self, call: Call, wait: Wait) -> Lease:
        """Another engine, after the last one failed. Raises `Overloaded`, `ModelNotFound` or `EngineUnavailable`."""
        if self._lease is not None:
            self._tried.append(self._lease.engine.name)
        return await self._take(self._ask(call), wait)

    def heard(self) -> None:
        """The engine's first piece came."""
        if self._lease is not None:
            self._lease.heard()

    def end(self, verdict: Verdict) -> None:
        """The engine is done with it, or never had it. What is said after the first time changes nothing."""
        if self._lease is not None:
            self._lease.end(verdict)

    async def settle(self, tokens_prompt: int, tokens_completion: int) -> None:
        """Count what was really used; also for what was cut short."""
        if self._reservation is not None:
            reservation, self._reservation = self._reservation, None
            settled = self._meter.settle(reservation, tokens_prompt + tokens_completion, time.time())
            if settled is not None:
                await settled

    def _ask(self, call: Call) -> Ask:
        session = self.session or call.session
        return Ask(call=call, tenant=self._caller.key, models=self._caller.models, session=session)

    async def _take(self, ask: Ask, wait: Wait) -> Lease:
        leased = self._router.lease(ask, self._tried)
        self._lease = await wait(leased) if isinstance(leased, Awaitable) else leased
        self.model = self._lease.target.model
        return self._lease
