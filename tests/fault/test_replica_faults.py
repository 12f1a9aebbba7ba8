"""Every system call on files fails while a replica is brought forward: it is the old copy, or the new one."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from pathlib import Path

import pytest

from rempart import limits
from rempart.errors import RempartError
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.store.bodies import BodyStore, bodies_directory
from rempart.ledger.store.segments import numbers
from rempart.testing.calls import HOW, Calls
from rempart.testing.copies import DAYS, checked, copy, files, fill, signed
from rempart.testing.small_ledger import SmallLedger, until

POINTS = int(os.environ.get("REMPART_CRASH_POINTS", "800")) // 2


@pytest.fixture
def place(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.01)
    monkeypatch.setattr(limits, "retire_retry_s", 0.0)
    return memory


async def _source_and_old_copy(place: Path) -> tuple[Path, Path]:
    """The copy has a file that grows and one that will be replaced; then there is a new day, and a day that expires."""
    small = SmallLedger(place / "source")
    async with small.run():
        for _ in range(7):
            await small.exchange(90_000, bucket=DAYS[0])
        await until(lambda: len(numbers(small.path / "segments")) == 1)
        await fill(small, 4, 20_000)
        await signed(small)
        copy(small.path, place / "old")
        await fill(small, 130, 9_000)
        await small.exchange(500, bucket="2026-11-24")
        await until(lambda: len(numbers(small.path / "segments")) == 1)
        BodyStore(bodies_directory(small.path)).unlink("standard", DAYS[0])
        await small.event("expiry", **{"class": "standard", "bucket": DAYS[0]})
        await signed(small)
    return small.path, place / "old"


@pytest.mark.timeout(600)
async def test_whatever_fails_a_replica_is_whole_and_is_brought_forward_by_the_next_run(place: Path) -> None:
    source, old = await _source_and_old_copy(place)
    sizes = {EntryReader(old).count, EntryReader(source).count}
    assert len(sizes) == 2
    wanted = shutil.copytree(old, place / "wanted")
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch)
        copy(source, wanted)
        total = calls.count
    assert checked(wanted).faults == []
    points = list(itertools.product(range(1, total + 1), (True, False), HOW))
    assert len(points) > 600
    step = max(len(points) / POINTS, 1.0)
    for number in range(min(POINTS, len(points))):
        at, once, how = points[int(number * step)]
        tried = shutil.copytree(old, place / "tried")
        with pytest.MonkeyPatch.context() as patch:
            Calls(patch, at, how, once=once)
            with contextlib.suppress(OSError, RempartError):
                copy(source, tried)
        found = checked(tried)
        assert found.holds, (at, once, how, found.faults)
        assert EntryReader(tried).count in sizes
        copy(source, tried)
        assert checked(tried).holds, (at, once, how)
        assert EntryReader(tried).count == max(sizes)
        assert files(tried, "bodies") == files(wanted, "bodies"), (at, once, how)
        assert files(tried, "log") == files(wanted, "log"), (at, once, how)
        shutil.rmtree(tried)
