"""`BodiesCopy`: encrypted bodies come to a replica: whole files as they are, and what is in segments, frame by frame.

A file that grows bears the end index `OPEN_END` in its header. It is replaced, under the same name, by the source's own
file as soon as there is one. Every body is held to the SHA-256 that its entry states before it is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.copying.source import BodiesFile, Gone, Source, check_offered, segment_name
from rempart.ledger.log import entry as entries
from rempart.ledger.store import frames
from rempart.ledger.store.bodies import (
    HELD,
    BodyStore,
    bodies_directory,
    body_path,
    bucket_directory,
    read_bodies_header,
)
from rempart.ledger.store.files import make_directory, replace_durably, sync_directory, write_all
from rempart.ledger.store.stream import stream

OPEN_END: Final = 2**64 - 1
"""End index of a file that grows."""
_HINT: Final = "Run 'rempart ledger fsck' at the source. The copy stays as it was."

EntryOf = Callable[[int], bytes]
"""Index -> entry, of those that the new checkpoint covers."""
Key = tuple[str, str, int, bool]
"""Class, bucket, first index of the segment, and whether a hold keeps it beyond its bucket."""


class _Cursor(msgspec.Struct):
    """How far a segment was read."""

    first_index: int
    next_index: int
    """Of the entry that comes next."""
    offset: int


class BodiesCopy:
    """The bodies of one replica; it keeps what it knows from round to round."""

    def __init__(self, ledger: Path, origin_hash: bytes) -> None:
        self._directory = bodies_directory(ledger)
        self._origin_hash = origin_hash
        self._whole: set[tuple[Key, int]] = set()
        """Files that are here as the source has them, with their sizes."""
        self._growing: dict[Key, _Growing] = {}
        self._cursors: dict[int, _Cursor] = {}

    def take_files(self, source: Source, listed: list[BodiesFile], size: int, entry_of: EntryOf) -> int:
        """Those that are not here yet; bytes copied. Raises `Gone` when one reaches beyond `size` entries."""
        copied = 0
        for file in listed:
            key = (file.retention, file.bucket, file.first_index, file.held)
            if (key, file.size) in self._whole:
                continue
            _check_listed(file)
            if not self._is_whole(key, file.size):
                self._copy(source, file, size, entry_of)
                copied += file.size
            self._close(key)
            self._whole.add((key, file.size))
        return copied

    def take_segments(self, source: Source, numbers: list[int], size: int, entry_of: EntryOf) -> int:
        """Bodies of entries before `size` that are still in segments; bytes copied. Raises `Gone`, `LedgerCorrupt`."""
        self._cursors = {number: cursor for number, cursor in self._cursors.items() if number in numbers}
        copied, expected = 0, -1
        for number in numbers:
            cursor = self._cursors.get(number)
            if cursor is None:
                cursor = self._cursors[number] = self._begin(source, number)
            if expected not in (-1, cursor.first_index):
                raise Gone(f"Entry {expected} is not in its segment.")
            if cursor.first_index >= size:
                break
            copied += self._take_segment(source, number, cursor, size, entry_of)
            expected = cursor.next_index
        if -1 < expected < size:
            raise Gone(f"Entry {expected} is not in its segment.")
        for growing in self._growing.values():
            growing.sync()
        return copied

    def forget(self, retention: str, bucket: str) -> int:
        """A bucket has expired: its files go; how many there were."""
        for key in [key for key in self._growing if key[:2] == (retention, bucket)]:
            self._close(key)
        return BodyStore(self._directory).unlink(retention, bucket)

    def buckets(self) -> list[tuple[str, str]]:
        """(class, bucket) of all that are here."""
        return BodyStore(self._directory).buckets()

    def close(self) -> None:
        for key in list(self._growing):
            self._close(key)

    def _close(self, key: Key) -> None:
        growing = self._growing.pop(key, None)
        if growing is not None:
            growing.close()

    def _path(self, key: Key) -> Path:
        root = self._directory / HELD if key[3] else self._directory
        return body_path(bucket_directory(root, key[0], key[1]), key[2])

    def _is_whole(self, key: Key, size: int) -> bool:
        path = self._path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(descriptor).st_size != size:
                return False
            return read_bodies_header(descriptor, key[2], self._origin_hash).end_index != OPEN_END
        finally:
            os.close(descriptor)

    def _copy(self, source: Source, file: BodiesFile, size: int, entry_of: EntryOf) -> None:
        path = self._path((file.retention, file.bucket, file.first_index, file.held))
        make_directory(path.parent)
        beside = path.with_name(path.name + ".new")
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for offset in range(0, file.size, limits.replica_part_bytes):
                wanted = min(limits.replica_part_bytes, file.size - offset)
                part = source.read(file.name, offset, wanted)
                if len(part) != wanted:
                    raise Gone(f"{file.name} is shorter than it was listed.")
                write_all(descriptor, part, offset)
            self._check(descriptor, file, size, entry_of)
            os.fsync(descriptor)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        os.rename(beside, path)
        sync_directory(path.parent)

    def _check(self, descriptor: int, file: BodiesFile, size: int, entry_of: EntryOf) -> None:
        """Each body must be the one that its entry states, and nothing else may stand there.

        Of a file that grows, in a source that is a copy itself, what the checkpoint covers is taken, and it is closed.
        """
        header = read_bodies_header(descriptor, file.first_index, self._origin_hash)
        grows = header.end_index == OPEN_END
        if not grows and header.end_index > size:
            raise Gone("A file of bodies is newer than the checkpoint.")
        end_index = min(header.end_index, size)
        end = frames.HEADER_BYTES
        for frame in stream(descriptor):
            if frame.kind != frames.Kind.BODY or not file.first_index <= frame.number < end_index:
                break
            facts = entries.facts(entry_of(frame.number))
            if (facts.retention, facts.bucket) != (file.retention, file.bucket):
                break
            _check_body(frame, facts)
            end = frame.end
        if grows:
            os.ftruncate(descriptor, end)
            closed = frames.BodiesHeader(file.first_index, end_index, self._origin_hash)
            write_all(descriptor, frames.encode_bodies_header(closed), 0)
        elif end != file.size:
            raise LedgerCorrupt(f"{file.name} is damaged at byte {end}.", hint=_HINT)

    def _begin(self, source: Source, number: int) -> _Cursor:
        header = frames.decode_header(source.read(segment_name(number), 0, frames.HEADER_BYTES))
        if header.number != number or header.origin_hash != self._origin_hash:
            raise LedgerCorrupt(f"{segment_name(number)} belongs to another log.", hint=_HINT)
        return _Cursor(header.first_index, header.first_index, frames.HEADER_BYTES)

    def _take_segment(self, source: Source, number: int, cursor: _Cursor, size: int, entry_of: EntryOf) -> int:
        copied = 0
        for frame in _frames(source, segment_name(number), cursor.offset):
            if frame.kind == frames.Kind.ENTRY:
                if frame.number != cursor.next_index:
                    raise Gone(f"Entry {cursor.next_index} is not in its segment.")
                if frame.number >= size:
                    break
                if frame.entry != entry_of(frame.number):
                    what = f"Entry {frame.number} of {segment_name(number)} is not the one of the log."
                    raise LedgerCorrupt(what, hint=_HINT)
                copied += self._take(cursor.first_index, frame)
                cursor.next_index += 1
            cursor.offset = frame.end
        return copied

    def _take(self, first_index: int, frame: frames.Frame) -> int:
        facts = entries.facts(frame.entry)
        _check_body(frame, facts)
        if not frame.body:
            return 0
        key = (facts.retention, facts.bucket, first_index, False)
        growing = self._growing.get(key)
        if growing is None:
            path = self._path(key)
            growing = self._growing[key] = _Growing(path, frames.BodiesHeader(first_index, OPEN_END, self._origin_hash))
        return growing.add(frame.number, frame.body)


class _Growing:
    """A file of bodies that is added to. One that is whole already takes nothing more."""

    def __init__(self, path: Path, header: frames.BodiesHeader) -> None:
        if not path.exists():
            replace_durably({path: frames.encode_bodies_header(header)})
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._end = frames.HEADER_BYTES
        self._last = -1
        self._dirty = False
        found = read_bodies_header(self._descriptor, header.first_index, header.origin_hash)
        self._whole = found.end_index != OPEN_END
        if not self._whole:
            for frame in stream(self._descriptor):
                self._end, self._last = frame.end, frame.number
            os.ftruncate(self._descriptor, self._end)  # what a crash left of a frame

    def add(self, index: int, body: bytes) -> int:
        """In order of the indices; one that is here is passed over. Bytes written."""
        if self._whole or index <= self._last:
            return 0
        frame = frames.encode_frame(frames.Kind.BODY, index, 0, b"", body)
        write_all(self._descriptor, frame, self._end)
        self._end, self._last, self._dirty = self._end + len(frame), index, True
        return len(frame)

    def sync(self) -> None:
        if self._dirty:
            os.fdatasync(self._descriptor)
            self._dirty = False

    def close(self) -> None:
        os.close(self._descriptor)


def _check_listed(file: BodiesFile) -> None:
    """A file of bodies holds at most what one segment held. Raises `LedgerCorrupt`, or `UsageError` at its name."""
    check_offered(file.name)
    if not frames.HEADER_BYTES <= file.size <= 2 * limits.segment_bytes:
        raise LedgerCorrupt(f"{file.name} is listed with {file.size} bytes, which no such file has.", hint=_HINT)


def _check_body(frame: frames.Frame, facts: entries.Facts) -> None:
    digest = sha256(frame.body).hexdigest() if frame.body else ""
    if digest != facts.body or len(frame.body) != facts.body_bytes:
        raise LedgerCorrupt(f"The body of entry {frame.number} is not the one that the entry states.", hint=_HINT)


def _frames(source: Source, name: str, at: int) -> Iterator[frames.Frame]:
    """Valid frames from the offset `at` on, up to the first that is not (yet) there."""
    wanted = limits.replica_part_bytes
    while True:
        view = memoryview(source.read(name, at, wanted))
        place = 0
        while (frame := frames.decode(view, place, at)) is not None:
            yield frame
            place = frame.end - at
        missing = frames.needed(view, place)
        whole = place + missing <= len(view) or missing > limits.segment_bytes
        if not missing or whole or len(view) < wanted:
            return
        at, wanted = at + place, max(limits.replica_part_bytes, missing)
