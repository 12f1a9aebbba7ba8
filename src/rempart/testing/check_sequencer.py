"""`check_sequencer`: the conformance suite of the ledger's one writer, in both its forms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from rempart.ledger.log.merkle import leaf_hash
from rempart.ledger.store import frames
from rempart.ledger.store.segments import numbers, read_segment, segment_path
from rempart.ledger.writing.draft import Receipt
from rempart.ledger.writing.journal import Sequencer

_EXCHANGE = bytes(range(16))


async def check_sequencer(sequencer: Sequencer, segments: Path) -> None:
    """Raises `AssertionError`. `segments` is where it writes; nobody else may be writing meanwhile."""
    sequencer.check_room()
    first = sequencer.state().entries
    receipts = await _check_order(sequencer, first)
    await _check_bodies(sequencer, segments)
    await _check_pieces(sequencer, segments)
    await _check_abandoned(sequencer, segments)
    _check_on_disk(segments, receipts)
    await _until(lambda: sequencer.state().tree_size >= sequencer.state().entries > first)
    assert sequencer.state().syncs > 0
    assert not sequencer.state().failure


async def _check_order(sequencer: Sequencer, first: int) -> dict[int, bytes]:
    """Indices are contiguous, in the order of the calls, and given once."""
    written = [b'{"n":%d}' % number for number in range(600)]
    receipts = await asyncio.gather(*(sequencer.append(entry) for entry in written))
    assert [receipt.index for receipt in receipts] == list(range(first, first + len(written)))
    assert [receipt.leaf_hash for receipt in receipts] == [leaf_hash(entry) for entry in written]
    return dict(zip(range(first, first + len(written)), written, strict=True))


async def _check_bodies(sequencer: Sequencer, segments: Path) -> None:
    """What is acknowledged is in the segment, body and all."""
    body = bytes(range(256)) * 5000
    receipt = await sequencer.append(b'{"body":true}', body, opens="a" * 32)
    assert _entry(segments, receipt).body == body
    await sequencer.append(b'{"body":false}', closes="a" * 32)


async def _check_pieces(sequencer: Sequencer, segments: Path) -> None:
    """A piece is in the segment when it is taken, before anything is synced."""
    for sequence in range(3):
        done = sequencer.piece(_EXCHANGE, sequence, b"piece %d" % sequence)
        if done is not None:
            await done
    found = [frame for frame in _frames(segments) if frame.kind == frames.Kind.PIECE and frame.entry == _EXCHANGE]
    assert [(frame.number, frame.body) for frame in found[-3:]] == [(n, b"piece %d" % n) for n in range(3)]


async def _check_abandoned(sequencer: Sequencer, segments: Path) -> None:
    """Who waits no longer harms no one: the entry stands, and the next is acknowledged."""
    waiting = asyncio.ensure_future(sequencer.append(b'{"abandoned":true}'))
    waiting.cancel()
    receipt = await sequencer.append(b'{"after":true}')
    assert _entry(segments, receipt).entry == b'{"after":true}'


def _check_on_disk(segments: Path, written: dict[int, bytes]) -> None:
    found = {frame.number: frame.entry for frame in _frames(segments) if frame.kind == frames.Kind.ENTRY}
    assert {index: found[index] for index in written} == written


def _frames(segments: Path) -> list[frames.Frame]:
    return [frame for number in numbers(segments) for frame in read_segment(segment_path(segments, number)).frames]


def _entry(segments: Path, receipt: Receipt) -> frames.Frame:
    (found,) = [
        frame for frame in _frames(segments) if frame.kind == frames.Kind.ENTRY and frame.number == receipt.index
    ]
    return found


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)
