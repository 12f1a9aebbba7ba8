"""Both forms of the ledger's one writer pass the same suite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rempart.errors import LedgerUnavailable
from rempart.ledger.log.checkpoint import Signer
from rempart.ledger.store.segments import initialise
from rempart.ledger.writing.recover import origin_hash, recover
from rempart.ledger.writing.remote import RemoteSequencer, sharing
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


async def test_over_its_unix_socket(sequencer: Sequencer, tmp_path: Path) -> None:
    async with sharing(sequencer, tmp_path / "sequencer.sock"):
        remote = await RemoteSequencer.connect(tmp_path / "sequencer.sock")
        await check_sequencer(remote, tmp_path / "segments")
        await remote.close()


async def test_two_workers_share_one_writer(sequencer: Sequencer, tmp_path: Path) -> None:
    async with sharing(sequencer, tmp_path / "sequencer.sock"):
        first = await RemoteSequencer.connect(tmp_path / "sequencer.sock")
        second = await RemoteSequencer.connect(tmp_path / "sequencer.sock")
        receipts = [await worker.append(b'{"n":1}') for _ in range(20) for worker in (first, second)]
        assert [receipt.index for receipt in receipts] == list(range(40))
        await first.close()
        await second.close()


async def test_a_writer_that_is_gone_is_said_to_be(sequencer: Sequencer, tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable):
        await RemoteSequencer.connect(tmp_path / "nothing.sock")
    async with sharing(sequencer, tmp_path / "sequencer.sock"):
        remote = await RemoteSequencer.connect(tmp_path / "sequencer.sock")
        await remote.append(b'{"n":1}')
    with pytest.raises(LedgerUnavailable):
        await _append_until_it_fails(remote)
    assert remote.state().failure
    await remote.close()


async def _append_until_it_fails(sequencer: RemoteSequencer) -> None:
    for _ in range(1000):
        await sequencer.append(b'{"n":2}')
