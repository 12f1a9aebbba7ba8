"""Every system call on files, of a commit, of taking a segment apart and of recovery, fails: `fsck` is the oracle.

A point is one call in one life of a ledger, and how it fails: once, or from then on (as in a crash); not done, done,
or half done. A life is two runs: recovery, exchanges over changes of segments, tiles, checkpoints, and the taking apart
of what is closed. After each, a start without faults must bring every acknowledged entry and body back, and `fsck` must
find nothing wrong.

REMPART_CRASH_POINTS says how many points of the life are tried, evenly spread (the default keeps the test run short).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from pathlib import Path

import pytest

from rempart import limits
from rempart.errors import RempartError
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.fsck import fsck
from rempart.ledger.store.segments import numbers, read_header
from rempart.ledger.writing.recover import origin_hash
from rempart.ledger.writing.retire import Closed, retire
from rempart.testing.calls import HOW, Calls
from rempart.testing.small_ledger import SIGNER, SmallLedger, until

POINTS = int(os.environ.get("REMPART_CRASH_POINTS", "800"))
ORIGIN = origin_hash(SIGNER.verifier.name)
BUCKETS = ("2026-11-22", "2026-11-23", "2026-11-24")


@pytest.fixture
def place(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.01)
    monkeypatch.setattr(limits, "retire_retry_s", 0.0)
    return memory


def _check(small: SmallLedger) -> None:
    checked = fsck(small.path, SIGNER.verifier)
    assert checked.holds, checked.faults
    reader = EntryReader(small.path)
    for index, (entry, body) in small.acknowledged.items():
        assert reader.read(index) == entry
        if body:
            assert reader.body(index, "standard", entries.facts(entry).bucket) == body


# Taking a segment apart.


async def _template(path: Path) -> SmallLedger:
    small = SmallLedger(path)
    async with small.run(lambda *_: None):
        for number in range(7):
            await small.exchange(90_000, bucket=BUCKETS[number % 3])
    return small


def _files(ledger: Path) -> dict[str, bytes]:
    return {str(path.relative_to(ledger)): path.read_bytes() for path in ledger.rglob("*") if path.is_file()}


@pytest.mark.timeout(300)
async def test_whatever_fails_while_a_segment_is_taken_apart_the_result_is_the_same(place: Path) -> None:
    small = await _template(place / "template")
    closed = Closed(0, read_header(small.path / "segments", 1, ORIGIN).first_index)
    size = len(small.acknowledged)
    template = small.path
    small.path = shutil.copytree(template, place / "wanted")
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch)
        retire(small.path, closed, size, ORIGIN)
        total = calls.count
    wanted = _files(small.path)
    _check(small)
    assert total > 30
    for at, once, how in itertools.product(range(1, total + 1), (True, False), HOW):
        small.path = shutil.copytree(template, place / "tried")
        with pytest.MonkeyPatch.context() as patch:
            Calls(patch, at, how, once=once)
            with contextlib.suppress(OSError, RempartError):  # a directory that was made all the same will do
                retire(small.path, closed, size, ORIGIN)
        _check(small)
        if numbers(small.path / "segments")[0] == 0:
            retire(small.path, closed, size, ORIGIN)
        assert _files(small.path) == wanted, (at, once, how)
        shutil.rmtree(small.path)


# A whole life.


async def _life(small: SmallLedger, calls: Calls) -> None:
    """Until it fails, or all closed segments are gone."""
    for _ in range(2):
        async with small.run():
            for number in range(8):
                await small.exchange(90_000, bucket=BUCKETS[number % 3])
            await until(lambda: calls.dead or _is_settled(small))


def _is_settled(small: SmallLedger) -> bool:
    state = small.sequencer.state()
    return bool(state.failure) or (state.lag_s == 0.0 and len(numbers(small.path / "segments")) == 1)


async def _one(place: Path, template: Path, at: int, how: str, *, once: bool) -> int:
    """Calls that there were."""
    small = SmallLedger(shutil.copytree(template, place / "life"))
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch, at, how, once=once)
        try:
            await _life(small, calls)
        except (OSError, RempartError):
            assert at, "nothing failed"
    async with small.run():
        await small.exchange(1_000, bucket=BUCKETS[0])
    _check(small)
    shutil.rmtree(small.path)
    return calls.count


@pytest.mark.timeout(900)
async def test_whatever_fails_in_the_life_of_a_ledger_nothing_acknowledged_is_lost(place: Path) -> None:
    template = SmallLedger(place / "template")
    async with template.run():
        await template.event("config")
    total = await _one(place, template.path, 0, "not done", once=False)
    points = list(itertools.product(range(1, total + 1), (True, False), HOW))
    assert len(points) > 1_000
    step = max(len(points) / POINTS, 1.0)
    for number in range(min(POINTS, len(points))):
        at, once, how = points[int(number * step)]
        try:
            await _one(place, template.path, at, how, once=once)
        except BaseException as error:
            raise AssertionError(f"call {at} of {total}, {once=}, {how}") from error
