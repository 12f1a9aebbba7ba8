"""`BodyStore.read`: encrypted bodies whose segment is gone (ADR 0003, "Bodies").

`<data>/ledger/bodies/<class>/<bucket>/<first index of the segment, 20 digits>.bod`: a header, then frames of kind 4 in
order of their indices. A file is whole or not there, and never changes; a bucket goes as a whole when its time is over.
"""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.store import frames
from rempart.ledger.store.files import make_directory, sync_directory, write_all
from rempart.ledger.store.stream import stream

HELD: Final = "held"
"""No name of a retention class."""
_SUFFIX: Final = ".bod"
_FLUSH_BYTES: Final = 1 << 20
_CACHED_FILES_MAX: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_FILE: Final = re.compile(r"[0-9]{20}\.bod")


def bodies_directory(ledger: Path) -> Path:
    return ledger / "bodies"


def held_directory(ledger: Path) -> Path:
    """Where bodies stand that a hold keeps though their bucket expired: files of the same form, by class and bucket."""
    return bodies_directory(ledger) / HELD


def bucket_directory(bodies: Path, retention: str, bucket: str) -> Path:
    """Raises `LedgerCorrupt` when these are no names of a class and of a bucket."""
    if not (_NAME.fullmatch(retention) and _NAME.fullmatch(bucket)):
        raise LedgerCorrupt("An entry names a retention class or a bucket that cannot be one.")
    return bodies / retention / bucket


def body_path(directory: Path, first_index: int) -> Path:
    return directory / f"{first_index:020d}{_SUFFIX}"


def first_indices(directory: Path) -> list[int]:
    """First indices of the files of one bucket, ascending; empty when there is no such bucket."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name.removesuffix(_SUFFIX)) for name in names if _FILE.fullmatch(name))


def read_bodies_header(descriptor: int, first_index: int, origin_hash: bytes = b"") -> frames.BodiesHeader:
    """Raises `LedgerCorrupt` when it is not that file, or of another log."""
    header = frames.decode_bodies_header(os.pread(descriptor, frames.HEADER_BYTES, 0))
    if header.first_index != first_index or origin_hash not in (b"", header.origin_hash):
        raise LedgerCorrupt("A file of bodies belongs to another log, or bears another name.")
    return header


class BodyWriter:
    """One file of bodies in the making, beside its place; what an earlier try left there is replaced."""

    def __init__(self, directory: Path, header: frames.BodiesHeader) -> None:
        make_directory(directory)
        self.path = body_path(directory, header.first_index)
        self._beside = self.path.with_name(self.path.name + ".new")
        self._descriptor = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._waiting = [frames.encode_bodies_header(header)]
        self._waiting_bytes = frames.HEADER_BYTES
        self._written = 0

    def add(self, index: int, body: bytes) -> None:
        """In order of the indices."""
        frame = frames.encode_frame(frames.Kind.BODY, index, 0, b"", body)
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        if self._waiting_bytes >= _FLUSH_BYTES:
            self._flush()
            os.fdatasync(self._descriptor)  # little by little: the ledger's own syncs wait for this disk

    def finish(self) -> None:
        """Durable when it returns, still beside its place."""
        self._flush()
        os.fsync(self._descriptor)

    def place(self) -> None:
        """Whole and durable where it belongs when it returns."""
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.rename(self._beside, self.path)
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        """It could not be finished: nothing is left beside its place."""
        self._beside.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._descriptor)

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        write_all(self._descriptor, data, self._written)
        self._written += len(data)
        self._waiting, self._waiting_bytes = [], 0


class _Offsets(msgspec.Struct, frozen=True):
    """Where the bodies of one file stand."""

    end_index: int
    indices: array[int]
    offsets: array[int]


class BodyStore:
    """Reads `<data>/ledger/bodies`; keeps the offsets of the files that were asked last. Not for several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: OrderedDict[Path, _Offsets] = OrderedDict()
        self._listed: dict[Path, list[int]] = {}
        """Files of buckets as they were listed last: what is not found by it is looked for in a new listing."""

    def read(self, retention: str, bucket: str, index: int) -> bytes | None:
        """The encrypted body of the entry `index`, or None when it is not here.

        Raises `LedgerCorrupt` when its file is damaged.
        """
        directory = bucket_directory(self._directory, retention, bucket)
        listed = self._listed.get(directory)
        found = None if listed is None else self._in_bucket(directory, listed, index)
        if found is not None:
            return found
        if len(self._listed) >= _CACHED_FILES_MAX:
            self._listed.clear()
        self._listed[directory] = listed = first_indices(directory)
        return self._in_bucket(directory, listed, index)

    def _in_bucket(self, directory: Path, firsts: list[int], index: int) -> bytes | None:
        place = bisect_right(firsts, index) - 1
        if place < 0:
            return None
        path = body_path(directory, firsts[place])
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None  # its bucket has just gone
        try:
            return self._read(descriptor, path, index)
        finally:
            os.close(descriptor)

    def buckets(self) -> list[tuple[str, str]]:
        """(class, bucket) of all that have a directory, sorted."""
        return sorted((path.parent.name, path.name) for path in self._directory.glob("*/*") if _is_bucket(path))

    def unlink(self, retention: str, bucket: str) -> int:
        """Remove a bucket's files durably; how many there were. May be called again after a crash."""
        directory = bucket_directory(self._directory, retention, bucket)
        if not directory.is_dir():
            return 0
        count = len(first_indices(directory))
        for path in sorted(directory.iterdir()):
            os.unlink(path)
            self._known.pop(path, None)
        sync_directory(directory)
        os.rmdir(directory)
        sync_directory(directory.parent)
        return count

    def _read(self, descriptor: int, path: Path, index: int) -> bytes | None:
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = _offsets(descriptor, int(path.stem))
            if len(self._known) > _CACHED_FILES_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(path)
        place = bisect_left(known.indices, index)
        if place < len(known.indices) and known.indices[place] == index:
            at, end = known.offsets[place], known.offsets[place + 1]
            frame = frames.decode(memoryview(os.pread(descriptor, end - at, at)), 0, at)
            if frame is not None and frame.number == index:
                return frame.body
        elif index >= known.end_index or known.offsets[-1] == os.fstat(descriptor).st_size:
            return None
        raise LedgerCorrupt(f"{path} is damaged.", hint="Restore it from its copy; see 'rempart ledger fsck'.")


def _is_bucket(path: Path) -> bool:
    return path.parent.name != HELD and path.is_dir()


def _offsets(descriptor: int, first_index: int) -> _Offsets:
    """The last of the offsets is the end of what is whole."""
    header = read_bodies_header(descriptor, first_index)
    indices, offsets = array("Q"), array("Q", [frames.HEADER_BYTES])
    for frame in stream(descriptor):
        indices.append(frame.number)
        offsets.append(frame.end)
    return _Offsets(header.end_index, indices, offsets)
