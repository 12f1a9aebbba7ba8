"""`rempart.ledger.store.stream`: as a scan of the whole file has it, a chunk at a time, and past what is damaged."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rempart.errors import LedgerCorrupt
from rempart.ledger.store import stream as streams
from rempart.ledger.store.frames import HEADER_BYTES, Frame, Header, Kind, encode_frame, encode_header, scan
from rempart.ledger.store.stream import Hole, stream, survey, whole

SIZES = st.lists(st.integers(min_value=0, max_value=300), max_size=12)


@contextlib.contextmanager
def on_disk(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


def segment(sizes: list[int], zeros: int = 100, *, durable: bool = True) -> bytes:
    data = encode_header(Header(0, 0, bytes(32)))
    for index, size in enumerate(sizes):
        known = len(data) if durable else HEADER_BYTES
        data += encode_frame(Kind.ENTRY, index, known, b"{}", bytes([index]) * size)
    return data + bytes(zeros)


@settings(deadline=None)
@given(SIZES, st.integers(0, 100), st.sampled_from([64, 100, 256, 1 << 20]))
def test_a_stream_gives_what_a_scan_gives(sizes: list[int], zeros: int, chunk: int) -> None:
    data = segment(sizes, zeros)
    with pytest.MonkeyPatch.context() as patch, on_disk(data) as descriptor:
        patch.setattr(streams, "_CHUNK_BYTES", chunk)
        assert list(stream(descriptor)) == scan(data).frames
        assert list(survey(descriptor)) == scan(data).frames


@settings(deadline=None)
@given(SIZES, st.integers(0), st.booleans(), st.sampled_from([64, 256, 1 << 20]))
def test_a_changed_bit_is_judged_as_a_scan_judges_it(sizes: list[int], at: int, durable: bool, chunk: int) -> None:
    data = bytearray(segment(sizes, durable=durable))
    data[HEADER_BYTES + at % (len(data) - HEADER_BYTES)] ^= 4
    with pytest.MonkeyPatch.context() as patch, on_disk(bytes(data)) as descriptor:
        patch.setattr(streams, "_CHUNK_BYTES", chunk)
        try:
            wanted = scan(bytes(data)).frames
        except LedgerCorrupt:
            with pytest.raises(LedgerCorrupt):
                list(whole(descriptor))
        else:
            assert list(whole(descriptor)) == wanted


def test_a_survey_goes_on_after_a_hole() -> None:
    data = bytearray(segment([10, 2_000, 20, 30]))
    data[HEADER_BYTES + 60 + 100] ^= 1
    with on_disk(bytes(data)) as descriptor:
        found = list(survey(descriptor))
    assert [one.number if isinstance(one, Frame) else "hole" for one in found] == [0, "hole", 2, 3]
    (hole,) = (one for one in found if isinstance(one, Hole))
    assert hole.begin < HEADER_BYTES + 160 < hole.end


@pytest.mark.parametrize("read", [survey, whole])
def test_what_was_being_written_when_it_was_read_is_no_hole(
    read: Callable[[int], Iterator[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two looks the writer finishes that frame, syncs it, and writes one that says so."""
    data = segment([10, 2_000], zeros=0)
    data += encode_frame(Kind.ENTRY, 2, len(data), b"after", b"")
    half = HEADER_BYTES + 60 + 100
    resume = streams._resume

    def looked_behind(descriptor: int, at: int) -> int | None:
        os.pwrite(descriptor, data, 0)
        return resume(descriptor, at)

    monkeypatch.setattr(streams, "_resume", looked_behind)
    with on_disk(data[:half] + bytes(len(data) - half)) as descriptor:
        assert list(read(descriptor)) == scan(data).frames


def test_a_length_that_cannot_be_is_not_read() -> None:
    data = bytearray(segment([10]))
    data[HEADER_BYTES + 8 : HEADER_BYTES + 12] = b"\xff\xff\xff\xff"
    with on_disk(bytes(data)) as descriptor:
        assert list(stream(descriptor)) == []
