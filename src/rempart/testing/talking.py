"""`talking`: both ends of a talk in one process, for tests of what processes say to each other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from rempart.ipc.talk import Answer, Hear, Talk


class Side(NamedTuple):
    """What one end understands, and what it does about it."""

    kinds: Any
    answer: Answer
    hear: Hear


async def _never(question: object) -> object:
    raise AssertionError(f"nobody asks this end: {question!r}")


def _deaf(word: object) -> None:
    raise AssertionError(f"nobody tells this end anything: {word!r}")


NOBODY = Side(object, _never, _deaf)


@contextlib.asynccontextmanager
async def talking(near: Side, far: Side = NOBODY) -> AsyncIterator[tuple[Talk, Talk]]:
    """Both run until one is closed, or the context ends."""
    socks = socket.socketpair()
    ends = [await Talk.over(sock, *side) for sock, side in zip(socks, (near, far), strict=True)]
    tasks = [asyncio.create_task(end.run()) for end in ends]
    try:
        yield ends[0], ends[1]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
