"""`Replicator.round`: a copy that verifies by itself, and refuses to go backwards or sideways."""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from rempart.errors import LedgerCorrupt, UsageError
from rempart.ledger.copying.replicate import Replicator
from rempart.ledger.copying.source import BodiesFile, FolderSource, Inventory, Source
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Checkpoint, Signer
from rempart.ledger.log.integrate import Integrator
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.verify import verify
from rempart.ledger.store.bodies import BodyStore, bodies_directory
from rempart.ledger.store.frames import HEADER_BYTES, Header, Kind, encode_frame, encode_header
from rempart.ledger.store.logfiles import is_replica
from rempart.ledger.store.segments import numbers
from rempart.ledger.writing.recover import origin_hash
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


class _Lying:
    """A source that lists and answers what it likes; the signed tree is the real one."""

    def __init__(self, ledger: Path, *, segment: bytes = b"", **listed: object) -> None:
        self._real = FolderSource(ledger)
        self._segment = segment
        self._listed = listed
        self.asked = 0
        self.depth = 0

    def inventory(self) -> Inventory:
        return msgspec.structs.replace(self._real.inventory(), **self._listed)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.asked += 1
        if name.startswith("segments/") and self._segment and length is not None:
            return self._segment[offset : offset + length]
        if name.endswith(".bod"):
            assert length is not None
            return bytes(length if self.asked % 2 else 0)
        return self._real.read(name, offset, length)

    def previous(self, number: int) -> Source:
        self.depth += 1
        return self


def _replicate(source: Source, replica: Path) -> None:
    replicator = Replicator(source, replica, SIGNER.verifier)
    try:
        replicator.round()
    finally:
        replicator.close()


async def test_bodies_of_entries_that_the_log_does_not_have_are_not_taken(small: SmallLedger, tmp_path: Path) -> None:
    """What a segment at the source says of itself proves nothing; a copy that took it would keep it."""
    replica = tmp_path / "copy" / "ledger"
    async with small.run(lambda *_: None):
        await fill(small, 2, 700)
        await signed(small)
        forged = [encode_header(Header(0, 0, origin_hash(SIGNER.verifier.name)))]
        for index, (entry, body) in sorted(small.acknowledged.items()):
            fields = entries.decode(entry)
            if body:
                body = os.urandom(len(body))
                fields["body"] = sha256(body).hexdigest()
            forged.append(encode_frame(Kind.ENTRY, index, 0, entries.encode(fields), body))
        with pytest.raises(LedgerCorrupt, match="not the one of the log"):
            _replicate(_Lying(small.path, segment=b"".join(forged), segments=[0], bodies=[]), replica)
        copy(small.path, replica)
    holds_all(small, replica)
    assert checked(replica).faults == []


@pytest.mark.parametrize(
    ("retention", "size"),
    [
        ("standard", 10**17),
        ("standard", HEADER_BYTES - 1),
        ("standard", -1),
        ("standard", 64 << 20),
        ("../../../over-there", HEADER_BYTES),
    ],
)
async def test_a_file_that_cannot_be_is_neither_asked_for_nor_made(
    small: SmallLedger, tmp_path: Path, retention: str, size: int
) -> None:
    replica = tmp_path / "copy" / "ledger"
    async with small.run(lambda *_: None):
        await fill(small, 2, 700)
        await signed(small)
        lying = _Lying(small.path, bodies=[BodiesFile(retention, "2026-11-23", 0, size)])
        with pytest.raises((LedgerCorrupt, UsageError)):
            _replicate(lying, replica)
        assert lying.asked < 50
    assert not list(tmp_path.rglob("*.bod*"))
    assert not (replica / "bodies").exists() or size == 64 << 20


async def test_a_log_that_is_continued_has_none_that_it_continues(small: SmallLedger, tmp_path: Path) -> None:
    async with small.run(lambda *_: None):
        await fill(small, 2, 700)
        await signed(small)
        (small.path / "log.vkey").write_text(f"{SIGNER.verifier.vkey}\n")
        lying = _Lying(small.path, previous=[1])
        _replicate(lying, tmp_path / "copy" / "ledger")
        assert lying.depth == 1
