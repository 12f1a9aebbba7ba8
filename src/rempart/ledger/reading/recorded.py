"""`SegmentSource` and `BodySource`: what segments and files of bodies hold, in order of the indices, past all damage.

Both give length and SHA-256 of bodies instead of the bodies, so that memory stays flat. Segments are opened when the
source is made: what a server takes apart meanwhile can still be read.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.reading.faults import RESTORE, Fault, Sink
from rempart.ledger.store import frames
from rempart.ledger.store.bodies import (
    BodyStore,
    bodies_directory,
    body_path,
    first_indices,
    held_directory,
    read_bodies_header,
)
from rempart.ledger.store.logfiles import is_replica
from rempart.ledger.store.segments import SEGMENTS, segment_path
from rempart.ledger.store.stream import Hole, Run, survey, survey_runs, whole_runs

_LOOKS: Final = 4
_ENTRY: Final = int(frames.Kind.ENTRY)


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """One frame of an entry or of a body."""

    index: int
    entry: bytes
    body_bytes: int
    digest: str
    """SHA-256 of the body in hex; empty when there is none, or when nobody wants to know."""
    where: str


class _Open(NamedTuple):
    number: int
    descriptor: int
    first_index: int | None
    """None when its header is damaged."""
    where: str


class SegmentSource:
    """The segments of `<data>/ledger`. Use it as a context."""

    def __init__(self, ledger: Path, origin_hash: bytes, with_bodies: bool, sink: Sink) -> None:
        self.sink = sink
        self._with_bodies = with_bodies
        self.found: list[_Open] = []
        directory = ledger / "segments"
        for number in sorted(int(path.stem) for path in directory.glob(SEGMENTS)):
            try:
                descriptor = os.open(segment_path(directory, number), os.O_RDONLY)
            except FileNotFoundError:
                continue  # taken apart meanwhile
            where = f"segments/{number:010d}.seg"
            self.found.append(_Open(number, descriptor, self._first(number, descriptor, where, origin_hash), where))
        self.first_index = self._first_index()
        """Index of the first entry that is still in a segment; None when there is none."""
        self.next_index = self.first_index or 0
        """One past the last that `entries` has given."""

    def __enter__(self) -> SegmentSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        for one in self.found:
            os.close(one.descriptor)

    def entries(self) -> Iterator[list[Recorded]]:
        """Ascending, each index once, some at a time; what is missing is told."""
        expected = self.first_index or 0
        for place, one in enumerate(self.found):
            if place and one.number != self.found[place - 1].number + 1:
                self._tell(one.where, f"Segment {one.number - 1} is missing.", None, None)
            if one.first_index is not None and one.first_index > expected:
                before = self.found[place - 1].where if place else one.where
                what = f"Entries {expected} to {one.first_index - 1} are missing in the segments."
                self._tell(before, what, expected, one.first_index - 1)
                expected = one.first_index
            last = place == len(self.found) - 1
            for run in self._of_last(one) if last else self._of_closed(one, expected):
                found = self._recorded(run, one.where, expected)
                if found:
                    expected = self.next_index = found[-1].index + 1
                    yield found

    def _recorded(self, run: Run, where: str, expected: int) -> list[Recorded]:
        found: list[Recorded] = []
        for frame in run:
            number, body = frame.number, frame.body
            if frame.kind != _ENTRY:
                continue
            if number != expected:
                what = f"Entry {number} stands where entry {expected} should."
                self._tell(where, what, min(expected, number), max(expected, number - 1))
                if number < expected:
                    continue
            expected = number + 1
            digest = sha256(body).hexdigest() if body and self._with_bodies else ""
            found.append(Recorded(number, frame.entry, len(body), digest, where))
        return found

    def _of_closed(self, one: _Open, expected: int) -> Iterator[Run]:
        index = expected
        for part in survey_runs(one.descriptor):
            if isinstance(part, Hole):
                what = f"Bytes {part.begin} to {part.end} are damaged, after entry {index - 1}."
                self._tell(one.where, what, None, None)
                continue
            index = next((frame.number + 1 for frame in reversed(part) if frame.kind == _ENTRY), index)
            yield part

    def _of_last(self, one: _Open) -> Iterator[Run]:
        """What a server writes meanwhile may look like a hole: a true one is there at every look."""
        at = frames.HEADER_BYTES
        for look in range(1, _LOOKS + 1):
            try:
                for run in whole_runs(one.descriptor, at):
                    yield run
                    at = run[-1].end
                return
            except LedgerCorrupt as error:
                if look == _LOOKS:
                    self._tell(one.where, error.message, None, None)
        yield from (part for part in survey_runs(one.descriptor, at) if not isinstance(part, Hole))

    def _first(self, number: int, descriptor: int, where: str, origin_hash: bytes) -> int | None:
        try:
            header = frames.decode_header(os.pread(descriptor, frames.HEADER_BYTES, 0))
        except LedgerCorrupt as error:
            self._tell(where, error.message, None, None)
            return None
        if header.number != number or header.origin_hash != origin_hash:
            self._tell(where, "It is a segment of another log, or bears another number.", None, None)
            return None
        return header.first_index

    def _first_index(self) -> int | None:
        for one in self.found:
            if one.first_index is not None:
                return one.first_index
            for frame in survey(one.descriptor):
                if isinstance(frame, frames.Frame) and frame.kind == frames.Kind.ENTRY:
                    return frame.number
        return None

    def _tell(self, where: str, what: str, first: int | None, last: int | None) -> None:
        self.sink(Fault(kind="segment", where=where, what=what, first=first, last=last, remedy=RESTORE))


class _Bucket(NamedTuple):
    """A hold keeps some bodies beyond their bucket, in a directory of their own."""

    held: bool
    retention: str
    bucket: str


class _File:
    """One file of bodies that is being read."""

    def __init__(self, path: Path, where: str, end_index: int) -> None:
        self.where = where
        self.end_index = end_index
        self.descriptor = os.open(path, os.O_RDONLY)
        self.frames = survey(self.descriptor)
        self.ahead: frames.Frame | None = None
        self.end = frames.HEADER_BYTES
        """Of what was read."""


class BodySource:
    """The files of bodies of entries before the index `before`. Ask in order of the indices. Use it as a context."""

    def __init__(self, ledger: Path, origin_hash: bytes, before: int, sink: Sink) -> None:
        self._ahead_allowed = is_replica(ledger)
        """A replica's bodies are there before the checkpoint that covers them."""
        self._ledger = ledger
        self._origin_hash = origin_hash
        self._before = before
        self._sink = sink
        self._firsts = {
            bucket: [first for first in first_indices(self._directory(bucket)) if first < before]
            for bucket in self._buckets()
        }
        self._any_held = any(bucket.held for bucket in self._firsts)
        self._unread = {(bucket, first) for bucket, firsts in self._firsts.items() for first in firsts}
        self._open: dict[_Bucket, _File] = {}

    def take(self, retention: str, bucket: str, index: int) -> Recorded | None:
        """The body of that entry, or None when it is not there."""
        found = self._take(_Bucket(False, retention, bucket), index)
        held = self._take(_Bucket(True, retention, bucket), index) if self._any_held else None
        return found or held

    def _take(self, bucket: _Bucket, index: int) -> Recorded | None:
        file = self._open.get(bucket)
        if file is None or index >= file.end_index:
            file = self._next_file(bucket, index)
            if file is None:
                return None
        while (frame := file.ahead or self._advance(file)) is not None and frame.number < index:
            self._stray(file, frame.number)
            file.ahead = None
        file.ahead = frame
        if frame is None or frame.number != index:
            return None
        file.ahead = None
        return Recorded(index, b"", len(frame.body), sha256(frame.body).hexdigest(), file.where)

    def where(self, retention: str, bucket: str, index: int) -> str:
        """The file in which that body should be."""
        firsts = self._firsts.get(_Bucket(False, retention, bucket), [])
        place = bisect_right(firsts, index) - 1
        name = body_path(Path("bodies") / retention / bucket, firsts[place]) if place >= 0 else None
        return str(name) if name else f"bodies/{retention}/{bucket}"

    def pass_by(self, index: int) -> None:
        """Nothing before `index` will be asked for any more."""
        for bucket in [bucket for bucket, file in self._open.items() if file.end_index <= index]:
            self._drain(self._open.pop(bucket))

    def __enter__(self) -> BodySource:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._open.values():
            os.close(file.descriptor)

    def finish(self) -> None:
        """Tell of what no entry states."""
        self.pass_by(self._before)
        for bucket in list(self._open):
            self._drain(self._open.pop(bucket))
        for bucket, first in sorted(self._unread):
            path = body_path(self._directory(bucket), first)
            where = self._where(path)
            if self._ahead_allowed:
                with contextlib.suppress(FileNotFoundError):  # its bucket has just gone
                    self._drain(_File(path, where, self._before))
            else:
                self._tell(where, "No entry states any of its bodies.", None)

    def _where(self, path: Path) -> str:
        return str(path.relative_to(self._ledger))

    def _directory(self, bucket: _Bucket) -> Path:
        root = held_directory(self._ledger) if bucket.held else bodies_directory(self._ledger)
        return root / bucket.retention / bucket.bucket

    def _buckets(self) -> Iterator[_Bucket]:
        for held, root in ((False, bodies_directory(self._ledger)), (True, held_directory(self._ledger))):
            for name in BodyStore(root).buckets():
                yield _Bucket(held, *name)

    def _next_file(self, bucket: _Bucket, index: int) -> _File | None:
        if bucket in self._open:
            self._drain(self._open.pop(bucket))
        firsts = self._firsts.get(bucket, [])
        place = bisect_right(firsts, index) - 1
        if place < 0 or (bucket, firsts[place]) not in self._unread:
            return None
        following = firsts[place + 1] if place + 1 < len(firsts) else self._before
        path = body_path(self._directory(bucket), firsts[place])
        where = self._where(path)
        self._unread.discard((bucket, firsts[place]))
        try:
            file = _File(path, where, following)
        except FileNotFoundError:
            return None  # its bucket has just gone
        self._open[bucket] = file
        try:
            header = read_bodies_header(file.descriptor, firsts[place], self._origin_hash)
            file.end_index = min(header.end_index, following)  # in a replica it may still grow
        except LedgerCorrupt as error:
            self._tell(where, error.message, None)
        return file

    def _advance(self, file: _File) -> frames.Frame | None:
        for frame in file.frames:
            if isinstance(frame, frames.Frame):
                file.end = frame.end
                return frame
            self._tell(file.where, f"Bytes {frame.begin} to {frame.end} are damaged.", None)
        size = os.fstat(file.descriptor).st_size
        if file.end < size and not self._ahead_allowed:
            self._tell(file.where, f"Bytes {file.end} to {size} are damaged.", None)
            file.end = size
        return None

    def _drain(self, file: _File) -> None:
        try:
            while (frame := file.ahead or self._advance(file)) is not None:
                self._stray(file, frame.number)
                file.ahead = None
        finally:
            os.close(file.descriptor)

    def _stray(self, file: _File, index: int) -> None:
        if self._ahead_allowed and index >= self._before:
            return
        self._tell(file.where, f"Entry {index} does not state the body that is here for it.", index)

    def _tell(self, where: str, what: str, index: int | None) -> None:
        self._sink(Fault(kind="body", where=where, what=what, first=index, last=index, remedy=RESTORE))
