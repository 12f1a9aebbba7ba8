"""`Segments`: the write-ahead files, preallocated, one growing at a time (ADR 0001, "Segments").

Contracts: `write` puts frames into the page cache (they outlive this process), `sync` makes what was written before it
durable. After any OSError of either nothing more may be written here: pages may be marked clean (ATC'20).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.store import frames
from rempart.ledger.store.files import make_directory, sync_directory, write_all
from rempart.ledger.store.stream import whole

_CHUNK: Final = bytes(1024 * 1024)
_LOOKS: Final = 4
SEGMENTS: Final = "[0-9]" * 10 + ".seg"
"""The pattern of their names: another file in the directory is none of them."""


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:010d}.seg"


def spare_path(directory: Path) -> Path:
    return directory / "spare"


def numbers(directory: Path) -> list[int]:
    """Numbers of the segments there are, ascending and without a gap; the first may be gone. Raises `LedgerCorrupt`.

    While one is unlinked, a listing may show it and not the next one that went: a true gap is there at the next look.
    """
    for _ in range(_LOOKS):
        found = sorted(int(path.stem) for path in directory.glob(SEGMENTS))
        if not found or found == list(range(found[0], found[-1] + 1)):
            return found
    raise LedgerCorrupt(f"A segment is missing in {directory}.", hint="Restore it from its copy.")


def read_header(directory: Path, number: int, origin_hash: bytes) -> frames.Header:
    """Raises `LedgerCorrupt` when it is not that segment of that log."""
    with segment_path(directory, number).open("rb") as file:
        header = frames.decode_header(file.read(frames.HEADER_BYTES))
    if header.number != number or header.origin_hash != origin_hash:
        raise LedgerCorrupt(f"Segment {number} belongs to another log, or bears another number.")
    return header


def read_segment(path: Path) -> frames.Scan:
    """The frames of a segment, without touching it; a server may be writing there. Raises `LedgerCorrupt`."""
    with path.open("rb") as file:
        found = list(whole(file.fileno()))
    return frames.Scan(found, found[-1].end if found else frames.HEADER_BYTES)


def make_spare(directory: Path) -> None:
    """A new file of zeros, durable. Raises `OSError` when the disk is full; then nothing is left behind."""
    path = spare_path(directory)
    making = path.with_name("spare.new")
    free = os.statvfs(directory)
    if free.f_bavail * free.f_frsize < limits.segment_bytes:  # do not fill what others need too, only to find out
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        _fill(making)
        os.rename(making, path)
    except OSError:
        making.unlink(missing_ok=True)
        raise
    sync_directory(directory)


def _fill(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for offset in range(0, limits.segment_bytes, len(_CHUNK)):
            write_all(descriptor, memoryview(_CHUNK)[: limits.segment_bytes - offset], offset)
            os.fdatasync(descriptor)  # little by little: others wait for this disk
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Segment:
    """The segment that grows."""

    def __init__(self, path: Path, header: frames.Header, end: int) -> None:
        self.number = header.number
        self.end = end
        """Offset of the next frame."""
        self.durable = end
        """Everything before it is durable."""
        self._descriptor = os.open(path, os.O_RDWR)
        self.size = os.fstat(self._descriptor).st_size

    @classmethod
    def begin(cls, directory: Path, header: frames.Header, open_exchanges: bytes) -> Segment:
        """Turn the spare into the next segment; durable when it returns. A crash leaves either all of it or none."""
        first = frames.encode_frame(frames.Kind.OPEN, header.first_index, 0, b"", open_exchanges)
        segment = cls(spare_path(directory), header, frames.HEADER_BYTES)
        write_all(segment._descriptor, frames.encode_header(header) + first, 0)
        segment.end += len(first)
        segment.sync()
        segment.durable = segment.end
        os.rename(spare_path(directory), segment_path(directory, header.number))
        sync_directory(directory)
        return segment

    @property
    def free(self) -> int:
        """Bytes left."""
        return self.size - self.end

    def write(self, data: bytes) -> None:
        """Whole frames; they must fit."""
        write_all(self._descriptor, data, self.end)
        self.end += len(data)

    def sync(self) -> None:
        """Blocks; may run in another thread while `write` runs in this one."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def initialise(directory: Path, origin_hash: bytes) -> None:
    """The first segment of a new log."""
    make_directory(directory)
    if numbers(directory):
        return
    make_spare(directory)
    Segment.begin(directory, frames.Header(0, 0, origin_hash), b"[]").close()
