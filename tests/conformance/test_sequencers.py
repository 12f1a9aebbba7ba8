"""Both forms of the ledger's one writer pass the same suite."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rempart.errors import LedgerUnavailable
from rempart.ledger.log.checkpoint import Signer
from rempart.ledger.store.segments import initialise
from rempart.ledger.writing.recover import origin_hash, recover
from rempart.ledger.writing.remote import RemoteSequencer, share
from rempart.ledger.writing.sequencer import Sequencer
from rempart.testing.check_sequencer import check_sequencer

SIGNER = Signer("rempart.test/log", bytes(32))


@pytest.fixture(params=["lazy", "strict"])
async def sequencer(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Sequencer]:
    initialise(tmp_path / "segments", origin_hash(SIGNER.verifier.name))
    made = Sequencer(recover(tmp_path, SIGNER).opened, strict=request.param == "strict")
    await made.start()
    yield made
    await made.close()


async def test_in_process(sequencer: Sequencer, tmp_path: Path) -> None:
    await check_sequencer(sequencer, tmp_path / "segments")


class Shared:
    """A worker's form of the sequencer, and what it left open."""

    def __init__(self, sequencer: Sequencer) -> None:
        near, far = socket.socketpair()
        self.far = far
        self.sharing = asyncio.create_task(share(sequencer, near))

    async def __aenter__(self) -> RemoteSequencer:
        self.remote = await RemoteSequencer.over(self.far)
        return self.remote

    async def __aexit__(self, *_: object) -> None:
        await self.remote.close()
        await self.sharing


async def test_over_its_socket(sequencer: Sequencer, tmp_path: Path) -> None:
    async with Shared(sequencer) as remote:
        await check_sequencer(remote, tmp_path / "segments")


async def test_two_workers_share_one_writer(sequencer: Sequencer) -> None:
    async with Shared(sequencer) as first, Shared(sequencer) as second:
        receipts = [await worker.append(b'{"n":1}') for _ in range(20) for worker in (first, second)]
        assert [receipt.index for receipt in receipts] == list(range(40))


async def test_what_a_worker_left_open_is_known_when_it_is_gone(sequencer: Sequencer) -> None:
    shared = Shared(sequencer)
    async with shared as worker:
        for name in ("a", "b", "c"):
            await worker.append(b'{"opens":true}', opens=name * 32)
        await worker.append(b'{"closes":true}', closes="b" * 32)
        abandoned = asyncio.ensure_future(worker.append(b'{"opens":true}', opens="d" * 32))
        abandoned.cancel()
    assert shared.sharing.result() == {"a" * 32, "c" * 32, "d" * 32}


async def test_a_writer_that_is_gone_is_said_to_be(sequencer: Sequencer) -> None:
    near, far = socket.socketpair()
    near.close()
    with pytest.raises(LedgerUnavailable):
        await RemoteSequencer.over(far)
    shared = Shared(sequencer)
    remote = await shared.__aenter__()
    await remote.append(b'{"n":1}')
    shared.sharing.cancel()
    with pytest.raises(LedgerUnavailable):
        await _append_until_it_fails(remote)
    assert remote.state().failure
    await remote.close()


async def _append_until_it_fails(sequencer: RemoteSequencer) -> None:
    for _ in range(1000):
        await sequencer.append(b'{"n":2}')
