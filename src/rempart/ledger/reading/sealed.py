"""`SealedBodies.read`: encrypted bodies of many entries, in any order, each segment looked through once.

For those who read a whole log while a server writes it. A segment that was taken apart while it is open here can still
be read; `let_go` closes it, so that its room on the disk is free again.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections import OrderedDict
from pathlib import Path
from typing import Final

from rempart.ledger.store import frames
from rempart.ledger.store.bodies import BodyStore, bodies_directory, held_directory
from rempart.ledger.store.segments import numbers, segment_path
from rempart.ledger.store.stream import stream

_OPEN_MAX: Final = 4


class SealedBodies:
    """`ledger` is `<data>/ledger`. Not for several threads."""

    def __init__(self, ledger: Path) -> None:
        self._segments = ledger / "segments"
        self._stores = BodyStore(bodies_directory(ledger)), BodyStore(held_directory(ledger))
        self._open: OrderedDict[int, _Segment] = OrderedDict()

    def read(self, index: int, retention: str, bucket: str) -> bytes | None:
        """None when it is not there any more. Raises `LedgerCorrupt`."""
        # In this order: what leaves the segments is in the files of bodies before.
        found = self._in_segments(index)
        for store in self._stores:
            if found is None:
                found = store.read(retention, bucket, index)
        return found

    def let_go(self) -> None:
        """Close the segments that have been unlinked."""
        for number in [number for number, one in self._open.items() if one.gone()]:
            self._open.pop(number).close()

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def _in_segments(self, index: int) -> bytes | None:
        for number in sorted(self._open, reverse=True):
            if self._open[number].first_index <= index:
                found = self._open[number].body(index)
                if found is not None:
                    return found
                break
        for number in reversed(numbers(self._segments)):
            segment = self._segment(number)
            if segment is not None and segment.first_index <= index:
                return segment.body(index)
        return None

    def _segment(self, number: int) -> _Segment | None:
        found = self._open.get(number)
        if found is None:
            try:
                found = self._open[number] = _Segment(segment_path(self._segments, number))
            except FileNotFoundError:
                return None  # taken apart meanwhile
            while len(self._open) > _OPEN_MAX:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return found


class _Segment:
    """One file, and where its entries' frames begin and end, as far as it was looked through."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            header = frames.decode_header(os.pread(self._descriptor, frames.HEADER_BYTES, 0))
            undo.pop_all()
        self.first_index = header.first_index
        self._begins, self._ends = array("Q"), array("Q")
        self._at = frames.HEADER_BYTES
        self._unread = stream(self._descriptor)

    def body(self, index: int) -> bytes | None:
        place = index - self.first_index
        if place < len(self._begins):
            begin = self._begins[place]
            frame = frames.decode(memoryview(os.pread(self._descriptor, self._ends[place] - begin, begin)), 0, begin)
            return frame.body if frame is not None and frame.number == index else None
        for frame in self._unread:
            self._at = frame.end
            if frame.kind != frames.Kind.ENTRY:
                continue
            self._begins.append(frame.offset)
            self._ends.append(frame.end)
            if frame.number == index:
                return frame.body
        self._unread = stream(self._descriptor, self._at)  # more may be written
        return None

    def gone(self) -> bool:
        return os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        os.close(self._descriptor)
