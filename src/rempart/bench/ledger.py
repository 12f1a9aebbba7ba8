"""`measure_ledger`: durable appends a second, how soon they are acknowledged, and what reading costs.

A proof is measured in a log of a billion entries of which only the tiles that it needs exist (`uniform_tree`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from rempart.bench.results import Collected, Scale
from rempart.bench.servers import REMPART
from rempart.bench.stats import percentile
from rempart.bench.uniform_tree import UniformTree
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.log.checkpoint import Signer, Verifier
from rempart.ledger.log.merkle import leaf_hash, verify_inclusion
from rempart.ledger.reading.examine import Progress
from rempart.ledger.reading.fsck import fsck
from rempart.ledger.reading.prove import prove
from rempart.ledger.reading.verify import verify
from rempart.ledger.store.logfiles import ledger_directory
from rempart.ledger.store.segments import initialise
from rempart.ledger.writing.journal import ExchangeRecord, Journal
from rempart.ledger.writing.opening import open_ledger, read_vkey
from rempart.ledger.writing.recover import origin_hash, recover
from rempart.ledger.writing.sequencer import Sequencer
from rempart.wire.facts import Fact

APPENDS: Final = "ledger, durable appends"
PER_SYNC: Final = "ledger, appends per fdatasync"
GROUPED: Final = "ledger, durable appends in groups"
ACKNOWLEDGED: Final = "ledger, acknowledgement, p99"
VERIFIED: Final = "ledger, entries verified"
CHECKED: Final = "ledger, entries checked by fsck"
PROVED: Final = "ledger, one proof of a billion entries"
_BILLION: Final = 1_000_000_000
_TICK_S: Final = 0.001
_GROUP_CALLERS: Final = 8
_SIGNER: Final = Signer("bench.local/log", bytes(32))
_ASKED: Final[Mapping[str, Fact]] = {"operation": "chat", "model": "bench"}
_ANSWERED: Final[Mapping[str, Fact]] = {"outcome": "complete", "status": 200}


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
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found.add(ACKNOWLEDGED, REMPART, runner.run(_acknowledged(data, scale)) * 1000, "ms")
        found.note(ACKNOWLEDGED, REMPART, f"open loop, {scale.ledger_rate_per_s:,} exchanges/s")
        _read(data, found)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found.add(GROUPED, REMPART, runner.run(_grouped(data / "grouped", scale)), "1/s")
        found.note(
            GROUPED, REMPART, f"sealed already, {scale.ledger_group} at a time from each of {_GROUP_CALLERS} callers"
        )
        shutil.rmtree(data)
    _prove(root, scale, found)


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


async def _opened(journal: Journal) -> ExchangeRecord:
    return await journal.open(
        secrets.token_hex(16), actor="bench", role="user", key="bench", subject="", people=(), retention="standard"
    )


async def _caller(journal: Journal, until: float, scale: Scale, count: _Count) -> None:
    """Exchanges one after the other: a request and its response, each awaited until it is durable."""
    body = os.urandom(scale.ledger_body_bytes)
    while time.perf_counter() < until:
        record = await _opened(journal)
        receipt = await record.request(_ASKED, body)
        await record.response({**_ANSWERED, "request": receipt.index}, body)
        count.appends += 2


async def _acknowledged(data: Path, scale: Scale) -> float:
    """Seconds, 99th percentile, from when an exchange was due until its request is durable, and of its response."""
    journal = await open_ledger(data, open_keystore(data), origin="", strict=False)
    waits: list[float] = []
    body = os.urandom(scale.ledger_body_bytes)
    began, begun = time.perf_counter(), 0
    try:
        async with asyncio.TaskGroup() as exchanges:
            while (passed := time.perf_counter() - began) < scale.seconds:
                while begun < passed * scale.ledger_rate_per_s:
                    exchanges.create_task(_exchange(journal, began + begun / scale.ledger_rate_per_s, body, waits))
                    begun += 1
                await asyncio.sleep(_TICK_S)
    finally:
        await journal.close()
    return percentile(waits, 0.99)


async def _exchange(journal: Journal, due: float, body: bytes, waits: list[float]) -> None:
    record = await _opened(journal)
    receipt = await record.request(_ASKED, body)
    durable = time.perf_counter()
    await record.response({**_ANSWERED, "request": receipt.index}, body)
    waits += (durable - due, time.perf_counter() - durable)


async def _grouped(ledger: Path, scale: Scale) -> float:
    """Appends a second through the sequencer alone: what several workers may together hand to it."""
    initialise(ledger / "segments", origin_hash(_SIGNER.verifier.name))
    sequencer = Sequencer(recover(ledger, _SIGNER).opened, strict=False)
    await sequencer.start()
    entry, body = os.urandom(scale.ledger_entry_bytes), os.urandom(scale.ledger_body_bytes)
    began, count = time.perf_counter(), 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < began + scale.seconds:
            for acknowledged in [sequencer.append(entry, body) for _ in range(scale.ledger_group)]:
                await acknowledged
            count += scale.ledger_group

    try:
        async with asyncio.TaskGroup() as callers:
            for _ in range(_GROUP_CALLERS):
                callers.create_task(caller())
        return count / (time.perf_counter() - began)
    finally:
        await sequencer.close()


def _read(data: Path, found: Collected) -> None:
    verifier = Verifier.from_vkey(read_vkey(data))
    began = time.perf_counter()
    report = verify(ledger_directory(data), verifier)
    found.add(VERIFIED, REMPART, (report.size + report.beyond) / (time.perf_counter() - began), "1/s")
    began = time.perf_counter()
    checked = fsck(ledger_directory(data), verifier, Progress(with_bodies=False))
    found.add(
        CHECKED, REMPART, (checked.examined.size + checked.examined.beyond) / (time.perf_counter() - began), "1/s"
    )
    found.note(CHECKED, REMPART, "without bodies, one core")


def _prove(root: Path, scale: Scale, found: Collected) -> None:
    log = root / "billion"
    tree = UniformTree(log, _BILLION, b'{"type":"request"}', _SIGNER)
    for number in range(scale.rounds):
        index = (number + 1) * _BILLION // (scale.rounds + 1)
        tree.write(index)
        began = time.perf_counter()
        proven = prove(log, index)
        head = _SIGNER.verifier.open(proven.checkpoint)
        verify_inclusion(index, head.size, leaf_hash(proven.entry), proven.hashes, head.root)
        found.add(PROVED, REMPART, (time.perf_counter() - began) * 1000, "ms")
    found.note(PROVED, REMPART, "read from its tiles, and verified")
    shutil.rmtree(log)
