"""`measure_ledger`: durable appends a second with many callers, what they cost in syncs, and verification."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from rempart.bench.results import Collected, Scale
from rempart.bench.servers import REMPART
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.reading.verify import verify
from rempart.ledger.store.logfiles import ledger_directory
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.opening import open_ledger, read_vkey

APPENDS: Final = "ledger, durable appends"
PER_SYNC: Final = "ledger, appends per fdatasync"
VERIFIED: Final = "ledger, entries verified"


class _Count(msgspec.Struct):
    """What one round did."""

    appends: int = 0
    syncs: int = 0
    seconds: float = 0.0


def measure_ledger(root: Path, scale: Scale, found: Collected) -> None:
    """Every round on a ledger of its own below `root`. Raises what the ledger raises."""
    for number in range(scale.rounds):
        data = root / f"ledger-{number}"
        data.mkdir(mode=0o700, parents=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            count = runner.run(_append(data, scale))
        found.add(APPENDS, REMPART, count.appends / count.seconds, "1/s")
        found.note(
            APPENDS, REMPART, f"{scale.ledger_callers} callers, encrypted bodies of {scale.ledger_body_bytes} bytes"
        )
        found.add(PER_SYNC, REMPART, count.appends / max(count.syncs, 1), "")
        began = time.perf_counter()
        report = verify(ledger_directory(data), Verifier.from_vkey(read_vkey(data)))
        found.add(VERIFIED, REMPART, (report.size + report.beyond) / (time.perf_counter() - began), "1/s")
        shutil.rmtree(data)


async def _append(data: Path, scale: Scale) -> _Count:
    journal = await open_ledger(data, open_keystore(data), origin="bench.local/log", strict=False)
    count = _Count()
    began, before = time.perf_counter(), journal.state().syncs
    try:
        async with asyncio.TaskGroup() as callers:
            for _ in range(scale.ledger_callers):
                callers.create_task(_caller(journal, began + scale.seconds, scale, count))
        count.seconds, count.syncs = time.perf_counter() - began, journal.state().syncs - before
    finally:
        await journal.close()
    return count


async def _caller(journal: Journal, until: float, scale: Scale, count: _Count) -> None:
    """Exchanges one after the other: a request and its response, each awaited until it is durable."""
    body = os.urandom(scale.ledger_body_bytes)
    asked = {"operation": "chat", "model": "bench"}
    while time.perf_counter() < until:
        record = await journal.open(
            secrets.token_hex(16), actor="bench", role="user", key="bench", subject="", people=(), retention="standard"
        )
        receipt = await record.request(asked, body)
        await record.response({"outcome": "complete", "status": 200, "request": receipt.index}, body)
        count.appends += 2
