"""`rempart.gateway.copies`: files of the ledger over HTTP, for auditors alone; a copy made from them verifies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from rempart import limits
from rempart.errors import Forbidden, LedgerUnavailable, NotFound, RempartError
from rempart.gateway.copies import Copies
from rempart.gateway.door import DoorProtocol
from rempart.gateway.http import Request
from rempart.gateway.reads import Read, Reader
from rempart.identity.caller import Caller
from rempart.ledger.copying.remote import RemoteSource
from rempart.ledger.copying.replicate import Replicator
from rempart.ledger.copying.source import FolderSource, Gone
from rempart.testing.copies import checked, fill, holds_all, signed
from rempart.testing.small_ledger import SIGNER, SmallLedger


class Parts:
    """What `Copies` asks of a gateway."""

    tree_size = 7

    def __init__(self, ledger: Path) -> None:
        self.parts = self
        self.files = FolderSource(ledger)
        self.role = "auditor"
        self.reads = self.journal = self
        self.recorded: list[tuple[Reader, Read]] = []
        self.full = False
        self.copies = Copies(self)  # type: ignore[arg-type]

    def state(self) -> Parts:
        return self

    async def record(self, reader: Reader, read: Read) -> None:
        if self.full:
            raise LedgerUnavailable("The disk is full.")
        self.recorded.append((reader, read))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        try:
            await self.copies.answer(request, Caller(key="k", actor="a_0", role=self.role))
        except RempartError as error:
            await request.reply_error(error)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallLedger:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "replica_part_bytes", 100_000)
    return SmallLedger(tmp_path / "ledger")


@pytest.fixture
async def served(small: SmallLedger) -> AsyncIterator[tuple[Parts, RemoteSource]]:
    parts = Parts(small.path)
    config = uvicorn.Config(parts, port=0, http=DoorProtocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    source = RemoteSource(f"http://127.0.0.1:{port}", "key")
    yield parts, source
    source.close()
    server.should_exit = True
    await serving


async def test_a_copy_over_http_verifies(
    small: SmallLedger, served: tuple[Parts, RemoteSource], tmp_path: Path
) -> None:
    _, source = served
    async with small.run():
        replica = tmp_path / "copy"
        await fill(small)
        await signed(small)
        replicator = await asyncio.to_thread(Replicator, source, replica, SIGNER.verifier)
        await asyncio.to_thread(replicator.round)
        await fill(small, 200, 3_000)
        await signed(small)
        copied = await asyncio.to_thread(replicator.round)
        replicator.close()
    assert copied.size == len(small.acknowledged)
    assert checked(replica).holds
    holds_all(small, replica)


async def test_ranges_are_as_they_are_in_the_file(small: SmallLedger, served: tuple[Parts, RemoteSource]) -> None:
    _, source = served
    async with small.run(lambda *_: None):
        await fill(small, 2)
    data = (small.path / "log" / "checkpoint").read_bytes()
    for offset, length in ((0, 10), (5, 1), (0, len(data)), (0, len(data) + 5), (len(data), 5), (len(data) + 9, 5)):
        found = await asyncio.to_thread(source.read, "log/checkpoint", offset, length)
        assert found == data[offset : offset + length]
    assert await asyncio.to_thread(source.read, "log/checkpoint") == data
    with pytest.raises(Gone):
        await asyncio.to_thread(source.read, "log.vkey")


async def test_that_a_key_copies_is_recorded_once_an_hour(
    small: SmallLedger, served: tuple[Parts, RemoteSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, source = served
    for _ in range(3):
        await asyncio.to_thread(source.inventory)
    assert parts.recorded == [(Reader(actor="a_0", role="auditor", key="k"), Read(verb="replicate", found=7))]
    monkeypatch.setattr(limits, "replica_noted_s", 0.0)
    await asyncio.to_thread(source.inventory)
    assert len(parts.recorded) == 2


async def test_what_cannot_be_recorded_is_not_copied(served: tuple[Parts, RemoteSource]) -> None:
    parts, source = served
    parts.full = True
    with pytest.raises(LedgerUnavailable):
        await asyncio.to_thread(source.inventory)


async def test_a_user_may_not_copy(served: tuple[Parts, RemoteSource]) -> None:
    parts, source = served
    parts.role = "user"
    with pytest.raises(Forbidden):
        await asyncio.to_thread(source.inventory)


async def test_no_other_file_can_be_named(small: SmallLedger, served: tuple[Parts, RemoteSource]) -> None:
    _, source = served
    (small.path.parent / "keys").mkdir()
    (small.path.parent / "keys" / "root.key").write_bytes(b"secret")
    for name in ("../keys/root.key", "%2e%2e/keys/root.key", "log/../../keys/root.key", "x/inventory", ""):
        with pytest.raises((NotFound, LedgerUnavailable)):
            await asyncio.to_thread(source._get, name, {}, 1_000)
