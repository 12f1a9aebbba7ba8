"""`tell_end`: a task in the background that ends by a mistake of ours is seen in the log, and ends nothing else."""

from __future__ import annotations

import asyncio
import logging


def tell_end(task: asyncio.Task[None], log: logging.Logger, what: str) -> None:
    """`what` is no longer done. Nothing is said of a task that was cancelled, or came to its end."""

    def tell(ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and ended.exception() is not None:
            log.critical("%s; restart the server.", what, exc_info=ended.exception())

    task.add_done_callback(tell)
