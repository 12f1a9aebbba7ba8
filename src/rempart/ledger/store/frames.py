"""`encode_frame` and `run`: the bytes of segments and of files of bodies (pure; layout in ADR 0001, ADR 0003)."""

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
_BODIES_MAGIC: Final = b"REMPBOD1"
_FRAME_MAGIC: Final = 0x4D524652
_HEADER = struct.Struct("<8sQQ32sI")
_FRAME = struct.Struct("<IBBHIIQQQ")
MAGIC_BYTES: Final = struct.pack("<I", _FRAME_MAGIC)
"""The first bytes of every frame."""
_PADDING: Final = tuple(bytes(n) for n in range(ALIGNMENT))


class Kind(IntEnum):
    """What a frame holds."""

    ENTRY = 1
    PIECE = 2
    OPEN = 3
    BODY = 4
    """A body whose entry stands in the bundles alone; only in files of bodies (ADR 0003)."""


class Header(msgspec.Struct, frozen=True):
    """The first 64 bytes of a segment."""

    number: int
    first_index: int
    origin_hash: bytes


class BodiesHeader(msgspec.Struct, frozen=True):
    """The first 64 bytes of a file of bodies: those of the entries of one segment, of one class and bucket."""

    first_index: int
    """Index of the segment's first entry."""
    end_index: int
    """One past the index of the segment's last entry."""
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
    return _encode_header(_MAGIC, header.number, header.first_index, header.origin_hash)


def decode_header(data: bytes) -> Header:
    """Raises `LedgerCorrupt`."""
    return Header(*_decode_header(_MAGIC, "segment", data))


def encode_bodies_header(header: BodiesHeader) -> bytes:
    return _encode_header(_BODIES_MAGIC, header.first_index, header.end_index, header.origin_hash)


def decode_bodies_header(data: bytes) -> BodiesHeader:
    """Raises `LedgerCorrupt`."""
    return BodiesHeader(*_decode_header(_BODIES_MAGIC, "file of bodies", data))


def _encode_header(magic: bytes, one: int, two: int, origin_hash: bytes) -> bytes:
    fixed = _HEADER.pack(magic, one, two, origin_hash, 0)
    return fixed + struct.pack("<I", crc32(fixed))


def _decode_header(magic: bytes, what: str, data: bytes) -> tuple[int, int, bytes]:
    if len(data) < HEADER_BYTES or data[:8] != magic:
        raise LedgerCorrupt(f"A {what} has no header.", hint="Restore it from its copy.")
    if struct.unpack_from("<I", data, 60)[0] != crc32(data[:60]):
        raise LedgerCorrupt(f"The header of a {what} is damaged.", hint="Restore it from its copy.")
    _, one, two, origin_hash, _ = _HEADER.unpack_from(data)
    return one, two, origin_hash


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


def needed(data: memoryview, at: int) -> int:
    """How many bytes from `at` on the frame there has with its padding; 0 when no frame begins there."""
    if at + FRAME_BYTES > len(data):
        return FRAME_BYTES
    magic, _, _, entry_bytes, body_bytes = _FRAME.unpack_from(data, at)[:5]
    return frame_bytes(entry_bytes, body_bytes) if magic == _FRAME_MAGIC else 0


def run(data: bytes, base: int = 0) -> list[Frame]:
    """The valid frames from the beginning of `data` on, in front of the first that is none. `base`: as in `decode`.

    All of them at once: a call for each would take longer than what it does.
    """
    found: list[Frame] = []
    view, size, at = memoryview(data), len(data), 0
    while at + FRAME_BYTES <= size:
        magic, kind, _, entry_bytes, body_bytes, checksum, number, durable, _ = _FRAME.unpack_from(data, at)
        body = at + FRAME_BYTES + entry_bytes
        end = body + body_bytes
        if magic != _FRAME_MAGIC or end > size or crc32(view[at + 16 : end], crc32(view[at : at + 12])) != checksum:
            break
        after = end + -(entry_bytes + body_bytes) % ALIGNMENT
        entry = data[at + FRAME_BYTES : body]
        found.append(Frame(kind, base + at, base + after, number, durable, entry, data[body:end]))
        at = after
    return found


def decode(data: memoryview, at: int, base: int = 0) -> Frame | None:
    """The frame at `at`, when a valid one is there. `base` is the place of `data` in its file."""
    wanted = needed(data, at)
    if not wanted or at + wanted >= len(data) + ALIGNMENT:  # its padding may lie beyond
        return None
    found = run(bytes(data[at : at + wanted]), base + at)
    return found[0] if found else None


def scan(data: bytes | memoryview) -> Scan:
    """The frames from the header on. Raises `LedgerCorrupt` when a hole was known to be durable."""
    view = memoryview(data)
    frames = run(bytes(view[HEADER_BYTES:]), HEADER_BYTES)
    at = frames[-1].end if frames else HEADER_BYTES
    for later in _later(view, at):
        if later.durable > at:
            raise damaged(at)
    return Scan(frames, at)


def damaged(at: int) -> LedgerCorrupt:
    """There is a hole at that offset of a segment, and a later frame says that it was durable."""
    return LedgerCorrupt(
        f"A segment is damaged at byte {at}: what stood there was durable.",
        hint="Keep the directory as it is, and compare it with a copy or a witness.",
    )


def _later(view: memoryview, at: int) -> Iterator[Frame]:
    """Valid frames after a hole: they tell whether it had been durable."""
    data = bytes(view[at:])
    found = data.find(MAGIC_BYTES)
    while found >= 0:
        if found % ALIGNMENT == 0 and (frame := decode(view, at + found)) is not None:
            yield frame
        found = data.find(MAGIC_BYTES, found + 1)
