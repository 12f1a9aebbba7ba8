"""A disk that is really full: a small file system in memory, where the system lets us mount one."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rempart import limits
from rempart.errors import LedgerUnavailable
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.fsck import fsck
from rempart.ledger.store.segments import numbers, read_header
from rempart.ledger.writing.recover import origin_hash
from rempart.ledger.writing.retire import Closed, retire
from rempart.testing.small_ledger import SIGNER, SmallLedger

ORIGIN = origin_hash(SIGNER.verifier.name)
DISK_BYTES = 8 << 20


def never(ledger: Path, closed: Closed, size: int, origin: bytes) -> None:
    raise OSError(errno.EBUSY, "not now")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.02)
    mounted = tmp_path / "disk"
    mounted.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(mounted)],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("this system has no mount")
    if done.returncode:
        pytest.skip("only root may mount a small file system, and not in every container")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def fill(disk: Path) -> Path:
    """Until nothing more goes in."""
    path = disk / "filler"
    with pytest.raises(OSError, match="No space"):
        _write_for_ever(path)
    return path


def _write_for_ever(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def check(small: SmallLedger) -> None:
    checked = fsck(small.path, SIGNER.verifier)
    assert checked.holds, checked.faults
    reader = EntryReader(small.path)
    for index, (entry, body) in small.acknowledged.items():
        assert reader.read(index) == entry
        assert (reader.body(index, "standard", "2026-11-23") or b"") == body


async def test_a_ledger_stops_when_the_disk_is_full_and_goes_on_when_it_is_not(disk: Path) -> None:
    filler = disk / "something else"
    filler.write_bytes(bytes(2 << 20))
    small = SmallLedger(disk / "ledger")
    async with small.run(never):
        with pytest.raises(LedgerUnavailable, match="room"):
            await _fill(small)
        with pytest.raises(LedgerUnavailable):
            small.sequencer.check_room()
    check(small)
    filler.unlink()
    async with small.run():
        await small.exchange(90_000)
    check(small)


async def _fill(small: SmallLedger) -> None:
    for _ in range(200):
        await small.exchange(90_000)


async def test_a_segment_stays_when_there_is_no_room_for_its_bodies(disk: Path) -> None:
    small = SmallLedger(disk / "ledger")
    async with small.run(never):
        for _ in range(7):
            await small.exchange(90_000)
    closed = Closed(0, read_header(small.path / "segments", 1, ORIGIN).first_index)
    filler = fill(disk)
    with pytest.raises(OSError, match="No space"):
        retire(small.path, closed, len(small.acknowledged), ORIGIN)
    assert numbers(small.path / "segments") == [0, 1]
    assert [path for path in small.path.rglob("*.new") if path.parent.name != "segments"] == []
    check(small)
    filler.unlink()
    retire(small.path, closed, len(small.acknowledged), ORIGIN)
    assert numbers(small.path / "segments") == [1]
    check(small)
