"""`encode_entry` and `scan`: the bytes of a segment (pure; layout in ADR 0001)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final
from zlib import crc32

import msgspec

from rempart.errors import LedgerCorrupt

HEADER_BYTES: Final = 64
FRAME_BYTES: Final = 40
ALIGNMENT: Final = 8
_MAGIC: Final = b"REMPSEG1"
_FRAME_MAGIC: Final = 0x4D524652
_HEADER = struct.Struct("<8sQQ32sI")
_FRAME = struct.Struct("<IBBHIIQQQ")
_MAGIC_BYTES: Final = struct.pack("<I", _FRAME_MAGIC)
_PADDING: Final = tuple(bytes(n) for n in range(ALIGNMENT))


class Kind(IntEnum):
    """What a frame holds."""

    ENTRY = 1
    PIECE = 2
    OPEN = 3


class Header(msgspec.Struct, frozen=True):
    """The first 64 bytes of a segment."""

    number: int
    first_index: int
    origin_hash: bytes


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame, valid."""

    kind: int
    offset: int
    end: int
    number: int
    """Index of the entry, or sequence of the piece."""
    durable: int
    """Offset known to be durable when it was written."""
    entry: bytes
    body: bytes


class Scan(msgspec.Struct, frozen=True):
    """The valid frames of one segment."""

    frames: list[Frame]
    end: int
    """Offset after the last valid frame that nothing torn precedes."""


def encode_header(header: Header) -> bytes:
    fixed = _HEADER.pack(_MAGIC, header.number, header.first_index, header.origin_hash, 0)
    return fixed + struct.pack("<I", crc32(fixed))


def decode_header(data: bytes) -> Header:
    """Raises `LedgerCorrupt`."""
    if len(data) < HEADER_BYTES or data[:8] != _MAGIC:
        raise LedgerCorrupt("A segment has no header.")
    if struct.unpack_from("<I", data, 60)[0] != crc32(data[:60]):
        raise LedgerCorrupt("A segment's header is damaged.")
    _, number, first_index, origin_hash, _ = _HEADER.unpack_from(data)
    return Header(number, first_index, origin_hash)


def encode_frame(kind: Kind, number: int, durable: int, entry: bytes, body: bytes) -> bytes:
    """The frame with its payload and padding."""
    entry_bytes, body_bytes = len(entry), len(body)
    before = struct.pack("<IBBHI", _FRAME_MAGIC, kind, 0, entry_bytes, body_bytes)
    after = struct.pack("<QQQ", number, durable, 0)
    checksum = crc32(body, crc32(entry, crc32(after, crc32(before))))
    return b"".join(
        (before, checksum.to_bytes(4, "little"), after, entry, body, _PADDING[-(entry_bytes + body_bytes) % ALIGNMENT])
    )


def frame_bytes(entry_bytes: int, body_bytes: int) -> int:
    """Size of a frame with its padding."""
    payload = entry_bytes + body_bytes
    return FRAME_BYTES + payload + -payload % ALIGNMENT


def _decode(data: memoryview, at: int) -> Frame | None:
    if at + FRAME_BYTES > len(data):
        return None
    magic, kind, _, entry_bytes, body_bytes, checksum, number, durable, _ = _FRAME.unpack_from(data, at)
    if magic != _FRAME_MAGIC:
        return None
    middle = at + FRAME_BYTES + entry_bytes
    end = middle + body_bytes
    if end > len(data):
        return None
    payload = data[at + FRAME_BYTES : end]
    if crc32(payload, crc32(data[at + 16 : at + FRAME_BYTES], crc32(data[at : at + 12]))) != checksum:
        return None
    aligned = end + -(entry_bytes + body_bytes) % ALIGNMENT
    return Frame(kind, at, aligned, number, durable, bytes(data[at + FRAME_BYTES : middle]), bytes(data[middle:end]))


def scan(data: bytes | memoryview) -> Scan:
    """The frames from the header on. Raises `LedgerCorrupt` when a hole was known to be durable."""
    view = memoryview(data)
    frames: list[Frame] = []
    at = HEADER_BYTES
    while (frame := _decode(view, at)) is not None:
        frames.append(frame)
        at = frame.end
    for later in _later(view, at):
        if later.durable > at:
            raise LedgerCorrupt(
                f"A segment is damaged at byte {at}: what stood there was durable.",
                hint="Keep the directory as it is, and compare it with a copy or a witness.",
            )
    return Scan(frames, at)


def _later(view: memoryview, at: int) -> Iterator[Frame]:
    """Valid frames after a hole: they tell whether it had been durable."""
    data = bytes(view[at:])
    found = data.find(_MAGIC_BYTES)
    while found >= 0:
        if found % ALIGNMENT == 0 and (frame := _decode(view, at + found)) is not None:
            yield frame
        found = data.find(_MAGIC_BYTES, found + 1)
