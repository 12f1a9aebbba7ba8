"""`SmallLedger`: a ledger of a few entries with bodies, without keystore and gateway, for tests of what is on disk.

Its bodies are random bytes in place of ciphertext: nothing that is checked without keys can tell the difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Signer
from rempart.ledger.store.segments import initialise, spare_path
from rempart.ledger.writing.draft import Receipt
from rempart.ledger.writing.recover import origin_hash, recover
from rempart.ledger.writing.retire import retire
from rempart.ledger.writing.retirement import TakeApart
from rempart.ledger.writing.sequencer import Sequencer

SIGNER: Final = Signer("rempart.test/log", bytes(32))
NOON_S: Final = 1_795_435_200.0  # 2026-11-23T12:00:00Z
_STEP_S: Final = 0.01


class SmallLedger:
    """`path` stands for `<data>/ledger`; entries get the times of a clock that goes on 10 ms an entry."""

    def __init__(self, path: Path, now: float = NOON_S) -> None:
        self.path = path
        self.now = now
        self.acknowledged: dict[int, tuple[bytes, bytes]] = {}
        """Index -> entry and body."""
        self._boots = 0
        self._sequencer: Sequencer | None = None

    @contextlib.asynccontextmanager
    async def run(self, take_apart: TakeApart = retire) -> AsyncIterator[SmallLedger]:
        """One run of a server: recovers, begins with a `start` entry, and is closed at the end."""
        initialise(self.path / "segments", origin_hash(SIGNER.verifier.name))
        opened = recover(self.path, SIGNER).opened
        spare_path(self.path / "segments").unlink(missing_ok=True)
        self._sequencer = Sequencer(opened, strict=False, take_apart=take_apart)
        self._boots += 1
        try:
            await self._sequencer.start()
            await self.event("start")
            yield self
        finally:
            await self._sequencer.close()

    @property
    def sequencer(self) -> Sequencer:
        assert self._sequencer is not None
        return self._sequencer

    async def exchange(self, body_bytes: int = 500, *, bucket: str = "2026-11-23", answered: bool = True) -> str:
        """A request and its response; the id."""
        id_ = f"{int(self.now * 1000):012x}{os.urandom(10).hex()}"
        asked = await self.write("request", os.urandom(body_bytes), bucket, opens=id_, exchange=id_)
        if answered:
            await self.answer(id_, asked.index, body_bytes, bucket)
        return id_

    async def answer(self, id_: str, request: int, body_bytes: int = 500, bucket: str = "2026-11-23") -> Receipt:
        facts: dict[str, Any] = {"exchange": id_, "request": request, "outcome": "ok", "status": 200, "key": "k"}
        return await self.write("response", os.urandom(body_bytes), bucket, closes=id_, **facts)

    async def event(self, type_: str, **fields: Any) -> Receipt:
        return await self.write(type_, b"", "", **fields)

    async def write(
        self, type_: str, body: bytes, day: str, *, opens: str = "", closes: str = "", **fields: Any
    ) -> Receipt:
        self.now += _STEP_S
        common = {"v": 1, "type": type_, "time": entries.timestamp(self.now), "boot": f"{self._boots:032x}"}
        if body:
            digest = sha256(body).hexdigest()
            fields |= {"class": "standard", "bucket": day, "body": digest, "body_bytes": len(body)}
        entry = entries.encode({**common, **fields})
        receipt = await self.sequencer.append(entry, body, opens=opens, closes=closes)
        self.acknowledged[receipt.index] = (entry, body)
        return receipt


async def until(condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """Raises `TimeoutError`."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)
