"""`survey`: the frames of one file, a part at a time, past what is damaged; memory stays flat."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from rempart.ledger.store import frames

_CHUNK_BYTES: Final = 1 << 18
"""What was read should still be in the processor's cache when it is looked at."""


class Hole(msgspec.Struct, frozen=True):
    """Bytes that are no frame, with a valid frame behind them."""

    begin: int
    end: int
    """Offset of the next valid frame."""


Run: TypeAlias = list[frames.Frame]
Surveyed: TypeAlias = frames.Frame | Hole


def stream(descriptor: int, at: int = frames.HEADER_BYTES) -> Iterator[frames.Frame]:
    """Valid frames from the offset `at` on; ends in front of the first that is not."""
    for run in _runs(descriptor, at):
        yield from run


def survey(descriptor: int, at: int = frames.HEADER_BYTES) -> Iterator[Surveyed]:
    """Every valid frame, and the holes between them."""
    for part in survey_runs(descriptor, at):
        if isinstance(part, Hole):
            yield part
        else:
            yield from part


def whole(descriptor: int, at: int = frames.HEADER_BYTES) -> Iterator[frames.Frame]:
    """`frames.scan` as a stream. Raises `LedgerCorrupt` at a hole that was known to be durable, at the end."""
    for run in whole_runs(descriptor, at):
        yield from run


def survey_runs(descriptor: int, at: int = frames.HEADER_BYTES) -> Iterator[Run | Hole]:
    """`survey`, with all frames at once that one read finds, one at least."""
    while True:
        for run in _runs(descriptor, at):
            yield run
            at = run[-1].end
        found = _resume(descriptor, at)
        if found is None:
            return
        if next(stream(descriptor, at), None) is not None:
            continue  # it was being written when it was read, and what is behind it came later
        yield Hole(at, found)
        at = found


def whole_runs(descriptor: int, at: int = frames.HEADER_BYTES) -> Iterator[Run]:
    """`whole`, with all frames at once that one read finds, one at least."""
    parts = survey_runs(descriptor, at)
    for part in parts:
        if isinstance(part, Hole):
            break
        yield part
        at = part[-1].end
    for part in parts:
        if not isinstance(part, Hole) and any(one.durable > at for one in part):
            raise frames.damaged(at)


def _runs(descriptor: int, at: int) -> Iterator[Run]:
    while True:
        data, base = os.pread(descriptor, _CHUNK_BYTES, at), at
        run = frames.run(data, base) or _long(descriptor, data, base)
        if not run:
            return
        yield run
        at = run[-1].end
        wanted = frames.needed(memoryview(data), at - base)
        if not wanted or at + wanted <= base + len(data):
            return


def _long(descriptor: int, data: bytes, at: int) -> Run:
    """A frame that is longer than what was read."""
    wanted = frames.needed(memoryview(data), 0)
    if wanted <= len(data) or at + wanted > os.fstat(descriptor).st_size + frames.ALIGNMENT:
        return []
    return frames.run(os.pread(descriptor, wanted, at), at)


def _resume(descriptor: int, at: int) -> int | None:
    """Offset of the next valid frame after the damage at `at`: it begins with the magic, at a multiple of 8."""
    at += frames.ALIGNMENT
    while data := os.pread(descriptor, _CHUNK_BYTES + len(frames.MAGIC_BYTES), at):
        found = data.find(frames.MAGIC_BYTES)
        while found >= 0:
            if (at + found) % frames.ALIGNMENT == 0 and next(stream(descriptor, at + found), None) is not None:
                return at + found
            found = data.find(frames.MAGIC_BYTES, found + 1)
        if len(data) <= _CHUNK_BYTES:
            return None
        at += _CHUNK_BYTES
    return None
