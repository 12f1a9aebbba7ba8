"""`Replicator.round`: a copy that verifies by itself, and refuses to go backwards or sideways."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rempart.errors import LedgerCorrupt, UsageError
from rempart.ledger.copying.replicate import Replicator
from rempart.ledger.copying.source import FolderSource
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Checkpoint, Signer
from rempart.ledger.log.integrate import Integrator
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.verify import verify
from rempart.ledger.store.bodies import BodyStore, bodies_directory
from rempart.ledger.store.logfiles import is_replica
from rempart.ledger.store.segments import numbers
from rempart.testing.copies import DAYS, checked, copy, files, fill, holds_all, signed
from rempart.testing.small_ledger import SIGNER, SmallLedger, until


async def test_a_copy_of_a_ledger_that_is_being_written_verifies_by_itself(small: SmallLedger, tmp_path: Path) -> None:
    replica = tmp_path / "copy" / "ledger"
    async with small.run(lambda *_: None):
        await fill(small)
        await small.exchange(700, answered=False)
        await signed(small)
        assert len(numbers(small.path / "segments")) > 1
        copied = copy(small.path, replica)
    assert copied.entries == copied.size == len(small.acknowledged)
    assert verify(replica, SIGNER.verifier).bodies == sum(bool(body) for _, body in small.acknowledged.values())
    assert checked(replica).faults == []
    assert is_replica(replica)
    assert not (replica / "segments").exists()
    holds_all(small, replica)


async def test_round_after_round_only_what_is_new_is_copied(small: SmallLedger, tmp_path: Path) -> None:
    replica = tmp_path / "copy" / "ledger"
    replicator = None
    async with small.run(lambda *_: None):
        for _ in range(4):
            await fill(small, 6)
            await signed(small)
            replicator = replicator or Replicator(FolderSource(small.path), replica, SIGNER.verifier)
            before = EntryReader(replica).count
            copied = replicator.round()
            assert copied.entries == len(small.acknowledged) - before
            assert 12 * 90_000 <= copied.body_bytes < 12 * 91_000
            assert checked(replica).faults == []
        assert replicator is not None
        again = replicator.round()
        assert (again.entries, again.body_bytes) == (0, 0)
        replicator.close()
    holds_all(small, replica)


async def test_another_run_goes_on_where_the_last_one_ended(small: SmallLedger, tmp_path: Path) -> None:
    replica = tmp_path / "copy" / "ledger"
    async with small.run(lambda *_: None):
        for _ in range(3):
            await fill(small, 4)
            await signed(small)
            copied = copy(small.path, replica)
            assert 8 * 90_000 <= copied.body_bytes < 8 * 91_000
    holds_all(small, replica)
    assert checked(replica).faults == []


async def test_files_of_segments_that_were_taken_apart_are_the_same_here(small: SmallLedger, tmp_path: Path) -> None:
    replica = tmp_path / "copy" / "ledger"
    async with small.run(lambda *_: None):
        await fill(small)
        await signed(small)
        copy(small.path, replica)
    async with small.run():
        await until(lambda: len(numbers(small.path / "segments")) == 1)
        await fill(small, 300, 200)
        await signed(small)
    copy(small.path, replica)
    holds_all(small, replica)
    assert checked(replica).faults == []
    whole = files(small.path, "bodies")
    assert whole
    assert {name: files(replica, "bodies")[name] for name in whole} == whole
    assert files(replica, "log") == files(small.path, "log")


async def test_a_replica_can_be_copied_and_its_files_are_closed(small: SmallLedger, tmp_path: Path) -> None:
    async with small.run(lambda *_: None):
        await fill(small)
        await signed(small)
    copy(small.path, tmp_path / "one" / "ledger")
    copy(tmp_path / "one" / "ledger", tmp_path / "two" / "ledger")
    holds_all(small, tmp_path / "two" / "ledger")
    async with small.run(lambda *_: None):
        await fill(small, 3)
    copy(small.path, tmp_path / "one" / "ledger")
    copy(tmp_path / "one" / "ledger", tmp_path / "two" / "ledger")
    holds_all(small, tmp_path / "two" / "ledger")
    assert checked(tmp_path / "two" / "ledger").faults == []


async def test_a_bucket_that_expired_goes_here_too_and_one_that_only_vanished_does_not(
    small: SmallLedger, tmp_path: Path
) -> None:
    replica = tmp_path / "copy" / "ledger"
    async with small.run():
        await fill(small)
        await until(lambda: len(numbers(small.path / "segments")) == 1)
        await signed(small)
        copy(small.path, replica)
        store = BodyStore(bodies_directory(small.path))
        store.unlink("standard", DAYS[0])
        assert copy(small.path, replica).expired == 0
        assert ("standard", DAYS[0]) in BodyStore(bodies_directory(replica)).buckets()
        await small.event("expiry", **{"class": "standard", "bucket": DAYS[0]})
        await signed(small)
        assert copy(small.path, replica).expired > 0
    assert ("standard", DAYS[0]) not in BodyStore(bodies_directory(replica)).buckets()
    assert checked(replica).holds
    assert checked(replica).examined.expired > 0


async def test_a_log_that_was_rolled_back_is_refused(small: SmallLedger, tmp_path: Path) -> None:
    replica = tmp_path / "copy" / "ledger"
    async with small.run(lambda *_: None):
        await fill(small, 2)
    shutil.copytree(small.path, tmp_path / "older")
    async with small.run(lambda *_: None):
        await fill(small, 2)
    copy(small.path, replica)
    before = files(replica, "")
    with pytest.raises(LedgerCorrupt, match="Roll-back"):
        copy(tmp_path / "older", replica)
    assert files(replica, "") == before


@pytest.mark.parametrize("more", [0, 300])
async def test_a_log_that_signs_another_history_is_refused(small: SmallLedger, tmp_path: Path, more: int) -> None:
    replica = tmp_path / "copy" / "ledger"
    async with small.run(lambda *_: None):
        await fill(small, 3)
    copy(small.path, replica)
    before = files(replica, "")
    other = Integrator.open(tmp_path / "other" / "log", SIGNER)
    changed = [entry for entry, _ in small.acknowledged.values()]
    changed[1] = entries.encode({**entries.decode(changed[1]), "worker": "w1"})
    other.add(0, changed + [changed[0]] * more)
    with pytest.raises(LedgerCorrupt, match="Split view"):
        copy(tmp_path / "other", replica)
    assert files(replica, "") == before
    assert checked(replica).holds


async def test_a_checkpoint_of_another_key_is_refused(small: SmallLedger, tmp_path: Path) -> None:
    async with small.run(lambda *_: None):
        await fill(small, 1)
    stranger = Signer(SIGNER.verifier.name, os.urandom(32))
    size = len(small.acknowledged)
    (small.path / "log" / "checkpoint").write_bytes(
        stranger.sign(Checkpoint(SIGNER.verifier.name, size, os.urandom(32)))
    )
    with pytest.raises(LedgerCorrupt, match="not signed by"):
        copy(small.path, tmp_path / "copy" / "ledger")


async def test_what_is_damaged_at_the_source_is_not_taken(small: SmallLedger, tmp_path: Path) -> None:
    replica = tmp_path / "copy" / "ledger"
    async with small.run():
        await fill(small)
        await until(lambda: len(numbers(small.path / "segments")) == 1)
        await signed(small)
    path = next((small.path / "bodies").glob("*/*/*.bod"))
    data = bytearray(path.read_bytes())
    data[5_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(LedgerCorrupt, match="damaged"):
        copy(small.path, replica)
    assert not (replica / "log" / "checkpoint").exists()


async def test_a_body_that_is_not_the_one_its_entry_states_is_not_taken(small: SmallLedger, tmp_path: Path) -> None:
    async with small.run(lambda *_: None):
        await fill(small, 2, 300)
        await signed(small)
    from rempart.ledger.store import frames
    from rempart.ledger.store.segments import read_segment, segment_path

    path = segment_path(small.path / "segments", 0)
    data = bytearray(path.read_bytes())
    frame = next(one for one in read_segment(path).frames if one.body and one.kind == frames.Kind.ENTRY)
    other = frames.encode_frame(frames.Kind.ENTRY, frame.number, frame.durable, frame.entry, bytes(len(frame.body)))
    data[frame.offset : frame.end] = other
    path.write_bytes(data)
    with pytest.raises(LedgerCorrupt, match="not the one that the entry states"):
        copy(small.path, tmp_path / "copy" / "ledger")


async def test_a_ledger_of_its_own_is_not_made_into_a_copy(small: SmallLedger, tmp_path: Path) -> None:
    async with small.run(lambda *_: None):
        await fill(small, 1)
    shutil.copytree(small.path, tmp_path / "other")
    with pytest.raises(UsageError, match="no copy"):
        copy(small.path, tmp_path / "other")


async def test_a_copy_of_another_log_is_not_gone_on_with(small: SmallLedger, tmp_path: Path) -> None:
    async with small.run(lambda *_: None):
        await fill(small, 1)
    copy(small.path, tmp_path / "copy")
    with pytest.raises(UsageError, match=r"rempart\.test/log"):
        Replicator(FolderSource(small.path), tmp_path / "copy", Signer("other.test/log", bytes(32)).verifier)
