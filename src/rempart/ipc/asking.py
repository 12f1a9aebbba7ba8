"""`Asking.ask`: what blocks is asked in a thread of its own, one question at a time, and never on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import msgspec

from rempart.errors import RempartError

R = TypeVar("R")


class Closing(Protocol):
    """What is asked."""

    def close(self) -> None: ...


T_co = TypeVar("T_co", bound=Closing, covariant=True)


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """For how long an answer is waited for."""

    within_s: float
    abort: Callable[[], None]
    """Makes whoever waits in the thread fail, from another thread."""
    late: Callable[[], RempartError]
    """What is raised then."""


class Asking(Generic[T_co]):
    """It owns what it asks."""

    def __init__(self, asked: T_co, name: str, bound: Bound | None = None) -> None:
        """`name` of the thread. Without `bound` an answer is waited for however long it takes."""
        self._asked = asked
        self._bound = bound
        self._thread = ThreadPoolExecutor(1, name)

    async def ask(self, question: Callable[[T_co], R]) -> R:
        """Raises what the question raises, or what `late` makes."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, question, self._asked)
        bound = self._bound
        if bound is None:
            return await future
        try:
            async with asyncio.timeout(bound.within_s):
                return await future
        except TimeoutError:
            bound.abort()
            raise bound.late() from None

    async def close(self) -> None:
        """When it returns the thread is gone, and what was asked is closed."""
        if self._bound is not None:
            self._bound.abort()
        await asyncio.to_thread(self._thread.shutdown)
        self._asked.close()
