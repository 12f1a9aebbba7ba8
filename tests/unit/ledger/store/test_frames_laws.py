"""`rempart.ledger.store.frames`: what holds of all segments, however they were cut or damaged."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rempart.errors import LedgerCorrupt
from rempart.ledger.store.frames import HEADER_BYTES, Header, Kind, encode_frame, encode_header, scan

FRAMES = st.lists(
    st.tuples(st.sampled_from(Kind), st.binary(max_size=40), st.binary(max_size=40), st.booleans()), max_size=8
)
ZEROS = bytes(256)


def segment(parts: list[tuple[Kind, bytes, bytes, bool]]) -> bytes:
    """Each frame begins a commit or belongs to the one before."""
    data, durable = encode_header(Header(0, 0, bytes(32))), HEADER_BYTES
    for number, (kind, entry, body, begins) in enumerate(parts):
        durable = len(data) if begins else durable
        data += encode_frame(kind, number, durable, entry, body)
    return data


def said(data: bytes) -> list[tuple[int, int, bytes, bytes]]:
    return [(frame.kind, frame.number, frame.entry, frame.body) for frame in scan(data).frames]


def meant(parts: list[tuple[Kind, bytes, bytes, bool]]) -> list[tuple[int, int, bytes, bytes]]:
    return [(kind, number, entry, body) for number, (kind, entry, body, _) in enumerate(parts)]


@given(FRAMES)
def test_frames_are_read_back(parts: list[tuple[Kind, bytes, bytes, bool]]) -> None:
    data = segment(parts)
    assert said(data + ZEROS) == said(data) == meant(parts)
    result = scan(data + ZEROS)
    assert result.end == len(data)
    assert all(before.end == after.offset for before, after in pairwise(result.frames))


@given(FRAMES, st.integers(min_value=HEADER_BYTES), st.booleans())
def test_a_segment_cut_anywhere_gives_what_was_whole(
    parts: list[tuple[Kind, bytes, bytes, bool]], cut: int, filled: bool
) -> None:
    data = segment(parts)
    frames = said(data[:cut] + (ZEROS if filled else b""))
    assert frames == meant(parts)[: len(frames)]
    assert len(frames) >= sum(frame.end <= cut for frame in scan(data).frames)


@given(
    FRAMES, st.lists(st.tuples(st.integers(min_value=0), st.binary(min_size=1, max_size=60)), min_size=1, max_size=3)
)
def test_damage_gives_fewer_frames_or_an_error_and_never_another(
    parts: list[tuple[Kind, bytes, bytes, bool]], damage: list[tuple[int, bytes]]
) -> None:
    data = bytearray(segment(parts) + ZEROS)
    for at, written in damage:
        at %= len(data)
        data[at : at + len(written)] = written
    try:
        frames = said(bytes(data))
    except LedgerCorrupt:
        return
    assert frames == meant(parts)[: len(frames)]


@given(FRAMES.filter(bool), st.data())
def test_what_was_durable_is_never_lost_unsaid(
    parts: list[tuple[Kind, bytes, bytes, bool]], data: st.DataObject
) -> None:
    """A flipped bit before the offset that a whole later frame calls durable is an error."""
    whole = scan(segment(parts)).frames
    durable = whole[-1].durable
    assume(durable > HEADER_BYTES)
    hit = data.draw(st.sampled_from([frame for frame in whole if frame.end <= durable]))
    at = data.draw(st.integers(min_value=hit.offset, max_value=hit.offset + 39 + len(hit.entry) + len(hit.body)))
    damaged = bytearray(segment(parts) + ZEROS)
    damaged[at] ^= 1 << data.draw(st.integers(min_value=0, max_value=7))
    with pytest.raises(LedgerCorrupt):
        scan(bytes(damaged))
