"""`Engine`: what every adapter promises. `rempart.testing.check_engine` holds each of them to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol, runtime_checkable

from rempart.wire.job import Capacity, Job, Served, Target


class Engine(Protocol):
    """Somebody else's inference server.

    Cancelling the task that awaits, or closing the generator, closes the engine's connection at once, and the engine
    stops within `limits.cancel_s`. Only `EngineError` and its kin are raised: unreachable, starting or dying ->
    `EngineUnavailable`; a 4xx of its own -> `EngineRefused` with its status and message; silence past the deadline ->
    `EngineTimeout`; nonsense, or a stream that ends without `[DONE]` -> `EngineError`. There is never a partial
    answer without an error.
    """

    @property
    def name(self) -> str: ...

    async def answer(self, job: Job) -> bytes:
        """The whole JSON answer; at most `limits.answer_bytes_max`."""
        ...

    def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        """Payloads of the server-sent events, in batches as they arrive, without `[DONE]`."""
        ...

    async def models(self) -> Sequence[Target]:
        """What it serves now; raises as above when it is not ready."""
        ...

    async def served(self) -> Served | None:
        """What it says it served since it was started here; None when it cannot say. Raises as above."""
        ...

    async def close(self) -> None:
        """Let go of connections and processes. Afterwards everything raises `EngineUnavailable`."""
        ...


@runtime_checkable
class Measured(Protocol):
    """An engine that also tells how much room its KV cache has: it is given no more than that."""

    async def capacity(self) -> Capacity | None:
        """As it stands; None when it cannot say now. Raises as `models` does."""
        ...
