"""`rempart.ledger.store.frames`: the layout of ADR 0001, and what a scan makes of torn and of damaged segments."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest

from rempart.errors import LedgerCorrupt
from rempart.ledger.store.frames import (
    FRAME_BYTES,
    HEADER_BYTES,
    Header,
    Kind,
    decode_header,
    encode_frame,
    encode_header,
    frame_bytes,
    run,
    scan,
)

HEADER = Header(3, 1_000, bytes(range(32)))
START = encode_header(HEADER)


def segment(*frames: bytes, zeros: int = 4_096) -> bytes:
    return START + b"".join(frames) + bytes(zeros)


def numbered(count: int, body: bytes = b"body") -> list[bytes]:
    """Frames each written when all before it was durable."""
    made: list[bytes] = []
    at = HEADER_BYTES
    for number in range(count):
        made.append(encode_frame(Kind.ENTRY, number, at, b'{"n":%d}' % number, body))
        at += len(made[-1])
    return made


def batch(count: int) -> list[bytes]:
    """Frames of one commit: none knows of any other that it is durable."""
    return [encode_frame(Kind.ENTRY, number, HEADER_BYTES, b'{"n":%d}' % number, b"body") for number in range(count)]


def found(data: bytes) -> list[int]:
    return [frame.number for frame in scan(data).frames]


def test_a_header_has_the_layout_of_the_adr() -> None:
    assert len(START) == 64
    assert START[:8] == b"REMPSEG1"
    assert struct.unpack("<QQ", START[8:24]) == (3, 1_000)
    assert START[24:56] == bytes(range(32))
    assert START[56:60] == bytes(4)
    assert struct.unpack("<I", START[60:]) == (crc32(START[:60]),)


def test_a_header_is_read_back() -> None:
    assert decode_header(START) == HEADER
    assert decode_header(segment()) == HEADER


@pytest.mark.parametrize("at", range(64))
def test_a_changed_header_is_refused(at: int) -> None:
    changed = bytearray(START)
    changed[at] ^= 0x10
    with pytest.raises(LedgerCorrupt):
        decode_header(bytes(changed))


@pytest.mark.parametrize("data", [b"", b"REMPSEG1", START[:-1], bytes(64)])
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(LedgerCorrupt, match="no header"):
        decode_header(data)


def test_a_frame_has_the_layout_of_the_adr() -> None:
    frame = encode_frame(Kind.PIECE, 2**40, 4_096, b"entry", b"the body")
    assert struct.unpack("<IBBHI", frame[:12]) == (0x4D524652, 2, 0, 5, 8)
    assert frame[:4] == b"RFRM"
    assert struct.unpack("<I", frame[12:16]) == (crc32(frame[:12] + frame[16:53]),)
    assert struct.unpack("<QQQ", frame[16:40]) == (2**40, 4_096, 0)
    assert frame[40:] == b"entrythe body" + bytes(3)


@pytest.mark.parametrize("payload", range(17))
def test_frames_end_at_multiples_of_eight(payload: int) -> None:
    frame = encode_frame(Kind.ENTRY, 0, 0, bytes(payload // 2), bytes(payload - payload // 2))
    assert len(frame) % 8 == 0
    assert len(frame) == frame_bytes(payload // 2, payload - payload // 2)
    assert FRAME_BYTES + payload <= len(frame) < FRAME_BYTES + payload + 8


def test_the_longest_entry_fits_and_a_longer_one_does_not() -> None:
    longest = encode_frame(Kind.ENTRY, 0, 0, bytes(65_535), b"")
    assert len(scan(segment(longest)).frames[0].entry) == 65_535
    with pytest.raises(struct.error):
        encode_frame(Kind.ENTRY, 0, 0, bytes(65_536), b"")


def test_frames_are_read_back() -> None:
    opens = encode_frame(Kind.OPEN, 1_000, 0, b"", b"[]")
    piece = encode_frame(Kind.PIECE, 0, 64, bytes(16), b"sealed")
    entry = encode_frame(Kind.ENTRY, 1_000, 64, b"{}", b"")
    result = scan(segment(opens, piece, entry))
    assert [(frame.kind, frame.number, frame.durable, frame.entry, frame.body) for frame in result.frames] == [
        (Kind.OPEN, 1_000, 0, b"", b"[]"),
        (Kind.PIECE, 0, 64, bytes(16), b"sealed"),
        (Kind.ENTRY, 1_000, 64, b"{}", b""),
    ]
    ends = [64, 64 + len(opens), 64 + len(opens) + len(piece), 64 + len(opens) + len(piece) + len(entry)]
    assert [frame.offset for frame in result.frames] == ends[:-1]
    assert [frame.end for frame in result.frames] == ends[1:]
    assert result.end == ends[-1]


@pytest.mark.parametrize("data", [b"", START, segment(), segment(zeros=3)])
def test_a_segment_without_frames(data: bytes) -> None:
    result = scan(data)
    assert (result.frames, result.end) == ([], HEADER_BYTES)


def test_a_view_of_a_file_is_read_like_its_bytes() -> None:
    data = segment(*numbered(3))
    assert scan(memoryview(data)) == scan(data)


def test_the_last_write_may_be_torn() -> None:
    frames = numbered(3)
    whole = START + frames[0] + frames[1]
    for cut in range(1, len(frames[2]) - 7, 5):
        result = scan(whole + frames[2][:cut] + bytes(4_096))
        assert [frame.number for frame in result.frames] == [0, 1]
        assert result.end == len(whole)


def test_a_commit_may_be_torn_in_its_middle() -> None:
    first, second, third = batch(3)
    result = scan(segment(first, bytes(len(second)), third))
    assert [frame.number for frame in result.frames] == [0]
    assert result.end == HEADER_BYTES + len(first)


def test_nothing_is_read_of_a_torn_write_that_begins_with_zeros() -> None:
    """Pages reach the disk in any order: the beginning of the last frame may be missing and its end be there."""
    [frame] = numbered(1, body=b"\xaa" * 8_192)
    result = scan(START + bytes(4_096) + frame[4_096:] + bytes(4_096))
    assert (result.frames, result.end) == ([], HEADER_BYTES)


@pytest.mark.parametrize("at", [0, 4, 8, 12, 16, 24, 40, 50])
def test_damage_before_what_was_durable_is_refused(at: int) -> None:
    frames = numbered(3)
    damaged = bytearray(segment(*frames))
    damaged[HEADER_BYTES + len(frames[0]) + at] ^= 1
    with pytest.raises(LedgerCorrupt, match="was durable"):
        scan(bytes(damaged))


def test_a_durable_frame_overwritten_by_zeros_is_refused() -> None:
    frames = numbered(4)
    with pytest.raises(LedgerCorrupt, match=f"byte {HEADER_BYTES}:") as caught:
        scan(segment(bytes(len(frames[0])), *frames[1:]))
    assert caught.value.hint


def test_frames_that_swapped_places_are_seen_by_their_numbers_alone() -> None:
    """Each is valid: order is checked where indices are (`recover`, `verify`)."""
    first, second = batch(2)
    assert found(segment(second, first)) == [1, 0]


def test_a_frame_inside_a_body_is_no_frame() -> None:
    inner = encode_frame(Kind.ENTRY, 99, 0, b"{}", b"")
    outer = encode_frame(Kind.ENTRY, 0, HEADER_BYTES, b"{}", bytes(6) + inner)
    assert found(segment(outer)) == [0]


def test_a_frame_longer_than_the_segment_is_none() -> None:
    [frame] = numbered(1)
    assert found(START + frame[: FRAME_BYTES + 3]) == []
    longer = struct.pack("<I", 2**31)
    assert found(segment(frame[:8] + longer + frame[12:])) == []


def test_a_run_gives_the_frames_in_front_of_the_first_that_is_damaged() -> None:
    made = numbered(5)
    data = bytearray(b"".join(made))
    assert [frame.number for frame in run(bytes(data))] == [0, 1, 2, 3, 4]
    data[len(b"".join(made[:3])) + FRAME_BYTES] ^= 1
    found = run(bytes(data), HEADER_BYTES)
    assert [frame.number for frame in found] == [0, 1, 2]
    assert (found[1].offset, found[1].end) == (HEADER_BYTES + len(made[0]), HEADER_BYTES + len(made[0] + made[1]))


def test_a_run_does_not_need_the_padding_of_its_last_frame() -> None:
    made = b"".join(numbered(2, b"odd"))
    assert made[-1:] == b"\0"
    assert [frame.number for frame in run(made.rstrip(b"\0"))] == [0, 1]
    assert run(made[: FRAME_BYTES - 1]) == []
