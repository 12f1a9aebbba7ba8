"""`Admission`: may this caller have this answered now, and by which engine; and the account of it afterwards."""

from __future__ import annotations

import time
from typing import Protocol

from rempart.errors import ModelNotFound, Overloaded
from rempart.gateway.ports import Accounts, Engine, Router
from rempart.identity.caller import Caller
from rempart.identity.quota import Reservation, Wanted
from rempart.wire.job import Target
from rempart.wire.requests import Call


class Capacity(Protocol):
    """How full the gateway is."""

    def full(self) -> bool: ...


class Admission:
    """The decision for one exchange. `admit` at most once, then `settle` exactly once."""

    __slots__ = ("_caller", "_capacity", "_meter", "_reservation", "_router", "model")

    def __init__(self, caller: Caller, meter: Accounts, router: Router, capacity: Capacity) -> None:
        self._caller = caller
        self._meter = meter
        self._router = router
        self._capacity = capacity
        self._reservation: Reservation | None = None
        self.model = ""
        """Name of the model once it is known to be one of this site's: safe as a label of metrics."""

    async def admit(self, call: Call) -> tuple[Target, Engine]:
        """Raises `Overloaded`, `ModelNotFound`, `EngineUnavailable`, `RateLimited` or `QuotaExceeded`."""
        if self._capacity.full():
            raise Overloaded("Too many exchanges are running.", hint="Try again in a moment.", retry_after_s=1)
        if self._caller.models is not None and call.model not in self._caller.models:
            raise ModelNotFound(
                f"There is no model {call.model!r} for this key.",
                hint="List what it may use with GET /v1/models.",
                param="model",
            )
        found = self._router.route(call.model)
        self.model = found[0].model
        wanted = Wanted(prompt=call.tokens_prompt, completion=call.tokens_asked, choices=call.choices)
        reserved = self._meter.admit(self._caller, wanted, time.time(), time.monotonic())
        self._reservation = reserved if isinstance(reserved, Reservation) else await reserved
        return found

    async def settle(self, tokens_prompt: int, tokens_completion: int) -> None:
        """Count what was really used; also for what was cut short."""
        if self._reservation is not None:
            reservation, self._reservation = self._reservation, None
            settled = self._meter.settle(reservation, tokens_prompt + tokens_completion, time.time())
            if settled is not None:
                await settled
