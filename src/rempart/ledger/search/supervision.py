"""`keeping`: while the context lasts, a process of its own follows the log and keeps the search index up to date.

It is started again when it ends, at growing intervals while it ends soon. The gateway goes on without it: what is not
in the index yet is counted in each answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from rempart import limits
from rempart.config.settings import Keys
from rempart.ledger.keys.configured import encode_keys

_log = logging.getLogger("rempart.ledger")
_TOLD_BYTES = 500


@contextlib.asynccontextmanager
async def keeping(data: Path, keys: Keys, pause_s: float) -> AsyncIterator[None]:
    """The caller owns `data`. At most one such process; it has ended when this returns."""
    keeper = asyncio.create_task(_keep(data, keys, pause_s), name="search index")
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def _keep(data: Path, keys: Keys, pause_s: float) -> None:
    loop = asyncio.get_running_loop()
    wait_s = limits.index_restart_first_s
    while True:
        began = loop.time()
        try:
            status, told = await _run(data, keys, pause_s)
            _log.warning("search index: its process ended", extra={"exit_status": status, "told": told})
        except OSError as error:
            _log.warning("search index: its process cannot be started", extra={"told": str(error)})
        if loop.time() - began > limits.index_restart_most_s:
            wait_s = limits.index_restart_first_s
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, limits.index_restart_most_s)


async def _run(data: Path, keys: Keys, pause_s: float) -> tuple[int, str]:
    """Exit status, and the end of what it said of itself. Cancelled, it leaves no process behind."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rempart.ledger.search.following", str(data), str(pause_s)),
        *(str(os.getpid()), encode_keys(keys)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in our terminal is for us
    )
    try:
        _, told = await process.communicate()
        return await process.wait(), told[-_TOLD_BYTES:].decode(errors="replace").strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())
