"""`survey`: the frames of one file, a MiB at a time, past what is damaged; memory stays flat."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from rempart.ledger.store import frames

_CHUNK_BYTES: Final = 1 << 20


class Hole(msgspec.Struct, frozen=True):
    """Bytes that are no frame, with a valid frame behind them."""

    begin: int
    end: int
    """Offset of the next valid frame."""


Surveyed: TypeAlias = frames.Frame | Hole


def stream(descriptor: int, at: int = frames.HEADER_BYTES) -> Iterator[frames.Frame]:
    """Valid frames from the offset `at` on; ends in front of the first that is not."""
    view, base = memoryview(b""), at
    while True:
        frame = frames.decode(view, at - base, base)
        if frame is None:
            wanted = frames.needed(view, at - base)
            if not wanted or at + wanted <= base + len(view):
                return
            view, base = memoryview(os.pread(descriptor, _CHUNK_BYTES, at)), at
            frame = frames.decode(view, 0, base) or _long(descriptor, view, at)
            if frame is None:
                return
        yield frame
        at = frame.end


def survey(descriptor: int, at: int = frames.HEADER_BYTES) -> Iterator[Surveyed]:
    """Every valid frame, and the holes between them."""
    while True:
        for frame in stream(descriptor, at):
            yield frame
            at = frame.end
        found = _resume(descriptor, at)
        if found is None:
            return
        if next(stream(descriptor, at), None) is not None:
            continue  # it was being written when it was read, and what is behind it came later
        yield Hole(at, found)
        at = found


def whole(descriptor: int, at: int = frames.HEADER_BYTES) -> Iterator[frames.Frame]:
    """`frames.scan` as a stream. Raises `LedgerCorrupt` at a hole that was known to be durable, at the end."""
    surveyed = survey(descriptor, at)
    for one in surveyed:
        if isinstance(one, Hole):
            break
        yield one
        at = one.end
    for one in surveyed:
        if isinstance(one, frames.Frame) and one.durable > at:
            raise frames.damaged(at)


def _long(descriptor: int, view: memoryview, at: int) -> frames.Frame | None:
    """A frame that is longer than what was read."""
    wanted = frames.needed(view, 0)
    if wanted <= len(view) or at + wanted > os.fstat(descriptor).st_size + frames.ALIGNMENT:
        return None
    return frames.decode(memoryview(os.pread(descriptor, wanted, at)), 0, at)


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
